package render_test

import (
	"bytes"
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/pkg/plan"
	"github.com/wheelwright-dev/wheelwright/pkg/probe"
	"github.com/wheelwright-dev/wheelwright/pkg/render"
)

func TestHealthOfWheelwrightYAML(t *testing.T) {
	got, err := render.Health(files(map[string]string{"kustomization.yaml": "resources: []", "wheelwright.yaml": `version: 1
health:
- apiVersion: cert-manager.io/v1
  kind: Certificate
  current: status.conditions.exists(c, c.type == "Ready" && c.status == "True")
  message: 'status.conditions[0].message'
- {apiVersion: example.com, kind: Queue, failed: status.phase == "Broken", inProgress: status.phase == "Filling"}
- {apiVersion: v1, kind: Endpoints, current: has(object.subsets)}
`}))
	want := []render.HealthRule{
		{Group: "cert-manager.io", Version: "v1", Kind: "Certificate", Current: `status.conditions.exists(c, c.type == "Ready" && c.status == "True")`, Message: "status.conditions[0].message"},
		{Group: "example.com", Kind: "Queue", Failed: `status.phase == "Broken"`, InProgress: `status.phase == "Filling"`},
		{Version: "v1", Kind: "Endpoints", Current: "has(object.subsets)"},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
	for name, given := range map[string]map[string]string{
		"no file":   {"kustomization.yaml": "resources: []"},
		"no health": {"app/kustomization.yaml": "resources: []", "wheelwright.yaml": "version: 1\nvariants: [app]"},
	} {
		if got, err := render.Health(files(given)); got != nil || err != nil {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
}

// A vendor's CI asks for the variants, and hears of everything in the file.
func TestAllProblemsOfWheelwrightYAML(t *testing.T) {
	given := files(map[string]string{"wheelwright.yaml": `version: 2
variants: [gone]
extra: 1
health:
- text
- {apiVersion: Example, kind: queue, ready: "true"}
- {kind: Queue, current: "true", message: [a]}
- {apiVersion: example.com/v1, kind: Queue, current: "true"}
- {apiVersion: example.com/v1, kind: Queue, failed: "true"}
`})
	want := []string{
		"wheelwright.yaml: extra: unknown key (known: version, variants, health, rollout, upgrade, services, tests)",
		"wheelwright.yaml: version: is 2; this program reads version 1",
		`wheelwright.yaml: variants[0]: folder "gone" holds no kustomization.yaml`,
		"wheelwright.yaml: health[0]: want keys and values, not text",
		"wheelwright.yaml: health[1].ready: unknown key (known: apiVersion, kind, current, failed, inProgress, message)",
		`wheelwright.yaml: health[1].apiVersion: "Example": want GROUP/VERSION, such as example.com/v1, or GROUP alone for any version`,
		"wheelwright.yaml: health[1].current: missing: want an expression under current, failed or inProgress",
		`wheelwright.yaml: health[1].kind: "queue": want the name of a kind, such as Certificate`,
		"wheelwright.yaml: health[2].message: want text, not [a]",
		`wheelwright.yaml: health[2].apiVersion: "": want GROUP/VERSION, such as example.com/v1, or GROUP alone for any version`,
		"wheelwright.yaml: health[4]: health[3] is about the same kind",
	}
	_, health := render.Health(given)
	_, variants := render.Variants(given)
	for _, err := range []error{health, variants} {
		var all *render.BuildError
		if !errors.As(err, &all) || !reflect.DeepEqual(all.Problems, want) {
			t.Errorf("got  %q\nwant %q", all, want)
		}
	}
}

// The file may say nothing about variants: those are found then.
func TestVariantsWhereTheFileNamesNone(t *testing.T) {
	got, err := render.Variants(files(map[string]string{"wheelwright.yaml": "version: 1\nhealth: []", "a/kustomization.yaml": "resources: []", "b/kustomization.yaml": "resources: []"}))
	if err != nil || !reflect.DeepEqual(got, []string{"a", "b"}) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestCourseOfWheelwrightYAML(t *testing.T) {
	course := func(text string) (render.Course, error) {
		return render.CourseOf(files(map[string]string{"kustomization.yaml": "resources: []", "wheelwright.yaml": text}))
	}
	got, err := course(`version: 1
rollout:
  waves:
  - {name: canary, clusters: {matchLabels: {env: dev}}, soak: 30m}
  - name: everyone
upgrade: {stops: [1.2.0, v1.4.0]}
`)
	if err != nil || !slices.Equal(got.Stops, []string{"1.2.0", "v1.4.0"}) {
		t.Fatalf("got %+v, %v", got, err)
	}
	p, err := plan.Parse(got.Plan)
	if err != nil || len(p.Waves) != 2 || p.Waves[0].Name != "canary" || p.Waves[0].Soak.Minutes() != 30 || p.Waves[0].Clusters.MatchLabels["env"] != "dev" {
		t.Errorf("got %+v, %v", p, err)
	}
	if !bytes.Equal(got.Plan, p.YAML()) {
		t.Errorf("not canonical: %s", got.Plan)
	}
	if got, err := course("version: 1\n"); err != nil || got.Plan != nil || got.Stops != nil {
		t.Errorf("a file that says nothing: %+v, %v", got, err)
	}
	_, err = course(`version: 1
rollout:
  onFailure: cry
  waves:
  - {name: one, budget: 101%}
  - {name: one}
upgrade:
  stops: [1.4.0, 1.2.0, 1.4.0, next, 1]
  skips: []
`)
	var all *render.BuildError
	if !errors.As(err, &all) {
		t.Fatalf("got %v, want all that is wrong", err)
	}
	for _, want := range []string{"wheelwright.yaml: rollout.onFailure: ", "wheelwright.yaml: rollout.waves[0].budget: ", "wheelwright.yaml: rollout.waves[1].name: ",
		"wheelwright.yaml: upgrade.skips: unknown key (known: stops)", "wheelwright.yaml: upgrade.stops[1]: 1.2.0 comes after 1.4.0", "wheelwright.yaml: upgrade.stops[3]: ",
		"wheelwright.yaml: upgrade.stops[4]: "} {
		if !slices.ContainsFunc(all.Problems, func(p string) bool { return strings.HasPrefix(p, want) }) {
			t.Errorf("%q is not among\n  %s", want, strings.Join(all.Problems, "\n  "))
		}
	}
	for text, want := range map[string]string{"rollout: fast": "rollout: ", "upgrade: [1.0.0]": "upgrade: want a mapping", "upgrade: {stops: 1.0.0}": "upgrade.stops: want a list"} {
		if _, err := course("version: 1\n" + text); err == nil || !strings.Contains(err.Error(), "wheelwright.yaml: "+want) {
			t.Errorf("%s: got %v", text, err)
		}
	}
}

func TestTestsOfWheelwrightYAML(t *testing.T) {
	tests := func(text string) ([]byte, error) {
		return render.Tests(files(map[string]string{"kustomization.yaml": "resources: []", "wheelwright.yaml": "version: 1\n" + text}))
	}
	section, err := tests(`tests:
- {name: info, service: backend, port: 9898, http: {path: /api/info, expect: {status: [200, 3xx], json: {.count: 1000000, .ok: true}}}}
- {name: health, service: backend, when: after-promotion, timeout: 500ms, grpc: }
`)
	if err != nil {
		t.Fatal(err)
	}
	probes, err := probe.Parse(section)
	if err != nil || len(probes) != 2 || probes[0].Port != "9898" || probes[0].HTTP.JSON[0].Value != 1e6 || len(probes[0].HTTP.Status) != 2 || probes[1].GRPC == nil {
		t.Errorf("got %+v, %v", probes, err)
	}
	if section, err := tests(""); section != nil || err != nil {
		t.Errorf("of none: %q, %v", section, err)
	}
	_, err = tests(`tests:
- {name: info, service: Backend!, http: {path: api}}
- {name: info, service: backend, http: {expect: {matches: "("}}, retry: 1}
`)
	var all *render.BuildError
	if !errors.As(err, &all) {
		t.Fatalf("got %v, want all that is wrong", err)
	}
	for _, want := range []string{"wheelwright.yaml: tests[0].service: ", "wheelwright.yaml: tests[0].http.path: ", "wheelwright.yaml: tests[1].http.expect.matches: ",
		"wheelwright.yaml: tests[1].retry: unknown key", "wheelwright.yaml: tests[1].name: "} {
		if !slices.ContainsFunc(all.Problems, func(p string) bool { return strings.HasPrefix(p, want) }) {
			t.Errorf("%q is not among\n  %s", want, strings.Join(all.Problems, "\n  "))
		}
	}
	if _, err := tests("tests: smoke"); err == nil || !strings.Contains(err.Error(), "wheelwright.yaml: tests: want a list of tests") {
		t.Errorf("got %v", err)
	}
}

func TestTheExampleOfWheelwrightYAMLLoads(t *testing.T) {
	text, err := os.ReadFile("../../deploy/examples/wheelwright.yaml")
	if err != nil {
		t.Fatal(err)
	}
	given := files(map[string]string{"wheelwright.yaml": string(text), "app-kubernetes/kustomization.yaml": "", "app-istio/kustomization.yaml": ""})
	variants, err := render.Variants(given)
	if err != nil || !reflect.DeepEqual(variants, []string{"app-istio", "app-kubernetes"}) {
		t.Errorf("got %v, %v", variants, err)
	}
	if h, err := render.Health(given); err != nil || len(h) == 0 {
		t.Errorf("got %v, %v", h, err)
	}
	section, err := render.Tests(given)
	if probes, wrong := probe.Parse(section); err != nil || wrong != nil || len(probes) == 0 {
		t.Errorf("got %+v, %v, %v", probes, err, wrong)
	}
	c, err := render.CourseOf(given)
	if err != nil || len(c.Stops) == 0 {
		t.Errorf("got %v, %v", c, err)
	}
	if p, err := plan.Parse(c.Plan); err != nil || len(p.Waves) != 3 {
		t.Errorf("got %v, %v", p, err)
	}
}

func TestOrderOfServices(t *testing.T) {
	given := func(services string) ([]string, map[string][]string) {
		after, err := render.Order(files(map[string]string{"kustomization.yaml": "resources: []", "wheelwright.yaml": "version: 1\nservices:\n" + services}))
		var b *render.BuildError
		if err != nil && !errors.As(err, &b) {
			t.Fatal(err)
		}
		if b == nil {
			return nil, after
		}
		return b.Problems, after
	}
	problems, after := given("  frontend: {after: [backend, cache]}\n  backend: {after: [database]}\n")
	if want := map[string][]string{"frontend": {"backend", "cache"}, "backend": {"database"}}; problems != nil || !reflect.DeepEqual(after, want) {
		t.Errorf("got %v, %v", after, problems)
	}
	for text, want := range map[string]string{
		"  a: {after: [b]}\n  b: {after: [c]}\n  c: {after: [a]}\n": "services: each of a, c, b, a comes after the one before it, and so after itself",
		"  a: {after: [a]}\n":             "services: each of a, a comes after the one before it, and so after itself",
		"  a: {after: b}\n":               "services.a.after: want a list of services, such as [backend]",
		"  a: {after: [b, b], wait: 1}\n": `services.a.wait: unknown key (known: after); wheelwright.yaml: services.a.after[1]: "b" is given twice`,
		"  a: [b]\n":                      "services.a: want a mapping with after",
		"  - a\n":                         "services: want names of services, each with after",
	} {
		if problems, _ := given(text); strings.Join(problems, "; ") != "wheelwright.yaml: "+want {
			t.Errorf("%s: got %q", text, problems)
		}
	}
}
