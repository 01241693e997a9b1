package store

import (
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// cut deletes a record behind the store's back.
func cut(s *Store, bucket, key []byte) error {
	return s.update(func(tx *txn) error { return tx.Bucket(bucket).Delete(key) })
}

func TestPinsAndDecisionsGoWithTheirCluster(t *testing.T) {
	s, reopen := fresh(t)
	pinned, decided := fleet.Event{At: start, Kind: fleet.EventPinned, Distribution: "shop"}, fleet.Event{At: start, Kind: fleet.EventDecided, Distribution: "shop"}
	pin := func(c fleet.Cluster, version string) error {
		return s.PutPin(fleet.HubPin{Cluster: c, Distribution: "shop", Version: version, Reason: "r", Author: "anne", Created: start}, pinned, byAdmin)
	}
	decide := func(c fleet.Cluster, version string) error {
		return s.PutDecision(fleet.HubDecision{Cluster: c, Distribution: "shop", Version: version, Approved: true, Author: "anne", At: start}, decided, byAdmin)
	}
	wantErr(t, pin(eu, "1.0.0"), ErrNotFound, string(eu))
	wantErr(t, decide(eu, "1.0.0"), ErrNotFound, string(eu))
	for i, c := range []fleet.Cluster{us, eu} {
		invite(t, s, c, string(rune('a'+i)), start)
		must(t, pin(c, "1.0.0"))
		must(t, decide(c, "1.0.0"))
	}
	must(t, pin(eu, "1.1.0"))
	must(t, decide(eu, "1.1.0"))
	check := func(when string, pins, decisions []fleet.Cluster) {
		t.Helper()
		gotPins, err := s.Pins()
		must(t, err)
		gotDecisions, err := s.Decisions()
		must(t, err)
		var a, b []fleet.Cluster
		for _, p := range gotPins {
			a = append(a, p.Cluster)
		}
		for _, d := range gotDecisions {
			b = append(b, d.Cluster)
		}
		same(t, "pins "+when, a, pins)
		same(t, "decisions "+when, b, decisions)
	}
	both := []fleet.Cluster{eu, us}
	check("in order", both, both)
	p, found := s.Pin(eu, "shop")
	same(t, "the newest pin", p.Version, "1.1.0")
	d, there := s.Decision(eu, "shop")
	same(t, "the newest decision", d.Version, "1.1.0")
	if _, other := s.Pin(eu, "bank"); other || !found || !there {
		t.Error("pins of one distribution are found for another")
	}
	must(t, s.DeletePin(us, "shop", pinned, byAdmin))
	wantErr(t, s.DeletePin(us, "shop", pinned, byAdmin), ErrNotFound, "shop", string(us))
	check("after one was taken away", both[:1], both)
	must(t, s.RemoveCluster(eu))
	for _, when := range []string{"after its cluster went", "after a restart"} {
		check(when, nil, both[1:])
		s = reopen()
	}
	invite(t, s, eu, "again", start)
	if _, found := s.Pin(eu, "shop"); found {
		t.Error("a cluster of the same name has the old pin")
	}
	events, err := s.Events(EventFilter{Distribution: "shop"})
	must(t, err)
	entries, err := s.Audit(0, 0)
	must(t, err)
	if len(events) != 7 || len(entries) != 7 {
		t.Errorf("%d events and %d entries of 7 changes", len(events), len(entries))
	}
}

func TestARecallStaysAndCanBeMadeStronger(t *testing.T) {
	s, reopen := fresh(t)
	recall := fleet.Recall{Distribution: "shop", Version: "1.0.0", Reason: "leaks", By: "anne", At: start}
	wantErr(t, s.PutRecall(recall, nil, byAdmin), ErrNotFound, "1.0.0", "shop")
	must(t, s.AddDistribution(fleet.Distribution{Name: "shop", URL: "u"}))
	must(t, s.PutRelease(release("1.0.0", fleet.Available, digest("a")), "h"))
	must(t, s.PutRecall(recall, told("recalled"), byAdmin))
	recall.RollBack, recall.At = true, start.Add(time.Minute)
	must(t, s.PutRecall(recall, told("recalled"), byAdmin))
	must(t, s.RemoveDistribution("shop"))
	s = reopen()
	got, err := s.Recalls("shop")
	must(t, err)
	same(t, "recalls", got, map[string]fleet.Recall{"1.0.0": recall})
	got, err = s.Recalls("bank")
	must(t, err)
	same(t, "recalls of another", len(got), 0)
}
