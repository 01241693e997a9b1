package main

import (
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/follow"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// rollouts is a release of two services for Argo Rollouts, one with its pods in a Deployment; web is
// through before api is measured.
func rollouts(t *testing.T, version, namespace, prometheus string) []strategy.Object {
	t.Helper()
	replace := strings.NewReplacer("VERSION", version, "PROMETHEUS", prometheus)
	return decoded(t, replace.Replace(`
apiVersion: argoproj.io/v1alpha1
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
    provider: {prometheus: {address: "PROMETHEUS", query: 'errors{workload="{{args.workload}}"}'}}
---
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "registry.example/web:VERSION"}]}
  strategy:
    canary:
      steps:
      - setWeight: 50
      - analysis: {templates: [{templateName: error-share}], args: [{name: workload, value: web}, {name: delay, value: 1s}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: api, labels: {app: api}}
spec:
  replicas: 0
  selector: {matchLabels: {app: api}}
  template:
    metadata: {labels: {app: api}}
    spec: {containers: [{name: api, image: "registry.example/api:VERSION"}]}
---
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: api}
spec:
  replicas: 2
  selector: {matchLabels: {app: api}}
  workloadRef: {apiVersion: apps/v1, kind: Deployment, name: api}
  strategy:
    canary:
      steps:
      - setWeight: 50
      - analysis: {templates: [{templateName: error-share}], args: [{name: workload, value: api}, {name: delay, value: 8s}]}
---
`), namespace)
}

// As with Flagger: one release promoted whole, one of which web is promoted and api fails.
func TestArgoRollouts(t *testing.T) {
	t.Parallel()
	tr := newTroupe(t, follow.Rollouts)
	tr.run("rollouts-controller", "--kubeconfig", tr.cluster.Kubeconfig, "--namespaced", "--namespace", tr.namespace, "--leader-elect=false",
		"--metricsPort", freePort(t), "--healthzPort", freePort(t))
	address := tr.prometheus()
	first, second, third := rollouts(t, "1.1.0", tr.namespace, address), rollouts(t, "1.2.0", tr.namespace, address), rollouts(t, "1.4.0", tr.namespace, address)

	tr.plan("", "1.1.0", nil, first)
	tr.release(first)
	if r := tr.follow(nil); r.GetVerdict().GetOutcome() != pluginv1.Outcome_OUTCOME_PASS || !r.GetSettled() {
		t.Fatalf("a first install: %v", r)
	}
	tr.only("1.1.0")

	tr.plan("1.1.0", "1.2.0", first, second)
	tr.release(second)
	weights := map[uint32]bool{}
	r := tr.follow(func(r *pluginv1.FollowResponse) {
		for _, s := range r.GetServices() {
			weights[s.GetWeight()] = true
		}
	})
	if r.GetVerdict().GetOutcome() != pluginv1.Outcome_OUTCOME_PASS || !r.GetSettled() || !weights[50] || tr.measured() < 2 {
		t.Fatalf("%v, after the weights %v and %d measurements", r, weights, tr.measured())
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
	reason := r.GetVerdict().GetReason()
	if r.GetVerdict().GetOutcome() != pluginv1.Outcome_OUTCOME_FAIL || !mixed ||
		!strings.HasPrefix(reason, "Rollout "+tr.namespace+"/api: Degraded: RolloutAborted: ") || !strings.Contains(reason, "error-share") {
		t.Fatalf("%v, web promoted %v", r, mixed)
	}
	tr.killed(r)
	before := tr.measured()
	tr.giveBack(second)
	tr.only("1.2.0")
	if n := tr.measured() - before; n > 0 {
		t.Errorf("the old release was measured %d times on its way back", n)
	}
	for _, name := range []string{"web", "api"} {
		o := tr.get("argoproj.io/v1alpha1", "rollouts", name)
		if o.Text("status", "phase") != "Healthy" || o.At("status", "abort") == true || o.At("status", "promoteFull") == true {
			t.Errorf("Rollout %s is left as %s", name, text(o["status"]))
		}
	}

	tr.spoil("")
	tr.plan("1.2.0", "1.4.1", second, rollouts(t, "1.4.1", tr.namespace, address))
	tr.release(rollouts(t, "1.4.1", tr.namespace, address))
	if r := tr.follow(nil); r.GetVerdict().GetOutcome() != pluginv1.Outcome_OUTCOME_PASS || tr.measured() == before {
		t.Fatalf("the release after: %v", r)
	}
	tr.only("1.4.1")
}
