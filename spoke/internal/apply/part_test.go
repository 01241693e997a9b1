package apply

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"reflect"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/wheelwright-dev/wheelwright/spoke/internal/fields"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/terms"
)

func parsed(t *testing.T, text string) map[string]any {
	t.Helper()
	m := map[string]any{}
	if err := yaml.Unmarshal([]byte(text), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

const twoContainers = `
metadata: {annotations: {example.com/x: "1", example.com/x.y: "2", plain: "3"}, finalizers: [a.b/c, d]}
spec:
  replicas: 2
  containers:
  - {name: app, image: a, ports: [{containerPort: 80, protocol: TCP}, {containerPort: 80, protocol: UDP}]}
  - {name: side, image: b}
`

// A conflict's field is found in the object, whatever its keys have in them.
func TestResolve(t *testing.T) {
	obj := parsed(t, twoContainers)
	for text, want := range map[string][]string{
		`.spec.replicas`:                        {"spec", "replicas"},
		`spec.replicas`:                         {"spec", "replicas"},
		`.metadata.annotations.example.com/x`:   {"metadata", "annotations", "example.com/x"},
		`metadata.annotations[example.com/x]`:   {"metadata", "annotations", "example.com/x"},
		`.metadata.annotations.example.com/x.y`: {"metadata", "annotations", "example.com/x.y"},
		`.spec.containers[name="app"].image`:    {"spec", "containers", "name=app", "image"},
		`spec.containers[name=side].image`:      {"spec", "containers", "name=side", "image"},
		`.spec.containers[name="app"].ports[containerPort=80,protocol="UDP"].protocol`: {"spec", "containers", "name=app", "ports", "containerPort=80,protocol=UDP", "protocol"},
		`.metadata.finalizers[="a.b/c"]`:                                               {"metadata", "finalizers", "a.b/c"},
		`.spec.absent`:                                                                 nil,
		`.spec.containers[name="none"].image`:                                          nil,
		`.spec.containers[name="app`:                                                   nil,
		`.spec.replicasAndMore`:                                                        nil,
	} {
		if got := resolve(obj, text); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

func TestPruneAndGraft(t *testing.T) {
	ours, live := parsed(t, twoContainers), parsed(t, twoContainers)
	prune(ours, []string{"spec", "containers", "name=side"})
	prune(ours, []string{"metadata", "finalizers", "d"})
	prune(ours, []string{"metadata", "annotations", "none"})
	if got := fmt.Sprint(ours["spec"].(map[string]any)["containers"].([]any), ours["metadata"].(map[string]any)["finalizers"]); got !=
		"[map[image:a name:app ports:[map[containerPort:80 protocol:TCP] map[containerPort:80 protocol:UDP]]]] [a.b/c]" {
		t.Error(got)
	}
	graft(ours, live, []string{"spec", "containers", "name=side", "image"})
	graft(ours, live, []string{"metadata", "finalizers", "d"})
	graft(ours, live, []string{"spec", "none", "at", "all"})
	if !reflect.DeepEqual(ours, live) {
		t.Errorf("%v\n%v", ours, live)
	}
}

func entry(manager string, op metav1.ManagedFieldsOperationType, set string) metav1.ManagedFieldsEntry {
	return metav1.ManagedFieldsEntry{Manager: manager, Operation: op, FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(set)}
}

// Of what is left to others, only what is ours alone stays declared, as it is.
func TestLeave(t *testing.T) {
	managed := []metav1.ManagedFieldsEntry{
		entry("wheelwright", metav1.ManagedFieldsOperationApply, `{"f:spec":{"f:replicas":{},"f:containers":{"k:{\"name\":\"app\"}":{".":{},"f:name":{},"f:image":{},"f:cpu":{},"f:memory":{}}}}}`),
		entry("mesh", metav1.ManagedFieldsOperationUpdate, `{"f:spec":{"f:containers":{"k:{\"name\":\"app\"}":{"f:cpu":{}}}}}`),
	}
	live := parsed(t, "spec: {replicas: 7, containers: [{name: app, image: old, cpu: theirs, memory: old, defaulted: x}]}")
	for _, c := range []struct{ path, want string }{
		{"spec.replicas", "spec: {replicas: 7, containers: [{name: app, image: new, cpu: new, memory: new}, {name: more, image: new}]}"},
		{"spec.containers[name=app].cpu", "spec: {replicas: 2, containers: [{name: app, image: new, memory: new}, {name: more, image: new}]}"},
		{"spec.containers[name=app].memory", "spec: {replicas: 2, containers: [{name: app, image: new, cpu: new, memory: old}, {name: more, image: new}]}"},
		{"spec.containers[name=more].image", "spec: {replicas: 2, containers: [{name: app, image: new, cpu: new, memory: new}, {name: more, image: new}]}"},
		{"spec.containers[*].image", "spec: {replicas: 2, containers: [{name: app, image: old, cpu: new, memory: new}, {name: more, image: new}]}"},
		{"spec.containers[name=app]", "spec: {replicas: 2, containers: [{name: more, image: new}, {name: app, image: old, memory: old}]}"},
		{"spec.absent", "spec: {replicas: 2, containers: [{name: app, image: new, cpu: new, memory: new}, {name: more, image: new}]}"},
		{"other.new", "spec: {replicas: 2, containers: [{name: app, image: new, cpu: new, memory: new}, {name: more, image: new}]}"},
	} {
		path, err := terms.ParsePath(c.path)
		if err != nil {
			t.Fatal(err)
		}
		ours := parsed(t, "spec: {replicas: 2, containers: [{name: app, image: new, cpu: new, memory: new}, {name: more, image: new}]}")
		leave(ours, live, fields.Owned(managed, "wheelwright"), fields.Others(managed, "wheelwright"), path)
		if want := parsed(t, c.want); !reflect.DeepEqual(ours, want) {
			t.Errorf("%s:\n%v, want\n%v", c.path, ours, want)
		}
	}
}

// A key that the server has filled in was never ours, and is not declared with what is put back.
func TestLeaveDeclaresNoMoreThanBefore(t *testing.T) {
	managed := []metav1.ManagedFieldsEntry{
		entry("wheelwright", metav1.ManagedFieldsOperationApply, `{"f:spec":{"f:ports":{"k:{\"port\":80,\"protocol\":\"TCP\"}":{".":{},"f:name":{},"f:port":{}},"k:{\"port\":90,\"protocol\":\"UDP\"}":{".":{},"f:port":{},"f:protocol":{}}},"f:selector":{}}}`),
	}
	live := parsed(t, "spec: {selector: {app: theirs}, ports: [{name: http, port: 80, protocol: TCP, targetPort: 80}, {port: 90, protocol: UDP, targetPort: 90}]}")
	ours := parsed(t, "spec: {selector: {app: new}, ports: [{name: web, port: 81}]}")
	leave(ours, live, fields.Owned(managed, "wheelwright"), nil, terms.Path{"spec", "ports"})
	if want := parsed(t, "spec: {selector: {app: new}, ports: [{name: http, port: 80}, {port: 90, protocol: UDP}]}"); !reflect.DeepEqual(ours, want) {
		t.Errorf("%v, want\n%v", ours, want)
	}
}

// Nothing of 5,000 objects' identities can be packed well, and it fits all the same.
func TestInventoryOf5000ObjectsFits(t *testing.T) {
	random := func(n int) string {
		b := make([]byte, n)
		_, _ = rand.Read(b)
		return hex.EncodeToString(b)
	}
	inv := Inventory{Distribution: "shop", Namespace: "shop", Version: "1.0.0", Applied: random(16)}
	kinds := []schema.GroupVersionKind{{Version: "v1", Kind: "ConfigMap"}, {Group: "apps", Version: "v1", Kind: "Deployment"}, {Group: "rbac.authorization.k8s.io", Version: "v1", Kind: "RoleBinding"}}
	for n := range 5000 {
		r := random(16)
		inv.Items = append(inv.Items, Item{GroupVersionKind: kinds[n%3], Namespace: fmt.Sprint("team-", n%200), Name: fmt.Sprintf("service-%d-%s", n, random(5)),
			UID: fmt.Sprintf("%s-%s-%s-%s-%s", r[:8], r[8:12], r[12:16], r[16:20], r[20:]), Digest: random(16), Owned: random(8), Made: true})
	}
	raw, err := inventoryObject(inv)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("FIGURE apply.inventory-of-5000 %d KiB of the 1024 that a ConfigMap holds\n", len(raw)*3/4>>10)
	plain, err := json.Marshal(inv)
	if quick, e := inv.encode(); err != nil || e != nil || !bytes.Equal(plain, quick) {
		t.Errorf("encoded in two ways: %v, %v", err, e)
	}
	if back := inv.Settled(); back.Items[0].Made || !inv.Items[0].Made {
		t.Error("settled is a copy")
	}
}
