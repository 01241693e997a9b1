package conductor

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/rollout"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
)

// stock is what a distribution has, as of a revision of the store.
type stock struct {
	revision     uint64
	distribution fleet.Distribution
	watched      bool                     // by this hub, now
	statement    []byte                   // the vendor's newest, as it was signed; nil: none
	releases     map[string]fleet.Release // available and in range
	versions     []string                 // of releases, ascending
	rejected     []fleet.Release          // in range, ascending
	trying       map[string]time.Time     // in pre-flight: offered to be tried out only
}

// offering is a stock under the rollouts, recalls, pins and decisions of one picture: what everybody may
// take, and what each cluster may beyond that.
type offering struct {
	*stock
	shelf *shelf
	// open versions are everybody's, ascending; waiting ones have no rollout yet. Both leave out what is
	// in pre-flight or recalled.
	open, waiting []string
	// limited are the last rollouts of the versions that are neither open nor recalled, ascending: each
	// says whose they are.
	limited []rollout.State
	recalls []fleet.Recall // ascending by version
	alike   bool           // nothing is special for any cluster, but for its pins, decisions and orders
	plain   *parcel        // of a cluster for which nothing is special
	made    *memo[*parcel]
	returns *memo[string]
}

// Offers is what a cluster with these subscriptions may take of each distribution: the releases that are
// everybody's, and those whose rollouts have reached it. The answer's parts were encoded when something changed,
// and are shared by all clusters that are offered the same.
//
// The revision is a fingerprint of the answer: the same content has the same one, before and after a
// restart of the hub, and whatever happened in between.
func (c *Conductor) Offers(cluster fleet.Cluster, subscriptions []string) (wire.Desired, error) {
	names := subscriptions
	if len(names) > 1 {
		names = slices.Compact(slices.Sorted(slices.Values(subscriptions)))
	}
	state, sum, now := wire.Desired{}, offset64, time.Now()
	for _, name := range names {
		o, err := c.offering(name)
		if err != nil {
			return wire.Desired{}, fmt.Errorf("offers of %s for %s: %w", name, cluster, err)
		}
		sum = sum.text(name).text("\x00")
		if !o.watched {
			continue
		}
		var i *fleet.Installation
		if !o.alike {
			i = c.installation(cluster, name)
		}
		p := o.to(now, cluster, i).ordered(waiting(now, c.cfg.Store.OrdersTo(cluster, name)))
		if p.broken != nil {
			return wire.Desired{}, fmt.Errorf("offers of %s for %s: %w", name, cluster, p.broken)
		}
		sum = sum.number(p.message.Sum)
		state.Parts = append(state.Parts, p.message)
	}
	state.Revision = max(uint64(sum), 1) // 0 is a spoke's word for none
	return state, nil
}

// fnv1a is hash/fnv's New64a, which allocates: a revision is worked out for each message to each spoke.
type fnv1a uint64

const (
	offset64 fnv1a = 14695981039346656037
	prime64  fnv1a = 1099511628211
)

func (h fnv1a) text(s string) fnv1a {
	for i := range len(s) {
		h = (h ^ fnv1a(s[i])) * prime64
	}
	return h
}

// number is big-endian.
func (h fnv1a) number(n uint64) fnv1a {
	for shift := 56; shift >= 0; shift -= 8 {
		h = (h ^ fnv1a(byte(n>>shift))) * prime64
	}
	return h
}

func (c *Conductor) installation(cluster fleet.Cluster, distribution string) *fleet.Installation {
	i, _ := c.cfg.Store.Installation(cluster, distribution)
	return &i
}

func installationOf(list []fleet.Installation, distribution string) fleet.Installation {
	for _, i := range list {
		if i.Distribution == distribution {
			return i
		}
	}
	return fleet.Installation{Distribution: distribution}
}

// offering of a distribution as things stand. It is made anew only when something changed.
func (c *Conductor) offering(name string) (*offering, error) {
	p, err := c.picture()
	if err != nil {
		return nil, err
	}
	return c.offeringIn(p, name)
}

func (c *Conductor) offeringIn(p *picture, name string) (*offering, error) {
	// The revision is read first: what changes after it is sent with the next one.
	revision, err := c.cfg.Store.Revision(name)
	if err != nil {
		return nil, err
	}
	at := p.of(name)
	if found := c.made(name); found.is(revision, at) {
		return found, nil
	}
	if revision == 0 { // names that nobody knows come from outside: do not collect them
		s, err := c.stock(name, revision)
		if err != nil {
			return nil, err
		}
		return lay(s, at), nil
	}
	// A fleet is woken at once and asks at once: the first to come makes the answer, and the rest wait for it.
	turn := c.turnOf(c.layers, name)
	turn.Lock()
	defer turn.Unlock()
	found := c.made(name)
	if found.is(revision, at) {
		return found, nil
	}
	s := &stock{}
	if found != nil && found.revision == revision {
		s = found.stock
	} else if s, err = c.stock(name, revision); err != nil {
		return nil, err
	}
	made := lay(s, at)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cache[name] = made
	return made, nil
}

