package agent

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/pluginhost"
	"github.com/wheelwright-dev/wheelwright/pkg/redact"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/apply"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/delivery"
)

// plugins are the programs of spoke.yaml; pluginhost.Host is one. Safe for concurrent use.
type plugins interface {
	Named(pluginv1.Kind) []string
	Inspect(name string) error // why it could not be started as it is on the disk
	Conformance(name string) (pluginhost.Conformance, error)
	Canary(name string) (pluginhost.Canary, error)
	Notifier(name string) (pluginhost.Notifier, error)
}

// mostTold bounds the tests that are told to the hub one by one, of one exam.
const mostTold = 100

// exam is one run of all conformance tests. It goes on beside its worker, which looks at the cluster and
// obeys meanwhile.
type exam struct {
	cancel context.CancelFunc
	until  time.Time     // it has ended by then
	over   chan struct{} // closed when what is below the mutex is final

	mu      sync.Mutex
	total   int // tests that were announced; 0: nobody knows
	done    map[string]bool
	line    string
	news    []testNews // of tests that ended, not told yet
	finding finding
}

// finding is what came of an exam; with an error it is to be run again.
type finding struct {
	verdict delivery.Verdict
	why     string
	moment  pluginv1.Moment // of the test that failed
	late    bool            // the time was up
	err     error
}

func (x *exam) isOver() bool {
	select {
	case <-x.over:
		return true
	default:
		return false
	}
}

// testers are the plugins that a subscription's releases are proven by.
func (w *worker) testers() []string {
	if w.a.cfg.Plugins == nil {
		return nil
	}
	all := w.a.cfg.Plugins.Named(pluginv1.Kind_KIND_CONFORMANCE)
	if w.sub.Tests.Plugins == nil {
		return all
	}
	return slices.DeleteFunc(all, func(n string) bool { return !slices.Contains(w.sub.Tests.Plugins, n) })
}

// unprovable says why releases could not be proven: a plugin is not there as spoke.yaml has it.
func (w *worker) unprovable() error {
	var all []error
	for _, name := range w.testers() {
		all = append(all, w.a.cfg.Plugins.Inspect(name))
	}
	return errors.Join(all...)
}

// test begins the exam after promotion, or looks how it and the cluster get on.
func (w *worker) test(ctx context.Context) (delivery.Event, error) {
	if !w.state.Tests { // the provider took the plugins out of spoke.yaml meanwhile
		w.endExam()
		return w.observe(ctx)
	}
	f, err := w.examined(ctx, pluginv1.Moment_MOMENT_AFTER_PROMOTION)
	if err == nil {
		return w.judged(f), nil
	}
	if !errors.Is(err, errGoesOn) {
		return delivery.Event{}, err
	}
	e, err := w.observe(ctx)
	if err == nil && e.Health == fleet.Healthy {
		w.exam.mu.Lock()
		e.Reason = w.exam.line
		w.exam.mu.Unlock()
	}
	return e, err
}

// examined begins the exam of some moments, in their order, or takes what came of it; errGoesOn: not yet.
func (w *worker) examined(ctx context.Context, moments ...pluginv1.Moment) (finding, error) {
	if err := w.examining(moments...); err != nil {
		return finding{}, err
	}
	if !time.Now().Before(w.exam.until) { // it ends by itself
		select {
		case <-w.exam.over:
		case <-ctx.Done():
			return finding{}, ctx.Err()
		}
	}
	if !w.exam.isOver() {
		return finding{}, errGoesOn
	}
	f := w.exam.finding
	w.endExam()
	return f, f.err
}

// examining sees to it that an exam of some moments is begun, and tells what it found so far.
func (w *worker) examining(moments ...pluginv1.Moment) error {
	if w.exam == nil {
		subject, private, err := w.subject(false)
		if err != nil {
			return err
		}
		w.beginExam(subject, private, moments)
	}
	return w.tellTests()
}

// judged is the event of a finding.
func (w *worker) judged(f finding) delivery.Event {
	e := delivery.Event{Kind: delivery.Tested, Verdict: f.verdict, Reason: f.why}
	w.log.Info("the tests are over", logging.Version, w.state.Target, "verdict", string(f.verdict), logging.Reason, f.why)
	if f.verdict == delivery.Inconclusive {
		if f.late {
			f.why = cmp.Or(w.unsure, f.why) // what an exam before this one found says more
		}
		w.unsure = f.why
		e.Reason = fmt.Sprintf("%s(%s)", f.verdict, short(f.why, longest/2))
		if asks := !w.state.Retry || !time.Now().Before(w.state.Deadline); asks {
			e.Reason += fmt.Sprintf("; it is on the cluster; see it with: spoke status %s, then: spoke approve %[1]s %s, or: spoke reject %[1]s %[2]s", w.name, w.state.Target)
		}
	}
	return e
}

