package hubclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/pkg/bundle"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/transport"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

const (
	fetchAttempts = 5                // without getting further
	moreAttempts  = 3                // where some of it is here: a hub that is started again is worth waiting for
	further       = 64 << 10         // bytes that count as having got further
	chunkWait     = 30 * time.Second // between two messages
	turnWait      = 5 * time.Minute  // until data comes, where the hub says that it lets us wait
	maxHave       = 4                // bundles that are offered to be patched
)

var (
	// ErrNoBundle: the hub has no release with this digest.
	ErrNoBundle = errors.New("the hub has no such bundle")
	// ErrDigest: what came is not what was asked for.
	ErrDigest = errors.New("the bundle from the hub does not have its digest")
	// ErrEncoding: what came is no answer to what was asked.
	ErrEncoding = errors.New("the hub sends the bundle as it was not asked to")
	errTooLarge = errors.New("more data than the bundle can have")
	errNoTurn   = errors.New("the hub has no time for us")
)

// held are the bundles that this spoke has. Held are those by which the bundle with the digest is likely smaller, the
// likeliest first; Tar is the canonical tar of one, which has its digest.
type held interface {
	Held(digest fleet.Digest) []fleet.Digest
	Tar(fleet.Digest) ([]byte, error)
}

// Fetch brings a bundle: its canonical tar, which has the digest. The hub may send what is new in it over a bundle
// that is here; where that does not come to the bundle, it is fetched whole. A broken stream is tried again, a few
// times, from where it broke. Errors: ErrNoBundle, ErrDigest, ErrEncoding, bundle.ErrTooLarge, and the wire's.
func (c *Client) Fetch(ctx context.Context, digest fleet.Digest) ([]byte, error) {
	limit, err := c.sizeLimit(digest)
	if err != nil {
		return nil, fmt.Errorf("fetch bundle %s: %w", digest.Short(), err)
	}
	var have []fleet.Digest
	if c.cfg.Held != nil {
		have = c.cfg.Held.Held(digest)
		have = have[:min(len(have), maxHave)]
	}
	r := &received{have: have, limit: limit}
	tar, err := c.fetch(ctx, digest, r)
	if err != nil && ctx.Err() == nil && r.doubtful(err) {
		c.log.Warn("what came of a bundle does not make it: fetching the whole", logging.Digest, digest, "base", r.base, logging.Error, err)
		tar, err = c.fetch(ctx, digest, &received{limit: limit})
	}
	if err != nil {
		return nil, fmt.Errorf("fetch bundle %s: %w", digest.Short(), err)
	}
	return tar, nil
}

