package reversal_test

import (
	"fmt"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// pair is one upgrade of one definition, and the verdict that it deserves.
type pair struct {
	name      string // also the first part of its group
	old, next string // of spec: all but group and names; empty: the release has no such definition
	version   string // which the older release uses; "" is v1
	object    string // spec (and more) of an object of the older release
	newer     string // merged into it by the newer release
	want      fleet.Reversibility
	reason    string // part of the first one
}

// The schemas that most pairs are made of.
const (
	plain   = `{type: object, properties: {spec: {type: object, properties: {size: {type: string}, notes: {type: string}}}}}`
	colour  = `{type: object, properties: {spec: {type: object, properties: {size: {type: string}, notes: {type: string}, colour: {type: string}}}}}`
	noNotes = `{type: object, properties: {spec: {type: object, properties: {size: {type: string}}}}}`
	sizes   = `{type: object, properties: {spec: {type: object, properties: {size: {type: string, enum: [small, large]}}}}}`
	more    = `{type: object, properties: {spec: {type: object, properties: {size: {type: string, enum: [small, medium, large]}}}}}`
	hook    = "\nconversion: {strategy: Webhook, webhook: {conversionReviewVersions: [v1], clientConfig: {service: {namespace: shop, name: converter}}}}"
)

// v is one version of a definition.
func v(name string, served, stored bool, schema string) string {
	return fmt.Sprintf("- {name: %s, served: %v, storage: %v, schema: {openAPIV3Schema: %s}}\n", name, served, stored, schema)
}

func spec(versions string) string { return "scope: Namespaced\nversions:\n" + versions }

func property(schema string) string {
	return "{type: object, properties: {spec: {type: object, properties: {size: " + schema + ", notes: {type: string}}}}}"
}

// pairs are what vendors do to their definitions, each judged by what a real API server does with them.
var pairs = []pair{
	{name: "words", old: spec(v("v1", true, true, plain)),
		next: spec(v("v1", true, true, `{type: object, description: better words, properties: {spec: {type: object, properties: {size: {type: string, description: how large}, notes: {type: string}}}}}`)),
		want: fleet.Reversible},
	{name: "field-added", old: spec(v("v1", true, true, plain)), next: spec(v("v1", true, true, colour)),
		newer: `{"spec":{"colour":"red"}}`, want: fleet.ReversibleKeepingCRDs, reason: "v1 took less before: spec.colour is dropped"},
	{name: "version-served", old: spec(v("v1", true, true, plain)), next: spec(v("v1", true, true, plain) + v("v2", true, false, plain)),
		want: fleet.Reversible},
	{name: "version-stored", old: spec(v("v1", true, true, plain)), next: spec(v("v1", true, false, plain) + v("v2", true, true, plain)),
		want: fleet.ReversibleKeepingCRDs, reason: "objects are stored as v2, which the release before does not have"},
	{name: "storage-moves", old: spec(v("v1", true, true, plain) + v("v2", true, false, plain)), next: spec(v("v1", true, false, plain) + v("v2", true, true, plain)),
		want: fleet.Reversible},
	{name: "new", next: spec(v("v1", true, true, plain)), want: fleet.ReversibleKeepingCRDs, reason: "is new: it stays"},
	{name: "left-out", old: spec(v("v1", true, true, plain)), want: fleet.Reversible},
	{name: "enum-wider", old: spec(v("v1", true, true, sizes)), next: spec(v("v1", true, true, more)), object: `{"spec":{"size":"small"}}`,
		newer: `{"spec":{"size":"medium"}}`, want: fleet.ReversibleKeepingCRDs, reason: "spec.size does not take medium"},
	{name: "default-then-required", old: spec(v("v1", true, true, plain)),
		next: spec(v("v1", true, true, `{type: object, properties: {spec: {type: object, required: [notes], properties: {size: {type: string}, notes: {type: string, default: none}}}}}`)),
		want: fleet.Reversible},
	{name: "webhook-serves", old: spec(v("v1", true, true, plain)), next: spec(v("v1", true, true, plain)+v("v2", true, false, sizes)) + hook,
		want: fleet.Reversible},
	{name: "webhook-stores", old: spec(v("v1", true, true, plain)), next: spec(v("v1", true, false, plain)+v("v2", true, true, sizes)) + hook,
		want: fleet.OneWay, reason: "needs the webhook shop/converter, which goes with the release"},
	{name: "version-goes", old: spec(v("v1", true, true, plain) + v("v1beta1", true, false, plain)), next: spec(v("v1", true, true, plain)), version: "v1beta1",
		want: fleet.OneWay, reason: "v1beta1 goes"},
	{name: "version-unserved", old: spec(v("v1", true, true, plain)), next: spec(v("v1", false, false, plain) + v("v2", true, true, plain)),
		want: fleet.OneWay, reason: "v1 is not served any more"},
	{name: "required", old: spec(v("v1", true, true, colour)),
		next: spec(v("v1", true, true, `{type: object, properties: {spec: {type: object, required: [colour], properties: {size: {type: string}, notes: {type: string}, colour: {type: string}}}}}`)),
		want: fleet.OneWay, reason: "v1 takes less: spec.colour is required"},
	{name: "type-changes", old: spec(v("v1", true, true, plain)), next: spec(v("v1", true, true, property("{type: integer}"))),
		want: fleet.OneWay, reason: "spec.size has to be integer, not string"},
	{name: "field-goes", old: spec(v("v1", true, true, plain)), next: spec(v("v1", true, true, noNotes)),
		want: fleet.OneWay, reason: "spec.notes is dropped"},
	{name: "enum-narrower", old: spec(v("v1", true, true, more)), next: spec(v("v1", true, true, sizes)), object: `{"spec":{"size":"medium"}}`,
		want: fleet.OneWay, reason: "spec.size does not take medium"},
	{name: "rule-added", old: spec(v("v1", true, true, plain)),
		next: spec(v("v1", true, true, property(`{type: string, maxLength: 20, x-kubernetes-validations: [{rule: "self != 'small'"}]}`))),
		want: fleet.OneWay, reason: "spec.size has to be at most 20 (maxLength)"},
	{name: "scope", old: spec(v("v1", true, true, plain)), next: "scope: Cluster\nversions:\n" + v("v1", true, true, plain),
		want: fleet.OneWay, reason: "spec.scope changes from Namespaced to Cluster"},
	{name: "storage-drops", old: spec(v("v1", true, true, plain) + v("v2", true, false, noNotes)), next: spec(v("v1", true, false, plain) + v("v2", true, true, noNotes)),
		want: fleet.OneWay, reason: "v1: spec.notes is dropped, for objects are stored as v2 from now on"},
}

func (p pair) group() string { return p.name + ".reversal.example.com" }
func (p pair) crd() string   { return "widgets." + p.group() }

func (p pair) uses() string {
	if p.version == "" {
		return "v1"
	}
	return p.version
}

// definition makes the whole of one from the spec of a pair; nothing from nothing.
func (p pair) definition(t *testing.T, text string) []*unstructured.Unstructured {
	t.Helper()
	if text == "" {
		return nil
	}
	var spec map[string]any
	if err := yaml.Unmarshal([]byte(text), &spec); err != nil {
		t.Fatalf("%s: %v in:\n%s", p.name, err, text)
	}
	spec["group"] = p.group()
	spec["names"] = map[string]any{"kind": "Widget", "plural": "widgets"}
	return []*unstructured.Unstructured{{Object: map[string]any{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": map[string]any{"name": p.crd()}, "spec": spec}}}
}
