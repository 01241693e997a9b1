package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// Bounds of what a plugin may say in one run, in one line, and as a test's log.
const (
	maxProgress = 10_000
	maxReason   = 2 << 10
	maxTail     = 16 << 10
	maxName     = 80
)

// ErrFlood is a plugin that told more than a run may.
type ErrFlood struct {
	Plugin string
	Count  int
}

func (e *ErrFlood) Error() string {
	return fmt.Sprintf("plugin %s told more than %d times how its tests get on in one run: the run was ended", e.Plugin, e.Count)
}

// Conformance, Canary and Notifier are plugins of one kind.
type (
	Conformance struct{ plugin *plugin }
	Canary      struct{ plugin *plugin }
	Notifier    struct{ plugin *plugin }
)

// Conformance is the plugin by name; ErrNoPlugin. It starts nothing.
func (h *Host) Conformance(name string) (Conformance, error) {
	p, err := h.of(name, pluginv1.Kind_KIND_CONFORMANCE)
	return Conformance{p}, err
}

// Canary is the plugin by name; ErrNoPlugin. It starts nothing.
func (h *Host) Canary(name string) (Canary, error) {
	p, err := h.of(name, pluginv1.Kind_KIND_CANARY)
	return Canary{p}, err
}

// Notifier is the plugin by name; ErrNoPlugin. It starts nothing.
func (h *Host) Notifier(name string) (Notifier, error) {
	p, err := h.of(name, pluginv1.Kind_KIND_NOTIFIER)
	return Notifier{p}, err
}

// request is one that does work.
type request interface {
	proto.Message
	GetCall() *pluginv1.Call
}

// timed is r with the deadline that ctx has. Call.id is the caller's: it is the same for a repeat.
func timed[R request](ctx context.Context, r R) (R, error) {
	if r.GetCall().GetId() == "" {
		return r, errors.New("the call has no id")
	}
	out := proto.CloneOf(r)
	if at, ok := ctx.Deadline(); ok {
		out.GetCall().Deadline = timestamppb.New(at)
	}
	return out, nil
}

// ask is a call with one answer.
func ask[R request, A any](ctx context.Context, p *plugin, method string, r R, do func(context.Context, *process, R) (A, error)) (A, error) {
	return call(ctx, p, method, func(ctx context.Context, proc *process) (A, error) {
		told, err := timed(ctx, r)
		if err != nil {
			var none A
			return none, err
		}
		return do(ctx, proc, told)
	})
}

// Describe lists the tests that the plugin would run.
func (c Conformance) Describe(ctx context.Context, r *pluginv1.DescribeConformanceRequest) (*pluginv1.DescribeConformanceResponse, error) {
	return call(ctx, c.plugin, "DescribeConformance", func(ctx context.Context, proc *process) (*pluginv1.DescribeConformanceResponse, error) {
		return proc.conformance.DescribeConformance(ctx, r)
	})
}

// Run runs the tests of a moment. tell hears how they get on, in order and from one goroutine; it may be
// nil. A run without a report is an error, never a pass.
func (c Conformance) Run(ctx context.Context, r *pluginv1.RunRequest, tell func(*pluginv1.Progress)) (*pluginv1.Report, error) {
	if tell == nil {
		tell = func(*pluginv1.Progress) {}
	}
	return callFor(ctx, c.plugin, "Run", c.plugin.timeout(DefaultRunTimeout), func(ctx context.Context, proc *process) (*pluginv1.Report, error) {
		told, err := timed(ctx, r)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithCancel(ctx) // ends the stream wherever it is left
		defer cancel()
		stream, err := proc.conformance.Run(ctx, told)
		if err != nil {
			return nil, err
		}
		for n := 0; ; n++ {
			m, err := stream.Recv()
			switch {
			case errors.Is(err, io.EOF):
				return nil, errors.New("the run ended without a report")
			case err != nil:
				return nil, err
			case m.GetReport() != nil:
				report := m.GetReport()
				report.Verdict = settled(report.GetVerdict())
				if report.GetFailed() > 0 && report.GetVerdict().GetOutcome() == pluginv1.Outcome_OUTCOME_PASS {
					report.Verdict = inconclusive(report.GetVerdict(), fmt.Sprintf("the plugin says pass, with %d failed", report.GetFailed()))
				}
				return report, nil
			case n == maxProgress:
				return nil, &ErrFlood{Plugin: c.plugin.cfg.Name, Count: maxProgress}
			case m.GetProgress() != nil:
				p := m.GetProgress()
				p.Test, p.Message, p.LogTail = printable(p.GetTest(), maxReason), printable(p.GetMessage(), maxReason), tailOf(p.GetLogTail(), maxTail)
				tell(p)
			}
		}
	})
}

// Describe says what the plugin can do.
func (c Canary) Describe(ctx context.Context) (*pluginv1.DescribeCanaryResponse, error) {
	return call(ctx, c.plugin, "DescribeCanary", func(ctx context.Context, proc *process) (*pluginv1.DescribeCanaryResponse, error) {
		return proc.canary.DescribeCanary(ctx, &pluginv1.DescribeCanaryRequest{})
	})
}

// Plan answers the steps; it changes nothing.
func (c Canary) Plan(ctx context.Context, r *pluginv1.PlanRequest) (*pluginv1.PlanResponse, error) {
	return ask(ctx, c.plugin, "Plan", r, func(ctx context.Context, proc *process, r *pluginv1.PlanRequest) (*pluginv1.PlanResponse, error) {
		return proc.canary.Plan(ctx, r)
	})
}

