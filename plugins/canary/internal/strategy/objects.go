package strategy

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// at follows keys into an object; nil where one is missing.
func at(o Object, keys ...string) any {
	var v any = o
	for _, key := range keys {
		m, _ := v.(map[string]any)
		v = m[key]
	}
	return v
}

func text(o Object, keys ...string) string {
	s, _ := at(o, keys...).(string)
	return s
}

func mapping(o Object, keys ...string) map[string]any {
	m, _ := at(o, keys...).(map[string]any)
	return m
}

func mappings(v any) []map[string]any {
	list, _ := v.([]any)
	var out []map[string]any
	for _, item := range list {
		if m, ok := item.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out
}

func group(o Object) string {
	g, _, both := strings.Cut(text(o, "apiVersion"), "/")
	if !both {
		return ""
	}
	return g
}

// set is a release's objects by what names them; versions of a group are one.
type set struct {
	objects   map[identity]Object
	namespace string // of objects that name none
}

type identity struct{ group, kind, namespace, name string }

func newSet(objects []Object, namespace string) set {
	s := set{map[identity]Object{}, namespace}
	for _, o := range objects {
		s.objects[identity{group(o), text(o, "kind"), s.namespaceOf(o), text(o, "metadata", "name")}] = o
	}
	return s
}

func (s set) namespaceOf(o Object) string {
	if ns := text(o, "metadata", "namespace"); ns != "" {
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

// clone copies an object as deep as it goes.
func clone(o Object) Object { return cloneValue(o).(Object) }

func cloneValue(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, item := range v {
			out[key] = cloneValue(item)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = cloneValue(item)
		}
		return out
	}
	return v
}

// equal compares decoded values; numbers are equal by value, whatever decoded them.
func equal(a, b any) bool {
	if x, ok := number(a); ok {
		y, ok := number(b)
		return ok && x == y
	}
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for key, v := range a {
			if other, ok := b[key]; !ok || !equal(v, other) {
				return false
			}
		}
		return true
	case []any:
		b, ok := b.([]any)
		return ok && slices.EqualFunc(a, b, equal)
	}
	return a == b
}
