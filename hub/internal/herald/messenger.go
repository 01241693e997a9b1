package herald

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/rollout"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// Pauses between two tries of one item.
const (
	firstPause = time.Second
	mostPause  = 5 * time.Minute
)

// item is something that a notifier is to be told: a notice, or where the clusters stand.
type item struct {
	notice   *store.Notice
	standing rollout.Standing
	at       time.Time // when the clusters stood so
	tries    int
	due      time.Time
}

// messenger tells one notifier, one thing after the other.
type messenger struct {
	name string
	cfg  Config
	poke chan struct{}

	mu        sync.Mutex // of what is below; never held while somebody is told or something is stored
	told      map[store.ReleaseName]store.Told
	notices   []*item
	standings map[store.ReleaseName]*item
}

func itemsOf(notices []store.Notice) (all []*item) {
	for _, n := range notices {
		all = append(all, &item{notice: &n})
	}
	return all
}

func (m *messenger) take(notices []store.Notice) {
	if len(notices) == 0 {
		return
	}
	m.mu.Lock()
	m.notices = append(m.notices, itemsOf(notices)...)
	m.mu.Unlock()
	m.wake()
}

func (m *messenger) wake() {
	select {
	case m.poke <- struct{}{}:
	default:
	}
}

// knows: the notifier was told of the release, or is to be, and that may change.
func (m *messenger) knows(r store.ReleaseName) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, told := m.told[r]
	return told
}

// show takes where the clusters stand now: what is another than was told is to be told. What is nobody's
// concern any more is forgotten.
func (m *messenger) show(now time.Time, all []rollout.Standing) {
	for r, t := range m.showing(now, all) {
		m.store(r, t)
	}
	m.wake()
}

// showing returns what is to be stored: of a release that is new, that something is to be told; nil: that
// nothing is any more.
func (m *messenger) showing(now time.Time, all []rollout.Standing) map[store.ReleaseName]*store.Told {
	m.mu.Lock()
	defer m.mu.Unlock()
	there, changed := map[store.ReleaseName]bool{}, map[store.ReleaseName]*store.Told{}
	for _, s := range all {
		r := nameOf(s)
		last, told := m.told[r]
		if !told && s.Over || told && (settled(s, last) || last.Sum == fingerprint(s)) {
			delete(m.standings, r)
			there[r] = !s.Over
			continue
		}
		if there[r] = true; !told {
			m.told[r], changed[r] = store.Told{}, &store.Told{}
		}
		i := m.standings[r]
		if i == nil { // else the newest takes its place, and its turn
			i = &item{}
			m.standings[r] = i
		}
		i.standing, i.at = s, now
	}
	for r := range m.told {
		if !there[r] {
			changed[r] = nil
			delete(m.told, r)
			delete(m.standings, r)
		}
	}
	return changed
}

func inOrder(a, b store.ReleaseName) int {
	return cmp.Or(cmp.Compare(a.Distribution, b.Distribution), fleet.CompareTags(a.Version, b.Version))
}

func nameOf(s rollout.Standing) store.ReleaseName {
	return store.ReleaseName{Distribution: s.Distribution, Version: s.Version}
}

// settled: what was told of the release stays true, though its clusters go on to another.
func settled(s rollout.Standing, last store.Told) bool {
	return s.Over && s.Superseded && (last.State == fleet.MarkDone || last.State == fleet.MarkFailed)
}

// store remembers what was told of a release; nil: nothing any more.
func (m *messenger) store(r store.ReleaseName, t *store.Told) {
	if err := m.cfg.Store.PutTold(m.name, r, t); err != nil {
		m.cfg.Log.Error("what a notifier was told is not stored: a hub that starts anew may tell it again", slog.String(logging.Plugin, m.name), slog.Any(logging.Error, err))
	}
}

// run tells what is due until ctx ends.
func (m *messenger) run(ctx context.Context) {
	for {
		i, due := m.next(time.Now())
		if i != nil {
			m.tell(ctx, i)
			if ctx.Err() != nil {
				return
			}
			continue
		}
		var later <-chan time.Time
		if !due.IsZero() {
			later = time.After(time.Until(due))
		}
		select {
		case <-ctx.Done():
			return
		case <-later:
		case <-m.poke:
		}
	}
}

