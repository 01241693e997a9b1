package depot

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/wheelwright-dev/wheelwright/hub/internal/blob"
)

func TestAFullDiskIsSaidOnce(t *testing.T) {
	dir := t.TempDir()
	small := filepath.Join(dir, "deltas")
	if _, err := blob.OpenDeltas(small, 1, 1); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("a small file system needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(small, 0); err != nil {
			t.Error(err)
		}
	})
	h := start(t, dir)
	base := h.put(text(2000, "1.0.0"))
	random := noise(400_000)
	for i := range 4 {
		e := h.get(h.put(append(text(2000, "1.0.1"), random[i*100_000:][:100_000]...)), base)
		if e.Base != base {
			t.Errorf("the whole, of %d bytes", e.Size)
		}
	}
	if n := h.log.count("no space left on device"); n != 1 || len(h.files()) != 0 {
		t.Errorf("said %d times, %v stored: %s", n, h.files(), h.log.text.String())
	}
	if left, _ := filepath.Glob(filepath.Join(small, "*")); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	// What there is room for is stored, and the next time that there is none is said.
	h.get(h.put(text(2000, "1.0.2")), base)
	if len(h.files()) != 1 {
		t.Errorf("%v stored", h.files())
	}
	h.get(h.put(append(text(2000, fmt.Sprint("1.0.3", strings.Repeat("x", 10))), random[:200_000]...)), base)
	if n := h.log.count("no space left on device"); n != 2 {
		t.Errorf("said %d times", n)
	}
}
