package rollout

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

func TestUndo(t *testing.T) {
	st := tell(t, 5, `waves: [{name: all, concurrency: 4, budget: 1}]`)
	st.takes(0)
	st.begins(1)
	st.fails(2)
	st.is(fleet.RolloutProgressing, "DuFoo")
	st.do(Command{Verb: Undo, Reason: "it loses orders"})
	st.is(fleet.RolloutReturning, "rrFnn")
	st.offers("nnnnn")
	for i := range 4 {
		st.goes(i, "RolledBack "+from)
	}
	st.says("2 clusters on the way back (undone by operator admin: it loses orders)")
	if err := st.try(Command{Verb: Undo}); !errors.Is(err, ErrTwice) {
		t.Errorf("undone twice: %v", err)
	}
	st.returns(0)
	st.is(fleet.RolloutReturning, "RrFnn")
	st.returns(1)
	st.is(fleet.RolloutReturned, "RRFnn")
	if st.s.Reason != "undone by operator admin: it loses orders" {
		t.Errorf("it says %q", st.s.Reason)
	}
}

func TestWhatWasRolledBackIsNotOfferedAgain(t *testing.T) {
	st := tell(t, 3, `waves: [{name: all, concurrency: 2}]`)
	st.begins(1)
	st.takes(0)
	st.blocks(1, fleet.BlockPin)
	st.see(1, func(o *Observation) { o.Target, o.Phase = from, fleet.Succeeded }) // before its provider's pin came, nothing was changed
	st.is(fleet.RolloutProgressing, "Doo")
	st.do(Command{Verb: Undo})
	st.returns(0)
	st.is(fleet.RolloutReturned, "Rnn")
	st.join(3)
	for range 5 {
		st.after(24 * time.Hour)
		st.offers("nnnn")
		st.goes(0, "RolledBack "+from)
		st.goes(1, "RolledBack "+from)
	}
	st.leaves(0)
	st.join(0)
	st.look()
	st.offers("nnnn")
	st.goes(0, "RolledBack "+from)
}

func TestUndoOfACompletedRollout(t *testing.T) {
	st := tell(t, 2, `waves: [{name: all, clusters: {matchLabels: {ring: "0"}}}]`, func(st *story) {
		st.join(2)
		st.set(2, func(o *Observation) { o.Running, o.Target = version, version })
	})
	st.takes(0)
	st.is(fleet.RolloutCompleted, "DoD")
	st.set(1, func(o *Observation) { o.Running, o.Target = version, version }) // afterwards, open to everybody
	st.join(3)
	st.set(3, func(o *Observation) { o.Running, o.Target = version, version }) // it never ran anything else
	st.do(Command{Verb: Undo})
	st.is(fleet.RolloutReturning, "rrDS")
	st.goes(1, "RolledBack "+from)
	st.goes(2, "-") // it had the release before
	st.goes(3, "RolledBack")
	st.returns(0)
	st.returns(1)
	st.is(fleet.RolloutReturned, "RRDS")
}

func TestAReturnThatFailsIsSaid(t *testing.T) {
	st := tell(t, 3, `waves: [{name: all, patience: 20m}]`)
	st.takes(0, 1)
	st.do(Command{Verb: Undo})
	st.is(fleet.RolloutReturning, "rrn")
	st.see(0, func(o *Observation) { o.Target, o.Phase, o.Reason = from, fleet.RollbackFailed, "a job does not end" })
	st.is(fleet.RolloutReturning, "Srn")
	st.blocks(1, fleet.BlockSilent)
	st.due(20 * time.Minute)
	st.after(20 * time.Minute)
	st.is(fleet.RolloutReturned, "SSn")
	if got := st.s.Members[c(0)].Reason; got != "RollbackFailed: a job does not end" {
		t.Errorf("%q", got)
	}
	if got := st.s.Members[c(1)].Reason; got != "silent" {
		t.Errorf("%q", got)
	}
	st.goes(1, "RolledBack "+from) // and is told when it speaks again
}

func TestAnAttemptThatCannotBeRolledBackIsNoReturn(t *testing.T) {
	st := tell(t, 2, `waves: [{name: all}]`)
	st.begins(0)
	st.begins(1)
	st.do(Command{Verb: Undo})
	st.see(0, func(o *Observation) {
		o.Target, o.Phase, o.Reason = version, fleet.RollbackFailed, "a job does not end"
	})
	st.is(fleet.RolloutReturning, "Sr")
	st.see(1, func(o *Observation) { o.Phase = fleet.RolledBack })
	st.is(fleet.RolloutReturned, "SR")
}

