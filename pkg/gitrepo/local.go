package gitrepo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/go-git/go-billy/v5"
	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/go-git/go-git/v5/storage/filesystem"
	"github.com/go-git/go-git/v5/storage/filesystem/dotgit"
)

// localPath tells whether a URL names a repository on this machine, and where.
func localPath(raw string) (string, bool, error) {
	ep, err := transport.NewEndpoint(raw)
	if err != nil {
		return "", false, fmt.Errorf("read repository URL: %w", err)
	}
	switch ep.Protocol {
	case "https", "http", "ssh":
		return "", false, nil
	case "file":
		path, err := filepath.Abs(ep.Path)
		return path, true, err
	}
	return "", false, fmt.Errorf("%w: repository URL of scheme %q; use https://, ssh://, user@host:path, file:// or a path", ErrUnsupported, ep.Protocol)
}

// Host is whom reading a repository connects to, HOST or HOST:PORT; empty: nobody, for it is on this machine, or the
// URL is none.
func Host(raw string) string {
	ep, err := transport.NewEndpoint(raw)
	if err != nil || ep.Protocol == "file" {
		return ""
	}
	if ep.Port == 0 {
		return strings.ToLower(ep.Host)
	}
	return strings.ToLower(net.JoinHostPort(ep.Host, strconv.Itoa(ep.Port)))
}

// local is a repository on this machine, opened in place and never written to.
type local struct {
	path     string
	tracking *filesystem.Storage // for its refs
	store    *objects
}

func openLocal(path string, cfg Config) (*local, error) {
	l := &local{path: path}
	own, shared, err := l.folders()
	if err != nil {
		return nil, err
	}
	var at billy.Filesystem = osfs.New(own)
	if shared != own {
		at = dotgit.NewRepositoryFilesystem(at, osfs.New(shared))
	}
	if l.tracking, err = openStorage(at); err != nil {
		return nil, err
	}
	l.store, err = newObjects(cfg, func() (string, error) {
		_, shared, err := l.folders()
		return filepath.Join(shared, "objects"), err
	})
	if err != nil {
		return nil, errors.Join(err, l.tracking.Close())
	}
	return l, nil
}

// folders finds the git folder: the path itself where it is bare, its .git, or where its .git file says (linked work
// trees, submodules); and the one that it shares objects and branches with, most often the same.
func (l *local) folders() (own, shared string, err error) {
	if info, err := os.Stat(l.path); err != nil {
		return "", "", unreachable(err)
	} else if !info.IsDir() {
		return "", "", fmt.Errorf("%w: %s is no folder", ErrUnreachable, l.path)
	}
	dir := filepath.Join(l.path, ".git")
	switch info, err := os.Stat(dir); {
	case errors.Is(err, os.ErrNotExist):
		dir = l.path
	case err != nil:
		return "", "", unreachable(err)
	case !info.IsDir():
		content, err := os.ReadFile(dir)
		if err != nil {
			return "", "", unreachable(err)
		}
		dir = resolve(l.path, strings.TrimPrefix(strings.TrimSpace(string(content)), "gitdir: "))
	}
	if _, err := os.Stat(filepath.Join(dir, "HEAD")); err != nil {
		return "", "", fmt.Errorf("%w: %s holds no git repository", ErrUnreachable, l.path)
	}
	common, err := os.ReadFile(filepath.Join(dir, "commondir"))
	if err != nil {
		return dir, dir, nil
	}
	return dir, resolve(dir, strings.TrimSpace(string(common))), nil
}

func resolve(base, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(base, path)
}

// openStorage is for refs, and to learn whether a repository is of a form that is known; objects reads objects.
func openStorage(fs billy.Filesystem) (*filesystem.Storage, error) {
	s := filesystem.NewStorage(fs, cache.NewObjectLRU(0))
	if _, err := git.Open(s, nil); err != nil { // looks at the format's version and extensions
		_ = s.Close()
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return s, nil
}

func (l *local) refs(context.Context) (map[string]plumbing.Hash, error) {
	if _, err := os.Stat(l.path); err != nil {
		return nil, unreachable(err)
	}
	return readRefs(l.tracking)
}

func readRefs(s *filesystem.Storage) (map[string]plumbing.Hash, error) {
	iter, err := s.IterReferences()
	if err != nil {
		return nil, unreachable(err)
	}
	defer iter.Close()
	refs, head := map[string]plumbing.Hash{}, ""
	err = iter.ForEach(func(ref *plumbing.Reference) error {
		if ref.Type() == plumbing.HashReference {
			refs[ref.Name().String()] = ref.Hash()
		} else if ref.Name() == plumbing.HEAD {
			head = ref.Target().String()
		}
		return nil
	})
	if err != nil {
		return nil, unreachable(err)
	}
	if hash, ok := refs[head]; ok {
		refs["HEAD"] = hash
	}
	if len(refs) == 0 {
		return nil, ErrEmpty
	}
	return refs, nil
}

// fetch has nothing to carry.
func (l *local) fetch(_ context.Context, want []plumbing.Hash, _ bool) error {
	for _, h := range want {
		if !l.store.has(h) {
			return fmt.Errorf("object %s: %w", h, ErrNotFound)
		}
	}
	return nil
}

func (l *local) objects() *objects { return l.store }

func (l *local) close() error { return errors.Join(l.store.close(), l.tracking.Close()) }