// next is what is due, notices first and in their order; else when something is.
func (m *messenger) next(now time.Time) (found *item, due time.Time) {
	for _, i := range m.outdated(now) {
		m.cfg.Log.Error("a notifier could not be told, and is not any more", slog.String(logging.Plugin, m.name), slog.String(logging.Distribution, i.notice.Distribution),
			slog.String(logging.Version, i.notice.Version), slog.String(logging.Phase, string(i.notice.Phase)), slog.Int("tries", i.tries))
		m.drop(i)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	all := slices.Clone(m.notices)
	for _, r := range slices.SortedFunc(maps.Keys(m.standings), inOrder) {
		all = append(all, m.standings[r])
	}
	for _, i := range all {
		if !i.due.After(now) {
			return i, due
		}
		if due.IsZero() || i.due.Before(due) {
			due = i.due
		}
	}
	return nil, due
}

// outdated takes out the notices that are no news any more, or too many.
func (m *messenger) outdated(now time.Time) (all []*item) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.notices) > 0 && (len(m.notices) > mostNotices || now.Sub(m.notices[0].notice.Since) > lifetime) {
		all, m.notices = append(all, m.notices[0]), m.notices[1:]
	}
	return all
}

// drop forgets a notice. One that stays on disk is told again by the next hub, with the same id.
func (m *messenger) drop(i *item) {
	if err := m.cfg.Store.DropNotice(*i.notice); err != nil {
		m.cfg.Log.Error("a notice is not forgotten", slog.String(logging.Plugin, m.name), slog.Any(logging.Error, err))
	}
}

// tell tells one item, and remembers that, or when to try again.
func (m *messenger) tell(ctx context.Context, i *item) {
	e, s := m.event(i)
	log := m.cfg.Log.With(slog.String(logging.Plugin, m.name), slog.String(logging.Distribution, e.GetDistribution()),
		slog.String(logging.Version, e.GetVersionTo()), slog.String(logging.Phase, e.GetPhase()))
	err := m.cfg.Tell(ctx, m.name, e)
	switch {
	case err != nil && ctx.Err() != nil:
	case err != nil:
		log.Warn("a notifier could not be told; it is tried again", slog.Any(logging.Error, err), slog.Duration("in", m.postpone(i)))
	case i.notice != nil:
		log.Info("a notifier was told")
		m.mu.Lock()
		m.notices = slices.DeleteFunc(m.notices, func(other *item) bool { return other == i })
		m.mu.Unlock()
		m.drop(i)
	default:
		log.Debug("a notifier was told")
		m.store(nameOf(s), m.remember(i, s))
	}
}

// postpone sets when an item is tried again: after a second, then twice as long each time up to five minutes.
func (m *messenger) postpone(i *item) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	pause := min(mostPause, firstPause<<min(i.tries, 16))
	i.tries++
	i.due = time.Now().Add(pause)
	return pause
}

// event is what an item says now.
func (m *messenger) event(i *item) (*pluginv1.Event, rollout.Standing) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if i.notice == nil {
		return standingEvent(i.at, i.standing, m.told[nameOf(i.standing)]), i.standing
	}
	repository, commit := "", "" // of what was removed since, nothing is said
	if all, err := m.cfg.Store.Distributions(); err == nil {
		for _, d := range all {
			if d.Name == i.notice.Distribution {
				repository = d.URL
			}
		}
	}
	if r, err := m.cfg.Store.Release(i.notice.Distribution, i.notice.Version); err == nil {
		commit = r.Commit
	}
	return noticeEvent(*i.notice, repository, commit), rollout.Standing{}
}

// remember takes what was told of a release, and returns what is to be known of it.
func (m *messenger) remember(i *item, s rollout.Standing) *store.Told {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := nameOf(s)
	if i.tries, i.due = 0, (time.Time{}); fingerprint(i.standing) == fingerprint(s) && m.standings[r] == i {
		delete(m.standings, r)
	}
	if s.Over {
		delete(m.told, r)
		return nil
	}
	t := store.Told{Sum: fingerprint(s), State: s.State}
	m.told[r] = t
	return &t
}
