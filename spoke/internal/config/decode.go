package config

import (
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/strictyaml"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/terms"
)

// decoder reads the file; what it returns beside problems is not used.
type decoder struct {
	strictyaml.Decoder
	dir string // of the file: relative paths start here
	// The names of plugins under tests and under canary, wherever plugins stands in the file.
	tests, leaders []*yaml.Node
}

func (d *decoder) sorted() []Problem {
	slices.SortStableFunc(d.Problems, func(a, b Problem) int { return a.Line - b.Line })
	return d.Problems
}

func (d *decoder) file(data []byte) Config {
	c := Config{Terms: terms.Default(), HealthTimeout: DefaultHealthTimeout, HookTimeout: DefaultHookTimeout, ApprovalTimeout: DefaultApprovalTimeout, FromHub: DefaultFromHub(), Tests: DefaultTests(), Canary: DefaultCanary()}
	root := d.Document(data, fmt.Sprintf("the file is empty: it starts with `version: %s`", Version))
	if root == nil {
		return c
	}
	var subscriptions []*yaml.Node
	known := strictyaml.Fields{
		"version": func(n *yaml.Node, key string) {
			if v := d.Text(n, key); v != Version {
				d.Problem(n, key, "%q is not known to this spoke: want %s", v, Version)
			}
		},
		"kubeconfig":    func(n *yaml.Node, key string) { c.Kubeconfig = d.local(d.Text(n, key)) },
		"context":       func(n *yaml.Node, key string) { c.Context = d.Text(n, key) },
		"git":           func(n *yaml.Node, key string) { c.Git = d.credentials(n, key) },
		"plugins":       func(n *yaml.Node, key string) { c.Plugins = d.plugins(n, key) },
		"subscriptions": func(n *yaml.Node, key string) { subscriptions = d.List(n, key) },
	}
	maps.Copy(known, d.shared(shared{&c.Terms, &c.HealthTimeout, &c.HookTimeout, &c.ApprovalTimeout, &c.Health, &c.Windows, &c.FromHub, &c.Tests, &c.Canary, &c.Signers, &c.Operators, &c.Envelope, &c.Account, &c.Decryption}))
	d.guarded(root, "", safety())
	seen := d.Mapping(root, "", known)
	if root.Kind == yaml.MappingNode && seen["version"] == nil {
		d.Problem(root, "version", "missing: want `version: %s`", Version)
	}
	lines := map[string]int{}
	for i, n := range subscriptions { // after the defaults, wherever those stand in the file
		s := d.subscription(n, fmt.Sprintf("subscriptions[%d]", i), c)
		if first, twice := lines[s.Distribution]; twice && s.Distribution != "" {
			d.Problem(n, fmt.Sprintf("subscriptions[%d].distribution", i), "%s is subscribed to on line %d already", s.Distribution, first)
		}
		lines[s.Distribution] = n.Line
		if s.Overlay.Git != "" {
			s.Overlay.Access = c.Git.For(s.Overlay.Git)
		}
		c.Subscriptions = append(c.Subscriptions, s)
	}
	d.named(d.tests, "tests.plugins", c.Plugins, pluginv1.Kind_KIND_CONFORMANCE)
	d.named(d.leaders, "canary.plugin", c.Plugins, pluginv1.Kind_KIND_CANARY)
	return c
}

var namespaceName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

