package store

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

const eu, us = fleet.Cluster("acme/eu-1"), fleet.Cluster("acme/us-1")

var (
	start   = time.Date(2026, 5, 1, 12, 0, 0, 123, time.UTC)
	discard = slog.New(slog.DiscardHandler)
)

func digest(c string) fleet.Digest { return fleet.Digest("sha256:" + strings.Repeat(c, 64)) }

// fresh opens a new store; the returned function closes it and opens it again.
func fresh(t *testing.T) (s *Store, reopen func() *Store) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hub.db")
	reopen = func() *Store {
		if s != nil {
			must(t, s.Close())
		}
		var err error
		s, err = Open(path, discard)
		must(t, err)
		return s
	}
	reopen()
	t.Cleanup(func() { must(t, s.Close()) })
	return s, reopen
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

func wantErr(t *testing.T, err, want error, words ...string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not say %q", err, w)
		}
	}
}

func TestDistributionsSurviveARestart(t *testing.T) {
	s, reopen := fresh(t)
	shop := fleet.Distribution{Name: "shop", URL: "https://example.org/shop.git", Path: "dist", Tags: ">=1.0.0", Interval: time.Minute, Created: start}
	must(t, s.AddDistribution(shop))
	must(t, s.AddDistribution(fleet.Distribution{Name: "bank", URL: "/srv/bank", Path: "."}))
	wantErr(t, s.AddDistribution(shop), ErrExists, "shop")
	if s.AddDistribution(fleet.Distribution{Name: "No Good"}) == nil {
		t.Error("a name of the wrong form was taken")
	}
	s = reopen()
	all, err := s.Distributions()
	must(t, err)
	same(t, "distributions", all, []fleet.Distribution{{Name: "bank", URL: "/srv/bank", Path: "."}, shop})

	must(t, s.RemoveDistribution("bank"))
	wantErr(t, s.RemoveDistribution("bank"), ErrNotFound, "bank")
}

func release(version string, phase fleet.ReleasePhase, d fleet.Digest) fleet.Release {
	return fleet.Release{Distribution: "shop", Version: version, Phase: phase, Digest: d, Published: start}
}

// Law 5: a release never changes.
func TestLaw5ATagIsJudgedOnceAndForEver(t *testing.T) {
	s, reopen := fresh(t)
	must(t, s.AddDistribution(fleet.Distribution{Name: "shop", URL: "u"}))
	full := fleet.Release{
		Distribution: "shop", Version: "1.10.0", Phase: fleet.Available, Digest: digest("a"), Size: 10, Compressed: 5,
		Commit: "c0ffee", TagObject: "7a6", Published: start, Reasons: nil,
		Variants: []fleet.VariantResult{{Name: "app-istio", Objects: 3}, {Name: "app-linkerd", Reasons: []string{"odd"}}},
	}
	must(t, s.PutRelease(full, "hash-1.10.0"))
	must(t, s.PutRelease(release("1.9.0", fleet.Available, digest("b")), "hash-1.9.0"))
	rejected := release("1.2.0", fleet.Rejected, digest("c"))
	rejected.Reasons = []string{"uses latest"}
	must(t, s.PutRelease(rejected, "hash-1.2.0"))

	wantErr(t, s.PutRelease(release("1.9.0", fleet.Rejected, ""), "moved"), ErrExists, "1.9.0", "shop")
	must(t, s.RemoveDistribution("shop"))
	must(t, s.AddDistribution(fleet.Distribution{Name: "shop", URL: "elsewhere"}))
	wantErr(t, s.PutRelease(release("1.9.0", fleet.Available, digest("d")), "moved"), ErrExists)

	s = reopen()
	got, err := s.Release("shop", "1.10.0")
	must(t, err)
	same(t, "release", got, full)
	list, err := s.Releases("shop")
	must(t, err)
	if len(list) != 3 || list[0].Version != "1.2.0" || list[1].Version != "1.9.0" || list[2].Version != "1.10.0" {
		t.Errorf("releases in order of version: got %+v", list)
	}
	tags, err := s.JudgedTags("shop")
	must(t, err)
	if !maps.Equal(tags, map[string]string{"1.10.0": "hash-1.10.0", "1.9.0": "hash-1.9.0", "1.2.0": "hash-1.2.0"}) {
		t.Errorf("judged tags: %v", tags)
	}
	_, err = s.Release("shop", "3.0.0")
	wantErr(t, err, ErrNotFound, "3.0.0", "shop")
	for d, want := range map[fleet.Digest]bool{digest("a"): true, digest("b"): true, digest("c"): false, digest("d"): false, "": false} {
		if found, err := s.ReleaseByDigest(d); err != nil || found != want {
			t.Errorf("bundle %s known: %v, %v; want %v", d, found, err, want)
		}
	}
}

