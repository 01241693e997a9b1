package apply

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// Inventory is what was put on a cluster for one distribution. It is JSON-serialisable.
type Inventory struct {
	Distribution string `json:"distribution,omitempty"`
	Namespace    string `json:"namespace,omitempty"`
	Version      string `json:"version,omitempty"`

	Bundle   fleet.Digest `json:"bundle,omitempty"`
	Overlay  fleet.Digest `json:"overlay,omitempty"`
	Rendered fleet.Digest `json:"rendered,omitempty"`

	// Applied is the digest of the Set that was applied whole; empty while one is under way.
	Applied string `json:"applied,omitempty"`
	Items   []Item `json:"items,omitempty"`
}

// Item is one object.
type Item struct {
	schema.GroupVersionKind
	Namespace string
	Name      string
	UID       string   // empty: about to be created
	Digest    string   // of the object as applied; empty: not known to be on the cluster as wanted
	Owned     string   // digest of the fields that are ours, as last seen by Apply or Drift
	Made      bool     // created by an attempt that was not promoted yet: Undo takes it away
	Leaving   bool     // no longer in the set, and not pruned yet
	Hook      bool     // made for one delivery: no part of what runs, and of its health
	Passing   bool     // the cluster removes it when it is done, as it does a Job with a time to live
	Contested []string // fields that somebody else kept taking: left alone while the set stays

}

func (i Item) String() string { return named(i.Kind, i.Namespace, i.Name) }

// leanItem is how an item is stored: an inventory has to fit into a ConfigMap.
type leanItem struct {
	Group   string `json:"g,omitempty"`
	Version string `json:"v"`
	Kind    string `json:"k"`
	Space   string `json:"ns,omitempty"`
	Name    string `json:"n"`
	UID     string `json:"u,omitempty"`
	Digest  string `json:"d,omitempty"`
	Owned   string `json:"o,omitempty"`
	Made    bool   `json:"m,omitempty"`
	Leaving bool   `json:"l,omitempty"`
	Passing bool   `json:"p,omitempty"`
	Hook    bool   `json:"h,omitempty"`

	Contested []string `json:"c,omitempty"`
}

func (i Item) lean() leanItem {
	return leanItem{i.Group, i.Version, i.Kind, i.Namespace, i.Name, i.UID, i.Digest, i.Owned, i.Made, i.Leaving, i.Passing, i.Hook, i.Contested}
}

func (i Item) MarshalJSON() ([]byte, error) { return json.Marshal(i.lean()) }

// encode gives the same as json.Marshal, which takes three times as long since it asks each item. It is
// no MarshalJSON: a struct that embeds an Inventory would lose its own fields by it.
func (inv Inventory) encode() ([]byte, error) {
	items := make([]leanItem, len(inv.Items))
	for n, i := range inv.Items {
		items[n] = i.lean()
	}
	return json.Marshal(struct {
		Inventory
		Items []leanItem `json:"items,omitempty"`
	}{inv, items})
}

func (i *Item) UnmarshalJSON(b []byte) error {
	var l leanItem
	if err := json.Unmarshal(b, &l); err != nil {
		return err
	}
	*i = Item{
		GroupVersionKind: schema.GroupVersionKind{Group: l.Group, Version: l.Version, Kind: l.Kind}, Namespace: l.Space, Name: l.Name,
		UID: l.UID, Digest: l.Digest, Owned: l.Owned, Made: l.Made, Leaving: l.Leaving, Passing: l.Passing, Hook: l.Hook, Contested: l.Contested,
	}
	return nil
}

// identity tells objects apart; another version of the same group and kind is the same object.
type identity struct {
	schema.GroupKind
	namespace, name string
}

func (i Item) identity() identity { return identity{i.GroupKind(), i.Namespace, i.Name} }

func (inv Inventory) byIdentity() map[identity]Item {
	m := make(map[identity]Item, len(inv.Items))
	for _, i := range inv.Items {
		m[i.identity()] = i
	}
	return m
}

