package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/follow"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// What cannot be handed over is named by Plan; this cluster has neither Flagger nor Argo Rollouts.
func TestHandOverBadInput(t *testing.T) {
	s := newStage(t, strategy.RouterNone)
	canaries, both := flaggers(t, "1.2.0", s.namespace, "http://prometheus"), rollouts(t, "1.2.0", s.namespace, "http://prometheus")
	set := func(kind, name, value string, keys ...string) func([]strategy.Object) []strategy.Object {
		return func(objects []strategy.Object) []strategy.Object {
			return edit(objects, kind, name, func(o strategy.Object) {
				in := document.Mapping(o, keys[:len(keys)-1]...)
				if in[keys[len(keys)-1]] = value; value == "true" {
					in[keys[len(keys)-1]] = true
				}
			})
		}
	}
	for _, test := range []struct {
		name, handOver string
		next           []strategy.Object
		want           []string
	}{
		{"no Flagger", follow.Flagger, canaries, []string{"Canary NS/api: kind: the cluster has no Canary of flagger.app; install Flagger, or start the plugin without --hand-over", "Canary NS/web: kind: "}},
		{"no Argo Rollouts", follow.Rollouts, both, []string{"Rollout NS/api: kind: the cluster has no Rollout of argoproj.io; install Argo Rollouts", "Rollout NS/web: kind: "}},
		{"no Argo Rollouts, by itself", handAuto, both, []string{"Rollout NS/web: kind: the cluster has no Rollout of argoproj.io"}},
		{"no such target", follow.Flagger, set("Canary", "api", "apis", "spec", "targetRef", "name")(canaries),
			[]string{"Canary NS/api: spec.targetRef.name: the release has no Deployment NS/apis; write the name of one that it has: api, web"}},
		{"another kind", follow.Flagger, set("Canary", "api", "DaemonSet", "spec", "targetRef", "kind")(canaries), []string{`Canary NS/api: spec.targetRef.kind: is "DaemonSet"`}},
		{"two on one workload", follow.Flagger, set("Canary", "api", "web", "spec", "targetRef", "name")(canaries), []string{" is that of Canary NS/"}},
		{"held", follow.Flagger, set("Canary", "api", "true", "spec", "suspend")(canaries), []string{"Canary NS/api: spec.suspend: holds it"}},
		{"no such workload", follow.Rollouts, set("Rollout", "api", "apis", "spec", "workloadRef", "name")(both),
			[]string{"Rollout NS/api: spec.workloadRef.name: the release has no Deployment NS/apis; write the name of one that it has: api"}},
		{"paused", follow.Rollouts, set("Rollout", "web", "true", "spec", "paused")(both), []string{"Rollout NS/web: spec.paused: holds it"}},
		{"a Canary that nobody leads", follow.Rollouts, append(slices.Clone(both), filter(canaries, func(o strategy.Object) bool {
			return isCanary(o) && document.Text(o, "metadata", "name") == "web"
		})...), []string{"Canary NS/web: spec.targetRef: Argo Rollouts, to which the release is handed over, does not lead Deployment web"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s.canary.settings.handOver = test.handOver
			sub := handedSubject(t, "1.1.0", "1.2.0", nil, test.next, s.namespace)
			plan, err := s.canary.Plan(t.Context(), &pluginv1.PlanRequest{Call: aCall(), Subject: sub})
			if err != nil || plan.GetCourse() != nil {
				t.Fatal(plan, err)
			}
			for _, want := range test.want {
				want = strings.ReplaceAll(want, "NS", s.namespace)
				if !slices.ContainsFunc(plan.GetProblems(), func(p string) bool { return strings.Contains(p, want) }) {
					t.Errorf("got %q, want %q", plan.GetProblems(), want)
				}
			}
			// Whoever follows all the same gets no pass, and the way back has nothing to do.
			followed, err := s.canary.Follow(t.Context(), &pluginv1.FollowRequest{Call: aCall(), Subject: sub, Course: &pluginv1.Course{Follows: true, Leads: []*pluginv1.Lead{{Router: follow.Flagger}, {Router: follow.Rollouts}}}})
			if err != nil || followed.GetSettled() || followed.GetVerdict().GetOutcome() == pluginv1.Outcome_OUTCOME_PASS {
				t.Error(followed, err)
			}
			r, err := s.canary.Abort(t.Context(), &pluginv1.AbortRequest{Call: aCall(), Subject: sub})
			if err != nil || !r.GetSettled() || len(r.GetChanges()) > 0 {
				t.Error(r, err)
			}
		})
	}
}

// Where nobody leads yet the plugin does, though it may hand over: definitions alone tell of no controller.
func TestHandOverAuto(t *testing.T) {
	s := newStage(t, strategy.RouterNone)
	s.canary.settings.handOver = handAuto
	st := tell(s, "1.1.0", "1.2.0", shop(t, "1.1.0", "istio", s.namespace), shop(t, "1.2.0", "istio", s.namespace))
	if st.course.GetFollows() || len(st.course.GetSteps()) == 0 {
		t.Errorf("the course is %v", st.course)
	}
	st.step(1, 0)
	if r, err := s.canary.Follow(t.Context(), &pluginv1.FollowRequest{Call: aCall(), Subject: st.subject, Course: st.course}); err == nil || !strings.Contains(err.Error(), "nobody else leads it") {
		t.Error(r, err)
	}
	st.abort(0)
	st.asBefore("abort")
}

// Something is yielded of every service that somebody else leads, and be it the status: by that the spoke knows that
// the way back leads through them.
func TestEveryLedServiceYields(t *testing.T) {
	for leader, next := range map[string][]strategy.Object{
		follow.Rollouts: rollouts(t, "1.2.0", "shop", "http://prometheus"), follow.Flagger: flaggers(t, "1.2.0", "shop", "http://prometheus"),
	} {
		h := &handing{subject: handedSubject(t, "1.1.0", "1.2.0", nil, next, "shop"), leaders: []string{leader}}
		h.read()
		h.follow()
		if len(h.followed) != 2 {
			t.Errorf("%s leads %v", leader, h.followed)
		}
		for _, s := range h.followed {
			if !slices.ContainsFunc(h.yields(), func(y *pluginv1.Yield) bool {
				return strings.HasSuffix(y.GetObject(), " shop/"+s.Name) && len(y.GetFields()) > 0
			}) {
				t.Errorf("%s: nothing of %s is yielded: %v", leader, s.Name, h.yields())
			}
		}
	}
}

// A course that follows is not stepped, measured or promoted.
func TestFollowedIsNotLed(t *testing.T) {
	c := &canary{}
	course := &pluginv1.Course{Follows: true}
	if r, err := c.Step(t.Context(), &pluginv1.StepRequest{Call: aCall(), Course: course}); err == nil {
		t.Error(r)
	}
	if r, err := c.Measure(t.Context(), &pluginv1.MeasureRequest{Call: aCall(), Course: course}); err == nil {
		t.Error(r)
	}
	if r, err := c.Promote(t.Context(), &pluginv1.PromoteRequest{Call: aCall(), Course: course}); err == nil {
		t.Error(r)
	}
}
