package integration

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/integration/world"
)

// BenchmarkIdleSpoke measures what a spoke costs at rest: the built binary, after two deliveries to a real API server,
// with its overlay, watches, health looks and stream to the hub as they are by default. Once, however often it is asked.
func BenchmarkIdleSpoke(b *testing.B) {
	s := tell(b, 1)
	s.watchShop()
	s.joinAll()
	s.release("1.1.0", "Available")
	s.runs("1.1.0")
	s.release("1.2.0", "Available")
	s.runs("1.2.0")
	pid := s.spokes[0].PID()
	rests := func() int {
		text, err := os.ReadFile(s.spokes[0].Log)
		s.must(err)
		return strings.Count(string(text), "at rest, memory is given back")
	}
	resting := rests()
	s.must(world.Await(s.patiently(), "the spoke to come to rest", func(context.Context) error {
		if rests() == resting {
			return errorf("it is at work")
		}
		return nil
	}))

	const samples, every = 13, 5 * time.Second
	var rss []int64
	before, begin := processor(b, pid), time.Now()
	for n := range samples {
		if n > 0 {
			time.Sleep(every) // what is measured is what nothing happening costs
		}
		now, err := world.RSS(pid)
		s.must(err)
		rss = append(rss, now)
		b.Logf("%s: %.1f MB", time.Since(begin).Round(time.Second), float64(now)/(1<<20))
	}
	spent, over := processor(b, pid)-before, time.Since(begin)
	slices.Sort(rss)
	mb := func(n int64) float64 { return float64(n) / (1 << 20) }
	own, mapped := resident(b, pid)
	fmt.Printf("FIGURE scale.b13-idle-mb %.1f MB resident, children included, largest of %d looks within %s after two deliveries (median %.1f): %.1f of its own, %.1f of the program's file\n",
		mb(rss[len(rss)-1]), samples, over.Round(time.Second), mb(rss[len(rss)/2]), mb(own), mb(mapped))
	fmt.Printf("FIGURE scale.b13-idle-millicores %.2f millicores user and system, ended children included, over %s\n",
		float64(spent.Microseconds())/over.Seconds()/1000, over.Round(time.Second))
}

// processor is the processor time that a process and its ended children have used.
func processor(t testing.TB, pid int) (sum time.Duration) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), ") ") // what is before may hold anything
	fields := strings.Fields(rest)
	if !ok || len(fields) < 15 {
		t.Fatalf("stat of %d: %q", pid, text)
	}
	const tick = 10 * time.Millisecond // USER_HZ is 100 wherever Go runs
	for _, f := range fields[11:15] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += time.Duration(n) * tick
	}
	return sum
}

// resident is what a process holds in memory of its own, and of files, in bytes.
func resident(t testing.TB, pid int) (own, mapped int64) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		var kb int64
		if name != "RssAnon" && name != "RssFile" {
			continue
		}
		if _, err := fmt.Sscan(value, &kb); err != nil {
			t.Fatal(err)
		}
		if name == "RssAnon" {
			own = kb << 10
		} else {
			mapped = kb << 10
		}
	}
	return own, mapped
}
