package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// each runs f over things, a few at a time. It goes on after an error of one thing, and stops when the
// API is away or ctx ends: then that error comes alone.
func each[T any](ctx context.Context, things []T, f func(context.Context, T) error) error {
	g, ctx := errgroup.WithContext(worn(ctx))
	g.SetLimit(workers)
	errs := make([]error, len(things))
	for n, t := range things {
		g.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if errs[n] = f(ctx, t); ours(errs[n]) {
				return errs[n]
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return join(errs...)
}

// passing: trouble that goes away by itself, or by what else is being applied.
func passing(err error) bool {
	return terminating(err) || apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || apierrors.IsInternalError(err) && !tooLarge(err)
}

type wornKey struct{}

// worn makes a context in which patience runs out once for all: where a webhook is down, every object
// fails for the same reason, and each need not be waited for by itself.
func worn(ctx context.Context) context.Context {
	if ctx.Value(wornKey{}) != nil {
		return ctx
	}
	return context.WithValue(ctx, wornKey{}, new(atomic.Bool))
}

// patiently repeats try while it says so, for as long as the configuration allows.
func (c *Cluster) patiently(ctx context.Context, try func() (again bool, err error)) error {
	out, shared := ctx.Value(wornKey{}).(*atomic.Bool)
	deadline := time.Now().Add(c.patience)
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		again, err := try()
		if !again || shared && out.Load() {
			return err
		}
		if time.Now().Add(pause).After(deadline) {
			if shared {
				out.Store(true)
			}
			return err
		}
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
	}
}

// sent is what became of one object.
type sent struct {
	meta               metav1.ObjectMeta
	created, recreated bool
}

// send applies one object. The subscription's namespace is made again when it is gone; an object whose
// change is refused because it cannot be changed is made anew where the set's terms consent.
func (c *Cluster) send(ctx context.Context, o object, set Set, own *object) (sent, error) {
	var f offer
	err := c.patiently(ctx, func() (again bool, err error) {
		f, err = c.put(ctx, o, 0)
		switch missing := isMissingNamespace(err); {
		case missing == "":
		case missing == set.Namespace:
			if err := c.makeNamespace(ctx, missing, own); err != nil {
				return false, err
			}
			return true, err
		default:
			return false, err
		}
		if o.upcoming && apierrors.IsNotFound(err) {
			return true, err // established, and not served by every handler yet
		}
		return passing(err), err
	})
	anew := false
	if apierrors.IsInvalid(err) && o.consents(set.Terms) {
		f, anew, err = c.remake(ctx, o, set, err)
	}
	if err != nil && !errors.Is(err, ErrRefused) {
		err = refusal(o.GetKind(), o.GetNamespace(), o.GetName(), err)
	}
	return sent{f.meta, f.created && !anew, anew}, err
}

// established waits for a definition to be served.
func (c *Cluster) established(ctx context.Context, o object) error {
	why := "its API server has not said so"
	done := false
	err := c.patiently(ctx, func() (bool, error) {
		var crd unstructured.Unstructured
		if err := c.api.get(ctx, o.resource, "", o.GetName(), "", &crd.Object); err != nil {
			return apierrors.IsNotFound(err), err
		}
		conditions, _, _ := unstructured.NestedSlice(crd.Object, "status", "conditions")
		for _, v := range conditions {
			cond, _ := v.(map[string]any)
			switch {
			case cond["type"] == "Established" && cond["status"] == "True":
				done = true
			case cond["type"] == "NamesAccepted" && cond["status"] == "False":
				why = fmt.Sprint(cond["reason"], ": ", cond["message"])
			}
		}
		return !done, nil
	})
	if err != nil {
		return refusal(o.GetKind(), "", o.GetName(), err)
	}
	if !done {
		return fmt.Errorf("%s: not established within %s: %s; try: kubectl describe crd %s", o, c.patience, oneLine(why), o.GetName())
	}
	return nil
}

// Apply puts a set on the cluster, stage by stage: one request for each object that differs from what
// prev says was applied, and none for the others. prev is the last Inventory known, the zero one for a
// first install. The inventory on the cluster names every object before it is created. What cannot be
// changed is deleted and made anew where the set's terms consent.
//
// On success the returned inventory is the set's; prev's items that the set no longer has wait for
// Prune. On an error it also holds those, marked Leaving, and is what the next Apply (of this set or of
// the previous one) has to be given.
func (c *Cluster) Apply(ctx context.Context, set Set, prev Inventory) (Inventory, Change, error) {
	sums := set.sum()
	if prev.appliedOf(sums) {
		return c.same(set, prev)
	}
	ctx, requests := counted(ctx)
	ctx, err := c.acting(ctx, set.Distribution)
	if err != nil {
		return prev, Change{}, fmt.Errorf("apply %s: %w", set, err)
	}
	j, err := c.begin(ctx, set, sums, prev)
	if err != nil { // nothing was sent
		return prev, Change{Requests: int(requests.Load())}, fmt.Errorf("apply %s: %w", set, err)
	}
	if free, problems := c.claims.take(set.Distribution, j.todo); len(problems) > 0 {
		err = refused(problems, len(set.Objects))
	} else {
		defer free()
		err = c.unclaimed(ctx, set, j.fresh())
	}
	if err != nil { // nothing was sent
		return prev, Change{Requests: int(requests.Load())}, fmt.Errorf("apply %s: %w", set, err)
	}
	err = j.run(ctx, sums.whole)
	change := j.change
	change.Requests = int(requests.Load())
	change.sort()
	if err != nil {
		return j.inventory(""), change, fmt.Errorf("apply %s: %w", set, err)
	}
	return j.inventory(sums.whole).Current(), change, nil
}

// same answers for a set that is applied already, without a request.
func (c *Cluster) same(set Set, prev Inventory) (Inventory, Change, error) {
	inv := prev.Current()
	inv.Version, inv.Bundle, inv.Overlay, inv.Rendered = set.Version, set.Bundle, set.Overlay, set.Rendered
	var change Change
	for _, i := range inv.Items {
		change.Unchanged = append(change.Unchanged, i.String())
	}
	change.sort()
	return inv, change, nil
}

// job is one Apply under way.
type job struct {
	c       *Cluster
	set     Set
	objects []object          // all
	todo    []object          // those to be sent
	own     *object           // the set's own Namespace object of the subscription's namespace
	made    bool              // that namespace was made for the inventory's sake
	begun   map[identity]bool // an earlier attempt was about to create them

	mu     sync.Mutex // guards items and change
	items  map[identity]Item
	change Change
}

// begin plans; it writes nothing.
func (c *Cluster) begin(ctx context.Context, set Set, sums sum, prev Inventory) (*job, error) {
	j := &job{c: c, set: set, items: map[identity]Item{}, begun: map[identity]bool{}}
	for id, i := range prev.byIdentity() {
		i.Leaving = true
		j.items[id] = i
	}
	if len(set.Objects) == 0 {
		return nil, fmt.Errorf("nothing to apply: %w", ErrEmptySet)
	}
	objs, problems, err := c.prepare(ctx, set, sums)
	if err != nil {
		return nil, err
	}
	if len(problems) > 0 {
		return nil, refused(problems, len(set.Objects))
	}
	j.objects = objs
	for n, o := range objs {
		if o.stage == stageNamespaces && o.GetName() == set.Namespace {
			j.own = &objs[n]
		}
		i := o.item()
		was := j.items[i.identity()]
		i.UID, i.Owned, i.Made = was.UID, was.Owned, was.Made
		if o.standsIn(was) {
			j.change.Unchanged = append(j.change.Unchanged, o.String())
		} else {
			i.Digest = "" // until it is there
			if was.Name != "" && was.UID == "" {
				j.begun[i.identity()] = true
			}
			j.todo = append(j.todo, o)
		}
		j.items[i.identity()] = i
	}
	if _, out := set.divided(j.todo); len(out) > 0 {
		return nil, beyond(out)
	}
	return j, nil
}

// run sends what differs; whole is the set's digest.
func (j *job) run(ctx context.Context, whole string) error {
	if len(j.todo) > 0 {
		var err error
		if j.made, err = j.c.writeInventory(ctx, j.inventory(""), j.own); err != nil {
			return err
		}
	}
	err := j.send(ctx)
	applied := ""
	if err == nil {
		applied = whole
	}
	if err != nil && ours(err) {
		return err // what was written first already names every object
	}
	if _, e := j.c.writeInventory(ctx, j.inventory(applied), j.own); e != nil {
		err = join(err, e)
	}
	return err
}

func (j *job) send(ctx context.Context) error {
	for s := range stages {
		var now []object
		for _, o := range j.todo {
			if o.stage == s {
				now = append(now, o)
			}
		}
		if len(now) == 0 {
			continue
		}
		if err := each(ctx, now, j.one); err != nil {
			return fmt.Errorf("%d of %d objects are applied, then: %w", len(j.change.Created)+len(j.change.Changed)+len(j.change.Recreated), len(j.todo), err)
		}
		if s != stageDefinitions {
			continue
		}
		j.c.kinds.forget()
		if err := each(ctx, now, j.c.established); err != nil {
			return err
		}
	}
	return nil
}

func (j *job) one(ctx context.Context, o object) error {
	s, err := j.c.send(ctx, o, j.set, j.own)
	if err != nil {
		return err
	}
	i := o.item()
	i.UID, i.Owned = string(s.meta.UID), j.c.owned(s.meta)
	j.mu.Lock()
	defer j.mu.Unlock()
	was := j.items[i.identity()]
	i.Made = was.Made || was.UID == "" && (s.created || j.begun[i.identity()] && j.c.born(s.meta))
	j.items[i.identity()] = i
	if s.recreated {
		j.change.Recreated = append(j.change.Recreated, o.String())
	} else if s.created || j.made && o.stage == stageNamespaces && o.GetName() == j.set.Namespace {
		j.change.Created = append(j.change.Created, o.String())
	} else {
		j.change.Changed = append(j.change.Changed, o.String())
	}
	return nil
}

// fresh are the objects that were not there, or not ours, when the set before was applied.
func (j *job) fresh() []object {
	return slices.DeleteFunc(slices.Clone(j.todo), func(o object) bool { return j.items[o.item().identity()].UID != "" })
}

// inventory is what is known now.
func (j *job) inventory(applied string) Inventory {
	j.mu.Lock()
	defer j.mu.Unlock()
	inv := Inventory{
		Distribution: j.set.Distribution, Namespace: j.set.Namespace, Version: j.set.Version,
		Bundle: j.set.Bundle, Overlay: j.set.Overlay, Rendered: j.set.Rendered, Applied: applied,
	}
	for _, i := range j.items {
		inv.Items = append(inv.Items, i)
	}
	inv.sort()
	return inv
}
