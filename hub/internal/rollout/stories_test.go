package rollout

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

const threeWaves = `
waves:
- {name: canary, clusters: {matchLabels: {ring: "0"}}, soak: 30m}
- {name: early, clusters: {matchLabels: {ring: "1"}}, approval: vendor}
- {name: rest, soak: 10m}
`

func TestThreeWavesWithSoakAndApproval(t *testing.T) {
	st := tell(t, 4, threeWaves)
	st.is(fleet.RolloutProgressing, "owww")
	st.offers("ynnn")
	st.begins(0)
	st.is(fleet.RolloutProgressing, "uwww")
	st.says("wave canary waits for 1 cluster: 1 under way")
	st.takes(0)
	st.is(fleet.RolloutSoaking, "Dwww")
	st.says("wave canary soaks until 2026-01-05T12:30:00Z")
	st.due(30 * time.Minute)
	st.after(30*time.Minute - 1)
	st.is(fleet.RolloutSoaking, "Dwww")
	st.after(1)
	st.is(fleet.RolloutApproval, "Dwww")
	st.says("wave early wants the approval of vendor; hub rollout approve shop 1.1.0")
	st.due(-1)
	st.after(1000 * time.Hour)
	st.offers("ynnn")
	st.do(Command{Verb: Approve, By: "vendor ann", Role: "vendor"})
	st.is(fleet.RolloutProgressing, "Doww")
	st.offers("yynn")
	st.takes(1)
	st.is(fleet.RolloutProgressing, "DDoo")
	st.takes(2, 3)
	st.is(fleet.RolloutSoaking, "DDDD")
	st.after(10 * time.Minute)
	st.is(fleet.RolloutCompleted, "DDDD")
	if got := st.s.Waves[1].ApprovedBy; got != "vendor ann" {
		t.Errorf("approved by %q", got)
	}
	st.join(4)
	st.offers("yyyyy")
}

func TestApprovalIsOneRolesAndOnce(t *testing.T) {
	st := tell(t, 2, `waves: [{name: canary, clusters: {matchLabels: {ring: "0"}}, approval: vendor}, {name: rest, approval: vendor}]`)
	st.is(fleet.RolloutApproval, "ww")
	refused := func(c Command, want error, words string) {
		t.Helper()
		if err := st.try(c); !errors.Is(err, want) || !strings.Contains(err.Error(), words) {
			t.Fatalf("%+v: %v, want %v with %q", c, err, want, words)
		}
	}
	refused(Command{Verb: Approve, By: "acme ops", Role: "provider"}, ErrRole, "wave canary wants vendor, and this is said as provider")
	refused(Command{Verb: Approve, Wave: "production", Role: "vendor"}, ErrNoSuchWave, `"production" is none of [canary rest]`)
	refused(Command{Verb: Approve, Wave: "rest", Role: "vendor"}, ErrNotWaiting, "hub rollout status shop 1.1.0")
	refused(Command{Verb: Resume}, ErrNotWaiting, "AwaitingApproval")
	st.is(fleet.RolloutApproval, "ww")

	st.do(Command{Verb: Approve, Wave: "canary", By: "vendor ann", Role: "vendor"})
	st.is(fleet.RolloutProgressing, "ow")
	refused(Command{Verb: Approve, By: "vendor bob", Role: "vendor"}, ErrTwice, "wave canary was approved by vendor ann")
	st.takes(0)
	st.is(fleet.RolloutApproval, "Dw")
	refused(Command{Verb: Approve, Wave: "canary", Role: "vendor"}, ErrTwice, "wave canary was approved by vendor ann")

	st.do(Command{Verb: Reject, By: "vendor ann", Role: "vendor", Reason: "not on a Friday"})
	st.is(fleet.RolloutHolding, "Dw")
	st.says("rejected by vendor ann: not on a Friday; hub rollout resume shop 1.1.0 goes on, hub rollout undo shop 1.1.0 brings it back")
	st.do(Command{Verb: Resume})
	st.is(fleet.RolloutApproval, "Dw") // a rejection that was taken back is no approval
	st.do(Command{Verb: Approve, By: "operator admin", Role: "admin"})
	st.takes(1)
	st.is(fleet.RolloutCompleted, "DD")
	refused(Command{Verb: Approve, Role: "vendor"}, ErrOver, "it is Completed")
}

