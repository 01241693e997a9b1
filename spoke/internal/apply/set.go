package apply

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/terms"
)

// Set is what should be on the cluster. Its objects are not changed by this package: what is applied
// are copies, with our label and with the namespace that their scope asks for.
type Set struct {
	Distribution string
	Namespace    string // of the subscription: of namespaced objects that name none, and of the inventory
	Objects      []*unstructured.Unstructured
	Terms        terms.Terms // what may be recreated and deleted, and what is left to others

	// Noted in the inventory, and not looked at.
	Version                   string
	Bundle, Overlay, Rendered fleet.Digest
}

func (s Set) String() string { return strings.TrimSpace(s.Distribution + " " + s.Version) }

// Digest is over the objects whatever their order, the distribution and the namespace.
func (s Set) Digest() string {
	sums := make([]string, len(s.Objects))
	for i, o := range s.Objects {
		raw, err := json.Marshal(o.Object)
		if err != nil { // what no JSON can hold differs from everything
			return ""
		}
		sums[i] = digest(raw)
	}
	sort.Strings(sums)
	raw, err := json.Marshal([]any{s.Distribution, s.Namespace, sums})
	if err != nil {
		return ""
	}
	return digest(raw)
}

// AppliedBy reports whether inv is that of this very set, applied whole: then neither Check nor Apply
// has anything to do.
func (s Set) AppliedBy(inv Inventory) bool {
	return inv.Applied != "" && inv.Applied == s.Digest()
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
	data     []byte
	digest   string
	stage    stage
	upcoming bool // its definition comes with the set and is not on the cluster yet
	yields   yields
}

func (o object) item() Item {
	return Item{GroupVersionKind: o.resource.GroupVersionKind, Namespace: o.GetNamespace(), Name: o.GetName(), Digest: o.digest, Passing: o.passing()}
}

// passing: a Job with a time to live leaves the cluster when it has finished. That is neither drift nor
// illness, and to make it anew would be to run it again.
func (o object) passing() bool {
	_, lives, _ := unstructured.NestedFieldNoCopy(o.Object, "spec", "ttlSecondsAfterFinished")
	return lives && o.resource.GroupKind() == schema.GroupKind{Group: "batch", Kind: "Job"}
}

// standsIn reports that an item is this very object, applied.
func (o object) standsIn(i Item) bool { return i.UID != "" && i.Digest == o.digest }

func (o object) String() string { return named(o.GetKind(), o.GetNamespace(), o.GetName()) }

// prepare resolves kinds and scopes. The problems are those that need no dry run; with any, the
// objects are still all those that have none.
func (c *Cluster) prepare(ctx context.Context, set Set) ([]object, []Problem, error) {
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
	var objs []object
	var problems []Problem
	seen := map[identity]bool{}
	for _, in := range set.Objects {
		gvk := in.GroupVersionKind()
		r, ok := served.served[gvk]
		o := object{resource: r, stage: stageOf(gvk.GroupKind())}
		if !ok {
			if o.resource, o.upcoming = upcoming[gvk]; !o.upcoming {
				problems = append(problems, Problem{named(in.GetKind(), in.GetNamespace(), in.GetName()), served.notServed(gvk)})
				continue
			}
		}
		if in.GetName() == "" {
			problems = append(problems, Problem{named(in.GetKind(), in.GetNamespace(), ""), "it has no metadata.name"})
			continue
		}
		if err := o.fill(in, set); err != nil {
			problems = append(problems, Problem{named(in.GetKind(), in.GetNamespace(), in.GetName()), oneLine(err.Error())})
			continue
		}
		if id := o.item().identity(); seen[id] {
			problems = append(problems, Problem{o.String(), "the set declares it twice"})
			continue
		} else {
			seen[id] = true
		}
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

// fill makes the copy that is sent.
func (o *object) fill(in *unstructured.Unstructured, set Set) error {
	o.Unstructured = in.DeepCopy()
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
	raw, err := json.Marshal(o.Object)
	if err != nil {
		return err
	}
	if o.data, o.digest = raw, digest(raw); len(raw) > largest && !packed(o.resource.GroupKind()) {
		return fmt.Errorf("it takes %d KiB, more than the %d KiB that the cluster's store takes of one object; split it, or let an overlay take it out", len(raw)>>10, largest>>10)
	}
	return nil
}

// plainSecret turns stringData into data: the server would, and would not take a key back that is
// later left out of stringData.
func plainSecret(secret map[string]any) {
	plain, ok := secret["stringData"].(map[string]any)
	if !ok {
		return
	}
	data, ok := secret["data"].(map[string]any)
	if !ok {
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
		var at any = obj
		for _, field := range path {
			m, _ := at.(map[string]any)
			at = m[field]
		}
		spec, _ := at.(map[string]any)
		_, isPod := spec["containers"].([]any)
		name, named := spec["serviceAccountName"].(string)
		if _, twice := spec["serviceAccount"]; isPod && named && !twice {
			spec["serviceAccount"] = name
		}
	}
}

// stage is when an object is sent: each stage is on the cluster before the next begins.
type stage int

const (
	stageNamespaces stage = iota
	stageDefinitions
	stageConfig   // what workloads read and run as
	stageBindings // after the roles, since who may not grant them is looked up there
	stageServices
	stageWorkloads
	stageRest     // autoscalers, budgets, ingresses, custom resources
	stageAdmitted // webhooks and admission policies: last, so that they judge nothing of their own release
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
		case "ServiceAccount", "ConfigMap", "Secret", "PersistentVolume", "PersistentVolumeClaim", "LimitRange", "ResourceQuota":
			return stageConfig
		case "Service", "Endpoints":
			return stageServices
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
	case "storage.k8s.io", "scheduling.k8s.io", "node.k8s.io":
		return stageConfig
	case "networking.k8s.io":
		if gk.Kind == "NetworkPolicy" || gk.Kind == "IngressClass" {
			return stageConfig
		}
	case "discovery.k8s.io":
		return stageServices
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
