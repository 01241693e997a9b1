package fleet

import (
	"fmt"
	"strings"
)

// Canary is how far live traffic has been led to a release that is not promoted yet. It is never changed in
// place.
type Canary struct {
	Step, Steps int       // step 0: the candidates stand beside what runs, and have no live traffic
	Traffic     []Traffic // of each service that is led, as it was asked for last; where pods make the shares, they are near it
	Held        bool      // a person holds it where it is
	Gate        string    // what its provider is asked about, one of the gates below; empty: nothing
}

// Gates: what a provider is asked about on the way. The first three are the words of spoke.yaml.
const (
	GateTraffic   = "traffic"   // the first live traffic
	GateIncrease  = "increase"  // the next step
	GatePromotion = "promotion" // the promotion
	GateEvidence  = "evidence"  // what cannot be measured
)

// Traffic is the part of a service's live traffic that its candidate has.
type Traffic struct {
	Service string
	Weight  int  // percent; where Matches is set, of what matches
	Mirror  int  // percent that is copied to it, its answers thrown away
	Matches bool // only requests that match the release's conditions
}

func (t Traffic) share() string {
	switch {
	case t.Mirror > 0:
		return fmt.Sprintf("copies of %d %%", t.Mirror)
	case t.Matches && t.Weight == 100:
		return "what matches"
	case t.Matches:
		return fmt.Sprintf("%d %% of what matches", t.Weight)
	}
	return fmt.Sprintf("%d %%", t.Weight)
}

// TrafficText is traffic in words, services with the same share together: "cache what matches; backend, web 20 %".
func TrafficText(traffic []Traffic) string {
	var shares []string
	services := map[string][]string{}
	for _, t := range traffic {
		share := t.share()
		if services[share] == nil {
			shares = append(shares, share)
		}
		services[share] = append(services[share], t.Service)
	}
	for i, share := range shares {
		shares[i] = strings.Join(services[share], ", ") + " " + share
	}
	return strings.Join(shares, "; ")
}

// String is a canary in a few words: "step 2/5, backend 33 %, held".
func (c *Canary) String() string {
	text := fmt.Sprintf("step %d/%d", c.Step, c.Steps)
	if traffic := TrafficText(c.Traffic); traffic != "" && c.Step > 0 {
		text += ", " + traffic
	}
	if c.Held {
		text += ", held"
	}
	return text
}

// Steer is a person's word about a canary under way.
type Steer string

const (
	SteerHold   Steer = "hold"   // stay where it is; what is measured may still end it
	SteerResume Steer = "resume" // go on
	SteerStep   Steer = "step"   // the next step now, whatever was measured of this one
	SteerSkip   Steer = "skip"   // the promotion now
)
