package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/cluster"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// story is one release on its way from another on a stage.
type story struct {
	*stage
	subject      *pluginv1.Subject
	stable, next []strategy.Object
	course       *pluginv1.Course
	before       string // what was found
}

// tell installs the stable release as a spoke does and plans the next one.
func tell(s *stage, from, to string, stable, next []strategy.Object) *story {
	s.Helper()
	first := subject(s.T, "", from, nil, stable, s.namespace)
	plan, err := s.canary.Plan(s.Context(), &pluginv1.PlanRequest{Call: aCall(), Subject: first})
	if err != nil || len(plan.GetProblems()) > 0 || len(plan.GetCourse().GetSteps()) > 0 {
		s.Fatalf("a first install is planned as %v, %v", plan, err)
	}
	s.apply(stable)
	st := &story{stage: s, subject: first, stable: stable, next: next}
	st.promote(0)
	s.settle()
	st.subject = subject(s.T, from, to, stable, next, s.namespace)
	if plan, err = s.canary.Plan(s.Context(), &pluginv1.PlanRequest{Call: aCall(), Subject: st.subject}); err != nil || len(plan.GetProblems()) > 0 {
		s.Fatalf("the plan is %v, %v", plan, err)
	}
	for _, o := range next {
		if configures(o) != slices.Contains(plan.GetConsumed(), cluster.ID(o)) {
			s.Errorf("%s: the plan consumes %v", cluster.ID(o), plan.GetConsumed())
		}
	}
	st.course, st.before = plan.GetCourse(), s.found()
	return st
}

// step, promote and abort run one call, cut off after so many requests; 0: as often as it takes.
func (s *story) step(n, after int) []string {
	s.Helper()
	return s.until(after, func(ctx context.Context) (bool, error) {
		r, err := s.canary.Step(ctx, &pluginv1.StepRequest{Call: aCall(), Subject: s.subject, Course: s.course, Step: s.course.Steps[n]})
		return r.GetSettled(), err
	})
}

func (s *story) promote(after int) []string {
	s.Helper()
	return s.until(after, func(ctx context.Context) (bool, error) {
		r, err := s.canary.Promote(ctx, &pluginv1.PromoteRequest{Call: aCall(), Subject: s.subject, Course: s.course})
		return r.GetSettled(), err
	})
}

func (s *story) abort(after int) []string {
	s.Helper()
	return s.until(after, func(ctx context.Context) (bool, error) {
		r, err := s.canary.Abort(ctx, &pluginv1.AbortRequest{Call: aCall(), Subject: s.subject, Course: s.course, Reason: "a test"})
		return r.GetSettled(), err
	})
}

func (s *story) until(after int, call func(context.Context) (bool, error)) []string {
	s.Helper()
	settled := false
	requests, err := s.cutting(after, func(ctx context.Context) (err error) {
		settled, err = call(ctx)
		return err
	})
	if after > 0 && (errors.Is(err, context.Canceled) || settled) {
		return requests
	}
	if err != nil || !settled {
		s.Fatalf("settled %v, %v\n%s", settled, err, strings.Join(requests, "\n"))
	}
	return requests
}

// repeat calls again and wants nothing to be done.
func (s *story) repeat(what string, call func(int) []string) {
	s.Helper()
	if again := call(0); reads(again) != len(again) {
		s.Fatalf("%s, told twice, does %v", what, again)
	}
}

// asBefore wants everything to be as it was found, byte by byte, and nothing of ours.
func (s *story) asBefore(what string) {
	s.Helper()
	s.nothingLeft(what)
	if now := s.found(); now != s.before {
		s.Fatalf("%s: not as it was found:\n%s", what, changed(s.before, now))
	}
}

func (s *story) nothingLeft(what string) {
	s.Helper()
	if left := s.left(); len(left) > 0 {
		s.Fatalf("%s leaves\n%s", what, strings.Join(left, "---\n"))
	}
}

