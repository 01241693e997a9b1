package presence_test

import (
	"errors"
	"maps"
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

func TestANewSessionEndsTheOldOne(t *testing.T) {
	r := presence.New()
	old := r.Register(eu)
	next := r.Register(eu)
	if !ready(old.Done()) || !errors.Is(old.Err(), presence.ErrSuperseded) {
		t.Errorf("the old session: done %v, %v; want superseded", ready(old.Done()), old.Err())
	}
	if next.Epoch <= old.Epoch {
		t.Errorf("epoch %d after %d, want it to grow", next.Epoch, old.Epoch)
	}
	old.Close() // its handler returns after the new one came
	if ready(next.Done()) || !r.Connected(eu) {
		t.Error("closing the superseded session ended the new one")
	}
	next.Close()
	next.Close()
	if !ready(next.Done()) || next.Err() != nil || r.Connected(eu) {
		t.Error("a closed session lives on")
	}
}

func TestEpochsGrowOverARestart(t *testing.T) {
	before := presence.New().Register(eu).Epoch
	if after := presence.New().Register(eu).Epoch; after <= before {
		t.Errorf("epoch %d after %d", after, before)
	}
}

func TestWakesReachTheirClusterAndCoalesce(t *testing.T) {
	r := presence.New()
	a, b := r.Register(eu), r.Register(us)
	r.Wake(eu)
	r.Wake(eu, "acme/unknown")
	if !ready(a.Wake()) || ready(a.Wake()) || ready(b.Wake()) {
		t.Error("want exactly one wake for the one cluster")
	}
	r.WakeAll()
	if !ready(a.Wake()) || !ready(b.Wake()) {
		t.Error("want all woken")
	}
}

func TestEndingAnIdentityEndsItsSession(t *testing.T) {
	r := presence.New()
	s := r.Register(eu)
	r.End(eu)
	if !ready(s.Done()) || !errors.Is(s.Err(), presence.ErrEnded) || r.Connected(eu) || !r.LastSeen(eu).IsZero() {
		t.Errorf("after End: %v, connected %v, seen %v", s.Err(), r.Connected(eu), r.LastSeen(eu))
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
	s := r.Register(eu)
	s.Close()
	if got := r.LastSeen(eu); got.Before(at) {
		t.Error("last seen was forgotten with the session")
	}
}

func TestSubscribersHearOfChangesUntilTheyCancel(t *testing.T) {
	r := presence.New()
	changes, cancel := r.Subscribe()
	s := r.Register(eu)
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
			s := r.Register(eu)
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
