package cli

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

func later(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(moment.Add(d)) }

// rolling is a rollout in the middle of its second wave.
func rolling() *fleetv1.Rollout {
	return &fleetv1.Rollout{Distribution: "shop", Version: "1.4.0", Id: 7, Phase: "Progressing", Started: ago(2 * time.Hour), Since: ago(41 * time.Minute),
		Wave: 1, PlanSource: "wheelwright.yaml", StartedBy: "operator admin", Joiners: 2,
		Reason: "wave early: 3 of 12 clusters are under way, 1 of 1 failures used",
		Waves: []*fleetv1.RolloutWave{
			{Name: "canary", Clusters: 2, Done: 2, SoakSeconds: 1800, SoakUntil: ago(42 * time.Minute)},
			{Name: "early", Clusters: 12, Done: 6, Underway: 3, Failed: 1, Parked: 2, Budget: 1, SoakSeconds: 1800, Started: ago(41 * time.Minute)},
			{Name: "everyone", Clusters: 26},
		},
		Plan: &fleetv1.RolloutPlan{Distribution: "shop", Version: "1.4.0", Source: "wheelwright.yaml", Waves: []*fleetv1.PlannedWave{
			{Name: "canary", Concurrency: 1, Gates: []string{"soak 30m"}, Clusters: []*fleetv1.PlannedCluster{{Cluster: "acme/eu-1", RunningVersion: "1.3.0"}, {Cluster: "acme/us-1", RunningVersion: "1.3.0"}}},
			{Name: "early", Concurrency: 4, Budget: 1, Gates: []string{"soak 30m"}, Clusters: []*fleetv1.PlannedCluster{{Cluster: "initech/ap-1", RunningVersion: "1.1.0", Blockers: []string{"pinned at 1.1.0"}}}},
			{Name: "everyone", Concurrency: 10, Gates: []string{"approval by vendor"}},
		}},
		Clusters: []*fleetv1.RolloutCluster{
			{Cluster: "acme/eu-1", Wave: 0, Mark: "Done", Since: ago(time.Hour), RunningVersion: "1.4.0", Phase: "Succeeded"},
			{Cluster: "acme/us-1", Wave: 0, Mark: "Done", Since: ago(time.Hour), RunningVersion: "1.4.0", Phase: "Succeeded"},
			{Cluster: "globex/eu-1", Wave: 1, Mark: "Failed", Reason: "rolled back: p99 812ms > 500ms in Deployment shop/frontend over 5m", Since: ago(9 * time.Minute), RunningVersion: "1.3.0", Phase: "RolledBack"},
			{Cluster: "hooli/eu-2", Wave: 1, Mark: "Underway", Since: ago(12 * time.Second), RunningVersion: "1.3.0", Phase: "Fetching"},
			{Cluster: "hooli/eu-1", Wave: 1, Mark: "Underway", Reason: "2 of 15 objects not ready", Since: ago(3 * time.Minute), RunningVersion: "1.3.0", Phase: "Settling"},
			{Cluster: "hooli/eu-3", Wave: 1, Mark: "Underway", Reason: "step 2 of 5 (backend 33 %): 1 of 3 measurements passed", Since: ago(5 * time.Minute), RunningVersion: "1.3.0", Phase: "Progressing",
				Canary: &syncv1.Canary{Step: 2, Steps: 5, Traffic: []*syncv1.CanaryTraffic{{Service: "backend", Weight: 33}}}},
			{Cluster: "hooli/eu-4", Wave: 1, Mark: "Parked", Reason: "waits for its provider's approval", Since: ago(time.Minute), RunningVersion: "1.3.0", Phase: "AwaitingApproval",
				Canary: &syncv1.Canary{Step: 3, Steps: 5, Traffic: []*syncv1.CanaryTraffic{{Service: "backend", Weight: 50}}, Gate: "increase"}},
			{Cluster: "hooli/us-1", Wave: 1, Mark: "Offered", Since: ago(2 * time.Second), RunningVersion: "1.3.0", Phase: "Succeeded"},
			{Cluster: "initech/ap-1", Wave: 1, Mark: "Parked", Reason: "pinned at 1.1.0", Since: ago(41 * time.Minute), RunningVersion: "1.1.0", Phase: "Succeeded"},
			{Cluster: "initech/ap-2", Wave: 1, Mark: "Parked", Reason: "silent for 3h", Since: ago(41 * time.Minute), RunningVersion: "1.3.0"},
			{Cluster: "umbrella/eu-1", Wave: 2, Mark: "Waiting", RunningVersion: "1.3.0", Phase: "Succeeded"},
		}}
}

