package integration

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/integration/world"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// quickHub notices silence after three seconds.
const quickHub = "heartbeat: 1s\n"

// rolledOut is a story whose clusters run 1.0.0 and are labelled ring=0, 1, 2 in the order of names; releases
// after that go by the plan.
func rolledOut(t *testing.T, n int, plan string) *story {
	t.Helper()
	s := tell(t, n)
	s.rehub(quickHub)
	s.watchShop()
	s.joinAll()
	s.release("1.0.0", "Available")
	s.runs("1.0.0")
	s.rollout("1.0.0", "Completed")
	s.declare(plan)
	return s
}

// rehub starts the hub anew with a hub.yaml.
func (s *story) rehub(config string) {
	s.t.Helper()
	_, err := s.hub.Stop()
	s.must(err)
	s.must(s.hub.Configure(config))
	s.must(s.hub.Start(s.ctx))
}

// declare adds to the vendor's wheelwright.yaml.
func (s *story) declare(text string) {
	s.t.Helper()
	name := filepath.Join(s.vendor.Dir, "dist", "wheelwright.yaml")
	data, err := os.ReadFile(name)
	s.must(err)
	s.must(os.WriteFile(name, append(data, text...), 0o644))
}

// rollout waits until the rollout of a version is in one of the phases.
func (s *story) rollout(version string, phases ...string) *fleetv1.Rollout {
	s.t.Helper()
	var got *fleetv1.Rollout
	s.must(world.Await(s.patiently(), "the rollout of "+version+" to be "+strings.Join(phases, " or "), func(ctx context.Context) (err error) {
		if got, err = s.hub.Rollout(ctx, "shop", version); err != nil {
			return err
		}
		if !slices.Contains(phases, got.GetPhase()) {
			return errorf("it is %s: %s", got.GetPhase(), got.GetReason())
		}
		return nil
	}))
	return got
}

// hubSays runs a command that has to succeed.
func (s *story) hubSays(args ...string) string {
	s.t.Helper()
	out, err := s.hub.Must(s.ctx, args...)
	s.must(err)
	return out
}

// still fails where a cluster does not run version.
func (s *story) still(version string, clusters ...string) {
	s.t.Helper()
	status, err := s.hub.Status(s.ctx)
	s.must(err)
	for _, row := range status.GetRows() {
		if slices.Contains(clusters, row.GetCluster()) && row.GetRunningVersion() != version {
			s.t.Fatalf("%s runs %s, want %s still", row.GetCluster(), row.GetRunningVersion(), version)
		}
	}
}

const gatedPlan = `
rollout:
  waves:
  - {name: dev, clusters: {matchLabels: {ring: "0"}}, soak: 3s}
  - {name: staging, clusters: {matchLabels: {ring: "1"}}, approval: vendor}
  - {name: production, approval: vendor, soak: 2s}
`

// A release goes out in three waves: it soaks in dev, and a person lets it into staging and production. The
// hub is killed in every one of these states and goes on where it was.
func TestRolloutInThreeWaves(t *testing.T) {
	s := rolledOut(t, 3, gatedPlan)
	s.must(s.vendor.Replace("backend/deployment.yaml", "/backend:", "/backend-1.1.0:"))
	s.release("1.1.0", "Available")
	again := func(phase string) {
		s.t.Helper()
		s.rollout("1.1.0", phase)
		s.must(s.hub.Kill())
		s.must(s.hub.Start(s.ctx))
	}
	plan := s.hubSays("rollout", "plan", "shop", "1.1.0")
	for _, want := range append([]string{"dev", "staging", "production"}, names...) {
		if !strings.Contains(plan, want) {
			t.Errorf("hub rollout plan does not name %s:\n%s", want, plan)
		}
	}
	s.runs("1.1.0", names[0])
	s.must(s.hub.Kill()) // soaking, or about to
	s.must(s.hub.Start(s.ctx))
	again("AwaitingApproval")
	s.rollout("1.1.0", "AwaitingApproval")
	s.still("1.0.0", names[1], names[2])
	if r, err := s.hub.Run(s.ctx, "rollout", "wait", "shop", "1.1.0", "--for", "healthy", "--timeout", "1m"); err != nil || r.Code != 4 {
		t.Errorf("hub rollout wait: exit code %d, want 4 for an approval: %s%s %v", r.Code, r.Out, r.Err, err)
	}
	s.hubSays("rollout", "approve", "shop", "1.1.0", "--reason", "dev is well")
	if r, err := s.hub.Run(s.ctx, "rollout", "approve", "shop", "1.1.0", "--wave", "staging"); err != nil || r.Code == 0 {
		t.Errorf("approving twice: exit code %d: %s%s %v", r.Code, r.Out, r.Err, err)
	}
	s.must(s.hub.Kill())
	s.must(s.hub.Start(s.ctx))
	s.runs("1.1.0", names[1])
	again("AwaitingApproval")
	s.hubSays("rollout", "pause", "shop", "1.1.0")
	again("Paused")
	s.hubSays("rollout", "resume", "shop", "1.1.0")
	s.rollout("1.1.0", "AwaitingApproval")
	s.still("1.0.0", names[2])
	s.hubSays("rollout", "approve", "shop", "1.1.0")
	s.runs("1.1.0")
	s.rollout("1.1.0", "Completed")
	s.must(s.hub.Kill())
	s.must(s.hub.Start(s.ctx))
	s.rollout("1.1.0", "Completed")
	history := s.hubSays("rollout", "history", "shop")
	if !strings.Contains(history, "1.1.0") || !strings.Contains(history, "1.0.0") {
		t.Errorf("hub rollout history:\n%s", history)
	}
	s.hubSays("audit", "verify")
	if audit := s.hubSays("audit", "export"); !strings.Contains(audit, "rollout approve") || !strings.Contains(audit, "dev is well") {
		t.Errorf("the audit does not say who approved, and why:\n%s", audit)
	}
}

