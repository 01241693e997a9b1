package apply_test

import (
	"fmt"
	"testing"

	"github.com/wheelwright-dev/wheelwright/spoke/internal/apply"
)

// many is 500 small objects: ConfigMaps, Deployments and Services, of which some are changed.
func many(t testing.TB, ns string, changed int) apply.Set {
	s := apply.Set{Distribution: "bench", Namespace: ns, Version: fmt.Sprintf("1.%d.0", changed)}
	for n := range 500 {
		value := "same"
		if n < changed {
			value = fmt.Sprint("changed-", changed)
		}
		name := fmt.Sprint("c", n)
		manifest := configMap(name, value)
		switch n % 5 {
		case 3:
			manifest = deployment(name, "podinfo:"+value)
		case 4:
			manifest = fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: %s}\nspec: {selector: {app: %[1]s, of: %s}, ports: [{name: http, port: 80, targetPort: http}]}\n", name, value)
		}
		s.Objects = append(s.Objects, objects(t, manifest)...)
	}
	return s
}

// An upgrade that changes one object in twenty costs two requests for each of them, and a handful.
func TestSmallUpgradeIsCheap(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	ns := b.NewNamespace(t)
	inv := b.install(t, many(t, ns, 0))
	mark := b.MarkRequests(t)
	next := many(t, ns, 25)
	report, err := b.hand.Check(ctx, next, inv)
	if err != nil || report.Err() != nil || len(report.Steps) != 25 {
		t.Fatalf("%+v, %v", report, err)
	}
	inv, change, err := b.hand.Apply(ctx, next, inv)
	if err != nil || len(change.Changed) != 25 {
		t.Fatalf("%+v, %v", change, err)
	}
	seen := len(b.Requests(t, mark, "wheelwright"))
	fmt.Printf("FIGURE apply.five-percent-requests %d requests of 500 objects\n", seen)
	if sum := report.Requests + change.Requests; sum > 58 || seen > 58 {
		t.Errorf("%d requests, by the audit log %d; want at most 58", sum, seen)
	}
	if report, err = b.hand.Check(ctx, next, inv); err != nil || report.Requests != 0 || len(report.Steps) != 0 {
		t.Errorf("nothing changed: %+v, %v", report, err)
	}
}
