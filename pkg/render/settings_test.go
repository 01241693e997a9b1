package render_test

import (
	"errors"
	"reflect"
	"testing"

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
		"wheelwright.yaml: extra: unknown key (known: version, variants, health)",
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
