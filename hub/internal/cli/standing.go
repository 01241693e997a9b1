package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// phaseWord says where a rollout stands; while it soaks, how long it has and how long it shall.
func phaseWord(now time.Time, r *fleetv1.Rollout) string {
	if i := int(r.GetWave()); fleet.RolloutPhase(r.GetPhase()) == fleet.RolloutSoaking && i < len(r.GetWaves()) {
		if w := r.GetWaves()[i]; w.GetSoakUntil() != nil {
			soak := time.Duration(w.GetSoakSeconds()) * time.Second
			return fmt.Sprintf("%s %s/%s", r.GetPhase(), span(min(soak-wire.FromTime(w.GetSoakUntil()).Sub(now), soak)), span(soak))
		}
	}
	return plain(r.GetPhase())
}

// standing is the colour of a rollout.
func standing(r *fleetv1.Rollout) string {
	switch fleet.RolloutPhase(r.GetPhase()) {
	case fleet.RolloutCompleted:
		return green
	case fleet.RolloutHolding, fleet.RolloutReturning, fleet.RolloutReturned, fleet.RolloutRecalled:
		return red
	case fleet.RolloutApproval, fleet.RolloutPaused, fleet.RolloutAborted, fleet.RolloutWindow, fleet.RolloutVerdicts:
		return yellow
	case fleet.RolloutSuperseded:
		return dim
	}
	return cyan
}

// wantsPerson: the rollout goes no further without one.
func wantsPerson(r *fleetv1.Rollout) bool {
	switch fleet.RolloutPhase(r.GetPhase()) {
	case fleet.RolloutApproval, fleet.RolloutHolding, fleet.RolloutPaused:
		return true
	}
	return false
}

// nextSteps is what a person can type where a rollout waits for one.
func nextSteps(r *fleetv1.Rollout) []string {
	what := r.GetDistribution() + " " + r.GetVersion()
	switch fleet.RolloutPhase(r.GetPhase()) {
	case fleet.RolloutApproval:
		return []string{"hub rollout approve " + what + wave(r), "hub rollout reject " + what + wave(r)}
	case fleet.RolloutHolding:
		return []string{"hub rollout resume " + what + "   go on, the failures so far forgiven", "hub rollout undo " + what + "     bring back every cluster that took it", "hub rollout abort " + what + "    stop here"}
	case fleet.RolloutPaused:
		return []string{"hub rollout resume " + what}
	}
	return nil
}

func wave(r *fleetv1.Rollout) string {
	if i := int(r.GetWave()); i < len(r.GetWaves()) {
		return " --wave " + r.GetWaves()[i].GetName()
	}
	return ""
}

// differences says in plain lines what changed from one look at a rollout to the next; from nothing, how
// it stands.
func differences(before, after *fleetv1.Rollout, now time.Time) []string {
	var lines []string
	what := after.GetDistribution() + " " + after.GetVersion()
	if before.GetId() != after.GetId() {
		before = nil
	}
	known := map[string]*fleetv1.RolloutCluster{}
	for _, m := range before.GetClusters() {
		known[m.GetCluster()] = m
	}
	for _, m := range after.GetClusters() {
		old := known[m.GetCluster()]
		telling := markOf(m.GetMark()).rank > 0 && (fleet.Mark(m.GetMark()) != fleet.MarkUnderway)
		switch {
		case old == nil && (before != nil || markOf(m.GetMark()).rank > 0), old != nil && old.GetMark() != m.GetMark(), old != nil && telling && old.GetReason() != m.GetReason():
			lines = append(lines, strings.TrimSuffix(fmt.Sprintf("%s: %s: %s", m.GetCluster(), m.GetMark(), shorten(m.GetReason(), 200)), ": "))
		}
	}
	for i, w := range after.GetWaves() {
		if n := countOf(w); before == nil || i >= len(before.GetWaves()) || n != countOf(before.GetWaves()[i]) {
			lines = append(lines, fmt.Sprintf("%s: wave %s: %s", what, w.GetName(), n))
		}
	}
	if before == nil || before.GetPhase() != after.GetPhase() || before.GetWave() != after.GetWave() || before.GetReason() != after.GetReason() {
		line := fmt.Sprintf("%s: %s", what, phaseWord(now, after))
		if i := int(after.GetWave()); i < len(after.GetWaves()) && !fleet.RolloutPhase(after.GetPhase()).Terminal() {
			line += fmt.Sprintf(", wave %d of %d (%s)", i+1, len(after.GetWaves()), after.GetWaves()[i].GetName())
		}
		if after.GetReason() != "" {
			line += ": " + shorten(after.GetReason(), 200)
		}
		lines = append(lines, line)
	}
	for i := range lines {
		lines[i] = plain(lines[i])
	}
	return lines
}

func (n count) String() string {
	parts := []string{fmt.Sprintf("%s of %s done", thousands(n.done), thousands(n.total))}
	for _, p := range []struct {
		n    int
		word string
	}{{n.underway, "under way"}, {n.failed, "failed"}, {n.parked, "parked"}} {
		if p.n > 0 {
			parts = append(parts, thousands(p.n)+" "+p.word)
		}
	}
	return strings.Join(parts, ", ")
}
