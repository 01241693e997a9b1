package tagwatch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/gitrepo"
)

func git(t testing.TB, dir string, args ...string) string {
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
	return strings.TrimSpace(string(out))
}

func vendor(t testing.TB, tags ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "vendor")
	if err := os.MkdirAll(filepath.Join(dir, "dist"), 0o755); err != nil {
		t.Fatal(err)
	}
	git(t, dir, "init", "-q", "-b", "main")
	release(t, dir, tags...)
	return dir
}

func release(t testing.TB, dir string, tags ...string) {
	t.Helper()
	for _, tag := range tags {
		if err := os.WriteFile(filepath.Join(dir, "dist/kustomization.yaml"), []byte("# "+tag+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		git(t, dir, "add", "-A")
		git(t, dir, "commit", "-q", "--allow-empty", "-m", tag)
		git(t, dir, "tag", "-f", "-a", "-m", tag, tag)
	}
}

// watch is a watcher with what its owner remembers.
type watch struct {
	*Watcher
	mu      sync.Mutex // the story changes what the watcher reads
	judged  map[string]string
	seen    []Seen
	notes   []Note
	publish func(Seen) error // may be nil
}

func newWatch(t testing.TB, d fleet.Distribution, dir string) *watch {
	t.Helper()
	h := &watch{judged: map[string]string{}}
	if d.Path == "" {
		d.Path = "dist"
	}
	d.Name = "shop"
	h.Watcher = New(Config{Distribution: d, Dir: dir,
		Known: func() (map[string]string, error) {
			h.mu.Lock()
			defer h.mu.Unlock()
			return maps.Clone(h.judged), nil
		},
		Publish: func(_ context.Context, s Seen) error {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.seen = append(h.seen, s)
			if h.publish != nil {
				if err := h.publish(s); err != nil {
					return err
				}
			}
			h.judged[s.Tag] = s.Hash
			return nil
		},
		Note: func(n Note) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.notes = append(h.notes, n)
		},
	})
	return h
}

// forget starts the lists of what came anew.
func (h *watch) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen, h.notes = nil, nil
}

// run runs the watcher in a synctest bubble and stops it when story returns.
func (h *watch) run(t *testing.T, story func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	synctest.Wait()
	story()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("run: %v", err)
	}
}

// next lets d pass, and whatever is due in it happen.
func next(d time.Duration) {
	time.Sleep(d) // of the bubble's clock
	synctest.Wait()
}

func (h *watch) tags() (tags []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.seen {
		tags = append(tags, s.Tag)
	}
	return tags
}

// told lists the notes of kinds, but for those of polls that went well.
func (h *watch) told() (told []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range h.notes {
		if n.Kind != PollOK {
			told = append(told, strings.TrimSpace(fmt.Sprintf("%s %s", n.Kind, n.Tag)))
		}
	}
	return told
}

