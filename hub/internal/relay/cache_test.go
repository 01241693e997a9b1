package relay

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/hub/internal/blob"
	"github.com/wheelwright-dev/wheelwright/pkg/bundle"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// origin is what a hub has, and what it was asked for.
type origin struct {
	mu    sync.Mutex
	has   map[fleet.Digest][]byte // compressed
	asked []fleet.Digest
}

// add is another bundle, of content that does not compress.
func (o *origin) add(seed uint64, size int) fleet.Digest {
	tar := make([]byte, size)
	random := rand.New(rand.NewPCG(seed, 0))
	for i := range tar {
		tar[i] = byte(random.Uint32())
	}
	d := bundle.DigestOf(tar)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.has == nil {
		o.has = map[fleet.Digest][]byte{}
	}
	o.has[d] = bundle.Compress(tar)
	return d
}

func (o *origin) fetch(_ context.Context, d fleet.Digest) ([]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked = append(o.asked, d)
	if z, ok := o.has[d]; ok {
		return z, nil
	}
	return nil, status.Error(codes.NotFound, "no release")
}

// times is how often the hub was asked for a bundle.
func (o *origin) times(d fleet.Digest) (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, a := range o.asked {
		if a == d {
			n++
		}
	}
	return n
}

// shelf is a cache over a folder, with what it says.
type shelf struct {
	*cache
	dir   string
	blobs *blob.Store
	log   *bytes.Buffer
}

func shelved(t *testing.T, dir string, most int64, o *origin) shelf {
	t.Helper()
	blobs, err := blob.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	log := &bytes.Buffer{}
	c, err := newCache(blobs, most, o.fetch, &counts{}, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return shelf{c, dir, blobs, log}
}

// serves reads a bundle through the cache, and wants the hub's bytes.
func (s shelf) serves(t *testing.T, o *origin, d fleet.Digest) {
	t.Helper()
	r, err := s.open(t.Context(), d)
	if err != nil {
		t.Fatalf("bundle %s: %v", d.Short(), err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, o.has[d]) {
		t.Fatalf("bundle %s: %d bytes that are not the hub's, %v", d.Short(), len(got), err)
	}
}

// holds is what is in the folder, in the order of add.
func (s shelf) holds(t *testing.T, all ...fleet.Digest) (kept []int) {
	t.Helper()
	list, err := s.blobs.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range list {
		kept = append(kept, slices.Index(all, b.Digest))
	}
	slices.Sort(kept)
	return kept
}

// used says when a bundle was last of use, for an order that no clock's grain can change.
func (s shelf) used(t *testing.T, d fleet.Digest, when time.Time) {
	t.Helper()
	if err := s.blobs.Use(d, when); err != nil {
		t.Fatal(err)
	}
}

func TestWhatWasOfNoUseForTheLongestTimeGoesFirst(t *testing.T) {
	o := &origin{}
	var all []fleet.Digest
	for i := range 4 {
		all = append(all, o.add(uint64(i), 10_000))
	}
	each := int64(len(o.has[all[0]]))
	s := shelved(t, t.TempDir(), 3*each+each/2, o) // three of them
	begun := time.Now().Add(-time.Hour)
	for i, d := range all[:3] {
		s.serves(t, o, d)
		s.used(t, d, begun.Add(time.Duration(i)*time.Minute))
	}
	s.serves(t, o, all[0]) // of use again: now the second is the oldest
	reading, err := s.open(t.Context(), all[1])
	if err != nil {
		t.Fatal(err)
	}
	defer reading.Close()
	s.used(t, all[1], begun)
	first := make([]byte, 100)
	if _, err := io.ReadFull(reading, first); err != nil {
		t.Fatal(err)
	}
	s.serves(t, o, all[3])
	if kept := s.holds(t, all...); !slices.Equal(kept, []int{0, 2, 3}) {
		t.Errorf("kept %v, want 0, 2 and 3", kept)
	}
	// Who reads what went reads it to its end.
	if rest, err := io.ReadAll(reading); err != nil || !bytes.Equal(append(first, rest...), o.has[all[1]]) {
		t.Errorf("what was being read broke after %d bytes: %v", len(rest), err)
	}
	s.serves(t, o, all[1])
	if kept := s.holds(t, all...); len(kept) != 3 || !slices.Contains(kept, 1) || o.times(all[1]) != 2 {
		t.Errorf("kept %v, and the hub was asked %d times for 1", kept, o.times(all[1]))
	}
	if s.counts.misses.Load() != 5 || s.counts.hits.Load() != 2 {
		t.Errorf("%d misses, %d hits", s.counts.misses.Load(), s.counts.hits.Load())
	}

	// A smaller --keep counts from the start on.
	s = shelved(t, s.dir, each+each/2, o)
	if kept := s.holds(t, all...); len(kept) != 1 {
		t.Errorf("kept %v, want one", kept)
	}
	// One that is larger than all of it is served, and kept while it is the last.
	s = shelved(t, s.dir, 1, o)
	s.serves(t, o, all[2])
	if kept := s.holds(t, all...); !slices.Equal(kept, []int{2}) {
		t.Errorf("kept %v, want 2", kept)
	}
}

// In a folder with room for one of them, each is served while the others take its place.
func TestBundlesThatPushEachOtherOutAreServed(t *testing.T) {
	o := &origin{}
	all := []fleet.Digest{o.add(1, 2_000), o.add(2, 2_000), o.add(3, 2_000)}
	s := shelved(t, t.TempDir(), 1, o)
	var readers sync.WaitGroup
	for i := range 6 {
		readers.Go(func() {
			for n := range 30 {
				d := all[(i+n)%len(all)]
				r, err := s.open(t.Context(), d)
				if err != nil {
					t.Error(err)
					return
				}
				z, err := io.ReadAll(r)
				if err := errors.Join(err, r.Close()); err != nil || !bytes.Equal(z, o.has[d]) {
					t.Errorf("%d other bytes, %v", len(z), err)
				}
			}
		})
	}
	readers.Wait()
}

// Whatever became of the file: nobody is served it, and the hub is asked again, once.
func TestADamagedBundleIsFetchedAnew(t *testing.T) {
	for name, damage := range map[string]func(z []byte) []byte{
		"a bit":           func(z []byte) []byte { z[len(z)/2] ^= 1; return z },
		"the last bit":    func(z []byte) []byte { z[len(z)-1] ^= 1; return z },
		"cut off":         func(z []byte) []byte { return z[:len(z)-7] },
		"empty":           func([]byte) []byte { return nil },
		"something more":  func(z []byte) []byte { return append(z, 0) },
		"another bundle":  func([]byte) []byte { return bundle.Compress([]byte("another")) },
		"not even packed": func(z []byte) []byte { return bytes.Repeat([]byte("x"), len(z)) },
	} {
		for _, when := range []string{"while it runs", "before it starts"} {
			t.Run(name+", "+when, func(t *testing.T) {
				o := &origin{}
				d, other := o.add(1, 10_000), o.add(2, 10_000)
				s := shelved(t, t.TempDir(), 1<<20, o)
				s.serves(t, o, d)
				s.serves(t, o, other)
				path := filepath.Join(s.dir, blob.Name(d))
				z, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, damage(z), 0o600); err != nil {
					t.Fatal(err)
				}
				if when == "before it starts" {
					s = shelved(t, s.dir, 1<<20, o)
				}
				s.serves(t, o, d)
				s.serves(t, o, d)
				s.serves(t, o, other)
				if n, m := o.times(d), o.times(other); n != 2 || m != 1 {
					t.Errorf("the hub was asked %d times for the damaged one, want 2, and %d times for the other, want 1", n, m)
				}
				if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, o.has[d]) {
					t.Errorf("the folder has %d bytes: %v", len(now), err)
				}
				if n := strings.Count(s.log.String(), "is damaged"); n != 1 || !strings.Contains(s.log.String(), string(d)) {
					t.Errorf("said %d times: %s", n, s.log)
				}
			})
		}
	}
}

