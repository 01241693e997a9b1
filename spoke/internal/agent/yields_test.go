package agent

import (
	"slices"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/pkg/manifest"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/terms"
)

// What is left to who leads is kept with the set: its terms leave it, and its objects do not tell.
func TestYieldsAreKeptWithTheSet(t *testing.T) {
	const set = `{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, annotations: {team: red}}, spec: {replicas: 2}}
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: other}, spec: {selector: {app: web}}}
---
{apiVersion: flagger.app/v1beta1, kind: Canary, metadata: {name: web}}
`
	yields := []*pluginv1.Yield{
		{Object: "Deployment shop/web", Fields: []string{"spec.replicas", "metadata.annotations[example.com/x]"}},
		{Object: "Service other/web", Fields: []string{"spec.selector"}}, {Object: "Service other/web", Fields: []string{"spec.selector", "spec.ports"}},
		{Object: "Canary shop/web", Fields: []string{"spec"}}, {Object: "Service shop/web", Fields: []string{"spec"}},
	}
	marked, left, err := completed([]byte(set), nil, []string{"Canary shop/web"}, yields, "shop")
	if err != nil || left != 2 {
		t.Fatal(left, err)
	}
	objs, err := manifest.Parse(marked)
	if err != nil {
		t.Fatal(err)
	}
	objs = applicable(objs)
	own := make([]terms.Ignore, 1, 8)
	own[0].Manager = "keda"
	got, err := withYields(terms.Terms{Ignore: own}, objs, "shop")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, i := range got.Ignore {
		all = append(all, i.String())
	}
	slices.Sort(all)
	if want := ": fields of keda\nDeployment.apps/shop/web: metadata.annotations[example.com/x], spec.replicas\nService.core/other/web: spec.ports, spec.selector"; strings.Join(all, "\n") != want {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(all, "\n"), want)
	}
	if own = own[:2]; own[1].Manager != "" || len(own[1].Fields) > 0 {
		t.Error("the provider's own list was written to")
	}
	for _, o := range objs {
		if notes := o.GetAnnotations(); notes[yieldsNote] != "" || o.GetKind() == "Deployment" && notes["team"] != "red" {
			t.Errorf("%s has %v", o.GetKind(), notes)
		}
	}
	shown, err := withoutMarks(marked, nil)
	if err != nil || strings.Contains(string(shown), "wheelwright.dev") {
		t.Errorf("%v\n%s", err, shown)
	}
	if err := unyielding(marked); err == nil || !builds(err) {
		t.Errorf("a release with the mark: %v", err)
	}
	if err := unyielding([]byte("{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {text: wheelwright.dev/yields}}")); err != nil {
		t.Errorf("one that speaks of it: %v", err)
	}
	if _, _, err := completed([]byte(set), nil, nil, []*pluginv1.Yield{{Object: "Deployment shop/web", Fields: []string{"metadata.name"}}}, "shop"); err == nil || !strings.Contains(err.Error(), "Deployment shop/web") {
		t.Errorf("the name of an object: %v", err)
	}
}
