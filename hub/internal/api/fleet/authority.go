package fleetapi

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/hub/internal/identity"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// authority signs operators' certificates, and is rotated; identity.ErrRequest where a request is at fault.
type authority interface {
	SignOperator(csr []byte, name string, ttl time.Duration) (identity.Certificate, error)
	Authorities() [][]byte
	Pin() string
	Roots() []identity.Root
	Rotate() (pin string, err error)
	Retire() error
}

// holders are who has a certificate that counts, and the tokens that are out.
type holders interface {
	Holders() ([]store.Holder, error)
	Invitations(now time.Time) (n int, last time.Time, err error)
}

// GetAuthority lists the authority's keys and who does not follow the newest yet.
func (s *Service) GetAuthority(context.Context, *fleetv1.GetAuthorityRequest) (*fleetv1.GetAuthorityResponse, error) {
	return s.authority(time.Now())
}

func (s *Service) authority(now time.Time) (*fleetv1.GetAuthorityResponse, error) {
	roots := s.cfg.Authority.Roots()
	holders, err := s.cfg.Store.Holders()
	if err != nil {
		return nil, s.failure("list who has a certificate", err)
	}
	n, last, err := s.cfg.Store.Invitations(now)
	if err != nil {
		return nil, s.failure("list invitations", err)
	}
	r := followers(roots, holders, s.cfg.ComeBack, now)
	if len(roots) > 1 && n > 0 {
		r.LeftBehind = append(r.LeftBehind, &fleetv1.LeftBehind{Who: "invitations", Reason: fmt.Sprintf(
			"%d that can still be redeemed, the last until %s, bear the old key's pin; a spoke would refuse to join with them", n, last.UTC().Format(time.RFC3339))})
	}
	return r, nil
}

// followers counts whose certificate is of the newest key: with it came the trust in that key. A cluster's counts
// until grace after its end, when it may still come back by itself.
func followers(roots []identity.Root, holders []store.Holder, grace time.Duration, now time.Time) *fleetv1.GetAuthorityResponse {
	r := &fleetv1.GetAuthorityResponse{}
	for _, k := range roots {
		r.Keys = append(r.Keys, &fleetv1.AuthorityKey{Pin: k.Pin, Name: k.Name, NotBefore: wire.Time(k.NotBefore), NotAfter: wire.Time(k.NotAfter), Shown: k.Shown, Issues: k.Issues})
	}
	newest := roots[len(roots)-1].Pin
	for _, h := range holders {
		end, who, all, follow := h.NotAfter.Add(grace), string(h.Cluster), &r.Clusters, &r.ClustersFollowing
		next := "a spoke renews it by itself when it is connected"
		switch {
		case h.Relay != "":
			end, who, all, follow = h.NotAfter, "relay "+h.Relay, &r.Relays, &r.RelaysFollowing
			next = "a relay renews it by itself when it is connected"
		case h.Operator != "":
			end, who, all, follow = h.NotAfter, "operator "+h.Operator, &r.Operators, &r.OperatorsFollowing
			next = "`hub auth renew` with the context file renews it"
		}
		if !now.Before(end) {
			continue
		}
		*all++
		if len(roots) == 1 || h.Issuer == newest {
			*follow++
			continue
		}
		r.LeftBehind = append(r.LeftBehind, &fleetv1.LeftBehind{Who: who, Reason: fmt.Sprintf("its certificate, until %s, is of the old key; %s", h.NotAfter.UTC().Format(time.RFC3339), next)})
	}
	return r
}

// RotateAuthority makes a new key beside the old one. Spokes that are connected are asked to renew.
func (s *Service) RotateAuthority(ctx context.Context, req *fleetv1.RotateAuthorityRequest) (*fleetv1.RotateAuthorityResponse, error) {
	why, err := because(req.GetReason(), "a rotation of the authority")
	if err != nil {
		return nil, err
	}
	if len(s.cfg.Authority.Roots()) > 1 {
		return nil, rotating()
	}
	if !req.GetDryRun() {
		c := change{action: "authority rotate", object: s.cfg.Authority.Pin(), reason: why,
			event: fleet.Event{Kind: fleet.EventIdentity, Message: "made a new key of the authority beside the old one: " + why}}
		err = s.commit(ctx, c, func(a store.Audited) error {
			return a.Along(func() error {
				_, err := s.cfg.Authority.Rotate()
				return err
			})
		})
		switch {
		case errors.Is(err, identity.ErrRotating): // somebody was quicker
			return nil, rotating()
		case err != nil:
			return nil, s.failure("rotate the authority", err)
		}
	}
	now, err := s.authority(time.Now())
	return &fleetv1.RotateAuthorityResponse{Authority: now}, err
}

