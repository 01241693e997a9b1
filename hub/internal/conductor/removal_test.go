package conductor

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/hub/internal/rollout"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/plan"
)

// remove removes the party's distribution as an operator does.
func (p *party) remove(dry bool) (phases string, err error) {
	now := time.Now()
	e := fleet.Event{At: now, Distribution: "shop", Kind: fleet.EventRemoved, Message: "removed"}
	aborted, err := p.RemoveDistribution(now, vendor, "shop", dry, func() error {
		return p.store.Audited(e, entry(now, vendor, "distribution remove", "shop", "", "removed")).RemoveDistribution("shop")
	})
	for _, r := range aborted {
		phases += r.GetVersion() + " " + r.GetPhase() + ";"
	}
	return phases, err
}

func TestARemovedDistributionLeavesNoRolloutUnderWay(t *testing.T) {
	p := gather(t, 5, threeWaves)
	p.see(t, tag("1.1.0", "b"))
	p.settled(t)
	p.want(t, "before", "1.1.0", fleet.RolloutSoaking, "4×1.0.0 1×1.1.0")
	if phases, err := p.remove(true); err != nil || phases != "1.1.0 Aborted;" {
		t.Errorf("a dry run: %q, %v", phases, err)
	}
	p.want(t, "after a dry run", "1.1.0", fleet.RolloutSoaking, "4×1.0.0 1×1.1.0")
	if phases, err := p.remove(false); err != nil || phases != "1.1.0 Aborted;" {
		t.Errorf("%q, %v", phases, err)
	}
	p.wantEntry(t, "rollout abort", "shop 1.1.0")
	if r := p.rolled(t, "1.1.0"); r.GetPhase() != string(fleet.RolloutAborted) || !strings.Contains(r.GetReason(), "distribution shop was removed") {
		t.Errorf("got %v", r)
	}
	p.restart(t)
	p.lookNow(t)
	if r := p.rolled(t, "1.1.0"); r.GetPhase() != string(fleet.RolloutAborted) || p.runs() != "4×1.0.0 1×1.1.0" {
		t.Errorf("after a restart: %v, clusters run %s", r, p.runs())
	}
	if _, err := p.remove(false); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("twice: %v", err)
	}
}

// Without its distribution a cluster on its way back would stay where it must not.
func TestADistributionThatBringsClustersBackIsNotRemoved(t *testing.T) {
	p := gather(t, 5, threeWaves)
	p.see(t, tag("1.1.0", "b"))
	p.settled(t)
	p.deaf["acme/c-0"] = true
	p.decide(t, "1.1.0", rollout.Undo)
	for _, dry := range []bool{true, false} {
		if _, err := p.remove(dry); !errors.Is(err, caller.ErrConflict) || !strings.Contains(err.Error(), "hub rollout status shop 1.1.0") {
			t.Errorf("got %v", err)
		}
	}
	delete(p.deaf, "acme/c-0")
	p.settled(t)
	if _, err := p.remove(false); err != nil {
		t.Error(err)
	}
}

func TestAGateIsForItsRoleAndForTheAdmin(t *testing.T) {
	p := gather(t, 5, "waves:\n- name: first\n  approval: qa\n- name: second\n  verdicts: {minimum: 1}\n")
	p.see(t, tag("1.1.0", "b"))
	p.settled(t)
	as := func(role string) caller.Who { return caller.Who{Actor: "operator " + role, Role: role} }
	approve := func(role, wave string) error {
		_, err := p.Decide(time.Now(), as(role), "shop", "1.1.0", rollout.Command{Verb: rollout.Approve, Wave: wave}, true)
		return err
	}
	for _, role := range []string{"dev", ""} {
		if err := approve(role, ""); !errors.Is(err, caller.ErrDenied) || !strings.Contains(err.Error(), "wants qa") || !strings.Contains(err.Error(), "hub operator add") {
			t.Errorf("%q: got %v", role, err)
		}
	}
	for _, role := range []string{"qa", "admin"} {
		if err := approve(role, "first"); err != nil {
			t.Errorf("%q: got %v", role, err)
		}
	}
	if err := approve("qa", "second"); !errors.Is(err, caller.ErrConflict) {
		t.Errorf("a wave that does not wait: %v", err)
	}
}

func gatedState(t *testing.T, text string, phase fleet.RolloutPhase) rollout.State {
	t.Helper()
	p, err := plan.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return rollout.State{Distribution: "shop", Version: "1.1.0", Phase: phase, Plan: p, Waves: []rollout.Wave{{Name: "first"}}}
}

// A gate of verdicts names no role: that it is passed over is the admin's to say.
func TestAGateWithoutARoleIsTheAdmins(t *testing.T) {
	s := rollout.State{Distribution: "shop", Version: "1.1.0", Phase: fleet.RolloutVerdicts}
	for _, r := range []string{"qa", ""} {
		if err := mayAnswer(s, rollout.Command{Verb: rollout.Approve, Role: r}); err != nil {
			t.Errorf("no waves: %v", err)
		}
	}
	held := gatedState(t, "waves: [{name: first, verdicts: {minimum: 9}}]", fleet.RolloutVerdicts)
	for _, verb := range []rollout.Verb{rollout.Approve, rollout.Reject} {
		if err := mayAnswer(held, rollout.Command{Verb: verb, Role: "qa", By: "operator q"}); !errors.Is(err, caller.ErrDenied) || !strings.Contains(err.Error(), "hub get operators") {
			t.Errorf("got %v", err)
		}
		if err := mayAnswer(held, rollout.Command{Verb: verb, Role: "admin"}); err != nil {
			t.Errorf("got %v", err)
		}
	}
	named := gatedState(t, "waves: [{name: first, approval: qa, verdicts: {minimum: 9}}]", fleet.RolloutVerdicts)
	if err := mayAnswer(named, rollout.Command{Verb: rollout.Approve, Role: "qa"}); err != nil {
		t.Errorf("got %v", err)
	}
}
