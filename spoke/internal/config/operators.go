package config

import (
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/order"
	"github.com/wheelwright-dev/wheelwright/pkg/strictyaml"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/verify"
)

// operators reads whose signed orders count, and looks into the files: a key that cannot be read would only be
// noticed when an order is urgent. It takes the place of what the top of the file says, whole.
func (d *decoder) operators(n *yaml.Node, at string, o *verify.Operators) {
	before := len(d.Problems)
	*o = verify.Operators{}
	seen := d.Mapping(n, at, strictyaml.Fields{
		"cluster": func(n *yaml.Node, key string) {
			var err error
			if o.Cluster, err = fleet.ParseCluster(d.Text(n, key)); err != nil {
				d.Problem(n, key, "%v", err)
			}
		},
		"files": func(n *yaml.Node, key string) {
			for i, item := range d.List(n, key) {
				if name := d.Text(item, fmt.Sprintf("%s[%d]", key, i)); name != "" {
					o.Files = append(o.Files, d.local(name))
				} else {
					d.Problem(item, fmt.Sprintf("%s[%d]", key, i), "empty: want a file with operators' keys, relative to this one")
				}
			}
		},
		"allow": func(n *yaml.Node, key string) {
			for i, item := range d.List(n, key) {
				o.Allow = append(o.Allow, d.grant(item, fmt.Sprintf("%s[%d]", key, i)))
			}
		},
	})
	if seen == nil || len(d.Problems) > before {
		return
	}
	for _, k := range [][2]string{
		{"cluster", "missing: this cluster's PROVIDER/NAME, as orders have to name it; `spoke status` shows what the hub calls it"},
		{"files", "missing: want the files with the operators' keys; leave `operators` out where nobody's orders count"},
		{"allow", "missing: who may order what, such as {principal: maria@vendor.example, verbs: [rollback]}"},
	} {
		if seen[k[0]] == nil {
			d.Problem(n, at+"."+k[0], "%s", k[1])
		}
	}
	switch {
	case len(d.Problems) > before:
	case len(o.Files) == 0 || len(o.Allow) == 0:
		d.Problem(n, at, "an empty list; leave `operators` out where nobody's orders count")
	default:
		if err := o.Check(); err != nil {
			d.Problem(n, at, "%v", err)
		}
	}
}

func (d *decoder) grant(n *yaml.Node, at string) (g verify.Grant) {
	seen := d.Mapping(n, at, strictyaml.Fields{
		"principal": func(n *yaml.Node, key string) { g.Principal = d.Text(n, key) },
		"verbs": func(n *yaml.Node, key string) {
			for i, item := range d.List(n, key) {
				at := fmt.Sprintf("%s[%d]", key, i)
				word := d.Text(item, at)
				v, err := order.ParseVerb(word)
				switch {
				case word == verify.ReHomeVerb && g.ReHome, err == nil && slices.Contains(g.Verbs, v):
					d.Problem(item, at, "%s is there twice", word)
				case word == verify.ReHomeVerb:
					g.ReHome = true
				default:
					if err != nil {
						d.Problem(item, at, "%v, %s", err, verify.ReHomeVerb)
					}
					g.Verbs = append(g.Verbs, v)
				}
			}
		},
	})
	if seen != nil && g.Principal == "" {
		d.Problem(n, at+".principal", "missing: the name in front of a key in the files")
	}
	if seen != nil && len(g.Verbs) == 0 && !g.ReHome {
		d.Problem(n, at+".verbs", "missing: what they may order, of %v and %s", order.Verbs(), verify.ReHomeVerb)
	}
	return g
}
