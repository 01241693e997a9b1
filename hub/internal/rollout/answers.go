package rollout

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// Offers reports whether this rollout offers its release to the cluster now.
func (s State) Offers(c fleet.Cluster) bool {
	if s.Phase == fleet.RolloutCompleted {
		return true
	}
	m, there := s.Members[c]
	if !there || s.Phase == fleet.RolloutRecalled || s.End == fleet.RolloutRecalled {
		return false
	}
	begun := m.Mark == fleet.MarkDone || m.Mark == fleet.MarkUnderway || m.Mark == fleet.MarkParked && m.Block == fleet.BlockNone
	switch s.Phase {
	case fleet.RolloutReturning, fleet.RolloutReturned:
		return m.Mark == fleet.MarkDone // of a wave that keeps it
	case fleet.RolloutAborted, fleet.RolloutSuperseded:
		return begun
	case fleet.RolloutHolding, fleet.RolloutPaused:
		return begun || m.Mark == fleet.MarkFailed
	}
	waits := m.Mark == fleet.MarkOffered || m.Mark == fleet.MarkParked
	if s.Phase == fleet.RolloutWindow && m.Wave == s.Wave {
		waits = false
	}
	return begun || waits || m.Mark == fleet.MarkFailed
}

// Withdraws is what this rollout takes off the cluster's offer, for ever. Where the release was called back,
// that is everybody's.
func (s State) Withdraws(c fleet.Cluster) (fleet.Withdrawal, bool) {
	w := fleet.Withdrawal{Version: s.Version, Kind: fleet.TakenBack, Reason: s.Told}
	m, there := s.Members[c]
	back := false
	switch m.Mark {
	case fleet.MarkReturning, fleet.MarkReturned, fleet.MarkStranded:
		back = true
	case fleet.MarkFailed, fleet.MarkParked, fleet.MarkOffered, fleet.MarkLeft:
		back = !m.Offered.IsZero()
	case fleet.MarkUnaffected: // it did not take it, or has another above; who had it before keeps it
		back = !m.Offered.IsZero() && m.Before != s.Version
	}
	if back = back && there; back && m.Before != s.Version {
		w.To = m.Before
	}
	recalled := s.Phase == fleet.RolloutRecalled || s.Phase == fleet.RolloutReturning && s.End == fleet.RolloutRecalled
	switch {
	case recalled:
		w.Kind = fleet.Recalled
		if s.End != fleet.RolloutRecalled {
			w.To = "" // stopped, and nobody was sent back
		}
		return w, true
	case s.Phase == fleet.RolloutReturning || s.Phase == fleet.RolloutReturned:
		return w, back
	}
	return fleet.Withdrawal{}, false
}

// Due is when time alone changes something: Next has to look then, and whenever the fleet changes. The zero
// time: never.
func (s State) Due() time.Time {
	switch {
	case s.Phase.Terminal(), s.Wake.Equal(never()):
		return time.Time{}
	case s.Wake.IsZero():
		return s.Since // nobody has looked since it was read, or told something
	}
	return s.Wake
}

// Waits says in one line whose turn it is, with the next command where that is a person's; empty for a
// rollout that is over.
func (s State) Waits() string {
	if s.Phase.Terminal() || len(s.Waves) == 0 {
		return ""
	}
	w, release := s.Waves[s.Wave], s.Distribution+" "+s.Version
	reason := cmp.Or(s.Reason, "wave "+w.Name)
	switch s.Phase {
	case fleet.RolloutWindow:
		return reason
	case fleet.RolloutApproval:
		return fmt.Sprintf("%s; hub rollout approve %s", reason, release)
	case fleet.RolloutSoaking:
		return fmt.Sprintf("wave %s soaks until %s", w.Name, w.SoakUntil.UTC().Format(time.RFC3339))
	case fleet.RolloutVerdicts:
		return fmt.Sprintf("%s, and %d are there; hub rollout approve %s goes on without them", reason, s.Count(s.Wave).verdicts(w), release)
	case fleet.RolloutHolding:
		return fmt.Sprintf("%s; hub rollout resume %s goes on, hub rollout undo %s brings it back", reason, release, release)
	case fleet.RolloutPaused:
		return fmt.Sprintf("%s; hub rollout resume %s", reason, release)
	case fleet.RolloutReturning:
		n := 0
		for _, m := range s.Members {
			if m.Mark == fleet.MarkReturning {
				n++
			}
		}
		return fmt.Sprintf("%s on the way back (%s)", clusters(n), reason)
	}
	return s.waitsForClusters(w)
}

func (s State) waitsForClusters(w Wave) string {
	c := s.Count(s.Wave)
	var parts []string
	for _, p := range []struct {
		n    int
		what string
	}{{c.Underway, "under way"}, {c.Offered, "offered"}, {c.Waiting, "waiting"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	switch {
	case len(parts) == 0 && c.Parked > 0 && c.Done+c.Failed == 0:
		return fmt.Sprintf("nobody in wave %s has taken it: %s parked; the next wave goes on without them at %s", w.Name, clusters(c.Parked),
			w.Started.Add(s.patience(s.Wave)).UTC().Format(time.RFC3339))
	case len(parts) == 0:
		return "wave " + w.Name + " begins"
	}
	return fmt.Sprintf("wave %s waits for %s: %s", w.Name, clusters(c.Underway+c.Offered+c.Waiting), strings.Join(parts, ", "))
}

// Changed lists the members that differ from an earlier state of the same rollout, by name.
func (s State) Changed(before State) (changed []fleet.Cluster) {
	for c, m := range s.Members {
		if old, there := before.Members[c]; !there || old != m {
			changed = append(changed, c)
		}
	}
	for c := range before.Members {
		if _, there := s.Members[c]; !there {
			changed = append(changed, c)
		}
	}
	slices.Sort(changed)
	return changed
}

// Counts is how many of a wave's members stand where.
type Counts struct {
	Total, Waiting, Offered, Underway, Done, Failed, Parked, Unaffected, Left, Returning, Returned, Stranded int
}

// Count counts a wave's members; wave -1: those that are in none.
func (s State) Count(wave int) (n Counts) {
	for _, m := range s.Members {
		if m.Wave == wave {
			n.add(m.Mark)
		}
	}
	return n
}

func (n *Counts) add(m fleet.Mark) {
	n.Total++
	switch m {
	case fleet.MarkWaiting:
		n.Waiting++
	case fleet.MarkOffered:
		n.Offered++
	case fleet.MarkUnderway:
		n.Underway++
	case fleet.MarkDone:
		n.Done++
	case fleet.MarkFailed:
		n.Failed++
	case fleet.MarkParked:
		n.Parked++
	case fleet.MarkUnaffected:
		n.Unaffected++
	case fleet.MarkLeft:
		n.Left++
	case fleet.MarkReturning:
		n.Returning++
	case fleet.MarkReturned:
		n.Returned++
	case fleet.MarkStranded:
		n.Stranded++
	}
}

// verdicts are those that were not passed over, as far as a state alone can say.
func (n Counts) verdicts(w Wave) int { return n.Done + n.Failed - w.Forgiven }
