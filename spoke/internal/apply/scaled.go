package apply

import (
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
			objs[n].yields.scaling = targets[o.item().identity()]
		}
	}
}

// stillOn: there is an autoscaler, and nobody switched it off by asking for no pods at all.
func (s scaling) stillOn(live map[string]any) bool {
	there, found, err := unstructured.NestedInt64(live, "spec", "replicas")
	return s != unscaled && found && err == nil && (there != 0 || s == scaledToNil)
}
