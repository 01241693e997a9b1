package delivery

import (
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// Follows: somebody else leads live traffic in the canary plugin's place.
func (w Walk) Follows() bool { return w.Stage == Following || w.Stage == Followed }

func followed(_ time.Time, _ State, e Event) bool { return e.Follows }

// beside: there are candidates beside what runs.
func beside(_ time.Time, s State, _ Event) bool { return s.Walk.Led && !s.Walk.Follows() }

// through: nobody has still to say yes to the traffic.
func through(_ time.Time, s State, _ Event) bool { return !s.Walk.Led || s.Walk.Stage == Followed }

// handed is the walk of those who are followed.
func handed(stage Stage) stride {
	return func(Walk, Event) Walk { return Walk{Stage: stage, Led: true} }
}

// handover is the part of the table about releases that somebody else on the cluster leads. The release is
// applied, and then they are asked until they have a verdict; health and tests come after it. Without one
// nothing is decided (law 6): the provider is asked, and who leads as well, so that a late verdict counts.
// Whatever becomes of the release after it was applied, a return restores the previous one whole and then
// goes through them, until nothing of theirs runs the other one any more (law 7).
func handover() []row {
	in := func(p ...fleet.Phase) []fleet.Phase { return p }
	and := func(e ...Effect) []Effect { return e }
	settling, both := in(fleet.Settling), in(fleet.Settling, asked)
	open, theirs := at(Following), at(Following, Followed)
	overdue := func(on Kind) row {
		return row{from: settling, on: on, when: all(open, late), to: asked, do: and(Watch), say: hint, clock: patient}
	}
	return []row{
		{from: in(fleet.Checking), on: Checked, when: all(followed, previous), to: fleet.Promoting, do: and(Apply), walk: handed(Following), clock: run},
		{from: in(fleet.Promoting), on: Applied, when: all(open, seldom), to: fleet.Settling, do: and(Conclude), clock: following},
		{from: in(fleet.Promoting), on: Applied, when: open, to: fleet.Settling, do: and(Conclude), clock: hold},

		{from: both, on: Concluded, when: open, to: fleet.Settling, do: and(Watch), walk: handed(Followed), clock: run},
		{from: both, on: Unled, when: all(open, previous), to: fleet.RollingBack, do: and(Restore), say: give, clock: run},
		overdue(Waiting),
		overdue(Delayed),
		{from: settling, on: Waiting, when: open, to: stay, do: and(Conclude), say: give, clock: hold},
		{from: settling, on: Observed, when: open, to: stay, do: and(Conclude), say: keep, clock: hold},

		{from: in(asked), on: Approve, when: open, to: fleet.Settling, do: and(Watch), walk: handed(Followed), clock: run},
		{from: in(asked), on: Observed, when: all(open, failing, previous), to: fleet.RollingBack, do: and(Restore), say: give, clock: run},
		{from: in(asked), on: Observed, when: open, to: stay, do: and(Conclude), say: keep, clock: hold},
		{from: in(asked), on: Waiting, when: open, to: stay, do: and(Watch), say: keep, clock: hold},

		// They are told at once that the way leads back: who is not would take the old release through all his steps
		// and measurements, well only at their end or never. Their way back takes several of their own intervals,
		// and health is looked at after it.
		{from: in(fleet.RollingBack), on: Restored, when: all(theirs, seldom), to: stay, do: and(Abort), say: keep, clock: following},
		{from: in(fleet.RollingBack), on: Restored, when: theirs, to: stay, do: and(Abort), say: keep, clock: hold},
		{from: in(fleet.RollingBack), on: Aborted, when: all(theirs, restored), to: stay, do: and(Watch), say: keep, walk: ended, clock: run},
		{from: in(fleet.RollbackFailed), on: Restored, when: all(theirs, previous), to: fleet.RollingBack, do: and(Abort), say: keep, clock: following},
		{from: in(fleet.RollbackFailed), on: Observed, when: all(theirs, restored, healthy), to: fleet.RollingBack, do: and(Abort), say: keep, clock: following},
	}
}
