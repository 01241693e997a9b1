package store

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	bolt "go.etcd.io/bbolt"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// Snapshot is a copy of the store as of one moment.
type Snapshot struct {
	io.Reader
	Size    int64
	Bundles []Bundle // that its available releases need, by digest

	file *os.File
}

// Bundle is one that a release needs.
type Bundle struct {
	Digest  fleet.Digest
	Release string // DISTRIBUTION VERSION
}

// Snapshot copies the store while it works. The copy lies beside it, without a name, until it is closed: who reads it
// slowly keeps nothing from being written, and a disk without room for it refuses the snapshot only.
func (s *Store) Snapshot() (snap *Snapshot, err error) {
	dir := filepath.Dir(s.db.Path())
	f, err := os.CreateTemp(dir, ".snapshot-*")
	if err != nil {
		return nil, fmt.Errorf("copy store %s: %w", s.db.Path(), err)
	}
	snap = &Snapshot{Reader: f, file: f}
	err = os.Remove(f.Name())
	if err == nil {
		err = s.db.View(func(tx *bolt.Tx) error {
			if snap.Size, err = tx.WriteTo(f); err != nil {
				return err
			}
			snap.Bundles, err = bundlesOf(tx)
			return err
		})
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("copy store %s: %w; it needs as much room beside it as it has", s.db.Path(), err), f.Close())
	}
	return snap, nil
}

// Close frees its room.
func (s *Snapshot) Close() error { return s.file.Close() }

func bundlesOf(tx buckets) ([]Bundle, error) {
	all := map[fleet.Digest]string{}
	err := each(tx.Bucket(bucketReleases), func(_ string, r releaseRecord) error {
		if r.Phase == string(fleet.Available) {
			all[fleet.Digest(r.Digest)] = r.Distribution + " " + r.Version
		}
		return nil
	})
	var list []Bundle
	for _, d := range slices.Sorted(maps.Keys(all)) {
		list = append(list, Bundle{Digest: d, Release: all[d]})
	}
	return list, err
}
