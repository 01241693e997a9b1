package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/integration/fleet"
	"github.com/wheelwright-dev/wheelwright/integration/fleet/spokes"
	"github.com/wheelwright-dev/wheelwright/integration/world"
)

// simulation is a hub process, a vendor and a simulated fleet.
type simulation struct {
	*story
	fleet *fleet.Fleet
}

// loadGenerator is the program of the simulated spokes.
var loadGenerator = sync.OnceValues(func() (string, error) {
	root, err := world.Root()
	if err != nil {
		return "", err
	}
	if _, err := binaries(); err != nil { // they make the folder
		return "", err
	}
	return fleet.Build(context.Background(), root, binFolder(), os.Getenv("WHEELWRIGHT_RACE") != "")
})

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
	program, err := loadGenerator()
	s.must(err)
	s.fleet, err = fleet.Start(program, s.dir)
	s.must(err)
	t.Cleanup(func() {
		if err := s.fleet.Close(); err != nil {
			t.Error(err)
		}
	})
	identities := filepath.Join(s.dir, "identities")
	s.must(s.fleet.Enrol(ctx, spokes.Enrolment{Context: s.hub.Context(), File: identities, Clusters: clustersOf(n)}))
	_, err = s.fleet.Open(ctx, spokes.Opening{File: identities, Addr: s.hub.Addr, Distributions: []string{"shop"}, Takes: takes, Retry: takes})
	s.must(err)
	s.must(s.fleet.Connect(ctx, 0, n))
	s.connected(n)
	return s
}

func clustersOf(n int) (all []spokes.Cluster) {
	for i := range n {
		all = append(all, spokes.Cluster{Name: fmt.Sprintf("provider-%d/cluster-%d", i%97, i), Labels: map[string]string{"ring": fmt.Sprint(i % 10)}})
	}
	return all
}

// connected waits until n spokes are.
func (s *simulation) connected(n int) {
	s.t.Helper()
	s.await(spokes.Goal{State: spokes.Connected, Spokes: n})
}

// running waits until the hub has acknowledged of n spokes that they run version, and tells when that was.
func (s *simulation) running(version string, n int) time.Time {
	s.t.Helper()
	return s.await(spokes.Goal{State: spokes.Runs, Version: version, Spokes: n})
}

func (s *simulation) await(g spokes.Goal) time.Time {
	s.t.Helper()
	g.Within = 5 * time.Minute
	at, err := s.fleet.Await(s.ctx, g)
	if err != nil {
		s.t.Fatalf("%v\n%s", err, world.Tail(s.hub.Log, 20))
	}
	return at
}

// 200 simulated spokes take a release in three waves; of the next one a tenth of the first wave's fail, and
// it never reaches the second.
func TestSimulatedRollout(t *testing.T) {
	const n = 200
	s := simulate(t, n)
	s.must(s.vendor.Release(s.ctx, "1.0.0"))
	s.running("1.0.0", n)
	s.rollout("1.0.0", "Completed")
	s.declare(threeWaves)
	s.must(s.vendor.Release(s.ctx, "1.1.0"))
	s.running("1.1.0", n)
	r := s.rollout("1.1.0", "Completed")
	var sizes []uint32
	for _, w := range r.GetWaves() {
		sizes = append(sizes, w.GetClusters())
	}
	if !slices.Equal(sizes, []uint32{40, 60, 100}) {
		t.Errorf("waves of %v, want 40, 60 and 100", sizes)
	}
	var tenth []int
	for i := range n / 10 {
		tenth = append(tenth, 10*i)
	}
	s.must(s.fleet.Fail(s.ctx, "1.2.0", tenth...))
	s.must(s.vendor.Release(s.ctx, "1.2.0"))
	r = s.rollout("1.2.0", "Holding")
	if waves := r.GetWaves(); waves[0].GetFailed() == 0 || waves[1].GetUnderway()+waves[1].GetDone() > 0 {
		t.Errorf("a broken budget: %v", waves)
	}
	count, err := s.fleet.Count(s.ctx)
	s.must(err)
	if got := count.Running["1.2.0"]; got > 40 {
		t.Errorf("%d spokes run a release that was held in a wave of 40", got)
	}
}

// A spoke whose clock is an hour off is shown with it, and takes releases all the same.
func TestAClockThatIsOff(t *testing.T) {
	s := simulate(t, 3)
	s.rehub("heartbeat: 1s\n")
	s.connected(3)
	s.must(s.fleet.Skew(s.ctx, 1, time.Hour))
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
	s.running("1.0.0", 3)
}
