package follow_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/follow"
)

func object(t *testing.T, text string) follow.Object {
	t.Helper()
	var o follow.Object
	if err := yaml.Unmarshal([]byte(text), &o); err != nil {
		t.Fatal(err)
	}
	return o
}

func deployment(t *testing.T, name, image, config string, replicas, available int) follow.Object {
	t.Helper()
	notes := ""
	if strings.HasSuffix(name, "-primary") {
		notes = ", annotations: {flagger-id: 1f0d}" // Flagger's own, which no target has
	}
	return object(t, fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s, namespace: shop, generation: 1}
spec:
  replicas: %[4]d
  template:
    metadata: {labels: {app: %[1]s}%[6]s}
    spec: {containers: [{name: api, image: "api:%[2]s", envFrom: [{configMapRef: {name: %[3]s}}]}]}
status: {observedGeneration: 1, replicas: %[4]d, updatedReplicas: %[4]d, availableReplicas: %[5]d}
`, name, image, config, replicas, available, notes))
}

func configMap(t *testing.T, name, value string) follow.Object {
	t.Helper()
	return object(t, fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, namespace: shop}\ndata: {key: %s}\n", name, value))
}

func canaryObject(t *testing.T, phase string, at time.Time) follow.Object {
	t.Helper()
	return object(t, fmt.Sprintf(`
apiVersion: flagger.app/v1beta1
kind: Canary
metadata: {name: api, namespace: shop, resourceVersion: "1"}
spec: {analysis: {interval: 20s}}
status:
  phase: %q
  canaryWeight: 30
  lastAppliedSpec: abc
  conditions: [{type: Promoted, reason: %[1]q, lastTransitionTime: %[2]q, message: Canary analysis failed.}]
`, phase, at.UTC().Format(time.RFC3339)))
}

// The phase alone tells nothing: what the primary runs does, and when Flagger came to its end.
func TestCanary(t *testing.T) {
	applied := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	before, after := applied.Add(-time.Hour), applied.Add(30*time.Second)
	target := deployment(t, "api", "2", "api", 0, 0)
	caught := follow.Live{target, deployment(t, "api-primary", "2", "api-primary", 2, 2), configMap(t, "api", "new"), configMap(t, "api-primary", "new")}
	behind := follow.Live{target, deployment(t, "api-primary", "1", "api-primary", 2, 2), configMap(t, "api", "new"), configMap(t, "api-primary", "new")}
	configured := follow.Live{target, deployment(t, "api-primary", "2", "api-primary", 2, 2), configMap(t, "api", "new"), configMap(t, "api-primary", "old")}
	unready := follow.Live{target, deployment(t, "api-primary", "2", "api-primary", 2, 1), configMap(t, "api", "new"), configMap(t, "api-primary", "new")}
	for _, test := range []struct {
		name, phase string
		at          time.Time
		live        follow.Live
		later       time.Duration
		want        follow.Outcome
		reason      string
	}{
		{"promoted", "Succeeded", after, caught, 0, follow.Passed, ""},
		{"not changed by the release", "Succeeded", before, caught, 0, follow.Passed, ""},
		{"first install", "Initialized", after, caught, 0, follow.Passed, ""},
		{"success of the release before", "Succeeded", before, behind, 0, follow.Going, "to be taken up by Flagger"},
		{"failure of the release before", "Failed", before, behind, 0, follow.Going, "to be taken up by Flagger"},
		{"a ConfigMap changed under its name", "Succeeded", before, configured, 0, follow.Going, "to be taken up by Flagger"},
		{"never seen", "Succeeded", before, behind, time.Hour, follow.Failed, "Flagger has not taken it up within 2m0s"},
		{"failure seen no more", "Failed", before, behind, time.Hour, follow.Failed, "Flagger has not taken it up within 2m0s"},
		{"failed", "Failed", after, behind, 0, follow.Failed, "Canary shop/api: Failed: Canary analysis failed."},
		{"on its way", "Progressing", after, behind, time.Hour, follow.Going, "Progressing, weight 30"},
		{"primary not ready", "Succeeded", after, unready, 0, follow.Going, "Deployment shop/api-primary has 1 of 2 pods"},
		{"a gate", "WaitingPromotion", after, behind, 0, follow.Asking, "confirm webhooks"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := follow.Service{Name: "api", Kind: "Canary", Namespace: "shop", Object: "api", Workload: "api", Coming: target}
			got := s.Look(append(follow.Live{canaryObject(t, test.phase, test.at)}, test.live...), follow.Question{Since: applied, Now: applied.Add(40*time.Second + test.later)})
			if got.Outcome != test.want || !strings.Contains(got.Reason, test.reason) || got.Phase != test.phase {
				t.Errorf("got %+v, want %v and %q", got, test.want, test.reason)
			}
		})
	}
}

// skipAnalysis is set on what is restored only, for as long as Flagger may find something to do, and is
// afterwards as it was found.
func TestReturn(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	old := deployment(t, "api", "1", "api", 0, 0)
	s := follow.Service{Name: "api", Kind: "Canary", Namespace: "shop", Object: "api", Workload: "api", Stable: old}
	configs := follow.Live{configMap(t, "api", "old"), configMap(t, "api-primary", "old")}
	for _, declared := range []any{nil, false, true} {
		t.Run(fmt.Sprint(declared), func(t *testing.T) {
			canary := canaryObject(t, "Progressing", now)
			if declared != nil {
				document.Mapping(canary, "spec")["skipAnalysis"] = declared
			}
			primary := deployment(t, "api-primary", "2", "api-primary", 2, 2)
			target := deployment(t, "api", "2", "api", 0, 0)
			step := func() follow.Edit {
				e := s.Return(append(follow.Live{canary, target, primary}, configs...), now)
				if e.Object != nil {
					canary = merged(canary, e.Patch)
				}
				return e
			}
			want := func(what string, settled, changed bool, waits string, skip any) {
				t.Helper()
				e := step()
				if e.Settled != settled || (e.Object != nil) != changed || !strings.Contains(e.Waits, waits) || document.At(canary, "spec", "skipAnalysis") != skip {
					t.Fatalf("%s: %+v, skipAnalysis %v", what, e, document.At(canary, "spec", "skipAnalysis"))
				}
			}
			want("not restored", false, false, "to be restored to the old release", declared)
			target = old
			want("restored", false, true, "", true)
			want("on its way", false, false, "Progressing on the way back", true)
			primary = deployment(t, "api-primary", "1", "api-primary", 2, 2)
			document.Mapping(canary, "status")["phase"] = "Succeeded"
			want("at rest", false, true, "", true)
			now = now.Add(30 * time.Second)
			want("for a while", false, false, "nothing to do for 40s", true)
			document.Mapping(canary, "status")["lastAppliedSpec"] = "def"
			want("it did find something", false, true, "", true)
			now = now.Add(30 * time.Second)
			want("counted anew", false, false, "nothing to do for 40s", true)
			if !follow.Returning(canary) {
				t.Error("it is returning")
			}
			now = now.Add(16 * time.Second)
			want("done", false, true, "", declared)
			want("told again", true, false, "", declared)
			if follow.Returning(canary) {
				t.Error("it has returned")
			}
		})
	}
}

// merged is what an API server makes of a merge patch.
func merged(o, patch follow.Object) follow.Object {
	out := document.Clone(o)
	for key, v := range patch {
		in, nested := v.(map[string]any)
		switch have, _ := out[key].(map[string]any); {
		case v == nil:
			delete(out, key)
		case nested && have == nil:
			out[key] = merged(follow.Object{}, in)
		case nested:
			out[key] = merged(have, in)
		default:
			out[key] = v
		}
	}
	return out
}

func rollout(t *testing.T, status string) follow.Object {
	t.Helper()
	return object(t, `
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: api, namespace: shop, generation: 3}
spec:
  template: {spec: {containers: [{name: api, image: "api:2", resources: {limits: {cpu: 500m}}, imagePullPolicy: Always}]}}
  strategy: {canary: {steps: [{setWeight: 20}, {pause: {}}, {setWeight: 60}, {pause: {duration: 10s}}]}}
