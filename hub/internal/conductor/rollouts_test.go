package conductor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/hub/internal/presence/presencetest"
	"github.com/wheelwright-dev/wheelwright/hub/internal/rollout"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/plan"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

var vendor = caller.Who{Actor: "operator admin", Credential: "c0ffee", Role: "vendor"}

// party is a world with clusters that do as they are told.
type party struct {
	*world
	spokes map[fleet.Cluster]*fleet.Installation
	breaks map[string]bool        // versions that fail wherever they are taken
	deaf   map[fleet.Cluster]bool // says and hears nothing
	ran    map[fleet.Cluster][]string
}

const threeWaves = `
waves:
- name: canary
  clusters: {matchLabels: {env: canary}}
  soak: 10m
- name: half
  max: 50%
  budget: 1
- name: rest
  approval: vendor
`

// gather makes clusters acme/c-0 … that run a version; every fifth is a canary.
func gather(t *testing.T, clusters int, planText string) *party {
	t.Helper()
	p := &party{world: newWorld(t), spokes: map[fleet.Cluster]*fleet.Installation{}, breaks: map[string]bool{}, deaf: map[fleet.Cluster]bool{}, ran: map[fleet.Cluster][]string{}}
	if planText != "" {
		p.plan(t, planText)
	}
	p.see(t, tag("1.0.0", "a"))
	for n := range clusters {
		p.join(t, fleet.Cluster(fmt.Sprintf("acme/c-%d", n)), map[bool]string{true: "canary"}[n%5 == 0])
	}
	p.settled(t)
	for c, i := range p.spokes {
		if i.Running != "1.0.0" {
			t.Fatalf("%s runs %q at the start", c, i.Running)
		}
	}
	return p
}

// plan is that of hub.yaml from now on.
func (p *party) plan(t *testing.T, text string) {
	t.Helper()
	parsed, err := plan.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	p.cfg.Plans = func(string) (plan.Plan, bool) { return parsed, true }
}

