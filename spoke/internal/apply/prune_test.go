package apply_test

import (
	"fmt"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/wheelwright-dev/wheelwright/spoke/internal/terms"
)

// Objects that are applied, then left out: data and definitions stay.
func TestDataIsNeverPruned(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	ns, other := b.scratch(t), b.scratch(t)
	group := unique("x") + ".example.com"
	t.Cleanup(func() {
		_, _ = b.Kubectl("delete", "crd", "widgets."+group, "--wait=false", "--ignore-not-found")
		_, _ = b.Kubectl("delete", "pv", other, "--wait=false", "--ignore-not-found")
	})
	stays := objects(t, configMap("stays", "1"))
	goes := objects(t, configMap("goes", "1"), fmt.Sprintf(widgets, group),
		"apiVersion: v1\nkind: Namespace\nmetadata: {name: "+other+"}\n",
		"apiVersion: v1\nkind: PersistentVolume\nmetadata: {name: "+other+"}\nspec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], hostPath: {path: /tmp/none}, storageClassName: none}\n",
		"apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data}\nspec: {accessModes: [ReadWriteOnce], storageClassName: other, resources: {requests: {storage: 1Gi}}}\n")
	old := b.install(t, setOf(ns, "1.0.0", slices.Concat(stays, goes)))
	b.healthy(t, old) // a claim that waits for its first pod is no reason to wait

	now, _, err := b.hand.Apply(ctx, setOf(ns, "2.0.0", stays), old)
	if err != nil {
		t.Fatal(err)
	}
	change, err := b.hand.Prune(ctx, old, now, terms.Terms{})
	if err != nil {
		t.Fatal(err)
	}
	wantList(t, "deleted", change.Deleted, "ConfigMap "+ns+"/goes")
	wantList(t, "kept", change.Kept, "CustomResourceDefinition widgets."+group, "Namespace "+other, "PersistentVolume "+other, "PersistentVolumeClaim "+ns+"/data")
	b.kubectl(t, "get", "crd/widgets."+group, "namespace/"+other, "pv/"+other)
	b.kubectl(t, "-n", ns, "get", "pvc", "data")
}

// An object that was deleted and made again by somebody, labels copied, is theirs. One that the spoke
// died over while creating it has no recorded UID, and is ours by its field manager.
func TestPruneDeletesOnlyOurOwn(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	ns := b.NewNamespace(t)
	old := b.install(t, setOf(ns, "1.0.0", objects(t, configMap("stays", "1"), configMap("copied", "1"), configMap("unlabelled", "1"), configMap("half", "1"), configMap("lookalike", "1"))))
	b.kubectl(t, "-n", ns, "delete", "configmap", "copied", "lookalike")
	for _, name := range []string{"copied", "lookalike"} {
		if err := b.Apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + ", namespace: " + ns + ", labels: {wheelwright.dev/distribution: shop}}\n"); err != nil {
			t.Fatal(err)
		}
	}
	b.kubectl(t, "-n", ns, "label", "configmap", "unlabelled", "wheelwright.dev/distribution-")
	for n, i := range old.Items {
		if i.Name == "half" || i.Name == "lookalike" {
			old.Items[n].UID = ""
		}
	}
	now, _, err := b.hand.Apply(ctx, setOf(ns, "2.0.0", objects(t, configMap("stays", "1"))), old)
	if err != nil {
		t.Fatal(err)
	}
	change, err := b.hand.Prune(ctx, old, now, terms.Terms{})
	if err != nil {
		t.Fatal(err)
	}
	wantList(t, "deleted", change.Deleted, "ConfigMap "+ns+"/half")
	wantList(t, "kept", change.Kept, "ConfigMap "+ns+"/copied", "ConfigMap "+ns+"/lookalike", "ConfigMap "+ns+"/unlabelled")
}

// Another version of the same kind is the same object; a kind that is gone does not block.
func TestPruneLooksThroughVersions(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	ns := b.NewNamespace(t)
	hpa := "apiVersion: autoscaling/%s\nkind: HorizontalPodAutoscaler\nmetadata: {name: web}\nspec: {scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}, maxReplicas: 3}\n"
	set := func(version string) []*unstructured.Unstructured {
		return objects(t, configMap("a", "1"), fmt.Sprintf(hpa, version))
	}
	old := b.install(t, setOf(ns, "1.0.0", set("v1")))
	lost := old.Items[0]
	lost.Group, lost.Kind, lost.Name = "gone.example.com", "Gizmo", "g"
	old.Items = append(old.Items, lost)
	now, change, err := b.hand.Apply(ctx, setOf(ns, "2.0.0", set("v2")), old)
	if err != nil {
		t.Fatal(err)
	}
	wantList(t, "changed", change.Changed, "HorizontalPodAutoscaler "+ns+"/web")
	change, err = b.hand.Prune(ctx, old, now, terms.Terms{})
	if err != nil || len(change.Deleted) != 0 {
		t.Fatalf("%+v, %v", change, err)
	}
	b.kubectl(t, "-n", ns, "get", "hpa", "web")
}

// A namespace or a definition that is gone took its objects along: nothing is left to prune, and the rest
// is pruned all the same.
func TestPruneWhereTheRestIsGone(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	ns, other := b.NewNamespace(t), b.scratch(t)
	group := unique("x") + ".example.com"
	stays := objects(t, configMap("stays", "1"))
	old := b.install(t, setOf(ns, "1.0.0", slices.Concat(stays, objects(t, configMap("goes", "1"), fmt.Sprintf(widgets, group),
		"apiVersion: "+group+"/v1\nkind: Widget\nmetadata: {name: big}\nspec: {size: 3}\n",
		"apiVersion: v1\nkind: Namespace\nmetadata: {name: "+other+"}\n",
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: far, namespace: "+other+"}\n"))))
	b.kubectl(t, "delete", "crd", "widgets."+group)
	b.kubectl(t, "delete", "namespace", other)
	next := setOf(ns, "2.0.0", stays)
	report, err := b.hand.Check(ctx, next, old)
	if err != nil || report.Err() != nil || report.Deletions != 3 {
		t.Fatalf("%+v, %v", report, err)
	}
	now, _, err := b.hand.Apply(ctx, next, old)
	if err != nil {
		t.Fatal(err)
	}
	change, err := b.hand.Prune(ctx, old, now, terms.Terms{})
	if err != nil {
		t.Fatal(err)
	}
	wantList(t, "deleted", change.Deleted, "ConfigMap "+ns+"/goes")
}
