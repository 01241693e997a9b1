package conductor

import (
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/rollout"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

const heartbeat = 10 * time.Second

func judged(versions ...string) []fleet.Release {
	var rs []fleet.Release
	for _, v := range versions {
		r := fleet.Release{Distribution: "shop", Version: strings.TrimSuffix(v, "!"), Phase: fleet.Available}
		if strings.HasSuffix(v, "!") {
			r.Phase, r.Variants = fleet.Rejected, []fleet.VariantResult{{Name: "app", Reasons: []string{"image backend:latest", "another"}}}
		}
		rs = append(rs, r)
	}
	return rs
}

// offeringOf lays judged releases, each but the named with a completed rollout, under what change makes of
// the shelf.
func offeringOf(releases []fleet.Release, change func(*stock, *shelf)) *offering {
	s := &stock{watched: true, distribution: fleet.Distribution{Name: "shop"}, releases: map[string]fleet.Release{}, trying: map[string]time.Time{}}
	at := &shelf{recalls: map[string]fleet.Recall{}, pins: map[fleet.Cluster]fleet.HubPin{}, decisions: map[fleet.Cluster]fleet.HubDecision{}}
	for n, r := range releases {
		if r.Phase != fleet.Available {
			s.rejected = append(s.rejected, r)
			continue
		}
		s.releases[r.Version], s.versions = r, append(s.versions, r.Version)
		at.rollouts = append(at.rollouts, rollout.State{ID: uint64(n + 1), Distribution: "shop", Version: r.Version, Phase: fleet.RolloutCompleted})
	}
	if change != nil {
		change(s, at)
	}
	return lay(s, at)
}

func shop(releases []fleet.Release) map[string]*offering {
	return map[string]*offering{"shop": offeringOf(releases, nil)}
}

// Law 6: no success from the absence of news.
func TestStatusWords(t *testing.T) {
	pin := func(v string) fleet.Policy { return fleet.Policy{Pin: &fleet.Pin{Version: v, Source: "overlay"}} }
	running := func(v string, p fleet.Policy) fleet.Installation {
		return fleet.Installation{Distribution: "shop", Policy: p, Running: v, Target: v, Phase: fleet.Succeeded, Health: fleet.Healthy}
	}
	in := func(phase fleet.Phase, target, reason string) fleet.Installation {
		return fleet.Installation{Distribution: "shop", Running: "1.1.0", Target: target, Phase: phase, Reason: reason, Health: fleet.Healthy}
	}
	degraded := running("1.2.0", fleet.Policy{})
	degraded.Health = fleet.Degraded
	silent := running("1.2.0", fleet.Policy{})
	silent.Health = ""
	declined := running("1.1.0", fleet.Policy{})
	declined.Reason = "approval wanted"
	declinedBy := in(fleet.Refused, "1.2.0", "rejected by its provider: busy")
	declinedBy.Declined = true
	pinnedAway := in(fleet.RolledBack, "1.2.0", "database: down")
	pinnedAway.Policy = pin("1.1.0")
	led, gate := in(fleet.Progressing, "1.2.0", "step 2 of 5 (backend 33 %)"), in(fleet.AwaitingApproval, "1.2.0", "step 2 of 5 passed; asks before more traffic")
	led.Canary = &fleet.Canary{Step: 2, Steps: 5, Traffic: []fleet.Traffic{{Service: "backend", Weight: 33}}}
	gate.Canary = &fleet.Canary{Step: 2, Steps: 5, Gate: fleet.GateIncrease}
	long := "database: ImagePullBackOff: Back-off pulling image \"example.com/database:1.2.0\" on node one"

	for _, c := range []struct {
		name      string
		i         fleet.Installation
		heard     time.Duration
		desired   string
		phase     string
		health    fleet.Health
		class     class
		attention bool
	}{
		{"runs the highest", running("1.2.0", fleet.Policy{}), 0, "1.2.0", "Succeeded", fleet.Healthy, upToDate, false},
		{"the provider is asked", in(fleet.AwaitingApproval, "1.2.0", "it deletes 9 of 20 objects"), 0, "1.2.0", "AwaitingApproval(provider)", fleet.Healthy, progressing, true},
		{"runs it, and it is ill", degraded, 0, "1.2.0", "Succeeded", fleet.Degraded, upToDate, true},
		{"no word about health is no health", silent, 0, "1.2.0", "Succeeded", fleet.HealthUnknown, upToDate, false},
		{"three heartbeats are not stale yet", running("1.2.0", fleet.Policy{}), 30 * time.Second, "1.2.0", "Succeeded", fleet.Healthy, upToDate, false},
		{"stale after that, and never healthy", running("1.2.0", fleet.Policy{}), 31 * time.Second, "1.2.0", "Stale(31s)", fleet.HealthUnknown, stale, true},
		{"stale wins over all", in(fleet.RolledBack, "1.2.0", "x"), 2 * time.Hour, "1.2.0", "Stale(2h)", fleet.HealthUnknown, stale, true},
		{"its turn", running("1.1.0", fleet.Policy{}), 0, "1.2.0", "Offered(1.2.0)", fleet.Healthy, progressing, false},
		{"declined", declined, 0, "1.2.0", "Offered(1.2.0)", fleet.Healthy, progressing, true},
		{"first install", fleet.Installation{Distribution: "shop"}, 0, "1.2.0", "Offered(1.2.0)", fleet.HealthUnknown, progressing, false},
		{"out of range is not behind", running("1.1.0", fleet.Policy{Range: "~1.1"}), 0, "1.1.0", "Succeeded", fleet.Healthy, upToDate, false},
		{"pinned below", running("1.1.0", pin("1.1.0")), 0, "1.1.0", "Pinned(1.1.0)", fleet.Healthy, pinned, false},
		{"pinned at the top", running("1.2.0", pin("1.2.0")), 0, "1.2.0", "Succeeded", fleet.Healthy, upToDate, false},
		{"on its way to a pin", running("1.2.0", pin("1.1.0")), 0, "1.1.0", "Offered(1.1.0)", fleet.Healthy, progressing, false},
		{"a pin that is not there", running("1.1.0", pin("3.0.0")), 0, "", "Pinned(3.0.0 not on offer)", fleet.Healthy, pinned, true},
		{"pinned after a rollback", pinnedAway, 0, "1.1.0", "Pinned(1.1.0)", fleet.Healthy, pinned, false},
		{"nothing in range", fleet.Installation{Distribution: "shop", Policy: fleet.Policy{Range: ">=9"}}, 0, "", "AwaitingRelease(vendor)", fleet.HealthUnknown, idle, false},
		{"settling", in(fleet.Settling, "1.2.0", ""), 0, "1.2.0", "Settling(1.2.0)", fleet.Healthy, progressing, false},
		{"led live traffic", led, 0, "1.2.0", "Progressing(1.2.0 step 2/5, backend 33 %)", fleet.Healthy, progressing, false},
		{"at a gate of its canary", gate, 0, "1.2.0", "AwaitingApproval(provider)", fleet.Healthy, progressing, true},
		{"to be led live traffic", in(fleet.Progressing, "1.2.0", ""), 0, "1.2.0", "Progressing(1.2.0)", fleet.Healthy, progressing, false},
		{"fetching", in(fleet.Fetching, "1.2.0", ""), 0, "1.2.0", "Fetching(1.2.0)", fleet.Healthy, progressing, false},
		{"rolling back", in(fleet.RollingBack, "1.2.0", "database: down"), 0, "1.2.0", "RollingBack(database: down)", fleet.Healthy, progressing, false},
		{"rolled back", in(fleet.RolledBack, "1.2.0", long), 0, "1.2.0", "RolledBack(database: ImagePullBackOff: Back-off pulling image \"example…)", fleet.Healthy, failed, true},
		{"refused", in(fleet.Refused, "1.2.0", "dry run:\nno such kind"), 0, "1.2.0", "Refused(dry run: no such kind)", fleet.Healthy, failed, true},
		{"declined by its provider", declinedBy, 0, "1.2.0", "Declined(rejected by its provider: busy)", fleet.Healthy, idle, false},
		{"rollback failed", in(fleet.RollbackFailed, "1.2.0", ""), 0, "1.2.0", "RollbackFailed(1.2.0)", fleet.Healthy, failed, true},
		{"config in error", in(fleet.AwaitingConfig, "", "overlay: no such file"), 0, "1.2.0", "AwaitingConfig(provider)", fleet.Healthy, failed, true},
		{"watched no more", fleet.Installation{Distribution: "other", Running: "1.1.0", Policy: pin("1.1.0"), Phase: fleet.Succeeded, Health: fleet.Healthy}, 0, "", "Succeeded", fleet.Healthy, upToDate, false},
		{"not this hub's", fleet.Installation{Distribution: "other"}, 0, "", "UnknownDistribution", fleet.HealthUnknown, failed, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := Fleet{
				Clusters:      []ClusterNews{{Name: "acme/eu-1", Joined: now.Add(-24 * time.Hour), LastSeen: now.Add(-c.heard)}},
				Installations: map[fleet.Cluster][]fleet.Installation{"acme/eu-1": {c.i}},
				Offerings:     shop(judged("1.0.0", "1.1.0", "1.2.0", "2.0.0-rc.1")),
			}
			screen := Screen(now, heartbeat, "", 0, f)
			rows, sums := screen.Rows, screen.Summaries
			if len(rows) != 1 || len(sums) != 1 {
				t.Fatalf("got %d rows and %d summaries, want 1 and 1", len(rows), len(sums))
			}
			r := rows[0]
			if r.DesiredVersion != c.desired || r.Phase != c.phase || r.Health != string(c.health) || r.Attention != c.attention {
				t.Errorf("got desired %q, %s, %s, attention %v; want %q, %s, %s, %v",
					r.DesiredVersion, r.Phase, r.Health, r.Attention, c.desired, c.phase, c.health, c.attention)
			}
			if r.Stale != (c.class == stale) || r.RawPhase != string(c.i.Phase) {
				t.Errorf("stale %v, raw phase %q", r.Stale, r.RawPhase)
			}
			want := &fleetv1.DistributionSummary{}
			if c.i.Distribution == "shop" {
				c.class.count(want)
			}
			got := sums[0]
			if got.Clusters != want.Clusters || got.UpToDate != want.UpToDate || got.Progressing != want.Progressing ||
				got.Pinned != want.Pinned || got.Failed != want.Failed || got.Stale != want.Stale {
				t.Errorf("summary: got %v, want %v", got, want)
			}
		})
	}
}

