package plugintest

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// run runs the tests before traffic.
func (b *bench) run(ctx context.Context, p *process) (*pluginv1.Report, int, error) {
	return receive(pluginv1.NewConformanceServiceClient(p.conn).Run(ctx, &pluginv1.RunRequest{
		Call: b.call("run"), Subject: subject(), Moment: pluginv1.Moment_MOMENT_BEFORE_TRAFFIC}))
}

type runStream interface {
	Recv() (*pluginv1.RunResponse, error)
}

// receive reads to the end: the report, and how many messages came after it.
func receive(stream runStream, err error) (*pluginv1.Report, int, error) {
	if err != nil {
		return nil, 0, err
	}
	var report *pluginv1.Report
	for after := 0; ; {
		m, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && report == nil:
			return nil, 0, errors.New("the run ended without a report")
		case errors.Is(err, io.EOF):
			return report, after, nil
		case err != nil:
			return nil, 0, err
		case report != nil:
			after++
		default:
			report = m.GetReport()
		}
	}
}

func conformanceReport(ctx context.Context, b *bench) error {
	p, err := b.serving(ctx, pluginv1.Kind_KIND_CONFORMANCE)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timeout)
	defer cancel()
	r, after, err := b.run(ctx, p)
	switch {
	case err != nil && status.Code(err) == codes.Unknown && status.Convert(err).Message() == "the run ended without a report":
		return err
	case err != nil: // it could not do its work on what does not exist, and says so
		return nil
	case after > 0:
		return fmt.Errorf("%d messages came after the report", after)
	case r.GetFailed() > 0 && r.GetVerdict().GetOutcome() != pluginv1.Outcome_OUTCOME_FAIL:
		return fmt.Errorf("%d tests failed, and the verdict is %s", r.GetFailed(), r.GetVerdict().GetOutcome())
	case r.GetPassed()+r.GetFailed()+r.GetInconclusive() == 0 && r.GetVerdict().GetOutcome() == pluginv1.Outcome_OUTCOME_PASS:
		return errors.New("no test was run, and the verdict is a pass: want inconclusive")
	}
	return judged(r.GetVerdict())
}

// judged: the verdict is one of three, with a reason where it has to have one.
func judged(v *pluginv1.Verdict) error {
	switch o := v.GetOutcome(); {
	case o < pluginv1.Outcome_OUTCOME_PASS || o > pluginv1.Outcome_OUTCOME_INCONCLUSIVE:
		return fmt.Errorf("the verdict is %s: want pass, fail or inconclusive", o)
	case o != pluginv1.Outcome_OUTCOME_PASS && v.GetReason() == "":
		return fmt.Errorf("the verdict is %s without a reason", o)
	case o == pluginv1.Outcome_OUTCOME_PASS && v.GetSample() < v.GetMinimumSample():
		return fmt.Errorf("the verdict is a pass on %d of at least %d samples: want inconclusive", v.GetSample(), v.GetMinimumSample())
	}
	return nil
}

// canaryEvidence: of an application that does not exist, nothing can be known.
func canaryEvidence(ctx context.Context, b *bench) error {
	p, err := b.serving(ctx, pluginv1.Kind_KIND_CANARY)
	if err != nil {
		return err
	}
	for _, q := range b.canaryQuestions() {
		if q.name != "Measure" && q.name != "Follow" {
			continue
		}
		a := b.ask(ctx, p, q)
		if f, ok := a.message.(*pluginv1.FollowResponse); ok && a.err == nil {
			if f.GetVerdict().GetOutcome() == pluginv1.Outcome_OUTCOME_PASS {
				return errors.New("it passes a release that does not exist, when it is asked to follow one")
			}
			continue
		}
		if q.name == "Follow" {
			continue // it follows nobody, or could not look, and says so
		}
		m, ok := a.message.(*pluginv1.MeasureResponse)
		if a.err != nil || !ok {
			return nil // it could not measure, and says so
		}
		if m.GetVerdict().GetOutcome() == pluginv1.Outcome_OUTCOME_PASS {
			return errors.New("it passes a candidate that does not exist: without data a verdict is inconclusive")
		}
		for _, metric := range m.GetMetrics() {
			if metric.Value == nil && metric.GetVerdict().GetOutcome() != pluginv1.Outcome_OUTCOME_INCONCLUSIVE {
				return fmt.Errorf("the metric %q has no value, and its verdict is %s: want inconclusive", metric.GetName(), metric.GetVerdict().GetOutcome())
			}
		}
		return judged(m.GetVerdict())
	}
	return nil
}

// canaryAbort: the way back works from anywhere.
func canaryAbort(ctx context.Context, b *bench) error {
	p, err := b.serving(ctx, pluginv1.Kind_KIND_CANARY)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timeout)
	defer cancel()
	_, err = pluginv1.NewCanaryServiceClient(p.conn).Abort(ctx, &pluginv1.AbortRequest{Call: b.call("abort"), Subject: subject()})
	if code := status.Code(err); code == codes.Internal || code == codes.Unimplemented || code == codes.DeadlineExceeded {
		return fmt.Errorf("without a course, Abort says: %s", message(err))
	}
	return nil
}
