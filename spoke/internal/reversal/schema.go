package reversal

import (
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
)

const (
	preserveUnknown  = "x-kubernetes-preserve-unknown-fields"
	intOrString      = "x-kubernetes-int-or-string"
	embeddedResource = "x-kubernetes-embedded-resource"
	validations      = "x-kubernetes-validations"
	listType         = "x-kubernetes-list-type"
	listKeys         = "x-kubernetes-list-map-keys"
)

// finding is one field of which less is taken than before.
type finding struct{ field, what string }

func (f finding) String() string { return f.field + " " + f.what }

// narrowed lists where schema b refuses or drops what schema a takes. Where that cannot be told (of two
// patterns, say), it counts as narrowed.
func narrowed(a, b map[string]any) []finding {
	c := &comparer{}
	c.compare("", a, b)
	return c.found
}

// dropped lists the fields that a keeps and b drops, whatever their values.
func dropped(a, b map[string]any) []finding {
	c := &comparer{droppedOnly: true}
	c.compare("", a, b)
	return c.found
}

type comparer struct {
	droppedOnly bool
	found       []finding
}

func (c *comparer) add(field, format string, args ...any) {
	if field == "" {
		field = "the object"
	}
	c.found = append(c.found, finding{strings.TrimPrefix(field, "."), fmt.Sprintf(format, args...)})
}

func (c *comparer) compare(field string, a, b map[string]any) {
	if !c.droppedOnly {
		if !c.types(field, a, b) {
			return
		}
		c.values(field, a, b)
		c.bounds(field, a, b)
		c.rules(field, a, b)
		c.required(field, a, b)
	}
	c.fields(field, a, b)
	if items := object(a, "items"); items != nil {
		if now := object(b, "items"); now != nil {
			c.compare(field+"[]", items, now)
		}
	}
}

// types is false where nothing below can be compared.
func (c *comparer) types(field string, a, b map[string]any) bool {
	was, is := typesOf(a), typesOf(b)
	if is == nil {
		return true
	}
	if was == nil {
		c.add(field, "takes %s alone", strings.Join(is, " or "))
		return false
	}
	for _, t := range was {
		if !slices.Contains(is, t) && (t != "integer" || !slices.Contains(is, "number")) {
			c.add(field, "has to be %[2]s, not %[1]s", strings.Join(was, " or "), strings.Join(is, " or "))
			return false
		}
	}
	return true
}

// typesOf is nil for any.
func typesOf(s map[string]any) []string {
	if truth(s, intOrString) {
		return []string{"integer", "string"}
	}
	if t := text(s, "type"); t != "" {
		return []string{t}
	}
	return nil
}

func (c *comparer) values(field string, a, b map[string]any) {
	if truth(a, "nullable") && !truth(b, "nullable") {
		c.add(field, "does not take null")
	}
	if allowed := list(b, "enum"); allowed != nil {
		before := list(a, "enum")
		if before == nil {
			c.add(field, "takes the values of a list alone")
		}
		for _, v := range before {
			if !slices.ContainsFunc(allowed, func(n any) bool { return reflect.DeepEqual(n, v) }) {
				c.add(field, "does not take %v", v)
			}
		}
	}
	for _, key := range []string{"pattern", "format"} {
		was, is := text(a, key), text(b, key)
		if is != "" && is != was && !(was == "int32" && is == "int64") {
			c.add(field, "has to match the %s %s", key, is)
		}
	}
	if truth(b, embeddedResource) && !truth(a, embeddedResource) {
		c.add(field, "has to be an object of Kubernetes")
	}
	if t := text(b, listType); t == "set" || t == "map" {
		if text(a, listType) != t || !sameSet(list(a, listKeys), list(b, listKeys)) {
			c.add(field, "is a %s, whose items have to differ", t)
		}
	}
}

func (c *comparer) bounds(field string, a, b map[string]any) {
	for _, key := range []string{"minimum", "minLength", "minItems", "minProperties"} {
		is, bounded := number(b, key)
		was, before := number(a, key)
		if bounded && (!before || was < is) && (is > 0 || key == "minimum") || exclusive(a, b, key, was == is) {
			c.add(field, "has to be at least %v (%s)", is, key)
		}
	}
	for _, key := range []string{"maximum", "maxLength", "maxItems", "maxProperties"} {
		is, bounded := number(b, key)
		was, before := number(a, key)
		if bounded && (!before || was > is) || exclusive(a, b, key, was == is) {
			c.add(field, "has to be at most %v (%s)", is, key)
		}
	}
	if is, bounded := number(b, "multipleOf"); bounded {
		if was, before := number(a, "multipleOf"); !before || math.Mod(was, is) != 0 {
			c.add(field, "has to be a multiple of %v", is)
		}
	}
}

