package rollout

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/plan"
)

// sight is one look at a rollout: the state as it becomes, and what is seen beside it. For a command there
// is no fleet; its rows ask nothing of one.
type sight struct {
	now     time.Time
	s       State
	fleet   Fleet
	command Command
	own     bool            // s.Members is this look's own
	tally   []Counts        // by wave
	health  []health        // by wave
	newer   map[string]bool // whether a version is above the rollout's, asked once
	room    []int           // by wave: joiners that its maximum still takes; nil: not asked yet
}

// health is of the members of a wave that are done, now.
type health struct{ well, silent, unsettled int }

func (l *sight) plan() plan.Wave { return l.s.Plan.Waves[l.s.Wave] }
func (l *sight) wave() *Wave     { return &l.s.Waves[l.s.Wave] }

func (l *sight) patience(wave int) time.Duration { return l.s.patience(wave) }

// patience with the clusters of a wave; -1: with those in none.
func (s State) patience(wave int) time.Duration {
	if wave >= 0 && s.Plan.Waves[wave].Patience > 0 {
		return s.Plan.Waves[wave].Patience
	}
	return cmp.Or(s.Plan.Patience, plan.DefaultPatience)
}

func (l *sight) set(c fleet.Cluster, m Member) {
	if !l.own {
		l.s.Members, l.own = maps.Clone(l.s.Members), true
		if l.s.Members == nil {
			l.s.Members = map[fleet.Cluster]Member{}
		}
	}
	l.s.Members[c] = m
}

// mark changes what became of a member, and since when.
func (l *sight) mark(m Member, to fleet.Mark, why string) Member {
	if m.Mark != to {
		m.Mark, m.Since = to, l.now
	}
	m.Reason = why
	if to != fleet.MarkOffered && to != fleet.MarkUnderway && to != fleet.MarkParked && to != fleet.MarkReturning {
		m.Block, m.BlockedSince = fleet.BlockNone, time.Time{}
	}
	return m
}

// failures that count against the budget of a wave.
func (l *sight) failures(wave int) int { return l.tally[wave].Failed - l.s.Waves[wave].Forgiven }

// breakage is the first wave whose budget is broken; -1: none.
func (l *sight) breakage() int {
	for i := 0; i <= l.s.Wave; i++ {
		if l.failures(i) > l.s.Waves[i].Budget {
			return i
		}
	}
	return -1
}

// Conditions.

func (l *sight) broken() bool        { return l.breakage() >= 0 }
func (l *sight) rollBackAll() bool   { return l.s.Plan.OnFailure == plan.RollBackAll }
func (l *sight) rollBackWave() bool  { return l.s.Plan.OnFailure == plan.RollBackWave }
func (l *sight) leftOut() bool       { return len(l.s.LeftOut) > 0 }
func (l *sight) started() bool       { return !l.wave().Started.IsZero() }
func (l *sight) ended() bool         { return !l.wave().Ended.IsZero() }
func (l *sight) last() bool          { return l.s.Wave == len(l.s.Waves)-1 }
func (l *sight) empty() bool         { return l.tally[l.s.Wave].Total == 0 }
func (l *sight) wantsVerdicts() bool { return l.plan().Verdicts.Minimum > 0 }
func (l *sight) unapproved() bool    { return l.plan().Approval != "" && l.wave().ApprovedBy == "" }
func (l *sight) closed() bool        { return !l.plan().Windows.Open(l.now) }
func (l *sight) soaked() bool        { return !l.now.Before(l.wave().SoakUntil) }
func (l *sight) goesBack() bool      { return l.command.RollBack }
func (l *sight) recalledBack() bool  { return l.s.End == fleet.RolloutRecalled }

func (l *sight) nobody() bool {
	return !slices.ContainsFunc(l.tally, func(c Counts) bool { return c.Total > 0 })
}

// pending: members of the wave have not begun.
func (l *sight) pending() bool {
	c := l.tally[l.s.Wave]
	return c.Waiting+c.Offered > 0
}

// through: every member of the wave came to something, or is counted apart.
func (l *sight) through() bool {
	c := l.tally[l.s.Wave]
	return c.Waiting+c.Offered+c.Underway == 0
}

func (l *sight) untaken() bool {
	c := l.tally[l.s.Wave]
	return c.Done+c.Failed == 0
}

// unsoaked: somebody took it after all, when the wave was through without anybody.
func (l *sight) unsoaked() bool { return l.wave().SoakUntil.IsZero() && !l.untaken() }

