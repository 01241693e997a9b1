package apply

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wheelwright-dev/wheelwright/spoke/internal/fields"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/terms"
)

// Drift finds what somebody deleted or changed since inv was taken and, to correct, puts it back. It costs
// one list of metadata for each kind and namespace, and an apply for each object of which the managed
// fields say that it is not as it was left: a dry run where nothing is to be corrected. What is ours by
// another's leave (an autoscaler's replicas, fields that the terms leave) is no drift, and neither is
// what nobody declared. Objects on their way out are waited for. A field that the same manager takes
// again and again is left to it in the end, and is among what drifted from then on.
//
// Objects that could not be put back are in the error; the others are put back all the same. The returned
// inventory is the one to give next time.
func (c *Cluster) Drift(ctx context.Context, set Set, inv Inventory, correct bool) (Inventory, []Drifted, error) {
	d := &drift{c: c, set: set, correct: correct, now: time.Now(), items: inv.byIdentity(),
		seen: map[identity]metav1.ObjectMeta{}, foreign: map[identity]string{}}
	ctx, err := c.acting(ctx, set.Distribution)
	if err != nil {
		return inv, nil, fmt.Errorf("correct drift of %s: %w", set, err)
	}
	err = d.run(ctx)
	inv.Items = slices.Collect(maps.Values(d.items))
	inv.sort()
	if !ours(err) && len(inv.Items) > 0 && (d.unnoted || d.renewed) {
		err = join(err, d.note(ctx, inv))
	}
	slices.SortFunc(d.drifted, func(a, b Drifted) int { return strings.Compare(a.Object, b.Object) })
	if err != nil {
		return inv, d.drifted, fmt.Errorf("correct drift of %s: %w", set, err)
	}
	return inv, d.drifted, nil
}

type drift struct {
	c       *Cluster
	set     Set
	correct bool
	now     time.Time
	own     *object             // the set's own Namespace object of the subscription's namespace
	foreign map[identity]string // of another distribution, which took it since
	unnoted bool                // the inventory is not on the cluster as it was written

	mu      sync.Mutex // guards what follows
	seen    map[identity]metav1.ObjectMeta
	items   map[identity]Item
	renewed bool // items has what the inventory on the cluster should have
	drifted []Drifted
}

func (d *drift) run(ctx context.Context) error {
	if len(d.set.Objects) == 0 {
		return fmt.Errorf("nothing to compare with: %w", ErrEmptySet)
	}
	objs, problems, err := d.c.prepare(ctx, d.set, d.set.sum())
	if err != nil {
		return err
	}
	objs, out := d.set.divided(objs)
	d.drifted = LeftOutside(out)
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
		if s == stageDefinitions && len(now) > 0 && d.correct {
			d.c.kinds.forget()
			errs = append(errs, each(ctx, now, d.c.established))
		}
	}
	d.sayContested()
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
	name := InventoryName(d.set.Distribution)
	var p partial
	err = d.c.api.get(ctx, configMaps, d.set.Namespace, name, metadataOnly, &p)
	if ignoreMissing(err) != nil {
		return refusal("ConfigMap", d.set.Namespace, name, err)
	}
	d.unnoted = err != nil || !fields.Owned(p.Metadata.ManagedFields, d.c.api.manager).Has(fields.Path{"binaryData", inventoryKey})
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

// suspect: the object is not as it was last seen. Of one with contested fields it is known that it is not
// as the set wants it.
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
		return false // it is made anew when it is gone
	}
	return d.c.owned(m) != i.Owned || string(m.UID) != i.UID || i.Digest != o.digest && len(i.Contested) == 0
}

// note writes the inventory. Where nothing is to be corrected its namespace is not made again for it.
func (d *drift) note(ctx context.Context, inv Inventory) error {
	if !d.correct {
		var ns partial
		err := d.c.api.get(ctx, namespaces, "", inv.Namespace, metadataOnly, &ns)
		if apierrors.IsNotFound(err) || err == nil && ns.Metadata.DeletionTimestamp != nil {
			return nil
		}
	}
	_, err := d.c.writeInventory(ctx, inv, d.own)
	if err == nil && d.unnoted {
		d.drifted = append(d.drifted, Drifted{Object: named("ConfigMap", inv.Namespace, InventoryName(inv.Distribution)), Missing: true, Corrected: true})
	}
	return err
}

// one looks into a suspect, and puts it back.
func (d *drift) one(ctx context.Context, o object) error {
	before, there, err := d.before(ctx, o)
	if err != nil {
		return err
	}
	other := before.Labels[DistributionLabel]
	switch {
	case there && (before.DeletionTimestamp != nil || other != "" && other != d.set.Distribution):
		return nil
	case !there && !d.correct:
		d.say(Drifted{Object: o.String(), Missing: true})
		return nil
	}
	d.mu.Lock()
	o.leaveTo(d.items[o.item().identity()].Contested)
	d.mu.Unlock()
	counted := false
	if there && (!d.correct || d.c.flips.tense(o.item().identity(), d.now)) {
		done, err := d.try(ctx, &o, before)
		if done || err != nil {
			return err
		}
		counted = true
	}
	s, err := d.c.send(ctx, o, d.set, d.own)
	if err != nil {
		return err
	}
	d.keep(o, s.meta)
	if !there {
		d.say(Drifted{Object: o.String(), Missing: true, Corrected: true})
		return nil
	}
	lost := fields.Lost(before.ManagedFields, s.meta.ManagedFields, d.c.api.manager)
	for _, l := range lost {
		if !counted {
			d.c.flips.take(taking{o.item().identity(), l.Path.String(), l.By}, d.now)
		}
	}
	d.say(lossOf(o, lost, true))
	return nil
}

