package apply

import (
	"context"
	"fmt"
	"slices"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/terms"
)

// Prune deletes what old has and new has not, and takes it out of the inventory on the cluster. An
// object is deleted only if it is the one that was applied: it has the recorded UID and our label.
// Namespaces, CustomResourceDefinitions, PersistentVolumes and PersistentVolumeClaims are kept unless
// the provider's terms name them, and so is what turned out to be somebody else's. What could not be deleted stays in the inventory on the
// cluster; call Prune again.
func (c *Cluster) Prune(ctx context.Context, old, new Inventory, t terms.Terms) (Change, error) {
	ctx, requests := counted(ctx)
	p := &pruning{c: c, distribution: old.Distribution, terms: t}
	ctx, err := c.acting(ctx, old.Distribution)
	if err == nil {
		err = p.run(ctx, old, new)
	}
	p.change.Requests = int(requests.Load())
	p.change.sort()
	if err != nil {
		return p.change, fmt.Errorf("prune %s: %w", old.Distribution, err)
	}
	return p.change, nil
}

type pruning struct {
	c            *Cluster
	distribution string
	terms        terms.Terms
	served       *catalogue

	mu     sync.Mutex // guards what follows
	change Change
	failed []Item
}

func (p *pruning) run(ctx context.Context, old, new Inventory) error {
	now := new.Current()
	keep := now.byIdentity()
	gone := map[identity]Item{}
	for _, i := range slices.Concat(new.Items, old.Items) {
		if _, ok := keep[i.identity()]; !ok {
			gone[i.identity()] = i
		}
	}
	moved := old.Namespace != "" && old.Namespace != new.Namespace && old.Distribution == new.Distribution
	if len(gone) == 0 && !moved {
		return nil
	}
	if len(keep) == 0 {
		return fmt.Errorf("%d objects stay: %w", len(gone), ErrEmptySet)
	}
	var want []schema.GroupVersionKind
	byStage := map[stage][]Item{}
	for _, i := range gone {
		if !mayPrune(i, p.terms) {
			p.change.Kept = append(p.change.Kept, i.String())
			continue
		}
		want = append(want, i.GroupVersionKind)
		byStage[stageOf(i.GroupKind())] = append(byStage[stageOf(i.GroupKind())], i)
	}
	var err error
	if p.served, err = p.c.kinds.having(ctx, want); err != nil {
		return err
	}
	for s := stages - 1; s >= 0; s-- { // the other way round than they were applied
		if e := each(ctx, byStage[s], p.one); e != nil {
			if ours(e) {
				return e
			}
			err = join(err, e)
		}
	}
	now.Items = append(now.Items, p.failed...)
	now.sort()
	if _, e := p.c.writeInventory(ctx, now, nil); e != nil {
		return join(err, e)
	}
	if moved && err == nil {
		err = p.c.deleteInventory(ctx, old)
	}
	return err
}

func (p *pruning) one(ctx context.Context, i Item) error {
	deleted, kept, err := p.delete(ctx, i)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err != nil:
		i.Leaving = true
		p.failed = append(p.failed, i)
		return refusal(i.Kind, i.Namespace, i.Name, err)
	case deleted:
		p.change.Deleted = append(p.change.Deleted, i.String())
	case kept:
		p.change.Kept = append(p.change.Kept, i.String())
	}
	return nil
}

func (p *pruning) delete(ctx context.Context, i Item) (deleted, kept bool, err error) {
	r, ok := p.served.like(i.GroupVersionKind)
	if !ok {
		if e := p.served.failed[i.Group]; e != nil {
			return false, false, fmt.Errorf("its API does not answer: %w; try: kubectl get apiservices", e)
		}
		return false, false, nil // the kind is gone, and its objects with it
	}
	var o partial
	if err := p.c.api.get(ctx, r, i.Namespace, i.Name, metadataOnly, &o); err != nil {
		return false, false, ignoreMissing(err)
	}
	if !p.ours(i, o.Metadata) {
		p.c.log.WarnContext(ctx, "an object that is to be pruned is not the one that was applied; it is kept", logging.Object, i.String())
		return false, true, nil
	}
	err = p.c.api.delete(ctx, r, i.Namespace, i.Name, o.Metadata.UID)
	if apierrors.IsConflict(err) { // another one took its place just now
		return false, true, nil
	}
	return err == nil, false, ignoreMissing(err)
}

// mayPrune: kinds that hold data are deleted only with the provider's consent, by name.
func mayPrune(i Item, t terms.Terms) bool {
	return !keeps(i.GroupKind()) || t.MayDelete(i.Group, i.Kind, i.Namespace, i.Name)
}

// ours: the object is the one that was applied. Of one whose UID was not recorded any more, since the
// spoke died while creating it, the label that we put there has to say so.
func (p *pruning) ours(i Item, o metav1.ObjectMeta) bool {
	return p.c.ours(o, p.distribution) && (i.UID == "" || o.UID == types.UID(i.UID))
}

func ignoreMissing(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
