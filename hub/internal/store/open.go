package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/wheelwright-dev/wheelwright/pkg/wholefile"
)

const (
	lockTimeout = time.Second
)

// format tells the hub's file from another program's.
var format = []byte("wheelwright-hub")

// step brings a file from one schema to the next, inside the transaction that also writes the number.
type step func(*bolt.Tx) error

// steps lists the migrations: the first from schema 1 to 2, and so on. The schema that this hub writes
// is one more than there are steps.
func steps() []step { return []step{addPreflights, addRollouts, addOperators, linkEvents, noteHealth} }

// Open opens the file at path, or makes it. It waits a second for another process to let go of it.
// Its errors are ErrLocked, ErrNewerSchema and ErrCorrupt, each with the file's name and what to do.
func Open(path string, log *slog.Logger) (*Store, error) {
	return open(path, log, steps())
}

func open(path string, log *slog.Logger, migrations []step) (*Store, error) {
	db, err := openChecked(path)
	if err == nil {
		db, err = lean(db, wasteful, log)
	}
	if err == nil {
		if err = prepare(db, migrations, log); err == nil {
			s := &Store{db: db, log: log, memory: newMemory(), revoked: make(chan struct{}, 1)}
			s.commits.idle, s.commits.heads = make(chan struct{}), newHeads()
			s.Keep(History{})
			if err = errors.Join(s.memory.load(db), s.commits.heads.load(db)); err == nil {
				return s, nil
			}
		}
		_ = db.Close() // the first error says more
	}
	return nil, refusal(path, err)
}

// refusal names the file, the cause and what to do.
func refusal(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("open store %s: %w; run the hub as the owner of its data folder, which `ls -ld %s` shows, and where it may write", path, err, filepath.Dir(path))
	case errors.Is(err, berrors.ErrTimeout):
		return fmt.Errorf("open store %s: %w; one hub at a time: find it with `lsof %s`, stop it, and start again", path, ErrLocked, path)
	case errors.Is(err, ErrNewerSchema):
		return fmt.Errorf("open store %s: %w; start the hub version that wrote it, or restore %s from a backup of before", path, err, path)
	case errors.Is(err, ErrCorrupt):
		return fmt.Errorf("open store %s: %w; put it aside with `mv %s %s.damaged`, restore %s from a backup, and start again", path, err, path, path, path)
	}
	return fmt.Errorf("open store %s: %w", path, err)
}

// openChecked opens the file and reads every page of it once. What checkPages lets pass and bbolt still
// panics on becomes ErrCorrupt too.
func openChecked(path string) (db *bolt.DB, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			if db != nil {
				_ = db.Close()
			}
			db, err = nil, fmt.Errorf("%w: %v", ErrCorrupt, p)
		}
	}()
	_, statErr := os.Stat(path)
	db, err = bolt.Open(path, 0o600, &bolt.Options{Timeout: lockTimeout, FreelistType: bolt.FreelistMapType, OpenFile: openFile})
	switch {
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	case err != nil:
		return nil, tooSmall(path, err)
	}
	if err := check(db); err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if errors.Is(statErr, os.ErrNotExist) {
		// A new file's name must survive a power loss as its content does.
		if err := wholefile.SyncFolder(filepath.Dir(path)); err != nil {
			_ = db.Close()
			return nil, err
		}
	}
	return db, nil
}

// openFile opens the file for bbolt, locks it as bbolt will again, and checks its pages.
func openFile(path string, flag int, mode os.FileMode) (*os.File, error) {
	f, err := os.OpenFile(path, flag, mode)
	if err != nil || flag&os.O_RDWR == 0 {
		return f, err // bbolt opens its own file once more to copy it
	}
	var here bool
	if err = lock(f); err == nil {
		here, err = named(f, path)
	}
	if err == nil && here {
		if err = checkOpened(f); err == nil {
			return f, nil
		}
	}
	_ = f.Close() // with its lock
	if err == nil {
		return openFile(path, flag, mode)
	}
	return nil, err
}

// named: the file is still the one that has the name. While this process waited for the lock, another may have put a
// compacted copy in its place.
func named(f *os.File, path string) (bool, error) {
	mine, err := f.Stat()
	if err != nil {
		return false, err
	}
	there, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(mine, there), err
}

