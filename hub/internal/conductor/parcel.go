package conductor

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// parcel is what one cluster, or all alike, are offered of a distribution. It is shared and never
// changed.
type parcel struct {
	message   wire.Offers // encoded
	broken    error       // why it could not be
	offered   []fleet.Offered
	withdrawn []fleet.Withdrawal
}

// with is a parcel and what is one cluster's own beside it: its pin, decisions and orders.
func (p *parcel) with(own *syncv1.DistributionOffers) *parcel {
	mine := *p
	message, err := wire.EncodeOffers(own)
	mine.message, mine.broken = p.message.With(message), cmp.Or(p.broken, err)
	return &mine
}

// choice is the package as a policy chooses from it.
func (p *parcel) choice(now time.Time, running string) fleet.Choice {
	return fleet.Choice{Now: now, Offered: p.offered, Withdrawn: p.withdrawn, Running: running}
}

// to is what one cluster is offered; i is its subscription as last heard, which is not looked at where all are alike.
func (o *offering) to(now time.Time, cluster fleet.Cluster, i *fleet.Installation) *parcel {
	p := o.plain
	if !o.alike { // a stream that only waits has a small stack, which what follows would have to grow
		p = o.apart(now, cluster, i)
	}
	pin, pinned := o.shelf.pins[cluster]
	decision, decided := o.shelf.decisions[cluster]
	if !pinned && !decided {
		return p
	}
	own := &syncv1.DistributionOffers{}
	if pinned {
		own.Pin = wire.HubPin(pin)
	}
	if decided {
		own.Decisions = append(own.Decisions, wire.HubDecision(decision))
	}
	return p.with(own)
}

// apart is what one cluster is offered, but for what is its own.
func (o *offering) apart(now time.Time, cluster fleet.Cluster, i *fleet.Installation) *parcel {
	versions, withdrawn, special := o.special(now, cluster, i)
	if !special {
		return o.plain
	}
	var key strings.Builder
	for _, v := range versions {
		key.WriteString(v + "\x00")
	}
	for _, w := range withdrawn {
		key.WriteString("\x01" + w.Version + "\x00" + string(w.Kind) + "\x00" + w.To + "\x00" + w.Reason)
	}
	return o.made.get(key.String(), func() *parcel { return o.pack(versions, withdrawn) })
}

// special lists what a cluster may take and what is withdrawn from it, ascending, and whether that is
// anything but what everybody has.
func (o *offering) special(now time.Time, cluster fleet.Cluster, i *fleet.Installation) (versions []string, withdrawn []fleet.Withdrawal, special bool) {
	versions, withdrawn = o.open, o.plain.withdrawn
	var extra []string
	var taken []fleet.Withdrawal
	for _, r := range o.limited {
		if w, ok := r.Withdraws(cluster); ok {
			taken = append(taken, w)
		} else if r.Offers(cluster) {
			extra = append(extra, r.Version)
			extra = append(extra, o.taken(r.Version)...)
		}
	}
	if len(extra) > 0 {
		versions = slices.Concat(o.open, extra)
	}
	if len(taken) > 0 {
		withdrawn = slices.Concat(withdrawn, taken)
	}
	if !o.rollsBack() && len(extra) == 0 && len(taken) == 0 {
		return versions, withdrawn, false
	}
	withdrawn = slices.Clone(withdrawn)
	for n, w := range withdrawn {
		if r, recalled := o.shelf.recalls[w.Version]; w.To != "" || recalled && r.RollBack {
			withdrawn[n].To = o.back(now, cluster, i, w.Version, w.To, versions, withdrawn)
			if to := withdrawn[n].To; to != "" && !slices.Contains(versions, to) {
				versions = append(slices.Clip(versions), to)
			}
		}
	}
	versions = slices.Clone(versions)
	fleet.SortVersions(versions)
	slices.SortFunc(withdrawn, func(a, b fleet.Withdrawal) int { return fleet.CompareTags(a.Version, b.Version) })
	return slices.Compact(versions), withdrawn, true
}

// taken are the required stops of a version whose own rollouts were superseded: without them on offer
// nobody would reach it.
func (o *offering) taken(version string) (stops []string) {
	for _, stop := range o.releases[version].Stops {
		if _, known := o.releases[stop]; !known || slices.Contains(o.open, stop) {
			continue
		}
		if _, recalled := o.shelf.recalls[stop]; recalled {
			continue
		}
		if r, ok := o.shelf.newest(stop); ok && r.Phase == fleet.RolloutSuperseded && harmless(r) {
			stops = append(stops, stop)
			stops = append(stops, o.taken(stop)...)
		}
	}
	return stops
}

// pack makes a package of versions, ascending.
func (o *offering) pack(versions []string, withdrawn []fleet.Withdrawal) *parcel {
	p, among := &parcel{withdrawn: withdrawn}, make(map[string]bool, len(versions))
	for _, v := range versions {
		among[v] = true
	}
	message := &syncv1.DistributionOffers{Distribution: o.distribution.Name, Url: o.distribution.URL, Path: o.distribution.Path, Channel: o.statement}
	for _, v := range o.versions {
		_, trying := o.trying[v]
		if !trying && !among[v] {
			continue
		}
		r := o.releases[v]
		if _, recalled := o.shelf.recalls[v]; recalled {
			continue
		}
		message.Offers = append(message.Offers, offerOf(r, trying))
		if !trying {
			p.offered = append(p.offered, fleet.Offered{Version: v, Stops: r.Stops})
		}
	}
	for _, w := range withdrawn {
		message.Withdrawals = append(message.Withdrawals, wire.Withdrawal(w))
	}
	p.message, p.broken = wire.EncodeOffers(message)
	return p
}

func offerOf(r fleet.Release, trying bool) *syncv1.Offer {
	o := &syncv1.Offer{Version: r.Version, Digest: string(r.Digest), Size: uint64(r.Size), Preflight: trying, Stops: r.Stops}
	for _, v := range r.Variants {
		o.Variants = append(o.Variants, v.Name)
	}
	return o
}

// memo keeps what costs to be made, by key. What it keeps is bounded by how many different answers there
// are, not by clusters.
type memo[V any] struct {
	mu   sync.Mutex
	kept map[string]V
}

func newMemo[V any]() *memo[V] { return &memo[V]{kept: map[string]V{}} }

// maxKept bounds a memo; past it, answers are made each time.
const maxKept = 4096

func (m *memo[V]) get(key string, make func() V) V {
	m.mu.Lock()
	found, ok := m.kept[key]
	m.mu.Unlock()
	if ok {
		return found
	}
	made := make()
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.kept) < maxKept {
		m.kept[key] = made
	}
	return made
}
