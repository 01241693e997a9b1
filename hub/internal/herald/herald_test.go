package herald

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/presence"
	"github.com/wheelwright-dev/wheelwright/hub/internal/rollout"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// world is what a conductor would say, a real store, and a notifier that keeps what it is told.
type world struct {
	t        *testing.T
	store    *store.Store
	presence *presence.Registry

	mu        sync.Mutex
	states    []rollout.State
	standings []rollout.Standing
	counts    int
	told      map[string][]string // by notifier
	ids       []string
	away      bool
	tries     int

	stop func()
}

func (w *world) States() ([]rollout.State, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.states), nil
}

func (w *world) Standings(_ time.Time, also func(distribution, version string) bool) (all []rollout.Standing, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts++
	for _, s := range w.standings {
		if !s.Over || also(s.Distribution, s.Version) {
			all = append(all, s)
		}
	}
	return all, nil
}

func (w *world) tell(_ context.Context, notifier string, e *pluginv1.Event) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.away {
		w.tries++
		return errors.New("nobody answers")
	}
	line := fmt.Sprintf("%s %s", e.GetVersionTo(), e.GetPhase())
	if len(e.GetSummary()) > 0 {
		line += " " + fleet.Tally(e.GetSummary()).Brief(e.GetVersionTo(), 0)
	}
	if e.GetSeverity() == pluginv1.Severity_SEVERITY_ERROR {
		line += " !"
	}
	w.told[notifier] = append(w.told[notifier], line)
	w.ids = append(w.ids, notifier+" "+e.GetId())
	return nil
}

// set changes what the conductor says, and says that something changed.
func (w *world) set(change func()) {
	w.mu.Lock()
	change()
	w.mu.Unlock()
	w.presence.Changed()
}

func (w *world) start(names ...string) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	h := New(Config{Conductor: w, Store: w.store, Changes: w.presence, Notifiers: names, Tell: w.tell, Log: slog.New(slog.DiscardHandler)})
	over := make(chan error, 1)
	go func() { over <- h.Run(ctx) }()
	w.stop = func() {
		cancel()
		if err := <-over; err != nil {
			w.t.Error(err)
		}
	}
}

// want compares what a notifier was told since the last time, after all is told that is to be.
func (w *world) want(when, notifier string, lines ...string) {
	w.t.Helper()
	time.Sleep(10 * time.Second)
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	got := w.told[notifier]
	delete(w.told, notifier)
	if !slices.Equal(got, lines) {
		w.t.Errorf("%s: %s was told %q, want %q", when, notifier, got, lines)
	}
}

// inWorld runs a test on the clock of a bubble, with a store of its own.
func inWorld(t *testing.T, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, err := store.Open(filepath.Join(t.TempDir(), "hub.db"), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		w := &world{t: t, store: s, presence: presence.New(), told: map[string][]string{}}
		test(w)
		w.stop()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func state(id uint64, version string, phase fleet.RolloutPhase) rollout.State {
	return rollout.State{ID: id, Distribution: "shop", Version: version, Phase: phase, Since: time.Now(), Reason: "so it is"}
}

func standing(version string, state fleet.Mark, t fleet.Tally) rollout.Standing {
	return rollout.Standing{Distribution: "shop", Version: version, Commit: strings.Repeat("a", 40), State: state, Tally: t}
}

func TestEachEndAndStopIsToldOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		w.states = []rollout.State{state(1, "1.0.0", fleet.RolloutCompleted)} // before there was a notifier
		w.start("chat")
		w.want("what was over before", "chat")
		for _, step := range []struct {
			phase fleet.RolloutPhase
			want  []string
		}{
			{fleet.RolloutProgressing, nil},
			{fleet.RolloutApproval, []string{"1.1.0 AwaitingApproval"}},
			{fleet.RolloutWindow, nil},
			{fleet.RolloutHolding, []string{"1.1.0 Holding !"}},
			{fleet.RolloutProgressing, nil},
			{fleet.RolloutHolding, []string{"1.1.0 Holding !"}},
			{fleet.RolloutPaused, nil},
			{fleet.RolloutCompleted, []string{"1.1.0 Completed"}},
			{fleet.RolloutReturning, []string{"1.1.0 RollingBack !"}},
			{fleet.RolloutReturned, []string{"1.1.0 RolledBack !"}},
			{fleet.RolloutRecalled, []string{"1.1.0 Recalled !"}},
		} {
			w.set(func() { w.states = append(w.states[:1:1], state(2, "1.1.0", step.phase)) })
			w.want(string(step.phase), "chat", step.want...)
			for range 3 {
				w.set(func() {})
			}
			w.want("again", "chat")
			w.stop()
			w.start("chat")
			w.want("after a restart", "chat")
		}
		// What became of a rollout while no hub ran is told by the next; a notifier that is new is not told of
		// old ends, and one that went is forgotten.
		w.stop()
		w.states = append(w.states, state(3, "1.2.0", fleet.RolloutAborted))
		w.start("chat", "phone")
		w.want("while no hub ran", "chat", "1.2.0 Aborted")
		w.want("while no hub ran", "phone", "1.2.0 Aborted")
		w.set(func() { w.states = nil })
		w.want("forgotten rollouts", "chat")
		if noted, _, err := w.store.Noted(); err != nil || len(noted) != 0 {
			t.Errorf("noted %v %v", noted, err)
		}
	})
}

