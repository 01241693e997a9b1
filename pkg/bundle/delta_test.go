package bundle

import (
	"bytes"
	"context"
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
	d, err := Delta(t.Context(), base, tar)
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
		{"half of it is new", much, slices.Concat(much[:512<<10], noise(256<<10), much[512<<10:700<<10]), 256<<10 + 100},
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

func TestNoDeltaOfWhatIsTooLargeOrUnlike(t *testing.T) {
	old, noise := pack(t, manifests(10, "1.0.0"), sampleProof()), make([]byte, 1<<20)
	random := rand.NewChaCha8([32]byte{3})
	_, _ = random.Read(noise)
	for name, c := range map[string]struct{ base, tar []byte }{
		"too large":                {make([]byte, MaxDelta), []byte("x")},
		"nothing":                  {nil, old},
		"noise":                    {noise[:512<<10], noise[512<<10:]},
		"a release and noise":      {old, noise},
		"a little of it in common": {old, slices.Concat(old, noise)},
	} {
		if d, err := Delta(t.Context(), c.base, c.tar); !errors.Is(err, ErrNoDelta) {
			t.Errorf("%s: %d bytes, %v", name, len(d), err)
		}
	}
}

// settings are n bytes of a text that has its keys, and little else, in common with another of them.
func settings(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	var b strings.Builder
	for b.Len() < n {
		fmt.Fprintf(&b, "    - name: key%d_%d\n      value: v%d-%x\n", r.IntN(100), r.IntN(1000), r.IntN(50), r.Uint32())
	}
	return []byte(b.String()[:n])
}

// However little two tars have in common, and however often they repeat themselves, the work is bounded by their size;
// and of what they do have in common, nothing that counts is missed for that.
func TestTheWorkOfADeltaIsBoundedByTheSizes(t *testing.T) {
	const n = 1 << 20
	noise := make([]byte, 3*n)
	random := rand.NewChaCha8([32]byte{4})
	_, _ = random.Read(noise)
	block := settings(5, 5000)
	for name, c := range map[string]struct {
		base, tar   []byte
		looks       float64 // at most, for each byte of tar
		least, most int     // bytes that they have in common
	}{
		"noise":                         {noise[:n], noise[n : 2*n], 0.13, 0, 0},
		"settings":                      {settings(1, n), settings(2, n), 0.25, 0, n},
		"repeated with a byte less":     {bytes.Repeat(block, n/5000), bytes.Repeat(block[1:], n/5000), 0.1, n * 9 / 10, n},
		"zeros and noise":               {make([]byte, n), slices.Concat(make([]byte, n/2), noise[:n/2]), 0.13, n / 2, n},
		"something after much of noise": {noise[:n], slices.Concat(noise[n:2*n], noise[n/2:n/2+1000], noise[2*n:]), 0.13, 1000, 1000},
		"the same after noise":          {noise[:n], slices.Concat(noise[2*n:], noise[:n]), 0.13, n, n},
	} {
		index, err := indexed(t.Context(), c.base)
		if err != nil {
			t.Fatal(err)
		}
		f := finder{tar: c.tar, base: index}
		if err := f.run(t.Context()); err != nil {
			t.Fatal(err)
		}
		common := 0
		for _, s := range f.found {
			if common += s.n; !bytes.Equal(c.tar[s.at:s.at+s.n], c.base[s.from:s.from+s.n]) {
				t.Fatalf("%s: %+v is not the same in both", name, s)
			}
		}
		looks, tried := float64(f.looks)/float64(len(c.tar)), float64(f.tried)/float64(len(c.tar))
		if looks > c.looks || tried > 1 || common < c.least || common > c.most {
			t.Errorf("%s: %.3f looks and %.3f tries for each byte; %d bytes in common", name, looks, tried, common)
		}
	}
}

// asked is a context that ends when it is asked for the nth time.
type asked struct {
	context.Context
	n, times int
}

func (a *asked) Err() error {
	if a.times++; a.times >= a.n {
		return context.Canceled
	}
	return nil
}

func TestADeltaEndsWithItsContext(t *testing.T) {
	base, tar := settings(1, 2<<20), settings(2, 2<<20)
	all := &asked{Context: t.Context(), n: 1 << 30}
	if _, err := Delta(all, base, tar); err != nil || all.times < 4<<20/glance {
		t.Fatalf("asked %d times, %v", all.times, err)
	}
	for n := 1; n <= all.times; n++ {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errors.New("the end"))
		once := &asked{Context: ctx, n: n}
		if d, err := Delta(once, base, tar); err == nil || !strings.Contains(err.Error(), "make delta: the end") || d != nil || once.times > n+1 {
			t.Errorf("asked %d times of %d: %d bytes, %v", once.times, n, len(d), err)
		}
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
	script := func(base, tar []byte) []byte {
		spans, err := inCommon(context.Background(), base, tar)
		if err != nil {
			f.Fatal(err)
		}
		return appendScript(nil, tar, spans)
	}
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