// short is the beginning of a text.
func short(s string, most int) string {
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

// testNews is what a test came to, for the hub.
type testNews struct{ test, text string }

// tellTests tells the hub of tests that ended: names, states and one redacted line, never their logs. What a
// test said before in this delivery is not told again: those of a step are run at each measurement.
func (w *worker) tellTests() error {
	x := w.exam
	x.mu.Lock()
	news := x.news
	x.news = nil
	x.mu.Unlock()
	texts := untold(w.toldTests, news)
	if len(texts) == 0 {
		return nil
	}
	if err := w.record(w.rec, event(time.Now(), w.rec.Installation, fleet.EventAgent, fmt.Sprintf("tests of %s: %s", w.state.Target, strings.Join(texts, "; ")))); err != nil {
		return err
	}
	if w.toldTests == nil {
		w.toldTests = map[string]string{}
	}
	for _, n := range news {
		w.toldTests[n.test] = n.text
	}
	return nil
}

// untold are the texts of those tests that said another thing before, or nothing.
func untold(told map[string]string, news []testNews) (texts []string) {
	for _, n := range news {
		if told[n.test] != n.text {
			texts = append(texts, n.text)
		}
	}
	return texts
}

func (w *worker) beginExam(subject *pluginv1.Subject, private *redact.Sink, moments []pluginv1.Moment) {
	w.tries++
	x := &exam{over: make(chan struct{}), done: map[string]bool{}, line: "tests begin"}
	x.until = time.Now().Add(w.state.Proving)
	if at := w.state.Deadline; w.state.Phase == fleet.Testing && at.Before(x.until) {
		x.until = at
	}
	// Its life is the phase's, not that of the round in which it is begun; run ends it at the latest.
	ctx, cancel := context.WithDeadline(context.Background(), x.until)
	x.cancel = cancel
	w.exam = x
	q := questions{names: w.testers(), id: w.callID(), subject: subject, private: private, moments: moments, weight: uint32(w.weight())}
	// After a canary, and before one, that nothing is to be tested is no lack of evidence.
	q.anyway = len(w.rec.Delivery.Course) == 0 && slices.Contains(moments, pluginv1.Moment_MOMENT_AFTER_PROMOTION)
	w.beside.Go(func() {
		defer w.box.poke()
		defer close(x.over)
		defer cancel()
		f := w.examine(ctx, x, q)
		x.mu.Lock()
		x.finding = f
		x.mu.Unlock()
	})
}

// questions are what an exam asks.
type questions struct {
	names   []string // of plugins
	id      string
	subject *pluginv1.Subject
	private *redact.Sink
	moments []pluginv1.Moment
	weight  uint32
	anyway  bool // where nobody announces any test all are asked all the same, and that none ran is no pass
}

// weight is the largest share of live requests that a candidate has.
func (w *worker) weight() (most int) {
	if w.state.Phase != fleet.Progressing {
		return 100
	}
	course := &pluginv1.Course{}
	if err := proto.Unmarshal(w.rec.Delivery.Course, course); err != nil || w.state.Walk.Step == 0 || w.state.Walk.Step > len(course.GetSteps()) {
		return 0
	}
	for _, t := range course.GetSteps()[w.state.Walk.Step-1].GetTraffic() {
		most = max(most, int(t.GetWeight()))
	}
	return most
}

// endExam leaves an exam behind; where it still runs, it ends by itself.
func (w *worker) endExam() {
	if w.exam != nil {
		w.exam.cancel()
		w.exam = nil
	}
}

// callID is the same for the same try of the same delivery, also after a restart. Tests that an operator ordered to
// be run again are another try.
func (w *worker) callID() string {
	d, ordered := w.rec.Delivery, ""
	if n := len(w.rec.Orders); n > 0 {
		ordered = w.rec.Orders[n-1].Nonce
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %d %d %s", w.a.cfg.Cluster, w.name, d.Target, d.Started.UnixNano(), w.tries, ordered))
	return fmt.Sprintf("%x", sum[:10])
}

// examine asks one plugin after the other, moment by moment. The first fail is the verdict; a pass takes
// all of them.
func (w *worker) examine(ctx context.Context, x *exam, q questions) finding {
	tests := w.count(ctx, x, q)
	for _, of := range tests { // what has tests, and none of this moment, lacks none
		q.anyway = q.anyway && len(of) == 0
	}
	all := finding{verdict: delivery.Pass}
	asked := 0
	for _, moment := range q.moments {
		for _, name := range q.names {
			if !q.anyway && tests[name][moment] == 0 {
				continue
			}
			asked++
			f := w.ask(ctx, x, name, &pluginv1.RunRequest{
				Call: &pluginv1.Call{Id: q.id + "-" + name + "-" + strings.ToLower(strings.TrimPrefix(moment.String(), "MOMENT_"))}, Subject: q.subject, Moment: moment, Weight: q.weight,
			}, q.private)
			f.why, f.moment = oneLine(q.private.Text(f.why)), moment
			switch {
			case f.err != nil, f.verdict == delivery.Fail:
				return f
			case f.verdict == delivery.Inconclusive && all.verdict == delivery.Pass:
				all = f
			}
		}
	}
	if asked == 0 && q.anyway {
		return finding{verdict: delivery.Inconclusive, why: noTest}
	}
	return all
}

const noTest = "no test ran"

// count learns which tests there are, by plugin and moment. Of who does not say so it is not known.
func (w *worker) count(ctx context.Context, x *exam, q questions) map[string]map[pluginv1.Moment]int {
	tests := map[string]map[pluginv1.Moment]int{}
	for _, name := range q.names {
		tests[name] = map[pluginv1.Moment]int{}
		c, err := w.a.cfg.Plugins.Conformance(name)
		var d *pluginv1.DescribeConformanceResponse
		if err == nil {
			d, err = c.Describe(ctx, &pluginv1.DescribeConformanceRequest{Subject: q.subject})
		}
		if err != nil { // it is asked, and what comes of that is said
			for _, moment := range q.moments {
				tests[name][moment] = 1
			}
			continue
		}
		for _, warning := range d.GetWarnings() {
			w.log.Warn("a plugin does not understand all that the release declares", logging.Plugin, name, logging.Reason, warning)
		}
		for _, t := range d.GetTests() {
			tests[name][t.GetMoment()]++
			if slices.Contains(q.moments, t.GetMoment()) {
				x.mu.Lock()
				x.total++
				x.mu.Unlock()
			}
		}
	}
	return tests
}

// ask runs one plugin's tests. A process that ends is given one more try: it may have been killed for
// reasons that are not its own.
func (w *worker) ask(ctx context.Context, x *exam, name string, r *pluginv1.RunRequest, private *redact.Sink) finding {
	for again := false; ; again = true {
		c, err := w.a.cfg.Plugins.Conformance(name)
		var report *pluginv1.Report
		if err == nil {
			report, err = c.Run(ctx, r, func(p *pluginv1.Progress) { w.progress(x, name, p, private) })
		}
		var ended *pluginhost.ErrEnded
		switch {
		case err == nil:
			return pooled(name, report)
		case errors.Is(err, pluginhost.ErrClosed), errors.Is(err, pluginhost.ErrNoPlugin), errors.Is(err, apply.ErrUnreachable):
			return finding{err: err} // spoke.yaml has changed, or the cluster is away
		case errors.As(err, &ended) && !again && ctx.Err() == nil:
			w.log.Warn("a plugin ended while it tested; it is asked once more", logging.Plugin, name, logging.Error, err)
		case errors.Is(ctx.Err(), context.DeadlineExceeded):
			return finding{verdict: delivery.Inconclusive, late: true, why: fmt.Sprintf("plugin %s: the tests were not done in time", name)}
		default:
			return finding{verdict: delivery.Inconclusive, why: err.Error()}
		}
	}
}

// pooled is what a report comes to.
func pooled(name string, r *pluginv1.Report) finding {
	v := r.GetVerdict()
	ran := r.GetPassed() + r.GetFailed() + r.GetInconclusive()
	switch {
	case v.GetOutcome() == pluginv1.Outcome_OUTCOME_FAIL:
		return finding{verdict: delivery.Fail, why: fmt.Sprintf("tests of %s: %s", name, cmp.Or(v.GetReason(), fmt.Sprintf("%d failed", r.GetFailed())))}
	case ran == 0:
		return finding{verdict: delivery.Inconclusive, why: noTest}
	case v.GetOutcome() == pluginv1.Outcome_OUTCOME_PASS && r.GetInconclusive() == 0:
		return finding{verdict: delivery.Pass}
	}
	return finding{verdict: delivery.Inconclusive, why: fmt.Sprintf("%s: %s", name, cmp.Or(v.GetReason(), fmt.Sprintf("%d tests came to no verdict", r.GetInconclusive())))}
}

// progress takes in news of one test. What it wrote stays in the spoke's log.
func (w *worker) progress(x *exam, name string, p *pluginv1.Progress, private *redact.Sink) {
	key := strings.Join([]string{name, p.GetService(), p.GetTest()}, "/")
	label := short(oneLine(private.Text(strings.Trim(p.GetService()+"/"+p.GetTest(), "/"))), 80)
	word := strings.ToLower(strings.TrimPrefix(p.GetState().String(), "TEST_STATE_"))
	text := strings.TrimSpace(label + " " + word)
	if m := short(oneLine(private.Text(p.GetMessage())), 160); m != "" {
		text += ": " + m
	}
	ended := p.GetState() >= pluginv1.TestState_TEST_STATE_PASSED
	x.mu.Lock()
	defer x.mu.Unlock()
	news := ended && !x.done[key]
	if news && len(x.done) < mostTold {
		x.done[key] = true
		x.news = append(x.news, testNews{key, text})
	}
	x.line = text
	if n := len(x.done); x.total > 0 {
		if !ended {
			n++
		}
		x.line = fmt.Sprintf("%d of %d: %s", min(n, x.total), x.total, text)
	}
	if p.GetState() == pluginv1.TestState_TEST_STATE_FAILED || p.GetState() == pluginv1.TestState_TEST_STATE_INCONCLUSIVE {
		w.log.Warn("a test did not pass", logging.Plugin, name, "test", label, "state", word, logging.Reason, p.GetMessage(), "log", p.GetLogTail())
	}
}
