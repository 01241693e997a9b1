package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/pluginhost"
	"github.com/wheelwright-dev/wheelwright/pkg/redact"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/apply"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/config"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/delivery"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/journal"
)

// ledNote is on an object that leads traffic to candidates: it is the plugin's until that has led back.
const ledNote = "wheelwright.dev/led"

// atOnce bounds a call that changes traffic: one that takes longer is asked again, and orders come between.
const atOnce = 15 * time.Second

// errGoesOn: what was begun is not over yet, and nothing is to be said of it.
var errGoesOn = errors.New("it goes on")

// finder looks at a set's objects: for what others wrote on them, and for what is outside of its envelope;
// apply.Cluster is one.
type finder interface {
	Annotated(ctx context.Context, s apply.Set, key string) ([]*unstructured.Unstructured, error)
	Outside(ctx context.Context, s apply.Set) ([]apply.Outside, error)
}

// prepareWalk takes in what the provider says about canaries.
func (w *worker) prepareWalk(in input) {
	c := in.sub.Canary
	w.state.Gates = delivery.Gates{Traffic: c.Traffic, Increase: c.Increase, Promotion: c.Promotion}
	w.state.Evidence, w.state.Following = c.Evidence, cmp.Or(c.Follow, config.DefaultFollow)
	w.state.Hint = fmt.Sprintf("see it with: spoke status %s, then: spoke approve %[1]s, or: spoke reject %[1]s", w.name)
}

// courseOf is how a course is kept; nil where there is nothing to walk.
func (w *worker) courseOf(c *pluginv1.Course) ([]byte, error) {
	if len(c.GetSteps()) == 0 && !c.GetFollows() {
		return nil, nil
	}
	text, err := proto.MarshalOptions{Deterministic: true}.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("keep the course of %s: %w", w.state.Target, err)
	}
	return text, nil
}

// encodeWalk and decodeWalk are how the journal has it.
func encodeWalk(walk delivery.Walk) []byte {
	if walk == (delivery.Walk{}) {
		return nil
	}
	text, _ := json.Marshal(walk) // numbers, words and flags
	return text
}

func decodeWalk(d *journal.Attempt) (walk delivery.Walk, err error) {
	if len(d.Walk) > 0 {
		err = json.Unmarshal(d.Walk, &walk)
	}
	return walk, err
}

// call is what all calls to the plugin that leads have in common.
type call struct {
	plugin  pluginhost.Canary
	head    *pluginv1.Call
	subject *pluginv1.Subject
	course  *pluginv1.Course
	private *redact.Sink
}

func (w *worker) call(what string) (call, error) {
	name := w.a.leader(w.sub)
	if name == "" {
		return call{}, errors.New("spoke.yaml has no plugin of the kind canary any more: put it back, so that traffic can be led")
	}
	c := call{course: &pluginv1.Course{}}
	var err error
	if c.plugin, err = w.a.cfg.Plugins.Canary(name); err != nil {
		return c, fmt.Errorf("plugin %s: %w", name, err)
	}
	if c.subject, c.private, err = w.subject(true); err != nil {
		return c, err
	}
	if err := proto.Unmarshal(w.rec.Delivery.Course, c.course); err != nil {
		return c, fmt.Errorf("read the course of %s in the journal: %w", w.state.Target, err)
	}
	c.head = &pluginv1.Call{Id: fmt.Sprintf("%s-%s", w.callID(), what)}
	return c, nil
}

// clean is a plugin's text, without what it was told in confidence.
func (c call) clean(text string) string { return oneLine(c.private.Text(text)) }

func (c call) failed(doing string, err error) error {
	return fmt.Errorf("%s: %w", doing, errors.New(c.clean(err.Error())))
}

// step is what traffic is to be; step 0 is the first one without any.
func (c call) step(n int) (*pluginv1.CanaryStep, error) {
	steps := c.course.GetSteps()
	if n > len(steps) || len(steps) == 0 {
		return nil, fmt.Errorf("the course has %d steps, and no step %d", len(steps), n)
	}
	if n > 0 {
		return steps[n-1], nil
	}
	bare := &pluginv1.CanaryStep{Interval: steps[0].GetInterval()}
	for _, t := range steps[0].GetTraffic() {
		bare.Traffic = append(bare.Traffic, &pluginv1.Traffic{Service: t.GetService()})
	}
	return bare, nil
}

