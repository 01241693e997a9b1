package rollout

import (
	"slices"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// row is one line of the machine. The first row that matches is taken.
type row struct {
	from   []fleet.RolloutPhase
	on     Verb   // look: what is seen of fleet and clock, without a word from anybody
	when   []cond // all of them hold
	unless []cond // and none of these
	to     fleet.RolloutPhase
	do     []effect // before the phase changes
	say    reason   // of the new phase; nil: nothing to say
	tell   reason   // what of that every provider may read; nil: all of it
}

const look Verb = ""

// Where a row leads to beside phases.
const (
	stay   fleet.RolloutPhase = "stay"   // what was said goes on being true
	before fleet.RolloutPhase = "before" // State.Before
	end    fleet.RolloutPhase = "end"    // State.End
)

type (
	cond   func(*sight) bool
	effect func(*sight)
	reason func(*sight) string
)

// table is the whole machine.
//
// Looks are taken again and again until no row matches and nobody is to be offered anything: the budget
// goes before everything, so that no offer follows on its break; a wave begins with its approval, then its
// window, and ends with its soak, its success share and its verdicts. Whatever stops a rollout leaves those
// under way to their own verdict; only a return reaches for them.
func table() []row {
	in := func(p ...fleet.RolloutPhase) []fleet.RolloutPhase { return p }
	when := func(c ...cond) []cond { return c }
	do := func(e ...effect) []effect { return e }
	active := in(fleet.RolloutWindow, fleet.RolloutApproval, fleet.RolloutProgressing, fleet.RolloutSoaking, fleet.RolloutVerdicts)
	underWay := slices.Concat(active, in(fleet.RolloutHolding, fleet.RolloutPaused))
	over := in(fleet.RolloutCompleted, fleet.RolloutAborted, fleet.RolloutSuperseded)
	return []row{
		{from: active, when: when((*sight).broken, (*sight).rollBackAll), to: fleet.RolloutReturning, do: do((*sight).returnAll), say: (*sight).brokenBudget, tell: (*sight).overBudget},
		{from: active, when: when((*sight).broken, (*sight).rollBackWave), to: fleet.RolloutReturning, do: do((*sight).returnWave), say: (*sight).brokenBudget, tell: (*sight).overBudget},
		{from: active, when: when((*sight).broken), to: fleet.RolloutHolding, do: do((*sight).remember), say: (*sight).brokenBudget, tell: (*sight).overBudget},

		// Nobody to carry it to: open at once. A plan that matches nobody of a fleet is a slip, and asks.
		{from: in(fleet.RolloutProgressing), when: when((*sight).nobody, (*sight).leftOut), unless: when((*sight).ended), to: fleet.RolloutHolding,
			do: do((*sight).rememberGate), say: (*sight).matchesNobody},
		{from: in(fleet.RolloutProgressing), when: when((*sight).nobody), to: fleet.RolloutCompleted, do: do((*sight).endAll, (*sight).open)},

		{from: in(fleet.RolloutProgressing), when: when((*sight).ended, (*sight).last), to: fleet.RolloutCompleted, do: do((*sight).open)},
		{from: in(fleet.RolloutProgressing), when: when((*sight).ended), to: fleet.RolloutProgressing, do: do((*sight).nextWave)},
		{from: in(fleet.RolloutProgressing), when: when((*sight).empty), unless: when((*sight).started, (*sight).wantsVerdicts), to: stay, do: do((*sight).endWave)},
		{from: in(fleet.RolloutProgressing), when: when((*sight).unapproved), unless: when((*sight).started), to: fleet.RolloutApproval, say: (*sight).wantsApproval},
		{from: in(fleet.RolloutProgressing), when: when((*sight).closed), unless: when((*sight).started), to: fleet.RolloutWindow, say: (*sight).opens},
		{from: in(fleet.RolloutProgressing), unless: when((*sight).started), to: fleet.RolloutProgressing, do: do((*sight).startWave)},
		{from: in(fleet.RolloutApproval), unless: when((*sight).unapproved), to: fleet.RolloutProgressing},

		// The window of a wave that has begun closes for those that have not.
		{from: in(fleet.RolloutProgressing), when: when((*sight).closed, (*sight).pending), to: fleet.RolloutWindow, say: (*sight).opens},
		{from: in(fleet.RolloutWindow), when: when((*sight).started), unless: when((*sight).pending), to: fleet.RolloutProgressing},
		{from: in(fleet.RolloutWindow), unless: when((*sight).closed), to: fleet.RolloutProgressing, do: do((*sight).offerAnew)},

		{from: in(fleet.RolloutProgressing), when: when((*sight).through, (*sight).untaken), unless: when((*sight).lingers), to: fleet.RolloutVerdicts, say: (*sight).wantsEvidence},
		{from: in(fleet.RolloutProgressing), when: when((*sight).through), unless: when((*sight).lingers), to: fleet.RolloutSoaking, do: do((*sight).soak), say: (*sight).soaks},
		{from: in(fleet.RolloutSoaking), when: when((*sight).soaked, (*sight).ill), to: fleet.RolloutHolding, do: do((*sight).rememberGate), say: (*sight).tooFewHealthy},
		{from: in(fleet.RolloutSoaking), when: when((*sight).soaked, (*sight).well), to: fleet.RolloutVerdicts, say: (*sight).wantsEvidence},

		{from: in(fleet.RolloutVerdicts), when: when((*sight).ended), to: fleet.RolloutProgressing},
		{from: in(fleet.RolloutVerdicts), when: when((*sight).unsoaked), to: fleet.RolloutProgressing},
		{from: in(fleet.RolloutVerdicts), when: when((*sight).evident), unless: when((*sight).passed), to: fleet.RolloutHolding, do: do((*sight).rememberGate), say: (*sight).tooFewPass},
		{from: in(fleet.RolloutVerdicts), when: when((*sight).evident), to: fleet.RolloutProgressing, do: do((*sight).endWave)},

		{from: in(fleet.RolloutReturning), unless: when((*sight).returning), to: end, say: (*sight).keep, tell: (*sight).keepTold},

		// People, and the hub for another release's sake.
		{from: in(fleet.RolloutApproval), on: Approve, to: fleet.RolloutProgressing, do: do((*sight).approve)},
		{from: in(fleet.RolloutVerdicts), on: Approve, to: fleet.RolloutVerdicts, do: do((*sight).endWave), say: (*sight).said},
		{from: in(fleet.RolloutApproval), on: Reject, to: fleet.RolloutHolding, do: do((*sight).remember), say: (*sight).said},
		{from: in(fleet.RolloutVerdicts), on: Reject, to: fleet.RolloutHolding, do: do((*sight).rememberGate), say: (*sight).said},
		{from: active, on: Pause, to: fleet.RolloutPaused, do: do((*sight).remember), say: (*sight).said},
		{from: in(fleet.RolloutPaused), on: Resume, to: before, do: do((*sight).offerAnew), say: (*sight).again},
		{from: in(fleet.RolloutHolding), on: Resume, to: before, do: do((*sight).forgive, (*sight).offerAnew), say: (*sight).again},
		{from: underWay, on: Abort, to: fleet.RolloutAborted, say: (*sight).said},
		{from: underWay, on: Supersede, to: fleet.RolloutSuperseded, say: (*sight).said},
		{from: slices.Concat(underWay, over), on: Undo, to: fleet.RolloutReturning, do: do((*sight).remember, (*sight).returnAll), say: (*sight).said},
		{from: in(fleet.RolloutReturned), on: Undo, when: when((*sight).kept), to: fleet.RolloutReturning, do: do((*sight).returnAll), say: (*sight).said},
		{from: slices.Concat(underWay, over), on: Recall, when: when((*sight).goesBack), to: fleet.RolloutReturning, do: do((*sight).remember, (*sight).returnAll, (*sight).recall), say: (*sight).said},
		{from: in(fleet.RolloutReturning, fleet.RolloutReturned), on: Recall, when: when((*sight).goesBack), to: fleet.RolloutReturning, do: do((*sight).returnAll, (*sight).recall), say: (*sight).said},
		{from: in(fleet.RolloutRecalled), on: Recall, when: when((*sight).goesBack), unless: when((*sight).recalledBack), to: fleet.RolloutReturning, do: do((*sight).returnAll, (*sight).recall), say: (*sight).said},
		{from: in(fleet.RolloutReturning), on: Recall, to: fleet.RolloutReturning, do: do((*sight).recall), say: (*sight).said},
		{from: slices.Concat(underWay, over), on: Recall, to: fleet.RolloutRecalled, do: do((*sight).remember), say: (*sight).said},
		{from: in(fleet.RolloutReturned), on: Recall, to: fleet.RolloutRecalled, do: do((*sight).recall), say: (*sight).said},
	}
}

func (r row) matches(l *sight, on Verb) bool {
	if r.on != on || !slices.Contains(r.from, l.s.Phase) {
		return false
	}
	for _, c := range r.when {
		if !c(l) {
			return false
		}
	}
	for _, c := range r.unless {
		if c(l) {
			return false
		}
	}
	return true
}

// apply takes the row. A reason is made of the state before the row's effects, which may forget why.
func (r row) apply(l *sight) {
	said, told := l.s.Reason, l.s.Told
	if r.to != stay {
		said, told = "", ""
	}
	if r.say != nil {
		said = r.say(l)
		told = said
	}
	if r.tell != nil {
		told = r.tell(l)
	}
	to := r.to
	switch r.to {
	case stay:
		to = l.s.Phase
	case before:
		to = l.s.Before
	}
	for _, e := range r.do {
		e(l)
	}
	if r.to == end {
		to = l.s.End
	}
	if to != l.s.Phase {
		l.s.Phase, l.s.Since = to, l.now
	}
	l.s.Reason, l.s.Told = said, told
}
