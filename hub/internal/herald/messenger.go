package herald

import (
	"context"
	"log/slog"
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

	mu        sync.Mutex // of what is below; never held while somebody is told
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

// knows: the notifier was told of the release, and it may change.
func (m *messenger) knows(r store.ReleaseName) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, told := m.told[r]
	return told
}

// show takes where the clusters stand now: what is another than was told is to be told. What is nobody's
// concern any more is forgotten.
func (m *messenger) show(now time.Time, all []rollout.Standing) {
	m.mu.Lock()
	defer m.mu.Unlock()
	there := map[store.ReleaseName]bool{}
	for _, s := range all {
		r := nameOf(s)
		last, told := m.told[r]
		there[r] = true
		switch {
		case !told && s.Over, told && settled(s, last), told && last.Sum == fingerprint(s):
			delete(m.standings, r)
			if told && s.Over {
				m.forget(r)
			}
			continue
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
			delete(m.standings, r)
			m.forget(r)
		}
	}
	m.wake()
}

func nameOf(s rollout.Standing) store.ReleaseName {
	return store.ReleaseName{Distribution: s.Distribution, Version: s.Version}
}

// settled: what was told of the release stays true, though its clusters go on to another.
func settled(s rollout.Standing, last store.Told) bool {
	return s.Over && s.Superseded && last.State != fleet.MarkUnderway
}

// forget runs under the lock; a record that stays for once is forgotten with the next count.
func (m *messenger) forget(r store.ReleaseName) {
	if err := m.cfg.Store.PutTold(m.name, r, nil); err != nil {
		m.cfg.Log.Error("what a notifier was told is not forgotten", slog.String(logging.Plugin, m.name), slog.Any(logging.Error, err))
		return
	}
	delete(m.told, r)
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
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.notices) > 0 {
		n := m.notices[0]
		tooMany, tooOld := len(m.notices) > mostNotices, now.Sub(n.notice.Since) > lifetime
		if !tooMany && !tooOld {
			break
		}
		m.cfg.Log.Error("a notifier could not be told, and is not any more", slog.String(logging.Plugin, m.name), slog.String(logging.Distribution, n.notice.Distribution),
			slog.String(logging.Version, n.notice.Version), slog.String(logging.Phase, string(n.notice.Phase)), slog.Int("tries", n.tries))
		m.drop(n)
	}
	consider := func(i *item) {
		switch {
		case !i.due.After(now):
			found = i
		case due.IsZero() || i.due.Before(due):
			due = i.due
		}
	}
	for _, i := range m.notices {
		if consider(i); found != nil {
			return found, due
		}
	}
	for _, i := range m.standings {
		if consider(i); found != nil {
			return found, due
		}
	}
	return nil, due
}

// drop runs under the lock. A notice that stays on disk is told again by the next hub, with the same id.
func (m *messenger) drop(i *item) {
	for n, other := range m.notices {
		if other == i {
			m.notices = append(m.notices[:n:n], m.notices[n+1:]...)
			break
		}
	}
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
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case err != nil && ctx.Err() != nil:
	case err != nil:
		pause := min(mostPause, firstPause<<min(i.tries, 16))
		i.tries++
		i.due = time.Now().Add(pause)
		log.Warn("a notifier could not be told; it is tried again", slog.Any(logging.Error, err), slog.Duration("in", pause))
	case i.notice != nil:
		log.Info("a notifier was told")
		m.drop(i)
	default:
		log.Debug("a notifier was told")
		m.remember(i, s)
	}
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

// remember runs under the lock.
func (m *messenger) remember(i *item, s rollout.Standing) {
	r := nameOf(s)
	if i.tries, i.due = 0, (time.Time{}); fingerprint(i.standing) == fingerprint(s) && m.standings[r] == i {
		delete(m.standings, r)
	}
	if s.Over {
		m.forget(r)
		return
	}
	t := store.Told{Sum: fingerprint(s), State: s.State}
	m.told[r] = t
	if err := m.cfg.Store.PutTold(m.name, r, &t); err != nil {
		m.cfg.Log.Error("what a notifier was told is not remembered: a hub that starts anew tells it again", slog.String(logging.Plugin, m.name), slog.Any(logging.Error, err))
	}
}
