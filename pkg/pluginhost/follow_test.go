package pluginhost

import (
	"testing"

	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// A pass of those who lead is one of each of them; no verdict stays none.
func TestWhoLeadsPassesWhole(t *testing.T) {
	leads := []*pluginv1.Lead{{Service: "backend"}, {Service: "frontend"}}
	verdict := func(o pluginv1.Outcome) *pluginv1.Verdict { return &pluginv1.Verdict{Outcome: o, Reason: "a reason"} }
	pass, fail, unsure := pluginv1.Outcome_OUTCOME_PASS, pluginv1.Outcome_OUTCOME_FAIL, pluginv1.Outcome_OUTCOME_INCONCLUSIVE
	both := func(frontend *pluginv1.Verdict) []*pluginv1.Followed {
		return []*pluginv1.Followed{{Service: "backend", Verdict: verdict(pass)}, {Service: "frontend", Verdict: frontend}}
	}
	for _, c := range []struct {
		what     string
		whole    *pluginv1.Verdict
		services []*pluginv1.Followed
		want     pluginv1.Outcome
		reason   string
	}{
		{"all passed", verdict(pass), both(verdict(pass)), pass, "a reason"},
		{"one failed", verdict(fail), both(verdict(fail)), fail, "a reason"},
		{"one waits for a person", verdict(unsure), both(verdict(unsure)), unsure, "a reason"},
		{"on its way", nil, both(nil), pluginv1.Outcome_OUTCOME_UNSPECIFIED, ""},
		{"on its way, without a word", nil, nil, pluginv1.Outcome_OUTCOME_UNSPECIFIED, ""},
		{"passed, and one is on its way", verdict(pass), both(nil), unsure, "the plugin says pass, without one of frontend"},
		{"passed, and one failed", verdict(pass), both(verdict(fail)), unsure, "the plugin says pass, without one of frontend"},
		{"passed, and one is missing", verdict(pass), both(nil)[:1], unsure, "the plugin says pass, without one of frontend"},
		{"passed on too little", &pluginv1.Verdict{Outcome: pass, Sample: 1, MinimumSample: 2}, both(verdict(pass)), unsure, "1 of at least 2 samples"},
		{"a verdict that says nothing", &pluginv1.Verdict{}, both(verdict(pass)), unsure, "the plugin gave no verdict"},
	} {
		got := whole(&pluginv1.FollowResponse{Verdict: c.whole, Services: c.services}, leads).GetVerdict()
		if got.GetOutcome() != c.want || got.GetReason() != c.reason || (got == nil) != (c.whole == nil) {
			t.Errorf("%s: got %v", c.what, got)
		}
	}
}