func TestConcurrencyIsSlots(t *testing.T) {
	st := tell(t, 4, `waves: [{name: all, concurrency: 2}]`)
	st.is(fleet.RolloutProgressing, "ooww")
	st.begins(0)
	st.is(fleet.RolloutProgressing, "uoww")
	st.offers("yynn")
	st.takes(0)
	st.is(fleet.RolloutProgressing, "Doow")
	st.takes(2)
	st.is(fleet.RolloutProgressing, "DoDo")
	st.says("wave all waits for 2 clusters: 2 offered")
}

func TestTenPerCentOfFourIsOne(t *testing.T) {
	st := tell(t, 4, `waves: [{name: all, concurrency: 10%, budget: 10%}]`)
	st.is(fleet.RolloutProgressing, "owww")
	st.fails(0)
	st.is(fleet.RolloutProgressing, "Foww")
	st.fails(1)
	st.is(fleet.RolloutHolding, "FFww")
	st.says("wave all: 2 failed, its budget is 1; acme/c0: RolledBack: backend never got ready; " +
		"hub rollout resume shop 1.1.0 goes on, hub rollout undo shop 1.1.0 brings it back")
}

func TestABrokenBudgetHolds(t *testing.T) {
	st := tell(t, 4, `waves: [{name: all, concurrency: 3}]`)
	st.begins(1)
	st.fails(0)
	st.is(fleet.RolloutHolding, "Fuow")
	st.offers("yynn") // who has not begun loses the offer; who is under way goes on
	st.goes(2, "-")
	st.due(-1)
	st.after(100 * time.Hour)
	st.is(fleet.RolloutHolding, "Fuow")
	st.takes(1)
	st.is(fleet.RolloutHolding, "FDow")
	st.fails(2) // it was quicker than the hold
	st.is(fleet.RolloutHolding, "FDFw")

	st.do(Command{Verb: Resume, Reason: "a known trouble"})
	st.is(fleet.RolloutProgressing, "FDFo") // both are forgiven
	st.fails(3)
	st.is(fleet.RolloutHolding, "FDFF") // and no other
	st.do(Command{Verb: Resume})
	st.is(fleet.RolloutCompleted, "FDFF")
}

func TestForgivenOnceIsNotForgivenAgain(t *testing.T) {
	st := tell(t, 2, `waves: [{name: all}]`)
	st.fails(0)
	st.do(Command{Verb: Resume})
	st.is(fleet.RolloutProgressing, "Fo")
	st.see(0, func(o *Observation) { o.Running, o.Phase, o.Health = version, fleet.Succeeded, fleet.Healthy }) // by hand
	st.is(fleet.RolloutProgressing, "Do")
	st.fails(1)
	st.is(fleet.RolloutHolding, "DF")
}

func TestABrokenBudgetRollsBackTheWave(t *testing.T) {
	st := tell(t, 4, `{onFailure: rollBackWave, waves: [{name: canary, clusters: {matchLabels: {ring: "0"}}}, {name: rest, budget: 1, concurrency: 2}]}`)
	st.takes(0, 1)
	st.fails(2)
	st.is(fleet.RolloutProgressing, "DDFo")
	st.fails(3)
	st.is(fleet.RolloutReturning, "DrFF")
	st.says("1 cluster on the way back (wave rest: 2 failed, its budget is 1; acme/c2: RolledBack: backend never got ready)")
	st.offers("ynnn")
	st.goes(0, "-")
	st.goes(1, "RolledBack "+from)
	st.goes(3, "RolledBack "+from)
	st.returns(1)
	st.is(fleet.RolloutReturned, "DRFF")
	st.offers("ynnn")
	st.goes(1, "RolledBack "+from)
}

func TestABrokenBudgetRollsBackAllWaves(t *testing.T) {
	st := tell(t, 3, `{onFailure: rollBackAll, waves: [{name: canary, clusters: {matchLabels: {ring: "0"}}}, {name: rest}]}`)
	st.takes(0)
	st.begins(2)
	st.fails(1)
	st.is(fleet.RolloutReturning, "rFr")
	st.offers("nnn")
	st.goes(0, "RolledBack "+from)
	st.goes(2, "RolledBack "+from)
	st.returns(0)
	st.is(fleet.RolloutReturning, "RFr")
	st.returns(2)
	st.is(fleet.RolloutReturned, "RFR")
}

