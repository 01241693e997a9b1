package conductor

import (
	"fmt"
	"log/slog"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/hub/internal/rollout"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/plan"
)

// startDue starts the rollouts of releases that have none and need nobody's word. While a repository is being
// read, more are coming: the newest is not known yet.
func (c *Conductor) startDue(t *turn, o *offering) error {
	if len(o.waiting) == 0 || c.reading(o.distribution.Name) {
		return nil
	}
	var batch []rollout.New
	for _, v := range o.waiting {
		p, source, err := c.planOf(o, v, nil)
		if err != nil || p.Start == plan.Manual {
			continue // status says so
		}
		batch = append(batch, rollout.New{Distribution: o.distribution.Name, Version: v, Plan: p, PlanSource: source, StartedBy: hubActor})
	}
	if len(batch) == 0 {
		return nil
	}
	wanted, subscribers, err := c.wanted(t, o, versionsOf(batch))
	if err != nil {
		return err
	}
	var all []store.Beginning
	for n, b := range batch {
		over := ""
		for _, later := range batch[n+1:] {
			if wanted[later.Version] && b.Plan.Supersede {
				over = later.Version
			}
		}
		if subscribers == 0 || wanted[b.Version] {
			over = ""
		}
		one, err := c.prepare(t, o, b, by{who: caller.Who{Actor: hubActor}, reason: "published", over: over, wanted: wanted})
		if err != nil {
			return err
		}
		all = append(all, one)
	}
	return c.start(t, all...)
}

// hubActor is who does what nobody was asked about.
const hubActor = "hub"

func versionsOf(batch []rollout.New) (all []string) {
	for _, b := range batch {
		all = append(all, b.Version)
	}
	return all
}

// by is why a rollout begins.
type by struct {
	who    caller.Who
	reason string
	over   string // a newer release that was published with this one and takes its place; empty: none
	wanted map[string]bool
}

// prepare is a rollout at its start. It ends older ones that their plans give up for the newer release.
func (c *Conductor) prepare(t *turn, o *offering, n rollout.New, b by) (store.Beginning, error) {
	f, err := c.fleetOf(t, rollout.State{Distribution: n.Distribution, Version: n.Version})
	if err != nil {
		return store.Beginning{}, err
	}
	s := rollout.Start(t.now, n, f)
	if b.over == "" {
		if err := c.supersede(t, o, n.Version, b); err != nil {
			return store.Beginning{}, err
		}
	} else if s.Phase.Terminal() {
		// Nobody has to take it, so that nobody has to be spared it.
	} else if s, err = rollout.Do(t.now, s, rollout.Command{Verb: rollout.Supersede, By: hubActor, Reason: fmt.Sprintf("%s was published with it", b.over)}); err != nil {
		return store.Beginning{}, fmt.Errorf("pass over %s for %s: %w", n.Version, b.over, err)
	}
	s = rollout.Next(t.now, s, f)
	one := store.Beginning{Rollout: s, Entry: entry(t.now, b.who, "rollout start", n.Distribution, n.Version, b.reason)}
	if len(s.Members) > 0 {
		one.Events = append(one.Events, beginning(t.now, s))
	}
	one.Events = append(one.Events, transitions(t.now, rollout.State{}, s)...)
	if len(f) > 0 {
		one.Layout = rollout.Preview(t.now, n, f)
	}
	return one, nil
}

// start stores rollouts that begin, in one go: a repository may bring a thousand.
func (c *Conductor) start(t *turn, all ...store.Beginning) error {
	states, err := c.cfg.Store.NewRollouts(all...)
	if err != nil {
		return fmt.Errorf("start rollouts: %w", err)
	}
	for n, s := range states {
		c.cfg.Log.Info("rollout started", slog.String(logging.Distribution, s.Distribution), slog.String(logging.Version, s.Version), slog.String("plan", s.PlanSource), slog.String("by", all[n].Entry.Actor))
		t.move(s.Distribution, nil)
		t.await(s, c.cfg.Heartbeat)
	}
	t.replace(states...)
	return nil
}

// supersede ends the older rollouts under way whose plans say so, but for those of releases that a cluster
// takes and the newer one is none for: a required stop, or the last in somebody's range.
func (c *Conductor) supersede(t *turn, o *offering, version string, b by) error {
	wanted := b.wanted
	for _, r := range t.after.of(o.distribution.Name).underWay() {
		if !r.Plan.Supersede || fleet.CompareTags(r.Version, version) >= 0 || r.Phase == fleet.RolloutReturning {
			continue
		}
		if wanted == nil {
			var err error
			if wanted, _, err = c.wanted(t, o, []string{version}); err != nil {
				return err
			}
		}
		if wanted[r.Version] {
			continue
		}
		s, err := rollout.Do(t.now, r, rollout.Command{Verb: rollout.Supersede, By: b.who.Actor, Reason: fmt.Sprintf("the rollout of %s began", version)})
		if err != nil {
			return fmt.Errorf("supersede the rollout of %s: %w", r.Version, err)
		}
		if err := c.step(t, r, s, entry(t.now, caller.Who{Actor: hubActor}, "rollout supersede", r.Distribution, r.Version, fmt.Sprintf("the rollout of %s began", version))); err != nil {
			return err
		}
	}
	return nil
}

// planOf is the plan of a release's rollout and where it is from. given is a person's; nil: none.
func (c *Conductor) planOf(o *offering, version string, given []byte) (p plan.Plan, source string, err error) {
	if len(given) > 0 {
		p, err = plan.Parse(given)
		return p, "--plan", err
	}
	if c.cfg.Plans != nil {
		if p, ok := c.cfg.Plans(o.distribution.Name); ok {
			return p, "hub.yaml", nil
		}
	}
	if text := o.releases[version].Plan; len(text) > 0 {
		p, err = plan.Parse(text)
		return p, "wheelwright.yaml", err
	}
	return plan.Default(), "default", nil
}

// waits is a line for each release above a version that has no rollout and does not get one by itself,
// ascending.
func (c *Conductor) waits(o *offering, than string) (lines []string) {
	for _, v := range o.waiting {
		if !above(v, than) {
			continue
		}
		next := fmt.Sprintf("`hub rollout start %s %s`", o.distribution.Name, v)
		switch p, source, err := c.planOf(o, v, nil); {
		case err != nil:
			lines = append(lines, fmt.Sprintf("%s: its plan (%s) cannot be read: %v; %s --plan FILE begins its rollout with another", v, source, err, next))
		case p.Start == plan.Manual:
			lines = append(lines, fmt.Sprintf("%s waits for %s (start: manual, in %s)", v, next, source))
		}
	}
	return lines
}
