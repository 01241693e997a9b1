package agent

import (
	"testing"

	"github.com/wheelwright-dev/wheelwright/pkg/redact"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/delivery"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/journal"
)

// What a plugin says beside a pass is told with it, without what it was told in confidence.
func TestAPassThatSaysMore(t *testing.T) {
	step := &pluginv1.CanaryStep{Number: 1, Traffic: []*pluginv1.Traffic{{Service: "api", Weight: 20}}}
	w := &worker{}
	w.state.Walk = delivery.Walk{Step: 1, Steps: 3, Need: 2}
	for reason, want := range map[string]string{
		"": "step 1 of 3 (api 20 %): 1 of 2 measurements passed",
		"api: 40 requests so far were the plugin's own, with hunter22": "step 1 of 3 (api 20 %): 1 of 2 measurements passed (api: 40 requests so far were the plugin's own, with …)",
	} {
		m := &pluginv1.MeasureResponse{Verdict: &pluginv1.Verdict{Outcome: pluginv1.Outcome_OUTCOME_PASS, Reason: reason}}
		e := w.weigh(&journal.Attempt{}, step, finding{verdict: delivery.Pass}, m, call{private: redact.Of([]string{"hunter22"})})
		if e.Verdict != delivery.Pass || e.Reason != want {
			t.Errorf("got %s %q, want %q", e.Verdict, e.Reason, want)
		}
	}
}
