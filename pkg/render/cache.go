package render

import (
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/wheelwright-dev/wheelwright/pkg/bundle"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
)

// Cache remembers what a Renderer made of its last sources, so that to look again is a lookup. What it holds is in
// memory alone, for a rendered set may hold a provider's secrets: nothing is half written when the process is killed,
// and the next process, which may be of another version, begins with none. Refusals are not remembered.
//
// Nothing needs it: without it, or with what it holds dropped, the same comes out, later. Safe for concurrent use.
type Cache struct {
	from *Renderer
	most int // bytes

	mu    sync.Mutex
	kept  map[key]*list.Element // of remembered
	order *list.List            // the last used first
	held  int                   // bytes
}

type key [sha256.Size]byte

type remembered struct {
	key    key
	result Result
}

// NewCache puts a cache of at most so many bytes in front of a renderer. What is larger than all of it is not kept.
func NewCache(from *Renderer, most int) *Cache {
	return &Cache{from: from, most: most, kept: map[key]*list.Element{}, order: list.New()}
}

// Render is Renderer.Render; what it returns is shared, read only.
func (c *Cache) Render(ctx context.Context, src Source) (Result, error) {
	k := keyOf(src, engine(c.from.cfg.Limits))
	if res, ok := c.get(k); ok {
		return res, nil
	}
	res, err := c.from.Render(ctx, src)
	if err == nil {
		c.put(k, res)
	}
	return res, err
}

func (c *Cache) get(k key) (Result, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.kept[k]
	if !ok {
		return Result{}, false
	}
	res := e.Value.(remembered).result
	// A set goes on to a cluster, and whoever was handed it may have written to it.
	if bundle.DigestOf(res.Manifest) != res.Digest {
		c.dropLocked(e)
		return Result{}, false
	}
	c.order.MoveToFront(e)
	return res, true
}

func (c *Cache) put(k key, res Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.kept[k]; ok { // two asked at once
		c.dropLocked(e)
	}
	if len(res.Manifest) > c.most {
		return
	}
	c.kept[k] = c.order.PushFront(remembered{k, res})
	c.held += len(res.Manifest)
	for c.held > c.most {
		c.dropLocked(c.order.Back())
	}
}

func (c *Cache) dropLocked(e *list.Element) {
	r := c.order.Remove(e).(remembered)
	delete(c.kept, r.key)
	c.held -= len(r.result.Manifest)
}

// keyOf is of all that what comes out depends on. Name and version are for messages; every part is told with its
// length, so that no two sources are written alike.
func keyOf(src Source, engine string) (k key) {
	h := sha256.New()
	text(h, engine)
	list := func(all []string) {
		number(h, len(all))
		for _, s := range all {
			text(h, s)
		}
	}
	list(src.URLs)
	list([]string{src.BundlePath, src.Variant, src.OverlayPath, src.Namespace})
	for _, files := range [][]provenance.File{src.Bundle, src.Overlay} {
		if files == nil { // no overlay is not an empty one
			number(h, -1)
			continue
		}
		number(h, len(files))
		for _, f := range files {
			text(h, f.Path)
			number(h, len(f.Data))
			h.Write(f.Data)
		}
	}
	h.Sum(k[:0])
	return k
}

func text(h hash.Hash, s string) {
	number(h, len(s))
	_, _ = io.WriteString(h, s) // a hash takes everything
}

func number(h hash.Hash, n int) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(n))
	h.Write(b[:])
}

// engine names what renders: this program, the kustomize in it, and how much it is allowed.
func engine(l Limits) string {
	return fmt.Sprintf("%s %+v", program(), l)
}

var program = sync.OnceValue(func() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	all := []string{info.Main.Version}
	for _, m := range info.Deps {
		if strings.HasPrefix(m.Path, "sigs.k8s.io/kustomize/") {
			all = append(all, m.Path+"@"+m.Version)
		}
	}
	return strings.Join(all, " ")
})