func expect(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func TestTagsComeOnceInOrder(t *testing.T) {
	dir := vendor(t, "1.10.0", "1.9.0", "v1.9.1", "2.0.0-rc.1", "2.0.0", "nightly", "0.9.0", "1.0")
	synctest.Test(t, func(t *testing.T) {
		h := newWatch(t, fleet.Distribution{URL: dir, Tags: ">=1.0.0"}, t.TempDir())
		h.run(t, func() {
			expect(t, "first poll, at once", h.tags(), "1.9.0", "v1.9.1", "1.10.0", "2.0.0-rc.1", "2.0.0")
			expect(t, "notes", h.told(), "Ignored 0.9.0", "Ignored 1.0", "Ignored nightly")
			for _, s := range h.seen {
				if s.Err != nil || s.Hash != git(t, dir, "rev-parse", s.Tag) || string(s.Snapshot.Files[0].Data) != "# "+s.Tag+"\n" {
					t.Errorf("%s: %+v", s.Tag, s)
				}
				if _, err := s.Snapshot.Proof.Check(s.Snapshot.Files); err != nil {
					t.Error(err)
				}
			}
			h.forget()
			next(5 * time.Minute)
			expect(t, "nothing new", h.tags())
			expect(t, "nothing new", h.told())
			if n := len(h.notes); n < 9 || n > 11 {
				t.Errorf("%d polls in five minutes, want about ten", n)
			}
			release(t, dir, "2.0.1", "nightly-2")
			next(time.Minute)
			expect(t, "new", h.tags(), "2.0.1")
			expect(t, "new", h.told(), "Ignored nightly-2")
		})
	})
}

func TestPokePollsNow(t *testing.T) {
	dir := vendor(t, "1.0.0")
	synctest.Test(t, func(t *testing.T) {
		h := newWatch(t, fleet.Distribution{URL: dir, Interval: time.Hour}, t.TempDir())
		h.run(t, func() {
			release(t, dir, "1.0.1")
			h.Poke()
			h.Poke()
			synctest.Wait()
			expect(t, "after a poke", h.tags(), "1.0.0", "1.0.1")
		})
	})
}

// Law 5: what a tag held first stays.
func TestLaw5MovedAndDeletedTagsAreNotedOnce(t *testing.T) {
	dir, state := vendor(t, "1.0.0", "1.1.0"), t.TempDir()
	var judged map[string]string
	synctest.Test(t, func(t *testing.T) {
		h := newWatch(t, fleet.Distribution{URL: dir}, state)
		h.run(t, func() {
			first := git(t, dir, "rev-parse", "1.0.0")
			h.forget()
			release(t, dir, "1.0.0")
			git(t, dir, "tag", "-d", "1.1.0")
			next(10 * time.Minute)
			expect(t, "notes", h.told(), "Moved 1.0.0", "Deleted 1.1.0")
			expect(t, "nothing is published", h.tags())
			for _, n := range h.notes {
				if n.Kind == Moved && (n.Was != first || n.Hash != git(t, dir, "rev-parse", "1.0.0") || !strings.Contains(n.Message, first[:12])) {
					t.Errorf("%+v", n)
				}
			}
			h.forget()
			release(t, dir, "1.0.0") // moved again
			next(time.Minute)
			expect(t, "moved again", h.told(), "Moved 1.0.0")
			git(t, dir, "tag", "-f", "1.0.0", first)
			next(time.Minute)
			release(t, dir, "1.0.0")
			next(time.Minute)
			expect(t, "moved back, and away again", h.told(), "Moved 1.0.0", "Settled 1.0.0", "Moved 1.0.0")
			judged = h.judged
		})
	})
	synctest.Test(t, func(t *testing.T) {
		h := newWatch(t, fleet.Distribution{URL: dir}, state)
		h.judged = judged
		h.run(t, func() {
			expect(t, "told again after a restart", h.told(), "Moved 1.0.0", "Deleted 1.1.0")
			expect(t, "nothing is published", h.tags())
		})
	})
}

func TestARepositoryThatGoesAwayIsTriedAgain(t *testing.T) {
	dir := vendor(t, "1.0.0")
	synctest.Test(t, func(t *testing.T) {
		h := newWatch(t, fleet.Distribution{URL: dir, Interval: 10 * time.Second}, t.TempDir())
		h.run(t, func() {
			if err := os.Rename(dir, dir+"-away"); err != nil {
				t.Fatal(err)
			}
			h.forget()
			next(time.Hour)
			for i, n := range h.notes {
				if n.Kind != PollFailed || !strings.Contains(n.Message, "git ls-remote "+dir) || n.Changed != (i == 0) {
					t.Fatalf("note %d: %+v", i, n)
				}
			}
			if n := len(h.notes); n < 15 || n > 30 {
				t.Errorf("%d polls in an hour, want them ever slower, down to one in five minutes", n)
			}
			if err := os.Rename(dir+"-away", dir); err != nil {
				t.Fatal(err)
			}
			release(t, dir, "1.0.1")
			next(6 * time.Minute)
			expect(t, "after it is back", h.tags(), "1.0.1")
			if last := h.notes[len(h.notes)-1]; last.Kind != PollOK {
				t.Errorf("%+v", last)
			}
		})
	})
}

func TestPollFailures(t *testing.T) {
	empty := t.TempDir()
	git(t, empty, "init", "-q")
	for name, c := range map[string]struct{ url, want string }{
		"empty": {empty, "is empty"}, "nothing there": {"/nonexistent", "no such file"}, "a scheme": {"gopher://example.com/x", "scheme"},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := newWatch(t, fleet.Distribution{URL: c.url}, t.TempDir())
			h.run(t, func() {
				if len(h.notes) != 1 || h.notes[0].Kind != PollFailed || !strings.Contains(h.notes[0].Message, c.want) || !h.notes[0].Changed {
					t.Errorf("%s: %+v", name, h.notes)
				}
			})
		})
	}
	h := newWatch(t, fleet.Distribution{Tags: "one to two"}, t.TempDir())
	if err := h.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "shop") {
		t.Errorf("a range that is none: %v", err)
	}
}

func TestPublishErrorIsTriedAgainAndHoldsUpNothing(t *testing.T) {
	dir := vendor(t, "1.0.0", "1.1.0")
	synctest.Test(t, func(t *testing.T) {
		h := newWatch(t, fleet.Distribution{URL: dir, Interval: 24 * time.Hour}, t.TempDir())
		var broken atomic.Bool
		broken.Store(true)
		h.publish = func(s Seen) error {
			if broken.Load() && s.Tag == "1.0.0" {
				return errors.New("disk full")
			}
			return nil
		}
		h.run(t, func() {
			expect(t, "first", h.tags(), "1.0.0", "1.1.0")
			expect(t, "told", h.told(), "Delayed 1.0.0")
			next(6 * time.Minute) // a day's interval is no reason to wait a day
			expect(t, "told once", h.told(), "Delayed 1.0.0")
			broken.Store(false)
			next(6 * time.Minute)
			expect(t, "then", h.tags(), "1.0.0", "1.1.0", "1.0.0", "1.0.0")
			expect(t, "taken back", h.told(), "Delayed 1.0.0", "Settled 1.0.0")
		})
	})
}

func TestWhatCannotBeReadIsHandedOverForRejection(t *testing.T) {
	dir := vendor(t, "1.0.0")
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "dist/link")); err != nil {
		t.Fatal(err)
	}
	release(t, dir, "1.1.0")
	git(t, dir, "rm", "-q", "dist/link")
	git(t, dir, "mv", "dist", "other")
	git(t, dir, "commit", "-q", "-m", "moved")
	git(t, dir, "tag", "1.2.0")
	synctest.Test(t, func(t *testing.T) {
		h := newWatch(t, fleet.Distribution{URL: dir}, t.TempDir())
		h.run(t, func() {
			expect(t, "tags", h.tags(), "1.0.0", "1.1.0", "1.2.0")
			for i, want := range []error{nil, gitrepo.ErrUnsupported, gitrepo.ErrNotFound} {
				if s := h.seen[i]; !errors.Is(s.Err, want) || s.Hash != git(t, dir, "rev-parse", s.Tag) {
					t.Errorf("%+v", s)
				}
			}
			next(5 * time.Minute)
			if len(h.seen) != 3 {
				t.Errorf("rejected ones come again: %q", h.tags())
			}
		})
	})
}
