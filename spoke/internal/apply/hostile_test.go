package apply_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"

	"github.com/wheelwright-dev/wheelwright/spoke/internal/apply"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/envelope"
)

// The kinds of others that clusters have: group, then KIND, or KIND! where it has no namespace.
const foreignKinds = `
cert-manager.io             Certificate CertificateRequest Issuer ClusterIssuer!
acme.cert-manager.io        Order Challenge
monitoring.coreos.com       Alertmanager AlertmanagerConfig PodMonitor Probe Prometheus PrometheusRule ServiceMonitor ThanosRuler
networking.istio.io         VirtualService DestinationRule Gateway ServiceEntry Sidecar EnvoyFilter WorkloadEntry
security.istio.io           AuthorizationPolicy PeerAuthentication RequestAuthentication
kyverno.io                  ClusterPolicy! Policy PolicyException
external-secrets.io         ExternalSecret SecretStore ClusterSecretStore! ClusterExternalSecret!
bitnami.com                 SealedSecret
traefik.io                  IngressRoute Middleware TLSOption
policy.linkerd.io           Server ServerAuthorization MeshTLSAuthentication
postgresql.cnpg.io          Cluster Backup Pooler
kafka.strimzi.io            Kafka KafkaTopic KafkaUser
velero.io                   Restore Schedule BackupStorageLocation
apiextensions.crossplane.io Composition! CompositeResourceDefinition!
pkg.crossplane.io           Provider! Function!
cilium.io                   CiliumNetworkPolicy CiliumClusterwideNetworkPolicy!
crd.projectcalico.org       GlobalNetworkPolicy! IPPool!
longhorn.io                 Volume Engine
ceph.rook.io                CephCluster CephBlockPool
constraints.gatekeeper.sh   K8sRequiredLabels!
templates.gatekeeper.sh     ConstraintTemplate!
tekton.dev                  Task Pipeline PipelineRun
serving.knative.dev         Revision Route
operators.coreos.com        ClusterServiceVersion Subscription
`

// definitions of kinds of others, at most so many, with the object of each.
func foreign(most int) (definitions, objects string) {
	var crds, objs []string
	for line := range strings.Lines(foreignKinds) {
		group, kinds, _ := strings.Cut(strings.TrimSpace(line), " ")
		for kind := range strings.FieldsSeq(kinds) {
			if len(crds) == most {
				break
			}
			kind, global := strings.CutSuffix(kind, "!")
			scope, where := "Namespaced", ", namespace: NAMESPACE"
			if global {
				scope, where = "Cluster", ""
			}
			plural := strings.ToLower(kind) + "s"
			crds = append(crds, fmt.Sprintf(`{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: %[1]s.%[2]s, labels: {test: hostile}}, spec: {group: %[2]s, scope: %[3]s, names: {kind: %[4]s, plural: %[1]s}, versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]}}`, plural, group, scope, kind))
			objs = append(objs, fmt.Sprintf(`{apiVersion: %s/v1, kind: %s, metadata: {name: NAME%s}, spec: {mine: now}}`, group, kind, where))
		}
	}
	return strings.Join(crds, "\n---\n"), strings.Join(objs, "\n---\n")
}

// admin reads and deletes what it likes.
type admin struct {
	dyn   dynamic.Interface
	kinds map[schema.GroupVersionKind]schema.GroupVersionResource
	space map[schema.GroupVersionKind]bool // it is namespaced
}

func newAdmin(t *testing.T, b bench) *admin {
	t.Helper()
	cfg := b.RESTConfig()
	cfg.QPS = -1
	cfg.UserAgent = "wheelwright-test-admin"
	dyn, err := dynamic.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	disc, err := discovery.NewDiscoveryClientForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	groups, err := restmapper.GetAPIGroupResources(disc)
	if err != nil {
		t.Fatal(err)
	}
	a := &admin{dyn: dyn, kinds: map[schema.GroupVersionKind]schema.GroupVersionResource{}, space: map[schema.GroupVersionKind]bool{}}
	for _, g := range groups {
		for version, all := range g.VersionedResources {
			for _, r := range all {
				if gv := (schema.GroupVersion{Group: g.Group.Name, Version: version}); !strings.Contains(r.Name, "/") {
					a.kinds[gv.WithKind(r.Kind)], a.space[gv.WithKind(r.Kind)] = gv.WithResource(r.Name), r.Namespaced
				}
			}
		}
	}
	return a
}

func (a *admin) at(o *unstructured.Unstructured) dynamic.ResourceInterface {
	r := a.dyn.Resource(a.kinds[o.GroupVersionKind()])
	if a.space[o.GroupVersionKind()] {
		return r.Namespace(o.GetNamespace())
	}
	return r
}

