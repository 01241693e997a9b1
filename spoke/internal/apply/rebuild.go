package apply

import (
	"context"
	"fmt"
	"slices"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/fields"
)

// Rebuild finds what a subscription has on the cluster without an inventory: objects that bear its labels
// and whose managed fields say that this spoke put the label there; copies of the label are nobody's
// word. Which version they are of is not known, and none of them is known to be as wanted: the next
// Apply sends them all. Kinds that the spoke may not list in the whole cluster are looked for in the
// namespace; kinds that it may not list there either cannot be its own.
func (c *Cluster) Rebuild(ctx context.Context, distribution, namespace string) (Inventory, bool, error) {
	inv := Inventory{Distribution: distribution, Namespace: namespace}
	c.kinds.forget()
	served, err := c.kinds.having(ctx, nil)
	if err != nil {
		return Inventory{}, false, fmt.Errorf("find what %s has on the cluster: %w", distribution, err)
	}
	var mu sync.Mutex
	byUID := map[string]Item{}
	err = each(ctx, served.preferred(), func(ctx context.Context, r resource) error {
		found, err := c.labelledAnywhere(ctx, r, distribution, namespace)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		for _, i := range found {
			byUID[i.UID] = i
		}
		return nil
	})
	if err != nil {
		return Inventory{}, false, fmt.Errorf("find what %s has on the cluster: %w", distribution, err)
	}
	for _, i := range byUID {
		inv.Items = append(inv.Items, i)
	}
	inv.sort()
	c.log.WarnContext(ctx, "the inventory was made anew from what is on the cluster", logging.Distribution, distribution, "objects", len(inv.Items))
	return inv, len(inv.Items) > 0, nil
}

func (c *Cluster) labelledAnywhere(ctx context.Context, r resource, distribution, namespace string) ([]Item, error) {
	selector := DistributionLabel + "=" + distribution + "," + partOfLabel + "=" + applySetID(distribution, namespace)
	all, err := c.api.listMetadata(ctx, r, "", selector)
	if apierrors.IsForbidden(err) && r.namespaced {
		all, err = c.api.listMetadata(ctx, r, namespace, selector)
	}
	switch {
	case apierrors.IsForbidden(err), apierrors.IsNotFound(err), apierrors.IsMethodNotSupported(err):
		return nil, nil
	case err != nil:
		return nil, refusal(r.Kind, "", "", err)
	}
	var items []Item
	for _, m := range all {
		if !c.ours(m, distribution) {
			continue
		}
		entry := m.ManagedFields[slices.IndexFunc(m.ManagedFields, c.api.applied)]
		gv, err := schema.ParseGroupVersion(entry.APIVersion)
		if err != nil || gv.Group != r.Group {
			continue // served by two groups, and applied through the other one
		}
		i := Item{GroupVersionKind: gv.WithKind(r.Kind), Namespace: m.Namespace, Name: m.Name, UID: string(m.UID), Owned: c.owned(m)}
		i.Hook = isHook(m.Annotations)
		i.Passing = c.passes(i.GroupKind(), m.ManagedFields)
		items = append(items, i)
	}
	return items, nil
}

// passes reports a Job that we gave a time to live: see object.passing.
func (c *Cluster) passes(gk schema.GroupKind, entries []metav1.ManagedFieldsEntry) bool {
	return gk == schema.GroupKind{Group: "batch", Kind: "Job"} &&
		fields.Owned(entries, c.api.manager).Has(fields.Path{"spec", "ttlSecondsAfterFinished"})
}
