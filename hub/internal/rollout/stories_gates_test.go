package rollout

import (
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

func (st *story) health(i int, h fleet.Health) {
	st.t.Helper()
	st.see(i, func(o *Observation) { o.Health, o.Reason = h, "" })
}

func TestDegradedDuringTheSoakIsAFailure(t *testing.T) {
	st := tell(t, 3, `{onFailure: rollBackAll, waves: [{name: canary, max: 2, soak: 1h}, {name: rest}]}`)
	st.takes(0, 1)
	st.is(fleet.RolloutSoaking, "DDw")
	st.health(0, fleet.InProgress) // not ill
	st.is(fleet.RolloutSoaking, "DDw")
	st.health(1, fleet.Degraded)
	st.is(fleet.RolloutReturning, "rrw") // it runs the release still
	st.says("2 clusters on the way back (wave canary: 1 failed, its budget is 0; acme/c1: degraded)")
	st.goes(1, "RolledBack "+from)
	st.returns(0)
	st.returns(1)
	st.is(fleet.RolloutReturned, "RRw")
}

func TestDegradedDuringTheWaveWithinTheBudget(t *testing.T) {
	st := tell(t, 2, `waves: [{name: all, budget: 1, soak: 1h}]`)
	st.takes(0)
	st.health(0, fleet.Degraded)
	st.is(fleet.RolloutProgressing, "Fo")
	st.health(0, fleet.Healthy) // who gets well is none any more
	st.is(fleet.RolloutProgressing, "Do")
	st.takes(1)
	st.after(time.Hour)
	st.is(fleet.RolloutCompleted, "DD")
}

func TestDegradedAfterTheWaveIsNotTheRolloutsFailure(t *testing.T) {
	st := tell(t, 2, `waves: [{name: canary, max: 1}, {name: rest}]`)
	st.takes(0)
	st.health(0, fleet.Degraded)
	st.is(fleet.RolloutProgressing, "Do")
}

func TestTheSoakIsWaitedFor(t *testing.T) {
	st := tell(t, 2, `waves: [{name: all, soak: 1h}]`)
	st.takes(0)
	st.after(time.Hour - 1)
	st.is(fleet.RolloutProgressing, "Do") // it begins with the last of the wave
	st.takes(1)
	st.due(2*time.Hour - 1)
	st.after(time.Hour)
	st.is(fleet.RolloutCompleted, "DD")
}

func TestSuccessShare(t *testing.T) {
	for _, by := range []struct {
		success string
		phase   fleet.RolloutPhase
	}{{"success: 50%, ", fleet.RolloutProgressing}, {"success: 51%, ", fleet.RolloutHolding}, {"", fleet.RolloutProgressing}} {
		t.Run(by.success, func(t *testing.T) {
			st := tell(t, 5, `waves: [{name: canary, max: 4, `+by.success+`budget: 2, soak: 1h}, {name: rest}]`)
			st.fails(0)
			st.takes(1, 2)
			st.fails(3)
			st.after(time.Hour)
			if st.s.Phase != by.phase {
				t.Fatalf("it is %s %s: %s", st.s.Phase, st.marks(), st.s.Waits())
			}
			if by.phase != fleet.RolloutHolding {
				return
			}
			st.says("wave canary: 2 of 4 are healthy after the soak, want 51%; hub rollout resume shop 1.1.0 goes on, hub rollout undo shop 1.1.0 brings it back")
			st.do(Command{Verb: Resume}) // who resumes passes the wave over
			st.is(fleet.RolloutProgressing, "FDDFo")
		})
	}
}

func TestUnsettledAfterTheSoakIsWaitedFor(t *testing.T) {
	st := tell(t, 2, `waves: [{name: canary, max: 1, soak: 1h, patience: 20m}, {name: rest}]`)
	st.takes(0)
	st.health(0, fleet.InProgress)
	st.after(time.Hour)
	st.is(fleet.RolloutSoaking, "Dw")
	st.due(80 * time.Minute)
	st.after(20*time.Minute - 1)
	st.is(fleet.RolloutSoaking, "Dw")
	st.after(1)
	st.is(fleet.RolloutHolding, "Dw")
	st.offers("yn")
}

func TestSilentAfterTheSoakIsNoSuccessAndHoldsNobodyUp(t *testing.T) {
	st := tell(t, 3, `waves: [{name: canary, max: 2, soak: 1h, patience: 20m}, {name: rest}]`)
	st.takes(0, 1)
	st.blocks(0, fleet.BlockSilent)
	st.after(time.Hour)
	st.is(fleet.RolloutSoaking, "DDw")
	st.after(20 * time.Minute)
	st.is(fleet.RolloutProgressing, "DDo")
}

func TestSilenceIsNoPartOfTheShare(t *testing.T) {
	st := tell(t, 5, `waves: [{name: canary, max: 4, budget: 1, success: 60%, soak: 1h, patience: 20m}, {name: rest}]`)
	st.fails(0)
	st.takes(1, 2, 3)
	st.blocks(1, fleet.BlockSilent)
	st.blocks(2, fleet.BlockSilent)
	st.after(time.Hour)
	st.is(fleet.RolloutSoaking, "FDDDw")
	st.after(20 * time.Minute)
	st.is(fleet.RolloutHolding, "FDDDw") // of the two that can be judged one is well
}

func TestVerdictsWantAMinimum(t *testing.T) {
	st := tell(t, 4, `waves: [{name: canary, max: 3, patience: 10m, verdicts: {minimum: 2, passes: 50%}, budget: 1}, {name: rest}]`)
	st.blocks(0, fleet.BlockPin)
	st.takes(1)
	st.blocks(2, fleet.BlockSilent)
	st.after(10 * time.Minute)
	st.is(fleet.RolloutVerdicts, "pDpw")
	st.says("wave canary wants 2 verdicts, and 1 are there; hub rollout approve shop 1.1.0 goes on without them")
	st.due(-1)
	st.free(0)
	st.fails(0) // a verdict too
	st.is(fleet.RolloutProgressing, "FDpo")
}

func TestWhoIsCaughtUpBeforeTheVerdictsSoaks(t *testing.T) {
	st := tell(t, 3, `waves: [{name: canary, max: 2, soak: 1h, verdicts: {minimum: 1}}, {name: rest}]`, func(st *story) {
		for i := range 2 {
			st.set(i, func(o *Observation) { o.Block = fleet.BlockPin })
		}
	})
	st.is(fleet.RolloutVerdicts, "ppw") // nobody took it: there is nothing to soak
	st.free(0)
	st.takes(0)
	st.is(fleet.RolloutSoaking, "Dpw")
	st.after(time.Hour)
	st.is(fleet.RolloutProgressing, "Dpo")
}

func TestVerdictsThatDoNotPassHold(t *testing.T) {
	st := tell(t, 3, `waves: [{name: canary, max: 2, verdicts: {minimum: 2, passes: 75%}, budget: 1}, {name: rest}]`)
	st.fails(0)
	st.takes(1)
	st.is(fleet.RolloutHolding, "FDw")
	st.says("wave canary: 1 of 2 verdicts pass, want 75%; hub rollout resume shop 1.1.0 goes on, hub rollout undo shop 1.1.0 brings it back")
	st.do(Command{Verb: Resume})
	st.is(fleet.RolloutProgressing, "FDo")
}

func TestVerdictsPassedOverByAPerson(t *testing.T) {
	st := tell(t, 2, `waves: [{name: canary, max: 1, verdicts: {minimum: 5}}, {name: rest}]`)
	st.takes(0)
	st.is(fleet.RolloutVerdicts, "Dw")
	if err := st.try(Command{Verb: Approve, Wave: "rest", Role: "admin"}); err == nil {
		t.Error("another wave's approval was taken")
	}
	st.do(Command{Verb: Approve, Reason: "a small fleet"})
	st.is(fleet.RolloutProgressing, "Do")
}

func TestVerdictsRejectedByAPerson(t *testing.T) {
	st := tell(t, 2, `waves: [{name: canary, max: 1, verdicts: {minimum: 5}}, {name: rest}]`)
	st.takes(0)
	st.do(Command{Verb: Reject, Reason: "too slow"})
	st.is(fleet.RolloutHolding, "Dw")
	st.offers("yn")
	st.do(Command{Verb: Undo})
	st.is(fleet.RolloutReturning, "rw")
}

func TestAPauseBeforeAGateLeadsBackToIt(t *testing.T) {
	for _, p := range []fleet.RolloutPhase{fleet.RolloutWindow, fleet.RolloutApproval, fleet.RolloutSoaking, fleet.RolloutVerdicts} {
		st := inPhase(t, p)
		before := st.s.Waits()
		st.do(Command{Verb: Pause})
		if st.s.Phase != fleet.RolloutPaused {
			t.Errorf("%s: it is %s", p, st.s.Phase)
		}
		st.do(Command{Verb: Resume})
		if st.s.Phase != p || st.s.Waits() != before {
			t.Errorf("%s: it is %s: %q", p, st.s.Phase, st.s.Waits())
		}
	}
}

func TestAWindowOpensAndCloses(t *testing.T) {
	st := tell(t, 3, `waves: [{name: all, concurrency: 1, patience: 12h, windows: ["Mon-Fri 22:00-04:00 Europe/Berlin"]}]`)
	st.is(fleet.RolloutWindow, "www")
	st.says("wave all is outside its window: Mon-Fri 22:00-04:00 Europe/Berlin")
	st.offers("nnn")
	st.due(9 * time.Hour) // 21:00 UTC
	st.after(9 * time.Hour)
	st.is(fleet.RolloutProgressing, "oww")
	st.due(15 * time.Hour)
	st.takes(0)
	st.begins(1)
	st.after(6 * time.Hour)
	st.is(fleet.RolloutWindow, "Duw")
	st.offers("yyn")
	st.takes(1) // who has begun goes on
	st.is(fleet.RolloutWindow, "DDw")
	st.offers("yyn")
	st.due(33 * time.Hour)
	st.after(18 * time.Hour)
	st.takes(2)
	st.is(fleet.RolloutCompleted, "DDD")
}

func TestAWindowThatClosesTakesTheOfferBack(t *testing.T) {
	st := tell(t, 1, `waves: [{name: all, patience: 90m, windows: ["daily 12:00-13:00 UTC"]}]`)
	st.is(fleet.RolloutProgressing, "o")
	st.due(time.Hour)
	st.after(time.Hour)
	st.is(fleet.RolloutWindow, "o")
	st.offers("n")
	st.due(24 * time.Hour)
	st.after(23 * time.Hour)
	st.is(fleet.RolloutProgressing, "o") // nobody lost patience with it
	st.offers("y")
	st.takes(0)
	st.is(fleet.RolloutCompleted, "D")
}

func TestAWindowOverTheChangeOfTheClock(t *testing.T) {
	st := tell(t, 1, `waves: [{name: all, patience: 12h, windows: ["daily 01:00-04:00 Europe/Berlin"]}]`)
	at := func(month time.Month, day, hour, minute int) time.Duration {
		return time.Date(2026, month, day, hour, minute, 0, 0, time.UTC).Sub(t0)
	}
	till := func(d time.Duration) { t.Helper(); st.after(t0.Add(d).Sub(st.now)) }

	till(at(time.March, 28, 23, 30)) // in spring the window has two hours
	st.is(fleet.RolloutWindow, "w")
	st.due(at(time.March, 29, 0, 0))
	till(at(time.March, 29, 0, 0))
	st.is(fleet.RolloutProgressing, "o")
	st.due(at(time.March, 29, 2, 0))
	till(at(time.March, 29, 2, 0))
	st.is(fleet.RolloutWindow, "o")
	st.due(at(time.March, 29, 23, 0)) // 01:00 of summer time

	till(at(time.October, 24, 22, 59)) // in autumn it has four
	st.is(fleet.RolloutWindow, "o")
	till(at(time.October, 24, 23, 0))
	st.is(fleet.RolloutProgressing, "o")
	st.due(at(time.October, 25, 3, 0))
	till(at(time.October, 25, 2, 59))
	st.offers("y")
	till(at(time.October, 25, 3, 0))
	st.offers("n")
}

func TestApprovalComesBeforeTheWindow(t *testing.T) {
	st := tell(t, 1, `waves: [{name: all, approval: vendor, windows: ["daily 20:00-21:00 UTC"]}]`)
	st.is(fleet.RolloutApproval, "w")
	st.after(8 * time.Hour)
	st.is(fleet.RolloutApproval, "w")
	st.after(2 * time.Hour)
	st.do(Command{Verb: Approve, Role: "vendor", By: "vendor ann"})
	st.is(fleet.RolloutWindow, "w")
	st.after(22 * time.Hour)
	st.is(fleet.RolloutProgressing, "o")
}

func TestNobodyToCarryItTo(t *testing.T) {
	st := tell(t, 0, threeWaves)
	st.is(fleet.RolloutCompleted, "")
	st.join(0)
	st.offers("y")

	st = tell(t, 2, `waves: [{name: canary, clusters: {matchLabels: {ring: "9"}}}, {name: more, clusters: {matchLabels: {ring: "8"}}}]`)
	st.is(fleet.RolloutHolding, "") // a slip of the pen
	st.offers("nn")
	st.says("no wave of the plan matches any of 2 clusters; hub rollout resume shop 1.1.0 goes on, hub rollout undo shop 1.1.0 brings it back")
	st.do(Command{Verb: Resume})
	st.is(fleet.RolloutCompleted, "oo")
}

func TestAnEmptyWaveIsPassedOver(t *testing.T) {
	st := tell(t, 1, `waves: [{name: canary, clusters: {matchLabels: {ring: "9"}}, approval: vendor, soak: 1h}, {name: rest}]`)
	st.is(fleet.RolloutProgressing, "o")
}

func TestWhoIsLeftOutTakesItAtTheEnd(t *testing.T) {
	st := tell(t, 2, `waves: [{name: canary, clusters: {matchLabels: {ring: "0"}}}]`)
	st.offers("yn")
	st.takes(0)
	st.is(fleet.RolloutCompleted, "Do")
	st.offers("yy")
}

// Every phase that is not the end says whose turn it is, and a person's with the command.
func TestEveryPhaseNamesWhatItWaitsFor(t *testing.T) {
	want := map[fleet.RolloutPhase]string{
		fleet.RolloutWindow:      "wave rest is outside its window: daily 01:00-03:00 UTC",
		fleet.RolloutApproval:    "wave rest wants the approval of vendor; hub rollout approve shop 1.1.0",
		fleet.RolloutProgressing: "wave all waits for 2 clusters: 1 offered, 1 waiting",
		fleet.RolloutSoaking:     "wave first soaks until 2026-01-05T13:00:00Z",
		fleet.RolloutVerdicts:    "wave first wants 2 verdicts, and 1 are there; hub rollout approve shop 1.1.0 goes on without them",
		fleet.RolloutHolding: "wave all: 1 failed, its budget is 0; acme/c1: RolledBack: backend never got ready; " +
			"hub rollout resume shop 1.1.0 goes on, hub rollout undo shop 1.1.0 brings it back",
		fleet.RolloutPaused:    "paused by operator admin; hub rollout resume shop 1.1.0",
		fleet.RolloutReturning: "1 cluster on the way back (undone by operator admin)",
	}
	for _, p := range fleet.RolloutPhases {
		if got := inPhase(t, p).s.Waits(); got != want[p] || (got == "") != p.Terminal() {
			t.Errorf("%s waits for %q, want %q", p, got, want[p])
		}
	}
}
