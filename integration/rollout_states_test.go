package integration

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The hub is killed in every state that a rollout has, comes back in it, and goes on from there. The spokes are
// simulated; the hub is not.
func TestHubKilledInEveryState(t *testing.T) {
	s := simulate(t, 12)
	s.must(s.vendor.Release(s.ctx, "1.0.0"))
	s.running("1.0.0", 12)
	s.rollout("1.0.0", "Completed")
	s.declare("\nrollout: {start: manual, waves: [{name: all}]}\n")
	closed := time.Now().UTC().Add(72*time.Hour).Format("Mon") + " 00:00-01:00 UTC"
	seen := map[string]bool{}

	begin := func(version, waves string) {
		t.Helper()
		plan := filepath.Join(s.dir, version+".yaml")
		s.must(os.WriteFile(plan, []byte(waves), 0o644))
		s.release(version, "Available")
		s.hubSays("rollout", "start", "shop", version, "--plan", plan)
	}
	// killed in the first of these phases; it may be in a later one of them when it is asked again.
	killed := func(version string, phases ...string) {
		t.Helper()
		before := s.rollout(version, phases[0])
		s.must(s.hub.Kill())
		s.must(s.hub.Start(s.ctx))
		after, err := s.hub.Rollout(s.ctx, "shop", version)
		s.must(err)
		if !slices.Contains(phases, after.GetPhase()) || after.GetId() != before.GetId() || after.GetStartedBy() != before.GetStartedBy() {
			t.Fatalf("killed while %s was %s (%s), it is %s (%s)", version, before.GetPhase(), before.GetReason(), after.GetPhase(), after.GetReason())
		}
		seen[phases[0]] = true
	}
	say := func(verb, version string, more ...string) {
		t.Helper()
		s.hubSays(append([]string{"rollout", verb, "shop", version}, more...)...)
	}

	begin("1.1.0", `waves: [{name: all, concurrency: 2}]`)
	killed("1.1.0", "Progressing")
	killed("1.1.0", "Completed")

	begin("1.2.0", `waves: [{name: all, soak: 8s}]`)
	killed("1.2.0", "Soaking")
	s.rollout("1.2.0", "Completed")

	begin("1.3.0", `waves: [{name: all, approval: qa}]`)
	killed("1.3.0", "AwaitingApproval")
	say("pause", "1.3.0")
	killed("1.3.0", "Paused")
	say("resume", "1.3.0")
	say("approve", "1.3.0")
	s.rollout("1.3.0", "Completed")

	begin("1.4.0", `waves: [{name: all, verdicts: {minimum: 100}}]`)
	killed("1.4.0", "AwaitingVerdicts")
	say("approve", "1.4.0")
	s.rollout("1.4.0", "Completed")

	begin("1.5.0", `waves: [{name: all, windows: ["`+closed+`"]}]`)
	killed("1.5.0", "AwaitingWindow")
	say("abort", "1.5.0", "--reason", "wrong day", "--yes")
	killed("1.5.0", "Aborted")

	s.must(s.fleet.Fail(s.ctx, "1.6.0", 0))
	begin("1.6.0", `waves: [{name: first, max: 6}, {name: rest}]`)
	killed("1.6.0", "Holding")
	s.running("1.6.0", 5)
	say("undo", "1.6.0", "--reason", "one failed", "--yes")
	killed("1.6.0", "RollingBack", "RolledBack")
	killed("1.6.0", "RolledBack")
	s.running("1.4.0", 12)

	begin("1.7.0", `waves: [{name: first, max: 6}, {name: rest, approval: qa}]`)
	s.rollout("1.7.0", "AwaitingApproval")
	begin("1.8.0", `waves: [{name: all}]`)
	killed("1.7.0", "Superseded")
	s.rollout("1.8.0", "Completed")
	s.running("1.8.0", 12)

	begin("1.9.0", `waves: [{name: first, max: 6}, {name: rest, approval: qa}]`)
	s.rollout("1.9.0", "AwaitingApproval")
	s.hubSays("release", "recall", "shop", "1.9.0", "--reason", "loses orders", "--roll-back", "--yes")
	s.running("1.8.0", 12)
	killed("1.9.0", "Recalled")

	var states []string
	for state := range seen {
		states = append(states, state)
	}
	slices.Sort(states)
	t.Logf("killed in %d states: %s", len(states), strings.Join(states, ", "))
	if len(states) != 13 {
		t.Errorf("a rollout has 13 states, the hub was killed in %d: %v", len(states), states)
	}
	s.hubSays("audit", "verify")
}
