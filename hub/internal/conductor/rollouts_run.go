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

	"github.com/wheelwright-dev/wheelwright/hub/internal/rollout"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
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
	if err := c.startDue(t, o); err != nil {
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
	t.await(s, c.cfg.Heartbeat)
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

// await has the next look come when time may change the rollout: by its plan, or since a spoke fell silent,
// which begins without a word.
func (t *turn) await(s rollout.State, heartbeat time.Duration) {
	if s.Phase.Terminal() {
		return
	}
	for _, at := range []time.Time{s.Due(), t.now.Add(heartbeat)} {
		if !at.IsZero() && (t.next.IsZero() || at.Before(t.next)) {
			t.next = at
		}
	}
}

// replace puts rollouts in the place of their earlier states, or at the end.
func (t *turn) replace(states ...rollout.State) {
	for name, list := range byDistribution(states) {
		at, over := t.after.edit(name), false
		at.rollouts = slices.Clone(at.rollouts) // other pictures have it
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

// remembered leaves out what the store forgets too.
func remembered(all []rollout.State) []rollout.State {
	var traces []rollout.Trace
	for _, r := range all {
		traces = append(traces, rollout.Trace{ID: r.ID, Version: r.Version, Over: r.Phase.Terminal(), Since: r.Since})
	}
	members, whole := rollout.Forget(traces)
	for n, r := range all {
		if slices.Contains(members, r.ID) {
			all[n].Members = nil
		}
	}
	return slices.DeleteFunc(all, func(r rollout.State) bool { return slices.Contains(whole, r.ID) })
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
		if before.to(t.now, cluster, &i).message.Sum != after.to(t.now, cluster, &i).message.Sum {
			changed = append(changed, cluster)
		}
	}
	return changed, nil
}
