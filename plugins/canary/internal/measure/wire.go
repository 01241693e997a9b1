package measure

import (
	"google.golang.org/protobuf/types/known/timestamppb"

	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// Wire is the verdict as the plugin contract has it. A pass has no reason there.
func (v Verdict) Wire() *pluginv1.Verdict {
	w := &pluginv1.Verdict{Outcome: pluginv1.Outcome_OUTCOME_INCONCLUSIVE, Reason: v.Reason, Sample: v.Sample, MinimumSample: v.Minimum}
	switch v.Outcome {
	case Pass:
		w.Outcome, w.Reason = pluginv1.Outcome_OUTCOME_PASS, ""
	case Fail:
		w.Outcome = pluginv1.Outcome_OUTCOME_FAIL
	}
	return w
}

// Metric is the verdict as one line of a measurement.
func (v Verdict) Metric(service string) *pluginv1.Metric {
	m := &pluginv1.Metric{Service: service, Name: v.Objective, Value: v.Value, Unit: v.Unit, Verdict: v.Wire()}
	if !v.Newest.IsZero() {
		m.Newest = timestamppb.New(v.Newest)
	}
	return m
}

// Wire is the objective as a course shows it.
func (o Objective) Wire(source, query string) *pluginv1.Objective {
	return &pluginv1.Objective{Name: o.Name, Source: source, Query: query, Min: o.Min, Max: o.Max, MinimumSample: o.MinimumSample, Unit: o.Unit}
}
