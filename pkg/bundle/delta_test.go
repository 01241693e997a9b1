package bundle

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
)

// manifests are n files that repeat each other, as those of a release do.
func manifests(n int, version string) []provenance.File {
	var files []provenance.File
	for i := range n {
		text := fmt.Sprintf("apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: app-%d\nspec:\n  template:\n    spec:\n", i)
		for c := range 20 {
			text += fmt.Sprintf("      - name: c%d\n        image: registry.example.com/vendor/app-%d:%s\n        resources:\n          requests:\n            cpu: 100m\n", c, i%7, version)
		}
		files = append(files, provenance.File{Path: fmt.Sprintf("app-%03d.yaml", i), Data: []byte(text)})
	}
	return files
}

func delta(t testing.TB, base, tar []byte) []byte {
	t.Helper()
	d, err := Delta(base, tar)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestADeltaMakesTheLaterTarOfTheEarlier(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	noise := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(random.UintN(256))
		}
		return b
	}
	old := pack(t, manifests(100, "1.0.0"), sampleProof())
	added := append(manifests(100, "1.0.0"), provenance.File{Path: "app-050a.yaml", Data: []byte("kind: ConfigMap\n")})
	much := noise(1 << 20)
	for _, c := range []struct {
		name      string
		base, tar []byte
		most      int // bytes
	}{
		{"the same", old, old, 40},
		{"a version everywhere", old, pack(t, manifests(100, "1.0.1"), sampleProof()), 600},
		{"a file more", old, pack(t, added, sampleProof()), 200},
		{"a file less", pack(t, added, sampleProof()), old, 100},
		{"half of it", old, old[:len(old)/2], 60},
		{"twice", old, slices.Concat(old, old), 60},
		{"the halves changed over", old, slices.Concat(old[len(old)/2:], old[:len(old)/2]), 80},
		{"a byte in a megabyte of noise", much, slices.Concat(much[:1000], []byte("x"), much[1001:]), 60},
		{"other noise", much, noise(1 << 20), 1<<20 + 200},
		{"of nothing", nil, old, len(Compress(old)) + 100},
		{"to nothing", old, nil, 40},
		{"of less than a seed", []byte("short"), []byte("shorter"), 40},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := delta(t, c.base, c.tar)
			got, err := Patch(c.base, d, int64(len(c.tar)))
			if err != nil || !bytes.Equal(got, c.tar) {
				t.Fatalf("%d bytes of %d, %v", len(got), len(c.tar), err)
			}
			if len(d) > c.most {
				t.Errorf("%d bytes, want at most %d", len(d), c.most)
			}
			if len(c.tar) > 0 {
				if _, err := Patch(c.base, d, int64(len(c.tar))-1); !errors.Is(err, ErrTooLarge) {
					t.Errorf("one byte too large: %v", err)
				}
			}
			if other, err := Patch([]byte("another base"), d, int64(len(c.tar))); err == nil && len(c.base) > 0 && len(c.tar) > 0 && DigestOf(other) == DigestOf(c.tar) && !bytes.Equal(other, c.tar) {
				t.Error("another base makes the same digest of it")
			}
		})
	}
}

