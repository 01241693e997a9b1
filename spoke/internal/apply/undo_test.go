package apply_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/spoke/internal/apply"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/terms"
)

// A first install that was refused half-way is taken away: what it made, and nothing that was there
// before. Data and namespaces stay.
func TestUndoOfAFirstInstall(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	ns := b.NewNamespace(t)
	b.kubectl(t, "-n", ns, "create", "configmap", "theirs", "--from-literal=key=by-hand")
	claim := "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data}\nspec: {accessModes: [ReadWriteOnce], storageClassName: none, resources: {requests: {storage: 1Gi}}}\n"
	if err := b.Apply("apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: few, namespace: " + ns + "}\nspec: {hard: {count/services: 1}}\n"); err != nil {
		t.Fatal(err)
	}
	b.Eventually(t, "the quota is counted", func() error {
		if b.kubectl(t, "-n", ns, "get", "resourcequota", "few", "-o", "jsonpath={.status.used}") == "" {
			return errors.New("not yet")
		}
		return nil
	})
	set := setOf(ns, "1", objects(t, configMap("ours", "1"), configMap("died", "1"), configMap("theirs", "1"), claim, service(""), strings.Replace(service(""), "web", "more", 1)))
	half, change, err := b.hand.Apply(ctx, set, apply.Inventory{})
	if !errors.Is(err, apply.ErrRefused) || len(change.Created) != 4 {
		t.Fatalf("%+v, %v", change, err)
	}
	wantText(t, err.Error(), "exceeded quota: few, requested: count/services=1", "kubectl -n "+ns+" describe resourcequota few")
	for n, i := range half.Items {
		if i.Made != (i.UID != "" && i.Name != "theirs") {
			t.Errorf("%s: made %v", i, i.Made)
		}
		if i.Name == "died" { // as the inventory has it when the spoke dies over the creation
			half.Items[n].UID, half.Items[n].Made = "", false
		}
	}
	change, err = b.hand.Undo(ctx, half)
	if err != nil {
		t.Fatal(err)
	}
	deleted := []string{"ConfigMap " + ns + "/died", "ConfigMap " + ns + "/ours"}
	for _, s := range []string{"more", "web"} {
		if strings.Contains(asJSON(t, change.Deleted), "Service "+ns+"/"+s) {
			deleted = append(deleted, "Service "+ns+"/"+s)
		}
	}
	if len(deleted) != 3 {
		t.Errorf("one Service was made: %q", change.Deleted)
	}
	wantList(t, "deleted", change.Deleted, deleted...)
	wantList(t, "kept", change.Kept, "ConfigMap "+ns+"/theirs", "PersistentVolumeClaim "+ns+"/data")
	if change, err = b.hand.Undo(ctx, half); err != nil || len(change.Deleted) != 0 {
		t.Errorf("again: %+v, %v", change, err)
	}
	b.kubectl(t, "-n", ns, "get", "configmap", "theirs")

	ns = b.NewNamespace(t)
	inv := b.install(t, setOf(ns, "1", objects(t, configMap("a", "1"), claim)))
	if change, err = b.hand.Undo(ctx, inv.Settled()); err != nil || change.Requests != 0 {
		t.Errorf("promoted: %+v, %v", change, err)
	}
	if change, err = b.hand.Undo(ctx, inv); err != nil {
		t.Fatal(err)
	}
	wantList(t, "deleted", change.Deleted, "ConfigMap "+ns+"/a")
	b.gone(t, "-n", ns, "get", "configmap", "wheelwright-shop", "--ignore-not-found")
}

// Without an inventory, or with a damaged one, the objects themselves say what is ours. Labels that
// somebody copied, or a controller, fool nobody.
func TestRebuildFromTheObjects(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	ns, other := b.NewNamespace(t), b.NewNamespace(t)
	name := unique("shop")
	set := setOf(ns, "1.0.0", append(shop(t, ns, "blue"), objects(t,
		strings.Replace(configMap("far", "1"), "name: far", "name: far, namespace: "+other, 1))...))
	set.Distribution = name
	inv := b.install(t, set)
	b.healthy(t, inv) // endpoints are there, with the Service's labels
	if err := b.Apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: copied, namespace: " + ns + ", labels: {wheelwright.dev/distribution: " + name + "}}\n"); err != nil {
		t.Fatal(err)
	}
	b.kubectl(t, "-n", ns, "patch", "configmap", "wheelwright-"+name, "--type=merge", "-p", `{"binaryData":{"inventory.json.gz":"aGVsbG8="}}`)
	if _, found, err := b.hand.ReadInventory(ctx, name, ns); found || !errors.Is(err, apply.ErrDamagedInventory) {
		t.Errorf("found %v, %v", found, err)
	}
	b.kubectl(t, "-n", ns, "delete", "configmap", "wheelwright-"+name)

	got, found, err := b.hand.Rebuild(ctx, name, ns)
	if err != nil || !found {
		t.Fatal(found, err)
	}
	if got.Version != "" || got.Applied != "" || got.Namespace != ns {
		t.Errorf("%+v", got)
	}
	uids := func(inv apply.Inventory) (all []string) {
		for _, i := range inv.Items {
			all = append(all, i.GroupVersionKind.String()+i.String()+i.UID+i.Owned)
		}
		slices.Sort(all)
		return all
	}
	wantList(t, "rebuilt", uids(got), uids(inv)...)

	next := setOf(ns, "2.0.0", without(set.Objects, "Deployment", "cache"))
	next.Distribution = name
	now, _, err := b.hand.Apply(ctx, next, got)
	if err != nil {
		t.Fatal(err)
	}
	change, err := b.hand.Prune(ctx, got, now, terms.Terms{})
	if err != nil {
		t.Fatal(err)
	}
	wantList(t, "deleted", change.Deleted, "Deployment "+ns+"/cache")
	if _, found, err := b.hand.Rebuild(ctx, unique("nobody"), ns); found || err != nil {
		t.Errorf("nothing there: %v, %v", found, err)
	}

	// A spoke with rights in one namespace only finds what is there.
	if err := b.Apply("apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: spoke, namespace: " + ns + "}\nroleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: admin}\nsubjects: [{kind: ServiceAccount, name: spoke, namespace: " + ns + "}]\n"); err != nil {
		t.Fatal(err)
	}
	narrow, _ := connect(t, apply.Config{Kubeconfig: as(t, b.Cluster, "system:serviceaccount:"+ns+":spoke")})
	if got, found, err = narrow.Rebuild(ctx, name, ns); err != nil || !found || len(got.Items) != 9 {
		t.Errorf("%d of 9 objects, %v", len(got.Items), err)
	}
}
