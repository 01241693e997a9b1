package fleet_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/integration/fleet/spokes"
	"github.com/wheelwright-dev/wheelwright/integration/world"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// threeWaves, as a vendor writes them.
const threeWaves = `
rollout:
  waves:
  - {name: early, max: 20%}
  - {name: many, max: 30%}
  - {name: rest}
`

// declare adds to the wheelwright.yaml of every vendor.
func (s *stage) declare(text string) {
	s.t.Helper()
	for _, v := range s.vendors {
		name := filepath.Join(v.Dir, "dist", "wheelwright.yaml")
		data, err := os.ReadFile(name)
		s.must(err)
		s.must(os.WriteFile(name, append(data, text...), 0o644))
	}
}

// rolledOut waits until the rollout of a version of the first distribution is over.
func (s *stage) rolledOut(version string) (r *fleetv1.Rollout) {
	s.t.Helper()
	s.must(world.Await(s.patiently(), "the rollout of "+version, func(ctx context.Context) (err error) {
		if r, err = s.hub.Rollout(ctx, s.distributions[0], version); err == nil && r.GetPhase() != "Completed" {
			err = fmt.Errorf("it is %s: %s", r.GetPhase(), r.GetReason())
		}
		return err
	}))
	return r
}

// BenchmarkRollout measures B12: three waves over 100 of 1,000 clusters, and the same over all of them, from the start
// of the rollout until the last cluster's word is on the hub's disk. A release takes the clusters no time.
func BenchmarkRollout(b *testing.B) {
	const n = 1000
	part := []string{"shop"}
	for len(part) < 10 {
		part = append(part, "books")
	}
	took, used := waves(b, n, part...)
	figure("scale.b12-rollout-s", took.median(), "s", "three waves over %d of %d clusters, which a release takes no time: %v s; the hub used %v s of processor", n/10, n, took, used)
	took, used = waves(b, n, "shop")
	figure("rollout.1000-clusters-overhead", took.median(), "s", "%d clusters in waves of 20, 30 and 50 %%, which a release takes no time: %v s; the hub used %v s of processor", n, took, used)
}

func waves(b *testing.B, n int, distributions ...string) (took, processor samples) {
	s := setUp(b, n, stageOptions{}, distributions...)
	s.release("1.0.0")
	s.connect(n)
	s.running("1.0.0", n)
	s.declare(threeWaves)
	subscribed := n / len(distributions)
	for round := range rounds(b) {
		version := fmt.Sprintf("1.%d.0", round+1)
		c := clock(s.hub.PID())
		for _, v := range s.vendors[:1] {
			s.must(v.Release(s.ctx, version))
		}
		end := s.running(version, subscribed)
		r := s.rolledOut(version)
		var sizes []uint32
		for _, w := range r.GetWaves() {
			sizes = append(sizes, w.GetClusters())
		}
		if m := uint32(subscribed); !slices.Equal(sizes, []uint32{m / 5, m * 3 / 10, m / 2}) {
			b.Fatalf("waves of %v out of %d", sizes, m)
		}
		took = append(took, end.Sub(r.GetStarted().AsTime()).Seconds())
		processor = append(processor, c.between(r.GetStarted().AsTime(), end))
	}
	return took, processor
}

// BenchmarkRestart measures how soon a hub that was killed knows its fleet again, by what it tells its operator.
func BenchmarkRestart(b *testing.B) {
	const n = 1000
	s := setUp(b, n, stageOptions{settled: true}, "shop")
	s.release("1.0.0")
	s.connect(n)
	s.running("1.0.0", n)
	var took, processor samples
	for range rounds(b) {
		s.must(s.hub.Kill())
		s.await(spokes.Goal{State: spokes.Away, Spokes: n})
		begin := time.Now()
		s.must(s.hub.Spawn())
		s.await(spokes.Goal{State: spokes.Connected, Spokes: n})
		s.must(world.Await(s.patiently(), "the hub to know all", func(ctx context.Context) error {
			status, err := s.hub.Status(ctx)
			if err != nil {
				return err
			}
			known := 0
			for _, row := range status.GetRows() {
				if world.Runs("1.0.0")(row) == nil {
					known++
				}
			}
			if known < n {
				return fmt.Errorf("%d of %d are known", known, n)
			}
			return nil
		}))
		took = append(took, time.Since(begin).Seconds())
		processor = append(processor, used(b, s.hub.PID()))
	}
	figure("hub.restart-to-known", took.median(), "s", "%d spokes cut off by kill -9, from the start of the process to all of them connected and healthy: %v s; the hub used %v s of processor", n, took, processor)
}

// BenchmarkCommands measures what an operator of 10,000 clusters waits for.
func BenchmarkCommands(b *testing.B) {
	n := fleetSize(b)
	s := setUp(b, n, stageOptions{}, "shop")
	s.release("1.0.0")
	s.connect(n)
	s.running("1.0.0", n)
	once := func(all samples, args ...string) (samples, string) {
		begin := time.Now()
		r, err := s.hub.Run(s.ctx, args...)
		s.must(err)
		if r.Code > 1 {
			b.Fatalf("hub %v: %s", args, r.Err)
		}
		return append(all, time.Since(begin).Seconds()*1e3), r.Out
	}
	var version, status, list samples
	var text, out string
	for range rounds(b) {
		version, _ = once(version, "version")
		status, text = once(status, "status")
		list, out = once(list, "get", "clusters", "-o", "json")
	}
	b.Logf("hub status of %d clusters:\n%s", n, text)
	var all struct {
		Clusters []json.RawMessage `json:"clusters"`
	}
	if err := json.Unmarshal([]byte(out), &all); err != nil || len(all.Clusters) != n {
		b.Fatalf("%d of %d clusters are listed: %v", len(all.Clusters), n, err)
	}
	figure("cli.status-10000-extra", status.median()-version.median(), "ms", "spokes=%d, `hub status` takes %v ms, `hub version` %v ms", n, status, version)
	figure("cli.list-10000-json", list.median(), "ms", "spokes=%d, `hub get clusters -o json`, %d KiB: %v ms", n, len(out)>>10, list)
}
