package blob

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/wholefile"
)

const deltaSuffix = ".delta"

// Deltas keeps what was made of pairs of bundles: a delta, or that there is none worth it. What was used longest ago
// makes room. Safe for concurrent use by one process.
//
// A file is the sum of the rest, in 32 bytes, and the delta.
type Deltas struct {
	dir       string
	mostFiles int
	mostBytes int64

	mu    sync.Mutex
	kept  map[string]keptDelta // by the file's name
	bytes int64
}

type keptDelta struct {
	size int64
	used time.Time
}

// OpenDeltas makes the folder where needed, removes what a killed Put left, and what is more than the bounds.
func OpenDeltas(dir string, mostFiles int, mostBytes int64) (*Deltas, error) {
	if err := prepare(dir); err != nil {
		return nil, fmt.Errorf("open deltas: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open deltas: %w", err)
	}
	d := &Deltas{dir: dir, mostFiles: mostFiles, mostBytes: mostBytes, kept: map[string]keptDelta{}}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return nil, fmt.Errorf("open deltas: %w", err)
		}
		if strings.HasSuffix(e.Name(), deltaSuffix) && info.Mode().IsRegular() {
			d.kept[e.Name()] = keptDelta{size: info.Size(), used: info.ModTime()}
			d.bytes += info.Size()
		}
	}
	if err := d.makeRoomLocked(""); err != nil {
		return nil, fmt.Errorf("open deltas: %w", err)
	}
	return d, nil
}

// deltaName is a file's name; the digests are whole in it, so that no pair has another's.
func deltaName(base, digest fleet.Digest) (string, error) {
	for _, d := range []fleet.Digest{base, digest} {
		if _, err := fleet.ParseDigest(string(d)); err != nil {
			return "", err
		}
	}
	return base.Hex() + "-" + digest.Hex() + deltaSuffix, nil
}

// Put stores what was made of a pair; nil: there is no delta worth it.
func (d *Deltas) Put(base, digest fleet.Digest, delta []byte) error {
	name, err := deltaName(base, digest)
	if err != nil {
		return fmt.Errorf("store delta: %w", err)
	}
	sum := sha256.Sum256(delta)
	if err := wholefile.Write(filepath.Join(d.dir, name), partPrefix+"*", append(sum[:], delta...)); err != nil {
		return fmt.Errorf("store delta of %s to %s: %w", base.Short(), digest.Short(), err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.bytes += int64(len(sum)+len(delta)) - d.kept[name].size
	d.kept[name] = keptDelta{size: int64(len(sum) + len(delta)), used: time.Now()}
	if err := d.makeRoomLocked(name); err != nil {
		return fmt.Errorf("make room for deltas: %w", err)
	}
	return nil
}

// makeRoomLocked keeps within the bounds; what was put just now stays.
func (d *Deltas) makeRoomLocked(stays string) error {
	if len(d.kept) <= d.mostFiles && d.bytes <= d.mostBytes {
		return nil
	}
	var names []string
	for name := range d.kept {
		if name != stays {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(d.kept[a].used.Compare(d.kept[b].used), cmp.Compare(a, b))
	})
	for _, name := range names {
		if len(d.kept) <= d.mostFiles && d.bytes <= d.mostBytes {
			return nil
		}
		if err := d.removeLocked(name); err != nil {
			return err
		}
	}
	return nil
}

func (d *Deltas) removeLocked(name string) error {
	if err := os.Remove(filepath.Join(d.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	d.bytes -= d.kept[name].size
	delete(d.kept, name)
	return nil
}

// Get reads what was put for a pair: nil where there is no delta worth it. Not found: nothing was, or it made room.
// With an error the file is damaged or cannot be read, and Put replaces it.
func (d *Deltas) Get(base, digest fleet.Digest) (delta []byte, found bool, err error) {
	name, err := deltaName(base, digest)
	if err != nil {
		return nil, false, fmt.Errorf("read delta: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	k, there := d.kept[name]
	if !there {
		return nil, false, nil
	}
	path := filepath.Join(d.dir, name)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, false, fmt.Errorf("read delta of %s to %s: %w", base.Short(), digest.Short(), err)
	}
	if sum := sha256.Sum256(data[min(len(data), sha256.Size):]); !bytes.HasPrefix(data, sum[:]) {
		return nil, false, fmt.Errorf("read delta of %s to %s: the file is damaged", base.Short(), digest.Short())
	}
	k.used = time.Now()
	d.kept[name] = k
	_ = os.Chtimes(path, k.used, k.used) // for what makes room after the next start
	if len(data) == sha256.Size {
		return nil, true, nil
	}
	return data[sha256.Size:], true, nil
}
