package conductor

import (
	"fmt"
	"slices"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// ProviderStatus is Status as if the fleet had this provider's clusters only. How rollouts stand, and what
// pre-flights found, is about others' clusters too and is left out.
func (c *Conductor) ProviderStatus(now time.Time, provider, distribution string, limit int) (*fleetv1.GetStatusResponse, error) {
	f, err := c.fleet()
	if err != nil {
		return nil, fmt.Errorf("read the fleet: %w", err)
	}
	f.Clusters = slices.DeleteFunc(f.Clusters, func(n ClusterNews) bool { return n.Name.Provider() != provider })
	resp := Screen(now, c.cfg.Heartbeat, distribution, limit, f)
	for _, sum := range resp.Summaries {
		sum.Trouble = c.trouble(sum.Distribution)
	}
	return resp, nil
}

// Named are all clusters that a text of the hub's may name: those that there are, and those that had a part
// in a rollout that is remembered.
func (c *Conductor) Named() (map[fleet.Cluster]bool, error) {
	stored, err := c.cfg.Store.Clusters()
	if err != nil {
		return nil, fmt.Errorf("read clusters: %w", err)
	}
	p, err := c.picture()
	if err != nil {
		return nil, err
	}
	named := make(map[fleet.Cluster]bool, len(stored))
	for _, s := range stored {
		named[s.Name] = true
	}
	for _, at := range p.shelves {
		for _, r := range at.rollouts {
			for name := range r.Members {
				named[name] = true
			}
		}
	}
	return named, nil
}
