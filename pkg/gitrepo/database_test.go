package gitrepo

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
)

// history makes a repository whose files grow, shrink, move and come back from one tag to the next.
func history(t testing.TB, seed uint64, tags int) string {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	dir := filepath.Join(t.TempDir(), "history")
	runGit(t, t.TempDir(), "init", "-q", "-b", "main", dir)
	texts := map[string][]byte{}
	var stream bytes.Buffer
	line := func() string { return fmt.Sprintf("  key-%d: value-%d\n", r.IntN(50), r.IntN(1000)) }
	for n := range tags {
		for range 1 + r.IntN(12) {
			path := fmt.Sprintf("dist/%c/%c.yaml", 'a'+r.IntN(4), 'a'+r.IntN(8))
			switch text := texts[path]; r.IntN(6) {
			case 0:
				delete(texts, path)
			case 1: // nothing that can be compressed
				noise := make([]byte, r.IntN(9000))
				for i := range noise {
					noise[i] = byte(r.Uint32())
				}
				texts[path] = noise
			case 2:
				texts[path] = nil
			default:
				for range r.IntN(200) {
					at := r.IntN(len(text) + 1)
					text = slices.Insert(slices.Clone(text), at, []byte(line())...)
				}
				texts[path] = text
			}
		}
		fmt.Fprintf(&stream, "commit refs/heads/main\nmark :%d\ncommitter v <v@example.com> %d +0000\ndata 1\nx\ndeleteall\n", n+1, 1_700_000_000+n)
		for path, text := range texts {
			fmt.Fprintf(&stream, "M 100644 inline %s\ndata %d\n%s\n", path, len(text), text)
		}
		fmt.Fprintf(&stream, "tag 1.%d.0\nfrom :%d\ntagger v <v@example.com> %d +0000\ndata 1\nx\n", n, n+1, 1_700_000_000+n)
	}
	cmd := exec.Command("git", "-c", "fastimport.unpackLimit=100000", "fast-import", "--quiet")
	cmd.Dir, cmd.Env, cmd.Stdin = dir, environment(), &stream
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	runGit(t, dir, "checkout", "-q", "-f", "main")
	return dir
}

// gitObjects are all objects of a repository, as git itself reads them: kind and content by id.
func gitObjects(t testing.TB, dir string) map[string]string {
	t.Helper()
	cmd := exec.Command("git", "cat-file", "--batch", "--batch-all-objects")
	cmd.Dir, cmd.Env = dir, environment()
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for rest := out; len(rest) > 0; {
		head, content, _ := bytes.Cut(rest, []byte("\n"))
		var id, kind string
		var size int
		if _, err := fmt.Sscan(string(head), &id, &kind, &size); err != nil {
			t.Fatal(err)
		}
		all[id], rest = kind+" "+string(content[:size]), content[size+1:]
	}
	return all
}

// Whatever way git keeps an object in, it is read as git reads it.
func TestObjectsAreReadAsGitReadsThem(t *testing.T) {
	for name, keep := range map[string]string{
		"loose":                   "true",
		"one pack":                "git gc -q --aggressive --prune=now",
		"deltas by id":            "git -c repack.useDeltaBaseOffset=false repack -q -adf --depth=50 --window=50",
		"packs, and loose":        "git repack -q -ad && git commit -q --allow-empty -m more && git repack -q -d && date > dist/more && git add -A && git commit -q -m loose",
		"no deltas":               "git repack -q -adf --window=0",
		"nothing is compressed":   "git -c core.compression=0 repack -q -adF",
		"an index of the indexes": "git repack -q -ad && git commit -q --allow-empty -m more && git repack -q -d && git multi-pack-index write",
		"an alternate":            "mkdir other && git init -q other && mv .git/objects/[0-9a-f][0-9a-f] other/.git/objects/ && echo ../../other/.git/objects > .git/objects/info/alternates",
	} {
		t.Run(name, func(t *testing.T) {
			dir := history(t, 11, 12)
			if out, err := shell(dir, "("+keep+") 2>&1"); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			want := gitObjects(t, dir)
			r := open(t, Config{URL: dir, Cache: NewCache(0)}).origin.objects()
			for range 2 { // the second time with what is kept of the first
				for id, content := range want {
					obj, err := r.read(plumbing.NewHash(id), 1<<20)
					if err != nil {
						t.Fatalf("%s: %v", id, err)
					}
					if got := obj.kind.String() + " " + string(obj.data); got != content {
						t.Fatalf("%s: %d bytes, git has %d", id, len(got), len(content))
					}
					size := int64(len(obj.data))
					if _, err := r.read(plumbing.NewHash(id), size-1); size > 0 && !errors.Is(err, ErrTooLarge) {
						t.Fatalf("%s with a limit of a byte less: %v", id, err)
					}
				}
			}
			if len(want) < 40 || r.has(plumbing.NewHash(strings.Repeat("1", 40))) {
				t.Errorf("%d objects, or one that is not there", len(want))
			}
		})
	}
}

