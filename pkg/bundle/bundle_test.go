package bundle

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
)

var long = strings.Repeat("folder/", 30) + "file.yaml"

func sampleFiles() []provenance.File {
	return []provenance.File{
		{Path: "kustomization.yaml", Data: []byte("resources: [a]\n")},
		{Path: "a/x.yaml", Data: bytes.Repeat([]byte("x"), blockSize)},
		{Path: "a.b", Data: []byte("dot")},
		{Path: "run.sh", Executable: true, Data: []byte("#!/bin/sh\n")},
		{Path: "empty", Data: []byte{}},
		{Path: "ümlaut.yaml", Data: []byte("u")},
		{Path: long, Data: []byte("deep")},
	}
}

func sampleProof() provenance.Proof {
	return provenance.Proof{Tag: []byte("object …"), Commit: []byte("tree …"), Trees: [][]byte{[]byte("root"), []byte("dist")}, Path: "dist", TagName: "1.2.3"}
}

func pack(t testing.TB, files []provenance.File, p provenance.Proof) []byte {
	t.Helper()
	b, err := Pack(files, p)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPackIsCanonical(t *testing.T) {
	files := sampleFiles()
	want := pack(t, files, sampleProof())
	slices.Reverse(files)
	if got := pack(t, files, sampleProof()); !bytes.Equal(got, want) {
		t.Error("the order of files changes the bytes")
	}
	// Pinned: a change of one byte here is a change of every digest in every hub and spoke.
	if got := DigestOf(want); got != "sha256:77a4ee28132fc65f20283b2b0d48a813dad1ff21a1b293ac07c39844ce4c3985" {
		t.Errorf("digest %s", got)
	}
}

func TestOpenGivesBackWhatWasPacked(t *testing.T) {
	light := sampleProof()
	light.Tag = nil
	root := sampleProof()
	root.Path, root.Trees = ".", root.Trees[:1]
	cosigned := sampleProof()
	for i := range provenance.MaxCosigned {
		cosigned.Cosigned = append(cosigned.Cosigned, []byte{'t', byte(i)})
	}
	for name, p := range map[string]provenance.Proof{"annotated": sampleProof(), "lightweight": light, "root": root, "cosigned": cosigned} {
		b, err := Open(pack(t, sampleFiles(), p))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := b.Proof(); got.Path != p.Path || got.TagName != p.TagName || !bytes.Equal(got.Tag, p.Tag) || (got.Tag == nil) != (p.Tag == nil) ||
			!bytes.Equal(got.Commit, p.Commit) || !slices.EqualFunc(got.Trees, p.Trees, bytes.Equal) || !slices.EqualFunc(got.Cosigned, p.Cosigned, bytes.Equal) {
			t.Errorf("%s: got %+v", name, got)
		}
		want := sampleFiles()
		slices.SortFunc(want, func(a, b provenance.File) int { return strings.Compare(a.Path, b.Path) })
		if !slices.EqualFunc(b.Files(), want, func(a, b provenance.File) bool {
			return a.Path == b.Path && a.Executable == b.Executable && bytes.Equal(a.Data, b.Data)
		}) {
			t.Errorf("%s: got %+v", name, b.Files())
		}
		if again := pack(t, b.Files(), b.Proof()); DigestOf(again) != b.Digest() {
			t.Errorf("%s: packing again gives other bytes", name)
		}
	}
	empty, err := Open(pack(t, nil, sampleProof()))
	if err != nil || len(empty.Files()) != 0 {
		t.Errorf("no files: %v, %v", empty, err)
	}
}

func TestOtherToolsReadIt(t *testing.T) {
	b := pack(t, sampleFiles(), sampleProof())
	var names []string
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg || h.ModTime.Unix() != 0 || h.Uid != 0 || h.Gid != 0 {
			t.Errorf("%s: %+v", h.Name, h)
		}
		if (h.Mode == 0o755) != (h.Name == "files/run.sh") {
			t.Errorf("%s: mode %o", h.Name, h.Mode)
		}
		names = append(names, h.Name)
	}
	want := []string{"files/a.b", "files/a/x.yaml", "files/empty", "files/" + long, "files/kustomization.yaml", "files/run.sh",
		"files/ümlaut.yaml", "provenance/commit", "provenance/release", "provenance/tag", "provenance/tree-000", "provenance/tree-001"}
	if !slices.Equal(names, want) {
		t.Errorf("got %q", names)
	}
	if _, err := exec.LookPath("tar"); err == nil {
		cmd := exec.Command("tar", "-tf", "-")
		cmd.Stdin = bytes.NewReader(b)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("tar: %v\n%s", err, out)
		}
	}
}

