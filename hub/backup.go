package hub

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/backup"
	"github.com/wheelwright-dev/wheelwright/hub/internal/blob"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/buildinfo"
)

// Backup writes a backup of what a hub keeps, without the authority's keys, which leave its machine by no call: see
// AddKeys. Its repositories are cloned anew where it is put back, its admin's context is made anew.
func (h *hub) backup(w io.Writer) error { return writeBackup(w, h.store, h.bundles) }

func writeBackup(w io.Writer, s *store.Store, bundles *blob.Store) error {
	snap, err := s.Snapshot()
	if err != nil {
		return err
	}
	defer func() { _ = snap.Close() }() // it is only read
	b := backup.NewWriter(w, time.Now(), buildinfo.Version())
	if err := b.Add(storeFile, snap.Size, snap); err != nil {
		return err
	}
	for _, need := range snap.Bundles {
		if err := addBundle(b, bundles, need); err != nil {
			return err
		}
	}
	_, err = b.Close()
	return err
}

func addBundle(b *backup.Writer, bundles *blob.Store, need store.Bundle) error {
	r, size, err := bundles.Get(need.Digest)
	if errors.Is(err, blob.ErrNotFound) {
		b.Missing("the bundle of " + need.Release)
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	return b.Add(path.Join(bundlesFolder, blob.Name(need.Digest)), size, r)
}

// AddKeys copies a backup and puts the authority of the data folder, with its keys, beside what is in it.
func AddKeys(w io.Writer, from io.Reader, dir string) (backup.Manifest, error) {
	b := backup.NewWriter(w, time.Now(), buildinfo.Version())
	if err := b.Copy(from); err != nil {
		return backup.Manifest{}, err
	}
	if err := addFolder(b, dir, authorityFolder); err != nil {
		return backup.Manifest{}, err
	}
	b.Keys()
	return b.Close()
}

// addFolder adds the regular files of a folder of the data folder.
func addFolder(b *backup.Writer, dir, folder string) error {
	return filepath.WalkDir(filepath.Join(dir, folder), func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		return b.Add(filepath.ToSlash(rel), info.Size(), f)
	})
}

// ErrRuns: a hub works on the data folder.
var ErrRuns = store.ErrLocked

// BackupStopped writes a backup of the data folder of a hub that does not run; ErrRuns where it does.
func BackupStopped(w io.Writer, dir string) (err error) {
	if err := isDataFolder(dir); err != nil {
		return err
	}
	s, err := store.Open(filepath.Join(dir, storeFile), slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	bundles, err := blob.Open(filepath.Join(dir, bundlesFolder))
	if err != nil {
		return err
	}
	return writeBackup(w, s, bundles)
}

// AdminContext is the path of the context file that a hub keeps in its data folder.
func AdminContext(dir string) string { return filepath.Join(dir, adminFile) }

func isDataFolder(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, storeFile)); err != nil {
		return fmt.Errorf("%s is no hub's data folder: %w; name the folder that `hub serve --data DIR` was given", dir, err)
	}
	return nil
}
