package main

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/course"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
	"github.com/wheelwright-dev/wheelwright/plugins/internal/kube"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// edit changes the objects of one kind and name.
func edit(objects []strategy.Object, kind, name string, change func(strategy.Object)) []strategy.Object {
	var edited []strategy.Object
	for _, o := range objects {
		o = document.Clone(o)
		if document.Text(o, "kind") == kind && document.Text(o, "metadata", "name") == name {
			change(o)
		}
		edited = append(edited, o)
	}
	return edited
}

// What cannot be led is named by Plan, all of it at once, and Step changes nothing.
func TestBadInput(t *testing.T) {
	s := newStage(t, strategy.RouterNone)
	stable := shop(t, "1.1.0", "istio", s.namespace)
	st := tell(s, "1.1.0", "1.2.0", stable, shop(t, "1.2.0", "istio", s.namespace))
	next := st.next
	for _, test := range []struct {
		name string
		next []strategy.Object
		want []string
	}{
		{"no such Deployment", edit(next, "Canary", "api", func(o strategy.Object) { document.Mapping(o, "spec", "targetRef")["name"] = "apis" }),
			[]string{"Canary NS/api: spec.targetRef.name: the release has no Deployment NS/apis; write the name of one that it has: api, web"}},
		{"two on one workload", edit(next, "Canary", "api", func(o strategy.Object) { document.Mapping(o, "spec", "targetRef")["name"] = "web" }),
			[]string{"Canary NS/api: spec.targetRef: Deployment web is that of Canary NS/web too; keep one Canary for a workload"}},
		{"no MetricTemplate", edit(next, "Canary", "api", func(o strategy.Object) {
			metric := document.Mappings(document.At(o, "spec", "analysis", "metrics"))[0]
			metric["name"], metric["templateRef"] = "errors", map[string]any{"name": "errors"}
		}), []string{"Canary NS/api: spec.analysis.metrics: metric errors: the release has no MetricTemplate NS/errors; add it"}},
		{"two things wrong", edit(edit(next, "Canary", "api", func(o strategy.Object) { delete(document.Mapping(o, "spec", "analysis"), "interval") }), "Canary", "web",
			func(o strategy.Object) { document.Mapping(o, "spec", "analysis")["threshold"] = 0 }),
			[]string{"Canary NS/api: spec.analysis.interval: missing;", "Canary NS/web: spec.analysis.threshold: is 0;"}},
		{"a namesake that would be left out", append(slices.Clone(next), strategy.Object{"apiVersion": "example.org/v1", "kind": "Canary", "metadata": map[string]any{"name": "api", "namespace": s.namespace}}),
			[]string{"Canary NS/api: metadata.name: is that of Flagger's Canary too"}},
		{"held", edit(next, "Canary", "api", func(o strategy.Object) { document.Mapping(o, "spec")["suspend"] = true }), []string{"Canary NS/api: spec.suspend: holds it;"}},
		{"another router without routes", edit(next, "Canary", "api", func(o strategy.Object) { document.Mapping(o, "spec")["provider"] = "nginx" }),
			[]string{"Service NS/api: no Ingress leads to it; write one in the release, or another provider in its Canary"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			sub := subject(t, "1.1.0", "1.2.0", stable, test.next, s.namespace)
			plan, err := s.canary.Plan(t.Context(), &pluginv1.PlanRequest{Call: aCall(), Subject: sub})
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range test.want {
				want = strings.ReplaceAll(want, "NS", s.namespace)
				if !slices.ContainsFunc(plan.GetProblems(), func(p string) bool { return strings.HasPrefix(p, want) }) {
					t.Errorf("got %q, want %q", plan.GetProblems(), want)
				}
			}
			if plan.GetCourse() != nil {
				t.Errorf("a course beside problems: %v", plan.GetCourse())
			}
			// Whoever steps all the same changes no traffic, and is led back.
			_, _ = s.canary.Step(t.Context(), &pluginv1.StepRequest{Call: aCall(), Subject: sub, Step: st.course.Steps[0]})
			if err := s.whole(); err != nil {
				t.Error(err)
			}
			r, err := s.canary.Abort(t.Context(), &pluginv1.AbortRequest{Call: aCall(), Subject: sub})
			if err != nil || !r.GetSettled() {
				t.Fatal(r, err)
			}
			st.asBefore("abort")
		})
	}
	t.Run("led before it was broken", func(t *testing.T) {
		st.step(1, 0)
		broken := subject(t, "1.1.0", "1.2.0", stable, edit(next, "Canary", "api", func(o strategy.Object) { delete(document.Mapping(o, "spec"), "analysis") }), s.namespace)
		r, err := s.canary.Abort(t.Context(), &pluginv1.AbortRequest{Call: aCall(), Subject: broken})
		if err != nil || !r.GetSettled() {
			t.Fatal(r, err)
		}
		st.asBefore("abort")
	})
	t.Run("a service that nobody knows", func(t *testing.T) {
		_, err := s.canary.Step(t.Context(), &pluginv1.StepRequest{Call: aCall(), Subject: st.subject,
			Step: &pluginv1.CanaryStep{Number: 1, Traffic: []*pluginv1.Traffic{{Service: "billing", Weight: 10}}}})
		if err == nil || !strings.HasPrefix(err.Error(), `step 1 of 1.2.0: service "billing" has no canary`) {
			t.Error(err)
		}
		st.asBefore("a step that is refused")
	})
}

