package presence_test

import (
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/presence"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

const eu, us = fleet.Cluster("acme/eu-1"), fleet.Cluster("acme/us-1")

func ready(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// spoke is told of its session.
type spoke struct {
	wakes int
	ends  []error
}

func (s *spoke) Woken()         { s.wakes++ }
func (s *spoke) Over(why error) { s.ends = append(s.ends, why) }

// silent is a spoke that is not asked.
type silent struct{}

func (silent) Woken()     {}
func (silent) Over(error) {}

func TestANewSessionEndsTheOldOne(t *testing.T) {
	r := presence.New()
	var first, second spoke
	old := r.Register(eu, &first)
	next := r.Register(eu, &second)
	if !slices.Equal(first.ends, []error{presence.ErrSuperseded}) {
		t.Errorf("the old session ended with %v, want superseded", first.ends)
	}
	if next.Epoch <= old.Epoch {
		t.Errorf("epoch %d after %d, want it to grow", next.Epoch, old.Epoch)
	}
	old.Close() // its handler returns after the new one came
	if !r.Connected(eu) {
		t.Error("closing the superseded session ended the new one")
	}
	next.Close()
	next.Close()
	if r.Connected(eu) || len(second.ends) > 0 {
		t.Errorf("a closed session lives on, or was ended by others: %v", second.ends)
	}
}

func TestEpochsGrowOverARestart(t *testing.T) {
	before := presence.New().Register(eu, silent{}).Epoch
	if after := presence.New().Register(eu, silent{}).Epoch; after <= before {
		t.Errorf("epoch %d after %d", after, before)
	}
}

func TestWakesReachTheirCluster(t *testing.T) {
	r := presence.New()
	var a, b spoke
	r.Register(eu, &a)
	session := r.Register(us, &b)
	r.Wake(eu)
	r.Wake(eu, "acme/unknown")
	if a.wakes != 2 || b.wakes != 0 {
		t.Errorf("%d and %d wakes, want 2 for the one cluster", a.wakes, b.wakes)
	}
	r.WakeAll()
	session.Close()
	r.WakeAll()
	if a.wakes != 4 || b.wakes != 1 {
		t.Errorf("%d and %d wakes, want 4 and 1", a.wakes, b.wakes)
	}
}

func TestEndingAnIdentityEndsItsSession(t *testing.T) {
	r := presence.New()
	var s spoke
	r.Register(eu, &s)
	r.End(eu)
	if !slices.Equal(s.ends, []error{presence.ErrEnded}) || r.Connected(eu) || !r.LastSeen(eu).IsZero() {
		t.Errorf("after End: %v, connected %v, seen %v", s.ends, r.Connected(eu), r.LastSeen(eu))
	}
}

func TestLastSeenGoesForwardOnly(t *testing.T) {
	r := presence.New()
	at := time.Now()
	r.Seen(eu, at)
	r.Seen(eu, at.Add(-time.Hour))
	if got := r.LastSeen(eu); !got.Equal(at) {
		t.Errorf("last seen %v, want %v", got, at)
	}
	s := r.Register(eu, silent{})
	s.Close()
	if got := r.LastSeen(eu); got.Before(at) {
		t.Error("last seen was forgotten with the session")
	}
}

func TestSubscribersHearOfChangesUntilTheyCancel(t *testing.T) {
	r := presence.New()
	changes, cancel := r.Subscribe()
	s := r.Register(eu, silent{})
	if !ready(changes) {
		t.Error("no word of a session that came")
	}
	s.Close()
	r.Changed()
	if !ready(changes) || ready(changes) {
		t.Error("want changes coalesced into one")
	}
	cancel()
	r.Changed()
	if ready(changes) {
		t.Error("word after cancel")
	}
}

func TestManyAtOnce(t *testing.T) {
	r := presence.New()
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			s := r.Register(eu, silent{})
			r.WakeAll()
			r.Seen(eu, time.Now())
			s.Close()
		})
	}
	all.Wait()
	if r.Connected(eu) {
		t.Error("a session stayed")
	}
}

func TestClocksThatAreOff(t *testing.T) {
	r := presence.New()
	now := time.Now()
	r.Clock("acme/right", now.Add(-59*time.Second), now)
	r.Clock("acme/ahead", now.Add(time.Hour), now)
	r.Clock("acme/behind", now.Add(-2*time.Minute), now)
	r.Clock("acme/mended", now.Add(time.Hour), now)
	r.Clock("acme/mended", now, now)
	r.Clock("acme/gone", now.Add(time.Hour), now)
	r.End("acme/gone")
	want := map[fleet.Cluster]time.Duration{"acme/ahead": time.Hour, "acme/behind": -2 * time.Minute}
	if got := r.ClocksOff(); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
