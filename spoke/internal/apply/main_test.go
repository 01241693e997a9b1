package apply_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"github.com/wheelwright-dev/wheelwright/integration/harness"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/apply"
)

func TestMain(m *testing.M) { harness.Main(m) }

// bench is a cluster with this package's hand on it.
type bench struct {
	*harness.Cluster
	hand     *apply.Cluster
	requests *atomic.Int64
}

func start(t *testing.T) bench {
	t.Helper()
	c := harness.Shared(t, 1)[0]
	hand, n := connect(t, apply.Config{Kubeconfig: c.Kubeconfig})
	return bench{c, hand, n}
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// connect makes a hand whose requests are counted.
func connect(t *testing.T, cfg apply.Config) (*apply.Cluster, *atomic.Int64) {
	t.Helper()
	n := new(atomic.Int64)
	cfg.WrapTransport = func(next http.RoundTripper) http.RoundTripper {
		return transport(func(r *http.Request) (*http.Response, error) {
			n.Add(1)
			return next.RoundTrip(r)
		})
	}
	hand, err := apply.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(hand.Close)
	return hand, n
}

// as is the cluster's kubeconfig for another user.
func as(t *testing.T, c *harness.Cluster, user string) string {
	t.Helper()
	cfg, err := clientcmd.LoadFromFile(c.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range cfg.AuthInfos {
		a.Impersonate = user
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*cfg, file); err != nil {
		t.Fatal(err)
	}
	return file
}

// unique is a name that no other test has.
func unique(prefix string) string { return fmt.Sprintf("%s-%x", prefix, time.Now().UnixNano()) }

func objects(t testing.TB, manifests ...string) []*unstructured.Unstructured {
	t.Helper()
	var objs []*unstructured.Unstructured
	for _, doc := range strings.Split(strings.Join(manifests, "\n---\n"), "\n---\n") {
		if strings.TrimSpace(doc) == "" {
			continue
		}
		raw, err := yaml.YAMLToJSON([]byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		u := &unstructured.Unstructured{}
		if err := u.UnmarshalJSON(raw); err != nil {
			t.Fatalf("%v in:\n%s", err, doc)
		}
		objs = append(objs, u)
	}
	return objs
}

func deployment(name, image string) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      containers:
      - {name: %[1]s, image: "%[2]s", ports: [{name: http, containerPort: 9898}]}
`, name, image)
}

func configMap(name, value string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\ndata: {key: %q}\n", name, value)
}

// shop is an application of ten objects of nine kinds.
func shop(t *testing.T, ns, colour string) []*unstructured.Unstructured {
	t.Helper()
	return objects(t,
		configMap("backend", colour),
		"apiVersion: v1\nkind: Secret\nmetadata: {name: backend}\nstringData: {password: correct-horse}\n",
		"apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: backend}\n",
		"apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: backend}\nrules: [{apiGroups: [\"\"], resources: [configmaps], verbs: [get]}]\n",
		fmt.Sprintf("apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: backend}\nroleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: backend}\nsubjects: [{kind: ServiceAccount, name: backend, namespace: %s}]\n", ns),
		"apiVersion: v1\nkind: Service\nmetadata: {name: backend}\nspec: {selector: {app: backend}, ports: [{name: http, port: 80, targetPort: http}]}\n",
		deployment("backend", "podinfo:3.1.0"),
		deployment("cache", "redis:7.0.0"),
		"apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: backend}\nspec: {scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: backend}, minReplicas: 1, maxReplicas: 3, metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 99}}}]}\n",
		"apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: backend}\nspec: {maxUnavailable: 1, selector: {matchLabels: {app: backend}}}\n",
	)
}

func setOf(ns, version string, objs []*unstructured.Unstructured) apply.Set {
	return apply.Set{Distribution: "shop", Namespace: ns, Version: version, Objects: objs}
}

func without(objs []*unstructured.Unstructured, kind, name string) []*unstructured.Unstructured {
	return slices.DeleteFunc(slices.Clone(objs), func(o *unstructured.Unstructured) bool { return o.GetKind() == kind && o.GetName() == name })
}

// install applies a set to an empty cluster.
func (b bench) install(t *testing.T, set apply.Set) apply.Inventory {
	t.Helper()
	inv, _, err := b.hand.Apply(t.Context(), set, apply.Inventory{})
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

// scratch is a namespace that does not exist, and will not after the test.
func (b bench) scratch(t *testing.T) string {
	t.Helper()
	ns := unique("apply")
	t.Cleanup(func() {
		if _, err := b.Kubectl("delete", "namespace", ns, "--wait=false", "--ignore-not-found"); err != nil {
			t.Log(err)
		}
	})
	return ns
}

func (b bench) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := b.Kubectl(args...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// everything lists the names of what a test might leave behind.
func (b bench) everything(t *testing.T) string {
	t.Helper()
	return b.kubectl(t, "get", "namespaces,configmaps,secrets,serviceaccounts,roles,rolebindings,clusterroles,services,deployments,replicasets,horizontalpodautoscalers,poddisruptionbudgets,customresourcedefinitions",
		"-A", "-o", `jsonpath={range .items[*]}{.kind}/{.metadata.namespace}/{.metadata.name}/{.metadata.uid}{"\n"}{end}`)
}

// wantNothingNew fails where something is on the cluster that was not there before. What goes meanwhile
// is an earlier test's.
func (b bench) wantNothingNew(t *testing.T, before string) {
	t.Helper()
	for line := range strings.Lines(b.everything(t) + "\n") {
		if !strings.Contains(before+"\n", line) {
			t.Fatalf("something was left behind: %s", line)
		}
	}
}

func wantList(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func wantText(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("want %q in: %s", p, text)
		}
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
