package gitrepo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
)

const (
	tmpPrefix  = "tmp_wheelwright_"
	maxObjects = 2_000_000 // in one pack; each costs memory while it is indexed
)

// storePack writes a pack aside, looks at its sizes before anything is unpacked into memory, indexes it,
// and only then gives it its name.
func (r *remote) storePack(pack io.Reader) (err error) {
	f, err := os.CreateTemp(r.packDir(), tmpPrefix)
	if err != nil {
		return fmt.Errorf("store fetched pack: %w", err)
	}
	defer func() {
		_ = f.Close()
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	disk := &disk{to: f}
	n, err := io.Copy(disk, io.LimitReader(pack, r.cfg.MaxBytes+1))
	switch {
	case disk.err != nil: // it is not the repository that is away
		return fmt.Errorf("store fetched pack: %w", disk.err)
	case err != nil:
		return unreachable(fmt.Errorf("the transfer broke off after %d bytes: %w", n, err))
	}
	if n > r.cfg.MaxBytes {
		return fmt.Errorf("the transfer has more than %d MiB: %w; keep a distribution in a repository of its own", r.cfg.MaxBytes>>20, ErrTooLarge)
	}
	if err := r.weigh(f); err != nil {
		return err
	}
	sum, err := r.index(f)
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("store fetched pack: %w", err)
	}
	if err := os.Rename(f.Name(), filepath.Join(r.packDir(), "pack-"+sum.String()+".pack")); err != nil {
		return fmt.Errorf("store fetched pack: %w", err)
	}
	return nil
}

// disk remembers its own trouble.
type disk struct {
	to  io.Writer
	err error
}

func (d *disk) Write(b []byte) (int, error) {
	n, err := d.to.Write(b)
	if err != nil {
		d.err = err
	}
	return n, err
}

// weigh adds up what the pack's objects hold unpacked. go-git indexes a pack with each object whole in
// memory, and a few kilobytes can unpack to gigabytes.
func (r *remote) weigh(f *os.File) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read fetched pack: %w", err)
	}
	s := packfile.NewScanner(f)
	_, count, err := s.Header()
	if err != nil {
		return unreachable(fmt.Errorf("the fetched pack: %w", err))
	}
	if count > maxObjects {
		return fmt.Errorf("%d objects in one transfer: %w", count, ErrTooLarge)
	}
	total := int64(0)
	for range count {
		h, err := s.NextObjectHeader()
		if err != nil {
			return unreachable(fmt.Errorf("the fetched pack: %w", err))
		}
		size := h.Length
		if size <= r.cfg.MaxContent {
			var d deltaHead
			if _, _, err := s.NextObject(&d); err != nil {
				return unreachable(fmt.Errorf("the fetched pack: %w", err))
			}
			if h.Type == plumbing.OFSDeltaObject || h.Type == plumbing.REFDeltaObject {
				size = max(size, d.target())
			}
		}
		if size > r.cfg.MaxContent {
			return fmt.Errorf("an object of %d MiB, at most %d are taken: %w", size>>20, r.cfg.MaxContent>>20, ErrTooLarge)
		}
		if total += size; total > r.cfg.MaxBytes {
			return fmt.Errorf("the tag holds more than %d MiB: %w; keep a distribution in a repository of its own", r.cfg.MaxBytes>>20, ErrTooLarge)
		}
	}
	return nil
}

// deltaHead keeps the first bytes of a delta: the sizes of its base and of its result.
type deltaHead struct {
	buf [2 * binary.MaxVarintLen64]byte
	n   int
}

func (d *deltaHead) Write(p []byte) (int, error) {
	d.n += copy(d.buf[d.n:], p)
	return len(p), nil
}

func (d *deltaHead) target() int64 {
	_, n := binary.Uvarint(d.buf[:d.n])
	if n <= 0 {
		return 0 // go-git refuses it when it indexes
	}
	size, _ := binary.Uvarint(d.buf[n:d.n])
	return int64(min(size, 1<<62))
}

// index writes the pack's index. go-git knows a pack by its .pack file, so the index comes first.
func (r *remote) index(f *os.File) (sum plumbing.Hash, err error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return sum, fmt.Errorf("index fetched pack: %w", err)
	}
	w := new(idxfile.Writer)
	p, err := packfile.NewParser(packfile.NewScanner(f), w)
	if err != nil {
		return sum, fmt.Errorf("index fetched pack: %w", err)
	}
	if sum, err = p.Parse(); err != nil {
		return sum, unreachable(fmt.Errorf("the fetched pack: %w", err))
	}
	idx, err := w.Index()
	if err != nil {
		return sum, fmt.Errorf("index fetched pack: %w", err)
	}
	out, err := os.CreateTemp(r.packDir(), tmpPrefix)
	if err != nil {
		return sum, fmt.Errorf("index fetched pack: %w", err)
	}
	_, err = idxfile.NewEncoder(out).Encode(idx)
	err = errors.Join(err, out.Sync(), out.Close())
	if err == nil {
		err = os.Rename(out.Name(), filepath.Join(r.packDir(), "pack-"+sum.String()+".idx"))
	}
	if err != nil {
		_ = os.Remove(out.Name())
		return sum, fmt.Errorf("index fetched pack: %w", err)
	}
	return sum, nil
}
