package agent_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/integration/controlplane"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// errorsOf stands in for Prometheus: the workload that it is told of makes errors, and no other.
type errorsOf struct{ workload atomic.Value }

func (e *errorsOf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	value, bad := "0", e.workload.Load().(string)
	switch query := r.FormValue("query"); {
	case query == "vector(1)": // whether somebody is there
		value = "1"
	case bad != "" && strings.Contains(query, `"`+bad+`"`):
		value = "100"
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[%d,%q]}]}}`, time.Now().Unix(), value)
}

// measuredCanary is one that Flagger leads by how many errors there are. What backend does has to be bad five
// times, so that frontend is promoted before.
func measuredCanary(name string) string {
	return strings.ReplaceAll(plainCanary(name), "analysis: {interval: 10s, threshold: 2, iterations: 1}", `analysis:
    interval: 10s
    threshold: `+map[string]string{"backend": "5", "frontend": "1"}[name]+`
    iterations: 1
    metrics:
    - {name: error-share, interval: 1m, thresholdRange: {max: 1}, templateRef: {name: error-share}}`)
}

// measured is a release that brings what it is measured by.
func measured(version, image, prometheus string) map[string]string {
	return with(handed(version, image, measuredCanary), map[string]string{"metric.yaml": `apiVersion: flagger.app/v1beta1
kind: MetricTemplate
metadata: {name: error-share}
spec:
  provider: {type: prometheus, address: "` + prometheus + `"}
  query: 'errors{workload="{{ target }}"}'
`})
}

// flagger runs Flagger itself for the stage's namespace.
func (s *stage) flagger(prometheus string) {
	s.t.Helper()
	s.controller("flagger", "-kubeconfig", s.cluster.Kubeconfig, "-namespace", s.ns, "-metrics-server", prometheus,
		"-mesh-provider", "kubernetes", "-control-loop-interval", "1s", "-port", s.freePort(), "-log-level", "info")
}

func (s *stage) freePort() string {
	s.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// controller runs somebody else's controller for as long as the test runs.
func (s *stage) controller(program string, args ...string) {
	s.t.Helper()
	bin, err := controlplane.Binaries(s.t.Context(), os.Stderr, program)
	if err != nil {
		s.t.Fatal(err)
	}
	path := filepath.Join(s.t.TempDir(), program+".log")
	log, err := os.Create(path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, bin.Path(program), args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
		if text, err := os.ReadFile(path); err == nil && s.t.Failed() {
			s.t.Logf("the end of %s's log:\n%s", program, text[max(0, len(text)-6000):])
		}
	})
}

// endsIn waits for an end for as long as who leads may take to one, and looks meanwhile.
func (s *stage) endsIn(phase fleet.Phase, target, running string, look func()) fleet.Installation {
	s.t.Helper()
	var i fleet.Installation
	var err error
	for range 6 {
		err = s.cluster.Wait("an end", func() error {
			look()
			if i = s.now(); i.Target != target || !i.Phase.Terminal() {
				return fmt.Errorf("it is %s %s: %s", i.Phase, i.Target, i.Reason)
			}
			return nil
		})
		if err == nil {
			break
		}
	}
	if err != nil || i.Phase != phase || i.Running != running {
		s.t.Fatalf("it is %s %s with %q running: %s", i.Phase, i.Target, i.Running, i.Reason)
	}
	return i
}

// Flagger itself leads: a good release is promoted, and of a bad one, which alone Flagger would leave half
// promoted, nothing is left. Nobody fights over what Flagger writes.
func TestHandedToFlagger(t *testing.T) {
	if testing.Short() || os.Getenv("WHEELWRIGHT_E2E") != "1" {
		t.Skip("runs Flagger's own controller, whose build takes minutes: set WHEELWRIGHT_E2E=1")
	}
	s := newStage(t)
	s.handOver()
	s.sub.HealthTimeout = 2 * time.Minute
	bad := &errorsOf{}
	bad.workload.Store("")
	prometheus := httptest.NewServer(bad)
	defer prometheus.Close()
	s.flagger(prometheus.URL)

	s.vendor.release(t, "1.0.0", measured("1.0.0", good, prometheus.URL))
	defer s.start(nil)()
	s.offer()
	s.reaches(fleet.Succeeded, "1.0.0", "1.0.0")
	s.cluster.Eventually(t, "Flagger has taken over", func() error {
		if all := s.unlike(good); len(all) > 0 {
			return fmt.Errorf("%s", strings.Join(all, "; "))
		}
		return nil
	})

	s.vendor.release(t, "1.1.0", measured("1.1.0", newer, prometheus.URL))
	s.offer()
	phases := map[string]bool{}
	s.endsIn(fleet.Succeeded, "1.1.0", "1.1.0", func() {
		if strings.Contains(s.now().Reason, "backend Progressing") {
			phases["Progressing"] = true
		}
	})
	if !phases["Progressing"] {
		t.Error("nobody was told that Flagger was at it")
	}
	s.ofOne("1.1.0")
	s.undrifted()
	s.primaries(newer)

	const worse = "registry.example.com/app:3"
	bad.workload.Store("backend")
	s.vendor.release(t, "1.2.0", measured("1.2.0", worse, prometheus.URL))
	s.offer()
	mixed := false
	i := s.endsIn(fleet.RolledBack, "1.2.0", "1.1.0", func() {
		if !mixed {
			mixed = s.kubectl(t, "get", "deployment/frontend-primary", "-o", "jsonpath={.spec.template.spec.containers[0].image}") == worse
		}
	})
	if want := "backend: Canary " + s.ns + "/backend: Failed: Halt backend." + s.ns + " advancement error-share 100.00 > 1"; i.Reason != want || !mixed {
		t.Errorf("reason %q, want %q; frontend was promoted: %v", i.Reason, want, mixed)
	}
	s.ofOne("1.1.0")
	s.undrifted()
	s.primaries(newer)
}
