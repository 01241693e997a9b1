package apply

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/fields"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/terms"
)

// consents: the provider's terms allow to delete the object and to make it anew. What holds data has to
// be named.
func (o object) consents(t terms.Terms) bool {
	group, kind, ns, name := o.resource.Group, o.GetKind(), o.GetNamespace(), o.GetName()
	if !keeps(o.resource.GroupKind()) {
		return t.MayRecreate(group, kind, ns, name)
	}
	return slices.ContainsFunc(t.Recreate, func(p terms.Pattern) bool { return p.Named() && p.Matches(group, kind, ns, name) })
}

// ours: the distribution's label is on the object, and we put it there. A label alone can be copied: by
// hand, or by the controller that makes endpoints for a Service.
func (c *Cluster) ours(m metav1.ObjectMeta, distribution string) bool {
	return m.Labels[DistributionLabel] == distribution &&
		fields.Owned(m.ManagedFields, c.api.manager).Has(fields.Path{"metadata", "labels", DistributionLabel})
}

func (c *Cluster) owned(m metav1.ObjectMeta) string {
	return fields.Owned(m.ManagedFields, c.api.manager).Digest()
}

// bornWithin is how far the time of our entry may be from that of the creation that it was: both are
// whole seconds.
const bornWithin = 2 * time.Second

// born: the object was created by our apply, not taken over by it.
func (c *Cluster) born(m metav1.ObjectMeta) bool {
	n := slices.IndexFunc(m.ManagedFields, c.api.applied)
	if n < 0 || m.ManagedFields[n].Time == nil || m.ManagedFields[n].Time.Sub(m.CreationTimestamp.Time).Abs() > bornWithin {
		return false
	}
	at := m.ManagedFields[n].Time
	return !slices.ContainsFunc(m.ManagedFields, func(e metav1.ManagedFieldsEntry) bool {
		return !c.api.applied(e) && e.Subresource == "" && e.Time != nil && e.Time.Before(at)
	})
}

// double is an object under a name that nobody has, without what only one object can have: whether it
// would be taken is whether the object could be made.
func double(o object, namespace string) (name string, data []byte, err error) {
	name = "wheelwright-check-" + digest([]byte(o.String()))[:12]
	d := o.DeepCopy()
	d.SetName(name)
	if namespace != "" {
		d.SetNamespace(namespace)
	}
	if o.resource.Group == "" && o.GetKind() == "Service" {
		alone(d)
	}
	if data, err = json.Marshal(d.Object); err != nil {
		return "", nil, fmt.Errorf("encode %s: %w", o, err)
	}
	return name, data, nil
}

// alone takes addresses and ports of nodes from a Service: the one that is there has them.
func alone(service *unstructured.Unstructured) {
	if ip, _, _ := unstructured.NestedString(service.Object, "spec", "clusterIP"); ip != "None" {
		unstructured.RemoveNestedField(service.Object, "spec", "clusterIP")
		unstructured.RemoveNestedField(service.Object, "spec", "clusterIPs")
	}
	unstructured.RemoveNestedField(service.Object, "spec", "healthCheckNodePort")
	ports, _, _ := unstructured.NestedSlice(service.Object, "spec", "ports")
	for _, p := range ports {
		if p, ok := p.(map[string]any); ok {
			delete(p, "nodePort")
		}
	}
	if len(ports) > 0 {
		_ = unstructured.SetNestedSlice(service.Object, ports, "spec", "ports") // what came out goes in
	}
}

// standing is why a change was refused, as far as the object that is there says.
type standing struct {
	there bool
	meta  metav1.ObjectMeta
	anew  bool // the same object would be taken if it were new
}

// standing finds out whether an object that may not be changed so could be made so.
func (c *Cluster) standing(ctx context.Context, o object) (standing, error) {
	var s standing
	var p partial
	err := c.api.get(ctx, o.resource, o.GetNamespace(), o.GetName(), metadataOnly, &p)
	if err != nil {
		return s, ignoreMissing(err)
	}
	s.there, s.meta = true, p.Metadata
	if isDefinition(o.resource.GroupKind()) {
		return s, nil // its name is part of what it says, and with it go all objects of its kind
	}
	name, data, err := double(o, "")
	if err != nil {
		return s, err
	}
	_, _, err = c.api.patch(ctx, o.resource, o.GetNamespace(), name, data, dryRun)
	s.anew = err == nil
	if ours(err) {
		return s, err
	}
	return s, nil
}

// remake deletes an object and makes it anew; refusal is what a change was answered with. An object that
// would be refused anew too is not touched. Whoever is interrupted in between finds no object, and
// creates it.
func (c *Cluster) remake(ctx context.Context, o object, set Set, refusal error) (offer, bool, error) {
	s, err := c.standing(ctx, o)
	if err != nil {
		return offer{}, false, err
	}
	if !s.there || !s.anew {
		return offer{}, false, refusal
	}
	if !c.ours(s.meta, set.Distribution) {
		return offer{}, false, fmt.Errorf("it would have to be made anew, and what is there is not the release's to delete; try: %s", deletion(o))
	}
	c.log.WarnContext(ctx, "an object that cannot be changed is deleted and made anew, as the provider's terms allow", logging.Object, o.String(), logging.Version, set.Version)
	if s.meta.DeletionTimestamp == nil {
		if err := c.api.delete(ctx, o.resource, o.GetNamespace(), o.GetName(), s.meta.UID); ignoreMissing(err) != nil {
			return offer{}, false, err
		}
	}
	if err := c.vanished(ctx, o, s.meta); err != nil {
		return offer{}, false, err
	}
	var f offer
	err = c.patiently(ctx, func() (again bool, err error) {
		f, err = c.put(ctx, o, 0)
		return passing(err), err
	})
	return f, true, err
}

// vanished waits until the object with this UID is gone.
func (c *Cluster) vanished(ctx context.Context, o object, was metav1.ObjectMeta) error {
	gone := false
	err := c.patiently(ctx, func() (bool, error) {
		var p partial
		err := c.api.get(ctx, o.resource, o.GetNamespace(), o.GetName(), metadataOnly, &p)
		gone = apierrors.IsNotFound(err) || err == nil && p.Metadata.UID != was.UID
		was = p.Metadata
		return !gone && err == nil, ignoreMissing(err)
	})
	if err != nil || gone {
		return err
	}
	return fmt.Errorf("it was deleted in order to be made anew, and is not gone after %s: it waits for its finalizers %q; it is made as soon as it is gone, see: kubectl %sget %s %s -o yaml",
		c.patience, was.Finalizers, flagOf(o), strings.ToLower(o.GetKind()), o.GetName())
}

func flagOf(o object) string {
	if ns := o.GetNamespace(); ns != "" {
		return "-n " + ns + " "
	}
	return ""
}

func deletion(o object) string {
	return fmt.Sprintf("kubectl %sdelete %s %s", flagOf(o), strings.ToLower(o.GetKind()), o.GetName())
}

// pattern is how a provider names the object in terms.
func pattern(o object) string {
	if ns := o.GetNamespace(); ns != "" {
		return o.GetKind() + "/" + ns + "/" + o.GetName()
	}
	return o.GetKind() + "/" + o.GetName()
}
