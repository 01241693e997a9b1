package conductor

import (
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// cached is what one distribution offers as of a revision; nothing for one that is not watched.
type cached struct {
	revision uint64
	offers   *syncv1.DistributionOffers
}

// subscriptionBits of a revision tell sets of subscriptions apart.
const subscriptionBits = 24

// Offers is what a cluster with these subscriptions may take: every available release of each
// distribution. The answer is shared between callers and must not be changed.
//
// The revision is that of the newest distribution among them, followed by a checksum of the
// subscriptions' names. So it grows with each release, and it differs for a spoke that subscribed to
// something else since, even when the hub was restarted in between and remembers no earlier answer.
func (c *Conductor) Offers(cluster fleet.Cluster, subscriptions []string) (*syncv1.DesiredState, error) {
	names := slices.Compact(slices.Sorted(slices.Values(subscriptions)))
	state := &syncv1.DesiredState{}
	var newest uint64
	for _, name := range names {
		o, err := c.distributionOffers(name)
		if err != nil {
			return nil, fmt.Errorf("offers of %s for %s: %w", name, cluster, err)
		}
		newest = max(newest, o.revision)
		if o.offers != nil {
			state.Distributions = append(state.Distributions, o.offers)
		}
	}
	sum := crc32.ChecksumIEEE([]byte(strings.Join(names, " ")))
	state.Revision = newest<<subscriptionBits | uint64(sum&(1<<subscriptionBits-1))
	return state, nil
}

func (c *Conductor) distributionOffers(name string) (cached, error) {
	// The revision is read first: what changes after it is sent with the next one.
	revision, err := c.cfg.Store.Revision(name)
	if err != nil {
		return cached{}, err
	}
	c.mu.Lock()
	found, ok := c.cache[name]
	c.mu.Unlock()
	if ok && found.revision == revision {
		return found, nil
	}
	distributions, err := c.cfg.Store.Distributions()
	if err != nil {
		return cached{}, err
	}
	made := cached{revision: revision}
	for _, d := range distributions {
		if d.Name != name {
			continue
		}
		rs, err := c.cfg.Store.Releases(name)
		if err != nil {
			return cached{}, err
		}
		trying, _, err := c.underWay(time.Now(), name)
		if err != nil {
			return cached{}, err
		}
		made.offers = &syncv1.DistributionOffers{Distribution: d.Name, Url: d.URL, Path: d.Path, Offers: offersOf(inRange(d, rs), trying)}
	}
	if revision > 0 { // names that nobody knows come from outside: do not collect them
		c.mu.Lock()
		c.cache[name] = made
		c.mu.Unlock()
	}
	return made, nil
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

// offersOf makes the offers of available releases; those in trying are to be tried out only.
func offersOf(rs []fleet.Release, trying map[string]time.Time) []*syncv1.Offer {
	var offers []*syncv1.Offer
	for _, r := range rs {
		if r.Phase != fleet.Available {
			continue
		}
		o := &syncv1.Offer{Version: r.Version, Digest: string(r.Digest), Size: uint64(r.Size)}
		_, o.Preflight = trying[r.Version]
		for _, v := range r.Variants {
			o.Variants = append(o.Variants, v.Name)
		}
		offers = append(offers, o)
	}
	return offers
}
