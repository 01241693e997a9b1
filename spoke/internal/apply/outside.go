package apply

import (
	"context"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/wheelwright-dev/wheelwright/spoke/internal/envelope"
)

// Outside is a way in which an object is outside of the provider's envelope. Its String may be told to others.
type Outside struct {
	Object string // "Deployment app/backend"
	envelope.Violation
}

func (o Outside) String() string { return o.Object + ": " + o.Text() }

// Whole is for the provider alone.
func (o Outside) Whole() string {
	if o.Detail == "" {
		return o.String()
	}
	return o.String() + " (" + o.Detail + ")"
}

// Outside judges a set by its envelope, and changes nothing: it asks the cluster which kinds are namespaced.
func (c *Cluster) Outside(ctx context.Context, set Set) ([]Outside, error) {
	if set.Envelope.None() {
		return nil, nil
	}
	objs, _, err := c.prepare(ctx, set, set.sum())
	if err != nil {
		return nil, fmt.Errorf("judge %s by the envelope: %w", set, err)
	}
	_, out := set.divided(objs)
	more, err := c.besideOutside(ctx, set)
	if err != nil {
		return nil, fmt.Errorf("judge %s by the envelope: %w", set, err)
	}
	return slices.Concat(out, more), nil
}

// divided parts objects into those inside of the set's envelope, and all that is wrong with the others.
func (s Set) divided(objs []object) (inside []object, out []Outside) {
	if s.Envelope.None() {
		return objs, nil
	}
	for _, o := range objs {
		found := s.Envelope.Check(envelope.Subject{Unstructured: o.Unstructured, Namespaced: o.resource.namespaced, Namespace: o.GetNamespace(), Home: s.Namespace})
		for _, v := range found {
			out = append(out, Outside{o.String(), v})
		}
		if len(found) == 0 {
			inside = append(inside, o)
		}
	}
	return inside, out
}

// besideOutside judges what plugins make of the release: none of it is sent from here, and all of it is judged,
// also what has no name or the same one as another.
func (c *Cluster) besideOutside(ctx context.Context, set Set) (out []Outside, err error) {
	if set.Envelope.None() || len(set.Beside) == 0 {
		return nil, nil
	}
	served, err := c.kinds.having(ctx, nil)
	if err != nil {
		return nil, err
	}
	upcoming := defined(set.Objects)
	for _, o := range set.Beside {
		gvk := o.GroupVersionKind()
		r, ok := served.served[gvk]
		if !ok {
			r, ok = upcoming[gvk]
		}
		if !ok {
			r.namespaced, ok = envelope.Namespaced(gvk.GroupKind())
		}
		ns := ""
		if r.namespaced || !ok { // what nobody knows cannot be made, and is judged as if it could
			if ns = o.GetNamespace(); ns == "" {
				ns = set.Namespace
			}
		}
		for _, v := range set.Envelope.Check(envelope.Subject{Unstructured: o, Namespaced: ns != "", Namespace: ns, Home: set.Namespace}) {
			out = append(out, Outside{named(o.GetKind(), ns, o.GetName()), v})
		}
	}
	return out, nil
}

// beyond is the error of a set that is not sent.
func beyond(out []Outside) error {
	if len(out) == 0 {
		return nil
	}
	texts := make([]string, len(out))
	for n, o := range out {
		texts[n] = o.String()
	}
	return refusalError{"outside of the envelope: " + strings.Join(texts, "; ")}
}

// unaddressable says why a name or a namespace would lead to another object than it says.
func unaddressable(o *unstructured.Unstructured) string {
	for _, part := range []struct{ field, text string }{{"metadata.name", o.GetName()}, {"metadata.namespace", o.GetNamespace()}} {
		if part.text == "" {
			continue
		}
		if wrong := content.IsPathSegmentName(part.text); len(wrong) > 0 {
			return part.field + ": " + strings.Join(wrong, ", ")
		}
	}
	return ""
}

// notebook: the object has the name of one in which a spoke keeps what is on the cluster.
func notebook(o object) bool {
	return o.resource.GroupKind() == configMaps.GroupKind() && strings.HasPrefix(o.GetName(), InventoryName(""))
}

// forged are the objects that would take the place of an inventory, a distribution's own or another's: what
// is in there is what a spoke that lost its own record believes.
func (c *Cluster) forged(ctx context.Context, set Set, objs []object) (problems []Problem, err error) {
	for _, o := range objs {
		labels := o.GetLabels()
		own := notebook(o) && o.GetNamespace() == set.Namespace && o.GetName() == InventoryName(set.Distribution)
		if !own && labels[InventoryLabel] == "" && notebook(o) {
			var p partial
			err := c.api.get(ctx, configMaps, o.GetNamespace(), o.GetName(), metadataOnly, &p)
			if ours(err) {
				return nil, err
			}
			if err != nil && !apierrors.IsNotFound(err) {
				continue // who may not look may not write either, and the dry run says so
			}
			labels = p.Metadata.Labels
		}
		if own || labels[InventoryLabel] != "" {
			problems = append(problems, Problem{o.String(), "it would take the place of the inventory of a distribution; let an overlay rename it, or take the label " + InventoryLabel + " off"})
		}
	}
	return problems, nil
}

// LeftOutside tells what of a running set is outside, as drift that is left.
func LeftOutside(out []Outside) (all []Drifted) {
	for _, o := range out {
		n := slices.IndexFunc(all, func(d Drifted) bool { return d.Object == o.Object })
		if n < 0 {
			all = append(all, Drifted{Object: o.Object, Outside: o.Text()})
		}
	}
	return all
}

// noNamespace is why a namespace is not made, for those who cannot.
func noNamespace(ctx context.Context, name string, err error) error {
	i, _ := identityOf(ctx)
	if i.Own() || !apierrors.IsForbidden(err) || !denied.MatchString(err.Error()) {
		return refusal("Namespace", "", name, err)
	}
	return refusalError{fmt.Sprintf("Namespace %s: it does not exist, and %s may not make it, nor should an account of one namespace: make it beforehand, with the account and its Role: kubectl create namespace %[1]s", name, i)}
}
