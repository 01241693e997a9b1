package agent_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/config"
)

// hear tells the spoke what the vendor has, with what the hub adds to it.
func (s *stage) hear(edit func(*syncv1.DistributionOffers)) {
	s.t.Helper()
	d := s.vendor.desired()
	edit(d.Distributions[0])
	if err := s.agent.SetDesired(d); err != nil {
		s.t.Fatal(err)
	}
}

// says waits for a reason in a phase.
func (s *stage) says(phase fleet.Phase, running, text string) {
	s.t.Helper()
	s.cluster.Eventually(s.t, fmt.Sprintf("%s with %s running, that says %q", phase, running, text), func() error {
		if i := s.now(); i.Phase != phase || i.Running != running || !strings.Contains(i.Reason, text) {
			return fmt.Errorf("it is %s %s with %q running: %s", i.Phase, i.Target, i.Running, i.Reason)
		}
		return nil
	})
}

// told waits for an event.
func (s *stage) told(kind fleet.EventKind, text string) {
	s.t.Helper()
	s.cluster.Eventually(s.t, fmt.Sprintf("an event that says %q", text), func() error {
		if all := s.events(kind); !slices.ContainsFunc(all, func(m string) bool { return strings.Contains(m, text) }) {
			return fmt.Errorf("events are %q", all)
		}
		return nil
	})
}

// opening is a window of an hour that opens so long from now, to the second.
func opening(in time.Duration) fleet.Windows {
	at := time.Now().Add(in).UTC().Truncate(time.Second)
	midnight := time.FixedZone("UTC", -(at.Hour()*3600 + at.Minute()*60 + at.Second())) // it is, there, then
	return fleet.Windows{{Days: [7]bool{true, true, true, true, true, true, true}, To: time.Hour, Zone: midnight}}
}

// Law 2: patches are taken, minor releases are asked about, major ones are not taken.
func TestWhatIsTakenByItselfAndWhatIsAskedAbout(t *testing.T) {
	s := newStage(t)
	s.sub.Policy.Minor, s.sub.Policy.Major = fleet.AskFirst, fleet.NeverTaken
	stop := s.installed("1.0.0")
	defer func() { stop() }()
	for _, v := range []string{"1.0.1", "1.1.0", "2.0.0"} {
		s.vendor.release(t, v, app(v, good))
	}
	s.offer()
	i := s.reaches(fleet.AwaitingApproval, "1.1.0", "1.0.1") // the patch first
	if !strings.Contains(i.Reason, "minor upgrade from 1.0.1 needs approval (versions.minor: approve)") || !strings.Contains(i.Reason, "spoke approve shop") {
		t.Errorf("reason: %s", i.Reason)
	}
	if i.Wants != "1.1.0" || i.Would != "" {
		t.Errorf("wants %q, would %q", i.Wants, i.Would)
	}
	stop = s.restart(t, stop, func() {})
	s.offer()
	s.reaches(fleet.AwaitingApproval, "1.1.0", "1.0.1")
	s.mustBeWhole("1.0.1")
	s.approves(t, "1.1.0")
	s.reaches(fleet.Succeeded, "1.1.0", "1.1.0")
	s.says(fleet.Succeeded, "1.1.0", "2.0.0 is not taken (versions.major: never)")

	// What was said no to is taken after all, and is not asked about again.
	s.vendor.release(t, "1.2.0", app("1.2.0", good))
	s.offer()
	s.reaches(fleet.AwaitingApproval, "1.2.0", "1.1.0")
	if p, err := s.agent.Plan(t.Context(), "shop", ""); err != nil || p.To != "1.2.0" || len(p.Asks) != 1 {
		t.Errorf("the plan: %+v %v", p, err)
	}
	if _, err := s.agent.Reject(t.Context(), "shop", "", "busy"); err != nil {
		t.Fatal(err)
	}
	s.reaches(fleet.Refused, "1.2.0", "1.1.0")
	s.approves(t, "1.2.0")
	s.reaches(fleet.Succeeded, "1.2.0", "1.2.0")

	// A policy that does not ask any more lets go on what it asked about.
	s.vendor.release(t, "1.3.0", app("1.3.0", good))
	s.offer()
	s.reaches(fleet.AwaitingApproval, "1.3.0", "1.2.0")
	stop = s.restart(t, stop, func() { s.sub.Policy.Minor = fleet.Automatic })
	s.reaches(fleet.Succeeded, "1.3.0", "1.3.0")
	s.mustBeWhole("1.3.0")
}

