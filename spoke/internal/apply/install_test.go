package apply_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/wheelwright-dev/wheelwright/integration/harness"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/apply"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/terms"
)

// A first install into a namespace that does not exist, an upgrade that changes nothing, one that
// changes one object, one that drops one.
func TestLifeOfAnInstallation(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	ns := b.scratch(t)
	first := setOf(ns, "1.0.0", shop(t, ns, "blue"))

	before := b.everything(t)
	report, err := b.hand.Check(ctx, first, apply.Inventory{})
	if err != nil {
		t.Fatal(err)
	}
	if report.Err() != nil || len(report.Unchecked) != 0 || report.Objects != 10 {
		t.Fatalf("check: %+v", report)
	}
	b.wantNothingNew(t, before)

	mark := b.MarkRequests(t)
	inv, change, err := b.hand.Apply(ctx, first, apply.Inventory{})
	if err != nil {
		t.Fatal(err)
	}
	for _, first := range []string{"secrets/", "services/"} {
		wantOrder(t, b.Requests(t, mark, "wheelwright"), "configmaps/wheelwright-shop", first, "rolebindings/", "deployments/", "horizontalpodautoscalers/", "configmaps/wheelwright-shop")
	}
	if len(change.Created) != 10 || len(change.Changed)+len(change.Unchanged)+len(change.Deleted) != 0 {
		t.Errorf("install: %+v", change)
	}
	fmt.Printf("FIGURE apply.install-requests %d requests of 10 objects, namespace and inventory\n", change.Requests)
	stored, found, err := b.hand.ReadInventory(ctx, "shop", ns)
	if err != nil || !found {
		t.Fatalf("the inventory on the cluster: found %v, %v", found, err)
	}
	if asJSON(t, stored) != asJSON(t, inv) {
		t.Errorf("the inventory on the cluster:\n%s\nreturned:\n%s", asJSON(t, stored), asJSON(t, inv))
	}
	if label := b.kubectl(t, "-n", ns, "get", "configmap", "wheelwright-shop", "-o", `jsonpath={.metadata.labels.wheelwright\.dev/inventory}`); label != "shop" {
		t.Errorf("the inventory's label is %q", label)
	}
	b.healthy(t, inv)

	t.Run("the same again costs nothing", func(t *testing.T) {
		mark := b.MarkRequests(t)
		same := setOf(ns, "1.0.1", shop(t, ns, "blue"))
		slices.Reverse(same.Objects)
		got, change, err := b.hand.Apply(ctx, same, inv)
		if err != nil || len(change.Unchanged) != 10 || change.Requests != 0 {
			t.Fatalf("%+v, %v", change, err)
		}
		if pruned, err := b.hand.Prune(ctx, inv, got, terms.Terms{}); err != nil || pruned.Requests != 0 {
			t.Fatalf("%+v, %v", pruned, err)
		}
		requests := b.Requests(t, mark, "wheelwright")
		if len(requests) != 0 || got.Version != "1.0.1" {
			t.Errorf("%v, version %q", requests, got.Version)
		}
	})

	t.Run("one of ten changed", func(t *testing.T) {
		mark := b.MarkRequests(t)
		next := setOf(ns, "1.1.0", shop(t, ns, "green"))
		got, change, err := b.hand.Apply(ctx, next, inv)
		if err != nil {
			t.Fatal(err)
		}
		wantList(t, "changed", change.Changed, "ConfigMap "+ns+"/backend")
		if len(change.Unchanged) != 9 {
			t.Errorf("unchanged: %q", change.Unchanged)
		}
		var patches, inventories int
		for _, r := range b.Requests(t, mark, "wheelwright") {
			switch {
			case strings.Contains(r.URI, "/configmaps/wheelwright-shop"):
				inventories++
			case r.Verb == "patch":
				patches++
			default:
				t.Errorf("an unexpected request: %+v", r)
			}
		}
		if patches != 1 || inventories > 2 {
			t.Errorf("%d patches, %d writes of the inventory", patches, inventories)
		}
		inv = got
	})

	t.Run("one object dropped", func(t *testing.T) {
		next := setOf(ns, "2.0.0", without(shop(t, ns, "green"), "Deployment", "cache"))
		got, change, err := b.hand.Apply(ctx, next, inv)
		if err != nil || len(change.Changed)+len(change.Created) != 0 {
			t.Fatalf("%+v, %v", change, err)
		}
		if stored, _, err := b.hand.ReadInventory(ctx, "shop", ns); err != nil || len(stored.Items) != 10 || len(stored.Current().Items) != 9 {
			t.Errorf("before the prune the cluster's inventory has to name what leaves: %v %v", stored.Items, err)
		}
		change, err = b.hand.Prune(ctx, inv, got, terms.Terms{})
		if err != nil {
			t.Fatal(err)
		}
		wantList(t, "deleted", change.Deleted, "Deployment "+ns+"/cache")
		if stored, _, err := b.hand.ReadInventory(ctx, "shop", ns); err != nil || len(stored.Items) != 9 {
			t.Errorf("after the prune: %v %v", stored.Items, err)
		}
		b.gone(t, "-n", ns, "get", "deployment", "cache")
		b.gone(t, "-n", ns, "get", "pods", "-l", "app=cache", "-o", "name") // in the background
	})
}

