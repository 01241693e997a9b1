// Package syncapi answers the spokes: it implements SyncService. It says what the conductor offers and
// stores what spokes report; it decides neither. Who calls comes from the hub's record of the caller's
// certificate, never from a message.
package syncapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/hub/internal/depot"
	"github.com/wheelwright-dev/wheelwright/hub/internal/identity"
	"github.com/wheelwright-dev/wheelwright/hub/internal/presence"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

const (
	// helloTimeout is how long a new stream may be silent.
	helloTimeout = 10 * time.Second
	// missedHeartbeats end a stream.
	missedHeartbeats = 3
	// maxSubscriptions of one cluster.
	maxSubscriptions = 100
	// maxRequest bounds a certificate request in bytes; one of RSA 8192 has under 3,000.
	maxRequest = 16 << 10
	// maxInstance bounds what names a spoke's data folder, in bytes.
	maxInstance = 64
)

// reports keeps what spokes say. A nil error means: on disk.
type reports interface {
	Hello(cluster fleet.Cluster, spokeVersion, kubernetesVersion string, subscriptions []fleet.Installation) error
	// RecordEvents is idempotent by sequence number within a journal.
	RecordEvents(cluster fleet.Cluster, journalID string, events []fleet.Event) (ackedSeq uint64, err error)
	AckedSeq(cluster fleet.Cluster, journalID string) (uint64, error)
	ReleaseByDigest(fleet.Digest) (bool, error)
	// ReHome is the last that the cluster is to be handed.
	ReHome(fleet.Cluster) (r fleet.SignedReHome, found bool, err error)
}

// identities maps certificates to whom they speak for; store.ErrNotFound for one that does not count
// any more.
type identities interface {
	Identity(fingerprint [32]byte) (store.Identity, error)
	RenewIdentity(store.Renewal) error
	// Session tells copies of an identity apart; store.ErrLate where this one is not served.
	Session(cluster fleet.Cluster, instance string, number uint64, now time.Time) error
	AppendEvent(fleet.Event) error
}

// bundles are what goes over the wire of a canonical tar that has the digest: a delta on one of the bases, or the
// whole. resumed is the encoding of which something was sent.
type bundles interface {
	Get(ctx context.Context, digest fleet.Digest, bases []fleet.Digest, resumed string) (*depot.Encoding, error)
}

// offers says what a cluster with these subscriptions may take now. The answer is shared.
type offers interface {
	Offers(cluster fleet.Cluster, subscriptions []string) (wire.Desired, error)
}

// authority issues certificates; identity.ErrRequest where the request is at fault.
type authority interface {
	IssueSpoke(csr []byte, cluster fleet.Cluster, ttl time.Duration) (identity.Certificate, error)
	Authorities() [][]byte
	Pins() []string // of Authorities; certificates are issued under the last
	Changed() <-chan struct{}
}

// tickets are what channels through a relay are opened with.
type tickets interface {
	SealTicket(t identity.RelayTicket, now, until time.Time) ([]byte, error)
}

// Config is what a Service works with.
type Config struct {
	Reports    reports
	Identities identities
	Bundles    bundles
	Offers     offers
	Authority  authority
	Presence   *presence.Registry
	Tickets    tickets

	Heartbeat      time.Duration
	CertificateTTL time.Duration
	// ReconnectWithin is the time over which the fleet spreads itself when it has to come back; nil: it is not told.
	ReconnectWithin func() time.Duration
	BundleRate      int64  // bytes of bundles that are sent in a second, to all spokes together; 0: no limit
	BundleFetches   int64  // bundles that are sent at the same time; the others wait their turn; 0: no limit
	Version         string // of this hub
	Log             *slog.Logger
}

// Service implements SyncService.
type Service struct {
	syncv1.UnimplementedSyncServiceServer
	cfg                Config
	pulse              atomic.Pointer[pulse]
	gate               *gate
	offersSent, events atomic.Uint64
	whole, deltas      atomic.Uint64 // bytes of bundles
}

// New makes the service.
func New(cfg Config) *Service {
	return &Service{cfg: cfg, gate: newGate(cfg.BundleRate, cfg.BundleFetches)}
}

// Stats counts what the service did since it was made.
type Stats struct {
	OffersSent uint64 // DesiredState messages
	Events     uint64 // received and stored
	WholeBytes uint64 // sent of whole bundles, compressed
	DeltaBytes uint64 // sent of deltas
	Waiting    int64  // fetches that wait their turn now
}

// Stats is safe to call at any time.
func (s *Service) Stats() Stats {
	return Stats{OffersSent: s.offersSent.Load(), Events: s.events.Load(), WholeBytes: s.whole.Load(), DeltaBytes: s.deltas.Load(), Waiting: s.gate.waiting.Load()}
}

// spoke is the calling cluster; the server has let only spokes in, so anything else is our own fault.
func spoke(ctx context.Context) (caller.Caller, error) {
	who, ok := caller.From(ctx)
	if !ok || !who.Spoke() {
		return caller.Caller{}, status.Error(codes.PermissionDenied, "this service is for spokes; use the certificate that `spoke join` stored")
	}
	return who, nil
}

