package agent

import (
	"fmt"
	"strings"

	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/delivery"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/journal"
)

// weigh makes one verdict of tests and metrics.
func (w *worker) weigh(d *journal.Attempt, step *pluginv1.CanaryStep, f finding, m *pluginv1.MeasureResponse, c call) delivery.Event {
	walk, v := w.state.Walk, m.GetVerdict()
	e := delivery.Event{Kind: delivery.Measured, Verdict: delivery.Pass}
	why := c.clean(v.GetReason())
	switch v.GetOutcome() {
	case pluginv1.Outcome_OUTCOME_FAIL:
		e.Verdict, e.Over = delivery.Fail, m.GetOver()
	case pluginv1.Outcome_OUTCOME_INCONCLUSIVE:
		e.Verdict = delivery.Inconclusive
	}
	switch {
	case f.verdict == delivery.Fail:
		d.Failed++
		if e.Verdict != delivery.Fail {
			why = f.why
		}
		e.Verdict = delivery.Fail
		e.Over = e.Over || f.moment == pluginv1.Moment_MOMENT_ROLLBACK || d.Failed >= int(max(step.GetFailures(), 1))
	case f.verdict == delivery.Inconclusive && e.Verdict == delivery.Pass:
		e.Verdict, why = delivery.Inconclusive, f.why
	}
	where := place(walk, step)
	switch e.Verdict {
	case delivery.Pass:
		e.Reason = fmt.Sprintf("%s: %d of %d measurements passed", where, min(walk.Passed+1, max(walk.Need, 1)), max(walk.Need, 1))
		if why != "" { // what the plugin says beside a pass, such as that the load was its own
			e.Reason += " (" + short(why, longest/2) + ")"
		}
	case delivery.Inconclusive:
		e.Reason = fmt.Sprintf("%s: %s(%s)", where, e.Verdict, short(why, longest/2))
	default:
		e.Reason = fmt.Sprintf("%s: %s", where, why)
	}
	if walk.Held && !e.Over {
		e.Reason += "; held by a person"
	}
	return e
}

// readings are the metrics for the log.
func readings(m *pluginv1.MeasureResponse, c call) []string {
	var all []string
	for _, one := range m.GetMetrics() {
		value := "no value"
		if one.Value != nil {
			value = fmt.Sprintf("%.4g %s", one.GetValue(), one.GetUnit())
		}
		all = append(all, c.clean(fmt.Sprintf("%s %s: %s, %s", one.GetService(), one.GetName(), strings.TrimSpace(value), strings.TrimPrefix(one.GetVerdict().GetOutcome().String(), "OUTCOME_"))))
	}
	return all
}
