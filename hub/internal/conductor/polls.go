package conductor

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
)

// NoteKind says what a watcher noticed.
type NoteKind int

const (
	NotePolled     NoteKind = iota // the repository was read
	NotePollFailed                 // it could not be; Text has the cause
	NoteIgnored                    // a tag is no release; Text says why
	NoteMoved                      // a judged tag points at something else now
	NoteDeleted                    // a judged tag is gone
	NoteDelayed                    // a tag could not be judged for trouble of the hub's own; Text has the cause
	NoteSettled                    // what was noted of a tag is over
)

// Note is something about a distribution's repository that is no release.
type Note struct {
	Kind NoteKind
	Tag  string
	Text string // for a person; names the tag
}

// maxNotes of one distribution are shown.
const maxNotes = 100

// poll is what is known of a distribution's repository since the hub started.
type poll struct {
	at      time.Time        // the last that reached the repository
	failure string           // of the last; empty when it reached it
	notes   map[string]Note  // by tag
	alarms  map[string]alarm // the last of each tag in the history; nil: not read yet
}

// alarm is what an event said of a tag that was moved or deleted.
type alarm struct {
	kind fleet.EventKind
	text string
}

// reading: new tags of the distribution are being judged, and more may follow.
func (c *Conductor) reading(distribution string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reads[distribution]
}

// Note takes what a watcher noticed; NotePolled and NotePollFailed say too that no more tags come for now,
// so that the rollouts of those that came can begin. A moved or deleted tag raises one event, over restarts too, and
// changes nothing that was published.
func (c *Conductor) Note(distribution string, n Note) {
	log := c.cfg.Log.With(slog.String(logging.Distribution, distribution))
	c.mu.Lock()
	p := c.pollLocked(distribution)
	changed, before := false, p.failure
	if (n.Kind == NotePolled || n.Kind == NotePollFailed) && c.reads[distribution] {
		delete(c.reads, distribution)
		c.poke()
	}
	switch n.Kind {
	case NotePolled:
		changed = before != "" || p.at.IsZero()
		p.at, p.failure = time.Now(), ""
	case NotePollFailed:
		p.failure = n.Text
		changed = before != n.Text
	case NoteSettled:
		_, changed = p.notes[n.Tag]
		delete(p.notes, n.Tag)
	default:
		changed = p.notes[n.Tag] != n
		p.notes[n.Tag] = n
	}
	c.mu.Unlock()
	if !changed {
		return
	}
	switch n.Kind {
	case NotePolled:
		if before != "" {
			log.Info("repository can be read again")
		}
	case NotePollFailed:
		log.Warn("repository cannot be read", slog.String(logging.Error, n.Text))
	case NoteMoved, NoteDeleted:
		if err := c.raise(distribution, n); err != nil {
			log.Error("alarm about a tag not recorded", slog.String(logging.Version, n.Tag), slog.Any(logging.Error, err))
		}
	}
	c.cfg.Spokes.Changed()
}

func (c *Conductor) pollLocked(distribution string) *poll {
	p, ok := c.polls[distribution]
	if !ok {
		p = &poll{notes: map[string]Note{}}
		c.polls[distribution] = p
	}
	return p
}

// raise records a moved or deleted tag unless the history's last word on it is the same.
func (c *Conductor) raise(distribution string, n Note) error {
	a := alarm{fleet.EventTagMoved, n.Text}
	if n.Kind == NoteDeleted {
		a.kind = fleet.EventTagDeleted
	}
	alarms, err := c.alarms(distribution)
	if err != nil || alarms[n.Tag] == a {
		return err
	}
	c.cfg.Log.Error("a published tag changed", slog.String(logging.Distribution, distribution), slog.String(logging.Version, n.Tag), slog.String(logging.Reason, n.Text))
	if err := c.record(fleet.Event{At: time.Now(), Distribution: distribution, Version: n.Tag, Kind: a.kind, Message: a.text}); err != nil {
		return err
	}
	alarms[n.Tag] = a
	return nil
}

// alarms reads the history once for all tags of a distribution: a repository that was replaced raises one
// for each of them. The map is that of the distribution's only watcher, whose notes come one at a time.
func (c *Conductor) alarms(distribution string) (map[string]alarm, error) {
	c.mu.Lock()
	known := c.pollLocked(distribution).alarms
	c.mu.Unlock()
	if known != nil {
		return known, nil
	}
	history, err := c.cfg.Store.Events(store.EventFilter{Distribution: distribution})
	if err != nil {
		return nil, fmt.Errorf("read events of %s: %w", distribution, err)
	}
	known = map[string]alarm{}
	for _, h := range history {
		if h.Kind == fleet.EventTagMoved || h.Kind == fleet.EventTagDeleted {
			known[h.Version] = alarm{h.Kind, h.Message}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pollLocked(distribution).alarms = known
	return known, nil
}

// Poll is what the watcher of a distribution reported: when it last reached the repository, why it
// does not now, and one line for each tag that is no release, was moved or is gone.
func (c *Conductor) Poll(distribution string) (last time.Time, failure string, notes []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, ok := c.polls[distribution]
	if !ok {
		return time.Time{}, "", nil
	}
	for _, tag := range slices.SortedFunc(maps.Keys(p.notes), fleet.CompareTags) {
		if len(notes) == maxNotes {
			notes = append(notes, fmt.Sprintf("and %d more", len(p.notes)-maxNotes))
			break
		}
		notes = append(notes, p.notes[tag].Text)
	}
	return p.at, p.failure, notes
}

// trouble is why new tags of the distribution do not become releases now; empty when they do.
func (c *Conductor) trouble(distribution string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, ok := c.polls[distribution]
	switch {
	case !ok:
		return ""
	case p.failure != "":
		return p.failure
	}
	var waiting []string
	for _, tag := range slices.SortedFunc(maps.Keys(p.notes), fleet.CompareTags) {
		if n := p.notes[tag]; n.Kind == NoteDelayed {
			waiting = append(waiting, n.Text)
		}
	}
	return firstOf(waiting)
}

// Forget drops what is known of a distribution's repository: it is not watched any more.
func (c *Conductor) Forget(distribution string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.polls, distribution)
	delete(c.reads, distribution)
}
