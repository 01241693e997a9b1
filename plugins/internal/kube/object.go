package kube

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"sigs.k8s.io/yaml"
)

// Object is a Kubernetes object; its numbers are json.Number.
type Object map[string]any

// ReadObjects decodes a stream of YAML or JSON documents, as a Subject has them. Empty documents are left
// out.
func ReadObjects(stream []byte) ([]Object, error) {
	var out []Object
	for i, document := range documents(stream) {
		text, err := yaml.YAMLToJSON(document)
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", i+1, err)
		}
		if text = bytes.TrimSpace(text); len(text) == 0 || string(text) == "null" {
			continue
		}
		var o Object
		if err := decode(text, &o); err != nil {
			return nil, fmt.Errorf("document %d is no object", i+1)
		}
		out = append(out, o)
	}
	return out, nil
}

// documents splits at the lines that end one: within a document nothing else begins such a line.
func documents(stream []byte) [][]byte {
	var out [][]byte
	var current []byte
	for line := range bytes.Lines(stream) {
		if bytes.HasPrefix(line, []byte("---")) && len(bytes.TrimRight(line[3:], " \t\r\n")) == 0 {
			out, current = append(out, current), nil
			continue
		}
		current = append(current, line...)
	}
	return append(out, current)
}

// At follows keys; nil where one is missing.
func (o Object) At(keys ...string) any {
	var v any = map[string]any(o)
	for _, key := range keys {
		m, _ := v.(map[string]any)
		v = m[key]
	}
	return v
}

// Text is the text at keys; empty where there is none.
func (o Object) Text(keys ...string) string {
	s, _ := o.At(keys...).(string)
	return s
}

// Int is the whole number at keys.
func (o Object) Int(keys ...string) (int64, bool) {
	switch v := o.At(keys...).(type) {
	case json.Number:
		n, err := v.Int64()
		return n, err == nil
	case int:
		return int64(v), true
	case int64:
		return v, true
	}
	return 0, false
}

// Mappings are the mappings of the list at keys.
func (o Object) Mappings(keys ...string) []Object {
	list, _ := o.At(keys...).([]any)
	var out []Object
	for _, item := range list {
		if m, ok := item.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out
}

// Texts is the mapping at keys, of what in it is text.
func (o Object) Texts(keys ...string) map[string]string {
	m, _ := o.At(keys...).(map[string]any)
	out := make(map[string]string, len(m))
	for key, v := range m {
		if s, ok := v.(string); ok {
			out[key] = s
		}
	}
	return out
}

// Group is that of the object's API; empty for the core one.
func (o Object) Group() string {
	g, _, both := strings.Cut(o.Text("apiVersion"), "/")
	if !both {
		return ""
	}
	return g
}

// Kind, Name, Namespace, UID and Version are what metadata and the head say.
func (o Object) Kind() string      { return o.Text("kind") }
func (o Object) Name() string      { return o.Text("metadata", "name") }
func (o Object) Namespace() string { return o.Text("metadata", "namespace") }
func (o Object) UID() string       { return o.Text("metadata", "uid") }
func (o Object) Version() string   { return o.Text("metadata", "resourceVersion") }

// Condition is the entry of status.conditions of that type; nil where there is none.
func (o Object) Condition(kind string) Object {
	for _, c := range o.Mappings("status", "conditions") {
		if c.Text("type") == kind {
			return c
		}
	}
	return nil
}

// Clone copies as deep as it goes.
func (o Object) Clone() Object {
	c, _ := clone(map[string]any(o)).(map[string]any)
	return c
}

func clone(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, item := range v {
			out[key] = clone(item)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = clone(item)
		}
		return out
	}
	return v
}