status: `+status)
}

func TestRollout(t *testing.T) {
	applied := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	coming := object(t, `{spec: {template: {spec: {containers: [{name: api, image: "api:2", resources: {limits: {cpu: "0.5"}}, env: []}]}}}}`)
	s := follow.Service{Name: "api", Kind: "Rollout", Namespace: "shop", Object: "api", Coming: coming}
	for _, test := range []struct {
		name, status string
		later        time.Duration
		want         follow.Outcome
		weight       int
		reason       string
	}{
		{"promoted", `{observedGeneration: "3", phase: Healthy, stableRS: b, currentPodHash: b}`, 0, follow.Passed, 100, ""},
		{"healthy before it was seen", `{observedGeneration: "2", phase: Healthy, stableRS: a, currentPodHash: a}`, 0, follow.Going, 0, "to be taken up by Argo Rollouts"},
		{"never seen", `{observedGeneration: "2", phase: Healthy, stableRS: a, currentPodHash: a}`, time.Hour, follow.Failed, 0, "has not taken it up within 1m0s"},
		{"aborted", `{observedGeneration: "3", phase: Degraded, abort: true, message: "RolloutAborted: metric", stableRS: a, currentPodHash: b}`, 0, follow.Failed, 20, "Rollout shop/api: Degraded: RolloutAborted: metric"},
		{"a pause without end", `{observedGeneration: "3", phase: Paused, message: CanaryPauseStep, currentStepIndex: 1, pauseConditions: [{reason: CanaryPauseStep}], stableRS: a, currentPodHash: b}`, 0, follow.Asking, 20, "kubectl argo rollouts promote api -n shop"},
		{"a pause", `{observedGeneration: "3", phase: Paused, message: CanaryPauseStep, currentStepIndex: 3, pauseConditions: [{reason: CanaryPauseStep}], stableRS: a, currentPodHash: b}`, 0, follow.Going, 60, "Paused, weight 60"},
		{"inconclusive", `{observedGeneration: "3", phase: Paused, message: InconclusiveAnalysisRun, currentStepIndex: 3, pauseConditions: [{reason: InconclusiveAnalysisRun}], stableRS: a, currentPodHash: b}`, 0, follow.Asking, 60, "InconclusiveAnalysisRun"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := s.Look(follow.Live{rollout(t, test.status)}, follow.Question{Since: applied, Now: applied.Add(time.Second + test.later)})
			if got.Outcome != test.want || !strings.Contains(got.Reason, test.reason) || got.Outcome != follow.Failed && test.weight > 0 && got.Weight != test.weight {
				t.Errorf("got %+v, want %v and %q", got, test.want, test.reason)
			}
		})
	}
	s.Coming = object(t, `{spec: {template: {spec: {containers: [{name: api, image: "api:3"}]}}}}`)
	if got := s.Look(follow.Live{rollout(t, `{observedGeneration: "3", phase: Healthy, stableRS: b, currentPodHash: b}`)}, follow.Question{Since: applied, Now: applied}); got.Outcome != follow.Going {
		t.Errorf("before it is applied: %+v", got)
	}
}
