package store

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
)

const (
	// maxJournals is how many journals of one cluster are remembered: a spoke that lost its volume has a
	// new one, and the old may still come back.
	maxJournals = 4
	// clockSlack is how far ahead of the hub a spoke's clock may be and still count as right.
	clockSlack = time.Minute
)

// RecordEvents stores a spoke's events and what they say of its installations, and returns the last
// number of that journal that counts as stored. An event that is there already is passed over, so that a spoke
// may send again. Concurrent calls share a commit. ErrNotFound for a cluster that is not there.
//
// An event updates its installation unless the hub has newer news of it, or the spoke's Hello no longer
// lists the subscription. The history keeps the event without the installation. What a pre-flight found is
// kept for Preflights. Health that is as it was is no event: it is acknowledged and not written.
func (s *Store) RecordEvents(cluster fleet.Cluster, journalID string, events []fleet.Event) (ackedSeq uint64, err error) {
	if len(journalID) == 0 || len(journalID) > 128 {
		return 0, fmt.Errorf("record events of %s: journal id of %d characters, want 1 to 128", cluster, len(journalID))
	}
	b, err := newBulletin(cluster, string(join(string(cluster), journalID)), events)
	if err == nil {
		err = s.share(func(tx *txn) error { return s.record(tx, b) })
	}
	if err != nil {
		return 0, fmt.Errorf("record events: %w", err)
	}
	if b.gap {
		s.log.Warn("store: a spoke's events have a gap", slog.String(logging.Cluster, string(cluster)), slog.Uint64("acked", b.acked))
	}
	return b.acked, nil
}

// bulletin is what a spoke sent in one go. What can be made ready before the transaction is.
type bulletin struct {
	cluster fleet.Cluster
	journal string   // its key
	events  []tiding // by number
	now     time.Time

	acked uint64 // of the answer
	gap   bool
}

// tiding is an event with what is written of it.
type tiding struct {
	fleet.Event
	record       []byte
	installation *installationRecord // nil: it says nothing of one
	encoded      []byte              // a list of that one alone
}

func newBulletin(cluster fleet.Cluster, journal string, events []fleet.Event) (*bulletin, error) {
	r := &bulletin{cluster: cluster, journal: journal, events: make([]tiding, 0, len(events)), now: utc(time.Now())}
	for _, e := range events {
		e.Cluster = cluster
		t := tiding{Event: e}
		var err error
		if t.record, err = json.Marshal(eventRecordOf(e)); err != nil {
			return nil, fmt.Errorf("event %d of %s: %w", e.Seq, cluster, err)
		}
		if e.Installation != nil {
			rec := installationRecordOf(*e.Installation)
			t.installation = &rec
			if t.encoded, err = json.Marshal([]installationRecord{rec}); err != nil {
				return nil, fmt.Errorf("event %d of %s: %w", e.Seq, cluster, err)
			}
		}
		r.events = append(r.events, t)
	}
	slices.SortStableFunc(r.events, func(a, b tiding) int { return cmp.Compare(a.Seq, b.Seq) })
	return r, nil
}

// record is of a group: it may run again.
func (s *Store) record(tx *txn, r *bulletin) error {
	if _, found := s.memory.clusters.latest(string(r.cluster)); !found {
		return untouched{fmt.Errorf("cluster %s: %w", r.cluster, ErrNotFound)}
	}
	journal, known := s.memory.journals.latest(r.journal)
	acked := max(journal.Acked, s.memory.acks.latest(tx, r.journal))
	known = known || acked > 0
	r.acked, r.gap = acked, false
	list, listed := s.memory.installations.latest(r.cluster)
	var fresh []tiding
	news := false
	for _, e := range r.events {
		if e.Seq <= r.acked {
			continue
		}
		r.gap = r.gap || known && e.Seq != r.acked+1
		r.acked = e.Seq
		if !news && !isNews(e, list, listed) {
			continue
		}
		news, fresh = true, append(fresh, e)
	}
	if r.acked == acked {
		return untouched{}
	}
	if !news {
		s.memory.acks.put(tx, r.journal, r.acked)
		return untouched{}
	}
	for _, e := range fresh {
		if err := tell(tx, e.record, e.Event); err != nil {
			return err
		}
	}
	if err := s.applyEvents(tx, r.cluster, list, listed, fresh, r.now); err != nil {
		return err
	}
	if err := s.answered(tx, r.cluster, fresh, r.now); err != nil {
		return err
	}
	if err := s.keepSession(tx, r.cluster); err != nil {
		return err
	}
	return s.putJournal(tx, r.cluster, r.journal, journalRecord{Acked: r.acked, At: r.now})
}

// isNews: not the health that was told before, with a new date.
func isNews(e tiding, list []fleet.Installation, listed bool) bool {
	if e.Kind != fleet.EventHealth || e.installation == nil || e.Preflight != nil || e.Order != nil || e.ReHome != nil || !listed {
		return true
	}
	for _, i := range list {
		if i.Distribution == e.installation.Distribution {
			return string(i.Health) != e.installation.Health || i.HealthMessage != e.installation.HealthMessage || !sameNews([]installationRecord{installationRecordOf(i)}, []installationRecord{*e.installation})
		}
	}
	return true
}