// lead makes traffic be what the step says.
func (w *worker) lead(ctx context.Context) (delivery.Event, error) {
	walk := w.state.Walk
	if walk.Hooks && walk.Step == 0 {
		o, err := w.hook(ctx, before, w.ahead)
		switch {
		case err != nil:
			return delivery.Event{}, err
		case o.failed != "":
			return delivery.Event{Kind: delivery.Unled, Reason: o.failed}, nil
		case o.waits != "":
			return delivery.Event{Kind: delivery.Waiting, Reason: o.waits, Lost: o.lost}, nil
		}
	}
	c, err := w.call(fmt.Sprintf("step%d", walk.Step))
	if err != nil {
		return delivery.Event{}, err
	}
	step, err := c.step(walk.Step)
	if err != nil {
		return refuse("%w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, atOnce)
	defer cancel()
	r, err := c.plugin.Step(ctx, &pluginv1.StepRequest{Call: c.head, Subject: c.subject, Course: c.course, Step: step})
	if err != nil {
		return delivery.Event{}, c.failed("lead traffic to "+w.state.Target, err)
	}
	w.watch.last = time.Now()
	w.sayChanges(r.GetChanges(), c)
	for _, text := range r.GetWarnings() {
		w.log.Warn("traffic is other than the release asks", logging.Version, w.state.Target, logging.Reason, c.clean(text))
	}
	where := place(walk, step)
	switch {
	case r.GetVerdict().GetOutcome() == pluginv1.Outcome_OUTCOME_FAIL:
		return delivery.Event{Kind: delivery.Unled, Reason: where + ": " + c.clean(r.GetVerdict().GetReason())}, nil
	case !r.GetSettled():
		return delivery.Event{Kind: delivery.Waiting, Reason: where + ": waits for " + cmp.Or(c.clean(r.GetWaitingFor()), "traffic")}, nil
	}
	d := *w.rec.Delivery
	d.Measured = time.Now()
	w.rec.Delivery, w.ledTo = &d, shares(step)
	w.log.Info("traffic is led", logging.Version, w.state.Target, "step", walk.Step, "of", walk.Steps, "traffic", traffic(step))
	return delivery.Event{Kind: delivery.Led, Passes: int(max(step.GetPasses(), 1)), Reason: where}, nil
}

// place is a step for people.
func place(walk delivery.Walk, step *pluginv1.CanaryStep) string {
	if walk.Step == 0 {
		return "candidates without live traffic"
	}
	return fmt.Sprintf("step %d of %d (%s)", walk.Step, walk.Steps, traffic(step))
}

func (w *worker) sayChanges(changes []*pluginv1.Change, c call) {
	for _, ch := range changes {
		w.log.Info("changed to lead traffic", logging.Version, w.state.Target, logging.Object, ch.GetObject(), "verb", ch.GetVerb(), "detail", c.clean(ch.GetDetail()))
	}
}

// moment is where in the delivery the tests of a stage belong.
func moment(walk delivery.Walk) pluginv1.Moment {
	switch {
	case walk.Stage == delivery.Admitting:
		return pluginv1.Moment_MOMENT_ADMISSION
	case walk.Stage == delivery.Trying:
		return pluginv1.Moment_MOMENT_BEFORE_TRAFFIC
	case walk.Step < walk.Steps:
		return pluginv1.Moment_MOMENT_BEFORE_INCREASE
	}
	return pluginv1.Moment_MOMENT_BEFORE_PROMOTION
}

// tryStage runs the tests of a stage; where the release and the plugins have none, it passes.
func (w *worker) tryStage(ctx context.Context) (delivery.Event, error) {
	f, err := w.examined(ctx, moment(w.state.Walk))
	if err != nil {
		return delivery.Event{}, err
	}
	e := delivery.Event{Kind: delivery.Tried, Verdict: f.verdict, Reason: f.why}
	if f.verdict == delivery.Inconclusive {
		e.Reason = fmt.Sprintf("%s(%s)", f.verdict, short(f.why, longest/2))
	}
	return e, nil
}

// measure judges the candidates, when the interval is over, by the tests of the step and the plugin's metrics.
func (w *worker) measure(ctx context.Context) (delivery.Event, error) {
	walk := w.state.Walk
	if walk.Step == 0 {
		return delivery.Event{}, errGoesOn // there is no traffic yet
	}
	c, err := w.call(fmt.Sprintf("measure%d", walk.Step))
	if err != nil {
		return delivery.Event{}, err
	}
	step, err := c.step(walk.Step)
	if err != nil {
		return refuse("%w", err)
	}
	tests := []pluginv1.Moment{pluginv1.Moment_MOMENT_ROLLBACK, pluginv1.Moment_MOMENT_STEP}
	if time.Since(w.rec.Delivery.Measured) < step.GetInterval().AsDuration() {
		return delivery.Event{}, cmp.Or(w.examining(tests...), errGoesOn) // they may make the traffic that is measured
	}
	f, err := w.examined(ctx, tests...)
	if err != nil {
		return delivery.Event{}, err
	}
	d := *w.rec.Delivery
	r := &pluginv1.MeasureRequest{Call: c.head, Subject: c.subject, Course: c.course, Step: step, From: timestamppb.New(d.Measured), To: timestamppb.Now()}
	counted := &pluginv1.MeasureRequest{}
	if err := proto.Unmarshal(d.Counted, counted); err != nil {
		return refuse("read what was measured of %s in the journal: %w", w.state.Target, err)
	}
	r.Counted = counted.GetCounted()
	m, err := c.plugin.Measure(ctx, r)
	if err != nil {
		return delivery.Event{}, c.failed("measure "+w.state.Target, err)
	}
	w.watch.last = time.Now()
	if d.Counted, err = proto.Marshal(&pluginv1.MeasureRequest{Counted: m.GetCounted()}); err != nil {
		return delivery.Event{}, fmt.Errorf("keep what was measured of %s: %w", w.state.Target, err)
	}
	// A late look does not put off the ones after it, so that what is bad is known as soon as its release allows.
	every := step.GetInterval().AsDuration()
	if due := d.Measured.Add(every); r.GetTo().AsTime().Sub(due) < every {
		d.Measured = due
	} else {
		d.Measured = r.GetTo().AsTime()
	}
	e := w.weigh(&d, step, f, m, c)
	w.rec.Delivery = &d
	w.log.Info("measured", logging.Version, w.state.Target, "step", walk.Step, "verdict", string(e.Verdict), "over", e.Over, logging.Reason, e.Reason, "metrics", readings(m, c))
	return e, nil
}

// conclude leads all traffic to stable, which is the new release by now.
func (w *worker) conclude(ctx context.Context) (delivery.Event, error) {
	c, err := w.call("promote")
	if err != nil {
		return delivery.Event{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, atOnce)
	defer cancel()
	if c.course.GetFollows() {
		return w.askLeaders(ctx, c)
	}
	r, err := c.plugin.Promote(ctx, &pluginv1.PromoteRequest{Call: c.head, Subject: c.subject, Course: c.course})
	if err != nil {
		return delivery.Event{}, c.failed("lead traffic back to stable", err)
	}
	w.watch.last = time.Now()
	w.sayChanges(r.GetChanges(), c)
	if !r.GetSettled() {
		return delivery.Event{Kind: delivery.Waiting, Reason: "the candidates go: waits for " + cmp.Or(c.clean(r.GetWaitingFor()), "traffic")}, nil
	}
	w.log.Info("stable has all traffic, the candidates are gone", logging.Version, w.state.Target)
	return delivery.Event{Kind: delivery.Concluded}, nil
}

// abort leads all traffic to stable, which is the release that ran before.
func (w *worker) abort(ctx context.Context) (delivery.Event, error) {
	c, err := w.call("abort")
	if err != nil {
		return delivery.Event{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, atOnce)
	defer cancel()
	r, err := c.plugin.Abort(ctx, &pluginv1.AbortRequest{Call: c.head, Subject: c.subject, Course: c.course, Reason: w.state.Reason})
	if err != nil {
		return delivery.Event{}, c.failed("lead traffic back to "+w.rec.Installation.Running, err)
	}
	w.watch.last = time.Now()
	w.sayChanges(r.GetChanges(), c)
	if !r.GetSettled() {
		return delivery.Event{Kind: delivery.Waiting, Reason: "waits for " + cmp.Or(c.clean(r.GetWaitingFor()), "traffic")}, nil
	}
	if err := w.regain(ctx); err != nil {
		return delivery.Event{}, err
	}
	w.log.Warn("the candidates are gone, all traffic is led to what ran before", logging.Version, w.rec.Installation.Running)
	return delivery.Event{Kind: delivery.Aborted}, nil
}

// regain makes the fields ours again that a plugin has changed and changed back: that was no drift.
func (w *worker) regain(ctx context.Context) error {
	set, err := w.runningSet()
	if err != nil {
		return err
	}
	set.Envelope = nil // see insideAgain
	inv, _, err := w.a.cfg.Apply.Drift(ctx, set, w.ledger.Current(), true)
	if err != nil {
		return err
	}
	w.ledger.Inventory = merged(inv, w.ledger.Inventory)
	return nil
}

// beyondLed is unled of a set that is applied now: the others are applied when the candidates are gone.
func (w *worker) beyondLed(ctx context.Context, set apply.Set) (apply.Set, error) {
	rest, err := w.unled(ctx, set)
	if err == nil {
		w.ledger.Inventory = w.ledger.UnsureOf(slices.DeleteFunc(slices.Clone(set.Objects), func(o *unstructured.Unstructured) bool { return slices.Contains(rest.Objects, o) }))
	}
	return rest, err
}

// unled is a set without the objects that lead to candidates now.
func (w *worker) unled(ctx context.Context, set apply.Set) (apply.Set, error) {
	if !w.state.Walk.Led || w.state.Walk.Follows() {
		return set, nil
	}
	led, err := w.a.cfg.Find.Annotated(ctx, set, ledNote)
	if err != nil {
		return set, err
	}
	set.Objects = slices.DeleteFunc(slices.Clone(set.Objects), func(o *unstructured.Unstructured) bool { return slices.Contains(led, o) })
	return set, nil
}

// Steer takes a person's word about the canary of a version, empty: of the one under way; and answers
// which one that is.
func (a *Agent) Steer(ctx context.Context, distribution, version string, s fleet.Steer, reason string) (steered string, err error) {
	kinds := map[fleet.Steer]delivery.Kind{fleet.SteerHold: delivery.Pause, fleet.SteerResume: delivery.Resume, fleet.SteerStep: delivery.Advance, fleet.SteerSkip: delivery.Skip}
	kind, known := kinds[s]
	if !known {
		return "", fmt.Errorf("%q is none of hold, resume, step and skip", s)
	}
	err = a.order(ctx, distribution, func(w *worker, _ input) error {
		walk := w.state.Walk
		under := w.state.Phase == fleet.Progressing || walk.Asked
		switch {
		case !under || version != "" && version != w.state.Target:
			return fmt.Errorf("%s: %w: no canary is under way; spoke status %s says what is", strings.TrimSpace(w.name+" "+version), fleet.ErrNothingWaits, w.name)
		case s == fleet.SteerHold && walk.Held, s == fleet.SteerResume && !walk.Held:
			return fmt.Errorf("%s %s: %w: it is %s already", w.name, w.state.Target, fleet.ErrNothingWaits, map[bool]string{true: "held", false: "going on"}[walk.Held])
		case s == fleet.SteerStep && !walk.Asked && (walk.Stage == delivery.Leading || walk.Stage == delivery.Admitting):
			return fmt.Errorf("%s %s: %w: traffic is just being led; try again when that is over: spoke status %s", w.name, w.state.Target, fleet.ErrNothingWaits, w.name)
		}
		steered = w.state.Target
		text := because(fmt.Sprintf("a person says %s to the canary of %s, in step %d of %d", s, steered, walk.Step, walk.Steps), oneLine(reason))
		w.log.Warn("a person steers the canary", logging.Version, steered, "says", string(s), logging.Reason, reason)
		return w.feed(delivery.Event{Kind: kind, Reason: reason}, event(time.Now(), w.rec.Installation, fleet.EventAgent, text))
	})
	return steered, err
}