func (s *stage) approves(t *testing.T, version string) {
	t.Helper()
	s.cluster.Eventually(t, "the approval to be taken", func() error {
		_, err := s.agent.Approve(t.Context(), "shop", version)
		return err
	})
}

// Law 2: a release waits for its provider's window; nothing else does.
func TestTheMaintenanceWindow(t *testing.T) {
	s := newStage(t)
	s.sub.Policy.Windows = opening(3 * time.Hour)
	s.sub.Policy.Minor = fleet.AskFirst
	s.sub.Overlay = config.Overlay{Path: "/provider"}
	plain := "resources:\n- " + url + "//dist/app\n"
	s.overlay.write(map[string]string{"kustomization.yaml": plain})
	stop := s.installed("1.0.0")
	defer func() { stop() }()
	s.overlay.write(map[string]string{"kustomization.yaml": plain + "images:\n- name: registry.example.com/app\n  newTag: \"2\"\n"})
	s.cluster.Eventually(t, "the provider's own change", func() error { return s.image("registry.example.com/app:2") })

	s.vendor.release(t, "1.1.0", app("1.1.0", good))
	s.offer()
	s.reaches(fleet.AwaitingApproval, "1.1.0", "1.0.0")
	s.approves(t, "1.1.0")
	i := s.reaches(fleet.AwaitingWindow, "1.1.0", "1.0.0")
	if !strings.Contains(i.Reason, "its maintenance window opens at 20") {
		t.Errorf("reason: %s", i.Reason)
	}
	s.mustBeWhole("1.0.0")
	if h := s.record().Held; len(h) != 0 {
		t.Errorf("waiting is no failure: %v", h)
	}
	s.kubectl(t, "delete", "configmap", "settings")
	s.cluster.Eventually(t, "drift is put back", func() error { return s.whole("1.0.0") })

	// What the provider changes meanwhile is of what runs, too.
	s.overlay.write(map[string]string{"kustomization.yaml": plain + "images:\n- name: registry.example.com/app\n  newTag: \"3\"\n"})
	s.cluster.Eventually(t, "the provider's own change", func() error { return s.image("registry.example.com/app:3") })
	s.reaches(fleet.AwaitingWindow, "1.1.0", "1.0.0")
	s.mustBeWhole("1.0.0")

	// It is remembered, without the hub; and when it opens, what was approved is not asked again.
	s.vendor.away.Store(true)
	stop = s.restart(t, stop, func() {})
	s.reaches(fleet.AwaitingWindow, "1.1.0", "1.0.0")
	s.mustBeWhole("1.0.0")
	stop = s.restart(t, stop, func() { s.sub.Policy.Windows = opening(3 * time.Second) })
	s.reaches(fleet.Succeeded, "1.1.0", "1.1.0")
	s.mustBeWhole("1.1.0")
	count := func(text string) (n int) {
		for _, m := range s.events(fleet.EventPhase) {
			if strings.HasPrefix(m, text) {
				n++
			}
		}
		return n
	}
	if asked, checked := count("1.1.0 waits for its provider"), count("Checking 1.1.0"); asked != 1 || checked != 4 {
		t.Errorf("asked %d times, checked %d times: %q", asked, checked, s.events(fleet.EventPhase))
	}

	// A person goes back at any time.
	s.vendor.away.Store(false)
	stop = s.restart(t, stop, func() { s.sub.Policy.Windows = opening(3 * time.Hour) })
	s.cluster.Eventually(t, "the return to begin", func() error {
		_, _, err := s.agent.RollBack(t.Context(), "shop", "", "", false)
		return err
	})
	s.reaches(fleet.RolledBack, "1.1.0", "1.0.0")
	s.mustBeWhole("1.0.0")
}

