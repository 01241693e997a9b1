package apply_test

import (
	"strings"
	"testing"
)

// A release that declares replicas and an autoscaler for them says how many there are at first, and
// never again: neither an upgrade nor drift correction takes pods away from the autoscaler.
func TestReplicasAreLeftToTheAutoscaler(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	ns := b.NewNamespace(t)
	hpa := "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: web}\nspec: {scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}, minReplicas: 1, maxReplicas: 6}\n"
	release := func(image string) []string {
		return []string{strings.Replace(deployment("web", image), "spec:\n", "spec:\n  replicas: 2\n", 1), hpa}
	}
	replicas := func(when, want string) {
		t.Helper()
		if got := b.kubectl(t, "-n", ns, "get", "deployment", "web", "-o", "jsonpath={.spec.replicas} {.spec.template.spec.containers[0].image}"); got != want {
			t.Fatalf("%s: replicas and image %q, want %q", when, got, want)
		}
	}
	inv := b.install(t, setOf(ns, "1.0.0", objects(t, release("podinfo:1")...)))
	replicas("at first", "2 podinfo:1")
	inv, _, err := b.hand.Apply(ctx, setOf(ns, "1.1.0", objects(t, release("podinfo:2")...)), inv)
	if err != nil {
		t.Fatal(err)
	}
	replicas("before the autoscaler did anything", "2 podinfo:2")

	b.kubectl(t, "-n", ns, "scale", "deployment", "web", "--replicas=5") // through the same door as the autoscaler
	set := setOf(ns, "1.2.0", objects(t, release("podinfo:3")...))
	if inv, _, err = b.hand.Apply(ctx, set, inv); err != nil {
		t.Fatal(err)
	}
	replicas("after an upgrade", "5 podinfo:3")
	b.kubectl(t, "-n", ns, "scale", "deployment", "web", "--replicas=4")
	inv, drifted, err := b.hand.Drift(ctx, set, inv, true)
	if err != nil || len(drifted) != 0 {
		t.Fatalf("drift: %v, %v", drifted, err)
	}
	replicas("after a look for drift", "4 podinfo:3")

	// No replicas at all switches the autoscaler off: whose they are has not changed, and the next release
	// brings them back.
	b.kubectl(t, "-n", ns, "scale", "deployment", "web", "--replicas=0")
	if inv, drifted, err = b.hand.Drift(ctx, set, inv, true); err != nil || len(drifted) != 0 {
		t.Fatalf("drift: %v, %v", drifted, err)
	}
	if _, _, err = b.hand.Apply(ctx, setOf(ns, "1.3.0", objects(t, release("podinfo:4")...)), inv); err != nil {
		t.Fatal(err)
	}
	replicas("after the next upgrade", "2 podinfo:4")
}
