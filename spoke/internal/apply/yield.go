package apply

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/wheelwright-dev/wheelwright/spoke/internal/fields"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/terms"
)

var replicas = []string{"spec", "replicas"}

// yields is what of an object is left to others once it is on the cluster.
type yields struct {
	scaling  scaling      // by an autoscaler of the set
	replicas bool         // declared, so that whoever scales it from outside of the set keeps them
	paths    []terms.Path // by the provider's terms
	managers []string     // whose fields are left, by the provider's terms

	// Contested are fields that somebody kept taking back; set by who corrects drift.
	contested []string
}

// look: what is there has to be read before it can be said what is sent.
func (y yields) look() bool { return y.scaling != unscaled || len(y.paths) > 0 }

// ask: a first try without force tells whose the fields are, and costs nothing where nobody minds.
func (y yields) ask() bool { return y.replicas || len(y.managers) > 0 || len(y.contested) > 0 }

// leaves reports that a conflict is settled by leaving the field.
func (y yields) leaves(object map[string]any, c conflict) bool {
	return y.replicas && c.subresource == "scale" && slices.Equal(c.path, replicas) ||
		slices.Contains(y.managers, c.manager) ||
		slices.ContainsFunc(y.contested, func(f string) bool { return under(c.path, resolve(object, f)) })
}

// yielding notes what the objects leave to others.
func yielding(objs []object, t terms.Terms) {
	autoscaled(objs)
	for n := range objs {
		o := &objs[n]
		_, declared, _ := unstructured.NestedFieldNoCopy(o.Object, "spec", "replicas")
		o.yields.replicas = declared && o.yields.scaling == unscaled
		o.yields.paths, o.yields.managers = t.Ignored(o.resource.Group, o.GetKind(), o.GetNamespace(), o.GetName())
	}
}

// offer is what became of sending an object.
type offer struct {
	meta    metav1.ObjectMeta
	created bool
	taken   []Conflict // fields that others had set and that are ours now
}

// put sends an object, in one request where no field can be another's. A dry run always asks for
// conflicts first, in order to name them.
func (c *Cluster) put(ctx context.Context, o object, m mode) (offer, error) {
	var f offer
	body, data, err := c.body(ctx, o)
	if err != nil {
		return f, err
	}
	send := func(m mode) (err error) {
		f.meta, f.created, err = c.api.patch(ctx, o.resource, o.GetNamespace(), o.GetName(), data, m)
		return err
	}
	if !o.yields.ask() && m&dryRun == 0 {
		return f, send(m)
	}
	err = send(m | gentle)
	found := conflicts(body.Object, err)
	if len(found) == 0 {
		return f, err
	}
	body = body.DeepCopy()
	left := false
	for _, x := range found {
		if len(x.path) > 0 && o.yields.leaves(o.Object, x) {
			prune(body.Object, x.path)
			left = true
		} else {
			f.taken = append(f.taken, Conflict{Object: o.String(), Field: x.text, Manager: x.manager})
		}
	}
	if left {
		if data, err = json.Marshal(body.Object); err != nil {
			return f, fmt.Errorf("encode %s: %w", o, err)
		}
	}
	return f, send(m)
}

// body is what is sent. Fields that are left to others are declared for the object's creation. Afterwards
// they are left out where somebody else owns them; as long as they are ours alone the value that is
// there is declared, since a field that nobody declares any more falls back.
func (c *Cluster) body(ctx context.Context, o object) (*unstructured.Unstructured, []byte, error) {
	if !o.yields.look() {
		data, err := o.bytes()
		return o.Unstructured, data, err
	}
	var live unstructured.Unstructured
	err := c.api.get(ctx, o.resource, o.GetNamespace(), o.GetName(), "", &live)
	if apierrors.IsNotFound(err) {
		data, err := o.bytes()
		return o.Unstructured, data, err
	}
	if err != nil {
		return nil, nil, err
	}
	paths := o.yields.paths
	if o.yields.scaling.stillOn(live.Object) {
		paths = append(slices.Clone(paths), replicas)
	}
	double := o.DeepCopy()
	mine := fields.Owned(live.GetManagedFields(), c.api.manager)
	others := fields.Others(live.GetManagedFields(), c.api.manager)
	for _, p := range paths {
		leave(double.Object, live.Object, mine, others, p)
	}
	data, err := json.Marshal(double.Object)
	if err != nil {
		return nil, nil, fmt.Errorf("encode %s: %w", o, err)
	}
	return double, data, nil
}
