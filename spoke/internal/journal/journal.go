// Package journal is the spoke's memory: numbered events kept until the hub has them, one record for
// each subscription (what runs, what is being delivered, what to return to, what is held), and the
// last desired state. One bbolt file in the data folder; whatever a method acknowledged survives
// kill -9 and power loss. It decides nothing and knows neither the hub nor the cluster.
//
// A damaged file is set aside, never repaired and never fatal: what matters most, the inventory, is on
// the cluster too, and an empty journal deletes nothing.
package journal

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/wheelwright-dev/wheelwright/pkg/wholefile"
)

// File is the journal's name in a data folder.
const File = "journal.db"

// Schema is the number of the file's layout that this program writes.
const Schema = 1

// lockWait is how long Open waits for another process to let go of the file: a restarted spoke may
// find the one before still closing.
const lockWait = 2 * time.Second

var (
	// ErrLocked: another process has the file open.
	ErrLocked = errors.New("locked by another process")
	// ErrNewerSchema: a newer program wrote the file.
	ErrNewerSchema = errors.New("written by a newer version of spoke")
	// ErrDamaged: the file is no journal, or no longer.
	ErrDamaged = errors.New("damaged")
	// ErrAbsent: there is no file (Read only; Open makes one).
	ErrAbsent = errors.New("there is no journal")
)

var (
	metaBucket   = []byte("meta")
	eventBucket  = []byte("events")
	recordBucket = []byte("records")
	blobBucket   = []byte("blobs") // manifests and inventories by sha256, shared between records
	buckets      = [][]byte{metaBucket, eventBucket, recordBucket, blobBucket}

	schemaKey  = []byte("schema")
	idKey      = []byte("journal")
	desiredKey = []byte("desired")
	createdKey = []byte("created")
)

// Journal is an open journal. All methods may be called from many goroutines.
type Journal struct {
	path     string
	id       string
	created  time.Time
	setAside string
	db       *bolt.DB
	file     *os.File
	notify   chan struct{}
	broken   atomic.Pointer[error] // set by a panic inside bbolt: its locks can't be trusted any more
}

// Open opens the journal at path and makes one where there is none. A damaged file is renamed to
// path.corrupt-<unix time>, said at Warn, and a fresh one takes its place (SetAside names it).
// Errors: ErrLocked, ErrNewerSchema, and the file system's.
func Open(path string, log *slog.Logger) (*Journal, error) {
	j, err := openOrCreate(path)
	if err == nil || !errors.Is(err, ErrDamaged) {
		return j, err
	}
	aside := path + ".corrupt-" + strconv.FormatInt(time.Now().Unix(), 10)
	for n := 1; exists(aside); n++ {
		aside = fmt.Sprintf("%s.corrupt-%d-%d", path, time.Now().Unix(), n)
	}
	if err := os.Rename(path, aside); err != nil {
		return nil, fmt.Errorf("set the damaged journal aside: %w", err)
	}
	log.Warn("the journal was damaged: it is set aside and a fresh one made; unsent events and the sets to return to are lost, workloads are untouched",
		"path", path, "aside", aside, "error", err)
	if j, err = openOrCreate(path); err != nil {
		return nil, err
	}
	j.setAside = aside
	return j, nil
}

// ID is random and made with the file; event numbers count within it.
func (j *Journal) ID() string { return j.id }

// Created is when the file was made, to the second: of what was before it knows nothing. The zero time where an
// earlier program made it.
func (j *Journal) Created() time.Time { return j.created }

// SetAside is where Open moved a damaged file to; empty when it found a whole one.
func (j *Journal) SetAside() string { return j.setAside }

// Close waits for transactions under way.
func (j *Journal) Close() error {
	if j.broken.Load() != nil {
		return j.release() // bbolt may hold its own locks for ever
	}
	if err := j.db.Close(); err != nil {
		return fmt.Errorf("close journal %s: %w", j.path, err)
	}
	return nil
}

func (j *Journal) update(fn func(*bolt.Tx) error) error {
	return j.guarded(func() error { return j.db.Update(fn) })
}

func (j *Journal) view(fn func(*bolt.Tx) error) error {
	return j.guarded(func() error { return j.db.View(fn) })
}

func (j *Journal) guarded(fn func() error) error {
	if b := j.broken.Load(); b != nil {
		return *b
	}
	err := recovered(fn)
	if errors.Is(err, ErrDamaged) {
		err = fmt.Errorf("journal %s: %w; restart spoke: it sets the file aside and carries on", j.path, err)
		j.broken.Store(&err)
		return err
	}
	if err != nil {
		return fmt.Errorf("journal %s: %w", j.path, err)
	}
	return nil
}

// recovered turns bbolt's panics, and faults in the mapped file, into ErrDamaged.
func recovered(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, r)
		}
	}()
	return fn()
}