// A candidate that cannot become ready is a fail by name once its deadline has passed, and until then no
// service gets any traffic.
func TestNeverReady(t *testing.T) {
	s := newStage(t, strategy.RouterNone)
	bad := edit(shop(t, "1.2.0", "istio", s.namespace), "Deployment", "api", func(o strategy.Object) {
		document.Mappings(document.At(o, "spec", "template", "spec", "containers"))[0]["image"] = "registry.example/does-not-exist:1"
	})
	bad = edit(bad, "Canary", "api", func(o strategy.Object) { document.Mapping(o, "spec")["progressDeadlineSeconds"] = 3 })
	st := tell(s, "1.1.0", "1.2.0", shop(t, "1.1.0", "istio", s.namespace), bad)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := s.canary.Step(ctx, &pluginv1.StepRequest{Call: aCall(), Subject: st.subject, Course: st.course, Step: st.course.Steps[0]})
	if err != nil || r.GetSettled() || r.GetVerdict().GetOutcome() != pluginv1.Outcome_OUTCOME_FAIL ||
		r.GetVerdict().GetReason() != "Deployment "+s.namespace+"/api-canary has 0 of 2 pods ready after its deadline" {
		t.Fatal(r, err)
	}
	for _, o := range s.list("networking.istio.io/v1", "virtualservices") {
		if o.At("metadata", "annotations", "wheelwright.dev/led") != nil {
			t.Errorf("%s is led", o.Name())
		}
	}
	st.abort(0)
	st.asBefore("abort")
}

// A deadline that is too short is answered in time, with what is waited for; the next call goes on.
func TestShortCalls(t *testing.T) {
	s := newStage(t, strategy.RouterNone)
	st := tell(s, "1.1.0", "1.2.0", shop(t, "1.1.0", "istio", s.namespace), edit(shop(t, "1.2.0", "istio", s.namespace), "Deployment", "api", func(o strategy.Object) {
		document.Mapping(o, "spec", "template", "metadata")["annotations"] = map[string]any{"test.wheelwright.dev/ready-after": "4s"}
	}))
	waited := 0
	for {
		ctx, cancel := context.WithTimeout(t.Context(), margin+time.Second)
		r, err := s.canary.Step(ctx, &pluginv1.StepRequest{Call: aCall(), Subject: st.subject, Course: st.course, Step: st.course.Steps[0]})
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if r.GetSettled() {
			break
		}
		if waited++; !strings.HasPrefix(r.GetWaitingFor(), "Deployment ") {
			t.Errorf("waits for %q", r.GetWaitingFor())
		}
	}
	if waited == 0 {
		t.Error("it waited for nothing")
	}
	st.abort(0)
	st.asBefore("abort")
}

// Somebody takes the canary's objects away in the middle: both ends are reached, and what is missing is
// not missed.
func TestObjectsGone(t *testing.T) {
	s := newStage(t, strategy.RouterNone)
	for _, router := range []string{"istio", "kubernetes"} {
		t.Run(router, func(t *testing.T) {
			s := &stage{T: t, namespace: s.namespace, client: s.client, wire: s.wire, canary: s.canary}
			st := tell(s, "1.1.0", "1.2.0", shop(t, "1.1.0", router, s.namespace), shop(t, "1.2.0", router, s.namespace))
			gone := func(plural, version string) {
				for _, o := range s.list(version, plural) {
					if o.Text("metadata", "labels", strategy.LabelCandidateOf) == "" {
						continue
					}
					if err := s.client.Delete(t.Context(), kube.Resource{APIVersion: version, Plural: plural}, s.namespace, o.Name(), ""); err != nil {
						t.Fatal(err)
					}
				}
			}
			for _, plural := range []string{"deployments apps/v1", "services v1", "configmaps v1"} {
				kind, version, _ := strings.Cut(plural, " ")
				st.step(1, 0)
				gone(kind, version)
				st.abort(0)
				st.asBefore("abort without " + kind)
			}
			// A step makes anew what is missing, leading back first.
			st.step(1, 0)
			gone("deployments", "apps/v1")
			st.step(1, 0)
			if err := s.whole(); err != nil {
				t.Error(err)
			}
			st.abort(0)
			st.asBefore("abort")
			for _, o := range append(slices.Clone(st.stable), st.next...) {
				_ = s.client.Delete(t.Context(), kube.Resource{APIVersion: document.Text(o, "apiVersion"), Plural: strings.ToLower(document.Text(o, "kind")) + "s"}, s.namespace, document.Text(o, "metadata", "name"), "")
			}
		})
	}
}

