package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/wheelwright-dev/wheelwright/integration/harness"
	"github.com/wheelwright-dev/wheelwright/integration/simfleet"
	"github.com/wheelwright-dev/wheelwright/integration/world"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// simulation is a hub process, a vendor and a simulated fleet.
type simulation struct {
	*story
	fleet *simfleet.Fleet
}

// takes is how long a release takes a simulated spoke.
const takes = 500 * time.Millisecond

// three waves, as a vendor writes them.
const threeWaves = `
rollout:
  waves:
  - {name: early, max: 20%}
  - {name: many, max: 30%}
  - {name: rest}
`

// simulate starts a hub and connects n simulated spokes to it.
func simulate(t testing.TB, n int) *simulation {
	t.Helper()
	s := &simulation{story: &story{t: t, dir: t.TempDir()}}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	t.Cleanup(cancel)
	s.ctx = ctx
	var err error
	s.bin, err = binaries()
	s.must(err)
	s.hub, err = world.NewHub(s.bin, s.dir)
	s.must(err)
	s.hub.Quiet() // a line for each of thousands of events costs more than the events
	t.Cleanup(s.end)
	s.must(s.hub.Start(ctx))
	root, err := world.Root()
	s.must(err)
	s.vendor, err = world.NewVendor(ctx, filepath.Join(s.dir, "vendor"), filepath.Join(root, "deploy", "examples", "shop"))
	s.must(err)
	s.watchShop()
	s.fleet, err = simfleet.Open(ctx, simfleet.Config{Context: s.hub.Context(), Distribution: "shop", Size: n, Takes: takes,
		Name:   func(n int) string { return fmt.Sprintf("provider-%d/cluster-%d", n%97, n) },
		Labels: func(n int) map[string]string { return map[string]string{"ring": fmt.Sprint(n % 10)} }})
	s.must(err)
	running, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { defer close(ended); _ = s.fleet.Run(running) }()
	t.Cleanup(func() {
		stop()
		<-ended
		if err := s.fleet.Close(); err != nil {
			t.Error(err)
		}
	})
	s.all("connected", func() int { return s.fleet.Connected() }, n)
	return s
}

// all waits until count is n.
func (s *simulation) all(what string, count func() int, n int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, 5*time.Minute)
	defer cancel()
	if err := s.fleet.Await(ctx, fmt.Sprintf("%d spokes %s", n, what), func() bool { return count() >= n }); err != nil {
		s.t.Fatalf("%v: %d are\n%s", err, count(), world.Tail(s.hub.Log, 20))
	}
}

// toAll has n spokes take a first release, and then one in three waves; it returns how long that took
// from the start of the rollout, and until the last spoke's word was on the hub's disk.
func (s *simulation) toAll(n int) (whole time.Duration, r *fleetv1.Rollout) {
	s.t.Helper()
	s.must(s.vendor.Release(s.ctx, "1.0.0"))
	s.all("running 1.0.0", func() int { return s.fleet.Running("1.0.0") }, n)
	s.rollout("1.0.0", "Completed")
	s.declare(threeWaves)
	s.must(s.vendor.Release(s.ctx, "1.1.0"))
	s.all("running 1.1.0", func() int { return s.fleet.Running("1.1.0") }, n)
	end := time.Now()
	r = s.rollout("1.1.0", "Completed")
	return end.Sub(r.GetStarted().AsTime()), r
}

// 200 simulated spokes take a release in three waves; of the next one a tenth of the first wave's fail, and
// it never reaches the second.
func TestSimulatedRollout(t *testing.T) {
	const n = 200
	s := simulate(t, n)
	_, r := s.toAll(n)
	var sizes []uint32
	for _, w := range r.GetWaves() {
		sizes = append(sizes, w.GetClusters())
	}
	if !slices.Equal(sizes, []uint32{40, 60, 100}) {
		t.Errorf("waves of %v, want 40, 60 and 100", sizes)
	}
	s.fleet.Fail("1.2.0", func(n int) bool { return n%10 == 0 })
	s.must(s.vendor.Release(s.ctx, "1.2.0"))
	r = s.rollout("1.2.0", "Holding")
	if waves := r.GetWaves(); waves[0].GetFailed() == 0 || waves[1].GetUnderway()+waves[1].GetDone() > 0 {
		t.Errorf("a broken budget: %v", waves)
	}
	if got := s.fleet.Running("1.2.0"); got > 40 {
		t.Errorf("%d spokes run a release that was held in a wave of 40", got)
	}
}

