package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/wheelwright-dev/wheelwright/pkg/strictyaml"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// Plugin is a program that the spoke runs beside itself.
type Plugin struct {
	Name        string // unique
	Path        string // absolute
	SHA256      string // of the file, 64 hex digits in lower case
	Kinds       []pluginv1.Kind
	Args        []string
	Env         []string      // NAME=value in the file's order: all that it gets
	Timeout     time.Duration // of each call; 0: the host's defaults
	Permissions *Permissions  // nil: it gets no credentials for the cluster
}

// Permissions is as whom a plugin speaks to the cluster: as a service account that is there, or as one
// that the spoke makes and gives rules.
type Permissions struct {
	Namespace      string // of the service account, and of what the rules are about
	ServiceAccount string // empty: one of the spoke's own making
	Rules          []PermissionRule
}

// PermissionRule is a rule of a Role.
type PermissionRule struct{ APIGroups, Resources, ResourceNames, Verbs []string }

// Limits of what a plugin may ask for.
const (
	minPluginTimeout = time.Second
	maxPluginTimeout = time.Hour
)

var (
	pluginName   = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$`)
	sha256Sum    = regexp.MustCompile(`^[0-9a-fA-F]{64}$`)
	variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	objectName   = regexp.MustCompile(`^[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?$`)
)

// kinds of plugins, by their words.
func pluginKinds() map[string]pluginv1.Kind {
	return map[string]pluginv1.Kind{
		"conformance": pluginv1.Kind_KIND_CONFORMANCE, "canary": pluginv1.Kind_KIND_CANARY, "notifier": pluginv1.Kind_KIND_NOTIFIER,
	}
}

func (d *decoder) plugins(n *yaml.Node, at string) []Plugin {
	var all []Plugin
	lines := map[string]int{}
	for i, item := range d.List(n, at) {
		key := fmt.Sprintf("%s[%d]", at, i)
		p := d.plugin(item, key)
		if first, twice := lines[p.Name]; twice && p.Name != "" {
			d.Problem(item, key+".name", "%s is the name of the plugin on line %d already", p.Name, first)
		}
		lines[p.Name] = item.Line
		all = append(all, p)
	}
	return all
}

func (d *decoder) plugin(n *yaml.Node, at string) Plugin {
	var p Plugin
	seen := d.Mapping(n, at, strictyaml.Fields{
		"name": func(n *yaml.Node, key string) {
			if p.Name = d.Text(n, key); p.Name != "" && !pluginName.MatchString(p.Name) {
				d.Problem(n, key, "%q: want lower-case letters, digits and dashes, at most 40", p.Name)
			}
		},
		"path": func(n *yaml.Node, key string) { p.Path = d.local(d.Text(n, key)) },
		"sha256": func(n *yaml.Node, key string) {
			if p.SHA256 = strings.ToLower(d.Text(n, key)); p.SHA256 != "" && !sha256Sum.MatchString(p.SHA256) {
				d.Problem(n, key, "%q: want the 64 hex digits that `sha256sum PATH` prints", p.SHA256)
			}
		},
		"kinds": func(n *yaml.Node, key string) { p.Kinds = d.kinds(n, key) },
		"args":  func(n *yaml.Node, key string) { p.Args = d.texts(n, key) },
		"env":   func(n *yaml.Node, key string) { p.Env = d.environment(n, key) },
		"timeout": func(n *yaml.Node, key string) {
			p.Timeout = d.Duration(n, key, minPluginTimeout, maxPluginTimeout)
		},
		"permissions": func(n *yaml.Node, key string) { p.Permissions = d.permissions(n, key) },
	})
	if seen == nil {
		return p
	}
	if p.Name == "" {
		d.Problem(n, at+".name", "missing: what the plugin is called in logs and reports")
	}
	if p.Path == "" {
		d.Problem(n, at+".path", "missing: the program's file")
	}
	if p.SHA256 == "" {
		file := p.Path
		if file == "" {
			file = "PATH"
		}
		d.Problem(n, at+".sha256", "missing: what `sha256sum %s` prints; nothing else is run", file)
	}
	if seen["kinds"] == nil {
		d.Problem(n, at+".kinds", "missing: want some of conformance, canary, notifier")
	}
	return p
}

func (d *decoder) kinds(n *yaml.Node, at string) []pluginv1.Kind {
	var out []pluginv1.Kind
	items := d.List(n, at)
	for i, item := range items {
		key := fmt.Sprintf("%s[%d]", at, i)
		word := d.Text(item, key)
		k, ok := pluginKinds()[word]
		switch {
		case !ok:
			d.Problem(item, key, "%q: want conformance, canary or notifier", word)
		case slices.Contains(out, k):
			d.Problem(item, key, "%s is there twice", word)
		}
		out = append(out, k)
	}
	if n.Kind == yaml.SequenceNode && len(items) == 0 {
		d.Problem(n, at, "is empty: want some of conformance, canary, notifier")
	}
	return out
}

// texts reads a list of texts as they are, with their spaces.
func (d *decoder) texts(n *yaml.Node, at string) []string {
	var out []string
	for i, item := range d.List(n, at) {
		d.Text(item, fmt.Sprintf("%s[%d]", at, i))
		out = append(out, item.Value)
	}
	return out
}

// environment reads names and values; what the handshake sets is not the file's to set.
func (d *decoder) environment(n *yaml.Node, at string) []string {
	if n.Kind != yaml.MappingNode {
		d.Problem(n, at, "want names and values, found %s", strictyaml.Kind(n))
		return nil
	}
	var out []string
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], strictyaml.Resolved(n.Content[i+1])
		key := at + "." + k.Value
		name := k.Value
		switch {
		case !variableName.MatchString(name):
			d.Problem(k, key, "want letters, digits and underscores")
		case strings.HasPrefix(name, "PLUGIN_") || strings.HasPrefix(name, "WHEELWRIGHT_PLUGIN") || name == "KUBECONFIG" || name == "TMPDIR":
			d.Problem(k, key, "is the spoke's to set")
		case lines[name] != 0:
			d.Problem(k, key, "is there twice: first on line %d", lines[name])
		}
		lines[name] = k.Line
		value := ""
		if d.Text(v, key); v.Tag != "!!null" {
			value = v.Value
		}
		if strings.ContainsRune(value, 0) {
			d.Problem(v, key, "has a NUL in its value")
		}
		out = append(out, name+"="+value)
	}
	return out
}

func (d *decoder) permissions(n *yaml.Node, at string) *Permissions {
	p := &Permissions{}
	seen := d.Mapping(n, at, strictyaml.Fields{
		"namespace": func(n *yaml.Node, key string) {
			if p.Namespace = d.Text(n, key); !namespaceName.MatchString(p.Namespace) {
				d.Problem(n, key, "%q: want lower-case letters, digits and dashes, at most 63", p.Namespace)
			}
		},
		"serviceAccount": func(n *yaml.Node, key string) {
			if p.ServiceAccount = d.Text(n, key); !objectName.MatchString(p.ServiceAccount) {
				d.Problem(n, key, "%q: want the name of a service account", p.ServiceAccount)
			}
		},
		"rules": func(n *yaml.Node, key string) {
			for i, item := range d.List(n, key) {
				p.Rules = append(p.Rules, d.permissionRule(item, fmt.Sprintf("%s[%d]", key, i)))
			}
		},
	})
	if seen == nil {
		return p
	}
	if seen["namespace"] == nil {
		d.Problem(n, at+".namespace", "missing: where the service account is")
	}
	switch {
	case seen["serviceAccount"] != nil && seen["rules"] != nil:
		d.Problem(n, at, "has `serviceAccount` and `rules`: want one of the two")
	case p.ServiceAccount == "" && len(p.Rules) == 0:
		d.Problem(n, at, "names neither `serviceAccount: NAME` nor `rules: […]`")
	}
	return p
}

func (d *decoder) permissionRule(n *yaml.Node, at string) PermissionRule {
	var r PermissionRule
	seen := d.Mapping(n, at, strictyaml.Fields{
		"apiGroups":     func(n *yaml.Node, key string) { r.APIGroups = d.texts(n, key) },
		"resources":     func(n *yaml.Node, key string) { r.Resources = d.texts(n, key) },
		"resourceNames": func(n *yaml.Node, key string) { r.ResourceNames = d.texts(n, key) },
		"verbs":         func(n *yaml.Node, key string) { r.Verbs = d.texts(n, key) },
	})
	if seen == nil {
		return r
	}
	for _, need := range []struct {
		key  string
		have []string
		want string
	}{{"apiGroups", r.APIGroups, `such as [apps], or [""] for the core`}, {"resources", r.Resources, "such as [deployments]"}, {"verbs", r.Verbs, "such as [get, list, watch]"}} {
		if len(need.have) == 0 {
			d.Problem(n, at+"."+need.key, "missing: want a list, %s", need.want)
		}
	}
	return r
}

// provenBy reads how releases are proven.
func (d *decoder) provenBy(n *yaml.Node, at string, t *Tests) {
	d.Mapping(n, at, strictyaml.Fields{
		"plugins": func(n *yaml.Node, key string) {
			items := d.List(n, key)
			t.Plugins = make([]string, len(items))
			for i, item := range items {
				t.Plugins[i] = d.Text(item, fmt.Sprintf("%s[%d]", key, i))
			}
			d.tests = append(d.tests, items...)
		},
		"timeout": func(n *yaml.Node, key string) {
			t.Timeout = d.Duration(n, key, time.Second, 24*time.Hour)
		},
		"onInconclusive": func(n *yaml.Node, key string) {
			word := d.Text(n, key)
			if t.Retry = word == "retry"; !t.Retry && word != "ask" {
				d.Problem(n, key, "%q: want ask or retry; a release that no test proved is not taken by itself", word)
			}
		},
	})
}

// named checks the names of plugins that stand under a key: each is under plugins, and of a kind.
func (d *decoder) named(names []*yaml.Node, key string, all []Plugin, kind string) {
	for _, n := range names {
		i := slices.IndexFunc(all, func(p Plugin) bool { return p.Name == n.Value })
		switch {
		case n.Kind != yaml.ScalarNode:
		case i < 0:
			d.Problem(n, key, "%q: no plugin under `plugins` has this name", n.Value)
		case !slices.Contains(all[i].Kinds, pluginKinds()[kind]):
			d.Problem(n, key, "%q: the plugin is not of the kind %s", n.Value, kind)
		}
	}
}
