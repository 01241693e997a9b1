package fleetapi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/hub/internal/identity"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance/signer"
	"github.com/wheelwright-dev/wheelwright/pkg/rehome"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// leastKeys have signed: one of the vendor's, one of the provider's.
const leastKeys = 2

// SendReHome has the hub carry a signed re-home to its spoke. The hub looks at the signatures so that a mistake is
// seen here; it decides nothing by them.
func (s *Service) SendReHome(ctx context.Context, req *fleetv1.SendReHomeRequest) (*fleetv1.SendReHomeResponse, error) {
	given, err := rehome.ParseSigned(req.GetSigned())
	if err != nil {
		return nil, invalid("%v; `hub cluster re-home prepare` writes one", err)
	}
	if err := scopeOf(ctx).must(given.Cluster); err != nil {
		return nil, err
	}
	keys, err := claimed(given)
	if err != nil {
		return nil, err
	}
	c, err := s.clusterOf(string(given.Cluster))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	before, found, err := s.cfg.Store.ReHome(c.Name)
	if err != nil {
		return nil, s.failure("look for the last re-home of "+string(c.Name), err)
	}
	var warnings []string
	switch fresh := given.Fresh(now); {
	case fresh != nil:
		return nil, status.Errorf(codes.FailedPrecondition, "%s: %v", given, fresh)
	case !slices.ContainsFunc(s.cfg.Authority.Roots(), func(r identity.Root) bool { return r.Pin == given.From }):
		return nil, status.Errorf(codes.FailedPrecondition, "%s: it is from the hub with the authority %.12s…, and this one's is %.12s…: hand it to the hub that the spoke belongs to now", given, given.From, s.cfg.Authority.Pin())
	case c.Joined.IsZero() || c.Standing == store.Rejected:
		return nil, status.Errorf(codes.FailedPrecondition, "%s: no spoke of %s has joined here; at the new hub `hub cluster invite %s` prints the line to run", given, c.Name, c.Name)
	case !s.cfg.Spokes.Connected(c.Name):
		warnings = append(warnings, fmt.Sprintf("%s is not connected: it reaches it when it is back, until %s", c.Name, given.Expires.Format(time.RFC3339)))
	}
	if found && before.Nonce != given.Nonce.String() && (before.State(now) == fleet.ReHomeMoving || before.State(now) == fleet.ReHomeWaiting) {
		warnings = append(warnings, fmt.Sprintf("it takes the place of the re-home to %s, which is %s", before.To, before.State(now)))
	}
	r := fleet.SignedReHome{Cluster: c.Name, Signed: req.GetSigned(), Nonce: given.Nonce.String(), To: given.To, Reason: given.Reason, Keys: keys,
		By: who(ctx).Actor, Sent: now, Issued: given.Issued, Expires: given.Expires}
	resp := &fleetv1.SendReHomeResponse{ReHome: reHomeMessage(now, r), Warnings: warnings}
	if !req.GetDryRun() {
		if err := s.putReHome(ctx, given, r); err != nil {
			return nil, err
		}
	}
	return resp, s.veil(scopeOf(ctx), resp)
}

func (s *Service) putReHome(ctx context.Context, given rehome.Signed, r fleet.SignedReHome) error {
	sent := change{action: "cluster re-home", object: string(r.Cluster), reason: fmt.Sprintf("%s (%s, signed by %v)", r.Reason, given, r.Keys),
		event: fleet.Event{Cluster: r.Cluster, Kind: fleet.EventIdentity, Message: fmt.Sprintf("handed over the %s, signed by %v: %s", given, r.Keys, r.Reason)}}
	err := s.commit(ctx, sent, func(a store.Audited) error { return a.PutReHome(r) })
	switch {
	case errors.Is(err, store.ErrNotFound):
		return noCluster(r.Cluster)
	case errors.Is(err, store.ErrExists):
		return status.Errorf(codes.AlreadyExists, "%s is here already; `hub get re-homes %s` shows what came of it", given, r.Cluster)
	case err != nil:
		return s.failure("keep the re-home of "+string(r.Cluster), err)
	}
	s.cfg.Spokes.Wake(r.Cluster)
	return nil
}

// claimed are the different keys by which the signatures hold.
func claimed(given rehome.Signed) (keys []string, err error) {
	for n, sig := range given.Signatures {
		key, err := signer.ClaimedBy(given.Text, sig, rehome.Namespace)
		if err != nil {
			return nil, invalid("%s: signature %d: %v; `hub cluster re-home sign` signs it as it has to be", given, n+1, err)
		}
		if !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	if len(keys) < leastKeys {
		return nil, invalid("%s: it is signed by %d different keys, and the spoke wants one of the vendor's and one of the provider's: `hub cluster re-home sign FILE`", given, len(keys))
	}
	return keys, nil
}

// ListReHomes lists the last re-home of each cluster that the caller sees, newest first.
func (s *Service) ListReHomes(ctx context.Context, req *fleetv1.ListReHomesRequest) (*fleetv1.ListReHomesResponse, error) {
	sc, now := scopeOf(ctx), time.Now()
	if req.GetCluster() != "" {
		c, err := fleet.ParseCluster(req.GetCluster())
		if err != nil {
			return nil, invalid("%v", err)
		}
		if err := sc.must(c); err != nil {
			return nil, err
		}
	}
	all, err := s.cfg.Store.ReHomes()
	if err != nil {
		return nil, s.failure("list re-homes", err)
	}
	slices.SortStableFunc(all, func(a, b fleet.SignedReHome) int { return b.Sent.Compare(a.Sent) })
	resp := &fleetv1.ListReHomesResponse{}
	for _, r := range all {
		if sc.sees(string(r.Cluster)) && (req.GetCluster() == "" || req.GetCluster() == string(r.Cluster)) {
			resp.ReHomes = append(resp.ReHomes, reHomeMessage(now, r))
		}
	}
	return resp, s.veil(sc, resp)
}

func reHomeMessage(now time.Time, r fleet.SignedReHome) *fleetv1.ReHome {
	return &fleetv1.ReHome{Cluster: string(r.Cluster), To: r.To, Nonce: r.Nonce, Reason: r.Reason, Issued: wire.Time(r.Issued), Expires: wire.Time(r.Expires),
		Keys: r.Keys, SentBy: r.By, Sent: wire.Time(r.Sent), State: string(r.State(now)), Answer: strings.TrimPrefix(r.Answer, fmt.Sprintf("re-home %s: ", r.Said)), Answered: wire.Time(r.Answered)}
}
