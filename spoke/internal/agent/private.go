package agent

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/wheelwright-dev/wheelwright/pkg/bundle"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
	"github.com/wheelwright-dev/wheelwright/pkg/redact"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/journal"
)

// clean takes a provider's values out of what is said of an installation.
func clean(s *redact.Sink, i fleet.Installation) fleet.Installation {
	i.Reason, i.HealthMessage, i.DriftMessage = s.Text(i.Reason), s.Text(i.HealthMessage), s.Text(i.DriftMessage)
	return i
}

// cleanEvent is an event as it may leave.
func cleanEvent(s *redact.Sink, e fleet.Event) fleet.Event {
	e.Message = s.Text(e.Message)
	if e.Installation != nil {
		i := clean(s, *e.Installation)
		e.Installation = &i
	}
	if e.Preflight != nil {
		p := *e.Preflight
		p.Reason = s.Text(p.Reason)
		e.Preflight = &p
	}
	return e
}

// cleanRecord is a record as it may lie on a disk, but for its rendered sets.
func cleanRecord(s *redact.Sink, r journal.Record) journal.Record {
	r.Installation = clean(s, r.Installation)
	r.Held, r.Tried = maps.Clone(r.Held), maps.Clone(r.Tried)
	for v, h := range r.Held {
		h.Reason = s.Text(h.Reason)
		r.Held[v] = h
	}
	for v, t := range r.Tried {
		t.Result.Reason = s.Text(t.Result.Reason)
		r.Tried[v] = t
	}
	return r
}

// learnOverlay tells the sink what a provider wrote. What the vendor wrote too is no secret to it; before a
// release is at hand everything counts.
func (a *Agent) learnOverlay(d fleet.Digest, files []provenance.File, release []provenance.File) {
	if len(files) == 0 {
		return
	}
	var public []string
	for _, f := range release {
		public = append(public, string(f.Data))
	}
	a.cfg.Private.Know("overlay "+string(d), overlayValues(files), public...)
}

// learnSet tells the sink the values of a rendered set's Secrets, and of the overlay that it was rendered with.
func (a *Agent) learnSet(distribution string, objs []*unstructured.Unstructured, rendered, release, o fleet.Digest) {
	if key := "set " + string(rendered); !a.cfg.Private.Knows(key) {
		a.cfg.Private.Know(key, secrets(objs, false), namesOf(objs)...)
	}
	if o == "" || a.cfg.Private.Knows("overlay "+string(o)) {
		return
	}
	files, err := a.cache.overlay(o)
	if err != nil {
		a.cfg.Private.Know("overlay "+string(o), nil) // it was never kept; whoever renders with it tells
		return
	}
	var wrote []provenance.File
	if tar, err := a.cache.get(release); err == nil {
		if b, err := bundle.Open(tar); err == nil {
			wrote = b.Files()
		}
	}
	if plain, hidden, err := decrypted(a.keeper.keysOf(distribution), files); err == nil { // else nobody here knows them
		a.cfg.Private.Know("decrypted "+string(o), hidden)
		files = plain
	}
	a.learnOverlay(o, files, wrote)
}

// namesOf are what a hub sees of objects anyway.
func namesOf(objs []*unstructured.Unstructured) (names []string) {
	for _, o := range objs {
		names = append(names, o.GetKind(), o.GetNamespace(), o.GetName())
	}
	return names
}

// overlayValues are the values in a provider's files: all that is no name of an object, a file or an image.
func overlayValues(files []provenance.File) (values []string) {
	for _, f := range files {
		if docs, ok := parsed(f.Data); ok {
			for _, d := range docs {
				values = scalars(values, d)
			}
			continue
		}
		values = lines(values, string(f.Data))
	}
	return values
}

// parsed is a text as YAML, or JSON, of mappings and lists.
func parsed(data []byte) (docs []*yaml.Node, ok bool) {
	for d := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var n yaml.Node
		err := d.Decode(&n)
		if errors.Is(err, io.EOF) {
			return docs, len(docs) > 0
		}
		if err != nil || len(n.Content) != 1 {
			return nil, false
		}
		if n.Content[0].Kind == yaml.ScalarNode {
			if n.Content[0].ShortTag() == "!!null" { // nothing stands between two of ---
				continue
			}
			return nil, false
		}
		docs = append(docs, n.Content[0])
	}
}

