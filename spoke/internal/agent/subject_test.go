package agent

import (
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/wheelwright-dev/wheelwright/pkg/manifest"
	"github.com/wheelwright-dev/wheelwright/pkg/probe"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
)

// A Rollout with its pods in it is a service as a Deployment is, with what it was: else nobody who takes it back
// knows what to. One that is about a Deployment is not a second one.
func TestARolloutIsAService(t *testing.T) {
	release := func(version string) []*unstructured.Unstructured {
		objs, err := manifest.Parse([]byte(strings.ReplaceAll(`{apiVersion: argoproj.io/v1alpha1, kind: Rollout, metadata: {name: web}, spec: {template: {metadata: {labels: {app: web}}, spec: {containers: [{name: app, image: "web:VERSION"}]}}}}
---
{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}}}
---
{apiVersion: argoproj.io/v1alpha1, kind: Rollout, metadata: {name: api}, spec: {workloadRef: {apiVersion: apps/v1, kind: Deployment, name: api}}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: api}, spec: {template: {metadata: {labels: {app: api}}, spec: {containers: [{name: app, image: "api:VERSION"}]}}}}
`, "VERSION", version)))
		if err != nil {
			t.Fatal(err)
		}
		return objs
	}
	services, rest, err := divided(release("1.0.0"), release("1.1.0"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range services {
		names = append(names, s.GetName())
		if stable, next := string(s.GetStable()), string(s.GetCandidate()); !strings.Contains(stable, s.GetName()+":1.0.0") || !strings.Contains(next, s.GetName()+":1.1.0") {
			t.Errorf("%s was\n%s\nand is to be\n%s", s.GetName(), stable, next)
		}
		if s.GetName() == "web" && !strings.Contains(string(s.GetCandidate()), "kind: Service") {
			t.Errorf("web is without its Service:\n%s", s.GetCandidate())
		}
	}
	slices.Sort(names)
	if !slices.Equal(names, []string{"api", "web"}) || !strings.Contains(string(rest), "workloadRef") {
		t.Errorf("services %v, and beside them\n%s", names, rest)
	}
}

// What a vendor declares under tests reaches plugins as one more document, which they read with pkg/probe.
func TestDeclaredTestsAreADocumentOfTheirOwn(t *testing.T) {
	files := func(text string) []provenance.File {
		return []provenance.File{{Path: "kustomization.yaml", Data: []byte("resources: []\n")}, {Path: "wheelwright.yaml", Data: []byte("version: 1\n" + text)}}
	}
	const object = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: values}\n"
	for name, objects := range map[string]string{"beside others": object, "alone": ""} {
		got, err := declared([]byte(objects), files("tests: [{name: info, service: backend, http: {path: /api/info}}]\n"))
		if err != nil {
			t.Fatal(err)
		}
		kept, last, both := strings.Cut(string(got), "---\n")
		if !both {
			kept, last = "", kept
		}
		probes, err := probe.ReadFile([]byte(last))
		if err != nil || kept != objects || len(probes) != 1 || probes[0].HTTP.Path != "/api/info" {
			t.Errorf("%s: %v of\n%s", name, err, got)
		}
		if all, err := manifest.Parse([]byte(objects)); err != nil || both != (len(all) > 0) {
			t.Errorf("%s: %d objects, %v", name, len(all), err)
		}
	}
	for _, given := range [][]provenance.File{files(""), files("")[:1]} {
		if got, err := declared([]byte(object), given); err != nil || string(got) != object {
			t.Errorf("of none: %q, %v", got, err)
		}
	}
	if _, err := declared(nil, files("tests: [{name: info}]\n")); err == nil || !strings.Contains(err.Error(), "wheelwright.yaml: tests[0].service: ") {
		t.Errorf("got %v", err)
	}
}
