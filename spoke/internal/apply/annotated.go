package apply

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Annotated are those of a set's objects that carry an annotation on the cluster, whoever wrote it. It
// costs one list of metadata for each kind and namespace.
func (c *Cluster) Annotated(ctx context.Context, set Set, key string) ([]*unstructured.Unstructured, error) {
	objs, _, err := c.prepare(ctx, set, set.sum())
	if err != nil {
		return nil, fmt.Errorf("look for %s on the objects of %s: %w", key, set, err)
	}
	there, err := c.labelled(ctx, placesOf(objs))
	if err != nil {
		return nil, fmt.Errorf("look for %s on the objects of %s: %w", key, set, err)
	}
	var found []*unstructured.Unstructured
	for _, o := range objs {
		if _, has := there[o.item().identity()].Annotations[key]; !has {
			continue
		}
		for _, in := range set.Objects {
			if in.GroupVersionKind() == o.GroupVersionKind() && in.GetName() == o.GetName() && (in.GetNamespace() == o.GetNamespace() || in.GetNamespace() == "") {
				found = append(found, in)
			}
		}
	}
	return found, nil
}