// stops says which releases have to run before one is taken.
func (v *vendor) stops(version string, stops ...string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, o := range v.offer {
		if o.Version == version {
			o.Stops = stops
		}
	}
}

func TestARequiredStopIsTakenFirst(t *testing.T) {
	s := newStage(t)
	defer s.installed("1.0.0")()
	for _, v := range []string{"1.1.0", "1.2.0", "1.3.0"} {
		s.vendor.release(t, v, app(v, good))
	}
	s.vendor.stops("1.3.0", "1.1.0")
	s.offer()
	s.reaches(fleet.Succeeded, "1.3.0", "1.3.0")
	s.mustBeWhole("1.3.0")
	s.told(fleet.EventPhase, "Promoting 1.1.0: 1.1.0 on the way to 1.3.0")
	for _, m := range s.events(fleet.EventPhase) {
		if strings.Contains(m, "Promoting 1.2.0") || strings.Contains(m, "Promoting 1.3.0:") {
			t.Errorf("%q", m)
		}
	}
	if p := s.record().Previous; len(p) != 2 || p[0].Version != "1.1.0" {
		t.Errorf("it came from %+v", p)
	}
	s.vendor.release(t, "1.5.0", app("1.5.0", good))
	s.vendor.stops("1.5.0", "1.4.0")
	s.offer()
	s.says(fleet.Succeeded, "1.3.0", "1.5.0 needs 1.4.0 first, which is not on offer")
	s.told(fleet.EventDeclined, "1.5.0 needs 1.4.0 first")
}

func TestPinAndUnpin(t *testing.T) {
	s := newStage(t)
	stop := s.installed("1.0.0")
	defer func() { stop() }()
	pin := func(p fleet.Pin) fleet.Installation {
		t.Helper()
		i, err := s.agent.Pin(t.Context(), "shop", p, false)
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	if i, err := s.agent.Pin(t.Context(), "shop", fleet.Pin{Version: "1.0.0"}, true); err != nil || i.Policy.Pin == nil || s.now().Policy.Pin != nil {
		t.Errorf("a dry run: %+v %v", i.Policy.Pin, err)
	}
	pin(fleet.Pin{Version: "1.0.0", Reason: "audit", Author: "ada"})
	s.told(fleet.EventAgent, "pinned at 1.0.0 by ada (spoke): audit")
	s.vendor.release(t, "1.1.0", app("1.1.0", good))
	s.offer()
	would := func(wants, would string) {
		t.Helper()
		s.cluster.Eventually(t, "what it would be without the pin", func() error {
			if i := s.now(); i.Running != "1.0.0" || i.Policy.Pin == nil || i.Wants != wants || i.Would != would {
				return fmt.Errorf("%s runs, %+v, wants %q, would %q", i.Running, i.Policy.Pin, i.Wants, i.Would)
			}
			return nil
		})
	}
	would("1.0.0", "1.1.0")
	stop = s.restart(t, stop, func() {})
	s.offer()
	would("1.0.0", "1.1.0")
	s.mustBeWhole("1.0.0")

	for v, text := range map[string]string{"0.9.0": "on offer are [1.0.0 1.1.0], and 1.0.0 runs"} {
		if _, err := s.agent.Pin(t.Context(), "shop", fleet.Pin{Version: v}, false); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", v, err)
		}
	}
	if err := s.agent.Unpin(t.Context(), "shop", "", true); err != nil || s.record().Pin == nil {
		t.Errorf("a dry run: %v", err)
	}
	if err := s.agent.Unpin(t.Context(), "shop", "audit is over", false); err != nil {
		t.Fatal(err)
	}
	s.reaches(fleet.Succeeded, "1.1.0", "1.1.0")
	if err := s.agent.Unpin(t.Context(), "shop", "", false); !errors.Is(err, fleet.ErrNothingWaits) {
		t.Errorf("twice: %v", err)
	}

	// To a release that does not run it goes, and when the pin ends it goes on.
	i := pin(fleet.Pin{Version: "1.0.0", Until: time.Now().Add(12 * time.Second)})
	if i.Wants != "1.0.0" || i.Would != "1.1.0" {
		t.Errorf("wants %q, would %q", i.Wants, i.Would)
	}
	s.reaches(fleet.Succeeded, "1.0.0", "1.0.0")
	s.reaches(fleet.Succeeded, "1.1.0", "1.1.0")
	s.told(fleet.EventAgent, "the pin at 1.0.0 by spoke is over: follows every release")
	if p := s.record().Pin; p != nil {
		t.Errorf("a pin that is over stays: %+v", p)
	}

	// Not on the upgrade path.
	s.vendor.release(t, "1.3.0", app("1.3.0", good))
	s.vendor.stops("1.3.0", "1.2.0")
	s.offer()
	if _, err := s.agent.Pin(t.Context(), "shop", fleet.Pin{Version: "1.3.0"}, false); err == nil || !strings.Contains(err.Error(), "1.3.0 needs 1.2.0 first, which is not on offer") {
		t.Errorf("off the path: %v", err)
	}
	stop = s.restart(t, stop, func() { s.sub.Policy.Pin = &fleet.Pin{Version: "1.1.0", Source: fleet.PinConfig} })
	s.cluster.Eventually(t, "a word on the pin that is written", func() error {
		_, err := s.agent.Pin(t.Context(), "shop", fleet.Pin{Version: "1.0.0"}, false)
		if err == nil || !strings.Contains(err.Error(), "pinned at 1.1.0 by spoke.yaml, which goes before") {
			return fmt.Errorf("got %w", err)
		}
		return nil
	})
}

