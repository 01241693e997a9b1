// Package plan is the plan of a rollout as people write it: in which waves a release goes out, how many
// clusters at once, how much may fail, what is waited for. It reads and checks the text, and picks clusters
// by label. It knows no release and keeps no state; what a plan comes to is hub/internal/rollout's.
package plan

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// Plan is how a release goes through the fleet.
type Plan struct {
	Start     Start
	OnFailure OnFailure
	Supersede bool          // the rollout of a newer release ends this one; default true
	Joiners   Joiners       // what a cluster gets that joins meanwhile
	Patience  time.Duration // how long a wave waits for clusters that are silent, pinned, windowed or unapproved; default 1h
	Waves     []Wave        // at least one
}

// Start is what a new release does.
type Start string

const (
	Auto   Start = "auto"   // its rollout starts by itself; the default
	Manual Start = "manual" // it waits for `hub rollout start`
)

// OnFailure is what a broken budget does.
type OnFailure string

const (
	Hold         OnFailure = "hold"         // nothing more is offered until a person decides; the default
	RollBackWave OnFailure = "rollBackWave" // and the wave's clusters are brought back
	RollBackAll  OnFailure = "rollBackAll"  // and those of the waves before
)

// Joiners is what a cluster gets that joins while a rollout is under way.
type Joiners string

const (
	JoinCompleted Joiners = "completed" // the last completed release; this one with the end of the rollout; the default
	JoinWave      Joiners = "wave"      // this one, with the first wave that matches it or, where that is over, now
)

// Wave is one step of a plan.
type Wave struct {
	Name     string
	Clusters Selector // the zero Selector: all that no earlier wave has
	Max      Amount   // zero: all that match
	// Concurrency bounds how many are on their way at once; zero: all. Budget is how many may fail; zero: none.
	Concurrency, Budget Amount
	Soak                time.Duration // after the wave's last cluster
	Success             int           // per cent of those that took it which have to be healthy at the end of the soak; default 100, less the budget
	Approval            string        // role of who has to approve before the wave starts; empty: nobody
	Verdicts            Verdicts      // zero: none are asked for
	Windows             fleet.Windows // when clusters are offered the release; none: at any time
	Patience            time.Duration // zero: the plan's
}

// Verdicts pools what the wave's clusters found.
type Verdicts struct {
	Minimum int // clusters with a verdict; fewer are too little evidence
	Passes  int // per cent of them that have to pass; default 100
}

// Amount is a number of clusters or a share of them; the zero Amount is written by leaving it out.
type Amount struct {
	N       int
	Percent bool
}

// Selector picks clusters by their labels, as Kubernetes' label selectors do. Beside the labels that the
// invitation gave, every cluster has LabelProvider and LabelCluster.
type Selector struct {
	MatchLabels      map[string]string
	MatchExpressions []Expression
}

// Expression is one requirement on a label.
type Expression struct {
	Key      string
	Operator Operator
	Values   []string
}

// Operator of an Expression.
type Operator string

const (
	In           Operator = "In"
	NotIn        Operator = "NotIn"
	Exists       Operator = "Exists"
	DoesNotExist Operator = "DoesNotExist"
)

// Of is the amount of total clusters. A share is rounded down, but more than nothing of somebody is at
// least one: 10 % of four clusters is one.
func (a Amount) Of(total int) int {
	switch {
	case !a.Percent:
		return a.N
	case a.N == 0 || total == 0:
		return 0
	}
	return max(1, total*a.N/100)
}

// String is the form that ParseAmount reads.
func (a Amount) String() string {
	if a.Percent {
		return strconv.Itoa(a.N) + "%"
	}
	return strconv.Itoa(a.N)
}

// Labels that every cluster has, beside those that its invitation gave.
const (
	LabelProvider = "wheelwright.dev/provider"
	LabelCluster  = "wheelwright.dev/cluster" // the whole name, PROVIDER/NAME
)

// Matches reports whether labels meet every requirement; the zero Selector matches all.
func (s Selector) Matches(labels map[string]string) bool {
	for k, v := range s.MatchLabels {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	for _, e := range s.MatchExpressions {
		if !e.matches(labels) {
			return false
		}
	}
	return true
}

func (e Expression) matches(labels map[string]string) bool {
	got, ok := labels[e.Key]
	switch e.Operator {
	case In:
		return ok && slices.Contains(e.Values, got)
	case NotIn:
		return !ok || !slices.Contains(e.Values, got)
	case Exists:
		return ok
	case DoesNotExist:
		return !ok
	}
	return false
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
