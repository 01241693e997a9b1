package realnode_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/integration/load"
	"github.com/wheelwright-dev/wheelwright/integration/realnode"
	"github.com/wheelwright-dev/wheelwright/integration/world"
)

// outcome is what one of the two did with a good release and with a bad one.
type outcome struct {
	good, detect, apart time.Duration // until all is promoted; until the bad one is undone; on two releases at once, of the good one
	byRate              time.Duration // until a bad one is undone that only its traffic gives away
	failed              float64       // percent of users' requests while the bad ones were tried
	mixed               int           // services that end on another release than the others
	requests            int           // to the API server, of both releases
}

// The same distribution, the same analysis, the same load on the same cluster: first with Flagger, then with the
// spoke and its canary plugin. 1.1.1 is good. 1.4.0's backend fails a third of its requests; the other three
// services of it are well, and are promoted by whoever judges them one by one. 1.4.1 is the same behind an
// acceptance test that sees nothing.
func TestSideBySideWithFlagger(t *testing.T) {
	if os.Getenv("WHEELWRIGHT_FIGURES") == "" {
		t.Skip("takes 20 minutes: make figures ONLY='canary|flagger' runs it")
	}
	node := realnode.Shared(t)
	s := &shop{t: t, node: node}
	vendor := reference(t)
	if err := errors.Join(
		vendor.Git(t.Context(), "checkout", "-q", "1.4.0"),
		vendor.Replace("backend/canary.patch.yaml", "curl -sd 'test' http://backend-canary:9898/token | grep token", "true"),
		vendor.Replace("base/backend/deployment", "random-error=true", "random-error=1"),
		vendor.Release(t.Context(), "1.4.1"),
	); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.gone)
	theirs := s.withFlagger(vendor)
	ours := s.withSpoke(vendor)
	for _, o := range []struct {
		name string
		outcome
	}{{"flagger", theirs}, {"canary", ours}} {
		fmt.Printf("FIGURE %s.bad-release-detect %.0f s from its apply until it was undone\n", o.name, o.detect.Seconds())
		fmt.Printf("FIGURE %s.detect-by-rate %.0f s the same of a bad release that passes its acceptance test\n", o.name, o.byRate.Seconds())
		fmt.Printf("FIGURE %s.failed-requests %.2f %% of the users' 20 requests/s while the bad releases were tried\n", o.name, o.failed)
		fmt.Printf("FIGURE %s.two-releases-at-once %.1f s stable workloads of a good release on two releases; promoted after %.0f s\n", o.name, o.apart.Seconds(), o.good.Seconds())
		fmt.Printf("FIGURE %s.mixed-end-services %d services of 4 on another release than backend after the bad one\n", o.name, o.mixed)
		fmt.Printf("FIGURE %s.api-requests %d requests to the API server for all three releases, watches included\n", o.name, o.requests)
	}
	const interval = 10 * time.Second // of the analysis
	switch {
	case ours.mixed != 0:
		t.Errorf("the bad release ends as a mixture: %d services", ours.mixed)
	case ours.detect > theirs.detect:
		t.Errorf("the bad release is undone after %s, Flagger takes %s", ours.detect, theirs.detect)
	case ours.byRate > theirs.byRate:
		t.Errorf("the bad release that its traffic gives away is undone after %s, Flagger takes %s", ours.byRate, theirs.byRate)
	case ours.failed > theirs.failed+0.05:
		t.Errorf("users saw %.2f %% fail, with Flagger %.2f %%", ours.failed, theirs.failed)
	case ours.apart > interval:
		t.Errorf("the good release's services were on two releases for %s", ours.apart)
	}
}

// mixed counts the services that are on another release than backend.
func mixed(stable map[string]string) (n int) {
	for _, what := range stable {
		if image(what) != image(stable["backend"]) {
			n++
		}
	}
	return n
}

// failedSince is the share of users' requests that failed, in percent.
func failedSince(users *load.Run, from time.Time) float64 {
	sent, failed := users.Report().Between(from, time.Now())
	return 100 * float64(failed) / float64(max(sent, 1))
}

func (s *shop) rendered(vendor *world.Vendor, tag string) string {
	s.t.Helper()
	if err := vendor.Git(s.t.Context(), "checkout", "-q", tag); err != nil {
		s.t.Fatal(err)
	}
	return s.kubectl("kustomize", filepath.Join(vendor.Dir, "dist", "app-kubernetes"))
}

