package conductor

import (
	"fmt"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/rollout"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// What one subscription counts as, for 1.2.0 of 1.0.0, 1.1.0 and 1.2.0.
func TestWhatCountsForARelease(t *testing.T) {
	runs := func(v string) fleet.Installation {
		return fleet.Installation{Distribution: "shop", Running: v, Target: v, Phase: fleet.Succeeded, Health: fleet.Healthy}
	}
	in := func(phase fleet.Phase) fleet.Installation {
		return fleet.Installation{Distribution: "shop", Running: "1.1.0", Target: "1.2.0", Phase: phase}
	}
	policy := func(i fleet.Installation, p fleet.Policy) fleet.Installation {
		i.Policy = p
		return i
	}
	declined := in(fleet.Refused)
	declined.Declined = true
	pin := fleet.Policy{Pin: &fleet.Pin{Version: "1.1.0", Source: "overlay"}}
	ended := fleet.Policy{Pin: &fleet.Pin{Version: "1.1.0", Source: "overlay", Until: now.Add(-time.Hour)}}
	narrowPin := fleet.Policy{Range: "~1.1", Pin: &fleet.Pin{Version: "1.1.0", Source: "overlay"}}
	phase := func(p fleet.RolloutPhase) func(*stock, *shelf) {
		r := underWay("1.2.0", rollout.Member{Wave: 1, Mark: fleet.MarkWaiting})
		r.Phase = p
		return under(r)
	}
	for _, c := range []struct {
		name   string
		i      fleet.Installation
		heard  time.Duration
		change func(*stock, *shelf)
		want   string
	}{
		{"runs it", runs("1.2.0"), 0, nil, "Succeeded"},
		{"runs it and fell silent", runs("1.2.0"), time.Hour, nil, "Succeeded"},
		{"is offered it", runs("1.1.0"), 0, nil, fleet.CountOffered},
		{"has nothing yet", fleet.Installation{Distribution: "shop"}, 0, nil, fleet.CountOffered},
		{"its turn comes", runs("1.1.0"), 0, phase(fleet.RolloutSoaking), fleet.CountWaiting},
		{"its turn would come, were the rollout not over", runs("1.1.0"), 0, phase(fleet.RolloutAborted), ""},
		{"goes back", runs("1.1.0"), 0, phase(fleet.RolloutReturning), ""},
		{"recalled", runs("1.1.0"), 0, recalled("1.2.0", "bad"), ""},
		{"recalled where it runs", runs("1.2.0"), 0, recalled("1.2.0", "bad"), "Succeeded"},
		{"takes it", in(fleet.Fetching), 0, nil, "Fetching"},
		{"takes it still", in(fleet.Settling), 0, phase(fleet.RolloutAborted), "Settling"},
		{"takes it and fell silent", in(fleet.Settling), time.Hour, nil, fleet.CountSilent},
		{"is offered it and fell silent", runs("1.1.0"), time.Hour, nil, fleet.CountSilent},
		{"asks its provider", in(fleet.AwaitingApproval), 0, nil, "AwaitingApproval"},
		{"waits for its window", in(fleet.AwaitingWindow), 0, nil, "AwaitingWindow"},
		{"goes back by itself", in(fleet.RollingBack), 0, nil, "RollingBack"},
		{"went back", in(fleet.RolledBack), 0, nil, "RolledBack"},
		{"went back and fell silent", in(fleet.RolledBack), time.Hour, nil, "RolledBack"},
		{"refused it", in(fleet.Refused), 0, nil, "Refused"},
		{"is broken", in(fleet.RollbackFailed), 0, nil, "RollbackFailed"},
		{"its provider said no", declined, 0, nil, fleet.CountDeclined},
		{"pinned below", policy(runs("1.1.0"), pin), 0, nil, fleet.CountPinned},
		{"pinned below, before its turn", policy(runs("1.1.0"), pin), 0, phase(fleet.RolloutSoaking), fleet.CountPinned},
		{"pinned below and silent", policy(runs("1.1.0"), pin), time.Hour, nil, fleet.CountPinned},
		{"pinned until an hour ago", policy(runs("1.1.0"), ended), 0, nil, fleet.CountOffered},
		{"would not take it without the pin either", policy(runs("1.1.0"), narrowPin), 0, nil, ""},
		{"out of its range", policy(runs("1.1.0"), fleet.Policy{Range: "~1.1"}), 0, nil, ""},
		{"past it", runs("1.3.0"), 0, nil, ""},
		{"its configuration is in error", func() fleet.Installation { i := runs("1.1.0"); i.Phase, i.Target = fleet.AwaitingConfig, ""; return i }(), 0, nil, "AwaitingConfig"},
		{"another distribution", fleet.Installation{Distribution: "bank", Running: "1.2.0"}, 0, nil, ""},
	} {
		f := Fleet{
			Since:         now.Add(-24 * time.Hour),
			Clusters:      []ClusterNews{{Name: eu1, Joined: now.Add(-48 * time.Hour), LastSeen: now.Add(-c.heard)}},
			Installations: map[fleet.Cluster][]fleet.Installation{eu1: {c.i}},
			Offerings:     map[string]*offering{"shop": offeringOf(judged("1.0.0", "1.1.0", "1.2.0"), c.change)},
		}
		want := fleet.Tally{}
		if c.want != "" {
			want.Add(c.want)
		}
		all := standings(now, heartbeat, f, func(_, version string) bool { return version == "1.2.0" })
		if got := all[len(all)-1]; got.Version != "1.2.0" || !maps.Equal(got.Tally, want) {
			t.Errorf("%s: %s %v, want %q", c.name, got.Version, got.Tally, c.want)
		}
	}
}

// A hub that has just started counts what was said before: nobody is silent yet.
func TestNobodyIsSilentToAHubThatHasJustStarted(t *testing.T) {
	f := Fleet{
		Since:         now.Add(-time.Second),
		Clusters:      []ClusterNews{{Name: eu1, Joined: now.Add(-48 * time.Hour), LastSeen: now.Add(-time.Hour)}},
		Installations: map[fleet.Cluster][]fleet.Installation{eu1: {{Distribution: "shop", Running: "1.0.0", Target: "1.1.0", Phase: fleet.Settling}}},
		Offerings:     shop(judged("1.0.0", "1.1.0")),
	}
	if all := standings(now, heartbeat, f, nil); len(all) != 1 || all[0].Tally["Settling"] != 1 {
		t.Errorf("got %v", all)
	}
}

// Which releases are counted, and what they come to, over a fleet that takes one release after the other.
func TestStandingsOfAFleet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := gather(t, 5, "")
		told := map[string]bool{}
		want := func(when string, lines ...string) {
			t.Helper()
			all, err := p.Standings(time.Now(), func(_, version string) bool { return told[version] })
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, s := range all {
				got = append(got, fmt.Sprintf("%s %s %t: %s", s.Version, s.State, s.Over, s.Tally.Brief(s.Version, 0)))
				if s.Distribution != "shop" || s.Repository == "" {
					t.Errorf("%s: %+v", when, s)
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(lines) {
				t.Errorf("%s:\ngot  %q\nwant %q", when, got, lines)
			}
		}
		want("the first", "1.0.0 Done false: 5 of 5 clusters run 1.0.0")
		p.breaks["1.1.0"] = true
		p.see(t, tag("1.1.0", "b"))
		told["1.0.0"] = true
		p.settled(t)
		want("a bad one", "1.0.0 Done true: 5 of 5 clusters run 1.0.0", "1.1.0 Failed false: 0 of 5 clusters run 1.1.0; 5 RolledBack")
		p.see(t, tag("1.2.0", "c"))
		p.settled(t)
		delete(told, "1.0.0")
		told["1.1.0"] = true
		want("its successor", "1.1.0 Failed true: no cluster is to run 1.1.0", "1.2.0 Done false: 5 of 5 clusters run 1.2.0")
	})
}

func BenchmarkStandingsOf10000Clusters(b *testing.B) {
	f := bigFleet(10_000)
	for b.Loop() {
		standings(now, heartbeat, f, nil)
	}
}