// A spoke whose clock is an hour off is shown with it, and takes releases all the same.
func TestAClockThatIsOff(t *testing.T) {
	s := simulate(t, 3)
	s.rehub("heartbeat: 1s\n")
	s.all("connected", func() int { return s.fleet.Connected() }, 3)
	s.fleet.Skew(1, time.Hour)
	s.must(world.Await(s.patiently(), "the clock to be noticed", func(ctx context.Context) error {
		r, err := s.hub.Run(ctx, "status")
		if err == nil && !strings.Contains(r.Out, "its clock is 1h") {
			err = fmt.Errorf("hub status says\n%s", r.Out)
		}
		return err
	}))
	if why := s.hubSays("why", "provider-1/cluster-1", "shop"); !strings.Contains(why, "its clock is 1h") {
		t.Errorf("hub why does not say it:\n%s", why)
	}
	s.must(s.vendor.Release(s.ctx, "1.0.0"))
	s.all("running 1.0.0", func() int { return s.fleet.Running("1.0.0") }, 3)
}

func BenchmarkSimulated1000(b *testing.B) {
	const n = 1000
	s := simulate(b, n)
	whole, r := s.toAll(n)
	fmt.Printf("FIGURE rollout.1000-clusters-overhead %.1f s simulated: %d clusters in waves of 20, 30 and 50 %%, start to all healthy %.1f s, less %d times %s that a release takes them\n",
		(whole - time.Duration(len(r.GetWaves()))*takes).Seconds(), n, whole.Seconds(), len(r.GetWaves()), takes)

	s.must(s.hub.Kill())
	s.all("cut off", func() int { return n - s.fleet.Connected() }, n)
	begin := time.Now()
	s.must(s.hub.Spawn())
	s.all("connected again", func() int { return s.fleet.Connected() }, n)
	s.fleet.Redial()
	s.must(world.Await(s.patiently(), "the hub to know all", func(ctx context.Context) error {
		status, err := s.fleet.Hub.GetStatus(ctx, &fleetv1.GetStatusRequest{}, grpc.WaitForReady(true))
		if err != nil {
			return err
		}
		known := 0
		for _, row := range status.GetRows() {
			if row.GetRunningVersion() == "1.1.0" && row.GetHealth() == "Healthy" && row.GetPhase() == "Succeeded" {
				known++
			}
		}
		if known < n {
			return fmt.Errorf("%d of %d are known", known, n)
		}
		return nil
	}))
	took := time.Since(begin)
	used, err := harness.CPU(s.hub.PID())
	s.must(err)
	fmt.Printf("FIGURE hub.restart-to-known %.1f s simulated: %d spokes cut off by kill -9, from the start of the process to all of them connected and healthy; the hub used %.1f s of one processor\n", took.Seconds(), n, used.Seconds())
}

func BenchmarkSimulated10000(b *testing.B) {
	const n, rounds = 10_000, 7
	s := simulate(b, n)
	s.must(s.vendor.Release(s.ctx, "1.0.0"))
	s.all("running 1.0.0", func() int { return s.fleet.Running("1.0.0") }, n)
	timed := func(args ...string) (time.Duration, string) {
		var all []time.Duration
		out := ""
		for range rounds {
			begin := time.Now()
			r, err := s.hub.Run(s.ctx, args...)
			s.must(err)
			if r.Code > 1 {
				b.Fatalf("hub %v: %s", args, r.Err)
			}
			out = r.Out
			all = append(all, time.Since(begin))
		}
		slices.Sort(all)
		return all[rounds/2], out
	}
	version, _ := timed("version")
	status, text := timed("status")
	b.Logf("hub status of %d clusters:\n%s", n, text)
	list, out := timed("get", "clusters", "-o", "json")
	var all struct {
		Clusters []json.RawMessage `json:"clusters"`
	}
	if err := json.Unmarshal([]byte(out), &all); err != nil || len(all.Clusters) != n {
		b.Fatalf("%d of %d clusters are listed: %v", len(all.Clusters), n, err)
	}
	fmt.Printf("FIGURE cli.status-10000-extra %.0f ms simulated: `hub status` takes %d ms, `hub version` %d ms, medians of %d\n", (status-version).Seconds()*1e3, status.Milliseconds(), version.Milliseconds(), rounds)
	fmt.Printf("FIGURE cli.list-10000-json %.0f ms simulated: `hub get clusters -o json`, %d KiB\n", list.Seconds()*1e3, len(out)>>10)
}