// The hub's pin counts last, and where spoke.yaml lets it.
func TestAPinOfTheHub(t *testing.T) {
	s := newStage(t)
	s.sub.FromHub.Pins = true
	stop := s.installed("1.0.0")
	defer func() { stop() }()
	s.vendor.release(t, "1.1.0", app("1.1.0", good))
	pinned := func(d *syncv1.DistributionOffers) {
		d.Pin = &syncv1.HubPin{Version: "1.0.0", Reason: "their audit", Author: "ada"}
	}
	s.hear(pinned)
	s.told(fleet.EventAgent, "pinned at 1.0.0 by ada (hub): their audit")
	s.cluster.Eventually(t, "what it would be without the pin", func() error {
		if i := s.now(); i.Would != "1.1.0" || i.Running != "1.0.0" || i.Policy.Pin.Source != fleet.PinHub {
			return fmt.Errorf("%s runs, would %q", i.Running, i.Would)
		}
		return nil
	})
	if err := s.agent.Unpin(t.Context(), "shop", "", false); !errors.Is(err, fleet.ErrNothingWaits) || !strings.Contains(err.Error(), "by ada (hub)") {
		t.Errorf("unpin: %v", err)
	}
	if _, err := s.agent.Pin(t.Context(), "shop", fleet.Pin{Version: "1.1.0"}, false); err != nil {
		t.Fatal(err)
	}
	s.reaches(fleet.Succeeded, "1.1.0", "1.1.0") // the provider's own word goes before
	if err := s.agent.Unpin(t.Context(), "shop", "", false); err != nil {
		t.Fatal(err)
	}
	s.reaches(fleet.Succeeded, "1.0.0", "1.0.0")
	stop = s.restart(t, stop, func() { s.sub.FromHub.Pins = false })
	s.reaches(fleet.Succeeded, "1.1.0", "1.1.0")
	s.told(fleet.EventDeclined, "the hub's pin at 1.0.0 by ada does not count here")
}