// made is the offering that was made last; nil for none.
func (c *Conductor) made(name string) *offering {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cache[name]
}

// is says whether an offering is of this revision and picture still.
func (o *offering) is(revision uint64, at *shelf) bool {
	return o != nil && o.revision == revision && o.shelf == at
}

func (c *Conductor) stock(name string, revision uint64) (*stock, error) {
	s := &stock{revision: revision, releases: map[string]fleet.Release{}}
	distributions, err := c.cfg.Store.Distributions()
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(distributions, func(d fleet.Distribution) bool { return d.Name == name })
	if i < 0 {
		return s, nil
	}
	s.distribution, s.watched = distributions[i], true
	log, err := c.cfg.Store.Channel(name)
	if err != nil {
		return nil, err
	}
	if last, ok := log.Last(); ok {
		s.statement = last.Bytes()
	}
	rs, err := c.cfg.Store.Releases(name)
	if err != nil {
		return nil, err
	}
	for _, r := range inRange(s.distribution, rs) {
		if r.Phase == fleet.Available {
			s.releases[r.Version] = r
			s.versions = append(s.versions, r.Version)
		} else {
			s.rejected = append(s.rejected, r)
		}
	}
	s.trying, _, err = c.underWay(time.Now(), name)
	return s, err
}

// inRange keeps the releases that the distribution's tag range holds now: one that was removed and added
// again with another range keeps what was judged before, and offers only what is in range.
func inRange(d fleet.Distribution, rs []fleet.Release) []fleet.Release {
	r, err := fleet.ParseRange(d.Tags)
	if err != nil {
		return nil // checked when it was added
	}
	return slices.DeleteFunc(rs, func(release fleet.Release) bool {
		v, err := fleet.ParseVersion(release.Version)
		return err != nil || !r.Contains(v)
	})
}

// lay lays a shelf over a stock.
func lay(s *stock, at *shelf) *offering {
	o := &offering{stock: s, shelf: at, made: newMemo[*parcel](), returns: newMemo[string]()}
	newest := map[string]rollout.State{}
	for _, r := range at.rollouts {
		newest[r.Version] = r
	}
	for _, v := range slices.Backward(s.versions) { // the highest first: a superseded one asks for what is above
		r, began := newest[v]
		if _, recalled := at.recalls[v]; recalled {
			continue
		}
		if _, trying := s.trying[v]; trying {
			continue
		}
		switch {
		case !began:
			o.waiting = append(o.waiting, v)
		case r.Phase == fleet.RolloutCompleted, r.Phase == fleet.RolloutSuperseded && len(o.open) > 0 && harmless(r):
			o.open = append(o.open, v)
		}
	}
	slices.Reverse(o.open)
	slices.Reverse(o.waiting)
	for _, v := range slices.SortedFunc(maps.Keys(newest), fleet.CompareTags) {
		if _, recalled := at.recalls[v]; !recalled && !slices.Contains(o.open, v) {
			o.limited = append(o.limited, newest[v])
		}
	}
	for _, v := range slices.SortedFunc(maps.Keys(at.recalls), fleet.CompareTags) {
		o.recalls = append(o.recalls, at.recalls[v])
	}
	o.alike = len(o.limited) == 0 && !o.rollsBack()
	o.plain = o.pack(o.open, o.alwaysWithdrawn())
	return o
}

// harmless: no cluster failed with it. A superseded release of which that is true becomes everybody's
// once a higher one is: those whose policies stop short of the higher one take it.
func harmless(s rollout.State) bool {
	for _, m := range s.Members {
		if m.Mark == fleet.MarkFailed || m.Mark == fleet.MarkStranded {
			return false
		}
	}
	return true
}

func (o *offering) alwaysWithdrawn() (all []fleet.Withdrawal) {
	for _, r := range o.recalls {
		all = append(all, fleet.Withdrawal{Version: r.Version, Kind: fleet.Recalled, Reason: r.Reason})
	}
	return all
}

func (o *offering) rollsBack() bool {
	return slices.ContainsFunc(o.recalls, func(r fleet.Recall) bool { return r.RollBack })
}
