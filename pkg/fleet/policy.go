package fleet

import (
	"fmt"
	"slices"
	"time"
)

// Policy is the provider's: what a cluster takes by itself. It always wins over what is offered.
type Policy struct {
	Range       string // semver constraint; empty: any
	Prereleases bool
	Pin         *Pin

	Patch, Minor, Major Upgrade // by the number that a release raises; empty: Automatic
	Windows             Windows // when what was selected is applied; Select does not ask

	FromHub FromHub // Select does not ask
}

// FromHub is what counts at a spoke of what is said at the hub in its provider's place.
type FromHub struct {
	Told            bool // false: the spoke does not say, and Pins and Decisions say nothing
	Pins, Decisions bool
	Rollbacks       bool // that what runs is left for an older release, without its provider being asked
}

// Pin holds a subscription at one version.
type Pin struct {
	Version string
	Reason  string
	Source  string // where it is made: a Pin… constant
	Author  string
	Until   time.Time // zero: until it is taken away
}

// Where pins are made.
const (
	PinOverlay = "overlay"    // `?ref=` in the overlay's base
	PinConfig  = "spoke.yaml" // `versions.pin`
	PinSpoke   = "spoke"      // `spoke pin`
	PinHub     = "hub"        // `hub pin`, by somebody with the provider's role
)

// Expired: the pin holds nothing any more.
func (p *Pin) Expired(now time.Time) bool { return !p.Until.IsZero() && !now.Before(p.Until) }

func (p *Pin) equal(o *Pin) bool {
	if p == nil || o == nil {
		return p == o
	}
	return p.Version == o.Version && p.Reason == o.Reason && p.Source == o.Source && p.Author == o.Author && p.Until.Equal(o.Until)
}

// PinAt is the pin that holds now; nil for none.
func (p Policy) PinAt(now time.Time) *Pin {
	if p.Pin == nil || p.Pin.Expired(now) {
		return nil
	}
	return p.Pin
}

// Equal: the two say the same.
func (p Policy) Equal(o Policy) bool {
	return p.Range == o.Range && p.Prereleases == o.Prereleases && p.Pin.equal(o.Pin) &&
		p.Patch.or() == o.Patch.or() && p.Minor.or() == o.Minor.or() && p.Major.or() == o.Major.or() && slices.Equal(p.Windows.Texts(), o.Windows.Texts()) && p.FromHub == o.FromHub
}

// Upgrade is what becomes of releases that go so far.
type Upgrade string

const (
	Automatic  Upgrade = "auto"
	AskFirst   Upgrade = "approve" // the provider is asked
	NeverTaken Upgrade = "never"
)

// ParseUpgrade checks the word; the empty one is Automatic's.
func ParseUpgrade(s string) (Upgrade, error) {
	switch u := Upgrade(s); u {
	case "", Automatic, AskFirst, NeverTaken:
		return u, nil
	}
	return "", fmt.Errorf("%q: want auto, approve or never", s)
}

func (u Upgrade) or() Upgrade {
	if u == "" {
		return Automatic
	}
	return u
}

// step is how far it is from one version to another, and what the policy says about going so far.
func (p Policy) step(from, to string) (name string, u Upgrade) {
	a, errA := ParseVersion(from)
	b, errB := ParseVersion(to)
	switch {
	case errA != nil || errB != nil || a.major != b.major:
		return "major", p.Major.or()
	case a.minor != b.minor:
		return "minor", p.Minor.or()
	}
	return "patch", p.Patch.or()
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
