package rollout

import (
	"fmt"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// judgedBack is what becomes of a member that is to leave the release again. Where other waves keep it, those
// of their members that are done stay so.
func (l *sight) judgedBack(m Member, o Observation) Member {
	v := l.see(o)
	everybody := l.s.Before == fleet.RolloutCompleted
	switch m.Mark {
	case fleet.MarkDone, fleet.MarkWaiting:
		return m
	case fleet.MarkUnaffected, fleet.MarkLeft:
		if !everybody && m.Offered.IsZero() || !v.runs && !v.moves || m.Before == l.s.Version {
			return m
		}
	}
	switch {
	case v.silent:
		switch m.Mark {
		case fleet.MarkReturning:
			return l.stranded(l.block(m, v), string(fleet.BlockSilent))
		case fleet.MarkOffered, fleet.MarkUnderway: // nobody knows whether it has begun
			return l.mark(l.block(m, v), fleet.MarkParked, string(fleet.BlockSilent))
		}
		return m
	case v.runs && m.Before == l.s.Version:
		if m.Mark != fleet.MarkFailed {
			m = l.mark(m, fleet.MarkUnaffected, "ran it before")
		}
		return m
	case o.Phase == fleet.RollbackFailed && (o.Target != l.s.Version || !v.runs) && (m.Mark == fleet.MarkReturning || m.Mark == fleet.MarkStranded):
		return l.mark(m, fleet.MarkStranded, because(o))
	case v.runs || v.moves:
		switch {
		case m.Mark == fleet.MarkStranded:
			return m
		case m.Before == "" && l.s.End == fleet.RolloutReturned && v.runs:
			return l.mark(m, fleet.MarkStranded, "nothing is known that it ran before")
		}
		why := fmt.Sprintf("runs %s still", named(o.Running))
		if o.Phase.Failed() && o.Target != l.s.Version {
			why += ": " + because(o)
		}
		return l.stranded(l.block(l.mark(m, fleet.MarkReturning, o.Reason), v), why)
	case m.Mark == fleet.MarkFailed:
		return m
	case o.Phase.Touching():
		return l.stranded(l.mark(m, fleet.MarkReturning, o.Reason), o.Reason)
	}
	if m.Mark == fleet.MarkOffered || m.Mark == fleet.MarkParked {
		return l.mark(m, fleet.MarkUnaffected, "did not take it")
	}
	return l.mark(m, fleet.MarkReturned, "runs "+named(o.Running))
}

// stranded gives up on a return after the wave's patience.
func (l *sight) stranded(m Member, why string) Member {
	if l.now.Before(l.patienceEnds(m)) {
		return m
	}
	return l.mark(m, fleet.MarkStranded, why)
}
