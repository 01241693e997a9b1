// Package relay is what `hub relay serve` runs: it stands between a hub and many spokes, carries their channels over
// one connection, keeps bundles for them, and passes everything else that comes to its port on to the hub as it is. It
// decides nothing, holds no spoke's key, and can neither read into what is end to end between a spoke and the hub nor
// speak in the place of either: what it can do is to drop and to delay. README.md beside it says how that is so.
package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/wheelwright-dev/wheelwright/hub/internal/blob"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/transport"
	channelv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/channel/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// grace is how long bundles under way may take when the relay stops.
const grace = 10 * time.Second

// Config is what a Relay needs.
type Config struct {
	Dir      string       // with the identity that Join wrote
	Listener net.Listener // for spokes; taken over
	Bundles  *blob.Store
	Keep     int64 // bytes of compressed bundles to keep at most; the one under way is kept all the same
	Log      *slog.Logger
}

// Relay is one.
type Relay struct {
	cfg      Config
	identity *holder
	hub      *upstream
	bundles  *cache
	port     *port
	counts   counts
}

// counts are since the start.
type counts struct {
	passed, refused, slow, hits, misses, bytes atomic.Uint64
}

// Stats is what a relay did since it started, and has now.
type Stats struct {
	HubConnected bool
	Channels     int    // open now
	Passed       int    // connections to the hub that are passed on now
	PassedTotal  uint64 // since the start
	Refused      uint64 // connections that were not passed on
	Slow         uint64 // channels ended because their spoke did not read
	BundleHits   uint64 // bundles served from the folder
	BundleMisses uint64 // bundles fetched from the hub
	BundleBytes  uint64 // sent to spokes, compressed
}

// New makes a relay of the identity in Dir; ErrNotJoined where there is none.
func New(cfg Config) (*Relay, error) {
	id, err := LoadIdentity(cfg.Dir)
	if err != nil {
		return nil, err
	}
	r := &Relay{cfg: cfg, identity: &holder{dir: cfg.Dir}}
	r.identity.now.Store(&id)
	r.hub = newUpstream(r.identity, &r.counts, cfg.Log)
	if r.bundles, err = newCache(cfg.Bundles, cfg.Keep, r.hub.fetch, &r.counts, cfg.Log); err != nil {
		return nil, err
	}
	r.port = newPort(cfg.Listener, id.Hub, &r.counts, cfg.Log)
	return r, nil
}

// Identity is as whom it is known now.
func (r *Relay) Identity() Identity { return *r.identity.now.Load() }

// Stats is safe to call at any time.
func (r *Relay) Stats() Stats {
	c := &r.counts
	return Stats{HubConnected: r.hub.connected(), Channels: r.hub.count(), Passed: r.port.passing(), PassedTotal: c.passed.Load(), Refused: c.refused.Load(), Slow: c.slow.Load(),
		BundleHits: c.hits.Load(), BundleMisses: c.misses.Load(), BundleBytes: c.bytes.Load()}
}

// Run serves until ctx ends. Then the spokes are told so, and bundles under way have a while to get through.
func (r *Relay) Run(ctx context.Context) error {
	server := grpc.NewServer(transport.ServerOptions(r.identity.serverTLS())...)
	channelv1.RegisterChannelServiceServer(server, &channels{hub: r.hub, log: r.cfg.Log})
	syncv1.RegisterSyncServiceServer(server, &bundleServer{cache: r.bundles, counts: &r.counts, log: r.cfg.Log})
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return r.hub.run(ctx) })
	group.Go(func() error { return r.identity.keep(ctx, r.hub, r.cfg.Log) })
	group.Go(func() error { return r.port.run(ctx) })
	group.Go(func() error {
		if err := server.Serve(r.port.spokes); err != nil && !errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("serve spokes: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		stopGently(server)
		return nil
	})
	r.cfg.Log.Info("relay serves", slog.String(logging.Relay, r.Identity().Name), slog.String(logging.Address, r.cfg.Listener.Addr().String()), slog.String("hub", r.Identity().Hub))
	return group.Wait()
}

func stopGently(server *grpc.Server) {
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		server.GracefulStop()
	}()
	wait := time.NewTimer(grace)
	defer wait.Stop()
	select {
	case <-finished:
	case <-wait.C:
		server.Stop()
		<-finished
	}
}
