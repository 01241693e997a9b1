package store

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

func TestTheAuditIsOneChainAcrossRestarts(t *testing.T) {
	s, reopen := fresh(t)
	zone := time.FixedZone("far", 9*3600)
	want := fleet.Entry{At: start.In(zone), Actor: "acme/eu-1", Action: "pin", Object: "<shop> & more", Reason: "ünlikely \x00 text"}
	must(t, s.Record(want))
	s = reopen()
	for i := range 24 {
		must(t, s.Record(fleet.Entry{At: start, Actor: "hub", Action: "rollout", Object: fmt.Sprint("shop 1.", i, ".0")}))
	}
	if s.Record(fleet.Entry{Actor: "hub"}) == nil || s.Record(fleet.Entry{Action: "pin"}) == nil {
		t.Error("took an entry that does not say who did what")
	}
	s = reopen()
	all, err := s.Audit(0, 0)
	must(t, err)
	must(t, VerifyAudit(all, nil))
	got := all[0]
	got.Hash, got.Record = nil, nil
	want.Number, want.At = 1, start
	same(t, "first entry", got, want)
	same(t, "entries", len(all), 25)

	// In pages, each after the hash that ended the one before.
	var last []byte
	var paged []fleet.Entry
	for after := uint64(0); ; {
		page, err := s.Audit(after, 10)
		must(t, err)
		if len(page) == 0 {
			break
		}
		must(t, VerifyAudit(page, last))
		paged = append(paged, page...)
		after, last = page[len(page)-1].Number, page[len(page)-1].Hash
	}
	same(t, "pages", paged, all)
	must(t, VerifyAudit(nil, nil))
}

func TestWhatIsNotAsItWasWrittenIsNamed(t *testing.T) {
	s, _ := fresh(t)
	for i := range 5 {
		must(t, s.Record(fleet.Entry{At: start, Actor: "operator admin", Action: "pin", Object: fmt.Sprint("shop ", i)}))
	}
	for name, c := range map[string]struct {
		damage func([]fleet.Entry) []fleet.Entry
		says   string
	}{
		"nothing":        {func(e []fleet.Entry) []fleet.Entry { return e }, ""},
		"one cut out":    {func(e []fleet.Entry) []fleet.Entry { return append(e[:2], e[3:]...) }, "audit entry 3: it is missing"},
		"the first gone": {func(e []fleet.Entry) []fleet.Entry { return e[1:] }, "audit entry 1: it is missing"},
		"two swapped":    {func(e []fleet.Entry) []fleet.Entry { e[1], e[2] = e[2], e[1]; return e }, "audit entry 2: it is missing"},
		"told otherwise": {func(e []fleet.Entry) []fleet.Entry { e[3].Reason = "no reason"; return e }, "audit entry 4: it does not say"},
		"its time moved": {func(e []fleet.Entry) []fleet.Entry { e[3].At = start.Add(1); return e }, "audit entry 4: it does not say"},
		"written anew": {func(e []fleet.Entry) []fleet.Entry {
			e[2].Record = bytes.Replace(e[2].Record, []byte("pin"), []byte("pat"), 1)
			e[2].Action, e[2].Hash = "pat", chain(e[2].Previous, e[2].Record)
			return e
		}, "audit entry 4: it does not follow"},
		"hash damaged": {func(e []fleet.Entry) []fleet.Entry { e[4].Hash[7] ^= 1; return e }, "audit entry 5: its record is not what was hashed"},
	} {
		entries, err := s.Audit(0, 0)
		must(t, err)
		err = VerifyAudit(c.damage(entries), nil)
		if (err == nil) != (c.says == "") || (err != nil && !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: got %v, want %q", name, err, c.says)
		}
	}
}

