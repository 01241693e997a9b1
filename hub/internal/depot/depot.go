// Package depot hands out bundles as they go over the wire: whole, or as deltas on an earlier one. What many ask for
// is read, or made, once, and its bytes are shared by all. Which releases there are, and who may have one, is not
// known here.
package depot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/wheelwright-dev/wheelwright/pkg/bundle"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
)

const (
	// memoryBytes are kept of what was asked for last.
	memoryBytes = 64 << 20
	// largest is what is kept at all; what is larger is read from the disk by each who asks.
	largest = 16 << 20
	// Wait is how long a fetch waits for a delta, and a delta for others to be made, before the whole is sent.
	Wait = 15 * time.Second
)

// wholes are compressed canonical tars by the digest of the tar.
type wholes interface {
	Get(fleet.Digest) (io.ReadSeekCloser, int64, error)
}

// deltas keeps what was made of a pair; nil: there is no delta worth it. After an error of Get, Put replaces what
// is there.
type deltas interface {
	Get(base, digest fleet.Digest) (delta []byte, found bool, err error)
	Put(base, digest fleet.Digest, delta []byte) error
}

// Config is what a Depot works with.
type Config struct {
	Wholes wholes
	Deltas deltas
	Log    *slog.Logger
}

// Depot is safe for concurrent use.
type Depot struct {
	cfg   Config
	loads singleflight.Group
	slot  chan struct{} // one delta is made at a time: it takes many times the memory of an idle hub
	built atomic.Uint64
	// trouble: of the last Put; it is logged when it begins.
	trouble atomic.Bool

	mu      sync.Mutex
	kept    memory
	making  map[pair]*making
	closing chan struct{}
	closed  bool
	working sync.WaitGroup
}

type pair struct{ base, digest fleet.Digest }

// making is a delta that is being made; made is set when done is closed.
type making struct {
	done chan struct{}
	made *Encoding // nil: there is none
}

// New makes a depot; Close ends what it does.
func New(cfg Config) *Depot {
	return &Depot{cfg: cfg, slot: make(chan struct{}, 1), kept: newMemory(memoryBytes), making: map[pair]*making{}, closing: make(chan struct{})}
}

// Close ends what is being made, and waits for that.
func (d *Depot) Close() error {
	d.mu.Lock()
	if !d.closed {
		d.closed = true
		close(d.closing)
	}
	d.mu.Unlock()
	d.working.Wait()
	return nil
}

// Built is how many deltas were made.
func (d *Depot) Built() uint64 { return d.built.Load() }

// Encoding is a bundle as it goes over the wire; its bytes never change. Each caller has one of its own.
type Encoding struct {
	ID   string       // "sha256:" and the sum of all bytes
	Base fleet.Digest // which bundle.Patch needs; empty: the bytes are the whole
	Size int64        // bytes

	data []byte // shared: read only; nil: it is in file
	open func() (io.ReadSeekCloser, error)
	file io.ReadSeekCloser
	at   int64 // where file is
}

// Chunk is what comes at a place, at most so many bytes, which are never written again. io.EOF at the end.
func (e *Encoding) Chunk(at, most int64) ([]byte, error) {
	n := min(most, e.Size-at)
	if n <= 0 {
		return nil, io.EOF
	}
	if e.data != nil {
		return e.data[at : at+n : at+n], nil
	}
	if e.file == nil {
		var err error
		if e.file, err = e.open(); err != nil {
			return nil, err
		}
	}
	if e.at != at {
		if _, err := e.file.Seek(at, io.SeekStart); err != nil {
			return nil, err
		}
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(e.file, data); err != nil {
		return nil, err
	}
	e.at = at + n
	return data, nil
}

// Close lets go of the file, if there is one.
func (e *Encoding) Close() error {
	if e.file == nil {
		return nil
	}
	return e.file.Close()
}

func idOf(sum []byte) string { return "sha256:" + hex.EncodeToString(sum) }

func encoded(base fleet.Digest, data []byte) *Encoding {
	sum := sha256.Sum256(data)
	return &Encoding{ID: idOf(sum[:]), Base: base, Size: int64(len(data)), data: data}
}

// Get is a bundle as a delta on the first of the bases for which there is one, or whole: where there is none, where it
// would not be smaller, and where it is not made in time. resumed is the encoding of which something was sent
// already; empty: nothing was. ctx bounds the waiting.
func (d *Depot) Get(ctx context.Context, digest fleet.Digest, bases []fleet.Digest, resumed string) (*Encoding, error) {
	whole, err := d.whole(digest)
	if err != nil {
		return nil, err
	}
	if whole.ID == resumed {
		return whole, nil
	}
	for _, base := range bases {
		if base == digest {
			continue
		}
		if e := d.delta(ctx, pair{base, digest}, whole.Size); e != nil {
			return e, nil
		}
	}
	return whole, nil
}

func (d *Depot) whole(digest fleet.Digest) (*Encoding, error) {
	key := pair{digest: digest}
	e, found := d.remembered(key)
	if !found {
		v, err, _ := d.loads.Do(string(digest), func() (any, error) { return d.load(digest) })
		if err != nil {
			return nil, err
		}
		e = v.(*Encoding)
		d.remember(key, e)
	}
	mine := *e
	return &mine, nil
}

// load reads a bundle, and keeps what is not too large for it.
func (d *Depot) load(digest fleet.Digest) (*Encoding, error) {
	open := func() (io.ReadSeekCloser, error) {
		r, _, err := d.cfg.Wholes.Get(digest)
		return r, err
	}
	r, size, err := d.cfg.Wholes.Get(digest)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if size <= largest {
		data := make([]byte, size)
		if _, err := io.ReadFull(r, data); err != nil {
			return nil, fmt.Errorf("read bundle %s: %w", digest.Short(), err)
		}
		return encoded("", data), nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return nil, fmt.Errorf("read bundle %s: %w", digest.Short(), err)
	}
	return &Encoding{ID: idOf(h.Sum(nil)), Size: size, open: open}, nil
}

func (d *Depot) remembered(p pair) (*Encoding, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.kept.get(p)
}

func (d *Depot) remember(p pair, e *Encoding) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.kept.put(p, e)
}

