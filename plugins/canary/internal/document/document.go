// Package document reads, copies and compares Kubernetes objects as they come out of a YAML or JSON
// decoder: mappings, lists, text and numbers of whatever type the decoder chose. It knows no kind and
// never changes what it is given.
package document

import (
	"encoding/json"
	"slices"
	"strings"
)

// Object is a Kubernetes object, or a mapping inside one.
type Object = map[string]any

// At follows keys into an object; nil where one is missing.
func At(o Object, keys ...string) any {
	var v any = o
	for _, key := range keys {
		m, _ := v.(map[string]any)
		v = m[key]
	}
	return v
}

// Text is the text at keys; empty where there is none.
func Text(o Object, keys ...string) string {
	s, _ := At(o, keys...).(string)
	return s
}

// Mapping is the mapping at keys; nil where there is none.
func Mapping(o Object, keys ...string) Object {
	m, _ := At(o, keys...).(map[string]any)
	return m
}

// Mappings are the mappings of a list; what else is in it is left out.
func Mappings(v any) []Object {
	list, _ := v.([]any)
	var out []Object
	for _, item := range list {
		if m, ok := item.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out
}

// Group is the group of an object's API; empty for the core one.
func Group(o Object) string {
	g, _, both := strings.Cut(Text(o, "apiVersion"), "/")
	if !both {
		return ""
	}
	return g
}

// Number takes what decoders make of numbers.
func Number(v any) (float64, bool) {
	switch v := v.(type) {
	case int:
		return float64(v), true
	case int32:
		return float64(v), true
	case int64:
		return float64(v), true
	case uint64:
		return float64(v), true
	case float64:
		return v, true
	case json.Number:
		f, err := v.Float64()
		return f, err == nil
	}
	return 0, false
}

// Clone copies as deep as it goes.
func Clone[T any](v T) T {
	out, _ := clone(v).(T)
	return out
}

func clone(v any) any {
	switch v := v.(type) {
	case map[string]any:
		if v == nil {
			return v
		}
		out := make(map[string]any, len(v))
		for key, item := range v {
			out[key] = clone(item)
		}
		return out
	case []any:
		if v == nil {
			return v
		}
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = clone(item)
		}
		return out
	}
	return v
}

// Equal compares; numbers are equal by value, whatever decoded them.
func Equal(a, b any) bool {
	if x, ok := Number(a); ok {
		y, ok := Number(b)
		return ok && x == y
	}
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for key, v := range a {
			if other, ok := b[key]; !ok || !Equal(v, other) {
				return false
			}
		}
		return true
	case []any:
		b, ok := b.([]any)
		return ok && slices.EqualFunc(a, b, Equal)
	}
	switch b.(type) {
	case map[string]any, []any:
		return false
	}
	return a == b
}