// Current is the inventory without what is leaving.
func (inv Inventory) Current() Inventory {
	inv.Items = slices.DeleteFunc(slices.Clone(inv.Items), func(i Item) bool { return i.Leaving })
	return inv
}

// Unsure is the inventory after an Apply that nobody saw the end of: the same objects, none of them
// known to be as wanted, so that the next Apply sends them all.
func (inv Inventory) Unsure() Inventory {
	inv.Applied = ""
	inv.Items = slices.Clone(inv.Items)
	for n := range inv.Items {
		inv.Items[n].Digest = ""
	}
	return inv
}

// UnsureOf is the inventory with some objects no longer known to be as they were applied.
func (inv Inventory) UnsureOf(objs []*unstructured.Unstructured) Inventory {
	inv.Applied = ""
	inv.Items = slices.Clone(inv.Items)
	for n, i := range inv.Items {
		for _, o := range objs {
			if i.is(o, inv.Namespace) {
				inv.Items[n].Digest = ""
			}
		}
	}
	return inv
}

// is reports that an object of a set for a namespace is this one.
func (i Item) is(o *unstructured.Unstructured, namespace string) bool {
	return o.GroupVersionKind().GroupKind() == i.GroupKind() && o.GetName() == i.Name && cmp.Or(o.GetNamespace(), namespace) == cmp.Or(i.Namespace, namespace)
}

// Settled is the inventory after its release was promoted: nothing of it is an attempt's any more.
func (inv Inventory) Settled() Inventory {
	inv.Items = slices.Clone(inv.Items)
	for n := range inv.Items {
		inv.Items[n].Made = false
	}
	return inv
}

func (inv *Inventory) sort() {
	slices.SortFunc(inv.Items, func(a, b Item) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
}

const (
	inventoryKey   = "inventory.json.gz"
	inventoryLimit = 900 << 10 // a ConfigMap holds 1 MiB, base64 not counted
	inventoryBytes = 64 << 20  // unpacked; a sane bound for what is read back
)

var (
	configMaps = resource{schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}, "configmaps", true}
	namespaces = resource{schema.GroupVersionKind{Version: "v1", Kind: "Namespace"}, "namespaces", false}
)

// InventoryName is the name of the ConfigMap in the subscription's namespace.
func InventoryName(distribution string) string { return "wheelwright-" + distribution }

// ReadInventory gets the inventory back from the cluster, for a spoke that lost its own record. What is
// there and makes no sense is an ErrDamagedInventory: Rebuild finds the objects themselves.
func (c *Cluster) ReadInventory(ctx context.Context, distribution, namespace string) (Inventory, bool, error) {
	name := InventoryName(distribution)
	var cm struct {
		BinaryData map[string][]byte `json:"binaryData"`
	}
	err := c.api.get(ctx, configMaps, namespace, name, "", &cm)
	switch {
	case apierrors.IsNotFound(err):
		return Inventory{}, false, nil
	case err != nil:
		return Inventory{}, false, fmt.Errorf("read the inventory: %w", refusal("ConfigMap", namespace, name, err))
	}
	inv, err := unpack(cm.BinaryData[inventoryKey])
	if err == nil && inv.Distribution != distribution {
		err = fmt.Errorf("it is of distribution %q", inv.Distribution)
	}
	if err != nil {
		return Inventory{}, false, fmt.Errorf("read the inventory of %s in ConfigMap %s/%s: %w: %w; see it with: kubectl -n %s get configmap %s -o yaml",
			distribution, namespace, name, ErrDamagedInventory, err, namespace, name)
	}
	return inv, true, nil
}

func unpack(z []byte) (Inventory, error) {
	var inv Inventory
	r, err := gzip.NewReader(bytes.NewReader(z))
	if err != nil {
		return inv, fmt.Errorf("unpack %s: %w", inventoryKey, err)
	}
	raw, err := io.ReadAll(io.LimitReader(r, inventoryBytes))
	if err != nil {
		return inv, fmt.Errorf("unpack %s: %w", inventoryKey, err)
	}
	if err := json.Unmarshal(raw, &inv); err != nil {
		return inv, fmt.Errorf("decode %s: %w", inventoryKey, err)
	}
	return inv, nil
}

