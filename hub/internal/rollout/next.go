package rollout

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/plan"
)

// New is a rollout that is to start.
type New struct {
	Distribution, Version string
	Plan                  plan.Plan
	PlanSource            string // "default", "wheelwright.yaml", "hub.yaml" or "--plan"
	StartedBy             string
}

// Start lays the plan over the fleet as it is now, and takes the first steps.
func Start(now time.Time, n New, f Fleet) State {
	s := State{Distribution: n.Distribution, Version: n.Version, Plan: n.Plan, PlanSource: n.PlanSource, StartedBy: n.StartedBy, Started: now,
		Phase: fleet.RolloutProgressing, Since: now, Waves: make([]Wave, len(n.Plan.Waves))}
	waves, left := assign(n.Plan, f)
	s.LeftOut, s.Members = left, make(map[fleet.Cluster]Member, len(f))
	for i, names := range waves {
		s.Waves[i].Name = n.Plan.Waves[i].Name
		for _, c := range names {
			s.Members[c] = Member{Wave: i, Mark: fleet.MarkWaiting, Since: now, Before: f[c].Running}
		}
	}
	l := &sight{s: s}
	for i := range s.Waves {
		l.lay(i)
	}
	return Next(now, s, f)
}

// Next compares a rollout with the fleet and takes every step that is due, to the point where another look
// finds nothing to do. It never changes its argument. A rollout that is over stays as it is.
func Next(now time.Time, s State, f Fleet) State {
	if s.Phase.Terminal() || len(s.Waves) == 0 || len(s.Waves) != len(s.Plan.Waves) {
		return s
	}
	l := &sight{now: now, s: s, fleet: f, newer: map[string]bool{}}
	l.s.Waves = slices.Clone(s.Waves)
	rows := table()
	l.join()
	for !l.s.Phase.Terminal() {
		l.observe()
		if i := slices.IndexFunc(rows, func(r row) bool { return r.matches(l, look) }); i >= 0 {
			rows[i].apply(l)
		} else if !l.admit() {
			break
		}
	}
	l.s.Wake = l.wake()
	return l.s
}

// never stands for no time at all: the zero time says that nobody has looked.
func never() time.Time { return time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC) }

// wake is when time alone changes something.
func (l *sight) wake() time.Time {
	next := never()
	at := func(t time.Time) {
		if t.After(l.now) && t.Before(next) {
			next = t.UTC() // a window's is of its zone, which is not stored with it
		}
	}
	if l.s.Phase.Terminal() {
		return next
	}
	for _, m := range l.s.Members {
		at(l.patienceEnds(m))
	}
	for i := 0; i <= l.s.Wave; i++ {
		if w := l.s.Plan.Waves[i].Windows; l.tally[i].Waiting > 0 && !w.Open(l.now) {
			at(w.Next(l.now))
		}
	}
	switch windows := l.plan().Windows; l.s.Phase {
	case fleet.RolloutSoaking:
		at(l.wave().SoakUntil)
		at(l.wave().SoakUntil.Add(l.patience(l.s.Wave)))
	case fleet.RolloutWindow:
		at(windows.Next(l.now))
	case fleet.RolloutProgressing:
		at(l.lingersUntil())
		if len(windows) > 0 && l.pending() {
			at(windows.Closes(l.now))
		}
	}
	return next
}

// assign gives each cluster to the first wave that matches it and is not full, by name.
func assign(p plan.Plan, f Fleet) (waves [][]fleet.Cluster, left []fleet.Cluster) {
	waves = make([][]fleet.Cluster, len(p.Waves))
	room := make([]int, len(p.Waves))
	for i, w := range p.Waves {
		room[i] = limit(w, f)
	}
	for _, c := range slices.Sorted(maps.Keys(f)) {
		labels := labelsOf(c, f[c])
		i := slices.IndexFunc(p.Waves, func(w plan.Wave) bool { return w.Clusters.Matches(labels) })
		for ; i >= 0 && i < len(waves); i++ {
			if room[i] > 0 && p.Waves[i].Clusters.Matches(labels) {
				break
			}
		}
		if i < 0 || i == len(waves) {
			left = append(left, c)
			continue
		}
		waves[i], room[i] = append(waves[i], c), room[i]-1
	}
	return waves, left
}

// limit is how many clusters a wave takes: its maximum is a share of all that match it, whoever has them.
func limit(w plan.Wave, f Fleet) int {
	if w.Max.N == 0 {
		return len(f)
	}
	if !w.Max.Percent {
		return w.Max.N
	}
	matching := 0
	for c, o := range f {
		if w.Clusters.Matches(labelsOf(c, o)) {
			matching++
		}
	}
	return w.Max.Of(matching)
}

// labelsOf are a cluster's labels with those that every cluster has.
func labelsOf(c fleet.Cluster, o Observation) map[string]string {
	labels := make(map[string]string, len(o.Labels)+2)
	maps.Copy(labels, o.Labels)
	labels[plan.LabelProvider], labels[plan.LabelCluster] = c.Provider(), string(c)
	return labels
}

// lay works out a wave's amounts for the members that it has.
func (l *sight) lay(wave int) {
	total := 0
	for _, m := range l.s.Members {
		if m.Wave == wave {
			total++
		}
	}
	w := l.s.Plan.Waves[wave]
	l.s.Waves[wave].Concurrency, l.s.Waves[wave].Budget = cmp.Or(w.Concurrency.Of(total), total), w.Budget.Of(total)
}
