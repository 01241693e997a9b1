package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/wheelwright-dev/wheelwright/hub/internal/api/sync"
	"github.com/wheelwright-dev/wheelwright/hub/internal/presence"
	"github.com/wheelwright-dev/wheelwright/hub/internal/server"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/buildinfo"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
)

// metrics serves /metrics, /healthz and /readyz in plain HTTP. It reads the store at each scrape, so
// that a number is never older than the record.
type metrics struct {
	store    *store.Store
	presence *presence.Registry
	stats    func() syncapi.Stats
	built    func() uint64
	traffic  func() server.Stats
	ready    atomic.Bool
	log      *slog.Logger

	clusters, connected, unserved, installations, releases, events, offers *prometheus.Desc
	bytes, deltas, fetches                                                 *prometheus.Desc
	connections, waiting, admitted, refused, slow                          *prometheus.Desc
	writes, changes, failures, failing, size, free                         *prometheus.Desc
}

func newMetrics(s *store.Store, p *presence.Registry, stats func() syncapi.Stats, built func() uint64, traffic func() server.Stats, log *slog.Logger) *metrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("wheelwright_hub_"+name, help, labels, nil)
	}
	return &metrics{store: s, presence: p, stats: stats, built: built, traffic: traffic, log: log,
		clusters:      desc("clusters", "Clusters that the hub knows."),
		connected:     desc("spokes_connected", "Spokes that are connected now."),
		unserved:      desc("identities_unserved", "Clusters whose identity waits to be accepted, is in quarantine, or was turned away.", "standing"),
		installations: desc("installations", "Subscriptions of clusters, by the phase of their delivery.", "distribution", "phase"),
		releases:      desc("releases", "Releases, by how they were judged.", "distribution", "phase"),
		events:        desc("events_received_total", "Events of spokes that were stored."),
		offers:        desc("offers_sent_total", "Desired states that were sent to spokes."),
		connections:   desc("connections", "Connections that are open."),
		waiting:       desc("connections_waiting", "Connections and streams that wait to be let in."),
		admitted:      desc("connections_admitted_total", "Connections that were let in."),
		refused:       desc("connections_refused_total", "Connections and streams that were turned away: more than the processors take, or than files may be opened.", "reason"),
		slow:          desc("streams_cut_slow_total", "Streams that were cut because their callers did not read what they were sent."),
		bytes:         desc("bundle_sent_bytes_total", "Compressed bytes of bundles that were sent to spokes, as whole bundles and as deltas.", "encoding"),
		deltas:        desc("deltas_built_total", "Deltas between two releases that were made."),
		fetches:       desc("bundle_fetches_waiting", "Fetches of bundles that wait their turn."),
		writes:        desc("store_writes_total", "Transactions that the store committed, each with two syncs of the disk."),
		changes:       desc("store_changes_total", "Changes that were committed in them."),
		failures:      desc("store_write_failures_total", "Transactions that the store could not commit."),
		failing:       desc("store_failing", "1 while the store cannot be written: its disk is full, say."),
		size:          desc("store_bytes", "Size of the store's file."),
		free:          desc("store_free_bytes", "Of that, in pages that are free."),
	}
}

// Run serves on l until ctx ends.
func (m *metrics) Run(ctx context.Context, l net.Listener) error {
	return serveMetrics(ctx, l, m, "wheelwright_hub", m.ready.Load, m.log)
}

