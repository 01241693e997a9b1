package terms

import (
	"reflect"
	"strings"
	"testing"
)

func TestPatterns(t *testing.T) {
	type object struct{ group, kind, namespace, name string }
	job := object{"batch", "Job", "shop", "migrate"}
	claim := object{"", "PersistentVolumeClaim", "shop", "data"}
	crd := object{"apiextensions.k8s.io", "CustomResourceDefinition", "", "foos.example.com"}
	role := object{"rbac.authorization.k8s.io", "ClusterRole", "", "shop:admin"}
	all := []object{job, claim, crd, role}
	for _, c := range []struct {
		text  string
		picks []object
		named bool
	}{
		{"Job", []object{job}, false},
		{"Job.batch", []object{job}, false},
		{"Job.example.com", nil, false},
		{"Job/migrate", []object{job}, true},
		{"Job/migr", nil, true},
		{"Job/migr*", []object{job}, false},
		{"Job/*", []object{job}, false},
		{"Job/shop/migrate", []object{job}, true},
		{"Job/mail/migrate", nil, true},
		{"Job/*/migrate", []object{job}, true},
		{"Job/shop/*", []object{job}, false},
		{"PersistentVolumeClaim/shop/data", []object{claim}, true},
		{"PersistentVolumeClaim.core/data", []object{claim}, true},
		{"CustomResourceDefinition/foos.example.com", []object{crd}, true},
		{"CustomResourceDefinition/shop/foos.example.com", nil, true},
		{"CustomResourceDefinition.apiextensions.k8s.io/*", []object{crd}, false},
		{"ClusterRole/shop:*", []object{role}, false},
	} {
		p, err := ParsePattern(c.text)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		var picks []object
		for _, o := range all {
			if p.Matches(o.group, o.kind, o.namespace, o.name) {
				picks = append(picks, o)
			}
		}
		if !reflect.DeepEqual(picks, c.picks) || p.Named() != c.named || p.String() != c.text {
			t.Errorf("%s: picks %v, want %v; named %v; written %s", c.text, picks, c.picks, p.Named(), p)
		}
	}
	for _, text := range []string{"", "/", "job", "Job/", "Job//x", "Job/a/b/c", "Job/Shop/x", "Job/sh*/x", "Job/a*b", "Job/a b", "Job.", "Job.Batch", "*", "Job /x"} {
		if p, err := ParsePattern(text); err == nil {
			t.Errorf("%q: got %+v, want an error", text, p)
		} else if !strings.HasPrefix(err.Error(), `"`+text+`": `) {
			t.Errorf("%q: the error does not say what it is about: %v", text, err)
		}
	}
}

func TestPaths(t *testing.T) {
	for _, c := range []struct {
		text string
		want Path
	}{
		{"spec.replicas", Path{"spec", "replicas"}},
		{"data", Path{"data"}},
		{"metadata.annotations[example.com/x]", Path{"metadata", "annotations", "example.com/x"}},
		{"metadata.annotations", Path{"metadata", "annotations"}},
		{"spec.template.spec.containers[name=app].resources", Path{"spec", "template", "spec", "containers", "name=app", "resources"}},
		{"spec.template.spec.containers[*].resources[limits]", Path{"spec", "template", "spec", "containers", "*", "resources", "limits"}},
		{"spec.ports[port=80,protocol=TCP].nodePort", Path{"spec", "ports", "port=80,protocol=TCP", "nodePort"}},
		{"metadata.finalizers[example.com/guard]", Path{"metadata", "finalizers", "example.com/guard"}},
	} {
		p, err := ParsePath(c.text)
		if err != nil || !reflect.DeepEqual(p, c.want) {
			t.Errorf("%s: got %q, %v", c.text, []string(p), err)
			continue
		}
		if again, err := ParsePath(p.String()); err != nil || !reflect.DeepEqual(again, p) {
			t.Errorf("%s: written %s, read back %q, %v", c.text, p, []string(again), err)
		}
	}
	for _, text := range []string{"", ".", ".spec", "spec.", "spec..replicas", "spec[", "spec[]", "spec[a", "spec]", "spec[a]b", "spec.[a]", "[name=a]", "[*]", "*",
		"spec.a=b", "spec.a b", "spec[=b]", "spec[a=]", "spec[a=b,c]", "spec/replicas",
		"apiVersion", "kind", "metadata", "metadata.name", "metadata.namespace", "metadata.uid", "metadata[*]"} {
		if p, err := ParsePath(text); err == nil {
			t.Errorf("%q: got %q, want an error", text, []string(p))
		}
	}
	if keys, ok := Item("port=80,protocol=TCP"); !ok || !reflect.DeepEqual(keys, map[string]string{"port": "80", "protocol": "TCP"}) {
		t.Errorf("got %v %v", keys, ok)
	}
	for _, element := range []string{"replicas", AnyElement, "example.com/x"} {
		if _, ok := Item(element); ok {
			t.Errorf("%s is no item of a list", element)
		}
	}
}

