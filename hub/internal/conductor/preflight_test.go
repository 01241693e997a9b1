package conductor

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/presence"
	"github.com/wheelwright-dev/wheelwright/hub/internal/presence/presencetest"
	"github.com/wheelwright-dev/wheelwright/hub/internal/rollout"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

const trying = time.Minute

// trialWorld is a world whose distribution has pre-flights, and which has been up for long.
func trialWorld(t *testing.T, clusters ...fleet.Cluster) *world {
	t.Helper()
	w := newWorld(t)
	if err := w.store.RemoveDistribution("shop"); err != nil {
		t.Fatal(err)
	}
	if err := w.store.AddDistributionWith(w.shop, store.Settings{Preflight: trying}); err != nil {
		t.Fatal(err)
	}
	for _, c := range clusters {
		if _, err := w.store.Invite(c, nil, string(c), [32]byte{}, time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if err := w.store.Hello(c, "v1", "v1.33", []fleet.Installation{{Distribution: "shop"}}); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(time.Hour)
	return w
}

// run runs the conductor until the test ends.
func (w *world) run(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func fresh(version, c string) Tag {
	made := tag(version, c)
	return Tag{Name: made.Name, Hash: made.Hash, Judge: func(ctx context.Context) (fleet.Release, []byte, error) {
		r, tar, err := made.Judge(ctx)
		r.Published = time.Now()
		return r, tar, err
	}}
}

// answer is what a cluster's spoke says of a release.
func (w *world) answer(t *testing.T, c fleet.Cluster, seq uint64, version, digestOf string, outcome fleet.Outcome) {
	t.Helper()
	p := fleet.Preflight{Version: version, Bundle: digest(digestOf), Outcome: outcome, At: time.Now()}
	if _, err := w.store.RecordEvents(c, "j", []fleet.Event{{Seq: seq, At: time.Now(), Kind: fleet.EventPreflight, Distribution: "shop", Version: version, Preflight: &p}}); err != nil {
		t.Fatal(err)
	}
	w.presence.Changed()
}

// offered lists the versions on offer; one to be tried out only ends in "?".
func (w *world) offered(t *testing.T) (all []string, revision uint64) {
	t.Helper()
	synctest.Wait()
	state, err := offers(w.Conductor, "acme/eu-1", []string{"shop"})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range state.Distributions[0].Offers {
		all = append(all, o.Version+map[bool]string{true: "?"}[o.Preflight])
	}
	return all, state.Revision
}

func (w *world) wantOffered(t *testing.T, when string, want ...string) {
	t.Helper()
	if got, _ := w.offered(t); !slices.Equal(got, want) {
		t.Errorf("%s: got %v, want %v", when, got, want)
	}
}

func TestAPreflightEndsWhenItsTimeIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := trialWorld(t, "acme/eu-1")
		session := presencetest.Register(w.presence, "acme/eu-1")
		defer session.Close()
		w.run(t)
		w.see(t, fresh("1.0.0", "a"))
		w.wantOffered(t, "published", "1.0.0?")
		rows, sums, err := w.table("shop")
		if err != nil || rows[0].DesiredVersion != "" || rows[0].Phase != "Preflight(1.0.0)" ||
			len(sums[0].Preflight) != 1 || !strings.HasPrefix(sums[0].Preflight[0], "1.0.0: 0 of 1 connected clusters answered, none would break; offered to be taken in 1m") {
			t.Errorf("status: %v, %v, %v", rows, sums, err)
		}
		_, before := w.offered(t)
		time.Sleep(trying - time.Second)
		w.wantOffered(t, "a second before the end", "1.0.0?")
		drain(session)
		time.Sleep(2 * time.Second)
		w.wantOffered(t, "after the end", "1.0.0")
		if _, after := w.offered(t); after == before {
			t.Errorf("revision %d before and after", after)
		}
		if !drain(session) {
			t.Error("the connected spoke was not woken")
		}
		rows, sums, err = w.table("shop")
		if err != nil || rows[0].DesiredVersion != "1.0.0" || len(sums[0].Preflight) != 0 {
			t.Errorf("status after the end: %v, %v, %v", rows, sums, err)
		}
		history, _ := w.store.Events(store.EventFilter{})
		if !slices.ContainsFunc(history, func(e fleet.Event) bool {
			return e.Kind == fleet.EventPreflight && strings.Contains(e.Message, "0 of 1 connected clusters answered")
		}) {
			t.Errorf("events: %+v", history)
		}
	})
}

func drain(s *presencetest.Session) bool {
	select {
	case <-s.Wake():
		return true
	default:
		return false
	}
}

func TestAPreflightEndsEarlyWhenAllHaveAnsweredAndNoneBreaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := trialWorld(t, "acme/eu-1", "acme/us-1", "acme/away")
		defer presencetest.Register(w.presence, "acme/eu-1").Close()
		defer presencetest.Register(w.presence, "acme/us-1").Close()
		w.run(t)
		w.see(t, fresh("1.0.0", "a"), fresh("1.1.0", "b"))
		w.answer(t, "acme/eu-1", 1, "1.0.0", "a", fleet.OutcomeChanges)
		time.Sleep(time.Second)
		w.wantOffered(t, "one of two answered", "1.0.0?", "1.1.0?")
		w.answer(t, "acme/us-1", 1, "1.0.0", "a", fleet.OutcomeOk)
		time.Sleep(time.Second)
		w.wantOffered(t, "both answered", "1.0.0", "1.1.0?")
		w.answer(t, "acme/eu-1", 2, "1.1.0", "b", fleet.OutcomeBreaks)
		w.answer(t, "acme/us-1", 2, "1.1.0", "b", fleet.OutcomeOk)
		time.Sleep(time.Second)
		w.wantOffered(t, "one breaks", "1.0.0", "1.1.0?")
		w.answer(t, "acme/eu-1", 3, "1.1.0", "b", fleet.OutcomeOk)
		time.Sleep(time.Second)
		w.wantOffered(t, "it was mended", "1.1.0") // its rollout takes over
	})
}

func TestWhatBreaksWaitsForTheWholeTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := trialWorld(t, "acme/eu-1")
		defer presencetest.Register(w.presence, "acme/eu-1").Close()
		w.run(t)
		w.see(t, fresh("1.0.0", "a"))
		w.answer(t, "acme/eu-1", 1, "1.0.0", "a", fleet.OutcomeBreaks)
		time.Sleep(trying - time.Second)
		w.wantOffered(t, "before the end", "1.0.0?")
		time.Sleep(2 * time.Second)
		w.wantOffered(t, "after the end", "1.0.0")
	})
}

// A restarted hub neither takes back what it offered nor forgets an end that came while it was down, nor
// takes silence of spokes that are about to come back for consent.
func TestAPreflightSurvivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := trialWorld(t, "acme/eu-1", "acme/us-1")
		restart := func() {
			w.presence = presence.New()
			cfg := w.cfg
			cfg.Spokes = w.presence
			w.Conductor = New(cfg)
		}
		w.see(t, fresh("1.0.0", "a"))
		_, told := w.offered(t)
		time.Sleep(trying / 2)
		restart()
		w.wantOffered(t, "half-way", "1.0.0?")
		session := presencetest.Register(w.presence, "acme/eu-1")
		w.answer(t, "acme/eu-1", 1, "1.0.0", "a", fleet.OutcomeOk)
		if _, err := w.settle(time.Now()); err != nil {
			t.Fatal(err)
		}
		w.wantOffered(t, "the other spoke is not back yet", "1.0.0?")
		session.Close()
		time.Sleep(trying) // down
		restart()
		w.run(t)
		time.Sleep(time.Second)
		w.wantOffered(t, "the end came while it was down", "1.0.0")
		if _, now := w.offered(t); now == told {
			t.Errorf("revision %d after %d: spokes would not be told", now, told)
		}

		w.see(t, fresh("1.1.0", "b"))
		for _, c := range []fleet.Cluster{"acme/eu-1", "acme/us-1"} {
			defer presencetest.Register(w.presence, c).Close()
			w.answer(t, c, 5, "1.1.0", "b", fleet.OutcomeOk)
		}
		time.Sleep(time.Second)
		w.wantOffered(t, "ended early", "1.1.0") // its rollout takes over
		restart()
		w.wantOffered(t, "restarted within its time", "1.1.0")
	})
}

func TestAPreflightAsksOnlyWhomItConcerns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := trialWorld(t, "acme/newer", "acme/older", "acme/other")
		for c, subs := range map[fleet.Cluster][]fleet.Installation{
			"acme/newer": {{Distribution: "shop", Running: "2.0.0"}}, "acme/older": {{Distribution: "shop", Running: "0.9.0"}}, "acme/other": {{Distribution: "bank"}},
		} {
			if err := w.store.Hello(c, "v1", "v1.33", subs); err != nil {
				t.Fatal(err)
			}
			defer presencetest.Register(w.presence, c).Close()
		}
		w.see(t, fresh("1.0.0", "a"))
		a, err := w.answers(time.Now(), "shop", "1.0.0")
		if err != nil || a != (answers{asked: 1, missing: "acme/older"}) {
			t.Errorf("got %+v, %v", a, err)
		}
	})
}

func TestStatusOfAVersionInPreflight(t *testing.T) {
	f := Fleet{
		Clusters: []ClusterNews{{Name: "acme/eu-1", Joined: now, Connected: true, LastSeen: now}, {Name: "acme/eu-2", Joined: now, Connected: true, LastSeen: now}},
		Installations: map[fleet.Cluster][]fleet.Installation{
			"acme/eu-1": {{Distribution: "shop", Running: "1.0.0", Phase: fleet.Succeeded}},
			"acme/eu-2": {{Distribution: "shop", Running: "1.0.0", Phase: fleet.Succeeded, Policy: fleet.Policy{Pin: &fleet.Pin{Version: "1.1.0"}}}},
		},
		Offerings: map[string]*offering{"shop": lay(&stock{watched: true, versions: []string{"1.0.0", "1.1.0"}, releases: map[string]fleet.Release{"1.0.0": {}, "1.1.0": {}},
			trying: map[string]time.Time{"1.1.0": now.Add(time.Minute)}}, &shelf{rollouts: []rollout.State{{ID: 1, Version: "1.0.0", Phase: fleet.RolloutCompleted}}})},
	}
	got := map[string]string{}
	for _, r := range Screen(now, heartbeat, "", 0, f).Rows {
		got[r.Cluster] = fmt.Sprintf("%s %s %v", r.DesiredVersion, r.Phase, r.Attention)
	}
	want := map[string]string{"acme/eu-1": "1.0.0 Succeeded false", "acme/eu-2": " Preflight(1.1.0) false"}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestALookRestsByWhatItTook(t *testing.T) {
	for _, c := range []struct{ took, want time.Duration }{
		{0, settlePause}, {time.Millisecond, settlePause}, {20 * time.Millisecond, 400 * time.Millisecond}, {time.Minute, settleMost},
	} {
		if got := rest(c.took); got != c.want {
			t.Errorf("after a look of %v: the next %v after its beginning, want %v", c.took, got, c.want)
		}
	}
}