func TestNoticesWaitForTheirReceiver(t *testing.T) {
	inWorld(t, func(w *world) {
		w.away = true
		w.start("chat")
		w.set(func() { w.states = []rollout.State{state(1, "1.0.0", fleet.RolloutHolding)} })
		time.Sleep(time.Second)
		w.set(func() { w.states = []rollout.State{state(1, "1.0.0", fleet.RolloutCompleted)} })
		time.Sleep(time.Hour)
		w.stop()
		w.mu.Lock()
		tries := w.tries
		w.mu.Unlock()
		if most := 2 * (10 + int(time.Hour/mostPause)); tries < 10 || tries > most {
			t.Errorf("%d tries in an hour, want 10 to %d", tries, most)
		}
		w.start("chat")
		time.Sleep(time.Minute)
		w.set(func() { w.away = false })
		time.Sleep(mostPause)
		w.want("back again", "chat", "1.0.0 Holding !", "1.0.0 Completed")

		// After a day it is no news.
		w.set(func() { w.away, w.states = true, []rollout.State{state(2, "1.1.0", fleet.RolloutAborted)} })
		time.Sleep(25 * time.Hour)
		w.set(func() { w.away = false })
		time.Sleep(mostPause)
		w.want("a day later", "chat")
		if left, err := w.store.Notices("chat"); err != nil || len(left) != 0 {
			t.Errorf("left %v %v", left, err)
		}
		// Nor do more wait than somebody would read.
		w.set(func() { w.away = true })
		for n := range mostNotices + 10 {
			w.set(func() {
				w.states = []rollout.State{state(uint64(n+10), fmt.Sprintf("2.0.%d", n), fleet.RolloutAborted)}
			})
			time.Sleep(time.Second)
		}
		time.Sleep(mostPause)
		if left, err := w.store.Notices("chat"); err != nil || len(left) != mostNotices || left[0].Version != "2.0.10" {
			t.Errorf("%d left %v", len(left), err)
		}
	})
}

