package rollout

import (
	"slices"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// observe brings every member up to what is seen of the fleet, and counts.
func (l *sight) observe() {
	l.tally, l.health = make([]Counts, len(l.s.Waves)), make([]health, len(l.s.Waves))
	back := l.s.Phase == fleet.RolloutReturning
	for c, m := range l.s.Members {
		o, there := l.fleet[c]
		n := m
		switch {
		case !there:
			n = l.mark(m, fleet.MarkLeft, "")
		case back:
			n = l.judgedBack(m, o)
		case m.Mark == fleet.MarkLeft: // and is here again
			m.Offered, m.Before = time.Time{}, o.Running
			n = l.judged(l.mark(m, fleet.MarkWaiting, ""), o)
		default:
			n = l.judged(m, o)
		}
		if n != m {
			l.set(c, n)
		}
		if n.Wave >= 0 {
			l.tally[n.Wave].add(n.Mark)
			if n.Mark == fleet.MarkDone {
				l.health[n.Wave].add(o)
			}
		}
	}
	for i := range l.s.Waves { // who got well needs no forgiving
		l.s.Waves[i].Forgiven = min(l.s.Waves[i].Forgiven, l.tally[i].Failed)
	}
}

func (h *health) add(o Observation) {
	switch {
	case o.Block == fleet.BlockSilent:
		h.silent++
	case o.Health == fleet.Healthy:
		h.well++
	default:
		h.unsettled++
	}
}

// seen is an observation beside the rollout's release.
type seen struct {
	silent  bool // nothing is known
	runs    bool // the release, whole
	newer   bool // runs a newer one
	failed  bool // the last attempt at the release
	moves   bool // an attempt is under way
	never   bool // its policy does not take it
	blocked fleet.Block
}

func (l *sight) see(o Observation) seen {
	if o.Block == fleet.BlockSilent {
		return seen{silent: true, blocked: fleet.BlockSilent}
	}
	tries := o.Target == l.s.Version
	v := seen{runs: o.Running == l.s.Version, newer: l.above(o.Running), failed: tries && o.Phase.Failed() && o.Block != fleet.BlockDeclined, never: o.Block == fleet.BlockPolicy, blocked: o.Block}
	switch o.Phase {
	case fleet.Fetching, fleet.Verifying, fleet.Rendering, fleet.Checking, fleet.Progressing, fleet.Promoting, fleet.Settling, fleet.Testing, fleet.RollingBack:
		v.moves = tries
	case fleet.AwaitingApproval:
		v.block(tries, fleet.BlockApproval)
	case fleet.AwaitingWindow:
		v.block(tries, fleet.BlockWindow)
	case fleet.AwaitingConfig:
		v.block(true, fleet.BlockConfig)
	}
	return v
}

func (v *seen) block(when bool, b fleet.Block) {
	if when && v.blocked == fleet.BlockNone {
		v.blocked = b
	}
}

// above reports whether version is newer than the rollout's.
func (l *sight) above(version string) bool {
	if version == "" || version == l.s.Version {
		return false
	}
	newer, asked := l.newer[version]
	if !asked {
		newer = fleet.CompareTags(version, l.s.Version) > 0
		l.newer[version] = newer
	}
	return newer
}

// judged is what becomes of a member on its way to the release.
func (l *sight) judged(m Member, o Observation) Member {
	v := l.see(o)
	switch m.Mark {
	case fleet.MarkWaiting, fleet.MarkUnaffected:
		return l.judgedApart(m, o, v)
	case fleet.MarkDone:
		return l.judgedDone(m, o, v)
	case fleet.MarkFailed:
		if v.runs && !v.failed && o.Health == fleet.Healthy {
			return l.mark(m, fleet.MarkDone, "")
		}
		return m
	case fleet.MarkOffered, fleet.MarkUnderway, fleet.MarkParked:
		return l.judgedOffered(m, o, v)
	}
	return m
}

// judgedApart: it was not offered the release.
func (l *sight) judgedApart(m Member, o Observation, v seen) Member {
	switch {
	case v.silent:
		return m
	case v.runs && o.Health == fleet.Healthy:
		return l.mark(m, fleet.MarkDone, "")
	case v.newer:
		return l.mark(m, fleet.MarkUnaffected, "runs "+o.Running+", which is newer")
	case v.never && !v.runs:
		return l.mark(m, fleet.MarkUnaffected, string(fleet.BlockPolicy))
	case m.Mark == fleet.MarkUnaffected:
		return l.mark(m, fleet.MarkWaiting, "")
	}
	return m
}

// judgedDone: it may fall ill as long as its wave is under way, and its provider may take it back.
func (l *sight) judgedDone(m Member, o Observation, v seen) Member {
	switch {
	case v.silent, v.newer:
		return m
	case v.runs && o.Health == fleet.Degraded && !v.moves && l.ongoing(m.Wave):
		return l.mark(m, fleet.MarkFailed, degraded(o))
	case v.runs:
		return m
	case v.failed:
		return l.mark(m, fleet.MarkFailed, because(o))
	}
	if m.Before == l.s.Version { // it had the release before the rollout came: an undo of what it takes now leads here
		m.Before = o.Running
	}
	if v.never {
		return l.mark(m, fleet.MarkUnaffected, string(fleet.BlockPolicy))
	}
	m = l.mark(m, fleet.MarkParked, "went back to "+named(o.Running))
	if m.Block, m.BlockedSince = v.blocked, l.now; v.blocked == fleet.BlockNone {
		m.Block = idle
	}
	if v.moves {
		return unblocked(m)
	}
	return m
}

// ongoing reports whether a wave is under way still.
func (l *sight) ongoing(wave int) bool {
	return wave >= 0 && !l.s.Waves[wave].Started.IsZero() && l.s.Waves[wave].Ended.IsZero()
}

func (l *sight) judgedOffered(m Member, o Observation, v seen) Member {
	parked := m.Mark == fleet.MarkParked
	stale := parked && m.Block == fleet.BlockHeld // failed before it was offered: not this rollout's doing
	switch {
	case v.silent:
	case v.newer:
		return l.mark(m, fleet.MarkUnaffected, "runs "+o.Running+", which is newer")
	case v.failed && stale:
		return m
	case v.failed:
		return l.mark(m, fleet.MarkFailed, because(o))
	case v.runs && o.Health == fleet.Healthy:
		return l.mark(m, fleet.MarkDone, "")
	case v.runs && o.Health == fleet.Degraded && !v.moves:
		return l.mark(m, fleet.MarkFailed, degraded(o))
	case v.runs, v.moves:
		v.blocked = fleet.BlockNone
		if parked {
			m.Reason = "takes it now"
			return unblocked(m)
		}
		return unblocked(l.mark(m, fleet.MarkUnderway, o.Reason))
	case v.never:
		return l.mark(m, fleet.MarkUnaffected, string(fleet.BlockPolicy))
	case m.Mark == fleet.MarkUnderway: // it was, and waits for somebody now
		m = l.mark(m, fleet.MarkOffered, "")
	}
	if parked {
		return l.reparked(m, v)
	}
	return l.impatient(l.block(m, v))
}

// reparked keeps why a member is parked true: it may be unpinned, and not have begun yet.
func (l *sight) reparked(m Member, v seen) Member {
	why := v.blocked
	if why == fleet.BlockNone {
		why = idle
	}
	if v.silent || why == m.Block {
		return m
	}
	if m.Reason == string(m.Block) || m.Block == fleet.BlockNone {
		m.Reason = string(why)
	}
	m.Block, m.BlockedSince = why, l.now
	return m
}

// block notes why a member does not move, and since when something keeps it.
func (l *sight) block(m Member, v seen) Member {
	if v.blocked == fleet.BlockNone {
		return unblocked(m)
	}
	if m.BlockedSince.IsZero() {
		m.BlockedSince = l.now
	}
	m.Block = v.blocked
	return m
}

func unblocked(m Member) Member {
	m.Block, m.BlockedSince = fleet.BlockNone, time.Time{}
	return m
}

// impatient parks a member that the wave has waited for long enough.
func (l *sight) impatient(m Member) Member {
	until := l.patienceEnds(m)
	if until.IsZero() || l.now.Before(until) {
		return m
	}
	if m.Block == fleet.BlockNone {
		m.Block, m.BlockedSince = idle, l.now
	}
	return l.mark(m, fleet.MarkParked, string(m.Block))
}

// idle is why a member does not move of which nothing is known. One that is parked without any block takes
// the release now.
const idle fleet.Block = "does not take it"

// patienceEnds is when a member is parked, or stranded, that does not move till then; the zero time: the
// clock stands still.
func (l *sight) patienceEnds(m Member) time.Time {
	switch {
	case m.Mark == fleet.MarkReturning:
		return m.Since.Add(l.patience(m.Wave))
	case m.Mark == fleet.MarkUnderway && !m.BlockedSince.IsZero():
		return m.BlockedSince.Add(l.patience(m.Wave))
	case m.Mark != fleet.MarkOffered, slices.Contains([]fleet.RolloutPhase{fleet.RolloutHolding, fleet.RolloutPaused}, l.s.Phase),
		l.s.Phase == fleet.RolloutWindow && m.Wave == l.s.Wave:
		return time.Time{}
	}
	return m.Offered.Add(l.patience(m.Wave))
}
