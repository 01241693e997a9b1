// Package tagwatch watches one distribution's repository for release tags.
//
// It polls, fetches only tags that were not judged yet, in ascending order of version, and hands over
// what they hold. What a tag held first stays: a moved or deleted tag is noted and nothing else. It does
// not judge releases and remembers nothing: what was judged it is told, and after a restart notes are
// told again.
package tagwatch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/gitrepo"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
)

const (
	defaultInterval = 30 * time.Second
	firstRetry      = time.Second
	slowestRetry    = 5 * time.Minute
	listTimeout     = 2 * time.Minute  // of the list of tags
	fetchTimeout    = 15 * time.Minute // of one tag
	judgeTimeout    = 15 * time.Minute // of one tag
)

// Config says what to watch and whom to tell. The functions are called from Run, one at a time.
type Config struct {
	Distribution fleet.Distribution
	Dir          string         // the watcher's own
	Git          gitrepo.Config // credentials and limits; URL, Dir and Log are the watcher's
	// Known maps the tags that were judged to the hash that each had then.
	Known func() (map[string]string, error)
	// Publish judges a tag. An error is trouble of the caller's: the tag comes again with the next poll.
	Publish  func(context.Context, Seen) error
	Note     func(Note)
	Interval time.Duration // between polls; 0: the distribution's, or 30 s
	// Connections and Judging are shared by all watchers: what each connects for, and what holds a release in memory. nil: its own.
	Connections, Judging *Turns
	Log                  *slog.Logger
}

// Seen is a new release tag.
type Seen struct {
	Tag      string
	Hash     string // hexadecimal id of the tag object, of the commit where the tag is lightweight
	Snapshot gitrepo.Snapshot
	Err      error // there is no snapshot, and never will be: the release is to be rejected with this reason
}

// Kind says what was noticed.
type Kind string

const (
	Ignored    Kind = "Ignored"    // no semantic version, or out of the distribution's range; once in a Run
	Moved      Kind = "Moved"      // a judged tag has another hash now; once in a Run
	Deleted    Kind = "Deleted"    // a judged tag is gone; once in a Run
	Delayed    Kind = "Delayed"    // a tag could not be judged for trouble of the hub's own; when it begins or changes
	Settled    Kind = "Settled"    // what was noted of a tag is over
	PollFailed Kind = "PollFailed" // the repository could not be read; each time
	PollOK     Kind = "PollOK"     // the tags were read; each time
)

// Note is something to tell a person, or of a poll's outcome.
type Note struct {
	Kind    Kind
	At      time.Time
	Tag     string
	Was     string // Moved, Deleted: the hash that was judged
	Hash    string // Moved: the hash now
	Message string // for a person; empty for PollOK and Settled
	Changed bool   // PollOK, PollFailed: the poll before ended the other way, or there was none
}

// Watcher watches one distribution.
type Watcher struct {
	cfg      Config
	versions fleet.Range
	poke     chan struct{}
	host     string
	repo     *gitrepo.Repository // nil until opened, and after trouble
	noted    noted
	failures int
	delayed  bool // a tag of the last poll could not be judged
	polled   bool
}

// New touches neither disk nor network.
func New(cfg Config) *Watcher {
	cfg.Interval = cmp.Or(cfg.Interval, cfg.Distribution.Interval, defaultInterval)
	cfg.Log = cmp.Or(cfg.Log, slog.New(slog.DiscardHandler))
	cfg.Connections = cmp.Or(cfg.Connections, NewTurns(1, 1, 0))
	cfg.Judging = cmp.Or(cfg.Judging, NewTurns(1, 1, 0))
	cfg.Git.URL, cfg.Git.Dir, cfg.Git.Log = cfg.Distribution.URL, filepath.Join(cfg.Dir, "repository.git"), cfg.Log
	return &Watcher{cfg: cfg, host: gitrepo.Host(cfg.Git.URL), noted: noted{}, poke: make(chan struct{}, 1)}
}

// Poke asks for a poll now; it does not wait.
func (w *Watcher) Poke() {
	select {
	case w.poke <- struct{}{}:
	default: // one is asked for already
	}
}

// Run polls at once and then in intervals, until ctx is done. A repository that cannot be read does not
// end it; a tag range that is none does, before the first poll.
func (w *Watcher) Run(ctx context.Context) error {
	versions, err := fleet.ParseRange(w.cfg.Distribution.Tags)
	if err != nil {
		return fmt.Errorf("watch distribution %s: %w", w.cfg.Distribution.Name, err)
	}
	w.versions = versions
	defer w.closeRepository()
	for {
		err := w.poll(ctx)
		if ctx.Err() != nil {
			return nil
		}
		w.report(err)
		timer := time.NewTimer(w.pause())
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-w.poke:
			timer.Stop()
		case <-timer.C:
		}
	}
}

func (w *Watcher) report(err error) {
	if err == nil {
		w.note(Note{Kind: PollOK, Changed: !w.polled || w.failures > 0})
		w.failures, w.polled = 0, true
		return
	}
	w.closeRepository() // the next poll opens it anew: it may be another by then
	w.note(Note{Kind: PollFailed, Message: err.Error() + advice(err), Changed: w.failures == 0})
	w.failures, w.polled = w.failures+1, true
}

