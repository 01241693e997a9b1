package render_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/pkg/render"
)

func TestVariants(t *testing.T) {
	const empty = "resources: []\n"
	tests := []struct {
		name  string
		files map[string]string
		want  []string
	}{
		{"siblings over a base", shop, []string{"mesh", "plain"}},
		{"parts of a sibling are its base too", map[string]string{
			"base/kustomization.yaml": empty, "base/web/kustomization.yml": empty,
			"a/kustomization.yaml": "resources: [web]", "a/web/Kustomization": "bases: [../../base/web]"}, []string{"a"}},
		{"components are no variants", map[string]string{
			"a/kustomization.yaml": "components: [../c]", "c/kustomization.yaml": "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n",
			"d/kustomization.yaml": "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n"}, []string{"a"}},
		{"one that cannot be read is still one", map[string]string{"a/kustomization.yaml": "nonsense: ["}, []string{"a"}},
		{"the root itself", map[string]string{"kustomization.yaml": "resources: [a]", "a/kustomization.yaml": empty}, []string{"default"}},
		{"none", map[string]string{"README.md": "", "x/deployment.yaml": "", "x/y/kustomization.yaml": empty}, nil},
		{"declared", map[string]string{"wheelwright.yaml": "version: 1\nvariants: [sets/b, a]\n",
			"a/kustomization.yaml": "resources: [../sets/b]", "sets/b/kustomization.yaml": empty, "z/kustomization.yaml": empty}, []string{"a", "sets/b"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := render.Variants(files(tt.files))
			if err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("got %v, %v, want %v", got, err, tt.want)
			}
		})
	}
	for settings, want := range map[string]string{
		"version: 2\nvariants: [gone, a, ./a, ../x, 7]\nstops: []\n": "wheelwright.yaml: stops: unknown key (known: version, variants, health, rollout, upgrade, services, tests); " +
			"wheelwright.yaml: version: is 2; this program reads version 1; " +
			`wheelwright.yaml: variants[0]: folder "gone" holds no kustomization.yaml; ` +
			`wheelwright.yaml: variants[2]: "./a" is given twice; ` +
			`wheelwright.yaml: variants[3]: "../x" is no folder below this file; ` +
			"wheelwright.yaml: variants[4]: want a folder's name, not 7",
		"variants: []\n": "wheelwright.yaml: version: is missing; want version: 1; wheelwright.yaml: variants: want a list of folders, such as [app]",
		"a: [":           "wheelwright.yaml: error converting YAML to JSON",
	} {
		_, err := render.Variants(files(map[string]string{"wheelwright.yaml": settings, "a/kustomization.yaml": empty}))
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q:\ngot  %v\nwant %v", settings, err, want)
		}
	}
}

func TestVariantCalledDefault(t *testing.T) {
	src := shopSource("default")
	src.Bundle = files(with(shop, map[string]string{"default/kustomization.yaml": "namePrefix: d-\nresources: [../base]\n"}))
	res, err := newRenderer(t, render.Config{}).Render(t.Context(), src)
	if err != nil || !strings.Contains(string(res.Manifest), "name: d-web") {
		t.Errorf("%v\n%s", err, res.Manifest)
	}
}

func TestOverlayPin(t *testing.T) {
	overlay := func(k string) map[string]string { return map[string]string{"app/kustomization.yaml": k} }
	tests := []struct {
		name    string
		files   map[string]string
		want    render.OverlayBase
		problem string
	}{
		{"plain", overlay("resources: ['https://git.example.com/vendor/shop//dist/plain?ref=1.2.0']"),
			render.OverlayBase{Variant: "plain", Ref: "1.2.0", Found: true}, ""},
		{"no ref", overlay("resources: ['https://git.example.com/vendor/shop//dist/plain']"),
			render.OverlayBase{Variant: "plain", Found: true}, ""},
		{"with a component", overlay("components: ['https://git.example.com/vendor/shop//dist/extra?ref=1.2.0']\nresources: ['https://git.example.com/vendor/shop//dist/plain?ref=1.2.0']"),
			render.OverlayBase{Variant: "plain", Ref: "1.2.0", Found: true}, ""},
		{"none", map[string]string{"app/kustomization.yaml": "resources: [x.yaml]", "app/x.yaml": "{}"}, render.OverlayBase{}, ""},
		{"two refs", overlay("resources: ['https://git.example.com/vendor/shop//dist/plain?ref=1.2.0', 'https://git.example.com/vendor/shop//dist/mesh?ref=1.3.0']"),
			render.OverlayBase{}, "overlay app: its bases name two releases, ref="},
		{"another repository", overlay("resources: ['https://mirror.example.com/shop//dist/plain?ref=1.2.0']"),
			render.OverlayBase{}, "set subscriptions[].source to it in spoke.yaml"},
		{"nothing there", map[string]string{"other": ""}, render.OverlayBase{}, "overlay app: holds no kustomization.yaml"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := render.OverlayPin(files(tt.files), "app", []string{shopURL}, "dist")
			if tt.problem != "" {
				if err == nil || !strings.Contains(err.Error(), tt.problem) {
					t.Errorf("got %v, want %q", err, tt.problem)
				}
				return
			}
			if err != nil || got != tt.want {
				t.Errorf("got %+v, %v, want %+v", got, err, tt.want)
			}
		})
	}
	got, err := render.OverlayPin(files(overlay("resources: ['https://mirror.example.com/shop//dist/plain?ref=1.2.0']")), "app",
		[]string{"/srv/clone", "https://mirror.example.com/shop.git"}, "dist")
	if err != nil || got.Variant != "plain" {
		t.Errorf("with an alias: %+v, %v", got, err)
	}
}
