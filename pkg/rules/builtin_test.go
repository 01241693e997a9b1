package rules_test

import (
	"testing"

	"github.com/wheelwright-dev/wheelwright/pkg/rules"
)

func TestRollouts(t *testing.T) {
	book, err := rules.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what    string
		status  object
		want    rules.Verdict
		message string
	}{
		{"healthy", object{"phase": "Healthy", "observedGeneration": "3"}, rules.Current, ""},
		{"healthy before the change", object{"phase": "Healthy", "observedGeneration": "2"}, rules.InProgress, "Healthy"},
		{"given up", object{"phase": "Degraded", "observedGeneration": "3", "message": "RolloutAborted: metric bad"}, rules.Failed, "Degraded: RolloutAborted: metric bad"},
		{"given up before the change", object{"phase": "Degraded", "observedGeneration": "2"}, rules.InProgress, "Degraded"},
		{"held", object{"phase": "Paused", "observedGeneration": "3", "message": "CanaryPauseStep"}, rules.InProgress, "Paused: CanaryPauseStep"},
		{"not seen by anybody", nil, rules.InProgress, "by its health rule it is not ready yet"},
	} {
		o := object{"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": object{"name": "web", "generation": int64(3)}}
		if c.status != nil {
			o["status"] = c.status
		}
		v, message, ok, err := book.Judge(o)
		if v != c.want || message != c.message || !ok || err != nil {
			t.Errorf("%s: %s %q %v %v, want %s %q", c.what, v, message, ok, err, c.want, c.message)
		}
	}
	if book.About("argoproj.io", "v1alpha1", "AnalysisRun") {
		t.Error("there is a rule about AnalysisRuns")
	}
}