// What the hub does not serve wants a person, whatever it ran when it was last heard.
func TestStatusOfIdentitiesThatAreNotServed(t *testing.T) {
	key := fleet.Fingerprint{1, 2, 3}
	news := func(name fleet.Cluster, s store.Standing) ClusterNews {
		return ClusterNews{Name: name, Joined: now.Add(-time.Hour), LastSeen: now, Standing: s, StandingWhy: "two copies", Key: key}
	}
	f := Fleet{
		Clusters: []ClusterNews{news("acme/eu-1", store.Accepted), news("acme/eu-2", store.Pending), news("acme/eu-3", store.Quarantined), news("acme/eu-4", store.Quarantined),
			news("acme/eu-5", store.Rejected)},
		Installations: map[fleet.Cluster][]fleet.Installation{"acme/eu-4": {{Distribution: "shop", Running: "1.0.0", Phase: fleet.Succeeded, Health: fleet.Healthy}}},
		Offerings:     map[string]*offering{"shop": offeringOf(nil, nil)},
	}
	for i, want := range []struct {
		phase, reason string
		attention     bool
	}{
		{"NoSubscription", "spoke.yaml", false},
		{"AwaitingAcceptance(vendor)", "`hub cluster accept acme/eu-2 --fingerprint " + key.String() + "`", true},
		{"Quarantined", "two copies", true},
		{"Quarantined", "hub cluster invite acme/eu-4", true},
		{"Rejected(vendor)", "hub cluster invite acme/eu-5", false},
	} {
		r := Screen(now, heartbeat, "", 0, f).Rows[i]
		if r.Phase != want.phase || r.Attention != want.attention || !strings.Contains(r.Reason, want.reason) || r.Health != "Unknown" {
			t.Errorf("got %v, want %v", r, want)
		}
	}
}

