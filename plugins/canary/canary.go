package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/buildinfo"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/cluster"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/course"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/load"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// canary is the service. open gives the cluster for one call, and what ends that.
type canary struct {
	settings
	open func() (cluster.Server, func(), error)
	log  *slog.Logger
	load *load.Generator // nil: none is made
}

func newCanary(s settings, open func() (cluster.Server, func(), error), log *slog.Logger) *canary {
	c := &canary{settings: s, open: open, log: log}
	if s.rate > 0 {
		c.load = load.New(load.Config{Rate: s.rate, Agent: "wheelwright-canary/" + buildinfo.Version(), Log: log, Find: c.whereabouts})
	}
	return c
}

// Describe says what the plugin can do.
func (c *canary) Describe(context.Context, *pluginv1.DescribeCanaryRequest) (*pluginv1.DescribeCanaryResponse, error) {
	out := &pluginv1.DescribeCanaryResponse{
		Strategies: []pluginv1.Strategy{pluginv1.Strategy_STRATEGY_PROGRESSIVE, pluginv1.Strategy_STRATEGY_AB_TEST, pluginv1.Strategy_STRATEGY_BLUE_GREEN, pluginv1.Strategy_STRATEGY_MIRROR},
		Routers:    []string{strategy.RouterNone, strategy.RouterGatewayAPI, strategy.RouterIstio, strategy.RouterLinkerd, strategy.RouterNGINX},
		Sources:    []string{sourceKubernetes},
	}
	if c.prometheus.Address != "" {
		out.Sources = append(out.Sources, sourcePrometheus)
	}
	return out, nil
}

// Step makes candidates, waits for them and leads traffic.
func (c *canary) Step(ctx context.Context, r *pluginv1.StepRequest) (*pluginv1.StepResponse, error) {
	if r.GetCourse().GetFollows() {
		return nil, errFollows
	}
	c.load.Stop(delivery(r.GetSubject()), stepOf(r.GetSubject(), r.GetStep()))
	rel, err := c.understand(r.GetSubject())
	if err != nil {
		return nil, fmt.Errorf("step: %w", err)
	}
	told, err := rel.told(r.GetStep())
	if err != nil {
		return nil, err
	}
	d, err := c.drive(ctx, r.GetCall(), rel.members, false, func(live []course.Object) (course.Next, error) {
		return course.Forward(rel.members, told, time.Now(), live)
	})
	if err != nil {
		return nil, fmt.Errorf("step %d of %s: %w", r.GetStep().GetNumber(), rel.version, err)
	}
	out := &pluginv1.StepResponse{Changes: d.changes, Settled: d.next.Settled, WaitingFor: d.next.Waits, Warnings: d.warnings}
	if d.next.Failed != "" {
		out.WaitingFor = cmp.Or(out.WaitingFor, d.next.Failed)
		out.Verdict = &pluginv1.Verdict{Outcome: pluginv1.Outcome_OUTCOME_FAIL, Reason: d.next.Failed}
	}
	return out, nil
}

// Promote leads all traffic to stable and takes the copies away.
func (c *canary) Promote(ctx context.Context, r *pluginv1.PromoteRequest) (*pluginv1.PromoteResponse, error) {
	if r.GetCourse().GetFollows() {
		return nil, errFollows
	}
	c.load.Stop(delivery(r.GetSubject()), "")
	rel, err := c.understand(r.GetSubject())
	if err != nil {
		return nil, fmt.Errorf("promote: %w", err)
	}
	d, err := c.back(ctx, r.GetCall(), rel.members, true)
	if err != nil {
		return nil, fmt.Errorf("promote %s: %w", rel.version, err)
	}
	return &pluginv1.PromoteResponse{Changes: d.changes, Settled: d.next.Settled, WaitingFor: d.next.Waits}, nil
}

// Abort does the same for the old release. A subject that cannot be understood is led back by what the
// cluster says.
func (c *canary) Abort(ctx context.Context, r *pluginv1.AbortRequest) (*pluginv1.AbortResponse, error) {
	if r.GetSubject() == nil {
		return nil, errors.New("abort: the call has no subject")
	}
	c.load.Stop(delivery(r.GetSubject()), "")
	if followed, err := c.followed(ctx, r.GetCourse(), r.GetSubject()); err != nil || len(followed) > 0 {
		return c.giveBack(ctx, r, followed, err)
	}
	rel, err := c.understand(r.GetSubject())
	if err != nil {
		c.log.Warn("subject is not understood, leading back what the cluster shows", slog.String("error", err.Error()))
		rel.members = c.abandoned(r.GetSubject())
	}
	d, err := c.back(ctx, r.GetCall(), rel.members, false)
	if err != nil {
		return nil, fmt.Errorf("abort %s: %w", r.GetSubject().GetVersionTo(), err)
	}
	return &pluginv1.AbortResponse{Changes: d.changes, Settled: d.next.Settled, WaitingFor: d.next.Waits}, nil
}

