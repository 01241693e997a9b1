package cli

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// planned is a plan with everything in it that a plan can have.
func planned() *fleetv1.RolloutPlan {
	p := &fleetv1.RolloutPlan{Distribution: "shop", Version: "1.4.0", Source: "wheelwright.yaml", Plan: []byte("start: auto\nwaves: []\n"),
		Waves: []*fleetv1.PlannedWave{
			{Name: "canary", Concurrency: 1, Gates: []string{"soak 30m"}, Clusters: []*fleetv1.PlannedCluster{{Cluster: "acme/eu-1", RunningVersion: "1.3.0"}, {Cluster: "acme/us-1"}}},
			{Name: "early", Concurrency: 2, Budget: 1, Gates: []string{"soak 30m", "verdicts of 2 clusters, all of them pass"}, Clusters: []*fleetv1.PlannedCluster{
				{Cluster: "globex/eu-1", RunningVersion: "1.3.0", Blockers: []string{"pre-flight breaks: patch replicas.yaml finds no Deployment cache"}},
				{Cluster: "initech/ap-1", RunningVersion: "1.1.0", Blockers: []string{"pinned at 1.1.0 by audit@initech until 2026-03-08", "1.4.0 needs 1.2.0 first, which is not on offer"}}}},
			{Name: "everyone", Concurrency: 10, Budget: 3, Gates: []string{"approval by vendor", "Mon-Fri 22:00-04:00 Europe/Berlin"}},
			{Name: "nobody"},
		},
		LeftOut:  []*fleetv1.PlannedCluster{{Cluster: "hooli/lab-1", RunningVersion: "1.3.0", Blockers: []string{"no wave selects env=lab"}}},
		Warnings: []string{"wave nobody matches no cluster", "acme/eu-1 is selected by the waves canary and everyone: it goes with canary"}}
	for i := range 24 {
		p.Waves[2].Clusters = append(p.Waves[2].Clusters, &fleetv1.PlannedCluster{Cluster: "umbrella/site-" + string(rune('a'+i)), RunningVersion: "1.3.0"})
	}
	p.Waves[2].Clusters[23].Blockers = []string{"silent for 3h"}
	return p
}

func someRollouts() *fleetv1.ListRolloutsResponse {
	done := completed()
	done.Version, done.Id, done.Started, done.Since = "1.3.0", 6, ago(50*time.Hour), ago(49*time.Hour)
	aborted := standingAt("Aborted", "by operator admin: wrong branch", 1, func(r *fleetv1.Rollout) { r.Version, r.Id = "1.2.9", 5 })
	for _, r := range []*fleetv1.Rollout{done, aborted} {
		r.Clusters, r.Plan = nil, nil
	}
	under, wait := awaiting(), soaking()
	wait.Distribution, wait.Version, wait.Id = "cart", "2.0.0", 8
	under.Clusters, under.Plan, wait.Clusters, wait.Plan = nil, nil, nil, nil
	return &fleetv1.ListRolloutsResponse{Rollouts: []*fleetv1.Rollout{wait, under, done, aborted}}
}

func got(r *fleetv1.Rollout) *fleetv1.GetRolloutResponse {
	return &fleetv1.GetRolloutResponse{Rollout: r, At: timestamppb.New(moment)}
}

