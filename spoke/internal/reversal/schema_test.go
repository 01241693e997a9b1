package reversal

import (
	"fmt"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// Each case is a schema, another one, and what the second takes less than the first, and the other way
// round.
func TestNarrowed(t *testing.T) {
	for _, c := range []struct{ a, b, forth, back string }{
		{`{type: string}`, `{type: string, description: x, default: y}`, "", ""},
		{`{type: integer}`, `{type: number}`, "", "the object has to be integer, not number"},
		{`{type: string}`, `{x-kubernetes-int-or-string: true}`, "", "has to be string, not integer or string"},
		{`{type: string}`, `{x-kubernetes-preserve-unknown-fields: true}`, "", "takes string alone"},
		{`{type: string}`, `{type: string, nullable: true}`, "", "does not take null"},
		{`{type: string}`, `{type: string, enum: [a]}`, "takes the values of a list alone", ""},
		{`{type: string, pattern: "^a"}`, `{type: string, pattern: "^b"}`, "pattern ^b", "pattern ^a"},
		{`{type: integer, format: int32}`, `{type: integer, format: int64}`, "", "format int32"},
		{`{type: integer, minimum: 1}`, `{type: integer, minimum: 2}`, "at least 2", ""},
		{`{type: integer}`, `{type: integer, minimum: 0}`, "at least 0", ""},
		{`{type: integer, maximum: 5}`, `{type: integer, maximum: 5, exclusiveMaximum: true}`, "at most 5", ""},
		{`{type: integer, multipleOf: 2}`, `{type: integer, multipleOf: 4}`, "multiple of 4", ""},
		{`{type: string}`, `{type: string, minLength: 0}`, "", ""},
		{`{type: string, maxLength: 5}`, `{type: string, maxLength: 4}`, "at most 4", ""},
		{`{type: array, items: {type: string}}`, `{type: array, items: {type: integer}}`, "[] has to be integer", "[] has to be string"},
		{`{type: array, items: {type: string}}`, `{type: array, items: {type: string}, x-kubernetes-list-type: set}`, "is a set", ""},
		{`{type: array, x-kubernetes-list-type: map, x-kubernetes-list-map-keys: [a]}`, `{type: array, x-kubernetes-list-type: map, x-kubernetes-list-map-keys: [b]}`, "is a map", "is a map"},
		{`{type: object}`, `{type: object, x-kubernetes-embedded-resource: true}`, "object of Kubernetes", ""},
		{`{type: object}`, `{type: object, x-kubernetes-validations: [{rule: has(self.a)}]}`, "rule has(self.a)", ""},
		{`{type: object}`, `{type: object, not: {required: [a]}}`, "another not", ""},
		{`{type: object, anyOf: [{required: [a]}]}`, `{type: object, anyOf: [{required: [a]}, {required: [b]}]}`, "", "another anyOf"},
		{`{type: object}`, `{type: object, anyOf: [{required: [a]}]}`, "another anyOf", ""},
		{`{type: object}`, `{type: object, allOf: [{required: [a]}]}`, "another allOf", ""},
		{`{type: object, required: [a], properties: {a: {type: string, default: x}}}`, `{type: object, required: [a], properties: {a: {type: string}}}`, "a is required", ""},
		{`{type: object, properties: {a: {type: string}}}`, `{type: object, additionalProperties: {type: string}}`, "", "does not take fields of any name"},
		{`{type: object, additionalProperties: {type: string}}`, `{type: object, additionalProperties: {type: integer}}`, "* has to be integer", "* has to be string"},
		{`{type: object, additionalProperties: true}`, `{type: object, x-kubernetes-preserve-unknown-fields: true}`, "", ""},
		{`{type: object, x-kubernetes-preserve-unknown-fields: true}`, `{type: object, x-kubernetes-preserve-unknown-fields: true, properties: {a: {type: string}}}`, "a takes string alone", ""},
		{`{type: object, x-kubernetes-preserve-unknown-fields: true}`, `{type: object}`, "loses the fields", ""},
		{`{type: object, properties: {metadata: {type: object}}}`, `{type: object}`, "", ""},
	} {
		t.Run(c.a+" "+c.b, func(t *testing.T) {
			a, b := schema(t, c.a), schema(t, c.b)
			for _, d := range []struct {
				got  []finding
				want string
			}{{narrowed(a, b), c.forth}, {narrowed(b, a), c.back}} {
				if text := fmt.Sprint(d.got); (d.want == "") != (len(d.got) == 0) || !strings.Contains(text, d.want) {
					t.Errorf("got %s, want %q", text, d.want)
				}
			}
		})
	}
}

func schema(t *testing.T, text string) (s map[string]any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(text), &s); err != nil {
		t.Fatal(err)
	}
	return s
}
