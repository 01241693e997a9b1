package apply_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/wheelwright-dev/wheelwright/spoke/internal/apply"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/terms"
)

// written are the writes that reach the API server, each with whom it was made as.
type written struct {
	mu  sync.Mutex
	all []string // METHOD PATH AS
}

func (w *written) RoundTripper(next http.RoundTripper) http.RoundTripper {
	return transport(func(r *http.Request) (*http.Response, error) {
		if r.Method != http.MethodGet && !strings.Contains(r.URL.Path, "/selfsubject") {
			w.mu.Lock()
			w.all = append(w.all, fmt.Sprintf("%s %s %s", r.Method, r.URL.Path, strings.Join(r.Header.Values("Impersonate-User"), "+")))
			w.mu.Unlock()
		}
		return next.RoundTrip(r)
	})
}

// token is a kubeconfig with nothing but a token of a service account.
func (b bench) token(t *testing.T, namespace, account string) string {
	t.Helper()
	config := b.RESTConfig()
	file := filepath.Join(t.TempDir(), "kubeconfig")
	writeFile(t, file, fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: %q, certificate-authority-data: %s}}]
users: [{name: u, user: {token: %s}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
current-context: c
`, config.Host, base64.StdEncoding.EncodeToString(config.CAData), b.kubectl(t, "-n", namespace, "create", "token", account, "--duration=1h")))
	return file
}

// bounded applies deploy/spoke-bounded and makes the hand of the spoke that it describes: its token, and its account.
func (b bench) bounded(t *testing.T) (*apply.Cluster, *written) {
	t.Helper()
	const dir = "../../../deploy/spoke-bounded"
	b.kubectl(t, "apply", "-k", dir)
	t.Cleanup(func() {
		if _, err := b.Kubectl("delete", "-k", dir, "--ignore-not-found", "--wait=true", "--timeout=60s"); err != nil {
			t.Error(err)
		}
	})
	w := &written{}
	hand, err := apply.New(apply.Config{Kubeconfig: b.token(t, "wheelwright", "spoke"), Patience: 2 * time.Second, WrapTransport: w.RoundTripper,
		Account: func(string) (apply.Identity, error) {
			return apply.Identity{Namespace: "wheelwright", Name: "shop-release"}, nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(hand.Close)
	return hand, w
}

// A spoke with the rights of deploy/spoke-bounded installs, upgrades, recreates, prunes, puts back, and takes half an
// install away, all as the account: whatever is not the inventory's would be refused to the spoke itself.
func TestEveryWriteIsTheAccounts(t *testing.T) {
	b := start(t)
	hand, w := b.bounded(t)
	all := slices.DeleteFunc(shop(t, "shop", "green"), func(o *unstructured.Unstructured) bool { return strings.HasPrefix(o.GetKind(), "Role") })
	all = append(all, objects(t, "apiVersion: batch/v1\nkind: Job\nmetadata: {name: migrate}\nspec: {template: {spec: {restartPolicy: Never, containers: [{name: a, image: \"a:1\"}]}}}\n")...)
	set := setOf("shop", "1.0.0", all)
	set.Terms = terms.Default()
	set.Terms.Recreate = []terms.Pattern{{Kind: "Job"}}
	report, err := hand.Check(t.Context(), set, apply.Inventory{})
	if err != nil || report.Err() != nil {
		t.Fatal(err, report.Err())
	}
	inv, change, err := hand.Apply(t.Context(), set, apply.Inventory{})
	if err != nil || len(change.Created) != len(all) {
		t.Fatal(err, change)
	}

	next := set
	next.Version, next.Objects = "1.1.0", without(shopIn(t, all, "yellow"), "PodDisruptionBudget", "backend")
	for n, o := range next.Objects {
		if o.GetKind() == "Job" {
			next.Objects[n] = o.DeepCopy()
			if err := unstructured.SetNestedField(next.Objects[n].Object, "changed", "spec", "template", "metadata", "annotations", "changed"); err != nil {
				t.Fatal(err)
			}
		}
	}
	report, err = hand.Check(t.Context(), next, inv)
	if err != nil || report.Err() != nil {
		t.Fatal(err, report.Err())
	}
	newer, change, err := hand.Apply(t.Context(), next, inv)
	if err != nil || len(change.Recreated) != 1 {
		t.Fatal(err, change)
	}
	if change, err = hand.Prune(t.Context(), inv, newer, next.Terms); err != nil || len(change.Deleted) != 1 {
		t.Fatal(err, change)
	}
	b.kubectl(t, "-n", "shop", "set", "image", "deployment/cache", "*=example.com/by-hand:1")
	b.kubectl(t, "-n", "shop", "delete", "service", "backend")
	newer, drifted, err := hand.Drift(t.Context(), next, newer, true)
	if err != nil || len(drifted) != 2 || !drifted[0].Corrected || !drifted[1].Corrected {
		t.Fatal(err, drifted)
	}
	if _, err := hand.Unstick(t.Context(), newer, true); err != nil {
		t.Fatal(err)
	}
	for n := range newer.Items { // as half an install leaves them
		newer.Items[n].Made = true
	}
	if change, err = hand.Undo(t.Context(), newer); err != nil || len(change.Deleted) != len(next.Objects) {
		t.Fatal(err, change)
	}

	const account = "system:serviceaccount:wheelwright:shop-release"
	asAccount := 0
	for _, line := range w.all {
		inventory := strings.Contains(line, "/configmaps/wheelwright-shop ")
		if inventory == strings.HasSuffix(line, " "+account) {
			t.Errorf("a write as the wrong one: %q", line)
		}
		if !inventory {
			asAccount++
		}
	}
	if asAccount < 3*len(all) {
		t.Errorf("%d writes as the account only: %q", asAccount, w.all)
	}
}

// shopIn is a set with another value in its ConfigMap.
func shopIn(t *testing.T, all []*unstructured.Unstructured, colour string) []*unstructured.Unstructured {
	t.Helper()
	return append(without(all, "ConfigMap", "backend"), objects(t, configMap("backend", colour))...)
}

// Whatever the account may not do is refused, with the account and the rule to add, before anything is touched: the
// spoke's own rights take the place of none of it. So it is with what would give it more rights.
func TestWhatTheAccountMayNotDo(t *testing.T) {
	b := start(t)
	hand, w := b.bounded(t)
	const account = "system:serviceaccount:wheelwright:shop-release"
	for _, c := range []struct {
		what, text string
		want       []string
	}{
		{"another namespace", "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: default}}", []string{account + " may not create, patch, delete configmaps", `in namespace default; add to its Role in namespace default the rule apiGroups: [""], resources: ["configmaps"], verbs: ["create", "patch", "delete"]`}},
		{"a kind that it has no rule for", "{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {name: a}, spec: {controller: example.com/a}}", []string{account + " may not create, patch, delete ingressclasses", "ClusterRole"}},
		{"its own namespace", "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {pod-security.kubernetes.io/enforce: privileged}}}", []string{account + " may not create, patch namespaces"}},
		{"a namespace of a new name", "{apiVersion: v1, kind: Namespace, metadata: {name: shop-more}}", []string{account + " may not create, patch namespaces"}},
		{"more rights", "{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: a}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}, subjects: [{kind: ServiceAccount, name: shop-release, namespace: wheelwright}]}", []string{account + " may not create, patch, delete rolebindings"}},
		{"the spoke's account", "{apiVersion: v1, kind: ServiceAccount, metadata: {name: spoke, namespace: wheelwright}}", []string{account + " may not create, patch, delete serviceaccounts"}},
	} {
		set := setOf("shop", "1.0.0", objects(t, configMap("before", "x"), c.text))
		report, err := hand.Check(t.Context(), set, apply.Inventory{})
		if err != nil || report.Err() == nil {
			t.Errorf("%s: %v, %+v", c.what, err, report)
			continue
		}
		wantText(t, report.Err().Error(), c.want...)
		if _, _, err := hand.Apply(t.Context(), set, apply.Inventory{}); !errors.Is(err, apply.ErrRefused) || !strings.Contains(err.Error(), account) {
			t.Errorf("%s, not checked first: %v", c.what, err)
		}
	}
	for _, line := range w.all {
		if !strings.HasSuffix(line, " "+account) && !strings.Contains(line, "/configmaps/wheelwright-shop ") {
			t.Errorf("a write as the spoke: %q", line)
		}
	}

	// Its Namespace by name, and no other.
	if err := b.Cluster.Apply(`{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: wheelwright-test-space}, rules: [{apiGroups: [""], resources: [namespaces], resourceNames: [shop], verbs: [create, patch]}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: wheelwright-test-space}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: wheelwright-test-space}, subjects: [{kind: ServiceAccount, name: shop-release, namespace: wheelwright}]}
`); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.kubectl(t, "delete", "clusterrole,clusterrolebinding", "wheelwright-test-space") })
	for name, may := range map[string]bool{"shop": true, "shop-more": false} {
		set := setOf("shop", "1.0.0", objects(t, "{apiVersion: v1, kind: Namespace, metadata: {name: "+name+"}}"))
		report, err := hand.Check(t.Context(), set, apply.Inventory{})
		if err != nil || (report.Err() == nil) != may {
			t.Errorf("Namespace %s: %v, %v", name, err, report.Err())
		}
		if _, _, err := hand.Apply(t.Context(), set, apply.Inventory{}); (err == nil) != may {
			t.Errorf("Namespace %s: %v", name, err)
		}
	}

	// With the right to bindings, the API server itself keeps it from granting what it does not have.
	if err := b.Cluster.ApplyIn("shop", `{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: binds}, rules: [{apiGroups: [rbac.authorization.k8s.io], resources: [roles, rolebindings], verbs: [create, patch, delete]}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: binds}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: binds}, subjects: [{kind: ServiceAccount, name: shop-release, namespace: wheelwright}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: reads}, rules: [{apiGroups: [rbac.authorization.k8s.io], resources: [roles, rolebindings], verbs: [get, list, watch]}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: reads}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reads}, subjects: [{kind: ServiceAccount, name: spoke, namespace: wheelwright}]}
`); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"escalates": "{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: escalates}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}, subjects: [{kind: ServiceAccount, name: default}]}",
		"widens":    `{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: widens}, rules: [{apiGroups: ["*"], resources: ["*"], verbs: ["*"]}]}`,
	} {
		set := setOf("shop", "1.0.0", objects(t, text))
		report, err := hand.Check(t.Context(), set, apply.Inventory{})
		if err != nil || report.Err() == nil || !strings.Contains(report.Err().Error(), "attempting to grant RBAC permissions not currently held") {
			t.Errorf("%s: %v, %v", name, err, report.Err())
		}
		if _, _, err := hand.Apply(t.Context(), set, apply.Inventory{}); !errors.Is(err, apply.ErrRefused) {
			t.Errorf("%s, not checked first: %v", name, err)
		}
		if out, _ := b.Kubectl("-n", "shop", "get", "role,rolebinding", name, "--ignore-not-found", "-o", "name"); out != "" {
			t.Errorf("it is there: %s", out)
		}
	}
}

// Who may not act as the account is told so with the rule to add; and where the header gets lost on the way, so that
// the API server would take the writes for the spoke's own, none is made.
func TestAnAccountThatIsNotTaken(t *testing.T) {
	b := start(t)
	home := b.NewNamespace(t)
	b.kubectl(t, "-n", home, "create", "serviceaccount", "spoke")
	set := setOf(home, "1.0.0", objects(t, configMap("a", "x")))
	account := func(string) (apply.Identity, error) { return apply.Identity{Namespace: home, Name: "release"}, nil }
	tries := func(hand *apply.Cluster, want ...string) {
		t.Helper()
		inv := apply.Inventory{Distribution: "shop", Namespace: home, Items: []apply.Item{{Namespace: home, Name: "a"}}}
		for what, err := range map[string]error{
			"Check": errOf2(hand.Check(t.Context(), set, apply.Inventory{})), "Apply": errOf3(hand.Apply(t.Context(), set, apply.Inventory{})),
			"Drift": errOf3(hand.Drift(t.Context(), set, inv, true)), "Prune": errOf2(hand.Prune(t.Context(), inv, inv, terms.Default())),
			"Undo": errOf2(hand.Undo(t.Context(), inv)), "Unstick": errOf2(hand.Unstick(t.Context(), inv, true)),
		} {
			if !errors.Is(err, apply.ErrRefused) {
				t.Errorf("%s: %v", what, err)
				continue
			}
			wantText(t, err.Error(), want...)
		}
		if out := b.kubectl(t, "-n", home, "get", "configmaps", "a", "wheelwright-shop", "--ignore-not-found", "-o", "name"); out != "" {
			t.Errorf("something was written: %s", out)
		}
	}
	spoke, _ := connect(t, apply.Config{Kubeconfig: b.token(t, home, "spoke"), Account: account})
	tries(spoke, "system:serviceaccount:"+home+":spoke may not impersonate service account "+home+"/release, as which spoke.yaml has it write",
		`resources: ["serviceaccounts"], resourceNames: ["release"], verbs: ["impersonate"]`, "kubectl auth can-i impersonate serviceaccount/release -n "+home)

	deaf, err := apply.New(apply.Config{Kubeconfig: b.Kubeconfig, Account: account, WrapTransport: func(next http.RoundTripper) http.RoundTripper {
		return transport(func(r *http.Request) (*http.Response, error) {
			r = r.Clone(r.Context())
			r.Header.Del("Impersonate-User")
			return next.RoundTrip(r)
		})
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(deaf.Close)
	tries(deaf, "takes them for admin", "drops the header Impersonate-User", "kubectl auth whoami --as=system:serviceaccount:"+home+":release")

	gone, _ := connect(t, apply.Config{Kubeconfig: b.Kubeconfig, Account: func(d string) (apply.Identity, error) { return apply.Identity{}, fmt.Errorf("%s is gone", d) }})
	if _, _, err := gone.Apply(t.Context(), set, apply.Inventory{}); err == nil || !strings.Contains(err.Error(), "shop is gone") {
		t.Errorf("a distribution without a known account is written: %v", err)
	}
}

func errOf2[A any](_ A, err error) error         { return err }
func errOf3[A, B any](_ A, _ B, err error) error { return err }

// A kubeconfig that impersonates somebody itself lends the account none of that one's groups.
func TestNoGroupsAreLent(t *testing.T) {
	b := start(t)
	home := b.NewNamespace(t)
	text, err := os.ReadFile(as(t, b.Cluster, "admin"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	writeFile(t, file, strings.Replace(string(text), "as: admin", "as: admin\n    as-groups: [system:masters]", 1))
	hand, _ := connect(t, apply.Config{Kubeconfig: file, Account: func(string) (apply.Identity, error) { return apply.Identity{Namespace: home, Name: "nobody"}, nil }})
	set := setOf(home, "1.0.0", objects(t, configMap("a", "x")))
	if report, err := hand.Check(t.Context(), set, apply.Inventory{}); err != nil || report.Err() == nil {
		t.Errorf("an account without any right: %v, %v", err, report.Err())
	}
	if _, _, err := hand.Apply(t.Context(), set, apply.Inventory{}); !errors.Is(err, apply.ErrRefused) {
		t.Errorf("it has somebody's groups: %v", err)
	}
}

// The namespace of a subscription is not an account's to make, and the error says what to do.
func TestTheNamespaceIsNotThere(t *testing.T) {
	b := start(t)
	ns := b.scratch(t)
	hand, _ := connect(t, apply.Config{Kubeconfig: b.Kubeconfig, Account: func(string) (apply.Identity, error) { return apply.Identity{Namespace: "default", Name: "nobody"}, nil }})
	set := setOf(ns, "1.0.0", objects(t, configMap("a", "x")))
	report, err := hand.Check(t.Context(), set, apply.Inventory{})
	if err != nil || report.Err() == nil {
		t.Fatal(err, report.Err())
	}
	_, _, applied := hand.Apply(t.Context(), set, apply.Inventory{})
	for _, err := range []error{report.Err(), applied} {
		wantText(t, err.Error(), "Namespace "+ns+": it does not exist, and system:serviceaccount:default:nobody may not make it", "kubectl create namespace "+ns)
	}
	if out := b.kubectl(t, "get", "namespace", ns, "--ignore-not-found", "-o", "name"); out != "" {
		t.Errorf("it was made: %s", out)
	}
}
