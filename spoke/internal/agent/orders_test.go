package agent_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/journal"
)

func (s *stage) record() journal.Record {
	s.t.Helper()
	rec, _, err := s.journal.Record("shop")
	if err != nil {
		s.t.Fatal(err)
	}
	return rec
}

// Law 8: back by hand, out of the spoke's own memory, and it sticks.
func TestRollBackByHand(t *testing.T) {
	s := newStage(t)
	stop := s.installed("1.0.0", "a")
	defer func() { stop() }()
	s.upgraded(t, "1.1.0", "b")
	s.upgraded(t, "1.2.0", "c")
	s.vendor.away.Store(true)

	from, to, err := s.agent.RollBack(t.Context(), "shop", "", "", true)
	if err != nil || from != "1.2.0" || to != "1.1.0" || s.now().Phase != fleet.Succeeded {
		t.Errorf("a dry run: %s -> %s, %v, %s", from, to, err, s.now().Phase)
	}
	if _, _, err := s.agent.RollBack(t.Context(), "shop", "0.9.0", "", false); !errors.Is(err, fleet.ErrNothingWaits) || !strings.Contains(err.Error(), "[1.1.0 1.0.0]") {
		t.Errorf("to what never ran: %v", err)
	}
	if from, to, err = s.agent.RollBack(t.Context(), "shop", "", "latency", false); err != nil || from != "1.2.0" || to != "1.1.0" {
		t.Fatal(from, to, err)
	}
	i := s.reaches(fleet.RolledBack, "1.2.0", "1.1.0")
	s.mustBeWhole("1.1.0", "b")
	if !strings.Contains(i.Reason, "by hand: latency") {
		t.Errorf("reason: %s", i.Reason)
	}
	s.offer()
	stop = s.restart(t, stop, func() {})
	s.offer()
	s.cluster.Eventually(t, "a look at what runs", func() error {
		if s.now().Health != fleet.Healthy || !slices.ContainsFunc(s.events(fleet.EventAgent), func(m string) bool { return strings.Contains(m, "started") }) {
			return errors.New("not yet")
		}
		return nil
	})
	s.reaches(fleet.RolledBack, "1.2.0", "1.1.0")

	// Two steps at once, and what is between stays away too.
	s.vendor.away.Store(false)
	if v, err := s.agent.Approve(t.Context(), "shop", "1.2.0"); err != nil || v != "1.2.0" {
		t.Fatal(v, err)
	}
	s.reaches(fleet.Succeeded, "1.2.0", "1.2.0")
	if _, to, err = s.agent.RollBack(t.Context(), "shop", "1.0.0", "", false); err != nil || to != "1.0.0" {
		t.Fatal(to, err)
	}
	s.reaches(fleet.RolledBack, "1.2.0", "1.0.0")
	s.mustBeWhole("1.0.0", "a")
	if h := s.record().Held; h["1.1.0"].Reason == "" || h["1.2.0"].Reason == "" {
		t.Errorf("held are %v", h)
	}
	s.upgraded(t, "1.3.0", "d")
	if h := s.record().Held; len(h) != 0 {
		t.Errorf("a newer release clears what was held: %v", h)
	}
	memories, err := s.agent.Memories()
	if err != nil || len(memories) != 1 || memories[0].Previous[0] != "1.0.0" {
		t.Errorf("%+v %v", memories, err)
	}
}

// A person's word ends an upgrade that is under way.
func TestRollBackInTheMiddle(t *testing.T) {
	s := newStage(t)
	s.sub.HealthTimeout, s.every.Grace = time.Minute, time.Minute
	defer s.installed("1.0.0", "old")()
	s.vendor.release(t, "1.1.0", app("1.1.0", bad, "new"))
	s.offer()
	s.reaches(fleet.Settling, "1.1.0", "1.0.0")
	if from, to, err := s.agent.RollBack(t.Context(), "shop", "", "", false); err != nil || from != "1.1.0" || to != "1.0.0" {
		t.Fatal(from, to, err)
	}
	s.reaches(fleet.RolledBack, "1.1.0", "1.0.0")
	s.mustBeWhole("1.0.0", "old")
}

