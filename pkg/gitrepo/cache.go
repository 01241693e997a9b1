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

type cached struct {
	owned
	object
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
	c.mu.Lock()
	defer c.mu.Unlock()
	at := owned{owner, id}
	if _, ok := c.known[at]; ok || len(obj.data)+entryCost > c.most {
		return
	}
	c.known[at] = c.order.PushFront(&cached{at, obj})
	for c.held += len(obj.data) + entryCost; c.held > c.most; {
		c.dropLocked(c.order.Back())
	}
}

func (c *Cache) dropLocked(e *list.Element) {
	was := c.order.Remove(e).(*cached)
	delete(c.known, was.owned)
	c.held -= len(was.data) + entryCost
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
