package pluginsdk

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// Pass is a verdict that rests on sample requests, probes or tests.
func Pass(sample uint64) *pluginv1.Verdict {
	return &pluginv1.Verdict{Outcome: pluginv1.Outcome_OUTCOME_PASS, Sample: sample}
}

// Fail says why, in one line.
func Fail(sample uint64, format string, args ...any) *pluginv1.Verdict {
	return &pluginv1.Verdict{Outcome: pluginv1.Outcome_OUTCOME_FAIL, Sample: sample, Reason: fmt.Sprintf(format, args...)}
}

// Inconclusive is for too little evidence: no traffic, no data, out of reach.
func Inconclusive(format string, args ...any) *pluginv1.Verdict {
	return &pluginv1.Verdict{Outcome: pluginv1.Outcome_OUTCOME_INCONCLUSIVE, Reason: fmt.Sprintf(format, args...)}
}

// Judge compares a value with bounds, nil for none, both inclusive. Too small a sample and what is not a
// number are inconclusive, whatever the value.
func Judge(name string, value float64, lowest, highest *float64, sample, minimum uint64) *pluginv1.Verdict {
	v := Pass(sample)
	switch {
	case math.IsNaN(value) || math.IsInf(value, 0):
		v = Inconclusive("%s is not a number", name)
	case sample < minimum:
		v = Inconclusive("%s rests on %d of at least %d", name, sample, minimum)
	case lowest != nil && value < *lowest:
		v = Fail(sample, "%s %.4g < %.4g", name, value, *lowest)
	case highest != nil && value > *highest:
		v = Fail(sample, "%s %.4g > %.4g", name, value, *highest)
	}
	v.Sample, v.MinimumSample = sample, minimum
	return v
}

// Worst is one verdict for many: the first fail, else the first that is inconclusive, else a pass over
// all samples. Of none it is inconclusive.
func Worst(verdicts ...*pluginv1.Verdict) *pluginv1.Verdict {
	if len(verdicts) == 0 {
		return Inconclusive("nothing was looked at")
	}
	var unsure *pluginv1.Verdict
	all := Pass(0)
	for _, v := range verdicts {
		switch v.GetOutcome() {
		case pluginv1.Outcome_OUTCOME_FAIL:
			return v
		case pluginv1.Outcome_OUTCOME_PASS:
			all.Sample += v.GetSample()
		case pluginv1.Outcome_OUTCOME_INCONCLUSIVE:
			unsure = cmp.Or(unsure, v)
		default:
			unsure = cmp.Or(unsure, Inconclusive("a verdict says nothing"))
		}
	}
	if unsure != nil {
		return unsure
	}
	return all
}

// Suite runs tests one after the other and adds up. The zero Suite is ready.
type Suite struct {
	report   pluginv1.Report
	verdicts []*pluginv1.Verdict
}

// Run tells that the test runs, runs it, and tells how it ended. Its error is tell's.
func (s *Suite) Run(ctx context.Context, tell func(*pluginv1.Progress) error, name string, test func(context.Context) *pluginv1.Verdict) error {
	if err := tell(&pluginv1.Progress{Test: name, State: pluginv1.TestState_TEST_STATE_RUNNING}); err != nil {
		return err
	}
	begin := time.Now()
	v := test(ctx)
	progress := &pluginv1.Progress{Test: name, Message: v.GetReason(), Took: durationpb.New(time.Since(begin))}
	switch v.GetOutcome() {
	case pluginv1.Outcome_OUTCOME_PASS:
		s.report.Passed++
		progress.State = pluginv1.TestState_TEST_STATE_PASSED
	case pluginv1.Outcome_OUTCOME_FAIL:
		s.report.Failed++
		progress.State = pluginv1.TestState_TEST_STATE_FAILED
		v = &pluginv1.Verdict{Outcome: v.GetOutcome(), Reason: name + ": " + v.GetReason(), Sample: v.GetSample(), MinimumSample: v.GetMinimumSample()}
	default:
		s.report.Inconclusive++
		progress.State = pluginv1.TestState_TEST_STATE_INCONCLUSIVE
		v = &pluginv1.Verdict{Outcome: pluginv1.Outcome_OUTCOME_INCONCLUSIVE, Reason: name + ": " + v.GetReason(), Sample: v.GetSample(), MinimumSample: v.GetMinimumSample()}
	}
	s.verdicts = append(s.verdicts, v)
	return tell(progress)
}

// Report is the sum; where no test was run it is inconclusive.
func (s *Suite) Report() *pluginv1.Report {
	return &pluginv1.Report{
		Verdict: Worst(s.verdicts...), Passed: s.report.Passed, Failed: s.report.Failed,
		Inconclusive: s.report.Inconclusive, Skipped: s.report.Skipped,
	}
}
