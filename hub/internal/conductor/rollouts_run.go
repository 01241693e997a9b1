package conductor

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/hub/internal/rollout"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/plan"
)

// turn is one look at the fleet, by who holds the lock: what was before it, and what has become of that so
// far. What it changed is stored already; finish tells it to those whom it concerns.
type turn struct {
	now           time.Time
	before, after *picture
	fleet         *census // read when it is first needed
	// moved are the clusters of which a rollout's word may have changed, by distribution; nil: any.
	moved map[string][]fleet.Cluster
	next  time.Time // when time alone changes something
}

// look goes once over everything that is under way or may begin, and returns when it has to be done again
// at the latest; zero: when something changes.
func (c *Conductor) look(now time.Time) (next time.Time, err error) {
	c.turn.Lock()
	defer c.turn.Unlock()
	before, err := c.pictureLocked()
	if err != nil {
		return next, err
	}
	t := &turn{now: now, before: before, after: before.copy()}
	names, err := c.names()
	if err != nil {
		return next, err
	}
	for _, name := range names {
		// One distribution's trouble is not the others'.
		if e := c.driveOne(t, name); e != nil {
			err = errors.Join(err, fmt.Errorf("rollouts of %s: %w", name, e))
		}
	}
	return t.next, errors.Join(err, c.finish(t))
}

// names are those of the watched distributions.
func (c *Conductor) names() ([]string, error) {
	distributions, err := c.cfg.Store.Distributions()
	if err != nil {
		return nil, fmt.Errorf("read distributions: %w", err)
	}
	var names []string
	for _, d := range distributions {
		names = append(names, d.Name)
	}
	return names, nil
}

// driveOne brings a distribution's rollouts to where the fleet is now, and begins those that are to begin.
func (c *Conductor) driveOne(t *turn, name string) error {
	o, err := c.offeringIn(t.after, name)
	if err != nil {
		return err
	}
	if !o.watched {
		return nil
	}
	if err := c.begin(t, o); err != nil {
		return err
	}
	for _, r := range t.after.of(name).rollouts {
		recall, recalled := t.after.of(name).recalls[r.Version]
		recalled = recalled && recallable(r, recall)
		if r.Phase.Terminal() && !recalled {
			continue
		}
		s := r
		if recalled {
			s, err = rollout.Do(t.now, r, recallCommand(recall))
			if err != nil && r.Phase.Terminal() {
				continue // nothing of it is left to end
			}
			if err != nil {
				return fmt.Errorf("end rollout of %s: %w", r.Version, err)
			}
		}
		if err := c.step(t, r, s); err != nil {
			return err
		}
	}
	return nil
}

// step takes a rollout from before, as it is stored, over s to where the fleet is, and stores that.
func (c *Conductor) step(t *turn, before, s rollout.State, entries ...fleet.Entry) error {
	f, err := c.fleetOf(t, s)
	if err != nil {
		return err
	}
	s = rollout.Next(t.now, s, f)
	members := s.Changed(before)
	if due := s.Due(); !due.IsZero() && (t.next.IsZero() || due.Before(t.next)) {
		t.next = due
	}
	if !s.Phase.Terminal() { // silence begins without a word
		if again := t.now.Add(c.cfg.Heartbeat); t.next.IsZero() || again.Before(t.next) {
			t.next = again
		}
	}
	same := sameHead(before, s)
	if same && len(members) == 0 && len(entries) == 0 {
		return nil
	}
	if err := c.cfg.Store.SaveRollout(s, members, transitions(t.now, before, s), entries...); err != nil {
		return fmt.Errorf("store rollout of %s %s: %w", s.Distribution, s.Version, err)
	}
	c.cfg.Log.Debug("rollout", slog.String(logging.Distribution, s.Distribution), slog.String(logging.Version, s.Version), slog.String("phase", string(s.Phase)), slog.Int("wave", s.Wave), slog.Int("members", len(members)))
	t.replace(s)
	if same {
		t.move(s.Distribution, members)
	} else {
		t.move(s.Distribution, nil)
	}
	return nil
}

// replace puts rollouts in the place of their earlier states, or at the end.
func (t *turn) replace(states ...rollout.State) {
	for name, list := range byDistribution(states) {
		at, over := t.after.edit(name), false
		at.rollouts = slices.Clone(at.rollouts)
		for _, s := range list {
			if i, there := slices.BinarySearchFunc(at.rollouts, s.ID, func(r rollout.State, id uint64) int { return cmp.Compare(r.ID, id) }); there {
				at.rollouts[i] = s
			} else {
				at.rollouts = append(at.rollouts, s)
			}
			over = over || s.Phase.Terminal()
		}
		if over {
			at.rollouts = remembered(at.rollouts)
		}
	}
}

