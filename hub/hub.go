// Package hub puts a hub together from its parts and runs it: one data folder, one port, one process.
// It has no behaviour of its own; what a hub does is in the packages below it.
package hub

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/wheelwright-dev/wheelwright/hub/internal/api/enroll"
	fleetapi "github.com/wheelwright-dev/wheelwright/hub/internal/api/fleet"
	relayapi "github.com/wheelwright-dev/wheelwright/hub/internal/api/relay"
	syncapi "github.com/wheelwright-dev/wheelwright/hub/internal/api/sync"
	"github.com/wheelwright-dev/wheelwright/hub/internal/blob"
	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/hub/internal/conductor"
	"github.com/wheelwright-dev/wheelwright/hub/internal/depot"
	"github.com/wheelwright-dev/wheelwright/hub/internal/herald"
	"github.com/wheelwright-dev/wheelwright/hub/internal/identity"
	"github.com/wheelwright-dev/wheelwright/hub/internal/oidc"
	"github.com/wheelwright-dev/wheelwright/hub/internal/presence"
	"github.com/wheelwright-dev/wheelwright/hub/internal/publish"
	"github.com/wheelwright-dev/wheelwright/hub/internal/server"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/buildinfo"
	"github.com/wheelwright-dev/wheelwright/pkg/bundle"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/render"
	enrollv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/enroll/v1"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
	relayv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/relay/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

const (
	spokeCertificateLife = 24 * time.Hour
	// relayCertificateLife is renewed at half; a relay that was away for longer joins again.
	relayCertificateLife = 30 * 24 * time.Hour
	// grace is how long calls under way may take when the hub stops.
	grace = 10 * time.Second
	// authorityWarning is how long before the authority's end the log begins to say so.
	authorityWarning = 365 * 24 * time.Hour
	// heardInterval is how often the hub stores when each spoke was last heard.
	heardInterval = 5 * time.Minute
)

// Config says where a hub lives. A zero field takes its value from File, then from a default.
type Config struct {
	Dir       string        // data folder, made when it is not there
	File      string        // hub.yaml; empty: none
	Listen    string        // HOST:PORT; default 127.0.0.1:7443
	Advertise string        // HOST or HOST:PORT that spokes and operators dial; default: the listen address
	Metrics   string        // HOST:PORT; empty: none
	Debug     string        // HOST:PORT of loopback, for profiles; empty: none
	Poll      time.Duration // of distributions that name no interval; default 30 s
	Heartbeat time.Duration // of spokes; default 10 s
	// BundleRate is how many bytes of bundles are sent in a second, to all spokes together; default: as many as it goes.
	BundleRate    int64
	BundleFetches int64        // bundles that are sent at once, the others wait their turn; default 256
	Log           *slog.Logger // File's log section, where there is one, wins; nil: text on standard error
}

// Info is what a caller of Run may want to tell.
type Info struct {
	Addr         string // HOST:PORT to dial
	AdminContext string // path of the context file
	Metrics      string // HOST:PORT; empty: none
	Debug        string // HOST:PORT; empty: none
	FirstStart   bool   // the data folder is new
}

// Files and folders of a data folder.
const (
	storeFile       = "hub.db"
	bundlesFolder   = "bundles"
	deltasFolder    = "deltas"
	authorityFolder = "authority"
	repositories    = "repositories"
	adminFile       = "admin.yaml"
)

// hub is everything that runs, in the order in which it was built.
type hub struct {
	Config
	settings

	store     *store.Store
	bundles   *blob.Store
	depot     *depot.Depot
	authority *identity.Authority
	renderer  *render.Renderer
	presence  *presence.Registry
	conductor *conductor.Conductor
	source    source
	watchers  *watchers
	spokes    *syncapi.Service
	server    *server.Server
	metrics   *metrics
	debug     net.Listener   // nil: none
	herald    *herald.Herald // nil without notifiers

	closers []func() error // in reverse
	info    Info
}