// answered takes what spokes answer to what they were asked.
func (s *Store) answered(tx *txn, cluster fleet.Cluster, tidings []tiding, now time.Time) error {
	var events []fleet.Event
	for _, e := range tidings {
		if e.Preflight != nil || e.Order != nil || e.ReHome != nil {
			events = append(events, e.Event)
		}
	}
	if len(events) == 0 {
		return nil
	}
	if err := putPreflights(tx, cluster, events, now); err != nil {
		return err
	}
	if err := s.answerOrders(tx, cluster, events); err != nil {
		return err
	}
	return s.answerReHomes(tx, cluster, events)
}

// AckedSeq is the last event number of the journal that counts as stored; 0 for a journal never heard of.
func (s *Store) AckedSeq(cluster fleet.Cluster, journalID string) (seq uint64, err error) {
	key := string(join(string(cluster), journalID))
	rec, _ := s.memory.journals.one(key)
	return max(rec.Acked, s.memory.acks.one(key)), nil
}

// AppendEvent records an event of the hub's own.
func (s *Store) AppendEvent(e fleet.Event) error {
	return s.share(func(tx *txn) error { return appendEvent(tx, e) })
}

// applyEvents brings the cluster's installations up to what the events say. list is what there is of them.
func (s *Store) applyEvents(tx *txn, cluster fleet.Cluster, list []fleet.Installation, listed bool, events []tiding, now time.Time) error {
	var changed []tiding
	for _, e := range events {
		if e.installation == nil {
			continue
		}
		i := slices.IndexFunc(list, func(i fleet.Installation) bool { return i.Distribution == e.installation.Distribution })
		switch {
		case i < 0 && listed:
			continue // an old event of a subscription that is no more
		case i >= 0 && staler(e.installation.ObservedAt, list[i].ObservedAt, now):
			continue
		}
		next := installationOf(*e.installation, &s.memory.windows)
		if i < 0 {
			list = append(slices.Clip(list), next)
		} else {
			list = slices.Clone(list) // that which is seen by all
			list[i] = next
		}
		changed = append(changed, e)
	}
	if len(changed) == 0 {
		return nil
	}
	if last := changed[len(changed)-1]; len(list) == 1 {
		s.memory.installations.put(cluster, list)
		return tx.Bucket(bucketInstallations).Put([]byte(cluster), last.encoded)
	}
	// The others stay as they were written, with what a hub of this version does not read.
	records, _, err := get[[]installationRecord](tx.Bucket(bucketInstallations), []byte(cluster))
	if err != nil {
		return err
	}
	for _, e := range changed {
		if i := slices.IndexFunc(records, func(r installationRecord) bool { return r.Distribution == e.installation.Distribution }); i >= 0 {
			records[i] = *e.installation
		} else {
			records = append(records, *e.installation)
		}
	}
	s.memory.installations.put(cluster, list)
	return put(tx.Bucket(bucketInstallations), []byte(cluster), records)
}

// staler: events kept while the hub was away come after a Hello that is newer than they are. A time that
// lies in the future was a wrong clock and must not shut out what comes after it.
func staler(next, stored, now time.Time) bool {
	return !next.IsZero() && next.Before(stored) && stored.Before(now.Add(clockSlack))
}

// putJournal also forgets the oldest journals of the cluster past maxJournals.
func (s *Store) putJournal(tx *txn, cluster fleet.Cluster, key string, rec journalRecord) error {
	b := tx.Bucket(bucketJournals)
	_, known := s.memory.journals.latest(key)
	s.memory.journals.put(key, rec)
	if c, found := s.memory.clusters.latest(string(cluster)); found && rec.At.After(c.LastSeen) {
		c.LastSeen = rec.At
		s.memory.clusters.put(c)
	}
	if err := put(b, []byte(key), rec); err != nil || known {
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
			if string(k) != key && (oldest == nil || r.At.Before(at)) {
				oldest, at = bytes.Clone(k), r.At
			}
		}
		if count <= maxJournals {
			return nil
		}
		s.memory.journals.drop(string(oldest))
		if err := b.Delete(oldest); err != nil {
			return err
		}
	}
}

// acks are what was acknowledged of journals past what is on disk: events that told nothing new. What a hub that
// is killed forgets of them is sent by nobody again, and missed by nobody.
type acks struct {
	mu   sync.Mutex
	news map[string]uint64 // by a journal's key
}

func (a *acks) one(journal string) uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.news[journal]
}

// latest is one as the transaction under way sees it.
func (a *acks) latest(tx *txn, journal string) uint64 {
	if seq, ok := tx.acks[journal]; ok {
		return seq
	}
	return a.one(journal)
}

// put counts once what is before it in its group is on disk.
func (a *acks) put(tx *txn, journal string, seq uint64) {
	if tx.acks == nil {
		tx.acks = map[string]uint64{}
	}
	tx.acks[journal] = seq
	tx.OnCommit(func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.news[journal] = max(a.news[journal], seq)
	})
}

// take are all, for the disk.
func (a *acks) take() map[string]uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.news)
}

// drop forgets those that are on disk now.
func (a *acks) drop(stored map[string]uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for journal, seq := range stored {
		if a.news[journal] <= seq {
			delete(a.news, journal)
		}
	}
}

// forget drops those of a cluster's journals.
func (a *acks) forget(cluster fleet.Cluster) {
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.DeleteFunc(a.news, func(journal string, _ uint64) bool {
		return strings.HasPrefix(journal, string(join(string(cluster), "")))
	})
}
