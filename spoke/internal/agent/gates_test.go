package agent_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/config"
)

// gate is what is to be seen at one gate.
type gate struct {
	word, reason string
	step         int
	traffic      string
}

func allGates() []gate {
	return []gate{
		{fleet.GateTraffic, "asks before live traffic", 0, "backend, cache, frontend 0 %"},
		{fleet.GateIncrease, "step 1 of 3 passed; asks before more traffic", 1, ""},
		{fleet.GateIncrease, "step 2 of 3 passed; asks before more traffic", 2, ""},
		{fleet.GatePromotion, "all 3 steps passed; asks before promotion", 3, ""},
	}
}

// atGate waits until the provider is asked about something else than at the time given.
func (s *stage) atGate(want gate, last time.Time) fleet.Installation {
	s.t.Helper()
	var i fleet.Installation
	s.cluster.Eventually(s.t, want.reason, func() error {
		if i = s.now(); i.Phase != fleet.AwaitingApproval || i.PhaseSince.Equal(last) {
			return fmt.Errorf("%s: %s", i.Phase, i.Reason)
		}
		return nil
	})
	c := i.Canary
	if !strings.HasPrefix(i.Reason, want.reason) || c == nil || c.Gate != want.word || c.Step != want.step || c.Steps != 3 || c.Held {
		s.t.Fatalf("got %s, %+v", i.Reason, c)
	}
	if got := fleet.TrafficText(c.Traffic); want.traffic != "" && got != want.traffic || len(c.Traffic) != 3 {
		s.t.Fatalf("traffic is %s", got)
	}
	return i
}

// answered is what the hub says in its provider's place; asked: about what.
func (s *stage) answered(yes bool, at, asked time.Time) {
	s.t.Helper()
	s.hear(func(d *syncv1.DistributionOffers) {
		d.Decisions = []*syncv1.HubDecision{{Version: "1.1.0", Approved: yes, Reason: "seen", Author: "ines", At: timestamppb.New(at), Asked: timestamppb.New(asked)}}
	})
}

func TestTheHubAnswersEachGateOfACanary(t *testing.T) {
	s := newStage(t)
	s.walking("good")
	s.sub.FromHub.Decisions = true
	s.sub.Canary = config.Canary{Traffic: true, Increase: true, Promotion: true}
	stop := s.walked()
	defer func() { stop() }()
	// The hub's clock is ahead of the spoke's, so that an answer looks newer than the next question.
	var last time.Time
	ahead := func() time.Time { return time.Now().Add(time.Hour) }
	for n, want := range allGates() {
		i := s.atGate(want, last)
		if n > 0 { // the same person, twice about the gate before
			s.answered(true, ahead(), last)
			s.told(fleet.EventDeclined, "which answers what was asked here at "+last.UTC().Format(time.RFC3339))
			if now := s.now(); now.Phase != fleet.AwaitingApproval || !now.PhaseSince.Equal(i.PhaseSince) {
				t.Fatalf("gate %d: an answer to the one before counted: %s: %s", n, now.Phase, now.Reason)
			}
		}
		if n == 1 {
			stop = s.restart(t, stop, func() {})
			if now := s.atGate(want, last); !now.PhaseSince.Equal(i.PhaseSince) {
				t.Fatalf("asked anew at %s, and at first at %s", now.PhaseSince, i.PhaseSince)
			}
		}
		last = i.PhaseSince
		s.answered(true, ahead(), last)
	}
	i := s.reaches(fleet.Succeeded, "1.1.0", "1.1.0")
	s.alone("1.1.0", "new")
	if i.Canary != nil {
		t.Errorf("a canary is left: %+v", i.Canary)
	}
	approved := 0
	for _, m := range s.events(fleet.EventAgent) {
		if strings.Contains(m, "approved by ines at the hub: seen") {
			approved++
		}
	}
	if approved != len(allGates()) {
		t.Errorf("%d answers counted:\n%s", approved, strings.Join(s.events(fleet.EventAgent), "\n"))
	}
}

