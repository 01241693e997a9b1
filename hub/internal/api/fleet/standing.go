package fleetapi

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// clusterMessage is a cluster without its subscriptions.
func (s *Service) clusterMessage(c store.Cluster) *fleetv1.Cluster {
	m := &fleetv1.Cluster{Name: string(c.Name), Labels: c.Labels, Created: wire.Time(c.Created), Joined: wire.Time(c.Joined),
		Connected: s.cfg.Spokes.Connected(c.Name), LastSeen: s.lastSeen(c.Name, c.LastSeen), SpokeVersion: c.SpokeVersion,
		KubernetesVersion: c.KubernetesVersion, CertificateNotAfter: wire.Time(c.CertNotAfter),
		Standing: string(c.Standing), StandingReason: c.StandingWhy, StandingSince: wire.Time(c.StandingSince),
		KeyFingerprint: c.Key.String(), Generation: c.Generation, GenerationUsed: c.Used}
	for _, k := range c.Rivals {
		m.RivalFingerprints = append(m.RivalFingerprints, k.String())
	}
	return m
}

// AcceptCluster lets in an identity that waits for it.
func (s *Service) AcceptCluster(ctx context.Context, req *fleetv1.AcceptClusterRequest) (*fleetv1.AcceptClusterResponse, error) {
	c, err := s.clusterOf(req.GetName())
	if err != nil {
		return nil, err
	}
	var key fleet.Fingerprint
	if req.GetFingerprint() != "" {
		if key, err = fleet.ParseFingerprint(req.GetFingerprint()); err != nil {
			return nil, invalid("accept %s: %v", c.Name, err)
		}
	} else if len(c.Rivals) == 0 {
		key = c.Key // the one that the answer shows, not whichever waits by then
	}
	if err := store.Acceptable(c, key); err != nil {
		return nil, s.unacceptable(c, err)
	}
	resp := &fleetv1.AcceptClusterResponse{Cluster: s.clusterMessage(c)}
	if req.GetDryRun() {
		return resp, nil
	}
	what := "accepted its identity"
	if c.Standing == store.Quarantined {
		what = "let it out of quarantine"
	}
	accepted := change{action: "cluster accept", object: string(c.Name),
		event: fleet.Event{Cluster: c.Name, Kind: fleet.EventIdentity, Message: fmt.Sprintf("%s, with the key %s", what, orUnknown(key))}}
	err = s.commit(ctx, accepted, func(a store.Audited) error { return a.AcceptCluster(c.Name, key) })
	if err != nil {
		return nil, s.unacceptable(c, err)
	}
	return resp, nil
}

func orUnknown(k fleet.Fingerprint) string {
	if k == (fleet.Fingerprint{}) {
		return "that it joined with before keys were recorded"
	}
	return k.String()
}

func (s *Service) unacceptable(c store.Cluster, err error) error {
	switch {
	case errors.Is(err, store.ErrNotFound):
		return noCluster(c.Name)
	case errors.Is(err, store.ErrStanding):
		return status.Errorf(codes.FailedPrecondition, "cluster %s: no identity of it waits to be accepted; `hub get clusters` shows the state of each", c.Name)
	case errors.Is(err, store.ErrFingerprint):
		keys := orUnknown(c.Key)
		for _, k := range c.Rivals {
			keys += " and " + k.String()
		}
		return status.Errorf(codes.FailedPrecondition, "cluster %s: %v; what waits is %s: compare with what `spoke status` prints at the cluster and name the one that is right with --fingerprint, or `hub cluster reject %s`", c.Name, err, keys, c.Name)
	}
	return s.failure(fmt.Sprintf("accept %s", c.Name), err)
}

// RejectCluster ends an identity, and its streams at once; the record stays.
func (s *Service) RejectCluster(ctx context.Context, req *fleetv1.RejectClusterRequest) (*fleetv1.RejectClusterResponse, error) {
	c, err := s.clusterOf(req.GetName())
	if err != nil {
		return nil, err
	}
	why, err := because(req.GetReason(), "a rejection")
	if err != nil {
		return nil, err
	}
	none := status.Errorf(codes.FailedPrecondition, "cluster %s has no identity; `hub cluster remove %s` forgets the cluster with its open tokens", c.Name, c.Name)
	if c.Joined.IsZero() || c.Standing == store.Rejected {
		return nil, none
	}
	resp := &fleetv1.RejectClusterResponse{Cluster: s.clusterMessage(c)}
	if req.GetDryRun() {
		return resp, nil
	}
	rejected := change{action: "cluster reject", object: string(c.Name), reason: why,
		event: fleet.Event{Cluster: c.Name, Kind: fleet.EventIdentity, Message: fmt.Sprintf("turned its identity away: %s", why)}}
	err = s.commit(ctx, rejected, func(a store.Audited) error { return a.RejectCluster(c.Name, why, time.Now()) })
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, noCluster(c.Name)
	case errors.Is(err, store.ErrStanding):
		return nil, none
	case err != nil:
		return nil, s.failure(fmt.Sprintf("reject %s", c.Name), err)
	}
	s.cfg.Spokes.End(c.Name)
	return resp, nil
}

// clusterOf finds the one that a request names.
func (s *Service) clusterOf(text string) (c store.Cluster, err error) {
	name, err := fleet.ParseCluster(text)
	if err != nil {
		return c, invalid("%v", err)
	}
	all, err := s.cfg.Store.Clusters()
	if err != nil {
		return c, s.failure(fmt.Sprintf("look for cluster %s", name), err)
	}
	for _, c := range all {
		if c.Name == name {
			return c, nil
		}
	}
	return c, noCluster(name)
}