func (d *decoder) subscription(n *yaml.Node, at string, c Config) Subscription {
	s := Subscription{Terms: c.Terms, HealthTimeout: c.HealthTimeout, HookTimeout: c.HookTimeout, ApprovalTimeout: c.ApprovalTimeout, Health: c.Health, FromHub: c.FromHub, Tests: c.Tests, Canary: c.Canary, Signers: c.Signers, Operators: c.Operators, Envelope: c.Envelope, Account: c.Account, Decryption: c.Decryption}
	windows := c.Windows
	known := strictyaml.Fields{
		"distribution": func(n *yaml.Node, key string) {
			s.Distribution = d.Text(n, key)
			if err := fleet.CheckDistributionName(s.Distribution); err != nil {
				d.Problem(n, key, "%v", err)
			}
		},
		"variant": func(n *yaml.Node, key string) {
			s.Variant = d.Text(n, key)
			if strings.ContainsAny(s.Variant, "/\\") || s.Variant == ".." {
				d.Problem(n, key, "%q: want the name of one of the distribution's variants, such as app-kubernetes", s.Variant)
			}
		},
		"namespace": func(n *yaml.Node, key string) {
			s.Namespace = d.Text(n, key)
			if s.Namespace != "" && !namespaceName.MatchString(s.Namespace) {
				d.Problem(n, key, "%q: want lower-case letters, digits and dashes, at most 63", s.Namespace)
			}
		},
		"source": func(n *yaml.Node, key string) {
			for i, u := range d.List(n, key) {
				item := fmt.Sprintf("%s[%d]", key, i)
				if text := d.Text(u, item); text != "" {
					s.Source = append(s.Source, text)
				} else {
					d.Problem(u, item, "empty: want a repository's URL")
				}
			}
		},
		"overlay":  func(n *yaml.Node, key string) { s.Overlay = d.overlay(n, key) },
		"versions": func(n *yaml.Node, key string) { s.Policy = d.policy(n, key) },
	}
	maps.Copy(known, d.shared(shared{&s.Terms, &s.HealthTimeout, &s.HookTimeout, &s.ApprovalTimeout, &s.Health, &windows, &s.FromHub, &s.Tests, &s.Canary, &s.Signers, &s.Operators, &s.Envelope, &s.Account, &s.Decryption}))
	d.guarded(n, at, safety())
	seen := d.Mapping(n, at, known)
	s.Policy.Windows = windows
	if seen == nil {
		return s
	}
	if seen["distribution"] == nil {
		d.Problem(n, at+".distribution", "missing: the name that the hub has for it")
	}
	if s.Account.Name != "" && s.Account.Namespace == "" {
		s.Account.Namespace = s.Namespace
	}
	if s.Namespace == "" {
		d.Problem(n, at+".namespace", "missing: where the inventory is kept, and objects go that name no namespace")
	}
	if s.Variant == "" && seen["overlay"] == nil {
		d.Problem(n, at+".variant", "missing: without an overlay, nothing else names it (`default` where the distribution has one only)")
	}
	return s
}

func (d *decoder) overlay(n *yaml.Node, at string) Overlay {
	o := Overlay{Revision: DefaultRevision, Interval: DefaultInterval}
	seen := d.Mapping(n, at, strictyaml.Fields{
		"path": func(n *yaml.Node, key string) { o.Path = d.Text(n, key) },
		"git":  func(n *yaml.Node, key string) { o.Git = d.Text(n, key) },
		"revision": func(n *yaml.Node, key string) {
			if o.Revision = d.Text(n, key); o.Revision == "" || strings.HasPrefix(o.Revision, "-") {
				d.Problem(n, key, "%q: want a branch, a tag or a commit", o.Revision)
			}
		},
		"interval": func(n *yaml.Node, key string) { o.Interval = d.duration(n, key) },
	})
	switch {
	case seen == nil:
	case o.Git == "":
		for _, key := range []string{"revision", "interval"} {
			if seen[key] != nil {
				d.Problem(seen[key], at+"."+key, "is for a git repository: add `git: URL`, or leave it out")
			}
		}
		if o.Path == "" {
			d.Problem(n, at, "names neither `path: FOLDER` nor `git: URL`")
			break
		}
		o = Overlay{Path: d.local(o.Path)}
	default:
		if o.Path == "" {
			o.Path = "."
		}
		if !filepath.IsLocal(o.Path) || strings.Contains(o.Path, `\`) {
			d.Problem(seen["path"], at+".path", "%q: want a path inside the repository, with slashes", o.Path)
		}
		o.Path = path.Clean(o.Path)
		if strings.HasPrefix(o.Git, "./") || strings.HasPrefix(o.Git, "../") {
			o.Git = d.local(o.Git)
		}
	}
	return o
}

func (d *decoder) duration(n *yaml.Node, at string) time.Duration {
	return d.Duration(n, at, time.Second, 24*time.Hour)
}

// local makes a path of the file's folder absolute; empty stays empty.
func (d *decoder) local(p string) string {
	if p == "" || filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(d.dir, p)
}
