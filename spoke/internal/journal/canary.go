package journal

import "github.com/wheelwright-dev/wheelwright/pkg/fleet"

type storedCanary struct {
	Step    int             `json:"step,omitempty"`
	Steps   int             `json:"steps"`
	Traffic []storedTraffic `json:"traffic,omitempty"`
	Held    bool            `json:"held,omitempty"`
	Gate    string          `json:"gate,omitempty"`
}

type storedTraffic struct {
	Service string `json:"service"`
	Weight  int    `json:"weight,omitempty"`
	Mirror  int    `json:"mirror,omitempty"`
	Matches bool   `json:"matches,omitempty"`
}

func storeCanary(c *fleet.Canary) *storedCanary {
	if c == nil {
		return nil
	}
	r := &storedCanary{Step: c.Step, Steps: c.Steps, Held: c.Held, Gate: c.Gate}
	for _, t := range c.Traffic {
		r.Traffic = append(r.Traffic, storedTraffic{t.Service, t.Weight, t.Mirror, t.Matches})
	}
	return r
}

func (r *storedCanary) noun() *fleet.Canary {
	if r == nil {
		return nil
	}
	c := &fleet.Canary{Step: r.Step, Steps: r.Steps, Held: r.Held, Gate: r.Gate}
	for _, t := range r.Traffic {
		c.Traffic = append(c.Traffic, fleet.Traffic{Service: t.Service, Weight: t.Weight, Mirror: t.Mirror, Matches: t.Matches})
	}
	return c
}
