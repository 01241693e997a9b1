package rollout

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// check returns what is wrong with a step from one state to the next, which Next has brought to its fixed
// point; empty: nothing. latest is what the clock has shown already.
func check(now, latest time.Time, before, s State, f Fleet) string {
	for _, problem := range []string{checkWaves(now, s), checkOffers(now, before, s, f), checkAdmitted(now, before, s, f), checkPins(before, s, f), checkGates(now, latest, before, s, f), checkEnds(before, s), checkWaits(now, s), checkRecall(s, f), checkPatience(now, before, s), checkTold(s)} {
		if problem != "" {
			return fmt.Sprintf("%s\nat %s: %s wave %d, %s\nwaves %+v\nmembers %+v", problem, now.Format(time.RFC3339), s.Phase, s.Wave, s.Reason, s.Waves, s.Members)
		}
	}
	again := Next(now, s, f)
	if len(again.Changed(s)) > 0 || !sameHead(again, s) {
		for _, c := range again.Changed(s) {
			return fmt.Sprintf("no fixed point: %s sees %+v and is %+v, then %+v", c, f[c], s.Members[c], again.Members[c])
		}
		return fmt.Sprintf("no fixed point: %v changed, %s -> %s %q -> %q, wake %s -> %s", again.Changed(s), s.Phase, again.Phase, s.Reason, again.Reason, s.Wake, again.Wake)
	}
	return ""
}

func sameHead(a, b State) bool {
	if a.Phase != b.Phase || a.Since != b.Since || a.Reason != b.Reason || a.Told != b.Told || a.Before != b.Before || a.End != b.End || a.Wave != b.Wave || a.Wake != b.Wake || len(a.Waves) != len(b.Waves) {
		return false
	}
	for i := range a.Waves {
		if a.Waves[i] != b.Waves[i] {
			return false
		}
	}
	return true
}

// checkTold: what every provider reads names nobody, and says something where the vendor is told something.
func checkTold(s State) string {
	for c := range s.Members {
		if strings.Contains(s.Told, string(c)) {
			return fmt.Sprintf("every provider reads of %s: %s", c, s.Told)
		}
	}
	if (s.Told == "") != (s.Reason == "") {
		return fmt.Sprintf("the vendor reads %q and providers %q", s.Reason, s.Told)
	}
	return ""
}

// checkWaves: slots, gates and order.
func checkWaves(now time.Time, s State) string {
	tally := make([]Counts, len(s.Waves))
	for _, m := range s.Members {
		if m.Wave >= 0 {
			tally[m.Wave].add(m.Mark)
		}
	}
	for i, w := range s.Waves {
		n := tally[i]
		if n.Offered+n.Underway > w.Concurrency && !s.Phase.Terminal() {
			return fmt.Sprintf("wave %s: %d on their way, %d allowed", w.Name, n.Offered+n.Underway, w.Concurrency)
		}
		if w.Started.IsZero() {
			continue
		}
		if i > 0 && s.Waves[i-1].Ended.IsZero() {
			return fmt.Sprintf("wave %s began before %s ended", w.Name, s.Waves[i-1].Name)
		}
		if s.Plan.Waves[i].Approval != "" && w.ApprovedBy == "" {
			return fmt.Sprintf("wave %s began without its approval", w.Name)
		}
		if !s.Plan.Waves[i].Windows.Open(w.Started) {
			return fmt.Sprintf("wave %s began outside its window", w.Name)
		}
	}
	return ""
}

