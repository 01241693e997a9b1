package wire

import (
	"fmt"
	"slices"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// Preflight makes the message of a pre-flight's result.
func Preflight(p fleet.Preflight) *syncv1.Preflight {
	m := &syncv1.Preflight{
		Version: p.Version, BundleDigest: string(p.Bundle), OverlayDigest: string(p.Overlay), Outcome: string(p.Outcome),
		Reason: p.Reason, Reversibility: string(p.Reversibility), At: Time(p.At),
	}
	for _, c := range p.Changes {
		m.Changes = append(m.Changes, &syncv1.KindChange{Kind: c.Kind, Verb: string(c.Verb), Count: uint32(c.Count)})
	}
	return m
}

const (
	mostChanges = 1000 // kinds times verbs of one pre-flight
	mostKind    = 253  // bytes of a kind's name
)

// FromPreflight reads the message of a pre-flight's result.
func FromPreflight(m *syncv1.Preflight) (fleet.Preflight, error) {
	p := fleet.Preflight{
		Version: m.GetVersion(), Bundle: fleet.Digest(m.GetBundleDigest()), Overlay: fleet.Digest(m.GetOverlayDigest()),
		Outcome: fleet.Outcome(m.GetOutcome()), Reason: m.GetReason(), Reversibility: fleet.Reversibility(m.GetReversibility()), At: FromTime(m.GetAt()),
	}
	switch p.Outcome {
	case fleet.OutcomeOk, fleet.OutcomeChanges, fleet.OutcomeBreaks:
	default:
		return p, fmt.Errorf("pre-flight of %q: unknown outcome %q", p.Version, p.Outcome)
	}
	switch p.Reversibility {
	case "", fleet.Reversible, fleet.ReversibleKeepingCRDs, fleet.OneWay:
	default:
		return p, fmt.Errorf("pre-flight of %q: unknown reversibility %q", p.Version, p.Reversibility)
	}
	if len(m.GetChanges()) > mostChanges {
		return p, fmt.Errorf("pre-flight of %q: %d changes, at most %d are read", p.Version, len(m.GetChanges()), mostChanges)
	}
	for _, c := range m.GetChanges() {
		if !slices.Contains(fleet.Verbs, fleet.Verb(c.GetVerb())) || c.GetKind() == "" || len(c.GetKind()) > mostKind {
			return p, fmt.Errorf("pre-flight of %q: unknown change %q of %.40q", p.Version, c.GetVerb(), c.GetKind())
		}
		p.Changes = append(p.Changes, fleet.KindChange{Kind: c.GetKind(), Verb: fleet.Verb(c.GetVerb()), Count: int(c.GetCount())})
	}
	return p, nil
}
