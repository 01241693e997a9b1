package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/cluster"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/course"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/follow"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/route"
	"github.com/wheelwright-dev/wheelwright/plugins/internal/kube"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// Follow looks once.
func (c *canary) Follow(ctx context.Context, r *pluginv1.FollowRequest) (*pluginv1.FollowResponse, error) {
	if r.GetSubject() == nil {
		return nil, errors.New("follow: the call has no subject")
	}
	followed, err := c.followed(ctx, r.GetCourse(), r.GetSubject())
	if err == nil && len(followed) == 0 {
		err = errors.New("nobody else leads it; call Plan, and go its course")
	}
	if err != nil {
		return nil, fmt.Errorf("follow %s: %w", r.GetSubject().GetVersionTo(), err)
	}
	server, end, err := c.open()
	if err != nil {
		return nil, err
	}
	defer end()
	live, err := lookAt(ctx, cluster.New(server), followed)
	if err != nil {
		return nil, fmt.Errorf("follow %s: %w", r.GetSubject().GetVersionTo(), err)
	}
	asked := follow.Question{Now: time.Now()}
	if r.GetSince() != nil {
		asked.Since = r.GetSince().AsTime()
	}
	states := make([]follow.State, len(followed))
	for i, s := range followed {
		states[i] = s.Look(live, asked)
	}
	if err := c.reasons(ctx, server, followed, states, live, asked); err != nil {
		return nil, err
	}
	return summed(followed, states), nil
}

// lookAt reads what is known of the services.
func lookAt(ctx context.Context, view *cluster.View, followed []follow.Service) (follow.Live, error) {
	var first, more []course.Query
	add := func(list *[]course.Query, group, kind, namespace string) {
		if q := (course.Query{Kind: route.Kind{Group: group, Kind: kind}, Namespace: namespace}); !slices.Contains(*list, q) {
			*list = append(*list, q)
		}
	}
	for _, s := range followed {
		if s.Workload != "" {
			add(&first, "apps", "Deployment", s.Namespace)
		}
		add(&first, map[string]string{"Canary": "flagger.app", "Rollout": "argoproj.io"}[s.Kind], s.Kind, s.Namespace)
	}
	live, err := view.Read(ctx, first)
	if err != nil {
		return nil, err
	}
	for _, s := range followed {
		for _, o := range live {
			if s.Kind == "Canary" && document.Text(o, "kind") == "Deployment" && document.Text(o, "metadata", "namespace") == s.Namespace && document.Text(o, "metadata", "name") == s.Workload {
				for _, kind := range follow.NeedsConfigs(o) {
					add(&more, "", kind, s.Namespace)
				}
			}
		}
	}
	others, err := view.Read(ctx, more)
	return append(slices.Clone(live), others...), err
}

// reasons looks again at Canaries that failed, with the Events that tell why. Who may not read Events
// gets what the status says.
func (c *canary) reasons(ctx context.Context, server cluster.Server, followed []follow.Service, states []follow.State, live follow.Live, q follow.Question) error {
	for i, s := range followed {
		if states[i].Outcome != follow.Failed || s.Kind != "Canary" {
			continue
		}
		var list struct{ Items []course.Object }
		err := server.Do(ctx, kube.Request{Path: kube.Resource{APIVersion: "v1", Plural: "events"}.Path(s.Namespace),
			Query: map[string][]string{"fieldSelector": {"involvedObject.kind=Canary,involvedObject.name=" + s.Object}}}, &list)
		switch {
		case kube.HasCode(err, http.StatusForbidden):
			c.log.Warn("events may not be read, so that Flagger's reason is not known in full; give the plugin list of events")
		case err != nil:
			return fmt.Errorf("list events of %s: %w", s.ID(), err)
		}
		for _, e := range list.Items {
			e["kind"] = "Event"
		}
		states[i] = s.Look(append(slices.Clone(live), list.Items...), q)
	}
	return nil
}

func verdictOf(s follow.State) *pluginv1.Verdict {
	switch s.Outcome {
	case follow.Passed:
		return &pluginv1.Verdict{Outcome: pluginv1.Outcome_OUTCOME_PASS}
	case follow.Failed:
		return &pluginv1.Verdict{Outcome: pluginv1.Outcome_OUTCOME_FAIL, Reason: s.Reason}
	case follow.Asking:
		return &pluginv1.Verdict{Outcome: pluginv1.Outcome_OUTCOME_INCONCLUSIVE, Reason: s.Reason}
	}
	return nil
}

// summed is one answer for the whole release: a fail of one is everybody's.
func summed(followed []follow.Service, states []follow.State) *pluginv1.FollowResponse {
	out := &pluginv1.FollowResponse{Settled: true}
	reasons := map[follow.Outcome][]string{}
	for i, s := range followed {
		state := states[i]
		out.Services = append(out.Services, &pluginv1.Followed{Service: s.Name, Object: s.ID(), Phase: state.Phase, Weight: uint32(min(max(state.Weight, 0), 100)), Verdict: verdictOf(state)})
		reasons[state.Outcome] = append(reasons[state.Outcome], state.Reason)
	}
	if open := append(slices.Clone(reasons[follow.Asking]), reasons[follow.Going]...); len(open) > 0 {
		out.Settled, out.WaitingFor = false, open[0]
		if len(open) > 1 {
			out.WaitingFor += fmt.Sprintf("; and %d more", len(open)-1)
		}
	}
	for _, o := range []follow.Outcome{follow.Failed, follow.Asking} {
		if len(reasons[o]) > 0 {
			out.Verdict = verdictOf(follow.State{Outcome: o, Reason: strings.Join(reasons[o], "; ")})
			return out
		}
	}
	if out.Settled {
		out.Verdict = verdictOf(follow.State{Outcome: follow.Passed})
	}
	return out
}

// giveBack makes the leaders end with the old release.
func (c *canary) giveBack(ctx context.Context, r *pluginv1.AbortRequest, followed []follow.Service, err error) (*pluginv1.AbortResponse, error) {
	wrap := func(err error) error { return fmt.Errorf("abort %s: %w", r.GetSubject().GetVersionTo(), err) }
	if err != nil {
		return nil, wrap(err)
	}
	server, end, err := c.open()
	if err != nil {
		return nil, err
	}
	defer end()
	out := &pluginv1.AbortResponse{}
	until, stale, pause := deadline(ctx, r.GetCall()), 0, firstPause
	for {
		view := cluster.New(server)
		live, err := lookAt(ctx, view, followed)
		if err != nil {
			return nil, wrap(err)
		}
		out.Settled, out.WaitingFor = true, ""
		changed := false
		for _, s := range followed {
			e := s.Return(live, time.Now())
			if e.Object != nil {
				err := view.Merge(ctx, e.Object, e.Patch, e.Status)
				switch {
				case errors.Is(err, cluster.ErrStale) && stale < staleTries:
					stale++
				case err != nil:
					return nil, wrap(err)
				default:
					out.Changes = append(out.Changes, &pluginv1.Change{Verb: "patch", Object: s.ID(), Detail: e.Detail})
				}
				changed = true
			}
			if !e.Settled {
				out.Settled = false
				if out.WaitingFor == "" {
					out.WaitingFor = e.Waits
				}
			}
		}
		left := time.Until(until)
		if out.Settled || !sleep(ctx, min(pause, left)) || pause >= left {
			return out, ctx.Err()
		}
		if pause = min(2*pause, longestWait); changed {
			pause = firstPause
		}
	}
}