// authorise asks the record again whether the caller still speaks for its cluster.
func (s *Service) authorise(who caller.Caller) error {
	id, err := s.cfg.Identities.Identity(who.Fingerprint)
	if errors.Is(err, store.ErrNotFound) || (err == nil && id.Cluster != who.Cluster) {
		return ended(who.Cluster)
	}
	if err != nil {
		return s.failure("look up the caller's identity", err)
	}
	if id.Standing != store.Accepted || id.Superseded() {
		return status.Errorf(codes.Aborted, "%s is not served with this certificate any more; the next call says why", who.Cluster)
	}
	if !id.NotAfter.IsZero() && time.Now().After(id.NotAfter) {
		return status.Errorf(codes.Unauthenticated, "the certificate of %s expired on %s; connect with the renewed one, or ask the vendor for `hub cluster invite %s`",
			who.Cluster, id.NotAfter.UTC().Format(time.RFC3339), who.Cluster)
	}
	return nil
}

func ended(c fleet.Cluster) error {
	return status.Errorf(codes.Unauthenticated, "the hub does not know this identity of %s any more: the cluster was turned away, removed or joined again; ask the vendor for `hub cluster invite %s` and run `spoke join`", c, c)
}

// failure is for the hub's own trouble: the spoke is told to try again, the log has the cause.
func (s *Service) failure(doing string, err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return status.Errorf(codes.Unauthenticated, "%s: the hub does not know this cluster any more; ask the vendor for a new invitation and run `spoke join`", doing)
	}
	s.cfg.Log.Error("spoke not answered", slog.String(logging.Reason, doing), slog.Any(logging.Error, err))
	return status.Errorf(codes.Internal, "the hub could not %s; its log has the cause, the spoke tries again by itself", doing)
}

// Renew issues the calling cluster's next certificate. The present one counts until it ends.
func (s *Service) Renew(ctx context.Context, req *syncv1.RenewRequest) (*syncv1.RenewResponse, error) {
	who, err := spoke(ctx)
	if err != nil {
		return nil, err
	}
	if n := len(req.GetCsr()); n == 0 || n > maxRequest {
		return nil, status.Errorf(codes.InvalidArgument, "renew the certificate of %s: its request has %d bytes, want 1 to %d", who.Cluster, n, maxRequest)
	}
	key, err := identity.RequestKey(req.GetCsr())
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "renew the certificate of %s: %v", who.Cluster, err)
	}
	cert, err := s.cfg.Authority.IssueSpoke(req.GetCsr(), who.Cluster, s.cfg.CertificateTTL)
	if errors.Is(err, identity.ErrRequest) {
		return nil, status.Errorf(codes.InvalidArgument, "renew the certificate of %s: %v", who.Cluster, err)
	}
	if err != nil {
		return nil, s.failure("renew the certificate of "+string(who.Cluster), err)
	}
	err = s.cfg.Identities.RenewIdentity(store.Renewal{Current: who.Fingerprint, CurrentKey: who.Key, Next: cert.Fingerprint, Key: key, NotAfter: cert.NotAfter, Issuer: cert.Issuer})
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, ended(who.Cluster) // removed or joined anew while this renewal was under way
	case errors.Is(err, store.ErrKeyUsed):
		return nil, status.Errorf(codes.AlreadyExists, "renew the certificate of %s: it has had the key %s before, and each certificate wants a new one", who.Cluster, key)
	case errors.Is(err, store.ErrUnused):
		return nil, status.Errorf(codes.ResourceExhausted, "renew the certificate of %s: many were issued and none of them was used; is its data folder writable?", who.Cluster)
	case err != nil:
		return nil, s.failure("store the new certificate of "+string(who.Cluster), err)
	}
	if !who.Expired.IsZero() {
		s.cameBack(who, cert.NotAfter)
	}
	return &syncv1.RenewResponse{Certificate: cert.DER, Authorities: s.cfg.Authority.Authorities(), NotAfter: wire.Time(cert.NotAfter)}, nil
}

// cameBack tells the operators of a renewal that began with an expired certificate. The new one is good by now, so
// an event that cannot be stored must not keep it from its owner.
func (s *Service) cameBack(who caller.Caller, until time.Time) {
	s.cfg.Log.Info("an expired certificate was renewed", slog.String(logging.Cluster, string(who.Cluster)))
	err := s.cfg.Identities.AppendEvent(fleet.Event{At: time.Now(), Cluster: who.Cluster, Kind: fleet.EventIdentity,
		Message: fmt.Sprintf("came back: its certificate had expired at %s, and it renewed it; certificate until %s", who.Expired.UTC().Format(time.RFC3339), until.UTC().Format(time.RFC3339))})
	if err != nil {
		s.cfg.Log.Error("a return not recorded", slog.String(logging.Cluster, string(who.Cluster)), slog.Any(logging.Error, err))
	}
}
