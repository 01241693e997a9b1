// Package fields answers who declared which field of an object, out of the managed fields that the API
// server keeps with every object. It sees names of fields and never their values, and it asks nobody:
// it is pure.
//
// A Set is the fields of one owner; an Owner is somebody who declared some; a Loss is a field that was
// taken from us. When somebody else sets or removes a field that we applied, the API server takes it out
// of our entry; a status that is written leaves our entry as it is. So the digest of our entry says,
// without reading the object, whether it is as we left it.
package fields

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// Set is the fields of one owner. The zero Set has none. It is read when it is asked what is in it: most
// are only compared.
type Set struct {
	raw    []byte
	digest string
}

// read takes what cannot be read for no fields.
func (s Set) read() *fieldpath.Set {
	set := fieldpath.NewSet()
	if err := set.FromJSON(bytes.NewReader(s.raw)); err != nil {
		return fieldpath.NewSet()
	}
	return set
}

// Digest tells one state of an owner's entry from another: 16 hexadecimal characters over its fields and
// the time of its last change, "" where there is no entry.
func (s Set) Digest() string { return s.digest }

// Paths lists the fields without those above them, sorted.
func (s Set) Paths() []Path {
	if len(s.raw) == 0 {
		return nil
	}
	var all []Path
	for p := range s.read().Leaves().All() {
		all = append(all, pathOf(p))
	}
	slices.SortFunc(all, slices.Compare[Path])
	return all
}

// Has reports whether a field, or something below it, is in the set. An element of p may be AnyElement.
func (s Set) Has(p Path) bool {
	return slices.ContainsFunc(s.Paths(), func(has Path) bool { return has.under(p) })
}

// Owned is the entry of what manager applied. Managers apply under one name and at most once.
func Owned(entries []metav1.ManagedFieldsEntry, manager string) Set {
	for _, e := range entries {
		if applied(e, manager) {
			return setOf(e)
		}
	}
	return Set{}
}

func applied(e metav1.ManagedFieldsEntry, manager string) bool {
	return e.Manager == manager && e.Operation == metav1.ManagedFieldsOperationApply && e.Subresource == ""
}

func setOf(e metav1.ManagedFieldsEntry) Set {
	var s Set
	h := sha256.New()
	if e.FieldsV1 != nil {
		s.raw = e.FieldsV1.GetRawBytes()
		h.Write(s.raw)
	}
	if e.Time != nil {
		h.Write([]byte(e.Time.UTC().Format(time.RFC3339)))
	}
	s.digest = hex.EncodeToString(h.Sum(nil)[:8])
	return s
}

// Owner is somebody beside us who declared fields.
type Owner struct {
	Manager     string
	Subresource string // "scale" of an autoscaler, "status" of a controller; mostly empty
	Applies     bool   // by apply; else by update
	At          time.Time
	Fields      Set
}

// Others lists who owns fields beside manager's own applies, the newest first.
func Others(entries []metav1.ManagedFieldsEntry, manager string) []Owner {
	var all []Owner
	for _, e := range entries {
		if applied(e, manager) {
			continue
		}
		o := Owner{Manager: e.Manager, Subresource: e.Subresource, Applies: e.Operation == metav1.ManagedFieldsOperationApply, Fields: setOf(e)}
		if e.Time != nil {
			o.At = e.Time.Time
		}
		all = append(all, o)
	}
	slices.SortStableFunc(all, func(a, b Owner) int { return b.At.Compare(a.At) })
	return all
}

// Loss is a field that was ours.
type Loss struct {
	Path Path
	By   string    // who has it now; of a field that is gone, who wrote last; "" where nobody is known
	At   time.Time // when By wrote last
}

// Lost compares an object's managed fields before and after our apply: what is ours after it and was not
// before had been taken from us. Of an item that was taken with all that is in it only the item is
// listed.
func Lost(before, after []metav1.ManagedFieldsEntry, manager string) []Loss {
	had, has := Owned(before, manager), Owned(after, manager)
	if has.digest == had.digest || len(has.raw) == 0 {
		return nil
	}
	gone := has.read()
	if len(had.raw) > 0 {
		gone = gone.Difference(had.read())
	}
	others := Others(before, manager)
	var lost []Loss
	for _, p := range tops(gone) {
		l := Loss{Path: p}
		if o, ok := takerOf(others, p); ok {
			l.By, l.At = o.Manager, o.At
		}
		lost = append(lost, l)
	}
	return lost
}

// tops lists the members of s that are below no other member, sorted.
func tops(s *fieldpath.Set) []Path {
	var all []Path
	for p := range s.All() {
		all = append(all, pathOf(p))
	}
	slices.SortFunc(all, slices.Compare[Path]) // what is above comes first
	var top []Path
	for _, p := range all {
		if !slices.ContainsFunc(top, func(t Path) bool { return p.under(t) }) {
			top = append(top, p)
		}
	}
	return top
}

// takerOf finds who has a field now, and else who wrote the object last; a status says nothing.
func takerOf(others []Owner, p Path) (Owner, bool) {
	for _, o := range others {
		if o.Fields.Has(p) {
			return o, true
		}
	}
	for _, o := range others {
		if o.Subresource == "" {
			return o, true
		}
	}
	return Owner{}, false
}

// Path leads to a field: keys of maps, "name=app" for the item of a list whose keys have these values
// (several with commas between them), and the value itself for the item of a list of plain values.
type Path []string

// AnyElement stands for every key or item in a Path that is looked for.
const AnyElement = "*"

// under reports whether p is top or below it.
func (p Path) under(top Path) bool {
	if len(p) < len(top) {
		return false
	}
	for n, element := range top {
		if element != AnyElement && element != p[n] {
			return false
		}
	}
	return true
}

// String is for people: spec.template.spec.containers[name=app].image, metadata.labels[app].
func (p Path) String() string {
	var b strings.Builder
	for n, element := range p {
		free := n == 2 && p[0] == "metadata" // a key that a person chose
		switch {
		case n > 0 && (free || element == "" || strings.ContainsAny(element, ".=,*/[] ")):
			b.WriteString("[" + element + "]")
		case n > 0:
			b.WriteString("." + element)
		default:
			b.WriteString(element)
		}
	}
	return b.String()
}

func pathOf(from fieldpath.Path) Path {
	p := make(Path, len(from))
	for n, e := range from {
		switch {
		case e.FieldName != nil:
			p[n] = *e.FieldName
		case e.Key != nil:
			var pairs []string
			for _, k := range *e.Key {
				pairs = append(pairs, k.Name+"="+text(k.Value.Unstructured()))
			}
			slices.Sort(pairs)
			p[n] = strings.Join(pairs, ",")
		case e.Value != nil:
			p[n] = text((*e.Value).Unstructured())
		case e.Index != nil:
			p[n] = text(int64(*e.Index))
		}
	}
	return p
}

// text is a key's value without quotes.
func text(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return "?"
	}
	return string(raw)
}
