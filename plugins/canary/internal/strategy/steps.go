package strategy

import (
	"fmt"
	"maps"
	"slices"
)

func sortedKeys(m map[string]any) []string { return slices.Sorted(maps.Keys(m)) }

// share is what an analysis says of amounts.
type share struct {
	step, max, back int
	steps           []int
	iterations      int
	mirror          int // percent
}

// steps normalises the ways in which Flagger's objects spell a course into Steps.
func (c *canaryReader) steps(n node) {
	before := len(c.problems)
	var s share
	s.step, _ = n.integer("stepWeight", 0, 100)
	s.max, _ = n.integer("maxWeight", 0, 100)
	s.back, _ = n.integer("stepWeightPromotion", 0, 100)
	s.iterations, _ = n.integer("iterations", 0, 10000)
	s.steps = c.stepWeights(n)
	s.mirror = c.mirror(n)
	weighted := s.step > 0 || len(s.steps) > 0
	matched, _ := n.fields["match"].([]any)
	switch {
	case len(c.problems) > before:
		return
	case s.iterations > 0 && weighted:
		n.wrong("iterations", "stands beside stepWeight or stepWeights: checks at one amount and a growing amount exclude each other; take one of them out")
	case len(matched) > 0 && weighted:
		n.wrong("match", "stands beside stepWeight or stepWeights: who fits is led whole, not by share; write iterations in their place")
	case s.iterations == 0 && !weighted && c.out.SkipAnalysis:
		c.out.Strategy = BlueGreen
	case s.iterations == 0 && !weighted:
		n.wrong("", "has no course; write stepWeight and maxWeight, stepWeights, or iterations")
	case s.step > 0 && len(s.steps) > 0:
		n.wrong("stepWeight", "stands beside stepWeights, and only one can hold; take one of them out")
	case s.max > 0 && s.step > s.max:
		n.wrong("stepWeight", "%d is above maxWeight, %d; write a smaller one", s.step, s.max)
	case s.iterations > 0 && s.max > 0:
		n.wrong("maxWeight", "means nothing beside iterations; take it out")
	case s.back > 0 && !weighted:
		n.wrong("stepWeightPromotion", "means nothing without stepWeight or stepWeights; take it out")
	case weighted:
		c.progressive(s)
	default:
		c.iterated(n, s, len(matched) > 0)
	}
}

func (c *canaryReader) stepWeights(n node) []int {
	var out []int
	for i, v := range n.list("stepWeights") {
		key := fmt.Sprintf("stepWeights[%d]", i)
		at := newNode(n.report, n.object, n.path, map[string]any{key: v})
		w, ok := at.integer(key, 1, 100)
		if !ok {
			continue
		}
		if len(out) > 0 && w <= out[len(out)-1] {
			at.wrong(key, "%d is not above the one before, %d; write them ascending", w, out[len(out)-1])
		}
		out = append(out, w)
	}
	return out
}

// mirror is the percentage to mirror, 0 for none.
func (c *canaryReader) mirror(n node) int {
	on := n.boolean("mirror")
	percent, given := n.integer("mirrorWeight", 1, 100)
	switch {
	case !on && given:
		n.wrong("mirrorWeight", "means nothing without mirror: true; write that too, or take this out")
	case on && c.out.Router != RouterIstio && c.out.Router != RouterGatewayAPI:
		n.wrong("mirror", "router %s cannot copy requests; take it out, or write provider: istio or gatewayapi:v1", c.out.Router)
	case on && !given:
		return 100
	case on:
		return percent
	}
	return 0
}

func (c *canaryReader) progressive(s share) {
	c.out.Strategy = Progressive
	if c.out.Router == RouterNone {
		c.out.Strategy = Replicas
	}
	if s.mirror > 0 {
		c.out.Steps = append(c.out.Steps, Step{Mirror: s.mirror, Passes: 1})
	}
	weights := s.steps
	if s.step > 0 {
		top := s.max
		if top == 0 {
			top = 100
		}
		for w := s.step; w < top; w += s.step {
			weights = append(weights, w)
		}
		weights = append(weights, top)
	} else if s.max > 0 {
		weights = slices.DeleteFunc(slices.Clone(weights), func(w int) bool { return w > s.max })
	}
	for _, w := range weights {
		c.out.Steps = append(c.out.Steps, Step{Weight: w, Passes: 1})
	}
	if s.back > 0 && len(weights) > 0 {
		for w := weights[len(weights)-1] - s.back; w > 0; w -= s.back {
			c.out.Return = append(c.out.Return, w)
		}
		c.out.Return = append(c.out.Return, 0)
	}
}

// iterated courses stay at one amount for a number of checks; blue/green and mirroring then give the
// candidate all the requests for one more.
func (c *canaryReader) iterated(n node, s share, matched bool) {
	all := Step{Weight: 100, Passes: 1}
	switch {
	case matched && s.mirror > 0:
		n.wrong("mirror", "stands beside match, and only one can hold; take one of them out")
	case matched && c.out.Router == RouterNone:
		n.wrong("match", "router none sees no headers; take it out for blue/green, or write provider: istio, linkerd, nginx or gatewayapi:v1")
	case matched:
		c.out.Strategy = ABTest
		c.out.Steps = []Step{{Weight: 100, Matched: true, Passes: s.iterations}}
	case s.mirror > 0:
		c.out.Strategy = Mirror
		c.out.Steps = []Step{{Mirror: s.mirror, Passes: s.iterations}, all}
	default:
		c.out.Strategy = BlueGreen
		c.out.Steps = []Step{{Passes: s.iterations}, all}
	}
}
