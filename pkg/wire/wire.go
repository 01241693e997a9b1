// Package wire translates between the nouns of pkg/fleet and the messages of proto, in one place for
// both sides. It checks what comes in: a message of a newer or hostile peer never becomes a wrong noun.
package wire

import (
	"encoding/hex"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// Time maps the zero time to an absent timestamp.
func Time(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// FromTime maps an absent timestamp to the zero time.
func FromTime(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

// Installation makes the message of an installation.
func Installation(i fleet.Installation) *syncv1.SubscriptionStatus {
	return &syncv1.SubscriptionStatus{
		Distribution: i.Distribution, Variant: i.Variant, Namespace: i.Namespace, Policy: Policy(i.Policy),
		RunningVersion: i.Running, BundleDigest: string(i.Bundle), OverlayDigest: string(i.Overlay), RenderedDigest: string(i.Rendered),
		Phase: string(i.Phase), TargetVersion: i.Target, Reason: i.Reason, PhaseSince: Time(i.PhaseSince),
		Health: string(i.Health), HealthMessage: i.HealthMessage, Objects: uint32(i.Objects), Ready: uint32(i.Ready),
		DriftCorrected: uint32(i.DriftCorrected), Drifted: uint32(i.Drifted), DriftMessage: i.DriftMessage, ObservedAt: Time(i.ObservedAt),
		Wants: i.Wants, Would: i.Would, Declined: i.Declined, Canary: Canary(i.Canary),
		SignedBy: i.SignedBy, Alarm: i.Alarm, Channel: Channel(i.Channel),
	}
}

// FromInstallation reads the message of an installation.
func FromInstallation(m *syncv1.SubscriptionStatus) (fleet.Installation, error) {
	if m == nil {
		return fleet.Installation{}, fmt.Errorf("subscription status: absent")
	}
	if err := fleet.CheckDistributionName(m.GetDistribution()); err != nil {
		return fleet.Installation{}, fmt.Errorf("subscription status: %w", err)
	}
	for _, d := range []string{m.GetBundleDigest(), m.GetOverlayDigest(), m.GetRenderedDigest()} {
		if d == "" {
			continue
		}
		if _, err := fleet.ParseDigest(d); err != nil {
			return fleet.Installation{}, fmt.Errorf("subscription status of %s: %w", m.GetDistribution(), err)
		}
	}
	policy, err := FromPolicy(m.GetPolicy())
	if err != nil {
		return fleet.Installation{}, fmt.Errorf("subscription status of %s: %w", m.GetDistribution(), err)
	}
	return fleet.Installation{
		Distribution: m.GetDistribution(), Variant: m.GetVariant(), Namespace: m.GetNamespace(), Policy: policy,
		Running: m.GetRunningVersion(), Bundle: fleet.Digest(m.GetBundleDigest()), Overlay: fleet.Digest(m.GetOverlayDigest()),
		Rendered: fleet.Digest(m.GetRenderedDigest()),
		Phase:    fleet.Phase(m.GetPhase()), Target: m.GetTargetVersion(), Reason: m.GetReason(), PhaseSince: FromTime(m.GetPhaseSince()),
		Health: fleet.Health(m.GetHealth()), HealthMessage: m.GetHealthMessage(), Objects: int(m.GetObjects()), Ready: int(m.GetReady()),
		DriftCorrected: int(m.GetDriftCorrected()), Drifted: int(m.GetDrifted()), DriftMessage: m.GetDriftMessage(), ObservedAt: FromTime(m.GetObservedAt()),
		Wants: m.GetWants(), Would: m.GetWould(), Declined: m.GetDeclined(), Canary: FromCanary(m.GetCanary()),
		SignedBy: m.GetSignedBy()[:min(len(m.GetSignedBy()), mostSigners)], Alarm: m.GetAlarm(), Channel: FromChannel(m.GetChannel()),
	}, nil
}

var eventKinds = map[fleet.EventKind]syncv1.EventKind{
	fleet.EventPhase:     syncv1.EventKind_EVENT_KIND_PHASE,
	fleet.EventHealth:    syncv1.EventKind_EVENT_KIND_HEALTH,
	fleet.EventDrift:     syncv1.EventKind_EVENT_KIND_DRIFT,
	fleet.EventDeclined:  syncv1.EventKind_EVENT_KIND_DECLINED,
	fleet.EventAgent:     syncv1.EventKind_EVENT_KIND_AGENT,
	fleet.EventPreflight: syncv1.EventKind_EVENT_KIND_PREFLIGHT,
	fleet.EventTagMoved:  syncv1.EventKind_EVENT_KIND_TAG_MOVED,
	fleet.EventOrder:     syncv1.EventKind_EVENT_KIND_ORDER,
	fleet.EventIdentity:  syncv1.EventKind_EVENT_KIND_IDENTITY,
}

// Event makes the message of a spoke's event.
func Event(e fleet.Event) *syncv1.Event {
	m := &syncv1.Event{Seq: e.Seq, At: Time(e.At), Kind: eventKinds[e.Kind], Distribution: e.Distribution, Version: e.Version, Message: e.Message}
	if e.Installation != nil {
		m.Status = Installation(*e.Installation)
	}
	if e.Preflight != nil {
		m.Preflight = Preflight(*e.Preflight)
	}
	if e.Order != nil {
		m.Order = &syncv1.OrderAnswer{Nonce: e.Order.Nonce, Accepted: e.Order.Accepted}
	}
	if e.ReHome != nil {
		m.ReHome = &syncv1.ReHomeAnswer{Nonce: e.ReHome.Nonce, State: string(e.ReHome.State)}
	}
	return m
}

// FromEvent reads the message of a spoke's event. The cluster is the caller's, never the message's.
func FromEvent(cluster fleet.Cluster, m *syncv1.Event) (fleet.Event, error) {
	e := fleet.Event{Seq: m.GetSeq(), At: FromTime(m.GetAt()), Cluster: cluster, Distribution: m.GetDistribution(), Version: m.GetVersion(), Message: m.GetMessage()}
	for kind, wireKind := range eventKinds {
		if wireKind == m.GetKind() {
			e.Kind = kind
		}
	}
	if e.Kind == "" {
		return e, fmt.Errorf("event %d: unknown kind %v", m.GetSeq(), m.GetKind())
	}
	if m.GetStatus() != nil {
		i, err := FromInstallation(m.GetStatus())
		if err != nil {
			return e, fmt.Errorf("event %d: %w", m.GetSeq(), err)
		}
		e.Installation = &i
	}
	if e.Kind == fleet.EventPreflight {
		p, err := FromPreflight(m.GetPreflight())
		if err != nil {
			return e, fmt.Errorf("event %d: %w", m.GetSeq(), err)
		}
		e.Preflight = &p
	}
	if a := m.GetOrder(); e.Kind == fleet.EventOrder && a != nil {
		if !isNonce(a.GetNonce()) {
			return e, fmt.Errorf("event %d: answers the order %q, which is no nonce", m.GetSeq(), a.GetNonce())
		}
		e.Order = &fleet.OrderAnswer{Nonce: a.GetNonce(), Accepted: a.GetAccepted()}
	}
	if a := m.GetReHome(); e.Kind == fleet.EventIdentity {
		state := fleet.ReHomeState(a.GetState())
		if !isNonce(a.GetNonce()) || !state.Said() {
			return e, fmt.Errorf("event %d: says %q of the re-home %q, want a state and a nonce", m.GetSeq(), a.GetState(), a.GetNonce())
		}
		e.ReHome = &fleet.ReHomeAnswer{Nonce: a.GetNonce(), State: state}
	}
	return e, nil
}

func isNonce(s string) bool {
	raw, err := hex.DecodeString(s)
	return err == nil && len(raw) == 16
}
