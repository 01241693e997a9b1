package store

import (
	"bytes"
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"

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
		err = s.shareOf(b.journal, func(tx *txn) error { return s.record(tx, b) })
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
}

func newBulletin(cluster fleet.Cluster, journal string, events []fleet.Event) (*bulletin, error) {
	r := &bulletin{cluster: cluster, journal: journal, events: make([]tiding, len(events)), now: utc(time.Now())}
	for n := range events {
		t := &r.events[n]
		t.Event = events[n]
		t.Cluster = cluster
		var err error
		if t.record, err = encode(eventRecordOf(&t.Event)); err != nil {
			return nil, fmt.Errorf("event %d of %s: %w", t.Seq, cluster, err)
		}
		if t.Installation != nil {
			t.installation = installationRecordOf(t.Installation)
		}
	}
	slices.SortStableFunc(r.events, func(a, b tiding) int { return cmp.Compare(a.Seq, b.Seq) })
	return r, nil
}

// record is of a group: it may run again.
func (s *Store) record(tx *txn, r *bulletin) error {
	if !s.memory.clusters.there(string(r.cluster)) {
		return untouched{fmt.Errorf("cluster %s: %w", r.cluster, ErrNotFound)}
	}
	journal, stored := s.memory.journals.latest(r.journal)
	acked := max(journal.Acked, s.memory.acks.latest(tx, r.journal))
	known := stored || acked > 0
	r.acked, r.gap = acked, false
	list, listed := s.memory.installations.latest(r.cluster)
	var fresh []*tiding
	news := false
	for n := range r.events {
		e := &r.events[n]
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
		if err := tell(tx, e.record, &e.Event); err != nil {
			return err
		}
	}
	journal.Acked, journal.At = r.acked, r.now
	if err := s.applyEvents(tx, r, &journal, list, listed, fresh); err != nil {
		return err
	}
	if err := s.answered(tx, r.cluster, fresh, r.now); err != nil {
		return err
	}
	if err := s.keepSession(tx, r.cluster); err != nil {
		return err
	}
	return s.putJournal(tx, r.cluster, r.journal, journal, stored)
}

// isNews: not the health that was told before, with a new date.
func isNews(e *tiding, list []fleet.Installation, listed bool) bool {
	if e.Kind != fleet.EventHealth || e.installation == nil || e.Preflight != nil || e.Order != nil || e.ReHome != nil || !listed {
		return true
	}
	i := of(list, e.installation.Distribution)
	return i == nil || !e.installation.saysThe(healthRecordOf(i)) || !e.installation.delivers(i)
}

