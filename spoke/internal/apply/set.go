package apply

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/envelope"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/terms"
)

// Set is what should be on the cluster. Its objects are not changed by this package: what is applied
// are copies, with our label and with the namespace that their scope asks for.
type Set struct {
	Distribution string
	Namespace    string // of the subscription: of namespaced objects that name none, and of the inventory
	Objects      []*unstructured.Unstructured
	Terms        terms.Terms // what may be recreated and deleted, and what is left to others

	// Envelope is what the set's objects have to be inside of. The zero one: anything goes.
	Envelope envelope.Envelope
	// Beside is what plugins make of the release: judged by the envelope, and not sent.
	Beside []*unstructured.Unstructured

	// Noted in the inventory, and not looked at.
	Version                   string
	Bundle, Overlay, Rendered fleet.Digest
}

func (s Set) String() string { return strings.TrimSpace(s.Distribution + " " + s.Version) }

// Digest is over the objects whatever their order, the distribution and the namespace.
func (s Set) Digest() string { return s.sum().whole }

// sum is what a set's objects are told from others by.
type sum struct {
	whole   string   // of the set; empty where one of its objects has none
	objects []string // of each; empty: no JSON can hold it, and it differs from everything
	sizes   []int    // bytes
}

func (s Set) sum() sum {
	n := len(s.Objects)
	d := sum{objects: make([]string, n), sizes: make([]int, n)}
	spread(n, func(i int) {
		if raw, err := json.Marshal(s.Objects[i].Object); err == nil {
			d.objects[i], d.sizes[i] = digest(raw), len(raw)
		}
	})
	if slices.Contains(d.objects, "") {
		return d
	}
	raw, err := json.Marshal([]any{s.Distribution, s.Namespace, slices.Sorted(slices.Values(d.objects))})
	if err == nil {
		d.whole = digest(raw)
	}
	return d
}

// AppliedBy reports whether inv is that of this very set, applied whole: then neither Check nor Apply
// has anything to do.
func (s Set) AppliedBy(inv Inventory) bool {
	return inv.appliedOf(s.sum())
}

func (inv Inventory) appliedOf(s sum) bool { return inv.Applied != "" && inv.Applied == s.whole }

// spread calls f with 0 to n-1, on all processors.
func spread(n int, f func(int)) {
	share := (n + runtime.GOMAXPROCS(0) - 1) / runtime.GOMAXPROCS(0)
	var wg sync.WaitGroup
	for from := 0; from < n; from += share {
		wg.Go(func() {
			for i := from; i < min(from+share, n); i++ {
				f(i)
			}
		})
	}
	wg.Wait()
}

// digest is 128 bits in hexadecimal: enough to tell an object from its next version, and lean.
func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// Change is what an operation did, object by object.
type Change struct {
	Created, Changed, Deleted, Unchanged []string
	Recreated                            []string // deleted and made anew, with the provider's consent
	Kept                                 []string // not in the new set, left on the cluster: data, or not ours
	Requests                             int
}

func (c *Change) sort() {
	for _, l := range [][]string{c.Created, c.Changed, c.Deleted, c.Unchanged, c.Recreated, c.Kept} {
		slices.Sort(l)
	}
}

// object is one of a set's objects, ready to be sent.
type object struct {
	*unstructured.Unstructured
	resource resource
	digest   string
	stage    stage
	upcoming bool // its definition comes with the set and is not on the cluster yet
	yields   yields
}

func (o object) item() Item {
	return Item{GroupVersionKind: o.resource.GroupVersionKind, Namespace: o.GetNamespace(), Name: o.GetName(), Digest: o.digest, Passing: o.passing(), Hook: isHook(o.GetAnnotations())}
}

// passing: a Job with a time to live leaves the cluster when it has finished. That is neither drift nor
// illness, and to make it anew would be to run it again.
func (o object) passing() bool {
	_, lives, _ := unstructured.NestedFieldNoCopy(o.Object, "spec", "ttlSecondsAfterFinished")
	return lives && o.resource.GroupKind() == schema.GroupKind{Group: "batch", Kind: "Job"}
}

func isHook(notes map[string]string) bool { return notes[HookRunAnnotation] != "" }

