package rollout

import (
	"cmp"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// Standing is how far one release has come in the whole fleet: for those who see nothing but it.
type Standing struct {
	Distribution, Version string
	Repository, Commit    string // where the release comes from
	Tally                 fleet.Tally
	// State is fleet.MarkUnderway, fleet.MarkDone or fleet.MarkFailed.
	State fleet.Mark
	Why   string // where the tally does not say it: how the rollout ended; names nobody
	// Over: nothing more is to come of it, whoever has the release.
	Over bool
	// Superseded: another release goes to everybody in its place, and nobody took this one back.
	Superseded bool
}

// Course is what became of a release beside what its clusters say.
type Course struct {
	Phase    fleet.RolloutPhase // of its last rollout; empty: it has none
	Recalled bool
	Harmed   bool   // a cluster failed with it, whose own news may be of another release by now
	Next     string // the release that goes to everybody in its place; empty: none does
}

// Open: clusters that do not have the release are to have it, now or when their turn comes.
func (c Course) Open() bool {
	return !c.Recalled && c.Phase != "" && (c.Phase == fleet.RolloutCompleted || !c.Phase.Terminal() && c.Phase != fleet.RolloutReturning)
}

// Superseded: another release goes to everybody in its place, and nobody took this one back.
func (c Course) Superseded() bool {
	return c.Next != "" && !c.Recalled && c.Phase != fleet.RolloutReturning && c.Phase != fleet.RolloutReturned && c.Phase != fleet.RolloutAborted
}

// Judge says what a tally and a course come to. It fails where one cluster did not come to run the release,
// or where people took it back; it is under way while one is to have it that has not; else it is done.
// Clusters that are held back or silent make it neither.
func Judge(t fleet.Tally, c Course) (state fleet.Mark, why string) {
	s := t.Sum()
	switch {
	case c.Recalled:
		return fleet.MarkFailed, "recalled"
	case c.Phase == fleet.RolloutReturning:
		return fleet.MarkFailed, "being brought back"
	case c.Phase == fleet.RolloutReturned:
		return fleet.MarkFailed, "brought back"
	case c.Phase == fleet.RolloutAborted:
		return fleet.MarkFailed, "its rollout was aborted"
	case c.Next != "":
		why = "superseded by " + c.Next
	case c.Phase == fleet.RolloutHolding, c.Phase == fleet.RolloutPaused:
		why = "its rollout is held"
	}
	switch {
	case s.Failed > 0, c.Superseded() && c.Harmed:
		return fleet.MarkFailed, why
	case s.UnderWay > 0, c.Phase != "" && !c.Phase.Terminal():
		return fleet.MarkUnderway, why
	case s.Done > 0, c.Next != "":
		return fleet.MarkDone, why
	}
	return fleet.MarkUnderway, cmp.Or(why, "no cluster has it yet")
}