// lines are the values of a text of which nothing more is known: each line, and what stands behind = or a colon.
func lines(values []string, text string) []string {
	values = append(values, text)
	for line := range strings.Lines(text) {
		for _, by := range []string{"=", ": "} {
			if k, v, ok := strings.Cut(line, by); ok && !names[strings.TrimSpace(k)] {
				values = append(values, strings.Trim(strings.TrimSpace(v), `"'`))
			}
		}
	}
	return values
}

// names are the keys below which names stand, which people have to see.
var names = map[string]bool{"apiVersion": true, "kind": true, "name": true, "namespace": true, "image": true, "newName": true, "newTag": true,
	"digest": true, "target": true, "bases": true, "components": true, "op": true, "generateName": true}

// leastValue is how long a provider's value has to be, where it is no Secret's: shorter ones are words of Kubernetes.
const leastValue = 8

func scalars(values []string, n *yaml.Node) []string {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			k, v := n.Content[i], n.Content[i+1]
			if mixed(k.Value) {
				values = append(values, k.Value)
			}
			plain := v.Kind == yaml.ScalarNode || v.Kind == yaml.SequenceNode && k.Value != "literals"
			if names[k.Value] && (plain || k.Value == "target") || isPath(k.Value, v) {
				continue
			}
			values = scalars(values, v)
		}
	case yaml.SequenceNode:
		for _, v := range n.Content {
			values = scalars(values, v)
		}
	case yaml.ScalarNode:
		if len(n.Value) < leastValue {
			return values
		}
		if docs, ok := parsed([]byte(n.Value)); ok && strings.Contains(n.Value, "\n") { // a patch within a kustomization
			for _, d := range docs {
				values = scalars(values, d)
			}
			return values
		}
		values = lines(values, n.Value)
	}
	return values
}

// isPath: files of the overlay, fields of a patch, and the vendor's repository.
func isPath(key string, n *yaml.Node) bool {
	if key == "resources" && n.Kind == yaml.SequenceNode {
		return true
	}
	return key == "path" && n.Kind == yaml.ScalarNode && (strings.HasSuffix(n.Value, ".yaml") || strings.HasSuffix(n.Value, ".yml") || strings.HasSuffix(n.Value, ".json") ||
		strings.HasPrefix(n.Value, "/spec") || strings.HasPrefix(n.Value, "/metadata"))
}

// mixed: a key that nobody would read as a word.
func mixed(s string) bool {
	digits := 0
	for _, r := range s {
		if unicode.IsDigit(r) {
			digits++
		}
	}
	return len(s) >= 12 && digits >= 2
}

// secrets are the values of Secrets, which are taken out of them where they are to be emptied.
func secrets(objs []*unstructured.Unstructured, empty bool) (values []string) {
	for _, o := range objs {
		if gvk := o.GroupVersionKind(); gvk.Group != "" || gvk.Kind != "Secret" {
			continue
		}
		if empty {
			unstructured.RemoveNestedField(o.Object, "metadata", "annotations", "kubectl.kubernetes.io/last-applied-configuration")
		}
		for _, field := range []string{"data", "stringData"} {
			content, _, _ := unstructured.NestedMap(o.Object, field)
			for key, v := range content {
				text := fmt.Sprint(v)
				values = append(values, text)
				if plain, err := base64.StdEncoding.DecodeString(text); err == nil && field == "data" {
					values = append(values, inside(string(plain))...)
				}
				if empty {
					content[key] = ""
				}
			}
			if content != nil && empty {
				o.Object[field] = content
			}
		}
	}
	return values
}

// inside are a Secret's value and, where it is JSON such as a registry's credentials, those in it.
func inside(text string) []string {
	values := lines(nil, text)
	var v any
	if json.Unmarshal([]byte(text), &v) != nil {
		return values
	}
	var dig func(any)
	dig = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for _, x := range v {
				dig(x)
			}
		case []any:
			for _, x := range v {
				dig(x)
			}
		case string:
			values = append(values, v)
			if plain, err := base64.StdEncoding.DecodeString(v); err == nil {
				values = append(values, string(plain))
			}
		}
	}
	dig(v)
	return values
}
