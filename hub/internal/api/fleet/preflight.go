package fleetapi

import (
	"cmp"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// releaseClusters says of each cluster that subscribes to the distribution what it runs, and what it found
// when it tried the release out.
func (s *Service) releaseClusters(now time.Time, distribution, version string) ([]*fleetv1.ReleaseCluster, error) {
	installations, err := s.cfg.Store.Installations()
	if err != nil {
		return nil, err
	}
	found, err := s.cfg.Store.Preflights(distribution, version)
	if err != nil {
		return nil, err
	}
	stored, err := s.cfg.Store.Clusters()
	if err != nil {
		return nil, err
	}
	var all []*fleetv1.ReleaseCluster
	for _, c := range stored {
		for _, i := range installations[c.Name] {
			if i.Distribution != distribution {
				continue
			}
			m := &fleetv1.ReleaseCluster{Cluster: string(c.Name), RunningVersion: i.Running, Phase: string(i.Phase), TargetVersion: i.Target,
				Connected: s.cfg.Spokes.Connected(c.Name), LastSeen: s.lastSeen(c.Name, c.LastSeen)}
			if p, ok := found[c.Name]; ok {
				m.Preflight, m.PreflightAgeSeconds = wire.Preflight(p), uint64(max(now.Sub(p.At), 0)/time.Second)
			}
			all = append(all, m)
		}
	}
	slices.SortFunc(all, func(a, b *fleetv1.ReleaseCluster) int { return cmp.Compare(a.Cluster, b.Cluster) })
	return all, nil
}

// lastSeen is the last word of a spoke: of those to this process or, before a restart, to the one before.
func (s *Service) lastSeen(c fleet.Cluster, stored time.Time) *timestamppb.Timestamp {
	seen := s.cfg.Spokes.LastSeen(c)
	if stored.After(seen) {
		seen = stored
	}
	return wire.Time(seen)
}
