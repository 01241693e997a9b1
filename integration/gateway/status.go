package gateway

import (
	"context"
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

// controller is how the stand-in signs what it writes.
const controller = "test.wheelwright.dev/gateway-stand-in"

// report writes what the stand-in makes of a route into its status, once for each generation.
func (g *Gateway) report(ctx context.Context, route *unstructured.Unstructured, s state) error {
	if reported(route) || g.routes == nil {
		return nil
	}
	accepted := map[string]any{"type": "Accepted", "status": "True", "reason": "Accepted", "message": ""}
	if s.problem != "" {
		accepted = map[string]any{"type": "Accepted", "status": "False", "reason": "UnsupportedValue", "message": s.problem}
	}
	accepted["observedGeneration"] = route.GetGeneration()
	accepted["lastTransitionTime"] = metav1.Now().UTC().Format("2006-01-02T15:04:05Z")
	parents := []any{}
	for _, parent := range s.parents {
		parents = append(parents, map[string]any{"parentRef": parent, "controllerName": controller, "conditions": []any{accepted}})
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"parents": parents}})
	if err != nil {
		return err
	}
	_, err = g.routes.Namespace(route.GetNamespace()).Patch(ctx, route.GetName(), types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil {
		return fmt.Errorf("write the status of HTTPRoute %s/%s: %w", route.GetNamespace(), route.GetName(), err)
	}
	return nil
}

// reported tells whether the status is of the route's present generation.
func reported(route *unstructured.Unstructured) bool {
	refs, _, _ := unstructured.NestedSlice(route.Object, "spec", "parentRefs")
	parents, _, _ := unstructured.NestedSlice(route.Object, "status", "parents")
	if len(parents) != len(refs) {
		return false
	}
	for _, p := range parents {
		parent, _ := p.(map[string]any)
		conditions, _, _ := unstructured.NestedSlice(parent, "conditions")
		if len(conditions) == 0 {
			return false
		}
		condition, _ := conditions[0].(map[string]any)
		if seen, _, _ := unstructured.NestedInt64(condition, "observedGeneration"); seen != route.GetGeneration() {
			return false
		}
	}
	return true
}