func TestStatusOfClustersWithoutInstallations(t *testing.T) {
	f := Fleet{
		Clusters: []ClusterNews{
			{Name: "acme/eu-0", Joined: now.Add(-time.Second)},
			{Name: "acme/eu-1", Joined: now.Add(-time.Hour), LastSeen: now, Labels: map[string]string{"env": "dev"}},
			{Name: "beta/one", Joined: now.Add(-time.Hour)},
			{Name: "zeta/one"},
		},
		Installations: map[fleet.Cluster][]fleet.Installation{"acme/eu-0": {{Distribution: "web"}, {Distribution: "shop"}}},
		Offerings:     map[string]*offering{"shop": offeringOf(nil, nil), "web": offeringOf(nil, nil)},
	}
	rows := Screen(now, heartbeat, "", 0, f).Rows
	var got []string
	for _, r := range rows {
		got = append(got, r.Cluster+" "+r.Distribution+" "+r.Phase)
	}
	want := "acme/eu-0 shop AwaitingRelease(vendor)|acme/eu-0 web AwaitingRelease(vendor)|acme/eu-1  NoSubscription|beta/one  Stale(1h)|zeta/one  NotJoined"
	if s := strings.Join(got, "|"); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
	for _, r := range rows {
		if r.Health != "Unknown" {
			t.Errorf("%s: health %s, want Unknown", r.Cluster, r.Health)
		}
	}
	web := Screen(now, heartbeat, "web", 0, f)
	rows, sums := web.Rows, web.Summaries
	if len(rows) != 1 || rows[0].Distribution != "web" || len(sums) != 1 || sums[0].Distribution != "web" {
		t.Errorf("narrowed to web: got %v, %v", rows, sums)
	}
}

