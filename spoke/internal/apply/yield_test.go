package apply_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/spoke/internal/apply"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/terms"
)

func ignore(t *testing.T, object, manager string, fields ...string) terms.Ignore {
	t.Helper()
	p, err := terms.ParsePattern(object)
	if err != nil {
		t.Fatal(err)
	}
	i := terms.Ignore{Object: p, Manager: manager}
	for _, f := range fields {
		path, err := terms.ParsePath(f)
		if err != nil {
			t.Fatal(err)
		}
		i.Fields = append(i.Fields, path)
	}
	return i
}

// An autoscaler that the provider made outside of the set owns the replicas through their scale
// subresource. A number that nobody scales is the release's.
func TestReplicasAreLeftToAnAutoscalerOutsideOfTheSet(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	ns := b.NewNamespace(t)
	release := func(n int, image string) apply.Set {
		return setOf(ns, "1."+fmt.Sprint(n)+".0", objects(t, strings.Replace(deployment("web", image), "spec:\n", fmt.Sprintf("spec:\n  replicas: %d\n", n), 1)))
	}
	want := func(when, want string) {
		t.Helper()
		if got := b.kubectl(t, "-n", ns, "get", "deployment", "web", "-o", "jsonpath={.spec.replicas} {.spec.template.spec.containers[0].image}"); got != want {
			t.Fatalf("%s: %q, want %q", when, got, want)
		}
	}
	inv := b.install(t, release(2, "podinfo:1"))
	inv, change, err := b.hand.Apply(ctx, release(3, "podinfo:2"), inv)
	if err != nil || change.Requests != 3 {
		t.Fatalf("an extra request where nobody minds: %+v, %v", change, err)
	}
	want("nobody scales it", "3 podinfo:2")
	b.kubectl(t, "-n", ns, "scale", "deployment", "web", "--replicas=5")
	next := release(2, "podinfo:3")
	report, err := b.hand.Check(ctx, next, inv)
	if err != nil || len(report.Conflicts) != 0 || len(report.Problems) != 0 {
		t.Fatalf("what is left is no conflict: %+v, %v", report, err)
	}
	if inv, _, err = b.hand.Apply(ctx, next, inv); err != nil {
		t.Fatal(err)
	}
	want("scaled from outside", "5 podinfo:3")
	if _, drifted, err := b.hand.Drift(ctx, next, inv, true); err != nil || len(drifted) != 0 {
		t.Fatalf("drift: %v, %v", drifted, err)
	}
	want("after a look for drift", "5 podinfo:3")
}

// What the provider's terms leave is declared when the object is made, and afterwards left to whom it
// belongs, by field and by manager. As long as it is ours alone it stays as it is.
func TestIgnoredFieldsAreLeft(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	ns := b.NewNamespace(t)
	release := func(version, colour string) apply.Set {
		s := setOf(ns, version, objects(t,
			`apiVersion: v1
kind: ConfigMap
metadata: {name: mine, annotations: {example.com/owner: `+colour+`, example.com/note: `+colour+`}}
data: {key: `+colour+`, other: `+colour+`}
`,
			strings.ReplaceAll(deployment("web", "podinfo:"+version), "image:", "env: [{name: COLOUR, value: "+colour+"}], image:"),
			strings.ReplaceAll(deployment("mesh", "podinfo:"+version), "image:", "env: [{name: COLOUR, value: "+colour+"}], image:")))
		s.Terms = terms.Terms{Ignore: []terms.Ignore{
			ignore(t, "ConfigMap/mine", "", "metadata.annotations[example.com/owner]", "data.key"),
			ignore(t, "Deployment/"+ns+"/web", "", "spec.template.spec.containers[name=web].env"),
			ignore(t, "Deployment/mesh", "injector"),
		}}
		return s
	}
	got := func() string {
		t.Helper()
		return b.kubectl(t, "-n", ns, "get", "configmap", "mine", "-o", `jsonpath={.metadata.annotations.example\.com/owner} {.metadata.annotations.example\.com/note} {.data.key} {.data.other}`) + " | " +
			b.kubectl(t, "-n", ns, "get", "deployment", "web", "mesh", "-o", `jsonpath={range .items[*]}{.spec.template.spec.containers[0].image} {.spec.template.spec.containers[0].env[*].value} {end}`)
	}
	want := func(when, want string) {
		t.Helper()
		if got := got(); strings.Join(strings.Fields(got), " ") != want {
			t.Fatalf("%s: %s, want %s", when, got, want)
		}
	}
	inv := b.install(t, release("1", "blue"))
	want("made", "blue blue blue blue | podinfo:1 blue podinfo:1 blue")
	inv, _, err := b.hand.Apply(ctx, release("2", "green"), inv)
	if err != nil {
		t.Fatal(err)
	}
	want("ours alone", "blue green blue green | podinfo:2 blue podinfo:2 green")

	b.kubectl(t, "-n", ns, "annotate", "--overwrite", "configmap", "mine", "example.com/owner=them")
	b.kubectl(t, "-n", ns, "patch", "configmap", "mine", "--type=json", "-p", `[{"op":"remove","path":"/data/key"}]`)
	b.kubectl(t, "-n", ns, "set", "env", "deployment/web", "COLOUR=theirs", "MORE=theirs-too")
	b.kubectl(t, "-n", ns, "set", "env", "deployment/mesh", "COLOUR=theirs", "--field-manager=injector")
	next := release("3", "red")
	report, err := b.hand.Check(ctx, next, inv)
	if err != nil || len(report.Conflicts) != 0 || len(report.Problems) != 0 {
		t.Fatalf("%+v, %v", report, err)
	}
	if inv, _, err = b.hand.Apply(ctx, next, inv); err != nil {
		t.Fatal(err)
	}
	want("taken over", "them red red | podinfo:3 theirs theirs-too podinfo:3 theirs")
	if _, drifted, err := b.hand.Drift(ctx, next, inv, true); err != nil || len(drifted) != 0 {
		t.Fatalf("drift: %v, %v", drifted, err)
	}
	want("after a look for drift", "them red red | podinfo:3 theirs theirs-too podinfo:3 theirs")
}

// Fields that the release declares and others have set are taken over, and the report says whose.
func TestConflictsNameTheOwner(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	ns := b.NewNamespace(t)
	inv := b.install(t, setOf(ns, "1", objects(t, deployment("web", "podinfo:1"), configMap("plain", "1"))))
	b.kubectl(t, "-n", ns, "set", "image", "deployment/web", "web=podinfo:mine", "--field-manager=somebody")
	next := setOf(ns, "2", objects(t, deployment("web", "podinfo:2"), configMap("plain", "2")))
	report, err := b.hand.Check(ctx, next, inv)
	if err != nil || report.Err() != nil || len(report.Conflicts) != 1 {
		t.Fatalf("%+v, %v", report, err)
	}
	wantText(t, report.Conflicts[0].String(), "Deployment "+ns+"/web: spec.template.spec.containers[name=web].image was set by somebody")
	if got := report.Changes(); len(got) != 2 || got[0].String() != "change 1 ConfigMap" || got[1].String() != "change 1 Deployment" {
		t.Errorf("%v", got)
	}
	if got := b.kubectl(t, "-n", ns, "get", "deployment", "web", "-o", "jsonpath={.spec.template.spec.containers[0].image}"); got != "podinfo:mine" {
		t.Errorf("a check wrote: %s", got)
	}
}
