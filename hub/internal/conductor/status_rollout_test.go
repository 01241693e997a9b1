package conductor

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/wheelwright-dev/wheelwright/hub/internal/rollout"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/plan"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

const eu1 = fleet.Cluster("acme/eu-1")

// underWay is a rollout in its first wave, with eu1 as a test wants it.
func underWay(version string, m rollout.Member) rollout.State {
	return rollout.State{ID: 100, Distribution: "shop", Version: version, Phase: fleet.RolloutSoaking, Since: now.Add(-5 * time.Minute), Reason: "soaking",
		Plan:    plan.Plan{Waves: []plan.Wave{{Name: "canary"}, {Name: "production"}}},
		Waves:   []rollout.Wave{{Name: "canary", Started: now.Add(-10 * time.Minute), SoakUntil: now.Add(20 * time.Minute)}, {Name: "production"}},
		Members: map[fleet.Cluster]rollout.Member{eu1: m}}
}

// under replaces what there is of the version by a rollout that is not over.
func under(r rollout.State) func(*stock, *shelf) {
	return func(_ *stock, at *shelf) {
		at.rollouts = slices.DeleteFunc(at.rollouts, func(o rollout.State) bool { return o.Version == r.Version })
		at.rollouts = append(at.rollouts, r)
	}
}

func recalled(version, reason string) func(*stock, *shelf) {
	return func(_ *stock, at *shelf) {
		at.recalls[version] = fleet.Recall{Distribution: "shop", Version: version, Reason: reason, By: "operator admin", At: now.Add(-time.Minute), RollBack: true}
	}
}

func berlin(t *testing.T, text string) fleet.Windows {
	t.Helper()
	w, err := fleet.ParseWindow(text)
	if err != nil {
		t.Fatal(err)
	}
	return fleet.Windows{w}
}

