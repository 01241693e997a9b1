package conductor

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/wheelwright-dev/wheelwright/hub/internal/rollout"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// rollouts are stored with what happened to them.
type rollouts interface {
	NewRollouts(...store.Beginning) ([]rollout.State, error) // assigns the IDs
	SaveRollout(s rollout.State, members []fleet.Cluster, events []fleet.Event, entries ...fleet.Entry) error
	Rollouts() ([]rollout.State, error) // ascending by ID
	PutRecall(fleet.Recall, []fleet.Event, fleet.Entry) error
}

// layouts are plans as they were laid over the fleet when their rollouts started.
type layouts interface {
	Layout(id uint64) (l rollout.Layout, found bool, err error)
}

// provisions are what else decides over an offer.
type provisions interface {
	Recalls(distribution string) (map[string]fleet.Recall, error)
	Pins() ([]fleet.HubPin, error)
	Decisions() ([]fleet.HubDecision, error)
}

// picture is everything about rollouts, recalls, and pins and decisions at the hub, in memory. It is
// replaced, never changed, so that who has one reads it without a lock.
type picture struct {
	shelves map[string]*shelf
	empty   *shelf // of a distribution that has nothing
}

// shelf is one distribution in a picture.
type shelf struct {
	rollouts  []rollout.State // ascending by ID
	recalls   map[string]fleet.Recall
	pins      map[fleet.Cluster]fleet.HubPin
	decisions map[fleet.Cluster]fleet.HubDecision
}

// of is a distribution's shelf; the empty one where there is nothing.
func (p *picture) of(distribution string) *shelf {
	if s, ok := p.shelves[distribution]; ok {
		return s
	}
	return p.empty
}

// newest is the last rollout of a version: what it says of the version counts.
func (s *shelf) newest(version string) (rollout.State, bool) {
	for _, r := range slices.Backward(s.rollouts) {
		if r.Version == version {
			return r, true
		}
	}
	return rollout.State{}, false
}

// underWay lists the rollouts that are not over, oldest first.
func (s *shelf) underWay() (all []rollout.State) {
	for _, r := range s.rollouts {
		if !r.Phase.Terminal() {
			all = append(all, r)
		}
	}
	return all
}

// picture is the present one. What is stored is read once, when it is first asked for.
func (c *Conductor) picture() (*picture, error) {
	if p := c.now.Load(); p != nil {
		return p, nil
	}
	c.turn.Lock()
	defer c.turn.Unlock()
	return c.pictureLocked()
}

func (c *Conductor) pictureLocked() (*picture, error) {
	if p := c.now.Load(); p != nil {
		return p, nil
	}
	p, err := c.load()
	if err != nil {
		return nil, fmt.Errorf("read rollouts: %w", err)
	}
	c.now.Store(p)
	return p, nil
}

// load reads what is stored. Recalls are those of every distribution that is watched or has a rollout.
func (c *Conductor) load() (*picture, error) {
	p := &picture{shelves: map[string]*shelf{}, empty: &shelf{}}
	states, err := c.cfg.Store.Rollouts()
	if err != nil {
		return nil, err
	}
	for _, s := range states {
		at := p.edit(s.Distribution)
		at.rollouts = append(at.rollouts, s)
	}
	distributions, err := c.cfg.Store.Distributions()
	if err != nil {
		return nil, err
	}
	for _, d := range distributions {
		p.edit(d.Name)
	}
	for name := range p.shelves {
		at := p.edit(name)
		if at.recalls, err = c.cfg.Store.Recalls(name); err != nil {
			return nil, err
		}
	}
	return p, c.provisionsInto(p)
}

// edit is a shelf of a picture that nobody else has yet, to be changed: a copy of the one that was there.
func (p *picture) edit(distribution string) *shelf {
	s := *p.of(distribution)
	p.shelves[distribution] = &s
	return &s
}

// provisionsInto reads pins and decisions into a picture that nobody else has yet.
func (c *Conductor) provisionsInto(p *picture) error {
	pins, err1 := c.cfg.Store.Pins()
	decisions, err2 := c.cfg.Store.Decisions()
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("read pins and decisions: %w", err)
	}
	for name := range p.shelves {
		s := p.edit(name)
		s.pins, s.decisions = map[fleet.Cluster]fleet.HubPin{}, map[fleet.Cluster]fleet.HubDecision{}
	}
	for _, pin := range pins {
		s := p.edit(pin.Distribution)
		s.pins = with(s.pins, pin.Cluster, pin)
	}
	for _, d := range decisions {
		s := p.edit(d.Distribution)
		s.decisions = with(s.decisions, d.Cluster, d)
	}
	return nil
}

func with[K comparable, V any](m map[K]V, key K, value V) map[K]V {
	if m == nil {
		m = map[K]V{}
	}
	m[key] = value
	return m
}

// provide stores, with write, what a person said at the hub for a cluster's provider, and has it reach
// that cluster.
func (c *Conductor) provide(cluster fleet.Cluster, write func() error) error {
	if err := c.provideLocked(write); err != nil {
		return err
	}
	c.cfg.Spokes.Wake(cluster)
	c.cfg.Spokes.Changed()
	return nil
}

func (c *Conductor) provideLocked(write func() error) error {
	c.turn.Lock()
	defer c.turn.Unlock()
	before, err := c.pictureLocked()
	if err != nil {
		return err
	}
	if err := write(); err != nil {
		return err
	}
	after := before.copy()
	if err := c.provisionsInto(after); err != nil {
		return err
	}
	c.now.Store(after)
	return nil
}

// copy is one whose shelves may be replaced.
func (p *picture) copy() *picture { return &picture{shelves: maps.Clone(p.shelves), empty: p.empty} }
