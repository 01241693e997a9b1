// Package course says what comes next on the way of a whole release: Of makes one course of all its
// services' own, Step what has to be done for traffic to be as one step says, Back what has to be done
// for everything to be stable's again. It is pure: it is given the objects that a cluster has, answers
// Effects, and carries none of them out.
//
// Nouns: a Member is a service with what is to be made for it; Live is what the cluster has; Next is what
// to do now, and whether that is all. Whoever carries Effects out asks again afterwards, and may be killed
// between any two of them: the answer depends on the cluster alone.
package course

import (
	"slices"
	"time"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
)

// Course is the way of several services together.
type Course struct {
	Steps    []Step // none: straight to promotion
	Interval time.Duration
	Failures int // failed checks that end the first service that is ended by them
}

// Step is a stretch of checks in which nothing changes.
type Step struct {
	Number int // from 1
	At     map[string]Position
	Passes int
}

// Position is where one service is in a step.
type Position struct {
	strategy.Step      // its own step; zero where it waits
	Waiting       bool // for services that step before it: no traffic, and nothing to measure
}

// Of lays the services' own steps beside each other, so that all of them reach their last one together:
// who has fewer checks to pass stays longer at its first amount, where the fewest users see it, and is
// measured there. A service that comes after others begins when those are at their last step. services
// come in the order of strategy.Read.
func Of(services []strategy.Service) Course {
	var c Course
	slots := schedule(services)
	total := 0
	for _, s := range services {
		c.Interval = max(c.Interval, s.Interval)
		if c.Failures == 0 || s.Threshold < c.Failures {
			c.Failures = s.Threshold
		}
		total = max(total, slots[s.Name].end)
	}
	for check := range total {
		at := map[string]Position{}
		for _, s := range services {
			at[s.Name] = slots[s.Name].position(s, check)
		}
		if n := len(c.Steps); n > 0 && same(c.Steps[n-1].At, at) {
			c.Steps[n-1].Passes++
			continue
		}
		c.Steps = append(c.Steps, Step{Number: len(c.Steps) + 1, At: at, Passes: 1})
	}
	return c
}

// slot is when a service has its steps, in checks from the beginning.
type slot struct{ begin, end int }

// schedule ends every service as late as those that come after it allow, and begins it as soon as those
// before it have ended.
func schedule(services []strategy.Service) map[string]slot {
	length, soonest, latest := map[string]int{}, map[string]int{}, map[string]int{}
	total := 0
	for _, s := range services {
		for _, step := range s.Steps {
			length[s.Name] += step.Passes
		}
		soonest[s.Name] = length[s.Name]
		for _, earlier := range s.After {
			soonest[s.Name] = max(soonest[s.Name], soonest[earlier]+length[s.Name])
		}
		total = max(total, soonest[s.Name])
	}
	for _, s := range services {
		latest[s.Name] = total
	}
	for _, s := range slices.Backward(services) {
		for _, earlier := range s.After {
			if _, known := latest[earlier]; known {
				latest[earlier] = min(latest[earlier], latest[s.Name]-length[s.Name])
			}
		}
	}
	out := map[string]slot{}
	for _, s := range services {
		at := slot{0, latest[s.Name]}
		for _, earlier := range s.After {
			at.begin = max(at.begin, latest[earlier])
		}
		out[s.Name] = at
	}
	return out
}

// position is a service's own step at a check.
func (at slot) position(s strategy.Service, check int) Position {
	if len(s.Steps) == 0 || check < at.begin {
		return Position{Waiting: true}
	}
	var own []strategy.Step
	for _, step := range s.Steps {
		for range step.Passes {
			own = append(own, step)
		}
	}
	index := check - at.begin - (at.end - at.begin - len(own))
	step := own[min(max(index, 0), len(own)-1)]
	step.Passes = 1 // how often is the course's to say
	return Position{Step: step}
}

func same(a, b map[string]Position) bool {
	for name := range a {
		if a[name] != b[name] {
			return false
		}
	}
	return len(a) == len(b)
}
