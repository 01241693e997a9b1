package gitrepo

import (
	"context"
	"crypto/rand"
	"errors"
	"path/filepath"
	"syscall"
	"testing"
)

// A disk that has no room for a fetch is not a repository that is away, and keeps nothing half.
func TestAFetchOntoAFullDisk(t *testing.T) {
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "mode=0700,size=2m"); err != nil {
		t.Skipf("a small file system cannot be had here, which takes root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	dir := vendor(t)
	noise := make([]byte, 4<<20)
	_, _ = rand.Read(noise)
	write(t, filepath.Join(dir, "dist/noise"), noise)
	release(t, dir, "2.0.0", "large\n")
	web := serveHTTP(t, filepath.Dir(dir))
	r := open(t, Config{URL: web.URL + "/vendor", Dir: filepath.Join(disk, "cache")})
	err := r.Fetch(context.Background(), "2.0.0")
	if !errors.Is(err, syscall.ENOSPC) || errors.Is(err, ErrUnreachable) {
		t.Errorf("got %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(disk, "cache/objects/pack/*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
	snapshot(t, r, "1.0.0", "dist") // of a size that there is room for
	if err := syscall.Mount("", disk, "", syscall.MS_REMOUNT, "size=32m"); err != nil {
		t.Fatal(err)
	}
	snapshot(t, r, "2.0.0", "dist")
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}
