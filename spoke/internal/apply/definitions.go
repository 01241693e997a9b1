package apply

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var customResourceDefinitions = resource{
	schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"},
	"customresourcedefinitions", false,
}

// Definitions reads these CustomResourceDefinitions as they are on the cluster, by name. What is not
// there is not in the answer.
func (c *Cluster) Definitions(ctx context.Context, names []string) ([]*unstructured.Unstructured, error) {
	var mu sync.Mutex
	var all []*unstructured.Unstructured
	err := each(ctx, names, func(ctx context.Context, name string) error {
		crd := &unstructured.Unstructured{}
		err := c.api.get(ctx, customResourceDefinitions, "", name, "", &crd.Object)
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return refusal(customResourceDefinitions.Kind, "", name, err)
		}
		mu.Lock()
		defer mu.Unlock()
		all = append(all, crd)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read definitions: %w", err)
	}
	slices.SortFunc(all, func(a, b *unstructured.Unstructured) int { return strings.Compare(a.GetName(), b.GetName()) })
	return all, nil
}
