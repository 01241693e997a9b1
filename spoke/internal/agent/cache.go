package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/wheelwright-dev/wheelwright/pkg/bundle"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/overlay"
)

// cache keeps bundles, and the overlays laid over them, on disk by digest, so that a delivery needs the hub once.
type cache struct{ dir string }

func openCache(dir string) (*cache, error) {
	c := &cache{dir: filepath.Join(dir, "bundles")}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the bundle cache: %w", err)
	}
	left, err := filepath.Glob(filepath.Join(c.dir, ".incoming-*"))
	for _, f := range left { // of a killed spoke
		err = errors.Join(err, os.Remove(f))
	}
	if err != nil {
		return nil, fmt.Errorf("tidy the bundle cache: %w", err)
	}
	return c, nil
}

func (c *cache) path(d fleet.Digest) string { return filepath.Join(c.dir, d.Hex()+".tar") }

var errDamaged = errors.New("the file's content is not what its name says")

// get reads a bundle; a file that is damaged is removed and reported as errDamaged. No file:
// os.ErrNotExist.
func (c *cache) get(d fleet.Digest) ([]byte, error) {
	tar, err := os.ReadFile(c.path(d))
	if err != nil {
		return nil, err
	}
	if bundle.DigestOf(tar) != d {
		return nil, errors.Join(fmt.Errorf("bundle %s in the cache: %w", d.Short(), errDamaged), os.Remove(c.path(d)))
	}
	return tar, nil
}

// put writes aside and renames: a bundle is in the cache whole or not at all.
func (c *cache) put(d fleet.Digest, tar []byte) error { return c.write(c.path(d), tar) }

// putOverlay keeps the overlay that a release was rendered with, beside its bundle, for as long as the
// release can be returned to: a JSON list of its files.
func (c *cache) putOverlay(o overlay.Overlay) error {
	path := filepath.Join(c.dir, o.Digest.Hex()+".overlay")
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	data, err := json.Marshal(o.Files)
	if err != nil {
		return fmt.Errorf("encode overlay %s: %w", o.Digest.Short(), err)
	}
	return c.write(path, data)
}

// overlay is one that was kept.
func (c *cache) overlay(d fleet.Digest) (files []provenance.File, err error) {
	data, err := os.ReadFile(filepath.Join(c.dir, d.Hex()+".overlay"))
	if err != nil {
		return nil, err
	}
	return files, json.Unmarshal(data, &files)
}

func (c *cache) write(path string, data []byte) error {
	f, err := os.CreateTemp(c.dir, ".incoming-")
	if err != nil {
		return fmt.Errorf("keep %s: %w", filepath.Base(path), err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("keep %s: %w", filepath.Base(path), err)
	}
	return nil
}

// sweep removes what nobody needs any more, of one kind of file.
func (c *cache) sweep(suffix string, needed map[fleet.Digest]bool) error {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return fmt.Errorf("look through the bundle cache: %w", err)
	}
	for _, e := range entries {
		hex, whole := strings.CutSuffix(e.Name(), suffix)
		if whole && !needed[fleet.Digest("sha256:"+hex)] {
			err = errors.Join(err, os.Remove(filepath.Join(c.dir, e.Name())))
		}
	}
	return err
}
