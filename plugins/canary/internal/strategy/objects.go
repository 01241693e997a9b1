package strategy

import (
	"cmp"
	"maps"
	"slices"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
)

// set is a release's objects by what names them; versions of a group are one.
type set struct {
	objects   map[identity]Object
	namespace string // of objects that name none
}

type identity struct{ group, kind, namespace, name string }

func newSet(objects []Object, namespace string) set {
	s := set{map[identity]Object{}, namespace}
	for _, o := range objects {
		s.objects[identity{document.Group(o), document.Text(o, "kind"), s.namespaceOf(o), document.Text(o, "metadata", "name")}] = o
	}
	return s
}

func (s set) namespaceOf(o Object) string {
	if ns := document.Text(o, "metadata", "namespace"); ns != "" {
		return ns
	}
	return s.namespace
}

func (s set) get(group, kind, namespace, name string) Object {
	return s.objects[identity{group, kind, namespace, name}]
}

// sorted are the objects in an order of their own.
func (s set) sorted() []Object {
	ids := slices.SortedFunc(maps.Keys(s.objects), func(a, b identity) int {
		return cmp.Or(cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.kind, b.kind), cmp.Compare(a.name, b.name), cmp.Compare(a.group, b.group))
	})
	out := make([]Object, len(ids))
	for i, id := range ids {
		out[i] = s.objects[id]
	}
	return out
}
