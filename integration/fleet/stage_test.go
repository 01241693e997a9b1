// Package fleet_test measures a hub under thousands of simulated spokes: what `make bench-fleet` runs.
package fleet_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/integration/fleet"
	"github.com/wheelwright-dev/wheelwright/integration/fleet/spokes"
	"github.com/wheelwright-dev/wheelwright/integration/world"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if err := os.RemoveAll(folder()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// folder holds the programs, and data folders of hubs whose fleets are enrolled, until all tests are over.
func folder() string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("wheelwright-fleet-%d", os.Getpid()))
}

// patience bounds each wait: what is slow is for the figures to say.
const patience = 10 * time.Minute

type programs struct {
	world.Binaries
	fleet string
}

var built = sync.OnceValues(func() (p programs, err error) {
	root, err := world.Root()
	if err != nil {
		return p, err
	}
	race := os.Getenv("WHEELWRIGHT_RACE") != ""
	if p.Binaries, err = world.Build(context.Background(), root, folder(), race); err != nil {
		return p, err
	}
	p.fleet, err = fleet.Build(context.Background(), root, folder(), race)
	return p, err
})

// number reads a variable that makes a benchmark smaller, for those who work on it.
func number(t testing.TB, variable string, usual int) int {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%s: want a number above 0", variable, text)
	}
	return n
}

func fleetSize(t testing.TB) int { return number(t, "WHEELWRIGHT_FLEET_SPOKES", 10_000) }
func rounds(t testing.TB) int    { return number(t, "WHEELWRIGHT_FLEET_ROUNDS", 7) }

// stage is a hub process, the vendors of its distributions, and a simulated fleet that is enrolled and away.
type stage struct {
	t      testing.TB
	ctx    context.Context
	dir    string
	bin    programs
	hub    *world.Hub
	fleet  *fleet.Fleet
	roster spokes.Roster

	opening spokes.Opening // of the fleet

	distributions []string
	vendors       []*world.Vendor // of the distributions; one may have several
}

// enrolled are data folders of hubs that know so many clusters: enrolling them takes longer than most of what is
// measured.
var enrolled = map[int]string{}

func template(t testing.TB, bin programs, size int) string {
	t.Helper()
	if dir, ok := enrolled[size]; ok {
		return dir
	}
	dir, err := os.MkdirTemp(folder(), "enrolled-")
	must(t, err)
	hub, err := world.NewHub(bin.Binaries, dir)
	must(t, err)
	t.Cleanup(func() { must(t, hub.Kill()) }) // where it was not stopped
	hub.Quiet()
	must(t, hub.Start(t.Context()))
	f, err := fleet.Start(bin.fleet, dir)
	must(t, err)
	defer func() { must(t, f.Close()) }()
	var all []spokes.Cluster
	for n := range size {
		all = append(all, spokes.Cluster{Name: fmt.Sprintf("provider-%d/cluster-%d", n%97, n), Labels: map[string]string{"ring": strconv.Itoa(n % 10)}})
	}
	begin := time.Now()
	err = f.Enrol(t.Context(), spokes.Enrolment{Context: hub.Context(), File: filepath.Join(dir, "identities"), Clusters: all})
	_, stopped := hub.Stop()
	must(t, errors.Join(err, stopped))
	t.Logf("%d clusters enrolled in %v", size, time.Since(begin).Round(time.Millisecond))
	enrolled[size] = dir
	return dir
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// stageOptions are what differs between stages.
type stageOptions struct {
	settled bool // the fleet's sessions count as old at once
	content int  // bytes of what all releases have, which cannot be compressed; 0: usual
	files   int  // that the hub may open; 0: as many as this process
}

// usual is a release that is much larger than what is new in it.
const usual = 90 << 10

// setUp starts a hub that knows size clusters. Spoke n subscribes to the distribution at n modulo their number.
func setUp(t testing.TB, size int, o stageOptions, distributions ...string) *stage {
	t.Helper()
	s := &stage{t: t, dir: t.TempDir(), distributions: distributions}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
	t.Cleanup(cancel)
	s.ctx = ctx
	var err error
	s.bin, err = built()
	s.must(err)
	from := template(t, s.bin, size)
	s.must(os.CopyFS(filepath.Join(s.dir, "hub"), os.DirFS(filepath.Join(from, "hub"))))
	if o.files > 0 {
		s.bin.Hub = limited(t, s.bin.Hub, o.files)
	}
	s.hub, err = world.NewHub(s.bin.Binaries, s.dir)
	s.must(err)
	s.hub.Quiet()
	s.must(s.hub.Profile())
	t.Cleanup(func() {
		if _, err := s.hub.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("hub:\n%s", world.Tail(s.hub.Log, 30))
		}
	})
	s.start()
	known := map[string]bool{}
	for _, d := range distributions {
		if !known[d] {
			known[d] = true
			s.publishes(d, cmp.Or(o.content, usual))
		}
	}
	identities := filepath.Join(from, "identities")
	s.roster, err = spokes.Load(identities)
	s.must(err)
	s.fleet, err = fleet.Start(s.bin.fleet, s.dir)
	s.must(err)
	t.Cleanup(func() {
		if err := s.fleet.Close(); err != nil {
			t.Error(err)
		}
	})
	s.opening = spokes.Opening{File: identities, Addr: s.hub.Addr, Distributions: distributions, Settled: o.settled}
	_, err = s.fleet.Open(ctx, s.opening)
	s.must(err)
	return s
}