// standingAt is the same rollout in another phase.
func standingAt(phase, reason string, wave uint32, change func(*fleetv1.Rollout)) *fleetv1.Rollout {
	r := proto.Clone(rolling()).(*fleetv1.Rollout)
	r.Phase, r.Reason, r.Wave = phase, reason, wave
	if change != nil {
		change(r)
	}
	return r
}

func soaking() *fleetv1.Rollout {
	return standingAt("Soaking", "", 1, func(r *fleetv1.Rollout) {
		r.Since = ago(12 * time.Minute)
		w := r.GetWaves()[1]
		w.Done, w.Underway, w.SoakUntil = 9, 0, later(18*time.Minute)
		r.Clusters = r.GetClusters()[2:3]
	})
}

func held() *fleetv1.Rollout {
	return standingAt("Holding", "wave early: 2 failed, 1 is allowed", 1, func(r *fleetv1.Rollout) {
		r.Since, r.Waves[1].Failed, r.Waves[1].Underway = ago(5*time.Minute), 2, 2
		r.Clusters[3].Mark, r.Clusters[3].Phase, r.Clusters[3].Reason = "Failed", "Refused", "overlay: patch replicas.yaml finds no Deployment cache"
	})
}

func awaiting() *fleetv1.Rollout {
	return standingAt("AwaitingApproval", "wave everyone waits for the approval of vendor", 2, func(r *fleetv1.Rollout) {
		r.Since = ago(2 * time.Hour)
		r.Waves[1] = &fleetv1.RolloutWave{Name: "early", Clusters: 12, Done: 9, Failed: 1, Parked: 2, Budget: 1}
		r.Clusters = append(r.GetClusters()[:3:3], r.GetClusters()[6:]...)
	})
}

func returned() *fleetv1.Rollout {
	return standingAt("RolledBack", "undone by operator admin: loses orders", 1, func(r *fleetv1.Rollout) {
		r.Since, r.Joiners = ago(10*time.Minute), 0
		r.Waves[1].Underway, r.Waves[1].Done, r.Waves[0].Done = 0, 0, 0
		for _, m := range r.GetClusters() {
			if m.GetMark() == "Done" || m.GetMark() == "Underway" {
				m.Mark = "Returned"
			}
		}
		r.Clusters[3].Mark, r.Clusters[3].Reason = "ReturnFailed", "1.3.0 does not become healthy any more: Deployment shop/database: CrashLoopBackOff"
	})
}

func completed() *fleetv1.Rollout {
	return standingAt("Completed", "", 2, func(r *fleetv1.Rollout) {
		r.Joiners = 0
		r.Since = ago(26 * time.Hour)
		r.Waves[1] = &fleetv1.RolloutWave{Name: "early", Clusters: 12, Done: 12, Budget: 1}
		r.Waves[2].Done = 26
		r.Clusters = r.GetClusters()[:2]
	})
}

// crowd is a rollout of many clusters in many waves.
func crowd(waves, each int) *fleetv1.Rollout {
	r := rolling()
	r.Waves, r.Clusters, r.Wave, r.Plan = nil, nil, uint32(waves/2), nil
	marks := []string{"Underway", "Failed", "Parked", "Done", "Returning", "ReturnFailed", "Offered"}
	for w := range waves {
		wave := &fleetv1.RolloutWave{Name: fmt.Sprintf("ring-%02d", w), Clusters: uint32(each)}
		for i := range each {
			if w > int(r.Wave) {
				break
			}
			m := &fleetv1.RolloutCluster{Cluster: fmt.Sprintf("provider-%03d/cluster-%02d", i, w), Wave: int32(w), Mark: marks[(i+w)%len(marks)], Phase: "Settling",
				Since: ago(time.Duration(i+1) * time.Second), Reason: strings.Repeat("because of a reason ", 4)}
			switch m.Mark {
			case "Done":
				wave.Done++
			case "Failed":
				wave.Failed++
			case "Parked":
				wave.Parked++
			case "Underway", "Offered":
				wave.Underway++
			}
			r.Clusters = append(r.Clusters, m)
		}
		r.Waves = append(r.Waves, wave)
	}
	return r
}

