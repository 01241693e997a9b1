package hubclient

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/pkg/bundle"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// cached are tars that the spoke has.
type cached map[fleet.Digest][]byte

func (c cached) Held(fleet.Digest) []fleet.Digest { return slices.Sorted(maps.Keys(c)) }

func (c cached) Tar(d fleet.Digest) ([]byte, error) {
	if c[d] == nil {
		return nil, os.ErrNotExist
	}
	return c[d], nil
}

type answers = grpc.ServerStreamingServer[syncv1.FetchBundleResponse]

// encoding is one as a hub sends it, from a byte on to another.
type encoding struct {
	base fleet.Digest
	data []byte
}

func (e encoding) id() string { return string(bundle.DigestOf(e.data)) }

func (e encoding) send(s answers, from, to int) error {
	m := &syncv1.FetchBundleResponse{Encoding: e.id(), Base: string(e.base), Size: uint64(len(e.data)), Offset: uint64(from)}
	for chunk := range slices.Chunk(e.data[from:to], 1000) {
		m.Data = chunk
		if err := s.Send(m); err != nil {
			return err
		}
		m = &syncv1.FetchBundleResponse{}
	}
	return nil
}

func (e encoding) all(s answers) error { return e.send(s, 0, len(e.data)) }

var errBroken = status.Error(codes.Unavailable, "broken on purpose")

func TestFetchOfADelta(t *testing.T) {
	var lines []string
	for i := range 20_000 {
		lines = append(lines, fmt.Sprintf("line %d of a tar %d", i, i*i))
	}
	old := []byte(strings.Join(lines, "\n"))
	for i := range 2000 {
		lines[i*10] = fmt.Sprintf("another line %d", i*i*i)
	}
	tar := []byte(strings.Join(lines, "\n"))
	digest, base := bundle.DigestOf(tar), bundle.DigestOf(old)
	made, err := bundle.Delta(t.Context(), old, tar)
	if err != nil {
		t.Fatal(err)
	}
	toOther, err := bundle.Delta(t.Context(), old, append(tar, "and more"...))
	if err != nil {
		t.Fatal(err)
	}
	whole, delta := encoding{"", bundle.Compress(tar)}, encoding{base, made}
	half := len(made) / 2
	if half < 5000 || len(whole.data) < 2*len(made) {
		t.Fatalf("%d bytes of %d: this shows nothing", len(made), len(whole.data))
	}
	altered := func(e encoding, at int) encoding {
		e.data = bytes.Clone(e.data)
		e.data[at] ^= 0x55
		return e
	}
	// as sends what is said, and the whole where nothing is offered.
	as := func(f func(n int, r *syncv1.FetchBundleRequest, s answers) error) func(n int, r *syncv1.FetchBundleRequest, s answers) error {
		return func(n int, r *syncv1.FetchBundleRequest, s answers) error {
			if len(r.GetHave()) == 0 {
				return whole.all(s)
			}
			return f(n, r, s)
		}
	}
	always := func(e encoding) func(int, *syncv1.FetchBundleRequest, answers) error {
		return as(func(_ int, _ *syncv1.FetchBundleRequest, s answers) error { return e.all(s) })
	}
	h := newHub(t)
	s := joined(t, h.start())
	s.client.cfg.Held = cached{base: old}
	for _, c := range []struct {
		name  string
		fetch func(n int, r *syncv1.FetchBundleRequest, s answers) error
		is    error
		calls int
		bytes int // 0: not counted
	}{
		{"made of what is here", always(delta), nil, 1, len(made)},
		{"the hub sends the whole", always(whole), nil, 1, len(whole.data)},
		{"a hub that knows of no deltas", as(func(_ int, _ *syncv1.FetchBundleRequest, s answers) error {
			return s.Send(&syncv1.FetchBundleResponse{Data: whole.data})
		}), nil, 1, len(whole.data)},
		{"it waits its turn", as(func(_ int, _ *syncv1.FetchBundleRequest, s answers) error {
			return errors.Join(s.Send(&syncv1.FetchBundleResponse{}), s.Send(&syncv1.FetchBundleResponse{}), delta.all(s))
		}), nil, 1, len(made)},
		{"it goes on where it broke", as(func(n int, r *syncv1.FetchBundleRequest, s answers) error {
			if n == 1 {
				return errors.Join(delta.send(s, 0, half), errBroken)
			}
			if r.GetEncoding() != delta.id() || r.GetOffset() != uint64(half) {
				return status.Errorf(codes.InvalidArgument, "from %d of %s", r.GetOffset(), r.GetEncoding())
			}
			return delta.send(s, half, len(made))
		}), nil, 2, len(made)},
		{"it goes on where the hub ended without a word", as(func(n int, r *syncv1.FetchBundleRequest, s answers) error {
			if n == 1 {
				return delta.send(s, 0, half)
			}
			return delta.send(s, int(r.GetOffset()), len(made))
		}), nil, 2, len(made)},
		{"another encoding after it broke", as(func(n int, _ *syncv1.FetchBundleRequest, s answers) error {
			if n == 1 {
				return errors.Join(delta.send(s, 0, half), errBroken)
			}
			return whole.all(s)
		}), nil, 2, half + len(whole.data)},
		{"an older hub after it broke", as(func(n int, _ *syncv1.FetchBundleRequest, s answers) error {
			if n == 1 {
				return errors.Join(delta.send(s, 0, half), errBroken)
			}
			return s.Send(&syncv1.FetchBundleResponse{Data: whole.data})
		}), nil, 2, 0},
		{"a delta that makes another bundle", always(encoding{base, toOther}), nil, 2, 0},
		{"a delta that is none", always(encoding{base, whole.data}), nil, 2, 0},
		{"a delta that is damaged", always(altered(delta, half)), nil, 2, 0},
		{"a delta on what is not here", always(encoding{digest, made}), nil, 2, 0},
		{"a delta without a name", as(func(_ int, _ *syncv1.FetchBundleRequest, s answers) error {
			return s.Send(&syncv1.FetchBundleResponse{Data: made, Base: string(base)})
		}), nil, 2, 0},
		{"a bomb of a delta", always(encoding{base, bundle.Compress(make([]byte, 256<<20))}), nil, 2, 0},
		{"other bytes after it broke", as(func(n int, r *syncv1.FetchBundleRequest, s answers) error {
			if n == 1 {
				return errors.Join(delta.send(s, 0, half), errBroken)
			}
			m := &syncv1.FetchBundleResponse{Encoding: delta.id(), Base: string(base), Size: uint64(len(made)), Offset: r.GetOffset()}
			m.Data = altered(delta, half+10).data[half:]
			return s.Send(m)
		}), nil, 3, 0},
		{"another base after it broke", as(func(n int, r *syncv1.FetchBundleRequest, s answers) error {
			if n == 1 {
				return errors.Join(delta.send(s, 0, half), errBroken)
			}
			return s.Send(&syncv1.FetchBundleResponse{Encoding: delta.id(), Size: uint64(len(made)), Offset: r.GetOffset(), Data: made[half:]})
		}), nil, 3, 0},
		{"it goes on elsewhere", as(func(n int, _ *syncv1.FetchBundleRequest, s answers) error {
			if n == 1 {
				return errors.Join(delta.send(s, 0, half), errBroken)
			}
			return delta.send(s, half+1, len(made))
		}), nil, 3, 0},
		{"it begins in the middle", as(func(_ int, _ *syncv1.FetchBundleRequest, s answers) error { return delta.send(s, half, len(made)) }), nil, 2, 0},
		{"two encodings in one stream", as(func(_ int, _ *syncv1.FetchBundleRequest, s answers) error {
			return errors.Join(delta.send(s, 0, half), whole.all(s))
		}), nil, 2, 0},
		{"more than it announced", as(func(_ int, _ *syncv1.FetchBundleRequest, s answers) error {
			return s.Send(&syncv1.FetchBundleResponse{Encoding: delta.id(), Base: string(base), Size: 10, Data: made})
		}), nil, 2, 0},
		{"it never comes out right", func(_ int, _ *syncv1.FetchBundleRequest, s answers) error {
			return encoding{"", bundle.Compress(old)}.all(s)
		}, ErrDigest, 1, 0},
		{"a delta where none can be", func(_ int, _ *syncv1.FetchBundleRequest, s answers) error { return encoding{digest, made}.all(s) }, ErrEncoding, 2, 0},
		{"far too much is announced", func(_ int, _ *syncv1.FetchBundleRequest, s answers) error {
			return s.Send(&syncv1.FetchBundleResponse{Encoding: whole.id(), Size: 1 << 40, Data: whole.data})
		}, errTooLarge, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var sent atomic.Int64
			h.mu.Lock()
			h.fetches = 0
			h.fetch = func(n int, r *syncv1.FetchBundleRequest, s answers) error {
				return c.fetch(n, r, counting{s, &sent})
			}
			h.mu.Unlock()
			got, err := s.client.Fetch(t.Context(), digest)
			if !errors.Is(err, c.is) || c.is == nil && !bytes.Equal(got, tar) {
				t.Errorf("got %d bytes, %v", len(got), err)
			}
			if n := h.count(func() int { return h.fetches }); n != c.calls {
				t.Errorf("%d calls, want %d", n, c.calls)
			}
			if n := int(sent.Load()); c.bytes > 0 && n != c.bytes {
				t.Errorf("%d bytes were sent, want %d", n, c.bytes)
			}
		})
	}
}

