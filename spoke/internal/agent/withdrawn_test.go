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

// recalled takes a version off the offer for good.
func recalled(version, to string) func(*syncv1.DistributionOffers) {
	return func(d *syncv1.DistributionOffers) {
		without(version)(d)
		d.Withdrawals = []*syncv1.Withdrawal{{Version: version, Kind: syncv1.WithdrawalKind_WITHDRAWAL_KIND_RECALLED, Reason: "it loses carts", To: to}}
	}
}

// without takes a version off the offer.
func without(version string) func(*syncv1.DistributionOffers) {
	return func(d *syncv1.DistributionOffers) {
		d.Offers = slices.DeleteFunc(d.Offers, func(o *syncv1.Offer) bool { return o.Version == version })
	}
}

// Laws 2 and 8: what runs and is recalled is left for what the hub names, out of the spoke's own memory, in
// the provider's window; and it sticks.
func TestARecalledReleaseIsLeft(t *testing.T) {
	s := newStage(t)
	stop := s.installed("1.0.0", "old")
	defer func() { stop() }()
	s.upgraded(t, "1.1.0", "new")
	s.vendor.away.Store(true)
	stop = s.restart(t, stop, func() { s.sub.Policy.Windows = opening(3 * time.Hour) })
	s.hear(recalled("1.1.0", "1.0.0"))
	i := s.reaches(fleet.AwaitingWindow, "1.0.0", "1.1.0")
	if !strings.Contains(i.Reason, "1.1.0 was recalled: it loses carts; its maintenance window opens at") || i.Wants != "1.0.0" {
		t.Errorf("reason: %s; wants %q", i.Reason, i.Wants)
	}
	s.mustBeWhole("1.1.0", "new")
	stop = s.restart(t, stop, func() { s.sub.Policy.Windows = opening(3 * time.Second) })
	i = s.reaches(fleet.RolledBack, "1.1.0", "1.0.0")
	if i.Reason != "recalled by the vendor: it loses carts" {
		t.Errorf("reason: %s", i.Reason)
	}
	s.mustBeWhole("1.0.0", "old")
	s.told(fleet.EventPhase, "1.0.0 runs again, whole, and 1.1.0 is held: recalled by the vendor: it loses carts")
	if d := s.record().Delivery; d == nil || d.ByHand {
		t.Errorf("it was no person: %+v", d)
	}

	// Not even by a hub that has forgotten.
	s.vendor.away.Store(false)
	s.offer()
	stop = s.restart(t, stop, func() { s.sub.Policy.Windows = nil })
	s.vendor.release(t, "1.0.1", app("1.0.1", good))
	s.offer()
	s.reaches(fleet.Succeeded, "1.0.1", "1.0.1")
	s.mustBeWhole("1.0.1")
	if h := s.record().Held["1.1.0"]; h.Reason == "" || h.Overlay != "" {
		t.Errorf("held: %+v", h)
	}
	s.upgraded(t, "1.1.1")
}

// The release to go to never ran here: it is delivered like any other.
func TestARecalledReleaseIsLeftForOneThatIsNotRemembered(t *testing.T) {
	s := newStage(t)
	s.vendor.release(t, "1.0.0", app("1.0.0", good, "old"))
	defer s.installed("1.1.0", "new")()
	s.hear(recalled("1.1.0", "0.9.0"))
	s.says(fleet.Succeeded, "1.1.0", "1.1.0 was recalled: it loses carts; 0.9.0, the release to go to, is neither on offer nor kept here")
	s.hear(recalled("1.1.0", "1.0.0"))
	s.reaches(fleet.Succeeded, "1.0.0", "1.0.0")
	s.mustBeWhole("1.0.0", "old")
}

// Where the policy asks about a step back, the provider is asked.
func TestARecalledReleaseIsLeftByApproval(t *testing.T) {
	s := newStage(t)
	stop := s.installed("1.0.0", "old")
	defer func() { stop() }()
	s.upgraded(t, "1.1.0", "new")
	stop = s.restart(t, stop, func() { s.sub.Policy.Minor = fleet.AskFirst })
	s.hear(func(d *syncv1.DistributionOffers) {
		recalled("1.1.0", "1.0.0")(d)
		d.Offers = nil // the spoke has the bundle
	})
	i := s.reaches(fleet.AwaitingApproval, "1.0.0", "1.1.0")
	if !strings.Contains(i.Reason, "minor step back from 1.1.0 needs approval") {
		t.Errorf("reason: %s", i.Reason)
	}
	s.vendor.away.Store(true)
	s.approves(t, "1.0.0")
	s.reaches(fleet.Succeeded, "1.0.0", "1.0.0")
	s.mustBeWhole("1.0.0", "old")
}

