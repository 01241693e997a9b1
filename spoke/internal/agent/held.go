package agent

import (
	"os"
	"slices"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
)

// Held are the bundles in the cache that a bundle on offer may have much in common with: what runs of its
// distribution, which most clusters of the fleet have, then the newest releases, then what ran before.
func (a *Agent) Held(d fleet.Digest) (all []fleet.Digest) {
	a.mu.Lock()
	desired := a.desired
	a.mu.Unlock()
	records, err := a.cfg.Memory.Records()
	if err != nil {
		a.cfg.Log.Warn("bundles are fetched whole: what is here cannot be read", logging.Error, err)
		return nil
	}
	add := func(h fleet.Digest) {
		if _, err := fleet.ParseDigest(string(h)); err != nil || h == d || slices.Contains(all, h) {
			return // offers are the hub's word, and a digest becomes a file's name
		}
		if _, err := os.Stat(a.cache.path(h)); err == nil {
			all = append(all, h)
		}
	}
	for _, o := range desired.GetDistributions() {
		of := map[string]fleet.Digest{}
		var versions []string
		offered := false
		for _, offer := range o.GetOffers() {
			of[offer.GetVersion()] = fleet.Digest(offer.GetDigest())
			versions = append(versions, offer.GetVersion())
			offered = offered || offer.GetDigest() == string(d)
		}
		if !offered {
			continue
		}
		fleet.SortVersions(versions)
		slices.Reverse(versions)
		for _, r := range records {
			if r.Distribution == o.GetDistribution() {
				add(r.Installation.Bundle)
			}
		}
		for _, v := range versions {
			add(of[v])
		}
		for _, r := range records {
			if r.Distribution != o.GetDistribution() {
				continue
			}
			for _, p := range r.Previous {
				add(p.Bundle)
			}
		}
	}
	return all
}

// Tar is the canonical tar of a bundle in the cache.
func (a *Agent) Tar(d fleet.Digest) ([]byte, error) { return a.cache.get(d) }
