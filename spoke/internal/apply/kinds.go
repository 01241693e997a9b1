package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
)

// kinds knows what the cluster serves. It asks once (two requests) and again when a kind is not found
// or forget was called.
type kinds struct {
	api  *api
	disc *discovery.DiscoveryClient

	mu  sync.Mutex
	now *catalogue
	at  time.Time // when it was made
}

// catalogue is what a cluster served at one moment. It does not change once made.
type catalogue struct {
	served   map[schema.GroupVersionKind]resource
	versions map[schema.GroupKind][]string // in the server's order of preference
	groups   map[string][]string           // of a kind
	failed   map[string]error              // groups whose server did not answer
}

// freshness is how old a catalogue may be that a release is judged by. A kind that it lacks is asked for
// in any case; one that it has and that is gone shows at the dry run.
const freshness = 10 * time.Minute

// age forgets a catalogue that is older than that.
func (k *kinds) age(than time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.now != nil && time.Since(k.at) > than {
		k.now = nil
	}
}

func (k *kinds) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.now = nil
}

// having returns a catalogue that has all of want, or else one made just now.
func (k *kinds) having(ctx context.Context, want []schema.GroupVersionKind) (*catalogue, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.now != nil && !slices.ContainsFunc(want, func(g schema.GroupVersionKind) bool { _, ok := k.now.served[g]; return !ok }) {
		return k.now, nil
	}
	c, err := k.load(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask the cluster for the kinds it serves: %w", err)
	}
	k.now, k.at = c, time.Now()
	return c, nil
}

func (k *kinds) load(ctx context.Context) (*catalogue, error) {
	groups, lists, err := k.disc.ServerGroupsAndResourcesWithContext(ctx)
	c := &catalogue{
		served:   map[schema.GroupVersionKind]resource{},
		versions: map[schema.GroupKind][]string{},
		groups:   map[string][]string{},
		failed:   map[string]error{},
	}
	var partly *discovery.ErrGroupDiscoveryFailed
	switch {
	case errors.As(err, &partly): // an aggregated API is away; the rest is known
		for gv, e := range partly.Groups {
			c.failed[gv.Group] = e
		}
	case err != nil:
		return nil, k.api.failed(ctx, err)
	}
	for _, l := range lists {
		gv, err := schema.ParseGroupVersion(l.GroupVersion)
		if err != nil {
			continue
		}
		for _, r := range l.APIResources {
			if strings.Contains(r.Name, "/") || !slices.Contains([]string(r.Verbs), "patch") {
				continue
			}
			gvk := gv.WithKind(r.Kind)
			c.served[gvk] = resource{GroupVersionKind: gvk, plural: r.Name, namespaced: r.Namespaced}
			if !slices.Contains(c.groups[r.Kind], gv.Group) {
				c.groups[r.Kind] = append(c.groups[r.Kind], gv.Group)
			}
		}
	}
	for _, g := range groups {
		for _, v := range g.Versions {
			gv := schema.GroupVersion{Group: g.Name, Version: v.Version}
			for gvk := range c.served {
				if gvk.GroupVersion() == gv {
					c.versions[gvk.GroupKind()] = append(c.versions[gvk.GroupKind()], v.Version)
				}
			}
		}
	}
	for kind := range c.groups {
		slices.Sort(c.groups[kind])
	}
	return c, nil
}

// like finds a kind in the version asked for or else in the one that the server prefers.
func (c *catalogue) like(gvk schema.GroupVersionKind) (resource, bool) {
	if r, ok := c.served[gvk]; ok {
		return r, true
	}
	for _, v := range c.versions[gvk.GroupKind()] {
		return c.served[gvk.GroupKind().WithVersion(v)], true
	}
	return resource{}, false
}

// preferred lists every kind once, in the version that the server prefers.
func (c *catalogue) preferred() []resource {
	var all []resource
	for gk, versions := range c.versions {
		all = append(all, c.served[gk.WithVersion(versions[0])])
	}
	return all
}

// notServed says what is served instead of a kind that is not.
func (c *catalogue) notServed(gvk schema.GroupVersionKind) string {
	gv := gvk.GroupVersion().String()
	if vs := c.versions[gvk.GroupKind()]; len(vs) > 0 {
		instead := make([]string, len(vs))
		for i, v := range vs {
			instead[i] = schema.GroupVersion{Group: gvk.Group, Version: v}.String()
		}
		return fmt.Sprintf("%s is not served by this cluster; it serves %s", gv, strings.Join(instead, ", "))
	}
	if e, ok := c.failed[gvk.Group]; ok {
		return fmt.Sprintf("%s does not answer: %s; try: kubectl get apiservices", gv, oneLine(e.Error()))
	}
	var instead []string
	for _, g := range c.groups[gvk.Kind] {
		gk := schema.GroupKind{Group: g, Kind: gvk.Kind}
		for _, v := range c.versions[gk] {
			instead = append(instead, schema.GroupVersion{Group: g, Version: v}.String())
		}
	}
	if len(instead) > 0 {
		return fmt.Sprintf("%s is not served by this cluster; it serves %s of %s", gv, gvk.Kind, strings.Join(instead, ", "))
	}
	return fmt.Sprintf("%s is not served by this cluster, and no definition of %s comes with the release; install its CustomResourceDefinition, then see: kubectl api-resources --api-group=%s",
		gv, gvk.Kind, gvk.Group)
}

// defined lists the kinds that the CustomResourceDefinitions among objs bring.
func defined(objs []*unstructured.Unstructured) map[schema.GroupVersionKind]resource {
	m := map[schema.GroupVersionKind]resource{}
	for _, o := range objs {
		if !isDefinition(o.GroupVersionKind().GroupKind()) {
			continue
		}
		group, _, _ := unstructured.NestedString(o.Object, "spec", "group")
		kind, _, _ := unstructured.NestedString(o.Object, "spec", "names", "kind")
		plural, _, _ := unstructured.NestedString(o.Object, "spec", "names", "plural")
		scope, _, _ := unstructured.NestedString(o.Object, "spec", "scope")
		versions, _, _ := unstructured.NestedSlice(o.Object, "spec", "versions")
		for _, v := range versions {
			v, _ := v.(map[string]any)
			name, _ := v["name"].(string)
			served, ok := v["served"].(bool)
			if name == "" || (ok && !served) {
				continue
			}
			gvk := schema.GroupVersionKind{Group: group, Version: name, Kind: kind}
			m[gvk] = resource{GroupVersionKind: gvk, plural: plural, namespaced: scope == "Namespaced"}
		}
	}
	return m
}
