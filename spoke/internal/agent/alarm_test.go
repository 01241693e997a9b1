package agent_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance/channel"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/verify"
)

// trusting has the vendor sign its tags, and the provider list its key.
func (s *stage) trusting() ssh.Signer {
	s.t.Helper()
	key, line := sshKey(s.t, "release@vendor.example")
	file := filepath.Join(s.dir, "vendor.allowed_signers")
	if err := os.WriteFile(file, []byte(line), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.sub.Signers, s.vendor.key = verify.Signers{Files: []string{file}}, key
	return key
}

// alarmed waits for what the installation says to be wrong; empty: for nothing to be.
func (s *stage) alarmed(text string) {
	s.t.Helper()
	s.cluster.Eventually(s.t, fmt.Sprintf("the alarm %q", text), func() error {
		if got := s.now().Alarm; text == "" && got != "" || !strings.Contains(got, text) {
			return fmt.Errorf("the alarm is %q", got)
		}
		return nil
	})
}

// Law 5: a version that comes with other content than before, though the vendor has signed both, is taken
// under no name, and what runs stays.
func TestAMovedTagIsAnIncident(t *testing.T) {
	s := newStage(t)
	s.trusting()
	stop := s.installed("1.0.0", "old")
	defer func() { stop() }()
	s.upgraded(t, "1.1.0", "new")
	first := s.now().Bundle

	s.vendor.forget("1.1.0")
	s.vendor.release(t, "1.1.0", app("1.1.0", good, "moved"))
	s.offer()
	s.alarmed("TagMoved: 1.1.0 is offered as ")
	s.told(fleet.EventTagMoved, "nothing of it is taken, ask the vendor why")
	stop = s.restart(t, stop, func() { s.sub.HealthTimeout++ }) // a reason to look at everything anew
	s.alarmed("TagMoved: 1.1.0")
	if i := s.now(); i.Running != "1.1.0" || i.Bundle != first {
		t.Errorf("runs %s %s, want the first content %s", i.Running, i.Bundle, first)
	}
	s.mustBeWhole("1.1.0", "new")

	// Nor is it where it does not run any more: a pin to it goes nowhere.
	if _, _, err := s.agent.RollBack(t.Context(), "shop", "", "", false); err != nil {
		t.Fatal(err)
	}
	s.reaches(fleet.RolledBack, "1.1.0", "1.0.0")
	if _, err := s.agent.Pin(t.Context(), "shop", fleet.Pin{Version: "1.1.0"}, false); err == nil || !strings.Contains(err.Error(), "1.1.0 is not on offer") {
		t.Errorf("a moved tag is pinned: %v", err)
	}
	s.mustBeWhole("1.0.0", "old")
	s.vendor.forget("1.1.0")
	s.offer()
	s.alarmed("")
	s.told(fleet.EventAgent, "over: TagMoved: 1.1.0")
}

// With signers, a hub's word alone takes nobody back: neither a recall, nor an old release under its own
// name, nor a pin.
func TestTheHubAloneTakesNobodyBack(t *testing.T) {
	s := newStage(t)
	s.trusting()
	s.sub.FromHub.Pins = true
	stop := s.installed("1.0.0", "old")
	defer func() { stop() }()
	s.upgraded(t, "1.2.0", "new")
	s.hear(recalled("1.2.0", "1.0.0"))
	if i := s.reaches(fleet.AwaitingApproval, "1.0.0", "1.2.0"); !strings.Contains(i.Reason, "going back from 1.2.0 to 1.0.0 is the hub's word alone") {
		t.Errorf("reason: %s", i.Reason)
	}
	s.mustBeWhole("1.2.0", "new")
	if _, err := s.agent.Reject(t.Context(), "shop", "", ""); err != nil {
		t.Fatal(err)
	}
	s.reaches(fleet.Refused, "1.0.0", "1.2.0")
	s.hear(func(d *syncv1.DistributionOffers) { d.Pin = &syncv1.HubPin{Version: "1.0.0", Author: "mallory"} })
	s.cluster.Eventually(t, "the pin to be refused", func() error {
		if i := s.now(); i.Running != "1.2.0" || !strings.Contains(i.Reason, "only a pin or a rollback of your own goes there") {
			return fmt.Errorf("%s %s runs %s: %s", i.Phase, i.Target, i.Running, i.Reason)
		}
		return nil
	})

	// Its provider's own rollback goes where it wants, and opens no door to what lies between.
	if _, _, err := s.agent.RollBack(t.Context(), "shop", "1.0.0", "", false); err != nil {
		t.Fatal(err)
	}
	s.cluster.Eventually(s.t, "1.0.0 to run again", func() error {
		if i := s.now(); i.Running != "1.0.0" || !i.Phase.Terminal() {
			return fmt.Errorf("%s %s runs %s", i.Phase, i.Target, i.Running)
		}
		return nil
	})
	s.vendor.release(t, "1.1.0", app("1.1.0", good, "vulnerable"))
	s.offer()
	s.cluster.Eventually(t, "the older release to be passed over", func() error {
		if i := s.now(); !strings.Contains(i.Reason, "1.2.0 is held") && !strings.Contains(i.Reason, "1.1.0 is older than 1.2.0, which ran healthy here") {
			return fmt.Errorf("%s %s runs %s: %s", i.Phase, i.Target, i.Running, i.Reason)
		}
		return nil
	})
	stop = s.restart(t, stop, func() { s.sub.HealthTimeout++ })
	s.vendor.release(t, "1.3.0", app("1.3.0", good, "newer"))
	s.offer()
	s.reaches(fleet.Succeeded, "1.3.0", "1.3.0")
	for _, e := range s.events(fleet.EventPhase) {
		if strings.Contains(e, "1.1.0") {
			t.Errorf("it was begun: %s", e)
		}
	}
}

// states has the vendor sign what is current.
func (s *stage) states(key ssh.Signer, st channel.Statement) channel.Signed {
	s.t.Helper()
	st.Distribution = "shop"
	signed, err := channel.New(st)
	if err == nil {
		signed, err = signed.Sign(func(text []byte) ([]byte, error) {
			sig, err := sshsig.Sign(bytes.NewReader(text), key, sshsig.HashSHA512, "channel@wheelwright.dev")
			if err != nil {
				return nil, err
			}
			return sshsig.Armor(sig), nil
		})
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return signed
}

// What the vendor has signed counts whatever the hub says: its recall is followed, and its silence is noticed.
func TestTheVendorsOwnWord(t *testing.T) {
	s := newStage(t)
	key := s.trusting()
	thief, _ := sshKey(t, "release@vendor.example")
	stop := s.installed("1.0.0", "old")
	defer func() { stop() }()
	s.upgraded(t, "1.1.0", "new")
	now := time.Now().Truncate(time.Second)
	say := func(signed channel.Signed, edit ...func(*syncv1.DistributionOffers)) {
		s.hear(func(d *syncv1.DistributionOffers) {
			d.Channel = signed.Bytes()
			for _, e := range edit {
				e(d)
			}
		})
	}
	one := s.states(key, channel.Statement{Sequence: 1, Latest: "1.1.0", Issued: now.Add(-time.Hour), Expires: now.Add(time.Hour)})
	say(s.states(thief, one.Statement))
	s.alarmed("a statement of what is current is not the vendor's")
	say(one)
	s.alarmed("")
	if c := s.now().Channel; c == nil || c.Sequence != 1 || c.Latest != "1.1.0" {
		t.Errorf("the channel is %+v", c)
	}

	// The vendor's signed recall is enough, where the hub's would not be.
	two := s.states(key, channel.Statement{Sequence: 2, Latest: "1.0.0", Recalled: []string{"1.1.0"}, Issued: now.Add(-time.Minute), Expires: now.Add(time.Hour), Previous: one.Digest()})
	say(two, recalled("1.1.0", "1.0.0"))
	s.reaches(fleet.RolledBack, "1.1.0", "1.0.0")
	s.mustBeWhole("1.0.0", "old")

	// A hub that withholds the next one is found out when this one runs out.
	stale := s.states(key, channel.Statement{Sequence: 3, Latest: "1.0.0", Recalled: []string{"1.1.0"}, Issued: now.Add(-time.Minute), Expires: time.Now().Add(3 * time.Second), Previous: two.Digest()})
	say(stale)
	s.alarmed("Frozen since ")
	s.told(fleet.EventAgent, "that 1.0.0 is the latest, was news until then")
	say(one) // an old one is no news
	s.alarmed("Frozen since ")

	// Two statements of one number are two stories.
	say(s.states(key, channel.Statement{Sequence: 3, Latest: "1.2.0", Issued: now, Expires: now.Add(time.Hour), Previous: two.Digest()}))
	s.alarmed("Equivocation: the vendor's key has signed two statements with the sequence 3")
	stop = s.restart(t, stop, func() { s.sub.HealthTimeout++ })
	s.alarmed("Equivocation")
}

// forget takes a version off the offer.
func (v *vendor) forget(version string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.offer = slices.DeleteFunc(slices.Clone(v.offer), func(o *syncv1.Offer) bool { return o.GetVersion() == version })
}
