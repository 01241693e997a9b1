package apply

import (
	"context"
	"fmt"
	"slices"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// Undo takes away what an attempt made that was never promoted: the items with Made, and those that it
// was about to create and did. They are deleted by UID and only where they bear our label. What was there
// before is kept, and so are namespaces, definitions, volumes and claims. With nothing left that Apply
// put there the inventory goes too.
func (c *Cluster) Undo(ctx context.Context, inv Inventory) (Change, error) {
	ctx, requests := counted(ctx)
	u := &undoing{c: c, inv: inv}
	ctx, err := c.acting(ctx, inv.Distribution)
	if err == nil {
		err = u.run(ctx)
	}
	u.change.Requests = int(requests.Load())
	u.change.sort()
	if err != nil {
		return u.change, fmt.Errorf("undo what was made of %s: %w", inv.Distribution, err)
	}
	return u.change, nil
}

type undoing struct {
	c      *Cluster
	inv    Inventory
	served *catalogue

	mu     sync.Mutex // guards what follows
	change Change
	left   []Item
}

func (u *undoing) run(ctx context.Context) error {
	if !slices.ContainsFunc(u.inv.Items, func(i Item) bool { return i.Made || i.UID == "" }) {
		return nil // nothing was begun, or all of it was promoted
	}
	var want []schema.GroupVersionKind
	byStage := map[stage][]Item{}
	for _, i := range u.inv.Items {
		want = append(want, i.GroupVersionKind)
		byStage[stageOf(i.GroupKind())] = append(byStage[stageOf(i.GroupKind())], i)
	}
	u.c.kinds.forget() // of a definition that came with the attempt nothing may be known yet
	var err error
	if u.served, err = u.c.kinds.having(ctx, want); err != nil {
		return err
	}
	for s := stages - 1; s >= 0; s-- {
		if e := each(ctx, byStage[s], u.one); e != nil {
			if ours(e) {
				return e
			}
			err = join(err, e)
		}
	}
	if len(u.left) == 0 && err == nil {
		return u.c.deleteInventory(ctx, u.inv)
	}
	rest := u.inv
	rest.Applied, rest.Items = "", u.left
	rest.sort()
	_, e := u.c.writeInventory(ctx, rest, nil)
	return join(err, e)
}

func (u *undoing) one(ctx context.Context, i Item) error {
	deleted, there, err := u.delete(ctx, i)
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case err != nil:
		u.left = append(u.left, i)
		return refusal(i.Kind, i.Namespace, i.Name, err)
	case deleted:
		u.change.Deleted = append(u.change.Deleted, i.String())
	case there:
		u.change.Kept = append(u.change.Kept, i.String())
		if !i.Made || !keeps(i.GroupKind()) {
			i.Digest = ""
			u.left = append(u.left, i)
		}
	}
	return nil
}

func (u *undoing) delete(ctx context.Context, i Item) (deleted, there bool, err error) {
	r, ok := u.served.like(i.GroupVersionKind)
	if !ok {
		return false, false, nil
	}
	var o partial
	if err := u.c.api.get(ctx, r, i.Namespace, i.Name, metadataOnly, &o); err != nil {
		return false, false, ignoreMissing(err)
	}
	if !u.c.ours(o.Metadata, u.inv.Distribution) {
		return false, false, nil // somebody else's, and none of an inventory's business
	}
	made := i.Made && (i.UID == "" || o.Metadata.UID == types.UID(i.UID)) || i.UID == "" && u.c.born(o.Metadata)
	if !made || keeps(i.GroupKind()) {
		return false, true, nil
	}
	err = u.c.api.delete(ctx, r, i.Namespace, i.Name, o.Metadata.UID)
	if apierrors.IsConflict(err) {
		return false, false, nil
	}
	return err == nil, false, ignoreMissing(err)
}