// serveMetrics serves what collector knows, and what every process has to say of itself, until ctx ends.
func serveMetrics(ctx context.Context, l net.Listener, collector prometheus.Collector, name string, ready func() bool, log *slog.Logger) error {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name + "_build_info", Help: "Always 1.",
			ConstLabels: prometheus.Labels{"version": buildinfo.Version(), "commit": buildinfo.Commit()}}, func() float64 { return 1 }))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !ready() {
			http.Error(w, "not serving", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	return serveHTTP(ctx, l, mux, "metrics", log)
}

// serveHTTP answers on a listener until ctx ends. What is cut short then is asked for again.
func serveHTTP(ctx context.Context, l net.Listener, handler http.Handler, what string, log *slog.Logger) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		_ = server.Close()
	})
	err := server.Serve(l)
	if !stop() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve %s: %w", what, err)
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.clusters, m.connected, m.unserved, m.installations, m.releases, m.events, m.offers, m.bytes, m.deltas, m.fetches,
		m.connections, m.waiting, m.admitted, m.refused, m.slow, m.writes, m.changes, m.failures, m.failing, m.size, m.free} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	stats := m.stats()
	out <- prometheus.MustNewConstMetric(m.events, prometheus.CounterValue, float64(stats.Events))
	out <- prometheus.MustNewConstMetric(m.offers, prometheus.CounterValue, float64(stats.OffersSent))
	traffic := m.traffic()
	out <- prometheus.MustNewConstMetric(m.connections, prometheus.GaugeValue, float64(traffic.Connections))
	out <- prometheus.MustNewConstMetric(m.waiting, prometheus.GaugeValue, float64(traffic.Waiting))
	out <- prometheus.MustNewConstMetric(m.admitted, prometheus.CounterValue, float64(traffic.Admitted))
	out <- prometheus.MustNewConstMetric(m.refused, prometheus.CounterValue, float64(traffic.RefusedBusy), "busy")
	out <- prometheus.MustNewConstMetric(m.refused, prometheus.CounterValue, float64(traffic.RefusedFiles), "files")
	out <- prometheus.MustNewConstMetric(m.slow, prometheus.CounterValue, float64(traffic.Slow))
	out <- prometheus.MustNewConstMetric(m.bytes, prometheus.CounterValue, float64(stats.WholeBytes), "whole")
	out <- prometheus.MustNewConstMetric(m.bytes, prometheus.CounterValue, float64(stats.DeltaBytes), "delta")
	out <- prometheus.MustNewConstMetric(m.deltas, prometheus.CounterValue, float64(m.built()))
	out <- prometheus.MustNewConstMetric(m.fetches, prometheus.GaugeValue, float64(stats.Waiting))
	m.collectDisk(out)
	if err := m.collectStored(out); err != nil {
		m.log.Error("metrics are incomplete", slog.Any(logging.Error, err))
		out <- prometheus.NewInvalidMetric(m.clusters, err)
	}
}

func (m *metrics) collectDisk(out chan<- prometheus.Metric) {
	s, failing := m.store.Stats(), 0.0
	if s.Trouble != nil {
		failing = 1
	}
	for d, n := range map[*prometheus.Desc]uint64{m.writes: s.Writes, m.changes: s.Changes, m.failures: s.Failures} {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n))
	}
	for d, n := range map[*prometheus.Desc]float64{m.failing: failing, m.size: float64(s.Size), m.free: float64(s.Free)} {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, n)
	}
}

func (m *metrics) collectStored(out chan<- prometheus.Metric) error {
	gauge := func(d *prometheus.Desc, v int, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	clusters, err := m.store.Clusters()
	if err != nil {
		return err
	}
	connected, standings := 0, map[store.Standing]int{store.Pending: 0, store.Quarantined: 0, store.Rejected: 0}
	for _, c := range clusters {
		if c.Standing != store.Accepted {
			standings[c.Standing]++
		}
		if m.presence.Connected(c.Name) {
			connected++
		}
	}
	gauge(m.clusters, len(clusters))
	gauge(m.connected, connected)
	for standing, n := range standings {
		gauge(m.unserved, n, string(standing))
	}
	type labels struct{ distribution, phase string }
	distributions, err := m.store.Distributions()
	if err != nil {
		return err
	}
	judged, phases := map[labels]int{}, map[labels]int{}
	watched := map[string]bool{}
	for _, d := range distributions {
		releases, err := m.store.Releases(d.Name)
		if err != nil {
			return err
		}
		watched[d.Name] = true
		for _, r := range releases {
			judged[labels{d.Name, string(r.Phase)}]++
		}
	}
	for l, n := range judged {
		gauge(m.releases, n, l.distribution, l.phase)
	}
	all, err := m.store.Installations()
	if err != nil {
		return err
	}
	for _, list := range all {
		for _, i := range list {
			if watched[i.Distribution] { // any other name is only a spoke's word
				phases[labels{i.Distribution, string(i.Phase)}]++
			}
		}
	}
	for l, n := range phases {
		gauge(m.installations, n, l.distribution, l.phase)
	}
	return nil
}
