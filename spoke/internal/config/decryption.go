package config

import (
	"fmt"

	"go.yaml.in/yaml/v3"

	"github.com/wheelwright-dev/wheelwright/pkg/sops"
	"github.com/wheelwright-dev/wheelwright/pkg/strictyaml"
)

// decryption reads where the identities are that open an overlay's files. They are not looked into: one that comes
// later, or is renewed, is read when it is needed, and until then what needs it waits.
func (d *decoder) decryption(n *yaml.Node, at string, k *sops.Keys) {
	seen := d.Mapping(n, at, strictyaml.Fields{
		"age": func(n *yaml.Node, key string) {
			k.Age = nil
			for i, item := range d.List(n, key) {
				if name := d.Text(item, fmt.Sprintf("%s[%d]", key, i)); name != "" {
					k.Age = append(k.Age, d.local(name))
				} else {
					d.Problem(item, fmt.Sprintf("%s[%d]", key, i), "empty: want a file with age identities, relative to this one")
				}
			}
		},
	})
	if seen != nil && k.None() {
		d.Problem(n, at+".age", "missing: want the files with age identities; leave `decryption` out where no file of an overlay is encrypted")
	}
}
