package syncapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/pkg/bundle"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/transport"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// release publishes a tar.
func (w *world) release(t *testing.T, version string, tar []byte) fleet.Digest {
	t.Helper()
	d := bundle.DigestOf(tar)
	if err := w.blobs.Put(d, bundle.Compress(tar)); err != nil {
		t.Fatal(err)
	}
	if err := w.store.PutRelease(fleet.Release{Distribution: "shop", Version: version, Phase: fleet.Available, Digest: d, Size: int64(len(tar))}, "h"); err != nil {
		t.Fatal(err)
	}
	return d
}

// fetch is all that is sent: the first message with an encoding, and the data.
func (w *world) fetch(ctx context.Context, r *syncv1.FetchBundleRequest) (first *syncv1.FetchBundleResponse, data []byte, err error) {
	s, err := w.client.FetchBundle(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return first, data, nil
		}
		if err != nil {
			return first, data, err
		}
		if m.GetEncoding() != "" {
			if first != nil {
				return nil, nil, errors.New("a second beginning")
			}
			first = m
		}
		data = append(data, m.GetData()...)
	}
}

func lines(n int, version string) []byte {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "line %d %d of what does not change\n", i, i*i)
		if i%100 == 0 {
			fmt.Fprintf(&b, "image: app:%s\n", version)
		}
	}
	return []byte(b.String())
}

func noise(n int) []byte {
	b := make([]byte, n)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(b)
	return b
}

func TestFetchOfWhatIsNew(t *testing.T) {
	w := newWorld(t, time.Minute)
	old, tar := lines(2000, "1.0.0"), lines(2000, "1.0.1")
	base, digest := w.release(t, "1.1.0", old), w.release(t, "1.1.1", tar)
	stranger := lines(2000, "1.0.2") // here, and no release of this hub
	if err := w.blobs.Put(bundle.DigestOf(stranger), bundle.Compress(stranger)); err != nil {
		t.Fatal(err)
	}
	whole, z, err := w.fetch(t.Context(), &syncv1.FetchBundleRequest{Digest: string(digest)})
	if err != nil || !bytes.Equal(z, bundle.Compress(tar)) || whole.GetBase() != "" || whole.GetEncoding() != string(bundle.DigestOf(z)) || whole.GetSize() != uint64(len(z)) {
		t.Errorf("whole: %d bytes, %v, %v", len(z), whole, err)
	}
	first, delta, err := w.fetch(t.Context(), &syncv1.FetchBundleRequest{Digest: string(digest), Have: []string{string(bundle.DigestOf(stranger)), string(digestOf("f")), string(base)}})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := bundle.Patch(old, delta, int64(len(tar))); err != nil || !bytes.Equal(got, tar) {
		t.Errorf("it makes %d bytes, %v", len(got), err)
	}
	if first.GetBase() != string(base) || first.GetSize() != uint64(len(delta)) || first.GetEncoding() != string(bundle.DigestOf(delta)) || first.GetOffset() != 0 || len(delta)*10 > len(z) {
		t.Errorf("%d bytes of %d: %v", len(delta), len(z), first)
	}
	if _, z, err := w.fetch(t.Context(), &syncv1.FetchBundleRequest{Digest: string(digest), Have: []string{string(bundle.DigestOf(stranger))}}); err != nil || !bytes.Equal(z, bundle.Compress(tar)) {
		t.Errorf("on what is no release: %d bytes, %v", len(z), err)
	}
	if s := w.service.Stats(); s.DeltaBytes != uint64(len(delta)) || s.WholeBytes != 2*uint64(len(z)) || s.Waiting != 0 {
		t.Errorf("counted: %+v; sent were %d and 2 times %d", s, len(delta), len(z))
	}
	for name, have := range map[string][]string{"at most 4": {string(base), string(base), string(base), string(base), string(base)}, "64 hexadecimal digits": {"../x"}} {
		if _, _, err := w.fetch(t.Context(), &syncv1.FetchBundleRequest{Digest: string(digest), Have: have}); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), name) {
			t.Errorf("%v: %v", have, err)
		}
	}
}

