// Package strictyaml reads YAML that people write: key by key, refusing what it does not know, and collecting
// every problem with its line and key path instead of stopping at the first. What a value means is its
// caller's to say.
package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Problem is one thing that is wrong with a text.
type Problem struct {
	Line    int    // from 1; 0 for the text as a whole
	Key     string // path such as "subscriptions[0].versions.range"
	Message string
}

func (p Problem) String() string {
	var b strings.Builder
	if p.Line > 0 {
		fmt.Fprintf(&b, "line %d: ", p.Line)
	}
	if p.Key != "" {
		b.WriteString(p.Key + ": ")
	}
	return b.String() + p.Message
}

// Decoder walks a text's nodes and collects problems; what it returns beside problems is not to be used.
type Decoder struct{ Problems []Problem }

// Fields are the keys that a mapping may have, each with what reads its value.
type Fields map[string]func(n *yaml.Node, key string)

// Problem adds one; n is where it is, nil for the text as a whole.
func (d *Decoder) Problem(n *yaml.Node, key, format string, args ...any) {
	p := Problem{Key: key, Message: fmt.Sprintf(format, args...)}
	if n != nil {
		p.Line = n.Line
	}
	d.Problems = append(d.Problems, p)
}

// Document is the root of a text of one document; nil where there is none, with its problem. empty says what
// to write into an empty one.
func (d *Decoder) Document(text []byte, empty string) *yaml.Node {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, more yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF), err == nil && len(doc.Content) == 0:
		d.Problem(nil, "", "%s", empty)
		return nil
	case err != nil:
		d.Problem(nil, "", "not YAML: %s", strings.ReplaceAll(strings.TrimPrefix(err.Error(), "yaml: "), "\n", " "))
		return nil
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		d.Problem(&more, "", "there is a second document after ---: one file, one document")
	}
	return Resolved(doc.Content[0])
}

// Mapping calls the function of each key and returns the keys' values; nil where n is no mapping. A key with
// nothing after it is as good as absent.
func (d *Decoder) Mapping(n *yaml.Node, at string, known Fields) map[string]*yaml.Node {
	n = Resolved(n)
	if n.Kind != yaml.MappingNode {
		d.Problem(n, at, "want keys and values, found %s", Kind(n))
		return nil
	}
	first, seen := map[string]int{}, map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], Resolved(n.Content[i+1])
		key := strings.TrimPrefix(at+"."+k.Value, ".")
		read, ok := known[k.Value]
		line, twice := first[k.Value]
		first[k.Value] = k.Line
		switch {
		case !ok || k.Kind != yaml.ScalarNode:
			d.Problem(k, key, "unknown key; known here: %s", strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		case twice:
			d.Problem(k, key, "is there twice: first on line %d", line)
		case v.Kind == yaml.ScalarNode && v.Tag == "!!null":
		default:
			seen[k.Value] = v
			read(v, key)
		}
	}
	return seen
}

// List is a list's items.
func (d *Decoder) List(n *yaml.Node, at string) []*yaml.Node {
	if n.Kind != yaml.SequenceNode {
		d.Problem(n, at, "want a list, found %s", Kind(n))
		return nil
	}
	items := make([]*yaml.Node, len(n.Content))
	for i, item := range n.Content {
		items[i] = Resolved(item)
	}
	return items
}

// Text takes any scalar by its letters: `range: 1` means "1".
func (d *Decoder) Text(n *yaml.Node, at string) string {
	if n.Kind != yaml.ScalarNode {
		d.Problem(n, at, "want text, found %s", Kind(n))
		return ""
	}
	if n.Tag == "!!null" {
		return ""
	}
	return strings.TrimSpace(n.Value)
}

// Texts is a list of texts by their letters, with the spaces around them.
func (d *Decoder) Texts(n *yaml.Node, at string) (all []string) {
	for i, item := range d.List(n, at) {
		d.Text(item, fmt.Sprintf("%s[%d]", at, i))
		all = append(all, item.Value)
	}
	return all
}

// Flag is true or false.
func (d *Decoder) Flag(n *yaml.Node, at string) (v bool) {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" || n.Decode(&v) != nil {
		d.Problem(n, at, "want true or false, found %s", Kind(n))
	}
	return v
}

// Duration is one within bounds.
func (d *Decoder) Duration(n *yaml.Node, at string, least, most time.Duration) time.Duration {
	if n.Kind != yaml.ScalarNode {
		d.Text(n, at)
		return 0
	}
	text := d.Text(n, at)
	v, err := time.ParseDuration(text)
	switch {
	case err != nil:
		d.Problem(n, at, "%q: want a duration with its unit, such as 90s or 24h", text)
	case v < least || v > most:
		d.Problem(n, at, "%q: want %s to %s", text, Brief(least), Brief(most))
	}
	return v
}

// Brief writes 1h, not 1h0m0s.
func Brief(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Resolved is the node that an alias stands for.
func Resolved(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// Kind says what a node is, for a person.
func Kind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys and values"
	case yaml.SequenceNode:
		return "a list"
	}
	return fmt.Sprintf("%q", n.Value)
}
