package store

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// memory is a decoded picture of what is asked for all the time, so that ten thousand clusters cost a look
// and no decoding. It follows the file: nothing that anybody else can see is in it before it is on disk. The
// transaction under way sees its own changes.
type memory struct {
	clusters      sorted[Cluster]
	heard         heard // of the clusters
	installations table[fleet.Cluster, []fleet.Installation]
	recalls       sorted[fleet.Recall]
	pins          sorted[fleet.HubPin]
	decisions     sorted[fleet.HubDecision]
	orders        sorted[fleet.SignedOrder]
	identities    table[string, Identity]      // by their certificates' fingerprints; see Store.Identity
	edition       edition                      // of Store.Identity's answers
	journals      table[string, journalRecord] // by their keys
	revisions     table[string, uint64]        // by distribution
	reHomes       sorted[fleet.SignedReHome]
	sessions      sessions
	acks          acks
	windows       windows
}

func newMemory() *memory {
	m := &memory{}
	m.clusters.by(func(c *Cluster) string { return string(c.Name) })
	m.heard.of, m.heard.pending = &m.clusters, map[string]time.Time{}
	m.recalls.by(func(r *fleet.Recall) string { return string(join(r.Distribution, r.Version)) })
	m.pins.by(func(p *fleet.HubPin) string { return string(join(string(p.Cluster), p.Distribution)) })
	m.decisions.by(func(d *fleet.HubDecision) string { return string(join(string(d.Cluster), d.Distribution)) })
	m.orders.by(func(o *fleet.SignedOrder) string { return string(orderKey(o.Cluster, o.Distribution, o.Nonce)) })
	m.installations.rows, m.installations.pending = map[fleet.Cluster][]fleet.Installation{}, pending[[]fleet.Installation]{}
	m.identities.rows, m.identities.pending = map[string]Identity{}, pending[Identity]{}
	m.journals.rows, m.journals.pending = map[string]journalRecord{}, pending[journalRecord]{}
	m.revisions.rows, m.revisions.pending = map[string]uint64{}, pending[uint64]{}
	m.reHomes.by(func(r *fleet.SignedReHome) string { return string(r.Cluster) })
	m.sessions.rows, m.sessions.news, m.sessions.pending = map[fleet.Cluster]sessionRecord{}, map[fleet.Cluster]bool{}, pending[sessionRecord]{}
	m.acks.news = map[string]uint64{}
	m.edition.number.Store(1)
	return m
}

// follower is a part of memory.
type follower interface {
	commit() // takes in what the transaction changed that is on disk now
	forget() // what the transaction changed that is not
}

func (m *memory) parts() []follower {
	return []follower{&m.clusters, &m.heard, &m.installations, &m.recalls, &m.pins, &m.decisions, &m.orders, &m.identities, &m.journals, &m.revisions, &m.reHomes, &m.sessions, &m.edition} // the edition comes after what it is of
}

func (m *memory) commit() {
	for _, p := range m.parts() {
		p.commit()
	}
}

func (m *memory) forget() {
	for _, p := range m.parts() {
		p.forget()
	}
}

