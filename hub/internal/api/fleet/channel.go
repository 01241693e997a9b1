package fleetapi

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/hub/internal/publish"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance/channel"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// PublishStatement passes on what a vendor has signed. Where the distribution names signers, it has to be
// theirs: what the spokes would refuse is not handed out.
func (s *Service) PublishStatement(ctx context.Context, req *fleetv1.PublishStatementRequest) (*fleetv1.PublishStatementResponse, error) {
	signed, err := channel.Parse(req.GetStatement())
	if err != nil {
		return nil, invalid("%v", err)
	}
	name, now := signed.Distribution, time.Now()
	d, err := s.mustWatch(name)
	if err != nil {
		return nil, err
	}
	if !d.Signers.None() {
		policy, err := publish.ChannelPolicy(d.Signers)
		if err != nil {
			return nil, status.Errorf(codes.FailedPrecondition, "the signers of %s: %v; `hub distribution set %s --signers FILE` replaces them", name, err, name)
		}
		if _, err := signed.Verify(name, policy, now); err != nil {
			return nil, invalid("%v", err)
		}
	}
	log, err := s.cfg.Store.Channel(name)
	if err != nil {
		return nil, s.failure("read the channel of "+name, err)
	}
	if err := notNext(signed, store.Follows(log, signed)); err != nil {
		return nil, err
	}
	m := statementMessage(channel.Seen{Signed: signed, At: now})
	if req.GetDryRun() {
		return &fleetv1.PublishStatementResponse{Statement: m}, nil
	}
	text := fmt.Sprintf("passed on statement %d: %s is the latest until %s", signed.Sequence, signed.Latest, fleet.Moment(signed.Expires))
	added := change{action: "channel publish", object: name, reason: text,
		event: fleet.Event{Distribution: name, Version: signed.Latest, Kind: fleet.EventStatement, Message: text}}
	err = s.commit(ctx, added, func(a store.Audited) error { return a.AddStatement(signed, now) })
	if refused := notNext(signed, err); refused != nil {
		return nil, refused
	} else if err != nil {
		return nil, s.failure("pass on the statement", err)
	}
	s.cfg.Spokes.WakeAll()
	return &fleetv1.PublishStatementResponse{Statement: m}, nil
}

// notNext is the answer to a statement that does not follow; nil for any other error.
func notNext(s channel.Signed, err error) error {
	switch {
	case errors.Is(err, store.ErrExists):
		return status.Errorf(codes.AlreadyExists, "statement %d of %s was passed on already", s.Sequence, s.Distribution)
	case errors.Is(err, store.ErrFork):
		return status.Errorf(codes.FailedPrecondition, "statement of %s: %v; sign the next one after what `hub channel show %s --signed` prints", s.Distribution, err, s.Distribution)
	}
	return nil
}

// GetChannel lists what a vendor has stated.
func (s *Service) GetChannel(_ context.Context, req *fleetv1.GetChannelRequest) (*fleetv1.GetChannelResponse, error) {
	name := req.GetDistribution()
	log, err := s.cfg.Store.Channel(name)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, noDistribution(name)
	case err != nil:
		return nil, s.failure("read the channel of "+name, err)
	}
	r := &fleetv1.GetChannelResponse{}
	for _, one := range log {
		r.Statements = append(r.Statements, statementMessage(one))
	}
	return r, nil
}

func statementMessage(s channel.Seen) *fleetv1.Statement {
	return &fleetv1.Statement{Distribution: s.Distribution, Sequence: s.Sequence, Latest: s.Latest, Recalled: s.Recalled,
		Issued: wire.Time(s.Issued), Expires: wire.Time(s.Expires), Digest: string(s.Digest()), Previous: string(s.Previous), Signed: s.Bytes(), Received: wire.Time(s.At)}
}