func TestAFailureOfAWaveThatIsOverBreaksItsBudget(t *testing.T) {
	st := tell(t, 3, `{onFailure: rollBackWave, waves: [{name: canary, clusters: {matchLabels: {ring: "0"}}}, {name: early, clusters: {matchLabels: {ring: "1"}}, patience: 5m}, {name: rest}]}`)
	st.takes(0)
	st.after(5 * time.Minute)
	st.is(fleet.RolloutProgressing, "Dpo")
	st.takes(2)
	st.is(fleet.RolloutCompleted, "DpD") // who never answered holds nobody up

	st = tell(t, 3, `{onFailure: rollBackWave, waves: [{name: canary, clusters: {matchLabels: {ring: "0"}}}, {name: early, clusters: {matchLabels: {ring: "1"}}, patience: 5m}, {name: rest}]}`)
	st.takes(0)
	st.after(5 * time.Minute)
	st.begins(2)
	st.fails(1)
	st.is(fleet.RolloutReturning, "DFr") // the wave after it had the release for its sake
}

func TestPauseAndResume(t *testing.T) {
	st := tell(t, 3, `waves: [{name: all, concurrency: 2, patience: 10m}]`)
	st.begins(0)
	st.do(Command{Verb: Pause, Reason: "lunch"})
	st.is(fleet.RolloutPaused, "uow")
	st.says("paused by operator admin: lunch; hub rollout resume shop 1.1.0")
	st.offers("ynn")
	if err := st.try(Command{Verb: Pause}); !errors.Is(err, ErrTwice) {
		t.Errorf("paused twice: %v", err)
	}
	st.takes(0)
	st.after(time.Hour)
	st.is(fleet.RolloutPaused, "Dow") // nobody loses patience with who is not offered it
	st.do(Command{Verb: Resume})
	st.is(fleet.RolloutProgressing, "Doo")
	st.due(time.Hour + 10*time.Minute)
	st.takes(1, 2)
	st.is(fleet.RolloutCompleted, "DDD")
}

func TestAPauseOutlivesTheSoak(t *testing.T) {
	st := tell(t, 2, threeWaves)
	st.takes(0)
	st.do(Command{Verb: Pause})
	st.after(time.Hour)
	st.is(fleet.RolloutPaused, "Dw")
	st.do(Command{Verb: Resume})
	st.is(fleet.RolloutApproval, "Dw")
}

func TestAbort(t *testing.T) {
	st := tell(t, 3, `waves: [{name: all, concurrency: 2}]`)
	st.takes(0)
	st.begins(1)
	st.is(fleet.RolloutProgressing, "Duo")
	st.do(Command{Verb: Abort, Reason: "wrong day"})
	st.is(fleet.RolloutAborted, "Duo")
	st.offers("yyn")
	st.goes(0, "-")
	st.says("")
	st.due(-1)
	if err := st.try(Command{Verb: Resume}); !errors.Is(err, ErrOver) || !strings.Contains(err.Error(), "hub rollout start shop 1.1.0") {
		t.Errorf("resumed: %v", err)
	}
	st.do(Command{Verb: Undo})
	st.is(fleet.RolloutReturning, "rrn")
}

func TestSupersede(t *testing.T) {
	st := tell(t, 3, `waves: [{name: all, concurrency: 2}]`)
	st.takes(0)
	st.begins(1)
	st.do(Command{Verb: Supersede, By: "hub", Role: "hub", Reason: "1.2.0 takes over"})
	st.is(fleet.RolloutSuperseded, "Duo")
	st.offers("yyn")
	if st.s.Reason != "superseded by hub: 1.2.0 takes over" {
		t.Errorf("it says %q", st.s.Reason)
	}
	if err := st.try(Command{Verb: Supersede}); !errors.Is(err, ErrTwice) {
		t.Errorf("superseded twice: %v", err)
	}
}

func TestChangedNamesWhoDiffers(t *testing.T) {
	st := tell(t, 3, `{joiners: wave, waves: [{name: all, concurrency: 1}]}`)
	before := st.s
	if got := st.s.Changed(before); len(got) > 0 {
		t.Errorf("%v differ from themselves", got)
	}
	st.takes(0)
	st.join(3)
	st.look()
	if got, want := st.s.Changed(before), []fleet.Cluster{c(0), c(1), c(3)}; !slices.Equal(got, want) {
		t.Errorf("%v differ, want %v", got, want)
	}
	if got, want := st.s.Count(0), (Counts{Total: 4, Done: 1, Offered: 1, Waiting: 2}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
