package delivery

import (
	"fmt"
	"slices"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// row is one line of the machine. The first row that matches is taken.
type row struct {
	from  []fleet.Phase
	on    Kind
	when  guard       // nil: always
	to    fleet.Phase // stay: the phase it came from
	do    []Effect
	say   reason
	walk  stride // nil: it stays as it is
	clock clock
}

const stay fleet.Phase = "stay"

// asked is AwaitingApproval of a release that is on the cluster already: a phase of its own in the table
// alone, so that nothing which may happen to an approval before the first touch happens to it.
const asked fleet.Phase = "AwaitingApproval, applied"

// place is the phase as the table has it.
func (s State) place() fleet.Phase {
	switch {
	case s.Applied:
		return asked
	case s.Walk.Asked:
		return gated
	}
	return s.Phase
}

type guard func(now time.Time, s State, e Event) bool

// reason says what becomes of State.Reason.
type reason int

const (
	silent     reason = iota // the new phase has nothing to say yet but what it is for
	keep                     // what was said before goes on being true
	give                     // the event's
	expire                   // the event's, and that time is up
	unanswered               // what was asked, and that time is up
	both                     // what was said before, and the event's
	untested                 // that no verdict came in time
	shut                     // the event's, and that a gate was not opened in time
	question                 // what the provider is asked at a gate, and how to answer
	hint                     // the event's, and how to answer
	stuck                    // that the spoke was restarted too often
)

// clock says what becomes of State.Deadline.
type clock int

const (
	stop      clock = iota
	run             // starts anew
	hold            // goes on
	patient         // starts anew, for a person
	until           // the event's
	trial           // starts anew, for the tests
	evidence        // starts anew, for a measurement
	following       // starts anew, for those who lead
)

func healthy(_ time.Time, _ State, e Event) bool  { return e.Health == fleet.Healthy }
func previous(_ time.Time, s State, _ Event) bool { return s.Previous }
func first(_ time.Time, s State, _ Event) bool    { return !s.Previous }
func restored(_ time.Time, s State, _ Event) bool { return s.Restored }

func pass(_ time.Time, _ State, e Event) bool         { return e.Verdict == Pass }
func fail(_ time.Time, _ State, e Event) bool         { return e.Verdict == Fail }
func inconclusive(_ time.Time, _ State, e Event) bool { return e.Verdict == Inconclusive }
func anyway(time.Time, State, Event) bool             { return true }
func retried(_ time.Time, s State, _ Event) bool      { return s.Retry }
func disproved(_ time.Time, s State, _ Event) bool    { return s.Proof == Disproved }

// unproven: there are tests, and neither they nor the provider have said yes.
func unproven(_ time.Time, s State, _ Event) bool {
	return s.Tests && s.Proof != Passed && s.Proof != Accepted
}

// own: what is asked about are the tests of this place, and nobody leads in the canary plugin's.
func own(_ time.Time, s State, _ Event) bool { return s.Walk.Stage != Following }

// mostRestarts is how many restarts begin a deadline anew: a spoke that is killed again and again still
// comes to an end.
const mostRestarts = 3

func seldom(_ time.Time, s State, _ Event) bool  { return s.Restarts < mostRestarts }
func running(_ time.Time, _ State, e Event) bool { return e.Target != "" }

func late(now time.Time, s State, _ Event) bool {
	return !s.Deadline.IsZero() && !now.Before(s.Deadline)
}

// failing: an object has been failing for longer than it may.
func failing(now time.Time, s State, _ Event) bool {
	return !s.Failing.IsZero() && now.Sub(s.Failing) >= s.Grace
}

// early: the deadline is not over.
func early(now time.Time, s State, e Event) bool { return !late(now, s, e) }

// ailing: what was healthy before it was tested has not been for as long as it may take to become so.
func ailing(now time.Time, s State, _ Event) bool {
	return !s.Ailing.IsZero() && now.Sub(s.Ailing) >= s.Timeout
}

// all holds where every guard holds.
func all(guards ...guard) guard {
	return func(now time.Time, s State, e Event) bool {
		return !slices.ContainsFunc(guards, func(g guard) bool { return g != nil && !g(now, s, e) })
	}
}

// table is the whole machine.
//
// Nothing is applied before Promoting, so every trouble before it leaves the old release alone. From
// Promoting on there are two ends: everything is on the new release, healthy, or everything is back
// on the previous one (laws 4 and 7); a first install that is cut off half-way is taken away again,
// one that is whole and not well stays to be looked at. What failed is held, so that nothing puts it
// back (law 8), and pruning follows only upon health (law 3).
//
// Where there are tests, what is healthy is tested before anything is pruned or promoted. A fail goes back
// as ill health does. Without a verdict nothing is decided (law 6): the provider is asked, while the
// release stays on the cluster and is watched.
func table() []row {
	idle := []fleet.Phase{fleet.PhaseNone, fleet.AwaitingConfig, fleet.Succeeded, fleet.Refused, fleet.RolledBack, fleet.RollbackFailed}
	before := []fleet.Phase{fleet.Fetching, fleet.Verifying, fleet.Rendering, fleet.Checking}
	calm := []fleet.Phase{fleet.PhaseNone, fleet.AwaitingConfig, fleet.Succeeded, fleet.Refused, fleet.RolledBack}
	waiting := slices.Concat(before, []fleet.Phase{fleet.AwaitingApproval, fleet.AwaitingWindow})
	in := func(p ...fleet.Phase) []fleet.Phase { return p }
	and := func(e ...Effect) []Effect { return e }
	landed := in(fleet.Settling, fleet.Testing)
	touched := in(fleet.Promoting, fleet.Settling, fleet.Testing)
	return append(append(handover(), canary()...), []row{
		{from: slices.Concat(idle, waiting), on: Start, when: free, to: fleet.Fetching, do: and(Fetch), clock: run},

		{from: in(fleet.Fetching), on: Fetched, to: fleet.Verifying, do: and(Verify), clock: hold},
		{from: in(fleet.Verifying), on: Verified, to: fleet.Rendering, do: and(Render), clock: hold},
		{from: in(fleet.Rendering), on: Unchanged, to: fleet.Succeeded, do: and(Promote)},
		{from: in(fleet.Rendering), on: Rendered, to: fleet.Checking, do: and(Check), clock: hold},
		{from: in(fleet.Rendering), on: Unrenderable, to: fleet.AwaitingConfig, do: and(Hold), say: give},
		{from: in(fleet.Checking), on: Checked, to: fleet.Promoting, do: and(Apply), clock: run},
		{from: in(fleet.Checking), on: Asking, to: fleet.AwaitingApproval, say: give, clock: patient},
		{from: before, on: Delayed, when: late, to: fleet.Refused, do: and(Hold), say: expire},
		{from: before, on: Delayed, to: stay, say: give, clock: hold},
		{from: before, on: Refuse, to: fleet.Refused, do: and(Hold), say: give},

		// The cluster may have changed since: what was approved is tried again.
		{from: in(fleet.AwaitingApproval), on: Approve, to: fleet.Checking, do: and(Check), clock: run},
		{from: in(fleet.AwaitingApproval), on: Reject, to: fleet.Refused, do: and(Hold), say: give},
		{from: in(fleet.AwaitingApproval), on: Expired, to: fleet.Refused, do: and(Hold), say: unanswered},

		// What waits for a window is known to be taken and has its bytes in place. Waiting is no failure, however
		// long it takes; and the cluster may have changed by the time that the window opens.
		{from: in(fleet.Checking, fleet.AwaitingWindow), on: Closed, to: fleet.AwaitingWindow, say: give, clock: until},
		{from: calm, on: Closed, to: fleet.AwaitingWindow, say: give, clock: until}, // a return that needs nothing checked
		{from: in(fleet.AwaitingWindow), on: Opened, to: fleet.Checking, do: and(Check), clock: run},

		{from: in(fleet.Promoting), on: Applied, when: seldom, to: fleet.Settling, do: and(Watch), clock: run},
		{from: in(fleet.Promoting), on: Applied, to: fleet.Settling, do: and(Watch), clock: hold},
		// A hook may take longer than health may: who applies tells the time that it took, and gives it up.
		{from: in(fleet.Promoting), on: Waiting, when: all(late, previous), to: fleet.RollingBack, do: and(Restore), say: expire, clock: run},
		{from: in(fleet.Promoting), on: Waiting, when: late, to: fleet.RollingBack, do: and(Undo), say: expire, clock: run},
		{from: in(fleet.Promoting), on: Waiting, to: stay, do: and(Apply), say: give, clock: hold},
		{from: in(fleet.Settling), on: Observed, when: all(healthy, unproven, seldom), to: fleet.Testing, do: and(Test), clock: trial},
		{from: in(fleet.Settling), on: Observed, when: all(healthy, unproven), to: fleet.Testing, do: and(Test), clock: hold},
		{from: in(fleet.Testing), on: Observed, when: all(healthy, unproven, late), to: asked, do: and(Watch), say: untested, clock: patient},
		{from: in(fleet.Testing), on: Observed, when: all(healthy, unproven), to: stay, do: and(Test), say: give, clock: hold},
		{from: landed, on: Observed, when: healthy, to: stay, do: and(Prune), clock: hold},
		{from: landed, on: Observed, when: all(failing, previous), to: fleet.RollingBack, do: and(Restore), say: give, clock: run},
		{from: landed, on: Observed, when: failing, to: fleet.RollbackFailed, do: and(Hold), say: give},
		{from: landed, on: Observed, when: all(late, previous), to: fleet.RollingBack, do: and(Restore), say: expire, clock: run},
		{from: landed, on: Observed, when: late, to: fleet.RollbackFailed, do: and(Hold), say: expire},
		{from: in(fleet.Testing, asked), on: Observed, when: all(ailing, previous), to: fleet.RollingBack, do: and(Restore), say: expire, clock: run},
		{from: in(fleet.Testing, asked), on: Observed, when: ailing, to: fleet.RollbackFailed, do: and(Hold), say: expire},
		{from: in(fleet.Testing), on: Observed, when: unproven, to: stay, do: and(Test), say: give, clock: hold},
		{from: landed, on: Observed, to: stay, do: and(Watch), say: give, clock: hold},
		{from: landed, on: Pruned, when: all(through, unproven), to: fleet.Testing, do: and(Test), clock: trial},
		{from: landed, on: Pruned, when: through, to: fleet.Succeeded, do: and(Promote), walk: ended},
		{from: touched, on: Delayed, when: all(late, previous), to: fleet.RollingBack, do: and(Restore), say: expire, clock: run},
		{from: in(fleet.Promoting), on: Delayed, when: late, to: fleet.RollingBack, do: and(Undo), say: expire, clock: run},
		{from: landed, on: Delayed, when: late, to: fleet.RollbackFailed, do: and(Hold), say: expire},
		{from: touched, on: Delayed, to: stay, say: give, clock: hold},
		{from: touched, on: Refuse, when: previous, to: fleet.RollingBack, do: and(Restore), say: give, clock: run},
		{from: in(fleet.Promoting), on: Refuse, to: fleet.RollingBack, do: and(Undo), say: give, clock: run},
		{from: landed, on: Refuse, to: fleet.RollbackFailed, do: and(Hold), say: give},

		// The tests may have taken long: health is looked at once more after they passed.
		{from: in(fleet.Testing), on: Tested, when: pass, to: stay, do: and(Watch), clock: hold},
		{from: landed, on: Tested, when: all(fail, previous), to: fleet.RollingBack, do: and(Restore), say: give, clock: run},
		{from: landed, on: Tested, when: fail, to: fleet.RollbackFailed, do: and(Hold), say: give},
		{from: in(fleet.Testing), on: Tested, when: all(retried, early), to: stay, do: and(Test), say: give, clock: hold},
		{from: in(fleet.Testing), on: Tested, to: asked, do: and(Watch), say: give, clock: patient},
		{from: in(asked), on: Approve, to: fleet.Settling, do: and(Watch), clock: run},
		{from: in(asked), on: Retest, when: all(unproven, own), to: fleet.Testing, do: and(Test), clock: trial},
		{from: in(asked), on: Reject, when: previous, to: fleet.RollingBack, do: and(Restore), say: give, clock: run},
		{from: in(asked), on: Reject, to: fleet.RollbackFailed, do: and(Hold), say: give},
		{from: in(asked), on: Expired, when: previous, to: fleet.RollingBack, do: and(Restore), say: unanswered, clock: run},
		{from: in(asked), on: Expired, to: fleet.RollbackFailed, do: and(Hold), say: unanswered},
		{from: in(asked), on: Observed, when: all(failing, previous), to: fleet.RollingBack, do: and(Restore), say: give, clock: run},
		{from: in(asked), on: Observed, when: failing, to: fleet.RollbackFailed, do: and(Hold), say: give},
		{from: in(asked), on: Observed, to: stay, do: and(Watch), say: keep, clock: hold},
		{from: in(asked), on: Delayed, to: stay, say: keep, clock: hold},

		{from: in(fleet.RollingBack), on: Undone, when: free, to: fleet.RolledBack, do: and(Hold), say: keep},

		// A person's word goes before everything, and so does a release's withdrawal: whatever is under way ends in the return.
		{from: slices.Concat(touched, in(asked)), on: Return, when: previous, to: fleet.RollingBack, do: and(Restore), say: give, clock: run},
		{from: slices.Concat(idle, waiting), on: Return, when: all(free, followed), to: fleet.RollingBack, do: and(Restore), say: give, walk: handed(Followed), clock: run},
		{from: slices.Concat(idle, waiting), on: Return, when: free, to: fleet.RollingBack, do: and(Restore), say: give, clock: run},

		// The reason of a return stays what it was begun for.
		{from: in(fleet.RollingBack), on: Restored, when: seldom, to: stay, do: and(Watch), say: keep, clock: run},
		{from: in(fleet.RollingBack), on: Restored, to: stay, do: and(Watch), say: keep, clock: hold},
		{from: in(fleet.RollingBack), on: Observed, when: all(restored, healthy), to: fleet.RolledBack, do: and(Hold), say: keep},
		{from: in(fleet.RollingBack), on: Observed, when: all(restored, late), to: fleet.RollbackFailed, do: and(Hold), say: both},
		{from: in(fleet.RollingBack), on: Observed, when: restored, to: stay, do: and(Watch), say: keep, clock: hold},
		{from: in(fleet.RollingBack), on: Delayed, when: late, to: fleet.RollbackFailed, do: and(Hold), say: both},
		{from: in(fleet.RollingBack), on: Delayed, to: stay, say: keep, clock: hold},
		{from: in(fleet.RollingBack), on: Refuse, to: fleet.RollbackFailed, do: and(Hold), say: both},

		// After a failed return the cluster is still watched: it may get well by itself or by a person.
		// A first install that its tests, or its provider, said no to stays one.
		{from: in(fleet.RollbackFailed), on: Observed, when: all(disproved, first), to: stay, say: keep},
		{from: in(fleet.RollbackFailed), on: Observed, when: all(healthy, first, unproven), to: fleet.Testing, do: and(Test), clock: trial},
		{from: in(fleet.RollbackFailed), on: Observed, when: all(healthy, first), to: fleet.Settling, do: and(Watch), clock: run},
		{from: in(fleet.RollbackFailed), on: Observed, when: all(healthy, restored), to: fleet.RolledBack, say: keep},
		{from: in(fleet.RollbackFailed), on: Observed, to: stay, say: keep},
		{from: in(fleet.RollbackFailed), on: Restored, when: previous, to: fleet.RollingBack, do: and(Watch), say: keep, clock: run},
		{from: in(fleet.RollbackFailed), on: Delayed, to: stay, say: keep},
		{from: in(fleet.RollbackFailed), on: Refuse, to: stay, say: keep},

		{from: slices.Concat(calm, waiting), on: Misconfigured, to: fleet.AwaitingConfig, say: give},
		{from: slices.Concat(calm, waiting), on: Content, when: running, to: fleet.Succeeded, say: give},
		{from: slices.Concat(calm, waiting), on: Content, to: fleet.PhaseNone, say: give},
		{from: in(fleet.RollbackFailed), on: Misconfigured, to: stay, say: keep},
		{from: in(fleet.RollbackFailed), on: Content, to: stay, say: keep},

		{from: before, on: Restart, to: fleet.Fetching, do: and(Fetch), clock: run},
		{from: in(fleet.AwaitingApproval, fleet.AwaitingWindow), on: Restart, to: stay, say: keep, clock: hold},
		{from: in(asked), on: Restart, to: stay, do: and(Watch), say: keep, clock: hold},
		{from: touched, on: Restart, when: seldom, to: fleet.Promoting, do: and(Apply), clock: run},
		{from: touched, on: Restart, to: fleet.Promoting, do: and(Apply), clock: hold},
		{from: in(fleet.RollingBack), on: Restart, when: all(previous, seldom), to: stay, do: and(Restore), say: keep, clock: run},
		{from: in(fleet.RollingBack), on: Restart, when: previous, to: stay, do: and(Restore), say: keep, clock: hold},
		{from: in(fleet.RollingBack), on: Restart, to: stay, do: and(Undo), say: keep, clock: run},
		{from: idle, on: Restart, to: stay, say: keep},
	}...)
}

func (r row) matches(now time.Time, s State, e Event) bool {
	return r.on == e.Kind && slices.Contains(r.from, s.place()) && (r.when == nil || r.when(now, s, e))
}

func (r row) apply(now time.Time, s State, e Event) State {
	n := s
	switch r.to {
	case stay:
	case asked:
		n.Phase, n.Applied = fleet.AwaitingApproval, true
	case gated:
		n.Phase = fleet.AwaitingApproval
	default:
		n.Phase, n.Applied, n.Walk.Asked = r.to, false, false
	}
	if r.walk != nil {
		n.Walk = r.walk(s.Walk, e)
	}
	if n.Walk.Passed > s.Walk.Passed || n.Walk.Step != s.Walk.Step || n.Phase == fleet.Promoting && s.Phase != fleet.Promoting && e.Kind != Restart {
		n.Restarts = 0
	}
	n.Touched = s.Touched || slices.Contains(r.do, Apply)
	if n.Phase != s.Phase || e.Kind == Start {
		n.Since, n.Failing, n.Ailing = now, time.Time{}, time.Time{}
	}
	switch r.say {
	case silent:
		n.Reason = s.Errand
	case give:
		n.Reason = e.Reason
	case expire:
		n.Reason = fmt.Sprintf("%s (not there after %s)", e.Reason, s.Timeout)
	case unanswered:
		n.Reason = fmt.Sprintf("%s (no answer after %s)", s.Reason, s.Patience)
	case untested:
		n.Reason = fmt.Sprintf("%s(the tests were not done after %s)", Inconclusive, s.Proving)
	case shut:
		n.Reason = fmt.Sprintf("%s (not opened after %s)", e.Reason, s.Patience)
	case question:
		n.Reason = n.Walk.question() + "; " + s.Hint
	case hint:
		n.Reason = e.Reason + "; " + s.Hint
	case stuck:
		n.Reason = fmt.Sprintf("the spoke was restarted %d times in step %d of %d without a measurement that passes", s.Restarts, s.Walk.Step, s.Walk.Steps)
	case both:
		n.Reason = fmt.Sprintf("%s; and the return: %s", s.Reason, e.Reason)
	}
	switch r.clock {
	case stop:
		n.Deadline = time.Time{}
	case patient:
		n.Deadline = now.Add(s.Patience)
	case run:
		n.Deadline = now.Add(s.Timeout)
	case trial:
		n.Deadline = now.Add(s.Proving)
	case evidence:
		n.Deadline = time.Time{}
		if s.Evidence > 0 {
			n.Deadline = now.Add(s.Evidence)
		}
	case following:
		n.Deadline = now.Add(s.Following)
	case until:
		n.Deadline = e.Until
	}
	n.Proof = proof(s, e)
	n.Declined = n.Phase == fleet.Refused && (s.Declined || e.Kind == Reject || e.Kind == Expired)
	switch e.Kind {
	case Start:
		n.Target, n.Previous, n.Restored, n.Restarts = e.Target, e.Previous, false, 0
		n.ByHand, n.Touched, n.Walk = false, false, Walk{}
	case Return:
		n.Target, n.Previous, n.Restored, n.Restarts = e.Target, true, false, 0
		n.ByHand, n.Touched = e.ByHand, s.Touched || !s.Touching()
	case Content:
		n.Target = e.Target
	case Closed:
		if e.Target != "" {
			n.Target = e.Target
		}
	case Restored:
		n.Restored = true
	case Restart:
		n.Restored, n.Failing, n.Ailing = false, time.Time{}, time.Time{} // what was in memory is gone
		if n.Phase.Touching() {
			n.Restarts++
		}
	}
	return n
}

// proof is what an event says about the target's tests.
func proof(s State, e Event) Proof {
	switch {
	case e.Kind == Tested && e.Verdict == Pass:
		return Passed
	case e.Kind == Tested && e.Verdict == Fail:
		return Disproved
	case s.Applied && s.Walk.Stage == Following && slices.Contains([]Kind{Approve, Reject, Expired}, e.Kind):
		return s.Proof // what was asked about are not the tests
	case s.Applied && e.Kind == Approve:
		return Accepted
	case s.Applied && (e.Kind == Reject || e.Kind == Expired):
		return Disproved
	case e.Kind == Start, e.Kind == Return, e.Kind == Content, e.Kind == Restart && s.Proof == Passed:
		return Unproven
	}
	return s.Proof
}
