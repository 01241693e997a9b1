package relay

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/hub/internal/blob"
	"github.com/wheelwright-dev/wheelwright/pkg/bundle"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/transport"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// fetchWait bounds how long one bundle may take from the hub.
const fetchWait = 10 * time.Minute

// errAltered: what came from the hub does not have the digest that it was asked for by.
var errAltered = errors.New("the bundle does not have its digest")

// cache keeps bundles on disk. What is in it was compared with its digest, and is compared again whenever it is of use:
// disks forget. The spoke does so too.
type cache struct {
	blobs  *blob.Store
	most   int64
	fetch  func(context.Context, fleet.Digest) ([]byte, error)
	counts *counts
	log    *slog.Logger
	once   singleflight.Group

	mu   sync.Mutex                         // while the folder is made smaller
	sums map[fleet.Digest][sha256.Size]byte // of the compressed form of those that had their digest; under mu
}

func newCache(blobs *blob.Store, most int64, fetch func(context.Context, fleet.Digest) ([]byte, error), counts *counts, log *slog.Logger) (*cache, error) {
	c := &cache{blobs: blobs, most: most, fetch: fetch, counts: counts, log: log, sums: map[fleet.Digest][sha256.Size]byte{}}
	return c, c.shrink("")
}

// open is a bundle's compressed form, from the folder or, once for all who ask at the same time, from the hub.
func (c *cache) open(ctx context.Context, digest fleet.Digest) (io.ReadCloser, error) {
	r, err := c.kept(digest)
	if err == nil {
		c.counts.hits.Add(1)
		return r, nil
	}
	if !errors.Is(err, blob.ErrNotFound) {
		return nil, err
	}
	brought := c.once.DoChan(string(digest), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchWait) // others may wait for it too
		defer cancel()
		return c.bring(ctx, digest)
	})
	select {
	case done := <-brought:
		if done.Err != nil {
			return nil, done.Err
		}
		r, _, err := c.blobs.Get(digest)
		if errors.Is(err, blob.ErrNotFound) { // another one took its place already
			return io.NopCloser(bytes.NewReader(done.Val.([]byte))), nil
		}
		return r, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// kept is a bundle of the folder that is still what it was when it had its digest; blob.ErrNotFound for any other.
func (c *cache) kept(digest fleet.Digest) (io.ReadCloser, error) {
	c.mu.Lock()
	sum, known := c.sums[digest]
	c.mu.Unlock()
	if !known {
		return nil, blob.ErrNotFound
	}
	r, _, err := c.blobs.Get(digest)
	if err != nil {
		return nil, err
	}
	is := sha256.New()
	if _, err = io.Copy(is, r); err != nil || [sha256.Size]byte(is.Sum(nil)) != sum { // also what cannot be read to its end
		err = blob.ErrNotFound
	} else if _, err = r.Seek(0, io.SeekStart); err == nil {
		err = c.use(digest)
	}
	if err != nil {
		_ = r.Close()
		return nil, err
	}
	return r, nil
}

// bring has a bundle in the folder that has its digest, from the hub where what is there has not. The result is its
// compressed form.
func (c *cache) bring(ctx context.Context, digest fleet.Digest) ([]byte, error) {
	z, err := c.stored(digest)
	switch {
	case err == nil:
		c.counts.hits.Add(1)
		if err := c.use(digest); err != nil {
			return nil, err
		}
		return z, c.took(digest, z)
	case errors.Is(err, errAltered):
		c.log.Warn("a bundle of the folder is damaged: fetching it anew", slog.String(logging.Digest, string(digest)), slog.Any(logging.Error, err))
		if err := c.blobs.Remove(digest); err != nil {
			return nil, err
		}
	case !errors.Is(err, blob.ErrNotFound):
		return nil, err
	}
	c.counts.misses.Add(1)
	if z, err = c.fetch(ctx, digest); err != nil {
		return nil, err
	}
	if err := proves(z, digest); err != nil {
		return nil, err
	}
	if err := c.blobs.Put(digest, z); err != nil {
		return nil, err
	}
	return z, c.took(digest, z)
}

// stored reads what is in the folder. Errors: blob.ErrNotFound, errAltered, and the disk's.
func (c *cache) stored(digest fleet.Digest) ([]byte, error) {
	r, _, err := c.blobs.Get(digest)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	z, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("bundle %s: %w: %w", digest.Short(), errAltered, err)
	}
	return z, proves(z, digest)
}

// use notes that one was of use now. One that was removed a moment ago is read all the same.
func (c *cache) use(digest fleet.Digest) error {
	if err := c.blobs.Use(digest, time.Now()); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func proves(z []byte, digest fleet.Digest) error {
	tar, err := bundle.Decompress(z, maxBundle)
	if err != nil {
		return fmt.Errorf("bundle %s: %w: %w", digest.Short(), errAltered, err)
	}
	if bundle.DigestOf(tar) != digest {
		return fmt.Errorf("bundle %s: %w", digest.Short(), errAltered)
	}
	return nil
}

// took notes one that is in the folder and has its digest, and makes room for it.
func (c *cache) took(digest fleet.Digest, z []byte) error {
	c.mu.Lock()
	c.sums[digest] = sha256.Sum256(z)
	c.mu.Unlock()
	return c.shrink(digest)
}

// shrink removes what was not of use for the longest time until the rest fits. keep is the one that is wanted now.
func (c *cache) shrink(keep fleet.Digest) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	all, err := c.blobs.List()
	if err != nil {
		return err
	}
	var total int64
	for _, b := range all {
		total += b.Size
	}
	slices.SortFunc(all, func(a, b blob.Blob) int { return cmp.Or(a.Used.Compare(b.Used), cmp.Compare(a.Digest, b.Digest)) })
	for _, b := range all {
		if total <= c.most {
			break
		}
		if b.Digest == keep {
			continue
		}
		if err := c.blobs.Remove(b.Digest); err != nil {
			return err
		}
		delete(c.sums, b.Digest)
		total -= b.Size
	}
	return nil
}

// bundleServer implements the one method of SyncService that a relay answers itself.
type bundleServer struct {
	syncv1.UnimplementedSyncServiceServer
	cache  *cache
	counts *counts
	log    *slog.Logger
}

// FetchBundle streams one bundle, whole.
func (s *bundleServer) FetchBundle(req *syncv1.FetchBundleRequest, stream syncv1.SyncService_FetchBundleServer) error {
	digest, err := fleet.ParseDigest(req.GetDigest())
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	r, err := s.cache.open(stream.Context(), digest)
	if _, coded := status.FromError(err); err != nil && coded { // the hub's answer, or that it is away
		return err
	}
	if err != nil {
		s.log.Error("bundle not served", slog.String(logging.Digest, string(digest)), slog.Any(logging.Error, err))
		return status.Errorf(codes.Unavailable, "the relay cannot serve the bundle %s now; its log has the cause", digest)
	}
	defer r.Close()
	for {
		chunk := make([]byte, transport.ChunkSize) // it is on its way for longer than it takes to send it
		n, err := io.ReadFull(r, chunk)
		if n > 0 {
			encoded, err := wire.Chunk(&syncv1.FetchBundleResponse{}, chunk[:n])
			if err == nil {
				err = stream.SendMsg(encoded)
			}
			if err != nil {
				return err
			}
			s.counts.bytes.Add(uint64(n))
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			s.log.Error("bundle not served", slog.String(logging.Digest, string(digest)), slog.Any(logging.Error, err))
			return status.Errorf(codes.Unavailable, "the relay cannot read the bundle %s; its log has the cause", digest)
		}
	}
}
