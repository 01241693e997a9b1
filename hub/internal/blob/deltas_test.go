package blob

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

func openDeltas(t *testing.T, dir string, files int, bytes int64) *Deltas {
	t.Helper()
	d, err := OpenDeltas(dir, files, bytes)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func nth(i int) fleet.Digest { return fleet.Digest(fmt.Sprintf("sha256:%064x", i)) }

func putDelta(t *testing.T, d *Deltas, base, digest fleet.Digest, data []byte) {
	t.Helper()
	if err := d.Put(base, digest, data); err != nil {
		t.Fatal(err)
	}
}

func TestDeltasAcrossRestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deltas")
	d := openDeltas(t, dir, 10, 1<<20)
	putDelta(t, d, nth(1), nth(2), []byte("what is new"))
	putDelta(t, d, nth(2), nth(1), nil)
	putDelta(t, d, nth(1), nth(3), []byte("replaced"))
	putDelta(t, d, nth(1), nth(3), []byte("in its place"))
	if err := os.WriteFile(filepath.Join(dir, partPrefix+"123"), []byte("of a killed Put"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for p, want := range map[[2]int]string{{1, 2}: "what is new", {2, 1}: "", {1, 3}: "in its place"} {
			if got, found, err := d.Get(nth(p[0]), nth(p[1])); string(got) != want || !found || err != nil || (got == nil) != (want == "") {
				t.Errorf("%v: %q, %v, %v", p, got, found, err)
			}
		}
		if got, found, err := d.Get(nth(3), nth(1)); got != nil || found || err != nil {
			t.Errorf("never put: %q, %v, %v", got, found, err)
		}
		d = openDeltas(t, dir, 10, 1<<20)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, partPrefix+"*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if _, _, err := d.Get("../../etc/passwd", nth(1)); err == nil {
		t.Error("a digest that is none was looked for")
	}
	if err := d.Put(nth(1), "sha256:../../../x", nil); err == nil {
		t.Error("a digest that is none was put")
	}
}

func TestADeltaThatIsDamagedIsNotRead(t *testing.T) {
	dir := t.TempDir()
	d := openDeltas(t, dir, 10, 1<<20)
	putDelta(t, d, nth(1), nth(2), []byte("what is new"))
	path := filepath.Join(dir, nth(1).Hex()+"-"+nth(2).Hex()+deltaSuffix)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x20
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, found, err := d.Get(nth(1), nth(2)); found || err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Fatalf("byte %d: %q, %v", i, got, err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, found, err := d.Get(nth(1), nth(2)); found || err == nil {
		t.Errorf("removed by somebody: %v, %v", found, err)
	}
	putDelta(t, d, nth(1), nth(2), []byte("anew"))
	if got, found, err := d.Get(nth(1), nth(2)); string(got) != "anew" || !found || err != nil {
		t.Errorf("%q, %v, %v", got, found, err)
	}
}

func TestWhatWasUsedLongestAgoMakesRoom(t *testing.T) {
	for _, c := range []struct {
		name  string
		files int
		bytes int64
	}{{"by their number", 10, 1 << 20}, {"by their bytes", 1000, 10 * 1032}} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			d := openDeltas(t, dir, c.files, c.bytes)
			there := func(i int) bool {
				_, found, err := d.Get(nth(0), nth(i))
				if err != nil {
					t.Error(err)
				}
				return found
			}
			for i := 1; i <= 30; i++ {
				putDelta(t, d, nth(0), nth(i), make([]byte, 1000))
				if !there(1) {
					t.Fatalf("what is used all the time is gone after %d", i)
				}
			}
			files := func() int {
				found, _ := filepath.Glob(filepath.Join(dir, "*"))
				return len(found)
			}
			if files() != 10 || there(21) || !there(30) || !there(22) {
				t.Errorf("%d files; 21, 22, 30: %v %v %v", files(), there(21), there(22), there(30))
			}
			// Smaller bounds hold from the next start on.
			d = openDeltas(t, dir, c.files/2, c.bytes/2)
			if files() != 5 {
				t.Errorf("%d files after a start with half of the bounds", files())
			}
			putDelta(t, d, nth(0), nth(99), make([]byte, 1<<20)) // more than all of them: alone, until the next
			if files() != 5 && files() != 1 || !there(99) {
				t.Errorf("%d files with a large one", files())
			}
		})
	}
}