// delta is nil where the whole is what is to be sent.
func (d *Depot) delta(ctx context.Context, p pair, whole int64) *Encoding {
	m := d.join(p, whole)
	if m == nil {
		return nil
	}
	late := time.NewTimer(Wait)
	defer late.Stop()
	select {
	case <-m.done:
	case <-late.C:
		return nil
	case <-ctx.Done():
		return nil
	}
	if m.made == nil {
		return nil
	}
	mine := *m.made
	return &mine
}

// join has a delta made once, however many want it, and for as long as one of them may still come; nil: not now.
func (d *Depot) join(p pair, whole int64) *making {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e, found := d.kept.get(p); found {
		m := &making{done: make(chan struct{}), made: e}
		close(m.done)
		return m
	}
	if m := d.making[p]; m != nil {
		return m
	}
	if d.closed {
		return nil
	}
	m := &making{done: make(chan struct{})}
	d.making[p] = m
	d.working.Go(func() {
		e, known := d.obtain(p, whole)
		d.mu.Lock()
		defer d.mu.Unlock()
		m.made = e
		if known {
			d.kept.put(p, e)
		}
		delete(d.making, p)
		close(m.done)
	})
	return m
}

// obtain reads a delta, or makes it. Known: it would come to the same another time.
func (d *Depot) obtain(p pair, whole int64) (e *Encoding, known bool) {
	log := d.cfg.Log.With(slog.String("base", string(p.base)), slog.String(logging.Digest, string(p.digest)))
	data, found, err := d.cfg.Deltas.Get(p.base, p.digest)
	if err != nil {
		log.Warn("a delta is made anew", slog.Any(logging.Error, err))
	}
	if found {
		return encodedOrNone(p.base, data), true
	}
	late := time.NewTimer(Wait)
	defer late.Stop()
	select {
	case d.slot <- struct{}{}:
		defer func() { <-d.slot }()
	case <-late.C:
		log.Debug("no delta: others are being made")
		return nil, false
	case <-d.closing:
		return nil, false
	}
	ctx, stop := d.untilClosed()
	defer stop()
	begin := time.Now()
	if data, err = d.make(ctx, p); errors.Is(err, context.Canceled) {
		return nil, false
	} else if err != nil {
		log.Error("a delta cannot be made; the whole bundle is sent", slog.Any(logging.Error, err))
		return nil, true
	}
	if int64(len(data)) >= whole {
		data = nil
	}
	log.Debug("a delta was made", slog.Int("bytes", len(data)), slog.Duration(logging.Duration, time.Since(begin)))
	switch err := d.cfg.Deltas.Put(p.base, p.digest, data); {
	case err == nil:
		d.trouble.Store(false)
	case !d.trouble.Swap(true):
		log.Error("deltas cannot be stored, and are made again after a restart; is the disk full?", slog.Any(logging.Error, err))
	}
	return encodedOrNone(p.base, data), true
}

// untilClosed is a context that ends with the depot.
func (d *Depot) untilClosed() (context.Context, context.CancelFunc) {
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		select {
		case <-d.closing:
			stop()
		case <-ctx.Done():
		}
	}()
	return ctx, stop
}

func encodedOrNone(base fleet.Digest, data []byte) *Encoding {
	if data == nil {
		return nil
	}
	return encoded(base, data)
}

// make is nil where there is no delta of the two.
func (d *Depot) make(ctx context.Context, p pair) ([]byte, error) {
	base, err := d.tar(p.base)
	if err != nil {
		return nil, err
	}
	tar, err := d.tar(p.digest)
	if err != nil {
		return nil, err
	}
	d.built.Add(1)
	delta, err := bundle.Delta(ctx, base, tar)
	if errors.Is(err, bundle.ErrNoDelta) {
		return nil, nil
	}
	return delta, err
}

// tar is what a digest is of: nothing is made of what is not.
func (d *Depot) tar(digest fleet.Digest) ([]byte, error) {
	r, size, err := d.cfg.Wholes.Get(digest)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	z := make([]byte, size)
	if _, err := io.ReadFull(r, z); err != nil {
		return nil, fmt.Errorf("read bundle %s: %w", digest.Short(), err)
	}
	tar, err := bundle.Decompress(z, bundle.MaxSize)
	if err != nil {
		return nil, fmt.Errorf("read bundle %s: %w", digest.Short(), err)
	}
	if bundle.DigestOf(tar) != digest {
		return nil, fmt.Errorf("read bundle %s: the file is damaged", digest.Short())
	}
	return tar, nil
}
