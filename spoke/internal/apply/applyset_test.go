package apply_test

import (
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/spoke/internal/apply"
)

// An installation is an ApplySet (KEP-3659) whose parent holds the inventory.
func TestApplySet(t *testing.T) {
	b := start(t)
	ns, other := b.NewNamespace(t), b.scratch(t)
	inv := b.install(t, setOf(ns, "1", objects(t, configMap("a", "1"), deployment("web", "podinfo:1"),
		"apiVersion: v1\nkind: Namespace\nmetadata: {name: "+other+"}\n",
		strings.Replace(configMap("far", "1"), "name: far", "name: far, namespace: "+other, 1))))
	sum := sha256.Sum256([]byte("wheelwright-shop." + ns + ".ConfigMap."))
	id := "applyset-" + base64.RawURLEncoding.EncodeToString(sum[:]) + "-v1"
	parent := func(path string) string {
		return b.kubectl(t, "-n", ns, "get", "configmap", "wheelwright-shop", "-o", "jsonpath={.metadata."+path+"}")
	}
	for path, want := range map[string]string{
		`labels.applyset\.kubernetes\.io/id`:                         id,
		`annotations.applyset\.kubernetes\.io/tooling`:               "wheelwright/v1",
		`annotations.applyset\.kubernetes\.io/contains-group-kinds`:  "ConfigMap,Deployment.apps,Namespace",
		`annotations.applyset\.kubernetes\.io/additional-namespaces`: other,
	} {
		if got := parent(path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	got := strings.Fields(b.kubectl(t, "get", "configmaps,deployments,namespaces", "-A", "-l", "applyset.kubernetes.io/part-of="+id, "-o", "name"))
	slices.Sort(got)
	wantList(t, "members", got, "configmap/a", "configmap/far", "deployment.apps/web", "namespace/"+other)

	now, _, err := b.hand.Apply(t.Context(), setOf(ns, "2", objects(t, configMap("a", "1"))), inv)
	if err != nil {
		t.Fatal(err)
	}
	if got := parent(`annotations.applyset\.kubernetes\.io/contains-group-kinds`); got != "ConfigMap,Deployment.apps,Namespace" {
		t.Errorf("what leaves is named until it is gone: %s", got)
	}
	if _, err := b.hand.Prune(t.Context(), inv, now, apply.Set{}.Terms); err != nil {
		t.Fatal(err)
	}
	if got := parent(`annotations.applyset\.kubernetes\.io/contains-group-kinds`); got != "ConfigMap" {
		t.Errorf("pruned: %s", got)
	}
}
