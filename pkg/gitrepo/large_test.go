package gitrepo

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func diskUse(t *testing.T, dir string) (n int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		n += info.Size()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestTooLargeIsRefusedWithBoundedMemoryAndDisk(t *testing.T) {
	dir := vendor(t)
	noise := make([]byte, 24<<20)
	_, _ = rand.Read(noise)
	write(t, filepath.Join(dir, "outside.bin"), noise)
	release(t, dir, "2.0.0", "large beside the path\n")
	runGit(t, dir, "rm", "-q", "outside.bin")
	write(t, filepath.Join(dir, "dist/bomb.bin"), make([]byte, 24<<20)) // packs to a few kilobytes
	release(t, dir, "3.0.0", "large unpacked\n")
	runGit(t, dir, "rm", "-q", "dist/bomb.bin")
	for i := range 40 {
		write(t, filepath.Join(dir, "dist", strings.Repeat("x", i+1)), append(make([]byte, 300<<10), byte(i)))
	}
	release(t, dir, "4.0.0", "large together\n")

	web := serveHTTP(t, filepath.Dir(dir))
	cache := t.TempDir()
	limits := Config{MaxBytes: 8 << 20, MaxContent: 2 << 20, Dir: cache}
	far, near := limits, limits
	far.URL, near.URL = web.URL+"/vendor", dir
	for name, c := range map[string]struct {
		cfg    Config
		tag    string
		refuse bool
	}{
		"far, transfer": {far, "2.0.0", true}, "far, unpacked": {far, "3.0.0", true}, "far, together": {far, "4.0.0", true}, "far, small": {far, "1.0.0", false},
		"near, beside the path": {near, "2.0.0", false}, "near, one file": {near, "3.0.0", true}, "near, together": {near, "4.0.0", true},
	} {
		t.Run(name, func(t *testing.T) {
			r := open(t, c.cfg)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := r.Fetch(context.Background(), c.tag)
			if err == nil {
				_, err = r.Snapshot(c.tag, "dist")
			}
			runtime.ReadMemStats(&after)
			if c.refuse != errors.Is(err, ErrTooLarge) || (!c.refuse && err != nil) {
				t.Fatalf("got %v", err)
			}
			if grown := int64(after.TotalAlloc - before.TotalAlloc); grown > 24<<20 {
				t.Errorf("%d MiB were allocated", grown>>20)
			}
			if n := diskUse(t, cache); n > 2*limits.MaxBytes {
				t.Errorf("%d MiB are left on the disk", n>>20)
			}
			if left, _ := filepath.Glob(filepath.Join(cache, "objects/pack/tmp_*")); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}

func TestTreeBombIsRefused(t *testing.T) {
	dir := vendor(t)
	tree := runGit(t, dir, "rev-parse", "HEAD:dist/app")
	for range 12 { // ten to the twelfth files in a dozen objects
		var lines strings.Builder
		for _, n := range "0123456789" {
			lines.WriteString("040000 tree " + tree + "\t" + string(n) + "\n")
		}
		input := filepath.Join(t.TempDir(), "tree")
		write(t, input, []byte(lines.String()))
		tree = func() string {
			out, err := shell(dir, "git mktree < "+input)
			if err != nil {
				t.Fatal(err)
			}
			return strings.TrimSpace(out)
		}()
	}
	runGit(t, dir, "tag", "5.0.0", runGit(t, dir, "commit-tree", "-m", "bomb", tree))
	r := open(t, Config{URL: dir})
	if err := r.Fetch(context.Background(), "5.0.0"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Snapshot("5.0.0", "."); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v", err)
	}
}

func TestTheCacheIsBounded(t *testing.T) {
	dir := vendor(t)
	web := serveHTTP(t, filepath.Dir(dir))
	cfg := Config{URL: web.URL + "/vendor", Dir: t.TempDir(), MaxBytes: 1 << 20}
	r := open(t, cfg)
	for i, tag := range []string{"2.0.0", "2.0.1", "2.0.2", "2.0.3", "2.0.4"} {
		noise := make([]byte, 600<<10)
		noise[0] = byte(i)
		_, _ = rand.Read(noise[1:])
		write(t, filepath.Join(dir, "dist/noise"), noise)
		release(t, dir, tag, tag)
		snapshot(t, r, tag, "dist")
	}
	if n := diskUse(t, cfg.Dir); n > 2*cfg.MaxBytes {
		t.Errorf("%d KiB are on the disk", n>>10)
	}
	if _, err := os.Stat(filepath.Join(cfg.Dir, "HEAD")); err != nil {
		t.Error(err)
	}
}
