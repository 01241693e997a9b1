package agent

import (
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/delivery"
)

// traffic is a step's traffic for people.
func traffic(step *pluginv1.CanaryStep) string { return fleet.TrafficText(shares(step)) }

// shares are a step's traffic. A plugin's numbers are shown to others, so they are kept within reason.
func shares(step *pluginv1.CanaryStep) (all []fleet.Traffic) {
	for _, t := range step.GetTraffic() {
		all = append(all, fleet.Traffic{Service: oneLine(t.GetService()), Weight: int(min(t.GetWeight(), 100)), Mirror: int(min(t.GetMirror(), 100)), Matches: len(t.GetMatches()) > 0})
	}
	return all
}

// shown is the canary as it is told to others: was with what an event made of it.
func (w *worker) shown(was *fleet.Canary, e delivery.Event, n delivery.State) *fleet.Canary {
	if n.Phase != fleet.Progressing && !n.Walk.Asked {
		return nil
	}
	c := &fleet.Canary{Step: n.Walk.Step, Steps: n.Walk.Steps, Held: n.Walk.Held, Gate: n.Walk.Gate()}
	switch {
	case e.Kind == delivery.Led:
		c.Traffic = w.ledTo
	case was != nil:
		c.Traffic = was.Traffic
	}
	return c
}
