package store

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// past is a history of a few clusters of two providers, two distributions and the hub itself, by id.
func past(t *testing.T, s *Store, n int) (all []fleet.Event) {
	t.Helper()
	clusters := []fleet.Cluster{eu, us, "globex/eu-1", "acmex/eu-1", ""}
	for i := range n {
		e := fleet.Event{ID: uint64(i + 1), At: start.Add(time.Duration(i) * time.Second), Cluster: clusters[i*i%7%len(clusters)], Kind: fleet.EventPhase, Message: fmt.Sprint(i)}
		if i%3 > 0 {
			e.Distribution = []string{"shop", "bank"}[i%2]
		}
		must(t, s.AppendEvent(e))
		all = append(all, e)
	}
	return all
}

// Every list, whole and in pages, is what going through everything would have found.
func TestListsOfEventsAreThoseOfAWalkThroughAll(t *testing.T) {
	s, reopen := fresh(t)
	const kept = 150
	s.Keep(History{Events: kept})
	all := past(t, s, 400)
	for _, when := range []string{"at once", "after a restart"} {
		there := all[len(all)-kept:]
		for _, f := range []EventFilter{
			{}, {Cluster: string(eu)}, {Cluster: "globex/eu-1"}, {Cluster: "acme/none"}, {Distribution: "shop"}, {Distribution: "none"},
			{Cluster: string(us), Distribution: "bank"}, {Provider: "acme"}, {Provider: "globex"}, {Provider: "none"}, {Provider: "acme", Distribution: "shop"},
			{Provider: "acme", Cluster: string(us)}, {Provider: "globex", Cluster: string(us)}, {AfterID: 350, Distribution: "shop"}, {AfterID: 390},
		} {
			var want []fleet.Event
			for _, e := range there {
				if f.matches(e) && e.ID > f.AfterID {
					want = append(want, e)
				}
			}
			got, err := s.Events(f)
			must(t, err)
			same(t, fmt.Sprintf("%s: %+v", when, f), got, want)

			f.Limit = 7
			var paged []fleet.Event
			for pages := 0; ; pages++ {
				page, next, err := s.EventPage(f)
				must(t, err)
				if len(page) > f.Limit || pages > kept {
					t.Fatalf("%s: %+v: %d events on page %d", when, f, len(page), pages)
				}
				paged = append(slices.Clone(page), paged...)
				if f.From = next; next == 0 {
					break
				}
			}
			same(t, fmt.Sprintf("%s, in pages: %+v", when, f), paged, want)
		}
		s = reopen()
	}
}

// A page costs what it shows: what it reads is counted, not timed.
func TestAPageOfEventsReadsNoMoreOfALongerHistory(t *testing.T) {
	s, _ := fresh(t)
	read := map[int][]int{}
	n := 0
	for _, length := range []int{1000, 10_000} {
		must(t, s.update(func(tx *txn) error {
			for ; n < length; n++ {
				e := fleet.Event{At: start, Cluster: fleet.Cluster(fmt.Sprintf("acme/c-%d", n%100)), Distribution: fmt.Sprint("d", n%50), Kind: fleet.EventPhase}
				if err := appendEvent(tx, e); err != nil {
					return err
				}
			}
			return nil
		}))
		for _, f := range []EventFilter{{Cluster: "acme/c-7"}, {Distribution: "d7"}, {}} {
			f.Limit = 4
			for range 2 { // the second page as the first
				var page []fleet.Event
				must(t, s.db.View(func(tx *bolt.Tx) error {
					var err error
					page, f.From, err = readEvents(tx, f)
					stats := tx.Stats()
					read[length] = append(read[length], int(stats.GetCursorCount()))
					return err
				}))
				if len(page) != 4 {
					t.Errorf("%+v: %d events", f, len(page))
				}
			}
		}
	}
	same(t, "reads of a history ten times as long", read[10_000], read[1000])
}

func TestTidyDropsWhatIsOldOrTooMuch(t *testing.T) {
	s, reopen := fresh(t)
	all := past(t, s, 300)
	last := all[len(all)-1].At
	s.Keep(History{Age: time.Minute})
	must(t, s.Tidy(last))
	got, err := s.Events(EventFilter{})
	must(t, err)
	same(t, "of the last minute", got, all[len(all)-61:])
	s.Keep(History{Events: 20})
	must(t, s.Tidy(last))
	s = reopen()
	got, err = s.Events(EventFilter{})
	must(t, err)
	same(t, "the newest", got, all[len(all)-20:])
	before := s.Stats().Writes
	must(t, s.Tidy(last))
	same(t, "writes with nothing to drop", s.Stats().Writes, before)

	s.Keep(History{Age: time.Nanosecond})
	must(t, s.Tidy(last.Add(time.Hour)))
	must(t, s.db.View(func(tx *bolt.Tx) error {
		if k, _ := tx.Bucket([]byte(bucketHeads)).Cursor().First(); k != nil {
			t.Errorf("the chain of %q begins with an event that is gone", k)
		}
		return nil
	}))
	must(t, s.AppendEvent(fleet.Event{At: start, Cluster: eu, Distribution: "shop", Kind: fleet.EventPhase}))
	got, err = s.Events(EventFilter{Cluster: string(eu)})
	must(t, err)
	if len(got) != 1 || got[0].ID != 301 {
		t.Errorf("after the history was empty: %+v", got)
	}
}

// A file of schema 4 has events without links.
func TestEventsOfBeforeAreLinked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.db")
	s, err := open(path, discard, steps()[:3])
	must(t, err)
	all := []fleet.Event{
		{ID: 1, At: start, Cluster: eu, Distribution: "shop", Kind: fleet.EventPhase, Message: "1"},
		{ID: 2, At: start, Distribution: "shop", Kind: fleet.EventPublished, Message: "2"},
		{ID: 3, At: start, Cluster: eu, Kind: fleet.EventJoined, Message: "3"},
	}
	must(t, s.update(func(tx *txn) error {
		b := tx.Bucket(bucketEvents)
		for _, e := range all {
			id, err := b.NextSequence()
			if err == nil {
				err = put(b, number(id), eventRecordOf(&e))
			}
			if err != nil {
				return err
			}
		}
		return nil
	}))
	must(t, s.Close())
	s, err = Open(path, discard)
	must(t, err)
	defer func() { must(t, s.Close()) }()
	for f, want := range map[EventFilter][]fleet.Event{
		{}:                     all,
		{Cluster: string(eu)}:  {all[0], all[2]},
		{Distribution: "shop"}: all[:2],
		{Provider: "acme"}:     all,
	} {
		got, err := s.Events(f)
		must(t, err)
		same(t, fmt.Sprintf("%+v", f), got, want)
	}
}

func TestTidyForgetsTokensThatAreLongOver(t *testing.T) {
	s, _ := fresh(t)
	now := time.Now()
	hash := invite(t, s, eu, "old", now.Add(-tokenMemory-time.Hour))
	young := invite(t, s, us, "new", now)
	must(t, s.Tidy(now))
	_, err := s.Redeem("old", hash, fleet.Fingerprint{}, now, issuing(1, now.Add(time.Hour)))
	wantErr(t, err, ErrTokenUnknown)
	_, err = s.Redeem("new", young, fleet.Fingerprint{}, now.Add(time.Second), issuing(1, now.Add(time.Hour)))
	wantErr(t, err, ErrTokenExpired)
}
