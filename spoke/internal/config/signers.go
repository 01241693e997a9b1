package config

import (
	"fmt"

	"go.yaml.in/yaml/v3"

	"github.com/wheelwright-dev/wheelwright/pkg/strictyaml"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/verify"
)

// mostSigners is how many signatures a bundle can hold.
const mostSigners = 16

// signers reads whose signatures are asked for, and looks into the files: keys that cannot be read would
// only be noticed with the next release.
func (d *decoder) signers(n *yaml.Node, at string, s *verify.Signers) {
	before := len(d.Problems)
	seen := d.Mapping(n, at, strictyaml.Fields{
		"files": func(n *yaml.Node, key string) {
			s.Files = nil
			for i, item := range d.List(n, key) {
				if name := d.Text(item, fmt.Sprintf("%s[%d]", key, i)); name != "" {
					s.Files = append(s.Files, d.local(name))
				} else {
					d.Problem(item, fmt.Sprintf("%s[%d]", key, i), "empty: want a file with the vendor's keys, relative to this one")
				}
			}
		},
		"threshold": func(n *yaml.Node, key string) { s.Threshold = d.number(n, key, mostSigners) },
	})
	switch {
	case seen == nil || len(d.Problems) > before:
	case s.None():
		d.Problem(n, at+".files", "missing: want the files with the vendor's keys; leave `signers` out where nobody's signature is asked for")
	default:
		if _, err := s.Policy(); err != nil {
			d.Problem(n, at, "%v", err)
		}
	}
}
