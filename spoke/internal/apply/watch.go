package apply

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/wheelwright-dev/wheelwright/pkg/logging"
)

// Watch notices when something that a distribution has on the cluster is not as it was left: by streams
// of metadata, one for each kind and namespace, which carry who owns which field and no values. It keeps
// a few dozen bytes for each object, asks for nothing while nothing happens, and changes nothing.
type Watch struct {
	c            *Cluster
	distribution string
	wake         chan struct{}
	moved        chan struct{} // what is expected may be in other places

	mu       sync.Mutex // guards what follows
	expected map[identity]Item
	home     string // the namespace of the inventory; empty: nothing is followed
	seen     map[spot]map[identity]sight
}

// spot is one stream: the objects with a label in a place.
type spot struct {
	place
	label string
}

// sight is an object as last seen.
type sight struct {
	uid, owned string
	leaving    bool // on its way out
}

// Watch makes the watch of one distribution. It does nothing until Run and Follow are called.
func (c *Cluster) Watch(distribution string) *Watch {
	return &Watch{
		c: c, distribution: distribution,
		wake: make(chan struct{}, 1), moved: make(chan struct{}, 1),
		expected: map[identity]Item{}, seen: map[spot]map[identity]sight{},
	}
}

// Wake delivers once for all that happened since it last did: something looks other than it was left, and
// Drift can say what. What a controller writes into a status does not.
func (w *Watch) Wake() <-chan struct{} { return w.wake }

// Follow says how the objects were left: by the last Apply or Drift. Call it after each. What differs
// from an expectation that is new wakes; what differed before, and was looked at, does not. An empty
// inventory ends all streams.
func (w *Watch) Follow(inv Inventory) {
	next := map[identity]Item{}
	for _, i := range inv.Current().Items {
		next[i.identity()] = i
	}
	w.mu.Lock()
	before := w.expected
	w.expected, w.home = next, ""
	if len(next) > 0 {
		w.home = inv.Namespace
	}
	for id, i := range next {
		if was, known := before[id]; (!known || was.UID != i.UID || was.Owned != i.Owned) && w.suspectLocked(i) {
			signal(w.wake)
			break
		}
	}
	w.mu.Unlock()
	signal(w.moved)
}

// Suspects is how many objects look other than they were left.
func (w *Watch) Suspects() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, i := range w.expected {
		if w.suspectLocked(i) {
			n++
		}
	}
	if w.home != "" && w.inventoryLostLocked() {
		n++
	}
	return n
}

// suspectLocked: what is on its way out is looked at when it is gone; of a kind that is not listed yet
// nothing is known.
func (w *Watch) suspectLocked(i Item) bool {
	listed := false
	for s, objects := range w.seen {
		if s.GroupKind() != i.GroupKind() || s.namespace != i.Namespace || s.label != DistributionLabel {
			continue
		}
		listed = true
		if o, there := objects[i.identity()]; there {
			return !o.leaving && (o.uid != i.UID || o.owned != i.Owned)
		}
	}
	return listed && (!i.Passing || i.UID == "")
}

func (w *Watch) inventoryLostLocked() bool {
	for s, objects := range w.seen {
		if s.label != InventoryLabel || s.namespace != w.home {
			continue
		}
		o, there := objects[identity{configMaps.GroupKind(), w.home, InventoryName(w.distribution)}]
		return !there || !o.leaving && o.owned == ""
	}
	return false
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // one is waiting already
	}
}

// Run streams until ctx ends. Trouble of one stream is met with patience, and is no error.
func (w *Watch) Run(ctx context.Context) error {
	type running struct {
		stop context.CancelFunc
		done chan struct{}
	}
	streams := map[spot]running{}
	defer func() {
		for _, r := range streams {
			r.stop()
			<-r.done
		}
	}()
	pause := leastPause
	for ctx.Err() == nil {
		want, err := w.spots(ctx)
		var again <-chan time.Time
		if err != nil {
			if ctx.Err() == nil {
				w.c.log.DebugContext(ctx, "what to watch cannot be told yet", logging.Distribution, w.distribution, logging.Error, err)
			}
			t := time.NewTimer(pause)
			again, pause = t.C, min(2*pause, mostPause)
		} else {
			pause = leastPause
			for s, r := range streams {
				if !want[s] {
					r.stop()
					<-r.done
					delete(streams, s)
					w.forget(s)
				}
			}
			for s := range want {
				if _, runs := streams[s]; !runs {
					streamCtx, stop := context.WithCancel(ctx)
					r := running{stop, make(chan struct{})}
					streams[s] = r
					go func() { defer close(r.done); w.stream(streamCtx, s) }()
				}
			}
		}
		select {
		case <-ctx.Done():
		case <-w.moved:
		case <-again:
		}
	}
	return nil
}

// spots are the streams that what is expected needs. Of a kind that is not served there is none.
func (w *Watch) spots(ctx context.Context) (map[spot]bool, error) {
	w.mu.Lock()
	items, home := slices.Collect(maps.Values(w.expected)), w.home
	w.mu.Unlock()
	want := map[spot]bool{}
	if len(items) == 0 {
		return want, nil
	}
	served, err := w.c.kinds.having(ctx, kindsOf(items))
	if err != nil {
		return nil, err
	}
	for _, i := range items {
		if r, ok := served.like(i.GroupVersionKind); ok {
			want[spot{place{r, i.Namespace}, DistributionLabel}] = true
		}
	}
	want[spot{place{configMaps, home}, InventoryLabel}] = true
	return want, nil
}

func kindsOf(items []Item) []schema.GroupVersionKind {
	all := map[schema.GroupVersionKind]bool{}
	for _, i := range items {
		all[i.GroupVersionKind] = true
	}
	return slices.Collect(maps.Keys(all))
}

func (w *Watch) forget(s spot) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.seen, s)
}

// replace takes in a whole list.
func (w *Watch) replace(s spot, objects map[identity]sight) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before, known := w.seen[s]
	w.seen[s] = objects
	for id, i := range w.expected {
		o, there := objects[id]
		was, was2 := before[id]
		if (!known || was2 != there || was != o) && w.at(s, i) && w.suspectLocked(i) {
			signal(w.wake)
			return
		}
	}
	if s.label == InventoryLabel && w.home == s.namespace && w.inventoryLostLocked() {
		signal(w.wake)
	}
}

func (w *Watch) at(s spot, i Item) bool {
	return s.label == DistributionLabel && s.GroupKind() == i.GroupKind() && s.namespace == i.Namespace
}

// change takes in one object; gone: it is not there any more, or not ours.
func (w *Watch) change(s spot, id identity, o sight, gone bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	objects := w.seen[s]
	was, there := objects[id]
	if objects == nil || gone && !there || !gone && there && was == o {
		return
	}
	if gone {
		delete(objects, id)
	} else {
		objects[id] = o
	}
	if s.label == InventoryLabel {
		if w.home == s.namespace && w.inventoryLostLocked() {
			signal(w.wake)
		}
	} else if i, ok := w.expected[id]; ok && w.suspectLocked(i) {
		signal(w.wake)
	}
}
