package rollout

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/plan"
	"github.com/wheelwright-dev/wheelwright/pkg/strictyaml"
)

// Layout is a plan laid over the fleet, before anything runs.
type Layout struct {
	Waves    []LayoutWave
	LeftOut  []LayoutCluster // in no wave: they take the release when it is completed
	Warnings []string
}

// LayoutWave is what a wave comes to.
type LayoutWave struct {
	Name                string
	Clusters            []LayoutCluster // by name, as they are offered the release
	Concurrency, Budget int
	Gates               []string // what it waits for, in that order: "approval by admin", "soak 30m0s"
}

// LayoutCluster is a cluster in a layout.
type LayoutCluster struct {
	Cluster  fleet.Cluster
	Running  string
	Blockers []string // why it will not, or may not, take the release now; empty: nothing is known against it
}

// Preview lays a plan over the fleet as it is now.
func Preview(now time.Time, n New, f Fleet) Layout {
	l := &sight{now: now, s: State{Version: n.Version, Plan: n.Plan, Waves: make([]Wave, len(n.Plan.Waves)), Members: map[fleet.Cluster]Member{}},
		fleet: f, newer: map[string]bool{}}
	waves, left := assign(n.Plan, f)
	var out Layout
	for i, names := range waves {
		for _, c := range names {
			l.s.Members[c] = Member{Wave: i}
		}
		l.lay(i)
		w := n.Plan.Waves[i]
		out.Waves = append(out.Waves, LayoutWave{Name: w.Name, Clusters: l.layout(names), Concurrency: l.s.Waves[i].Concurrency, Budget: l.s.Waves[i].Budget,
			Gates: gates(now, w)})
		if len(names) == 0 {
			out.Warnings = append(out.Warnings, nobodyIn(w, f))
		}
	}
	out.LeftOut = l.layout(left)
	out.Warnings = append(out.Warnings, overlaps(n.Plan, waves, f)...)
	switch {
	case len(left) > 0 && len(left) == len(f):
		out.Warnings = append(out.Warnings, fmt.Sprintf("no wave matches any of %s: the rollout will hold", clusters(len(left))))
	case len(left) > 0:
		out.Warnings = append(out.Warnings, fmt.Sprintf("in no wave, and offered the release when the rollout is completed: %s", listed(left)))
	}
	return out
}

// nobodyIn says why a wave is empty.
func nobodyIn(w plan.Wave, f Fleet) string {
	for c, o := range f {
		if w.Clusters.Matches(labelsOf(c, o)) {
			return fmt.Sprintf("wave %s is empty: waves before it have every cluster that it matches", w.Name)
		}
	}
	return fmt.Sprintf("wave %s is empty: it matches no cluster", w.Name)
}

// overlaps names the clusters that a later wave asks for by its selector too. A wave without a selector asks
// for those that are left, and one with a maximum leaves some on purpose.
func overlaps(p plan.Plan, waves [][]fleet.Cluster, f Fleet) (warnings []string) {
	for i, names := range waves {
		if p.Waves[i].Max.N > 0 {
			continue
		}
		for _, later := range p.Waves[i+1:] {
			if len(later.Clusters.MatchLabels)+len(later.Clusters.MatchExpressions) == 0 {
				continue
			}
			var both []fleet.Cluster
			for _, c := range names {
				if later.Clusters.Matches(labelsOf(c, f[c])) {
					both = append(both, c)
				}
			}
			if len(both) > 0 {
				warnings = append(warnings, fmt.Sprintf("waves %s and %s overlap, and the first has them: %s", p.Waves[i].Name, later.Name, listed(both)))
			}
		}
	}
	return warnings
}

// mostListed names are told one by one.
const mostListed = 10

func listed(names []fleet.Cluster) string {
	var parts []string
	for _, c := range names[:min(len(names), mostListed)] {
		parts = append(parts, string(c))
	}
	if more := len(names) - mostListed; more > 0 {
		parts = append(parts, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(parts, ", ")
}

func (l *sight) layout(names []fleet.Cluster) (all []LayoutCluster) {
	for _, c := range names {
		all = append(all, LayoutCluster{Cluster: c, Running: l.fleet[c].Running, Blockers: l.blockers(l.fleet[c])})
	}
	return all
}

func (l *sight) blockers(o Observation) (why []string) {
	v := l.see(o)
	switch {
	case v.runs:
		why = append(why, "runs it already")
	case v.newer:
		why = append(why, "runs "+o.Running+", which is newer")
	}
	if v.blocked != fleet.BlockNone {
		said := string(v.blocked)
		if v.blocked == o.Block && o.Behind != "" {
			said = o.Behind
		}
		why = append(why, said)
	}
	if v.failed {
		why = append(why, "failed with it before: "+because(o))
	}
	if o.Health == fleet.Degraded && !v.silent {
		why = append(why, "is degraded now")
	}
	return why
}

func gates(now time.Time, w plan.Wave) (all []string) {
	if w.Approval != "" {
		all = append(all, "approval by "+w.Approval)
	}
	if len(w.Windows) > 0 {
		text := "window " + w.Windows.String()
		if next := w.Windows.Next(now); next.After(now) {
			text += ", opens " + next.UTC().Format(time.RFC3339)
		}
		all = append(all, text)
	}
	if w.Soak > 0 {
		all = append(all, "soak "+strictyaml.Brief(w.Soak))
	}
	if w.Success > 0 {
		all = append(all, fmt.Sprintf("%d%% healthy", w.Success))
	}
	if w.Verdicts.Minimum > 0 {
		all = append(all, fmt.Sprintf("%d verdicts, %d%% of them pass", w.Verdicts.Minimum, w.Verdicts.Passes))
	}
	return slices.Clip(all)
}

func degraded(o Observation) string {
	if o.Reason != "" {
		return "degraded: " + o.Reason
	}
	return "degraded"
}

// because is why an attempt failed.
func because(o Observation) string {
	if o.Reason != "" {
		return string(o.Phase) + ": " + o.Reason
	}
	return string(o.Phase)
}

// named is a version, or that there is none.
func named(version string) string {
	if version == "" {
		return "nothing"
	}
	return version
}