func TestBudget(t *testing.T) {
	for _, c := range []struct {
		budget               Budget
		deletions, inventory int
		want                 bool
	}{
		{Default().Budget, 0, 0, true},
		{Default().Budget, 5, 5, true},
		{Default().Budget, 6, 6, false},
		{Default().Budget, 6, 30, true},
		{Default().Budget, 7, 34, false},
		{Default().Budget, 7, 35, true},
		{Budget{}, 0, 100, true},
		{Budget{}, 1, 100, false},
		{Budget{Percent: 100}, 100, 100, true},
		{Budget{Percent: 50}, 2, 3, false},
	} {
		if got := c.budget.Allows(c.deletions, c.inventory); got != c.want {
			t.Errorf("%s: %d of %d: got %v", c.budget, c.deletions, c.inventory, got)
		}
	}
}

func TestTerms(t *testing.T) {
	pattern := func(s string) Pattern {
		p, err := ParsePattern(s)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	path := func(s string) Path {
		p, err := ParsePath(s)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	given := Terms{
		Ignore: []Ignore{
			{Object: pattern("Deployment"), Fields: []Path{path("spec.replicas")}},
			{Object: pattern("Deployment/shop/*"), Manager: "vpa"},
			{Object: pattern("Service"), Fields: []Path{path("spec.clusterIP"), path("spec.ports[port=80].nodePort")}},
		},
		Recreate: []Pattern{pattern("Job")},
		Delete:   []Pattern{pattern("PersistentVolumeClaim/shop/data"), {Kind: "Namespace"}},
	}
	fields, managers := given.Ignored("apps", "Deployment", "shop", "web")
	if !reflect.DeepEqual(fields, []Path{{"spec", "replicas"}}) || !reflect.DeepEqual(managers, []string{"vpa"}) {
		t.Errorf("got %v %v", fields, managers)
	}
	if fields, managers = given.Ignored("apps", "StatefulSet", "shop", "web"); fields != nil || managers != nil {
		t.Errorf("got %v %v", fields, managers)
	}
	if !given.MayRecreate("batch", "Job", "shop", "x") || given.MayRecreate("apps", "Deployment", "shop", "x") {
		t.Error("recreation is wrong")
	}
	if !given.MayDelete("", "PersistentVolumeClaim", "shop", "data") || given.MayDelete("", "PersistentVolumeClaim", "shop", "other") {
		t.Error("deletion is wrong")
	}
	if given.MayDelete("", "Namespace", "", "shop") {
		t.Error("a kind without a name is no consent")
	}
	if given.Budget.Allows(1, 1000) {
		t.Error("the zero budget allows nothing")
	}
	for i, want := range []string{"Deployment: spec.replicas", "Deployment/shop/*: fields of vpa", "Service: spec.clusterIP, spec.ports[port=80].nodePort"} {
		if got := given.Ignore[i].String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	for _, d := range Drifts() {
		if got, err := ParseDrift(string(d)); err != nil || got != d {
			t.Errorf("%s: got %s, %v", d, got, err)
		}
	}
	if _, err := ParseDrift("Correct"); err == nil || err.Error() != `"Correct": want correct, report or ignore` {
		t.Errorf("got %v", err)
	}
}