// everything is a hub with one of each.
func everything(t *testing.T) *answers {
	decided := standingAt("Paused", "by operator admin: lunch", 1, nil)
	return serveAnswers(t, map[string]proto.Message{
		"PlanRollout": &fleetv1.PlanRolloutResponse{Plan: planned()}, "StartRollout": &fleetv1.StartRolloutResponse{Rollout: rolling()},
		"ListRollouts": someRollouts(), "GetRollout": got(rolling()), "DecideRollout": &fleetv1.DecideRolloutResponse{Rollout: decided},
		"RecallRelease": &fleetv1.RecallReleaseResponse{Rollouts: []*fleetv1.Rollout{rolling()}, Clusters: []*fleetv1.RecalledCluster{
			{Cluster: "acme/eu-1", RunningVersion: "1.4.0", TargetVersion: "1.3.0", Reason: "ran it before"},
			{Cluster: "globex/eu-1", RunningVersion: "1.3.0", TargetVersion: "1.3.0", Reason: "on its way to 1.4.0: it turns back"},
			{Cluster: "initech/ap-1", RunningVersion: "1.4.0", Reason: "pinned at 1.4.0 by its provider"}}},
		"PinCluster":   &fleetv1.PinClusterResponse{Warnings: []string{"the spoke.yaml of acme/eu-1 takes no pins from the hub: hub: {pins: true} lets it"}},
		"UnpinCluster": &fleetv1.UnpinClusterResponse{}, "DecideDelivery": &fleetv1.DecideDeliveryResponse{Version: "1.4.0"},
		"ListPins": &fleetv1.ListPinsResponse{Pins: []*fleetv1.Pin{
			{Cluster: "acme/eu-1", Distribution: "shop", Version: "1.3.0", Reason: "audit week", Author: "operator admin", Source: "hub", Until: later(7 * 24 * time.Hour), Created: ago(time.Hour), Would: "1.4.0"},
			{Cluster: "initech/ap-1", Distribution: "shop", Version: "1.1.0", Reason: "waits for their auditor", Author: "ops@initech", Source: "spoke.yaml", Would: "1.4.0", InForce: true},
			{Cluster: "hooli/eu-1", Distribution: "shop", Version: "1.2.0", Source: "spoke", Until: ago(time.Minute), Would: "1.4.0", InForce: true}}},
		"Explain": explained(), "ListDistributions": &fleetv1.ListDistributionsResponse{Distributions: []*fleetv1.Distribution{{Name: "shop", Latest: "1.4.0"}, {Name: "cart"}}},
		"ListReleases": &fleetv1.ListReleasesResponse{Releases: []*fleetv1.Release{{Distribution: "shop", Version: "1.3.0", Phase: "Available", RunningOn: []string{"acme/eu-1"}, Published: ago(time.Hour)},
			{Distribution: "shop", Version: "1.4.0", Phase: "Recalled", Published: ago(time.Minute), Recalled: ago(time.Second), RecallReason: "loses orders", RecalledBy: "operator admin"}}},
		"ListClusters": &fleetv1.ListClustersResponse{Clusters: []*fleetv1.Cluster{{Name: "acme/eu-1", Connected: true, Joined: ago(time.Hour), LastSeen: ago(time.Second), Subscriptions: []*syncv1.SubscriptionStatus{{Distribution: "cart"},
			{Distribution: "shop", RunningVersion: "1.3.0", TargetVersion: "1.4.0", Phase: "Progressing", Canary: &syncv1.Canary{Step: 2, Steps: 5, Traffic: []*syncv1.CanaryTraffic{{Service: "backend", Weight: 33}, {Service: "web", Mirror: 100}}, Held: true}}}},
			{Name: "globex/eu-1", Connected: true, Joined: ago(time.Hour), LastSeen: ago(time.Second)}, {Name: "initech/ap-1", Joined: ago(time.Hour), LastSeen: ago(time.Hour)}}},
		"ListEvents": &fleetv1.ListEventsResponse{Events: []*fleetv1.FleetEvent{
			{Id: 7, At: ago(time.Hour), Distribution: "shop", Version: "1.4.0", Kind: "Rollout", Message: "started by operator admin"},
			{Id: 9, At: ago(time.Minute), Cluster: "acme/eu-1", Distribution: "shop", Version: "1.4.0", Kind: "Phase", Message: "Succeeded"}}},
		"GetStatus": busy(),
	})
}

func explained() *fleetv1.ExplainResponse {
	return &fleetv1.ExplainResponse{
		Row: &fleetv1.StatusRow{Cluster: "acme/eu-1", Distribution: "shop", DesiredVersion: "1.4.0", RunningVersion: "1.3.0", TargetVersion: "1.4.0", Phase: "AwaitingApproval(provider)", RawPhase: "AwaitingApproval",
			Health: "Healthy", Objects: 15, Ready: 15, LastSeen: ago(4 * time.Second), Attention: true, Warnings: []string{"its clock is 1h2m ahead of the hub's"}},
		Facts: []string{"1.4.0 is offered to it since 41m by its rollout, wave 2 of 3 (early)", "its provider's policy takes patches by itself and asks first for minor releases: minor upgrade from 1.3.0 needs approval (versions.minor: approve)",
			"its maintenance window is open until 2026-03-02T04:00:00Z"},
		Next: []string{"hub approve acme/eu-1 shop 1.4.0", "hub reject acme/eu-1 shop 1.4.0 --reason '…'"},
		Events: []*fleetv1.FleetEvent{{Id: 1, At: ago(26 * time.Hour), Kind: "Phase", Message: "1.3.0: Succeeded"}, {Id: 2, At: ago(41 * time.Minute), Kind: "Rollout", Message: "1.4.0 offered"},
			{Id: 3, At: ago(40 * time.Minute), Kind: "Phase", Message: "1.4.0: AwaitingApproval: minor upgrade from 1.3.0 needs approval"}}}
}