// Run runs a hub until ctx ends, and returns nil then. ready is called once, when the hub answers.
func Run(ctx context.Context, cfg Config, ready func(Info)) (err error) {
	h := &hub{Config: cfg}
	if h.settings, err = settle(cfg); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	if err := h.open(); err != nil {
		return err
	}
	h.build()
	if err := h.openNotifiers(); err != nil {
		return err
	}
	metricsListener, err := h.listen()
	if err != nil {
		return err
	}
	return h.run(ctx, metricsListener, ready)
}

func (h *hub) close() error {
	var all []error
	for i := len(h.closers) - 1; i >= 0; i-- {
		all = append(all, h.closers[i]())
	}
	return errors.Join(all...)
}

// open opens what is on disk. The store comes first: its lock is that of the whole folder.
func (h *hub) open() error {
	if h.Dir == "" {
		return errors.New("no data folder; name it with `hub serve --data DIR`")
	}
	dir, err := filepath.Abs(h.Dir)
	if err != nil {
		return fmt.Errorf("data folder %s: %w", h.Dir, err)
	}
	h.Dir = dir
	if err := os.MkdirAll(h.Dir, 0o700); err != nil {
		return fmt.Errorf("make data folder: %w; name another with `hub serve --data DIR`", err)
	}
	_, err = os.Stat(h.path(storeFile))
	h.info.FirstStart = errors.Is(err, fs.ErrNotExist)
	if h.store, err = store.Open(h.path(storeFile), h.log); err != nil {
		return err
	}
	h.closers = append(h.closers, h.store.Close)
	h.store.Keep(store.History(h.history))
	if h.bundles, err = blob.Open(h.path(bundlesFolder)); err != nil {
		return err
	}
	deltas, err := blob.OpenDeltas(h.path(deltasFolder), mostDeltas, mostDeltaBytes)
	if err != nil {
		return err
	}
	h.depot = depot.New(depot.Config{Wholes: h.bundles, Deltas: deltas, Log: h.log})
	h.closers = append(h.closers, h.depot.Close)
	if err := h.checkAuthority(); err != nil {
		return err
	}
	if h.authority, err = identity.Open(h.path(authorityFolder)); err != nil {
		return err
	}
	return nil
}

func (h *hub) path(name string) string { return filepath.Join(h.Dir, name) }

// checkAuthority refuses to make a new authority for clusters that trust the old one.
func (h *hub) checkAuthority() error {
	if _, err := os.Stat(h.path(authorityFolder)); !errors.Is(err, fs.ErrNotExist) {
		return nil // identity.Open says what is wrong with it
	}
	clusters, err := h.store.Clusters()
	if err != nil {
		return fmt.Errorf("read data folder %s: %w", h.Dir, err)
	}
	for _, c := range clusters {
		if !c.Joined.IsZero() {
			return fmt.Errorf("data folder %s has clusters but no authority: %s is missing; restore it from a backup (a new authority would lock out every cluster)", h.Dir, h.path(authorityFolder))
		}
	}
	return nil
}

// build makes the parts that work on what is open.
func (h *hub) build() {
	h.renderer = render.New(render.Config{Log: h.log})
	h.closers = append(h.closers, h.renderer.Close)
	h.presence = presence.New()
	h.closers = append(h.closers, h.remember)
	h.conductor = conductor.New(conductor.Config{Store: h.store, Blobs: h.bundles, Compress: bundle.Compress,
		Spokes: h.presence, Heartbeat: h.heartbeat, Plans: h.planOf, Log: h.log})
	publisher := publish.New(publish.Config{Renderer: h.renderer, Log: h.log})
	h.source = source{dir: h.path(repositories), store: h.store, conductor: h.conductor, publisher: publisher, git: h.git, cache: newObjectCache(), turns: newTurns(), log: h.log}
	h.watchers = newWatchers(h.source)
}