func TestPackRefuses(t *testing.T) {
	f := func(paths ...string) (files []provenance.File) {
		for _, p := range paths {
			files = append(files, provenance.File{Path: p})
		}
		return files
	}
	for name, files := range map[string][]provenance.File{
		"twice": f("a", "a"), "a file and a folder": f("a/b", "a-", "a"), "leaves the root": f("../a"), "inside out": f("a/../../b"),
		"absolute": f("/a"), "empty": f(""), "not clean": f("a//b"), "folder": f("a/"), "newline": f("a\nb"), "zero": f("a\x00b"), "too long": f(strings.Repeat("a", maxPath+1)),
	} {
		if _, err := Pack(files, sampleProof()); err == nil {
			t.Errorf("%s: want an error", name)
		}
	}
	for name, change := range map[string]func(*provenance.Proof){
		"no commit":       func(p *provenance.Proof) { p.Commit = nil },
		"empty tag":       func(p *provenance.Proof) { p.Tag = []byte{} },
		"too few trees":   func(p *provenance.Proof) { p.Trees = p.Trees[:1] },
		"no path":         func(p *provenance.Proof) { p.Path = "" },
		"path leaves":     func(p *provenance.Proof) { p.Path = ".." },
		"tag with a line": func(p *provenance.Proof) { p.TagName = "1\npath x" },
		"no tag name":     func(p *provenance.Proof) { p.TagName = "" },
	} {
		p := sampleProof()
		change(&p)
		if _, err := Pack(nil, p); err == nil {
			t.Errorf("%s: want an error", name)
		}
	}
}

// hostile writes what Pack never would.
func hostile(entries ...entry) []byte { return tarOf(entries) }

// paxBlock announces a PAX header of so many bytes.
func paxBlock(size int) []byte {
	h := make([]byte, blockSize)
	putBlock(h, paxName, "0000644", size, 'x')
	return h
}

