package conductor

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/hub/internal/rollout"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

func TestTheLatestIsOnItsWay(t *testing.T) {
	for _, c := range []struct {
		name   string
		phase  fleet.RolloutPhase
		latest string
		ended  string
	}{
		{"under way", fleet.RolloutSoaking, "1.2.0", ""},
		{"waits for an approval", fleet.RolloutApproval, "1.2.0", ""},
		{"completed", fleet.RolloutCompleted, "1.2.0", ""},
		{"undone", fleet.RolloutReturned, "1.1.0", "1.2.0: RolledBack: bad"},
		{"on its way back", fleet.RolloutReturning, "1.1.0", "1.2.0: RollingBack: 0 clusters on the way back (bad)"},
		{"aborted", fleet.RolloutAborted, "1.1.0", "1.2.0: Aborted: bad"},
		{"held", fleet.RolloutHolding, "1.1.0", "1.2.0: Holding: bad; hub rollout resume shop 1.2.0 goes on, hub rollout undo shop 1.2.0 brings it back"},
	} {
		r := underWay("1.2.0", rollout.Member{})
		r.Phase, r.Reason = c.phase, "bad"
		o := offeringOf(judged("1.0.0", "1.1.0", "1.2.0"), under(r))
		if got := strings.Join(o.ended(), "|"); o.latest() != c.latest || got != c.ended {
			t.Errorf("%s: latest %s, ended %q; want %s and %q", c.name, o.latest(), got, c.latest, c.ended)
		}
	}
	o := offeringOf(judged("1.0.0", "1.1.0", "1.2.0"), recalled("1.2.0", "loses orders"))
	if got := o.ended(); o.latest() != "1.1.0" || !slices.Equal(got, []string{"1.2.0: recalled by operator admin: loses orders"}) {
		t.Errorf("recalled: latest %s, %v", o.latest(), got)
	}
}

func TestStatusNamesWhatWaitsForAPerson(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := gather(t, 2, "")
		p.plan(t, "start: manual\nwaves: [{name: all}]")
		p.see(t, tag("1.1.0", "b"))
		p.settled(t)
		sum := func() *fleetv1.DistributionSummary {
			s, err := p.Status(time.Now(), "shop", 0)
			if err != nil {
				t.Fatal(err)
			}
			return s.Summaries[0]
		}
		if s := sum(); s.Latest != "1.0.0" || len(s.Waiting) != 1 || !strings.HasPrefix(s.Waiting[0], "1.1.0 waits for `hub rollout start shop 1.1.0`") {
			t.Errorf("not started: %v", s)
		}
		m, err := p.PlanRollout(time.Now(), "shop", "1.1.0", nil)
		if err != nil || m.State != "" {
			t.Errorf("the plan: %v %v", m.GetState(), err)
		}
		if _, err := p.StartRollout(time.Now(), vendor, "shop", "1.1.0", nil, "", false); err != nil {
			t.Fatal(err)
		}
		if s := sum(); s.Latest != "1.1.0" || len(s.Waiting) != 0 {
			t.Errorf("started: %v", s)
		}
		if m, err = p.PlanRollout(time.Now(), "shop", "1.1.0", nil); err != nil || m.State != "Progressing" {
			t.Errorf("the plan of what is under way: %v %v", m.GetState(), err)
		}
		p.settled(t)
		if m, err = p.PlanRollout(time.Now(), "shop", "1.1.0", nil); err != nil || m.State != "Completed" {
			t.Errorf("the plan of what is completed: %v %v", m.GetState(), err)
		}
		p.see(t, tag("1.0.1", "c"))
		p.settled(t)
		if s := sum(); len(s.Waiting) != 0 {
			t.Errorf("an older one: %v", s)
		}
	})
}

func TestARecallSaysWhatItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := gather(t, 3, "")
		p.see(t, tag("1.1.0", "b"))
		p.settled(t)
		dry, real := p.recall(t, "1.1.0", false, true), p.recall(t, "1.1.0", false, false)
		for _, r := range []*fleetv1.RecallReleaseResponse{dry, real} {
			if len(r.Rollouts) != 1 || r.Rollouts[0].Phase != string(fleet.RolloutCompleted) || r.Rollouts[0].Waves[0].Done != 3 {
				t.Errorf("got %v", r.Rollouts)
			}
		}
		p.wantEntry(t, "release recall", "shop 1.1.0")
		p.recall(t, "1.1.0", true, false)
		p.wantEntry(t, "release recall with roll-back", "shop 1.1.0")
	})
}