func (c *canary) back(ctx context.Context, call *pluginv1.Call, members []course.Member, promoted bool) (driven, error) {
	return c.drive(ctx, call, members, true, func(live []course.Object) (course.Next, error) {
		return course.Back(members, course.Way{Promoted: promoted, Now: time.Now(), Drain: c.drain}, live)
	})
}

// driven is how far a call has come.
type driven struct {
	next     course.Next
	changes  []*pluginv1.Change
	warnings []string
}

const (
	margin      = time.Second // before the deadline, so that an answer is one
	patience    = 30 * time.Second
	firstPause  = 500 * time.Millisecond
	longestWait = 5 * time.Second
	staleTries  = 8
	mostRounds  = 20 // of changes without a pause; the longest way back takes six
)

// drive does what next says until that is all, it fails, or the call's time is over: then it answers what
// it waits for, and the spoke calls again.
func (c *canary) drive(ctx context.Context, call *pluginv1.Call, members []course.Member, back bool, decide func([]course.Object) (course.Next, error)) (driven, error) {
	var d driven
	if len(members) == 0 {
		d.next.Settled = true
		return d, nil
	}
	server, end, err := c.open()
	if err != nil {
		return d, err
	}
	defer end()
	until := deadline(ctx, call)
	view := cluster.New(server)
	pause, stale, rounds := firstPause, 0, 0
	for {
		live, err := look(ctx, view, members, back)
		if err != nil {
			return d, err
		}
		if d.next, err = decide(live); err != nil {
			return d, err
		}
		d.warn(d.next.Warnings)
		err = d.carryOut(ctx, view, live)
		switch {
		case errors.Is(err, cluster.ErrStale) && stale < staleTries:
			stale++
			view.Forget()
			continue
		case err != nil:
			return d, err
		case d.next.Settled, d.next.Failed != "":
			return d, nil
		case len(d.next.Effects) > 0 && rounds == mostRounds:
			last := d.next.Effects[0]
			return d, fmt.Errorf("%s %s does not stay as it is told (%s): somebody else changes it back; see its managedFields", last.Verb, cluster.ID(last.Object), last.Detail)
		case len(d.next.Effects) > 0 && d.next.Pause == 0:
			pause, stale = firstPause, 0
			rounds++
			continue
		}
		wait := cmp.Or(d.next.Pause, pause)
		pause = min(2*pause, longestWait)
		left := time.Until(until)
		if !sleep(ctx, min(wait, left)) || wait >= left {
			return d, ctx.Err()
		}
		view.Forget(append(d.next.Look, "")...)
	}
}

// look reads what the members need to be known about.
func look(ctx context.Context, view *cluster.View, members []course.Member, back bool) ([]course.Object, error) {
	workloads, err := view.Read(ctx, course.Deployments(members))
	if err != nil {
		return nil, err
	}
	first := course.Deployments(members)
	more := slices.DeleteFunc(course.Wants(members, workloads, back), func(q course.Query) bool { return slices.Contains(first, q) })
	others, err := view.Read(ctx, more)
	return append(slices.Clone(workloads), others...), err
}

// carryOut does the effects in their order.
func (d *driven) carryOut(ctx context.Context, view *cluster.View, live []course.Object) error {
	for _, e := range d.next.Effects {
		verb, err := view.Do(ctx, e)
		if err != nil {
			return err
		}
		if verb == "apply" {
			verb = "create"
			if slices.ContainsFunc(live, func(o course.Object) bool {
				return cluster.ID(o) == cluster.ID(e.Object) && document.Group(o) == document.Group(e.Object)
			}) {
				verb = "patch"
			}
		}
		if verb != "" {
			d.changes = append(d.changes, &pluginv1.Change{Verb: verb, Object: cluster.ID(e.Object), Detail: e.Detail})
		}
	}
	return nil
}

func (d *driven) warn(warnings []string) {
	for _, w := range warnings {
		if !slices.Contains(d.warnings, w) {
			d.warnings = append(d.warnings, w)
		}
	}
}

// deadline is when an answer is due.
func deadline(ctx context.Context, call *pluginv1.Call) time.Time {
	until := time.Now().Add(patience)
	if at, ok := ctx.Deadline(); ok {
		until = at.Add(-margin)
	}
	if at := call.GetDeadline(); at != nil && at.AsTime().Add(-margin).Before(until) {
		until = at.AsTime().Add(-margin)
	}
	return until
}

// sleep waits; false where the call ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