// A damaged pack gives errors: no panic, no endless loop, no content that is not what its id says.
func TestDamagedPacksAreNoticed(t *testing.T) {
	dir := history(t, 12, 5)
	runGit(t, dir, "gc", "-q", "--aggressive", "--prune=now")
	want := gitObjects(t, dir)
	files, err := filepath.Glob(filepath.Join(dir, ".git/objects/pack/pack-*"))
	if err != nil {
		t.Fatal(err)
	}
	r, refused := rand.New(rand.NewPCG(3, 4)), 0
	for range 25 {
		name := files[r.IntN(len(files))]
		whole, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		damaged := slices.Clone(whole)
		if r.IntN(8) == 0 {
			damaged = damaged[:r.IntN(len(damaged))]
		} else {
			for range 1 + r.IntN(20) {
				damaged[r.IntN(len(damaged))] ^= byte(1 + r.IntN(255))
			}
		}
		if err := errors.Join(os.Chmod(name, 0o644), os.WriteFile(name, damaged, 0o644)); err != nil {
			t.Fatal(err)
		}
		repo, err := Open(t.Context(), Config{URL: dir, Cache: NewCache(0)})
		if err != nil {
			refused++
		} else {
			for id, content := range want {
				obj, err := repo.origin.objects().read(plumbing.NewHash(id), 1<<20)
				if err != nil {
					refused++
				} else if obj.kind.String()+" "+string(obj.data) != content {
					t.Fatalf("%s is handed out with another content", id)
				}
			}
			repo.Close()
		}
		if err := os.WriteFile(name, whole, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if refused < 25 {
		t.Errorf("%d refusals: hardly anything was damaged", refused)
	}
}

// A repack under the hands of a reader takes away the packs that it has open.
func TestRepackWhileOpen(t *testing.T) {
	dir := history(t, 13, 10)
	r := open(t, Config{URL: dir, Cache: NewCache(0)})
	for n, repack := range []string{"git repack -q -ad", "git repack -q -adf --window=0", "true", "git gc -q --prune=now"} {
		if out, err := shell(dir, repack); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		snapshot(t, r, fmt.Sprintf("1.%d.0", n), "dist")
	}
}

// More packs than are kept open.
func TestManyPacks(t *testing.T) {
	dir := history(t, 14, 6)
	runGit(t, dir, "gc", "-q", "--prune=now")
	for range maxOpen + 3 {
		runGit(t, dir, "commit", "-q", "--allow-empty", "-m", "x")
		runGit(t, dir, "repack", "-q", "-d")
	}
	r := open(t, Config{URL: dir, Cache: NewCache(0)}).origin.objects()
	for id := range gitObjects(t, dir) {
		if _, err := r.read(plumbing.NewHash(id), 1<<20); err != nil {
			t.Fatal(err)
		}
	}
	have := 0
	for _, p := range r.db.packs {
		if p.file != nil {
			have++
		}
	}
	if len(r.db.packs) <= maxOpen || have > maxOpen || have != len(r.db.open) {
		t.Errorf("%d of %d packs are open, %d by the list", have, len(r.db.packs), len(r.db.open))
	}
}

func TestTheCacheIsBoundedAndEachRepositorysOwn(t *testing.T) {
	c, root := NewCache(3000), &folder{}
	root.add(node{path: "a", data: make([]byte, 900)})
	var all []*objects
	for range 5 {
		o := &objects{cache: c}
		if c.get(o) != nil {
			t.Error("another repository has it")
		}
		c.put(o, root)
		all = append(all, o)
		if c.get(all[0]) == nil {
			t.Error("what is used is let go")
		}
	}
	large := &folder{}
	large.add(node{path: "a", data: make([]byte, 3000)})
	for n, want := range []bool{true, false, false, false, true} {
		if got := c.get(all[n]) != nil; got != want {
			t.Errorf("%d: %t", n, got)
		}
	}
	c.put(all[4], large) // and so nothing of it
	if c.get(all[4]) != nil || c.get(all[0]) != root || c.held != root.cost {
		t.Errorf("%d bytes are held", c.held)
	}
	if err := all[0].close(); err != nil || c.held != 0 || c.order.Len() != 0 {
		t.Errorf("after closing: %d bytes, %v", c.held, err)
	}
}

// What was read for one release is not read again for the next.
func TestOnlyWhatChangedIsRead(t *testing.T) {
	dir := history(t, 15, 2)
	runGit(t, dir, "gc", "-q", "--prune=now")
	write(t, filepath.Join(dir, "dist/new"), []byte("new"))
	runGit(t, dir, "add", "-A")
	runGit(t, dir, "commit", "-q", "-m", "x")
	runGit(t, dir, "tag", "-a", "-m", "x", "2.0.0")
	r := open(t, Config{URL: dir})
	before := snapshot(t, r, "1.1.0", "dist")
	packs, err := filepath.Glob(filepath.Join(dir, ".git/objects/pack/pack-*"))
	if err != nil || len(packs) == 0 {
		t.Fatal(packs, err)
	}
	for _, p := range packs { // whatever is unchanged cannot be read any more
		if err := os.Remove(p); err != nil {
			t.Fatal(err)
		}
	}
	after := snapshot(t, r, "2.0.0", "dist")
	if len(after.Files) != len(before.Files)+1 {
		t.Errorf("%d files, before %d", len(after.Files), len(before.Files))
	}
	if _, err := after.Proof.Check(after.Files); err != nil {
		t.Error(err)
	}
}

// Whichever snapshots were made before, and however little of them is kept, a tag holds what its trees say.
func TestASnapshotAfterOthersIsTheSame(t *testing.T) {
	const tags = 20
	dir, r := history(t, 16, tags), rand.New(rand.NewPCG(16, 2))
	for _, most := range []int{1 << 20, 6000, 0} {
		repo := open(t, Config{URL: dir, Cache: NewCache(most)})
		for range 60 {
			tag := fmt.Sprintf("1.%d.0", r.IntN(tags))
			path := []string{"dist", "dist", "."}[r.IntN(3)]
			s := snapshot(t, repo, tag, path)
			if _, err := s.Proof.Check(s.Files); err != nil {
				t.Fatalf("%s at %s with %d bytes kept: %v", path, tag, most, err)
			}
		}
	}
}