// A release that does not get well in the first wave is brought back there, and never reaches the second.
func TestBadReleaseStopsInTheFirstWave(t *testing.T) {
	s := rolledOut(t, 3, `
rollout:
  onFailure: rollBackWave
  waves:
  - {name: first, clusters: {matchExpressions: [{key: ring, operator: In, values: ["0", "1"]}]}, concurrency: 1}
  - {name: rest}
`)
	s.must(s.vendor.Replace("database/deployment.yaml", "/database:", "/database-does-not-exist:"))
	s.release("1.1.0", "Available")
	r := s.rollout("1.1.0", "RolledBack")
	if w := r.GetWaves(); w[0].GetFailed() != 1 || w[1].GetDone()+w[1].GetUnderway() > 0 {
		t.Errorf("waves: %v", w)
	}
	s.backOn("1.0.0")
	s.must(s.vendor.Replace("database/deployment.yaml", "/database-does-not-exist:", "/database-1.1.1:"))
	s.release("1.1.1", "Available") // a newer release clears the way
	s.runs("1.1.1")
}

// backOn waits until every cluster runs version, whatever became of its last delivery.
func (s *story) backOn(version string) {
	s.t.Helper()
	s.must(s.hub.AwaitRows(s.patiently(), "all back on "+version, func(r *fleetv1.StatusRow) error {
		if r.GetRunningVersion() != version || r.GetHealth() != "Healthy" {
			return errorf("it runs %s, %s", r.GetRunningVersion(), r.GetHealth())
		}
		return nil
	}))
}

// A silent cluster is counted apart after the wave's patience, does not hold the others up, and takes the
// release when it is back.
func TestSilentClusterIsCaughtUp(t *testing.T) {
	s := rolledOut(t, 2, `
rollout:
  patience: 5s
  waves:
  - {name: first, clusters: {matchLabels: {ring: "0"}}}
  - {name: rest}
`)
	s.must(s.spokes[0].Kill())
	s.must(s.hub.AwaitRows(s.patiently(), "the silence to be noticed", func(r *fleetv1.StatusRow) error {
		if !r.GetStale() {
			return errorf("%s", r.GetPhase())
		}
		return nil
	}, names[0]))
	s.release("1.1.0", "Available")
	s.runs("1.1.0", names[1])
	r := s.rollout("1.1.0", "Completed")
	if r.GetWaves()[0].GetParked() != 1 {
		t.Errorf("first wave: %v", r.GetWaves()[0])
	}
	s.still("1.0.0", names[0])
	s.must(s.spokes[0].Start())
	s.runs("1.1.0")
}

