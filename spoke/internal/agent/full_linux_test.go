package agent

import (
	"errors"
	"os"
	"syscall"
	"testing"

	"github.com/wheelwright-dev/wheelwright/pkg/bundle"
)

func TestAFullDiskIsNamedAndLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("a small file system needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	a, _ := idle(t, dir)
	large := make([]byte, 1<<20)
	for range 3 {
		if err := a.cache.put(bundle.DigestOf(large), large); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("got %v", err)
		}
	}
	if left, err := os.ReadDir(a.cache.dir); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	small := make([]byte, 100<<10)
	if err := a.cache.put(bundle.DigestOf(small), small); err != nil {
		t.Errorf("there is room: %v", err)
	}
}
