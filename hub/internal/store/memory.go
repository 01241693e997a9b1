package store

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	bolt "go.etcd.io/bbolt"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// memory is a decoded picture of what is asked for all the time, so that ten thousand clusters cost a look
// and no decoding. It follows the file: nothing is in it before it is on disk.
//
// bbolt runs a transaction's commit handlers after it let go of the write lock, so that those of two
// transactions may run in either order. A row therefore remembers the transaction that it is from, and
// one of an earlier transaction never takes its place.
type memory struct {
	clusters      sorted[Cluster]
	installations table[fleet.Cluster, []fleet.Installation]
	recalls       sorted[fleet.Recall]
	pins          sorted[fleet.HubPin]
	decisions     sorted[fleet.HubDecision]
	orders        sorted[fleet.SignedOrder]
	windows       windows
}

func newMemory() *memory {
	m := &memory{}
	m.clusters.key = func(c Cluster) string { return string(c.Name) }
	m.recalls.key = func(r fleet.Recall) string { return string(join(r.Distribution, r.Version)) }
	m.pins.key = func(p fleet.HubPin) string { return string(join(string(p.Cluster), p.Distribution)) }
	m.decisions.key = func(d fleet.HubDecision) string { return string(join(string(d.Cluster), d.Distribution)) }
	m.orders.key = func(o fleet.SignedOrder) string { return string(orderKey(o.Cluster, o.Distribution, o.Nonce)) }
	m.installations.rows = map[fleet.Cluster][]fleet.Installation{}
	return m
}

// load reads the picture from the file.
func (m *memory) load(db *bolt.DB) error {
	return db.View(func(tx *bolt.Tx) error {
		for _, name := range buckets() {
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
		b := tx.Bucket([]byte(bucketOrders))
		if err != nil || b == nil {
			return err
		}
		return each(b, func(k string, r orderRecord) error {
			m.orders.rows = append(m.orders.rows, orderOf(k, r))
			return nil
		})
	})
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

// picture is what sorted and table share: rows that are handed out are never written again, but copied
// before the next change.
type picture struct {
	mu     sync.RWMutex
	shared atomic.Bool    // the rows were handed out; set under the read lock
	from   map[string]int // key -> the transaction that its row, or its absence, is from
}

// follow runs change once tx is committed, unless a later transaction changed the key already.
func (p *picture) follow(tx *bolt.Tx, key string, change func()) {
	id := tx.ID()
	tx.OnCommit(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.from[key] > id {
			return
		}
		if p.from == nil {
			p.from = map[string]int{}
		}
		p.from[key] = id
		change()
	})
}

// sorted holds rows in the order of their keys.
type sorted[V any] struct {
	picture
	key  func(V) string
	rows []V
}

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

func (s *sorted[V]) find(key string) (at int, found bool) {
	return slices.BinarySearchFunc(s.rows, key, func(row V, key string) int { return strings.Compare(s.key(row), key) })
}

// own are the rows, to be written.
func (s *sorted[V]) own() []V {
	if s.shared.Swap(false) {
		s.rows = slices.Clone(s.rows)
	}
	return s.rows
}

func (s *sorted[V]) put(tx *bolt.Tx, row V) {
	key := s.key(row)
	s.follow(tx, key, func() {
		if i, found := s.find(key); found {
			s.own()[i] = row
		} else {
			s.rows = slices.Insert(s.own(), i, row)
		}
	})
}

func (s *sorted[V]) drop(tx *bolt.Tx, key string) {
	s.follow(tx, key, func() {
		if i, found := s.find(key); found {
			s.rows = slices.Delete(s.own(), i, i+1)
		}
	})
}

// table holds rows by their keys.
type table[K ~string, V any] struct {
	picture
	rows map[K]V
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

// own are the rows, to be written.
func (t *table[K, V]) own() map[K]V {
	if t.shared.Swap(false) {
		t.rows = maps.Clone(t.rows)
	}
	return t.rows
}

func (t *table[K, V]) put(tx *bolt.Tx, key K, row V) {
	t.follow(tx, string(key), func() { t.own()[key] = row })
}

func (t *table[K, V]) drop(tx *bolt.Tx, key K) {
	t.follow(tx, string(key), func() { delete(t.own(), key) })
}
