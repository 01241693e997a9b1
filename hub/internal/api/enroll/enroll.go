// Package enroll answers EnrollService: it turns a one-time token and a certificate request into the
// identity of a cluster. It is the one API that a stranger may call, so it reads little, tells only the
// holder of a token's secret what became of it, and takes the cluster's name from the hub's record alone.
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
)

// maxRequest bounds a certificate request in bytes; one of RSA 8192 has under 3,000.
const maxRequest = 16 << 10

// tokens spends a token and records the identity that issue made, in one transaction.
type tokens interface {
	Redeem(tokenID string, secretHash [32]byte, key fleet.Fingerprint, now time.Time,
		issue func(fleet.Cluster) (store.Certificate, error)) (fleet.Cluster, error)
	AppendEvent(fleet.Event) error
	Cluster(fleet.Cluster) (store.Cluster, error)
	RedeemRelay(tokenID string, secretHash [32]byte, now time.Time, issue func(store.Relay) (store.Certificate, error)) (name string, err error)
}

// authority issues certificates; identity.ErrRequest where the request is at fault.
type authority interface {
	IssueSpoke(csr []byte, cluster fleet.Cluster, ttl time.Duration) (identity.Certificate, error)
	IssueRelay(csr []byte, name string, hosts []string, ttl time.Duration) (identity.RelayCertificates, error)
	Authorities() [][]byte
	Pin() string
}

// sessions ends what an earlier identity of the cluster has open.
type sessions interface {
	End(fleet.Cluster)
}

// Config is what a Service works with.
type Config struct {
	Store     tokens
	Authority authority
	Presence  sessions
	TTL       time.Duration // of a spoke's certificate
	RelayTTL  time.Duration // of a relay's
	Log       *slog.Logger
}

// Service implements EnrollService.
type Service struct {
	enrollv1.UnimplementedEnrollServiceServer
	cfg Config
}

// New makes the service.
func New(cfg Config) *Service { return &Service{cfg: cfg} }

// Enroll redeems a token. From then on the cluster's earlier certificates count no more.
func (s *Service) Enroll(ctx context.Context, req *enrollv1.EnrollRequest) (*enrollv1.EnrollResponse, error) {
	t, err := token.Parse(req.GetToken())
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	if t.Pin != s.cfg.Authority.Pin() {
		return nil, status.Errorf(codes.Unauthenticated, "join token: it is of another hub, or of an earlier data folder of this one; %s", invite(""))
	}
	if n := len(req.GetCsr()); n == 0 || n > maxRequest {
		return nil, status.Errorf(codes.InvalidArgument, "certificate request: has %d bytes, want 1 to %d", n, maxRequest)
	}
	key, err := identity.RequestKey(req.GetCsr())
	if err != nil {
		// Nobody without a token is told what is wrong with a request: reading it further is work for the asking.
		key = fleet.Fingerprint{}
	}
	var issued identity.Certificate
	now := time.Now()
	cluster, err := s.cfg.Store.Redeem(t.ID, t.Hash(), key, now, func(c fleet.Cluster) (_ store.Certificate, err error) {
		issued, err = s.cfg.Authority.IssueSpoke(req.GetCsr(), c, s.cfg.TTL)
		return store.Certificate{Fingerprint: issued.Fingerprint, NotAfter: issued.NotAfter, Issuer: issued.Issuer}, err
	})
	if err != nil {
		return nil, s.refusal(cluster, err)
	}
	s.cfg.Presence.End(cluster)
	rec, err := s.cfg.Store.Cluster(cluster)
	if err != nil { // removed in this moment: the certificate is good for nothing
		return nil, s.refusal(cluster, err)
	}
	pending := rec.Standing == store.Pending
	s.record(ctx, cluster, key, pending, now, issued.NotAfter)
	return &enrollv1.EnrollResponse{
		Cluster: string(cluster), Certificate: issued.DER, Authorities: s.cfg.Authority.Authorities(), NotAfter: wire.Time(issued.NotAfter), Pending: pending,
	}, nil
}

// record tells the operators. The token is spent and the identity good by now, so that an event that
// cannot be stored must not keep the certificate from its owner.
func (s *Service) record(ctx context.Context, cluster fleet.Cluster, key fleet.Fingerprint, pending bool, now, end time.Time) {
	from := "an unknown address"
	if p, ok := peer.FromContext(ctx); ok {
		from = p.Addr.String()
	}
	s.cfg.Log.Info("cluster joined", slog.String(logging.Cluster, string(cluster)), slog.String(logging.Address, from))
	message := fmt.Sprintf("joined from %s with the key %s; certificate until %s", from, key, end.UTC().Format(time.RFC3339))
	if pending {
		message += fmt.Sprintf("; waits for `hub cluster accept %s`", cluster)
	}
	err := s.cfg.Store.AppendEvent(fleet.Event{
		At: now, Cluster: cluster, Kind: fleet.EventJoined,
		Message: message,
	})
	if err != nil {
		s.cfg.Log.Error("joining not recorded", slog.String(logging.Cluster, string(cluster)), slog.Any(logging.Error, err))
	}
}

// refusal says why a token bought nothing. cluster is known where the secret was right.
func (s *Service) refusal(cluster fleet.Cluster, err error) error {
	switch {
	case errors.Is(err, store.ErrTokenUnknown):
		return status.Errorf(codes.Unauthenticated, "join token: this hub does not know it; copy the whole line again, or %s", invite(""))
	case errors.Is(err, store.ErrTokenUsed):
		return status.Errorf(codes.Unauthenticated, "join token of %s: it was used already, and a token is good once; %s", cluster, invite(cluster))
	case errors.Is(err, store.ErrTokenExpired):
		return status.Errorf(codes.Unauthenticated, "join token of %s: it has expired; %s", cluster, invite(cluster))
	case errors.Is(err, store.ErrKeyUsed):
		return status.Errorf(codes.AlreadyExists, "certificate request of %s: it has had this key before, and each certificate wants a new one; the token is still good: run `spoke join` again", cluster)
	case errors.Is(err, identity.ErrRequest):
		return status.Errorf(codes.InvalidArgument, "%v; the token is still good: run `spoke join` again", errors.Unwrap(err))
	}
	s.cfg.Log.Error("cluster not joined", slog.String(logging.Cluster, string(cluster)), slog.Any(logging.Error, err))
	return status.Error(codes.Internal, "the hub cannot enrol a cluster now, its log has the cause; the token is still good: run `spoke join` again")
}

func invite(c fleet.Cluster) string {
	name := string(c)
	if name == "" {
		name = "PROVIDER/NAME"
	}
	return fmt.Sprintf("ask the vendor for a new one (`hub cluster invite %s`)", name)
}
