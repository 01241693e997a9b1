package overlay_test

import (
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/pkg/render"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/overlay"
)

const base = "resources: ['https://git.example.com/vendor/shop//dist/plain?ref=1.0.0']\n"

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for p, text := range files {
		p = filepath.Join(dir, p)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_AUTHOR_NAME=p", "GIT_AUTHOR_EMAIL=p@example.com",
		"GIT_COMMITTER_NAME=p", "GIT_COMMITTER_EMAIL=p@example.com")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func newLoader(t *testing.T, src overlay.Source, dir string) *overlay.Loader {
	t.Helper()
	l, err := overlay.New(overlay.Config{Source: src, Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func load(t *testing.T, l *overlay.Loader) overlay.Overlay {
	t.Helper()
	o, err := l.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func paths(o overlay.Overlay) []string {
	var out []string
	for _, f := range o.Files {
		out = append(out, f.Path)
	}
	return out
}

func TestLocal(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"kustomization.yaml": base + "patches: [{path: parts/p.yaml}]\n", "parts/p.yaml": "a: 1\n", ".git/config": "x"})
	l := newLoader(t, overlay.Source{Path: dir}, "")
	first := load(t, l)
	if got := paths(first); !slices.Equal(got, []string{"kustomization.yaml", "parts/p.yaml"}) || first.Path != "." || first.Revision != "" {
		t.Errorf("got %v in %q at %q", got, first.Path, first.Revision)
	}
	if again := load(t, l); again.Digest != first.Digest {
		t.Errorf("digest of the same files: %v, then %v", first.Digest, again.Digest)
	}
	elsewhere := t.TempDir()
	write(t, elsewhere, map[string]string{"kustomization.yaml": base + "patches: [{path: parts/p.yaml}]\n", "parts/p.yaml": "a: 1\n"})
	if moved := load(t, newLoader(t, overlay.Source{Path: elsewhere}, "")); moved.Digest != first.Digest {
		t.Error("the folder's place is part of the digest")
	}
	write(t, dir, map[string]string{"parts/p.yaml": "a: 2\n"})
	if changed := load(t, l); changed.Digest == first.Digest {
		t.Error("a change does not show in the digest")
	}
}

// TestEnvironments: what the environments have in common comes along, and nothing else.
func TestEnvironments(t *testing.T) {
	repo := t.TempDir()
	write(t, repo, map[string]string{
		"config/common/kustomization.yaml":      base + "components: [../parts/small]\n",
		"config/parts/small/kustomization.yaml": "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nnamePrefix: s-\n",
		"config/envs/prod/kustomization.yaml":   "resources: [../../common]\n",
		"config/envs/dev/kustomization.yaml":    "resources: [../../common]\n",
		"unrelated/secret.yaml":                 "x: y\n",
	})
	git(t, repo, "init", "-q", "-b", "main")
	git(t, repo, "add", "-A")
	git(t, repo, "commit", "-q", "-m", "one")
	want := []string{"common/kustomization.yaml", "envs/prod/kustomization.yaml", "parts/small/kustomization.yaml"}
	local := load(t, newLoader(t, overlay.Source{Path: filepath.Join(repo, "config/envs/prod")}, ""))
	if !slices.Equal(paths(local), want) || local.Path != "envs/prod" {
		t.Errorf("local: %v in %q", paths(local), local.Path)
	}
	remote := load(t, newLoader(t, overlay.Source{Git: repo, Path: "config/envs/prod", Revision: "main"}, t.TempDir()))
	if !slices.Equal(paths(remote), want) || remote.Path != "envs/prod" || remote.Digest != local.Digest {
		t.Errorf("git: %v in %q, digest %v; local %v", paths(remote), remote.Path, remote.Digest, local.Digest)
	}
	pin, err := render.OverlayPin(local.Files, local.Path, []string{"https://git.example.com/vendor/shop"}, "dist")
	if err != nil || pin.Ref != "1.0.0" {
		t.Errorf("pin: %+v, %v", pin, err)
	}
}

// TestMountedConfigMap reads the links that Kubernetes makes in a volume.
func TestMountedConfigMap(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"..2026_01_02/kustomization.yaml": base, "..2026_01_02/p.yaml": "a: 1\n"})
	for link, target := range map[string]string{"..data": "..2026_01_02", "kustomization.yaml": "..data/kustomization.yaml", "p.yaml": "..data/p.yaml"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	o := load(t, newLoader(t, overlay.Source{Path: dir}, ""))
	if got := paths(o); !slices.Equal(got, []string{"kustomization.yaml", "p.yaml"}) {
		t.Errorf("got %v", got)
	}
}

func TestRefusedLocally(t *testing.T) {
	link := t.TempDir()
	write(t, link, map[string]string{"kustomization.yaml": base})
	if err := os.Symlink("/etc/passwd", filepath.Join(link, "p.yaml")); err != nil {
		t.Fatal(err)
	}
	dataLink := t.TempDir()
	write(t, dataLink, map[string]string{"kustomization.yaml": base})
	if err := os.Symlink("/etc", filepath.Join(dataLink, "..data")); err != nil {
		t.Fatal(err)
	}
	big := t.TempDir()
	write(t, big, map[string]string{"kustomization.yaml": base, "blob": strings.Repeat("x", 10<<20)})
	many := t.TempDir()
	for i := range 2001 {
		if err := os.WriteFile(filepath.Join(many, strings.Repeat("x", i%50+1)+string(rune('a'+i/50%26))+string(rune('a'+i/1300))), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	outside := t.TempDir()
	write(t, outside, map[string]string{"own/kustomization.yaml": "resources: [../any]\n", "any/private.txt": "x"})
	for folder, want := range map[string]string{
		link:                        "read overlay: " + link + "/p.yaml is a symbolic link: an overlay holds files and folders only; put a copy in its place",
		dataLink:                    "read overlay: " + dataLink + "/..data is a symbolic link",
		big:                         "holds more than 2000 files or 10 MiB",
		many:                        "holds more than 2000 files or 10 MiB",
		filepath.Join(link, "gone"): "there is no folder " + link + "/gone; make it, or set overlay.path in spoke.yaml",
	} {
		if _, err := newLoader(t, overlay.Source{Path: folder}, "").Load(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if o := load(t, newLoader(t, overlay.Source{Path: filepath.Join(outside, "own")}, "")); len(o.Files) != 1 {
		t.Errorf("a folder without kustomization was read: %v", paths(o))
	}
	if _, err := overlay.New(overlay.Config{}); err == nil {
		t.Error("an overlay without a path is taken")
	}
}

// TestGitAway: the last good copy outlives the repository and the process, and says that it is one.
func TestGitAway(t *testing.T) {
	repo, dir := filepath.Join(t.TempDir(), "provider"), t.TempDir()
	write(t, repo, map[string]string{"app/kustomization.yaml": base})
	git(t, repo, "init", "-q", "-b", "main")
	git(t, repo, "add", "-A")
	git(t, repo, "commit", "-q", "-m", "one")
	src := overlay.Source{Git: repo, Path: "app", Revision: "main"}
	l := newLoader(t, src, dir)
	first := load(t, l)
	if first.Revision != git(t, repo, "rev-parse", "HEAD") || first.Stale != "" || !slices.Equal(paths(first), []string{"kustomization.yaml"}) {
		t.Errorf("got %v at %s, stale %q", paths(first), first.Revision, first.Stale)
	}
	write(t, repo, map[string]string{"app/kustomization.yaml": base + "namePrefix: a-\n"})
	git(t, repo, "commit", "-q", "-a", "-m", "two")
	second := load(t, l)
	if second.Digest == first.Digest || second.Revision == first.Revision {
		t.Error("a commit does not show")
	}

	if err := os.Rename(repo, repo+".away"); err != nil {
		t.Fatal(err)
	}
	l.Close()
	for name, l := range map[string]*overlay.Loader{"same process": l, "after a restart": newLoader(t, src, dir)} {
		o := load(t, l)
		if o.Digest != second.Digest || o.Revision != second.Revision || o.Stale == "" || len(o.Files) != 1 {
			t.Errorf("%s: %v at %s, stale %q", name, o.Digest, o.Revision, o.Stale)
		}
	}
	other := src
	other.Path = "other"
	for name, l := range map[string]*overlay.Loader{"nothing kept": newLoader(t, src, t.TempDir()), "another folder was kept": newLoader(t, other, dir)} {
		if _, err := l.Load(t.Context()); !errors.Is(err, overlay.ErrUnreachable) {
			t.Errorf("%s: %v", name, err)
		}
	}

	if err := os.Rename(repo+".away", repo); err != nil {
		t.Fatal(err)
	}
	if back := load(t, l); back.Stale != "" || back.Digest != second.Digest {
		t.Errorf("back again: stale %q", back.Stale)
	}
}

// TestGitRefused: an overlay in error is an error, not a reason for the last copy.
func TestGitRefused(t *testing.T) {
	repo, dir := t.TempDir(), t.TempDir()
	write(t, repo, map[string]string{"app/kustomization.yaml": base})
	git(t, repo, "init", "-q", "-b", "main")
	git(t, repo, "add", "-A")
	git(t, repo, "commit", "-q", "-m", "one")
	l := newLoader(t, overlay.Source{Git: repo, Path: "app", Revision: "main"}, dir)
	load(t, l)
	for _, src := range []overlay.Source{{Git: repo, Path: "app", Revision: "gone"}, {Git: repo, Path: "gone", Revision: "main"}} {
		_, err := newLoader(t, src, t.TempDir()).Load(t.Context())
		if err == nil || errors.Is(err, overlay.ErrUnreachable) || !strings.Contains(err.Error(), "gone") {
			t.Errorf("%+v: %v", src, err)
		}
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(repo, "app", "p.yaml")); err != nil {
		t.Fatal(err)
	}
	git(t, repo, "add", "-A")
	git(t, repo, "commit", "-q", "-m", "link")
	if _, err := l.Load(t.Context()); err == nil || !strings.Contains(err.Error(), `"p.yaml" is a symlink`) {
		t.Errorf("symlink: %v", err)
	}
}

func TestKeptCopyIsChecked(t *testing.T) {
	repo, dir := t.TempDir(), t.TempDir()
	write(t, repo, map[string]string{"kustomization.yaml": base})
	git(t, repo, "init", "-q", "-b", "main")
	git(t, repo, "add", "-A")
	git(t, repo, "commit", "-q", "-m", "one")
	src := overlay.Source{Git: repo, Path: "."}
	load(t, newLoader(t, src, dir))
	file := filepath.Join(dir, "last.json")
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("kept copy: %v, %v", info, err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"changed": strings.Replace(string(data), `"Data":"`, `"Data":"AAAA`, 1), "cut": string(data[:len(data)/2]),
		"newer": strings.Replace(string(data), `"Schema":1`, `"Schema":2`, 1)} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		away := src
		l := newLoader(t, away, dir)
		if err := os.Rename(filepath.Join(repo, ".git"), filepath.Join(repo, "x")); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Load(t.Context()); !errors.Is(err, overlay.ErrUnreachable) {
			t.Errorf("%s: %v", name, err)
		}
		if err := os.Rename(filepath.Join(repo, "x"), filepath.Join(repo, ".git")); err != nil {
			t.Fatal(err)
		}
	}
}