func rotating() error {
	return status.Error(codes.FailedPrecondition, "the authority has a new key beside the old one already; `hub authority status` says who does not follow it yet, `hub authority retire` ends the old one")
}

// RetireAuthority ends the old key.
func (s *Service) RetireAuthority(ctx context.Context, req *fleetv1.RetireAuthorityRequest) (*fleetv1.RetireAuthorityResponse, error) {
	why, err := because(req.GetReason(), "the end of a key")
	if err != nil {
		return nil, err
	}
	before, err := s.authority(time.Now())
	if err != nil {
		return nil, err
	}
	if len(before.GetKeys()) < 2 {
		return nil, notRotating()
	}
	if behind := before.GetLeftBehind(); len(behind) > 0 && !req.GetForce() {
		var names []string
		for _, b := range behind {
			names = append(names, b.GetWho())
		}
		const most = 5
		if more := len(names) - most; more > 0 {
			names = append(names[:most], fmt.Sprintf("%d more", more))
		}
		return nil, status.Errorf(codes.FailedPrecondition, "the old key is still needed by %s; `hub authority status` says why and what each waits for, --force retires it all the same and locks them out", strings.Join(names, ", "))
	}
	if req.GetDryRun() {
		return &fleetv1.RetireAuthorityResponse{Authority: before, LeftBehind: before.GetLeftBehind()}, nil
	}
	c := change{action: "authority retire", object: before.GetKeys()[0].GetPin(), reason: why,
		event: fleet.Event{Kind: fleet.EventIdentity, Message: fmt.Sprintf("retired the authority's old key, %d left behind: %s", len(before.GetLeftBehind()), why)}}
	err = s.commit(ctx, c, func(a store.Audited) error { return a.Along(s.cfg.Authority.Retire) })
	switch {
	case errors.Is(err, identity.ErrNotRotating):
		return nil, notRotating()
	case err != nil:
		return nil, s.failure("retire the authority's old key", err)
	}
	after, err := s.authority(time.Now())
	return &fleetv1.RetireAuthorityResponse{Authority: after, LeftBehind: before.GetLeftBehind()}, err
}

func notRotating() error {
	return status.Error(codes.FailedPrecondition, "the authority has one key only; `hub authority rotate` makes a new one beside it first")
}

// RenewOperator signs another certificate for who calls. It ends when the one of the call does, so that nobody
// stays longer than an operator above them gave.
func (s *Service) RenewOperator(ctx context.Context, req *fleetv1.RenewOperatorRequest) (*fleetv1.RenewOperatorResponse, error) {
	who, _ := caller.From(ctx)
	resp := &fleetv1.RenewOperatorResponse{}
	switch n := len(req.GetCsr()); {
	case who.Token != nil && n > 0:
		return nil, invalid("%s calls with a token, which has no certificate to renew", who)
	case who.Token == nil && (n == 0 || n > maxCSR):
		return nil, invalid("renew the certificate of %s: its request has %d bytes, want 1 to %d; `hub auth renew` makes it", who, n, maxCSR)
	case n > 0:
		cert, err := s.cfg.Authority.SignOperator(req.GetCsr(), who.Operator, time.Until(who.NotAfter))
		switch {
		case errors.Is(err, identity.ErrRequest):
			return nil, invalid("renew the certificate of %s: %v; `hub auth renew` makes one that is good", who, err)
		case err != nil:
			return nil, s.failure("renew the certificate of "+who.String(), err)
		}
		c := change{action: "operator renew", object: who.Operator,
			event:  fleet.Event{Kind: fleet.EventOperator, Message: fmt.Sprintf("renewed its certificate, until %s as before", cert.NotAfter.UTC().Format(time.RFC3339))},
			reason: fmt.Sprintf("certificate %x", cert.Fingerprint)}
		err = s.commit(ctx, c, func(a store.Audited) error {
			return a.RenewOperator(who.Operator, store.Certificate{Fingerprint: cert.Fingerprint, NotAfter: cert.NotAfter, Issuer: cert.Issuer})
		})
		if err != nil {
			return nil, s.failure("record the certificate of "+who.String(), err)
		}
		resp.Certificate, resp.NotAfter = cert.DER, wire.Time(cert.NotAfter)
	}
	resp.Authorities = s.cfg.Authority.Authorities()
	return resp, nil
}
