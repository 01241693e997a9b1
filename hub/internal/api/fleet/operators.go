package fleetapi

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
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

// operators are by name.
type operators interface {
	Operators() ([]store.Operator, error)
}

const (
	operatorTTL    = 90 * 24 * time.Hour
	maxOperatorTTL = 365 * 24 * time.Hour
	minOperatorTTL = time.Minute
	maxCSR         = 16 << 10 // bytes

	// owner is the operator that whoever has the data folder is.
	owner = "admin"
)

var operatorName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9._@]{0,61}[a-z0-9])?$`)

// AddOperator gives a role, and signs a certificate for it. The certificate counts from the moment that the
// record does.
func (s *Service) AddOperator(ctx context.Context, req *fleetv1.AddOperatorRequest) (*fleetv1.AddOperatorResponse, error) {
	name := req.GetName()
	role, ttl, err := operatorTerms(req)
	if err != nil {
		return nil, err
	}
	if err := outranks(ctx, "give", name, role); err != nil {
		return nil, err
	}
	old, found, err := s.operator(name)
	switch {
	case err != nil:
		return nil, s.failure("look for operator "+name, err)
	case found:
		return nil, operatorExists(old)
	}
	w, now := who(ctx), time.Now()
	o := store.Operator{Name: name, Role: role, Created: now, By: w.Actor, NotAfter: now.Add(ttl)}
	if req.GetDryRun() {
		return &fleetv1.AddOperatorResponse{Operator: operatorMessage(o), Address: s.cfg.Address}, nil
	}
	if n := len(req.GetCsr()); n == 0 || n > maxCSR {
		return nil, invalid("operator %s: its certificate request has %d bytes, want 1 to %d; `hub operator add` makes it", name, n, maxCSR)
	}
	cert, err := s.cfg.Authority.SignOperator(req.GetCsr(), name, ttl)
	switch {
	case errors.Is(err, identity.ErrRequest):
		return nil, invalid("operator %s: %v; `hub operator add` makes one that is good", name, err)
	case err != nil:
		return nil, s.failure("sign the certificate of operator "+name, err)
	}
	o.Fingerprint, o.NotAfter, o.Issuer = cert.Fingerprint, cert.NotAfter, cert.Issuer
	c := change{action: "operator add", object: name,
		event:  fleet.Event{Kind: fleet.EventOperator, Message: fmt.Sprintf("gave operator %s the role %s until %s", name, role, cert.NotAfter.UTC().Format(time.RFC3339))},
		reason: fmt.Sprintf("role %s until %s, certificate %s", role, cert.NotAfter.UTC().Format(time.RFC3339), hex.EncodeToString(cert.Fingerprint[:]))}
	err = s.commit(ctx, c, func(a store.Audited) error { return a.AddOperator(o) })
	switch {
	case errors.Is(err, store.ErrExists): // somebody was quicker
		return nil, status.Errorf(codes.AlreadyExists, "operator %s exists; `hub get operators` lists them", name)
	case err != nil:
		return nil, s.failure("add operator "+name, err)
	}
	return &fleetv1.AddOperatorResponse{Operator: operatorMessage(o), Certificate: cert.DER, Authorities: s.cfg.Authority.Authorities(), Address: s.cfg.Address}, nil
}

// operatorTerms checks what an operator asks for another.
func operatorTerms(req *fleetv1.AddOperatorRequest) (role caller.Role, ttl time.Duration, err error) {
	if !operatorName.MatchString(req.GetName()) {
		return role, 0, invalid("operator name %q: want lower-case letters, digits, and - . _ @ between them, such as maria or ci@acme", req.GetName())
	}
	if role, err = caller.ParseRole(req.GetRole()); err != nil {
		return role, 0, invalid("operator %s: --role: %v", req.GetName(), err)
	}
	if ttl = time.Duration(req.GetTtlSeconds()) * time.Second; ttl == 0 {
		ttl = operatorTTL
	}
	if ttl < minOperatorTTL || ttl > maxOperatorTTL {
		return role, 0, invalid("operator %s: --ttl %v: want %v to 365d", req.GetName(), ttl, minOperatorTTL)
	}
	return role, ttl, nil
}

func operatorExists(o store.Operator) error {
	next := fmt.Sprintf("choose another name, or `hub operator remove %s --reason …` first", o.Name)
	if o.Name == owner {
		next = "it is the one of DIR/admin.yaml, which `hub serve --data DIR` writes; choose another name"
	}
	return status.Errorf(codes.AlreadyExists, "operator %s exists, with the role %s until %s; %s", o.Name, o.Role, o.NotAfter.UTC().Format(time.RFC3339), next)
}

// outranks refuses to give or take a role that is not below the caller's own: nobody raises themselves, by
// themselves or through another.
func outranks(ctx context.Context, word, name string, role caller.Role) error {
	c, _ := caller.From(ctx)
	if c.Role.Outranks(role) {
		return nil
	}
	return status.Errorf(codes.PermissionDenied, "%s, whose role is %q, may not %s the role %s (operator %s): it is not below its own; `hub get operators` lists the admins, who may",
		c, c.Role, word, role, name)
}

func noOperator(name string) error {
	return status.Errorf(codes.NotFound, "no operator %s; `hub get operators` lists them", name)
}

func (s *Service) operator(name string) (o store.Operator, found bool, err error) {
	all, err := s.cfg.Store.Operators()
	if i := slices.IndexFunc(all, func(o store.Operator) bool { return o.Name == name }); i >= 0 {
		o, found = all[i], true
	}
	return o, found, err
}

// RemoveOperator ends an operator's certificates. Streams that it has open end with the next message, and
// the change is one.
func (s *Service) RemoveOperator(ctx context.Context, req *fleetv1.RemoveOperatorRequest) (*fleetv1.RemoveOperatorResponse, error) {
	name := req.GetName()
	why, err := because(req.GetReason(), "a removal")
	if err != nil {
		return nil, err
	}
	old, found, err := s.operator(name)
	switch {
	case err != nil:
		return nil, s.failure("look for operator "+name, err)
	case !found:
		return nil, noOperator(name)
	case name == owner:
		return nil, status.Errorf(codes.FailedPrecondition, "operator %s is whoever has the hub's data folder and cannot be removed; to end every copy of its DIR/admin.yaml, remove that file and start `hub serve --data DIR` again", name)
	}
	if err := outranks(ctx, "take", name, old.Role); err != nil {
		return nil, err
	}
	if req.GetDryRun() {
		return &fleetv1.RemoveOperatorResponse{}, nil
	}
	c := change{action: "operator remove", object: name, reason: why,
		event: fleet.Event{Kind: fleet.EventOperator, Message: fmt.Sprintf("took the role %s from operator %s: %s", old.Role, name, why)}}
	err = s.commit(ctx, c, func(a store.Audited) error { return a.RemoveOperator(name) })
	switch {
	case errors.Is(err, store.ErrNotFound): // somebody was quicker
		return nil, noOperator(name)
	case err != nil:
		return nil, s.failure("remove operator "+name, err)
	}
	return &fleetv1.RemoveOperatorResponse{}, nil
}

// ListOperators lists all, by name.
func (s *Service) ListOperators(context.Context, *fleetv1.ListOperatorsRequest) (*fleetv1.ListOperatorsResponse, error) {
	all, err := s.cfg.Store.Operators()
	if err != nil {
		return nil, s.failure("list operators", err)
	}
	resp := &fleetv1.ListOperatorsResponse{}
	for _, o := range all {
		resp.Operators = append(resp.Operators, operatorMessage(o))
	}
	return resp, nil
}

func operatorMessage(o store.Operator) *fleetv1.Operator {
	m := &fleetv1.Operator{Name: o.Name, Role: o.Role.String(), Created: wire.Time(o.Created), CreatedBy: o.By, CertificateNotAfter: wire.Time(o.NotAfter)}
	if o.Fingerprint != [32]byte{} {
		m.Credential = hex.EncodeToString(o.Fingerprint[:])
	}
	return m
}
