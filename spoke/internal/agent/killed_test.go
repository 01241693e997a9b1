package agent_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/journal"
)

// TestKilledAtEveryWrite kills a spoke before and after each of its journal writes during an upgrade,
// to a good release and to a bad one, and starts it again: the cluster ends whole (law 7).
func TestKilledAtEveryWrite(t *testing.T) {
	for _, c := range []struct {
		name, image string
		end         fleet.Phase
	}{{"good", good, fleet.Succeeded}, {"bad", bad, fleet.RolledBack}} {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, after %v", c.name, after), func(t *testing.T) {
				t.Parallel()
				for n := 1; ; n++ {
					if !killedAt(t, n, after, c.image, c.end) {
						t.Logf("%d moments", n-1)
						if n < 8 {
							t.Errorf("only %d writes: the test does not reach every phase", n-1)
						}
						return
					}
				}
			})
		}
	}
}

var errKilled = errors.New("killed")

// killedAt reports whether the upgrade had an n-th write to be killed at.
func killedAt(t *testing.T, n int, after bool, image string, end fleet.Phase) bool {
	t.Helper()
	s := newStage(t)
	s.sub.HealthTimeout = 1500 * time.Millisecond
	stop := s.installed("1.0.0", "old")
	stop()
	s.sub.HealthTimeout = 1500 * time.Millisecond
	s.vendor.release(t, "1.1.0", app("1.1.0", image, "new"))
	dead := make(chan fleet.Phase, 1)
	count := 0
	stop = s.start(func(r journal.Record, write func() error) error {
		if r.Installation.Target == "1.1.0" {
			count++
		}
		if count < n || r.Installation.Target != "1.1.0" {
			return write()
		}
		if count == n && after {
			if err := write(); err != nil {
				return err
			}
		}
		select { // nothing is written any more by this spoke
		case dead <- r.Installation.Phase:
		default:
		}
		return errKilled
	})
	s.offer()
	killed := false
	s.cluster.Eventually(t, "the spoke is killed or done", func() error {
		select {
		case <-dead:
			killed = true
			return nil
		default:
		}
		if i := s.now(); i.Phase == end && i.Target == "1.1.0" {
			return nil
		}
		return errors.New("neither")
	})
	stop()
	if !killed {
		return false
	}
	stop = s.start(nil)
	defer stop()
	want, names := "1.1.0", "new"
	if end == fleet.RolledBack {
		want, names = "1.0.0", "old"
	}
	s.reaches(end, "1.1.0", want)
	s.mustBeWhole(want, names)
	return true
}

// TestKilledAtEveryRequest kills a spoke before and after each of its writes to the cluster, so in the
// middle of applying, pruning and going back, and starts it again: the cluster ends whole (law 7).
func TestKilledAtEveryRequest(t *testing.T) {
	for _, c := range []struct {
		name, image string
		end         fleet.Phase
	}{{"good", good, fleet.Succeeded}, {"bad", bad, fleet.RolledBack}} {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, after %v", c.name, after), func(t *testing.T) {
				t.Parallel()
				for n := int64(1); killedAtRequest(t, &killer{n: n, after: after}, c.image, c.end); n++ {
					if t.Failed() {
						t.Fatalf("killed at write %d", n)
					}
				}
			})
		}
	}
}

// killedAtRequest reports whether the upgrade had so many writes.
func killedAtRequest(t *testing.T, k *killer, image string, end fleet.Phase) bool {
	t.Helper()
	s := newStage(t)
	stop := s.installed("1.0.0", "old")
	stop()
	s.sub.HealthTimeout = 1500 * time.Millisecond
	s.vendor.release(t, "1.1.0", app("1.1.0", image, "new"))
	s.killer.Store(k)
	stop = s.start(func(_ journal.Record, write func() error) error {
		if k.dead.Load() {
			return errKilled
		}
		return write()
	})
	s.offer()
	s.cluster.Eventually(t, "the spoke is killed or done", func() error {
		if i := s.now(); k.dead.Load() || i.Phase == end && i.Target == "1.1.0" {
			return nil
		}
		return errors.New("neither")
	})
	stop()
	if !k.dead.Load() {
		return false
	}
	s.killer.Store(nil)
	stop = s.start(nil)
	defer stop()
	want, names := "1.1.0", "new"
	if end == fleet.RolledBack {
		want, names = "1.0.0", "old"
	}
	s.reaches(end, "1.1.0", want)
	s.mustBeWhole(want, names)
	return true
}
