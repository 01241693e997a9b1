package gitrepo

import (
	"container/list"
	"sync"

	"github.com/go-git/go-git/v5/plumbing"
)

// Cache keeps objects that repositories read last, so that of a release that is mostly as the one before only what
// changed is read again. It may be shared by any number of repositories; none is handed another's object, whose
// content its own tags could otherwise bring out. Safe for concurrent use.
type Cache struct {
	most int

	mu    sync.Mutex
	known map[owned]*list.Element // of cached
	order *list.List              // the last used first
	held  int                     // bytes
}

const (
	defaultCache = 32 << 20
	entryCost    = 200 // bytes of an entry beside its content
)

// object is shared: read only.
type object struct {
	kind plumbing.ObjectType
	data []byte
}

type owned struct {
	owner *objects
	id    plumbing.Hash
}

// cached is an object, or, without an id, what a repository's last snapshot was made of.
type cached struct {
	owned
	object
	listing *listing
}

func (c *cached) cost() int {
	n := len(c.data) + entryCost
	if c.listing != nil {
		n += c.listing.cost
	}
	return n
}

// NewCache makes one that holds at most so many bytes; what is larger than all of it is not kept.
func NewCache(most int) *Cache {
	return &Cache{most: most, known: map[owned]*list.Element{}, order: list.New()}
}

func (c *Cache) get(owner *objects, id plumbing.Hash) (object, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.known[owned{owner, id}]
	if !ok {
		return object{}, false
	}
	c.order.MoveToFront(e)
	return e.Value.(*cached).object, true
}

func (c *Cache) put(owner *objects, id plumbing.Hash, obj object) {
	c.add(&cached{owned: owned{owner, id}, object: obj})
}

// listing is of the repository's last snapshot; nil: it is not there.
func (c *Cache) listing(owner *objects) *listing {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.known[owned{owner: owner}]
	if !ok {
		return nil
	}
	return e.Value.(*cached).listing
}

func (c *Cache) putListing(owner *objects, l *listing) {
	c.add(&cached{owned: owned{owner: owner}, listing: l})
}

func (c *Cache) add(entry *cached) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.known[entry.owned]; ok {
		c.dropLocked(e)
	}
	if entry.cost() > c.most {
		return
	}
	c.known[entry.owned] = c.order.PushFront(entry)
	for c.held += entry.cost(); c.held > c.most; {
		c.dropLocked(c.order.Back())
	}
}

func (c *Cache) dropLocked(e *list.Element) {
	was := c.order.Remove(e).(*cached)
	delete(c.known, was.owned)
	c.held -= was.cost()
}

func (c *Cache) forget(owner *objects) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for at, e := range c.known {
		if at.owner == owner {
			c.dropLocked(e)
		}
	}
}
