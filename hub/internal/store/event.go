package store

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

const (
	// maxEvents bounds the history; the oldest go first.
	maxEvents = 10_000
	// maxJournals is how many journals of one cluster are remembered: a spoke that lost its volume has a
	// new one, and the old may still come back.
	maxJournals = 4
	// clockSlack is how far ahead of the hub a spoke's clock may be and still count as right.
	clockSlack = time.Minute
)

// RecordEvents stores a spoke's events and what they say of its installations, and returns the last
// number of that journal that is on disk. An event that is there already is passed over, so that a spoke
// may send again. Concurrent calls share a commit. ErrNotFound for a cluster that is not there.
//
// An event updates its installation unless the hub has newer news of it, or the spoke's Hello no longer
// lists the subscription. The history keeps the event without the installation. What a pre-flight found is
// kept for Preflights.
func (s *Store) RecordEvents(cluster fleet.Cluster, journalID string, events []fleet.Event) (ackedSeq uint64, err error) {
	if len(journalID) == 0 || len(journalID) > 128 {
		return 0, fmt.Errorf("record events of %s: journal id of %d characters, want 1 to 128", cluster, len(journalID))
	}
	events = slices.Clone(events)
	slices.SortStableFunc(events, func(a, b fleet.Event) int { return cmp.Compare(a.Seq, b.Seq) })
	key := join(string(cluster), journalID)
	gap := false
	err = s.db.Batch(func(tx *bolt.Tx) error {
		ackedSeq, gap = 0, false // a batch may run this again
		rec, err := mustCluster(tx, cluster)
		if err != nil {
			return err
		}
		journal, known, err := get[journalRecord](tx.Bucket(bucketJournals), key)
		if err != nil {
			return err
		}
		ackedSeq = journal.Acked
		now := utc(time.Now())
		var fresh []fleet.Event
		for _, e := range events {
			if e.Seq <= ackedSeq {
				continue
			}
			gap = gap || (known && e.Seq != ackedSeq+1)
			e.Cluster = cluster
			if _, err := appendEvent(tx, e); err != nil {
				return err
			}
			fresh = append(fresh, e)
			ackedSeq = e.Seq
		}
		if len(fresh) == 0 {
			return nil
		}
		if err := s.applyEvents(tx, cluster, fresh, now); err != nil {
			return err
		}
		if err := putPreflights(tx, cluster, fresh, now); err != nil {
			return err
		}
		if err := s.answerOrders(tx, cluster, fresh); err != nil {
			return err
		}
		if err := answerReHomes(tx, cluster, fresh); err != nil {
			return err
		}
		rec.LastSeen = now
		if err := s.putCluster(tx, cluster, rec); err != nil {
			return err
		}
		return putJournal(tx, cluster, key, journalRecord{Acked: ackedSeq, At: now})
	})
	if err != nil {
		return 0, fmt.Errorf("record events: %w", err)
	}
	if gap {
		s.log.Warn("store: a spoke's events have a gap", "cluster", string(cluster), "acked", ackedSeq)
	}
	return ackedSeq, nil
}

// AckedSeq is the last event number of the journal that is on disk; 0 for a journal never heard of.
func (s *Store) AckedSeq(cluster fleet.Cluster, journalID string) (seq uint64, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		rec, _, err := get[journalRecord](tx.Bucket(bucketJournals), join(string(cluster), journalID))
		seq = rec.Acked
		return err
	})
	return seq, err
}

// AppendEvent records an event of the hub's own.
func (s *Store) AppendEvent(e fleet.Event) error {
	return s.db.Batch(func(tx *bolt.Tx) error {
		_, err := appendEvent(tx, e)
		return err
	})
}

// EventFilter narrows Events; what is empty matches all.
type EventFilter struct {
	Cluster      string
	Distribution string
	AfterID      uint64                 // events with a larger id only
	Limit        int                    // the newest so many; 0: all
	Only         func(fleet.Event) bool // nil: all
}

