package gitrepo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
)

func open(t testing.TB, cfg Config) *Repository {
	t.Helper()
	r, err := Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func snapshot(t testing.TB, r *Repository, tag, path string) Snapshot {
	t.Helper()
	if err := r.Fetch(context.Background(), tag); err != nil {
		t.Fatal(err)
	}
	s, err := r.Snapshot(tag, path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func tagNames(t testing.TB, r *Repository) []string {
	t.Helper()
	refs, err := r.Tags(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, ref := range refs {
		names = append(names, ref.Name)
	}
	return names
}

// places are all the ways to the same repository.
func places(t *testing.T, dir string) map[string]Config {
	bare, linked := dir+".git", dir+"-linked"
	runGit(t, dir, "clone", "-q", "--mirror", dir, bare)
	runGit(t, dir, "worktree", "add", "-q", "--detach", linked)
	packed := dir + "-packed"
	runGit(t, dir, "clone", "-q", "--mirror", dir, packed)
	runGit(t, packed, "gc", "-q", "--aggressive")
	borrowed := dir + "-borrowed"
	runGit(t, dir, "clone", "-q", "--shared", dir, borrowed)
	web := serveHTTP(t, filepath.Dir(dir))
	safe, authorities := serveHTTPS(t, filepath.Dir(dir))
	password := filepath.Join(t.TempDir(), "password")
	write(t, password, []byte("secret\n"))
	addr, key, hosts := serveSSH(t)
	host, port, _ := net.SplitHostPort(addr)
	return map[string]Config{
		"work tree":        {URL: dir},
		"bare":             {URL: bare},
		"packed":           {URL: packed},
		"objects borrowed": {URL: borrowed},
		"linked work tree": {URL: linked},
		"file URL":         {URL: "file://" + dir},
		"http":             {URL: web.URL + "/vendor"},
		"http, password":   {URL: web.URL + "/private/vendor", Username: "hub", PasswordFile: password},
		"https":            {URL: safe.URL + "/private/vendor", Username: "hub", PasswordFile: password, Authorities: authorities},
		"ssh":              {URL: fmt.Sprintf("ssh://git@%s%s", addr, bare), SSHKey: key, KnownHosts: hosts},
		"scp-like":         {URL: fmt.Sprintf("git@%s:%s:%s", host, port, bare), SSHKey: key, KnownHosts: hosts},
	}
}

func TestEveryWayGivesTheSame(t *testing.T) {
	dir := vendor(t)
	for name, cfg := range places(t, dir) {
		t.Run(name, func(t *testing.T) {
			cfg.Dir = t.TempDir()
			r := open(t, cfg)
			if got := tagNames(t, r); !slices.Equal(got, []string{"1.0.0", "1.1.0", "v1.2.0"}) {
				t.Fatalf("tags %q", got)
			}
			for tag, content := range map[string]string{"1.0.0": "first\n", "1.1.0": "second\n", "v1.2.0": "third\n"} {
				s := snapshot(t, r, tag, "dist")
				claim, err := s.Proof.Check(s.Files)
				if err != nil {
					t.Fatal(err)
				}
				want := provenance.Claim{TagName: tag, Commit: runGit(t, dir, "rev-parse", tag+"^{commit}"), Tree: runGit(t, dir, "rev-parse", tag+":dist")}
				if tag != "v1.2.0" {
					want.TagObject = runGit(t, dir, "rev-parse", tag)
				}
				if claim != want || s.Commit != want.Commit || s.TagObject != want.TagObject {
					t.Errorf("%s: %+v, want %+v", tag, claim, want)
				}
				var got []string
				for _, f := range s.Files {
					got = append(got, fmt.Sprintf("%s %v %s", f.Path, f.Executable, f.Data))
				}
				if w := []string{"app/a.yaml false " + content, "app/kustomization.yaml false resources: [a.yaml]\n", "run.sh true #!/bin/sh\n"}; !slices.Equal(got, w) {
					t.Errorf("%s: %q", tag, got)
				}
				deep := snapshot(t, r, tag, "dist/app")
				if _, err := deep.Proof.Check(deep.Files); err != nil || len(deep.Files) != 2 {
					t.Errorf("%s: %d files, %v", tag, len(deep.Files), err)
				}
				root := snapshot(t, r, tag, ".")
				if _, err := root.Proof.Check(root.Files); err != nil || len(root.Files) != 4 {
					t.Errorf("%s: %d files, %v", tag, len(root.Files), err)
				}
			}
		})
	}
}

func TestNewTagsAppear(t *testing.T) {
	dir := vendor(t)
	for name, cfg := range places(t, dir) {
		t.Run(name, func(t *testing.T) {
			cfg.Dir = t.TempDir()
			r := open(t, cfg)
			snapshot(t, r, "1.1.0", "dist")
			tag := fmt.Sprintf("2.0.%d", time.Now().UnixNano())
			release(t, dir, tag, tag)
			for _, copied := range []string{".git", "-packed"} {
				runGit(t, dir+copied, "fetch", "-q", dir, "+refs/*:refs/*")
			}
			runGit(t, dir+"-packed", "gc", "-q")
			runGit(t, dir+"-borrowed", "fetch", "-q", "--tags")
			if got := tagNames(t, r); !slices.Contains(got, tag) {
				t.Fatalf("tags %q", got)
			}
			s := snapshot(t, r, tag, "dist")
			if string(s.Files[0].Data) != tag {
				t.Errorf("got %q", s.Files[0].Data)
			}
			snapshot(t, r, "1.0.0", "dist") // whose pack may have gone in the gc
		})
	}
}

func TestOnlyTheTagIsFetchedAndOnce(t *testing.T) {
	dir := vendor(t)
	noise := make([]byte, 1<<20)
	_, _ = rand.Read(noise)
	write(t, filepath.Join(dir, "history.bin"), noise)
	runGit(t, dir, "add", "-A")
	runGit(t, dir, "commit", "-q", "-m", "large, and gone in the next")
	runGit(t, dir, "rm", "-q", "history.bin")
	keep := make([]byte, 1<<20)
	_, _ = rand.Read(keep)
	write(t, filepath.Join(dir, "kept.bin"), keep)
	release(t, dir, "1.3.0", "fourth\n")
	release(t, dir, "1.4.0", "fifth\n")
	web := serveHTTP(t, filepath.Dir(dir))
	cfg := Config{URL: web.URL + "/vendor", Dir: t.TempDir()}
	r := open(t, cfg)

	tagNames(t, r)
	if n := web.uploads.Load(); n != 0 {
		t.Errorf("listing tags fetched %d times", n)
	}
	first := snapshot(t, r, "1.3.0", "dist")
	if n := web.bytes.Swap(0); n < 1<<20 || n > 3<<19 {
		t.Errorf("the first fetch took %d bytes, want one commit without history", n)
	}
	snapshot(t, r, "1.4.0", "dist")
	if n := web.bytes.Swap(0); n > 3<<19 {
		t.Errorf("the next fetch took %d bytes, want one commit without history", n)
	}
	before := web.uploads.Load()
	snapshot(t, r, "1.3.0", "dist")

	again := open(t, cfg) // as after a restart
	s := snapshot(t, again, "1.3.0", "dist")
	if n := web.uploads.Load() - before; n != 0 {
		t.Errorf("%d fetches of what was here", n)
	}
	if s.Commit != first.Commit {
		t.Errorf("commit %s, was %s", s.Commit, first.Commit)
	}
}

func TestACacheThatBrokeIsMadeAnew(t *testing.T) {
	dir := vendor(t)
	web := serveHTTP(t, filepath.Dir(dir))
	cfg := Config{URL: web.URL + "/vendor", Dir: filepath.Join(t.TempDir(), "cache")}
	r := open(t, cfg)
	snapshot(t, r, "1.0.0", "dist")
	packs, err := filepath.Glob(filepath.Join(cfg.Dir, "objects/pack/*"))
	if err != nil || len(packs) != 2 {
		t.Fatalf("packs %q, %v", packs, err)
	}
	for _, p := range packs {
		if err := os.Chmod(p, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(p, 40); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(cfg.Dir, "objects/pack/tmp_wheelwright_1"), []byte("left by a killed fetch"))
	again := open(t, cfg)
	snapshot(t, again, "1.0.0", "dist")
	if _, err := os.Stat(filepath.Join(cfg.Dir, "objects/pack/tmp_wheelwright_1")); err == nil {
		t.Error("what a killed fetch left is still there")
	}
	write(t, filepath.Join(cfg.Dir, "config"), []byte("[core\n nonsense"))
	snapshot(t, open(t, cfg), "1.1.0", "dist")
}

func TestUnreachableSaysWhatToType(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	dir := vendor(t)
	web := serveHTTP(t, filepath.Dir(dir))
	addr, key, hosts := serveSSH(t)
	_, otherKey, otherHosts := serveSSH(t)
	t.Setenv("SSH_AUTH_SOCK", "")
	for name, c := range map[string]struct {
		cfg  Config
		want string
	}{
		"no folder":        {Config{URL: "/nonexistent/app"}, "no such file"},
		"no repository":    {Config{URL: t.TempDir()}, "holds no git repository"},
		"refused":          {Config{URL: "http://" + closed.Addr().String() + "/app"}, "connection refused"},
		"no such":          {Config{URL: web.URL + "/other"}, "repository not found"},
		"needs a password": {Config{URL: web.URL + "/private/vendor"}, "authentication required"},
		"wrong password":   {Config{URL: strings.Replace(web.URL, "://", "://hub:wrong@", 1) + "/private/vendor"}, "authentication required"},
		"ssh, wrong key":   {Config{URL: "ssh://git@" + addr + dir, SSHKey: otherKey, KnownHosts: hosts}, "unable to authenticate"},
		"ssh, no such":     {Config{URL: "ssh://git@" + addr + "/nonexistent", SSHKey: key, KnownHosts: hosts}, "repository not found"},
		"ssh, wrong host":  {Config{URL: "ssh://git@" + addr + dir, SSHKey: key, KnownHosts: otherHosts}, "key is unknown"},
		"ssh, no key":      {Config{URL: "ssh://git@" + addr + dir, KnownHosts: hosts}, "no ssh key is configured"},
		"ssh, no key file": {Config{URL: "ssh://git@" + addr + dir, SSHKey: "/nonexistent", KnownHosts: hosts}, "read ssh key"},
		"ssh, no hosts":    {Config{URL: "ssh://git@" + addr + dir, SSHKey: key, KnownHosts: "/nonexistent"}, "ssh-keyscan"},
	} {
		t.Run(name, func(t *testing.T) {
			c.cfg.Dir = t.TempDir()
			r, err := Open(context.Background(), c.cfg)
			if err == nil {
				defer r.Close()
				_, err = r.Tags(context.Background())
			}
			if !errors.Is(err, ErrUnreachable) {
				t.Fatalf("got %v", err)
			}
			text := err.Error()
			if !strings.Contains(text, c.want) || !strings.Contains(text, "git ls-remote ") || strings.Contains(text, "\n") || strings.Contains(text, "wrong@") {
				t.Errorf("got %s", text)
			}
		})
	}
}

func TestGivesUpWhenAsked(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	_, key, _ := serveSSH(t)
	hosts := filepath.Join(t.TempDir(), "known_hosts")
	write(t, hosts, nil)
	for _, url := range []string{"http://" + silent.Addr().String() + "/app", "ssh://git@" + silent.Addr().String() + "/app"} {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		r := open(t, Config{URL: url, Dir: t.TempDir(), SSHKey: key, KnownHosts: hosts})
		if _, err := r.Tags(ctx); !errors.Is(err, ErrUnreachable) {
			t.Errorf("%s: %v", url, err)
		}
		cancel()
	}
}

func TestGoneAndBack(t *testing.T) {
	dir := vendor(t)
	web := serveHTTP(t, filepath.Dir(dir))
	for _, cfg := range []Config{{URL: dir}, {URL: web.URL + "/vendor", Dir: t.TempDir()}} {
		r := open(t, cfg)
		tagNames(t, r)
		if err := os.Rename(dir, dir+"-away"); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Tags(context.Background()); !errors.Is(err, ErrUnreachable) {
			t.Errorf("%s: %v", cfg.URL, err)
		}
		if err := os.Rename(dir+"-away", dir); err != nil {
			t.Fatal(err)
		}
		snapshot(t, r, "1.1.0", "dist")
	}
}

func TestEmpty(t *testing.T) {
	root := t.TempDir()
	runGit(t, root, "init", "-q", "--bare", "empty")
	web := serveHTTP(t, root)
	addr, key, hosts := serveSSH(t)
	for _, cfg := range []Config{{URL: filepath.Join(root, "empty")}, {URL: web.URL + "/empty"}, {URL: "ssh://git@" + addr + root + "/empty", SSHKey: key, KnownHosts: hosts}} {
		cfg.Dir = t.TempDir()
		_, err := open(t, cfg).Tags(context.Background())
		if !errors.Is(err, ErrEmpty) || !strings.Contains(err.Error(), "git ls-remote") {
			t.Errorf("%s: %v", cfg.URL, err)
		}
	}
}

func TestOtherSchemesAreRefused(t *testing.T) {
	for _, url := range []string{"git://example.com/app", "ftp://example.com/app"} {
		if _, err := Open(context.Background(), Config{URL: url, Dir: t.TempDir()}); err == nil {
			t.Errorf("%s: want an error", url)
		}
	}
}

func TestSnapshotRefuses(t *testing.T) {
	dir := vendor(t)
	commit := func(tag string) {
		runGit(t, dir, "add", "-A")
		runGit(t, dir, "commit", "-q", "-m", tag)
		runGit(t, dir, "tag", "-a", "-m", tag, tag)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "dist/app/link")); err != nil {
		t.Fatal(err)
	}
	commit("symlink")
	runGit(t, dir, "rm", "-q", "dist/app/link")
	runGit(t, dir, "update-index", "--add", "--cacheinfo", "160000,"+runGit(t, dir, "rev-parse", "HEAD")+",dist/sub")
	runGit(t, dir, "commit", "-q", "-m", "sub")
	runGit(t, dir, "tag", "submodule")
	runGit(t, dir, "rm", "-q", "--cached", "dist/sub")
	runGit(t, dir, "mv", "dist", "real")
	if err := os.Symlink("real", filepath.Join(dir, "dist")); err != nil {
		t.Fatal(err)
	}
	commit("path-is-link")
	runGit(t, dir, "rm", "-q", "dist")
	write(t, filepath.Join(dir, "dist"), []byte("a file"))
	commit("path-is-file")
	runGit(t, dir, "rm", "-q", "dist")
	commit("path-gone")
	write(t, filepath.Join(dir, "dist/back\\slash"), []byte("x"))
	commit("odd-name")
	runGit(t, dir, "tag", "-a", "-m", "x", "of-a-tree", "HEAD^{tree}")
	runGit(t, dir, "tag", "-a", "-m", "x", "of-a-tag", "1.0.0")
	for tag, want := range map[string]struct {
		err  error
		text string
	}{
		"symlink": {ErrUnsupported, `"app/link" is a symlink`}, "submodule": {ErrUnsupported, `"sub" is a submodule`},
		"path-is-link": {ErrUnsupported, `"dist" is a symlink`}, "path-is-file": {ErrNotFound, `"dist": it is a file`}, "path-gone": {ErrNotFound, `folder "dist": not found`},
		"odd-name": {ErrUnsupported, "backslash"}, "of-a-tree": {ErrUnsupported, "names a tree"}, "of-a-tag": {ErrUnsupported, "names a tag"},
	} {
		r := open(t, Config{URL: dir})
		if err := r.Fetch(context.Background(), tag); err != nil {
			t.Fatal(err)
		}
		_, err := r.Snapshot(tag, "dist")
		if !errors.Is(err, want.err) || !strings.Contains(err.Error(), want.text) || !strings.Contains(err.Error(), tag) {
			t.Errorf("%s: %v", tag, err)
		}
	}
	r := open(t, Config{URL: dir})
	if err := r.Fetch(context.Background(), "9.9.9"); !errors.Is(err, ErrNotFound) {
		t.Errorf("no such tag: %v", err)
	}
	if _, err := r.Snapshot("1.0.0", "dist"); err == nil {
		t.Error("a tag that was not fetched: want an error")
	}
	for _, path := range []string{"", "..", "/dist", "dist/", "dist/../..", "a//b"} {
		if err := r.Fetch(context.Background(), "1.0.0"); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Snapshot("1.0.0", path); err == nil {
			t.Errorf("path %q: want an error", path)
		}
	}
}

func TestFetchRevision(t *testing.T) {
	dir := vendor(t)
	old := runGit(t, dir, "rev-parse", "1.0.0^{commit}")
	middle := runGit(t, dir, "commit-tree", "-m", "nobody points here", "-p", old, "HEAD^{tree}")
	runGit(t, dir, "branch", "side", runGit(t, dir, "commit-tree", "-m", "tip", "-p", middle, "HEAD^{tree}"))
	for name, cfg := range places(t, dir) {
		if name == "objects borrowed" || name == "linked work tree" {
			continue // branches have other names in the one, HEAD is detached in the other
		}
		t.Run(name, func(t *testing.T) {
			cfg.Dir = t.TempDir()
			r := open(t, cfg)
			for rev, want := range map[string]string{"main": "v1.2.0^{commit}", "": "v1.2.0^{commit}", "1.0.0": "1.0.0^{commit}", "v1.2.0": "v1.2.0", "refs/heads/main": "main",
				old: old, middle: middle} {
				got, err := r.FetchRevision(context.Background(), rev)
				if err != nil {
					t.Fatalf("%q: %v", rev, err)
				}
				if w := runGit(t, dir, "rev-parse", want); got != w {
					t.Errorf("%q: %s, want %s", rev, got, w)
				}
				files, err := r.SnapshotCommit(got, "dist/app")
				if err != nil || len(files) != 2 {
					t.Errorf("%q: %d files, %v", rev, len(files), err)
				}
			}
			for _, rev := range []string{"nonsense", strings.Repeat("0", 39) + "1"} {
				if _, err := r.FetchRevision(context.Background(), rev); !errors.Is(err, ErrNotFound) {
					t.Errorf("%q: %v", rev, err)
				}
			}
		})
	}
}
