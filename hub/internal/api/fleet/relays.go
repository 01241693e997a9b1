package fleetapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/token"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// relays are by name.
type relays interface {
	Relays() ([]store.Relay, error)
}

const maxHosts = 16

var (
	relayName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$`)
	hostName  = regexp.MustCompile(`^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)*[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
)

// InviteRelay makes a token with which a relay joins.
func (s *Service) InviteRelay(ctx context.Context, req *fleetv1.InviteRelayRequest) (*fleetv1.InviteRelayResponse, error) {
	name := req.GetName()
	if !relayName.MatchString(name) {
		return nil, invalid("relay name %q: want lower-case letters, digits, dashes and dots, such as fra-1", name)
	}
	hosts, err := s.relayHosts(name, req.GetHosts())
	if err != nil {
		return nil, err
	}
	ttl := time.Duration(req.GetTtlSeconds()) * time.Second
	if ttl == 0 {
		ttl = maxTokenTTL
	}
	if ttl > maxTokenTTL {
		return nil, invalid("relay %s: a token that works for %v: want at most %v; `hub relay invite %s` makes another whenever it is needed", name, ttl, maxTokenTTL, name)
	}
	all, err := s.cfg.Store.Relays()
	if err != nil {
		return nil, s.failure("look for relay "+name, err)
	}
	i := slices.IndexFunc(all, func(r store.Relay) bool { return r.Name == name })
	rejoin := i >= 0 && !all[i].Joined.IsZero()
	if req.GetDryRun() {
		return &fleetv1.InviteRelayResponse{Address: s.cfg.Address, Rejoin: rejoin}, nil
	}
	t, now := token.New(s.cfg.Authority.Pin()), time.Now()
	expires := now.Add(ttl)
	c := change{action: "relay invite", object: name,
		event: fleet.Event{Kind: fleet.EventIdentity, Message: fmt.Sprintf("invited relay %s at %s with a token that works for %v", name, strings.Join(hosts, ", "), ttl)}}
	err = s.commit(ctx, c, func(a store.Audited) (err error) {
		rejoin, err = a.InviteRelay(store.Relay{Name: name, Hosts: hosts, Created: now, By: who(ctx).Actor}, t.ID, t.Hash(), expires)
		return err
	})
	if err != nil {
		return nil, s.failure("invite relay "+name, err)
	}
	return &fleetv1.InviteRelayResponse{Token: t.String(), Expires: wire.Time(expires), Address: s.cfg.Address, Rejoin: rejoin}, nil
}

// relayHosts are what a relay may be dialled by. Whoever had a certificate for the hub's own names could stand in for it.
func (s *Service) relayHosts(relay string, given []string) (hosts []string, err error) {
	if n := len(given); n == 0 || n > maxHosts {
		return nil, invalid("relay %s: %d hosts, want 1 to %d that spokes dial it by: --host relay.example.com", relay, n, maxHosts)
	}
	for _, h := range given {
		ip := net.ParseIP(h)
		switch lower := strings.ToLower(h); {
		case ip == nil && (len(h) > 253 || !hostName.MatchString(lower)):
			return nil, invalid("relay %s: host %q: want a name such as relay.example.com or an address, without a port", relay, h)
		case ip != nil:
			h = ip.String()
		default:
			h = lower
		}
		if slices.ContainsFunc(s.cfg.Hosts, func(own string) bool { return sameHost(own, h) }) {
			return nil, status.Errorf(codes.FailedPrecondition, "relay %s: host %s is the hub's own, and a relay with a certificate for it could stand in for the hub; want a name or address of the relay's alone", relay, h)
		}
		if !slices.Contains(hosts, h) {
			hosts = append(hosts, h)
		}
	}
	return hosts, nil
}

// sameHost compares names without case, and addresses by what they mean.
func sameHost(own, host string) bool {
	if a, b := net.ParseIP(own), net.ParseIP(host); a != nil && b != nil {
		return a.Equal(b)
	}
	return strings.EqualFold(strings.TrimSuffix(own, "."), host)
}

// ListRelays lists all, by name.
func (s *Service) ListRelays(context.Context, *fleetv1.ListRelaysRequest) (*fleetv1.ListRelaysResponse, error) {
	all, err := s.cfg.Store.Relays()
	if err != nil {
		return nil, s.failure("list relays", err)
	}
	carried := s.cfg.Carried()
	resp := &fleetv1.ListRelaysResponse{}
	for _, r := range all {
		spokes, connected := carried[r.Name]
		resp.Relays = append(resp.Relays, &fleetv1.Relay{Name: r.Name, Hosts: r.Hosts, Created: wire.Time(r.Created), CreatedBy: r.By, Joined: wire.Time(r.Joined),
			CertificateNotAfter: wire.Time(r.NotAfter), Connected: connected, Spokes: uint32(spokes)})
	}
	return resp, nil
}

// RemoveRelay ends a relay's certificates, and its connection at once. The spokes behind it keep what runs.
func (s *Service) RemoveRelay(ctx context.Context, req *fleetv1.RemoveRelayRequest) (*fleetv1.RemoveRelayResponse, error) {
	name := req.GetName()
	why, err := because(req.GetReason(), "a removal")
	if err != nil {
		return nil, err
	}
	all, err := s.cfg.Store.Relays()
	if err != nil {
		return nil, s.failure("look for relay "+name, err)
	}
	if !slices.ContainsFunc(all, func(r store.Relay) bool { return r.Name == name }) {
		return nil, noRelay(name)
	}
	if req.GetDryRun() {
		return &fleetv1.RemoveRelayResponse{}, nil
	}
	c := change{action: "relay remove", object: name, reason: why,
		event: fleet.Event{Kind: fleet.EventIdentity, Message: fmt.Sprintf("removed relay %s: %s", name, why)}}
	err = s.commit(ctx, c, func(a store.Audited) error { return a.RemoveRelay(name) })
	switch {
	case errors.Is(err, store.ErrNotFound): // somebody was quicker
		return nil, noRelay(name)
	case err != nil:
		return nil, s.failure("remove relay "+name, err)
	}
	return &fleetv1.RemoveRelayResponse{}, nil
}

func noRelay(name string) error {
	return status.Errorf(codes.NotFound, "no relay %s; `hub get relays` lists them", name)
}