// More deletions than the budget allows are asked for first; what was asked survives a restart.
func TestTheDeletionBudgetAsks(t *testing.T) {
	s := newStage(t)
	stop := s.installed("1.0.0", names...)
	defer func() { stop() }()
	s.vendor.release(t, "1.1.0", app("1.1.0", good))
	s.offer()
	i := s.reaches(fleet.AwaitingApproval, "1.1.0", "1.0.0")
	if !strings.Contains(i.Reason, "deletes 10 of 12 objects") || !strings.Contains(i.Reason, "spoke approve shop") {
		t.Errorf("reason: %s", i.Reason)
	}
	if p := s.record().Tried["1.1.0"].Result; p.Outcome != fleet.OutcomeChanges || !strings.Contains(p.Summary(), "delete 10 ConfigMap") {
		t.Errorf("the hub is told: %s", p.Summary())
	}
	if _, err := s.agent.Approve(t.Context(), "shop", "9.9.9"); !errors.Is(err, fleet.ErrNothingWaits) {
		t.Errorf("another version: %v", err)
	}
	stop = s.restart(t, stop, func() {})
	s.reaches(fleet.AwaitingApproval, "1.1.0", "1.0.0")
	s.mustBeWhole("1.0.0", names...)
	s.cluster.Eventually(t, "the approval to be taken", func() error {
		_, err := s.agent.Approve(t.Context(), "shop", "1.1.0")
		return err
	})
	s.reaches(fleet.Succeeded, "1.1.0", "1.1.0")
	s.mustBeWhole("1.1.0")
}

func TestRejectedAndUnanswered(t *testing.T) {
	s := newStage(t)
	stop := s.installed("1.0.0", names...)
	defer func() { stop() }()
	s.vendor.release(t, "1.1.0", app("1.1.0", good))
	s.offer()
	s.reaches(fleet.AwaitingApproval, "1.1.0", "1.0.0")
	if v, err := s.agent.Reject(t.Context(), "shop", "", "not this month"); err != nil || v != "1.1.0" {
		t.Fatal(v, err)
	}
	if i := s.reaches(fleet.Refused, "1.1.0", "1.0.0"); !strings.Contains(i.Reason, "not this month") || !i.Declined {
		t.Errorf("reason: %s, declined: %v", i.Reason, i.Declined)
	}
	stop = s.restart(t, stop, func() { s.sub.ApprovalTimeout = time.Second })
	s.offer()
	s.reaches(fleet.Refused, "1.1.0", "1.0.0")
	s.vendor.release(t, "1.2.0", app("1.2.0", good))
	s.offer()
	if i := s.reaches(fleet.Refused, "1.2.0", "1.0.0"); !strings.Contains(i.Reason, "no answer after 1s") {
		t.Errorf("reason: %s", i.Reason)
	}
	s.mustBeWhole("1.0.0", names...)
}

// A first install that is cut off half-way leaves nothing.
func TestHalfAFirstInstallIsTakenAway(t *testing.T) {
	s := newStage(t)
	s.kubectl(t, "create", "quota", "few", "--hard=count/configmaps=6")
	s.kubectl(t, "create", "configmap", "settings") // of somebody else
	s.vendor.release(t, "1.0.0", app("1.0.0", good, names...))
	defer s.start(nil)()
	s.offer()
	i := s.reaches(fleet.RolledBack, "1.0.0", "")
	if !strings.Contains(i.Reason, "exceeded quota") {
		t.Errorf("reason: %s", i.Reason)
	}
	if got := s.kubectl(t, "get", "configmaps,deployments", "-o", "name"); strings.Contains(got, "/a\n") || strings.Contains(got, "backend") {
		t.Errorf("left are\n%s", got)
	}
	s.kubectl(t, "get", "configmap", "settings")
}

