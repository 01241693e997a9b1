package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/follow"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// flaggers is a release of two services for Flagger; web is through before api has failed often enough.
func flaggers(t *testing.T, version, namespace, prometheus string) []strategy.Object {
	t.Helper()
	out := strings.ReplaceAll(`
apiVersion: flagger.app/v1beta1
kind: MetricTemplate
metadata: {name: error-share}
spec:
  provider: {type: prometheus, address: "PROMETHEUS"}
  query: 'errors{workload="{{ target }}"}'
---
`, "PROMETHEUS", prometheus)
	for name, threshold := range map[string]string{"web": "1", "api": "5"} {
		out += strings.NewReplacer("NAME", name, "VERSION", version, "HASH", strings.ReplaceAll(version, ".", ""), "MOST", threshold).Replace(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME, labels: {app: NAME}}
spec:
  replicas: 2
  selector: {matchLabels: {app: NAME}}
  template:
    metadata: {labels: {app: NAME}, annotations: {team: red}}
    spec:
      containers:
      - {name: NAME, image: "registry.example/NAME:VERSION", ports: [{name: http, containerPort: 8080}], envFrom: [{configMapRef: {name: NAME-HASH}}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: NAME-HASH}
data: {version: VERSION}
---
apiVersion: flagger.app/v1beta1
kind: Canary
metadata: {name: NAME}
spec:
  provider: kubernetes
  targetRef: {apiVersion: apps/v1, kind: Deployment, name: NAME}
  service: {port: 80, targetPort: http}
  analysis:
    interval: 10s
    threshold: MOST
    iterations: 1
    metrics:
    - {name: error-share, interval: 1m, thresholdRange: {max: 1}, templateRef: {name: error-share}}
---
`)
	}
	return decoded(t, out, namespace)
}

// Flagger promotes one release whole; of the next it promotes web and fails api, which alone would leave a
// mixture: followed, everything is back on the release before, and nothing is measured on the way.
func TestFlagger(t *testing.T) {
	t.Parallel()
	tr, address := withFlagger(t)
	first, second, third := flaggers(t, "1.1.0", tr.namespace, address), flaggers(t, "1.2.0", tr.namespace, address), flaggers(t, "1.4.0", tr.namespace, address)

	tr.plan("", "1.1.0", nil, first)
	tr.release(first)
	if r := tr.follow(nil); r.GetVerdict().GetOutcome() != pluginv1.Outcome_OUTCOME_PASS || !r.GetSettled() || r.GetServices()[0].GetPhase() != "Initialized" {
		t.Fatalf("a first install: %v", r)
	}
	tr.only("1.1.0")

	tr.plan("1.1.0", "1.2.0", first, second)
	tr.release(second)
	led := map[string]bool{}
	r := tr.follow(func(r *pluginv1.FollowResponse) {
		for _, s := range r.GetServices() {
			led[s.GetPhase()] = true
		}
	})
	if r.GetVerdict().GetOutcome() != pluginv1.Outcome_OUTCOME_PASS || !r.GetSettled() || !led["Progressing"] || tr.measured() == 0 {
		t.Fatalf("%v, after %v and %d measurements", r, led, tr.measured())
	}
	tr.killed(r)
	tr.only("1.2.0")

	tr.spoil("api")
	tr.plan("1.2.0", "1.4.0", second, third)
	tr.release(third)
	mixed := false
	r = tr.follow(func(r *pluginv1.FollowResponse) {
		mixed = r.GetServices()[0].GetVerdict().GetOutcome() == pluginv1.Outcome_OUTCOME_PASS
	})
	want := "Canary " + tr.namespace + "/api: Failed: Halt api." + tr.namespace + " advancement error-share 100.00 > 1"
	if r.GetVerdict().GetOutcome() != pluginv1.Outcome_OUTCOME_FAIL || r.GetVerdict().GetReason() != want || !mixed {
		t.Fatalf("%v, web promoted %v, want %q", r, mixed, want)
	}
	tr.killed(r)
	if images := tr.images(); len(images) != 2 {
		t.Fatalf("there is no mixture to be undone: %v", images)
	}
	before := tr.measured()
	tr.giveBack(second)
	tr.only("1.2.0")
	if n := tr.measured() - before; n > 0 {
		t.Errorf("the old release was measured %d times on its way back", n)
	}
	for _, name := range []string{"web", "api"} {
		for _, deployment := range []string{name, name + "-primary"} {
			if o := tr.get("apps/v1", "deployments", deployment); !strings.Contains(text(o.At("spec", "template")), ":1.2.0") {
				t.Errorf("%s is not back: %s", deployment, text(o.At("spec", "template")))
			}
		}
		o := tr.get("flagger.app/v1beta1", "canaries", name)
		if skip := o.At("spec", "skipAnalysis"); skip == true || o.Text("status", "phase") == "Progressing" {
			t.Errorf("Canary %s is left with skipAnalysis %v in phase %s", name, skip, o.Text("status", "phase"))
		}
	}
	if n := tr.measured() - before; n > 0 {
		t.Errorf("the old release was measured %d times once it was back", n)
	}

	// The way is free for the next one, which is measured.
	tr.spoil("")
	tr.plan("1.2.0", "1.4.1", second, flaggers(t, "1.4.1", tr.namespace, address))
	tr.release(flaggers(t, "1.4.1", tr.namespace, address))
	if r := tr.follow(nil); r.GetVerdict().GetOutcome() != pluginv1.Outcome_OUTCOME_PASS || tr.measured() == before {
		t.Fatalf("the release after: %v", r)
	}
	tr.only("1.4.1")
}

func withFlagger(t *testing.T) (*troupe, string) {
	t.Helper()
	tr := newTroupe(t, follow.Flagger)
	address := tr.prometheus()
	tr.run("flagger", "-kubeconfig", tr.cluster.Kubeconfig, "-namespace", tr.namespace, "-metrics-server", address,
		"-mesh-provider", "kubernetes", "-control-loop-interval", "1s", "-port", freePort(t), "-log-level", "info")
	return tr, address
}

// Restored in the middle of its analyses, Flagger would book their end for the release that is gone, and
// analyse the old one anew.
func TestFlaggerInterrupted(t *testing.T) {
	t.Parallel()
	tr, address := withFlagger(t)
	first, second := flaggers(t, "1.1.0", tr.namespace, address), flaggers(t, "1.2.0", tr.namespace, address)
	tr.plan("", "1.1.0", nil, first)
	tr.release(first)
	tr.follow(nil)
	tr.plan("1.1.0", "1.2.0", first, second)
	tr.release(second)
	tr.cluster.Eventually(t, "an analysis of both", func() error {
		r, err := tr.ask()
		if err == nil && (r.GetServices()[0].GetPhase() != "Progressing" || r.GetServices()[1].GetPhase() != "Progressing" || tr.measured() == 0) {
			err = fmt.Errorf("%v", r)
		}
		return err
	})
	tr.giveBack(first)
	tr.only("1.1.0")
	for _, name := range []string{"web", "api"} {
		o := tr.get("flagger.app/v1beta1", "canaries", name)
		if o.At("spec", "skipAnalysis") != nil || o.Text("status", "phase") != "Succeeded" || o.Text("status", "lastAppliedSpec") != o.Text("status", "lastPromotedSpec") {
			t.Errorf("Canary %s is left with skipAnalysis %v and %s", name, o.At("spec", "skipAnalysis"), text(o["status"]))
		}
	}
}