func openOrCreate(path string) (*Journal, error) {
	if !exists(path) {
		if err := create(path); err != nil {
			return nil, fmt.Errorf("make journal %s: %w", path, err)
		}
	}
	j, err := open(path, false)
	if err != nil {
		return nil, err
	}
	return j, nil
}

func open(path string, readOnly bool) (*Journal, error) {
	j := &Journal{path: path, notify: make(chan struct{}, 1)}
	opts := &bolt.Options{Timeout: lockWait, FreelistType: bolt.FreelistMapType, ReadOnly: readOnly,
		OpenFile: func(name string, flag int, mode os.FileMode) (f *os.File, err error) {
			j.file, err = os.OpenFile(name, flag&^os.O_CREATE, mode)
			return j.file, err
		}}
	err := recovered(func() (err error) {
		if info, err := os.Stat(path); err == nil && info.Size() == 0 {
			return fmt.Errorf("%w: the file is empty", ErrDamaged) // bbolt would make it a database
		}
		if j.db, err = bolt.Open(path, 0o600, opts); err != nil {
			return err
		}
		return j.db.View(j.inspect)
	})
	if err == nil {
		return j, nil
	}
	if j.db != nil && !errors.Is(err, ErrDamaged) {
		j.db.Close()
	} else if j.file != nil {
		j.release()
	}
	var errno syscall.Errno
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("open journal %s: %w: is a spoke already running on %s? (`spoke status --data %s` asks it)", path, ErrLocked, filepath.Dir(path), filepath.Dir(path))
	case errors.Is(err, ErrNewerSchema), errors.Is(err, ErrDamaged), errors.As(err, &errno):
		return nil, fmt.Errorf("open journal %s: %w", path, err)
	}
	return nil, fmt.Errorf("open journal %s: %w: %w", path, ErrDamaged, err)
}

// release lets go of the file where bbolt can't: its lock would live on with the mapping.
func (j *Journal) release() error {
	return errors.Join(syscall.Flock(int(j.file.Fd()), syscall.LOCK_UN), j.file.Close())
}

// inspect reads the whole file, so that damage shows at the start and not in the middle of a delivery.
func (j *Journal) inspect(tx *bolt.Tx) error {
	meta := tx.Bucket(metaBucket)
	if meta == nil {
		return fmt.Errorf("%w: no meta bucket", ErrDamaged)
	}
	schema, err := strconv.Atoi(string(meta.Get(schemaKey)))
	if err != nil || schema < 1 {
		return fmt.Errorf("%w: schema number %q", ErrDamaged, meta.Get(schemaKey))
	}
	if schema > Schema {
		return fmt.Errorf("%w: schema %d, this one knows %d: install the newer spoke again, or join with an empty data folder", ErrNewerSchema, schema, Schema)
	}
	j.id = string(meta.Get(idKey))
	if made := meta.Get(createdKey); made != nil {
		if j.created, err = time.Parse(time.RFC3339, string(made)); err != nil {
			return fmt.Errorf("%w: made at %q", ErrDamaged, made)
		}
	}
	for _, name := range buckets {
		if tx.Bucket(name) == nil {
			return fmt.Errorf("%w: no %s bucket", ErrDamaged, name)
		}
	}
	if _, err := desired(tx); err != nil {
		return err
	}
	if _, err := reHome(tx); err != nil {
		return err
	}
	if _, err := pending(tx, 0, 0); err != nil {
		return err
	}
	_, err = records(tx)
	return err
}

// create makes the file beside path and links it into place, so that a kill leaves a whole journal or
// none, and two processes that create at once end with one.
func create(path string) error {
	dir := filepath.Dir(path)
	if left, err := filepath.Glob(path + ".new-*"); err == nil {
		for _, l := range left {
			os.Remove(l)
		}
	}
	var random [16]byte
	rand.Read(random[:])
	tmp := path + ".new-" + hex.EncodeToString(random[:4])
	defer os.Remove(tmp)
	db, err := bolt.Open(tmp, 0o600, &bolt.Options{Timeout: lockWait})
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, name := range buckets {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		meta := tx.Bucket(metaBucket)
		if err := meta.Put(schemaKey, []byte(strconv.Itoa(Schema))); err != nil {
			return err
		}
		if err := meta.Put(createdKey, []byte(time.Now().UTC().Format(time.RFC3339))); err != nil {
			return err
		}
		return meta.Put(idKey, []byte(hex.EncodeToString(random[:])))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	err = os.Link(tmp, path)
	switch {
	case errors.Is(err, os.ErrExist):
		return nil // another process was first; its lock decides
	case err != nil: // a file system without links
		if err := os.Rename(tmp, path); err != nil {
			return err
		}
	}
	return wholefile.SyncFolder(dir)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
