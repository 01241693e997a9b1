package hub

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/config"
	"github.com/wheelwright-dev/wheelwright/pkg/gitrepo"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/plan"
	"github.com/wheelwright-dev/wheelwright/pkg/pluginlist"
)

const (
	defaultListen    = "127.0.0.1:7443"
	defaultPoll      = 30 * time.Second
	defaultHeartbeat = 10 * time.Second
	// defaultComeBack outlasts a holiday and a cluster that is shut down over it.
	defaultComeBack = 30 * 24 * time.Hour
	// defaultAge moves who is connected to another hub behind the same address within a day.
	defaultAge = 24 * time.Hour
	// defaultFetches is far from what a hub could send at once, and bounds what they take of its memory.
	defaultFetches = 256
	// What is kept of deltas, beside the bundles.
	mostDeltas     = 10_000
	mostDeltaBytes = 1 << 30
)

// settings are Config and hub.yaml together: what Config says wins.
type settings struct {
	listen, metrics string
	advertise       []string
	poll, heartbeat time.Duration
	comeBack        time.Duration // after its certificate's end within which a spoke may renew it
	age             time.Duration // of a connection; 0: as old as it likes
	bundleRate      int64         // bytes a second; 0: no limit
	bundleFetches   int64
	git             gitrepo.Credentials
	rollouts        map[string]plan.Plan // by distribution
	notifiers       []pluginlist.Plugin
	oidc            config.OIDC
	history         config.History
	log             *slog.Logger
}

func settle(cfg Config) (settings, error) {
	var file config.Config
	if cfg.File != "" {
		var err error
		if file, err = config.Load(cfg.File); err != nil {
			return settings{}, err
		}
	}
	s := settings{
		listen:        cmp.Or(cfg.Listen, file.Listen, defaultListen),
		metrics:       cmp.Or(cfg.Metrics, file.Metrics),
		advertise:     file.Advertise,
		poll:          cmp.Or(cfg.Poll, file.Poll, defaultPoll),
		heartbeat:     cmp.Or(cfg.Heartbeat, file.Heartbeat, defaultHeartbeat),
		bundleRate:    cmp.Or(cfg.BundleRate, file.BundleRate),
		bundleFetches: cmp.Or(cfg.BundleFetches, file.BundleFetches, defaultFetches),
		git:           file.Git,
		rollouts:      file.Rollouts,
		notifiers:     file.Plugins,
		oidc:          file.OIDC,
		history:       file.History,
		log:           cfg.Log,
	}
	if s.comeBack = defaultComeBack; file.RenewAfterExpiry != nil {
		s.comeBack = *file.RenewAfterExpiry
	}
	if s.age = defaultAge; file.ConnectionAge != nil {
		s.age = *file.ConnectionAge
	}
	if cfg.BundleRate < 0 || cfg.BundleRate > 0 && cfg.BundleRate < 64<<10 {
		return s, fmt.Errorf("--bundle-rate %d: want at least %d bytes a second, or 0 for no limit", cfg.BundleRate, 64<<10)
	}
	if cfg.BundleFetches < 0 {
		return s, fmt.Errorf("--bundle-fetches %d: want at least 1", cfg.BundleFetches)
	}
	if cfg.Advertise != "" {
		if err := config.CheckAdvertised(cfg.Advertise); err != nil {
			return s, fmt.Errorf("--advertise %w", err)
		}
		s.advertise = append([]string{cfg.Advertise}, s.advertise...)
	}
	if s.log == nil || file.LogLevel != "" || file.LogFormat != "" {
		var err error
		if s.log, err = logging.New(os.Stderr, cmp.Or(file.LogLevel, "info"), cmp.Or(file.LogFormat, "text")); err != nil {
			return s, err
		}
	}
	return s, nil
}

// planOf is the plan that hub.yaml has for the releases of a distribution.
func (s settings) planOf(distribution string) (p plan.Plan, found bool) {
	p, found = s.rollouts[distribution]
	return p, found
}

// listen opens a TCP port, or says what to do about it.
func listen(what, addr, flag string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err == nil {
		return l, nil
	}
	next := "want HOST:PORT of this machine in " + flag
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		next = "`ss -ltnp` shows who has the port; stop that, or choose another with " + flag
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		next = "`ip addr` lists this machine's addresses; choose one with " + flag
	case errors.Is(err, syscall.EACCES):
		next = "choose a port above 1023 with " + flag
	}
	return nil, fmt.Errorf("%s: %w; %s", what, err, next)
}

// dialAddress is what others should dial to reach a listener: what is advertised, else the listener's own
// address, else, where it listens on all of the machine's, the machine's name.
func dialAddress(listener net.Addr, advertise []string) (string, error) {
	host, port, err := net.SplitHostPort(listener.String())
	if err != nil {
		return "", fmt.Errorf("listener's address: %w", err)
	}
	if len(advertise) > 0 {
		if _, _, err := net.SplitHostPort(advertise[0]); err == nil {
			return advertise[0], nil
		}
		return net.JoinHostPort(advertise[0], port), nil
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		if host, err = os.Hostname(); err != nil {
			host = "127.0.0.1"
		}
	}
	return net.JoinHostPort(host, port), nil
}

// certificateHosts are all names under which the hub may be reached.
func certificateHosts(listener net.Addr, advertise []string) []string {
	hosts := slices.Clone(advertise)
	if tcp, ok := listener.(*net.TCPAddr); ok && !tcp.IP.IsUnspecified() {
		hosts = append(hosts, tcp.IP.String())
	}
	if name, err := os.Hostname(); err == nil {
		hosts = append(hosts, name)
	}
	return hosts
}
