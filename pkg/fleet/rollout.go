package fleet

import "time"

// RolloutPhase is where a rollout stands: one release on its way through the waves of its plan.
type RolloutPhase string

const (
	RolloutWindow      RolloutPhase = "AwaitingWindow"   // the wave's window is closed
	RolloutApproval    RolloutPhase = "AwaitingApproval" // the wave's gate wants a person
	RolloutProgressing RolloutPhase = "Progressing"      // the wave's clusters are being offered the release
	RolloutSoaking     RolloutPhase = "Soaking"          // the wave has it; time is to show whether it holds
	RolloutVerdicts    RolloutPhase = "AwaitingVerdicts" // too little evidence from the wave's clusters yet
	RolloutHolding     RolloutPhase = "Holding"          // the budget is broken, or a gate says no: a person decides
	RolloutPaused      RolloutPhase = "Paused"           // by a person
	RolloutReturning   RolloutPhase = "RollingBack"      // clusters are being brought back

	RolloutCompleted  RolloutPhase = "Completed"  // offered to everybody from now on
	RolloutAborted    RolloutPhase = "Aborted"    // by a person: what has the release keeps it
	RolloutReturned   RolloutPhase = "RolledBack" // brought back, by policy or by a person
	RolloutSuperseded RolloutPhase = "Superseded" // a newer release's rollout took over
	RolloutRecalled   RolloutPhase = "Recalled"   // the release was called back
)

// RolloutPhases lists all, in the order of a rollout.
var RolloutPhases = []RolloutPhase{RolloutWindow, RolloutApproval, RolloutProgressing, RolloutSoaking, RolloutVerdicts, RolloutHolding,
	RolloutPaused, RolloutReturning, RolloutCompleted, RolloutAborted, RolloutReturned, RolloutSuperseded, RolloutRecalled}

// Terminal: the rollout is over.
func (p RolloutPhase) Terminal() bool {
	switch p {
	case RolloutCompleted, RolloutAborted, RolloutReturned, RolloutSuperseded, RolloutRecalled:
		return true
	}
	return false
}

// Mark is what became of one cluster in a rollout.
type Mark string

const (
	MarkWaiting    Mark = "Waiting"      // its turn has not come
	MarkOffered    Mark = "Offered"      // it may take the release, and has not begun
	MarkUnderway   Mark = "Underway"     // it is taking it
	MarkDone       Mark = "Done"         // it runs the release, whole and healthy
	MarkFailed     Mark = "Failed"       // it refused the release, rolled back, or is ill with it
	MarkParked     Mark = "Parked"       // pinned, windowed, unapproved or silent: counted apart, caught up later
	MarkUnaffected Mark = "Unaffected"   // its policy never takes this release, or it runs a newer one
	MarkLeft       Mark = "Left"         // the cluster, or its subscription, is gone
	MarkReturning  Mark = "Returning"    // it is being brought back
	MarkReturned   Mark = "Returned"     // it runs what it ran before
	MarkStranded   Mark = "ReturnFailed" // it could not be brought back: a person has to look
)

// Block is why a cluster does not take what it is offered, for now or for good.
type Block string

const (
	BlockNone     Block = ""
	BlockPin      Block = "pinned"
	BlockWindow   Block = "outside its maintenance window"
	BlockApproval Block = "waits for its provider's approval"
	BlockSilent   Block = "silent"
	BlockPolicy   Block = "its provider's policy does not take it"
	BlockStop     Block = "another release has to run first"
	BlockConfig   Block = "its provider's configuration is in error"
	BlockHeld     Block = "held after it failed there"
	BlockDeclined Block = "declined by its provider" // they said no, or did not answer in time
)

// WithdrawalKind says who took a release back.
type WithdrawalKind string

const (
	Recalled  WithdrawalKind = "Recalled"   // the vendor, from everybody
	TakenBack WithdrawalKind = "RolledBack" // its rollout was undone for this cluster
)

// Withdrawal takes a release off a cluster's offer for ever.
type Withdrawal struct {
	Version string
	Kind    WithdrawalKind
	Reason  string
	To      string // where a cluster that runs it should go; empty: stay
}

// Recall is the vendor's word that a release must not be taken any more.
type Recall struct {
	Distribution, Version string
	Reason, By            string
	At                    time.Time
	RollBack              bool // clusters that run it are offered where to go
}

// HubPin is a pin that was made at the hub.
type HubPin struct {
	Cluster      Cluster
	Distribution string
	Version      string
	Reason       string
	Author       string
	Until        time.Time // zero: until it is taken away
	Created      time.Time
}

// HubDecision answers, at the hub, for a release that waits for its provider on one cluster.
type HubDecision struct {
	Cluster      Cluster
	Distribution string
	Version      string
	Approved     bool
	Reason       string
	Author       string
	At           time.Time
	Asked        time.Time // the PhaseSince of what it answers, by the spoke's clock; zero: whatever was asked at At
}

// Entry is one change by a person or by the hub, for the audit.
type Entry struct {
	Number     uint64 // from 1, without gaps
	At         time.Time
	Actor      string // "operator admin", "acme/eu-1", "hub"
	Credential string // SHA-256 of the certificate, hexadecimal; empty for the hub itself
	Action     string // "rollout approve"
	Object     string // "shop 1.4.0"
	Reason     string
	Previous   []byte // hash of the entry before; nil for the first
	Hash       []byte // SHA-256 over Previous and Record
	Record     []byte // the other fields, canonical JSON
}