// checkOffers: a new offer needs a wave that is under way, a budget that holds, and a rollout that goes on.
func checkOffers(now time.Time, before, s State, f Fleet) string {
	if s.Phase == fleet.RolloutCompleted {
		return ""
	}
	broken := -1
	failed := make([]int, len(s.Waves))
	for _, m := range s.Members {
		if m.Wave >= 0 && m.Mark == fleet.MarkFailed {
			failed[m.Wave]++
		}
	}
	for i, w := range s.Waves {
		if i <= s.Wave && failed[i]-w.Forgiven > w.Budget && broken < 0 {
			broken = i
		}
	}
	for c, m := range s.Members {
		old, there := before.Members[c]
		if m.Offered.IsZero() || there && !old.Offered.IsZero() && (old.Mark != fleet.MarkLeft || m.Mark == fleet.MarkLeft) {
			continue // it was offered the release before
		}
		// All of its wave are parked at once, so that the wave ended in the same look: what comes after it, its gate or
		// the next wave, may stop the rollout yet.
		gate := s.Phase == fleet.RolloutHolding && s.Before == fleet.RolloutVerdicts && s.Since.Equal(now) && m.Mark == fleet.MarkParked
		passed := m.Wave >= 0 && m.Wave < broken && len(before.Waves) > 0 && before.Waves[m.Wave].Ended.IsZero() && !s.Waves[m.Wave].Ended.IsZero() &&
			before.Waves[broken].Started.IsZero()
		switch {
		case (gate || passed) && !s.Offers(c):
		case broken >= 0:
			return fmt.Sprintf("%s is offered the release though the budget of %s is broken", c, s.Waves[broken].Name)
		case m.Wave < 0 || m.Wave > s.Wave || s.Waves[m.Wave].Started.IsZero():
			return fmt.Sprintf("%s is offered the release before its wave began", c)
		case s.Phase != fleet.RolloutProgressing && s.Phase != fleet.RolloutSoaking && s.Phase != fleet.RolloutVerdicts && s.Phase != fleet.RolloutWindow &&
			s.Phase != fleet.RolloutApproval:
			return fmt.Sprintf("%s is offered the release by a rollout that is %s", c, s.Phase)
		}
	}
	for c := range f {
		mark := s.Members[c].Mark
		if (s.Phase == fleet.RolloutHolding || s.Phase == fleet.RolloutPaused) && s.Offers(c) && (mark == fleet.MarkOffered || mark == fleet.MarkWaiting) {
			return fmt.Sprintf("a rollout that is %s offers to %s, which has not begun", s.Phase, c)
		}
		stopped := s.Phase == fleet.RolloutHolding || s.Phase == fleet.RolloutPaused || s.Phase == fleet.RolloutReturning || s.Phase.Terminal()
		begun := f[c].Running == s.Version || f[c].Target == s.Version // it was quicker than the word that stopped it
		if stopped && s.Offers(c) && !before.Offers(c) && !begun {
			return fmt.Sprintf("a rollout that is %s offers to %s, which was not offered before", s.Phase, c)
		}
		if w, yes := s.Withdraws(c); yes && (s.Offers(c) || w.To == s.Version || w.Version != s.Version) {
			return fmt.Sprintf("withdrawal from %s: %+v, offered %v", c, w, s.Offers(c))
		}
	}
	return ""
}

// checkAdmitted: a slot is for one that can take the release, while its wave's window is open; and who has it,
// has it.
func checkAdmitted(now time.Time, before, s State, f Fleet) string {
	if s.Phase.Terminal() || s.Phase == fleet.RolloutReturning {
		return ""
	}
	for c, m := range s.Members {
		o, old := f[c], before.Members[c].Mark
		whole := o.Running == s.Version && o.Health == fleet.Healthy && !(o.Target == s.Version && o.Phase.Failed())
		switch fresh := old == "" || old == fleet.MarkWaiting || old == fleet.MarkUnaffected; {
		case whole && o.Block != fleet.BlockSilent && m.Mark != fleet.MarkDone && m.Mark != fleet.MarkLeft:
			return fmt.Sprintf("%s runs the release and is %s", c, m.Mark)
		case !fresh:
		case m.Mark == fleet.MarkOffered && o.Block != fleet.BlockNone && o.Running != s.Version && (o.Target != s.Version || o.Phase.Terminal()):
			return fmt.Sprintf("%s is %s and has a slot", c, o.Block)
		case (m.Mark == fleet.MarkOffered || m.Mark == fleet.MarkParked && !m.Offered.IsZero()) && !s.Plan.Waves[m.Wave].Windows.Open(now):
			return fmt.Sprintf("%s is offered the release outside the window of its wave", c)
		}
	}
	return ""
}

// checkPins: who does not take the release by its provider's will has not failed.
func checkPins(before, s State, f Fleet) string {
	for c, m := range s.Members {
		old := before.Members[c]
		o, there := f[c]
		if !there || m.Mark != fleet.MarkFailed || old.Mark == fleet.MarkFailed {
			continue
		}
		if o.Block == fleet.BlockPin && o.Running != s.Version && o.Target != s.Version {
			return fmt.Sprintf("%s is pinned and counts as failed", c)
		}
		if o.Block == fleet.BlockSilent {
			return fmt.Sprintf("%s is silent and counts as failed", c)
		}
	}
	for c, m := range s.Members {
		if o := f[c]; m.Mark == fleet.MarkDone && before.Members[c].Mark != fleet.MarkDone && (o.Running != s.Version || o.Health != fleet.Healthy || o.Block == fleet.BlockSilent) {
			return fmt.Sprintf("%s counts as done: %+v", c, o)
		}
	}
	return ""
}

