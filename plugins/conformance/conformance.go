package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/wheelwright-dev/wheelwright/pkg/pluginsdk"
	"github.com/wheelwright-dev/wheelwright/plugins/internal/excerpt"
	"github.com/wheelwright-dev/wheelwright/plugins/internal/kube"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// conformance answers calls; of one it keeps nothing for the next.
type conformance struct {
	settings
	kubeconfig string // a path; empty: no credentials
	log        *slog.Logger
	ending     chan struct{} // closed when the process is asked to end
	turns      turns
}

// turns lets one call at a time make a distribution's objects: what one sweeps must not be another's.
type turns struct {
	mu    sync.Mutex
	taken map[string]chan struct{} // by distribution; who holds it has put something in
}

// take waits for the turn of a distribution, or for the end of ctx.
func (t *turns) take(ctx context.Context, distribution string) (release func(), err error) {
	t.mu.Lock()
	if t.taken == nil {
		t.taken = map[string]chan struct{}{}
	}
	turn := t.taken[distribution]
	if turn == nil {
		turn = make(chan struct{}, 1)
		t.taken[distribution] = turn
	}
	t.mu.Unlock()
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the tests of another call: %w", ctx.Err())
	}
}

func newConformance(s settings, kubeconfig string, log *slog.Logger) *conformance {
	return &conformance{settings: s, kubeconfig: kubeconfig, log: log, ending: make(chan struct{})}
}

func (c *conformance) health(context.Context) error {
	if c.kubeconfig == "" {
		return nil
	}
	cluster, err := kube.Open(c.kubeconfig)
	if err == nil {
		cluster.Close()
	}
	return err
}

// test is one thing to run at one moment.
type test struct {
	name    string
	service string
	slow    bool // not worth its time once another has failed
	run     func(ctx context.Context, tell func(string)) result
}

type result struct {
	verdict *pluginv1.Verdict
	log     string
}

// moments are those at which a release may be tested.
func moments() []pluginv1.Moment {
	return []pluginv1.Moment{pluginv1.Moment_MOMENT_ADMISSION, pluginv1.Moment_MOMENT_BEFORE_TRAFFIC, pluginv1.Moment_MOMENT_STEP, pluginv1.Moment_MOMENT_BEFORE_INCREASE,
		pluginv1.Moment_MOMENT_BEFORE_PROMOTION, pluginv1.Moment_MOMENT_AFTER_PROMOTION, pluginv1.Moment_MOMENT_ROLLBACK}
}

// Describe tells every test of every moment; it asks nobody.
func (c *conformance) Describe(_ context.Context, r *pluginv1.DescribeConformanceRequest) (*pluginv1.DescribeConformanceResponse, error) {
	rel, err := readRelease(r.GetSubject())
	if err != nil {
		return nil, err
	}
	out := &pluginv1.DescribeConformanceResponse{}
	for _, m := range moments() {
		p := c.prepare(rel, m, "", nil)
		for _, t := range p.tests {
			out.Tests = append(out.Tests, &pluginv1.Test{Name: t.name, Moment: m, Service: t.service})
		}
		for _, w := range p.warnings {
			if !slices.Contains(out.Warnings, w) {
				out.Warnings = append(out.Warnings, w)
			}
		}
	}
	return out, nil
}

// Run runs the tests of the moment one after the other: the quick ones first, and once one has failed no
// slow one.
func (c *conformance) Run(ctx context.Context, r *pluginv1.RunRequest, tell func(*pluginv1.Progress) error) (*pluginv1.Report, error) {
	ctx, cancel := c.bounded(ctx, r.GetCall())
	defer cancel()
	rel, err := readRelease(r.GetSubject())
	if err != nil {
		return nil, err
	}
	var cluster *kube.Client
	if c.kubeconfig != "" {
		if cluster, err = kube.Open(c.kubeconfig); err != nil {
			return nil, err
		}
		defer cluster.Close()
	}
	p := c.prepare(rel, r.GetMoment(), r.GetCall().GetId(), cluster)
	defer p.close()
	run := suite{tell: tell, redactor: p.redactor}
	for _, t := range p.tests {
		if only := r.GetOnly(); len(only) > 0 && !slices.Contains(only, t.name) {
			continue
		}
		if err := run.run(ctx, t); err != nil {
			return nil, err
		}
	}
	return run.end(), nil
}

