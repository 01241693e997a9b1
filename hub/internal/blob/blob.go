// Package blob keeps bundles on disk, compressed, one file for each digest, and beside them the deltas between
// them, which can be made again and are bounded.
//
// A file has its name only once it is whole and on the disk, so what can be read was put completely. The
// package does not look into bundles, and removes none by itself.
package blob

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/wholefile"
)

// ErrNotFound: no bundle of that digest was put.
var ErrNotFound = errors.New("bundle is not stored")

const (
	partPrefix = "part-"
	suffix     = ".tar.zst"
)

// Store is safe for concurrent use by one process.
type Store struct {
	dir string
}

// Open makes the folder where needed, and removes what a killed Put left.
func Open(dir string) (*Store, error) {
	if err := prepare(dir); err != nil {
		return nil, fmt.Errorf("open bundle store: %w", err)
	}
	return &Store{dir: dir}, nil
}

func prepare(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	parts, err := filepath.Glob(filepath.Join(dir, partPrefix+"*"))
	if err != nil {
		return err
	}
	for _, p := range parts {
		if err := os.Remove(p); err != nil {
			return err
		}
	}
	return nil
}

// Name is the name of a digest's file in the folder.
func Name(digest fleet.Digest) string { return digest.Hex() + suffix }

func (s *Store) path(digest fleet.Digest) (string, error) {
	if _, err := fleet.ParseDigest(string(digest)); err != nil {
		return "", err // a digest becomes a file's name
	}
	return filepath.Join(s.dir, Name(digest)), nil
}

// Put stores the compressed form of the canonical tar that has the digest. When it returns nil, the
// bundle survives power loss. Putting a digest again does nothing.
func (s *Store) Put(digest fleet.Digest, compressed []byte) error {
	path, err := s.path(digest)
	if err != nil {
		return fmt.Errorf("store bundle: %w", err)
	}
	if len(compressed) == 0 {
		return fmt.Errorf("store bundle %s: it is empty", digest)
	}
	if _, err := os.Stat(path); err == nil {
		// Its folder entry may be of a Put that did not live to sync it.
		if err := wholefile.SyncFolder(s.dir); err != nil {
			return fmt.Errorf("store bundle %s: %w", digest, err)
		}
		return nil
	}
	if err := wholefile.Write(path, partPrefix+"*", compressed); err != nil {
		return fmt.Errorf("store bundle %s: %w", digest, err)
	}
	return nil
}

// Get opens a bundle's compressed form. The caller closes it. ErrNotFound: it was never put.
func (s *Store) Get(digest fleet.Digest) (io.ReadSeekCloser, int64, error) {
	path, err := s.path(digest)
	if err != nil {
		return nil, 0, fmt.Errorf("read bundle: %w", err)
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, fmt.Errorf("read bundle %s: %w", digest, ErrNotFound)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read bundle %s: %w", digest, err)
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, 0, fmt.Errorf("read bundle %s: %w", digest, err)
	}
	return f, info.Size(), nil
}

// Has reports whether Get would find the bundle.
func (s *Store) Has(digest fleet.Digest) (bool, error) {
	path, err := s.path(digest)
	if err != nil {
		return false, fmt.Errorf("look for bundle: %w", err)
	}
	switch _, err := os.Stat(path); {
	case err == nil:
		return true, nil
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	default:
		return false, fmt.Errorf("look for bundle %s: %w", digest, err)
	}
}
