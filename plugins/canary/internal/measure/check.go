package measure

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"
)

// Declared is a metric as a release declares it: built in by its Name, or with a Query, or of a
// MetricTemplate.
type Declared struct {
	Name      string
	Interval  time.Duration
	Min, Max  *float64
	Query     string
	Template  string // namespace/name; empty: none
	Variables map[string]string
}

// Policy is what a provider says about evidence.
type Policy struct {
	// MinimumSample is how many requests a verdict rests on at least. A query that does not tell how
	// many there were, as most of one's own, is judged without.
	MinimumSample  uint64
	OnInconclusive OnInconclusive
}

// Check is one thing to ask and what the answer has to be.
type Check struct {
	Objective
	Query    Query
	Template *MetricTemplate // whom to ask; nil: the Prometheus that there is for all
}

// Check resolves d for one candidate. templates finds a MetricTemplate by namespace/name.
func (d Declared) Check(provider string, m Model, policy Policy, templates func(string) (MetricTemplate, error)) (Check, error) {
	c := Check{Objective: Objective{Name: d.Name, Min: d.Min, Max: d.Max, Interval: d.Interval, OnInconclusive: policy.OnInconclusive}}
	if c.Interval <= 0 {
		c.Interval = time.Minute
	}
	m.Interval = c.Interval
	if len(d.Variables) > 0 {
		m.Variables = maps.Clone(d.Variables)
	}
	var err error
	switch {
	case d.Template != "":
		var t MetricTemplate
		if t, err = templates(d.Template); err == nil {
			c.Template = &t
			c.Query, err = t.Query(m)
		}
	case d.Query != "":
		c.Query, err = Custom(d.Query, m)
	default:
		c.Query, err = BuiltIn(d.Name, provider, m)
	}
	if err != nil {
		return Check{}, fmt.Errorf("metric %s: %w", d.Name, err)
	}
	if _, reason := c.impossible(); reason != "" {
		return Check{}, fmt.Errorf("metric %s: %s", d.Name, reason)
	}
	c.Title, c.Unit = c.Query.Title, c.Query.Unit
	if c.Query.Sample != "" {
		c.MinimumSample = policy.MinimumSample
	}
	return c, nil
}

// JudgeAll asks every check at once, as of one moment, and answers in their order. server gives the one that
// a check is for; its error becomes the reason of an inconclusive verdict.
func JudgeAll(ctx context.Context, checks []Check, at time.Time, server func(Check) (*Prometheus, error)) []Verdict {
	verdicts := make([]Verdict, len(checks))
	turns := make(chan struct{}, 4) // each asks up to three questions
	var wait sync.WaitGroup
	for i, c := range checks {
		wait.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			s := Samples{Cause: Unreachable}
			if p, err := server(c); err != nil {
				s.Problem = oneLine(err.Error())
			} else {
				s = p.Samples(ctx, c.Query, at)
			}
			verdicts[i] = Judge(at, c.Objective, s)
		})
	}
	wait.Wait()
	return verdicts
}