// inventoryObject is the ConfigMap, as it is applied.
func inventoryObject(inv Inventory) ([]byte, error) {
	raw, err := inv.encode()
	if err != nil {
		return nil, fmt.Errorf("encode the inventory: %w", err)
	}
	var z bytes.Buffer
	w, err := gzip.NewWriterLevel(&z, gzip.BestSpeed) // most of it is digests, which no level packs tighter
	if err != nil {
		return nil, fmt.Errorf("pack the inventory: %w", err)
	}
	if _, err := w.Write(raw); err != nil {
		return nil, fmt.Errorf("pack the inventory: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("pack the inventory: %w", err)
	}
	if z.Len() > inventoryLimit {
		return nil, fmt.Errorf("the inventory of %d objects takes %d KiB, more than a ConfigMap holds; split the distribution", len(inv.Items), z.Len()>>10)
	}
	return json.Marshal(map[string]any{
		"apiVersion": "v1",
		"kind":       "ConfigMap",
		"metadata": map[string]any{
			"name":      InventoryName(inv.Distribution),
			"namespace": inv.Namespace,
			"labels": map[string]string{
				InventoryLabel: inv.Distribution,
				managedByLabel: maker,
				applySetLabel:  applySetID(inv.Distribution, inv.Namespace),
			},
			"annotations": applySetAnnotations(inv),
		},
		"binaryData": map[string][]byte{inventoryKey: z.Bytes()},
	})
}

// writeInventory stores inv, and makes the namespace when there is none, which it reports: own is the
// set's own Namespace object, or nil.
func (c *Cluster) writeInventory(ctx context.Context, inv Inventory, own *object) (made bool, err error) {
	data, err := inventoryObject(inv)
	if err != nil {
		return false, err
	}
	name := InventoryName(inv.Distribution)
	err = c.patiently(ctx, func() (bool, error) {
		_, _, err := c.api.patch(asSpoke(ctx), configMaps, inv.Namespace, name, data, 0)
		if isMissingNamespace(err) == inv.Namespace && inv.Namespace != "" {
			if err := c.makeNamespace(ctx, inv.Namespace, own); err != nil {
				return false, err
			}
			made = true
			_, _, err = c.api.patch(asSpoke(ctx), configMaps, inv.Namespace, name, data, 0)
		}
		return passing(err), err
	})
	if err != nil && !errors.Is(err, ErrRefused) {
		err = refusal("ConfigMap", inv.Namespace, name, err)
	}
	if err != nil {
		return made, fmt.Errorf("write the inventory: %w", err)
	}
	return made, nil
}

// makeNamespace makes a namespace that is missing; own is what the set says about it, or nil.
func (c *Cluster) makeNamespace(ctx context.Context, name string, own *object) error {
	data := bareNamespace(name)
	if own != nil {
		var err error
		if data, err = own.bytes(); err != nil {
			return err
		}
	}
	if _, _, err := c.api.patch(ctx, namespaces, "", name, data, 0); err != nil {
		return noNamespace(ctx, name, err)
	}
	return nil
}

func bareNamespace(name string) []byte {
	return fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":%q}}`, name)
}

// deleteInventory removes a ConfigMap that another namespace's has replaced.
func (c *Cluster) deleteInventory(ctx context.Context, inv Inventory) error {
	name := InventoryName(inv.Distribution)
	var p partial
	err := c.api.get(ctx, configMaps, inv.Namespace, name, metadataOnly, &p)
	if err == nil && p.Metadata.Labels[InventoryLabel] == inv.Distribution {
		err = c.api.delete(asSpoke(ctx), configMaps, inv.Namespace, name, types.UID(p.Metadata.UID))
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return refusal("ConfigMap", inv.Namespace, name, err)
	}
	return nil
}