// lingers: somebody may take the release yet, nobody has, and the next wave would go on without any
// evidence. That is waited for, but not beyond the wave's patience.
func (l *sight) lingers() bool { return l.now.Before(l.lingersUntil()) }

// lingersUntil is the zero time for a wave that has no reason to linger.
func (l *sight) lingersUntil() time.Time {
	if l.last() || l.wantsVerdicts() || !l.started() || !l.through() || !l.untaken() || l.tally[l.s.Wave].Parked == 0 {
		return time.Time{}
	}
	return l.wave().Started.Add(l.patience(l.s.Wave))
}

func (l *sight) returning() bool {
	for _, m := range l.s.Members {
		if m.Mark == fleet.MarkReturning {
			return true
		}
	}
	return false
}

// kept: members have the release still, after other waves were brought back.
func (l *sight) kept() bool {
	for _, m := range l.s.Members {
		if m.Mark == fleet.MarkDone && m.Before != l.s.Version {
			return true
		}
	}
	return false
}

// enough reports whether a wave is well enough where so many of those that took it are well. A plan that
// asks for no share asks for all, less the budget.
func (l *sight) enough(well, taken int) bool {
	if share := l.plan().Success; share > 0 {
		return well*100 >= share*taken
	}
	return taken-well <= l.wave().Budget
}

// well and ill are judged as soon as those that are not settled can make no difference, and with those that
// are silent left out once patience is over: silence is no success, and holds nobody up for ever.
func (l *sight) well() bool {
	h := l.health[l.s.Wave]
	taken := h.well + h.silent + h.unsettled + l.failures(l.s.Wave)
	if l.unsettledPatience() {
		return l.enough(h.well, taken)
	}
	return l.enough(h.well, taken-h.silent)
}

func (l *sight) ill() bool {
	h := l.health[l.s.Wave]
	taken := h.well + h.silent + h.unsettled + l.failures(l.s.Wave)
	if l.unsettledPatience() {
		return !l.enough(h.well+h.silent+h.unsettled, taken)
	}
	return !l.well()
}

// unsettledPatience: those that are neither well nor ill after the soak are waited for still.
func (l *sight) unsettledPatience() bool {
	return l.now.Before(l.wave().SoakUntil.Add(l.patience(l.s.Wave)))
}

// evident: as many clusters of the wave have a verdict as the plan asks for. What a person passed over is
// none.
func (l *sight) evident() bool {
	return l.health[l.s.Wave].well+l.failures(l.s.Wave) >= l.plan().Verdicts.Minimum
}

func (l *sight) passed() bool {
	v := l.plan().Verdicts
	well := l.health[l.s.Wave].well
	return v.Minimum == 0 || well*100 >= v.Passes*(well+l.failures(l.s.Wave))
}

// Effects.

func (l *sight) remember() {
	l.s.Before = l.s.Phase
	if l.s.Phase == fleet.RolloutVerdicts && l.command.Verb != Pause {
		l.s.Before = fleet.RolloutSoaking // the evidence is looked at anew
	}
}

// rememberGate: who resumes passes the wave's gate over.
func (l *sight) rememberGate() { l.s.Before = fleet.RolloutVerdicts }

func (l *sight) startWave() { l.wave().Started = l.now }
func (l *sight) nextWave()  { l.s.Wave, l.s.Since = l.s.Wave+1, l.now }
func (l *sight) soak()      { l.wave().SoakUntil = l.now.Add(l.plan().Soak) }
func (l *sight) approve()   { l.wave().ApprovedBy = cmp.Or(l.command.By, "somebody") }
func (l *sight) recall()    { l.s.End = fleet.RolloutRecalled }

func (l *sight) endWave() { l.wave().Ended = l.now }

func (l *sight) endAll() {
	for i := l.s.Wave; i < len(l.s.Waves); i++ {
		if l.s.Waves[i].Ended.IsZero() {
			l.s.Waves[i].Ended = l.now
		}
	}
	l.s.Wave = len(l.s.Waves) - 1
}

// open makes members of all, so that each has where it would go back to.
func (l *sight) open() {
	for c, o := range l.fleet {
		m, there := l.s.Members[c]
		switch {
		case there && m.Mark != fleet.MarkWaiting:
			continue
		case !there:
			m = Member{Wave: -1, Mark: fleet.MarkWaiting, Since: l.now}
		}
		if l.see(o).failed { // not this rollout's doing
			l.park(c, m, o, fleet.BlockHeld)
			continue
		}
		m.Before, m.Offered = o.Running, l.now
		l.set(c, l.judged(l.mark(m, fleet.MarkOffered, ""), o))
	}
}