func TestAByteChangedInTheFileIsCaught(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.db")
	s, err := Open(path, discard)
	must(t, err)
	for _, actor := range []string{"operator anne", "operator berta", "operator carla"} {
		must(t, s.Record(fleet.Entry{At: start, Actor: actor, Action: "pin", Object: "shop 1.0.0"}))
	}
	must(t, s.Close())
	data, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, bytes.ReplaceAll(data, []byte("berta"), []byte("marta")), 0o600))

	s, err = Open(path, discard)
	must(t, err)
	defer func() { must(t, s.Close()) }()
	all, err := s.Audit(0, 0)
	must(t, err)
	same(t, "what it says now", all[1].Actor, "operator marta")
	err = VerifyAudit(all, nil)
	if err == nil || !strings.Contains(err.Error(), "audit entry 2: its record is not what was hashed") {
		t.Errorf("got %v", err)
	}
	must(t, s.Record(fleet.Entry{At: start, Actor: "hub", Action: "rollout"})) // a hub goes on
}

// Entries cut off at the end leave a hole, as numbers are never given twice.
func TestEntriesCutOffAtTheEndAreMissed(t *testing.T) {
	s, reopen := fresh(t)
	for range 3 {
		must(t, s.Record(fleet.Entry{At: start, Actor: "hub", Action: "rollout"}))
	}
	must(t, cut(s, bucketAudit, number(3)))
	s = reopen()
	must(t, s.Record(fleet.Entry{At: start, Actor: "hub", Action: "rollout"}))
	all, err := s.Audit(0, 0)
	must(t, err)
	if err := VerifyAudit(all, nil); err == nil || !strings.Contains(err.Error(), "audit entry 3: it is missing: the next there is has number 4") {
		t.Errorf("got %v", err)
	}
}

func TestConcurrentEntriesMakeOneChain(t *testing.T) {
	s, _ := fresh(t)
	var all sync.WaitGroup
	for i := range 40 {
		all.Go(func() {
			if err := s.Record(fleet.Entry{Actor: "hub", Action: "rollout", Object: fmt.Sprint(i)}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	entries, err := s.Audit(0, 0)
	must(t, err)
	same(t, "entries", len(entries), 40)
	must(t, VerifyAudit(entries, nil))
}

func TestAnAuditedChangeIsOneTransaction(t *testing.T) {
	s, reopen := fresh(t)
	event := fleet.Event{At: start, Kind: fleet.EventInvited, Cluster: eu}
	good, bad := s.Audited(event, byAdmin), s.Audited(event, fleet.Entry{Action: "nobody's"})
	shop := fleet.Distribution{Name: "shop", URL: "u"}
	changes := []func(Audited) error{
		func(a Audited) error { return a.AddDistributionWith(shop, Settings{Preflight: time.Minute}) },
		func(a Audited) error {
			_, err := a.Invite(eu, nil, "t", [32]byte{}, start, false)
			return err
		},
		func(a Audited) error { return a.RemoveDistribution("shop") },
		func(a Audited) error { return a.RemoveCluster(eu) },
	}
	count := func() (n [4]int) {
		distributions, err := s.Distributions()
		must(t, err)
		clusters, err := s.Clusters()
		must(t, err)
		events, err := s.Events(EventFilter{})
		must(t, err)
		entries, err := s.Audit(0, 0)
		must(t, err)
		return [4]int{len(distributions), len(clusters), len(events), len(entries)}
	}
	want := [][4]int{{0, 0, 0, 0}, {1, 0, 1, 1}, {1, 1, 2, 2}, {0, 1, 3, 3}, {0, 0, 4, 4}}
	for i, change := range changes {
		if change(bad) == nil {
			t.Errorf("change %d by nobody was made", i)
		}
		same(t, fmt.Sprint("before change ", i), count(), want[i])
		must(t, change(good))
		same(t, fmt.Sprint("after change ", i), count(), want[i+1])
	}
	wantErr(t, good.RemoveCluster(eu), ErrNotFound, string(eu))
	s = reopen()
	same(t, "after a restart", count(), want[4])
}