// checkGates: a wave that a look ended has soaked, is well enough and has the verdicts that its plan asks for.
func checkGates(now, latest time.Time, before, s State, f Fleet) string {
	for i, w := range s.Waves {
		if soak := s.Plan.Waves[i].Soak; !w.SoakUntil.IsZero() && (len(before.Waves) == 0 || !before.Waves[i].SoakUntil.Equal(w.SoakUntil)) && !w.SoakUntil.Equal(now.Add(soak)) {
			return fmt.Sprintf("wave %s soaks until %s, its soak is %s", w.Name, w.SoakUntil, soak)
		}
		if w.Ended.IsZero() || len(before.Waves) > 0 && !before.Waves[i].Ended.IsZero() || s.Count(i).Total == 0 {
			continue
		}
		var well, failed, done int
		for c, m := range s.Members {
			switch o := f[c]; {
			case m.Wave == i && m.Mark == fleet.MarkDone:
				if done++; o.Health == fleet.Healthy && o.Block != fleet.BlockSilent {
					well++
				}
			case m.Wave == i && m.Mark == fleet.MarkFailed:
				failed++
			}
		}
		failed -= w.Forgiven
		p := s.Plan.Waves[i]
		switch {
		case done+failed > 0 && (w.SoakUntil.IsZero() || latest.Before(w.SoakUntil)):
			return fmt.Sprintf("wave %s ended before its soak was over", w.Name)
		case well+failed < p.Verdicts.Minimum:
			return fmt.Sprintf("wave %s ended with %d verdicts, wants %d", w.Name, well+failed, p.Verdicts.Minimum)
		case p.Verdicts.Minimum > 0 && well*100 < p.Verdicts.Passes*(well+failed):
			return fmt.Sprintf("wave %s ended with %d of %d passes, wants %d%%", w.Name, well, well+failed, p.Verdicts.Passes)
		case failed > w.Budget:
			return fmt.Sprintf("wave %s ended with %d failures, its budget is %d", w.Name, failed, w.Budget)
		}
	}
	return ""
}

// checkEnds: what is over stays over, and nothing is forgotten of those that took the release.
func checkEnds(before, s State) string {
	if before.Phase.Terminal() && before.Phase != s.Phase {
		return fmt.Sprintf("it was %s and is %s", before.Phase, s.Phase)
	}
	if s.Phase == fleet.RolloutReturned || s.Phase == fleet.RolloutRecalled && s.End == fleet.RolloutRecalled {
		for c, m := range s.Members {
			if m.Mark == fleet.MarkReturning {
				return fmt.Sprintf("it is %s, and %s is on its way back", s.Phase, c)
			}
		}
	}
	return ""
}

// checkWaits: a rollout that is not over says what for, or wakes by itself, and later than now.
func checkWaits(now time.Time, s State) string {
	due := s.Due()
	switch {
	case s.Phase.Terminal() && (s.Waits() != "" || !due.IsZero()):
		return fmt.Sprintf("over, and waits for %q until %s", s.Waits(), due)
	case s.Phase.Terminal():
		return ""
	case s.Waits() == "":
		return "says not what it waits for"
	case !due.IsZero() && !due.After(now):
		return fmt.Sprintf("due at %s, which is over", due)
	}
	return ""
}

// checkDue: nothing changes by time alone before it is said to.
func checkDue(now time.Time, s State, f Fleet) string {
	before := now.AddDate(1, 0, 0)
	if due := s.Due(); !due.IsZero() {
		before = due.Add(-1)
	}
	if early := Next(before, s, f); before.After(now) && !same(early, s) {
		return fmt.Sprintf("due at %s, and another at %s: %s %q -> %s %q, %v", s.Due(), before, s.Phase, s.Reason, early.Phase, early.Reason, early.Changed(s))
	}
	return ""
}

// checkRecall: what was called back is offered to nobody and withdrawn from all, whoever they are.
func checkRecall(s State, f Fleet) string {
	if s.Phase != fleet.RolloutRecalled && (s.Phase != fleet.RolloutReturning || s.End != fleet.RolloutRecalled) {
		return ""
	}
	all := slices.AppendSeq([]fleet.Cluster{"acme/unknown"}, maps.Keys(f))
	for _, c := range slices.AppendSeq(all, maps.Keys(s.Members)) {
		if w, yes := s.Withdraws(c); s.Offers(c) || !yes || w.Kind != fleet.Recalled {
			return fmt.Sprintf("called back, and to %s: offered %v, withdrawn %v %+v", c, s.Offers(c), yes, w)
		}
	}
	return ""
}

// checkPatience: in a wave that goes on everybody is waited for as long as its patience, and no longer.
func checkPatience(now time.Time, before, s State) string {
	if s.Phase != fleet.RolloutProgressing && s.Phase != fleet.RolloutSoaking && s.Phase != fleet.RolloutReturning {
		return ""
	}
	for c, m := range s.Members {
		since, parked := m.Offered, m.Mark == fleet.MarkParked && before.Members[c].Mark == fleet.MarkOffered
		switch {
		case m.Mark == fleet.MarkReturning:
			since = m.Since
		case s.Phase == fleet.RolloutReturning:
			if m.Mark == fleet.MarkOffered || m.Mark == fleet.MarkUnderway {
				return fmt.Sprintf("%s is %s, and the rollout brings back", c, m.Mark)
			}
			continue
		case m.Mark == fleet.MarkUnderway && m.Block != fleet.BlockNone:
			since = m.BlockedSince
		case m.Mark != fleet.MarkOffered && !parked:
			continue
		}
		patience := s.Plan.Patience
		if m.Wave >= 0 {
			patience = cmp.Or(s.Plan.Waves[m.Wave].Patience, patience)
		}
		if over := now.Sub(since) >= patience; over != parked {
			return fmt.Sprintf("%s is %s, waited for since %s, patience is %s: %+v", c, m.Mark, since.Format(time.RFC3339), patience, m)
		}
	}
	return ""
}
