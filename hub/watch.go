package hub

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/conductor"
	"github.com/wheelwright-dev/wheelwright/hub/internal/publish"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/hub/internal/tagwatch"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/gitrepo"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
)

// newObjectCache bounds what is held of all repositories' last releases, so that the next ones read only what changed.
func newObjectCache() *gitrepo.Cache { return gitrepo.NewCache(32 << 20) }

// turns are what all watchers share.
type turns struct{ connections, judging *tagwatch.Turns }

// newTurns: connections to git hosts, few to each, of which the slowest is given up after two minutes where others
// wait; and releases that are being judged, which may hold a few hundred megabytes each.
func newTurns() turns {
	return turns{connections: tagwatch.NewTurns(16, 4, 2*time.Minute), judging: tagwatch.NewTurns(2, 0, 0)}
}

// source is what turns a repository's tags into releases.
type source struct {
	dir       string // of the repositories that are kept here
	store     *store.Store
	conductor *conductor.Conductor
	publisher *publish.Publisher
	git       gitrepo.Credentials
	cache     *gitrepo.Cache // of all repositories
	turns     turns
	log       *slog.Logger
}

// folder is a distribution's. The repository's URL is part of the name, so that a distribution that was
// removed and added with another URL never meets the objects of the first.
func (s source) folder(d fleet.Distribution) string {
	sum := sha256.Sum256([]byte(d.URL))
	return filepath.Join(s.dir, d.Name+"-"+hex.EncodeToString(sum[:4]))
}

// watch follows one repository until ctx ends.
func (s source) watch(ctx context.Context, d fleet.Distribution) error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("make folder of repositories: %w", err)
	}
	w := tagwatch.New(tagwatch.Config{
		Distribution: d, Dir: s.folder(d), Connections: s.turns.connections, Judging: s.turns.judging, Git: gitrepo.Config{Cache: s.cache}.With(s.git.For(d.URL)),
		Known:   func() (map[string]string, error) { return s.store.JudgedTags(d.Name) },
		Publish: func(ctx context.Context, seen tagwatch.Seen) error { return s.conductor.Seen(ctx, d, s.tag(d, seen)) },
		Note:    func(n tagwatch.Note) { s.conductor.Note(d.Name, note(n)) },
		Log:     s.log.With(slog.String(logging.Distribution, d.Name)),
	})
	return w.Run(ctx)
}

// forget clears up after a distribution that is not watched any more.
func (s source) forget(d fleet.Distribution) {
	s.conductor.Forget(d.Name)
	if err := os.RemoveAll(s.folder(d)); err != nil {
		s.log.Warn("repository of a removed distribution is left", slog.String(logging.Path, s.folder(d)), slog.Any(logging.Error, err))
	}
}

// listTags reads a repository once, keeping nothing.
func (s source) listTags(ctx context.Context, d fleet.Distribution) ([]string, error) {
	dir, err := os.MkdirTemp("", "wheelwright-probe-")
	if err != nil {
		return nil, fmt.Errorf("make a folder to read the repository in: %w", err)
	}
	defer os.RemoveAll(dir)
	r, err := gitrepo.Open(ctx, gitrepo.Config{URL: d.URL, Dir: dir, Log: s.log}.With(s.git.For(d.URL)))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	refs, err := r.Tags(ctx)
	if err != nil {
		return nil, err
	}
	tags := make([]string, 0, len(refs))
	for _, ref := range refs {
		tags = append(tags, ref.Name)
	}
	return tags, nil
}

// tag is how the conductor has a tag judged that was seen.
func (s source) tag(d fleet.Distribution, seen tagwatch.Seen) conductor.Tag {
	return conductor.Tag{Name: seen.Tag, Hash: seen.Hash, Judge: func(ctx context.Context) (fleet.Release, []byte, error) {
		return s.publisher.Build(ctx, d, publish.Seen(seen))
	}}
}

// note translates what a watcher noticed.
func note(n tagwatch.Note) conductor.Note {
	out := conductor.Note{Tag: n.Tag, Text: n.Message}
	switch n.Kind {
	case tagwatch.PollOK:
		out.Kind = conductor.NotePolled
	case tagwatch.PollFailed:
		out.Kind = conductor.NotePollFailed
	case tagwatch.Ignored:
		out.Kind = conductor.NoteIgnored
	case tagwatch.Moved:
		out.Kind = conductor.NoteMoved
	case tagwatch.Deleted:
		out.Kind = conductor.NoteDeleted
	case tagwatch.Delayed:
		out.Kind = conductor.NoteDelayed
	case tagwatch.Settled:
		out.Kind = conductor.NoteSettled
	}
	return out
}