func (p *party) join(t *testing.T, c fleet.Cluster, env string) {
	t.Helper()
	labels := map[string]string{}
	if env != "" {
		labels["env"] = env
	}
	if _, err := p.store.Invite(c, labels, string(c), [32]byte{}, time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	p.spokes[c] = &fleet.Installation{Distribution: "shop", Health: fleet.Healthy}
	presencetest.Register(p.presence, c)
	p.say(t, c)
}

func (p *party) say(t *testing.T, c fleet.Cluster) {
	t.Helper()
	if err := p.store.Hello(c, "v1", "v1.33", []fleet.Installation{*p.spokes[c]}); err != nil {
		t.Fatal(err)
	}
}

// obey has one cluster do what its policy makes of what it is offered.
func (p *party) obey(t *testing.T, c fleet.Cluster) (moved bool) {
	t.Helper()
	state, err := offers(p.Conductor, c, []string{"shop"})
	if err != nil {
		t.Fatal(err)
	}
	i, d := p.spokes[c], state.Distributions[0]
	choice := fleet.Choice{Now: time.Now(), Offered: wire.FromOffers(d.GetOffers()), Withdrawn: wire.FromWithdrawals(d.GetWithdrawals()), Running: i.Running,
		Held: map[string]bool{}}
	if i.Phase.Failed() {
		choice.Held[i.Target] = true
	}
	s, err := i.Policy.Select(choice)
	if err != nil {
		t.Fatal(err)
	}
	if i.Wants = s.Version; s.Version == "" || s.Version == i.Running {
		return false
	}
	i.Target, i.Phase, i.PhaseSince = s.Version, fleet.Succeeded, time.Now()
	if p.breaks[s.Version] {
		i.Phase, i.Reason = fleet.RolledBack, "database: crash loop"
	} else {
		i.Running = s.Version
		p.ran[c] = append(p.ran[c], s.Version)
	}
	p.say(t, c)
	return true
}

// settled lets the fleet and the conductor go on until neither moves.
func (p *party) settled(t *testing.T) {
	t.Helper()
	quiet := 0
	for range 50 {
		moved := false
		for _, c := range slices.Sorted(maps.Keys(p.spokes)) {
			if !p.deaf[c] {
				p.presence.Seen(c, time.Now())
				moved = p.obey(t, c) || moved
			}
		}
		p.lookNow(t)
		if quiet++; moved {
			quiet = 0
		}
		if quiet == 2 {
			return
		}
	}
	t.Fatal("it does not come to rest")
}

// restart is another conductor on the same store, as after the hub was killed.
func (p *party) restart(t *testing.T) {
	t.Helper()
	cfg := p.cfg
	p.Conductor = New(cfg)
}

// run counts the clusters that run each version.
func (p *party) runs() string {
	count := map[string]int{}
	for _, i := range p.spokes {
		count[i.Running]++
	}
	var parts []string
	for _, v := range slices.SortedFunc(maps.Keys(count), fleet.CompareTags) {
		parts = append(parts, fmt.Sprintf("%d×%s", count[v], v))
	}
	return strings.Join(parts, " ")
}

func (p *party) rolled(t *testing.T, version string) *fleetv1.Rollout {
	t.Helper()
	r, err := p.Rollout(time.Now(), "shop", version)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (p *party) want(t *testing.T, when, version string, phase fleet.RolloutPhase, runs string) {
	t.Helper()
	r := p.rolled(t, version)
	if r.GetPhase() != string(phase) || p.runs() != runs {
		t.Errorf("%s: rollout of %s is %s (%s), clusters run %s; want %s and %s", when, version, r.GetPhase(), r.GetReason(), p.runs(), phase, runs)
	}
}

func (p *party) decide(t *testing.T, version string, verb rollout.Verb) {
	t.Helper()
	if _, err := p.Decide(time.Now(), vendor, "shop", version, rollout.Command{Verb: verb, Reason: "because"}, false); err != nil {
		t.Fatal(err)
	}
}

func (p *party) wantEntry(t *testing.T, action, object string) {
	t.Helper()
	all, err := p.store.Audit(0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(all, func(e fleet.Entry) bool {
		return e.Action == action && e.Object == object && e.Actor == vendor.Actor && e.Credential == vendor.Credential
	}) {
		t.Errorf("no entry %q for %q among %d", action, object, len(all))
	}
}

// A hub that is killed in any state of a rollout goes on where it was.
func TestThreeWaves(t *testing.T) {
	for _, killed := range []bool{false, true} {
		t.Run(map[bool]string{false: "in one go", true: "with a restart at each step"}[killed], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := gather(t, 10, threeWaves)
				again := func() {
					if killed {
						told := p.revisions(t)
						p.restart(t)
						if now := p.revisions(t); !maps.Equal(told, now) {
							t.Errorf("revisions %v after %v", now, told)
						}
						p.settled(t)
					}
				}
				p.see(t, tag("1.1.0", "b"))
				again()
				p.settled(t)
				p.want(t, "the canaries have it", "1.1.0", fleet.RolloutSoaking, "8×1.0.0 2×1.1.0")
				again()
				time.Sleep(9 * time.Minute)
				p.settled(t)
				p.want(t, "a minute before the soak is over", "1.1.0", fleet.RolloutSoaking, "8×1.0.0 2×1.1.0")
				again()
				time.Sleep(2 * time.Minute)
				p.settled(t)
				p.want(t, "half of the rest has it", "1.1.0", fleet.RolloutApproval, "3×1.0.0 7×1.1.0")
				again()
				p.want(t, "nobody approved", "1.1.0", fleet.RolloutApproval, "3×1.0.0 7×1.1.0")
				p.decide(t, "1.1.0", rollout.Approve)
				again()
				p.settled(t)
				p.want(t, "approved", "1.1.0", fleet.RolloutCompleted, "10×1.1.0")
				again()
				p.wantEntry(t, "rollout approve", "shop 1.1.0")
				if _, err := p.Decide(time.Now(), vendor, "shop", "1.1.0", rollout.Command{Verb: rollout.Approve}, false); !errors.Is(err, caller.ErrConflict) {
					t.Errorf("approving what is over: %v", err)
				}
				if _, err := p.StartRollout(time.Now(), vendor, "shop", "1.1.0", nil, "", false); !errors.Is(err, caller.ErrExists) {
					t.Errorf("starting what is completed: %v", err)
				}
			})
		})
	}
}

