package apply

import (
	"context"
	"encoding/json"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// scaling is what an autoscaler of the set has to do with a workload's replicas.
type scaling int

const (
	unscaled    scaling = iota
	scaled              // the autoscaler decides how many
	scaledToNil         // and may decide on none
)

// autoscaled marks the objects that declare replicas and that an autoscaler of the same set scales.
func autoscaled(objs []object) {
	targets := map[identity]scaling{}
	for _, o := range objs {
		kind, how := o.GetKind(), scaled
		switch {
		case o.resource.Group == "autoscaling" && kind == "HorizontalPodAutoscaler":
			if least, found, err := unstructured.NestedInt64(o.Object, "spec", "minReplicas"); found && err == nil && least == 0 {
				how = scaledToNil
			}
		case o.resource.Group == "keda.sh" && kind == "ScaledObject":
			how = scaledToNil
		default:
			continue
		}
		ref, _, _ := unstructured.NestedStringMap(o.Object, "spec", "scaleTargetRef")
		gk := schema.GroupKind{Group: "apps", Kind: "Deployment"} // what KEDA takes where nothing is said
		if ref["kind"] != "" {
			gk.Kind = ref["kind"]
		}
		if gv, err := schema.ParseGroupVersion(ref["apiVersion"]); err == nil && ref["apiVersion"] != "" {
			gk.Group = gv.Group
		}
		targets[identity{gk, o.GetNamespace(), ref["name"]}] = how
	}
	for n, o := range objs {
		if _, declared, _ := unstructured.NestedFieldNoCopy(o.Object, "spec", "replicas"); declared {
			objs[n].scaling = targets[o.item().identity()]
		}
	}
}

// body is what is sent. How many replicas an autoscaled workload has is declared once, for its creation.
// Afterwards the field is left to whom it belongs; as long as it is ours alone the number that is there
// is declared, since a field that nobody declares any more falls back to 1.
func (c *Cluster) body(ctx context.Context, o object) ([]byte, error) {
	if o.scaling == unscaled {
		return o.data, nil
	}
	var live struct {
		Metadata metav1.ObjectMeta
		Spec     struct{ Replicas *int64 }
	}
	err := c.api.get(ctx, o.resource, o.GetNamespace(), o.GetName(), "", &live)
	if apierrors.IsNotFound(err) {
		return o.data, nil
	}
	if err != nil {
		return nil, err
	}
	there := live.Spec.Replicas
	if there == nil || *there == 0 && o.scaling != scaledToNil { // somebody switched the autoscaler off
		return o.data, nil
	}
	double := o.DeepCopy()
	if c.declaredByOthers(live.Metadata.ManagedFields) {
		unstructured.RemoveNestedField(double.Object, "spec", "replicas")
	} else if err := unstructured.SetNestedField(double.Object, *there, "spec", "replicas"); err != nil {
		return nil, fmt.Errorf("encode %s: %w", o, err)
	}
	data, err := json.Marshal(double.Object)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", o, err)
	}
	return data, nil
}

// declaredByOthers: somebody beside us owns the number of replicas.
func (c *Cluster) declaredByOthers(managers []metav1.ManagedFieldsEntry) bool {
	for _, m := range managers {
		if m.FieldsV1 == nil || m.Manager == c.api.manager && m.Operation == metav1.ManagedFieldsOperationApply {
			continue
		}
		var fields struct {
			Spec map[string]json.RawMessage `json:"f:spec"`
		}
		if err := json.Unmarshal(m.FieldsV1.GetRawBytes(), &fields); err != nil {
			continue
		}
		if _, owns := fields.Spec["f:replicas"]; owns {
			return true
		}
	}
	return false
}