// Law 6 holds in a hub that has just started too, without an alarm for each of its spokes.
func TestSpokesHaveTimeToComeBackToARestartedHub(t *testing.T) {
	well := fleet.Installation{Distribution: "shop", Running: "1.0.0", Target: "1.0.0", Phase: fleet.Succeeded, Health: fleet.Healthy}
	ill := fleet.Installation{Distribution: "shop", Running: "1.0.0", Target: "1.1.0", Phase: fleet.RolledBack, Reason: "database: down", Health: fleet.Healthy}
	for _, c := range []struct {
		name              string
		started, heard    time.Duration // ago
		i                 fleet.Installation
		phase             string
		stale, attention  bool
		emptyPhase, words string
	}{
		{"just started", 5 * time.Second, time.Hour, well, "Reconnecting", false, false, "Reconnecting", "started 5s ago"},
		{"trouble of before is not forgotten", 5 * time.Second, time.Hour, ill, "Reconnecting", false, true, "Reconnecting", "database: down"},
		{"had its time", 31 * time.Second, time.Hour, well, "Stale(1h)", true, true, "Stale(1h)", "nothing heard"},
		{"silent since it came back", 40 * time.Second, 35 * time.Second, well, "Stale(35s)", true, true, "Stale(35s)", "nothing heard"},
		{"is back", 5 * time.Second, time.Second, well, "Succeeded", false, false, "NoSubscription", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := Fleet{
				Since: now.Add(-c.started),
				Clusters: []ClusterNews{{Name: "acme/eu-1", Joined: now.Add(-24 * time.Hour), LastSeen: now.Add(-c.heard)},
					{Name: "acme/eu-2", Joined: now.Add(-24 * time.Hour), LastSeen: now.Add(-c.heard)}},
				Installations: map[fleet.Cluster][]fleet.Installation{"acme/eu-1": {c.i}},
				Offerings:     shop(judged("1.0.0")),
			}
			screen := Screen(now, heartbeat, "", 0, f)
			rows, sums := screen.Rows, screen.Summaries
			r := rows[0]
			if r.Phase != c.phase || r.Stale != c.stale || r.Attention != c.attention || !strings.Contains(r.Reason, c.words) {
				t.Errorf("got %s, stale %v, attention %v, %q", r.Phase, r.Stale, r.Attention, r.Reason)
			}
			if (r.Health == "Healthy") != (c.phase == "Succeeded") || (sums[0].UpToDate == 1) != (c.phase == "Succeeded") {
				t.Errorf("got health %s and %v", r.Health, sums[0])
			}
			if rows[1].Phase != c.emptyPhase || rows[1].Attention != c.stale {
				t.Errorf("without a subscription: got %s, attention %v", rows[1].Phase, rows[1].Attention)
			}
		})
	}
}

func TestSummaryNamesRejectedReleasesAboveTheLatest(t *testing.T) {
	s := Screen(now, heartbeat, "", 0, Fleet{Offerings: shop(judged("0.9.0!", "1.0.0", "1.1.0!"))}).Summaries[0]
	if s.Latest != "1.0.0" || len(s.Rejected) != 1 || s.Rejected[0] != "1.1.0: app: image backend:latest (and 1 more)" {
		t.Errorf("got %v", s)
	}
}
