package enroll

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/hub/internal/identity"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/token"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	enrollv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/enroll/v1"
	relayv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/relay/v1"
)

// EnrollRelay redeems the token of a relay. From then on the relay's earlier certificates count no more.
func (s *Service) EnrollRelay(ctx context.Context, req *enrollv1.EnrollRelayRequest) (*enrollv1.EnrollRelayResponse, error) {
	t, err := token.Parse(req.GetToken())
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	if t.Pin != s.cfg.Authority.Pin() {
		return nil, status.Errorf(codes.Unauthenticated, "join token: it is of another hub, or of an earlier data folder of this one; %s", inviteRelay(""))
	}
	if n := len(req.GetCsr()); n == 0 || n > maxRequest {
		return nil, status.Errorf(codes.InvalidArgument, "certificate request: has %d bytes, want 1 to %d", n, maxRequest)
	}
	var issued identity.RelayCertificates
	now := time.Now()
	name, err := s.cfg.Store.RedeemRelay(t.ID, t.Hash(), now, func(r store.Relay) (store.Certificate, error) {
		var err error
		issued, err = s.cfg.Authority.IssueRelay(req.GetCsr(), r.Name, r.Hosts, s.cfg.RelayTTL)
		return store.Certificate{Fingerprint: issued.Client.Fingerprint, NotAfter: issued.Client.NotAfter, Issuer: issued.Client.Issuer}, err
	})
	if err != nil {
		return nil, s.relayRefusal(name, err)
	}
	from := "an unknown address"
	if p, ok := peer.FromContext(ctx); ok {
		from = p.Addr.String()
	}
	s.cfg.Log.Info("relay joined", slog.String(logging.Relay, name), slog.String(logging.Address, from))
	// The token is spent by now, so that an event that cannot be stored must not keep the certificate from its owner.
	err = s.cfg.Store.AppendEvent(fleet.Event{At: now, Kind: fleet.EventIdentity, Message: fmt.Sprintf("relay %s joined from %s; certificate until %s", name, from, issued.Client.NotAfter.UTC().Format(time.RFC3339))})
	if err != nil {
		s.cfg.Log.Error("joining not recorded", slog.String(logging.Relay, name), slog.Any(logging.Error, err))
	}
	return &enrollv1.EnrollRelayResponse{Certificates: &relayv1.Certificates{Name: name, Client: issued.Client.DER, Server: issued.Server,
		Authorities: s.cfg.Authority.Authorities(), NotAfter: wire.Time(issued.Client.NotAfter)}}, nil
}

// relayRefusal says why a token bought nothing. name is known where the secret was right.
func (s *Service) relayRefusal(name string, err error) error {
	switch {
	case errors.Is(err, store.ErrTokenUnknown):
		return status.Errorf(codes.Unauthenticated, "join token: this hub knows no relay by it; copy the whole line again, or %s", inviteRelay(""))
	case errors.Is(err, store.ErrTokenUsed):
		return status.Errorf(codes.Unauthenticated, "join token of relay %s: it was used already, and a token is good once; %s", name, inviteRelay(name))
	case errors.Is(err, store.ErrTokenExpired):
		return status.Errorf(codes.Unauthenticated, "join token of relay %s: it has expired; %s", name, inviteRelay(name))
	case errors.Is(err, identity.ErrRequest):
		return status.Errorf(codes.InvalidArgument, "%v; the token is still good: run `hub relay join` again", errors.Unwrap(err))
	}
	s.cfg.Log.Error("relay not joined", slog.String(logging.Relay, name), slog.Any(logging.Error, err))
	return status.Error(codes.Internal, "the hub cannot enrol a relay now, its log has the cause; the token is still good: run `hub relay join` again")
}

func inviteRelay(name string) string {
	if name == "" {
		name = "NAME"
	}
	return fmt.Sprintf("ask who runs the hub for a new one (`hub relay invite %s --host …`)", name)
}
