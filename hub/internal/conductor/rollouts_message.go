package conductor

import (
	"slices"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/rollout"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// Words for a wave that is not the one under way.
const (
	waveWaiting = "Waiting"
	waveThrough = "Completed"
	waveSkipped = "NotReached"
)

// rolloutMessage is a rollout without its clusters.
func rolloutMessage(s rollout.State) *fleetv1.Rollout {
	m := &fleetv1.Rollout{Distribution: s.Distribution, Version: s.Version, Id: s.ID, Phase: string(s.Phase), Reason: s.Reason,
		Started: wire.Time(s.Started), Since: wire.Time(s.Since), Wave: uint32(s.Wave), PlanSource: s.PlanSource, StartedBy: s.StartedBy,
		Joiners: uint32(len(s.LeftOut) + s.Count(-1).Total)}
	if waits := s.Waits(); waits != "" {
		m.Reason = waits
	}
	for n, w := range s.Waves {
		count := s.Count(n)
		wave := &fleetv1.RolloutWave{Name: w.Name, Phase: wavePhase(s, n), Clusters: uint32(count.Total), Done: uint32(count.Done),
			Underway: uint32(count.Offered + count.Underway + count.Returning), Failed: uint32(count.Failed + count.Stranded), Parked: uint32(count.Parked),
			Budget: uint32(max(w.Budget, 0)), Started: wire.Time(w.Started), SoakUntil: wire.Time(w.SoakUntil)}
		if n < len(s.Plan.Waves) {
			wave.SoakSeconds = uint32(s.Plan.Waves[n].Soak / time.Second)
		}
		m.Waves = append(m.Waves, wave)
	}
	return m
}

func wavePhase(s rollout.State, n int) string {
	switch {
	case !s.Waves[n].Ended.IsZero() || s.Phase == fleet.RolloutCompleted:
		return waveThrough
	case s.Phase.Terminal() && s.Waves[n].Started.IsZero():
		return waveSkipped
	case n == s.Wave || s.Phase.Terminal():
		return string(s.Phase)
	case n < s.Wave:
		return waveThrough
	}
	return waveWaiting
}

// planMessage is a plan laid over the fleet.
func planMessage(n rollout.New, l rollout.Layout) *fleetv1.RolloutPlan {
	m := &fleetv1.RolloutPlan{Distribution: n.Distribution, Version: n.Version, Source: n.PlanSource, Plan: n.Plan.YAML(), Warnings: l.Warnings, LeftOut: planned(l.LeftOut)}
	for _, w := range l.Waves {
		m.Waves = append(m.Waves, &fleetv1.PlannedWave{Name: w.Name, Clusters: planned(w.Clusters), Concurrency: uint32(max(w.Concurrency, 0)), Budget: uint32(max(w.Budget, 0)), Gates: w.Gates})
	}
	return m
}

func planned(clusters []rollout.LayoutCluster) (all []*fleetv1.PlannedCluster) {
	for _, c := range clusters {
		all = append(all, &fleetv1.PlannedCluster{Cluster: string(c.Cluster), RunningVersion: c.Running, Blockers: c.Blockers})
	}
	return all
}

// byWave lists a rollout's clusters by wave, then by name; those in no wave come last.
func byWave(s rollout.State) []fleet.Cluster {
	all := make([]fleet.Cluster, 0, len(s.Members))
	for c := range s.Members {
		all = append(all, c)
	}
	place := func(c fleet.Cluster) int {
		if w := s.Members[c].Wave; w >= 0 {
			return w
		}
		return len(s.Waves)
	}
	slices.SortFunc(all, func(a, b fleet.Cluster) int {
		if d := place(a) - place(b); d != 0 {
			return d
		}
		return strings.Compare(string(a), string(b))
	})
	return all
}
