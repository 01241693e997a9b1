// Package pluginlist reads the list `plugins` as it stands in spoke.yaml and in hub.yaml: which programs
// are run as plugins, and with what. It looks at no program; pkg/pluginhost does.
package pluginlist

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/wheelwright-dev/wheelwright/pkg/pluginwire"
	"github.com/wheelwright-dev/wheelwright/pkg/strictyaml"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// Plugin is a program that is run beside the one that the file is about.
type Plugin struct {
	Name    string // unique
	Path    string // absolute
	SHA256  string // of the file, 64 hex digits in lower case
	Kinds   []pluginv1.Kind
	Args    []string
	Env     []string      // NAME=value in the file's order: all that it gets
	Timeout time.Duration // of each call; 0: the host's defaults
}

// Reader reads entries for one file.
type Reader struct {
	*strictyaml.Decoder
	Kinds []pluginv1.Kind     // that the file may give a plugin
	Host  string              // who runs them, as in "the spoke"
	Local func(string) string // makes a path of the file absolute
}

// Limits of what a plugin may ask for.
const (
	minTimeout = time.Second
	maxTimeout = time.Hour
)

var (
	goodName     = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$`)
	goodSum      = regexp.MustCompile(`^[0-9a-fA-F]{64}$`)
	goodVariable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// List reads all entries. one reads an entry, with Entry and what the file has beside; nil: nothing beside.
func (r Reader) List(n *yaml.Node, at string, one func(n *yaml.Node, at string) Plugin) []Plugin {
	if one == nil {
		one = func(n *yaml.Node, at string) Plugin { return r.Entry(n, at, nil) }
	}
	var all []Plugin
	lines := map[string]int{}
	for i, item := range r.Decoder.List(n, at) {
		key := fmt.Sprintf("%s[%d]", at, i)
		p := one(item, key)
		if first, twice := lines[p.Name]; twice && p.Name != "" {
			r.Problem(item, key+".name", "%s is the name of the plugin on line %d already", p.Name, first)
		}
		lines[p.Name] = item.Line
		all = append(all, p)
	}
	return all
}

// Entry reads one; beside are the keys that only this file has.
func (r Reader) Entry(n *yaml.Node, at string, beside strictyaml.Fields) Plugin {
	var p Plugin
	known := strictyaml.Fields{
		"name": func(n *yaml.Node, key string) {
			if p.Name = r.Text(n, key); p.Name != "" && !goodName.MatchString(p.Name) {
				r.Problem(n, key, "%q: want lower-case letters, digits and dashes, at most 40", p.Name)
			}
		},
		"path": func(n *yaml.Node, key string) { p.Path = r.Local(r.Text(n, key)) },
		"sha256": func(n *yaml.Node, key string) {
			if p.SHA256 = strings.ToLower(r.Text(n, key)); p.SHA256 != "" && !goodSum.MatchString(p.SHA256) {
				r.Problem(n, key, "%q: want the 64 hex digits that `sha256sum PATH` prints", p.SHA256)
			}
		},
		"kinds":   func(n *yaml.Node, key string) { p.Kinds = r.kinds(n, key) },
		"args":    func(n *yaml.Node, key string) { p.Args = r.Texts(n, key) },
		"env":     func(n *yaml.Node, key string) { p.Env = r.environment(n, key) },
		"timeout": func(n *yaml.Node, key string) { p.Timeout = r.Duration(n, key, minTimeout, maxTimeout) },
	}
	for key, read := range beside {
		known[key] = read
	}
	seen := r.Mapping(n, at, known)
	if seen == nil {
		return p
	}
	if p.Name == "" {
		r.Problem(n, at+".name", "missing: what the plugin is called in logs and reports")
	}
	if p.Path == "" {
		r.Problem(n, at+".path", "missing: the program's file")
	}
	if p.SHA256 == "" {
		file := p.Path
		if file == "" {
			file = "PATH"
		}
		r.Problem(n, at+".sha256", "missing: what `sha256sum %s` prints; nothing else is run", file)
	}
	if seen["kinds"] == nil {
		r.Problem(n, at+".kinds", "missing: want %s", r.some())
	}
	return p
}

// words are the kinds that the file may give.
func (r Reader) words() (all []string) {
	for _, k := range r.Kinds {
		all = append(all, pluginwire.KindName(k))
	}
	return all
}

func (r Reader) some() string {
	if len(r.Kinds) == 1 {
		return "[" + r.words()[0] + "]"
	}
	return "some of " + strings.Join(r.words(), ", ")
}

func (r Reader) wanted() string {
	if len(r.Kinds) == 1 {
		return fmt.Sprintf("%s, the only kind that %s runs", r.words()[0], r.Host)
	}
	return "one of " + strings.Join(r.words(), ", ")
}

func (r Reader) kinds(n *yaml.Node, at string) []pluginv1.Kind {
	var out []pluginv1.Kind
	items := r.Decoder.List(n, at)
	for i, item := range items {
		key := fmt.Sprintf("%s[%d]", at, i)
		word := r.Text(item, key)
		k := slices.Index(r.words(), word)
		switch {
		case k < 0:
			r.Problem(item, key, "%q: want %s", word, r.wanted())
			continue
		case slices.Contains(out, r.Kinds[k]):
			r.Problem(item, key, "%s is there twice", word)
		}
		out = append(out, r.Kinds[k])
	}
	if n.Kind == yaml.SequenceNode && len(items) == 0 {
		r.Problem(n, at, "is empty: want %s", r.some())
	}
	return out
}

// environment reads names and values; what the handshake sets is not the file's to set.
func (r Reader) environment(n *yaml.Node, at string) []string {
	if n.Kind != yaml.MappingNode {
		r.Problem(n, at, "want names and values, found %s", strictyaml.Kind(n))
		return nil
	}
	var out []string
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], strictyaml.Resolved(n.Content[i+1])
		key := at + "." + k.Value
		name := k.Value
		switch {
		case !goodVariable.MatchString(name):
			r.Problem(k, key, "want letters, digits and underscores")
		case strings.HasPrefix(name, "PLUGIN_") || strings.HasPrefix(name, "WHEELWRIGHT_PLUGIN") || name == "KUBECONFIG" || name == "TMPDIR":
			r.Problem(k, key, "is %s's to set", r.Host)
		case lines[name] != 0:
			r.Problem(k, key, "is there twice: first on line %d", lines[name])
		}
		lines[name] = k.Line
		value := ""
		if r.Text(v, key); v.Tag != "!!null" {
			value = v.Value
		}
		if strings.ContainsRune(value, 0) {
			r.Problem(v, key, "has a NUL in its value")
		}
		out = append(out, name+"="+value)
	}
	return out
}
