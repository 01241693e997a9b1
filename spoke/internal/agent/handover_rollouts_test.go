package agent_test

import (
	"fmt"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/integration/controlplane"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// rolledOut is a release of two services for Argo Rollouts: frontend is a Rollout with its pods in it, backend
// one with its pods in a Deployment. Each is measured after a while of its own.
func rolledOut(version, image, prometheus, frontend, backend string) map[string]string {
	files := map[string]string{"settings.yaml": configMap("settings", version), "metric.yaml": `apiVersion: argoproj.io/v1alpha1
kind: AnalysisTemplate
metadata: {name: error-share}
spec:
  args: [{name: workload}, {name: delay}]
  metrics:
  - name: error-share
    initialDelay: "{{args.delay}}"
    count: 1
    failureLimit: 0
    successCondition: result[0] <= 1
    provider: {prometheus: {address: "` + prometheus + `", query: 'errors{workload="{{args.workload}}"}'}}
`}
	const rollout = `apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: NAME, labels: {app.kubernetes.io/version: VERSION}}
spec:
  replicas: 2
  selector: {matchLabels: {app: NAME}}
  PODS
  strategy:
    canary:
      steps:
      - setWeight: 50
      - analysis: {templates: [{templateName: error-share}], args: [{name: workload, value: NAME}, {name: delay, value: DELAY}]}
`
	fill := func(name, pods, delay string) string {
		return strings.NewReplacer("NAME", name, "VERSION", version, "PODS", pods, "DELAY", delay).Replace(rollout)
	}
	files["frontend.yaml"] = fill("frontend", "template: {metadata: {labels: {app: frontend}}, spec: {containers: [{name: app, image: \""+image+"\"}]}}", frontend)
	files["backend.yaml"] = fill("backend", "workloadRef: {apiVersion: apps/v1, kind: Deployment, name: backend}", backend)
	files["deployment.yaml"] = strings.ReplaceAll(app(version, image)["deployment.yaml"], "replicas: 1", "replicas: 0")
	return kustomized(files)
}

// rolls gives the stage Argo Rollouts itself, and the plugin that leaves all to it.
func (s *stage) rolls() {
	s.t.Helper()
	path, err := controlplane.RolloutsCRD(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	s.cluster.Eventually(s.t, "Argo Rollouts' definitions", func() error {
		if _, err := s.cluster.Kubectl("apply", "--server-side", "-f", path); err != nil {
			return err
		}
		_, err := s.cluster.Kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd/rollouts.argoproj.io", "crd/analysisruns.argoproj.io", "crd/analysistemplates.argoproj.io")
		return err
	})
	s.handOverTo("argo-rollouts")
	s.sub.HealthTimeout = 2 * time.Minute
	s.controller("rollouts-controller", "--kubeconfig", s.cluster.Kubeconfig, "--namespaced", "--namespace", s.ns, "--leader-elect=false",
		"--metricsPort", s.freePort(), "--healthzPort", s.freePort())
}

// rolled fails unless both services run one image, none of them half, with nothing left of a way there.
func (s *stage) rolled(version, image string) {
	s.t.Helper()
	s.ofRollouts(version)
	s.cluster.Eventually(s.t, "only pods of "+image, func() error {
		out, err := s.cluster.Kubectl("-n", s.ns, "get", "pods", "-o", `jsonpath={range .items[*]}{.metadata.labels.app} {.spec.containers[0].image} {.metadata.deletionTimestamp}{"\n"}{end}`)
		if err != nil {
			return err
		}
		var pods []string
		for line := range strings.Lines(out) {
			if words := strings.Fields(line); len(words) == 2 { // those that go have a third
				pods = append(pods, strings.Join(words, " "))
			}
		}
		slices.Sort(pods)
		if want := []string{"backend " + image, "backend " + image, "frontend " + image, "frontend " + image}; !slices.Equal(pods, want) {
			return fmt.Errorf("pods are %v", pods)
		}
		return nil
	})
	for _, name := range handedServices {
		if got := s.kubectl(s.t, "get", "rollout/"+name, "-o", "jsonpath={.status.phase} {.status.abort} {.status.promoteFull}"); strings.TrimSpace(got) != "Healthy" {
			s.t.Errorf("Rollout %s is left as %q", name, got)
		}
	}
}

// ofRollouts fails unless everything of the release is of one version.
func (s *stage) ofRollouts(version string) {
	s.t.Helper()
	out := s.kubectl(s.t, "get", "deployments,configmaps,rollouts", "-l", "wheelwright.dev/distribution=shop", "-o",
		`jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.labels.app\.kubernetes\.io/version}{"\n"}{end}`)
	got := strings.Split(strings.TrimSpace(out), "\n")
	slices.Sort(got)
	want := []string{"ConfigMap/settings " + version, "Deployment/backend " + version, "Rollout/backend " + version, "Rollout/frontend " + version}
	if !slices.Equal(got, want) {
		s.t.Errorf("on the cluster are %v, want %v", got, want)
	}
}

// measured counts the analyses that came to a measurement; those that were ended before did not.
func (s *stage) measured() (n int) {
	s.t.Helper()
	out := s.kubectl(s.t, "get", "analysisruns", "-o", `jsonpath={range .items[*]}{.status.metricResults[0].count}{"\n"}{end}`)
	for _, count := range strings.Fields(out) {
		if count != "0" {
			n++
		}
	}
	return n
}

// Argo Rollouts itself leads: a good release is followed until all of it is promoted; of a bad one, which alone
// Argo Rollouts would leave half promoted, nothing is left; and a way back by hand is measured by nobody.
func TestHandedToArgoRollouts(t *testing.T) {
	if testing.Short() || os.Getenv("WHEELWRIGHT_E2E") != "1" {
		t.Skip("runs Argo Rollouts' own controller, whose build takes minutes: set WHEELWRIGHT_E2E=1")
	}
	s := newStage(t)
	s.rolls()
	bad := &errorsOf{}
	bad.workload.Store("")
	prometheus := httptest.NewServer(bad)
	defer prometheus.Close()

	s.vendor.release(t, "1.0.0", rolledOut("1.0.0", good, prometheus.URL, "1m", "1m"))
	defer s.start(nil)()
	s.offer()
	s.endsIn(fleet.Succeeded, "1.0.0", "1.0.0", func() {})
	s.rolled("1.0.0", good)

	s.vendor.release(t, "1.1.0", rolledOut("1.1.0", newer, prometheus.URL, "1s", "8s"))
	s.offer()
	seen := map[string]bool{}
	s.endsIn(fleet.Succeeded, "1.1.0", "1.1.0", func() {
		for _, what := range []string{"backend Progressing 50 %", "frontend Healthy"} {
			seen[what] = seen[what] || strings.Contains(s.now().Reason, what)
		}
	})
	if len(seen) != 2 || !seen["backend Progressing 50 %"] || !seen["frontend Healthy"] {
		t.Errorf("of how far each was, people were told %v", seen)
	}
	s.rolled("1.1.0", newer)
	s.undrifted()
	if n := s.measured(); n != 2 {
		t.Errorf("1.1.0 was measured %d times, want once for each service", n)
	}

	const worse = "registry.example.com/app:3"
	bad.workload.Store("backend")
	s.vendor.release(t, "1.2.0", rolledOut("1.2.0", worse, prometheus.URL, "1s", "8s"))
	s.offer()
	mixed := false
	i := s.endsIn(fleet.RolledBack, "1.2.0", "1.1.0", func() {
		out := s.kubectl(t, "get", "rollout/frontend", "-o", "jsonpath={.spec.template.spec.containers[0].image} {.status.phase} {.status.observedGeneration}={.metadata.generation}")
		image, rest, _ := strings.Cut(out, " ")
		phase, generations, _ := strings.Cut(rest, " ")
		observed, generation, _ := strings.Cut(generations, "=")
		mixed = mixed || image == worse && phase == "Healthy" && observed == generation
	})
	if want := "backend: Rollout " + s.ns + "/backend: Degraded: RolloutAborted: "; !strings.HasPrefix(i.Reason, want) || !strings.Contains(i.Reason, "error-share") || !mixed {
		t.Errorf("reason %q, want %q…; frontend was promoted: %v", i.Reason, want, mixed)
	}
	s.rolled("1.1.0", newer)
	s.undrifted()

	bad.workload.Store("frontend") // which 1.0.0 would be measured by a minute after its return began
	before := s.measured()
	if _, _, err := s.agent.RollBack(t.Context(), "shop", "", "we do not like it", false); err != nil {
		t.Fatal(err)
	}
	s.endsIn(fleet.RolledBack, "1.1.0", "1.0.0", func() {})
	s.rolled("1.0.0", good)
	s.undrifted()
	if n := s.measured() - before; n != 0 {
		t.Errorf("on the way back 1.0.0 was measured %d times", n)
	}
}
