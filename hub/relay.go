package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/wheelwright-dev/wheelwright/hub/internal/blob"
	"github.com/wheelwright-dev/wheelwright/hub/internal/relay"
)

const (
	defaultRelayListen = "127.0.0.1:7444"
	defaultRelayKeep   = 2 << 30
)

// RelayConfig says where a relay lives.
type RelayConfig struct {
	Dir     string // data folder, with the identity that `hub relay join` left there
	Listen  string // HOST:PORT; default 127.0.0.1:7444
	Metrics string // HOST:PORT; empty: none
	Keep    int64  // bytes of compressed bundles; default 2 GiB
	Log     *slog.Logger
}

// RelayInfo is what a caller of RunRelay may want to tell.
type RelayInfo struct {
	Name    string
	Hub     string // HOST:PORT
	Addr    string // where it listens
	Metrics string // HOST:PORT; empty: none
}

// RunRelay runs a relay until ctx ends, and returns nil then. ready is called once, when it answers; the hub need not.
func RunRelay(ctx context.Context, cfg RelayConfig, ready func(RelayInfo)) (err error) {
	if cfg.Dir == "" {
		return errors.New("no data folder; name it with `hub relay serve --data DIR`")
	}
	if cfg.Listen == "" {
		cfg.Listen = defaultRelayListen
	}
	if cfg.Keep == 0 {
		cfg.Keep = defaultRelayKeep
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	if _, err := relay.LoadIdentity(cfg.Dir); err != nil { // before a folder is made in the wrong place
		return err
	}
	bundles, err := blob.Open(filepath.Join(cfg.Dir, bundlesFolder))
	if err != nil {
		return err
	}
	listener, err := listen("listen for spokes", cfg.Listen, "--listen")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ignoreClosed(listener)()) }()
	r, err := relay.New(relay.Config{Dir: cfg.Dir, Listener: listener, Bundles: bundles, Keep: cfg.Keep, Log: cfg.Log})
	if err != nil {
		return err
	}
	info := RelayInfo{Name: r.Identity().Name, Hub: r.Identity().Hub, Addr: listener.Addr().String()}
	group, ctx := errgroup.WithContext(ctx)
	if cfg.Metrics != "" {
		var l net.Listener
		if l, err = listen("listen for metrics", cfg.Metrics, "--metrics"); err != nil {
			return err
		}
		info.Metrics = l.Addr().String()
		group.Go(func() error {
			return serveMetrics(ctx, l, newRelayMetrics(r.Stats), "wheelwright_relay", func() bool { return r.Stats().HubConnected }, cfg.Log)
		})
	}
	group.Go(func() error {
		if err := r.Run(ctx); err != nil {
			return fmt.Errorf("relay: %w", err)
		}
		return nil
	})
	if ready != nil {
		ready(info)
	}
	return group.Wait()
}

// relayMetrics reads a relay's counts at each scrape.
type relayMetrics struct {
	stats func() relay.Stats
	descs []*prometheus.Desc
}

func newRelayMetrics(stats func() relay.Stats) *relayMetrics {
	m := &relayMetrics{stats: stats}
	for _, v := range m.values() {
		m.descs = append(m.descs, prometheus.NewDesc("wheelwright_relay_"+v.name, v.help, nil, nil))
	}
	return m
}

type relayValue struct {
	name, help string
	kind       prometheus.ValueType
	value      float64
}

func (m *relayMetrics) values() []relayValue {
	s := m.stats()
	connected := 0.0
	if s.HubConnected {
		connected = 1
	}
	return []relayValue{
		{"hub_connected", "1 while the stream to the hub is up.", prometheus.GaugeValue, connected},
		{"channels", "Spokes' channels that are open.", prometheus.GaugeValue, float64(s.Channels)},
		{"passed", "Connections that are passed on to the hub as they are.", prometheus.GaugeValue, float64(s.Passed)},
		{"passed_total", "Connections that were passed on to the hub as they are.", prometheus.CounterValue, float64(s.PassedTotal)},
		{"refused_total", "Connections that were refused.", prometheus.CounterValue, float64(s.Refused)},
		{"slow_total", "Channels that were ended because their spoke did not read.", prometheus.CounterValue, float64(s.Slow)},
		{"bundle_hits_total", "Bundles that were served from the folder.", prometheus.CounterValue, float64(s.BundleHits)},
		{"bundle_misses_total", "Bundles that were fetched from the hub.", prometheus.CounterValue, float64(s.BundleMisses)},
		{"bundle_sent_bytes_total", "Compressed bytes of bundles that were sent to spokes.", prometheus.CounterValue, float64(s.BundleBytes)},
	}
}

// Describe implements prometheus.Collector.
func (m *relayMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range m.descs {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (m *relayMetrics) Collect(out chan<- prometheus.Metric) {
	for i, v := range m.values() {
		out <- prometheus.MustNewConstMetric(m.descs[i], v.kind, v.value)
	}
}
