package rollout

import (
	"fmt"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

func (st *story) free(i int) { st.t.Helper(); st.blocks(i, fleet.BlockNone) }

func TestABlockedClusterKeepsItsSlotUntilPatience(t *testing.T) {
	for _, b := range blocks() {
		t.Run(string(b), func(t *testing.T) {
			st := tell(t, 3, `waves: [{name: all, concurrency: 1, patience: 20m}]`)
			st.blocks(0, b)
			if b == fleet.BlockPolicy { // its provider does not take it at all: nobody to wait for
				st.is(fleet.RolloutProgressing, "now")
				st.takes(1, 2)
				st.is(fleet.RolloutCompleted, "nDD")
				return
			}
			st.is(fleet.RolloutProgressing, "oww")
			st.due(20 * time.Minute)
			st.after(20*time.Minute - 1)
			st.is(fleet.RolloutProgressing, "oww")
			st.after(1)
			st.is(fleet.RolloutProgressing, "pow")
			st.offers("yyn")
			if got := st.s.Members[c(0)]; got.Reason != string(b) || got.Block != b {
				t.Errorf("%+v", got)
			}
			st.takes(1)
			st.is(fleet.RolloutProgressing, "pDo")
			st.free(0)
			st.takes(0) // caught up, beside the slots
			st.is(fleet.RolloutProgressing, "DDo")
		})
	}
}

func TestAClusterThatIsBlockedOnTheWayIsWaitedFor(t *testing.T) {
	for phase, b := range map[fleet.Phase]fleet.Block{fleet.AwaitingApproval: fleet.BlockApproval, fleet.AwaitingWindow: fleet.BlockWindow, fleet.AwaitingConfig: fleet.BlockConfig} {
		t.Run(string(phase), func(t *testing.T) {
			st := tell(t, 2, `waves: [{name: all, concurrency: 1, patience: 20m}]`)
			st.begins(0)
			st.is(fleet.RolloutProgressing, "uw")
			st.see(0, func(o *Observation) { o.Phase = phase })
			st.is(fleet.RolloutProgressing, "ow")
			if got := st.s.Members[c(0)].Block; got != b {
				t.Errorf("blocked by %q, want %q", got, b)
			}
			st.after(20 * time.Minute)
			st.is(fleet.RolloutProgressing, "po")
			st.takes(1)
			st.is(fleet.RolloutCompleted, "pD") // never beyond patience
		})
	}
}

func TestOneThatFallsSilentOnTheWay(t *testing.T) {
	st := tell(t, 2, `waves: [{name: all, concurrency: 1, patience: 20m}]`)
	st.begins(0)
	st.after(15 * time.Minute)
	st.blocks(0, fleet.BlockSilent)
	st.is(fleet.RolloutProgressing, "uw")
	st.due(35 * time.Minute)
	st.after(20 * time.Minute)
	st.is(fleet.RolloutProgressing, "po")
	st.free(0) // it speaks again, and is on its way still
	st.is(fleet.RolloutProgressing, "po")
	if got := st.s.Members[c(0)]; got.Block != fleet.BlockNone || got.Reason != "takes it now" {
		t.Errorf("%+v", got)
	}
	st.do(Command{Verb: Pause})
	st.offers("yn") // as one that has begun
	st.do(Command{Verb: Resume})
	st.takes(0)
	st.is(fleet.RolloutProgressing, "Do")
}

func TestASilentClusterIsNotJudged(t *testing.T) {
	st := tell(t, 2, `waves: [{name: all, soak: 1h}]`)
	st.takes(0)
	st.set(0, func(o *Observation) { o.Health = fleet.Degraded })
	st.blocks(0, fleet.BlockSilent)
	st.is(fleet.RolloutProgressing, "Do")
	st.set(1, func(o *Observation) { o.Target, o.Phase, o.Block = version, fleet.RolledBack, fleet.BlockSilent })
	st.after(30 * time.Minute)
	st.is(fleet.RolloutProgressing, "Do")
	st.free(1)
	st.is(fleet.RolloutHolding, "DF")
}

func TestParkedThatFailsCounts(t *testing.T) {
	st := tell(t, 2, `waves: [{name: all, patience: 10m, soak: 1h}]`)
	st.takes(1)
	st.blocks(0, fleet.BlockPin)
	st.after(10 * time.Minute)
	st.is(fleet.RolloutSoaking, "pD")
	st.free(0)
	st.fails(0)
	st.is(fleet.RolloutHolding, "FD")
}

func TestPinnedBeforeTheOffer(t *testing.T) {
	st := tell(t, 3, `waves: [{name: all, concurrency: 1}]`, func(st *story) {
		st.set(0, func(o *Observation) { o.Block = fleet.BlockPin })
	})
	st.is(fleet.RolloutProgressing, "pow") // at once, and it uses no slot
	st.offers("yyn")                       // offered, and declined
	if m := st.s.Members[c(0)]; m.Offered.IsZero() || m.Reason != "pinned" || m.Before != from {
		t.Errorf("%+v", m)
	}
	st.takes(1, 2)
	st.is(fleet.RolloutCompleted, "pDD")
}

func TestAPinThatExpires(t *testing.T) {
	st := tell(t, 3, `waves: [{name: all, concurrency: 1}]`, func(st *story) {
		st.set(0, func(o *Observation) { o.Block = fleet.BlockPin })
	})
	st.begins(1)
	st.free(0)
	st.is(fleet.RolloutProgressing, "puw")
	if got := st.s.Members[c(0)].Reason; got != "does not take it" {
		t.Errorf("it says %q still", got)
	}
	st.takes(0)
	st.is(fleet.RolloutProgressing, "Duw")
	st.takes(1, 2)
	st.is(fleet.RolloutCompleted, "DDD")
}

func TestAPinThatExpiresWithinPatience(t *testing.T) {
	st := tell(t, 1, `waves: [{name: all}]`)
	st.blocks(0, fleet.BlockPin)
	st.after(30 * time.Minute)
	st.free(0)
	st.is(fleet.RolloutProgressing, "o")
	if m := st.s.Members[c(0)]; m.Block != fleet.BlockNone || !m.BlockedSince.IsZero() {
		t.Errorf("%+v", m)
	}
	st.takes(0)
	st.is(fleet.RolloutCompleted, "D")
}

func TestWhoIsNotConcernedIsNotWaitedFor(t *testing.T) {
	st := tell(t, 4, `waves: [{name: all, concurrency: 1, soak: 1h}]`, func(st *story) {
		st.set(0, func(o *Observation) { o.Block = fleet.BlockPolicy })
		st.set(1, func(o *Observation) { o.Running, o.Target = "2.0.0", "2.0.0" })
		st.set(2, func(o *Observation) { o.Running, o.Target = version, version })
	})
	st.is(fleet.RolloutProgressing, "nnDo")
	if got := st.s.Members[c(1)].Reason; got != "runs 2.0.0, which is newer" {
		t.Errorf("%q", got)
	}
	st.see(3, func(o *Observation) { o.Running, o.Target, o.Block = "2.0.0", "2.0.0", fleet.BlockNone }) // mid-flight, by a newer rollout
	st.is(fleet.RolloutSoaking, "nnDn")
	st.free(0) // its range is wider now: it is offered the release late
	st.is(fleet.RolloutSoaking, "onDn")
	st.takes(0)
	st.after(time.Hour)
	st.is(fleet.RolloutCompleted, "DnDn")
}

func TestAWaveOfWhomNobodyIsConcernedEndsAtOnce(t *testing.T) {
	st := tell(t, 2, `waves: [{name: canary, max: 1, soak: 100h}, {name: rest}]`, func(st *story) {
		st.set(0, func(o *Observation) { o.Block = fleet.BlockPolicy })
	})
	st.is(fleet.RolloutProgressing, "no")
}

// A release that failed in the canary and is rolled out again: its spoke holds it, and would not try again. That
// is no reason to go past the canary.
func TestAFailureFromBeforeCounts(t *testing.T) {
	st := tell(t, 3, `waves: [{name: canary, max: 1}, {name: rest}]`, func(st *story) {
		st.set(0, func(o *Observation) { o.Target, o.Phase, o.Reason = version, fleet.RolledBack, "last week" })
	})
	st.is(fleet.RolloutHolding, "Fww")
	st.says("wave canary: 1 failed, its budget is 0; acme/c0: before this rollout: RolledBack: last week; hub rollout resume shop 1.1.0 goes on, hub rollout undo shop 1.1.0 brings it back")
	st.offers("ynn") // so that its provider may have it tried again
	st.see(0, func(o *Observation) { o.Running, o.Phase, o.Reason = version, fleet.Succeeded, "" })
	st.is(fleet.RolloutHolding, "Dww")
	st.do(Command{Verb: Resume})
	st.is(fleet.RolloutProgressing, "Doo")
}

// Who failed before breaks the budget before anybody else is offered the release.
func TestAFailureFromBeforeComesFirst(t *testing.T) {
	st := tell(t, 3, `waves: [{name: all}]`, func(st *story) {
		st.set(1, func(o *Observation) { o.Target, o.Phase = version, fleet.RolledBack })
	})
	st.is(fleet.RolloutHolding, "wFw")
}

// A canary that nobody took says nothing for the release: the next wave waits as long as patience lasts.
func TestAWaveThatNobodyTookIsWaitedFor(t *testing.T) {
	st := tell(t, 3, `waves: [{name: canary, max: 2, patience: 2h, soak: 10m}, {name: rest}]`, func(st *story) {
		st.set(0, func(o *Observation) { o.Block = fleet.BlockPin })
		st.set(1, func(o *Observation) { o.Block = fleet.BlockSilent })
	})
	st.is(fleet.RolloutProgressing, "ppw")
	st.says("nobody in wave canary has taken it: 2 clusters parked; the next wave goes on without them at 2026-01-05T14:00:00Z")
	st.due(2 * time.Hour)
	st.after(time.Hour)
	st.free(0)
	st.takes(0)
	st.is(fleet.RolloutSoaking, "Dpw")
	st.after(10 * time.Minute)
	st.is(fleet.RolloutProgressing, "Dpo")

	st = tell(t, 2, `waves: [{name: canary, max: 1}, {name: rest}]`, func(st *story) {
		st.set(0, func(o *Observation) { o.Block = fleet.BlockPin })
	})
	st.after(time.Hour)
	st.is(fleet.RolloutProgressing, "po")
}

// A joiner whose turn comes with the end of the rollout brings what it tried before: that is no failure of a
// wave which is over.
func TestAnAttemptFromBeforeIsNoFailureAtTheEnd(t *testing.T) {
	st := tell(t, 1, `{joiners: completed, waves: [{name: all}]}`)
	st.join(1)
	st.see(1, func(o *Observation) { o.Target, o.Phase, o.Reason = version, fleet.RolledBack, "last week" })
	st.is(fleet.RolloutProgressing, "ow")
	st.takes(0)
	st.is(fleet.RolloutCompleted, "Dp")
	if m := st.s.Members[c(1)]; m.Block != fleet.BlockHeld || m.Wave != -1 {
		t.Errorf("%+v", m)
	}
}

func TestJoiners(t *testing.T) {
	for _, by := range []struct{ policy, joined, early string }{{"completed", "uww", "ynn"}, {"wave", "uwo", "yny"}} {
		t.Run(by.policy, func(t *testing.T) {
			st := tell(t, 2, fmt.Sprintf(`{joiners: %s, waves: [{name: first, max: 2, clusters: {matchExpressions: [{key: ring, operator: NotIn, values: ["1"]}]}}, {name: rest}]}`, by.policy))
			st.begins(0)
			st.join(2)
			st.look()
			st.is(fleet.RolloutProgressing, by.joined)
			st.offers(by.early)
			st.takes(0)
			if by.policy == "wave" {
				st.is(fleet.RolloutProgressing, "Dwo") // the wave waits for it
				st.takes(2)
			}
			st.takes(1)
			if st.s.Phase != fleet.RolloutCompleted {
				t.Errorf("it is %s %s", st.s.Phase, st.marks())
			}
			st.offers("yyy")
		})
	}
}

func TestAJoinerOfAWaveThatIsOver(t *testing.T) {
	st := tell(t, 2, `{joiners: wave, waves: [{name: first, clusters: {matchExpressions: [{key: ring, operator: NotIn, values: ["1"]}]}}, {name: rest}]}`)
	st.takes(0)
	st.is(fleet.RolloutProgressing, "Do")
	st.join(2)
	st.look()
	st.is(fleet.RolloutProgressing, "Doo") // it takes it now
	st.fails(2)
	st.is(fleet.RolloutHolding, "DoF")
}

func TestAJoinerWaitsForItsWavesGate(t *testing.T) {
	st := tell(t, 1, `{joiners: wave, waves: [{name: first, max: 1}, {name: rest, approval: vendor}]}`)
	st.join(1)
	st.look()
	st.takes(0)
	st.is(fleet.RolloutApproval, "Dw")
	st.offers("yn")
}

func TestLeavers(t *testing.T) {
	st := tell(t, 4, `waves: [{name: all, concurrency: 2}]`)
	st.begins(0)
	st.is(fleet.RolloutProgressing, "uoww")
	st.leaves(0)
	st.is(fleet.RolloutProgressing, "loow") // its slot is free
	st.leaves(3)
	st.takes(1, 2)
	st.is(fleet.RolloutCompleted, "lDDl")
}

func TestALeaverThatIsBackTakesItsTurnAgain(t *testing.T) {
	st := tell(t, 2, `waves: [{name: all, concurrency: 1, soak: 1h}]`)
	st.leaves(1)
	st.takes(0)
	st.is(fleet.RolloutSoaking, "Dl")
	st.join(1)
	st.look()
	st.is(fleet.RolloutSoaking, "Do")
	st.takes(1)
	st.is(fleet.RolloutSoaking, "DD")
}

func TestALeaverWhoFailedIsNotCounted(t *testing.T) {
	st := tell(t, 3, `waves: [{name: all, budget: 1}]`)
	st.fails(0)
	st.leaves(0)
	st.fails(1)
	st.is(fleet.RolloutProgressing, "lFo")
	st.takes(2)
	st.is(fleet.RolloutCompleted, "lFD")
}

func TestAllLeave(t *testing.T) {
	st := tell(t, 1, `waves: [{name: all, soak: 1h}]`)
	st.leaves(0)
	st.is(fleet.RolloutCompleted, "l")
}

func TestWhoGoesBackByItselfIsParked(t *testing.T) {
	st := tell(t, 1, `waves: [{name: all, soak: 1h}]`)
	st.takes(0)
	back := func(b fleet.Block) {
		st.see(0, func(o *Observation) { o.Running, o.Target, o.Phase, o.Block = from, from, fleet.Succeeded, b })
	}
	back(fleet.BlockPin) // a revert in its provider's repository
	st.is(fleet.RolloutSoaking, "p")
	if got := st.s.Members[c(0)].Reason; got != "went back to 1.0.0" {
		t.Errorf("%q", got)
	}
	st.free(0)
	st.takes(0)
	st.is(fleet.RolloutSoaking, "D")
	back(fleet.BlockPolicy)
	st.is(fleet.RolloutSoaking, "n")
}

// One that had the release before the rollout came, and took it again in it, goes back to what it ran between.
func TestWhoHadItBeforeGoesBackToWhatItRanSince(t *testing.T) {
	st := tell(t, 2, `waves: [{name: all, soak: 1h}]`, func(st *story) {
		st.set(0, func(o *Observation) { o.Running, o.Target = version, version })
	})
	st.is(fleet.RolloutProgressing, "Do")
	st.see(0, func(o *Observation) { o.Running, o.Target, o.Phase = from, from, fleet.Succeeded })
	st.is(fleet.RolloutProgressing, "po")
	st.takes(0)
	st.do(Command{Verb: Undo})
	st.is(fleet.RolloutReturning, "rn")
	st.goes(0, "RolledBack "+from)
}

// One that comes to a wave which is over, and failed with the release before, does not break that wave's budget.
func TestAFailureFromBeforeOfALateJoinerDoesNotCount(t *testing.T) {
	st := tell(t, 2, `{joiners: wave, waves: [{name: canary, clusters: {matchLabels: {ring: "0"}}}, {name: rest}]}`)
	st.takes(0)
	st.is(fleet.RolloutProgressing, "Do")
	st.f["acme/c2"] = Observation{Running: from, Target: version, Phase: fleet.RolledBack, Reason: "last week", Health: fleet.Healthy, Labels: map[string]string{"ring": "0"}}
	st.look()
	st.is(fleet.RolloutProgressing, "Dop")
}

// A provider that says no has not failed: it is counted apart, and may change its mind.
func TestADeclinedReleaseIsNoFailure(t *testing.T) {
	st := tell(t, 3, `waves: [{name: canary, max: 2, patience: 30m}, {name: rest}]`, func(st *story) {
		st.set(0, func(o *Observation) { o.Target, o.Phase, o.Block = version, fleet.Refused, fleet.BlockDeclined })
	})
	st.see(1, func(o *Observation) { o.Target, o.Phase, o.Block = version, fleet.Refused, fleet.BlockDeclined })
	st.is(fleet.RolloutProgressing, "pow")
	st.after(30 * time.Minute)
	st.is(fleet.RolloutProgressing, "ppo")
	st.see(0, func(o *Observation) { o.Phase, o.Block = fleet.Promoting, fleet.BlockNone })
	st.see(0, func(o *Observation) { o.Running, o.Phase = version, fleet.Succeeded })
	st.is(fleet.RolloutProgressing, "Dpo")
}
