package store

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	bolt "go.etcd.io/bbolt"

	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/wholefile"
)

const (
	// wasteful is the size from which on a file is written anew at Open where more than half of it is free: bbolt gives
	// no page back to the disk.
	wasteful = 64 << 20
	// copyAtOnce bounds a transaction of the copy, in bytes.
	copyAtOnce = 4 << 20
)

// Compact writes the file at path anew without its free pages, and returns its size before and after, in bytes. Its
// errors are those of Open.
func Compact(path string) (before, after int64, err error) {
	db, err := openChecked(path)
	if err != nil {
		return 0, 0, refusal(path, err)
	}
	if before, _, err = room(db); err == nil {
		err = compact(db)
	}
	if err = errors.Join(err, db.Close()); err != nil {
		return before, before, fmt.Errorf("compact store %s: %w; it is as it was", path, err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return before, before, fmt.Errorf("compact store %s: %w", path, err)
	}
	return before, info.Size(), nil
}

// room is a file's size, and how much of that is free.
func room(db *bolt.DB) (size, free int64, err error) {
	err = db.View(func(tx *bolt.Tx) error { size = tx.Size(); return nil })
	return size, int64(db.Stats().FreePageN) * int64(db.Info().PageSize), err
}

// compact puts a copy in the place of the file that db has open and locked, whole and on disk before it gets the name.
// db is of no use after that but to be closed: that lets go of the lock, and who waited for it sees that the name is
// another file's.
func compact(db *bolt.DB) error {
	path := db.Path()
	copied := path + ".compact"
	if err := os.Remove(copied); err != nil && !errors.Is(err, os.ErrNotExist) { // of one that was killed
		return err
	}
	to, err := bolt.Open(copied, 0o600, &bolt.Options{Timeout: lockTimeout, FreelistType: bolt.FreelistMapType, NoSync: true})
	if err != nil {
		return err
	}
	err = bolt.Compact(to, db, copyAtOnce)
	if err == nil {
		err = to.Sync()
	}
	if err = errors.Join(err, to.Close()); err == nil {
		err = os.Rename(copied, path)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(copied))
	}
	return wholefile.SyncFolder(filepath.Dir(path))
}

// lean is db, or, where most of its file is free, the smaller file that took its place.
func lean(db *bolt.DB, least int64, log *slog.Logger) (*bolt.DB, error) {
	size, free, err := room(db)
	if err != nil || size < least || free <= size/2 {
		return db, err
	}
	path := db.Path()
	if err := compact(db); err != nil {
		log.Warn("store: not compacted", slog.String(logging.Path, path), slog.Any(logging.Error, err))
	} else {
		log.Info("store: compacted", slog.String(logging.Path, path), slog.Int64("before", size), slog.Int64("free", free))
	}
	// Whichever the name is of now.
	if err := db.Close(); err != nil {
		return nil, err
	}
	return openChecked(path)
}
