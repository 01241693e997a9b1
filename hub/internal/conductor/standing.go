package conductor

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/rollout"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// Standings is how far releases have come in the fleet, out of the same look at it as the status: of each
// distribution the newest, the one that goes to everybody, those whose rollouts are under way, those that
// were recalled, and which else also says.
func (c *Conductor) Standings(now time.Time, also func(distribution, version string) bool) ([]rollout.Standing, error) {
	f, err := c.fleet()
	if err != nil {
		return nil, fmt.Errorf("read the fleet: %w", err)
	}
	return standings(now, c.cfg.Heartbeat, f, also), nil
}

// States are the rollouts that are remembered, ascending by ID.
func (c *Conductor) States() ([]rollout.State, error) {
	p, err := c.picture()
	if err != nil {
		return nil, err
	}
	var all []rollout.State
	for _, s := range p.shelves {
		all = append(all, s.rollouts...)
	}
	slices.SortFunc(all, func(a, b rollout.State) int { return cmp.Compare(a.ID, b.ID) })
	return all, nil
}

// standings is pure; ordered by distribution and version.
func standings(now time.Time, heartbeat time.Duration, f Fleet, also func(distribution, version string) bool) (all []rollout.Standing) {
	s := newScreen(now, heartbeat, f)
	followed := map[string][]followed{}
	for name, o := range f.Offerings {
		if o.watched {
			followed[name] = o.followed(func(version string) bool { return also != nil && also(name, version) })
		}
	}
	for n := range f.Clusters {
		c := &f.Clusters[n]
		list := f.Installations[c.Name]
		for k := range list {
			if of := followed[list[k].Distribution]; len(of) > 0 {
				s.count(s.view(c, &list[k]), of)
			}
		}
	}
	for _, of := range followed {
		for _, r := range of {
			all = append(all, r.standing())
		}
	}
	slices.SortFunc(all, func(a, b rollout.Standing) int {
		return cmp.Or(cmp.Compare(a.Distribution, b.Distribution), fleet.CompareTags(a.Version, b.Version))
	})
	return all
}

// followed is a release that is counted.
type followed struct {
	distribution fleet.Distribution
	release      fleet.Release
	course       rollout.Course
	current      bool // more may come of it
	tally        fleet.Tally
}

func (o *offering) followed(also func(version string) bool) (all []followed) {
	latest, highest := o.latest(), ""
	for _, v := range o.versions { // ascending
		if _, began := o.shelf.newest(v); began {
			highest = v
		}
	}
	for _, v := range o.versions {
		r, _ := o.shelf.newest(v)
		_, recalled := o.shelf.recalls[v]
		current := v == latest || v == highest || recalled || r.Phase != "" && !r.Phase.Terminal()
		if !current && !also(v) {
			continue
		}
		f := followed{distribution: o.distribution, release: o.releases[v], current: current, tally: fleet.Tally{},
			course: rollout.Course{Phase: r.Phase, Recalled: recalled, Harmed: !harmless(r)}}
		if latest != "" && above(latest, v) {
			f.course.Next = latest
		}
		all = append(all, f)
	}
	return all
}

func (f followed) standing() rollout.Standing {
	s := rollout.Standing{Distribution: f.distribution.Name, Version: f.release.Version, Repository: f.distribution.URL, Commit: f.release.Commit, Tally: f.tally}
	s.State, s.Why = rollout.Judge(f.tally, f.course)
	s.Over = !f.current && f.tally.Sum().UnderWay == 0
	s.Superseded = f.course.Superseded()
	return s
}

// count adds one subscription to each release that concerns it.
func (s *screen) count(v view, releases []followed) {
	for _, r := range releases {
		if word := s.countsAs(v, r); word != "" {
			r.tally.Add(word)
		}
	}
}

// countsAs is what a subscription counts as for a release; empty: the release does not concern it. What is
// known of a delivery that is over counts whether or not anything was heard since: silence is not news.
func (s *screen) countsAs(v view, r followed) string {
	i, version := v.i, r.release.Version
	mine := i.Target == version
	switch {
	case i.Running == version && !(mine && i.Phase == fleet.RollbackFailed):
		return string(fleet.Succeeded)
	case mine && i.Phase.Failed() && i.Declined:
		return fleet.CountDeclined
	case mine && i.Phase.Failed():
		return string(i.Phase)
	case i.Running != "" && fleet.CompareTags(i.Running, version) > 0 && !mine:
		return "" // past it
	}
	underWay := mine && i.Phase != fleet.PhaseNone && !i.Phase.Terminal()
	if !underWay && !(r.course.Open() && s.wouldTake(v, version)) {
		return ""
	}
	silent := v.news.stale(s.now, s.heartbeat) && !v.news.reconnecting(s.now, s.heartbeat, s.fleet.Since)
	switch {
	case !underWay && v.pin != nil && v.pin.Version != version:
		return fleet.CountPinned
	case silent:
		return fleet.CountSilent
	case underWay, i.Phase == fleet.AwaitingConfig:
		return string(i.Phase)
	case v.goal() == version:
		return fleet.CountOffered
	}
	return fleet.CountWaiting
}

// wouldTake: the policy takes the version, its pin aside, when its turn comes.
func (s *screen) wouldTake(v view, version string) bool {
	if v.pin != nil {
		free := *v.i
		free.Policy.Pin = nil
		v.i, v.pin = &free, nil
	}
	return s.takes(v, version)
}