func TestASilentClusterOnTheWayBack(t *testing.T) {
	st := tell(t, 4, `waves: [{name: all, concurrency: 3, patience: 20m}]`)
	st.begins(0)
	for i := range 2 {
		st.blocks(i, fleet.BlockSilent)
	}
	st.is(fleet.RolloutProgressing, "uoow")
	st.do(Command{Verb: Undo})
	st.is(fleet.RolloutReturning, "rpnw") // nobody knows of the second: it is offered nothing any more, and told so
	st.offers("nnnn")
	st.goes(0, "RolledBack "+from)
	st.goes(1, "RolledBack "+from)
	st.set(1, func(o *Observation) { o.Running, o.Target, o.Phase = version, version, fleet.Succeeded })
	st.free(1)
	st.is(fleet.RolloutReturning, "rrnw") // it had taken it meanwhile
	st.after(20 * time.Minute)
	st.is(fleet.RolloutReturned, "SSnw")
}

func TestAReturnLeavesAloneWhoHadItBefore(t *testing.T) {
	st := tell(t, 3, `waves: [{name: all, soak: 1h}]`, func(st *story) {
		for i := range 2 {
			st.set(i, func(o *Observation) { o.Running, o.Target, o.Health = version, version, fleet.InProgress })
		}
	})
	st.takes(2)
	st.is(fleet.RolloutProgressing, "uuD")
	st.blocks(1, fleet.BlockSilent)
	st.do(Command{Verb: Undo})
	st.is(fleet.RolloutReturning, "npr")
	st.goes(0, "-")
	if got := st.s.Members[c(0)].Reason; got != "ran it before" {
		t.Errorf("%q", got)
	}
	st.free(1)
	st.returns(2)
	st.is(fleet.RolloutReturned, "nnR")
}

func TestAReturnThatIsRefusedSaysWhy(t *testing.T) {
	st := tell(t, 1, `waves: [{name: all, patience: 20m, soak: 1h}]`)
	st.takes(0)
	st.do(Command{Verb: Undo})
	st.see(0, func(o *Observation) { o.Target, o.Phase, o.Reason = from, fleet.Refused, "its images are gone" })
	st.is(fleet.RolloutReturning, "r")
	st.after(20 * time.Minute)
	st.is(fleet.RolloutReturned, "S")
	if got := st.s.Members[c(0)].Reason; got != "runs 1.1.0 still: Refused: its images are gone" {
		t.Errorf("%q", got)
	}
}

// inPhase brings a rollout of three clusters into a phase; those that took the release by then are told by
// their marks.
func inPhase(t *testing.T, p fleet.RolloutPhase) *story {
	t.Helper()
	plans := map[fleet.RolloutPhase]string{
		fleet.RolloutApproval: `waves: [{name: first, max: 1}, {name: rest, approval: vendor}]`,
		fleet.RolloutWindow:   `waves: [{name: first, max: 1}, {name: rest, windows: ["daily 01:00-03:00 UTC"]}]`,
		fleet.RolloutSoaking:  `waves: [{name: first, max: 1, soak: 1h}, {name: rest}]`,
		fleet.RolloutVerdicts: `waves: [{name: first, max: 1, verdicts: {minimum: 2}}, {name: rest}]`,
	}
	text := plans[p]
	if text == "" {
		text = `waves: [{name: all, concurrency: 1}]`
	}
	st := tell(t, 3, text)
	st.takes(0)
	switch p {
	case fleet.RolloutHolding:
		st.fails(1)
	case fleet.RolloutCompleted:
		st.takes(1, 2)
	case fleet.RolloutReturned:
		st.do(Command{Verb: Undo})
		st.returns(0)
	}
	verb := map[fleet.RolloutPhase]Verb{fleet.RolloutPaused: Pause, fleet.RolloutAborted: Abort, fleet.RolloutSuperseded: Supersede, fleet.RolloutReturning: Undo,
		fleet.RolloutRecalled: Recall}[p]
	if verb != "" {
		st.do(Command{Verb: verb})
	}
	if st.s.Phase != p {
		t.Fatalf("it is %s, want %s", st.s.Phase, p)
	}
	return st
}

