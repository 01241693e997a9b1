package fleet

import (
	"fmt"
	"time"
)

// Policy is the provider's: what a cluster takes by itself. It always wins over what is offered.
type Policy struct {
	Range       string // semver constraint; empty: any
	Prereleases bool
	Pin         *Pin
}

// Pin holds a subscription at one version.
type Pin struct {
	Version string
	Reason  string
	Source  string // where it is written: "overlay" or "spoke.yaml"
}

// Selection is what a policy makes of what is available.
type Selection struct {
	Version string // empty: nothing to take
	Why     string // why nothing, or why not the highest; empty when there is nothing to say
}

// Select picks what a cluster should run: the pinned version where there is a pin, else the highest
// version in range that held does not name. running is the version that runs now, "" for none; it is
// never left for a lower one but by a pin.
func (p Policy) Select(available []string, held map[string]bool, running string) (Selection, error) {
	if p.Pin != nil {
		for _, v := range available {
			if v == p.Pin.Version {
				return Selection{Version: v}, nil
			}
		}
		return Selection{Why: fmt.Sprintf("%s, the pin of %s, is not on offer", p.Pin.Version, p.Pin.Source)}, nil
	}
	r, err := ParseRange(p.Range)
	if err != nil {
		return Selection{}, err
	}
	best, heldBack := "", ""
	for _, tag := range available {
		v, err := ParseVersion(tag)
		if err != nil || !r.Contains(v) || (v.Prerelease() && !p.Prereleases) {
			continue
		}
		if held[tag] {
			if heldBack == "" || CompareTags(tag, heldBack) > 0 {
				heldBack = tag
			}
			continue
		}
		if best == "" || CompareTags(tag, best) > 0 {
			best = tag
		}
	}
	if running != "" && (best == "" || CompareTags(best, running) < 0) {
		best = running // what runs stays, whatever the offer
	}
	s := Selection{Version: best}
	switch {
	case heldBack != "" && (best == "" || CompareTags(heldBack, best) > 0):
		s.Why = heldBack + " is held after it failed here"
	case best == "" && len(available) == 0:
		s.Why = "nothing is on offer"
	case best == "":
		s.Why = fmt.Sprintf("none of %d releases is in range %q", len(available), p.Range)
	}
	return s, nil
}

// Age says how long ago t was, in the largest fitting unit: "12s", "3m", "2h", "5d"; "never" for the
// zero time.
func Age(now, t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	d := max(now.Sub(t), 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
