package apply_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/apply"
)

// What people delete and edit by hand is put back; what controllers write is not drift.
func TestDriftIsPutBack(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	ns := b.NewNamespace(t)
	set := setOf(ns, "1.0.0", shop(t, ns, "blue"))
	inv := b.install(t, set)
	b.healthy(t, inv)

	// Controllers wrote statuses and annotations since: looked at once, remembered, no drift.
	inv, change, err := b.hand.Drift(ctx, set, inv)
	if err != nil || len(change.Changed)+len(change.Created) != 0 {
		t.Fatalf("status churn: %+v, %v", change, err)
	}
	inv, change, err = b.hand.Drift(ctx, set, inv)
	if err != nil || len(change.Changed)+len(change.Created) != 0 {
		t.Fatalf("quiet: %+v, %v", change, err)
	}
	fmt.Printf("FIGURE drift.quiet-requests %d requests of 10 objects\n", change.Requests)

	b.kubectl(t, "-n", ns, "delete", "service", "backend")
	b.kubectl(t, "-n", ns, "set", "image", "deployment/backend", "backend=podinfo:mine")
	b.kubectl(t, "-n", ns, "patch", "configmap", "backend", "-p", `{"data":{"key":"by hand"}}`)
	b.kubectl(t, "-n", ns, "label", "secret", "backend", "wheelwright.dev/distribution-")
	b.kubectl(t, "-n", ns, "scale", "deployment", "cache", "--replicas=2") // not declared: the autoscaler's
	b.kubectl(t, "-n", ns, "annotate", "hpa", "backend", "note=mine")
	inv, change, err = b.hand.Drift(ctx, set, inv)
	if err != nil {
		t.Fatal(err)
	}
	wantList(t, "made anew", change.Created, "Service "+ns+"/backend")
	wantList(t, "put back", change.Changed, "ConfigMap "+ns+"/backend", "Deployment "+ns+"/backend", "Secret "+ns+"/backend")
	for want, args := range map[string][]string{
		"podinfo:3.1.0": {"get", "deployment", "backend", "-o", "jsonpath={.spec.template.spec.containers[0].image}"},
		"blue":          {"get", "configmap", "backend", "-o", "jsonpath={.data.key}"},
		"shop":          {"get", "secret", "backend", "-o", `jsonpath={.metadata.labels.wheelwright\.dev/distribution}`},
		"2":             {"get", "deployment", "cache", "-o", "jsonpath={.spec.replicas}"},
		"mine":          {"get", "hpa", "backend", "-o", "jsonpath={.metadata.annotations.note}"},
	} {
		if got := b.kubectl(t, append([]string{"-n", ns}, args...)...); got != want {
			t.Errorf("%s: %q, want %q", strings.Join(args, " "), got, want)
		}
	}
	if stored, _, err := b.hand.ReadInventory(ctx, "shop", ns); err != nil || uid(stored, "Service") != uid(inv, "Service") {
		t.Errorf("the new Service's UID is not in the cluster's inventory: %v", err)
	}

	b.kubectl(t, "-n", ns, "delete", "configmap", "wheelwright-shop")
	if _, _, err = b.hand.Drift(ctx, set, inv); err != nil {
		t.Fatal(err)
	}
	if _, found, err := b.hand.ReadInventory(ctx, "shop", ns); err != nil || !found {
		t.Errorf("the inventory is not put back: %v", err)
	}
}

func uid(inv apply.Inventory, kind string) string {
	for _, i := range inv.Items {
		if i.Kind == kind {
			return i.UID
		}
	}
	return ""
}

// The whole namespace deleted by hand comes back; an object that is refused does not stop the others.
func TestDriftAfterTheNamespaceIsGone(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	ns := b.scratch(t)
	set := setOf(ns, "1.0.0", objects(t, configMap("a", "1"), deployment("web", "podinfo:1")))
	inv := b.install(t, set)
	b.kubectl(t, "delete", "namespace", ns)
	inv, change, err := b.hand.Drift(ctx, set, inv)
	if err != nil || len(change.Created) != 2 {
		t.Fatalf("%+v, %v", change, err)
	}
	b.healthy(t, inv)

	b.kubectl(t, "-n", ns, "delete", "deployment/web", "configmap/a")
	if err := b.Apply(strings.ReplaceAll(strings.ReplaceAll(deployment("web", "podinfo:1"), "metadata: {name: web}", "metadata: {name: web, namespace: "+ns+"}"), "app: web", "app: theirs")); err != nil {
		t.Fatal(err)
	}
	_, change, err = b.hand.Drift(ctx, set, inv)
	if !errors.Is(err, apply.ErrRefused) {
		t.Fatalf("%v", err)
	}
	wantText(t, err.Error(), "Deployment "+ns+"/web: ", "immutable")
	wantList(t, "made anew", change.Created, "ConfigMap "+ns+"/a")
}