func changed(before, now string) string {
	var out []string
	known := map[string]bool{}
	for doc := range strings.SplitSeq(before, "---\n") {
		known[doc] = true
	}
	for doc := range strings.SplitSeq(now, "---\n") {
		if !known[doc] {
			out = append(out, "now:\n"+doc)
		}
		delete(known, doc)
	}
	for doc := range known {
		out = append(out, "before:\n"+doc)
	}
	return strings.Join(out, "")
}

// A whole release from 1.1.0 to 1.2.0, through every step and back, and through every step and on.
func TestReference(t *testing.T) {
	for variantName, router := range map[string]string{"app-kubernetes": strategy.RouterNone, "app-istio": strategy.RouterIstio} {
		t.Run(variantName, func(t *testing.T) {
			s := newStage(t, router)
			st := tell(s, "1.1.0", "1.2.0", variant(t, "1.1.0", variantName, s.namespace), variant(t, "1.2.0", variantName, s.namespace))
			services := len(st.subject.Services)
			most := 0
			for n := range st.course.Steps {
				requests := st.step(n, 0)
				if n > 0 {
					most = max(most, reads(requests))
				}
				st.repeat("a step", func(after int) []string { return st.step(n, after) })
				t.Logf("step %d: %d requests, %d of them reads: %v", n+1, len(requests), reads(requests), st.course.Steps[n].GetTraffic())
			}
			if most > 3*services {
				t.Errorf("a step reads %d times for %d services", most, services)
			}
			t.Logf("a step of %d services reads %d times at most", services, most)
			for n := len(st.course.Steps) - 1; n >= 0; n-- {
				st.step(n, 0)
				st.abort(0)
				st.asBefore("abort")
				st.repeat("abort", st.abort)
			}
			st.step(len(st.course.Steps)-1, 0)
			s.apply(st.next)
			st.promote(0)
			st.nothingLeft("promotion")
			if text := s.keepers("configmaps"); strings.Contains(text, cluster.Manager) {
				t.Errorf("the promoted release's own objects are still ours too:\n%s", text)
			}
			st.repeat("promotion", st.promote)
		})
	}
}

// A release of one service has the most requests for each: what is read is read for all of them.
func TestStepRequests(t *testing.T) {
	most, of, looks := 0, "", 0
	for _, router := range []string{"kubernetes", "istio", "gatewayapi:v1", "nginx"} {
		s := newStage(t, strategy.RouterNone)
		alone := func(version string) []strategy.Object {
			return filter(shop(t, version, router, s.namespace), func(o strategy.Object) bool {
				return document.Text(o, "kind") != "Canary" || document.Text(o, "metadata", "name") == "api"
			})
		}
		st := tell(s, "1.1.0", "1.2.0", alone("1.1.0"), alone("1.2.0"))
		for n := range st.course.Steps {
			requests := st.step(n, 0)
			distinct := slices.Compact(slices.Sorted(slices.Values(filterText(requests, func(r string) bool { return reads([]string{r}) == 1 }))))
			if len(distinct) > most {
				most, of = len(distinct), router
			}
			looks = max(looks, reads(requests)-len(distinct))
			again := st.step(n, 0)
			if len(again) > 3 || reads(again) != len(again) {
				t.Errorf("%s: told twice, a step asks %v", router, again)
			}
		}
		st.abort(0)
		st.asBefore("abort")
	}
	if most > 3 {
		t.Errorf("a step of one service on %s reads %d times", of, most)
	}
	fmt.Printf("FIGURE canary.step-requests %d requests beyond its patches for a service alone, the most of all steps and four routers (%s); several services share them\n", most, of)
	fmt.Printf("FIGURE canary.step-looks %d requests more, at most, of all services together while pods start\n", looks)
}

func filterText(list []string, keep func(string) bool) (out []string) {
	for _, text := range list {
		if keep(text) {
			out = append(out, text)
		}
	}
	return out
}