func TestTheHubRejectsACanaryAtItsGate(t *testing.T) {
	s := newStage(t)
	s.walking("good")
	s.sub.FromHub.Decisions = true
	s.sub.Canary = config.Canary{Increase: true}
	defer s.walked()()
	i := s.atGate(allGates()[1], time.Time{})
	s.answered(false, time.Now(), i.PhaseSince)
	i = s.reaches(fleet.RolledBack, "1.1.0", "1.0.0")
	s.alone("1.0.0", "old")
	if i.Reason != "rejected by ines at the hub: seen" || i.Canary != nil {
		t.Errorf("reason: %s; %+v", i.Reason, i.Canary)
	}
}

func TestNobodyAnswersAtAGateOfACanary(t *testing.T) {
	s := newStage(t)
	s.walking("good")
	s.sub.Canary, s.sub.ApprovalTimeout = config.Canary{Promotion: true}, 3*time.Second
	defer s.walked()()
	s.atGate(allGates()[3], time.Time{})
	i := s.reaches(fleet.RolledBack, "1.1.0", "1.0.0")
	s.alone("1.0.0", "old")
	if !strings.Contains(i.Reason, "(no answer after 3s)") {
		t.Errorf("reason: %s", i.Reason)
	}
}

func TestTheHubHearsOfAHeldCanary(t *testing.T) {
	s := newStage(t)
	s.walking("missing")
	s.sub.Canary = config.Canary{} // it waits for evidence without an end
	defer s.walked()()
	s.cluster.Eventually(t, "the first step", func() error {
		if c := s.now().Canary; c == nil || c.Step != 1 || len(c.Traffic) != 3 || c.Traffic[0] != (fleet.Traffic{Service: "backend", Weight: 20}) {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
	for n, word := range []fleet.Steer{fleet.SteerHold, fleet.SteerResume} {
		held := n == 0
		if _, err := s.agent.Steer(t.Context(), "shop", "1.1.0", word, "lunch"); err != nil {
			t.Fatal(err)
		}
		events, err := s.journal.Pending(0, 0)
		if err != nil {
			t.Fatal(err)
		}
		n = len(events) - 1
		for ; n >= 0 && !strings.Contains(events[n].Message, "a person says "+string(word)+" to the canary of 1.1.0, in step 1 of 3: lunch"); n-- {
		}
		if n < 0 || events[n].Installation.Canary == nil || events[n].Installation.Canary.Held != held || s.now().Canary.Held != held {
			t.Errorf("%s: %d events tell of %+v", word, len(events), s.now().Canary)
		}
	}
	if _, err := s.agent.Reject(t.Context(), "shop", "", "no"); err == nil {
		t.Error("nothing was asked, and a no was taken")
	}
}

// Going on without evidence is one answer, and more traffic is another.
func TestAnAnswerInPlaceOfEvidenceIsNoneToTheGate(t *testing.T) {
	s := newStage(t)
	m := s.walking("missing")
	s.sub.FromHub.Decisions = true
	s.sub.Canary = config.Canary{Increase: true, Evidence: time.Second}
	defer s.walked()()
	first := s.atGate(gate{fleet.GateEvidence, "step 1 of 3 (", 1, ""}, time.Time{})
	s.answered(true, time.Now().Add(time.Hour), first.PhaseSince)
	second := s.atGate(allGates()[1], first.PhaseSince)
	s.answered(true, time.Now().Add(2*time.Hour), first.PhaseSince)
	s.told(fleet.EventDeclined, "wants an answer of its own")
	if i := s.now(); i.Phase != fleet.AwaitingApproval || !i.PhaseSince.Equal(second.PhaseSince) {
		t.Fatalf("%s: %s", i.Phase, i.Reason)
	}
	m.mode.Store("good")
	if _, err := s.agent.Approve(t.Context(), "shop", ""); err != nil {
		t.Fatal(err)
	}
	third := s.atGate(allGates()[2], second.PhaseSince)
	s.answered(true, time.Now().Add(3*time.Hour), third.PhaseSince)
	s.reaches(fleet.Succeeded, "1.1.0", "1.1.0")
	s.alone("1.1.0", "new")
}