// listen opens the ports and makes the services behind them.
func (h *hub) listen() (metricsListener net.Listener, err error) {
	listener, err := listen("listen for spokes and operators", h.settings.listen, "--listen")
	if err != nil {
		return nil, err
	}
	h.closers = append(h.closers, ignoreClosed(listener))
	if h.info.Addr, err = dialAddress(listener.Addr(), h.advertise); err != nil {
		return nil, err
	}
	hosts := certificateHosts(listener.Addr(), h.advertise)
	tls, err := h.authority.ServerTLS(hosts, h.comeBack)
	if err != nil {
		return nil, err
	}
	h.spokes = syncapi.New(syncapi.Config{Reports: h.store, Identities: h.store, Bundles: h.depot, Offers: h.conductor,
		Authority: h.authority, Tickets: h.authority, Presence: h.presence, Heartbeat: h.heartbeat, CertificateTTL: spokeCertificateLife,
		BundleRate: h.bundleRate, BundleFetches: h.bundleFetches,
		ReconnectWithin: func() time.Duration { return h.server.ReconnectWithin() }, Version: buildinfo.Version(), Log: h.log})
	relays := relayapi.New(relayapi.Config{Store: h.store, Authority: h.authority, Bundles: h.bundles, TTL: relayCertificateLife, Log: h.log,
		Spokes: func(stream syncv1.SyncService_ConnectServer) (relayapi.Conversation, error) {
			return h.spokes.Converse(stream)
		},
		Judge: func(certificate [32]byte, key fleet.Fingerprint) (caller.Caller, error) {
			return h.server.Relayed(certificate, key)
		}})
	operators := fleetapi.New(fleetapi.Config{Store: h.store, Conductor: h.conductor, Spokes: h.presence, Watchers: h.watchers,
		Authority: h.authority, Backup: h.backup, Tags: h.source.listTags, ComeBack: h.comeBack, Address: h.info.Addr, Hosts: identity.ServerHosts(hosts),
		Carried: relays.Connected, Interval: h.poll, Heartbeat: h.heartbeat, Log: h.log})
	join := enroll.New(enroll.Config{Store: h.store, Authority: h.authority, Presence: h.presence, TTL: spokeCertificateLife, RelayTTL: relayCertificateLife, Log: h.log})
	serve := server.Config{Listener: listener, TLS: tls, Identities: h.store, GracePeriod: grace, Age: h.age, ComeBack: h.comeBack,
		Authorities: h.authority.Pins, Revoked: relays.Review, Log: h.log,
		Register: func(r grpc.ServiceRegistrar) {
			enrollv1.RegisterEnrollServiceServer(r, join)
			syncv1.RegisterSyncServiceServer(r, h.spokes)
			fleetv1.RegisterFleetServiceServer(r, operators)
			relayv1.RegisterRelayServiceServer(r, relays)
		}}
	if h.oidc.Issuer != "" {
		serve.Tokens = h.tokens()
	}
	if h.server, err = server.New(serve); err != nil {
		return nil, err
	}
	if err := h.warnOfFiles(); err != nil {
		return nil, err
	}
	if h.Debug != "" {
		if h.debug, err = listenDebug(h.Debug); err != nil {
			return nil, err
		}
		h.closers = append(h.closers, ignoreClosed(h.debug))
		h.info.Debug = h.debug.Addr().String()
	}
	h.info.AdminContext = h.path(adminFile)
	if err := h.admin().ensure(time.Now()); err != nil {
		return nil, err
	}
	if h.settings.metrics == "" {
		return nil, nil
	}
	if metricsListener, err = listen("listen for metrics", h.settings.metrics, "--metrics"); err != nil {
		return nil, err
	}
	h.closers = append(h.closers, ignoreClosed(metricsListener))
	h.info.Metrics = metricsListener.Addr().String()
	h.metrics = newMetrics(h.store, h.presence, h.spokes.Stats, h.depot.Built, h.server.Stats, h.log)
	return metricsListener, nil
}

// warnOfFiles says in time that the fleet is larger than the number of files that this process may open.
func (h *hub) warnOfFiles() error {
	clusters, err := h.store.Clusters()
	if err != nil {
		return fmt.Errorf("read data folder %s: %w", h.Dir, err)
	}
	if most := h.server.Connections(); int64(len(clusters)) > most {
		h.log.Warn(fmt.Sprintf("this process may open too few files for its fleet: %d clusters, room for %d connections; %s", len(clusters), most, server.MoreFiles))
	}
	return nil
}