// A release is tried out where it may not be taken yet, or is not wanted yet, and nothing is touched.
func TestPreflight(t *testing.T) {
	s := newStage(t)
	s.sub.Policy.Pin = &fleet.Pin{Version: "1.0.0", Source: "spoke.yaml"}
	stop := s.installed("1.0.0", "a")
	defer func() { stop() }()
	invalid := app("1.3.0", good)
	invalid["settings.yaml"] = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: Not_A_Name}\n"
	s.vendor.release(t, "1.1.0", app("1.0.0", good, "a"))
	s.vendor.release(t, "1.2.0", app("1.2.0", good, "b"))
	s.vendor.release(t, "1.3.0", invalid)
	s.offer()
	want := map[string]string{"1.1.0": "ok", "1.2.0": "changes: create 1 ConfigMap, change 1 ConfigMap, delete 1 ConfigMap, change 1 Deployment", "1.3.0": "breaks: dry run: ConfigMap"}
	s.cluster.Eventually(t, "three answers", func() error {
		for v, text := range want {
			if got := s.record().Tried[v].Result.Summary(); !strings.HasPrefix(got, text) {
				return fmt.Errorf("%s: %q, want %q", v, got, text)
			}
		}
		return nil
	})
	s.mustBeWhole("1.0.0", "a")
	if n := len(s.events(fleet.EventPreflight)); n != 4 {
		t.Errorf("%d pre-flight events, want one of the install and one of each of three releases: %q", n, s.events(fleet.EventPreflight))
	}

	// Without the pin, what is offered for a trial only is not taken.
	d := s.vendor.desired()
	d.Distributions[0].Offers = []*syncv1.Offer{d.Distributions[0].Offers[0], d.Distributions[0].Offers[2]}
	d.Distributions[0].Offers[1].Preflight = true
	if err := s.agent.SetDesired(d); err != nil {
		t.Fatal(err)
	}
	stop = s.restart(t, stop, func() { s.sub.Policy.Pin = nil })
	s.cluster.Eventually(t, "nothing to take", func() error {
		if i := s.now(); i.Phase != fleet.Succeeded || i.Running != "1.0.0" || i.Policy.Pin != nil {
			return fmt.Errorf("%s %s %v", i.Phase, i.Running, i.Policy.Pin)
		}
		return nil
	})
	d.Distributions[0].Offers[1].Preflight = false
	if err := s.agent.SetDesired(d); err != nil {
		t.Fatal(err)
	}
	s.reaches(fleet.Succeeded, "1.2.0", "1.2.0")

	p, err := s.agent.Plan(t.Context(), "shop", "1.0.0")
	if err != nil || p.Preflight.Outcome != fleet.OutcomeChanges || p.From != "1.2.0" || len(p.Steps) != 4 {
		t.Errorf("the plan of the release before: %+v %v", p, err)
	}
	p, err = s.agent.Plan(t.Context(), "shop", "1.2.0")
	if err != nil || p.Preflight.Outcome != fleet.OutcomeOk || len(p.Steps) != 0 {
		t.Errorf("the plan of what runs: %+v %v", p, err)
	}
}

// The Kubernetes API away: it waits, asks seldom, and goes on.
func TestTheClusterAway(t *testing.T) {
	s := newStage(t)
	defer s.installed("1.0.0")()
	s.away.Store(true)
	s.vendor.release(t, "1.1.0", app("1.1.0", good))
	s.offer()
	s.cluster.Eventually(t, "the upgrade to wait", func() error {
		if i := s.now(); i.Phase != fleet.Checking || !strings.Contains(i.Reason, "cannot be reached") {
			return fmt.Errorf("%s: %s", i.Phase, i.Reason)
		}
		return nil
	})
	before, begin := s.requests.Load(), time.Now()
	s.cluster.Eventually(t, "some time", func() error {
		if time.Since(begin) < 2*time.Second {
			return errors.New("not yet")
		}
		return nil
	})
	if n := s.requests.Load() - before; n > 150 { // three askers, each at most every 150 ms, and the watches
		t.Errorf("%d requests in two seconds to an API that is away", n)
	}
	s.away.Store(false)
	s.reaches(fleet.Succeeded, "1.1.0", "1.1.0")
	s.mustBeWhole("1.1.0")
}
