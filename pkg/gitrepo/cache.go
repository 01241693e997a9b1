package gitrepo

import (
	"container/list"
	"sync"
)

// Cache keeps what repositories' last snapshots were made of, so that of a release that is mostly as the one before
// only what changed is read again. It may be shared by any number of repositories; none is handed another's content,
// which its own tags could otherwise bring out. Safe for concurrent use.
type Cache struct {
	most int

	mu    sync.Mutex
	known map[*objects]*list.Element // of cached
	order *list.List                 // the last used first
	held  int                        // bytes
}

const defaultCache = 32 << 20

type cached struct {
	owner *objects
	root  *folder
}

// NewCache makes one that holds at most so many bytes; what is larger than all of it is not kept.
func NewCache(most int) *Cache {
	return &Cache{most: most, known: map[*objects]*list.Element{}, order: list.New()}
}

// get is what a repository's last snapshot was made of; nil: it is not there.
func (c *Cache) get(owner *objects) *folder {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.known[owner]
	if !ok {
		return nil
	}
	c.order.MoveToFront(e)
	return e.Value.(cached).root
}

func (c *Cache) put(owner *objects, root *folder) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.known[owner]; ok {
		c.dropLocked(e)
	}
	if root.cost > c.most {
		return
	}
	c.known[owner] = c.order.PushFront(cached{owner, root})
	for c.held += root.cost; c.held > c.most; {
		c.dropLocked(c.order.Back())
	}
}

func (c *Cache) forget(owner *objects) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.known[owner]; ok {
		c.dropLocked(e)
	}
}

func (c *Cache) dropLocked(e *list.Element) {
	was := c.order.Remove(e).(cached)
	delete(c.known, was.owner)
	c.held -= was.root.cost
}
