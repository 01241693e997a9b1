// Package reversal says, before an upgrade, whether a cluster can go back from it, by what the
// CustomResourceDefinitions of the two releases would do to objects that exist and to the older release's
// clients. Other objects are put back as they were and have no say. It is pure: it reads definitions and
// asks no cluster.
//
// The nouns: old and next are the two releases' definitions. A definition is put back when the older one
// is applied over the newer one, and kept when the newer one stays. Going forward narrows a version where
// next refuses or drops what old took; going back loses where old refuses or drops what next took.
//
// What Kubernetes does is decisive (k8s.io/apiextensions-apiserver): scope, kind, group and plural of an
// established definition never change; a version that status.storedVersions names cannot leave
// spec.versions; fields outside the schema are dropped on every read and write, by the schema of the
// version asked for and by that of the stored one; and validation looks at writes alone.
package reversal

import (
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// Verdict is whether a cluster can go back, and how.
type Verdict struct {
	Verdict fleet.Reversibility
	// Reasons name the definition, the version and the field; those that weigh most come first. None
	// for Reversible.
	Reasons []string
	// Keep names the definitions that stay as the newer release has them when the cluster goes back,
	// sorted: also where the verdict is OneWay and a person goes back all the same.
	Keep []string
}

// Judge compares the definitions that the cluster has with those of the next release. What is no
// CustomResourceDefinition is passed over. live is status.storedVersions by the definition's name; where
// it is silent, old's storage version is taken.
//
// A definition that next leaves out does not count: definitions are not deleted.
func Judge(old, next []*unstructured.Unstructured, live map[string][]string) Verdict {
	before, after := definitions(old), definitions(next)
	var oneWay, keeping, keep []string
	for _, name := range slices.Sorted(maps.Keys(after)) {
		o, known := before[name]
		if !known {
			keep = append(keep, name)
			keeping = append(keeping, name+" is new: it stays, with its objects")
			continue
		}
		c := comparison{name: name, old: o, next: after[name], stored: live[name]}
		barred, kept := c.judge()
		oneWay = append(oneWay, barred...)
		keeping = append(keeping, kept...)
		if len(kept) > 0 {
			keep = append(keep, name)
		}
	}
	v := Verdict{Verdict: fleet.Reversible, Reasons: slices.Concat(oneWay, keeping), Keep: keep}
	switch {
	case len(oneWay) > 0:
		v.Verdict = fleet.OneWay
	case len(keep) > 0:
		v.Verdict = fleet.ReversibleKeepingCRDs
	}
	return v
}

// comparison is one definition in two releases.
type comparison struct {
	name      string
	old, next definition
	stored    []string // status.storedVersions now
}

// judge lists what bars the way back, and why the newer definition has to stay.
func (c comparison) judge() (oneWay, keeping []string) {
	oneWay = append(oneWay, c.identity()...)
	if len(oneWay) > 0 {
		return oneWay, nil // the API server refuses next; nothing further would be true
	}
	oneWay = append(oneWay, c.forward()...)
	keeping = append(keeping, c.back()...)
	if len(keeping) > 0 {
		oneWay = append(oneWay, c.unfitToKeep()...)
	} else if why := c.convertsAnew(); why != "" {
		oneWay = append(oneWay, why)
	}
	return oneWay, keeping
}

// storedAfter are the versions in which objects may lie in the cluster's store once next was applied.
func (c comparison) storedAfter() []string {
	stored := slices.Clone(c.stored)
	if len(stored) == 0 && c.old.storage != "" {
		stored = append(stored, c.old.storage)
	}
	if c.next.storage != "" && !slices.Contains(stored, c.next.storage) {
		stored = append(stored, c.next.storage)
	}
	return stored
}

// identity is what the API server never lets change.
func (c comparison) identity() (out []string) {
	for _, f := range []struct{ what, was, is string }{
		{"spec.group", c.old.group, c.next.group}, {"spec.scope", c.old.scope, c.next.scope},
		{"spec.names.kind", c.old.kind, c.next.kind}, {"spec.names.plural", c.old.plural, c.next.plural},
	} {
		if f.was != f.is {
			out = append(out, fmt.Sprintf("%s: %s changes from %s to %s, which takes a new definition and new objects", c.name, f.what, f.was, f.is))
		}
	}
	for _, v := range c.storedAfter() {
		if _, ok := c.next.versions[v]; !ok {
			out = append(out, fmt.Sprintf("%s: %s goes, and status.storedVersions still names it: migrate its objects to %s first", c.name, v, c.next.storage))
		}
	}
	return out
}

// forward is what old took and next does not take: objects have to be changed for it, and what was
// changed or dropped does not come back.
func (c comparison) forward() (out []string) {
	for _, name := range c.old.served() {
		was := c.old.versions[name]
		is, there := c.next.versions[name]
		at := c.name + " " + name
		switch {
		case !there:
			out = append(out, at+" goes, and the release before uses it")
			continue
		case !is.served:
			out = append(out, at+" is not served any more, and the release before uses it")
			continue
		}
		for _, f := range narrowed(was.schema, is.schema) {
			out = append(out, at+" takes less: "+f.String())
		}
		if f := droppedInStore(c.old, c.next, name); f != "" {
			out = append(out, fmt.Sprintf("%s: %s is dropped, for objects are stored as %s from now on", at, f, c.next.storage))
		}
	}
	return out
}

// droppedInStore is the first field of a version that from keeps and to drops, because to stores objects
// in a version that has no room for it. A webhook may put it elsewhere.
func droppedInStore(from, to definition, version string) string {
	if to.webhook != nil || to.storage == version {
		return ""
	}
	schema := from.versions[version].schema
	lost := dropped(schema, to.versions[to.storage].schema)
	if from.webhook == nil {
		before := dropped(schema, from.versions[from.storage].schema)
		lost = slices.DeleteFunc(lost, func(f finding) bool { return slices.Contains(before, f) })
	}
	if len(lost) == 0 {
		return ""
	}
	return lost[0].field
}

// back is why the older definition cannot be put back, or what would be lost with it.
func (c comparison) back() (out []string) {
	for _, v := range c.storedAfter() {
		if _, ok := c.old.versions[v]; !ok {
			out = append(out, fmt.Sprintf("%s: objects are stored as %s, which the release before does not have", c.name, v))
		}
	}
	for _, name := range c.next.served() {
		was, there := c.old.versions[name]
		if !there {
			continue // nothing is stored in it, or that is said above
		}
		for _, f := range narrowed(c.next.versions[name].schema, was.schema) {
			out = append(out, fmt.Sprintf("%s %s took less before: %s", c.name, name, f))
		}
		if f := droppedInStore(c.next, c.old, name); f != "" {
			out = append(out, fmt.Sprintf("%s %s: %s was dropped before, for objects were stored as %s", c.name, name, f, c.old.storage))
		}
	}
	return out
}

// unfitToKeep is what keeps the older release from working with the newer definition.
func (c comparison) unfitToKeep() (out []string) {
	hook := c.next.webhook
	switch {
	case hook == nil || hook.service == "": // a URL is not the release's
	case c.old.webhook == nil || *c.old.webhook != *hook:
		out = append(out, fmt.Sprintf("%s: spec.conversion needs the webhook %s, which goes with the release", c.name, hook.service))
	default:
		if _, ok := c.old.versions[c.next.storage]; !ok {
			out = append(out, fmt.Sprintf("%s: the webhook %s of the release before cannot convert the stored %s", c.name, hook.service, c.next.storage))
		}
	}
	for _, name := range c.old.served() {
		is, there := c.next.versions[name]
		if !there {
			continue
		}
		for _, what := range c.old.versions[name].subresources.lostIn(is.subresources) {
			out = append(out, fmt.Sprintf("%s %s: %s", c.name, name, what))
		}
	}
	return out
}

// convertsAnew is said where the definition could be put back, but what a webhook wrote in the meantime
// would be read without it.
func (c comparison) convertsAnew() string {
	if c.old.webhook != nil || c.next.webhook == nil || len(c.old.served()) < 2 {
		return ""
	}
	return fmt.Sprintf("%s: spec.conversion changes from None to a webhook: what it converted is misread without it", c.name)
}