// wantOrder looks for writes in this order.
func wantOrder(t *testing.T, requests []harness.Request, parts ...string) {
	t.Helper()
	var uris []string
	for _, r := range requests {
		if r.Writes() && r.Code < 300 {
			uris = append(uris, r.URI)
		}
	}
	at := 0
	for _, p := range parts {
		n := slices.IndexFunc(uris[at:], func(u string) bool { return strings.Contains(u, p) })
		if n < 0 {
			t.Fatalf("%s does not come after %s in:\n%s", p, parts, strings.Join(uris, "\n"))
		}
		at += n + 1
	}
}

// healthy waits until an inventory is.
func (b bench) healthy(t *testing.T, inv apply.Inventory) {
	t.Helper()
	b.Eventually(t, "health", func() error {
		r, err := b.hand.Health(t.Context(), inv, nil)
		if err != nil || r.Health != fleet.Healthy || r.Ready != r.Objects {
			return fmt.Errorf("%+v, %v", r, err)
		}
		return nil
	})
}

// gone waits until a kubectl command finds nothing.
func (b bench) gone(t *testing.T, args ...string) {
	t.Helper()
	b.Eventually(t, strings.Join(args, " "), func() error {
		if out, err := b.Kubectl(args...); err == nil && strings.TrimSpace(out) != "" {
			return fmt.Errorf("still there: %s", out)
		}
		return nil
	})
}

const widgets = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.%[1]s}
spec:
  group: %[1]s
  scope: Namespaced
  names: {kind: Widget, plural: widgets, singular: widget, listKind: WidgetList}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {size: {type: integer}}}}}}
