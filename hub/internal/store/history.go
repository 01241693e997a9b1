package store

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// History is what is kept of the past. The zero value keeps what DefaultHistory does.
type History struct {
	Events int           // the newest so many
	Age    time.Duration // and none that is older; 0: whatever its age
}

// DefaultHistory is about 30 MB of events, and of 10,000 clusters the last ten of each.
var DefaultHistory = History{Events: 100_000}

const (
	// trimAtOnce is how many old events a transaction drops at least, where there are so many: a bound that was
	// lowered is come down to in small steps.
	trimAtOnce = 256
	// maxReach is how many events of one chain a page passes over, of which none matched.
	maxReach = 100_000
)

// bucketHeads is where the chains of events begin: each event names the one before it of its cluster, and the
// one before it of its distribution, so that a list of one of them costs what it shows, however long the history
// is, and what drops out at the far end leaves nothing to clean up but, now and then, a head.
const bucketHeads = "heads" // "c" and a cluster, or "d" and a distribution -> big-endian id of its newest event

// links name the events before this one.
type links struct {
	OfCluster      uint64 `json:"beforeC,omitempty"` // or of none, as this one
	OfDistribution uint64 `json:"beforeD,omitempty"`
}

func clusterChain(c fleet.Cluster) string { return "c" + string(c) }
func distributionChain(d string) string   { return "d" + d }

// heads are ids by chain.
type heads struct {
	stored map[string]uint64
	ids    map[string]uint64 // newer ones
	order  []string          // in which those came
}

func newHeads() *heads { return &heads{stored: map[string]uint64{}, ids: map[string]uint64{}} }

func (h *heads) load(db *bolt.DB) error {
	return db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(bucketHeads))
		if b == nil {
			return nil
		}
		return b.ForEach(func(k, v []byte) error {
			if len(v) == 8 {
				h.stored[string(k)] = binary.BigEndian.Uint64(v)
			}
			return nil
		})
	})
}

// push makes a chain one event longer, and returns the one before.
func (h *heads) push(chain string, id uint64) (before uint64) {
	before, known := h.ids[chain]
	if !known {
		before = h.stored[chain]
		h.order = append(h.order, chain)
	}
	h.ids[chain] = id
	return before
}

// commit: those that are newer are stored.
func (h *heads) commit() {
	maps.Copy(h.stored, h.ids)
	h.forget()
}

// forget: they are not.
func (h *heads) forget() {
	clear(h.ids)
	h.order = h.order[:0]
}

func (h *heads) store(tx *bolt.Tx) error {
	if len(h.ids) == 0 {
		return nil
	}
	b, err := tx.CreateBucketIfNotExists([]byte(bucketHeads))
	if err != nil {
		return fmt.Errorf("create bucket %s: %w", bucketHeads, err)
	}
	slices.Sort(h.order)
	for _, chain := range h.order {
		if err := b.Put([]byte(chain), number(h.ids[chain])); err != nil {
			return fmt.Errorf("note the newest event: %w", err)
		}
	}
	return nil
}

func eventRecordOf(e *fleet.Event) eventRecord {
	return eventRecord{At: utc(e.At), Seq: e.Seq, Cluster: e.Cluster, Distribution: e.Distribution, Version: e.Version, Kind: string(e.Kind), Message: e.Message}
}

func eventOf(id uint64, r eventRecord) fleet.Event {
	return fleet.Event{ID: id, Seq: r.Seq, At: r.At, Cluster: r.Cluster, Distribution: r.Distribution, Version: r.Version,
		Kind: fleet.EventKind(r.Kind), Message: r.Message}
}

func appendEvent(tx *txn, e fleet.Event) error {
	record, err := encode(eventRecordOf(&e))
	if err != nil {
		return fmt.Errorf("append event: %w", err)
	}
	return tell(tx, record, &e)
}

// tell appends an event whose record is encoded but for its links, for which there may be room behind it.
func tell(tx *txn, record []byte, e *fleet.Event) error {
	b := tx.Bucket(bucketEvents)
	b.FillPercent = 1 // keys only ever grow
	id, err := b.NextSequence()
	if err != nil {
		return fmt.Errorf("next event: %w", err)
	}
	if err := b.Put(number(id), tx.heads.link(record, e, id)); err != nil {
		return fmt.Errorf("append event: %w", err)
	}
	tx.appended++
	return nil
}

// link adds an event to its chains, and its links to its record.
func (h *heads) link(record []byte, e *fleet.Event, id uint64) []byte {
	l := links{OfCluster: h.push(clusterChain(e.Cluster), id)}
	if e.Distribution != "" {
		l.OfDistribution = h.push(distributionChain(e.Distribution), id)
	}
	w := encoder{buf: record[:len(record)-1]} // without its brace
	w.links(l)
	w.close()
	return w.buf
}

// settleEvents ends a transaction that appended events: it stores where their chains begin now, and drops as
// many old ones as came, and some more.
func (s *Store) settleEvents(tx *txn) error {
	if tx.appended == 0 {
		return nil
	}
	if err := tx.heads.store(tx.Tx); err != nil {
		return err
	}
	b, keep := tx.Bucket(bucketEvents), uint64(s.history().Events)
	first := firstEvent(tx)
	if there := b.Sequence() + 1 - first; there > keep {
		return dropEvents(b, first, min(int(there-keep), 2*tx.appended+trimAtOnce))
	}
	return nil
}

