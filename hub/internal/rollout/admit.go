package rollout

import (
	"slices"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/plan"
)

// admit offers the release to those whose turn it is, and reports whether there were any.
func (l *sight) admit() (any bool) {
	switch l.s.Phase {
	case fleet.RolloutWindow, fleet.RolloutApproval, fleet.RolloutProgressing, fleet.RolloutSoaking, fleet.RolloutVerdicts:
	default:
		return false
	}
	if l.ongoing(l.s.Wave) && l.turn(l.s.Wave) && l.failBefore(l.s.Wave) {
		return true // the budget is looked at before anybody is offered the release
	}
	for i := 0; i <= l.s.Wave; i++ {
		if l.turn(i) && l.admitTo(i) {
			any = true
		}
	}
	return any
}

// turn: members of the wave are to be offered the release.
func (l *sight) turn(wave int) bool {
	return l.tally[wave].Waiting > 0 && !l.s.Waves[wave].Started.IsZero() && l.s.Plan.Waves[wave].Windows.Open(l.now)
}

func (l *sight) admitTo(wave int) (any bool) {
	slots := l.s.Waves[wave].Concurrency - l.tally[wave].Offered - l.tally[wave].Underway
	var free []fleet.Cluster
	for c, m := range l.s.Members {
		if m.Wave != wave || m.Mark != fleet.MarkWaiting {
			continue
		}
		o := l.fleet[c]
		switch v := l.see(o); {
		case v.failed: // before it came to a wave that is over
			l.park(c, m, o, fleet.BlockHeld)
		case v.blocked != fleet.BlockNone && !v.moves && !v.runs:
			l.park(c, m, o, v.blocked)
		default:
			free = append(free, c)
			continue
		}
		any = true
	}
	if slots <= 0 {
		return any
	}
	if slots < len(free) {
		slices.Sort(free)
		free = free[:slots]
	}
	for _, c := range free {
		m := l.mark(l.s.Members[c], fleet.MarkOffered, "")
		m.Offered, m.Before = l.now, l.fleet[c].Running
		l.set(c, m)
		any = true
	}
	return any
}

// failBefore has the members of a wave that failed with the release in an earlier rollout, and hold it since,
// count as what they are: the release's failures. It reports whether there were any.
func (l *sight) failBefore(wave int) (any bool) {
	for c, m := range l.s.Members {
		if m.Wave != wave || m.Mark != fleet.MarkWaiting {
			continue
		}
		if o := l.fleet[c]; l.see(o).failed {
			l.set(c, l.mark(m, fleet.MarkFailed, "before this rollout: "+because(o)))
			any = true
		}
	}
	return any
}

// park offers the release to a member that is not going to take it for now, and uses no slot for it.
func (l *sight) park(c fleet.Cluster, m Member, o Observation, b fleet.Block) {
	m = l.mark(m, fleet.MarkParked, string(b))
	m.Offered, m.Before, m.Block, m.BlockedSince = l.now, o.Running, b, l.now
	l.set(c, m)
}

// join takes in the clusters that nobody has seen yet. Where the release is taken back, only those count that
// took it when it was open to everybody.
func (l *sight) join() {
	back := l.s.Phase == fleet.RolloutReturning
	if back && l.s.Before != fleet.RolloutCompleted || l.known() == len(l.fleet) {
		return
	}
	var fresh []fleet.Cluster
	for c := range l.fleet {
		if _, member := l.s.Members[c]; member {
			continue
		}
		if _, left := slices.BinarySearch(l.s.LeftOut, c); !left || back {
			fresh = append(fresh, c)
		}
	}
	slices.Sort(fresh)
	grown := map[int]bool{}
	for _, c := range fresh {
		o := l.fleet[c]
		m := Member{Wave: -1, Mark: fleet.MarkWaiting, Since: l.now, Before: o.Running}
		switch v := l.see(o); {
		case back && (v.runs || v.moves):
			m.Mark, m.Before = fleet.MarkReturning, ""
		case back:
			continue
		case l.s.Plan.Joiners == plan.JoinWave:
			m.Wave = l.waveFor(c, o)
		}
		l.set(c, m)
		grown[m.Wave] = true
	}
	for i := range l.s.Waves {
		if grown[i] {
			l.lay(i)
		}
	}
}

// known counts the clusters of the fleet that are in the rollout already.
func (l *sight) known() (n int) {
	for c := range l.s.Members {
		if _, there := l.fleet[c]; there {
			n++
		}
	}
	for _, c := range l.s.LeftOut {
		if _, there := l.fleet[c]; there {
			if _, twice := l.s.Members[c]; !twice {
				n++
			}
		}
	}
	return n
}

// waveFor is the first wave that a joiner matches and that is not full; -1: none.
func (l *sight) waveFor(c fleet.Cluster, o Observation) int {
	labels := labelsOf(c, o)
	if l.room == nil {
		l.room = make([]int, len(l.s.Waves))
		for i, w := range l.s.Plan.Waves {
			l.room[i] = limit(w, l.fleet)
		}
		for c, m := range l.s.Members {
			if _, there := l.fleet[c]; there && m.Wave >= 0 {
				l.room[m.Wave]--
			}
		}
	}
	for i, w := range l.s.Plan.Waves {
		if l.room[i] > 0 && w.Clusters.Matches(labels) {
			l.room[i]--
			return i
		}
	}
	return -1
}