// load reads the picture from the file.
func (m *memory) load(db *bolt.DB) error {
	return db.View(func(tx *bolt.Tx) error {
		for _, name := range allBuckets() {
			if tx.Bucket(name) == nil {
				return fmt.Errorf("%w: bucket %s is missing", ErrCorrupt, name)
			}
		}
		err := each(tx.Bucket(bucketClusters), func(k string, r clusterRecord) error {
			m.clusters.rows = append(m.clusters.rows, clusterOf(k, r))
			return nil
		})
		if err != nil {
			return err
		}
		err = each(tx.Bucket(bucketInstallations), func(k string, list []installationRecord) error {
			m.installations.rows[fleet.Cluster(k)] = installationsOf(list, &m.windows)
			return nil
		})
		if err != nil {
			return err
		}
		err = each(tx.Bucket(bucketIdentities), func(k string, r identityRecord) error {
			m.identities.rows[k] = identityOf(r)
			return nil
		})
		if err != nil {
			return err
		}
		err = each(tx.Bucket(bucketJournals), func(k string, r journalRecord) error {
			m.journals.rows[k] = r
			return nil
		})
		if err != nil {
			return err
		}
		m.heardLately()
		for key, r := range m.journals.rows {
			cluster, _, _ := strings.Cut(key, "\x00")
			list := m.installations.rows[fleet.Cluster(cluster)]
			for _, h := range r.Health {
				if i := of(list, h.Distribution); i != nil {
					h.onto(i)
				}
			}
		}
		err = tx.Bucket(bucketRevisions).ForEach(func(k, v []byte) error {
			if len(v) == 8 {
				m.revisions.rows[string(k)] = binary.BigEndian.Uint64(v)
			}
			return nil
		})
		if err != nil {
			return err
		}
		err = eachOf(tx, bucketSessions, func(k string, r sessionRecord) error {
			m.sessions.rows[fleet.Cluster(k)] = r
			return nil
		})
		if err != nil {
			return err
		}
		err = eachOf(tx, bucketReHomes, func(k string, r reHomeRecord) error {
			m.reHomes.rows = append(m.reHomes.rows, reHomeOf(fleet.Cluster(k), r))
			return nil
		})
		if err != nil {
			return err
		}
		err = each(tx.Bucket(bucketRecalls), func(k string, r recallRecord) error {
			m.recalls.rows = append(m.recalls.rows, recallOf(k, r))
			return nil
		})
		if err != nil {
			return err
		}
		err = each(tx.Bucket(bucketPins), func(k string, r hubPinRecord) error {
			m.pins.rows = append(m.pins.rows, hubPinOf(k, r))
			return nil
		})
		if err != nil {
			return err
		}
		err = each(tx.Bucket(bucketDecisions), func(k string, r decisionRecord) error {
			m.decisions.rows = append(m.decisions.rows, decisionOf(k, r))
			return nil
		})
		if err != nil {
			return err
		}
		return eachOf(tx, bucketOrders, func(k string, r orderRecord) error {
			m.orders.rows = append(m.orders.rows, orderOf(k, r))
			return nil
		})
	})
}

// heardLately makes news of what events say of when their cluster was heard: they do not write its record.
func (m *memory) heardLately() {
	for key, r := range m.journals.rows {
		cluster, _, _ := strings.Cut(key, "\x00")
		if i, found := m.clusters.find(cluster); found && r.At.After(m.clusters.rows[i].LastSeen) {
			m.clusters.rows[i].LastSeen = r.At
		}
	}
}

// heard is when clusters were heard of, for the transaction under way: the rows of ten thousand are not put anew for it.
type heard struct {
	of      *sorted[Cluster]
	pending map[string]time.Time
}

func (h *heard) put(cluster fleet.Cluster, at time.Time) {
	if at.After(h.pending[string(cluster)]) {
		h.pending[string(cluster)] = at
	}
}

func (h *heard) drop(cluster fleet.Cluster) { delete(h.pending, string(cluster)) }
func (h *heard) forget()                    { clear(h.pending) }

// commit comes after that of the rows.
func (h *heard) commit() {
	if len(h.pending) == 0 {
		return
	}
	h.of.mu.Lock()
	defer h.of.mu.Unlock()
	h.of.own()
	for key, at := range h.pending {
		if i, found := h.of.find(key); found && at.After(h.of.rows[i].LastSeen) {
			h.of.rows[i].LastSeen = at
		}
	}
	clear(h.pending)
}

// eachOf is each for a bucket that is made when it is first needed.
func eachOf[T any](tx *bolt.Tx, name string, do func(key string, record T) error) error {
	b := tx.Bucket([]byte(name))
	if b == nil {
		return nil
	}
	return each(b, do)
}

// each decodes every record of a bucket, in the order of keys.
func each[T any](b *bolt.Bucket, do func(key string, record T) error) error {
	return b.ForEach(func(k, v []byte) error {
		rec, err := decode[T](v, k)
		if err != nil {
			return err
		}
		return do(string(k), rec)
	})
}

// edition counts the transactions after which an answer may be another one.
type edition struct {
	number atomic.Uint64
	due    bool // the writer's
}

func (e *edition) commit() {
	if e.due {
		e.number.Add(1)
	}
	e.due = false
}

func (e *edition) forget() { e.due = false }

// picture is what sorted and table share: rows that are handed out are never written again, but copied
// before the next change.
type picture struct {
	mu     sync.RWMutex
	shared atomic.Bool // the rows were handed out; set under the read lock
}

// pending are the rows of the transaction under way, by their keys; nil: dropped. They are the writer's alone.
type pending[V any] map[string]*V