func foreign(t *testing.T, h *tar.Header, data string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	h.Size = int64(len(data))
	if err := w.WriteHeader(h); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// proofEntries make a hostile tar complete but for what is hostile about it.
func proofEntries() []entry {
	return []entry{{name: commitName, data: []byte("c")}, {name: releaseName, data: []byte("wheelwright-bundle 1\npath .\ntag 1.0.0\n")}, {name: numbered(treePrefix, 0), data: []byte("t")}}
}

func with(files ...entry) []byte { return hostile(append(files, proofEntries()...)...) }

func TestOpenRefusesHostileTars(t *testing.T) {
	file := func(path string) entry { return entry{name: filesDir + path, data: []byte("x")} }
	good := with(file("a"), file("b"))
	if _, err := Open(good); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	patched := func(at int, b string) []byte { // with the checksum made right again
		tar := slices.Clone(good)
		copy(tar[at:], b)
		copy(tar[148:], "        ")
		sum := 0
		for _, c := range tar[:blockSize] {
			sum += int(c)
		}
		octal(tar[148:154], sum)
		tar[154] = 0
		return tar
	}
	front := func(b []byte) []byte { return append(b[:len(b)-2*blockSize], good...) }
	for name, b := range map[string][]byte{
		"nothing":                   nil,
		"only zeros":                make([]byte, 1024),
		"one block":                 good[:blockSize],
		"cut":                       good[:len(good)-blockSize],
		"no end":                    good[:len(good)-2*blockSize],
		"trailing byte":             append(slices.Clone(good), 0),
		"trailing blocks":           append(slices.Clone(good), make([]byte, 8192)...),
		"a second tar":              append(slices.Clone(good), good...),
		"twice":                     with(file("a"), file("a")),
		"unsorted":                  with(file("b"), file("a")),
		"file and folder":           with(file("a"), file("a/b")),
		"leaves the root":           with(file("../a")),
		"leaves later":              with(file("a/../../../etc/passwd")),
		"absolute":                  with(file("/etc/passwd")),
		"dot":                       with(file("./a")),
		"git folder":                with(file(".git/config")),
		"backslash":                 with(file(`a\b`)),
		"absolute name":             hostile(append([]entry{{name: "/etc/passwd"}}, proofEntries()...)...),
		"name beside":               hostile(append([]entry{{name: "a"}}, proofEntries()...)...),
		"stray provenance":          hostile(append(proofEntries(), entry{name: "provenance/zzz"})...),
		"executable proof":          hostile(append([]entry{{name: commitName, executable: true, data: []byte("c")}}, proofEntries()[1:]...)...),
		"no proof":                  hostile(file("a")),
		"no release":                hostile(proofEntries()[0], proofEntries()[2]),
		"no commit":                 hostile(proofEntries()[1:]...),
		"newer format":              hostile(proofEntries()[0], entry{name: releaseName, data: []byte("wheelwright-bundle 2\npath .\ntag 1.0.0\n")}, proofEntries()[2]),
		"release with more":         hostile(proofEntries()[0], entry{name: releaseName, data: []byte("wheelwright-bundle 1\npath .\ntag 1.0.0\n\n")}, proofEntries()[2]),
		"tree missing":              hostile(proofEntries()[0], proofEntries()[1], entry{name: numbered(treePrefix, 1)}),
		"tree too many":             hostile(append(proofEntries(), entry{name: numbered(treePrefix, 1), data: []byte("t")})...),
		"empty tag":                 hostile(proofEntries()[0], proofEntries()[1], entry{name: tagName}, proofEntries()[2]),
		"empty further tag":         hostile(proofEntries()[0], proofEntries()[1], entry{name: tagName, data: []byte("t")}, entry{name: numbered(tagPrefix, 0)}, proofEntries()[2]),
		"further tag missing":       hostile(proofEntries()[0], proofEntries()[1], entry{name: tagName, data: []byte("t")}, entry{name: numbered(tagPrefix, 1), data: []byte("t")}, proofEntries()[2]),
		"further tag without a tag": hostile(proofEntries()[0], proofEntries()[1], entry{name: numbered(tagPrefix, 0), data: []byte("t")}, proofEntries()[2]),
		"wrong mode":                patched(100, "0000666\x00"),
		"set-user-id":               patched(100, "0004755\x00"),
		"an owner":                  patched(108, "0001750\x00"),
		"a time":                    patched(136, "00000000001\x00"),
		"a hard link":               patched(156, "1"),
		"a symlink":                 patched(156, "2"),
		"a device":                  patched(156, "3"),
		"a folder":                  patched(156, "5"),
		"a sparse file":             patched(156, "S"),
		"a global header":           patched(156, "g"),
		"a link name":               patched(157, "/etc/passwd"),
		"old magic":                 patched(257, "ustar  \x00"),
		"a user name":               patched(265, "root"),
		"a prefix":                  patched(345, "/etc"),
		"bytes after the name":      patched(20, "\x00x"),
		"a huge size":               patched(124, "77777777777\x00"),
		"a size past the end":       patched(124, "00000100000\x00"),
		"a base-256 size":           patched(124, "\x80\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff"),
		"a negative size":           patched(124, "-0000000001\x00"),
		"a size with blanks":        patched(124, "          1\x00"),
		"bad checksum":              append(append(slices.Clone(good[:148]), "000000\x00 "...), good[156:]...),
		"padding used":              append(append(slices.Clone(good[:blockSize+1]), 'x'), good[blockSize+2:]...),
		"needless PAX header":       front(foreign(t, &tar.Header{Name: "files/A", Mode: 0o644, Format: tar.FormatPAX, PAXRecords: map[string]string{"comment": "x"}}, "x")),
		"a size by PAX":             front(foreign(t, &tar.Header{Name: "files/A", Mode: 0o644, Format: tar.FormatPAX, PAXRecords: map[string]string{"VENDOR.size": "9"}}, "x")),
		"archive/tar's own symlink": front(foreign(t, &tar.Header{Name: "files/A", Typeflag: tar.TypeSymlink, Linkname: "/etc"}, "")),
		"a GNU long name":           front(foreign(t, &tar.Header{Name: "files/" + strings.Repeat("A", 200), Mode: 0o644, Format: tar.FormatGNU}, "x")),
		"a split long name":         front(foreign(t, &tar.Header{Name: "files/" + strings.Repeat("A", 90) + "/" + strings.Repeat("B", 90), Mode: 0o644, Format: tar.FormatUSTAR}, "x")),
		"a PAX header at the end":   append(paxBlock(20), zeros[:]...),
		"a huge PAX header":         append(paxBlock(1<<20), make([]byte, 1<<21)...),
	} {
		if _, err := Open(b); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// Whatever Open accepts, Pack writes.
func FuzzOpen(f *testing.F) {
	good := pack(f, sampleFiles(), sampleProof())
	f.Add(good)
	f.Add(pack(f, nil, sampleProof()))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := Open(b)
		if err != nil {
			return
		}
		if again := pack(t, o.Files(), o.Proof()); !bytes.Equal(again, b) {
			t.Error("accepted what Pack does not write")
		}
	})
}

func TestOpenRefusesOrKeepsEveryFlippedByte(t *testing.T) {
	good := pack(t, sampleFiles(), sampleProof())
	digest := DigestOf(good)
	for i := 0; i < len(good); i += 1 + i%3 { // every position is met in some block
		b := slices.Clone(good)
		b[i] ^= 0x11
		o, err := Open(b)
		if err != nil {
			continue
		}
		if o.Digest() == digest || !bytes.Equal(pack(t, o.Files(), o.Proof()), b) {
			t.Fatalf("byte %d: accepted what Pack does not write", i)
		}
	}
}

func TestCompress(t *testing.T) {
	b := pack(t, sampleFiles(), sampleProof())
	z := Compress(b)
	got, err := Decompress(z, int64(len(b)))
	if err != nil || !bytes.Equal(got, b) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if len(z)*4 > len(b) {
		t.Errorf("%d bytes from %d", len(z), len(b))
	}
	if _, err := Decompress(z, int64(len(b))-1); !errors.Is(err, ErrTooLarge) {
		t.Errorf("one byte too large: %v", err)
	}
}

func TestDecompressRefusesBombs(t *testing.T) {
	bomb := Compress(make([]byte, 64<<20))
	if len(bomb) > 1<<20 {
		t.Fatalf("the bomb has %d bytes", len(bomb))
	}
	small := Compress([]byte("small"))
	unsized := func() []byte {
		var buf bytes.Buffer
		w, err := zstd.NewWriter(&buf)
		if err != nil {
			t.Fatal(err)
		}
		for range 64 {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return buf.Bytes()
	}()
	for name, z := range map[string][]byte{
		"large": bomb, "a large frame behind a small one": append(slices.Clone(small), bomb...), "two small frames": append(slices.Clone(small), small...),
		"without a size": unsized, "nothing": nil, "no zstd": []byte("hello, world, this is none"), "cut": small[:len(small)-2],
	} {
		if got, err := Decompress(z, 1<<20); err == nil {
			t.Errorf("%s: accepted, %d bytes", name, len(got))
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, _ = Decompress(bomb, 1<<20)
	runtime.ReadMemStats(&after)
	allocated := after.TotalAlloc - before.TotalAlloc
	if allocated > 4<<20 {
		t.Errorf("refusing a bomb allocates %d bytes", allocated)
	}
}
