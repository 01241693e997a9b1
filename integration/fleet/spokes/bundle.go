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
	tars  map[fleet.Digest][]byte
	coded map[coding][]byte // as it was sent
}

// coding is how a bundle is sent: whole where there is no base.
type coding struct{ digest, base fleet.Digest }

func newLibrary() library {
	return library{tars: map[fleet.Digest][]byte{}, coded: map[coding][]byte{}}
}

// verified is how a bundle looked on the wire that was found to be it; nil: none was.
func (l *library) verified(c coding) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.coded[c]
}

// verify decodes what came for an offer, and keeps it where it is what it should be.
func (l *library) verify(o *syncv1.Offer, base fleet.Digest, coded []byte) error {
	var tar []byte
	var err error
	if base == "" {
		tar, err = bundle.Decompress(coded, int64(o.GetSize()))
	} else {
		l.mu.Lock()
		from := l.tars[base]
		l.mu.Unlock()
		tar, err = bundle.Patch(from, coded, int64(o.GetSize()))
	}
	if err != nil {
		return err
	}
	if got := bundle.DigestOf(tar); string(got) != o.GetDigest() {
		return fmt.Errorf("bundle of %s: it has the digest %s, want %s", o.GetVersion(), got, o.GetDigest())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tars[fleet.Digest(o.GetDigest())], l.coded[coding{fleet.Digest(o.GetDigest()), base}] = tar, coded
	return nil
}

// fetch fetches and verifies the bundle of an offer: as a delta on the one that runs, where the hub has it so. A stream
// that breaks is not taken up again where it broke, as the real spoke's is.
func (s *Service) fetch(ctx context.Context, hub syncv1.SyncServiceClient, o *syncv1.Offer, have fleet.Digest) error {
	request := &syncv1.FetchBundleRequest{Digest: o.GetDigest()}
	if have != "" {
		request.Have = []string{string(have)}
	}
	stream, err := hub.FetchBundle(ctx, request)
	if err != nil {
		return err
	}
	var p *pieces // nil: nothing has come
	var base fleet.Digest
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if len(m.GetData()) == 0 && m.GetEncoding() == "" {
			continue // the hub lets it wait
		}
		if p == nil {
			if base = fleet.Digest(m.GetBase()); base != "" && base != have {
				return fmt.Errorf("bundle of %s: it came as a delta on %s, which was not offered", o.GetVersion(), base)
			}
			p = &pieces{known: s.library.verified(coding{fleet.Digest(o.GetDigest()), base})}
		}
		p.add(m.GetData())
	}
	if p == nil {
		return fmt.Errorf("bundle of %s: nothing came", o.GetVersion())
	}
	s.counted(func(c *Counters) {
		c.Fetches, c.Bundles = c.Fetches+1, c.Bundles+p.n
		if base != "" {
			c.Deltas++
		}
	})
	if p.whole() {
		return nil
	}
	err = s.library.verify(o, base, p.bytes())
	if err != nil && base != "" {
		return s.fetch(ctx, hub, o, "") // as the real spoke: the whole, at once
	}
	return err
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