// Inert reports an object that does nothing to what runs where it is new: it is only read, or says what may be.
func Inert(o *unstructured.Unstructured) bool {
	switch gk := o.GroupVersionKind().GroupKind(); gk.Group {
	case "":
		return slices.Contains([]string{"Namespace", "ServiceAccount", "ConfigMap", "Secret", "PersistentVolume", "PersistentVolumeClaim"}, gk.Kind)
	case "apiextensions.k8s.io", "rbac.authorization.k8s.io":
		return true
	}
	return false
}

// standsIn reports that an item is this very object, applied.
func (o object) standsIn(i Item) bool { return i.UID != "" && i.Digest == o.digest }

// bytes are what is sent.
func (o object) bytes() ([]byte, error) {
	raw, err := json.Marshal(o.Object)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", o, err)
	}
	return raw, nil
}

func (o object) String() string { return named(o.GetKind(), o.GetNamespace(), o.GetName()) }

// prepare resolves kinds and scopes. The problems are those that need no dry run; with any, the
// objects are still all those that have none.
func (c *Cluster) prepare(ctx context.Context, set Set, sums sum) ([]object, []Problem, error) {
	upcoming := defined(set.Objects)
	var want []schema.GroupVersionKind
	for _, o := range set.Objects {
		if _, ok := upcoming[o.GroupVersionKind()]; !ok {
			want = append(want, o.GroupVersionKind())
		}
	}
	served, err := c.kinds.having(ctx, want)
	if err != nil {
		return nil, nil, err
	}
	all, wrong := make([]object, len(set.Objects)), make([]string, len(set.Objects))
	spread(len(all), func(n int) {
		in, o := set.Objects[n], &all[n]
		gvk := in.GroupVersionKind()
		o.stage = stageOf(gvk.GroupKind())
		ok := false
		if o.resource, ok = served.served[gvk]; !ok {
			o.resource, o.upcoming = upcoming[gvk]
		}
		switch {
		case !ok && !o.upcoming:
			wrong[n] = served.notServed(gvk)
		case in.GetName() == "":
			wrong[n] = "it has no metadata.name"
		case unaddressable(in) != "":
			wrong[n] = unaddressable(in)
		case sums.objects[n] == "":
			_, err := json.Marshal(in.Object)
			wrong[n] = oneLine(fmt.Sprint(err))
		case sums.sizes[n] > largest && !packed(o.resource.GroupKind()):
			wrong[n] = fmt.Sprintf("it takes %d KiB, more than the %d KiB that the cluster's store takes of one object; split it, or let an overlay take it out", sums.sizes[n]>>10, largest>>10)
		default:
			o.fill(in, set)
			o.digest = digest([]byte(strings.Join([]string{form, set.Distribution, set.Namespace, sums.objects[n]}, "\x00")))
		}
	})
	var problems []Problem
	objs := all[:0]
	seen := make(map[identity]bool, len(all))
	for n, o := range all {
		if in := set.Objects[n]; wrong[n] != "" {
			problems = append(problems, Problem{named(in.GetKind(), in.GetNamespace(), in.GetName()), wrong[n]})
			continue
		}
		id := o.item().identity()
		if seen[id] {
			problems = append(problems, Problem{o.String(), "the set declares it twice"})
			continue
		}
		seen[id] = true
		objs = append(objs, o)
	}
	yielding(objs, set.Terms)
	return objs, problems, nil
}

// largest is what etcd takes in one request where nobody says otherwise (etcd, "System limits").
const largest = 1536 << 10

// packed: kinds whose size the API server itself limits, and that it stores in fewer bytes than are sent.
func packed(gk schema.GroupKind) bool {
	return gk.Group == "" && (gk.Kind == "ConfigMap" || gk.Kind == "Secret")
}

// form is raised when fill makes something else of the same object: then everything is sent once more.
const form = "1"

// fill makes the copy that is sent. It shares with the set's object what it does not change.
func (o *object) fill(in *unstructured.Unstructured, set Set) {
	o.Unstructured = &unstructured.Unstructured{Object: copied(in.Object, "metadata")}
	switch {
	case !o.resource.namespaced:
		o.SetNamespace("")
	case o.GetNamespace() == "":
		o.SetNamespace(set.Namespace)
	}
	if set.Distribution != "" {
		labels := o.GetLabels()
		if labels == nil {
			labels = map[string]string{}
		}
		labels[DistributionLabel] = set.Distribution
		labels[partOfLabel] = applySetID(set.Distribution, set.Namespace)
		o.SetLabels(labels)
	}
	for _, field := range []string{"creationTimestamp", "generation", "managedFields", "resourceVersion", "selfLink", "uid"} {
		unstructured.RemoveNestedField(o.Object, "metadata", field) // the server's, not ours to declare
	}
	if o.GetKind() == "Secret" && o.resource.Group == "" {
		plainSecret(o.Object)
	}
	nameAccountTwice(o.Object)
}