// there reads an object back.
func (a *admin) there(ctx context.Context, o *unstructured.Unstructured) (bool, error) {
	_, err := a.at(o).Get(ctx, o.GetName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// One hostile object of each of 120 kinds, outside of what the provider allows: the spoke's own look refuses it
// where the account could do anything, and the API server refuses it where the spoke does not look. Without
// either, it is on the cluster.
func TestEnvelopeByKinds(t *testing.T) {
	b := start(t)
	more := 6 // kinds of others; with those of Kubernetes' own enough of each sort
	if os.Getenv("WHEELWRIGHT_FIGURES") != "" {
		more = 200
	}
	definitions, objs := foreign(more)
	if err := b.Cluster.Apply(definitions); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := b.Kubectl("delete", "crd", "-l", "test=hostile", "--wait=false"); err != nil {
			t.Error(err)
		}
	})
	b.kubectl(t, "wait", "--for=condition=Established", "--timeout=60s", "crd", "-l", "test=hostile")
	own, err := os.ReadFile("testdata/hostile.yaml")
	if err != nil {
		t.Fatal(err)
	}
	home, victim, name := b.NewNamespace(t), b.NewNamespace(t), unique("hostile")
	all := objects(t, strings.NewReplacer("NAMESPACE", victim, "NAME", name).Replace(string(own)+"\n---\n"+objs))
	look := newAdmin(t, b)
	for _, o := range all {
		if _, served := look.kinds[o.GroupVersionKind()]; !served {
			t.Fatalf("%s is not served: it would prove nothing", o.GroupVersionKind())
		}
	}
	if os.Getenv("WHEELWRIGHT_FIGURES") != "" {
		if all = all[:min(len(all), 120)]; len(all) < 120 {
			t.Fatalf("%d kinds, want 120", len(all))
		}
	}
	account := apply.Identity{Namespace: home, Name: "release"}
	if err := b.Cluster.ApplyIn(home, tenant(account.Name, `{apiGroups: ["*"], resources: ["*"], verbs: ["*"]}`)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	bounded, _ := connect(t, apply.Config{Kubeconfig: b.Kubeconfig, Patience: time.Second, Account: func(string) (apply.Identity, error) { return account, nil }})
	layers := []struct {
		name string
		hand *apply.Cluster
		env  envelope.Envelope
	}{
		{"the envelope alone, with every right", b.hand, envelope.Envelope{{}}},
		{"the rights of an account of one namespace alone", bounded, nil},
	}
	refused := 0
	for _, l := range layers {
		n := hostileTries(t, l.name, l.hand, l.env, home, look, all)
		t.Logf("%s: %d of %d refused", l.name, n, len(all))
		refused += n
	}
	fmt.Printf("FIGURE envelope.refused %d of %d (%d kinds, %s)\n", refused, 2*len(all), len(all), time.Since(began).Round(time.Millisecond))
	if refused != 2*len(all) {
		t.Errorf("%d of %d refused", refused, 2*len(all))
	}
	withNeither(t, b, look, home, all)
}

// tenant is a service account with a Role in its own namespace.
func tenant(name string, rules ...string) string {
	return fmt.Sprintf(`{apiVersion: v1, kind: ServiceAccount, metadata: {name: %[1]s}}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: %[1]s}, rules: [%[2]s]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: %[1]s}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: %[1]s}, subjects: [{kind: ServiceAccount, name: %[1]s}]}
`, name, strings.Join(rules, ", "))
}

// hostileTries tries each object by itself, both as the spoke would and as one that does not check first, and
// counts those that were refused both times and are not on the cluster.
func hostileTries(t *testing.T, layer string, hand *apply.Cluster, e envelope.Envelope, home string, look *admin, all []*unstructured.Unstructured) int {
	t.Helper()
	var count atomic.Int64
	var g errgroup.Group
	g.SetLimit(8)
	for n, o := range all {
		g.Go(func() error {
			set := apply.Set{Distribution: fmt.Sprintf("d%d", n), Namespace: home, Version: "1.0.0", Envelope: e, Objects: []*unstructured.Unstructured{o.DeepCopy()}}
			report, err := hand.Check(t.Context(), set, apply.Inventory{})
			if err == nil {
				err = report.Err()
			}
			checked := errors.Is(err, apply.ErrRefused)
			if !checked {
				t.Errorf("%s: %s %s was not refused when it was checked: %v", layer, o.GetKind(), o.GetName(), err)
			}
			_, _, err = hand.Apply(t.Context(), set, apply.Inventory{})
			if !errors.Is(err, apply.ErrRefused) {
				t.Errorf("%s: %s %s was not refused when it was applied: %v", layer, o.GetKind(), o.GetName(), err)
				checked = false
			}
			there, err := look.there(t.Context(), o)
			if err != nil || there {
				t.Errorf("%s: %s %s is on the cluster: %v, %v", layer, o.GetKind(), o.GetName(), there, err)
			} else if checked {
				count.Add(1)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	return int(count.Load())
}

// withNeither is the control: the same objects in the same sets do come to the cluster where nothing bounds them.
func withNeither(t *testing.T, b bench, look *admin, home string, all []*unstructured.Unstructured) {
	t.Helper()
	var came atomic.Int64
	var g errgroup.Group
	g.SetLimit(8)
	for n, o := range all {
		g.Go(func() error {
			set := apply.Set{Distribution: fmt.Sprintf("c%d", n), Namespace: home, Version: "1.0.0", Objects: []*unstructured.Unstructured{o.DeepCopy()}}
			_, _, err := b.hand.Apply(t.Context(), set, apply.Inventory{})
			there, e := look.there(t.Context(), o)
			if there {
				came.Add(1)
			} else {
				t.Errorf("%s %s does not come to the cluster even where nothing bounds it, so that its refusals prove nothing: %v, %v", o.GetKind(), o.GetName(), err, e)
			}
			ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second)
			defer cancel()
			if err := look.at(o).Delete(ctx, o.GetName(), metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
				t.Logf("take %s away again: %v", o.GetKind(), err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	t.Logf("with neither, %d of %d come to the cluster", came.Load(), len(all))
}
