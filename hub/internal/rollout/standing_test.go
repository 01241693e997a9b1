package rollout

import (
	"testing"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

func TestJudge(t *testing.T) {
	completed := Course{Phase: fleet.RolloutCompleted}
	in := func(p fleet.RolloutPhase) Course { return Course{Phase: p} }
	for _, c := range []struct {
		name   string
		tally  fleet.Tally
		course Course
		state  fleet.Mark
		why    string
		open   bool
	}{
		{"all run it", fleet.Tally{"Succeeded": 3}, completed, fleet.MarkDone, "", true},
		{"one is on the way", fleet.Tally{"Succeeded": 2, "Settling": 1}, completed, fleet.MarkUnderway, "", true},
		{"one waits for its provider", fleet.Tally{"Succeeded": 2, "AwaitingApproval": 1}, completed, fleet.MarkUnderway, "", true},
		{"one's turn has not come", fleet.Tally{"Succeeded": 2, fleet.CountWaiting: 1}, in(fleet.RolloutProgressing), fleet.MarkUnderway, "", true},
		{"all have it, and the last wave soaks", fleet.Tally{"Succeeded": 3}, in(fleet.RolloutSoaking), fleet.MarkUnderway, "", true},
		{"one went back", fleet.Tally{"Succeeded": 2, "RolledBack": 1}, completed, fleet.MarkFailed, "", true},
		{"one refused it, others are under way", fleet.Tally{"Fetching": 2, "Refused": 1}, in(fleet.RolloutProgressing), fleet.MarkFailed, "", true},
		{"one failed, and the rollout holds", fleet.Tally{"RolledBack": 1, fleet.CountWaiting: 2}, in(fleet.RolloutHolding), fleet.MarkFailed, "its rollout is held", true},
		{"paused by a person", fleet.Tally{"Succeeded": 1, fleet.CountWaiting: 2}, in(fleet.RolloutPaused), fleet.MarkUnderway, "its rollout is held", true},
		{"the others are pinned and silent", fleet.Tally{"Succeeded": 1, fleet.CountPinned: 1, fleet.CountSilent: 1}, completed, fleet.MarkDone, "", true},
		{"all are pinned and silent", fleet.Tally{fleet.CountPinned: 1, fleet.CountSilent: 1}, completed, fleet.MarkUnderway, "no cluster has it yet", true},
		{"declined by its provider", fleet.Tally{"Succeeded": 1, fleet.CountDeclined: 1}, completed, fleet.MarkDone, "", true},
		{"nobody subscribes", nil, completed, fleet.MarkUnderway, "no cluster has it yet", true},
		{"not begun", nil, Course{}, fleet.MarkUnderway, "no cluster has it yet", false},
		{"aborted", fleet.Tally{"Succeeded": 3}, in(fleet.RolloutAborted), fleet.MarkFailed, "its rollout was aborted", false},
		{"being brought back", fleet.Tally{"Succeeded": 1}, in(fleet.RolloutReturning), fleet.MarkFailed, "being brought back", false},
		{"brought back", nil, in(fleet.RolloutReturned), fleet.MarkFailed, "brought back", false},
		{"recalled", fleet.Tally{"Succeeded": 3}, Course{Phase: fleet.RolloutRecalled, Recalled: true}, fleet.MarkFailed, "recalled", false},
		{"recalled without a rollout", nil, Course{Recalled: true}, fleet.MarkFailed, "recalled", false},
		{"superseded on its way", fleet.Tally{"Succeeded": 1, "Settling": 1}, Course{Phase: fleet.RolloutSuperseded, Next: "1.3.0"}, fleet.MarkUnderway, "superseded by 1.3.0", false},
		{"superseded", fleet.Tally{"Succeeded": 1}, Course{Phase: fleet.RolloutSuperseded, Next: "1.3.0"}, fleet.MarkDone, "superseded by 1.3.0", false},
		{"superseded before anybody had it", nil, Course{Phase: fleet.RolloutSuperseded, Next: "1.3.0"}, fleet.MarkDone, "superseded by 1.3.0", false},
		{"superseded after it failed somewhere, and that cluster is past it", nil, Course{Phase: fleet.RolloutSuperseded, Harmed: true, Next: "1.3.0"}, fleet.MarkFailed, "superseded by 1.3.0", false},
		{"superseded after it failed somewhere", fleet.Tally{"RolledBack": 1}, Course{Phase: fleet.RolloutSuperseded, Next: "1.3.0"}, fleet.MarkFailed, "superseded by 1.3.0", false},
	} {
		state, why := Judge(c.tally, c.course)
		if state != c.state || why != c.why || c.course.Open() != c.open {
			t.Errorf("%s: %s %q open %t, want %s %q open %t", c.name, state, why, c.course.Open(), c.state, c.why, c.open)
		}
	}
}
