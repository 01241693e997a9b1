package provenance

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func git(t testing.TB, dir string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=v", "GIT_AUTHOR_EMAIL=v@example.com", "GIT_COMMITTER_NAME=v", "GIT_COMMITTER_EMAIL=v@example.com")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, &stderr)
	}
	return out
}

func line(t *testing.T, dir string, args ...string) string {
	return strings.TrimSpace(string(git(t, dir, args...)))
}

var sample = []File{
	{Path: "kustomization.yaml", Data: []byte("resources: []\n")},
	{Path: "a/x.yaml", Data: []byte("x")},
	{Path: "a.b", Data: []byte("dot sorts before slash")},
	{Path: "a-b/c/d/e.sh", Executable: true, Data: []byte("#!/bin/sh\n")},
	{Path: "a0", Data: nil},
	{Path: "ümlaut/ß.yaml", Data: []byte("u")},
}

// repository writes the sample below dist/app, tags it 1.0.0 (annotated) and light (lightweight), and
// returns its folder.
func repository(t *testing.T) string {
	dir := t.TempDir()
	git(t, dir, "init", "-q", "-b", "main")
	for _, f := range sample {
		p := filepath.Join(dir, "dist", "app", filepath.FromSlash(f.Path))
		mode := os.FileMode(0o644)
		if f.Executable {
			mode = 0o755
		}
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, f.Data, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "README.md"), []byte("outside"), 0o644); err != nil {
		t.Fatal(err)
	}
	git(t, dir, "add", "-A")
	git(t, dir, "commit", "-q", "-m", "first")
	git(t, dir, "tag", "-a", "-m", "one", "1.0.0")
	git(t, dir, "tag", "light")
	return dir
}

func proofOf(t *testing.T, dir string) Proof {
	return Proof{
		Tag:    git(t, dir, "cat-file", "tag", "1.0.0"),
		Commit: git(t, dir, "cat-file", "commit", "1.0.0^{commit}"),
		Trees: [][]byte{git(t, dir, "cat-file", "tree", "1.0.0^{tree}"), git(t, dir, "cat-file", "tree", "1.0.0:dist"),
			git(t, dir, "cat-file", "tree", "1.0.0:dist/app")},
		Path:    "dist/app",
		TagName: "1.0.0",
	}
}

func TestTreeIDIsGits(t *testing.T) {
	dir := repository(t)
	got, err := TreeID(sample)
	if err != nil {
		t.Fatal(err)
	}
	if want := line(t, dir, "rev-parse", "1.0.0:dist/app"); got != want {
		t.Errorf("got %s, git says %s", got, want)
	}
	if got, err := TreeID(nil); err != nil || got != "4b825dc642cb6eb9a060e54bf8d69288fbee4904" {
		t.Errorf("the empty tree: %s, %v", got, err)
	}
}

func TestTreeIDRefuses(t *testing.T) {
	for name, paths := range map[string][]string{
		"a file twice":            {"a", "a"},
		"a file that is a folder": {"a", "a-b", "a/b"},
		"absolute":                {"/a"},
		"leaves the root":         {"a/../../b"},
		"not clean":               {"a//b"},
		"trailing slash":          {"a/"},
		"empty":                   {""},
		"dot":                     {"."},
		"git folder":              {"a/.GIT/config"},
		"newline":                 {"a\nb"},
		"backslash":               {`a\b`},
		"not UTF-8":               {"a\xff"},
	} {
		var files []File
		for _, p := range paths {
			files = append(files, File{Path: p})
		}
		if _, err := TreeID(files); err == nil {
			t.Errorf("%s: want an error", name)
		}
	}
}

func TestCheckFollowsTheChain(t *testing.T) {
	dir := repository(t)
	p := proofOf(t, dir)
	got, err := p.Check(sample)
	if err != nil {
		t.Fatal(err)
	}
	want := Claim{TagName: "1.0.0", TagObject: line(t, dir, "rev-parse", "1.0.0"),
		Commit: line(t, dir, "rev-parse", "1.0.0^{commit}"), Tree: line(t, dir, "rev-parse", "1.0.0:dist/app")}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}

	light := p
	light.Tag, light.TagName = nil, "light"
	if got, err = light.Check(sample); err != nil || got.TagObject != "" || got.Commit != want.Commit {
		t.Errorf("lightweight: %+v, %v", got, err)
	}
}

func TestCheckAtTheRoot(t *testing.T) {
	dir := repository(t)
	var files []File
	for _, f := range sample {
		f.Path = "dist/app/" + f.Path
		files = append(files, f)
	}
	files = append(files, File{Path: "README.md", Data: []byte("outside")})
	p := proofOf(t, dir)
	p.Path, p.Trees = ".", p.Trees[:1]
	if _, err := p.Check(files); err != nil {
		t.Fatal(err)
	}
}