// tokens takes those of the issuer in hub.yaml.
func (h *hub) tokens() *oidc.Tokens {
	o := h.oidc
	c := oidc.Config{Issuer: o.Issuer, ClientID: o.ClientID, Username: o.Username, Groups: o.Groups, Required: o.Required, CA: o.CA}
	for _, b := range o.Bindings {
		c.Bindings = append(c.Bindings, oidc.Binding(b))
	}
	return oidc.New(c)
}

func (h *hub) admin() admin {
	return admin{path: h.info.AdminContext, address: h.info.Addr, store: h.store, authority: h.authority, log: h.log}
}

// ignoreClosed closes a listener that its server may have closed before.
func ignoreClosed(l net.Listener) func() error {
	return func() error {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("close port: %w", err)
		}
		return nil
	}
}

// run runs every part until ctx ends or one of them fails.
func (h *hub) run(ctx context.Context, metricsListener net.Listener, ready func(Info)) error {
	distributions, err := h.store.Distributions()
	if err != nil {
		return fmt.Errorf("read distributions: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return h.server.Run(ctx) })
	group.Go(func() error { return h.spokes.Run(ctx) })
	group.Go(func() error { return h.watchers.Run(ctx, distributions) })
	group.Go(func() error { return h.conductor.Run(ctx) })
	group.Go(func() error { return h.keepAdmin(ctx) })
	group.Go(func() error { return h.keepHeard(ctx) })
	if h.herald != nil {
		group.Go(func() error { return h.herald.Run(ctx) })
	}
	if h.metrics != nil {
		group.Go(func() error { return h.metrics.Run(ctx, metricsListener) })
		h.metrics.ready.Store(true)
	}
	if h.debug != nil {
		group.Go(func() error { return serveDebug(ctx, h.debug, h.log) })
	}
	h.log.Info("hub serves", slog.String(logging.Address, h.info.Addr), slog.String(logging.Path, h.Dir), slog.String(logging.Version, buildinfo.Version()))
	if ready != nil {
		ready(h.info)
	}
	return group.Wait()
}

// keepAdmin renews the admin's certificate in a hub that runs for long, and when the authority changes.
func (h *hub) keepAdmin(ctx context.Context) error {
	daily := time.NewTicker(24 * time.Hour)
	defer daily.Stop()
	for {
		changed := h.authority.Changed()
		now := time.Now()
		if err := h.admin().ensure(now); err != nil {
			h.log.Error("admin context not renewed", slog.Any(logging.Error, err))
		}
		h.warnOfEnd(now)
		select {
		case <-changed:
		case <-daily.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// warnOfEnd is in time for a rotation, which needs every spoke to have been here.
func (h *hub) warnOfEnd(now time.Time) {
	roots := h.authority.Roots()
	if end := roots[len(roots)-1].NotAfter; end.Sub(now) < authorityWarning {
		h.log.Warn("the authority ends; `hub authority rotate` makes the next one", slog.Time("not_after", end))
	}
}

// remember stores when spokes were last heard, so that the next start knows how old its news is.
func (h *hub) remember() error { return h.store.Heard(h.presence.Heard()) }

// tidy drops what the history's bounds leave out.
func (h *hub) tidy() {
	if err := h.store.Tidy(time.Now()); err != nil {
		h.log.Error("history not tidied", slog.Any(logging.Error, err))
	}
}

// keepHeard bounds how wrong that is for a hub that is killed. Heartbeats themselves are never stored.
func (h *hub) keepHeard(ctx context.Context) error {
	tick := time.NewTicker(heardInterval)
	defer tick.Stop()
	h.tidy()
	for {
		select {
		case <-tick.C:
			if err := h.remember(); err != nil {
				h.log.Error("ages of news not stored", slog.Any(logging.Error, err))
			}
			h.tidy()
		case <-ctx.Done():
			return nil
		}
	}
}