// Without a release to go to, and where the provider has pinned it, what runs stays and says so.
func TestARecalledReleaseStays(t *testing.T) {
	s := newStage(t)
	stop := s.installed("1.0.0")
	defer func() { stop() }()
	s.upgraded(t, "1.1.0")
	s.hear(recalled("1.1.0", ""))
	s.says(fleet.Succeeded, "1.1.0", "1.1.0 was recalled: it loses carts")
	s.told(fleet.EventDeclined, "1.1.0 runs, 2 objects: 1.1.0 was recalled: it loses carts")
	if _, err := s.agent.Pin(t.Context(), "shop", fleet.Pin{Version: "1.1.0"}, false); err != nil {
		t.Fatal(err)
	}
	s.hear(recalled("1.1.0", "1.0.0"))
	s.says(fleet.Succeeded, "1.1.0", "1.1.0 was recalled: it loses carts; the pin of spoke keeps it")
	s.mustBeWhole("1.1.0")
	if err := s.agent.Unpin(t.Context(), "shop", "", false); err != nil {
		t.Fatal(err)
	}
	s.reaches(fleet.RolledBack, "1.1.0", "1.0.0")
	if _, err := s.agent.Pin(t.Context(), "shop", fleet.Pin{Version: "1.1.0"}, false); err == nil {
		t.Error("a recalled release is pinned")
	}
	held := s.record().Held["1.1.0"]
	for _, version := range []string{"1.1.0", ""} {
		v, err := s.agent.Approve(t.Context(), "shop", version)
		if !errors.Is(err, fleet.ErrNothingWaits) || !strings.Contains(err.Error(), "recalled by the vendor: it loses carts") || !strings.Contains(err.Error(), "spoke status shop") {
			t.Errorf("a recalled release is approved: %q %v", v, err)
		}
	}
	if now := s.record().Held["1.1.0"]; now != held || now.Reason == "" {
		t.Errorf("held: %+v, and before: %+v", now, held)
	}
	s.hear(func(d *syncv1.DistributionOffers) {
		recalled("1.1.0", "1.0.0")(d)
		d.Withdrawals[0].Kind, d.Withdrawals[0].Reason = syncv1.WithdrawalKind_WITHDRAWAL_KIND_ROLLED_BACK, "undone by operator admin: bad"
	})
	s.cluster.Eventually(t, "the refusal to say who undid it", func() error {
		if _, err := s.agent.Approve(t.Context(), "shop", "1.1.0"); err == nil || !strings.Contains(err.Error(), "its rollout was undone by operator admin: bad") {
			return fmt.Errorf("got %v", err)
		}
		return nil
	})
}

