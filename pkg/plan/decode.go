package plan

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// decoder walks the text's nodes and collects problems; what it returns beside problems is not used.
type decoder struct{ problems Problems }

// fields are the keys that a mapping may have.
type fields map[string]func(n *yaml.Node, at string)

func (d *decoder) problem(at, format string, args ...any) {
	d.problems = append(d.problems, at+": "+fmt.Sprintf(format, args...))
}

// mapping calls the function of each key and returns the keys' values; nil where n is no mapping.
func (d *decoder) mapping(n *yaml.Node, at string, known fields) map[string]*yaml.Node {
	n = resolved(n)
	if n.Kind != yaml.MappingNode {
		if at == "" {
			at = whole
		}
		d.problem(at, "want keys and values, found %s", kind(n))
		return nil
	}
	seen := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], resolved(n.Content[i+1])
		key := strings.TrimPrefix(at+"."+k.Value, ".")
		read, ok := known[k.Value]
		switch {
		case !ok || k.Kind != yaml.ScalarNode:
			d.problem(key, "unknown key; known here: %s", strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		case seen[k.Value] != nil:
			d.problem(key, "is there twice")
		case v.Kind == yaml.ScalarNode && v.Tag == "!!null": // `windows:` with nothing after it is as good as absent
		default:
			seen[k.Value] = v
			read(v, key)
		}
	}
	return seen
}

func (d *decoder) list(n *yaml.Node, at string) []*yaml.Node {
	if n.Kind != yaml.SequenceNode {
		d.problem(at, "want a list, found %s", kind(n))
		return nil
	}
	items := make([]*yaml.Node, len(n.Content))
	for i, item := range n.Content {
		items[i] = resolved(item)
	}
	return items
}

// text takes any scalar by its letters: `ring: 0` means "0".
func (d *decoder) text(n *yaml.Node, at string) string {
	if n.Kind != yaml.ScalarNode {
		d.problem(at, "want text, found %s", kind(n))
		return ""
	}
	if n.Tag == "!!null" {
		return ""
	}
	return strings.TrimSpace(n.Value)
}

func (d *decoder) boolean(n *yaml.Node, at string) (v bool) {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" || n.Decode(&v) != nil {
		d.problem(at, "want true or false, found %s", kind(n))
	}
	return v
}

func (d *decoder) duration(n *yaml.Node, at string, least time.Duration) time.Duration {
	text := d.text(n, at)
	v, err := time.ParseDuration(text)
	switch {
	case n.Kind != yaml.ScalarNode:
	case err != nil:
		d.problem(at, "%q: want a duration with its unit, such as 30m or 24h", text)
	case v < least || v > mostWait:
		d.problem(at, "%q: want %s to %s", text, least, Brief(mostWait))
	}
	return v
}

// labelForm is Kubernetes' form of a label's key: a name, a DNS name and a slash before it or not.
var labelForm = regexp.MustCompile(`^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$`)

func (d *decoder) labelKey(n *yaml.Node, at string) string {
	key := d.text(n, at)
	if n.Kind == yaml.ScalarNode && !labelForm.MatchString(key) {
		d.problem(at, "%q: want a label, such as ring or wheelwright.dev/provider", key)
	}
	return key
}

func resolved(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

func kind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys and values"
	case yaml.SequenceNode:
		return "a list"
	}
	return fmt.Sprintf("%q", n.Value)
}
