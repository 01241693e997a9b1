package spokes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/wheelwright-dev/wheelwright/pkg/bundle"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// library holds what was fetched once for the whole process. The first spoke to fetch something decodes it and
// verifies the digest of its canonical tar; those after it compare what they are sent with what was verified, byte
// for byte. So thousands of spokes in one process cost the processor, which they share with the hub, no thousand
// decodings, and none of them holds what it did not receive.
type library struct {
	mu    sync.Mutex
	coded map[fleet.Digest][]byte // as it was sent
}

func newLibrary() library { return library{coded: map[fleet.Digest][]byte{}} }

// verified is how a bundle looked on the wire that was found to be it; nil: none was.
func (l *library) verified(d fleet.Digest) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.coded[d]
}

// verify decodes what came for an offer, and keeps it where it is what it should be.
func (l *library) verify(o *syncv1.Offer, coded []byte) error {
	tar, err := bundle.Decompress(coded, int64(o.GetSize()))
	if err != nil {
		return err
	}
	if got := bundle.DigestOf(tar); string(got) != o.GetDigest() {
		return fmt.Errorf("bundle of %s: it has the digest %s, want %s", o.GetVersion(), got, o.GetDigest())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.coded[fleet.Digest(o.GetDigest())] = coded
	return nil
}

// fetch fetches and verifies the bundle of an offer.
func (s *Service) fetch(ctx context.Context, hub syncv1.SyncServiceClient, o *syncv1.Offer) error {
	stream, err := hub.FetchBundle(ctx, &syncv1.FetchBundleRequest{Digest: o.GetDigest()})
	if err != nil {
		return err
	}
	p := pieces{known: s.library.verified(fleet.Digest(o.GetDigest()))}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		p.add(m.GetData())
	}
	s.counted(func(c *Counters) { c.Fetches, c.Bundles = c.Fetches+1, c.Bundles+p.n })
	if p.whole() {
		return nil
	}
	return s.library.verify(o, p.bytes())
}

// pieces are what has come so far, held only where it differs from what is known.
type pieces struct {
	known []byte
	n     int64 // received
	other []byte
	odd   bool // other holds it
}

func (p *pieces) add(piece []byte) {
	if !p.odd && bytes.HasPrefix(p.known[p.n:], piece) {
		p.n += int64(len(piece))
		return
	}
	if !p.odd {
		p.other, p.odd = bytes.Clone(p.known[:p.n]), true
	}
	p.n += int64(len(piece))
	p.other = append(p.other, piece...)
}

// whole: exactly what is known has come.
func (p *pieces) whole() bool { return !p.odd && p.known != nil && p.n == int64(len(p.known)) }

func (p *pieces) bytes() []byte {
	if p.odd {
		return p.other
	}
	return p.known[:p.n]
}