// Law 7: in the middle of a delivery it ends in the return; before it, it is dropped.
func TestARecallInTheMiddle(t *testing.T) {
	s := newStage(t)
	s.sub.HealthTimeout, s.every.Grace = time.Minute, time.Minute
	s.sub.Policy.Minor, s.sub.Policy.Windows = fleet.AskFirst, nil
	stop := s.installed("1.0.0", "old")
	defer func() { stop() }()
	s.vendor.release(t, "1.0.1", app("1.0.1", bad, "new"))
	s.offer()
	s.reaches(fleet.Settling, "1.0.1", "1.0.0")
	s.hear(recalled("1.0.1", ""))
	if i := s.reaches(fleet.RolledBack, "1.0.1", "1.0.0"); i.Reason != "recalled by the vendor: it loses carts" {
		t.Errorf("reason: %s", i.Reason)
	}
	s.mustBeWhole("1.0.0", "old")
	s.told(fleet.EventPhase, "going back from 1.0.1 to 1.0.0: recalled by the vendor")

	s.vendor.release(t, "1.1.0", app("1.1.0", good, "new"))
	s.offer()
	s.reaches(fleet.AwaitingApproval, "1.1.0", "1.0.0")
	s.hear(recalled("1.1.0", ""))
	s.says(fleet.Succeeded, "1.0.0", "1.1.0 is not taken: recalled by the vendor: it loses carts")
	s.told(fleet.EventDeclined, "1.1.0 is not taken: recalled by the vendor")
	stop = s.restart(t, stop, func() { s.sub.Policy.Minor, s.sub.Policy.Windows = fleet.Automatic, opening(3*time.Hour) })
	s.says(fleet.Succeeded, "1.0.0", "1.1.0 is not taken: recalled by the vendor: it loses carts")
	s.vendor.release(t, "1.2.0", app("1.2.0", good, "new"))
	s.offer()
	s.reaches(fleet.AwaitingWindow, "1.2.0", "1.0.0")
	s.hear(recalled("1.2.0", "1.0.0"))
	s.says(fleet.Succeeded, "1.0.0", "1.2.0 is not taken: recalled by the vendor: it loses carts")
	s.mustBeWhole("1.0.0", "old")
}

// A rollout that is on hold takes its offer back from who has not begun; who has goes on to its own end.
func TestAnOfferThatIsTakenBack(t *testing.T) {
	s := newStage(t)
	s.sub.HealthTimeout, s.every.Grace = time.Minute, time.Minute
	s.sub.Policy.Minor = fleet.AskFirst
	defer s.installed("1.0.0")()
	s.vendor.release(t, "1.1.0", app("1.1.0", "registry.example.com/crash-loop:1"))
	s.offer()
	s.reaches(fleet.AwaitingApproval, "1.1.0", "1.0.0")
	s.hear(without("1.1.0"))
	s.reaches(fleet.Succeeded, "1.0.0", "1.0.0")
	s.told(fleet.EventDeclined, "1.1.0 is not on offer any more")
	if h := s.record().Held; len(h) != 0 {
		t.Errorf("held: %v", h)
	}
	s.offer()
	s.reaches(fleet.AwaitingApproval, "1.1.0", "1.0.0")
	s.approves(t, "1.1.0")
	s.reaches(fleet.Settling, "1.1.0", "1.0.0")
	s.hear(without("1.1.0"))
	s.cluster.SetPodsReady(t, s.ns, "app=backend", true)
	s.reaches(fleet.Succeeded, "1.1.0", "1.1.0")
	s.cluster.Eventually(t, "what it wants", func() error {
		if i := s.now(); i.Wants != "1.1.0" {
			return fmt.Errorf("it wants %q", i.Wants)
		}
		return nil
	})
	s.mustBeWhole("1.1.0")
}

// Law 7: killed at each of its writes to the cluster while it leaves a recalled release, the spoke ends wholly
// on the one before, and the recall stands.
func TestKilledWhileARecallIsCarriedOut(t *testing.T) {
	killedAt := func(n int64) (killed bool) {
		s := newStage(t)
		stop := s.installed("1.0.0", "old")
		s.upgraded(t, "1.1.0", "new")
		stop()
		k := &killer{n: n, after: n%2 == 0}
		s.killer.Store(k)
		stop = s.start(func(_ journal.Record, write func() error) error {
			if k.dead.Load() {
				return errKilled
			}
			return write()
		})
		s.hear(recalled("1.1.0", "1.0.0"))
		s.cluster.Eventually(t, "the spoke is killed or done", func() error {
			if i := s.now(); k.dead.Load() || i.Phase == fleet.RolledBack {
				return nil
			}
			return errors.New("neither")
		})
		stop()
		s.killer.Store(nil)
		defer s.start(nil)()
		i := s.reaches(fleet.RolledBack, "1.1.0", "1.0.0")
		s.mustBeWhole("1.0.0", "old")
		if i.Reason != "recalled by the vendor: it loses carts" || s.record().Held["1.1.0"].Reason == "" {
			t.Errorf("killed at write %d: reason %q, held %v", n, i.Reason, s.record().Held)
		}
		return k.dead.Load()
	}
	n := int64(1)
	for killedAt(n) {
		n++
	}
	if n < 4 {
		t.Errorf("only %d writes", n-1)
	}
}
