package delivery

import (
	"fmt"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// Walk is how far live traffic has been led to a release's candidates. All its services walk together.
type Walk struct {
	Steps  int // of the course
	Step   int // 0: the candidates stand beside what runs and have no live traffic
	Stage  Stage
	Need   int  // measurements that the step has to pass
	Passed int  // that it has passed
	Led    bool // candidates, and routes that lead to them, may be on the cluster
	Hooks  bool // so may objects of the release that go before them: a return has to take them away
	Held   bool // a person holds it where it is: it is measured and may fail, and does not go on
	Asked  bool // the provider is asked whether it may go on
}

// Stage is what goes on in a step.
type Stage string

const (
	Admitting Stage = "admitting" // tests say whether it may begin
	Leading   Stage = "leading"   // traffic is being made what the step says
	Trying    Stage = "trying"    // the candidates are tested, before live traffic
	Measuring Stage = "measuring"
	Gating    Stage = "gating" // tests say whether it may go on

	// Where somebody else leads there are no steps; the release's own objects are applied by then.
	Following Stage = "following" // they have come to no verdict yet
	Followed  Stage = "followed"  // they have, or the provider in their place: a return has to go through them
)

// Gates are the places of a canary at which its provider is asked.
type Gates struct {
	Traffic   bool // before the first live traffic
	Increase  bool // before each step after the first
	Promotion bool
}

// asks: the provider wants to be asked before what comes after this step.
func (g Gates) asks(w Walk) bool {
	switch {
	case w.Step == 0:
		return g.Traffic
	case w.Step < w.Steps:
		return g.Increase
	}
	return g.Promotion
}

// question is what the provider is asked at a gate.
func (w Walk) question() string {
	switch {
	case w.Step == 0:
		return "asks before live traffic"
	case w.Step < w.Steps:
		return fmt.Sprintf("step %d of %d passed; asks before more traffic", w.Step, w.Steps)
	}
	return fmt.Sprintf("all %d steps passed; asks before promotion", w.Steps)
}

// Gate is what the provider is asked about, in the words of pkg/fleet; empty: nothing.
func (w Walk) Gate() string {
	switch {
	case !w.Asked:
		return ""
	case w.Stage == Measuring:
		return fleet.GateEvidence
	case w.Step == 0:
		return fleet.GateTraffic
	case w.Step < w.Steps:
		return fleet.GateIncrease
	}
	return fleet.GatePromotion
}

// gated is AwaitingApproval in a canary: a phase of its own in the table alone.
const gated fleet.Phase = "AwaitingApproval, at a gate"

// mostStandstill is how often a spoke may be restarted in a step without a measurement that passes.
const mostStandstill = 10

func course(_ time.Time, s State, e Event) bool    { return e.Steps > 0 && s.Previous }
func led(_ time.Time, s State, _ Event) bool       { return s.Walk.Led }
func hooked(_ time.Time, s State, _ Event) bool    { return s.Walk.Hooks }
func free(_ time.Time, s State, _ Event) bool      { return !s.Walk.Led }
func untouched(_ time.Time, s State, _ Event) bool { return s.Walk.Led && !s.Touched }
func whole(_ time.Time, s State, _ Event) bool {
	return s.Restored || untouched(time.Time{}, s, Event{})
}
func over(_ time.Time, _ State, e Event) bool       { return e.Over && e.Verdict == Fail }
func bare(_ time.Time, s State, _ Event) bool       { return s.Walk.Step == 0 }
func last(_ time.Time, s State, _ Event) bool       { return s.Walk.Step >= s.Walk.Steps }
func asking(_ time.Time, s State, _ Event) bool     { return s.Gates.asks(s.Walk) }
func held(_ time.Time, s State, _ Event) bool       { return s.Walk.Held }
func going(_ time.Time, s State, _ Event) bool      { return !s.Walk.Held }
func standstill(_ time.Time, s State, _ Event) bool { return s.Restarts >= mostStandstill }
func enough(_ time.Time, s State, _ Event) bool     { return s.Walk.Passed >= s.Walk.Need }
func complete(_ time.Time, s State, _ Event) bool   { return s.Walk.Passed+1 >= s.Walk.Need }

func at(stages ...Stage) guard {
	return func(_ time.Time, s State, _ Event) bool {
		for _, stage := range stages {
			if s.Walk.Stage == stage {
				return true
			}
		}
		return false
	}
}

// stride is what an event does to the walk.
type stride func(Walk, Event) Walk

func begin(w Walk, e Event) Walk {
	return Walk{Steps: e.Steps, Stage: Admitting, Led: true, Hooks: e.Hooks}
}
func ended(w Walk, _ Event) Walk { return Walk{} }
func onwards(w Walk, _ Event) Walk {
	return Walk{Steps: w.Steps, Step: w.Step + 1, Stage: Leading, Led: true, Hooks: w.Hooks, Held: w.Held}
}
func hurry(w Walk, e Event) Walk { // a person's word ends a hold
	w = onwards(w, e)
	w.Held = false
	return w
}
func done(w Walk, _ Event) Walk {
	return Walk{Steps: w.Steps, Step: w.Steps, Led: true, Hooks: w.Hooks}
}
func questioned(w Walk, _ Event) Walk { w.Asked = true; return w }
func passed(w Walk, _ Event) Walk     { w.Passed = min(w.Passed+1, max(w.Need, 1)); return w }
func paused(w Walk, _ Event) Walk     { w.Held = true; return w }
func freed(w Walk, _ Event) Walk      { w.Held = false; return w }

// to is the stage that the walk comes to.
func to(stage Stage) stride {
	return func(w Walk, e Event) Walk {
		w.Stage, w.Asked = stage, false
		if e.Kind == Led {
			w.Need = e.Passes
		}
		return w
	}
}

func then(strides ...stride) stride {
	return func(w Walk, e Event) Walk {
		for _, s := range strides {
			w = s(w, e)
		}
		return w
	}
}

// canary is the part of the table about live traffic. Until the target's own objects are applied, the
// previous release is untouched, and the way back is to lead traffic to it (law 7). What is not known
// decides nothing (law 6): the provider is asked, or it is waited.
func canary() []row {
	in := func(p ...fleet.Phase) []fleet.Phase { return p }
	and := func(e ...Effect) []Effect { return e }
	walking := in(fleet.Progressing)
	either := in(fleet.Progressing, gated)
	back := func(from []fleet.Phase, on Kind, when guard, say reason) row {
		return row{from: from, on: on, when: when, to: fleet.RollingBack, do: and(Abort), say: say, clock: run}
	}
	// on is what follows a gate that is open.
	on := func(from []fleet.Phase, on Kind, when guard, way stride) []row {
		return []row{
			{from: from, on: on, when: all(when, last), to: fleet.Promoting, do: and(Apply), walk: done, clock: run},
			{from: from, on: on, when: when, to: fleet.Progressing, do: and(Lead), walk: way, clock: run},
		}
	}
	rows := []row{
		{from: in(fleet.Checking), on: Checked, when: course, to: fleet.Progressing, do: and(Try), walk: begin, clock: patient},

		back(walking, Tried, all(at(Admitting, Trying, Gating), fail), give),
		{from: walking, on: Tried, when: all(at(Trying, Gating), held), to: stay, do: and(Measure), say: give, walk: to(Measuring), clock: evidence},
		back(walking, Tried, all(at(Admitting, Gating), inconclusive, late), shut),
		{from: walking, on: Tried, when: all(at(Admitting), pass), to: stay, do: and(Lead), walk: to(Leading), clock: run},
		{from: walking, on: Tried, when: all(at(Admitting), inconclusive), to: stay, do: and(Try), say: give, clock: hold},
		{from: walking, on: Tried, when: all(at(Trying), inconclusive, retried, early), to: stay, do: and(Try), say: give, clock: hold},
		{from: walking, on: Tried, when: all(at(Trying), inconclusive), to: gated, do: and(Measure), say: hint, walk: questioned, clock: patient},
		{from: walking, on: Tried, when: all(at(Gating), inconclusive), to: stay, do: and(Measure), say: give, clock: hold},
		{from: walking, on: Tried, when: all(at(Trying, Gating), asking), to: gated, do: and(Measure), say: question, walk: questioned, clock: patient},
	}
	rows = append(rows, on(walking, Tried, all(at(Trying, Gating), pass), onwards)...)
	rows = append(rows,
		row{from: walking, on: Led, when: all(at(Leading), bare), to: stay, do: and(Try), say: give, walk: to(Trying), clock: trial},
		row{from: walking, on: Led, when: at(Leading), to: stay, do: and(Measure), say: give, walk: to(Measuring), clock: evidence},
		back(walking, Unled, at(Leading), give),
		back(walking, Waiting, all(at(Leading), late), expire),
		row{from: walking, on: Waiting, when: at(Leading), to: stay, do: and(Lead), say: give, clock: hold},

		back(either, Measured, over, give),
		row{from: in(gated), on: Measured, to: stay, do: and(Measure), say: keep, clock: hold},
		row{from: walking, on: Measured, when: at(Gating), to: stay, do: and(Try), say: keep, clock: hold},
		row{from: walking, on: Measured, when: all(at(Measuring), pass, complete, going), to: stay, do: and(Try), walk: then(passed, to(Gating)), clock: patient},
		row{from: walking, on: Measured, when: all(at(Measuring), pass), to: stay, do: and(Measure), say: give, walk: passed, clock: evidence},
		row{from: walking, on: Measured, when: all(at(Measuring), fail), to: stay, do: and(Measure), say: give, clock: evidence},
		row{from: walking, on: Measured, when: all(at(Measuring), late, going), to: gated, do: and(Measure), say: hint, walk: questioned, clock: patient},
		row{from: walking, on: Measured, when: at(Measuring), to: stay, do: and(Measure), say: give, clock: hold},

		row{from: in(gated), on: Approve, when: at(Measuring), to: fleet.Progressing, do: and(Try), walk: then(freed, to(Gating)), clock: patient},
	)
	rows = append(rows, on(in(gated), Approve, anyway, hurry)...)
	rows = append(rows,
		back(in(gated), Reject, nil, give),
		back(in(gated), Expired, nil, unanswered),
		row{from: in(gated), on: Delayed, to: stay, say: keep, clock: hold},
		row{from: in(gated), on: Restart, to: stay, do: and(Measure), say: keep, clock: hold},

		row{from: either, on: Pause, to: stay, say: keep, walk: paused, clock: hold},
		row{from: walking, on: Resume, when: all(at(Measuring), held, enough), to: stay, do: and(Try), walk: then(freed, to(Gating)), clock: patient},
		row{from: either, on: Resume, to: stay, say: keep, walk: freed, clock: hold},
		row{from: either, on: Skip, to: fleet.Promoting, do: and(Apply), walk: done, clock: run},
	)
	rows = append(rows, on(walking, Advance, at(Trying, Measuring, Gating), hurry)...)
	rows = append(rows, on(in(gated), Advance, nil, hurry)...)
	rows = append(rows,
		// Who cannot be asked says nothing about the release.
		row{from: walking, on: Delayed, when: all(at(Trying, Measuring, Gating), late), to: gated, do: and(Measure), say: hint, walk: questioned, clock: patient},
		back(walking, Delayed, late, expire),
		row{from: walking, on: Delayed, to: stay, say: give, clock: hold},
		back(walking, Refuse, nil, give),
		back(either, Return, nil, give),
		back(walking, Restart, standstill, stuck),
		row{from: walking, on: Restart, when: at(Admitting), to: stay, do: and(Try), say: keep, clock: hold},
		row{from: walking, on: Restart, to: stay, do: and(Lead), say: keep, walk: to(Leading), clock: run},

		// Stable is the new release, whole and healthy: the candidates go, and then what had to lead to them.
		row{from: in(fleet.Settling), on: Observed, when: all(healthy, beside), to: stay, do: and(Conclude), clock: hold},
		row{from: in(fleet.Settling), on: Concluded, when: beside, to: stay, do: and(Apply), walk: ended, clock: run},
		row{from: in(fleet.Settling), on: Applied, to: stay, do: and(Watch), clock: hold},
		row{from: in(fleet.Settling), on: Waiting, when: all(beside, previous, late), to: fleet.RollingBack, do: and(Restore), say: expire, clock: run},
		row{from: in(fleet.Settling), on: Waiting, when: beside, to: stay, do: and(Watch), say: give, clock: hold},

		// The candidates hold their traffic until stable is whole again.
		row{from: in(fleet.RollingBack), on: Observed, when: all(restored, healthy, led), to: stay, do: and(Abort), say: keep, clock: hold},
		row{from: in(fleet.RollingBack, fleet.RollbackFailed), on: Aborted, when: all(untouched, hooked), to: fleet.RollingBack, do: and(Restore), say: keep, walk: ended, clock: run},
		row{from: in(fleet.RollingBack), on: Aborted, when: whole, to: fleet.RolledBack, do: and(Hold), say: keep, walk: ended},
		row{from: in(fleet.RollingBack), on: Waiting, when: all(led, late), to: fleet.RollbackFailed, do: and(Hold), say: both},
		row{from: in(fleet.RollingBack), on: Waiting, when: led, to: stay, do: and(Abort), say: keep, clock: hold},
		row{from: in(fleet.RollingBack), on: Restart, when: all(untouched, seldom), to: stay, do: and(Abort), say: keep, clock: run},
		row{from: in(fleet.RollingBack), on: Restart, when: untouched, to: stay, do: and(Abort), say: keep, clock: hold},
		row{from: in(fleet.RollbackFailed), on: Observed, when: all(healthy, restored, led), to: fleet.RollingBack, do: and(Abort), say: keep, clock: run},
		row{from: in(fleet.RollbackFailed), on: Aborted, when: whole, to: fleet.RolledBack, say: keep, walk: ended},
		row{from: in(fleet.RollbackFailed), on: Waiting, to: stay, say: keep},
	)
	return rows
}
