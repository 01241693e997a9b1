package agent_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/journal"
)

var errKilled = errors.New("killed")

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
