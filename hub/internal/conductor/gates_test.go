package conductor

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/hub/internal/rollout"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// Each gate of a canary is answered by itself, whatever the two clocks say.
func TestAnAnswerIsForOneGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := gather(t, 1, "")
		c, i := fleet.Cluster("acme/c-0"), p.spokes["acme/c-0"]
		slow := time.Now().Add(-time.Hour) // the spoke's clock
		ask := func(gate string, since time.Time) {
			i.Policy.FromHub, i.Phase, i.Target, i.PhaseSince = fleet.FromHub{Told: true, Decisions: true}, fleet.AwaitingApproval, "1.1.0", since
			i.Canary = &fleet.Canary{Step: 1, Steps: 2, Gate: gate}
			p.say(t, c)
		}
		decide := func(yes bool) error {
			_, _, err := p.DecideDelivery(time.Now(), vendor, fleet.HubDecision{Cluster: c, Distribution: "shop", Approved: yes, Author: "ops", At: time.Now()}, false)
			return err
		}
		for n, gate := range []string{fleet.GateTraffic, fleet.GateIncrease, fleet.GatePromotion} {
			since := slow.Add(time.Duration(n) * time.Minute)
			ask(gate, since)
			if err := decide(true); err != nil {
				t.Fatalf("gate %s: %v", gate, err)
			}
			d, err := p.store.Decisions()
			if err != nil || len(d) != 1 || !d[0].Asked.Equal(since) || !d[0].Approved {
				t.Errorf("gate %s: recorded is %+v, %v", gate, d, err)
			}
			if err := decide(true); !errors.Is(err, caller.ErrExists) {
				t.Errorf("gate %s, twice: %v", gate, err)
			}
			if err := decide(false); err != nil { // minds change
				t.Errorf("gate %s, on second thoughts: %v", gate, err)
			}
		}
	})
}

// A rollout takes a cluster at a gate as one that waits for its provider, and one between gates as under way.
func TestACanaryInARollout(t *testing.T) {
	q := offeringOf(judged("1.1.0", "1.2.0"), nil).question(now, "1.2.0")
	i := fleet.Installation{Distribution: "shop", Running: "1.1.0", Target: "1.2.0", Phase: fleet.Progressing, Health: fleet.Healthy, Canary: &fleet.Canary{Step: 1, Steps: 2}}
	for phase, want := range map[fleet.Phase]fleet.Block{fleet.Progressing: fleet.BlockNone, fleet.AwaitingApproval: fleet.BlockApproval} {
		i.Phase = phase
		if o := q.observe(i, rollout.Member{Mark: fleet.MarkUnderway}); o.Block != want || o.Phase != phase {
			t.Errorf("%s: got %q, want %q", phase, o.Block, want)
		}
	}
}
