package config

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/wheelwright-dev/wheelwright/pkg/rules"
	"github.com/wheelwright-dev/wheelwright/pkg/strictyaml"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/envelope"
)

// Account is the service account as which a subscription's objects are written. The zero one: the spoke itself.
type Account struct {
	Namespace string // empty: the subscription's
	Name      string
}

// account reads NAME or NAMESPACE/NAME.
func (d *decoder) account(n *yaml.Node, at string) Account {
	var a Account
	text := d.Text(n, at)
	namespace, name, both := strings.Cut(text, "/")
	if both {
		a.Namespace, a.Name = namespace, name
	} else {
		a.Name = text
	}
	if both && !namespaceName.MatchString(a.Namespace) || !objectName.MatchString(a.Name) {
		d.Problem(n, at, "%q: want the name of a service account in the subscription's namespace, or NAMESPACE/NAME", text)
	}
	return a
}

// guarded are keys about safety, which are not as good as absent with nothing behind them: whoever wrote them
// wants something to be bounded.
func (d *decoder) guarded(n *yaml.Node, at string, known strictyaml.Fields) {
	n = strictyaml.Resolved(n)
	if n.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], strictyaml.Resolved(n.Content[i+1])
		if known[k.Value] != nil && v.Kind == yaml.ScalarNode && v.Tag == "!!null" {
			d.Problem(k, strings.TrimPrefix(at+"."+k.Value, "."), "there is nothing behind it: say what holds, or take the line out")
		}
	}
}

// safety are the keys of the file and of a subscription that are guarded.
func safety() strictyaml.Fields {
	said := func(*yaml.Node, string) {}
	return strictyaml.Fields{"envelope": said, "serviceAccount": said}
}

// strict is Mapping for a mapping all of whose keys are guarded.
func (d *decoder) strict(n *yaml.Node, at string, known strictyaml.Fields) map[string]*yaml.Node {
	d.guarded(n, at, known)
	return d.Mapping(n, at, known)
}

// layer reads an envelope. above is what holds for all subscriptions: what is written here only makes it
// narrower.
func (d *decoder) layer(n *yaml.Node, at string, above envelope.Envelope) envelope.Envelope {
	var l envelope.Layer
	seen := d.strict(n, at, strictyaml.Fields{
		"namespaces": func(n *yaml.Node, key string) {
			l.Namespaces = parsed(d, n, key, envelope.ParseNamespace, "shop or shop-*; left out: the subscription's own")
		},
		"clusterScoped": func(n *yaml.Node, key string) {
			l.ClusterScoped = parsed(d, n, key, envelope.ParseClusterScoped, "")
		},
		"kinds": func(n *yaml.Node, key string) {
			d.strict(n, key, strictyaml.Fields{
				"allow": func(n *yaml.Node, key string) {
					l.Allow = parsed(d, n, key, envelope.ParseAllowed, "Deployment.apps; left out: every kind")
				},
				"deny": func(n *yaml.Node, key string) {
					l.Deny = parsed(d, n, key, envelope.ParseDenied, "*.rbac.authorization.k8s.io; left out: none")
				},
			})
		},
		"images": func(n *yaml.Node, key string) {
			d.strict(n, key, strictyaml.Fields{
				"registries": func(n *yaml.Node, key string) {
					l.Registries = parsed(d, n, key, envelope.ParseRegistry, "registry.example.com/acme; left out: any")
				},
				"digests": func(n *yaml.Node, key string) {
					word := d.Text(n, key)
					if l.Digests = word == "required"; !l.Digests && word != "optional" {
						d.Problem(n, key, "%q: want required or optional", word)
					}
				},
			})
		},
		"podSecurity": func(n *yaml.Node, key string) {
			var err error
			if l.PodSecurity, err = envelope.ParseLevel(d.Text(n, key)); err != nil {
				d.Problem(n, key, "%v", err)
			}
		},
		"rules": func(n *yaml.Node, key string) { l.Rules = d.envelopeRules(n, key) },
	})
	if len(above) > 0 {
		for key, said := range map[string]bool{"namespaces": above[0].Namespaces != nil, "clusterScoped": len(above[0].ClusterScoped) > 0} {
			if seen[key] != nil && !said {
				d.Problem(seen[key], at+"."+key, "has no effect: the envelope at the top of the file does not name any, and one in a subscription only makes that narrower; name there what any subscription may have")
			}
		}
	}
	return append(slices.Clone(above), l)
}

// parsed reads a list of texts; want is an example, and an empty list is a problem where there is one.
func parsed[T any](d *decoder, n *yaml.Node, at string, parse func(string) (T, error), want string) []T {
	all := []T{}
	items := d.List(n, at)
	for i, item := range items {
		here := fmt.Sprintf("%s[%d]", at, i)
		if item.Kind != yaml.ScalarNode {
			d.Problem(item, here, "want text, found %s", strictyaml.Kind(item))
			continue
		}
		one, err := parse(d.Text(item, here))
		if err != nil {
			d.Problem(item, here, "%v", err)
			continue
		}
		all = append(all, one)
	}
	if n.Kind == yaml.SequenceNode && len(items) == 0 && want != "" {
		d.Problem(n, at, "is empty: want such as %s", want)
	}
	return all
}

// envelopeRules reads conditions of the provider's own.
func (d *decoder) envelopeRules(n *yaml.Node, at string) []envelope.Rule {
	items := d.List(n, at)
	texts, nodes := make([]string, len(items)), make([]*yaml.Node, len(items))
	all := make([]envelope.Rule, len(items))
	for i, item := range items {
		here := fmt.Sprintf("%s[%d]", at, i)
		seen := d.strict(item, here, strictyaml.Fields{
			"rule":    func(n *yaml.Node, key string) { texts[i] = d.Text(n, key) },
			"message": func(n *yaml.Node, key string) { all[i].Message = d.Text(n, key) },
		})
		if nodes[i] = seen["rule"]; seen == nil {
			continue
		}
		for _, key := range []string{"message", "rule"} {
			if seen[key] == nil {
				d.Problem(item, here+"."+key, "missing: want rule, a condition in CEL over `object`, and message, what to change where it does not hold")
			}
		}
	}
	conditions, errs := rules.Conditions(texts)
	for i := range items {
		if all[i].Condition = conditions[i]; errs[i] != nil && nodes[i] != nil {
			d.Problem(nodes[i], fmt.Sprintf("%s[%d].rule", at, i), "%s", strings.ReplaceAll(errs[i].Error(), "\n", "; "))
		}
	}
	return all
}
