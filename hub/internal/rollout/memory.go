package rollout

import (
	"cmp"
	"slices"
	"time"
)

// MaxEnded is how many ended rollouts of one distribution keep their members.
const MaxEnded = 20

// Trace is what decides how long a rollout is remembered.
type Trace struct {
	ID      uint64
	Version string
	Over    bool
	Since   time.Time
}

// Forget says which of a distribution's rollouts ended so long ago that their members are forgotten, and
// which of these are forgotten as a whole: all but the newest of each release, which says whether the
// release is offered to everybody, and that it needs no other rollout. all ascends by ID.
func Forget(all []Trace) (members, whole []uint64) {
	newest := map[string]uint64{}
	var ended []Trace
	for _, t := range all {
		newest[t.Version] = t.ID
		if t.Over {
			ended = append(ended, t)
		}
	}
	if len(ended) <= MaxEnded {
		return nil, nil
	}
	slices.SortFunc(ended, func(a, b Trace) int { return cmp.Or(b.Since.Compare(a.Since), cmp.Compare(b.ID, a.ID)) })
	for _, t := range ended[MaxEnded:] {
		members = append(members, t.ID)
		if newest[t.Version] != t.ID {
			whole = append(whole, t.ID)
		}
	}
	return members, whole
}