// answered takes what spokes answer to what they were asked.
func (s *Store) answered(tx *txn, cluster fleet.Cluster, tidings []*tiding, now time.Time) error {
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

// applyEvents brings the cluster's installations up to what the events say. list is what there is of them. Where only
// health changed, which it does all the time, the journal's record, which is written anyway, has it and no other is.
func (s *Store) applyEvents(tx *txn, r *bulletin, journal *journalRecord, list []fleet.Installation, listed bool, events []*tiding) error {
	owned, whole := false, false
	var changed []*installationRecord
	for _, e := range events {
		next := e.installation
		if next == nil {
			continue
		}
		i := of(list, next.Distribution)
		if i == nil && listed {
			continue // an old event of a subscription that is no more
		}
		if i != nil && staler(next.ObservedAt, i.ObservedAt, r.now) {
			continue
		}
		if !owned { // it is seen by all
			owned, list = true, slices.Clone(list)
			i = of(list, next.Distribution)
		}
		switch {
		case i == nil:
			whole, list = true, append(list, installationOf(*next, &s.memory.windows))
		case next.delivers(i):
			next.onto(i)
		default:
			whole, *i = true, installationOf(*next, &s.memory.windows)
		}
		changed = append(changed, next)
	}
	if len(changed) == 0 {
		return nil
	}
	s.memory.installations.put(r.cluster, list)
	if !whole && (journal.Health != nil || !s.healthElsewhere(tx, r)) {
		journal.note(changed)
		return nil
	}
	journal.Health = nil
	return s.rewriteInstallations(tx, r.cluster, list, changed)
}

// note leaves what others see of the record as it is.
func (r *journalRecord) note(changed []*installationRecord) {
	r.Health = slices.Clone(r.Health)
	for _, next := range changed {
		h := newerRecord{next.Distribution, next.healthRecord}
		if i := slices.IndexFunc(r.Health, func(h newerRecord) bool { return h.Distribution == next.Distribution }); i >= 0 {
			r.Health[i] = h
		} else {
			r.Health = append(r.Health, h)
		}
	}
}

// rewriteInstallations writes what a cluster runs with these changed. The others have their health of list, and are else
// as they were written, with what a hub of this version does not read.
func (s *Store) rewriteInstallations(tx *txn, cluster fleet.Cluster, list []fleet.Installation, changed []*installationRecord) error {
	if err := s.endHealth(tx, cluster); err != nil {
		return err
	}
	b := tx.Bucket(bucketInstallations)
	var records []installationRecord
	if len(list) > 1 || len(changed) == 0 {
		var err error
		if records, _, err = get[[]installationRecord](b, []byte(cluster)); err != nil {
			return err
		}
	}
	for n := range records {
		if i := of(list, records[n].Distribution); i != nil {
			records[n].healthRecord = healthRecordOf(i)
		}
	}
	for _, next := range changed {
		if i := slices.IndexFunc(records, func(r installationRecord) bool { return r.Distribution == next.Distribution }); i >= 0 {
			records[i] = *next
		} else {
			records = append(records, *next)
		}
	}
	return put(b, []byte(cluster), records)
}

// healthElsewhere: another journal of the cluster has health that is in no installation's record.
func (s *Store) healthElsewhere(tx *txn, r *bulletin) bool {
	for _, key := range journalsOf(tx, r.cluster) {
		if rec, _ := s.memory.journals.latest(key); key != r.journal && rec.Health != nil {
			return true
		}
	}
	return false
}

// endHealth takes health out of the journals of a cluster whose installations are written whole.
func (s *Store) endHealth(tx *txn, cluster fleet.Cluster) error {
	for _, key := range journalsOf(tx, cluster) {
		rec, _ := s.memory.journals.latest(key)
		if rec.Health == nil {
			continue
		}
		rec.Health = nil
		s.memory.journals.put(key, rec)
		if err := put(tx.Bucket(bucketJournals), []byte(key), rec); err != nil {
			return err
		}
	}
	return nil
}

// journalsOf are the keys of a cluster's journals.
func journalsOf(tx buckets, cluster fleet.Cluster) (keys []string) {
	c, prefix := tx.Bucket(bucketJournals).Cursor(), join(string(cluster), "")
	for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		keys = append(keys, string(k))
	}
	return keys
}

// staler: events kept while the hub was away come after a Hello that is newer than they are. A time that
// lies in the future was a wrong clock and must not shut out what comes after it.
func staler(next, stored, now time.Time) bool {
	return !next.IsZero() && next.Before(stored) && stored.Before(now.Add(clockSlack))
}

// putJournal also forgets the oldest journals of the cluster past maxJournals, where this one was not stored before.
func (s *Store) putJournal(tx *txn, cluster fleet.Cluster, key string, rec journalRecord, stored bool) error {
	b := tx.Bucket(bucketJournals)
	s.memory.journals.put(key, rec)
	s.memory.heard.put(cluster, rec.At)
	if err := put(b, []byte(key), rec); err != nil || stored {
		return err
	}
	keys := journalsOf(tx, cluster)
	for ; len(keys) > maxJournals; keys = journalsOf(tx, cluster) {
		oldest, at := "", time.Time{}
		for _, k := range keys {
			if r, _ := s.memory.journals.latest(k); k != key && (oldest == "" || r.At.Before(at)) {
				oldest, at = k, r.At
			}
		}
		if r, _ := s.memory.journals.latest(oldest); r.Health != nil {
			list, _ := s.memory.installations.latest(cluster)
			if err := s.rewriteInstallations(tx, cluster, list, nil); err != nil {
				return err
			}
		}
		s.memory.journals.drop(oldest)
		if err := b.Delete([]byte(oldest)); err != nil {
			return err
		}
	}
	return nil
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

// noteHealth is the step from schema 5: hubs of that schema looked for health in the installations' records only.
// What they wrote is as it is written now.
func noteHealth(*bolt.Tx) error { return nil }