// counting counts what is sent.
type counting struct {
	answers
	sent *atomic.Int64
}

func (c counting) Send(m *syncv1.FetchBundleResponse) error {
	c.sent.Add(int64(len(m.GetData())))
	return c.answers.Send(m)
}

func TestAHubThatHasNoTimeIsLeftAlone(t *testing.T) {
	h := newHub(t)
	h.fetch = func(_ int, _ *syncv1.FetchBundleRequest, s answers) error {
		for s.Context().Err() == nil {
			if err := s.Send(&syncv1.FetchBundleResponse{}); err != nil {
				return err
			}
			time.Sleep(time.Millisecond)
		}
		return nil
	}
	s := joined(t, h.start())
	s.client.turnWait = 100 * time.Millisecond
	if _, err := s.client.Fetch(t.Context(), bundle.DigestOf(nil)); !errors.Is(err, errNoTurn) || h.fetches != 1 {
		t.Errorf("%d calls, %v", h.fetches, err)
	}
}

func TestABundleThatIsOfferedTooLarge(t *testing.T) {
	h := newHub(t)
	s := joined(t, h.start())
	digest := bundle.DigestOf([]byte("200 MB"))
	s.client.setSizes(&syncv1.DesiredState{Distributions: []*syncv1.DistributionOffers{{Offers: []*syncv1.Offer{{Digest: string(digest), Size: 200 << 20}}}}})
	_, err := s.client.Fetch(t.Context(), digest)
	if !errors.Is(err, bundle.ErrTooLarge) || !strings.Contains(err.Error(), "209715200 bytes, at most 67108864") || h.fetches != 0 {
		t.Errorf("%d calls, %v", h.fetches, err)
	}
}