// busy is the status of a fleet with much going on.
func busy() *fleetv1.GetStatusResponse {
	s := screen(backRow, gone, pinRow, wellRow)
	s.Total, s.Attention = 10_000, 37
	r := someRollouts().GetRollouts()
	s.Rollouts = r[:2]
	s.Rows = append([]*fleetv1.StatusRow{}, s.GetRows()...)
	odd := proto.Clone(pinRow).(*fleetv1.StatusRow)
	odd.Would, odd.Warnings = "1.3.0", []string{"its clock is 1h2m ahead of the hub's"}
	s.Rows[2] = odd
	return s
}

func TestWhatCommandsPrint(t *testing.T) {
	h := everything(t)
	for _, c := range []struct {
		golden, args string
		code         int
	}{
		{"plan.txt", "rollout plan shop 1.4.0", exitcode.OK},
		{"plan-wide.txt", "rollout plan shop 1.4.0 -o wide", exitcode.OK},
		{"plan.json", "rollout plan shop 1.4.0 -o json", exitcode.OK},
		{"plan.yaml", "rollout plan shop 1.4.0 -o yaml", exitcode.OK},
		{"plan.names", "rollout plan shop 1.4.0 -o name", exitcode.OK},
		{"rollout-status.txt", "rollout status shop", exitcode.OK},
		{"rollout-status-wide.txt", "rollout status shop 1.4.0 -o wide", exitcode.OK},
		{"rollout-status.json", "rollout status shop -o json", exitcode.OK},
		{"rollouts.txt", "get rollouts", exitcode.OK},
		{"rollouts-wide.txt", "get rollouts -o wide", exitcode.OK},
		{"rollouts-issues.txt", "get rollouts shop --issues --no-headers", exitcode.OK},
		{"rollouts.json", "get rollouts -o json", exitcode.OK},
		{"rollouts.names", "get ro -o name", exitcode.OK},
		{"history.txt", "rollout history shop", exitcode.OK},
		{"history-wide.txt", "rollout history shop -o wide", exitcode.OK},
		{"pins.txt", "get pins", exitcode.OK},
		{"pins-wide.txt", "get pins -o wide", exitcode.OK},
		{"pins-issues.txt", "get pins --issues", exitcode.OK},
		{"pins.json", "get pins initech/ap-1 -o json", exitcode.OK},
		{"pins.names", "get pins -o name", exitcode.OK},
		{"pins-none.txt", "get pins globex/eu-1", exitcode.OK},
		{"releases-recalled.txt", "get releases shop", exitcode.OK},
		{"clusters-wide.txt", "get clusters -o wide", exitcode.OK},
		{"clusters.json", "get clusters acme/eu-1 -o json", exitcode.OK},
		{"clusters-issues.txt", "get clusters --issues", exitcode.OK},
		{"recall.txt", "release recall shop 1.4.0 --reason bad --yes", exitcode.OK},
		{"recall-rollback.txt", "release recall shop 1.4.0 --reason bad --roll-back --dry-run", exitcode.OK},
		{"recall.json", "release recall shop 1.4.0 --reason bad --dry-run -o json", exitcode.OK},
		{"why.txt", "why acme/eu-1 shop", exitcode.OK},
		{"why.json", "why acme/eu-1 shop -o json", exitcode.OK},
		{"status-busy.txt", "status", exitcode.Failed},
		{"status-busy-wide.txt", "status -o wide", exitcode.Failed},
		{"status-busy.json", "status -o json", exitcode.Failed},
	} {
		t.Run(c.golden, func(t *testing.T) {
			code, out, errOut := h.hub(t, strings.Fields(c.args)...)
			if code != c.code {
				t.Errorf("exit code %d, want %d: %s", code, c.code, errOut)
			}
			golden(t, c.golden, []byte(out))
		})
	}
}