// The traffic is gone for a while before the candidates are; and where it is asked for, it goes back by
// shares.
func TestTheWayBackTakesItsTime(t *testing.T) {
	s := newStage(t, strategy.RouterNone)
	gentle := edit(shop(t, "1.2.0", "istio", s.namespace), "Canary", "web", func(o strategy.Object) { document.Mapping(o, "spec", "analysis")["stepWeightPromotion"] = 20 })
	st := tell(s, "1.1.0", "1.2.0", shop(t, "1.1.0", "istio", s.namespace), gentle)
	st.step(len(st.course.Steps)-1, 0)
	s.apply(filter(st.next, func(o strategy.Object) bool { return document.Text(o, "kind") != "VirtualService" })) // which is led
	s.settle()
	s.canary.drain = 500 * time.Millisecond
	began := time.Now()
	var shares, drained []string
	for settled := false; !settled; {
		r, err := s.canary.Promote(t.Context(), &pluginv1.PromoteRequest{Call: aCall(), Subject: st.subject, Course: st.course})
		if err != nil {
			t.Fatal(err)
		}
		settled = r.GetSettled()
		for _, c := range r.GetChanges() {
			if strings.HasPrefix(c.GetObject(), "VirtualService") {
				shares = append(shares, c.GetDetail())
			}
			if c.GetDetail() == "its traffic is led away" {
				drained = append(drained, c.GetObject())
			}
		}
	}
	if len(shares) != 3 || shares[0] != "web: 30 %" || shares[1] != "web: 10 %" || !strings.Contains(shares[2], "web: all to stable") {
		t.Errorf("got %q", shares)
	}
	if took := time.Since(began); len(drained) != 2 || took < 2*time.Second+s.canary.drain {
		t.Errorf("%v were led away from, all in %s", drained, took)
	}
	st.nothingLeft("promotion")
}

// On a first install the Services that the release leaves to its Canaries are made by Promote, and Plan
// names them.
func TestFirstInstall(t *testing.T) {
	s := newStage(t, strategy.RouterIstio)
	objects := shop(t, "1.1.0", "istio", s.namespace)
	first := subject(t, "", "1.1.0", nil, objects, s.namespace)
	plan, err := s.canary.Plan(t.Context(), &pluginv1.PlanRequest{Call: aCall(), Subject: first})
	if err != nil || len(plan.GetProblems()) > 0 || len(plan.GetCourse().GetSteps()) > 0 || strings.Count(string(plan.GetObjects()), "kind: Service") != 1 || !strings.Contains(string(plan.GetObjects()), "name: api") {
		t.Fatal(plan, err)
	}
	s.apply(objects)
	for range 2 {
		r, err := s.canary.Promote(t.Context(), &pluginv1.PromoteRequest{Call: aCall(), Subject: first, Course: plan.GetCourse()})
		if err != nil || !r.GetSettled() {
			t.Fatal(r, err)
		}
	}
	for _, o := range s.list("v1", "services") {
		if o.Name() == "api" && o.Text("spec", "selector", "app") == "api" && o.At("metadata", "annotations", course.AnnotationMadeFor) == nil {
			return
		}
	}
	t.Error("there is no Service api")
}

// A workload gets its first Canary, and with it a Service: that is made for the canary, taken away with
// it, and the release's own once that is promoted.
func TestFirstCanary(t *testing.T) {
	s := newStage(t, strategy.RouterNone)
	plain := filter(shop(t, "1.1.0", "kubernetes", s.namespace), func(o strategy.Object) bool {
		return document.Text(o, "kind") != "Canary" || document.Text(o, "metadata", "name") != "api"
	})
	st := tell(s, "1.1.0", "1.2.0", plain, shop(t, "1.2.0", "kubernetes", s.namespace))
	for n := range st.course.Steps {
		st.step(n, 0)
		if err := s.whole(); err != nil {
			t.Error(err)
		}
		st.abort(0)
		st.asBefore("abort")
	}
	st.step(1, 0)
	s.apply(st.next)
	st.promote(0)
	st.nothingLeft("promotion")
	if !slices.ContainsFunc(s.list("v1", "services"), func(o kube.Object) bool { return o.Name() == "api" && o.Text("spec", "selector", "app") == "api" }) {
		t.Error("there is no Service api")
	}
}