// Step makes traffic be as told.
func (c Canary) Step(ctx context.Context, r *pluginv1.StepRequest) (*pluginv1.StepResponse, error) {
	return ask(ctx, c.plugin, "Step", r, func(ctx context.Context, proc *process, r *pluginv1.StepRequest) (*pluginv1.StepResponse, error) {
		return proc.canary.Step(ctx, r)
	})
}

// Measure judges the candidate. A metric without a finite value is inconclusive, and so is the whole
// where the plugin overlooked that.
func (c Canary) Measure(ctx context.Context, r *pluginv1.MeasureRequest) (*pluginv1.MeasureResponse, error) {
	m, err := ask(ctx, c.plugin, "Measure", r, func(ctx context.Context, proc *process, r *pluginv1.MeasureRequest) (*pluginv1.MeasureResponse, error) {
		return proc.canary.Measure(ctx, r)
	})
	if err != nil {
		return nil, err
	}
	m.Verdict = settled(m.GetVerdict())
	for _, metric := range m.GetMetrics() {
		metric.Verdict = settled(metric.GetVerdict())
		if metric.Value == nil || math.IsNaN(metric.GetValue()) || math.IsInf(metric.GetValue(), 0) {
			metric.Verdict = inconclusive(metric.GetVerdict(), metric.GetName()+" has no value")
		}
		if metric.GetVerdict().GetOutcome() != pluginv1.Outcome_OUTCOME_PASS && m.GetVerdict().GetOutcome() == pluginv1.Outcome_OUTCOME_PASS {
			m.Verdict = inconclusive(metric.GetVerdict(), metric.GetVerdict().GetReason())
		}
	}
	return m, nil
}

// Follow says how far those have come who lead in the plugin's place. No verdict is one too: they are on
// their way. A pass counts where each one of them has passed.
func (c Canary) Follow(ctx context.Context, r *pluginv1.FollowRequest) (*pluginv1.FollowResponse, error) {
	f, err := ask(ctx, c.plugin, "Follow", r, func(ctx context.Context, proc *process, r *pluginv1.FollowRequest) (*pluginv1.FollowResponse, error) {
		return proc.canary.Follow(ctx, r)
	})
	if err != nil {
		return nil, err
	}
	return whole(f, r.GetCourse().GetLeads()), nil
}

// whole is f, inconclusive where it passes without one of those who are led.
func whole(f *pluginv1.FollowResponse, leads []*pluginv1.Lead) *pluginv1.FollowResponse {
	passed := map[string]bool{}
	for _, s := range f.GetServices() {
		if s.Verdict != nil {
			s.Verdict = settled(s.GetVerdict())
		}
		passed[s.GetService()] = s.GetVerdict().GetOutcome() == pluginv1.Outcome_OUTCOME_PASS
	}
	if f.Verdict == nil {
		return f
	}
	f.Verdict = settled(f.GetVerdict())
	for _, lead := range leads {
		if f.GetVerdict().GetOutcome() == pluginv1.Outcome_OUTCOME_PASS && !passed[lead.GetService()] {
			f.Verdict = inconclusive(f.GetVerdict(), "the plugin says pass, without one of "+printable(lead.GetService(), maxReason))
		}
	}
	return f
}

// Promote takes the canary away, all traffic being stable's.
func (c Canary) Promote(ctx context.Context, r *pluginv1.PromoteRequest) (*pluginv1.PromoteResponse, error) {
	return ask(ctx, c.plugin, "Promote", r, func(ctx context.Context, proc *process, r *pluginv1.PromoteRequest) (*pluginv1.PromoteResponse, error) {
		return proc.canary.Promote(ctx, r)
	})
}

// Abort leads all traffic back.
func (c Canary) Abort(ctx context.Context, r *pluginv1.AbortRequest) (*pluginv1.AbortResponse, error) {
	return ask(ctx, c.plugin, "Abort", r, func(ctx context.Context, proc *process, r *pluginv1.AbortRequest) (*pluginv1.AbortResponse, error) {
		return proc.canary.Abort(ctx, r)
	})
}

// Notify tells an event.
func (n Notifier) Notify(ctx context.Context, r *pluginv1.NotifyRequest) (*pluginv1.NotifyResponse, error) {
	return ask(ctx, n.plugin, "Notify", r, func(ctx context.Context, proc *process, r *pluginv1.NotifyRequest) (*pluginv1.NotifyResponse, error) {
		return proc.notifier.Notify(ctx, r)
	})
}

// settled is v, inconclusive where it says nothing or passes on too small a sample.
func settled(v *pluginv1.Verdict) *pluginv1.Verdict {
	if v != nil {
		v.Reason = printable(v.GetReason(), maxReason)
	}
	switch v.GetOutcome() {
	case pluginv1.Outcome_OUTCOME_PASS:
		if v.GetSample() < v.GetMinimumSample() {
			return inconclusive(v, fmt.Sprintf("%d of at least %d samples", v.GetSample(), v.GetMinimumSample()))
		}
		return v
	case pluginv1.Outcome_OUTCOME_FAIL, pluginv1.Outcome_OUTCOME_INCONCLUSIVE:
		return v
	}
	return inconclusive(v, "the plugin gave no verdict")
}

func inconclusive(v *pluginv1.Verdict, reason string) *pluginv1.Verdict {
	return &pluginv1.Verdict{Outcome: pluginv1.Outcome_OUTCOME_INCONCLUSIVE, Reason: reason, Sample: v.GetSample(), MinimumSample: v.GetMinimumSample()}
}