func (p *party) revisions(t *testing.T) map[fleet.Cluster]uint64 {
	t.Helper()
	all := map[fleet.Cluster]uint64{}
	for c := range p.spokes {
		s, err := offers(p.Conductor, c, []string{"shop"})
		if err != nil {
			t.Fatal(err)
		}
		all[c] = s.Revision
	}
	return all
}

func TestAReleaseThatFailsIsHeldAndGoesOnByAWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := gather(t, 10, "waves: [{name: first, max: 2}, {name: rest, budget: 100%}]")
		p.breaks["1.1.0"] = true
		p.see(t, tag("1.1.0", "b"))
		p.settled(t)
		p.want(t, "both of the first wave failed", "1.1.0", fleet.RolloutHolding, "10×1.0.0")
		p.restart(t)
		p.settled(t)
		p.want(t, "after a restart", "1.1.0", fleet.RolloutHolding, "10×1.0.0")
		if failed := p.rolled(t, "1.1.0").GetWaves()[0].GetFailed(); failed != 2 {
			t.Errorf("%d failed", failed)
		}
		p.breaks["1.1.0"] = false
		p.decide(t, "1.1.0", rollout.Resume)
		p.settled(t)
		p.want(t, "resumed", "1.1.0", fleet.RolloutCompleted, "2×1.0.0 8×1.1.0")
	})
}

func TestAJoinerGetsWhatIsCompleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := gather(t, 10, threeWaves)
		p.see(t, tag("1.1.0", "b"))
		p.settled(t)
		p.join(t, "acme/new", "")
		p.settled(t)
		if got := p.spokes["acme/new"].Running; got != "1.0.0" {
			t.Errorf("the joiner runs %s", got)
		}
		if err := p.store.RemoveCluster("acme/c-1"); err != nil {
			t.Fatal(err)
		}
		delete(p.spokes, "acme/c-1")
		time.Sleep(11 * time.Minute)
		p.settled(t)
		p.decide(t, "1.1.0", rollout.Approve)
		p.settled(t)
		p.want(t, "one joined and one left", "1.1.0", fleet.RolloutCompleted, "10×1.1.0")
	})
}

func TestANewerReleaseTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := gather(t, 10, threeWaves)
		p.see(t, tag("1.1.0", "b"))
		p.settled(t)
		p.see(t, tag("1.2.0", "c"))
		p.settled(t)
		p.want(t, "the newer one goes out", "1.1.0", fleet.RolloutSuperseded, "8×1.0.0 2×1.2.0")
		time.Sleep(11 * time.Minute)
		p.settled(t)
		p.decide(t, "1.2.0", rollout.Approve)
		p.settled(t)
		p.want(t, "at the end", "1.2.0", fleet.RolloutCompleted, "10×1.2.0")
		p.see(t, tag("1.1.1", "d")) // a backport that nobody takes
		p.settled(t)
		if r := p.rolled(t, "1.1.1"); r.GetPhase() != string(fleet.RolloutApproval) && r.GetPhase() != string(fleet.RolloutCompleted) {
			t.Errorf("the backport is %s", r.GetPhase())
		}
	})
}

// Whom a range holds to the older release gets it none the less.
func TestANewerReleaseLeavesThoseThatDoNotTakeIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := gather(t, 5, threeWaves)
		p.spokes["acme/c-3"].Policy.Range = "1.x"
		p.say(t, "acme/c-3")
		p.see(t, tag("1.1.0", "b"))
		p.settled(t)
		p.see(t, tag("2.0.0", "c"))
		p.settled(t)
		for range 3 {
			time.Sleep(11 * time.Minute)
			p.settled(t)
			for _, v := range []string{"1.1.0", "2.0.0"} {
				if p.rolled(t, v).GetPhase() == string(fleet.RolloutApproval) {
					p.decide(t, v, rollout.Approve)
				}
			}
		}
		p.settled(t)
		p.want(t, "at the end", "2.0.0", fleet.RolloutCompleted, "1×1.1.0 4×2.0.0")
		p.want(t, "at the end", "1.1.0", fleet.RolloutCompleted, "1×1.1.0 4×2.0.0")
	})
}

