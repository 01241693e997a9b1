package fleet_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/integration/harness"
	"github.com/wheelwright-dev/wheelwright/integration/world"
)

// figure prints one line for `make figures` and the report. `make figures` reads names where it is called.
func figure(name string, value float64, unit, format string, args ...any) {
	fmt.Println("FIGURE", name, digits(value), unit, "simulated:", fmt.Sprintf(format, args...))
}

// digits shows three that count.
func digits(v float64) string {
	if v == 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return fmt.Sprint(v)
	}
	return fmt.Sprintf("%.*f", max(0, 2-int(math.Floor(math.Log10(math.Abs(v))))), v)
}

// samples are of one quantity.
type samples []float64

func (s samples) median() float64 {
	sorted := slices.Sorted(slices.Values(s))
	if n := len(sorted); n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[len(sorted)/2]
}

func (s samples) String() string {
	return fmt.Sprintf("%s (%s to %s of %d)", digits(s.median()), digits(slices.Min(s)), digits(slices.Max(s)), len(s))
}

// used is the processor time of a process so far, in seconds.
func used(t testing.TB, pid int) float64 {
	t.Helper()
	d, err := harness.CPU(pid)
	if err != nil {
		t.Fatal(err)
	}
	return d.Seconds()
}

// clocked looks at a process's processor time again and again, so that it can be told from a moment on that is only
// known afterwards.
type clocked struct {
	at   []time.Time
	used []time.Duration
	stop chan struct{}
	done chan struct{}
}

// every is coarser than the kernel's tick and finer than anything that is told from it.
const every = 25 * time.Millisecond

func clock(pid int) *clocked {
	c := &clocked{stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(c.done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			if d, err := harness.CPU(pid); err == nil { // a process that has ended has used what it has
				c.at, c.used = append(c.at, time.Now()), append(c.used, d)
			}
			select {
			case <-tick.C:
			case <-c.stop:
				return
			}
		}
	}()
	return c
}

// between stops the clock and tells what was used from one moment to another, in seconds.
func (c *clocked) between(from, to time.Time) float64 {
	close(c.stop)
	<-c.done
	before := func(t time.Time) time.Duration {
		n, _ := slices.BinarySearchFunc(c.at, t, time.Time.Compare)
		return c.used[max(0, min(n, len(c.used))-1)]
	}
	return (before(to.Add(every)) - before(from)).Seconds()
}

// live is the memory of a process behind a port for profiles that lives after a collection: heap and stacks, in bytes.
func live(ctx context.Context, t testing.TB, debug string) float64 {
	t.Helper()
	var text string
	for range 2 { // what is pooled outlives one collection
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+debug+"/debug/pprof/heap?gc=1&debug=1", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("the hub's heap: %s, %v", resp.Status, err)
		}
		text = string(body)
	}
	sum := 0.0
	for _, name := range []string{"# HeapAlloc = ", "# Stack = "} {
		_, rest, found := strings.Cut(text, name)
		var n float64
		if _, err := fmt.Sscan(rest, &n); !found || err != nil {
			t.Fatalf("the hub's heap does not say %q: %v", name, err)
		}
		sum += n
	}
	return sum
}

// profile keeps one of the hub's profiles for what holds a figure. It waits for a hub that is only starting.
func (s *stage) profile(figure, what string) error {
	return world.Await(s.ctx, "a profile of the hub", func(ctx context.Context) error {
		return harness.FetchProfile(ctx, s.hub.Debug, what, figure)
	})
}

// profiled does once more what took so many seconds, for the profile of a figure alone.
func (s *stage) profiled(figure string, seconds float64, again func()) {
	s.t.Helper()
	if harness.ProfileFile(figure) == "" {
		return
	}
	done := make(chan error, 1)
	go func() { done <- s.profile(figure, fmt.Sprintf("profile?seconds=%d", int(seconds)+1)) }()
	again()
	s.must(<-done)
}

// writes is how many write transactions a bbolt file has had: the number that the newer of its two meta pages bears.
// They are on disk before a transaction is over, so that this is what a kill leaves too.
func writes(t testing.TB, file string) float64 {
	t.Helper()
	const header, number = 16, 48 // bytes of a page's header, and of the meta in front of its transaction's number
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	page, newest := int64(os.Getpagesize()), uint64(0)
	for n := range int64(2) {
		b := make([]byte, header+number+8)
		if _, err := f.ReadAt(b, n*page); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if magic := binary.NativeEndian.Uint32(b[header:]); magic != 0xED0CDAED {
			t.Fatalf("%s: page %d is no meta page of bbolt: %x", file, n, magic)
		}
		newest = max(newest, binary.NativeEndian.Uint64(b[header+number:]))
	}
	return float64(newest)
}