func TestADecisionAtTheHub(t *testing.T) {
	s := newStage(t)
	s.sub.Policy.Minor = fleet.AskFirst
	stop := s.installed("1.0.0")
	defer func() { stop() }()
	s.vendor.release(t, "1.1.0", app("1.1.0", good))
	decision := func(version string, yes bool, at time.Time) func(*syncv1.DistributionOffers) {
		return func(d *syncv1.DistributionOffers) {
			d.Decisions = []*syncv1.HubDecision{{Version: version, Approved: yes, Reason: "tried it", Author: "ada", At: timestamppb.New(at)}}
		}
	}
	s.offer()
	s.reaches(fleet.AwaitingApproval, "1.1.0", "1.0.0")
	before := s.now().PhaseSince.Add(-time.Hour)

	// Not what this provider allows.
	ignored := decision("1.1.0", true, time.Now())
	s.hear(ignored)
	s.told(fleet.EventDeclined, "1.1.0 was approved by ada at the hub, which does not count here: spoke.yaml")
	s.hear(ignored)
	asked := s.now().PhaseSince
	stop = s.restart(t, stop, func() { s.sub.FromHub.Decisions = true })
	s.hear(ignored)
	s.told(fleet.EventAgent, "of what is said at the hub for this provider, pins do not count and approvals count")
	if i := s.now(); !i.PhaseSince.Equal(asked) || i.Policy.FromHub != (fleet.FromHub{Told: true, Decisions: true, Rollbacks: true}) {
		t.Errorf("asked again at %s, and at first at %s; reported is %+v", i.PhaseSince, asked, i.Policy.FromHub)
	}
	s.hear(decision("1.0.9", true, time.Now()))
	s.told(fleet.EventDeclined, "1.0.9 was approved by ada at the hub, and does not wait")
	s.reaches(fleet.AwaitingApproval, "1.1.0", "1.0.0")
	n := 0
	for _, m := range s.events(fleet.EventDeclined) {
		if strings.Contains(m, "does not count") {
			n++
		}
	}
	if n != 1 {
		t.Errorf("said %d times", n)
	}

	s.hear(decision("1.1.0", true, time.Now().Add(time.Second)))
	s.reaches(fleet.Succeeded, "1.1.0", "1.1.0")
	s.told(fleet.EventAgent, "1.1.0 was approved by ada at the hub: tried it")
	if !s.record().Decided.After(before) {
		t.Error("the decision is not remembered")
	}

	s.vendor.release(t, "1.2.0", app("1.2.0", good))
	s.offer()
	i := s.reaches(fleet.AwaitingApproval, "1.2.0", "1.1.0")
	at := s.record().Decided
	s.cluster.Eventually(t, "the hub's clock", func() error {
		if !time.Now().After(at.Add(time.Second)) || !time.Now().After(i.PhaseSince) {
			return errors.New("not yet")
		}
		return nil
	})
	no := decision("1.2.0", false, time.Now())
	s.hear(no)
	if i := s.reaches(fleet.Refused, "1.2.0", "1.1.0"); i.Reason != "rejected by ada at the hub: tried it" {
		t.Errorf("reason: %s", i.Reason)
	}
	// It is taken once: what is taken up again afterwards, by a person here, is not said no to again.
	s.approves(t, "1.2.0")
	s.reaches(fleet.Succeeded, "1.2.0", "1.2.0")
	stop = s.restart(t, stop, func() {})
	s.hear(no)
	s.reaches(fleet.Succeeded, "1.2.0", "1.2.0")
	s.mustBeWhole("1.2.0")
}

// A decision that is older than its question may be of another one, or of a clock that is off.
func TestADecisionBeforeItsQuestion(t *testing.T) {
	s := newStage(t)
	s.sub.Policy.Minor, s.sub.FromHub.Decisions = fleet.AskFirst, true
	defer s.installed("1.0.0")()
	s.vendor.release(t, "1.1.0", app("1.1.0", good))
	s.offer()
	s.reaches(fleet.AwaitingApproval, "1.1.0", "1.0.0")
	s.hear(func(d *syncv1.DistributionOffers) {
		d.Decisions = []*syncv1.HubDecision{{Version: "1.1.0", Approved: true, At: timestamppb.New(time.Now().Add(-time.Hour))}}
	})
	s.told(fleet.EventDeclined, "compare the clocks")
	s.reaches(fleet.AwaitingApproval, "1.1.0", "1.0.0")
	s.mustBeWhole("1.0.0")
}