// Events lists events in ascending order of id, without their installations.
func (s *Store) Events(f EventFilter) (all []fleet.Event, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketEvents).Cursor()
		for k, v := c.Last(); k != nil; k, v = c.Prev() {
			id := binary.BigEndian.Uint64(k)
			if id <= f.AfterID || (f.Limit > 0 && len(all) == f.Limit) {
				break
			}
			r, err := decode[eventRecord](v, k)
			if err != nil {
				return err
			}
			if (f.Cluster != "" && string(r.Cluster) != f.Cluster) || (f.Distribution != "" && r.Distribution != f.Distribution) {
				continue
			}
			e := fleet.Event{
				ID: id, Seq: r.Seq, At: r.At, Cluster: r.Cluster, Distribution: r.Distribution, Version: r.Version,
				Kind: fleet.EventKind(r.Kind), Message: r.Message,
			}
			if f.Only == nil || f.Only(e) {
				all = append(all, e)
			}
		}
		return nil
	})
	slices.Reverse(all)
	return all, err
}

func appendEvent(tx *bolt.Tx, e fleet.Event) (id uint64, err error) {
	b := tx.Bucket(bucketEvents)
	b.FillPercent = 0.9 // keys only ever grow
	if id, err = b.NextSequence(); err != nil {
		return 0, fmt.Errorf("next event: %w", err)
	}
	rec := eventRecord{At: utc(e.At), Seq: e.Seq, Cluster: e.Cluster, Distribution: e.Distribution, Version: e.Version, Kind: string(e.Kind), Message: e.Message}
	if err := put(b, binary.BigEndian.AppendUint64(nil, id), rec); err != nil {
		return 0, fmt.Errorf("append event: %w", err)
	}
	// Ids have no gaps, so the first one tells how many there are.
	for first, _ := b.Cursor().First(); id-binary.BigEndian.Uint64(first) >= maxEvents; first, _ = b.Cursor().First() {
		if err := b.Delete(first); err != nil {
			return 0, fmt.Errorf("drop oldest event: %w", err)
		}
	}
	return id, nil
}

// applyEvents brings the cluster's installations up to what the events say.
func (s *Store) applyEvents(tx *bolt.Tx, cluster fleet.Cluster, events []fleet.Event, now time.Time) error {
	list, listed, err := get[[]installationRecord](tx.Bucket(bucketInstallations), []byte(cluster))
	if err != nil {
		return err
	}
	changed := false
	for _, e := range events {
		if e.Installation == nil {
			continue
		}
		next := installationRecordOf(*e.Installation)
		i := slices.IndexFunc(list, func(r installationRecord) bool { return r.Distribution == next.Distribution })
		switch {
		case i < 0 && listed:
			continue // an old event of a subscription that is no more
		case i < 0:
			list = append(list, next)
		case staler(next.ObservedAt, list[i].ObservedAt, now):
			continue
		default:
			list[i] = next
		}
		changed = true
	}
	if !changed {
		return nil
	}
	return s.putInstallations(tx, cluster, list)
}

// staler: events kept while the hub was away come after a Hello that is newer than they are. A time that
// lies in the future was a wrong clock and must not shut out what comes after it.
func staler(next, stored, now time.Time) bool {
	return !next.IsZero() && next.Before(stored) && stored.Before(now.Add(clockSlack))
}

// putJournal also forgets the oldest journals of the cluster past maxJournals.
func putJournal(tx *bolt.Tx, cluster fleet.Cluster, key []byte, rec journalRecord) error {
	b := tx.Bucket(bucketJournals)
	if err := put(b, key, rec); err != nil {
		return err
	}
	prefix := join(string(cluster), "")
	for {
		var oldest []byte
		var at time.Time
		count := 0
		c := b.Cursor()
		for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
			r, err := decode[journalRecord](v, k)
			if err != nil {
				return err
			}
			count++
			if !bytes.Equal(k, key) && (oldest == nil || r.At.Before(at)) {
				oldest, at = bytes.Clone(k), r.At
			}
		}
		if count <= maxJournals {
			return nil
		}
		if err := b.Delete(oldest); err != nil {
			return err
		}
	}
}
