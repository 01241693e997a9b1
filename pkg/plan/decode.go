package plan

import (
	"cmp"
	"regexp"

	"go.yaml.in/yaml/v3"

	"github.com/wheelwright-dev/wheelwright/pkg/strictyaml"
)

// decoder reads a plan; what it returns beside problems is not used.
type decoder struct{ strictyaml.Decoder }

// all are the problems without their lines: a plan mostly stands inside another file.
func (d *decoder) all() (all Problems) {
	for _, p := range d.Problems {
		all = append(all, cmp.Or(p.Key, whole)+": "+p.Message)
	}
	return all
}

// labelForm is Kubernetes' form of a label's key: a name, a DNS name and a slash before it or not.
var labelForm = regexp.MustCompile(`^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$`)

func (d *decoder) labelKey(n *yaml.Node, at string) string {
	key := d.Text(n, at)
	if n.Kind == yaml.ScalarNode && !labelForm.MatchString(key) {
		d.Problem(nil, at, "%q: want a label, such as ring or wheelwright.dev/provider", key)
	}
	return key
}
