// Package manifest reads, judges and writes Kubernetes objects: it is the only place that knows
// Kubernetes' own types, and so the one that can say whether a field exists. It talks to no cluster,
// and knows a kind only as far as client-go's scheme does: what a cluster adds with CRDs passes
// unjudged and is left to the cluster's dry run.
package manifest

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// LabelDistribution marks every object that belongs to a distribution's installation.
const LabelDistribution = "wheelwright.dev/distribution"

// Parse reads a stream of YAML or JSON documents. Empty documents are skipped, Lists are taken apart.
// A key given twice, or a document that is no object, is an error with the document's number.
func Parse(data []byte) ([]*unstructured.Unstructured, error) {
	var objs []*unstructured.Unstructured
	r := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for n := 1; ; n++ {
		doc, err := r.Read()
		if errors.Is(err, io.EOF) {
			return objs, nil
		}
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", n, err)
		}
		parsed, err := parseDocument(doc)
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", n, err)
		}
		objs = append(objs, parsed...)
	}
}

func parseDocument(doc []byte) ([]*unstructured.Unstructured, error) {
	js, err := yaml.YAMLToJSONStrict(doc)
	if err != nil {
		return nil, err
	}
	if string(bytes.TrimSpace(js)) == "null" {
		return nil, nil
	}
	return FromJSON(js)
}

// FromJSON reads one object or List.
func FromJSON(js []byte) ([]*unstructured.Unstructured, error) {
	if js = bytes.TrimSpace(js); len(js) == 0 || js[0] != '{' {
		return nil, errors.New("not an object: want apiVersion, kind and metadata")
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(js); runtime.IsMissingKind(err) {
		var named struct{ Metadata struct{ Name string } }
		_ = json.Unmarshal(js, &named) // without a name the message is still true
		return nil, fmt.Errorf("object %q has no kind", named.Metadata.Name)
	} else if err != nil {
		return nil, err
	}
	if !u.IsList() {
		return []*unstructured.Unstructured{u}, nil
	}
	list, err := u.ToList()
	if err != nil {
		return nil, err
	}
	var objs []*unstructured.Unstructured
	for i := range list.Items {
		objs = append(objs, &list.Items[i])
	}
	return objs, nil
}

// ID names an object for people: "apps/v1 Deployment app/backend", "v1 Namespace app".
func ID(obj *unstructured.Unstructured) string {
	name := obj.GetName()
	if ns := obj.GetNamespace(); ns != "" {
		name = ns + "/" + name
	}
	return strings.TrimSpace(obj.GetAPIVersion() + " " + obj.GetKind() + " " + name)
}

// Label marks each object as the distribution's. Pod templates are left alone: a label there would
// restart every pod.
func Label(objs []*unstructured.Unstructured, distribution string) {
	for _, obj := range objs {
		labels := obj.GetLabels()
		if labels == nil {
			labels = map[string]string{}
		}
		labels[LabelDistribution] = distribution
		obj.SetLabels(labels)
	}
}

// Canonical writes the objects as one YAML stream: keys sorted, objects ordered by Sort. Equal sets
// give equal bytes. The objects are not changed.
func Canonical(objs []*unstructured.Unstructured) ([]byte, error) {
	sorted := slices.Clone(objs)
	Sort(sorted)
	var out bytes.Buffer
	for i, obj := range sorted {
		if i > 0 {
			out.WriteString("---\n")
		}
		doc, err := yaml.Marshal(obj.Object)
		if err != nil {
			return nil, fmt.Errorf("writing %s: %w", ID(obj), err)
		}
		out.Write(doc)
	}
	return out.Bytes(), nil
}

// kindOrder: what others need comes first, webhooks, which may refuse others, last.
var kindOrder = []string{
	"Namespace", "CustomResourceDefinition", "StorageClass", "PriorityClass", "ResourceQuota", "LimitRange",
	"ServiceAccount", "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding", "ConfigMap", "Secret",
	"PersistentVolume", "PersistentVolumeClaim", "NetworkPolicy", "Service", "Endpoints", "",
	"Pod", "ReplicaSet", "Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob", "HorizontalPodAutoscaler",
	"PodDisruptionBudget", "IngressClass", "Ingress", "APIService", "ValidatingAdmissionPolicy",
	"ValidatingWebhookConfiguration", "MutatingWebhookConfiguration",
}

// Sort orders by kind (see kindOrder; kinds not in it stand where "" stands), group, namespace, name.
func Sort(objs []*unstructured.Unstructured) {
	rank := make(map[string]int, len(kindOrder))
	for i, k := range kindOrder {
		rank[k] = i
	}
	of := func(o *unstructured.Unstructured) int {
		if i, ok := rank[o.GetKind()]; ok {
			return i
		}
		return rank[""]
	}
	slices.SortStableFunc(objs, func(a, b *unstructured.Unstructured) int {
		return cmp.Or(
			cmp.Compare(of(a), of(b)),
			cmp.Compare(a.GetKind(), b.GetKind()),
			cmp.Compare(a.GetAPIVersion(), b.GetAPIVersion()),
			cmp.Compare(a.GetNamespace(), b.GetNamespace()),
			cmp.Compare(a.GetName(), b.GetName()),
		)
	})
}
