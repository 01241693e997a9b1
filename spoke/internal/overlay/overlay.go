// Package overlay reads a provider's customisation: a folder on this machine, or a folder of a git
// repository, of which the last good copy is kept for when the repository is away.
//
// It does not build anything, and it sends nothing anywhere: an overlay stays on its spoke.
package overlay

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/gitrepo"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
	"github.com/wheelwright-dev/wheelwright/pkg/render"
)

// An overlay is a handful of patches; more than this is a mistake, such as a path to the wrong folder.
const (
	maxBytes = 10 << 20
	maxFiles = 2000
)

// ErrUnreachable: the repository is away, and there is no earlier copy. It heals by itself.
var ErrUnreachable = errors.New("the overlay's repository is unreachable")

// Source says where an overlay is. It is an alias of a struct without a name, so that the type that
// spoke.yaml is read into fits without this package knowing it.
type Source = struct {
	Path     string        // a folder; with Git: slash path in the repository, "." for its root
	Git      string        // URL; empty: Path is a local folder
	Revision string        // branch, tag or commit; with Git only
	Interval time.Duration // not used here
	Access   gitrepo.Credential
}

// Config says what to read.
type Config struct {
	Source Source
	Dir    string // own folder for what is kept of a repository; made when needed
	Log    *slog.Logger
}

// Overlay is what was read.
type Overlay struct {
	Files    []provenance.File // sorted by path; read only
	Path     string            // the folder in Files with the kustomization to build
	Digest   fleet.Digest      // of Files and Path
	Revision string            // commit; empty for a local folder
	Stale    string            // why this is an earlier copy; empty: it is not
}

// Loader reads one overlay. Safe for concurrent use.
type Loader struct {
	cfg Config

	mu   sync.Mutex
	repo *gitrepo.Repository
	last *Overlay // the last good one from git
	away bool     // the repository was unreachable at the last look
}

// New reads nothing yet but the copy that was kept, if any.
func New(cfg Config) (*Loader, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Source.Path == "" {
		return nil, errors.New("overlay has no path")
	}
	l := &Loader{cfg: cfg}
	if cfg.Source.Git == "" {
		return l, nil
	}
	kept, err := readKept(cfg.Dir, cfg.Source)
	if err != nil { // it is a copy: the repository has the original
		cfg.Log.Warn("kept overlay is not used", slog.String(logging.Path, keptFile(cfg.Dir)), slog.Any(logging.Error, err))
	}
	l.last = kept
	return l, nil
}

// Close releases the repository.
func (l *Loader) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.repo == nil {
		return nil
	}
	err := l.repo.Close()
	l.repo = nil
	return err
}

// Load reads the overlay as it is now, or, where its repository is away, as it was last, saying so in
// Stale. ErrUnreachable: there is no last. Any other error is the provider's to mend.
func (l *Loader) Load(ctx context.Context) (Overlay, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cfg.Source.Git == "" {
		return loadLocal(l.cfg.Source.Path)
	}
	o, err := l.loadGit(ctx)
	switch {
	case err == nil:
		l.away = false
		return o, nil
	case ctx.Err() != nil:
		return Overlay{}, fmt.Errorf("read overlay: %w", ctx.Err())
	case !errors.Is(err, gitrepo.ErrUnreachable):
		return Overlay{}, fmt.Errorf("read overlay: %w", err)
	case l.last == nil:
		return Overlay{}, fmt.Errorf("read overlay: %w: %w", ErrUnreachable, err)
	}
	if !l.away {
		l.cfg.Log.Warn("overlay repository is away, the last copy is used", slog.String(logging.Revision, l.last.Revision), slog.Any(logging.Error, err))
	}
	l.away = true
	o = *l.last
	o.Stale = err.Error()
	return o, nil
}