func TestOldTagsThatComeInOneGoAreNoSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := gather(t, 6, "waves: [{name: first, max: 2, soak: 1m}, {name: rest}]")
		p.see(t, tag("1.1.0", "b"), tag("1.2.0", "c"), tag("1.3.0", "d"))
		p.settled(t)
		time.Sleep(2 * time.Minute)
		p.settled(t)
		p.want(t, "at the end", "1.3.0", fleet.RolloutCompleted, "6×1.3.0")
		for c, ran := range p.ran {
			if !slices.Equal(ran, []string{"1.0.0", "1.3.0"}) {
				t.Errorf("%s ran %v", c, ran)
			}
		}
		p.join(t, "acme/old", "")
		p.spokes["acme/old"].Policy.Range = "<1.3.0"
		p.say(t, "acme/old")
		p.settled(t)
		if got := p.spokes["acme/old"].Running; got != "1.2.0" {
			t.Errorf("whose range ends before the newest runs %s", got)
		}
	})
}

func TestARequiredStopIsMadeOnTheWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := gather(t, 4, "waves: [{name: first, max: 1, soak: 1m}, {name: rest}]")
		after := tag("1.2.0", "c")
		build := after.Judge
		after.Judge = func(ctx context.Context) (fleet.Release, []byte, error) {
			r, tar, err := build(ctx)
			r.Stops = []string{"1.1.0"}
			return r, tar, err
		}
		p.see(t, tag("1.1.0", "b"), after)
		for range 4 {
			p.settled(t)
			time.Sleep(2 * time.Minute)
		}
		p.settled(t)
		p.want(t, "at the end", "1.2.0", fleet.RolloutCompleted, "4×1.2.0")
		for c, ran := range p.ran {
			if !slices.Equal(ran, []string{"1.0.0", "1.1.0", "1.2.0"}) {
				t.Errorf("%s ran %v", c, ran)
			}
		}
	})
}

func TestAManualPlanWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := gather(t, 3, "")
		p.plan(t, "start: manual\nwaves: [{name: all}]")
		p.see(t, tag("1.1.0", "b"))
		p.settled(t)
		if p.runs() != "3×1.0.0" {
			t.Errorf("clusters run %s", p.runs())
		}
		o, err := p.offering("shop")
		if lines := p.waits(o, o.latest()); err != nil || len(lines) != 1 || !strings.Contains(lines[0], "`hub rollout start shop 1.1.0`") {
			t.Errorf("got %q, %v", lines, err)
		}
		if r, err := p.StartRollout(time.Now(), vendor, "shop", "1.1.0", nil, "now", true); err != nil || r.GetPlan() == nil {
			t.Errorf("dry run: %v, %v", r, err)
		}
		if _, err := p.Rollout(time.Now(), "shop", "1.1.0"); !errors.Is(err, caller.ErrNotFound) {
			t.Errorf("after a dry run: %v", err)
		}
		if _, err := p.StartRollout(time.Now(), vendor, "shop", "1.1.0", nil, "now", false); err != nil {
			t.Fatal(err)
		}
		p.wantEntry(t, "rollout start", "shop 1.1.0")
		p.settled(t)
		p.want(t, "started", "1.1.0", fleet.RolloutCompleted, "3×1.1.0")
	})
}

func TestAnUndoneRolloutIsNotOfferedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := gather(t, 10, threeWaves)
		p.see(t, tag("1.1.0", "b"))
		p.settled(t)
		p.decide(t, "1.1.0", rollout.Undo)
		p.settled(t)
		p.want(t, "undone", "1.1.0", fleet.RolloutReturned, "10×1.0.0")
		p.restart(t)
		p.join(t, "acme/new", "canary")
		time.Sleep(time.Hour)
		p.settled(t)
		p.want(t, "after a restart and a new canary", "1.1.0", fleet.RolloutReturned, "11×1.0.0")
		p.wantEntry(t, "rollout undo", "shop 1.1.0")
		p.see(t, tag("1.1.1", "c"))
		p.settled(t)
		p.want(t, "the next release", "1.1.1", fleet.RolloutSoaking, "8×1.0.0 3×1.1.1")
	})
}

