package apply_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/apply"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/terms"
)

// Everything that is wrong with a set is said at once, and nothing of it reaches the cluster.
func TestCheckNamesAllProblems(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	ns := b.scratch(t)
	set := setOf(ns, "1.0.0", objects(t,
		configMap("fine", "1"),
		"apiVersion: autoscaling/v2beta1\nkind: HorizontalPodAutoscaler\nmetadata: {name: backend, namespace: app}\nspec: {}\n",
		"apiVersion: extensions/v1beta1\nkind: Ingress\nmetadata: {name: old}\nspec: {}\n",
		"apiVersion: nobody.example.com/v1\nkind: Gizmo\nmetadata: {name: g}\n",
		"apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 123456}]}\n",
		strings.ReplaceAll(deployment("typo", "podinfo:1"), "containers:", "contaniers:"),
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: lost, namespace: nobody-makes-this}\n",
		configMap("twice", "1"), configMap("twice", "2"),
		"apiVersion: v1\nkind: Secret\nmetadata: {name: leaky}\ntype: kubernetes.io/dockerconfigjson\nstringData: {.dockerconfigjson: 'hunter2 is no JSON'}\n",
		"apiVersion: v1\nkind: Secret\nmetadata: {name: worse}\ndata: {password: [hunter2]}\n",
		"apiVersion: v1\nkind: Secret\nmetadata: {name: base}\ndata: {password: 'hunter2!'}\n",
	))
	before := b.everything(t)
	report, err := b.hand.Check(ctx, set, apply.Inventory{})
	if err != nil {
		t.Fatal(err)
	}
	text := report.Err().Error()
	wantText(t, text,
		"HorizontalPodAutoscaler app/backend: autoscaling/v2beta1 is not served by this cluster; it serves autoscaling/v2",
		"Ingress old: extensions/v1beta1 is not served by this cluster; it serves Ingress of networking.k8s.io/v1",
		"Gizmo g: nobody.example.com/v1 is not served by this cluster",
		"Service "+ns+"/web: spec.ports[0].port: Invalid value: must be between 1 and 65535",
		"Deployment "+ns+"/typo: ", "contaniers: field not declared in schema",
		"ConfigMap nobody-makes-this/lost: namespace nobody-makes-this does not exist and does not come with the release",
		"ConfigMap "+ns+"/twice: the set declares it twice",
		"Secret "+ns+"/leaky: ", "Secret "+ns+"/worse: ", "Secret "+ns+"/base: ",
	)
	if strings.Contains(text, "hunter2") {
		t.Errorf("a Secret's value is in: %s", text)
	}
	if strings.Contains(text, "wheelwright-check-") {
		t.Errorf("the throw-away name is in: %s", text)
	}
	if len(report.Problems) != 10 || !errors.Is(report.Err(), apply.ErrRefused) {
		for _, p := range report.Problems {
			t.Log(p)
		}
		t.Errorf("%d problems, want 10", len(report.Problems))
	}
	b.wantNothingNew(t, before)

	if _, change, err := b.hand.Apply(ctx, set, apply.Inventory{}); !errors.Is(err, apply.ErrRefused) || len(change.Created) != 0 {
		t.Errorf("apply: %+v, %v", change, err)
	}
	b.gone(t, "get", "namespace", ns, "-o", "name", "--ignore-not-found")
}

// What the spoke lacks is told as the rule to add. A set that comes with its own role is no problem
// for who may grant it.
func TestMissingPermissionIsNamed(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	ns := b.NewNamespace(t)
	if err := b.Apply(`apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: spoke, namespace: ` + ns + `}
rules:
- {apiGroups: [""], resources: [configmaps, secrets, serviceaccounts, services], verbs: [get, list, watch, create, patch, delete]}
- {apiGroups: [rbac.authorization.k8s.io], resources: [roles, rolebindings], verbs: [get, list, watch, create, patch, delete]}
- {apiGroups: [policy], resources: [poddisruptionbudgets], verbs: [get, list, create, patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: spoke, namespace: ` + ns + `}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: spoke}
subjects: [{kind: ServiceAccount, name: spoke, namespace: ` + ns + `}]
`); err != nil {
		t.Fatal(err)
	}
	hand, _ := connect(t, apply.Config{Kubeconfig: as(t, b.Cluster, "system:serviceaccount:"+ns+":spoke")})
	set := setOf(ns, "1.0.0", shop(t, ns, "blue"))
	report, err := hand.Check(ctx, set, apply.Inventory{})
	if err != nil {
		t.Fatal(err)
	}
	text := report.Err().Error()
	wantText(t, text,
		"Deployment in namespace "+ns+": system:serviceaccount:"+ns+`:spoke may not get, list, watch, create, patch, delete deployments of API group "apps" in namespace `+ns,
		`add to its Role in namespace `+ns+` the rule apiGroups: ["apps"], resources: ["deployments"], verbs: ["get", "list", "watch", "create", "patch", "delete"]`,
		"HorizontalPodAutoscaler in namespace "+ns+": ",
		"PodDisruptionBudget in namespace "+ns+": system:serviceaccount:"+ns+`:spoke may not watch, delete poddisruptionbudgets`)
	if len(report.Problems) != 3 {
		t.Errorf("%d problems, want 3: %s", len(report.Problems), text)
	}
	wantList(t, "unchecked", report.Unchecked, "RoleBinding "+ns+"/backend: Role "+ns+"/backend comes with the release")
	if _, _, err := hand.Apply(ctx, set, apply.Inventory{}); !errors.Is(err, apply.ErrRefused) {
		t.Errorf("apply: %v", err)
	} else {
		wantText(t, err.Error(), "6 of 10 objects are applied", "Deployment "+ns+"/cache: ", "add to its Role")
	}
	if _, err := hand.Health(ctx, b.install(t, set), nil); !errors.Is(err, apply.ErrRefused) {
		t.Errorf("health: %v", err)
	}

	nobody, _ := connect(t, apply.Config{Kubeconfig: as(t, b.Cluster, "nobody")})
	report, err = nobody.Check(ctx, setOf(unique("never"), "1.0.0", objects(t, configMap("a", "1"))), apply.Inventory{})
	if err != nil {
		t.Fatal(err)
	}
	wantText(t, report.Err().Error(), "nobody may not get, list, watch, create, patch, delete configmaps")
}

