package apply

import (
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/wheelwright-dev/wheelwright/pkg/rules"
)

// A Rollout says in its own words how it is; a rule that somebody wrote about it goes before.
func TestHealthOfRollouts(t *testing.T) {
	rollout := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": map[string]any{"name": "web", "generation": int64(2)},
		"status": map[string]any{"phase": "Paused", "observedGeneration": "2", "message": "CanaryPauseStep"},
	}}
	item := Item{GroupVersionKind: rollout.GroupVersionKind(), Name: "web"}
	if a, ok := assess(item, rollout, nil); ok || a.failed || a.why != "Paused: CanaryPauseStep" {
		t.Errorf("held: %v %v %q", ok, a.failed, a.why)
	}
	book, err := rules.Compile([]rules.Rule{{Group: "argoproj.io", Kind: "Rollout", Current: `status.phase == "Paused"`}})
	if err != nil {
		t.Fatal(err)
	}
	if a, ok := assess(item, rollout, book); !ok {
		t.Errorf("by a provider's rule: %q", a.why)
	}
	rollout.Object["status"].(map[string]any)["phase"] = "Healthy"
	if a, ok := assess(item, rollout, nil); !ok {
		t.Errorf("healthy: %q", a.why)
	}
	rollout.Object["status"].(map[string]any)["phase"] = "Degraded"
	if a, ok := assess(item, rollout, nil); ok || !a.failed {
		t.Errorf("degraded: %v %v", ok, a.failed)
	}
}
