package fleetapi

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/rehome"
	"github.com/wheelwright-dev/wheelwright/pkg/token"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

const (
	maxTokenTTL = 10 * time.Minute
	// maxAskingTTL is of a token that lets nobody in by itself: it may travel for as long as a re-home may live.
	maxAskingTTL = rehome.MaxLife
	maxLabels    = 32
)

// Labels follow Kubernetes' syntax, which people know
// (https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/).
var (
	labelKey   = regexp.MustCompile(`^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$`)
	labelValue = regexp.MustCompile(`^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$`)
)

// InviteCluster makes a token with which the cluster's spoke joins.
func (s *Service) InviteCluster(ctx context.Context, req *fleetv1.InviteClusterRequest) (*fleetv1.InviteClusterResponse, error) {
	name, err := fleet.ParseCluster(req.GetName())
	if err != nil {
		return nil, invalid("%v", err)
	}
	if len(req.GetLabels()) > maxLabels {
		return nil, invalid("cluster %s: %d labels, want at most %d", name, len(req.GetLabels()), maxLabels)
	}
	for k, v := range req.GetLabels() {
		if !labelKey.MatchString(k) || !labelValue.MatchString(v) {
			return nil, invalid("cluster %s: label %q: want KEY=VALUE of letters, digits, dashes, dots and underscores, such as env=production", name, k+"="+v)
		}
	}
	ttl := time.Duration(req.GetTtlSeconds()) * time.Second
	if ttl == 0 {
		ttl = maxTokenTTL
	}
	switch {
	case ttl > maxTokenTTL && req.GetAcceptAutomatically():
		return nil, invalid("cluster %s: a token that works for %v and lets its holder in at once: want at most %v; `hub cluster invite %s` makes another whenever it is needed", name, ttl, maxTokenTTL, name)
	case ttl > maxAskingTTL:
		return nil, invalid("cluster %s: a token that works for %v: want at most %v; `hub cluster invite %s` makes another whenever it is needed", name, ttl, maxAskingTTL, name)
	}
	t := token.New(s.cfg.Authority.Pin())
	expires := time.Now().Add(ttl)
	rejoin := false
	message := fmt.Sprintf("made a token that works for %v", ttl)
	if req.GetAcceptAutomatically() {
		message += " and whose holder is accepted automatically"
	}
	invited := change{action: "cluster invite", object: string(name),
		event: fleet.Event{Cluster: name, Kind: fleet.EventInvited, Message: message}}
	err = s.commit(ctx, invited, func(a store.Audited) (err error) {
		rejoin, err = a.Invite(name, req.GetLabels(), t.ID, t.Hash(), expires, !req.GetAcceptAutomatically())
		return err
	})
	if err != nil {
		return nil, s.failure(fmt.Sprintf("invite %s", name), err)
	}
	return &fleetv1.InviteClusterResponse{Token: t.String(), Expires: wire.Time(expires), Address: s.cfg.Address, Rejoin: rejoin}, nil
}

// RemoveCluster ends a cluster's identity, and its stream at once.
func (s *Service) RemoveCluster(ctx context.Context, req *fleetv1.RemoveClusterRequest) (*fleetv1.RemoveClusterResponse, error) {
	name, err := fleet.ParseCluster(req.GetName())
	if err != nil {
		return nil, invalid("%v", err)
	}
	if req.GetDryRun() {
		all, err := s.cfg.Store.Clusters()
		if err != nil {
			return nil, s.failure(fmt.Sprintf("look for cluster %s", name), err)
		}
		for _, c := range all {
			if c.Name == name {
				return &fleetv1.RemoveClusterResponse{}, nil
			}
		}
		return nil, noCluster(name)
	}
	removed := change{action: "cluster remove", object: string(name),
		event: fleet.Event{Cluster: name, Kind: fleet.EventRemoved, Message: "removed the cluster; its workloads stay"}}
	switch err := s.commit(ctx, removed, func(a store.Audited) error { return a.RemoveCluster(name) }); {
	case errors.Is(err, store.ErrNotFound):
		return nil, noCluster(name)
	case err != nil:
		return nil, s.failure(fmt.Sprintf("remove cluster %s", name), err)
	}
	s.cfg.Spokes.End(name)
	return &fleetv1.RemoveClusterResponse{}, nil
}

// ListClusters lists those that the caller sees, by name.
func (s *Service) ListClusters(ctx context.Context, _ *fleetv1.ListClustersRequest) (*fleetv1.ListClustersResponse, error) {
	all, err := s.cfg.Store.Clusters()
	if err != nil {
		return nil, s.failure("list clusters", err)
	}
	installations, err := s.cfg.Store.Installations()
	if err != nil {
		return nil, s.failure("list what clusters run", err)
	}
	resp := &fleetv1.ListClustersResponse{}
	sc := scopeOf(ctx)
	for _, c := range all {
		if !sc.sees(string(c.Name)) {
			continue
		}
		m := s.clusterMessage(c)
		for _, i := range installations[c.Name] {
			m.Subscriptions = append(m.Subscriptions, wire.Installation(i))
		}
		resp.Clusters = append(resp.Clusters, m)
	}
	return resp, s.veil(sc, resp)
}