func byDistribution(states []rollout.State) map[string][]rollout.State {
	all := map[string][]rollout.State{}
	for _, s := range states {
		all[s.Distribution] = append(all[s.Distribution], s)
	}
	return all
}

// remembered is what the store keeps of a distribution's rollouts: of those that ended long ago no members,
// and no rollout but the newest of each release.
func remembered(all []rollout.State) []rollout.State {
	ended := slices.DeleteFunc(slices.Clone(all), func(r rollout.State) bool { return !r.Phase.Terminal() })
	if len(ended) <= store.MaxEnded {
		return all
	}
	slices.SortFunc(ended, func(a, b rollout.State) int { return cmp.Or(b.Since.Compare(a.Since), cmp.Compare(b.ID, a.ID)) })
	old, newest := map[uint64]bool{}, map[string]uint64{}
	for _, r := range ended[store.MaxEnded:] {
		old[r.ID] = true
	}
	for _, r := range all {
		newest[r.Version] = r.ID
	}
	var kept []rollout.State
	for _, r := range all {
		if old[r.ID] {
			if newest[r.Version] != r.ID {
				continue
			}
			r.Members = nil
		}
		kept = append(kept, r)
	}
	return kept
}

// move notes whose offers may have changed; nil: anybody's.
func (t *turn) move(distribution string, clusters []fleet.Cluster) {
	if t.moved == nil {
		t.moved = map[string][]fleet.Cluster{}
	}
	if known, ok := t.moved[distribution]; ok && known == nil || clusters == nil {
		t.moved[distribution] = nil
		return
	}
	t.moved[distribution] = append(t.moved[distribution], clusters...)
}

// sameHead: nothing changed but members.
func sameHead(a, b rollout.State) bool {
	a.Members, b.Members = nil, nil
	a.Wake, b.Wake = time.Time{}, time.Time{} // not stored
	return reflect.DeepEqual(a, b)
}

// finish makes a turn's picture the present one and wakes the clusters whose offers are other ones now.
func (c *Conductor) finish(t *turn) error {
	c.now.Store(t.after)
	if len(t.moved) == 0 {
		return nil
	}
	var wake []fleet.Cluster
	for name, clusters := range t.moved {
		told, err := c.differ(t, name, clusters)
		if err != nil { // better one wake too many
			c.cfg.Spokes.WakeAll()
			c.cfg.Spokes.Changed()
			return fmt.Errorf("find whose offers changed: %w", err)
		}
		wake = append(wake, told...)
	}
	c.cfg.Spokes.Wake(wake...)
	c.cfg.Spokes.Changed()
	return nil
}

// differ lists the subscribers whose offers changed with a turn, among clusters or, for nil, all.
func (c *Conductor) differ(t *turn, name string, clusters []fleet.Cluster) (changed []fleet.Cluster, err error) {
	before, err := c.offeringIn(t.before, name)
	if err != nil {
		return nil, err
	}
	after, err := c.offeringIn(t.after, name)
	if err != nil {
		return nil, err
	}
	installations, err := c.cfg.Store.Installations()
	if err != nil {
		return nil, err
	}
	if clusters == nil {
		clusters = slices.Collect(maps.Keys(installations))
	}
	for _, cluster := range clusters {
		i := installationOf(installations[cluster], name)
		if before.to(t.now, cluster, i).sum != after.to(t.now, cluster, i).sum {
			changed = append(changed, cluster)
		}
	}
	return changed, nil
}

// begin starts the rollouts of releases that have none and need nobody's word. While a repository is being
// read, more are coming: the newest is not known yet.
func (c *Conductor) begin(t *turn, o *offering) error {
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
		one, err := c.begins(t, o, b, by{who: caller.Who{Actor: hubActor}, reason: "published", over: over, wanted: wanted})
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

// begins is a rollout at its start. It ends older ones that their plans give up for the newer release.
func (c *Conductor) begins(t *turn, o *offering, n rollout.New, b by) (store.Beginning, error) {
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
		if due := s.Due(); !due.IsZero() && (t.next.IsZero() || due.Before(t.next)) {
			t.next = due
		}
		if !s.Phase.Terminal() && t.next.IsZero() {
			t.next = t.now.Add(c.cfg.Heartbeat)
		}
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