func TestRevisionsOfADistributionAndOfAnySetOnlyGrow(t *testing.T) {
	s, reopen := fresh(t)
	revision := func(name string) uint64 {
		r, err := s.Revision(name)
		must(t, err)
		return r
	}
	same(t, "revision of what never was", revision("shop"), uint64(0))
	last := uint64(0)
	grew := func(name, why string) {
		t.Helper()
		if r := revision(name); r <= last {
			t.Errorf("%s: revision %d after %d", why, r, last)
		}
		last = max(revision("shop"), revision("bank"))
	}
	must(t, s.AddDistribution(fleet.Distribution{Name: "shop", URL: "u"}))
	grew("shop", "added")
	must(t, s.AddDistribution(fleet.Distribution{Name: "bank", URL: "u"}))
	grew("bank", "another added")
	must(t, s.PutRelease(release("1.0.0", fleet.Available, digest("a")), "h"))
	grew("shop", "available")
	s = reopen()
	must(t, s.PutRelease(fleet.Release{Distribution: "bank", Version: "1.0.0", Phase: fleet.Available, Digest: digest("b")}, "h"))
	grew("bank", "available after a restart")
	must(t, s.PutRelease(release("1.1.0", fleet.Rejected, ""), "h"))
	grew("shop", "rejected: the screen names it")
	must(t, s.RemoveDistribution("shop"))
	grew("shop", "removed")
}

func TestEventsAreBoundedAndFiltered(t *testing.T) {
	const maxEvents = 1000
	s, reopen := fresh(t)
	s.Keep(History{Events: maxEvents})
	invite(t, s, eu, "t1", time.Now().Add(time.Minute))
	var many []fleet.Event
	for i := 1; i <= maxEvents; i++ {
		many = append(many, fleet.Event{Seq: uint64(i), Kind: fleet.EventAgent, Distribution: "shop", Message: fmt.Sprint(i)})
	}
	_, err := s.RecordEvents(eu, "j", many)
	must(t, err)
	for i := range 3 {
		must(t, s.AppendEvent(fleet.Event{At: start, Kind: fleet.EventPublished, Distribution: "bank", Version: fmt.Sprint(i)}))
	}
	s = reopen()
	all, err := s.Events(EventFilter{})
	must(t, err)
	if len(all) != maxEvents || all[0].Message != "4" || all[len(all)-1].Version != "2" {
		t.Fatalf("%d events from %q to %q", len(all), all[0].Message, all[len(all)-1].Version)
	}
	last := all[len(all)-1]
	same(t, "event", last, fleet.Event{ID: maxEvents + 3, At: start, Kind: fleet.EventPublished, Distribution: "bank", Version: "2"})
	for name, c := range map[string]struct {
		f    EventFilter
		want int
	}{
		"limit":           {EventFilter{Limit: 7}, 7},
		"cluster":         {EventFilter{Cluster: string(eu)}, maxEvents - 3},
		"distribution":    {EventFilter{Distribution: "bank"}, 3},
		"after":           {EventFilter{AfterID: maxEvents + 1}, 2},
		"after and limit": {EventFilter{AfterID: 100, Limit: 2}, 2},
		"nobody's":        {EventFilter{Cluster: "acme/none"}, 0},
	} {
		got, err := s.Events(c.f)
		must(t, err)
		if len(got) != c.want {
			t.Errorf("%s: %d events, want %d", name, len(got), c.want)
		}
		for i := 1; i < len(got); i++ {
			if got[i].ID <= got[i-1].ID {
				t.Fatalf("%s: ids do not ascend", name)
			}
		}
	}
}
