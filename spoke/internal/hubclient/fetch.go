package hubclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/pkg/bundle"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

const (
	maxBundle     = 512 << 20 // bytes of a tar whose size no offer told
	fetchAttempts = 5
	chunkWait     = 30 * time.Second // between two chunks
)

var (
	// ErrNoBundle: the hub has no release with this digest.
	ErrNoBundle = errors.New("the hub has no such bundle")
	// ErrDigest: what came is not what was asked for.
	ErrDigest = errors.New("the bundle from the hub does not have its digest")
)

// Fetch brings a bundle: its canonical tar, which has the digest. A broken stream is tried again, a few
// times. Errors: ErrNoBundle, ErrDigest, and the wire's.
func (c *Client) Fetch(ctx context.Context, digest fleet.Digest) ([]byte, error) {
	limit := c.sizeLimit(digest)
	for attempt := 0; ; attempt++ {
		z, err := c.download(ctx, digest, limit)
		if err == nil {
			tar, err := bundle.Decompress(z, limit)
			if err != nil {
				return nil, fmt.Errorf("fetch bundle %s: %w: %w", digest.Short(), ErrDigest, err)
			}
			if got := bundle.DigestOf(tar); got != digest {
				return nil, fmt.Errorf("fetch bundle %s: %w but %s", digest.Short(), ErrDigest, got.Short())
			}
			return tar, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("fetch bundle %s: %w", digest.Short(), ctx.Err())
		}
		switch {
		case status.Code(err) == codes.NotFound:
			return nil, fmt.Errorf("fetch bundle %s: %w: %s", digest.Short(), ErrNoBundle, status.Convert(err).Message())
		case attempt+1 == fetchAttempts || !retryable(err):
			return nil, fmt.Errorf("fetch bundle %s: %w", digest.Short(), c.named(err))
		}
		c.log.Debug("the bundle's stream broke: trying again", logging.Digest, digest, logging.Error, err)
		select {
		case <-ctx.Done():
		case <-time.After(Backoff(attempt, rand.Float64())):
		}
	}
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
func (c *Client) sizeLimit(digest fleet.Digest) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if size := c.sizes[digest]; size > 0 && size < maxBundle {
		return size
	}
	return maxBundle
}

var errTooLarge = errors.New("more data than the bundle can have")

func retryable(err error) bool {
	if errors.Is(err, errTooLarge) || errors.Is(err, ErrExpired) || errors.Is(err, ErrNotJoined) || errors.Is(err, ErrIdentity) {
		return false
	}
	switch status.Code(err) {
	case codes.Unauthenticated, codes.PermissionDenied, codes.InvalidArgument, codes.Unimplemented:
		return false
	}
	return true
}

// download returns the compressed bundle. limit is that of the tar: zstd adds little to what it can't
// make smaller.
func (c *Client) download(ctx context.Context, digest fleet.Digest, limit int64) ([]byte, error) {
	conn, done, err := c.connection()
	if err != nil {
		return nil, err
	}
	defer done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := time.AfterFunc(chunkWait, func() { cancel(fmt.Errorf("no data for %s", chunkWait)) })
	defer idle.Stop()
	stream, err := syncv1.NewSyncServiceClient(conn).FetchBundle(ctx, &syncv1.FetchBundleRequest{Digest: string(digest)})
	if err != nil {
		return nil, err
	}
	limit += limit/64 + 64<<10
	var z bytes.Buffer
	for {
		m, err := stream.Recv()
		if err == io.EOF {
			return z.Bytes(), nil
		}
		if err != nil {
			if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
				return nil, cause
			}
			return nil, err
		}
		idle.Reset(chunkWait)
		if int64(z.Len()+len(m.GetData())) > limit {
			return nil, fmt.Errorf("%w: over %d bytes", errTooLarge, limit)
		}
		z.Write(m.GetData())
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
	if conn, err = id.dialNearest(); err != nil {
		return nil, nil, err
	}
	return conn, func() { conn.Close() }, nil
}
