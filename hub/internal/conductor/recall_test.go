package conductor

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

func (p *party) recall(t *testing.T, version string, rollBack, dry bool) *fleetv1.RecallReleaseResponse {
	t.Helper()
	r, err := p.Recall(time.Now(), vendor, fleet.Recall{Distribution: "shop", Version: version, Reason: "eats orders", RollBack: rollBack}, dry)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRecallInMidFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := gather(t, 10, threeWaves)
		p.see(t, tag("1.1.0", "b"))
		p.settled(t)
		p.spokes["acme/c-5"].Policy.Pin = &fleet.Pin{Version: "1.1.0", Reason: "audit", Source: fleet.PinSpoke}
		p.say(t, "acme/c-5")

		dry := p.recall(t, "1.1.0", true, true)
		if len(dry.GetClusters()) != 2 || len(dry.GetRollouts()) != 1 {
			t.Fatalf("dry run: %v", dry)
		}
		p.settled(t)
		p.want(t, "after a dry run", "1.1.0", fleet.RolloutSoaking, "8×1.0.0 2×1.1.0")

		r := p.recall(t, "1.1.0", true, false)
		if c := r.GetClusters()[0]; c.GetCluster() != "acme/c-0" || c.GetTargetVersion() != "1.0.0" || c.GetReason() != "it ran that before" {
			t.Errorf("got %v", c)
		}
		if c := r.GetClusters()[1]; c.GetTargetVersion() != "" || !strings.Contains(c.GetReason(), "pinned to 1.1.0 (spoke): audit") {
			t.Errorf("got %v", c)
		}
		p.settled(t)
		if p.runs() != "9×1.0.0 1×1.1.0" {
			t.Errorf("clusters run %s", p.runs())
		}
		p.restart(t)
		p.join(t, "acme/new", "canary")
		time.Sleep(2 * time.Hour)
		p.settled(t)
		if p.runs() != "10×1.0.0 1×1.1.0" {
			t.Errorf("after a restart: clusters run %s", p.runs())
		}
		p.spokes["acme/c-5"].Policy.Pin = nil
		p.say(t, "acme/c-5")
		p.settled(t)
		p.want(t, "the pin is gone", "1.1.0", fleet.RolloutRecalled, "11×1.0.0")
		p.wantEntry(t, "release recall with roll-back", "shop 1.1.0")
		history, _ := p.store.Events(store.EventFilter{})
		found := false
		for _, e := range history {
			found = found || e.Kind == fleet.EventRecalled && strings.Contains(e.Message, "eats orders; 2 clusters run it")
		}
		if !found {
			t.Errorf("no event of the recall among %v", history)
		}
		_, twice := p.Recall(time.Now(), vendor, fleet.Recall{Distribution: "shop", Version: "1.1.0", Reason: "x"}, false)
		if !errors.Is(twice, caller.ErrExists) {
			t.Errorf("recalled twice: %v", twice)
		}
		if _, err := p.StartRollout(time.Now(), vendor, "shop", "1.1.0", nil, "", false); !errors.Is(err, caller.ErrConflict) || !strings.Contains(err.Error(), "eats orders") {
			t.Errorf("started after the recall: %v", err)
		}
	})
}

func TestARecallWithoutReturnLeavesWhatRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := gather(t, 4, "")
		p.see(t, tag("1.1.0", "b"))
		p.settled(t)
		p.want(t, "everybody has it", "1.1.0", fleet.RolloutCompleted, "4×1.1.0")
		r := p.recall(t, "1.1.0", false, false)
		if c := r.GetClusters()[0]; len(r.GetClusters()) != 4 || c.GetTargetVersion() != "1.0.0" || !strings.Contains(c.GetReason(), "`--roll-back` offers it") {
			t.Errorf("got %v", r)
		}
		p.join(t, "acme/new", "")
		p.settled(t)
		if p.runs() != "1×1.0.0 4×1.1.0" {
			t.Errorf("clusters run %s", p.runs())
		}
		p.recall(t, "1.1.0", true, false) // and now back
		p.settled(t)
		if p.runs() != "5×1.0.0" {
			t.Errorf("clusters run %s", p.runs())
		}
		p.see(t, tag("1.1.1", "c"))
		p.settled(t)
		p.want(t, "the fix", "1.1.1", fleet.RolloutCompleted, "5×1.1.1")
	})
}

func TestARecallProposesTheFixWhereItIsOffered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := gather(t, 2, "")
		p.see(t, tag("1.1.0", "b"))
		p.settled(t)
		p.deaf["acme/c-1"] = true
		p.see(t, tag("1.1.1", "c"))
		p.settled(t)
		r := p.recall(t, "1.1.0", true, false)
		if len(r.GetClusters()) != 1 || r.GetClusters()[0].GetTargetVersion() != "1.1.1" {
			t.Errorf("got %v", r)
		}
		p.deaf["acme/c-1"] = false
		p.settled(t)
		if p.runs() != "2×1.1.1" {
			t.Errorf("clusters run %s", p.runs())
		}
	})
}

// What a cluster ran before may have been recalled too.
func TestNobodyGoesBackToWhatWasRecalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := gather(t, 2, "")
		for _, v := range []string{"1.1.0", "1.2.0"} {
			p.see(t, tag(v, "b"))
			p.settled(t)
		}
		p.recall(t, "1.1.0", true, false)
		p.recall(t, "1.2.0", true, false)
		p.settled(t)
		if p.runs() != "2×1.0.0" {
			t.Errorf("clusters run %s", p.runs())
		}
	})
}
