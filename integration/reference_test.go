package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/integration/world"
)

const referenceURL = "https://github.com/stefanprodan/gitops-app-distribution"

// tellReference is tell with the public reference distribution instead of the sample.
func tellReference(t *testing.T) (s *story, inputs string) {
	t.Helper()
	root, err := world.Root()
	if err != nil {
		t.Fatal(err)
	}
	inputs = filepath.Join(root, "..", "shared", "distributions")
	if _, err := os.Stat(filepath.Join(inputs, "app-distribution.gitbundle")); err != nil {
		t.Skip("the reference distribution is not beside this checkout; the other stories tell the same with the project's own data")
	}
	s = tell(t, 1)
	s.must(s.real[0].InstallFlaggerCRD(s.ctx))
	s.vendor, err = world.CloneVendor(s.ctx, filepath.Join(s.dir, "reference"), filepath.Join(inputs, "app-distribution.gitbundle"))
	s.must(err)
	_, err = s.hub.Must(s.ctx, "distribution", "add", "app", "--git", s.vendor.Dir, "--interval", "1s")
	s.must(err)
	s.must(s.spokes[0].Join(s.ctx, s.hub))
	return s, inputs
}

// Every row of the reference distribution that needs no signers and no canary.
func TestReferenceDistribution(t *testing.T) {
	s, _ := tellReference(t)
	sp := s.spokes[0]
	pin := func(version string) {
		s.must(sp.Configure(fmt.Sprintf("- distribution: app\n  variant: app-kubernetes\n  namespace: app\n  versions: {pin: %q, pinReason: story}\n", version)))
	}
	objects := func() string {
		return s.kubectl(0, "-n", "app", "get", "deployments,services,hpa,configmaps,cronjobs,poddisruptionbudgets,canaries.flagger.app", "-l", "wheelwright.dev/distribution=app", "-o", "name", "--ignore-not-found")
	}

	pin("1.0.0")
	s.must(sp.Start())
	s.in("Refused", "")
	row, err := s.hub.Status(s.ctx)
	s.must(err)
	if reason := row.GetRows()[0].GetReason(); !strings.Contains(reason, "flagger.app/v1alpha3 is not served by this cluster; it serves flagger.app/v1beta1") {
		t.Errorf("1.0.0 was refused because of %q, want the kind and version that the cluster does not serve", reason)
	}
	if got := s.kubectl(0, "get", "namespace", "app", "--ignore-not-found", "-o", "name"); got != "" {
		t.Errorf("1.0.0 was refused and still left %s", got)
	}

	for _, version := range []string{"1.1.0", "1.1.1", "1.2.0"} {
		pin(version)
		s.runs(version)
	}
	if n := len(splitLines(objects())) + 1; n != 24 { // and the namespace
		t.Errorf("1.2.0 has %d objects on the cluster, want 24:\n%s", n, objects())
	}

	before := objects()
	pin("1.3.0")
	s.in("RolledBack", "1.2.0")
	if after := objects(); after != before {
		t.Errorf("1.3.0 was not rolled back whole:\nbefore\n%s\nafter\n%s", before, after)
	}
	for version, why := range map[string]string{"1.5.0": "latest", "1.6.0": ""} {
		r, err := s.hub.Release(s.ctx, "app", version)
		s.must(err)
		text := fmt.Sprint(r.GetReasons(), r.GetVariants())
		if r.GetPhase() != "Rejected" || !strings.Contains(text, why) || len(r.GetVariants()) != 3 {
			t.Errorf("%s: %s %s", version, r.GetPhase(), text)
		}
	}

	pin("1.2.0")
	s.runs("1.2.0")
	pin("2.0.0")
	s.runs("2.0.0")
	after := objects()
	if !strings.Contains(after, "poddisruptionbudget") || strings.Contains(after, "traffic-generator") {
		t.Errorf("2.0.0 adds a PodDisruptionBudget and takes the traffic generator away; the cluster has\n%s", after)
	}
}

// The four steps of the reference provider, as its own repository has them.
func TestReferenceProvider(t *testing.T) {
	s, inputs := tellReference(t)
	own, err := world.CloneVendor(s.ctx, filepath.Join(s.dir, "provider"), filepath.Join(inputs, "provider-config.gitbundle"))
	s.must(err)
	step := func(tag string) { s.must(own.Git(s.ctx, "checkout", "-q", "-B", "live", tag)) }
	step("step-1-install")
	sp := s.spokes[0]
	s.must(sp.Configure(fmt.Sprintf("- distribution: app\n  namespace: app\n  source: [%s]\n  overlay: {git: %s, revision: live, path: app, interval: 1s}\n", referenceURL, own.Dir)))
	s.must(sp.Start())
	s.runs("1.1.0")
	if got := s.kubectl(0, "-n", "app", "get", "hpa", "frontend", "-o", "jsonpath={.spec.maxReplicas}"); got != "8" {
		t.Errorf("the provider's HPA maximum is %s, want 8", got)
	}
	step("step-2-upgrade")
	s.runs("1.2.0")
	step("step-3-bad-upgrade")
	s.runs("1.4.0") // healthy by every sign but its traffic
	step("step-4-revert")
	s.runs("1.2.0")
}
