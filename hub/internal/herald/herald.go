// Package herald tells notifier plugins how releases get on in the whole fleet: each end of a rollout, each
// stop at which a person is needed, and, whenever it changed, how many clusters stand where with a release,
// which git hosts show at the release's commit.
//
// It reads beside the conductor and holds nobody up. Rollouts are looked at with every change; a phase that
// a rollout went through between two looks is not told. The fleet is counted at most once in Config.Every,
// however much happens in it. What has to be told is on disk before it is told, and is forgotten when it was:
// a hub that was killed tells nothing anew but what it was just telling, under the same id. A notifier that
// cannot be told is tried again with growing pauses: of an end or a stop for a day, of where the clusters
// stand for as long as that is so. Then the newest is told and what came between is not.
package herald

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/rollout"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

const (
	defaultEvery = 5 * time.Second
	// breath is the pause after a look, so that a fleet in which much happens costs few looks.
	breath = 50 * time.Millisecond
	// idle is how long the fleet goes uncounted where nothing is heard of it: silence comes without a word.
	idle = 30 * time.Second
	// mostNotices wait for one notifier; the oldest go first.
	mostNotices = 256
	// lifetime of a notice: after that it is no news.
	lifetime = 24 * time.Hour
)

// conductor is read only.
type conductor interface {
	States() ([]rollout.State, error)
	Standings(now time.Time, also func(distribution, version string) bool) ([]rollout.Standing, error)
}

// memory survives a restart.
type memory interface {
	Noted() (all map[uint64]store.Transition, ever bool, err error)
	Note(transitions []store.Transition, gone []uint64, news []store.Transition, notifiers []string) ([]store.Notice, error)
	Notices(notifier string) ([]store.Notice, error)
	DropNotice(store.Notice) error
	Told(notifier string) (map[store.ReleaseName]store.Told, error)
	PutTold(notifier string, r store.ReleaseName, t *store.Told) error
	KeepNotices(notifiers []string) error
	Release(distribution, version string) (fleet.Release, error)
	Distributions() ([]fleet.Distribution, error)
}

// changes wakes who subscribes, with much at once becoming one.
type changes interface {
	Subscribe() (changes <-chan struct{}, cancel func())
}

// Config is what a Herald works with.
type Config struct {
	Conductor conductor
	Store     memory
	Changes   changes
	Notifiers []string // by name
	// Tell tells one notifier, within a bound of its own.
	Tell  func(ctx context.Context, notifier string, e *pluginv1.Event) error
	Every time.Duration // between two counts of the fleet; 0: 5 s
	Log   *slog.Logger
}

// Herald is used once, by Run.
type Herald struct {
	cfg        Config
	noted      map[uint64]store.Transition // the last one of each rollout that was news
	messengers []*messenger
}

// New makes a herald of at least one notifier.
func New(cfg Config) *Herald {
	if cfg.Every <= 0 {
		cfg.Every = defaultEvery
	}
	return &Herald{cfg: cfg}
}

// Run tells until ctx ends.
func (h *Herald) Run(ctx context.Context) error {
	if err := h.begin(); err != nil {
		return fmt.Errorf("read what notifiers were told: %w", err)
	}
	changed, cancel := h.cfg.Changes.Subscribe()
	defer cancel()
	var all sync.WaitGroup
	defer all.Wait()
	for _, m := range h.messengers {
		all.Go(func() { m.run(ctx) })
	}
	var counted time.Time
	stale := true
	for {
		now := time.Now()
		if err := h.look(); err != nil {
			h.cfg.Log.Error("rollouts not looked at for notifiers", slog.Any(logging.Error, err))
		}
		if !now.Before(h.due(counted, stale)) {
			counted, stale = now, false // what changes from here on is counted next time
			if err := h.count(now); err != nil {
				h.cfg.Log.Error("the fleet was not counted for notifiers", slog.Any(logging.Error, err))
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Until(h.due(counted, stale))):
			continue
		case <-changed:
			stale = true
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(breath):
		}
	}
}

// due is when the fleet is counted again.
func (h *Herald) due(counted time.Time, stale bool) time.Time {
	if stale {
		return counted.Add(h.cfg.Every)
	}
	return counted.Add(idle)
}

// begin reads what is on disk. Rollouts that were over before there was a notifier are no news to one.
func (h *Herald) begin() error {
	err := h.cfg.Store.KeepNotices(h.cfg.Notifiers)
	if err != nil {
		return err
	}
	ever := false
	if h.noted, ever, err = h.cfg.Store.Noted(); err != nil {
		return err
	}
	if !ever {
		if err := h.pass(); err != nil {
			return err
		}
	}
	for _, name := range h.cfg.Notifiers {
		m := &messenger{name: name, cfg: h.cfg, poke: make(chan struct{}, 1), standings: map[store.ReleaseName]*item{}}
		if m.told, err = h.cfg.Store.Told(name); err != nil {
			return err
		}
		waiting, err := h.cfg.Store.Notices(name)
		if err != nil {
			return err
		}
		m.notices = itemsOf(waiting)
		h.messengers = append(h.messengers, m)
	}
	return nil
}

// pass notes what is over already without telling it.
func (h *Herald) pass() error {
	states, err := h.cfg.Conductor.States()
	if err != nil {
		return err
	}
	var over []store.Transition
	for _, s := range states {
		if s.Phase.Terminal() {
			over = append(over, transition(s))
			h.noted[s.ID] = transition(s)
		}
	}
	_, err = h.cfg.Store.Note(over, nil, nil, nil)
	return err
}

// look makes notices of what became of rollouts.
func (h *Herald) look() error {
	states, err := h.cfg.Conductor.States()
	if err != nil {
		return err
	}
	var news []store.Transition
	there := map[uint64]bool{}
	for _, s := range states {
		there[s.ID] = true
		last, known := h.noted[s.ID]
		if !notable(s.Phase) || known && last.Phase == s.Phase && last.Since.Equal(s.Since.Round(0)) {
			continue
		}
		news = append(news, transition(s))
	}
	var gone []uint64
	for id := range h.noted {
		if !there[id] {
			gone = append(gone, id)
		}
	}
	if len(news) == 0 && len(gone) == 0 {
		return nil
	}
	notices, err := h.cfg.Store.Note(news, gone, news, h.cfg.Notifiers)
	if err != nil {
		return err
	}
	for _, t := range news {
		h.noted[t.Rollout] = t
	}
	for _, id := range gone {
		delete(h.noted, id)
	}
	for _, m := range h.messengers {
		m.take(slices.DeleteFunc(slices.Clone(notices), func(n store.Notice) bool { return n.Notifier != m.name }))
	}
	return nil
}

// count counts the fleet and gives what has changed to those who are to tell it.
func (h *Herald) count(now time.Time) error {
	all, err := h.cfg.Conductor.Standings(now, func(distribution, version string) bool {
		return slices.ContainsFunc(h.messengers, func(m *messenger) bool {
			return m.knows(store.ReleaseName{Distribution: distribution, Version: version})
		})
	})
	if err != nil {
		return err
	}
	for _, m := range h.messengers {
		m.show(now, all)
	}
	return nil
}

func transition(s rollout.State) store.Transition {
	return store.Transition{Rollout: s.ID, Distribution: s.Distribution, Version: s.Version, Phase: s.Phase, Since: s.Since, Text: reason(s)}
}
