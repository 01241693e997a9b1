package store

import (
	"slices"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

type canaryRecord struct {
	Step    int             `json:"step,omitempty"`
	Steps   int             `json:"steps"`
	Traffic []trafficRecord `json:"traffic,omitempty"`
	Held    bool            `json:"held,omitempty"`
	Gate    string          `json:"gate,omitempty"`
}

type trafficRecord struct {
	Service string `json:"service"`
	Weight  int    `json:"weight,omitempty"`
	Mirror  int    `json:"mirror,omitempty"`
	Matches bool   `json:"matches,omitempty"`
}

func canaryRecordOf(c *fleet.Canary) *canaryRecord {
	if c == nil {
		return nil
	}
	r := &canaryRecord{Step: c.Step, Steps: c.Steps, Held: c.Held, Gate: c.Gate}
	for _, t := range c.Traffic {
		r.Traffic = append(r.Traffic, trafficRecord{t.Service, t.Weight, t.Mirror, t.Matches})
	}
	return r
}

func (r *canaryRecord) is(o *canaryRecord) bool {
	return r == o || r != nil && o != nil && r.Step == o.Step && r.Steps == o.Steps && r.Held == o.Held && r.Gate == o.Gate && slices.Equal(r.Traffic, o.Traffic)
}

func (r *canaryRecord) noun() *fleet.Canary {
	if r == nil {
		return nil
	}
	c := &fleet.Canary{Step: r.Step, Steps: r.Steps, Held: r.Held, Gate: r.Gate}
	for _, t := range r.Traffic {
		c.Traffic = append(c.Traffic, fleet.Traffic{Service: t.Service, Weight: t.Weight, Mirror: t.Mirror, Matches: t.Matches})
	}
	return c
}
