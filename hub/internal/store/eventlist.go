package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	bolt "go.etcd.io/bbolt"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// EventFilter narrows Events; what is empty matches all.
type EventFilter struct {
	Cluster      string
	Distribution string
	Provider     string // events of its clusters, and of distributions that name no cluster
	AfterID      uint64 // events with a larger id only
	From         uint64 // events up to this id only; 0: from the newest on. EventPage's next is made for it
	Limit        int    // the newest so many; 0: all
}

// Events lists events in ascending order of id, without their installations.
func (s *Store) Events(f EventFilter) ([]fleet.Event, error) {
	all, _, err := s.EventPage(f)
	return all, err
}

// EventPage is Events with the id from which the page before, of older events, goes on; 0: there are none. What a page
// costs depends on what it shows and not on how long the history is.
func (s *Store) EventPage(f EventFilter) (page []fleet.Event, next uint64, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		page, next, err = readEvents(tx, f)
		return err
	})
	slices.Reverse(page)
	return page, next, err
}

func readEvents(tx buckets, f EventFilter) (page []fleet.Event, next uint64, err error) {
	w := newWalk(tx, f)
	for passed := 0; ; passed++ {
		e, found, err := w.next()
		switch {
		case err != nil:
			return nil, 0, err
		case !found || e.ID <= f.AfterID:
			return page, 0, nil
		case f.Limit > 0 && (len(page) == f.Limit || passed >= maxReach+f.Limit):
			return page, e.ID, nil
		case f.matches(e):
			page = append(page, e)
		}
	}
}

func (f EventFilter) matches(e fleet.Event) bool {
	if f.Cluster != "" && string(e.Cluster) != f.Cluster || f.Distribution != "" && e.Distribution != f.Distribution {
		return false
	}
	if f.Provider == "" {
		return true
	}
	return e.Cluster == "" && e.Distribution != "" || strings.HasPrefix(string(e.Cluster), f.Provider+"/")
}

// walk goes through events from the newest to the oldest: through all, or along chains.
type walk struct {
	events *bolt.Bucket
	all    *bolt.Cursor // nil: along chains
	key    []byte
	value  []byte

	at map[string]uint64 // by chain: its next
	up uint64            // no event above it; 0: any
}

func newWalk(tx buckets, f EventFilter) *walk {
	w := &walk{events: tx.Bucket(bucketEvents), at: map[string]uint64{}, up: f.From}
	b := tx.Bucket([]byte(bucketHeads))
	begin := func(chain string) {
		if b == nil {
			return
		}
		if v := b.Get([]byte(chain)); len(v) == 8 {
			w.at[chain] = binary.BigEndian.Uint64(v)
		}
	}
	switch {
	case f.Cluster != "":
		begin(clusterChain(fleet.Cluster(f.Cluster)))
	case f.Provider != "":
		begin(clusterChain(""))
		if b == nil {
			break
		}
		c, prefix := b.Cursor(), []byte(clusterChain(fleet.Cluster(f.Provider+"/")))
		for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
			if len(v) == 8 {
				w.at[string(k)] = binary.BigEndian.Uint64(v)
			}
		}
	case f.Distribution != "":
		begin(distributionChain(f.Distribution))
	default:
		w.all = w.events.Cursor()
		if f.From == 0 {
			w.key, w.value = w.all.Last()
		} else if w.key, w.value = w.all.Seek(number(f.From)); w.key == nil {
			w.key, w.value = w.all.Last()
		} else if binary.BigEndian.Uint64(w.key) > f.From {
			w.key, w.value = w.all.Prev()
		}
		return w
	}
	if len(w.at) == 1 && f.From > 0 { // the only chain goes on there
		for chain := range w.at {
			if w.at[chain] > f.From {
				w.at[chain] = f.From
			}
		}
	}
	return w
}

func (w *walk) next() (e fleet.Event, found bool, err error) {
	if w.all != nil {
		if w.key == nil {
			return e, false, nil
		}
		id := binary.BigEndian.Uint64(w.key)
		r, err := decode[eventRecord](w.value, w.key)
		w.key, w.value = w.all.Prev()
		return eventOf(id, r), err == nil, err
	}
	for {
		chain, id := w.newest()
		if id == 0 {
			return e, false, nil
		}
		r, found, err := get[eventRecord](w.events, number(id))
		if err != nil {
			return e, false, err
		}
		if !found { // it went with all before it
			delete(w.at, chain)
			continue
		}
		before := r.OfCluster
		if strings.HasPrefix(chain, "d") {
			before = r.OfDistribution
		}
		if before >= id {
			return e, false, fmt.Errorf("event %d: %w: it names event %d before it", id, ErrCorrupt, before)
		}
		w.at[chain] = before
		if w.up == 0 || id <= w.up {
			return eventOf(id, r), true, nil
		}
	}
}

// newest is the chain whose next event is the newest, and that one's id; 0: all are at their end.
func (w *walk) newest() (chain string, id uint64) {
	for c, at := range w.at {
		if at > id {
			chain, id = c, at
		}
	}
	return chain, id
}