func TestChangesSayWhatTheyDid(t *testing.T) {
	h := everything(t)
	for _, c := range []struct {
		args      string
		out, next string
	}{
		{"rollout start shop 1.4.0", "rollout of shop 1.4.0 started: 40 clusters in 3 waves, by the plan of wheelwright.yaml\n", "next: hub rollout status shop 1.4.0 -w"},
		{"rollout start shop 1.4.0 --dry-run", "rollout of shop 1.4.0 started (dry run: nothing changed): ", "next: hub rollout plan shop 1.4.0"},
		{"rollout pause shop 1.4.0", "rollout of shop 1.4.0 paused\n", "next: hub rollout resume shop 1.4.0"},
		{"rollout pause shop", "rollout of shop 1.4.0 paused\n", "now Paused: by operator admin: lunch"},
		{"rollout resume shop 1.4.0 --dry-run", "rollout of shop 1.4.0 resumed (dry run: nothing changed)\n", ""},
		{"rollout approve shop", "rollout of shop 1.4.0 approved\n", "now Paused"},
		{"rollout approve shop 1.4.0 --wave everyone --reason ok", "wave everyone of the rollout of shop 1.4.0 approved\n", ""},
		{"rollout reject shop 1.4.0", "rollout of shop 1.4.0 rejected\n", ""},
		{"rollout abort shop 1.4.0 --yes", "rollout of shop 1.4.0 aborted\n", ""},
		{"rollout undo shop 1.4.0 --yes", "rollout of shop 1.4.0 undone\n", ""},
		{"rollout undo shop 1.4.0 --dry-run", "rollout of shop 1.4.0 undone (dry run: nothing changed)\n", ""},
		{"pin acme/eu-1 shop 1.3.0 --reason audit --until 7d", "shop of acme/eu-1 pinned at 1.3.0, until 2026-03-08T12:00:00Z\n", "warning: the spoke.yaml of acme/eu-1 takes no pins from the hub"},
		{"pin acme/eu-1 shop 1.3.0 --reason audit", "shop of acme/eu-1 pinned at 1.3.0, until it is taken away\n", "next: hub why acme/eu-1 shop"},
		{"unpin acme/eu-1 shop --reason over", "shop of acme/eu-1 unpinned\n", "next: hub why acme/eu-1 shop"},
		{"approve acme/eu-1 shop", "shop 1.4.0 on acme/eu-1 approved\n", "next: hub why acme/eu-1 shop"},
		{"reject acme/eu-1 shop 1.4.0 --reason no --dry-run", "shop 1.4.0 on acme/eu-1 rejected (dry run: nothing changed)\n", ""},
	} {
		code, out, errOut := h.hub(t, strings.Fields(c.args)...)
		if code != exitcode.OK || !strings.HasPrefix(out, c.out) || !strings.Contains(errOut, c.next) {
			t.Errorf("hub %s: exit code %d\n%s%s\nwant %q and %q", c.args, code, out, errOut, c.out, c.next)
		}
	}
	if r := last[*fleetv1.PinClusterRequest](t, h); r.GetPin().GetReason() != "audit" || r.GetPin().GetUntil() != nil {
		t.Errorf("asked for the pin %v", r)
	}
	if r := last[*fleetv1.DecideDeliveryRequest](t, h); r.GetApprove() || r.GetVersion() != "1.4.0" || !r.GetDryRun() || r.GetReason() != "no" {
		t.Errorf("asked for the decision %v", r)
	}
	if r := last[*fleetv1.DecideRolloutRequest](t, h); r.GetDecision() != fleetv1.RolloutDecision_ROLLOUT_DECISION_UNDO || !r.GetDryRun() {
		t.Errorf("asked for %v", r)
	}
}