// Law 1: every byte of the files and of the chain matters.
func TestLaw1CheckRefusesTampering(t *testing.T) {
	dir := repository(t)
	good := proofOf(t, dir)
	for name, tamper := range map[string]func(p *Proof, files []File) []File{
		"a changed byte":       func(_ *Proof, f []File) []File { f[0].Data = []byte("resources: [x]\n"); return f },
		"an added file":        func(_ *Proof, f []File) []File { return append(f, File{Path: "z"}) },
		"a missing file":       func(_ *Proof, f []File) []File { return f[1:] },
		"a changed mode":       func(_ *Proof, f []File) []File { f[0].Executable = true; return f },
		"a renamed file":       func(_ *Proof, f []File) []File { f[0].Path = "other"; return f },
		"an old tag, new name": func(p *Proof, f []File) []File { p.TagName = "1.0.1"; return f },
		"a changed tag":        func(p *Proof, f []File) []File { p.Tag = bytes.Replace(p.Tag, p.Tag[7:9], []byte("00"), 1); return f },
		"a tag of a tree": func(p *Proof, f []File) []File {
			p.Tag = bytes.Replace(p.Tag, []byte("type commit"), []byte("type tree"), 1)
			return f
		},
		"no tag content":        func(p *Proof, f []File) []File { p.Tag = []byte{}; return f },
		"another commit":        func(p *Proof, f []File) []File { p.Commit = append(p.Commit, ' '); return f },
		"a commit without tree": func(p *Proof, f []File) []File { p.Commit = p.Commit[5:]; return f },
		"a second tree line": func(p *Proof, f []File) []File {
			p.Commit = append([]byte("tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n"), p.Commit...)
			return f
		},
		"another path":        func(p *Proof, f []File) []File { p.Path = "dist/other"; return f },
		"a path that leaves":  func(p *Proof, f []File) []File { p.Path = "dist/.."; return f },
		"a missing tree":      func(p *Proof, f []File) []File { p.Trees = p.Trees[:2]; return f },
		"a swapped tree":      func(p *Proof, f []File) []File { p.Trees[1] = p.Trees[2]; return f },
		"a changed root tree": func(p *Proof, f []File) []File { p.Trees[0] = append(slices.Clone(p.Trees[0]), 0); return f },
	} {
		p := good
		p.Commit, p.Trees = slices.Clone(good.Commit), slices.Clone(good.Trees)
		files := tamper(&p, slices.Clone(sample))
		if c, err := p.Check(files); err == nil {
			t.Errorf("%s: accepted as %+v", name, c)
		}
	}
}

func TestParseTreeIsStrict(t *testing.T) {
	id := strings.Repeat("i", 20)
	for name, raw := range map[string]string{
		"truncated":        "100644 a\x00short",
		"no mode":          "a",
		"twice":            "100644 a\x00" + id + "100644 a\x00" + id,
		"file and folder":  "100644 a\x00" + id + "40000 a\x00" + id,
		"out of order":     "100644 b\x00" + id + "100644 a\x00" + id,
		"slash in a name":  "100644 a/b\x00" + id,
		"empty name":       "100644 \x00" + id,
		"folder too early": "40000 a\x00" + id + "100644 a.b\x00" + id,
	} {
		if _, err := ParseTree([]byte(raw)); err == nil {
			t.Errorf("%s: want an error", name)
		}
	}
}

// distribution clones the reference distribution and gives its folder and the file of its signers.
func distribution(t *testing.T) (dir string, signers []byte) {
	t.Helper()
	source, err := filepath.Abs("../../../shared/distributions/app-distribution.gitbundle")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(source); err != nil {
		t.Skipf("the reference distribution is absent: %v", err)
	}
	if signers, err = os.ReadFile(strings.TrimSuffix(source, ".gitbundle") + ".allowed_signers"); err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(t.TempDir(), "app")
	git(t, ".", "clone", "-q", "--bare", source, dir)
	return dir, signers
}

// ofTag is a tag's release of the path dist.
func ofTag(t *testing.T, dir, tag string) (Proof, []File) {
	t.Helper()
	p := Proof{Commit: git(t, dir, "cat-file", "commit", tag+"^{commit}"), Path: "dist", TagName: tag,
		Trees: [][]byte{git(t, dir, "cat-file", "tree", tag+"^{tree}"), git(t, dir, "cat-file", "tree", tag+":dist")}}
	if line(t, dir, "cat-file", "-t", tag) == "tag" {
		p.Tag = git(t, dir, "cat-file", "tag", tag)
	}
	var files []File
	for l := range strings.Lines(line(t, dir, "ls-tree", "-r", tag+":dist")) {
		meta, path, _ := strings.Cut(strings.TrimSpace(l), "\t")
		mode, rest, _ := strings.Cut(meta, " ")
		files = append(files, File{Path: path, Executable: mode == ModeExecutable, Data: git(t, dir, "cat-file", "blob", strings.Fields(rest)[1])})
	}
	return p, files
}

func TestRealDistribution(t *testing.T) {
	dir, _ := distribution(t)
	for _, tag := range []string{"1.0.0", "2.0.0", "v1.2.3"} {
		p, files := ofTag(t, dir, tag)
		c, err := p.Check(files)
		if err != nil {
			t.Fatal(err)
		}
		if want := line(t, dir, "rev-parse", tag+":dist"); c.Tree != want {
			t.Errorf("%s: tree %s, want %s", tag, c.Tree, want)
		}
	}
}
