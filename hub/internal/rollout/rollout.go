// Package rollout decides how a release goes through the fleet: a pure state machine over a plan, what is
// known of each cluster, and the words of people. It does no I/O, reads no clock and keeps nothing: the
// conductor stores the state that Next returns and offers what it says. The machine is the table in
// table.go, printed in testdata/machine.golden; what becomes of one cluster is in members.go, on its way back
// in back.go, and who is offered the release in admit.go.
//
// It is level-triggered: Next compares the state with the fleet as it is now, so that no event can be
// missed, and a hub that was restarted goes on where the state says.
//
// A member takes a slot of its wave's concurrency from the offer to its verdict. One that is blocked before
// it is offered the release is parked at once: it is offered the release all the same, uses no slot, and is
// never un-parked but by its verdict. One that is blocked later keeps its slot until the wave's patience is
// over. A wave that nobody took, but may, holds the next one up as long as its patience. A failure counts
// against the budget of its wave wherever the rollout is by then, and so does one of an earlier rollout.
package rollout

import (
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/plan"
)

// State is one rollout between two looks at the fleet.
type State struct {
	ID           uint64
	Distribution string
	Version      string
	Plan         plan.Plan
	PlanSource   string // "default", "wheelwright.yaml", "hub.yaml" or "--plan"
	StartedBy    string
	Started      time.Time

	Phase  fleet.RolloutPhase
	Since  time.Time
	Reason string // what it waits for, or why it ended; one line, for the vendor
	Told   string // the same as every provider may read it: it names nobody's cluster
	// Before is the phase that a pause or a hold interrupted; End is where a return leads to.
	Before, End fleet.RolloutPhase

	Wave    int // under way, from 0
	Waves   []Wave
	Members map[fleet.Cluster]Member
	LeftOut []fleet.Cluster // in no wave of the plan: they take the release when it is completed; sorted

	// Wake is when time alone changes something, as of the last Next; the zero time: Next has not looked yet.
	// It need not be stored.
	Wake time.Time
}

// Wave is what became of a wave of the plan, its amounts laid over the fleet.
type Wave struct {
	Name                string
	Concurrency, Budget int // clusters
	Started, Ended      time.Time
	SoakUntil           time.Time // zero: the soak has not begun
	ApprovedBy          string    // empty: nobody, yet
	Forgiven            int       // failures that a person passed over
}

// Member is one cluster in a rollout.
type Member struct {
	Wave         int // -1: in none; it takes the release when the rollout is completed
	Mark         fleet.Mark
	Since        time.Time
	Reason       string
	Before       string      // what it ran when it was offered the release; where it goes back to
	Offered      time.Time   // zero: it was not, yet
	Block        fleet.Block // why it does not move, as of BlockedSince
	BlockedSince time.Time
}

// Observation is what is known of one subscription now.
type Observation struct {
	Running, Target string
	Wants           string // what its policy takes of what is offered
	Phase           fleet.Phase
	Health          fleet.Health
	Reason          string
	Block           fleet.Block // fleet.BlockSilent for old news, whatever it says
	Behind          string      // what is behind Block, for a preview: "pinned at 1.1.0 by ada"; empty: nothing more
	Labels          map[string]string
}

// Fleet is every subscription of the distribution, by cluster.
type Fleet map[fleet.Cluster]Observation