// plainSecret turns stringData into data: the server would, and would not take a key back that is
// later left out of stringData.
func plainSecret(secret map[string]any) {
	plain, ok := secret["stringData"].(map[string]any)
	if !ok {
		return
	}
	data, ok := secret["data"].(map[string]any)
	if data = maps.Clone(data); !ok {
		data = map[string]any{}
	}
	for k, v := range plain {
		s, ok := v.(string)
		if !ok {
			return // the server says what is wrong with it
		}
		data[k] = base64.StdEncoding.EncodeToString([]byte(s))
	}
	secret["data"] = data
	delete(secret, "stringData")
}

// nameAccountTwice declares the deprecated serviceAccount beside serviceAccountName. The server fills it
// in and then takes it for the name: were it not ours, a release that no longer names an account could
// not take the name away.
func nameAccountTwice(obj map[string]any) {
	for _, path := range [][]string{{"spec"}, {"spec", "template", "spec"}, {"spec", "jobTemplate", "spec", "template", "spec"}} {
		spec := inside(obj, path)
		_, isPod := spec["containers"].([]any)
		name, named := spec["serviceAccountName"].(string)
		if _, twice := spec["serviceAccount"]; isPod && named && !twice {
			maps.Copy(obj, copied(obj, path...))
			inside(obj, path)["serviceAccount"] = name
		}
	}
}

func inside(m map[string]any, path []string) map[string]any {
	for _, field := range path {
		m, _ = m[field].(map[string]any)
	}
	return m
}

// copied is a copy of m and of the maps along path in it; what is beside the path is shared.
func copied(m map[string]any, path ...string) map[string]any {
	m = maps.Clone(m)
	if len(path) > 0 {
		if below, ok := m[path[0]].(map[string]any); ok {
			m[path[0]] = copied(below, path[1:]...)
		}
	}
	return m
}

// stage is when an object is sent: each stage is on the cluster before the next begins.
type stage int

const (
	stageNamespaces stage = iota
	stageDefinitions
	stageConfig    // what workloads read and run as, and find each other by
	stageBindings  // after the roles, since who may not grant them is looked up there
	stageWorkloads // after the services, whose addresses are in their environment
	stageRest      // autoscalers, budgets, ingresses, custom resources
	stageAdmitted  // webhooks and admission policies: last, so that they judge nothing of their own release
	stages
)

func isDefinition(gk schema.GroupKind) bool {
	return gk == schema.GroupKind{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition"}
}

func stageOf(gk schema.GroupKind) stage {
	switch gk.Group {
	case "":
		switch gk.Kind {
		case "Namespace":
			return stageNamespaces
		case "ServiceAccount", "ConfigMap", "Secret", "PersistentVolume", "PersistentVolumeClaim", "LimitRange", "ResourceQuota", "Service", "Endpoints":
			return stageConfig
		case "Pod", "ReplicationController":
			return stageWorkloads
		}
	case "apiextensions.k8s.io":
		return stageDefinitions
	case "rbac.authorization.k8s.io":
		if gk.Kind == "RoleBinding" || gk.Kind == "ClusterRoleBinding" {
			return stageBindings
		}
		return stageConfig
	case "storage.k8s.io", "scheduling.k8s.io", "node.k8s.io", "discovery.k8s.io":
		return stageConfig
	case "networking.k8s.io":
		if gk.Kind == "NetworkPolicy" || gk.Kind == "IngressClass" {
			return stageConfig
		}
	case "apps", "batch":
		return stageWorkloads
	case "admissionregistration.k8s.io":
		return stageAdmitted
	}
	return stageRest
}

// keeps: kinds that hold data, or other people's objects. They are never deleted here.
func keeps(gk schema.GroupKind) bool {
	if isDefinition(gk) {
		return true
	}
	return gk.Group == "" && (gk.Kind == "Namespace" || gk.Kind == "PersistentVolume" || gk.Kind == "PersistentVolumeClaim")
}
