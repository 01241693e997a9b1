package manifest_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/pkg/manifest"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

const web = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: app}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      initContainers:
      - {name: prepare, image: "registry.example.com:5000/tools/prepare"}
      containers:
      - {name: web, image: "web:1.2.3"}
`

func parse(t *testing.T, text string) []*unstructured.Unstructured {
	t.Helper()
	objs, err := manifest.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return objs
}

func texts(ps []manifest.Problem) []string {
	var out []string
	for _, p := range ps {
		out = append(out, p.String())
	}
	return out
}

func TestParse(t *testing.T) {
	objs := parse(t, "# only a comment\n---\n"+web+"---\n---\n"+`
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: app}}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: c, namespace: app}, data: {a: "1"}}
`)
	var ids []string
	for _, o := range objs {
		ids = append(ids, manifest.ID(o))
	}
	want := []string{"apps/v1 Deployment app/web", "v1 Namespace app", "v1 ConfigMap app/c"}
	if !slices.Equal(ids, want) {
		t.Errorf("got %v, want %v", ids, want)
	}
	for text, want := range map[string]string{
		"- a\n- b\n":                           "document 1: not an object",
		web + "---\nmetadata: {name: x}\n":     `document 2: object "x" has no kind`,
		"a: 1\na: 2\n":                         `key "a" already set`,
		"apiVersion: v1\nkind: [\n":            "document 1: ",
		"kind: ConfigMap\nkind: ConfigMap\n":   `key "kind" already set`,
		"just some words that are no object\n": "not an object",
	} {
		if _, err := manifest.Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("parse %q: got %v, want %q", text, err, want)
		}
	}
}

func TestValidate(t *testing.T) {
	tests := []struct {
		name, text string
		want       []string
	}{
		{"good", web, nil},
		{"unknown fields, all of them", `apiVersion: v1
kind: Service
metadata: {name: s, namespace: app, lables: {a: b}}
spec: {sessionAfinity: None, ports: [{port: 80, protocl: TCP}]}
`, []string{
			`v1 Service app/s: unknown field "metadata.lables"`,
			`v1 Service app/s: unknown field "spec.ports[0].protocl"`,
			`v1 Service app/s: unknown field "spec.sessionAfinity"`}},
		{"wrong type", strings.Replace(web, "replicas: 2", "replicas: two", 1),
			[]string{`apps/v1 Deployment app/web: cannot unmarshal string into field DeploymentSpec.spec.replicas of type int32`}},
		{"twice, under two versions", `apiVersion: autoscaling/v1
kind: HorizontalPodAutoscaler
metadata: {name: h}
spec: {maxReplicas: 2, scaleTargetRef: {kind: Deployment, name: web}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: h}
spec: {maxReplicas: 2, scaleTargetRef: {kind: Deployment, name: web}}
`, []string{"autoscaling/v2 HorizontalPodAutoscaler h: is given twice"}},
		{"no name", "apiVersion: v1\nkind: ConfigMap\nmetadata: {namespace: app}\n",
			[]string{"v1 ConfigMap app/: has no metadata.name"}},
		{"generated name", "apiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: x-}\n",
			[]string{"v1 ConfigMap: has generateName only: an installed object needs a fixed metadata.name"}},
		{"no version", "kind: ConfigMap\nmetadata: {name: x}\n", []string{"ConfigMap x: has no apiVersion"}},
		{"kind that only a cluster knows", "apiVersion: flagger.app/v1beta1\nkind: Canary\nmetadata: {name: c}\nspec: {anything: goes}\n", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := texts(manifest.Validate(parse(t, tt.text)))
			slices.Sort(got)
			if !slices.Equal(got, tt.want) {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

func TestCheckImages(t *testing.T) {
	got := texts(manifest.CheckImages(parse(t, web+`
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: tick, namespace: app}
spec:
  jobTemplate:
    spec:
      template:
        spec:
          containers:
          - {name: a, image: "quay.io/x/a:latest"}
          - {name: b, image: "quay.io/x/b:latest@sha256:0000000000000000000000000000000000000000000000000000000000000000"}
          - {name: c}
          volumes:
          - {name: model, image: {reference: "quay.io/x/model"}}
---
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: r, namespace: app}
spec: {template: {spec: {containers: [{name: r, image: r}]}}}
---
apiVersion: v1
kind: Pod
metadata: {name: p}
spec: {containers: [{name: p, image: "localhost:5000/p:v1"}]}
`)))
	want := []string{
		`apps/v1 Deployment app/web: initContainer prepare: image "registry.example.com:5000/tools/prepare" has no tag; give one, or a digest`,
		`batch/v1 CronJob app/tick: container a: image "quay.io/x/a:latest" is tagged latest, which moves; give a version, or a digest`,
		`batch/v1 CronJob app/tick: container c: image "" is empty; name one with a tag or a digest`,
		`batch/v1 CronJob app/tick: volume model: image "quay.io/x/model" has no tag; give one, or a digest`,
		`argoproj.io/v1alpha1 Rollout app/r: container r: image "r" has no tag; give one, or a digest`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %s\nwant %s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestCanonicalAndLabel(t *testing.T) {
	objs := parse(t, web+"---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: b, namespace: app}\ndata: {n: \"012\", s: \"yes\"}\n---\n"+
		"apiVersion: v1\nkind: Namespace\nmetadata: {name: app}\n---\napiVersion: x.example.com/v1\nkind: Thing\nmetadata: {name: t}\n")
	first, err := manifest.Canonical(objs)
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(objs)
	second, err := manifest.Canonical(objs)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second) {
		t.Errorf("order of input shows:\n%s\n---- \n%s", first, second)
	}
	again := parse(t, string(first))
	var kinds []string
	for _, o := range again {
		kinds = append(kinds, o.GetKind())
	}
	if want := []string{"Namespace", "ConfigMap", "Thing", "Deployment"}; !slices.Equal(kinds, want) {
		t.Errorf("got %v, want %v", kinds, want)
	}
	if v, _, _ := unstructured.NestedString(again[1].Object, "data", "s"); v != "yes" {
		t.Errorf("data.s came back as %q", v)
	}

	manifest.Label(again, "shop")
	for _, o := range again {
		if o.GetLabels()[manifest.LabelDistribution] != "shop" {
			t.Errorf("%s is not labelled", manifest.ID(o))
		}
	}
	if l, _, _ := unstructured.NestedStringMap(again[3].Object, "spec", "template", "metadata", "labels"); len(l) != 1 {
		t.Errorf("the pod template was labelled: %v", l)
	}
}
