package conductor

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

func summary(name string, o *offering) *fleetv1.DistributionSummary {
	s := &fleetv1.DistributionSummary{Distribution: name, Latest: o.latest()}
	for _, r := range o.rejected {
		if s.Latest == "" || fleet.CompareTags(r.Version, s.Latest) > 0 {
			s.Rejected = append(s.Rejected, r.Version+": "+firstReason(r))
		}
	}
	return s
}

// latest is the newest release that everybody may take, or whose rollout takes it on.
func (o *offering) latest() (version string) {
	if n := len(o.open); n > 0 {
		version = o.open[n-1]
	}
	for _, r := range o.limited { // ascending
		if _, known := o.releases[r.Version]; known && !r.Phase.Terminal() && !stuck(r.Phase) && above(r.Version, version) {
			version = r.Version
		}
	}
	return version
}

// stuck: the rollout is not over, and is not on its way to everybody.
func stuck(p fleet.RolloutPhase) bool {
	return p == fleet.RolloutHolding || p == fleet.RolloutReturning
}

func above(version, than string) bool { return than == "" || fleet.CompareTags(version, than) > 0 }

// mostEnded are told one by one.
const mostEnded = 5

// ended says of the releases newer than the latest how their rollouts stand, ascending.
func (o *offering) ended() (lines []string) {
	latest := o.latest()
	for _, v := range o.versions { // ascending
		if !above(v, latest) {
			continue
		}
		if r, recalled := o.shelf.recalls[v]; recalled {
			lines = append(lines, bounded(fmt.Sprintf("%s: recalled by %s: %s", v, r.By, r.Reason)))
		} else if r, began := o.shelf.newest(v); began {
			lines = append(lines, bounded(strings.TrimSuffix(fmt.Sprintf("%s: %s: %s", v, r.Phase, cmp.Or(r.Waits(), r.Reason)), ": ")))
		}
	}
	return lines[max(0, len(lines)-mostEnded):]
}

// firstReason is the first thing that is wrong with a rejected release, and how much more there is.
func firstReason(r fleet.Release) string {
	return cmp.Or(firstOf(allReasons(r)), "no reason recorded")
}

func firstOf(all []string) string {
	switch len(all) {
	case 0:
		return ""
	case 1:
		return all[0]
	}
	return fmt.Sprintf("%s (and %d more)", all[0], len(all)-1)
}

// allReasons are those of each variant under its name, then those of the release as a whole, which may
// only sum up the former.
func allReasons(r fleet.Release) []string {
	var all []string
	for _, v := range r.Variants {
		for _, reason := range v.Reasons {
			all = append(all, v.Name+": "+reason)
		}
	}
	return append(all, r.Reasons...)
}
