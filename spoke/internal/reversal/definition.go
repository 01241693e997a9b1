package reversal

import (
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// definition is what matters of a CustomResourceDefinition.
type definition struct {
	group, scope, kind, plural string
	storage                    string
	webhook                    *webhook // nil: conversion None
	versions                   map[string]version
}

type webhook struct{ service, url string } // service as NAMESPACE/NAME

type version struct {
	served       bool
	schema       map[string]any
	subresources subresources
}

// served lists the names of the versions that clients may use, sorted.
func (d definition) served() (names []string) {
	for _, name := range slices.Sorted(maps.Keys(d.versions)) {
		if d.versions[name].served {
			names = append(names, name)
		}
	}
	return names
}

type subresources struct {
	status     bool
	scale      string // the three paths of it; "" for none
	selectable []string
}

// lostIn says what clients of s miss where now is served instead.
func (s subresources) lostIn(now subresources) (out []string) {
	switch {
	case s.status && !now.status:
		out = append(out, "there is no status subresource any more")
	case !s.status && now.status:
		out = append(out, "status becomes a subresource, and what the release before writes of it is dropped")
	}
	if s.scale != "" && s.scale != now.scale {
		out = append(out, "the scale subresource changes or goes")
	}
	for _, f := range s.selectable {
		if !slices.Contains(now.selectable, f) {
			out = append(out, f+" cannot be selected by any more")
		}
	}
	return out
}

func definitions(objs []*unstructured.Unstructured) map[string]definition {
	all := map[string]definition{}
	for _, o := range objs {
		if o.GetKind() == "CustomResourceDefinition" && o.GroupVersionKind().Group == "apiextensions.k8s.io" {
			all[o.GetName()] = definitionOf(o)
		}
	}
	return all
}

func definitionOf(o *unstructured.Unstructured) definition {
	spec := object(o.Object, "spec")
	names := object(spec, "names")
	d := definition{group: text(spec, "group"), scope: text(spec, "scope"), kind: text(names, "kind"), plural: text(names, "plural"), versions: map[string]version{}}
	if conversion := object(spec, "conversion"); text(conversion, "strategy") == "Webhook" {
		client := object(object(conversion, "webhook"), "clientConfig")
		d.webhook = &webhook{url: text(client, "url")}
		if service := object(client, "service"); service != nil {
			d.webhook.service = text(service, "namespace") + "/" + text(service, "name")
		}
	}
	for _, item := range list(spec, "versions") {
		v, _ := item.(map[string]any)
		if truth(v, "storage") {
			d.storage = text(v, "name")
		}
		schema := object(object(v, "schema"), "openAPIV3Schema")
		if truth(spec, "preserveUnknownFields") {
			schema = maps.Clone(schema)
			if schema == nil {
				schema = map[string]any{}
			}
			schema[preserveUnknown] = true
		}
		d.versions[text(v, "name")] = version{served: truth(v, "served"), schema: schema, subresources: subresourcesOf(v)}
	}
	return d
}

func subresourcesOf(v map[string]any) subresources {
	all := object(v, "subresources")
	s := subresources{status: object(all, "status") != nil}
	if scale := object(all, "scale"); scale != nil {
		s.scale = text(scale, "specReplicasPath") + " " + text(scale, "statusReplicasPath") + " " + text(scale, "labelSelectorPath")
	}
	for _, item := range list(v, "selectableFields") {
		f, _ := item.(map[string]any)
		s.selectable = append(s.selectable, text(f, "jsonPath"))
	}
	return s
}

// What follows reads decoded JSON; what is absent or of another type is the zero value.

func object(m map[string]any, key string) map[string]any { o, _ := m[key].(map[string]any); return o }
func list(m map[string]any, key string) []any            { l, _ := m[key].([]any); return l }
func text(m map[string]any, key string) string           { s, _ := m[key].(string); return s }
func truth(m map[string]any, key string) bool            { b, _ := m[key].(bool); return b }

func number(m map[string]any, key string) (float64, bool) {
	switch n := m[key].(type) {
	case int64:
		return float64(n), true
	case float64:
		return n, true
	case int:
		return float64(n), true
	}
	return 0, false
}
