package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/course"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/route"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

func wireStrategy(k strategy.Kind) pluginv1.Strategy {
	switch k {
	case strategy.Progressive, strategy.Replicas:
		return pluginv1.Strategy_STRATEGY_PROGRESSIVE
	case strategy.ABTest:
		return pluginv1.Strategy_STRATEGY_AB_TEST
	case strategy.BlueGreen:
		return pluginv1.Strategy_STRATEGY_BLUE_GREEN
	case strategy.Mirror:
		return pluginv1.Strategy_STRATEGY_MIRROR
	}
	return pluginv1.Strategy_STRATEGY_UNSPECIFIED
}

// wireStep is a step as the spoke keeps it and hands it back.
func (r release) wireStep(s course.Step) *pluginv1.CanaryStep {
	out := &pluginv1.CanaryStep{Number: uint32(s.Number), Interval: durationpb.New(r.course.Interval), Passes: uint32(s.Passes), Failures: uint32(r.course.Failures)}
	for _, m := range r.led() {
		at := s.At[m.Name]
		t := &pluginv1.Traffic{Service: r.wire(m.Name), Weight: uint32(at.Weight), Mirror: uint32(at.Mirror)}
		if at.Matched {
			t.Matches = wireMatches(m.Matches)
		}
		if m.Affinity.Cookie != "" && at.Weight > 0 {
			t.Affinity = durationpb.New(m.Affinity.MaxAge)
		}
		out.Traffic = append(out.Traffic, t)
	}
	return out
}

func wireMatches(matches []strategy.Match) []*pluginv1.Match {
	var out []*pluginv1.Match
	for _, m := range matches {
		match := &pluginv1.Match{}
		for _, h := range m.Headers {
			header := &pluginv1.Header{Name: h.Name}
			switch h.Op {
			case strategy.Exact:
				header.Value = &pluginv1.Header_Exact{Exact: h.Value}
			case strategy.Prefix:
				header.Value = &pluginv1.Header_Prefix{Prefix: h.Value}
			default:
				header.Value = &pluginv1.Header_Regex{Regex: h.Value}
			}
			match.Headers = append(match.Headers, header)
		}
		out = append(out, match)
	}
	return out
}

func matchesOf(wire []*pluginv1.Match) []strategy.Match {
	var out []strategy.Match
	for _, m := range wire {
		var match strategy.Match
		for _, h := range m.GetHeaders() {
			header := strategy.Header{Name: strings.ToLower(h.GetName())}
			switch v := h.GetValue().(type) {
			case *pluginv1.Header_Exact:
				header.Op, header.Value = strategy.Exact, v.Exact
			case *pluginv1.Header_Prefix:
				header.Op, header.Value = strategy.Prefix, v.Prefix
			case *pluginv1.Header_Regex:
				header.Op, header.Value = strategy.Regex, v.Regex
			}
			match.Headers = append(match.Headers, header)
		}
		out = append(out, match)
	}
	return out
}

// told is what a step says of traffic, by the names of Service objects.
func (r release) told(step *pluginv1.CanaryStep) (map[string]route.Traffic, error) {
	if step == nil {
		return nil, fmt.Errorf("step of %s: the call has no step", r.version)
	}
	led := r.led()
	out := map[string]route.Traffic{}
	for _, t := range step.GetTraffic() {
		name := r.names[t.GetService()]
		i := slices.IndexFunc(led, func(m course.Member) bool { return m.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("step %d of %s: service %q has no canary: it declares none, does not run yet, or asks for no analysis; take it out of the step", step.GetNumber(), r.version, t.GetService())
		}
		traffic := route.At(led[i].Service, strategy.Step{Weight: int(t.GetWeight()), Mirror: int(t.GetMirror())}, r.version)
		traffic.Matches = matchesOf(t.GetMatches())
		if t.GetAffinity() == nil {
			traffic.Affinity = route.Affinity{}
		} else {
			traffic.Affinity.MaxAge = t.GetAffinity().AsDuration()
		}
		out[name] = traffic
	}
	return out, nil
}

// spread are the amounts of traffic of a whole course, for a rehearsal.
func (r release) spread() []map[string]route.Traffic {
	var out []map[string]route.Traffic
	for _, s := range r.course.Steps {
		told, err := r.told(r.wireStep(s))
		if err == nil {
			out = append(out, told)
		}
	}
	return out
}

func orMinute(d time.Duration) time.Duration {
	if d <= 0 {
		return time.Minute
	}
	return d
}