func (s *shop) withFlagger(vendor *world.Vendor) (o outcome) {
	s.t.Helper()
	s.gone()
	flagger, err := s.node.StartFlagger(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	defer flagger.Stop()
	become := func(want ...string) {
		s.t.Helper()
		eventually(s.t, "Flagger's verdicts", 6*time.Minute, func() error {
			out, err := s.node.Cluster.Kubectl("-n", "app", "get", "canaries", "-o", `jsonpath={range .items[*]}{.metadata.name}={.status.phase} {end}`)
			if err != nil {
				return err
			}
			ended := 0
			for _, word := range strings.Fields(out) {
				for _, phase := range want {
					if strings.HasSuffix(word, "="+phase) {
						ended++
					}
				}
			}
			if ended < len(services) {
				return fmt.Errorf("%s", out)
			}
			s.t.Log(out)
			return nil
		})
	}
	apply := func(tag string) {
		s.t.Helper()
		if err := s.node.Cluster.Apply(s.rendered(vendor, tag)); err != nil {
			s.t.Fatal(err)
		}
	}
	apply("1.1.0")
	become("Initialized")
	users := s.users()
	defer users.Stop()
	mark := s.node.Cluster.MarkRequests(s.t)

	m, begin := s.mixture("-primary", image), time.Now()
	apply("1.1.1")
	eventually(s.t, "Flagger sees 1.1.1", time.Minute, func() error {
		out, err := s.node.Cluster.Kubectl("-n", "app", "get", "canaries", "-o", "jsonpath={.items[*].status.phase}")
		if err == nil && strings.Contains(out, "Initialized") {
			err = fmt.Errorf("%s", out)
		}
		return err
	})
	become("Succeeded")
	m.stop()
	o.good, o.apart = time.Since(begin), m.took

	backend := func(what string, until func(phase string) bool) {
		s.t.Helper()
		eventually(s.t, what, 6*time.Minute, func() error {
			out, err := s.node.Cluster.Kubectl("-n", "app", "get", "canary", "backend", "-o", "jsonpath={.status.phase}")
			if err == nil && !until(out) {
				err = fmt.Errorf("%s", out)
			}
			return err
		})
	}
	undone := func(phase string) bool { return phase == "Failed" }
	first := time.Now()
	apply("1.4.0")
	backend("backend's failure", undone)
	o.detect = time.Since(first)
	become("Succeeded", "Failed")
	o.mixed = mixed(s.stable("-primary"))

	begin = time.Now()
	apply("1.4.1") // only backend differs from 1.4.0
	backend("Flagger sees 1.4.1", func(phase string) bool { return phase != "Failed" })
	backend("backend's failure again", undone)
	o.byRate = time.Since(begin)
	o.failed = failedSince(users, first)
	s.t.Logf("users: %v", users.Report())
	o.requests = len(s.node.Cluster.Requests(s.t, mark, "flagger"))
	s.gone()
	return o
}

func (s *shop) withSpoke(vendor *world.Vendor) (o outcome) {
	s.t.Helper()
	p := s.provider(vendor)
	p.reaches("Succeeded", "1.1.0")
	users := s.users()
	defer users.Stop()
	mark := s.node.Cluster.MarkRequests(s.t)
	m := s.mixture("", image)
	p.pin("1.1.1", "")
	o.good, _ = p.reaches("Succeeded", "1.1.1")
	m.stop()
	o.apart = m.took

	begin := time.Now()
	p.pin("1.4.0", "")
	o.detect, _ = p.reaches("RolledBack", "1.4.0")
	p.pin("1.4.1", "")
	var r row
	if o.byRate, r = p.reaches("RolledBack", "1.4.1"); !strings.Contains(r.Reason, "success rate") {
		s.t.Errorf("1.4.1 is rolled back because of %q", r.Reason)
	}
	o.failed = failedSince(users, begin)
	s.t.Logf("users: %v", users.Report())
	o.mixed = mixed(s.stable(""))
	for _, agent := range []string{"wheelwright", "spoke", "canary", "conformance"} {
		o.requests += len(s.node.Cluster.Requests(s.t, mark, agent))
	}
	return o
}