// A workload that does not come up is explained by its pods.
func TestHealthExplains(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	ns := b.NewNamespace(t)
	inv := b.install(t, setOf(ns, "1.0.0", objects(t, configMap("a", "1"), deployment("database", "podinfo:1"), deployment("other", "podinfo:1"))))
	b.healthy(t, inv)
	explained := func(what string, health fleet.Health, parts ...string) {
		t.Helper()
		b.Eventually(t, what, func() error {
			r, err := b.hand.Health(ctx, inv)
			if err != nil {
				return err
			}
			for _, p := range parts {
				if !strings.Contains(r.Message, p) {
					return fmt.Errorf("want %q in %q", p, r.Message)
				}
			}
			if r.Health != health || r.Ready != r.Objects-1 || len([]rune(r.Message)) > 300 || strings.Contains(r.Message, "\n") {
				return fmt.Errorf("%+v", r)
			}
			return nil
		})
	}
	upgrade := func(manifest string) {
		t.Helper()
		var err error
		if inv, _, err = b.hand.Apply(ctx, setOf(ns, "2.0.0", objects(t, configMap("a", "1"), manifest, deployment("other", "podinfo:1"))), inv); err != nil {
			t.Fatal(err)
		}
	}
	upgrade(deployment("database", "registry.example.com/does-not-exist:1"))
	explained("an image that is not there", fleet.InProgress,
		"Deployment "+ns+"/database: ImagePullBackOff: Back-off pulling image \"registry.example.com/does-not-exist:1\"")

	upgrade(strings.Replace(deployment("database", "registry.example.com/does-not-exist:2"), "spec:\n  selector", "spec:\n  progressDeadlineSeconds: 1\n  selector", 1))
	explained("past its deadline", fleet.Degraded, "Deployment "+ns+"/database: ImagePullBackOff: ", "does-not-exist:2")

	upgrade(deployment("database", "crash-loop:1"))
	explained("a crash loop", fleet.InProgress, "Deployment "+ns+"/database: CrashLoopBackOff: ", "container database ended with exit code 1")

	upgrade(strings.Replace(deployment("database", "podinfo:4"), "    spec:\n", "    spec:\n      nodeSelector: {no: where}\n", 1))
	explained("no node for it", fleet.InProgress, "Deployment "+ns+"/database: Unschedulable: ")

	upgrade(strings.Replace(deployment("database", "podinfo:5"), "labels: {app: database}}", "labels: {app: database}, annotations: {test.wheelwright.dev/never-ready: yes please}}", 1))
	explained("a probe that does not pass", fleet.InProgress, "Deployment "+ns+"/database: container database runs but is not ready: its readiness probe does not pass")

	upgrade(strings.Replace(deployment("database", "podinfo:6"), "    spec:\n", "    spec:\n      serviceAccountName: nobody\n", 1))
	explained("pods that cannot be made", fleet.InProgress, "Deployment "+ns+"/database: FailedCreate: ", "nobody")

	upgrade(deployment("database", "podinfo:7"))
	b.healthy(t, inv)
	b.kubectl(t, "-n", ns, "delete", "configmap", "a")
	explained("a missing object", fleet.Degraded, "ConfigMap "+ns+"/a: it is not on the cluster")
}

// Health costs a list for each kind, whatever the number of objects, and reads no Secret.
func TestHealthIsCheap(t *testing.T) {
	b := start(t)
	ns := b.NewNamespace(t)
	inv := b.install(t, setOf(ns, "1.0.0", shop(t, ns, "blue")))
	b.healthy(t, inv)
	r, err := b.hand.Health(t.Context(), inv)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("FIGURE health.requests %d requests of %d objects of 9 kinds\n", r.Requests, r.Objects)
	if r.Requests != 9 {
		t.Errorf("%d requests", r.Requests)
	}
}