// exclusive: the bound itself is not taken any more.
func exclusive(a, b map[string]any, key string, same bool) bool {
	flag := map[string]string{"minimum": "exclusiveMinimum", "maximum": "exclusiveMaximum"}[key]
	return flag != "" && same && truth(b, flag) && !truth(a, flag)
}

func (c *comparer) rules(field string, a, b map[string]any) {
	before := map[string]bool{}
	for _, r := range list(a, validations) {
		m, _ := r.(map[string]any)
		before[text(m, "rule")] = true
	}
	for _, r := range list(b, validations) {
		m, _ := r.(map[string]any)
		if !before[text(m, "rule")] {
			c.add(field, "has to satisfy the rule %s", text(m, "rule"))
		}
	}
	// More alternatives and fewer conjuncts are wider; of the rest, only the same is surely as wide.
	for _, j := range []struct {
		key           string
		within, among []any
	}{{"anyOf", list(a, "anyOf"), list(b, "anyOf")}, {"allOf", list(b, "allOf"), list(a, "allOf")}} {
		gone := j.key == "anyOf" && j.among != nil && j.within == nil
		for _, s := range j.within {
			gone = gone || j.among == nil && j.key == "allOf" || j.among != nil && !slices.ContainsFunc(j.among, func(o any) bool { return reflect.DeepEqual(o, s) })
		}
		if gone {
			c.add(field, "has to satisfy another %s", j.key)
		}
	}
	for _, key := range []string{"oneOf", "not"} {
		if b[key] != nil && !reflect.DeepEqual(a[key], b[key]) {
			c.add(field, "has to satisfy another %s", key)
		}
	}
}

func (c *comparer) required(field string, a, b map[string]any) {
	for _, r := range list(b, "required") {
		name, _ := r.(string)
		if mayMiss(a, name) && !mayMiss(b, name) {
			c.add(field+"."+name, "is required")
		}
	}
}

// mayMiss: an object without the field is taken; a default fills it in.
func mayMiss(s map[string]any, name string) bool {
	_, filled := object(object(s, "properties"), name)["default"]
	return filled || !slices.Contains(list(s, "required"), any(name))
}

func (c *comparer) fields(field string, a, b map[string]any) {
	was, is := object(a, "properties"), object(b, "properties")
	rest, open := additional(a)
	now, stillOpen := additional(b)
	for _, name := range slices.Sorted(maps.Keys(was)) {
		s, _ := was[name].(map[string]any)
		at := field + "." + name
		if to, ok := is[name].(map[string]any); ok {
			c.compare(at, s, to)
		} else if stillOpen {
			c.compare(at, s, now)
		} else if !truth(b, preserveUnknown) && !(field == "" && slices.Contains([]string{"apiVersion", "kind", "metadata"}, name)) {
			c.add(at, "is dropped")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(is)) {
		to, _ := is[name].(map[string]any)
		switch _, known := was[name]; {
		case known:
		case open:
			c.compare(field+"."+name, rest, to)
		case truth(a, preserveUnknown):
			c.compare(field+"."+name, anything, to)
		}
	}
	switch {
	case truth(a, preserveUnknown) && stillOpen:
		c.compare(field+".*", anything, now)
	case truth(a, preserveUnknown) && !truth(b, preserveUnknown):
		c.add(field, "loses the fields that the schema does not name")
	case open && stillOpen:
		c.compare(field+".*", rest, now)
	case open && !truth(b, preserveUnknown):
		c.add(field, "does not take fields of any name")
	}
}

// anything takes every value and keeps it.
var anything = map[string]any{preserveUnknown: true}

// additional is the schema of fields of any name; open is false where there are none.
func additional(s map[string]any) (rest map[string]any, open bool) {
	switch v := s["additionalProperties"].(type) {
	case map[string]any:
		return v, true
	case bool:
		return anything, v
	}
	return nil, false
}

func sameSet(a, b []any) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(v any) bool { return !slices.Contains(b, v) })
}
