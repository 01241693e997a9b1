package apply

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Drift puts back what somebody deleted or changed since inv was taken. It costs one list of metadata
// for each kind and namespace, and one request for each object whose resource version is not the
// remembered one. Objects in which only fields of others changed (a status, an autoscaler's replicas)
// are no drift. Objects that could not be put back are in the error; the others are put back all the
// same. The returned inventory is the one to give next time.
func (c *Cluster) Drift(ctx context.Context, set Set, inv Inventory) (Inventory, Change, error) {
	ctx, requests := counted(ctx)
	d := &drift{job: &job{c: c, set: set, items: inv.byIdentity()}, seen: map[identity]metav1.ObjectMeta{}, foreign: map[identity]string{}}
	err := d.run(ctx)
	inv.Items = slices.Collect(maps.Values(d.items))
	inv.sort()
	if !ours(err) && len(inv.Items) > 0 && (d.unnoted || len(d.change.Created) > 0) { // an object made anew has another UID
		_, e := c.writeInventory(ctx, inv, d.own)
		err = join(err, e)
	}
	d.change.Requests = int(requests.Load())
	d.change.sort()
	if err != nil {
		return inv, d.change, fmt.Errorf("put back drift of %s: %w", set, err)
	}
	return inv, d.change, nil
}

// drift is a job whose todo list comes from the cluster.
type drift struct {
	*job
	seen    map[identity]metav1.ObjectMeta
	foreign map[identity]string // of another distribution, which took it since
	unnoted bool                // the inventory is not on the cluster
}

func (d *drift) run(ctx context.Context) error {
	if len(d.set.Objects) == 0 {
		return fmt.Errorf("nothing to compare with: %w", ErrEmptySet)
	}
	objs, problems, err := d.c.prepare(ctx, d.set)
	if err != nil {
		return err
	}
	for n, o := range objs {
		if o.stage == stageNamespaces && o.GetName() == d.set.Namespace {
			d.own = &objs[n]
		}
	}
	if err := d.look(ctx, objs); err != nil {
		return err
	}
	var errs []error
	if len(problems) > 0 {
		errs = append(errs, refused(problems, len(d.set.Objects)))
	}
	if taken := d.taken(objs); len(taken) > 0 {
		errs = append(errs, refused(taken, len(d.set.Objects)))
	}
	for s := range stages {
		var now []object
		for _, o := range objs {
			if o.stage == s && d.suspect(o) {
				now = append(now, o)
			}
		}
		err := each(ctx, now, d.one)
		if ours(err) {
			return err
		}
		errs = append(errs, err)
		if s == stageDefinitions && len(now) > 0 {
			d.c.kinds.forget()
			errs = append(errs, each(ctx, now, d.c.established))
		}
	}
	return join(errs...)
}

// look lists what is there.
func (d *drift) look(ctx context.Context, objs []object) error {
	found, err := d.c.labelled(ctx, placesOf(objs))
	if err != nil {
		return err
	}
	for id, m := range found {
		if m.Labels[DistributionLabel] == d.set.Distribution {
			d.seen[id] = m
		} else {
			d.foreign[id] = m.Labels[DistributionLabel]
		}
	}
	var p partial
	err = d.c.api.get(ctx, configMaps, d.set.Namespace, InventoryName(d.set.Distribution), metadataOnly, &p)
	d.unnoted = apierrors.IsNotFound(err)
	if ignoreMissing(err) != nil {
		return refusal("ConfigMap", d.set.Namespace, InventoryName(d.set.Distribution), err)
	}
	return nil
}

// taken lists the objects that another distribution took over: to take them back would be to fight.
func (d *drift) taken(objs []object) (problems []Problem) {
	for _, o := range objs {
		if p, other := claimed(o, d.set.Distribution, d.foreign[o.item().identity()]); other {
			problems = append(problems, p)
		}
	}
	return problems
}

// suspect: the object is not as it was last seen.
func (d *drift) suspect(o object) bool {
	id := o.item().identity()
	if _, other := d.foreign[id]; other {
		return false
	}
	m, there := d.seen[id]
	i, known := d.items[id]
	switch {
	case !there && i.Passing && i.UID != "":
		return false
	case !there || !known:
		return true
	case m.DeletionTimestamp != nil:
		return false // on its way out; it is made anew when it is gone
	}
	return m.ResourceVersion != i.ResourceVersion || string(m.UID) != i.UID || i.Digest != o.digest
}

func (d *drift) one(ctx context.Context, o object) error {
	s, err := d.c.send(ctx, o, d.set, d.own)
	if err != nil {
		return err
	}
	i := o.item()
	i.UID, i.ResourceVersion = string(s.meta.UID), s.meta.ResourceVersion
	d.mu.Lock()
	defer d.mu.Unlock()
	before, there := d.seen[i.identity()]
	d.items[i.identity()] = i
	switch {
	case s.created:
		d.change.Created = append(d.change.Created, o.String())
	case !there || corrected(before, s.meta):
		d.change.Changed = append(d.change.Changed, o.String())
	default:
		d.change.Unchanged = append(d.change.Unchanged, o.String())
	}
	return nil
}

// corrected reports whether our apply changed the object between before and after. An apply that
// changes nothing leaves the resource version as it is. If it moved all the same, generation and
// metadata tell our change from a status that was written meanwhile; kinds without a generation have
// no such status to speak of.
func corrected(before, after metav1.ObjectMeta) bool {
	switch {
	case before.ResourceVersion == after.ResourceVersion:
		return false
	case before.Generation == 0 || before.Generation != after.Generation:
		return true
	}
	return !equality.Semantic.DeepEqual(before.Labels, after.Labels) ||
		!equality.Semantic.DeepEqual(before.Annotations, after.Annotations) ||
		!equality.Semantic.DeepEqual(before.OwnerReferences, after.OwnerReferences) ||
		!equality.Semantic.DeepEqual(before.Finalizers, after.Finalizers)
}