// A pin that its provider made at the spoke is honoured while it lasts; the hub shows it with its reason and
// what would have been, and the cluster follows when it has expired.
func TestPinExpires(t *testing.T) {
	s := rolledOut(t, 1, "")
	until := time.Now().Add(25 * time.Second).UTC().Truncate(time.Second)
	r, err := s.spokes[0].Run(s.ctx, "pin", "shop", "1.0.0", "--reason", "quarter end", "--until", until.Format(time.RFC3339), "--author", "pat")
	if s.must(err); r.Code != 0 {
		t.Fatalf("spoke pin: %s%s", r.Out, r.Err)
	}
	s.release("1.1.0", "Available")
	s.must(world.Await(s.patiently(), "the pin to be shown", func(ctx context.Context) error {
		screen := s.hubSays("get", "pins", "-o", "wide")
		for _, want := range []string{"1.0.0", "quarter end", "pat", "1.1.0"} {
			if !strings.Contains(screen, want) {
				return errorf("hub get pins does not say %q:\n%s", want, screen)
			}
		}
		return nil
	}))
	if time.Now().Before(until.Add(-time.Second)) {
		s.still("1.0.0", names[0])
	}
	if why := s.hubSays("why", names[0], "shop"); !strings.Contains(why, "quarter end") {
		t.Errorf("hub why does not name the pin:\n%s", why)
	}
	s.runs("1.1.0")
	if time.Now().Before(until) {
		t.Error("the pin did not last")
	}
}

// A release is called back while half of the fleet has it: who has it goes back, who has it not never gets
// it, and no restart brings it up again.
func TestRecallInMidFlight(t *testing.T) {
	s := rolledOut(t, 2, gatedPlan)
	s.must(s.vendor.Replace("backend/deployment.yaml", "/backend:", "/backend-1.1.0:"))
	s.release("1.1.0", "Available")
	s.runs("1.1.0", names[0])
	s.rollout("1.1.0", "AwaitingApproval")
	said := s.hubSays("release", "recall", "shop", "1.1.0", "--reason", "loses orders", "--roll-back", "--yes")
	if !strings.Contains(said, names[0]) {
		t.Errorf("hub release recall does not name who runs it:\n%s", said)
	}
	s.backOn("1.0.0")
	s.rollout("1.1.0", "Recalled")
	if r, err := s.hub.Run(s.ctx, "rollout", "start", "shop", "1.1.0"); err != nil || r.Code == 0 || !strings.Contains(r.Err, "loses orders") {
		t.Errorf("starting the rollout of a recalled release: exit code %d: %s%s %v", r.Code, r.Out, r.Err, err)
	}
	s.must(s.hub.Kill())
	s.must(s.hub.Start(s.ctx))
	s.must(s.spokes[0].Kill())
	s.must(s.spokes[0].Start())
	s.must(s.hub.AwaitRows(s.patiently(), "both on 1.0.0 after the restarts", func(r *fleetv1.StatusRow) error {
		if r.GetRunningVersion() != "1.0.0" || r.GetStale() || r.GetHealth() != "Healthy" {
			return errorf("it runs %s, %s, %s", r.GetRunningVersion(), r.GetPhase(), r.GetHealth())
		}
		return nil
	}))
	s.must(s.vendor.Replace("backend/deployment.yaml", "/backend-1.1.0:", "/backend-1.1.1:"))
	s.release("1.1.1", "Available")
	s.runs("1.1.1", names[0])
	s.rollout("1.1.1", "AwaitingApproval")
	s.hubSays("rollout", "approve", "shop", "1.1.1")
	s.runs("1.1.1")
}

// A cluster that joins in the middle of a rollout gets the last completed release; one that leaves holds
// nobody up.
func TestJoinAndLeaveInMidFlight(t *testing.T) {
	s := tell(t, 3)
	s.rehub(quickHub)
	s.watchShop()
	for i, sp := range s.spokes[:2] {
		s.must(sp.Join(s.ctx, s.hub, "--label", "ring="+[]string{"0", "1"}[i]))
		s.must(s.customise(sp, i))
		s.must(sp.Start())
	}
	s.release("1.0.0", "Available")
	s.runs("1.0.0")
	s.declare(gatedPlan)
	s.release("1.1.0", "Available")
	s.runs("1.1.0", names[0])
	s.rollout("1.1.0", "AwaitingApproval")

	s.must(s.spokes[2].Join(s.ctx, s.hub, "--label", "ring=2"))
	s.must(s.customise(s.spokes[2], 2))
	s.must(s.spokes[2].Start())
	s.runs("1.0.0", names[2])

	s.hubSays("cluster", "remove", names[1], "--yes")
	s.hubSays("rollout", "approve", "shop", "1.1.0")
	s.must(world.Await(s.patiently(), "the rollout to be over", func(ctx context.Context) error {
		r, err := s.hub.Rollout(ctx, "shop", "1.1.0")
		if err == nil && r.GetPhase() == "AwaitingApproval" {
			_, err = s.hub.Run(ctx, "rollout", "approve", "shop", "1.1.0")
		}
		if err == nil && r.GetPhase() != "Completed" {
			err = errorf("it is %s: %s", r.GetPhase(), r.GetReason())
		}
		return err
	}))
	s.runs("1.1.0", names[0], names[2])
}