func TestWrongWordsAboutRollouts(t *testing.T) {
	h := everything(t)
	rollouts := someRollouts()
	rollouts.Rollouts = append(rollouts.Rollouts, standingAt("Progressing", "", 1, func(r *fleetv1.Rollout) { r.Distribution, r.Version = "cart", "1.9.0" }))
	h.set("ListRollouts", rollouts)
	empty, big := filepath.Join(t.TempDir(), "empty.yaml"), filepath.Join(t.TempDir(), "big.yaml")
	for path, n := range map[string]int{empty: 3, big: largestPlan + 1} {
		if err := os.WriteFile(path, []byte(strings.Repeat(" ", n)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		args string
		code int
		want []string
	}{
		{"rollout frobnicate", exitcode.Usage, []string{`"frobnicate"`, "hub rollout --help"}},
		{"rollout plan shop", exitcode.Usage, []string{"DISTRIBUTION and VERSION"}},
		{"rollout plan shop 1.4.0 --plan /does/not/exist", exitcode.Usage, []string{"/does/not/exist"}},
		{"rollout start shop 1.4.0 --plan " + empty, exitcode.Usage, []string{empty, "is empty"}},
		{"rollout start shop 1.4.0 --plan " + big, exitcode.Usage, []string{big, "1 MiB"}},
		{"rollout abort shop 1.4.0", exitcode.Usage, []string{"abort the rollout of shop 1.4.0", "--yes"}},
		{"rollout undo shop", exitcode.Usage, []string{"--yes"}},
		{"rollout resume shop", exitcode.Failed, []string{"nothing to resume", "hub rollout status"}},
		{"rollout abort --yes cart", exitcode.Usage, []string{"which rollout of cart", "2.0.0, 1.9.0", "hub rollout abort cart 2.0.0"}},
		{"rollout undo --yes pear", exitcode.Failed, []string{"no rollout of pear is under way", "hub rollout history pear"}},
		{"rollout wait shop 1.4.0 --for bread", exitcode.Usage, []string{`"bread"`, "healthy, wave=N or approval"}},
		{"rollout wait shop 1.4.0 --for wave=0", exitcode.Usage, []string{"count from 1"}},
		{"rollout wait shop 1.4.0 --for wave=4", exitcode.Usage, []string{"no wave 4", "canary, early, everyone"}},
		{"rollout wait shop 1.4.0 --timeout -1s", exitcode.Usage, []string{"--timeout -1s"}},
		{"release recall shop 1.4.0", exitcode.Usage, []string{"why?", "--reason"}},
		{"release recall shop 1.4.0 --reason bad", exitcode.Usage, []string{"recall shop 1.4.0", "--yes"}},
		{"pin acme/eu-1 shop 1.3.0", exitcode.Usage, []string{"why?", "--reason"}},
		{"pin eu-1 shop 1.3.0 --reason x", exitcode.Usage, []string{`"eu-1"`}},
		{"pin acme/eu-1 shop 1.3.0 --reason x --until 2026-02-28", exitcode.Usage, []string{"--until", "over already"}},
		{"pin acme/eu-1 shop 1.3.0 --reason x --until soon", exitcode.Usage, []string{"--until", `"soon"`, "7d"}},
		{"approve acme shop", exitcode.Usage, []string{`"acme"`}},
		{"why acme/eu-1", exitcode.Usage, []string{"PROVIDER/NAME and DISTRIBUTION"}},
		{"get pins acme/nowhere", exitcode.Failed, []string{`no cluster "acme/nowhere"`, "hub get clusters"}},
		{"audit frobnicate", exitcode.Usage, []string{"hub audit --help"}},
	} {
		code, out, errOut := h.hub(t, strings.Fields(c.args)...)
		if code != c.code || out != "" {
			t.Errorf("hub %s: exit code %d, output %q; want %d and none\n%s", c.args, code, out, c.code, errOut)
		}
		for _, w := range c.want {
			if !strings.Contains(errOut, w) {
				t.Errorf("hub %s: the error does not mention %q: %s", c.args, w, errOut)
			}
		}
	}
	for method, code := range map[string]codes.Code{"StartRollout": codes.AlreadyExists, "PlanRollout": codes.InvalidArgument, "DecideRollout": codes.FailedPrecondition, "RecallRelease": codes.NotFound} {
		h.refuse[method] = status.Error(code, method+" is refused for a cause; next: do this")
	}
	for args, code := range map[string]int{"rollout start shop 1.4.0": exitcode.Failed, "rollout plan shop 1.4.0": exitcode.Usage, "rollout approve shop 1.4.0": exitcode.Failed, "release recall shop 9.9.9 --reason x --yes": exitcode.Failed} {
		if got, _, errOut := h.hub(t, strings.Fields(args)...); got != code || !strings.Contains(errOut, "is refused for a cause; next: do this") {
			t.Errorf("hub %s: exit code %d, want %d: %s", args, got, code, errOut)
		}
	}
}

func TestAPlanIsSentAsItIsWritten(t *testing.T) {
	h := everything(t)
	path := filepath.Join(t.TempDir(), "plan.yaml")
	if err := os.WriteFile(path, []byte("waves:\n- name: all\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errOut := h.hub(t, "rollout", "start", "shop", "1.4.0", "--plan", path, "--reason", "change 4711"); code != exitcode.OK {
		t.Fatal(errOut)
	}
	if r := last[*fleetv1.StartRolloutRequest](t, h); string(r.GetPlan()) != "waves:\n- name: all\n" || r.GetReason() != "change 4711" || r.GetDryRun() {
		t.Errorf("sent %v", r)
	}
}

func TestExitCodesOfARollout(t *testing.T) {
	h := serveAnswers(t, nil)
	for _, c := range []struct {
		phase  string
		status int
		wait   int // --for healthy; -1: it goes on waiting
	}{
		{"AwaitingWindow", exitcode.OK, -1}, {"AwaitingApproval", exitcode.Waiting, exitcode.Waiting}, {"Progressing", exitcode.OK, -1}, {"Soaking", exitcode.OK, -1},
		{"AwaitingVerdicts", exitcode.OK, -1}, {"Holding", exitcode.Failed, exitcode.Failed}, {"Paused", exitcode.Failed, -1}, {"RollingBack", exitcode.Failed, exitcode.Failed},
		{"Completed", exitcode.OK, exitcode.OK}, {"Aborted", exitcode.Failed, exitcode.Failed}, {"RolledBack", exitcode.Failed, exitcode.Failed},
		{"Superseded", exitcode.Failed, exitcode.Failed}, {"Recalled", exitcode.Failed, exitcode.Failed},
	} {
		h.set("GetRollout", got(standingAt(c.phase, "because", 1, nobodyFailed)))
		if code, _, errOut := h.hub(t, "rollout", "status", "shop"); code != c.status {
			t.Errorf("status of %s: exit code %d, want %d: %s", c.phase, code, c.status, errOut)
		}
		if c.wait < 0 {
			c.wait = exitcode.TimedOut
		}
		code, out, errOut := h.hub(t, "rollout", "wait", "shop", "1.4.0", "--timeout", "1ms")
		if code != c.wait || out != "" || !strings.Contains(errOut, c.phase) {
			t.Errorf("wait in %s: exit code %d, want %d, output %q: %s", c.phase, code, c.wait, out, errOut)
		}
	}
	for _, c := range []struct {
		phase, goal string
		wave        uint32
		code        int
	}{
		{"AwaitingApproval", "approval", 2, exitcode.OK}, {"AwaitingApproval", "wave=2", 2, exitcode.OK}, {"AwaitingApproval", "wave=early", 2, exitcode.OK},
		{"AwaitingApproval", "wave=3", 2, exitcode.Waiting}, {"Progressing", "wave=1", 1, exitcode.OK}, {"Holding", "wave=2", 1, exitcode.Failed},
		{"Completed", "wave=early", 2, exitcode.OK}, {"Completed", "wave=everyone", 2, exitcode.Failed}, {"Completed", "approval", 2, exitcode.Failed}, {"Aborted", "approval", 2, exitcode.Failed},
	} {
		h.set("GetRollout", got(standingAt(c.phase, "because", c.wave, nil)))
		if code, _, errOut := h.hub(t, "rollout", "wait", "shop", "1.4.0", "--for", c.goal, "--timeout", "5s"); code != c.code {
			t.Errorf("wait for %s in %s of wave %d: exit code %d, want %d: %s", c.goal, c.phase, c.wave, code, c.code, errOut)
		}
	}
}

// nobodyFailed leaves the failures of a rollout out.
func nobodyFailed(r *fleetv1.Rollout) {
	for _, w := range r.Waves {
		w.Failed = 0
	}
	r.Clusters = slices.DeleteFunc(r.Clusters, func(m *fleetv1.RolloutCluster) bool { return m.Mark == "Failed" })
}

// A rollout may be completed by having given up on its clusters, one by one.
func TestACompletedRolloutIsNotAlwaysHealthy(t *testing.T) {
	h := serveAnswers(t, nil)
	member := func(name, mark, reason string, wave int32) *fleetv1.RolloutCluster {
		return &fleetv1.RolloutCluster{Cluster: name, Mark: mark, Reason: reason, Wave: wave}
	}
	pinned, failed := member("acme/eu-1", "Parked", "pinned", 0), member("acme/us-1", "Failed", "RolledBack: database: down", 0)
	done, joined, joinedIll := member("globex/eu-1", "Done", "", 0), member("acme/new", "Done", "", -1), member("acme/new", "Failed", "Refused: no such kind", -1)
	for _, c := range []struct {
		name     string
		wave     *fleetv1.RolloutWave
		clusters []*fleetv1.RolloutCluster
		code     int
		says     string
	}{
		{"everybody has it", &fleetv1.RolloutWave{Clusters: 1, Done: 1}, []*fleetv1.RolloutCluster{done}, exitcode.OK, "shop 1.4.0: 1 of 1 done\n"},
		{"somebody is parked", &fleetv1.RolloutWave{Clusters: 2, Done: 1, Parked: 1}, []*fleetv1.RolloutCluster{done, pinned}, exitcode.OK, "1 of 2 done, 1 parked (acme/eu-1: pinned)"},
		{"all are parked", &fleetv1.RolloutWave{Clusters: 1, Parked: 1}, []*fleetv1.RolloutCluster{pinned}, exitcode.Failed, "no cluster has the release: 0 of 1 done, 1 parked (acme/eu-1: pinned); see `hub rollout status shop 1.4.0`"},
		{"within the budget", &fleetv1.RolloutWave{Clusters: 2, Done: 1, Failed: 1, Budget: 2}, []*fleetv1.RolloutCluster{done, failed}, exitcode.Failed, "1 cluster failed with the release: 1 of 2 done, 1 failed (acme/us-1: RolledBack: database: down)"},
		{"all failed", &fleetv1.RolloutWave{Clusters: 1, Failed: 1, Budget: 1}, []*fleetv1.RolloutCluster{failed}, exitcode.Failed, "1 cluster failed"},
		{"nobody is there", &fleetv1.RolloutWave{}, nil, exitcode.OK, "no cluster takes part"},
		{"only who joined", &fleetv1.RolloutWave{}, []*fleetv1.RolloutCluster{joined}, exitcode.OK, "1 of 1 done"},
		{"who joined failed", &fleetv1.RolloutWave{Clusters: 1, Done: 1}, []*fleetv1.RolloutCluster{done, joinedIll}, exitcode.Failed, "acme/new: Refused: no such kind"},
	} {
		c.wave.Name = "everyone"
		h.set("GetRollout", got(&fleetv1.Rollout{Distribution: "shop", Version: "1.4.0", Phase: "Completed", Waves: []*fleetv1.RolloutWave{c.wave}, Clusters: c.clusters}))
		if code, out, errOut := h.hub(t, "rollout", "wait", "shop", "1.4.0"); code != c.code || out != "" || !strings.Contains(errOut, c.says) {
			t.Errorf("%s: exit code %d, want %d and %q: %s", c.name, code, c.code, c.says, errOut)
		}
	}
}

func TestAPlanOfWhatCannotBeStarted(t *testing.T) {
	h := everything(t)
	for state, want := range map[string]string{
		"Progressing": "nothing was started: the rollout of shop 1.4.0 is Progressing already; next: hub rollout status shop 1.4.0\n",
		"Completed":   "nothing was started: the rollout of shop 1.4.0 is Completed already; next: hub rollout status shop 1.4.0\n",
		"Preflight":   "nothing was started: shop 1.4.0 is in pre-flight; next: hub release describe shop 1.4.0\n",
		"":            "nothing was started; next: hub rollout start shop 1.4.0\n",
	} {
		p := planned()
		p.State = state
		h.set("PlanRollout", &fleetv1.PlanRolloutResponse{Plan: p})
		if _, _, errOut := h.hub(t, "rollout", "plan", "shop", "1.4.0"); errOut != want {
			t.Errorf("in %q: %s", state, errOut)
		}
	}
}

func TestWhatARecallEnds(t *testing.T) {
	for phase, want := range map[string]string{
		"Progressing": "stops its rollout, which is Progressing: 1 of 3 have it, by the default plan",
		"Completed":   "its rollout was completed: 1 of 3 have it",
		"Aborted":     "its rollout was over (Aborted): 1 of 3 have it",
	} {
		if got := ending(&fleetv1.Rollout{Phase: phase, Waves: []*fleetv1.RolloutWave{{Clusters: 3, Done: 1, Underway: 1}}}); got != want {
			t.Errorf("%s: %s", phase, got)
		}
	}
}

func TestWaitGoesAlongWithARollout(t *testing.T) {
	h := serveAnswers(t, map[string]proto.Message{"ListDistributions": &fleetv1.ListDistributionsResponse{Distributions: []*fleetv1.Distribution{{Name: "shop"}}}})
	var out, errOut output
	code := make(chan int, 1)
	go func() {
		code <- h.hubInto(t.Context(), &out, &errOut, "rollout", "wait", "shop", "1.4.0", "--timeout", "1m")
	}()
	errOut.await(t, "shop 1.4.0 is not published yet")
	release := &fleetv1.Release{Distribution: "shop", Version: "1.4.0", Phase: "Available", PreflightUntil: later(time.Minute)}
	h.set("GetRelease", &fleetv1.GetReleaseResponse{Release: release})
	errOut.await(t, "in pre-flight")
	release = proto.Clone(release).(*fleetv1.Release)
	release.PreflightUntil = nil
	h.set("GetRelease", &fleetv1.GetReleaseResponse{Release: release})
	errOut.await(t, "hub rollout start shop 1.4.0")
	h.set("GetRollout", got(rolling()))
	errOut.await(t, "wave early: 6 of 12 done, 3 under way")
	h.set("GetRollout", got(soaking()))
	errOut.await(t, "Soaking 12m/30m")
	h.set("GetRollout", got(completed()))
	if got := <-code; got != exitcode.OK {
		t.Errorf("exit code %d", got)
	}
	errOut.await(t, "shop 1.4.0: Completed")
	if out.text.Len() > 0 {
		t.Errorf("progress on standard output: %s", out.text.String())
	}
}

func TestWaitKnowsWhatWillNotCome(t *testing.T) {
	h := serveAnswers(t, map[string]proto.Message{"ListDistributions": &fleetv1.ListDistributionsResponse{},
		"GetRelease": &fleetv1.GetReleaseResponse{Release: &fleetv1.Release{Distribution: "shop", Version: "1.4.0", Phase: "Rejected"}}})
	if code, _, errOut := h.hub(t, "rollout", "wait", "shop", "1.4.0", "--timeout", "1m"); code != exitcode.Failed || !strings.Contains(errOut, "Rejected") || !strings.Contains(errOut, "hub release describe shop 1.4.0") {
		t.Errorf("a rejected release: exit code %d: %s", code, errOut)
	}
	h.set("GetRelease", nil)
	if code, _, errOut := h.hub(t, "rollout", "wait", "shop", "1.4.0", "--timeout", "1m"); code != exitcode.Failed || !strings.Contains(errOut, `no distribution "shop"`) {
		t.Errorf("an unknown distribution: exit code %d: %s", code, errOut)
	}
	h.refuse["GetRollout"] = status.Error(codes.Unavailable, "connection refused")
	if code, _, errOut := h.hub(t, "rollout", "wait", "shop", "1.4.0", "--timeout", "1m"); code != exitcode.Usage {
		t.Errorf("a hub that is away from the start: exit code %d: %s", code, errOut)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errOut output
	if code := h.hubInto(ctx, &out, &errOut, "rollout", "wait", "shop", "1.4.0"); code != exitcode.Usage {
		t.Errorf("interrupted: exit code %d", code)
	}
}

func TestRolloutStatusElsewhereSaysWhatChanged(t *testing.T) {
	h := serveAnswers(t, map[string]proto.Message{"GetRollout": got(rolling())})
	ctx, cancel := context.WithCancel(t.Context())
	var out, errOut output
	code := make(chan int, 1)
	go func() { code <- h.hubInto(ctx, &out, &errOut, "rollout", "status", "shop", "-w") }()
	out.await(t, "Progressing")
	h.set("GetRollout", got(rolling())) // nothing new
	h.set("GetRollout", got(held()))
	out.await(t, "shop 1.4.0: Holding")
	cancel()
	if got := <-code; got != exitcode.OK {
		t.Errorf("exit code %d: %s", got, errOut.text.String())
	}
	if n := strings.Count(out.text.String(), "wave canary"); n != 1 {
		t.Errorf("the first wave did not change and is told %d times:\n%s", n, out.text.String())
	}
	for line := range strings.Lines(out.text.String()) {
		if !strings.HasPrefix(line, "2026-03-01T12:00:00Z ") {
			t.Errorf("no time: %q", line)
		}
	}
}

func TestStatusAsksForAsMuchAsFits(t *testing.T) {
	h := everything(t)
	for args, want := range map[string]uint32{"status": defaultRows, "status --all": 0, "status --rows 5": 5, "status -o json": 0, "status -o name": 0, "status -o wide": defaultRows, "status -o json --rows 3": 3} {
		h.hub(t, strings.Fields(args)...)
		if r := last[*fleetv1.GetStatusRequest](t, h); r.GetLimit() != want {
			t.Errorf("hub %s asks for %d rows, want %d", args, r.GetLimit(), want)
		}
	}
}

func TestNamesAreCompleted(t *testing.T) {
	h := everything(t)
	for args, want := range map[string]string{
		"rollout plan ": "shop", "rollout wait shop ": "1.4.0", "pin ": "acme/eu-1", "pin acme/eu-1 ": "shop", "pin acme/eu-1 shop ": "1.3.0", "why acme/eu-1 ": "cart",
		"get rollouts ": "shop", "get clusters ": "globex/eu-1", "release recall shop ": "1.4.0", "status ": "shop",
	} {
		// What cobra asks for completions with comes last, so the context is in the environment.
		t.Setenv(contextVariable, h.context)
		code, out, errOut := run(t, append([]string{"__complete"}, strings.Split(args, " ")...)...)
		if code != exitcode.OK || !slices.Contains(strings.Split(out, "\n"), want) {
			t.Errorf("completing %q: exit code %d, no %q in\n%s%s", args, code, want, out, errOut)
		}
	}
}