// latest is a row as the transaction under way has it; known is false where it has none of its own.
func (p pending[V]) latest(key string) (row V, found, known bool) {
	r, known := p[key]
	if r != nil {
		row, found = *r, true
	}
	return row, found, known
}

// sorted holds rows in the order of their keys.
type sorted[V any] struct {
	picture
	key     func(*V) string
	rows    []V
	pending pending[V]
}

func (s *sorted[V]) by(key func(*V) string) { s.key, s.pending = key, pending[V]{} }

func (s *sorted[V]) all() []V {
	s.mu.RLock()
	defer s.mu.RUnlock()
	s.shared.Store(true)
	return s.rows
}

func (s *sorted[V]) one(key string) (row V, found bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	i, found := s.find(key)
	if found {
		row = s.rows[i]
	}
	return row, found
}

// latest is one as the transaction under way sees it.
func (s *sorted[V]) latest(key string) (row V, found bool) {
	if row, found, known := s.pending.latest(key); known {
		return row, found
	}
	return s.one(key)
}

// find copies no row, as slices.BinarySearchFunc would: some are large, and it is asked for each message.
func (s *sorted[V]) find(key string) (at int, found bool) {
	at = sort.Search(len(s.rows), func(i int) bool { return s.key(&s.rows[i]) >= key })
	return at, at < len(s.rows) && s.key(&s.rows[at]) == key
}

// there says whether latest would find it.
func (s *sorted[V]) there(key string) bool {
	if row, known := s.pending[key]; known {
		return row != nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, found := s.find(key)
	return found
}

func (s *sorted[V]) put(row V)       { s.pending[s.key(&row)] = &row }
func (s *sorted[V]) drop(key string) { s.pending[key] = nil }
func (s *sorted[V]) forget()         { clear(s.pending) }

// own makes rows that nobody else has, where they were handed out.
func (s *sorted[V]) own() {
	if s.shared.Swap(false) {
		s.rows = slices.Clone(s.rows)
	}
}

// commit takes in what the transaction changed: in place where no row came or went, else in one pass.
func (s *sorted[V]) commit() {
	if len(s.pending) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.own()
	var moved []string
	for key, row := range s.pending {
		if i, found := s.find(key); found && row != nil {
			s.rows[i] = *row
		} else if found || row != nil {
			moved = append(moved, key)
		}
	}
	const few = 8 // are put in one by one, which copies what is behind each and makes no new rows
	if len(moved) > few {
		slices.Sort(moved)
		s.rows, moved = s.merged(moved), nil
	}
	for _, key := range moved {
		if i, found := s.find(key); found {
			s.rows = slices.Delete(s.rows, i, i+1)
		} else {
			s.rows = slices.Insert(s.rows, i, *s.pending[key])
		}
	}
	clear(s.pending)
}

// merged are the rows with those of these keys, ascending, put in or left out.
func (s *sorted[V]) merged(keys []string) []V {
	rows := make([]V, 0, len(s.rows)+len(keys))
	from := 0
	for _, key := range keys {
		at, found := s.find(key)
		rows = append(rows, s.rows[from:at]...)
		if from = at; found {
			from++
		}
		if row := s.pending[key]; row != nil {
			rows = append(rows, *row)
		}
	}
	return append(rows, s.rows[from:]...)
}

// table holds rows by their keys.
type table[K ~string, V any] struct {
	picture
	rows    map[K]V
	pending pending[V]
}

func (t *table[K, V]) all() map[K]V {
	t.mu.RLock()
	defer t.mu.RUnlock()
	t.shared.Store(true)
	return t.rows
}

func (t *table[K, V]) one(key K) (row V, found bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	row, found = t.rows[key]
	return row, found
}

// latest is one as the transaction under way sees it.
func (t *table[K, V]) latest(key K) (row V, found bool) {
	if row, found, known := t.pending.latest(string(key)); known {
		return row, found
	}
	return t.one(key)
}

func (t *table[K, V]) put(key K, row V) { t.pending[string(key)] = &row }
func (t *table[K, V]) drop(key K)       { t.pending[string(key)] = nil }
func (t *table[K, V]) forget()          { clear(t.pending) }

func (t *table[K, V]) commit() {
	if len(t.pending) == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.shared.Swap(false) {
		t.rows = maps.Clone(t.rows)
	}
	for key, row := range t.pending {
		if row == nil {
			delete(t.rows, K(key))
		} else {
			t.rows[K(key)] = *row
		}
	}
	clear(t.pending)
}