func TestFetchGoesOn(t *testing.T) {
	w := newWorld(t, time.Minute)
	base, digest := w.release(t, "1.1.0", lines(2000, "1.0.0")), w.release(t, "1.1.1", append(lines(2000, "1.0.1"), noise(200_000)...))
	have := []string{string(base)}
	first, delta, err := w.fetch(t.Context(), &syncv1.FetchBundleRequest{Digest: string(digest), Have: have})
	if err != nil || first.GetBase() == "" {
		t.Fatalf("%v, %v", first, err)
	}
	whole, z, err := w.fetch(t.Context(), &syncv1.FetchBundleRequest{Digest: string(digest)})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name     string
		encoding string
		offset   uint64
		want     []byte
		at       uint64
	}{
		{"in the delta", first.GetEncoding(), 100_000, delta[100_000:], 100_000},
		{"at its end", first.GetEncoding(), uint64(len(delta)), nil, uint64(len(delta))},
		{"behind its end", first.GetEncoding(), uint64(len(delta)) + 1, delta, 0},
		{"nowhere", first.GetEncoding(), 1 << 63, delta, 0},
		{"in the whole, though a delta is there", whole.GetEncoding(), 50_000, z[50_000:], 50_000},
		{"in what is not known", string(digestOf("e")), 50_000, delta, 0},
		{"without saying in what", "", 50_000, delta, 0},
	} {
		m, data, err := w.fetch(t.Context(), &syncv1.FetchBundleRequest{Digest: string(digest), Have: have, Encoding: c.encoding, Offset: c.offset})
		if err != nil || !bytes.Equal(data, c.want) || m.GetOffset() != c.at {
			t.Errorf("%s: %d bytes from %d, want %d from %d; %v", c.name, len(data), m.GetOffset(), len(c.want), c.at, err)
		}
	}
}

// A spoke that does not read holds one turn, and no more than that.
func TestFetchesWaitTheirTurn(t *testing.T) {
	w := newWorld(t, time.Minute, func(c *Config) { c.BundleFetches = 1 })
	digest := w.release(t, "1.1.0", noise(4<<20)) // far more than a connection buffers
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	slow, err := w.client.FetchBundle(ctx, &syncv1.FetchBundleRequest{Digest: string(digest)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := slow.Recv(); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	got := make([]error, 3)
	for i := range got {
		all.Go(func() {
			_, z, err := w.fetch(t.Context(), &syncv1.FetchBundleRequest{Digest: string(digest)})
			if got[i] = err; err == nil && len(z) < 4<<20 {
				got[i] = fmt.Errorf("%d bytes", len(z))
			}
		})
	}
	for deadline := time.Now().Add(time.Minute); w.service.Stats().Waiting != 3; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d wait", w.service.Stats().Waiting)
		}
	}
	stop() // and one that goes away gives its turn back
	all.Wait()
	if err := errors.Join(got...); err != nil {
		t.Error(err)
	}
	if n := w.service.Stats().Waiting; n != 0 {
		t.Errorf("%d wait", n)
	}
}

func TestTheGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const second = 1 << 20 // bytes
		g := newGate(second, 2)
		gone := errors.New("gone")
		var alive atomic.Int64
		quiet := func() error { alive.Add(1); return nil }
		begin := time.Now()
		for range 60 * second / transport.ChunkSize {
			if err := g.pay(t.Context(), transport.ChunkSize, quiet); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(begin); took < 59*time.Second || took > 60*time.Second || alive.Load() != 0 {
			t.Errorf("a minute's bytes took %s; told to wait %d times", took, alive.Load())
		}
		// So many at once that each waits long: all are told so, and get their share in the end.
		var all sync.WaitGroup
		for range 60 * second / transport.ChunkSize {
			all.Go(func() {
				if err := g.pay(t.Context(), transport.ChunkSize, func() error { return nil }); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if err := g.pay(t.Context(), transport.ChunkSize, quiet); err != nil || alive.Load() != 6 {
			t.Errorf("told to wait %d times, %v", alive.Load(), err)
		}
		all.Wait()
		// Who is gone pays nothing.
		before := time.Now()
		for range 100 {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_ = g.pay(ctx, transport.ChunkSize, quiet)
		}
		if err := g.pay(t.Context(), transport.ChunkSize, quiet); err != nil || time.Since(before) > time.Second {
			t.Errorf("after 100 that were gone: %s, %v", time.Since(before), err)
		}

		for range 2 {
			if err := g.enter(t.Context(), quiet); err != nil {
				t.Fatal(err)
			}
		}
		if err := g.enter(t.Context(), func() error { return gone }); !errors.Is(err, gone) || g.waiting.Load() != 0 {
			t.Errorf("%v, %d wait", err, g.waiting.Load())
		}
		alive.Store(0)
		order := make(chan int, 3)
		for i := range 3 {
			go func() {
				if err := g.enter(t.Context(), quiet); err != nil {
					t.Error(err)
				}
				order <- i
			}()
			synctest.Wait()
		}
		time.Sleep(25 * time.Second)
		if alive.Load() != 6 || g.waiting.Load() != 3 {
			t.Errorf("told to wait %d times, %d wait", alive.Load(), g.waiting.Load())
		}
		for want := range 3 {
			g.leave()
			if got := <-order; got != want {
				t.Errorf("number %d came in as number %d", got, want)
			}
		}
	})
}