func (l *Loader) loadGit(ctx context.Context) (Overlay, error) {
	if l.repo == nil {
		repo, err := gitrepo.Open(ctx, gitrepo.Config{URL: l.cfg.Source.Git, Dir: filepath.Join(l.cfg.Dir, "git"), MaxContent: maxBytes, Log: l.cfg.Log}.With(l.cfg.Source.Access))
		if err != nil {
			return Overlay{}, err
		}
		l.repo = repo
	}
	commit, err := l.repo.FetchRevision(ctx, l.cfg.Source.Revision)
	if err != nil {
		return Overlay{}, err
	}
	if l.last != nil && l.last.Revision == commit {
		return *l.last, nil
	}
	o, err := gather(path.Clean(l.cfg.Source.Path), func(folder string) ([]provenance.File, error) {
		files, err := l.repo.SnapshotCommit(commit, folder)
		if errors.Is(err, gitrepo.ErrNotFound) {
			return nil, fmt.Errorf("%w: %w", errAbsent, err)
		}
		return files, err
	})
	if err != nil {
		return Overlay{}, err
	}
	o.Revision = commit
	l.last = &o
	if err := keep(l.cfg.Dir, l.cfg.Source, o); err != nil {
		l.cfg.Log.Error("overlay cannot be kept: it is lost when this process ends while the repository is away",
			slog.String(logging.Path, keptFile(l.cfg.Dir)), slog.Any(logging.Error, err))
	}
	return o, nil
}

var errAbsent = errors.New("no such folder")

// gather reads the overlay's folder, and then every folder outside that its kustomizations name, such as
// what environments have in common. Files are named from the folder that holds all of these.
func gather(root string, read func(folder string) ([]provenance.File, error)) (Overlay, error) {
	var files []provenance.File
	folders := []string{}
	total := 0
	add := func(folder string) error {
		more, err := read(folder)
		if err != nil {
			return err
		}
		for _, f := range more {
			f.Path = path.Join(folder, f.Path)
			if slices.ContainsFunc(folders, func(have string) bool { return within(have, f.Path) }) {
				continue
			}
			files, total = append(files, f), total+len(f.Data)
		}
		folders = append(folders, folder)
		return limits(root, len(files), total)
	}
	if err := add(root); err != nil {
		return Overlay{}, err
	}
	for grown := true; grown; {
		grown = false
		for _, missing := range render.Missing(files, root) {
			if missing == "" || slices.Contains(folders, missing) {
				continue
			}
			switch err := add(missing); {
			case errors.Is(err, errAbsent): // rendering says who names it
			case err != nil:
				return Overlay{}, err
			default:
				grown = true
			}
		}
	}
	return seal(files, folders), nil
}

func limits(root string, files, bytes int) error {
	if files > maxFiles || bytes > maxBytes {
		return fmt.Errorf("overlay %s holds more than %d files or %d MiB; it should be the folder with the kustomization and what that needs, set overlay.path in spoke.yaml",
			root, maxFiles, maxBytes>>20)
	}
	return nil
}

func within(folder, p string) bool {
	return folder == "." || p == folder || strings.HasPrefix(p, strings.TrimSuffix(folder, "/")+"/")
}

// seal names files from the innermost folder that holds all, sorts and digests them.
func seal(files []provenance.File, folders []string) Overlay {
	common := folders[0]
	for slices.ContainsFunc(folders, func(f string) bool { return !within(common, f) }) {
		common = path.Dir(common)
	}
	relative := func(p string) string {
		if common == "." {
			return p
		}
		return path.Clean(strings.TrimPrefix(strings.TrimPrefix(p, common), "/")) // "." for common itself
	}
	for i := range files {
		files[i].Path = relative(files[i].Path)
	}
	slices.SortFunc(files, func(a, b provenance.File) int { return strings.Compare(a.Path, b.Path) })
	o := Overlay{Files: files, Path: relative(folders[0])}
	o.Digest = digest(o)
	return o
}

func digest(o Overlay) fleet.Digest {
	h := sha256.New()
	fmt.Fprintf(h, "wheelwright overlay 1\n%q\n", o.Path)
	for _, f := range o.Files {
		fmt.Fprintf(h, "%q %t %d\n", f.Path, f.Executable, len(f.Data))
		h.Write(f.Data)
	}
	return fleet.Digest(fmt.Sprintf("sha256:%x", h.Sum(nil)))
}
