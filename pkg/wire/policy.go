package wire

import (
	"fmt"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// mostWindows are read of one policy.
const mostWindows = 100

// Policy makes the message of a policy.
func Policy(p fleet.Policy) *syncv1.Policy {
	m := &syncv1.Policy{Range: p.Range, Prereleases: p.Prereleases, Patch: string(p.Patch), Minor: string(p.Minor), Major: string(p.Major),
		Windows: p.Windows.Texts()}
	if p.Pin != nil {
		m.Pin, m.PinReason, m.PinSource, m.PinAuthor, m.PinUntil = p.Pin.Version, p.Pin.Reason, p.Pin.Source, p.Pin.Author, Time(p.Pin.Until)
	}
	if f := p.FromHub; f.Told {
		m.FromHub = &syncv1.FromHub{Pins: f.Pins, Decisions: f.Decisions, Rollbacks: f.Rollbacks}
	}
	return m
}

// FromPolicy reads the message of a policy. A step or a window that is not understood is an error: to
// leave it out would allow what the provider does not.
func FromPolicy(m *syncv1.Policy) (fleet.Policy, error) {
	p := fleet.Policy{Range: m.GetRange(), Prereleases: m.GetPrereleases()}
	if m.GetPin() != "" {
		p.Pin = &fleet.Pin{Version: m.GetPin(), Reason: m.GetPinReason(), Source: m.GetPinSource(), Author: m.GetPinAuthor(), Until: FromTime(m.GetPinUntil())}
	}
	if f := m.GetFromHub(); f != nil {
		p.FromHub = fleet.FromHub{Told: true, Pins: f.GetPins(), Decisions: f.GetDecisions(), Rollbacks: f.GetRollbacks()}
	}
	for _, step := range []struct {
		name, text string
		to         *fleet.Upgrade
	}{{"patch", m.GetPatch(), &p.Patch}, {"minor", m.GetMinor(), &p.Minor}, {"major", m.GetMajor(), &p.Major}} {
		u, err := fleet.ParseUpgrade(step.text)
		if err != nil {
			return p, fmt.Errorf("policy: %s upgrades: %w", step.name, err)
		}
		*step.to = u
	}
	if len(m.GetWindows()) > mostWindows {
		return p, fmt.Errorf("policy: %d windows, at most %d are read", len(m.GetWindows()), mostWindows)
	}
	var err error
	if p.Windows, err = fleet.ParseWindows(m.GetWindows()); err != nil {
		return p, fmt.Errorf("policy: %w", err)
	}
	return p, nil
}

// FromOffers reads the releases that a cluster may take; what is only to be tried out is not among them.
func FromOffers(offers []*syncv1.Offer) []fleet.Offered {
	var all []fleet.Offered
	for _, o := range offers {
		if !o.GetPreflight() {
			all = append(all, fleet.Offered{Version: o.GetVersion(), Stops: o.GetStops()})
		}
	}
	return all
}

// Withdrawal makes the message of a withdrawal.
func Withdrawal(w fleet.Withdrawal) *syncv1.Withdrawal {
	m := &syncv1.Withdrawal{Version: w.Version, Kind: syncv1.WithdrawalKind_WITHDRAWAL_KIND_RECALLED, Reason: w.Reason, To: w.To}
	if w.Kind == fleet.TakenBack {
		m.Kind = syncv1.WithdrawalKind_WITHDRAWAL_KIND_ROLLED_BACK
	}
	return m
}

// FromWithdrawal reads the message of a withdrawal. A kind that is not known withdraws all the same.
func FromWithdrawal(m *syncv1.Withdrawal) fleet.Withdrawal {
	w := fleet.Withdrawal{Version: m.GetVersion(), Kind: fleet.Recalled, Reason: m.GetReason(), To: m.GetTo()}
	if m.GetKind() == syncv1.WithdrawalKind_WITHDRAWAL_KIND_ROLLED_BACK {
		w.Kind = fleet.TakenBack
	}
	return w
}

// FromWithdrawals reads all of them.
func FromWithdrawals(ms []*syncv1.Withdrawal) []fleet.Withdrawal {
	var all []fleet.Withdrawal
	for _, m := range ms {
		all = append(all, FromWithdrawal(m))
	}
	return all
}

// HubPin makes the message of a pin that was made at the hub.
func HubPin(p fleet.HubPin) *syncv1.HubPin {
	return &syncv1.HubPin{Version: p.Version, Reason: p.Reason, Author: p.Author, Until: Time(p.Until)}
}

// FromHubPin reads the pin that the hub has for a cluster; nil for none.
func FromHubPin(m *syncv1.HubPin) (*fleet.Pin, error) {
	if m == nil {
		return nil, nil
	}
	if _, err := fleet.ParseVersion(m.GetVersion()); err != nil {
		return nil, fmt.Errorf("pin of the hub: %w", err)
	}
	return &fleet.Pin{Version: m.GetVersion(), Reason: m.GetReason(), Source: fleet.PinHub, Author: m.GetAuthor(), Until: FromTime(m.GetUntil())}, nil
}

// HubDecision makes the message of a decision that was made at the hub.
func HubDecision(d fleet.HubDecision) *syncv1.HubDecision {
	return &syncv1.HubDecision{Version: d.Version, Approved: d.Approved, Reason: d.Reason, Author: d.Author, At: Time(d.At), Asked: Time(d.Asked)}
}

// FromHubDecision reads a decision about one of a cluster's distributions.
func FromHubDecision(cluster fleet.Cluster, distribution string, m *syncv1.HubDecision) (fleet.HubDecision, error) {
	d := fleet.HubDecision{Cluster: cluster, Distribution: distribution, Version: m.GetVersion(), Approved: m.GetApproved(),
		Reason: m.GetReason(), Author: m.GetAuthor(), At: FromTime(m.GetAt()), Asked: FromTime(m.GetAsked())}
	if d.Version == "" || d.At.IsZero() {
		return d, fmt.Errorf("decision of the hub about %s: it names no release or no time", distribution)
	}
	return d, nil
}
