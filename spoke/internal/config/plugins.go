package config

import (
	"fmt"
	"regexp"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/wheelwright-dev/wheelwright/pkg/pluginlist"
	"github.com/wheelwright-dev/wheelwright/pkg/pluginwire"
	"github.com/wheelwright-dev/wheelwright/pkg/strictyaml"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// Plugin is a program that the spoke runs beside itself.
type Plugin struct {
	pluginlist.Plugin
	Permissions *Permissions // nil: it gets no credentials for the cluster
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

var objectName = regexp.MustCompile(`^[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?$`)

func (d *decoder) plugins(n *yaml.Node, at string) []Plugin {
	r := pluginlist.Reader{Decoder: &d.Decoder, Host: "the spoke", Local: d.local,
		Kinds: []pluginv1.Kind{pluginv1.Kind_KIND_CONFORMANCE, pluginv1.Kind_KIND_CANARY, pluginv1.Kind_KIND_NOTIFIER}}
	var all []Plugin
	r.List(n, at, func(n *yaml.Node, at string) pluginlist.Plugin {
		var p Plugin
		p.Plugin = r.Entry(n, at, strictyaml.Fields{
			"permissions": func(n *yaml.Node, key string) { p.Permissions = d.permissions(n, key) },
		})
		all = append(all, p)
		return p.Plugin
	})
	return all
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
		"apiGroups":     func(n *yaml.Node, key string) { r.APIGroups = d.Texts(n, key) },
		"resources":     func(n *yaml.Node, key string) { r.Resources = d.Texts(n, key) },
		"resourceNames": func(n *yaml.Node, key string) { r.ResourceNames = d.Texts(n, key) },
		"verbs":         func(n *yaml.Node, key string) { r.Verbs = d.Texts(n, key) },
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
func (d *decoder) named(names []*yaml.Node, key string, all []Plugin, kind pluginv1.Kind) {
	for _, n := range names {
		i := slices.IndexFunc(all, func(p Plugin) bool { return p.Name == n.Value })
		switch {
		case n.Kind != yaml.ScalarNode:
		case i < 0:
			d.Problem(n, key, "%q: no plugin under `plugins` has this name", n.Value)
		case !slices.Contains(all[i].Kinds, kind):
			d.Problem(n, key, "%q: the plugin is not of the kind %s", n.Value, pluginwire.KindName(kind))
		}
	}
}