// What there is no place for in the index is found all the same.
func TestADeltaOfATarThatIsNotIndexedWhole(t *testing.T) {
	var text strings.Builder
	for i := 0; text.Len() < 3*maxIndexed; i++ {
		fmt.Fprintf(&text, "line %d of many that differ\n", i*2654435761)
	}
	base := []byte(text.String())
	tar := slices.Concat(base[:1<<20], []byte("something new"), base[1<<20:5<<20], base[6<<20:])
	d := delta(t, base, tar)
	if len(d) > 200 {
		t.Errorf("%d bytes", len(d))
	}
	if got, err := Patch(base, d, int64(len(tar))); err != nil || !bytes.Equal(got, tar) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestNoDeltaOfWhatIsTooLarge(t *testing.T) {
	if _, err := Delta(make([]byte, MaxDelta), []byte("x")); !errors.Is(err, ErrNoDelta) {
		t.Errorf("got %v", err)
	}
}

// squeezed is a delta of anything.
func squeezed(t testing.TB, script []byte) []byte {
	t.Helper()
	d, err := squeeze(script)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// numbers are a delta's, unpacked.
func numbers(v ...uint64) []byte {
	b := []byte{deltaFormat}
	for _, n := range v {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

func TestPatchRefuses(t *testing.T) {
	base := []byte(strings.Repeat("base ", 100))
	back := uint64(2*5 - 1) // -5 as a signed varint
	long := binary.AppendUvarint(nil, 1<<63)
	for name, c := range map[string]struct {
		delta []byte
		is    error // nil: any
	}{
		"nothing":                         {nil, nil},
		"no zstd":                         {[]byte("hello"), nil},
		"an empty frame":                  {squeezed(t, nil), errScript},
		"a newer format":                  {squeezed(t, []byte{deltaFormat + 1, 0, 0}), errScript},
		"no size":                         {squeezed(t, numbers()), errScript},
		"fewer spans than it says":        {squeezed(t, numbers(10, 5, 1, 1)), errScript},
		"spans without an end":            {squeezed(t, append(numbers(10), long...)), errScript},
		"before the base":                 {squeezed(t, numbers(5, 1, 0, 5, back)), errScript},
		"behind the base":                 {squeezed(t, numbers(5, 1, 0, 5, 2*500)), errScript},
		"across the base's end":           {squeezed(t, numbers(10, 1, 0, 10, 2*495)), errScript},
		"a span of nearly everything":     {squeezed(t, append(numbers(10, 1, 0), append(long, 0)...)), errScript},
		"far away":                        {squeezed(t, append(numbers(10, 1, 0, 10), long...)), errScript},
		"more literals than it has":       {squeezed(t, append(numbers(10, 1, 9, 1, 0), "x"...)), errScript},
		"a size that is not reached":      {squeezed(t, numbers(10, 1, 0, 5, 0)), nil},
		"one that is passed":              {squeezed(t, append(numbers(6, 1, 0, 5, 0), "xx"...)), nil},
		"a tar that is too large":         {squeezed(t, numbers(2000, 4, 0, 0, 0, 0, 500, 500, 500, 500, 0, 999, 999, 999)), ErrTooLarge},
		"one that does not say so":        {squeezed(t, numbers(1000, 4, 0, 0, 0, 0, 500, 500, 500, 500, 0, 999, 999, 999)), ErrTooLarge},
		"a bomb":                          {squeezed(t, make([]byte, 64<<20)), ErrTooLarge},
		"a size for which nothing stands": {squeezed(t, numbers(1000, 0)), nil},
	} {
		if got, err := Patch(base, c.delta, 1000); err == nil || !errors.Is(err, c.is) && c.is != nil {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}

func TestRefusingABombTakesNoMemory(t *testing.T) {
	base := make([]byte, 1<<20)
	many := numbers(1<<40, 1000)
	many = append(many, make([]byte, 1000)...)
	for range 1000 {
		many = binary.AppendUvarint(many, 1<<20)
	}
	for range 1000 {
		many = binary.AppendVarint(many, -1<<20)
	}
	for name, d := range map[string][]byte{"zeros": squeezed(t, make([]byte, 64<<20)), "copies": squeezed(t, many)} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Patch(base, d, 1<<20)
		runtime.ReadMemStats(&after)
		if allocated := after.TotalAlloc - before.TotalAlloc; err == nil || allocated > 4<<20 {
			t.Errorf("%s: %d bytes allocated, %v", name, allocated, err)
		}
	}
}

// A script makes what it was written for, and anything else at most limit bytes.
func FuzzPatch(f *testing.F) {
	old, next := pack(f, sampleFiles(), sampleProof()), pack(f, manifests(3, "1.0.1"), sampleProof())
	script := func(base, tar []byte) []byte { return appendScript(nil, tar, inCommon(base, tar)) }
	for _, s := range [][]byte{script(old, next), script(next, old), script(old, old), script(nil, old), numbers(10, 1, 0, 5, 0)} {
		f.Add(old, s, uint16(60_000))
		f.Add(next, squeezed(f, s), uint16(60_000))
	}
	f.Fuzz(func(t *testing.T, base, b []byte, limit uint16) {
		if got, err := Patch(base, b, int64(limit)); err == nil && len(got) > int(limit) {
			t.Errorf("%d bytes, at most %d are allowed", len(got), limit)
		}
		if got, err := follow(base, b, uint64(limit)); err == nil && len(got) > int(limit) {
			t.Errorf("%d bytes unpacked, at most %d are allowed", len(got), limit)
		}
		if got, err := follow(base, script(base, b), uint64(len(b))); err != nil || !bytes.Equal(got, b) {
			t.Errorf("%d bytes of %d, %v", len(got), len(b), err)
		}
	})
}
