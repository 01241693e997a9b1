package agent_test

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/config"
)

// TestCanaryKilled kills a spoke with SIGKILL before and after every write of its journal on the way through
// a canary, so in every phase and at every weight, while the metrics are good, bad, missing or change, and
// starts it again: the application ends on one release, whole, with all traffic led to it (laws 6 and 7).
// Beside `make figures` some of the writes are met.
func TestCanaryKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("starts API servers")
	}
	ends := map[string][]fleet.Phase{
		"good": {fleet.Succeeded}, "bad": {fleet.RolledBack},
		"missing":  {fleet.RolledBack}, // nobody answers
		"flapping": {fleet.Succeeded, fleet.RolledBack},
	}
	var mu sync.Mutex
	cells, stuck := 0, 0
	t.Run("metrics", func(t *testing.T) {
		for kind, mode := range []string{"good", "bad", "missing", "flapping"} {
			t.Run(mode, func(t *testing.T) {
				t.Parallel()
				every := os.Getenv("WHEELWRIGHT_FIGURES") != ""
				for n := 1; ; n++ {
					for _, after := range []bool{false, true} {
						if !every && ((n+3*kind)%12 != 0 || after != (n%24 < 12)) {
							continue
						}
						did, problem := walkedKilled(t, mode, ends[mode], n, after)
						if !did && problem == "" {
							if n < 12 {
								t.Errorf("only %d writes: not every weight is met", n-1)
							}
							return
						}
						mu.Lock()
						cells++
						if problem != "" {
							stuck++
							t.Errorf("killed at write %d, after it was done: %v: %s", n, after, problem)
						}
						mu.Unlock()
					}
				}
			})
		}
	})
	fmt.Printf("FIGURE canary.kill-cells %d cells SIGKILL at every journal write of a canary, metrics good, bad, missing and flapping\n", cells)
	fmt.Printf("FIGURE canary.stuck %d cells of %d that did not end on one release with all traffic led to it\n", stuck, cells)
}

// walkedKilled reports whether the canary had so many writes, and what is wrong with its end.
func walkedKilled(t *testing.T, mode string, ends []fleet.Phase, n int, after bool) (killed bool, problem string) {
	t.Helper()
	s := newStage(t)
	s.walking(mode)
	s.sub.Canary, s.sub.ApprovalTimeout = config.Canary{Evidence: time.Second}, time.Second
	s.vendor.release(t, "1.0.0", led("1.0.0", "old"))
	stop := s.start(nil)
	s.offer()
	s.reaches(fleet.Succeeded, "1.0.0", "1.0.0")
	s.vendor.release(t, "1.1.0", led("1.1.0", "new"))
	stop()
	s.keepOffers()
	killed = s.doom(doomed{N: n, After: after})
	stop = s.start(nil)
	defer stop()
	var end fleet.Installation
	err := s.cluster.Wait("an end", func() error {
		if end = s.now(); end.Target != "1.1.0" || !end.Phase.Terminal() {
			return fmt.Errorf("it is %s %s: %s", end.Phase, end.Target, end.Reason)
		}
		return nil
	})
	if err != nil {
		return killed, "stuck: " + err.Error()
	}
	version, extra := "1.0.0", "old"
	if end.Running == "1.1.0" {
		version, extra = "1.1.0", "new"
	}
	problems := s.mixture(version, extra)
	allowed := false
	for _, p := range ends {
		allowed = allowed || p == end.Phase
	}
	if !allowed {
		problems = append(problems, fmt.Sprintf("it ends %s: %s", end.Phase, end.Reason))
	}
	return killed, strings.Join(problems, "; ")
}
