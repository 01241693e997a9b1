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
	clock clock
}

const stay fleet.Phase = "stay"

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
)

// clock says what becomes of State.Deadline.
type clock int

const (
	stop    clock = iota
	run           // starts anew
	hold          // goes on
	patient       // starts anew, for a person
	until         // the event's
)

func healthy(_ time.Time, _ State, e Event) bool  { return e.Health == fleet.Healthy }
func previous(_ time.Time, s State, _ Event) bool { return s.Previous }
func first(_ time.Time, s State, _ Event) bool    { return !s.Previous }
func restored(_ time.Time, s State, _ Event) bool { return s.Restored }

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

// all holds where both guards hold.
func all(a, b guard) guard {
	return func(now time.Time, s State, e Event) bool { return a(now, s, e) && b(now, s, e) }
}

// table is the whole machine.
//
// Nothing is applied before Progressing, so every trouble before it leaves the old release alone. From
// Progressing on there are two ends: everything is on the new release, healthy, or everything is back
// on the previous one (laws 4 and 7); a first install that is cut off half-way is taken away again,
// one that is whole and not well stays to be looked at. What failed is held, so that nothing puts it
// back (law 8), and pruning follows only upon health (law 3).
func table() []row {
	idle := []fleet.Phase{fleet.PhaseNone, fleet.AwaitingConfig, fleet.Succeeded, fleet.Refused, fleet.RolledBack, fleet.RollbackFailed}
	before := []fleet.Phase{fleet.Fetching, fleet.Verifying, fleet.Rendering, fleet.Checking}
	calm := []fleet.Phase{fleet.PhaseNone, fleet.AwaitingConfig, fleet.Succeeded, fleet.Refused, fleet.RolledBack}
	asked := slices.Concat(before, []fleet.Phase{fleet.AwaitingApproval, fleet.AwaitingWindow})
	in := func(p ...fleet.Phase) []fleet.Phase { return p }
	and := func(e ...Effect) []Effect { return e }
	return []row{
		{from: slices.Concat(idle, asked), on: Start, to: fleet.Fetching, do: and(Fetch), clock: run},

		{from: in(fleet.Fetching), on: Fetched, to: fleet.Verifying, do: and(Verify), clock: hold},
		{from: in(fleet.Verifying), on: Verified, to: fleet.Rendering, do: and(Render), clock: hold},
		{from: in(fleet.Rendering), on: Unchanged, to: fleet.Succeeded, do: and(Promote)},
		{from: in(fleet.Rendering), on: Rendered, to: fleet.Checking, do: and(Check), clock: hold},
		{from: in(fleet.Rendering), on: Unrenderable, to: fleet.AwaitingConfig, do: and(Hold), say: give},
		{from: in(fleet.Checking), on: Checked, to: fleet.Progressing, do: and(Apply), clock: run},
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

		{from: in(fleet.Progressing), on: Applied, when: seldom, to: fleet.Settling, do: and(Watch), clock: run},
		{from: in(fleet.Progressing), on: Applied, to: fleet.Settling, do: and(Watch), clock: hold},
		{from: in(fleet.Settling), on: Observed, when: healthy, to: stay, do: and(Prune), clock: hold},
		{from: in(fleet.Settling), on: Observed, when: all(failing, previous), to: fleet.RollingBack, do: and(Restore), say: give, clock: run},
		{from: in(fleet.Settling), on: Observed, when: failing, to: fleet.RollbackFailed, do: and(Hold), say: give},
		{from: in(fleet.Settling), on: Observed, when: all(late, previous), to: fleet.RollingBack, do: and(Restore), say: expire, clock: run},
		{from: in(fleet.Settling), on: Observed, when: late, to: fleet.RollbackFailed, do: and(Hold), say: expire},
		{from: in(fleet.Settling), on: Observed, to: stay, do: and(Watch), say: give, clock: hold},
		{from: in(fleet.Settling), on: Pruned, to: fleet.Succeeded, do: and(Promote)},
		{from: in(fleet.Progressing, fleet.Settling), on: Delayed, when: all(late, previous), to: fleet.RollingBack, do: and(Restore), say: expire, clock: run},
		{from: in(fleet.Progressing), on: Delayed, when: late, to: fleet.RollingBack, do: and(Undo), say: expire, clock: run},
		{from: in(fleet.Settling), on: Delayed, when: late, to: fleet.RollbackFailed, do: and(Hold), say: expire},
		{from: in(fleet.Progressing, fleet.Settling), on: Delayed, to: stay, say: give, clock: hold},
		{from: in(fleet.Progressing, fleet.Settling), on: Refuse, when: previous, to: fleet.RollingBack, do: and(Restore), say: give, clock: run},
		{from: in(fleet.Progressing), on: Refuse, to: fleet.RollingBack, do: and(Undo), say: give, clock: run},
		{from: in(fleet.Settling), on: Refuse, to: fleet.RollbackFailed, do: and(Hold), say: give},
		{from: in(fleet.RollingBack), on: Undone, to: fleet.RolledBack, do: and(Hold), say: keep},

		// A person's word goes before everything, and so does a release's withdrawal: whatever is under way ends in the return.
		{from: in(fleet.Progressing, fleet.Settling), on: Return, when: previous, to: fleet.RollingBack, do: and(Restore), say: give, clock: run},
		{from: slices.Concat(idle, asked), on: Return, to: fleet.RollingBack, do: and(Restore), say: give, clock: run},

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
		{from: in(fleet.RollbackFailed), on: Observed, when: all(healthy, first), to: fleet.Settling, do: and(Prune), clock: run},
		{from: in(fleet.RollbackFailed), on: Observed, when: all(healthy, restored), to: fleet.RolledBack, say: keep},
		{from: in(fleet.RollbackFailed), on: Observed, to: stay, say: keep},
		{from: in(fleet.RollbackFailed), on: Restored, when: previous, to: fleet.RollingBack, do: and(Watch), say: keep, clock: run},
		{from: in(fleet.RollbackFailed), on: Delayed, to: stay, say: keep},
		{from: in(fleet.RollbackFailed), on: Refuse, to: stay, say: keep},

		{from: slices.Concat(calm, asked), on: Misconfigured, to: fleet.AwaitingConfig, say: give},
		{from: slices.Concat(calm, asked), on: Content, when: running, to: fleet.Succeeded, say: give},
		{from: slices.Concat(calm, asked), on: Content, to: fleet.PhaseNone, say: give},
		{from: in(fleet.RollbackFailed), on: Misconfigured, to: stay, say: keep},
		{from: in(fleet.RollbackFailed), on: Content, to: stay, say: keep},

		{from: before, on: Restart, to: fleet.Fetching, do: and(Fetch), clock: run},
		{from: in(fleet.AwaitingApproval, fleet.AwaitingWindow), on: Restart, to: stay, say: keep, clock: hold},
		{from: in(fleet.Progressing, fleet.Settling), on: Restart, when: seldom, to: fleet.Progressing, do: and(Apply), clock: run},
		{from: in(fleet.Progressing, fleet.Settling), on: Restart, to: fleet.Progressing, do: and(Apply), clock: hold},
		{from: in(fleet.RollingBack), on: Restart, when: all(previous, seldom), to: stay, do: and(Restore), say: keep, clock: run},
		{from: in(fleet.RollingBack), on: Restart, when: previous, to: stay, do: and(Restore), say: keep, clock: hold},
		{from: in(fleet.RollingBack), on: Restart, to: stay, do: and(Undo), say: keep, clock: run},
		{from: idle, on: Restart, to: stay, say: keep},
	}
}

func (r row) matches(now time.Time, s State, e Event) bool {
	return r.on == e.Kind && slices.Contains(r.from, s.Phase) && (r.when == nil || r.when(now, s, e))
}

func (r row) apply(now time.Time, s State, e Event) State {
	n := s
	if r.to != stay {
		n.Phase = r.to
	}
	if n.Phase != s.Phase || e.Kind == Start {
		n.Since, n.Failing = now, time.Time{}
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
	case until:
		n.Deadline = e.Until
	}
	n.Declined = n.Phase == fleet.Refused && (s.Declined || e.Kind == Reject || e.Kind == Expired)
	switch e.Kind {
	case Start:
		n.Target, n.Previous, n.Restored, n.Restarts = e.Target, e.Previous, false, 0
		n.ByHand = false
	case Return:
		n.Target, n.Previous, n.Restored, n.Restarts = e.Target, true, false, 0
		n.ByHand = e.ByHand
	case Content:
		n.Target = e.Target
	case Closed:
		if e.Target != "" {
			n.Target = e.Target
		}
	case Restored:
		n.Restored = true
	case Restart:
		n.Restored, n.Failing = false, time.Time{} // what was in memory is gone
		if n.Phase.Touching() {
			n.Restarts++
		}
	}
	return n
}