func TestRecallInEveryPhase(t *testing.T) {
	for _, p := range fleet.RolloutPhases {
		for _, back := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%v", p, back), func(t *testing.T) {
				st := inPhase(t, p)
				if p == fleet.RolloutRecalled && !back {
					if err := st.try(Command{Verb: Recall}); !errors.Is(err, ErrTwice) {
						t.Errorf("recalled twice: %v", err)
					}
					return
				}
				st.do(Command{Verb: Recall, Reason: "it loses orders", RollBack: back})
				st.join(3)
				st.look()
				st.offers("nnnn")
				stopped := !back && p != fleet.RolloutReturning && p != fleet.RolloutReturned
				for i, m := range st.marks() {
					w, yes := st.s.Withdraws(c(i))
					if !yes || w.Kind != fleet.Recalled || w.Reason != "recalled by operator admin: it loses orders" || stopped && w.To != "" {
						t.Errorf("%s: %+v", c(i), w)
					}
					if m == 'r' && w.To != from {
						t.Errorf("%s goes back to %q", c(i), w.To)
					}
				}
				if stopped && st.s.Phase != fleet.RolloutRecalled {
					t.Errorf("it is %s", st.s.Phase)
				}
				if back && p != fleet.RolloutReturned && !(st.s.Phase == fleet.RolloutReturning && st.s.Members[c(0)].Mark == fleet.MarkReturning) {
					t.Errorf("it is %s %s", st.s.Phase, st.marks())
				}
				for i := range 3 {
					if st.s.Members[c(i)].Mark == fleet.MarkReturning {
						st.returns(i)
					}
				}
				if st.s.Phase != fleet.RolloutRecalled {
					t.Errorf("it ends as %s %s", st.s.Phase, st.marks())
				}
				st.after(1000 * time.Hour)
				st.offers("nnnn")
			})
		}
	}
}

func TestRecallMidFlight(t *testing.T) {
	st := tell(t, 3, `waves: [{name: all, concurrency: 2}]`)
	st.takes(0)
	st.begins(1)
	st.is(fleet.RolloutProgressing, "Duo")
	st.do(Command{Verb: Recall, Reason: "it loses orders", RollBack: true})
	st.is(fleet.RolloutReturning, "rrn")
	st.goes(0, "Recalled "+from)
	st.goes(1, "Recalled "+from)
	st.see(1, func(o *Observation) { o.Running, o.Phase, o.Health = version, fleet.Succeeded, fleet.Healthy }) // before it heard of it
	st.is(fleet.RolloutReturning, "rrn")
	st.returns(0)
	st.returns(1)
	st.is(fleet.RolloutRecalled, "RRn")
}

func TestUndoOfWhatAWavesReturnLeft(t *testing.T) {
	st := tell(t, 2, `{onFailure: rollBackWave, waves: [{name: canary, max: 1}, {name: rest}]}`)
	st.takes(0)
	st.fails(1)
	st.is(fleet.RolloutReturned, "DF") // nobody of the wave has it: that is all
	st.goes(0, "-")
	st.do(Command{Verb: Undo, Reason: "from the canary too"})
	st.is(fleet.RolloutReturning, "rF")
	st.goes(0, "RolledBack "+from)
	st.returns(0)
	st.is(fleet.RolloutReturned, "RF")
	if err := st.try(Command{Verb: Undo}); !errors.Is(err, ErrTwice) {
		t.Errorf("undone twice: %v", err)
	}
}

func TestUndoThatBecomesARecall(t *testing.T) {
	st := tell(t, 2, `waves: [{name: all}]`)
	st.takes(0)
	st.do(Command{Verb: Undo})
	st.goes(0, "RolledBack "+from)
	st.do(Command{Verb: Recall})
	st.goes(0, "Recalled "+from)
	st.returns(0)
	st.is(fleet.RolloutRecalled, "Rn")
}

func TestNobodyTookWhatIsUndone(t *testing.T) {
	st := tell(t, 0, `waves: [{name: all}]`)
	st.is(fleet.RolloutCompleted, "")
	if err := st.try(Command{Verb: Undo}); !errors.Is(err, ErrNotWaiting) {
		t.Errorf("undone: %v", err)
	}
}

// What a withdrawal says is read by every provider: it names no cluster of another one.
func TestAWithdrawalNamesNobody(t *testing.T) {
	st := tell(t, 2, `{onFailure: rollBackAll, waves: [{name: all}]}`)
	st.takes(0)
	st.fails(1)
	if !strings.Contains(st.s.Reason, string(c(1))) {
		t.Fatalf("the vendor is not told who failed: %q", st.s.Reason)
	}
	if w, yes := st.s.Withdraws(c(0)); !yes || w.Reason != "wave all: 1 failed, its budget is 0" {
		t.Errorf("%v %+v", yes, w)
	}
}
