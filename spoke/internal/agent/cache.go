package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/wheelwright-dev/wheelwright/pkg/bundle"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// cache keeps bundles on disk by digest, so that a delivery needs the hub once.
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
func (c *cache) put(d fleet.Digest, tar []byte) error {
	f, err := os.CreateTemp(c.dir, ".incoming-")
	if err != nil {
		return fmt.Errorf("keep bundle %s: %w", d.Short(), err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(tar)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), c.path(d))
	}
	if err != nil {
		return fmt.Errorf("keep bundle %s: %w", d.Short(), err)
	}
	return nil
}

// sweep removes what nobody needs any more.
func (c *cache) sweep(needed map[fleet.Digest]bool) error {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return fmt.Errorf("look through the bundle cache: %w", err)
	}
	for _, e := range entries {
		hex, whole := strings.CutSuffix(e.Name(), ".tar")
		if whole && !needed[fleet.Digest("sha256:"+hex)] {
			err = errors.Join(err, os.Remove(filepath.Join(c.dir, e.Name())))
		}
	}
	return err
}
