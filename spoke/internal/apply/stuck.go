package apply

import (
	"context"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Unstick deletes the pods for which a StatefulSet of inv waits in vain: one that starts its pods in
// order never replaces a pod of an earlier template that is not ready, not even where the present
// template is the cure (Kubernetes, "StatefulSets: Forced rollback"). Their claims stay, and the
// StatefulSet makes the pods anew at once. Pods that run but are not ready are deleted only with
// alsoRunning: they may be coming back by themselves.
func (c *Cluster) Unstick(ctx context.Context, inv Inventory, alsoRunning bool) (Change, error) {
	var change Change
	ctx, err := c.acting(ctx, inv.Distribution)
	if err != nil {
		return change, fmt.Errorf("replace the pods that a StatefulSet waits for: %w", err)
	}
	ctx, requests := counted(ctx)
	var errs []error
	for _, i := range inv.Current().Items {
		if i.Group != "apps" || i.Kind != "StatefulSet" {
			continue
		}
		deleted, err := c.unstick(ctx, i, alsoRunning)
		change.Deleted = append(change.Deleted, deleted...)
		if ours(err) {
			return change, err
		}
		errs = append(errs, err)
	}
	change.Requests = int(requests.Load())
	change.sort()
	if err := join(errs...); err != nil {
		return change, fmt.Errorf("replace the pods that a StatefulSet waits for: %w", err)
	}
	return change, nil
}

// ordered is a StatefulSet, as far as its pods' order goes.
type ordered struct {
	Metadata metav1.ObjectMeta
	Spec     struct {
		PodManagementPolicy string
		Selector            metav1.LabelSelector
		UpdateStrategy      struct {
			Type          string
			RollingUpdate struct{ Partition int }
		}
	}
	Status struct {
		ObservedGeneration int64
		UpdateRevision     string
	}
}

// waits: it works in order, over all of its pods, towards a template that it has seen.
func (s ordered) waits() bool {
	return s.Spec.PodManagementPolicy != "Parallel" && s.Spec.UpdateStrategy.Type != "OnDelete" &&
		s.Spec.UpdateStrategy.RollingUpdate.Partition == 0 && len(s.Spec.Selector.MatchLabels) > 0 &&
		s.Status.ObservedGeneration >= s.Metadata.Generation && s.Status.UpdateRevision != ""
}

func (c *Cluster) unstick(ctx context.Context, i Item, alsoRunning bool) (deleted []string, err error) {
	served, err := c.kinds.having(ctx, nil)
	if err != nil {
		return nil, err
	}
	r, ok := served.like(i.GroupVersionKind)
	if !ok {
		return nil, nil
	}
	var s ordered
	if err := c.api.get(ctx, r, i.Namespace, i.Name, "", &s); err != nil {
		return nil, of(i, ignoreMissing(err))
	}
	if string(s.Metadata.UID) != i.UID || !s.waits() {
		return nil, nil
	}
	found, err := c.podsOf(ctx, i.Namespace, s.Spec.Selector.MatchLabels, s.Metadata.UID)
	if err != nil {
		return nil, of(i, err)
	}
	for _, p := range found {
		if newer(p, s.Status.UpdateRevision) == 1 || p.Metadata.DeletionTimestamp != nil || p.ready() || !alsoRunning && !p.down() {
			continue
		}
		name := named("Pod", i.Namespace, p.Metadata.Name)
		if err := c.api.delete(ctx, pods, i.Namespace, p.Metadata.Name, types.UID(p.Metadata.UID)); ignoreMissing(err) != nil {
			return deleted, refusal("Pod", i.Namespace, p.Metadata.Name, err)
		}
		deleted = append(deleted, name)
	}
	return deleted, nil
}

func (p pod) ready() bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c condition) bool { return c.Type == "Ready" && c.Status == "True" })
}

// down: a container of it does not run, for a reason that does not pass by itself.
func (p pod) down() bool {
	_, weight := p.trouble()
	return weight == notRunning
}

func of(i Item, err error) error {
	if err == nil {
		return nil
	}
	return refusal(i.Kind, i.Namespace, i.Name, err)
}
