package blob

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// Blob is one that is stored.
type Blob struct {
	Digest fleet.Digest
	Size   int64     // bytes, compressed
	Used   time.Time // when it was put, or last Use
}

// List is what is stored, in no order. Files that are no bundles are passed over.
func (s *Store) List() (all []Blob, err error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list bundles: %w", err)
	}
	for _, e := range entries {
		hex, ok := strings.CutSuffix(e.Name(), suffix)
		digest, parseErr := fleet.ParseDigest("sha256:" + hex)
		if !ok || parseErr != nil {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list bundles: %w", err)
		}
		all = append(all, Blob{digest, info.Size(), info.ModTime()})
	}
	return all, nil
}

// Use notes that a bundle was of use now.
func (s *Store) Use(digest fleet.Digest, now time.Time) error {
	path, err := s.path(digest)
	if err == nil {
		err = os.Chtimes(path, time.Time{}, now)
	}
	if err != nil {
		return fmt.Errorf("use bundle: %w", err)
	}
	return nil
}

// Remove takes a bundle away; who reads it still reads it to its end. One that is not there is no error.
func (s *Store) Remove(digest fleet.Digest) error {
	path, err := s.path(digest)
	if err == nil {
		err = os.Remove(path)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove bundle: %w", err)
	}
	return nil
}