// now is Friday, 1 May 2026, 12:00 UTC.
func TestStatusWordsOfRollouts(t *testing.T) {
	runs := func(v string) fleet.Installation {
		return fleet.Installation{Distribution: "shop", Running: v, Target: v, Phase: fleet.Succeeded, Health: fleet.Healthy}
	}
	with := func(i fleet.Installation, change func(*fleet.Installation)) fleet.Installation {
		change(&i)
		return i
	}
	pinned := func(v string, until time.Time, source string) func(*fleet.Installation) {
		return func(i *fleet.Installation) {
			i.Policy.Pin = &fleet.Pin{Version: v, Source: source, Until: until}
		}
	}
	stops := func(version string, stops ...string) func(*stock, *shelf) {
		return func(s *stock, _ *shelf) {
			r := s.releases[version]
			r.Stops = stops
			s.releases[version] = r
		}
	}
	both := func(changes ...func(*stock, *shelf)) func(*stock, *shelf) {
		return func(s *stock, at *shelf) {
			for _, c := range changes {
				c(s, at)
			}
		}
	}
	later := rollout.Member{Wave: 1, Mark: fleet.MarkWaiting}
	turn := rollout.Member{Wave: 0, Mark: fleet.MarkOffered, Offered: now.Add(-time.Minute), Before: "1.1.0"}
	back := turn
	back.Mark, back.Before = fleet.MarkReturning, "1.1.0"

	for _, c := range []struct {
		name      string
		i         fleet.Installation
		change    func(*stock, *shelf)
		desired   string
		phase     string
		attention bool
		reason    string
		would     string
	}{
		{"its wave comes later", runs("1.1.0"), under(underWay("1.2.0", later)), "1.1.0", "Waiting(wave 2)", false, "wave 2 of 2, production", ""},
		{"its wave comes later, for a first install", fleet.Installation{Distribution: "shop", Policy: fleet.Policy{Range: ">=1.2.0"}}, under(underWay("1.2.0", later)), "", "Waiting(wave 2)", false, "wave 2 of 2", ""},
		{"in no wave", runs("1.1.0"), func(s *stock, at *shelf) {
			r := underWay("1.2.0", later)
			r.Members, r.LeftOut = nil, []fleet.Cluster{eu1}
			under(r)(s, at)
		}, "1.1.0", "Waiting(rollout)", false, "in no wave", ""},
		{"in no wave and not in its range", with(runs("1.1.0"), func(i *fleet.Installation) { i.Policy.Range = "~1.1" }), func(s *stock, at *shelf) {
			r := underWay("1.2.0", later)
			r.Members, r.LeftOut = nil, []fleet.Cluster{eu1}
			under(r)(s, at)
		}, "1.1.0", "Succeeded", false, "", ""},
		{"its turn has come", runs("1.1.0"), under(underWay("1.2.0", turn)), "1.2.0", "Offered(1.2.0)", false, "", ""},
		{"its spoke says what it wants", with(runs("1.1.0"), func(i *fleet.Installation) { i.Wants = "1.1.0"; i.Reason = "1.2.0 is held" }), nil, "1.1.0", "Offered(1.2.0)", true, "held", ""},
		{"has it", runs("1.2.0"), under(underWay("1.2.0", rollout.Member{Mark: fleet.MarkDone})), "1.2.0", "Succeeded", false, "", ""},
		{"pinned for a while", with(runs("1.1.0"), pinned("1.1.0", time.Date(2027, 1, 31, 0, 0, 0, 0, time.UTC), fleet.PinSpoke)), nil, "1.1.0", "Pinned(1.1.0 until 2027-01-31)", false, "", "1.2.0"},
		{"pinned, and its turn is still to come", with(runs("1.1.0"), pinned("1.1.0", time.Time{}, fleet.PinSpoke)), under(underWay("1.2.0", later)), "1.1.0", "Pinned(1.1.0)", false, "", ""},
		{"pinned for hours", with(runs("1.1.0"), pinned("1.1.0", now.Add(2*time.Hour), fleet.PinSpoke)), nil, "1.1.0", "Pinned(1.1.0 until Fri 14:00 UTC)", false, "", "1.2.0"},
		{"the pin is over", with(runs("1.1.0"), pinned("1.1.0", now, fleet.PinSpoke)), nil, "1.2.0", "Offered(1.2.0)", false, "", ""},
		{"pinned to what was recalled", with(runs("1.1.0"), pinned("1.2.0", time.Time{}, fleet.PinSpoke)), recalled("1.2.0", "loses orders"), "", "Pinned(1.2.0 recalled)", true, "loses orders", "1.1.0"},
		{"waits for its window", with(runs("1.1.0"), func(i *fleet.Installation) {
			i.Phase, i.Target, i.Policy.Windows = fleet.AwaitingWindow, "1.2.0", berlin(t, "Sat 22:00-04:00 Europe/Berlin")
		}), nil, "1.2.0", "AwaitingWindow(provider) until Sat 22:00 CEST", false, "", ""},
		{"runs what was recalled", runs("1.2.0"), recalled("1.2.0", "loses orders"), "1.1.0", "Recalled(1.2.0)", true, "1.2.0 was recalled: loses orders; it is to go to 1.1.0", ""},
		{"goes back from what was recalled", with(runs("1.2.0"), func(i *fleet.Installation) { i.Phase, i.Target = fleet.Fetching, "1.1.0" }), recalled("1.2.0", "x"), "1.1.0", "Fetching(1.1.0)", false, "", ""},
		{"keeps what was recalled by its pin", with(runs("1.2.0"), pinned("1.2.0", time.Time{}, fleet.PinOverlay)), recalled("1.2.0", "loses orders"), "1.2.0", "Recalled(1.2.0)", true, "the pin of overlay keeps it", "1.1.0"},
		{"failed with what was recalled since", with(runs("1.1.0"), func(i *fleet.Installation) {
			i.Phase, i.Target, i.Reason = fleet.RolledBack, "1.2.0", "database: down"
		}), recalled("1.2.0", "loses orders"), "1.1.0", "Succeeded", false, "1.2.0 was withdrawn after it failed here: loses orders", ""},
		{"is being brought back", runs("1.2.0"), func(s *stock, at *shelf) {
			r := underWay("1.2.0", back)
			r.Phase, r.End = fleet.RolloutReturning, fleet.RolloutReturned
			under(r)(s, at)
		}, "1.1.0", "Offered(1.1.0)", false, "", ""},
		{"a stop that nobody offers", runs("1.0.0"), both(stops("1.2.0", "1.1.0"), func(_ *stock, at *shelf) {
			at.rollouts = slices.DeleteFunc(at.rollouts, func(r rollout.State) bool { return r.Version == "1.1.0" })
		}), "1.0.0", "AwaitingStop(1.1.0)", true, "1.2.0 needs 1.1.0 first, which is not on offer", ""},
		{"a stop on its way", runs("1.0.0"), both(stops("1.2.0", "1.1.0"), under(underWay("1.1.0", later))), "1.0.0", "AwaitingStop(1.1.0)", false, "1.2.0 needs 1.1.0 first", ""},
		{"over a stop", runs("1.0.0"), stops("1.2.0", "1.1.0"), "1.1.0", "Offered(1.1.0)", false, "", ""},
		{"the provider is asked", with(runs("1.1.0"), func(i *fleet.Installation) { i.Policy.Minor = fleet.AskFirst }), nil, "1.2.0", "Offered(1.2.0)", false, "minor upgrade from 1.1.0 needs approval", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := Fleet{
				Clusters:      []ClusterNews{{Name: eu1, Joined: now.Add(-24 * time.Hour), LastSeen: now, Connected: true}},
				Installations: map[fleet.Cluster][]fleet.Installation{eu1: {c.i}},
				Offerings:     map[string]*offering{"shop": offeringOf(judged("1.0.0", "1.1.0", "1.2.0"), c.change)},
			}
			r := Screen(now, heartbeat, "", 0, f).Rows[0]
			if r.DesiredVersion != c.desired || r.Phase != c.phase || r.Attention != c.attention || !strings.Contains(r.Reason, c.reason) || r.Would != c.would {
				t.Errorf("got desired %q, %s, attention %v, would %q, %q; want %q, %s, %v, %q, %q",
					r.DesiredVersion, r.Phase, r.Attention, r.Would, r.Reason, c.desired, c.phase, c.attention, c.would, c.reason)
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	pin := fleet.HubPin{Cluster: eu1, Distribution: "shop", Version: "1.0.0", Author: "operator admin"}
	over := pin
	over.Until = now
	for _, c := range []struct {
		name string
		pin  *fleet.HubPin
		own  *fleet.Pin
		off  time.Duration
		want string
	}{
		{"nothing", nil, nil, 0, ""},
		{"a clock an hour ahead", nil, nil, time.Hour, "its clock is 1h0m ahead of the hub's; windows and expiries go by its own"},
		{"a clock behind", nil, nil, -90 * time.Second, "its clock is 2m behind the hub's; windows and expiries go by its own"},
		{"a pin that is followed", &pin, &fleet.Pin{Version: "1.0.0", Source: fleet.PinHub}, 0, ""},
		{"a pin that is over", &over, nil, 0, ""},
		{"a pin that is not followed", &pin, nil, 0, "pinned to 1.0.0 at the hub by operator admin, which its spoke does not follow; whether it does is for its spoke.yaml to say"},
		{"a pin under another", &pin, &fleet.Pin{Version: "1.1.0", Source: fleet.PinOverlay}, 0, "pinned to 1.0.0 at the hub by operator admin, which its spoke does not follow; its own pin of 1.1.0 (overlay) counts"},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := fleet.Installation{Distribution: "shop", Running: "1.1.0", Phase: fleet.Succeeded, Policy: fleet.Policy{Pin: c.own}}
			f := Fleet{
				Clusters:      []ClusterNews{{Name: eu1, Joined: now, LastSeen: now}},
				Installations: map[fleet.Cluster][]fleet.Installation{eu1: {i}},
				Offerings: map[string]*offering{"shop": offeringOf(judged("1.0.0", "1.1.0"), func(_ *stock, at *shelf) {
					if c.pin != nil {
						at.pins[eu1] = *c.pin
					}
				})},
			}
			if c.off != 0 {
				f.ClocksOff = map[fleet.Cluster]time.Duration{eu1: c.off}
			}
			if got := strings.Join(Screen(now, heartbeat, "", 0, f).Rows[0].Warnings, "|"); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// bigFleet is n clusters in the midst of a rollout of three waves, some of them in trouble.
func bigFleet(n int) Fleet {
	f := Fleet{Clusters: make([]ClusterNews, n), Installations: make(map[fleet.Cluster][]fleet.Installation, n)}
	r := underWay("1.2.0", rollout.Member{})
	r.Waves = append(r.Waves, rollout.Wave{Name: "rest"})
	r.Members = make(map[fleet.Cluster]rollout.Member, n)
	for k := range n {
		name := fleet.Cluster(fmt.Sprintf("acme/c-%05d", k))
		f.Clusters[k] = ClusterNews{Name: name, Joined: now.Add(-time.Hour), LastSeen: now, Connected: true, Labels: map[string]string{"env": "production"}}
		i := fleet.Installation{Distribution: "shop", Running: "1.1.0", Target: "1.1.0", Wants: "1.1.0", Phase: fleet.Succeeded, Health: fleet.Healthy, Objects: 40, Ready: 40}
		m := rollout.Member{Wave: k % 3, Mark: fleet.MarkWaiting}
		if k%3 == 0 {
			m.Mark, m.Offered, i.Wants = fleet.MarkOffered, now, "1.2.0"
		}
		if k%100 == 99 {
			i.Phase, i.Target, i.Reason = fleet.RolledBack, "1.2.0", "database: ImagePullBackOff"
		}
		r.Members[name], f.Installations[name] = m, []fleet.Installation{i}
	}
	f.Offerings = map[string]*offering{"shop": offeringOf(judged("1.0.0", "1.1.0", "1.2.0"), under(r))}
	return f
}

// With a limit, what wants a person comes first, and what is left out is counted.
func TestALimitedScreen(t *testing.T) {
	f := bigFleet(1000)
	all := Screen(now, heartbeat, "shop", 0, f)
	if len(all.Rows) != 1000 || all.Total != 1000 || all.Attention != 10 {
		t.Fatalf("got %d rows, total %d, attention %d", len(all.Rows), all.Total, all.Attention)
	}
	few := Screen(now, heartbeat, "shop", 13, f)
	if len(few.Rows) != 13 || few.Total != 1000 || few.Attention != 10 || !proto.Equal(few.Summaries[0], all.Summaries[0]) {
		t.Fatalf("got %d rows, total %d, attention %d, %v", len(few.Rows), few.Total, few.Attention, few.Summaries)
	}
	var want []*fleetv1.StatusRow
	for _, attention := range []bool{true, false} {
		for _, r := range all.Rows {
			if r.Attention == attention {
				want = append(want, r)
			}
		}
	}
	for n, r := range few.Rows {
		if !proto.Equal(r, want[n]) {
			t.Errorf("row %d: got %s, want %s", n, r.Cluster, want[n].Cluster)
		}
	}
	if one := Screen(now, heartbeat, "shop", 1, f); len(one.Rows) != 1 || !one.Rows[0].Attention {
		t.Errorf("got %v", one.Rows)
	}
}

// What is counted of all rows is what those that are shown say, however fresh their news is and however many
// processors count.
func TestWhatIsCountedIsWhatTheRowsSay(t *testing.T) {
	f := bigFleet(2*many + 100)
	f.Since = now.Add(-heartbeat)
	for n := range f.Clusters {
		c := &f.Clusters[n]
		switch n % 7 {
		case 1:
			c.LastSeen, c.Joined = now.Add(-time.Hour), now.Add(-time.Hour) // awaited
		case 2:
			c.Standing = []store.Standing{store.Pending, store.Quarantined, store.Rejected}[n%3]
		case 3:
			delete(f.Installations, c.Name)
		case 4:
			f.Installations[c.Name][0].Health = fleet.Degraded
		case 5:
			f.Installations[c.Name][0].Alarm = "a tag was moved"
		}
	}
	for _, since := range []time.Time{f.Since, now.Add(-time.Hour)} { // the spokes have time to connect, and had it
		f.Since = since
		all := Screen(now, heartbeat, "", 0, f)
		attention, last := uint32(0), ""
		for _, r := range all.Rows {
			if r.Attention {
				attention++
			}
			if r.Cluster <= last {
				t.Fatalf("%s comes after %s", r.Cluster, last)
			}
			last = r.Cluster
		}
		few := Screen(now, heartbeat, "", 20, f)
		if len(all.Rows) != len(f.Clusters) || attention == 0 || all.Attention != attention || few.Attention != attention || few.Total != all.Total {
			t.Errorf("%d rows, of which %d want a person; counted %d and %d, and %d and %d with a limit", len(all.Rows), attention, all.Total, all.Attention, few.Total, few.Attention)
		}
		sum := all.Summaries[0]
		stale := uint32(0)
		for _, r := range all.Rows {
			if r.Distribution != "" && (r.Stale || r.Phase == quarantined || r.Phase == awaitingAcceptance || r.Phase == turnedAway) {
				stale++
			}
		}
		if sum.Stale != stale || stale == 0 || !proto.Equal(sum, few.Summaries[0]) {
			t.Errorf("%d stale, want %d; with a limit %v, want %v", sum.Stale, stale, few.Summaries[0], sum)
		}
	}
}

func BenchmarkScreenOf10000Clusters(b *testing.B) {
	f := bigFleet(10_000)
	b.ReportAllocs()
	for b.Loop() {
		Screen(now, heartbeat, "", 50, f)
	}
}