func TestTreesOfRollouts(t *testing.T) {
	for _, c := range []struct {
		name   string
		canvas canvas
		r      *fleetv1.Rollout
	}{
		{"tree.txt", canvas{width: 110}, rolling()},
		{"tree-pipe.txt", canvas{}, rolling()},
		{"tree-colour.txt", canvas{width: 110, colour: true}, rolling()},
		{"tree-80.txt", canvas{width: 80, height: 24}, rolling()},
		{"tree-narrow.txt", canvas{width: 40, height: 24}, rolling()},
		{"tree-low.txt", canvas{width: 100, height: 9}, rolling()},
		{"tree-crowd.txt", canvas{width: 100, height: 20}, crowd(12, 200)},
		{"tree-soaking.txt", canvas{width: 110}, soaking()},
		{"tree-holding.txt", canvas{width: 110}, held()},
		{"tree-approval.txt", canvas{width: 110}, awaiting()},
		{"tree-rolledback.txt", canvas{width: 110}, returned()},
		{"tree-completed.txt", canvas{width: 110}, completed()},
		{"tree-empty.txt", canvas{width: 110}, &fleetv1.Rollout{Distribution: "shop", Version: "1.0.0", Phase: "Completed", Since: ago(time.Hour), Reason: "nobody subscribes to it"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.canvas.now = moment
			golden(t, c.name, []byte(strings.Join(c.canvas.tree(c.r), "\n")+"\n"))
		})
	}
}

func TestATreeFitsTheScreen(t *testing.T) {
	for _, r := range []*fleetv1.Rollout{rolling(), held(), awaiting(), completed(), crowd(1, 500), crowd(3, 50), crowd(40, 3)} {
		for width := 20; width <= 200; width += 13 {
			for height := 4; height <= 60; height += 5 {
				lines := canvas{width: width, height: height, now: moment, colour: width%2 == 0}.tree(r)
				if len(lines) > height {
					t.Errorf("%s: %d lines on %d", r.GetPhase(), len(lines), height)
				}
				for _, l := range lines {
					if n := columnsOf(l); n > width {
						t.Errorf("%s: %d columns on %d: %q", r.GetPhase(), n, width, l)
					}
				}
			}
		}
	}
}

func TestATreeNamesTheWorstFirst(t *testing.T) {
	text := strings.Join(canvas{width: 120, height: 14, now: moment}.tree(crowd(1, 100)), "\n")
	if !strings.Contains(text, "ReturnFailed") || strings.Contains(text, "Parked") {
		t.Errorf("what could not be brought back comes before what is parked:\n%s", text)
	}
	if !strings.Contains(text, "clusters more") {
		t.Errorf("it does not say that there are more:\n%s", text)
	}
}

func TestABarTellsTheTruth(t *testing.T) {
	c := canvas{}
	for _, k := range []struct {
		n    count
		want string
	}{
		{count{}, "──────────"},
		{count{total: 10_000, done: 9_999}, "━━━━━━━━━─"},
		{count{total: 10_000, done: 10_000}, "━━━━━━━━━━"},
		{count{total: 10_000, done: 9_998, failed: 1}, "━━━━━━━━━×"},
		{count{total: 10_000, done: 9_999, failed: 1}, "━━━━━━━━━×"},
		{count{total: 3, done: 1, underway: 1, failed: 1}, "━━━━╍╍╍×××"},
		{count{total: 4, done: 1, underway: 1, parked: 1}, "━━╍╍··────"},
		{count{total: 10_000, underway: 1}, "╍─────────"},
	} {
		if got := c.bar(k.n, 10); got != k.want {
			t.Errorf("%+v: %s, want %s", k.n, got, k.want)
		}
	}
}

func TestWhatOthersReportDoesNotSteerTheTerminal(t *testing.T) {
	r := rolling()
	r.Reason = "\x1b[2Jgone\u202e"
	r.Clusters[2].Reason = "a\x1b]0;title\x07b\nc"
	r.Waves[0].Name = "can\x1bary"
	for _, l := range append(canvas{width: 100, now: moment}.tree(r), differences(nil, r, moment)...) {
		if strings.ContainsAny(l, "\x1b\x07\n\u202e") {
			t.Errorf("a line carries what steers: %q", l)
		}
	}
}

func TestDifferencesAreAllThatIsSaid(t *testing.T) {
	first := rolling()
	second := proto.Clone(first).(*fleetv1.Rollout)
	second.Waves[1].Underway, second.Waves[1].Done = 2, 7
	second.Clusters[4].Mark, second.Clusters[4].Reason = "Done", ""
	second.Clusters[7].Reason = "silent for 4h"
	third := held()
	third.Id = second.Id
	var b strings.Builder
	for _, step := range [][2]*fleetv1.Rollout{{nil, first}, {first, first}, {first, second}, {second, third}, {third, awaiting()}} {
		b.WriteString("--\n")
		for _, l := range differences(step[0], step[1], moment) {
			b.WriteString(l + "\n")
		}
	}
	golden(t, "differences.txt", []byte(b.String()))
}

func TestSpans(t *testing.T) {
	for d, want := range map[time.Duration]string{-time.Second: "0s", 45 * time.Second: "45s", 12 * time.Minute: "12m", time.Hour: "1h", 90 * time.Minute: "1h30m", 47 * time.Hour: "47h", 72 * time.Hour: "3d"} {
		if got := span(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000"} {
		if got := thousands(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