func TestWhereTheFleetStandsIsToldOnChange(t *testing.T) {
	inWorld(t, func(w *world) {
		show := func(all ...rollout.Standing) { w.set(func() { w.standings = all }) }
		w.start("commits")
		show(standing("1.0.0", fleet.MarkUnderway, fleet.Tally{"Offered": 2}))
		w.want("begun", "commits", "1.0.0 Underway 0 of 2 clusters run 1.0.0; 2 under way")
		show(standing("1.0.0", fleet.MarkUnderway, fleet.Tally{"Offered": 2}))
		w.want("the same", "commits")
		show(standing("1.0.0", fleet.MarkFailed, fleet.Tally{"Offered": 1, "RolledBack": 1}))
		w.want("it begins to fail", "commits", "1.0.0 Failed 0 of 2 clusters run 1.0.0; 1 RolledBack; 1 under way !")
		show(standing("1.0.0", fleet.MarkFailed, fleet.Tally{"RolledBack": 2}))
		w.want("it fails on", "commits", "1.0.0 Failed 0 of 2 clusters run 1.0.0; 2 RolledBack")
		w.stop()
		w.start("commits", "late")
		w.want("after a restart", "commits")
		w.want("another that knows nothing", "late", "1.0.0 Failed 0 of 2 clusters run 1.0.0; 2 RolledBack !")

		// Away, then back: the last state and nothing else, and under the same id after a restart.
		w.set(func() { w.away = true })
		for n := range uint32(50) {
			show(standing("1.0.0", fleet.MarkUnderway, fleet.Tally{"Settling": 50 - n, "Succeeded": n}))
			time.Sleep(7 * time.Second)
		}
		show(standing("1.0.0", fleet.MarkDone, fleet.Tally{"Succeeded": 50}))
		w.want("away", "commits")
		w.stop()
		w.start("commits")
		time.Sleep(time.Minute)
		w.set(func() { w.away = false })
		time.Sleep(mostPause)
		w.want("back", "commits", "1.0.0 Done 50 of 50 clusters run 1.0.0")
		if told, err := w.store.Told("late"); err != nil || len(told) != 0 {
			t.Errorf("of a notifier that went: %v %v", told, err)
		}

		// A release that was superseded keeps what was said; one on its way is followed to its end, and one
		// that is taken back says so.
		next := standing("1.1.0", fleet.MarkUnderway, fleet.Tally{"Offered": 50})
		gone := func(s rollout.Standing, superseded bool) rollout.Standing {
			s.Over, s.Superseded = true, superseded
			return s
		}
		show(gone(standing("1.0.0", fleet.MarkDone, fleet.Tally{"Succeeded": 10}), true), next)
		w.want("superseded when done", "commits", "1.1.0 Underway 0 of 50 clusters run 1.1.0; 50 under way")
		show(gone(standing("1.1.0", fleet.MarkDone, fleet.Tally{"Succeeded": 1}), true), standing("1.2.0", fleet.MarkFailed, fleet.Tally{"Refused": 50}))
		w.want("superseded on its way", "commits", "1.1.0 Done 1 of 1 clusters run 1.1.0", "1.2.0 Failed 0 of 50 clusters run 1.2.0; 50 Refused !")
		show(gone(standing("1.2.0", fleet.MarkFailed, fleet.Tally{"Refused": 40}), false))
		w.want("taken back", "commits", "1.2.0 Failed 0 of 40 clusters run 1.2.0; 40 Refused")
		// One that came and went while nobody could be told is told all the same, by the next hub too.
		w.set(func() { w.away = true })
		show(standing("1.3.0", fleet.MarkUnderway, fleet.Tally{"Offered": 1}))
		w.want("away again", "commits")
		w.stop()
		w.start("commits")
		show(gone(standing("1.3.0", fleet.MarkFailed, fleet.Tally{"Refused": 1}), true))
		w.want("away still", "commits")
		w.set(func() { w.away = false })
		w.want("there again", "commits", "1.3.0 Failed 0 of 1 clusters run 1.3.0; 1 Refused !")
		show()
		w.want("all is over", "commits")
		if told, err := w.store.Told("commits"); err != nil || len(told) != 0 {
			t.Errorf("remembered %v %v", told, err)
		}
		slices.Sort(w.ids)
		if n := len(w.ids); len(slices.Compact(w.ids)) != n {
			t.Error("two events of one id")
		}
	})
}

// However much is said by however many clusters, the fleet is counted seldom, and silence is noticed.
func TestAStormIsCountedSeldom(t *testing.T) {
	inWorld(t, func(w *world) {
		w.start("commits")
		time.Sleep(time.Minute)
		counted := func(d time.Duration, do func()) int {
			w.mu.Lock()
			before := w.counts
			w.mu.Unlock()
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
				do()
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.counts - before
		}
		n := uint32(0)
		storm := counted(time.Minute, func() {
			n++
			w.set(func() {
				w.standings = []rollout.Standing{standing("1.0.0", fleet.MarkUnderway, fleet.Tally{"Succeeded": n})}
			})
		})
		w.mu.Lock()
		told := len(w.told["commits"])
		w.mu.Unlock()
		if storm < 11 || storm > 13 || told < 11 || told > 13 {
			t.Errorf("%d changes in a minute: counted %d times and told %d times, want about 12", n, storm, told)
		}
		time.Sleep(time.Minute)
		if calm := counted(10*time.Minute, func() {}); calm < 19 || calm > 21 {
			t.Errorf("counted %d times in ten minutes in which nothing happened, want about 20", calm)
		}
	})
}