`

// A definition, an object of its kind, and a second namespace, all in one set, none there yet.
func TestDefinitionAndNamespaceComeWithTheSet(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	ns, other := b.scratch(t), b.scratch(t)
	group := unique("x") + ".example.com"
	t.Cleanup(func() { _, _ = b.Kubectl("delete", "crd", "widgets."+group, "--wait=false", "--ignore-not-found") })
	set := setOf(ns, "1.0.0", objects(t,
		"apiVersion: "+group+"/v1\nkind: Widget\nmetadata: {name: big}\nspec: {size: 3}\n",
		fmt.Sprintf(widgets, group),
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: there, namespace: "+other+"}\ndata: {a: b}\n",
		"apiVersion: v1\nkind: Namespace\nmetadata: {name: "+other+", labels: {team: shop}}\n",
		"apiVersion: v1\nkind: Namespace\nmetadata: {name: "+ns+", namespace: nonsense, labels: {team: shop}}\n",
	))
	before := b.everything(t)
	report, err := b.hand.Check(ctx, set, apply.Inventory{})
	if err != nil || report.Err() != nil {
		t.Fatalf("%v %v", err, report.Err())
	}
	wantList(t, "unchecked", report.Unchecked, "Widget "+ns+"/big: its definition comes with the release")
	b.wantNothingNew(t, before)
	inv, change, err := b.hand.Apply(ctx, set, apply.Inventory{})
	if err != nil {
		t.Fatal(err)
	}
	if len(change.Created) != 5 {
		t.Errorf("%+v", change)
	}
	if got := b.kubectl(t, "-n", ns, "get", "widgets."+group, "big", "-o", "jsonpath={.spec.size}"); got != "3" {
		t.Errorf("size %q", got)
	}
	if got := b.kubectl(t, "get", "namespace", ns, "-o", "jsonpath={.metadata.labels.team}"); got != "shop" {
		t.Errorf("the set's own namespace object was not used: %q", got)
	}
	b.healthy(t, inv) // a Widget has no status: it is current
}

func TestPruneRefusesAnEmptySet(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	ns := b.NewNamespace(t)
	inv := b.install(t, setOf(ns, "1.0.0", objects(t, configMap("a", "1"))))
	if _, err := b.hand.Prune(ctx, inv, apply.Inventory{Distribution: "shop", Namespace: ns}, terms.Terms{}); !errors.Is(err, apply.ErrEmptySet) {
		t.Errorf("prune: %v", err)
	}
	if _, _, err := b.hand.Apply(ctx, setOf(ns, "2.0.0", nil), inv); !errors.Is(err, apply.ErrEmptySet) {
		t.Errorf("apply: %v", err)
	}
	if _, _, err := b.hand.Drift(ctx, setOf(ns, "2.0.0", nil), inv, true); !errors.Is(err, apply.ErrEmptySet) {
		t.Errorf("drift: %v", err)
	}
	if r, err := b.hand.Health(ctx, apply.Inventory{}, nil); err != nil || r.Health != fleet.HealthUnknown {
		t.Errorf("nothing is not healthy: %+v, %v", r, err)
	}
	b.kubectl(t, "-n", ns, "get", "configmap", "a")
}

// Replicas that the set does not declare belong to the autoscaler, whatever else changes.
func TestFieldsOfOthersAreLeftAlone(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	ns := b.NewNamespace(t)
	inv := b.install(t, setOf(ns, "1.0.0", objects(t, deployment("web", "podinfo:1"))))
	b.kubectl(t, "-n", ns, "scale", "deployment", "web", "--replicas=3")
	b.kubectl(t, "-n", ns, "set", "image", "deployment/web", "web=podinfo:mine", "--field-manager=somebody")
	if _, _, err := b.hand.Apply(ctx, setOf(ns, "1.1.0", objects(t, deployment("web", "podinfo:2"))), inv); err != nil {
		t.Fatal(err)
	}
	if got := b.kubectl(t, "-n", ns, "get", "deployment", "web", "-o", "jsonpath={.spec.replicas} {.spec.template.spec.containers[0].image}"); got != "3 podinfo:2" {
		t.Errorf("replicas and image: %q", got)
	}
}

// An apply that fails in the middle says with which objects, what it did is in the inventory, and
// the way back removes it.
func TestFailedApplyCanBeUndone(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	ns := b.NewNamespace(t)
	good := setOf(ns, "1.0.0", objects(t, configMap("config", "old"), configMap("only-old", "1"), deployment("web", "podinfo:1")))
	inv := b.install(t, good)

	bad := setOf(ns, "2.0.0", objects(t, configMap("config", "new"), configMap("extra", "1"),
		strings.ReplaceAll(deployment("web", "podinfo:2"), "app: web", "app: other")))
	report, err := b.hand.Check(ctx, bad, apply.Inventory{})
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Problems) != 1 {
		t.Fatalf("%+v", report)
	}
	wantText(t, report.Problems[0].String(), "Deployment "+ns+"/web: ", "spec.selector: ", "immutable", "kubectl -n "+ns+" delete deployment web")

	half, change, err := b.hand.Apply(ctx, bad, inv)
	if !errors.Is(err, apply.ErrRefused) || errors.Is(err, apply.ErrUnreachable) {
		t.Fatalf("apply: %v", err)
	}
	wantText(t, err.Error(), "apply shop 2.0.0: 2 of 3 objects are applied", "Deployment "+ns+"/web: ", "immutable")
	wantList(t, "created", change.Created, "ConfigMap "+ns+"/extra")
	if len(half.Items) != 4 || half.Applied != "" {
		t.Errorf("the inventory has to hold old and new: %+v", half)
	}
	if stored, _, err := b.hand.ReadInventory(ctx, "shop", ns); err != nil || asJSON(t, stored) != asJSON(t, half) {
		t.Errorf("stored %s, %v", asJSON(t, stored), err)
	}

	back, change, err := b.hand.Apply(ctx, good, half)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(change.Changed, "ConfigMap "+ns+"/config") || !good.AppliedBy(back) {
		t.Errorf("%+v", change)
	}
	pruned, err := b.hand.Prune(ctx, half, back, terms.Terms{})
	if err != nil {
		t.Fatal(err)
	}
	wantList(t, "deleted", pruned.Deleted, "ConfigMap "+ns+"/extra")
	if got := b.kubectl(t, "-n", ns, "get", "configmap", "config", "-o", "jsonpath={.data.key}"); got != "old" {
		t.Errorf("config is %q", got)
	}
}

// A spoke that was killed in the middle cannot know: with Unsure everything is sent again.
func TestUnsureSendsEverything(t *testing.T) {
	b := start(t)
	ns := b.NewNamespace(t)
	set := setOf(ns, "1.0.0", objects(t, configMap("a", "1"), configMap("b", "1")))
	inv := b.install(t, set)
	b.kubectl(t, "-n", ns, "patch", "configmap", "a", "-p", `{"data":{"key":"half of another release"}}`)
	_, change, err := b.hand.Apply(t.Context(), set, inv.Unsure())
	if err != nil || len(change.Changed) != 2 || len(change.Created) != 0 {
		t.Fatalf("%+v, %v", change, err)
	}
	if got := b.kubectl(t, "-n", ns, "get", "configmap", "a", "-o", "jsonpath={.data.key}"); got != "1" {
		t.Errorf("a is %q", got)
	}
}

// A set that moves to another namespace takes its inventory along.
func TestSetMovesToAnotherNamespace(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	from, to := b.NewNamespace(t), b.scratch(t)
	old := b.install(t, setOf(from, "1.0.0", objects(t, configMap("a", "1"))))
	now, _, err := b.hand.Apply(ctx, setOf(to, "1.0.0", objects(t, configMap("a", "1"))), old)
	if err != nil {
		t.Fatal(err)
	}
	change, err := b.hand.Prune(ctx, old, now, terms.Terms{})
	if err != nil {
		t.Fatal(err)
	}
	wantList(t, "deleted", change.Deleted, "ConfigMap "+from+"/a")
	if _, found, err := b.hand.ReadInventory(ctx, "shop", from); found || err != nil {
		t.Errorf("the inventory stayed behind: %v", err)
	}
	b.kubectl(t, "-n", to, "get", "configmap", "a", "wheelwright-shop")
}

// The API goes away in the middle: what is known is in the inventory, and the next attempt sends the
// rest. A spoke that died there reads the same from the cluster.
func TestAPIGoesAwayHalfWay(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	ns := b.NewNamespace(t)
	old := b.install(t, setOf(ns, "1.0.0", objects(t, configMap("config", "old"), deployment("web", "podinfo:1"))))
	next := setOf(ns, "2.0.0", objects(t, configMap("config", "new"), deployment("web", "podinfo:2"), deployment("more", "podinfo:2")))

	cut, err := apply.New(apply.Config{Kubeconfig: b.Kubeconfig, WrapTransport: func(rt http.RoundTripper) http.RoundTripper {
		return transport(func(r *http.Request) (*http.Response, error) {
			if strings.Contains(r.URL.Path, "/deployments/") {
				return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
			}
			return rt.RoundTrip(r)
		})
	}})
	if err != nil {
		t.Fatal(err)
	}
	half, change, err := cut.Apply(ctx, next, old)
	if !errors.Is(err, apply.ErrUnreachable) {
		t.Fatalf("%v", err)
	}
	wantText(t, err.Error(), "apply shop 2.0.0: 1 of 3 objects are applied, then: ", "connection refused")
	wantList(t, "changed", change.Changed, "ConfigMap "+ns+"/config")

	died, found, err := b.hand.ReadInventory(ctx, "shop", ns)
	if err != nil || !found || died.Applied != "" || len(died.Items) != 3 {
		t.Fatalf("%+v, %v", died, err)
	}
	_, change, err = b.hand.Apply(ctx, setOf(ns, "1.0.0", objects(t, configMap("config", "old"), deployment("web", "podinfo:1"))), died)
	if err != nil || len(change.Changed) != 2 {
		t.Errorf("back, after the spoke died: %+v, %v", change, err)
	}
	b.kubectl(t, "-n", ns, "patch", "configmap", "config", "-p", `{"data":{"key":"new"}}`)

	_, change, err = b.hand.Apply(ctx, next, half)
	if err != nil {
		t.Fatal(err)
	}
	wantList(t, "created", change.Created, "Deployment "+ns+"/more")
	wantList(t, "changed", change.Changed, "Deployment "+ns+"/web")
	wantList(t, "unchanged", change.Unchanged, "ConfigMap "+ns+"/config")
}

// What is sent is a copy: the release that the spoke keeps stays as the provider's overlay rendered it.
func TestSetIsNotChanged(t *testing.T) {
	b := start(t)
	ns := b.scratch(t)
	pod := strings.Replace(deployment("backend", "podinfo:1"), "      containers:", "      serviceAccountName: backend\n      containers:", 1)
	set := setOf(ns, "1.0.0", append(objects(t, pod), shop(t, ns, "blue")...))
	before, digest := asJSON(t, set.Objects), set.Digest()
	if _, err := b.hand.Check(t.Context(), set, apply.Inventory{}); err != nil {
		t.Fatal(err)
	}
	b.install(t, setOf(ns, "1.0.0", set.Objects[:4]))
	if after := asJSON(t, set.Objects); after != before || set.Digest() != digest {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
}

// 5,000 objects are one release like any other: installed, changed in one place, taken away but for one.
func TestFiveThousandObjects(t *testing.T) {
	n := 5000
	if os.Getenv("WHEELWRIGHT_FIGURES") == "" {
		n = 500
	}
	b := start(t)
	ns := b.scratch(t)
	var objs []*unstructured.Unstructured
	for i := range n {
		objs = append(objs, objects(t, configMap(fmt.Sprint("c", i), "1"))...)
	}
	begin := time.Now()
	set := setOf(ns, "1.0.0", objs)
	report, err := b.hand.Check(t.Context(), set, apply.Inventory{})
	if err != nil || report.Err() != nil {
		t.Fatal(err, report.Err())
	}
	inv, change, err := b.hand.Apply(t.Context(), set, apply.Inventory{})
	if err != nil || len(change.Created) != n {
		t.Fatalf("%d created: %v", len(change.Created), err)
	}
	fmt.Printf("FIGURE apply.objects-at-once %d objects dry-run and applied in %.0f s\n", n, time.Since(begin).Seconds())

	read, found, err := b.hand.ReadInventory(t.Context(), "shop", ns)
	if err != nil || !found || len(read.Items) != n || !set.AppliedBy(read) {
		t.Fatalf("the inventory on the cluster has %d items: %v", len(read.Items), err)
	}
	next := setOf(ns, "1.1.0", append(objects(t, configMap("c0", "2")), objs[1:]...))
	inv, change, err = b.hand.Apply(t.Context(), next, inv)
	if err != nil || len(change.Changed) != 1 || change.Requests > 4 {
		t.Fatalf("%d changed in %d requests: %v", len(change.Changed), change.Requests, err)
	}
	few, _, err := b.hand.Apply(t.Context(), setOf(ns, "1.2.0", next.Objects[:1]), inv)
	if err != nil {
		t.Fatal(err)
	}
	pruned, err := b.hand.Prune(t.Context(), inv, few, terms.Terms{})
	if err != nil || len(pruned.Deleted) != n-1 {
		t.Errorf("%d of %d are gone: %v", len(pruned.Deleted), n-1, err)
	}
}
