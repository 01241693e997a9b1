package fleetapi

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// pins and decisions that are made at the hub in a provider's place. Whether they count is for its
// spoke.yaml to say.
type pins interface {
	Pin(now time.Time, by caller.Who, pin fleet.HubPin, dry bool) (warnings []string, err error)
	Unpin(now time.Time, by caller.Who, cluster fleet.Cluster, distribution, reason string, dry bool) error
	Pins(now time.Time, distribution string) ([]*fleetv1.Pin, error)
	DecideDelivery(now time.Time, by caller.Who, decision fleet.HubDecision, dry bool) (version string, warnings []string, err error)
}

// pinSource says that a pin was made here.
const pinSource = fleet.PinHub

// mine is the subscription of a request that changes it: of a cluster that the caller may change.
func mine(ctx context.Context, cluster, distribution string) (fleet.Cluster, error) {
	c, err := subscription(cluster, distribution)
	if err != nil {
		return "", err
	}
	return c, scopeOf(ctx).must(c)
}

// subscription of a request: a cluster and a distribution.
func subscription(cluster, distribution string) (fleet.Cluster, error) {
	c, err := fleet.ParseCluster(cluster)
	if err != nil {
		return "", invalid("%v", err)
	}
	if err := fleet.CheckDistributionName(distribution); err != nil {
		return "", invalid("%v; `hub get distributions` lists them", err)
	}
	return c, nil
}

// PinCluster holds a subscription at a version.
func (s *Service) PinCluster(ctx context.Context, req *fleetv1.PinClusterRequest) (*fleetv1.PinClusterResponse, error) {
	m := req.GetPin()
	cluster, err := mine(ctx, m.GetCluster(), m.GetDistribution())
	if err != nil {
		return nil, err
	}
	if err := releaseNames(m.GetDistribution(), m.GetVersion()); err != nil {
		return nil, err
	}
	why, err := because(m.GetReason(), "a pin")
	if err != nil {
		return nil, err
	}
	by, now := who(ctx), time.Now()
	pin := fleet.HubPin{Cluster: cluster, Distribution: m.GetDistribution(), Version: m.GetVersion(), Reason: why, Author: by.Actor,
		Until: wire.FromTime(m.GetUntil()), Created: now}
	warnings, err := s.cfg.Conductor.Pin(now, by, pin, req.GetDryRun())
	if err != nil {
		return nil, s.refused(fmt.Sprintf("pin %s of %s", pin.Distribution, cluster), err)
	}
	resp := &fleetv1.PinClusterResponse{Warnings: warnings, Pin: &fleetv1.Pin{Cluster: string(cluster), Distribution: pin.Distribution,
		Version: pin.Version, Reason: pin.Reason, Author: pin.Author, Source: pinSource, Until: wire.Time(pin.Until), Created: wire.Time(pin.Created)}}
	return resp, s.veil(scopeOf(ctx), resp)
}

// UnpinCluster takes a pin away that was made at the hub.
func (s *Service) UnpinCluster(ctx context.Context, req *fleetv1.UnpinClusterRequest) (*fleetv1.UnpinClusterResponse, error) {
	cluster, err := mine(ctx, req.GetCluster(), req.GetDistribution())
	if err != nil {
		return nil, err
	}
	why, err := reason(req.GetReason())
	if err != nil {
		return nil, err
	}
	if err := s.cfg.Conductor.Unpin(time.Now(), who(ctx), cluster, req.GetDistribution(), why, req.GetDryRun()); err != nil {
		return nil, s.refused(fmt.Sprintf("unpin %s of %s", req.GetDistribution(), cluster), err)
	}
	return &fleetv1.UnpinClusterResponse{}, nil
}

// ListPins lists the pins of the clusters that the caller sees, by cluster and distribution.
func (s *Service) ListPins(ctx context.Context, req *fleetv1.ListPinsRequest) (*fleetv1.ListPinsResponse, error) {
	all, err := s.cfg.Conductor.Pins(time.Now(), req.GetDistribution())
	if err != nil {
		return nil, s.refused("list pins", err)
	}
	if len(all) == 0 {
		if err := s.mustKnow(req.GetDistribution()); err != nil {
			return nil, err
		}
	}
	sc := scopeOf(ctx)
	all = slices.DeleteFunc(all, func(p *fleetv1.Pin) bool { return !sc.sees(p.GetCluster()) })
	resp := &fleetv1.ListPinsResponse{Pins: all}
	return resp, s.veil(sc, resp)
}

// DecideDelivery answers for a release that waits for its provider.
func (s *Service) DecideDelivery(ctx context.Context, req *fleetv1.DecideDeliveryRequest) (*fleetv1.DecideDeliveryResponse, error) {
	cluster, err := mine(ctx, req.GetCluster(), req.GetDistribution())
	if err != nil {
		return nil, err
	}
	if req.GetVersion() != "" {
		if err := releaseNames(req.GetDistribution(), req.GetVersion()); err != nil {
			return nil, err
		}
	}
	why, err := reason(req.GetReason())
	if err != nil {
		return nil, err
	}
	by, now := who(ctx), time.Now()
	decision := fleet.HubDecision{Cluster: cluster, Distribution: req.GetDistribution(), Version: req.GetVersion(), Approved: req.GetApprove(),
		Reason: why, Author: by.Actor, At: now}
	version, warnings, err := s.cfg.Conductor.DecideDelivery(now, by, decision, req.GetDryRun())
	if err != nil {
		return nil, s.refused(fmt.Sprintf("decide about %s of %s", req.GetDistribution(), cluster), err)
	}
	return &fleetv1.DecideDeliveryResponse{Version: version, Warnings: warnings}, nil
}