// offerAnew starts the patience with those that could not take the release meanwhile.
func (l *sight) offerAnew() {
	for c, m := range l.s.Members {
		if m.Mark == fleet.MarkOffered {
			m.Offered = l.now
			l.set(c, m)
		}
	}
}

func (l *sight) forgive() {
	for i := 0; i <= l.s.Wave; i++ {
		l.s.Waves[i].Forgiven = l.s.Count(i).Failed
	}
	if l.s.Before == fleet.RolloutVerdicts {
		l.endWave()
	}
}

func (l *sight) returnAll() { l.returnFrom(0) }

// returnWave brings back the wave whose budget is broken, and those after it: they had the release for the
// sake of that wave.
func (l *sight) returnWave() { l.returnFrom(max(0, l.breakage())) }

func (l *sight) returnFrom(first int) {
	if l.s.End != fleet.RolloutRecalled {
		l.s.End = fleet.RolloutReturned
	}
	for c, m := range l.s.Members {
		took := m.Mark == fleet.MarkUnderway || m.Mark == fleet.MarkDone && (m.Wave >= first || m.Wave < 0)
		if took && m.Before != l.s.Version {
			l.set(c, l.mark(m, fleet.MarkReturning, ""))
		}
	}
}

// Reasons.

func (l *sight) keep() string { return l.s.Reason }

func (l *sight) keepTold() string { return l.s.Told }

func (l *sight) said() string { return l.command.text() }

// again has the phase say what it said when it was interrupted.
func (l *sight) again() string {
	switch l.s.Before {
	case fleet.RolloutWindow:
		return l.opens()
	case fleet.RolloutApproval:
		return l.wantsApproval()
	case fleet.RolloutVerdicts:
		return l.wantsEvidence()
	case fleet.RolloutSoaking:
		return l.soaks()
	}
	return ""
}

func (l *sight) brokenBudget() string {
	i := l.breakage()
	var first fleet.Cluster
	for c, m := range l.s.Members {
		if m.Wave == i && m.Mark == fleet.MarkFailed && (first == "" || c < first) {
			first = c
		}
	}
	return fmt.Sprintf("%s; %s: %s", l.overBudget(), first, cmp.Or(l.s.Members[first].Reason, "failed"))
}

func (l *sight) overBudget() string {
	i := l.breakage()
	return fmt.Sprintf("wave %s: %d failed, its budget is %d", l.s.Waves[i].Name, l.failures(i), l.s.Waves[i].Budget)
}

func (l *sight) matchesNobody() string {
	return fmt.Sprintf("no wave of the plan matches any of %s", clusters(len(l.s.LeftOut)))
}

func (l *sight) wantsApproval() string {
	return fmt.Sprintf("wave %s wants the approval of %s", l.wave().Name, l.plan().Approval)
}

func (l *sight) opens() string {
	return fmt.Sprintf("wave %s is outside its window: %s", l.wave().Name, l.plan().Windows)
}

func (l *sight) soaks() string { return fmt.Sprintf("wave %s has it and soaks", l.wave().Name) }

func (l *sight) tooFewHealthy() string {
	h, failed := l.health[l.s.Wave], l.failures(l.s.Wave)
	want := fmt.Sprintf("all but %d", l.wave().Budget)
	if share := l.plan().Success; share > 0 {
		want = fmt.Sprintf("%d%%", share)
	}
	return fmt.Sprintf("wave %s: %d of %d are healthy after the soak, want %s", l.wave().Name, h.well, h.well+h.unsettled+h.silent+failed, want)
}

func (l *sight) wantsEvidence() string {
	if !l.wantsVerdicts() {
		return ""
	}
	return fmt.Sprintf("wave %s wants %d verdicts", l.wave().Name, l.plan().Verdicts.Minimum)
}

func (l *sight) tooFewPass() string {
	well, failed := l.health[l.s.Wave].well, l.failures(l.s.Wave)
	return fmt.Sprintf("wave %s: %d of %d verdicts pass, want %d%%", l.wave().Name, well, well+failed, l.plan().Verdicts.Passes)
}

// clusters counts in words.
func clusters(n int) string {
	if n == 1 {
		return "1 cluster"
	}
	return fmt.Sprintf("%d clusters", n)
}