// before is the metadata of a suspect; one that is not listed may have lost its label only.
func (d *drift) before(ctx context.Context, o object) (metav1.ObjectMeta, bool, error) {
	d.mu.Lock()
	m, listed := d.seen[o.item().identity()]
	d.mu.Unlock()
	if listed {
		return m, true, nil
	}
	var p partial
	err := d.c.api.get(ctx, o.resource, o.GetNamespace(), o.GetName(), metadataOnly, &p)
	if apierrors.IsNotFound(err) {
		return metav1.ObjectMeta{}, false, nil
	}
	if err != nil {
		return p.Metadata, false, refusal(o.GetKind(), o.GetNamespace(), o.GetName(), err)
	}
	return p.Metadata, true, nil
}

// try finds out by a dry run what was taken. done: nothing is to be put back. What was taken once too often
// o leaves from then on.
func (d *drift) try(ctx context.Context, o *object, before metav1.ObjectMeta) (done bool, err error) {
	f, err := d.c.put(ctx, *o, dryRun)
	if err != nil {
		return false, refusal(o.GetKind(), o.GetNamespace(), o.GetName(), err)
	}
	lost := fields.Lost(before.ManagedFields, f.meta.ManagedFields, d.c.api.manager)
	if !d.correct {
		if len(lost) == 0 {
			d.accept(*o, before, f.meta)
		}
		d.say(lossOf(*o, lost, false))
		return true, nil
	}
	var contested []string
	for _, l := range lost {
		if d.c.flips.take(taking{o.item().identity(), l.Path.String(), l.By}, d.now) {
			contested = append(contested, l.Path.String())
		}
	}
	if len(contested) == 0 {
		return false, nil
	}
	d.contest(*o, before, contested)
	o.leaveTo(contested)
	return len(contested) == len(lost), nil
}

// leaveTo leaves fields to whoever has them.
func (o *object) leaveTo(contested []string) {
	for _, f := range contested {
		o.yields.contested = append(slices.Clip(o.yields.contested), f)
		if p, err := terms.ParsePath(f); err == nil { // also where it was taken by taking it away
			o.yields.paths = append(slices.Clip(o.yields.paths), p)
		}
	}
}

// keep notes an object as it was just applied. One with contested fields is not as the set wants it, so
// that the next set is applied to it whatever it says.
func (d *drift) keep(o object, m metav1.ObjectMeta) {
	i := o.item()
	d.mu.Lock()
	defer d.mu.Unlock()
	was := d.items[i.identity()]
	i.UID, i.Owned, i.Made, i.Contested = string(m.UID), d.c.owned(m), was.Made, was.Contested
	if len(i.Contested) > 0 {
		i.Digest = ""
	}
	d.renewed = d.renewed || was.UID != i.UID
	d.items[i.identity()], d.seen[i.identity()] = i, m
}

// accept notes an object as it is: nothing of it was taken. One that a dry run would not touch is as it
// should be.
func (d *drift) accept(o object, m, tried metav1.ObjectMeta) {
	d.mu.Lock()
	defer d.mu.Unlock()
	i, known := d.items[o.item().identity()]
	if !known {
		i = o.item()
		i.Digest = ""
	}
	i.UID, i.Owned = string(m.UID), d.c.owned(m)
	if d.c.owned(tried) == i.Owned && len(i.Contested) == 0 {
		i.Digest = o.digest
	}
	d.items[i.identity()] = i
}

// contest leaves fields to those who took them.
func (d *drift) contest(o object, m metav1.ObjectMeta, contested []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := d.items[o.item().identity()]
	if i.Name == "" {
		i = o.item()
	}
	i.UID, i.Owned, i.Digest = string(m.UID), d.c.owned(m), ""
	i.Contested = slices.Compact(slices.Sorted(slices.Values(slices.Concat(i.Contested, contested))))
	d.items[i.identity()], d.seen[i.identity()], d.renewed = i, m, true
}

// sayContested tells of every contested field, also of one that was left earlier, who has it now.
func (d *drift) sayContested() {
	for id, i := range d.items {
		if len(i.Contested) == 0 || i.Leaving {
			continue
		}
		var by []string
		for _, o := range fields.Others(d.seen[id].ManagedFields, d.c.api.manager) {
			if slices.ContainsFunc(i.Contested, func(f string) bool {
				p, err := terms.ParsePath(f)
				return err == nil && o.Fields.Has(fields.Path(p))
			}) {
				by = append(by, o.Manager)
			}
		}
		d.say(Drifted{Object: i.String(), Fields: i.Contested, By: people(by), Contested: true})
	}
}

func lossOf(o object, lost []fields.Loss, corrected bool) Drifted {
	d := Drifted{Object: o.String(), Corrected: corrected}
	var by []string
	for _, l := range lost {
		d.Fields = append(d.Fields, l.Path.String())
		if l.By != "" {
			by = append(by, l.By)
		}
		if l.At.After(d.At) {
			d.At = l.At
		}
	}
	slices.Sort(d.Fields)
	d.By = people(by)
	return d
}

func people(by []string) string {
	return strings.Join(slices.Compact(slices.Sorted(slices.Values(by))), ", ")
}

// say leaves out what turned out to be no drift.
func (d *drift) say(x Drifted) {
	if !x.Missing && x.Outside == "" && len(x.Fields) == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drifted = append(d.drifted, x)
}
