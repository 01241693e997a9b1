package course_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/course"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
)

func service(name string, after []string, steps ...strategy.Step) strategy.Service {
	return strategy.Service{Name: name, After: after, Steps: steps, Interval: 10 * time.Second, Threshold: 10}
}

func weights(list ...int) []strategy.Step {
	var out []strategy.Step
	for _, w := range list {
		out = append(out, strategy.Step{Weight: w, Passes: 1})
	}
	return out
}

// draw writes a course in lines: passes, and every service's place.
func draw(c course.Course, names ...string) string {
	var lines []string
	for _, s := range c.Steps {
		line := fmt.Sprintf("x%d", s.Passes)
		for _, name := range names {
			at := s.At[name]
			if at.Waiting {
				line += " " + name + "=waits"
			} else {
				line += fmt.Sprintf(" %s=%d", name, at.Weight)
			}
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

func TestOf(t *testing.T) {
	blueGreen := []strategy.Step{{Passes: 3}, {Weight: 100, Passes: 1}}
	for _, test := range []struct {
		name, want string
		services   []strategy.Service
	}{
		{"nobody", "", nil},
		{"alone", "x1 a=10\nx1 a=20", []strategy.Service{service("a", nil, weights(10, 20)...)}},
		{"together to the last step", "x2 a=10 b=0\nx1 a=20 b=0\nx1 a=50 b=100",
			[]strategy.Service{service("a", nil, weights(10, 20, 50)...), service("b", nil, blueGreen...)}},
		{"one after the other", "x1 a=10 b=waits\nx1 a=50 b=waits\nx3 a=50 b=0\nx1 a=50 b=100",
			[]strategy.Service{service("a", nil, weights(10, 50)...), service("b", []string{"a"}, blueGreen...)}},
		{"after somebody who has none", "x1 a=10", []strategy.Service{service("a", []string{"gone"}, weights(10)...)}},
	} {
		var names []string
		for _, s := range test.services {
			names = append(names, s.Name)
		}
		if got := draw(course.Of(test.services), names...); got != test.want {
			t.Errorf("%s:\n%s\nwant\n%s", test.name, got, test.want)
		}
	}
}

// Whatever services ask for: none loses a check of its own, they all reach their last step with the
// course's, none begins before those that it comes after are there, and no traffic ever goes down.
func TestCourses(t *testing.T) {
	for seed := range uint64(500) {
		dice := rand.New(rand.NewPCG(seed, 0))
		var services []strategy.Service
		for i := range 1 + dice.IntN(5) {
			s := service(fmt.Sprint("s", i), nil)
			for j := range 1 + dice.IntN(4) {
				s.Steps = append(s.Steps, strategy.Step{Weight: 10 * (j + 1), Passes: 1 + dice.IntN(4)})
			}
			for j := range i {
				if dice.IntN(2) == 0 {
					s.After = append(s.After, fmt.Sprint("s", j))
				}
			}
			services = append(services, s)
		}
		if problem := wrong(services, course.Of(services)); problem != "" {
			t.Fatalf("seed %d: %s", seed, problem)
		}
	}
}

func wrong(services []strategy.Service, c course.Course) string {
	end := c.Steps[len(c.Steps)-1]
	for _, s := range services {
		had, before := map[int]int{}, 0
		for i, step := range c.Steps {
			at := step.At[s.Name]
			had[at.Weight] += step.Passes
			for _, earlier := range s.After {
				if last := lastOf(services, earlier); !at.Waiting && step.At[earlier].Weight != last {
					return fmt.Sprintf("%s begins in step %d, before %s is at %d", s.Name, i+1, earlier, last)
				}
			}
			if step.Number != i+1 || step.Passes < 1 || at.Weight < before {
				return fmt.Sprintf("%s in step %d of %d: %+v", s.Name, step.Number, i+1, at)
			}
			before = at.Weight
		}
		for _, step := range s.Steps {
			if had[step.Weight] < step.Passes {
				return fmt.Sprintf("%s has %d checks at %d, not %d", s.Name, had[step.Weight], step.Weight, step.Passes)
			}
		}
		if end.At[s.Name].Weight != lastOf(services, s.Name) {
			return fmt.Sprintf("%s is at %d in the end", s.Name, end.At[s.Name].Weight)
		}
	}
	return ""
}

func lastOf(services []strategy.Service, name string) int {
	for _, s := range services {
		if s.Name == name {
			return s.Steps[len(s.Steps)-1].Weight
		}
	}
	return 0
}