// pause is the interval, or less after a failure or while a tag waits to be judged; a tenth more or less, so that many watchers spread.
func (w *Watcher) pause() time.Duration {
	d := w.cfg.Interval
	if w.delayed {
		d = min(d, slowestRetry)
	}
	if w.failures > 0 {
		backoff := firstRetry << min(w.failures-1, 16)
		d = min(backoff, max(d, slowestRetry))
	}
	return d - d/10 + rand.N(d/5+1)
}

func (w *Watcher) note(n Note) {
	n.At = time.Now()
	w.cfg.Note(n)
}

func (w *Watcher) closeRepository() {
	if w.repo == nil {
		return
	}
	if err := w.repo.Close(); err != nil {
		w.cfg.Log.Warn("closing the repository", logging.Error, err)
	}
	w.repo = nil
}

// poll returns an error where the repository cannot be read; what is wrong with one tag is no such error.
func (w *Watcher) poll(ctx context.Context) error {
	if w.repo == nil {
		repo, err := gitrepo.Open(ctx, w.cfg.Git)
		if err != nil {
			return err
		}
		w.repo = repo
	}
	var refs []gitrepo.Ref
	err := w.connected(ctx, listTimeout, func(ctx context.Context) (err error) {
		refs, err = w.repo.Tags(ctx)
		return err
	})
	if err != nil {
		return err
	}
	known, err := w.cfg.Known()
	if err != nil {
		return fmt.Errorf("read judged tags: %w", err)
	}
	w.compare(ctx, refs, known)
	w.delayed = false
	for _, ref := range w.fresh(refs, known) {
		if err := w.take(ctx, ref); err != nil {
			return err
		}
	}
	return nil
}

// connected does what needs the repository's host, in a turn. Who failed last is behind whoever is due until the next
// poll: trouble is not what connections are for.
func (w *Watcher) connected(ctx context.Context, limit time.Duration, do func(context.Context) error) error {
	due := time.Now()
	if w.failures > 0 {
		due = due.Add(w.cfg.Interval)
	}
	if w.host != "" {
		work, done, err := w.cfg.Connections.Take(ctx, w.host, due)
		if err != nil {
			return err
		}
		defer done()
		ctx = work
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := do(limited)
	if err != nil && errors.Is(context.Cause(ctx), ErrSlow) {
		return fmt.Errorf("%w: %w", err, ErrSlow)
	}
	return err
}

// fresh are the releases to be judged, ascending.
func (w *Watcher) fresh(refs []gitrepo.Ref, known map[string]string) []gitrepo.Ref {
	var fresh []gitrepo.Ref
	for _, ref := range refs {
		if _, judged := known[ref.Name]; !judged && w.why(ref.Name) == "" {
			fresh = append(fresh, ref)
		}
	}
	slices.SortFunc(fresh, func(a, b gitrepo.Ref) int { return fleet.CompareTags(a.Name, b.Name) })
	return fresh
}

// why a tag is no release of this distribution; empty: it is one.
func (w *Watcher) why(tag string) string {
	v, err := fleet.ParseVersion(tag)
	if err != nil {
		return err.Error()
	}
	if !w.versions.Contains(v) {
		return fmt.Sprintf("tag %q is not in range %q", tag, w.versions)
	}
	return ""
}

// final: it will be the same at every look.
func final(err error) bool {
	return errors.Is(err, gitrepo.ErrNotFound) || errors.Is(err, gitrepo.ErrTooLarge) || errors.Is(err, gitrepo.ErrUnsupported)
}

// advice is what a person can do about trouble that does not say so itself.
func advice(err error) string {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return "; free some space there: it goes on by itself"
	}
	return ""
}

func (w *Watcher) take(ctx context.Context, ref gitrepo.Ref) error {
	seen := Seen{Tag: ref.Name, Hash: ref.Hash}
	err := w.connected(ctx, fetchTimeout, func(ctx context.Context) error { return w.repo.Fetch(ctx, ref.Name) })
	switch {
	case errors.Is(err, gitrepo.ErrNotFound):
		return nil // deleted since it was listed
	case err != nil && !final(err):
		return err
	}
	ctx, done, turn := w.cfg.Judging.Take(ctx, "", time.Now())
	if turn != nil {
		return turn
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, judgeTimeout)
	defer cancel()
	if err == nil {
		seen.Snapshot, err = w.repo.Snapshot(ref.Name, w.cfg.Distribution.Path)
		if hash := cmp.Or(seen.Snapshot.TagObject, seen.Snapshot.Commit); hash != "" {
			seen.Hash = hash // the tag may have moved since it was listed: what was read counts
		}
	}
	if final(err) {
		seen.Err, err = err, nil
	}
	if err != nil {
		return err
	}
	err = w.cfg.Publish(ctx, seen)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil:
		w.settle(ref.Name)
	default:
		w.delayed = true
		w.cfg.Log.Warn("publishing a tag, to be tried again with the next poll", logging.Version, ref.Name, logging.Error, err)
		if message := fmt.Sprintf("tag %s is not judged yet, and is tried again with every poll: %v%s", ref.Name, err, advice(err)); w.noted.once(ref.Name, message) {
			w.note(Note{Kind: Delayed, Tag: ref.Name, Hash: seen.Hash, Message: message})
		}
	}
	return nil
}