func TestAPlanNamesWhoPinned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := gather(t, 1, "")
		p.plan(t, "start: manual\nwaves: [{name: all}]")
		p.see(t, tag("1.1.0", "b"))
		i := p.spokes["acme/c-0"]
		for _, c := range []struct {
			pin  fleet.Pin
			want string
		}{
			{fleet.Pin{Version: "1.0.0", Author: "ada", Source: fleet.PinSpoke, Until: time.Now().Add(100 * time.Hour)}, "pinned at 1.0.0 by ada until " + time.Now().Add(100*time.Hour).UTC().Format(time.DateOnly)},
			{fleet.Pin{Version: "1.0.0", Source: fleet.PinConfig}, "pinned at 1.0.0 by its spoke.yaml"},
		} {
			i.Policy.Pin = &c.pin
			p.say(t, "acme/c-0")
			m, err := p.PlanRollout(time.Now(), "shop", "1.1.0", nil)
			if err != nil || !slices.Equal(m.Waves[0].Clusters[0].Blockers, []string{c.want}) {
				t.Errorf("got %v %v, want %s", m.GetWaves(), err, c.want)
			}
		}
	})
}

// What the spoke does not heed is not said to be done.
func TestTheHubDoesNotPromiseWhatASpokeDoesNotHeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := gather(t, 1, "")
		c, i := fleet.Cluster("acme/c-0"), p.spokes["acme/c-0"]
		hear := func(f fleet.FromHub) {
			i.Policy.FromHub, i.Phase, i.Target, i.PhaseSince = f, fleet.AwaitingApproval, "1.1.0", time.Now()
			p.say(t, c)
		}
		pin := func() ([]string, error) {
			return p.Pin(time.Now(), vendor, fleet.HubPin{Cluster: c, Distribution: "shop", Version: "1.0.0", Reason: "audit", Author: "ops", Created: time.Now()}, false)
		}
		decide := func() ([]string, error) {
			_, warnings, err := p.DecideDelivery(time.Now(), vendor, fleet.HubDecision{Cluster: c, Distribution: "shop", Approved: true, Author: "ops", At: time.Now()}, false)
			return warnings, err
		}
		hear(fleet.FromHub{Told: true})
		if _, err := pin(); !errors.Is(err, caller.ErrConflict) || !strings.Contains(err.Error(), "fromHub: {pins: false}") || !strings.Contains(err.Error(), "`spoke pin shop 1.0.0`") {
			t.Errorf("a pin: %v", err)
		}
		if _, err := decide(); !errors.Is(err, caller.ErrConflict) || !strings.Contains(err.Error(), "fromHub: {decisions: true}") || !strings.Contains(err.Error(), "`spoke approve shop`") {
			t.Errorf("an approval: %v", err)
		}
		hear(fleet.FromHub{})
		if w, err := pin(); err != nil || !strings.Contains(strings.Join(w, "|"), "for its spoke.yaml to say") {
			t.Errorf("a pin at an old spoke: %q %v", w, err)
		}
		if w, err := decide(); err != nil || !strings.Contains(strings.Join(w, "|"), "too old to tell") {
			t.Errorf("an approval at an old spoke: %q %v", w, err)
		}
		time.Sleep(time.Second)
		hear(fleet.FromHub{Told: true, Pins: true, Decisions: true})
		if w, err := pin(); err != nil || len(w) != 1 || w[0] != "it takes the place of the pin to 1.0.0 by ops: audit" {
			t.Errorf("a second pin: %q %v", w, err)
		}
		if w, err := decide(); err != nil || len(w) != 0 {
			t.Errorf("an approval: %q %v", w, err)
		}
	})
}

func TestRefusalsSayEverythingOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := gather(t, 5, threeWaves)
		p.see(t, tag("1.1.0", "b"))
		p.settled(t)
		say := func(verb rollout.Verb) string {
			_, err := p.Decide(time.Now(), vendor, "shop", "1.1.0", rollout.Command{Verb: verb}, false)
			if err == nil {
				return ""
			}
			return err.Error()
		}
		check := func(verb rollout.Verb, want string) {
			t.Helper()
			got := say(verb)
			if !strings.HasPrefix(got, want) || strings.Count(got, "hub rollout") != 1 || strings.Contains(got, ": ;") || strings.Count(got, string(verb)+" ") != 1 {
				t.Errorf("%s: %s\nwant %s…", verb, got, want)
			}
		}
		check(rollout.Approve, "approve the rollout of shop 1.1.0: it does not wait for that: it is Soaking")
		check(rollout.Resume, "resume the rollout of shop 1.1.0: it does not wait for that: it is Soaking")
		p.decide(t, "1.1.0", rollout.Abort)
		check(rollout.Pause, "pause the rollout of shop 1.1.0: the rollout is over: it is Aborted: aborted by ")
		for _, c := range []struct{ distribution, version, want string }{
			{"nope", "", "no distribution nope; `hub get distributions` lists them"},
			{"nope", "1.0.0", "no distribution nope; `hub get distributions` lists them"},
			{"shop", "9.9.9", "distribution shop has no release 9.9.9; `hub get releases shop` lists them"},
		} {
			if _, err := p.Rollout(time.Now(), c.distribution, c.version); err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("%s %s: %v", c.distribution, c.version, err)
			}
		}
	})
	said := plainly(rollout.State{Distribution: "shop", Version: "1.1.0"}, rollout.Command{Verb: rollout.Pause}, errors.New("pause rollout of shop 1.1.0: it is Completed: ; a new one starts"))
	if said != "it is Completed; a new one starts" {
		t.Error(said)
	}
}

func TestAnExplanationHoldsWithTheSpoke(t *testing.T) {
	why := func(i fleet.Installation, change func(*stock, *shelf)) (facts, next string) {
		t.Helper()
		o := offeringOf(judged("1.3.0", "1.4.0"), change)
		news := ClusterNews{Name: eu1, Joined: now.Add(-time.Hour), LastSeen: now, Connected: true}
		s := newScreen(now, heartbeat, Fleet{Clusters: []ClusterNews{news}, Offerings: map[string]*offering{"shop": o}})
		a := account{screen: s, view: s.view(&news, &i), row: s.row(&news, &i)}
		return strings.Join(a.facts(), "\n"), strings.Join(a.next(), "\n")
	}
	rejected := fleet.Installation{Distribution: "shop", Running: "1.3.0", Wants: "1.3.0", Target: "1.4.0", Phase: fleet.Refused, Declined: true, Reason: "rejected by its provider: busy", Health: fleet.Healthy}
	facts, next := why(rejected, nil)
	if !strings.Contains(facts, "its spoke wants 1.3.0, and not 1.4.0: rejected by its provider: busy") || strings.Contains(facts, "so it is to take") {
		t.Errorf("after a rejection:\n%s", facts)
	}
	if strings.Contains(next, "recall") || !strings.Contains(next, "spoke approve shop 1.4.0") {
		t.Errorf("after a rejection:\n%s", next)
	}
	broken := rejected
	broken.Phase, broken.Declined, broken.Reason = fleet.RolledBack, false, "database: down"
	if _, next := why(broken, nil); !strings.Contains(next, "hub release recall shop 1.4.0") {
		t.Errorf("after a failure:\n%s", next)
	}
	if _, next := why(broken, recalled("1.4.0", "loses orders")); strings.Contains(next, "hub release recall") {
		t.Errorf("after a recall:\n%s", next)
	}
	// It has not had the time to say anything of what it was offered just now.
	late := underWay("1.4.0", rollout.Member{Mark: fleet.MarkOffered, Offered: now.Add(time.Second)})
	calm := fleet.Installation{Distribution: "shop", Running: "1.3.0", Wants: "1.3.0", Target: "1.3.0", Phase: fleet.Succeeded, Health: fleet.Healthy}
	if facts, _ := why(calm, under(late)); !strings.Contains(facts, "so it is to take 1.4.0") {
		t.Errorf("offered just now:\n%s", facts)
	}
	always := calm
	always.Policy.Windows = berlin(t, "daily 00:00-24:00 UTC")
	if facts, _ := why(always, nil); !strings.Contains(facts, "is always open") {
		t.Errorf("an open window:\n%s", facts)
	}
}
