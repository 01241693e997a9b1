package wire

import (
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

const (
	mostSteps    = 10_000 // of a canary
	mostServices = 200    // that one canary tells of
)

// Canary makes the message of a canary; nil of none.
func Canary(c *fleet.Canary) *syncv1.Canary {
	if c == nil {
		return nil
	}
	m := &syncv1.Canary{Step: uint32(c.Step), Steps: uint32(c.Steps), Held: c.Held, Gate: c.Gate}
	for _, t := range c.Traffic {
		m.Traffic = append(m.Traffic, &syncv1.CanaryTraffic{Service: t.Service, Weight: uint32(t.Weight), Mirror: uint32(t.Mirror), Matches: t.Matches})
	}
	return m
}

// FromCanary reads the message of a canary; nil of none, and of one that makes no sense: nothing is decided
// by it, so that it is no reason to refuse the rest.
func FromCanary(m *syncv1.Canary) *fleet.Canary {
	if m == nil || m.GetStep() > m.GetSteps() || m.GetSteps() > mostSteps {
		return nil
	}
	c := &fleet.Canary{Step: int(m.GetStep()), Steps: int(m.GetSteps()), Held: m.GetHeld(), Gate: m.GetGate()}
	for _, t := range m.GetTraffic()[:min(len(m.GetTraffic()), mostServices)] {
		c.Traffic = append(c.Traffic, fleet.Traffic{Service: t.GetService(), Weight: percent(t.GetWeight()), Mirror: percent(t.GetMirror()), Matches: t.GetMatches()})
	}
	return c
}

func percent(n uint32) int { return int(min(n, 100)) }