// A hub that never stops remembers of its rollouts what one remembers that was started anew.
func TestMemoryAndFileKeepTheSameRollouts(t *testing.T) {
	p := gather(t, 2, "waves:\n- name: all\n")
	for n := range rollout.MaxEnded + 5 {
		p.see(t, tag(fmt.Sprintf("1.1.%d", n), fmt.Sprint(n)))
		p.settled(t)
	}
	members := func() (all []string) {
		at, err := p.picture()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range at.of("shop").rollouts {
			all = append(all, fmt.Sprintf("%s %s %d", r.Version, r.Phase, len(r.Members)))
		}
		return all
	}
	before := members()
	p.restart(t)
	if after := members(); !slices.Equal(before, after) || !slices.ContainsFunc(after, func(r string) bool { return strings.HasSuffix(r, " 0") }) {
		t.Errorf("in memory %q, on disk %q", before, after)
	}
}

func TestWhatCannotBeDoneIsSaid(t *testing.T) {
	p := gather(t, 2, "waves: [{name: first, max: 1, soak: 1h}, {name: rest}]")
	p.see(t, tag("1.1.0", "b"))
	_, unknown := p.StartRollout(time.Now(), vendor, "shop", "9.9.9", nil, "", false)
	_, elsewhere := p.StartRollout(time.Now(), vendor, "bank", "1.0.0", nil, "", false)
	_, twice := p.StartRollout(time.Now(), vendor, "shop", "1.1.0", nil, "", false)
	_, wrong := p.PlanRollout(time.Now(), "shop", "1.1.0", []byte("waves: [{name: a, max: 101%}]"))
	_, nothing := p.Decide(time.Now(), vendor, "shop", "1.1.0", rollout.Command{Verb: rollout.Approve}, false)
	_, none := p.Rollout(time.Now(), "shop", "9.9.9")
	_, never := p.Recall(time.Now(), vendor, fleet.Recall{Distribution: "shop", Version: "9.9.9", Reason: "bad"}, false)
	for _, c := range []struct {
		err, kind error
		text      string
	}{
		{unknown, caller.ErrNotFound, "`hub get releases shop`"}, {elsewhere, caller.ErrNotFound, "`hub get distributions`"},
		{twice, caller.ErrExists, "`hub rollout status shop 1.1.0`"}, {wrong, caller.ErrInvalid, "--plan"}, {nothing, caller.ErrConflict, "approve the rollout of shop 1.1.0"},
		{none, caller.ErrNotFound, "9.9.9"}, {never, caller.ErrNotFound, "9.9.9"},
	} {
		if !errors.Is(c.err, c.kind) || !strings.Contains(c.err.Error(), c.text) {
			t.Errorf("got %v, want %v with %q", c.err, c.kind, c.text)
		}
	}
}

func TestOnlyThoseAreWokenWhoseOffersChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := gather(t, 5, threeWaves)
		sessions := map[fleet.Cluster]*presencetest.Session{}
		for c := range p.spokes {
			sessions[c] = presencetest.Register(p.presence, c)
		}
		if err := p.Seen(t.Context(), p.shop, tag("1.1.0", "b")); err != nil {
			t.Fatal(err)
		}
		for _, s := range sessions {
			drain(s) // a release was published
		}
		p.polled(t)
		for c, s := range sessions {
			if got := drain(s); got != (c == "acme/c-0") {
				t.Errorf("%s woken: %v", c, got)
			}
		}
	})
}