// bounded ends with the call's deadline and with the process.
func (c *conformance) bounded(ctx context.Context, call *pluginv1.Call) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	if d := call.GetDeadline(); d != nil {
		inner := cancel
		var outer context.CancelFunc
		ctx, outer = context.WithDeadline(ctx, d.AsTime())
		cancel = func() { outer(); inner() }
	}
	go func() {
		select {
		case <-c.ending:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// suite runs tests, tells of each and adds up.
type suite struct {
	tell     func(*pluginv1.Progress) error
	redactor excerpt.Redactor
	report   pluginv1.Report
	verdicts []*pluginv1.Verdict
	failed   string // the first that did
}

// run runs one test. Its error is that nobody listens any more.
func (s *suite) run(ctx context.Context, t test) error {
	if t.slow && s.failed != "" {
		s.report.Skipped++
		return s.tell(&pluginv1.Progress{Test: t.name, Service: t.service, State: pluginv1.TestState_TEST_STATE_SKIPPED, Message: s.failed + " has failed"})
	}
	var gone error
	say := func(message string) {
		p := &pluginv1.Progress{Test: t.name, Service: t.service, State: pluginv1.TestState_TEST_STATE_RUNNING, Message: s.redactor.Line(message, 400)}
		gone = cmp.Or(gone, s.tell(p))
	}
	say("")
	begin := time.Now()
	r := t.run(ctx, say)
	if gone != nil {
		return gone
	}
	reason := s.redactor.Line(r.verdict.GetReason(), 400)
	p := &pluginv1.Progress{Test: t.name, Service: t.service, Message: reason, LogTail: r.log, Took: durationpb.New(time.Since(begin))}
	v := &pluginv1.Verdict{Outcome: r.verdict.GetOutcome(), Sample: r.verdict.GetSample()}
	switch v.GetOutcome() {
	case pluginv1.Outcome_OUTCOME_PASS:
		s.report.Passed++
		p.State = pluginv1.TestState_TEST_STATE_PASSED
	case pluginv1.Outcome_OUTCOME_FAIL:
		s.report.Failed++
		p.State = pluginv1.TestState_TEST_STATE_FAILED
		s.failed = cmp.Or(s.failed, t.name)
	default:
		s.report.Inconclusive++
		p.State = pluginv1.TestState_TEST_STATE_INCONCLUSIVE
		v.Outcome = pluginv1.Outcome_OUTCOME_INCONCLUSIVE
	}
	if v.GetOutcome() != pluginv1.Outcome_OUTCOME_PASS {
		v.Reason = t.name + ": " + cmp.Or(reason, "no reason is known")
	}
	s.verdicts = append(s.verdicts, v)
	return s.tell(p)
}

// end is the report. Where no test was run there is no evidence, and so no pass.
func (s *suite) end() *pluginv1.Report {
	verdict := pluginsdk.Inconclusive("no test was run: none is declared for this moment")
	if len(s.verdicts) > 0 {
		verdict = pluginsdk.Worst(s.verdicts...)
	}
	return &pluginv1.Report{Verdict: verdict, Passed: s.report.Passed, Failed: s.report.Failed, Inconclusive: s.report.Inconclusive, Skipped: s.report.Skipped}
}

var errNoCredentials = errors.New("spoke.yaml grants this plugin no credentials: write its permissions, as its README.md has them")

// problems become a test that fails: a release whose tests cannot be read has not passed them.
func problemsTest(problems []string) test {
	return test{name: "declared tests", run: func(context.Context, func(string)) result {
		more := ""
		if n := len(problems); n > 1 {
			more = fmt.Sprintf(" (and %d more)", n-1)
		}
		var log string
		for _, p := range problems {
			log += p + "\n"
		}
		return result{verdict: pluginsdk.Fail(0, "%s%s", excerpt.OneLine(problems[0], 300), more), log: excerpt.End(log, 16<<10)}
	}}
}
