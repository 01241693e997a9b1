package main

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// Step 0 makes every candidate ready and leads nothing, for every strategy on every router, told either way.
func TestStepZero(t *testing.T) {
	routers := map[string]string{strategy.RouterNone: "kubernetes", strategy.RouterIstio: "istio", strategy.RouterGatewayAPI: "gatewayapi:v1", strategy.RouterNGINX: "nginx", strategy.RouterLinkerd: "linkerd"}
	analyses := map[string]map[string]any{
		"weights":    {"stepWeights": []any{33, 50}},
		"blue/green": {"iterations": 2},
		"A/B":        {"iterations": 2, "match": []any{map[string]any{"headers": map[string]any{"x-canary": map[string]any{"exact": "insider"}}}}},
		"mirror":     {"iterations": 2, "mirror": true},
	}
	for router, provider := range routers {
		for name, analysis := range analyses {
			blind := router == strategy.RouterNone && (name == "A/B" || name == "mirror")
			if blind || name == "mirror" && router != strategy.RouterIstio && router != strategy.RouterGatewayAPI {
				continue // no such thing there: a problem of the plan
			}
			t.Run(name+" "+provider, func(t *testing.T) {
				t.Parallel()
				s := newStage(t, router)
				st := tell(s, "1.1.0", "1.2.0", analysed(shop(t, "1.1.0", provider, s.namespace), analysis), analysed(shop(t, "1.2.0", provider, s.namespace), analysis))
				zero := &pluginv1.CanaryStep{}
				for _, one := range st.course.GetSteps()[0].GetTraffic() {
					zero.Traffic = append(zero.Traffic, &pluginv1.Traffic{Service: one.GetService()})
				}
				for _, step := range []*pluginv1.CanaryStep{{}, zero} {
					r, err := s.canary.Step(t.Context(), &pluginv1.StepRequest{Call: aCall(), Subject: st.subject, Course: st.course, Step: step})
					if err != nil || !r.GetSettled() || r.GetVerdict() != nil {
						t.Fatal(r, err)
					}
					st.idle()
				}
				st.step(0, 0)
				st.abort(0)
				st.asBefore("abort")
			})
		}
	}
}

func analysed(objects []strategy.Object, analysis map[string]any) []strategy.Object {
	for _, name := range []string{"web", "api"} {
		objects = edit(objects, "Canary", name, func(o strategy.Object) {
			in := document.Mapping(o, "spec", "analysis")
			delete(in, "stepWeights")
			maps.Copy(in, document.Clone(analysis))
		})
	}
	return objects
}

// idle wants both candidates ready, with all of their pods, and everything else as it was found, but for
// what the new release brings.
func (s *story) idle() {
	s.Helper()
	ready := 0
	for _, o := range s.list("apps/v1", "deployments") {
		if o.Text("metadata", "labels", strategy.LabelCandidateOf) != "" {
			want, _ := o.Int("spec", "replicas")
			have, _ := o.Int("status", "readyReplicas")
			if want == 0 || have < want {
				s.Errorf("%s has %d of %d pods ready", o.Name(), have, want)
			}
			ready++
		}
	}
	if ready != 2 {
		s.Errorf("%d candidates", ready)
	}
	now := strings.Split(s.found(), "---\n")
	for was := range strings.SplitSeq(s.before, "---\n") {
		if !slices.Contains(now, was) {
			s.Errorf("not as it was found any more:\n%s", was)
		}
	}
	for _, text := range now {
		if !strings.Contains(s.before, text) && (!strings.Contains(text, strategy.LabelCandidateOf) || strings.Contains(text, "wheelwright.dev/led")) {
			s.Errorf("new, and no candidate's:\n%s", text)
		}
	}
	services := s.list("v1", "services")
	for _, pod := range s.list("v1", "pods") {
		for _, service := range services {
			if pod.Text("metadata", "labels", strategy.LabelCandidateOf) == "" || service.Text("metadata", "labels", strategy.LabelCandidateOf) != "" {
				continue
			}
			fits := true
			for key, value := range service.Texts("spec", "selector") {
				fits = fits && pod.Text("metadata", "labels", key) == value
			}
			if fits {
				s.Errorf("Service %s selects the candidate's pod %s", service.Name(), pod.Name())
			}
		}
	}
}