// With the hub away a damaged bundle is not served either.
func TestADamagedBundleIsNotServedWithoutTheHub(t *testing.T) {
	o := &origin{}
	d := o.add(1, 10_000)
	s := shelved(t, t.TempDir(), 1<<20, o)
	s.serves(t, o, d)
	if err := os.WriteFile(filepath.Join(s.dir, blob.Name(d)), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.fetch = func(context.Context, fleet.Digest) ([]byte, error) {
		return nil, status.Error(codes.Unavailable, "away")
	}
	if _, err := s.open(t.Context(), d); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v", err)
	}
}

// What a hub sends that is not what was asked for is neither served nor kept.
func TestWhatTheHubSendsIsCompared(t *testing.T) {
	o := &origin{}
	d, other := o.add(1, 10_000), o.add(2, 10_000)
	right := o.has[d]
	s := shelved(t, t.TempDir(), 1<<20, o)
	for name, z := range map[string][]byte{"another bundle": o.has[other], "cut off": right[:len(right)-7], "nothing": nil} {
		o.has[d] = z
		if _, err := s.open(t.Context(), d); !errors.Is(err, errAltered) {
			t.Errorf("%s: got %v", name, err)
		}
		if kept := s.holds(t, d); len(kept) != 0 {
			t.Errorf("%s: kept", name)
		}
	}
	o.has[d] = right
	s.serves(t, o, d)
}

// However many ask at the same time, and whoever of them leaves: it crosses once.
func TestABundleCrossesOnceForAllWhoAsk(t *testing.T) {
	o := &origin{}
	d := o.add(1, 10_000)
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := shelved(t, dir, 1<<20, o)
		arrives, fetch := make(chan struct{}), s.fetch
		s.fetch = func(ctx context.Context, d fleet.Digest) ([]byte, error) {
			select {
			case <-arrives:
				return fetch(ctx, d)
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		impatient, leave := context.WithCancel(t.Context())
		gone := make(chan error, 1)
		go func() {
			_, err := s.open(impatient, d)
			gone <- err
		}()
		synctest.Wait()
		var all sync.WaitGroup
		sums := make([][sha256.Size]byte, 50)
		for i := range sums {
			all.Go(func() {
				r, err := s.open(t.Context(), d)
				if err != nil {
					t.Error(err)
					return
				}
				defer r.Close()
				z, err := io.ReadAll(r)
				if err != nil {
					t.Error(err)
				}
				sums[i] = sha256.Sum256(z)
			})
		}
		synctest.Wait()
		leave()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Errorf("who left got %v", err)
		}
		close(arrives)
		all.Wait()
		for i, sum := range sums {
			if sum != sha256.Sum256(o.has[d]) {
				t.Errorf("%d got other bytes", i)
			}
		}
		if n := o.times(d); n != 1 {
			t.Errorf("it crossed %d times", n)
		}
	})
}