// fetch has r filled, over streams that break, and makes the bundle of it.
func (c *Client) fetch(ctx context.Context, digest fleet.Digest, r *received) ([]byte, error) {
	for attempt := 0; ; attempt++ {
		before := r.data.Len()
		err := c.download(ctx, digest, r)
		if err == nil {
			return c.unpack(digest, r)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if r.data.Len() >= before+further {
			attempt = 0
		}
		attempts := fetchAttempts
		if r.encoding != "" && r.data.Len() > 0 {
			attempts += moreAttempts
		}
		switch {
		case status.Code(err) == codes.NotFound:
			return nil, fmt.Errorf("%w: %s", ErrNoBundle, status.Convert(err).Message())
		case attempt+1 >= attempts || !retryable(err):
			return nil, c.named(err)
		}
		c.log.Debug("the bundle's stream broke: trying again", logging.Digest, digest, "bytes", r.data.Len(), logging.Error, err)
		select {
		case <-ctx.Done():
		case <-time.After(Backoff(attempt, rand.Float64())):
		}
	}
}

// unpack trusts nothing but the digest.
func (c *Client) unpack(digest fleet.Digest, r *received) (tar []byte, err error) {
	if r.base == "" {
		tar, err = bundle.Decompress(r.data.Bytes(), r.limit)
	} else {
		var base []byte
		if base, err = c.cfg.Held.Tar(r.base); err == nil {
			tar, err = bundle.Patch(base, r.data.Bytes(), r.limit)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDigest, err)
	}
	if got := bundle.DigestOf(tar); got != digest {
		return nil, fmt.Errorf("%w but %s", ErrDigest, got.Short())
	}
	c.log.Debug("fetched a bundle", logging.Digest, digest, "base", r.base, "bytes", r.data.Len(), "size", len(tar))
	return tar, nil
}

// received is what came of a bundle so far, over one stream or several.
type received struct {
	have  []fleet.Digest // as offered to the hub
	limit int64          // bytes of the tar

	data     bytes.Buffer
	encoding string // of data; empty: the hub does not say, and nothing can be added to it on another stream
	base     fleet.Digest
	size     uint64 // bytes of the encoding
	begun    bool   // something came on this stream
	resumed  bool   // data is of several streams
}

// doubtful: it may come out right where the whole is fetched at once.
func (r *received) doubtful(err error) bool {
	return errors.Is(err, ErrEncoding) || r.base != "" || errors.Is(err, ErrDigest) && r.resumed
}

func (r *received) request(digest fleet.Digest) *syncv1.FetchBundleRequest {
	r.begun = false
	q := &syncv1.FetchBundleRequest{Digest: string(digest)}
	for _, d := range r.have {
		q.Have = append(q.Have, string(d))
	}
	if r.encoding != "" {
		q.Offset, q.Encoding = uint64(r.data.Len()), r.encoding
	}
	return q
}

// most is how many bytes there may be: zstd adds little to what it can't make smaller.
func (r *received) most() uint64 { return uint64(r.limit + r.limit/64 + 64<<10) }

// take adds a message.
func (r *received) take(m *syncv1.FetchBundleResponse) error {
	if len(m.GetData()) == 0 && m.GetEncoding() == "" {
		return nil // the hub lets us wait
	}
	if !r.begun {
		if err := r.begin(m); err != nil {
			return err
		}
	} else if m.GetEncoding() != "" && m.GetEncoding() != r.encoding {
		return fmt.Errorf("%w: another encoding in the middle of one", ErrEncoding)
	}
	switch n := uint64(r.data.Len() + len(m.GetData())); {
	case n > r.most():
		return fmt.Errorf("%w: over %d bytes", errTooLarge, r.most())
	case r.encoding != "" && n > r.size:
		return fmt.Errorf("%w: over the %d bytes that it announced", ErrEncoding, r.size)
	}
	r.data.Write(m.GetData())
	return nil
}

// begin takes the first message of a stream: it goes on where the last one broke, or starts afresh.
func (r *received) begin(m *syncv1.FetchBundleResponse) error {
	base := fleet.Digest(m.GetBase())
	r.begun = true
	switch {
	case r.encoding != "" && m.GetEncoding() == r.encoding && m.GetOffset() == uint64(r.data.Len()):
		if base != r.base || m.GetSize() != r.size {
			return fmt.Errorf("%w: it went on with %d bytes on the base %q, and began with %d on %q", ErrEncoding, m.GetSize(), base, r.size, r.base)
		}
		r.resumed = r.resumed || r.data.Len() > 0
		return nil
	case m.GetOffset() != 0:
		return fmt.Errorf("%w: from byte %d, and %d have come", ErrEncoding, m.GetOffset(), r.data.Len())
	case base != "" && (m.GetEncoding() == "" || !slices.Contains(r.have, base)):
		return fmt.Errorf("%w: as a delta on %q, which was not offered", ErrEncoding, base)
	}
	r.data.Reset()
	r.encoding, r.base, r.size, r.resumed = m.GetEncoding(), base, m.GetSize(), false
	if r.size > r.most() {
		return fmt.Errorf("%w: %d bytes are announced", errTooLarge, r.size)
	}
	return nil
}

// named adds the hub's address, where it is known.
func (c *Client) named(err error) error {
	id, loadErr := LoadIdentity(c.cfg.Dir)
	if loadErr != nil {
		return err
	}
	return wireError{id.Addr, err}
}

// sizeLimit is how many bytes of tar are accepted: an offered bundle's size is known.
func (c *Client) sizeLimit(digest fleet.Digest) (int64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	size := c.sizes[digest]
	switch {
	case size > bundle.MaxSize:
		return 0, fmt.Errorf("%w: it is offered with %d bytes, at most %d are taken", bundle.ErrTooLarge, size, bundle.MaxSize)
	case size > 0:
		return size, nil
	}
	return bundle.MaxSize, nil
}

func retryable(err error) bool {
	if errors.Is(err, errTooLarge) || errors.Is(err, ErrEncoding) || errors.Is(err, errNoTurn) || errors.Is(err, ErrExpired) || errors.Is(err, ErrNotJoined) || errors.Is(err, ErrIdentity) {
		return false
	}
	switch status.Code(err) {
	case codes.Unauthenticated, codes.PermissionDenied, codes.InvalidArgument, codes.Unimplemented:
		return false
	}
	return true
}

// download adds to r what comes on one stream; nil: all has come.
func (c *Client) download(ctx context.Context, digest fleet.Digest, r *received) error {
	conn, done, err := c.connection()
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := time.AfterFunc(chunkWait, func() { cancel(fmt.Errorf("no data for %s", chunkWait)) })
	defer idle.Stop()
	// What else is done for the subscription waits for the fetch: it must not be kept for ever.
	turn := time.AfterFunc(c.turnWait, func() { cancel(fmt.Errorf("%w: it lets us wait since %s", errNoTurn, c.turnWait)) })
	defer turn.Stop()
	stream, err := syncv1.NewSyncServiceClient(conn).FetchBundle(ctx, r.request(digest))
	if err != nil {
		return err
	}
	for {
		m, err := stream.Recv()
		if err == io.EOF {
			if r.encoding != "" && uint64(r.data.Len()) < r.size {
				return fmt.Errorf("the hub ended after %d of %d bytes", r.data.Len(), r.size)
			}
			return nil
		}
		if err != nil {
			if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
				return cause
			}
			return err
		}
		idle.Reset(chunkWait)
		if len(m.GetData()) > 0 {
			turn.Reset(c.turnWait)
		}
		if err := r.take(m); err != nil {
			return err
		}
	}
}

// connection is the session's, or one of its own where there is no session.
func (c *Client) connection() (conn *grpc.ClientConn, done func(), err error) {
	c.mu.Lock()
	conn = c.conn
	c.mu.Unlock()
	if conn != nil {
		return conn, func() {}, nil
	}
	id, err := LoadIdentity(c.cfg.Dir)
	if err != nil {
		return nil, nil, err
	}
	if time.Now().After(id.NotAfter) {
		return nil, nil, ErrExpired
	}
	cfg, err := id.tls()
	if err != nil {
		return nil, nil, err
	}
	if conn, err = transport.Dial(id.Addr, cfg); err != nil {
		return nil, nil, err
	}
	return conn, func() { conn.Close() }, nil
}
