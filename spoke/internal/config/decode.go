package config

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/terms"
)

// decoder walks the file's nodes and collects problems; what it returns beside problems is not used.
type decoder struct {
	dir      string // of the file: relative paths start here
	problems []Problem
	tests    []*yaml.Node // the names of plugins under tests, wherever plugins stands in the file
}

// fields are the keys that a mapping may have.
type fields map[string]func(n *yaml.Node, key string)

func (d *decoder) problem(n *yaml.Node, key, format string, args ...any) {
	p := Problem{Key: key, Message: fmt.Sprintf(format, args...)}
	if n != nil {
		p.Line = n.Line
	}
	d.problems = append(d.problems, p)
}

func (d *decoder) sorted() []Problem {
	slices.SortStableFunc(d.problems, func(a, b Problem) int { return a.Line - b.Line })
	return d.problems
}

func (d *decoder) file(data []byte) Config {
	c := Config{Terms: terms.Default(), HealthTimeout: DefaultHealthTimeout, ApprovalTimeout: DefaultApprovalTimeout, FromHub: DefaultFromHub(), Tests: DefaultTests()}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	if err := dec.Decode(&doc); err == io.EOF || err == nil && len(doc.Content) == 0 {
		d.problem(nil, "", "the file is empty: it starts with `version: %s`", Version)
		return c
	} else if err != nil {
		d.problem(nil, "", "not YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
		return c
	}
	if err := dec.Decode(&more); err != io.EOF {
		d.problem(&more, "", "there is a second document after ---: one file, one document")
	}
	root := doc.Content[0]
	var subscriptions []*yaml.Node
	known := fields{
		"version": func(n *yaml.Node, key string) {
			if v := d.text(n, key); v != Version {
				d.problem(n, key, "%q is not known to this spoke: want %s", v, Version)
			}
		},
		"kubeconfig":    func(n *yaml.Node, key string) { c.Kubeconfig = d.local(d.text(n, key)) },
		"context":       func(n *yaml.Node, key string) { c.Context = d.text(n, key) },
		"git":           func(n *yaml.Node, key string) { c.Git = d.credentials(n, key) },
		"plugins":       func(n *yaml.Node, key string) { c.Plugins = d.plugins(n, key) },
		"subscriptions": func(n *yaml.Node, key string) { subscriptions = d.list(n, key) },
	}
	maps.Copy(known, d.shared(shared{&c.Terms, &c.HealthTimeout, &c.ApprovalTimeout, &c.Health, &c.Windows, &c.FromHub, &c.Tests}))
	seen := d.mapping(root, "", known)
	if root.Kind == yaml.MappingNode && seen["version"] == nil {
		d.problem(root, "version", "missing: want `version: %s`", Version)
	}
	lines := map[string]int{}
	for i, n := range subscriptions { // after the defaults, wherever those stand in the file
		s := d.subscription(n, fmt.Sprintf("subscriptions[%d]", i), c)
		if first, twice := lines[s.Distribution]; twice && s.Distribution != "" {
			d.problem(n, fmt.Sprintf("subscriptions[%d].distribution", i), "%s is subscribed to on line %d already", s.Distribution, first)
		}
		lines[s.Distribution] = n.Line
		if s.Overlay.Git != "" {
			s.Overlay.Access = c.Git.For(s.Overlay.Git)
		}
		c.Subscriptions = append(c.Subscriptions, s)
	}
	d.testers(c.Plugins)
	return c
}

var namespaceName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

func (d *decoder) subscription(n *yaml.Node, at string, c Config) Subscription {
	s := Subscription{Terms: c.Terms, HealthTimeout: c.HealthTimeout, ApprovalTimeout: c.ApprovalTimeout, Health: c.Health, FromHub: c.FromHub, Tests: c.Tests}
	windows := c.Windows
	known := fields{
		"distribution": func(n *yaml.Node, key string) {
			s.Distribution = d.text(n, key)
			if err := fleet.CheckDistributionName(s.Distribution); err != nil {
				d.problem(n, key, "%v", err)
			}
		},
		"variant": func(n *yaml.Node, key string) {
			s.Variant = d.text(n, key)
			if strings.ContainsAny(s.Variant, "/\\") || s.Variant == ".." {
				d.problem(n, key, "%q: want the name of one of the distribution's variants, such as app-kubernetes", s.Variant)
			}
		},
		"namespace": func(n *yaml.Node, key string) {
			s.Namespace = d.text(n, key)
			if s.Namespace != "" && !namespaceName.MatchString(s.Namespace) {
				d.problem(n, key, "%q: want lower-case letters, digits and dashes, at most 63", s.Namespace)
			}
		},
		"source": func(n *yaml.Node, key string) {
			for i, u := range d.list(n, key) {
				item := fmt.Sprintf("%s[%d]", key, i)
				if text := d.text(u, item); text != "" {
					s.Source = append(s.Source, text)
				} else {
					d.problem(u, item, "empty: want a repository's URL")
				}
			}
		},
		"overlay":  func(n *yaml.Node, key string) { s.Overlay = d.overlay(n, key) },
		"versions": func(n *yaml.Node, key string) { s.Policy = d.policy(n, key) },
	}
	maps.Copy(known, d.shared(shared{&s.Terms, &s.HealthTimeout, &s.ApprovalTimeout, &s.Health, &windows, &s.FromHub, &s.Tests}))
	seen := d.mapping(n, at, known)
	s.Policy.Windows = windows
	if seen == nil {
		return s
	}
	if seen["distribution"] == nil {
		d.problem(n, at+".distribution", "missing: the name that the hub has for it")
	}
	if s.Namespace == "" {
		d.problem(n, at+".namespace", "missing: where the inventory is kept, and objects go that name no namespace")
	}
	if s.Variant == "" && seen["overlay"] == nil {
		d.problem(n, at+".variant", "missing: without an overlay, nothing else names it (`default` where the distribution has one only)")
	}
	return s
}

func (d *decoder) overlay(n *yaml.Node, at string) Overlay {
	o := Overlay{Revision: DefaultRevision, Interval: DefaultInterval}
	seen := d.mapping(n, at, fields{
		"path": func(n *yaml.Node, key string) { o.Path = d.text(n, key) },
		"git":  func(n *yaml.Node, key string) { o.Git = d.text(n, key) },
		"revision": func(n *yaml.Node, key string) {
			if o.Revision = d.text(n, key); o.Revision == "" || strings.HasPrefix(o.Revision, "-") {
				d.problem(n, key, "%q: want a branch, a tag or a commit", o.Revision)
			}
		},
		"interval": func(n *yaml.Node, key string) { o.Interval = d.duration(n, key) },
	})
	switch {
	case seen == nil:
	case o.Git == "":
		for _, key := range []string{"revision", "interval"} {
			if seen[key] != nil {
				d.problem(seen[key], at+"."+key, "is for a git repository: add `git: URL`, or leave it out")
			}
		}
		if o.Path == "" {
			d.problem(n, at, "names neither `path: FOLDER` nor `git: URL`")
			break
		}
		o = Overlay{Path: d.local(o.Path)}
	default:
		if o.Path == "" {
			o.Path = "."
		}
		if !filepath.IsLocal(o.Path) || strings.Contains(o.Path, `\`) {
			d.problem(seen["path"], at+".path", "%q: want a path inside the repository, with slashes", o.Path)
		}
		o.Path = path.Clean(o.Path)
		if strings.HasPrefix(o.Git, "./") || strings.HasPrefix(o.Git, "../") {
			o.Git = d.local(o.Git)
		}
	}
	return o
}

// mapping calls the function of each key and returns the keys' values; nil where n is no mapping.
func (d *decoder) mapping(n *yaml.Node, at string, known fields) map[string]*yaml.Node {
	n = resolved(n)
	if n.Kind != yaml.MappingNode {
		d.problem(n, at, "want keys and values, found %s", kind(n))
		return nil
	}
	seen := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], resolved(n.Content[i+1])
		key := k.Value
		if at != "" {
			key = at + "." + key
		}
		read, ok := known[k.Value]
		switch {
		case !ok || k.Kind != yaml.ScalarNode:
			d.problem(k, key, "unknown key; known here: %s", strings.Join(keys(known), ", "))
			continue
		case seen[k.Value] != nil:
			d.problem(k, key, "is there twice: first on line %d", seen[k.Value].Line)
			continue
		}
		seen[k.Value] = v
		if !(v.Kind == yaml.ScalarNode && v.Tag == "!!null") { // `overlay:` with nothing after it is as good as absent
			read(v, key)
		} else {
			delete(seen, k.Value)
		}
	}
	return seen
}

func (d *decoder) list(n *yaml.Node, at string) []*yaml.Node {
	if n.Kind != yaml.SequenceNode {
		d.problem(n, at, "want a list, found %s", kind(n))
		return nil
	}
	items := make([]*yaml.Node, len(n.Content))
	for i, item := range n.Content {
		items[i] = resolved(item)
	}
	return items
}

// text takes any scalar by its letters: `range: 1` means "1".
func (d *decoder) text(n *yaml.Node, at string) string {
	if n.Kind != yaml.ScalarNode {
		d.problem(n, at, "want text, found %s", kind(n))
		return ""
	}
	if n.Tag == "!!null" {
		return ""
	}
	return strings.TrimSpace(n.Value)
}

func (d *decoder) duration(n *yaml.Node, at string) time.Duration {
	return d.durationWithin(n, at, time.Second, 24*time.Hour, "1s to 24h")
}

func (d *decoder) durationWithin(n *yaml.Node, at string, least, most time.Duration, bounds string) time.Duration {
	text := d.text(n, at)
	v, err := time.ParseDuration(text)
	switch {
	case err != nil:
		d.problem(n, at, "%q: want a duration with its unit, such as 90s or 5m", text)
	case v < least || v > most:
		d.problem(n, at, "%s: want %s", text, bounds)
	}
	return v
}

// local makes a path of the file's folder absolute; empty stays empty.
func (d *decoder) local(p string) string {
	if p == "" || filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(d.dir, p)
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

func keys(known fields) []string {
	var names []string
	for k := range known {
		names = append(names, k)
	}
	slices.Sort(names)
	return names
}