// dropEvents drops the oldest n. Ids have no gaps, so their keys are known: looking for the first again and again
// would pass over all that were dropped before.
func dropEvents(b *bolt.Bucket, first uint64, n int) error {
	c := b.Cursor()
	for id := first; id < first+uint64(n); id++ {
		key := number(id)
		if k, _ := c.Seek(key); !bytes.Equal(k, key) {
			continue
		}
		if err := c.Delete(); err != nil {
			return fmt.Errorf("drop oldest event: %w", err)
		}
	}
	return nil
}

// Keep bounds the history from here on; what is zero is as in DefaultHistory. What is past the bounds goes with the next Tidy.
func (s *Store) Keep(h History) {
	h.Events = cmp.Or(h.Events, DefaultHistory.Events)
	s.keep.Store(&h)
}

func (s *Store) history() History { return *s.keep.Load() }

// Tidy drops what need not be remembered any more: tokens that are long over, and what the history's bounds leave out.
// The latter goes in small transactions between which others come: a bound that was lowered, events that became too
// old, and the heads of chains of which nothing is left. Where there is nothing to drop it writes nothing.
func (s *Store) Tidy(now time.Time) error {
	if err := s.tidyTokens(now); err != nil {
		return fmt.Errorf("tidy the tokens: %w", err)
	}
	return s.tidyEvents(now)
}

func (s *Store) tidyTokens(now time.Time) error {
	over := func(t tokenRecord) bool { return now.Sub(t.Expires) > tokenMemory }
	any := false
	err := s.db.View(func(tx *bolt.Tx) error {
		return each(tx.Bucket(bucketTokens), func(_ string, t tokenRecord) error {
			any = any || over(t)
			return nil
		})
	})
	if err != nil || !any {
		return err
	}
	return s.update(func(tx *txn) error { return deleteTokens(tx, over) })
}

func (s *Store) tidyEvents(now time.Time) error {
	const step = 2000
	for {
		old := 0
		err := s.db.View(func(tx *bolt.Tx) (err error) { // a look costs no write
			old, err = tidyable(tx, s.history(), now, step)
			return err
		})
		if err != nil || old == 0 {
			return err
		}
		err = s.update(func(tx *txn) error {
			if old, err = tidyable(tx, s.history(), now, step); err != nil {
				return err
			}
			if err := dropEvents(tx.Bucket(bucketEvents), firstEvent(tx), old); err != nil {
				return err
			}
			return dropHeads(tx)
		})
		if err != nil {
			return fmt.Errorf("tidy the history: %w", err)
		}
	}
}

// firstEvent is the id of the oldest; one more than the last where there is none.
func firstEvent(tx buckets) uint64 {
	b := tx.Bucket(bucketEvents)
	if first, _ := b.Cursor().First(); first != nil {
		return binary.BigEndian.Uint64(first)
	}
	return b.Sequence() + 1
}

// tidyable counts the oldest events that are to go, at most limit.
func tidyable(tx buckets, h History, now time.Time, limit int) (n int, err error) {
	b := tx.Bucket(bucketEvents)
	c, last := b.Cursor(), b.Sequence()
	for k, v := c.First(); k != nil && n < limit; k, v = c.Next() {
		old := last-binary.BigEndian.Uint64(k) >= uint64(h.Events)
		if !old && h.Age > 0 {
			r, err := decode[eventRecord](v, k)
			if err != nil {
				return 0, err
			}
			old = now.Sub(r.At) > h.Age
		}
		if !old {
			break
		}
		n++
	}
	return n, nil
}

// dropHeads forgets the chains of which no event is left.
func dropHeads(tx *txn) error {
	b := tx.Bucket([]byte(bucketHeads))
	if b == nil {
		return nil
	}
	first := firstEvent(tx)
	var gone [][]byte
	err := b.ForEach(func(k, v []byte) error {
		if len(v) == 8 && binary.BigEndian.Uint64(v) < first {
			gone = append(gone, bytes.Clone(k))
		}
		return nil
	})
	for _, k := range gone {
		if err == nil {
			err = b.Delete(k)
		}
	}
	tx.OnCommit(func() {
		for _, k := range gone {
			delete(tx.heads.stored, string(k))
		}
	})
	return err
}

// linkEvents is the step from schema 4: hubs of that schema looked at every event for each list.
func linkEvents(tx *bolt.Tx) error {
	b, h := tx.Bucket(bucketEvents), newHeads()
	type old struct {
		id    uint64
		event fleet.Event
	}
	var all []old
	err := each(b, func(k string, r eventRecord) error {
		all = append(all, old{numberOf(k), eventOf(0, r)})
		return nil
	})
	if err != nil {
		return err
	}
	for _, o := range all {
		record, err := encode(eventRecordOf(&o.event))
		if err != nil {
			return err
		}
		if err := b.Put(number(o.id), h.link(record, &o.event, o.id)); err != nil {
			return fmt.Errorf("link event %d: %w", o.id, err)
		}
	}
	return h.store(tx)
}
