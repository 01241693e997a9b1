package fleet

import "time"

// Installation is the state of one subscription of one cluster, as its spoke knows it.
type Installation struct {
	Distribution string
	Variant      string
	Namespace    string
	Policy       Policy

	Running  string // version that runs now, whole; empty before the first install
	Bundle   Digest // of the running release's canonical tar
	Overlay  Digest
	Rendered Digest

	Phase      Phase  // of the current or last delivery
	Target     string // the release that the delivery goes to
	Reason     string // one redacted line; empty when there is nothing to say
	PhaseSince time.Time
	Declined   bool    // Refused, and not by the release's fault: its provider said no, or did not answer in time
	Canary     *Canary // nil: none is under way

	Health         Health
	HealthMessage  string
	Objects, Ready int
	DriftCorrected int    // objects put back since the running release was installed
	Drifted        int    // objects that others changed or deleted and that are left so, by policy or after a fight
	DriftMessage   string // the first of them: object, field, who wrote it
	ObservedAt     time.Time

	SignedBy []string // whose signatures the running release has, PRINCIPAL (KIND FINGERPRINT); none where nobody's were asked for
	Alarm    string   // what is wrong with what the hub offers, such as a moved tag; one line; empty: nothing
	Channel  *Channel // the vendor's own statement of what is current; nil: there is none

	Wants string // the release that the policy takes of what is offered; empty: none
	Would string // the one that it would take without its pin; empty: the same
}

// Channel is what a vendor has signed about what is current.
type Channel struct {
	Sequence uint64    `json:"sequence"`
	Latest   string    `json:"latest"`
	Issued   time.Time `json:"issued"`
	Expires  time.Time `json:"expires"`
}

// Frozen: the statement is news no more, and nothing newer came.
func (c *Channel) Frozen(now time.Time) bool { return c != nil && !now.Before(c.Expires) }

// EventKind says what sort of thing happened.
type EventKind string

const (
	EventPhase     EventKind = "Phase"
	EventHealth    EventKind = "Health"
	EventDrift     EventKind = "Drift"
	EventDeclined  EventKind = "Declined"
	EventAgent     EventKind = "Agent"
	EventPreflight EventKind = "Preflight" // Event.Preflight says what was found
	EventOrder     EventKind = "Order"     // Event.Order says what came of an operator's signed order

	// The hub's own.
	EventPublished  EventKind = "Published"
	EventRejected   EventKind = "Rejected"
	EventTagMoved   EventKind = "TagMoved"
	EventTagDeleted EventKind = "TagDeleted"
	EventInvited    EventKind = "Invited"
	EventJoined     EventKind = "Joined"
	EventAdded      EventKind = "Added" // a distribution is watched from here on
	EventRemoved    EventKind = "Removed"
	EventSigners    EventKind = "Signers"   // a distribution's tags need other signatures from here on
	EventStatement  EventKind = "Statement" // a vendor's statement of what is current was passed on
	EventRollout    EventKind = "Rollout"   // a rollout entered another phase, or a wave did
	EventRecalled   EventKind = "Recalled"  // a release was called back
	EventPinned     EventKind = "Pinned"    // a pin was made or taken away at the hub
	EventDecided    EventKind = "Decided"   // somebody answered at the hub for a provider
	EventOperator   EventKind = "Operator"  // somebody got a role at the hub, or lost it
	EventIdentity   EventKind = "Identity"  // a spoke's identity was accepted, turned away or put in quarantine, came back after it had expired, or moves to another hub
)

// Event is something that happened: on a cluster, or at the hub where Cluster is empty.
type Event struct {
	ID           uint64 // the hub's number; 0 at the spoke
	Seq          uint64 // the spoke's number within its journal; 0 for the hub's own
	At           time.Time
	Cluster      Cluster
	Distribution string
	Version      string
	Kind         EventKind
	Message      string
	Installation *Installation // the subscription after the event; nil for the hub's own
	Preflight    *Preflight    // of an EventPreflight only
	Order        *OrderAnswer  // of an EventOrder only; nil where the order could not be read so far
	ReHome       *ReHomeAnswer // of an EventIdentity that a spoke sends
}

// OrderAnswer is what a spoke made of an operator's signed order; why is the event's message.
type OrderAnswer struct {
	Nonce    string // 32 hexadecimal digits
	Accepted bool
}
