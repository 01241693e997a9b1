package integration

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/integration/world"
)

// BenchmarkFleet measures how fast an offer is taken up, what an upgrade to the same content asks of an
// API server, and what a hub and its spokes cost at rest: once, however often it is asked to.
func BenchmarkFleet(b *testing.B) {
	s := tell(b, 3)
	s.watchShop()
	s.joinAll()
	s.release("1.1.0", "Available")
	s.runs("1.1.0")

	latency, n := offerToFetch(b, s.hub.Log)
	fmt.Printf("FIGURE sync.offer-to-fetch %.1f ms median of %d deliveries, loopback\n", float64(latency)/float64(time.Millisecond), n)

	// Where drift is not looked for, the upgrade is alone in the log of requests.
	sp := s.spokes[0]
	s.must(sp.Configure(strings.Replace(followShop, "  versions:", "  drift: ignore\n  versions:", 1)))
	s.must(world.Await(s.patiently(), "the spoke to take its new configuration", func(context.Context) error {
		mark := s.real[0].MarkRequests(b)
		time.Sleep(3 * time.Second) // nothing may happen: there is no condition to wait for
		for _, r := range s.real[0].Requests(b, mark, "wheelwright") {
			if strings.Contains(r.URI, "wheelwright.dev") {
				return errorf("drift is still looked for: %s %s", r.Verb, r.URI)
			}
		}
		return nil
	}))
	mark := s.real[0].MarkRequests(b)
	s.release("1.1.1", "Available")
	s.runs("1.1.1")
	requests := s.real[0].Requests(b, mark, "wheelwright")
	fmt.Printf("FIGURE upgrade.noop-requests %d requests a tag with the same content\n", len(requests))
	for _, r := range requests {
		b.Logf("%s %s", r.Verb, r.URI)
	}

	time.Sleep(45 * time.Second) // at rest: render children gone, memory given back
	worst := int64(0)
	for _, sp := range s.spokes {
		rss, err := world.RSS(sp.PID())
		s.must(err)
		worst = max(worst, rss)
	}
	fmt.Printf("FIGURE spoke.idle-rss %.1f MB largest of three, children included\n", float64(worst)/(1<<20))
	rss, err := world.RSS(s.hub.PID())
	s.must(err)
	fmt.Printf("FIGURE hub.idle-rss %.1f MB three spokes connected\n", float64(rss)/(1<<20))
}

var logLine = regexp.MustCompile(`^time=(\S+) .*msg="(sent desired state|sending bundle)".* cluster=(\S+)`)

// offerToFetch is the median time, by the hub's own log, from an offer's leaving to the request for its
// bundle.
func offerToFetch(t testing.TB, log string) (time.Duration, int) {
	t.Helper()
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	sent := map[string]time.Time{}
	var all []time.Duration
	for line := range strings.Lines(string(b)) {
		m := logLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		at, err := time.Parse(time.RFC3339Nano, m[1])
		if err != nil {
			t.Fatal(err)
		}
		if m[2] == "sent desired state" {
			sent[m[3]] = at
		} else if offered, ok := sent[m[3]]; ok {
			all = append(all, at.Sub(offered))
			delete(sent, m[3])
		}
	}
	if len(all) == 0 {
		t.Fatal("the hub's log shows no fetch after an offer")
	}
	slices.Sort(all)
	return all[len(all)/2], len(all)
}
