package bundle

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
)

// edits changes files as releases do: contents of the same size and of another, modes, names, files that come and go.
func edits(r *rand.Rand, files []provenance.File) []provenance.File {
	files = slices.Clone(files)
	name := func() string {
		return []string{"", "base/", "ü/", strings.Repeat("deep/", 25)}[r.IntN(4)] + fmt.Sprintf("%c%d.yaml", 'a'+r.IntN(6), r.IntN(6))
	}
	content := func() []byte {
		data := make([]byte, []int{0, r.IntN(40), blockSize, blockSize * 3, r.IntN(40 << 10), stretch}[r.IntN(6)])
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		return data
	}
	for range r.IntN(6) {
		at := 0
		if len(files) > 0 {
			at = r.IntN(len(files))
		}
		switch op := r.IntN(6); {
		case op < 2 || len(files) == 0:
			n := name()
			if !slices.ContainsFunc(files, func(f provenance.File) bool { return f.Path == n }) {
				files = append(files, provenance.File{Path: n, Executable: r.IntN(4) == 0, Data: content()})
			}
		case op == 2:
			files = slices.Delete(files, at, at+1)
		case op == 3:
			files[at].Executable = !files[at].Executable
		case op == 4:
			files[at].Data = content()
		default:
			if data := slices.Clone(files[at].Data); len(data) > 0 {
				data[r.IntN(len(data))]++
				files[at].Data = data
			}
		}
	}
	r.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
	return files
}

// Whatever was packed before, a release's tar and digest are those of packing it alone.
func TestPackingAfterAnotherReleaseGivesTheSameBytes(t *testing.T) {
	resumed := 0
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 9))
		p := NewPacker([]int{1 << 30, 1 << 18, 0}[seed%3])
		names := []string{"shop", "bank"}
		files, proofs := [2][]provenance.File{}, [2]provenance.Proof{sampleProof(), sampleProof()}
		for step := range 12 {
			n := r.IntN(2)
			for range 4 {
				files[n] = edits(r, files[n])
			}
			proofs[n].TagName = fmt.Sprintf("1.%d.0", step)
			if r.IntN(3) == 0 {
				proofs[n].Tag = nil
			} else {
				proofs[n].Tag = fmt.Appendf(nil, "tag %d", step)
			}
			want := pack(t, files[n], proofs[n])
			tar, d, err := p.Pack(names[n], files[n], proofs[n])
			if err != nil || !bytes.Equal(tar, want) || d != DigestOf(want) {
				t.Fatalf("seed %d, step %d: %d bytes %s, alone %d bytes %s, %v", seed, step, len(tar), d, len(want), DigestOf(want), err)
			}
			if p.held > p.most {
				t.Fatalf("%d bytes are held, of at most %d", p.held, p.most)
			}
			if e := p.last[names[n]]; e != nil {
				resumed += len(e.Value.(kept).tape.states)
			}
		}
	}
	if resumed == 0 {
		t.Error("nothing was long enough to be resumed")
	}
}

// Where files come, go and move, no path that is refused gets by, in whatever order they are given.
func TestAFileIsNoFolderAndThereOnce(t *testing.T) {
	for _, paths := range [][]string{
		{"a", "a/b"}, {"a/b", "a"}, {"a", "a!", "a-b", "a.b", "a/b"}, {"a/b", "a/b-", "a/b-c", "a/b/c/d"}, {"x", "a", "x"}, {"a/b", "a/b"},
		{"a/b/c", "a/b/d", "a/bb", "a/b"}, {"a/b/c/d", "a/b/c/e", "a"},
	} {
		var files []provenance.File
		for _, p := range paths {
			files = append(files, provenance.File{Path: p})
		}
		p := NewPacker(1 << 20)
		if _, _, err := p.Pack("shop", files[:1], sampleProof()); err != nil {
			t.Fatal(err)
		}
		if _, _, err := p.Pack("shop", files, sampleProof()); err == nil {
			t.Errorf("%q is packed", paths)
		}
	}
	var fine []provenance.File
	for _, p := range []string{"a/b", "a", "a-b/a", "b", "a!"} {
		fine = append(fine, provenance.File{Path: p + ".yaml"})
	}
	if _, _, err := NewPacker(1<<20).Pack("shop", fine, sampleProof()); err != nil {
		t.Error(err)
	}
}

// The same again is not hashed again, and what is let go of is.
func TestOnlyWhatDiffersIsHashed(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	var files []provenance.File
	for n := range 40 {
		data := make([]byte, 20<<10)
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		files = append(files, provenance.File{Path: fmt.Sprintf("%03d", n), Data: data})
	}
	p := NewPacker(1 << 30)
	states := func() [][]byte { return p.last["shop"].Value.(kept).tape.states }
	if _, _, err := p.Pack("shop", files, sampleProof()); err != nil {
		t.Fatal(err)
	}
	first := states()
	files[20].Data = append([]byte("x"), files[20].Data[1:]...)
	if _, _, err := p.Pack("shop", files, sampleProof()); err != nil {
		t.Fatal(err)
	}
	second, same := states(), 0
	for same < len(first) && &first[same][0] == &second[same][0] { // taken over, not computed again
		same++
	}
	if want := 20 * (20<<10 + blockSize) / stretch; same != want || len(first) != len(second) {
		t.Errorf("%d of %d states are taken over, want %d", same, len(first), want)
	}
	p.Forget("shop")
	if p.held != 0 || p.order.Len() != 0 || len(p.last) != 0 {
		t.Errorf("%d bytes are held", p.held)
	}
}

func TestManyDistributionsArePackedAtOnce(t *testing.T) {
	p := NewPacker(256 << 10)
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(n), 2))
			var files []provenance.File
			for range 20 {
				files = edits(r, files)
				tar, d, err := p.Pack(fmt.Sprint(n%4), files, sampleProof()) // two of each name
				if err != nil || DigestOf(tar) != d || !bytes.Equal(tar, pack(t, files, sampleProof())) {
					t.Errorf("%d: %v", n, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestWhatCannotBePackedChangesNothing(t *testing.T) {
	p := NewPacker(1 << 20)
	if _, _, err := p.Pack("shop", sampleFiles(), sampleProof()); err != nil {
		t.Fatal(err)
	}
	bad := append(sampleFiles(), provenance.File{Path: "../x"})
	if _, _, err := p.Pack("shop", bad, sampleProof()); err == nil {
		t.Error("a path that leaves the release is packed")
	}
	if _, d, err := p.Pack("shop", sampleFiles(), sampleProof()); err != nil || d != DigestOf(pack(t, sampleFiles(), sampleProof())) {
		t.Error(d, err)
	}
}