func lock(f *os.File) error {
	deadline := time.Now().Add(lockTimeout)
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return err
		case time.Now().After(deadline):
			return berrors.ErrTimeout
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func checkOpened(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := checkPages(f, info.Size()); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return nil
}

// tooSmall names a file that bbolt refuses for its size, for which it has no typed error.
func tooSmall(path string, err error) error {
	info, statErr := os.Stat(path)
	if statErr == nil && info.Mode().IsRegular() && info.Size() > 0 && info.Size() < int64(2*os.Getpagesize()) {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return err
}

// check is bbolt's own, which also compares the free list with the pages and looks at the order of keys.
func check(db *bolt.DB) error {
	return db.View(func(tx *bolt.Tx) error {
		var first error
		for err := range tx.Check() {
			if first == nil {
				first = err
			}
		}
		return first
	})
}

// prepare makes a new file's buckets, or brings an older file to this schema.
func prepare(db *bolt.DB, migrations []step, log *slog.Logger) error {
	current := uint64(len(migrations) + 1)
	found, err := schema(db)
	if err != nil || found == current {
		return err
	}
	if found > current {
		return fmt.Errorf("%w: its schema is %d and this hub knows %d", ErrNewerSchema, found, current)
	}
	if found > 0 {
		aside := fmt.Sprintf("%s.schema-%d", db.Path(), found)
		if err := copyAside(db, aside); err != nil {
			return fmt.Errorf("copy to %s before migrating: %w", aside, err)
		}
		log.Info("store: migrating", "path", db.Path(), "from", found, "to", current, "copy", aside)
	}
	return db.Update(func(tx *bolt.Tx) error {
		if found == 0 {
			return create(tx, current)
		}
		for i := found; i < current; i++ {
			if err := migrations[i-1](tx); err != nil {
				return fmt.Errorf("migrate from schema %d to %d: %w", i, i+1, err)
			}
		}
		return tx.Bucket(bucketMeta).Put([]byte("schema"), binary.BigEndian.AppendUint64(nil, current))
	})
}

// schema is the file's number; 0 for a file with nothing in it, as a hub leaves that was killed in its
// very first transaction.
func schema(db *bolt.DB) (number uint64, err error) {
	err = db.View(func(tx *bolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		if meta == nil {
			if k, _ := tx.Cursor().First(); k != nil {
				return fmt.Errorf("%w: not a hub's store", ErrCorrupt)
			}
			return nil
		}
		n := meta.Get([]byte("schema"))
		if !bytes.Equal(meta.Get([]byte("format")), format) || len(n) != 8 {
			return fmt.Errorf("%w: not a hub's store", ErrCorrupt)
		}
		number = binary.BigEndian.Uint64(n)
		return nil
	})
	return number, err
}

// allBuckets are those that a file of this schema has from the start.
func allBuckets() [][]byte {
	return [][]byte{bucketMeta, bucketDistributions, bucketRevisions, bucketReleases, bucketDigests, bucketClusters,
		bucketTokens, bucketIdentities, bucketFingerprints, bucketInstallations, bucketJournals, bucketEvents, bucketPreflights, bucketOffered,
		bucketRollouts, bucketMembers, bucketRecalls, bucketPins, bucketDecisions, bucketAudit, bucketOperators}
}

func create(tx *bolt.Tx, current uint64) error {
	for _, name := range allBuckets() {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return fmt.Errorf("create bucket %s: %w", name, err)
		}
	}
	meta := tx.Bucket(bucketMeta)
	if err := meta.Put([]byte("format"), format); err != nil {
		return err
	}
	return meta.Put([]byte("schema"), binary.BigEndian.AppendUint64(nil, current))
}

// copyAside leaves an earlier copy of that schema alone: it is the one from before anything went wrong.
func copyAside(db *bolt.DB, path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	partial := path + ".partial"
	if err := db.View(func(tx *bolt.Tx) error { return tx.CopyFile(partial, 0o600) }); err != nil {
		return err
	}
	if err := os.Rename(partial, path); err != nil {
		return err
	}
	return wholefile.SyncFolder(filepath.Dir(path))
}