// more is another process with all of the fleet's spokes, none of which does anything yet.
func (s *stage) more() *fleet.Fleet {
	s.t.Helper()
	f, err := fleet.Start(s.bin.fleet, s.t.TempDir())
	s.must(err)
	s.t.Cleanup(func() {
		if err := f.Close(); err != nil {
			s.t.Error(err)
		}
	})
	_, err = f.Open(s.ctx, s.opening)
	s.must(err)
	return f
}

func (s *stage) must(err error) {
	s.t.Helper()
	must(s.t, err)
}

// start starts the hub and waits until it listens.
func (s *stage) start() {
	s.t.Helper()
	s.must(s.hub.Spawn())
	s.must(world.Await(s.patiently(), "the hub to listen", func(ctx context.Context) error {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", s.hub.Addr)
		if err != nil {
			return fmt.Errorf("%w: %s", err, world.Tail(s.hub.Log, 5))
		}
		return conn.Close()
	}))
}

func (s *stage) patiently() context.Context {
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	s.t.Cleanup(cancel)
	return ctx
}

// publishes makes a repository of the sample for a distribution and adds it to the hub.
func (s *stage) publishes(distribution string, content int) {
	s.t.Helper()
	root, err := world.Root()
	s.must(err)
	v, err := world.NewVendor(s.ctx, filepath.Join(s.dir, "vendor-"+distribution), filepath.Join(root, "deploy", "examples", "shop"))
	s.must(err)
	s.must(v.Write("dist/content.txt", incompressible(content)))
	s.vendors = append(s.vendors, v)
	_, err = s.hub.Must(s.ctx, "distribution", "add", distribution, "--git", v.Dir, "--interval", "1s")
	s.must(err)
}

// news is how much of a release is new to who has the one before, compressed.
const news = 10 << 10

// incompressible is text that compresses to about so many bytes.
func incompressible(size int) string {
	random := make([]byte, size)
	_, _ = rand.Read(random) // never fails
	return base64.StdEncoding.EncodeToString(random)
}

// release has every vendor publish a version.
func (s *stage) release(version string) {
	s.t.Helper()
	for _, v := range s.vendors {
		s.must(v.Write("dist/news.txt", incompressible(news)))
		s.must(v.Release(s.ctx, version))
	}
}

// stored is when the first distribution's release of a version was, once it is.
func (s *stage) stored(version string) time.Time {
	s.t.Helper()
	return s.storedOf(s.distributions[0], version)
}

func (s *stage) storedOf(distribution, version string) time.Time {
	s.t.Helper()
	var r *fleetv1.Release
	s.must(world.Await(s.patiently(), "release "+version, func(ctx context.Context) (err error) {
		r, err = s.hub.Release(ctx, distribution, version)
		return err
	}))
	if r.GetPhase() != "Available" {
		s.t.Fatalf("release %s of %s is %s: %v", version, distribution, r.GetPhase(), r.GetReasons())
	}
	return r.GetPublished().AsTime()
}

// connect has the first n spokes connected.
func (s *stage) connect(n int) time.Time {
	s.t.Helper()
	s.must(s.fleet.Connect(s.ctx, 0, n))
	return s.await(spokes.Goal{State: spokes.Connected, Spokes: n})
}

// running waits until the hub has acknowledged of n spokes that they run version.
func (s *stage) running(version string, n int) time.Time {
	s.t.Helper()
	return s.await(spokes.Goal{State: spokes.Runs, Version: version, Spokes: n})
}

func (s *stage) await(g spokes.Goal) time.Time {
	s.t.Helper()
	g.Within = patience
	at, err := s.fleet.Await(s.ctx, g)
	if err != nil {
		s.t.Fatalf("%v\n%s", err, world.Tail(s.hub.Log, 20))
	}
	return at
}

// busy waits until so many messages of those that attack are on their way.
func (s *stage) busy(attackers *fleet.Fleet, messages int) {
	s.t.Helper()
	s.must(world.Await(s.patiently(), "the attack", func(ctx context.Context) error {
		c, err := attackers.Count(ctx)
		if err == nil && c.Written < int64(messages) {
			err = fmt.Errorf("%d messages, want %d; the last was cut off by: %s", c.Written, messages, c.Repulse)
		}
		return err
	}))
}

func (s *stage) count() spokes.Counters {
	s.t.Helper()
	c, err := s.fleet.Count(s.ctx)
	s.must(err)
	return c
}

// bare starts a server to compare the hub with, whose clients have the same certificates.
func (s *stage) bare() *fleet.Bare {
	s.t.Helper()
	b, err := fleet.StartBare(s.ctx, s.bin.fleet, s.t.TempDir(), s.roster.CA)
	s.must(err)
	return b
}
