// Package relayapi answers relays: it implements RelayService. Of the one stream of a relay it makes the streams of the
// spokes behind it, and hands them to whoever serves spokes. A relay's word counts for nothing in them: who speaks comes
// from the ticket that the hub gave the spoke itself and from the hub's record, what is said from the seal of each
// message. It decides nothing about the fleet.
package relayapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/hub/internal/ending"
	"github.com/wheelwright-dev/wheelwright/hub/internal/identity"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/transport"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	relayv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/relay/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// maxRequest bounds a certificate request in bytes.
const maxRequest = 16 << 10

// authority issues relays' certificates and opens spokes' tickets.
type authority interface {
	IssueRelay(csr []byte, name string, hosts []string, ttl time.Duration) (identity.RelayCertificates, error)
	OpenTicket(ticket []byte, now time.Time) (identity.RelayTicket, error)
	trust
}

// trust is what a peer has to trust; Pins are of Authorities, of which the last issues clients' certificates.
type trust interface {
	Authorities() [][]byte
	Pin() string // that the hub shows itself under
	Pins() []string
	Changed() <-chan struct{}
}

// relays are the hub's record of them; store.ErrNotFound for one that was removed.
type relays interface {
	RenewRelay(current [32]byte, issue func(store.Relay) (store.Certificate, error)) error
	ReleaseByDigest(fleet.Digest) (bool, error)
}

// bundles are compressed canonical tars by the digest of the tar.
type bundles interface {
	Get(fleet.Digest) (io.ReadSeekCloser, int64, error)
}

// Conversation serves one spoke. Hear and Finish do not wait; the error of Hear is the answer that ends the channel.
type Conversation interface {
	Hear(*syncv1.ConnectRequest) error
	Finish() // the spoke says nothing more
	Close()  // waits until nobody says anything on the stream any more
}

// spokes serves them on their streams, as it serves those that dial the hub. What ends one ends its stream's context.
type spokes func(stream syncv1.SyncService_ConnectServer) (Conversation, error)

// Config is what a Service works with.
type Config struct {
	Store     relays
	Authority authority
	Bundles   bundles
	Spokes    spokes
	// Judge says who a spoke's certificate speaks for now; its error is the answer to who may not speak.
	Judge func(certificate [32]byte, key fleet.Fingerprint) (caller.Caller, error)
	TTL   time.Duration // of a relay's certificate
	Log   *slog.Logger
}

// Service implements RelayService.
type Service struct {
	relayv1.UnimplementedRelayServiceServer
	cfg Config

	mu      sync.Mutex
	streams map[string]*carrier // by the relay's name
}

// New makes the service.
func New(cfg Config) *Service { return &Service{cfg: cfg, streams: map[string]*carrier{}} }

// Connected is how many spokes each relay carries that is connected now, by its name.
func (s *Service) Connected() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[string]int{}
	for name, c := range s.streams {
		all[name] = c.count()
	}
	return all
}

// Review ends the channels of spokes that may not speak any more, at once. It is asked after identities ended.
func (s *Service) Review() {
	s.mu.Lock()
	var all []*channel
	for _, c := range s.streams {
		all = append(all, c.all()...)
	}
	s.mu.Unlock()
	for _, ch := range all {
		if _, err := s.cfg.Judge(ch.ticket.Certificate, ch.ticket.Key); err != nil {
			ending.End(ch.ctx, err)
		}
	}
}

// Carry is a relay's stream. It ends with its context, which the server ends when it stops or the relay is removed.
func (s *Service) Carry(stream relayv1.RelayService_CarryServer) error {
	who, err := relay(stream.Context())
	if err != nil {
		return err
	}
	c := newCarrier(s, who, stream)
	s.mu.Lock()
	before := s.streams[who.Relay]
	s.streams[who.Relay] = c
	s.mu.Unlock()
	if before != nil {
		before.cancel(status.Errorf(codes.Aborted, "a newer stream of relay %s took over; is its data folder in use twice?", who.Relay))
	}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.streams[who.Relay] == c {
			delete(s.streams, who.Relay)
		}
	}()
	c.log.Info("relay connected")
	err = c.run()
	c.log.Info("relay disconnected", slog.String(logging.Reason, status.Convert(err).Message()))
	return err
}