func TestWhatAPolicyMakesOfARelease(t *testing.T) {
	at := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	night, err := fleet.ParseWindows([]string{"daily 01:00-03:00 UTC"})
	if err != nil {
		t.Fatal(err)
	}
	s := &stock{releases: map[string]fleet.Release{"1.0.0": {}, "1.1.0": {}, "1.2.0": {Stops: []string{"1.1.0"}}}, versions: []string{"1.0.0", "1.1.0", "1.2.0"}}
	o := lay(s, &shelf{rollouts: []rollout.State{{ID: 1, Version: "1.0.0", Phase: fleet.RolloutCompleted}}})
	for name, c := range map[string]struct {
		version string
		i       fleet.Installation
		m       rollout.Member
		want    fleet.Block
	}{
		"takes it":                {"1.1.0", fleet.Installation{Running: "1.0.0"}, rollout.Member{}, fleet.BlockNone},
		"first install":           {"1.2.0", fleet.Installation{}, rollout.Member{}, fleet.BlockNone},
		"pinned elsewhere":        {"1.1.0", fleet.Installation{Running: "1.0.0", Policy: fleet.Policy{Pin: &fleet.Pin{Version: "1.0.0"}}}, rollout.Member{}, fleet.BlockPin},
		"pinned to it":            {"1.1.0", fleet.Installation{Running: "1.0.0", Policy: fleet.Policy{Range: "1.0.x", Pin: &fleet.Pin{Version: "1.1.0"}}}, rollout.Member{}, fleet.BlockNone},
		"a pin that has expired":  {"1.1.0", fleet.Installation{Running: "1.0.0", Policy: fleet.Policy{Pin: &fleet.Pin{Version: "1.0.0", Until: at}}}, rollout.Member{}, fleet.BlockNone},
		"out of range":            {"1.1.0", fleet.Installation{Running: "1.0.0", Policy: fleet.Policy{Range: "1.0.x"}}, rollout.Member{}, fleet.BlockPolicy},
		"never so far":            {"1.1.0", fleet.Installation{Running: "1.0.0", Policy: fleet.Policy{Minor: fleet.NeverTaken}}, rollout.Member{}, fleet.BlockPolicy},
		"asks first":              {"1.1.0", fleet.Installation{Running: "1.0.0", Policy: fleet.Policy{Minor: fleet.AskFirst}}, rollout.Member{}, fleet.BlockApproval},
		"was asked and said yes":  {"1.1.0", fleet.Installation{Running: "1.0.0", Policy: fleet.Policy{Minor: fleet.AskFirst}, Phase: fleet.Promoting, Target: "1.1.0"}, rollout.Member{}, fleet.BlockNone},
		"asks by itself":          {"1.1.0", fleet.Installation{Running: "1.0.0", Phase: fleet.AwaitingApproval, Target: "1.1.0"}, rollout.Member{}, fleet.BlockApproval},
		"window closed":           {"1.1.0", fleet.Installation{Running: "1.0.0", Policy: fleet.Policy{Windows: night}}, rollout.Member{}, fleet.BlockWindow},
		"waits for its window":    {"1.1.0", fleet.Installation{Running: "1.0.0", Phase: fleet.AwaitingWindow, Target: "1.1.0"}, rollout.Member{}, fleet.BlockWindow},
		"in error":                {"1.1.0", fleet.Installation{Running: "1.0.0", Phase: fleet.AwaitingConfig}, rollout.Member{}, fleet.BlockConfig},
		"stop missing":            {"1.2.0", fleet.Installation{Running: "1.0.0"}, rollout.Member{}, fleet.BlockStop},
		"stop behind it":          {"1.2.0", fleet.Installation{Running: "1.1.0"}, rollout.Member{}, fleet.BlockNone},
		"runs a newer one":        {"1.1.0", fleet.Installation{Running: "1.2.0"}, rollout.Member{}, fleet.BlockPolicy},
		"runs it":                 {"1.1.0", fleet.Installation{Running: "1.1.0", Policy: fleet.Policy{Range: "1.0.x"}}, rollout.Member{}, fleet.BlockNone},
		"failed before":           {"1.1.0", fleet.Installation{Running: "1.0.0", Phase: fleet.RolledBack, Target: "1.1.0"}, rollout.Member{}, fleet.BlockHeld},
		"declined":                {"1.1.0", fleet.Installation{Running: "1.0.0", Phase: fleet.Refused, Target: "1.1.0", Wants: "1.1.0", Declined: true}, rollout.Member{Offered: at}, fleet.BlockDeclined},
		"its overlay is declined": {"1.1.0", fleet.Installation{Running: "1.1.0", Phase: fleet.Refused, Target: "1.1.0", Wants: "1.1.0", Declined: true}, rollout.Member{Offered: at}, fleet.BlockNone},
		"declined a while ago":    {"1.1.0", fleet.Installation{Running: "1.0.0", Phase: fleet.Succeeded, Target: "1.0.0", Wants: "1.0.0"}, rollout.Member{Offered: at, Block: fleet.BlockDeclined}, fleet.BlockDeclined},
		"taken after all":         {"1.1.0", fleet.Installation{Running: "1.0.0", Phase: fleet.Fetching, Target: "1.1.0", Wants: "1.1.0"}, rollout.Member{Offered: at, Block: fleet.BlockDeclined}, fleet.BlockNone},
		"failed now":              {"1.1.0", fleet.Installation{Running: "1.0.0", Phase: fleet.RolledBack, Target: "1.1.0"}, rollout.Member{Offered: at}, fleet.BlockNone},
	} {
		if got := o.question(at, c.version).observe(c.i, c.m).Block; got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

// crowd is a store with many clusters that are nowhere else.
type crowd struct {
	*store.Store
	clusters      []store.Cluster
	installations map[fleet.Cluster][]fleet.Installation
}

func (c crowd) Clusters() ([]store.Cluster, error) { return c.clusters, nil }

func (c crowd) Installations() (map[fleet.Cluster][]fleet.Installation, error) {
	return c.installations, nil
}

func (c crowd) Installation(name fleet.Cluster, _ string) (fleet.Installation, bool) {
	return c.installations[name][0], true
}

func TestTheCostOfALook(t *testing.T) {
	w := newWorld(t)
	parsed, err := plan.Parse([]byte("waves: [{name: a, max: 20%}, {name: b, max: 30%}, {name: c}]"))
	if err != nil {
		t.Fatal(err)
	}
	for n := range 50 {
		if err := w.Seen(t.Context(), w.shop, tag(fmt.Sprintf("1.0.%d", n), "a")); err != nil {
			t.Fatal(err)
		}
	}
	w.polled(t)
	const clusters = 1000
	many := crowd{Store: w.store, installations: map[fleet.Cluster][]fleet.Installation{}}
	for n := range clusters {
		c := fleet.Cluster(fmt.Sprintf("acme/c-%d", n))
		many.clusters = append(many.clusters, store.Cluster{Name: c, Joined: time.Now()})
		many.installations[c] = []fleet.Installation{{Distribution: "shop", Running: "1.0.49", Phase: fleet.Succeeded, Target: "1.0.49", Health: fleet.Healthy}}
		presencetest.Register(w.presence, c)
	}
	w.cfg.Store, w.cfg.Plans = many, func(string) (plan.Plan, bool) { return parsed, true }
	start := time.Now()
	w.see(t, tag("1.1.0", "b"))
	fmt.Printf("FIGURE rollout.start %.1f ms 1,000 clusters, 50 releases before\n", ms(time.Since(start)))
	start = time.Now()
	const looks = 20
	for range looks {
		w.lookNow(t)
	}
	fmt.Printf("FIGURE rollout.look %.2f ms 1,000 clusters, nothing changed\n", ms(time.Since(start))/looks)
	for c := range many.installations {
		if n := len(c); c[n-1] == '0' {
			many.installations[c] = []fleet.Installation{{Distribution: "shop", Running: "1.1.0", Phase: fleet.Succeeded, Target: "1.1.0", Health: fleet.Healthy}}
		}
	}
	start = time.Now()
	w.lookNow(t)
	fmt.Printf("FIGURE rollout.look-changed %.1f ms 1,000 clusters, 100 of which have news\n", ms(time.Since(start)))
	start = time.Now()
	for c := range many.installations {
		if _, err := offers(w.Conductor, c, []string{"shop"}); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Printf("FIGURE rollout.offers %.1f us of one cluster while a rollout is under way\n", ms(time.Since(start))*1000/clusters)
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
