package rollout

import (
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/plan"
)

// New is a rollout that is to start.
type New struct {
	Distribution, Version string
	Plan                  plan.Plan
	PlanSource            string // "default", "wheelwright.yaml", "hub.yaml" or "--plan"
	StartedBy             string
}

// Start lays the plan over the fleet as it is now.
func Start(now time.Time, n New, f Fleet) State {
	return State{Distribution: n.Distribution, Version: n.Version, Plan: n.Plan, PlanSource: n.PlanSource, StartedBy: n.StartedBy, Started: now,
		Phase: fleet.RolloutProgressing, Since: now, Members: map[fleet.Cluster]Member{}}
}

// Next compares a rollout with the fleet and takes every step that is due. It never changes its argument.
func Next(now time.Time, s State, f Fleet) State { return s }

// Offers reports whether this rollout offers its release to the cluster now.
func (s State) Offers(c fleet.Cluster) bool { return s.Phase == fleet.RolloutCompleted }

// Withdraws is what this rollout takes off the cluster's offer, for ever.
func (s State) Withdraws(c fleet.Cluster) (fleet.Withdrawal, bool) { return fleet.Withdrawal{}, false }

// Due is when time alone changes something; zero: never.
func (s State) Due() time.Time { return time.Time{} }

// Waits says in one line whose turn it is; empty for a rollout that is over.
func (s State) Waits() string { return s.Reason }

// Changed lists the members that differ from an earlier state of the same rollout, by name.
func (s State) Changed(before State) []fleet.Cluster { return nil }

// Counts is how many of a wave's members stand where.
type Counts struct {
	Total, Waiting, Offered, Underway, Done, Failed, Parked, Unaffected, Left, Returning, Returned, Stranded int
}

// Count counts a wave's members; wave -1: those that joined and are in no wave.
func (s State) Count(wave int) Counts { return Counts{} }

// Layout is a plan laid over the fleet, before anything runs.
type Layout struct {
	Waves    []LayoutWave
	LeftOut  []LayoutCluster // in no wave: they take the release when it is completed
	Warnings []string
}

// LayoutWave is what a wave comes to.
type LayoutWave struct {
	Name                string
	Clusters            []LayoutCluster // by name
	Concurrency, Budget int
	Gates               []string // what it waits for before and after: "approval by vendor", "soak 30m"
}

// LayoutCluster is a cluster in a preview.
type LayoutCluster struct {
	Cluster  fleet.Cluster
	Running  string
	Blockers []string // why it will not take the release now; empty: nothing is known against it
}

// Preview lays a plan over the fleet as it is now.
func Preview(now time.Time, n New, f Fleet) Layout { return Layout{} }