// An API server that is away is told apart from one that says no.
func TestAPIServerAway(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	file := filepath.Join(t.TempDir(), "kubeconfig")
	writeFile(t, file, `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://`+addr+`"}}]
users: [{name: u, user: {token: hunter2}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`)
	hand, _ := connect(t, apply.Config{Kubeconfig: file})
	ctx := t.Context()
	set := setOf("app", "1.0.0", objects(t, configMap("a", "1")))
	inv := apply.Inventory{Distribution: "shop", Namespace: "app", Version: "0.9.0", Items: []apply.Item{{Namespace: "app", Name: "a", UID: "1"}}}
	inv.Items[0].Version, inv.Items[0].Kind = "v1", "ConfigMap"
	check := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, apply.ErrUnreachable) || errors.Is(err, apply.ErrRefused) {
			t.Errorf("%s: %v", what, err)
			return
		}
		wantText(t, err.Error(), addr, "connection refused", "kubectl get --raw /readyz")
	}
	_, err = hand.Check(ctx, set, apply.Inventory{})
	check("check", err)
	got, _, err := hand.Apply(ctx, set, inv)
	check("apply", err)
	if asJSON(t, got) != asJSON(t, inv) {
		t.Errorf("nothing was sent, yet the inventory changed: %s", asJSON(t, got))
	}
	_, err = hand.Prune(ctx, inv, apply.Inventory{Items: []apply.Item{{Name: "b"}}}, terms.Terms{})
	check("prune", err)
	report, err := hand.Health(ctx, inv, nil)
	check("health", err)
	if report.Health != fleet.HealthUnknown {
		t.Errorf("health %s", report.Health)
	}
	_, _, err = hand.Drift(ctx, set, inv, true)
	check("drift", err)
	_, _, err = hand.ReadInventory(ctx, "shop", "app")
	check("inventory", err)
	if v := hand.Version(ctx); v != "" {
		t.Errorf("version %q", v)
	}
}

func TestVersionAndCredentials(t *testing.T) {
	b := start(t)
	if v := b.hand.Version(t.Context()); !strings.HasPrefix(v, "v1.") {
		t.Errorf("version %q", v)
	}
	if _, found, err := b.hand.ReadInventory(t.Context(), "shop", unique("none")); found || err != nil {
		t.Errorf("an inventory that is not there: %v %v", found, err)
	}
	_, err := apply.New(apply.Config{Kubeconfig: filepath.Join(t.TempDir(), "none")})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no kubeconfig: %v", err)
	}
	if _, err = apply.New(apply.Config{Kubeconfig: b.Kubeconfig, Context: "nope"}); err == nil || !strings.Contains(err.Error(), "nope") {
		t.Errorf("no such context: %v", err)
	}
}

// A namespace that is on its way out is waited for, and named when it does not go.
func TestNamespaceOnItsWayOut(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	ns := b.scratch(t)
	b.kubectl(t, "create", "namespace", ns)
	if err := b.Apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: holds, namespace: " + ns + ", finalizers: [test.wheelwright.dev/hold]}\n"); err != nil {
		t.Fatal(err)
	}
	b.kubectl(t, "delete", "namespace", ns, "--wait=false")
	hasty, _ := connect(t, apply.Config{Kubeconfig: b.Kubeconfig, Patience: 300 * time.Millisecond})
	set := setOf(ns, "1.0.0", objects(t, configMap("a", "1")))
	report, err := hasty.Check(ctx, set, apply.Inventory{})
	if err != nil {
		t.Fatal(err)
	}
	wantText(t, report.Err().Error(), "namespace "+ns+" is being deleted; wait until it is gone: kubectl get namespace "+ns)
	if _, _, err := hasty.Apply(ctx, set, apply.Inventory{}); !errors.Is(err, apply.ErrRefused) {
		t.Errorf("apply: %v", err)
	} else {
		wantText(t, err.Error(), "namespace "+ns+" is being deleted")
	}

	done := make(chan error, 1)
	go func() {
		_, _, err := b.hand.Apply(ctx, set, apply.Inventory{})
		done <- err
	}()
	b.kubectl(t, "-n", ns, "patch", "configmap", "holds", "--type=merge", "-p", `{"metadata":{"finalizers":[]}}`)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	b.kubectl(t, "-n", ns, "get", "configmap", "a")
}
