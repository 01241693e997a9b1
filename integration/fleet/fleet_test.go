package fleet_test

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/integration/fleet/spokes"
	"github.com/wheelwright-dev/wheelwright/integration/harness"
	"github.com/wheelwright-dev/wheelwright/integration/world"
)

// BenchmarkDelivery measures B1 and B2: what an idle spoke costs the hub in memory, and a release that goes to all
// of them in processor time and seconds, against a bare server that sends the same bytes to as many streams.
func BenchmarkDelivery(b *testing.B) {
	n := fleetSize(b)
	s := setUp(b, n, stageOptions{}, "shop")
	s.release("1.0.0")
	s.stored("1.0.0")
	each, resident := idle(s, n)
	figure("scale.b2-idle-kb", each.median(), "KB", "spokes=%d, live heap and stacks of the hub after a collection, over those without them: %v; resident memory %.1f KB each", n, each, resident)
	if harness.ProfileFile("scale.b2-idle-kb") != "" {
		s.must(s.profile("scale.b2-idle-kb", "heap?gc=1"))
	}

	bare := s.bare()
	defer func() { must(b, bare.Close()) }()
	s.must(bare.Connect(s.ctx, s.roster.Spokes[:n]))
	var cpu, wall, seconds, hubs, bares samples
	size := 0
	for round := range rounds(b) {
		version := fmt.Sprintf("1.%d.0", round+1)
		s.must(s.fleet.Reset(s.ctx))
		c := clock(s.hub.PID())
		s.release(version)
		end := s.running(version, n)
		begin := s.stored(version)
		hub := c.between(begin, end)
		took := end.Sub(begin).Seconds()
		count := s.count()
		if count.Fetches != n {
			b.Errorf("%d spokes fetched %d times", n, count.Fetches)
		}
		size = int(count.Bundles) / n

		before := used(b, bare.PID())
		bareTook, err := bare.Send(s.ctx, size, patience)
		s.must(err)
		bareUsed := used(b, bare.PID()) - before
		b.Logf("%s: hub %.2f s of processor, %.2f s; bare %.2f s of processor, %.2f s; %d bytes to each", version, hub, took, bareUsed, bareTook.Seconds(), size)
		cpu, wall, seconds = append(cpu, hub/bareUsed), append(wall, took/bareTook.Seconds()), append(seconds, took)
		hubs, bares = append(hubs, hub), append(bares, bareUsed)
	}
	figure("scale.b1-vs-bare", cpu.median(), "ratio", "spokes=%d, the hub's processor time from the tag stored to the last acknowledged %v s, a bare grpc loop that sends the same %d bytes to each %v s; ratio %v", n, hubs, size, bares, cpu)
	figure("scale.b1-wall-vs-bare", wall.median(), "ratio", "spokes=%d, the same in wall time, the spokes on the same processors; ratio %v", n, wall)
	figure("scale.b1-seconds", seconds.median(), "s", "spokes=%d, %v s; %d bytes to each", n, seconds, size)
	s.profiled("scale.b1-vs-bare", seconds.median()+1, func() {
		s.release("2.0.0")
		s.running("2.0.0", n)
	})
}

// idle connects n spokes and measures what the hub keeps for each, in KB: what lives, and what is resident.
func idle(s *stage, n int) (with samples, resident float64) {
	s.t.Helper()
	var without samples
	for range rounds(s.t) {
		without = append(without, live(s.ctx, s.t, s.hub.Debug))
	}
	before, err := world.RSS(s.hub.PID())
	s.must(err)
	s.connect(n)
	s.running("1.0.0", n)
	for range rounds(s.t) {
		with = append(with, (live(s.ctx, s.t, s.hub.Debug)-without.median())/float64(n)/(1<<10))
	}
	after, err := world.RSS(s.hub.PID())
	s.must(err)
	return with, float64(after-before) / float64(n) / (1 << 10)
}

// BenchmarkReconnect measures B4: the hub is killed under its fleet and started again.
func BenchmarkReconnect(b *testing.B) {
	n := fleetSize(b)
	s := setUp(b, n, stageOptions{settled: true}, "shop")
	s.release("1.0.0")
	s.stored("1.0.0")
	db := filepath.Join(s.hub.Dir, "hub.db")

	// A start writes by itself, with nobody there.
	before := writes(b, db)
	s.must(s.hub.Kill())
	s.start()
	own := writes(b, db) - before
	s.connect(n)
	s.running("1.0.0", n)

	var cpu, hubs, bares, seconds, written, peaks, resumed samples
	for range rounds(b) {
		s.must(s.fleet.Reset(s.ctx))
		s.must(s.hub.Kill())
		s.await(spokes.Goal{State: spokes.Away, Spokes: n})
		before := writes(b, db)
		s.must(s.fleet.Reset(s.ctx))
		begin := time.Now()
		s.must(s.hub.Spawn())
		took := s.await(spokes.Goal{State: spokes.Connected, Spokes: n}).Sub(begin).Seconds()
		hub := used(b, s.hub.PID())
		wrote := max(0, writes(b, db)-before-own)
		c := s.count()
		peak, total := 0, 0
		for _, each := range c.Handshakes {
			peak, total = max(peak, each), total+each
		}
		clock := slices.Sorted(maps.Keys(c.Handshakes))
		mean := float64(total) / float64(clock[len(clock)-1]-clock[0]+1)

		bare := s.bare()
		s.must(bare.Connect(s.ctx, s.roster.Spokes[:n]))
		bareUsed := used(b, bare.PID())
		s.must(bare.Close())
		b.Logf("hub %.2f s of processor, all back after %.2f s, %d dials, %d handshakes, %d resumed, peak %d/s, mean %.0f/s, %v writes; bare %.2f s", hub, took, c.Dials, total, c.Resumed, peak, mean, wrote, bareUsed)
		cpu, hubs, bares, seconds = append(cpu, hub/bareUsed), append(hubs, hub), append(bares, bareUsed), append(seconds, took)
		written, peaks, resumed = append(written, wrote), append(peaks, float64(peak)/mean), append(resumed, float64(c.Resumed)/float64(total))
	}
	figure("scale.b4-vs-bare", cpu.median(), "ratio", "spokes=%d, the hub's processor time from its start after kill -9 until all are back %v s, a bare server's for as many new mutual-TLS streams %v s; ratio %v; of the hub's handshakes %.0f %% were resumed", n, hubs, bares, cpu, 100*resumed.median())
	figure("scale.b4-store-writes", written.median(), "writes", "spokes=%d, transactions that wrote, without those of a start with nobody there: %v", n, written)
	figure("scale.b4-seconds", seconds.median(), "s", "spokes=%d, from the start of the process until the last is back: %v", n, seconds)
	figure("scale.b4-peak-mean", peaks.median(), "ratio", "spokes=%d, handshakes in the busiest second over the mean of all: %v", n, peaks)
	s.must(s.hub.Kill())
	s.await(spokes.Goal{State: spokes.Away, Spokes: n})
	s.must(s.hub.Spawn())
	s.profiled("scale.b4-vs-bare", seconds.median(), func() { s.await(spokes.Goal{State: spokes.Connected, Spokes: n}) })
}
