package store

import (
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

func trial(version string, at time.Time) fleet.Preflight {
	return fleet.Preflight{Version: version, Bundle: digest("a"), Overlay: digest("b"), Outcome: fleet.OutcomeChanges, At: at,
		Changes: []fleet.KindChange{{Kind: "Service", Verb: fleet.VerbCreate, Count: 2}}, Reason: "r", Reversibility: fleet.OneWay}
}

// report records trials as events of a cluster, which subscribes to shop.
func report(t *testing.T, s *Store, cluster fleet.Cluster, seq uint64, trials ...fleet.Preflight) {
	t.Helper()
	must(t, s.Hello(cluster, "v1", "v1.33", []fleet.Installation{{Distribution: "shop"}}))
	var events []fleet.Event
	for i, p := range trials {
		events = append(events, fleet.Event{Seq: seq + uint64(i), At: p.At, Kind: fleet.EventPreflight, Distribution: "shop", Version: p.Version, Preflight: &p})
	}
	_, err := s.RecordEvents(cluster, "j", events)
	must(t, err)
}

func TestTheNewestPreflightOfEachClusterIsKept(t *testing.T) {
	s, reopen := fresh(t)
	must(t, s.AddDistribution(fleet.Distribution{Name: "shop", URL: "u"}))
	must(t, s.PutRelease(release("1.1.0", fleet.Available, digest("a")), "h"))
	must(t, s.PutRelease(release("1.2.0", fleet.Rejected, ""), "h"))
	for i, c := range []fleet.Cluster{eu, us} {
		invite(t, s, c, fmt.Sprint("t", i), start)
	}
	older, newer, other := trial("1.1.0", start), trial("1.1.0", start.Add(time.Minute)), trial("1.1.0", start)
	newer.Outcome, newer.Changes, newer.Reason, newer.Reversibility = fleet.OutcomeBreaks, nil, "patch finds no target", ""
	foreign := trial("1.1.0", start.Add(time.Hour))
	foreign.Bundle = digest("f")
	report(t, s, eu, 1, newer, older, trial("1.2.0", start), trial("9.9.9", start), foreign)
	report(t, s, us, 1, other)
	s = reopen()
	got, err := s.Preflights("shop", "1.1.0")
	must(t, err)
	same(t, "answers", got, map[fleet.Cluster]fleet.Preflight{eu: newer, us: other})
	for _, v := range []string{"1.2.0", "9.9.9"} {
		if got, err := s.Preflights("shop", v); err != nil || len(got) != 0 {
			t.Errorf("%s, which is not available: %v, %v", v, got, err)
		}
	}
	must(t, s.RemoveCluster(eu))
	invite(t, s, eu, "t9", start)
	must(t, s.Hello(eu, "v1", "v1.33", []fleet.Installation{{Distribution: "shop"}}))
	got, err = s.Preflights("shop", "1.1.0")
	must(t, err)
	same(t, "answers after the cluster was removed", got, map[fleet.Cluster]fleet.Preflight{us: other})

	must(t, s.RemoveDistribution("shop"))
	report(t, s, us, 10, other)
	got, err = s.Preflights("shop", "1.1.0")
	must(t, err)
	same(t, "answers about a distribution that is not watched", len(got), 0)
}

func TestPreflightsAreBounded(t *testing.T) {
	s, _ := fresh(t)
	must(t, s.AddDistribution(fleet.Distribution{Name: "shop", URL: "u"}))
	invite(t, s, eu, "t", start)
	versions := maxPreflights + 3
	for i := range versions {
		v := fmt.Sprintf("1.%d.0", i)
		must(t, s.PutRelease(release(v, fleet.Available, digest("a")), "h"))
		report(t, s, eu, uint64(i+1), trial(v, start.Add(time.Duration(i)*time.Second)))
	}
	kept := 0
	for i := range versions {
		got, err := s.Preflights("shop", fmt.Sprintf("1.%d.0", i))
		must(t, err)
		if (len(got) == 1) != (i >= 3) {
			t.Errorf("1.%d.0: %d answers", i, len(got))
		}
		kept += len(got)
	}
	same(t, "answers kept", kept, maxPreflights)
}

func TestWhatIsOfferedStaysOfferedAndRaisesTheRevisionOnce(t *testing.T) {
	s, reopen := fresh(t)
	must(t, s.AddDistributionWith(fleet.Distribution{Name: "shop", URL: "u"}, Settings{Preflight: time.Minute}))
	must(t, s.AddDistribution(fleet.Distribution{Name: "bank", URL: "u"}))
	revision := func() uint64 {
		r, err := s.Revision("shop")
		must(t, err)
		return r
	}
	before := revision()
	must(t, s.Offer("shop", []string{"1.0.0", "1.1.0"}, start))
	after := revision()
	if after <= before {
		t.Errorf("revision %d after %d", after, before)
	}
	must(t, s.Offer("shop", []string{"1.1.0"}, start))
	s = reopen()
	same(t, "revision after nothing new", revision(), after)
	got, err := s.Offered("shop")
	must(t, err)
	same(t, "offered", got, map[string]bool{"1.0.0": true, "1.1.0": true})
	settings, err := s.Settings()
	must(t, err)
	same(t, "settings", settings, map[string]Settings{"shop": {Preflight: time.Minute}, "bank": {}})
}

// unpack gives a fixture a place of its own.
func unpack(t *testing.T, fixture string) (path string) {
	t.Helper()
	packed, err := os.Open(fixture)
	must(t, err)
	defer packed.Close()
	reader, err := gzip.NewReader(packed)
	must(t, err)
	data, err := io.ReadAll(reader)
	must(t, err)
	path = filepath.Join(t.TempDir(), "hub.db")
	must(t, os.WriteFile(path, data, 0o600))
	return path
}

// The file is one that a hub of schema 1 wrote.
func TestAFileOfSchema1IsOpened(t *testing.T) {
	path := unpack(t, "testdata/schema-1.db.gz")
	s, err := Open(path, discard)
	must(t, err)
	defer func() { must(t, s.Close()) }()
	all, err := s.Distributions()
	must(t, err)
	same(t, "distributions", all, []fleet.Distribution{{Name: "shop", URL: "https://example.org/shop.git", Path: "dist", Tags: ">=1.0.0", Interval: time.Minute, Created: start}})
	installations, err := s.Installations()
	must(t, err)
	want := installation("1.0.0", start)
	want.Drifted, want.DriftMessage = 0, "" // nobody told
	same(t, "installations", installations[eu], []fleet.Installation{want})
	settings, err := s.Settings()
	must(t, err)
	same(t, "settings", settings, map[string]Settings{"shop": {}})

	_, err = s.RecordEvents(eu, "j1", []fleet.Event{{Seq: 2, At: start, Kind: fleet.EventPreflight, Distribution: "shop", Version: "1.0.0", Preflight: new(trial("1.0.0", start))}})
	must(t, err)
	got, err := s.Preflights("shop", "1.0.0")
	must(t, err)
	same(t, "answers", got, map[fleet.Cluster]fleet.Preflight{eu: trial("1.0.0", start)})
	must(t, s.Offer("shop", []string{"1.0.0"}, start))
	if _, err := os.Stat(path + ".schema-1"); err != nil {
		t.Error(err)
	}
}