// relay is the caller; the server has let only relays in, so anything else is our own fault.
func relay(ctx context.Context) (caller.Caller, error) {
	who, ok := caller.From(ctx)
	if !ok || who.Relay == "" {
		return caller.Caller{}, status.Error(codes.PermissionDenied, "this service is for relays; use the certificate that `hub relay join` stored")
	}
	return who, nil
}

// failure is for the hub's own trouble: the relay is told to try again, the log has the cause.
func (s *Service) failure(doing string, err error) error {
	s.cfg.Log.Error("relay not answered", slog.String(logging.Reason, doing), slog.Any(logging.Error, err))
	return status.Errorf(codes.Internal, "the hub could not %s; its log has the cause, the relay tries again by itself", doing)
}

// FetchBundle streams one bundle, compressed, for the relay to keep.
func (s *Service) FetchBundle(req *relayv1.FetchBundleRequest, stream relayv1.RelayService_FetchBundleServer) error {
	digest, err := fleet.ParseDigest(req.GetDigest())
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	known, err := s.cfg.Store.ReleaseByDigest(digest)
	if err != nil {
		return s.failure("look for the release with digest "+string(digest), err)
	}
	if !known {
		return status.Errorf(codes.NotFound, "no release of this hub has the digest %s; the spoke takes the next offer instead", digest)
	}
	blob, _, err := s.cfg.Bundles.Get(digest)
	if err != nil {
		return s.failure("read the bundle "+string(digest), err)
	}
	defer blob.Close()
	chunk := make([]byte, transport.ChunkSize)
	for {
		n, err := io.ReadFull(blob, chunk)
		if n > 0 {
			if err := stream.Send(&relayv1.FetchBundleResponse{Data: chunk[:n]}); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return s.failure("read the bundle "+string(digest), err)
		}
	}
}

// Renew issues the calling relay's next certificates.
func (s *Service) Renew(ctx context.Context, req *relayv1.RenewRequest) (*relayv1.RenewResponse, error) {
	who, err := relay(ctx)
	if err != nil {
		return nil, err
	}
	if n := len(req.GetCsr()); n == 0 || n > maxRequest {
		return nil, status.Errorf(codes.InvalidArgument, "renew the certificates of %s: the request has %d bytes, want 1 to %d", who, n, maxRequest)
	}
	var issued identity.RelayCertificates
	err = s.cfg.Store.RenewRelay(who.Fingerprint, func(r store.Relay) (store.Certificate, error) {
		var err error
		issued, err = s.cfg.Authority.IssueRelay(req.GetCsr(), r.Name, r.Hosts, s.cfg.TTL)
		return store.Certificate{Fingerprint: issued.Client.Fingerprint, NotAfter: issued.Client.NotAfter, Issuer: issued.Client.Issuer}, err
	})
	switch {
	case errors.Is(err, identity.ErrRequest):
		return nil, status.Errorf(codes.InvalidArgument, "renew the certificates of %s: %v", who, err)
	case errors.Is(err, store.ErrNotFound):
		return nil, status.Errorf(codes.Unauthenticated, "the hub does not know %s any more; `hub relay invite %s` at the hub makes it known again", who, who.Relay)
	case err != nil:
		return nil, s.failure(fmt.Sprintf("renew the certificates of %s", who), err)
	}
	return &relayv1.RenewResponse{Certificates: &relayv1.Certificates{Name: who.Relay, Client: issued.Client.DER, Server: issued.Server,
		Authorities: s.cfg.Authority.Authorities(), NotAfter: wire.Time(issued.Client.NotAfter)}}, nil
}
