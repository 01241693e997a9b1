package config

import (
	"fmt"

	"go.yaml.in/yaml/v3"

	"github.com/wheelwright-dev/wheelwright/pkg/gitrepo"
	"github.com/wheelwright-dev/wheelwright/pkg/strictyaml"
)

// credentials reads how git repositories are reached; the files that it names are tried.
func (d *decoder) credentials(n *yaml.Node, at string) gitrepo.Credentials {
	items := d.List(n, at)
	all := make(gitrepo.Credentials, len(items))
	seen := make([]map[string]*yaml.Node, len(items))
	for i, item := range items {
		known := strictyaml.Fields{}
		for _, k := range gitrepo.CredentialKeys() {
			field, file := all[i].Field(k)
			known[k] = func(n *yaml.Node, key string) {
				if *field = d.Text(n, key); file {
					*field = d.local(*field)
				}
			}
		}
		seen[i] = d.Mapping(item, fmt.Sprintf("%s[%d]", at, i), known)
	}
	for _, p := range all.Check() {
		if seen[p.Index] == nil {
			continue // no entry at all, which was said
		}
		where := seen[p.Index][p.Key]
		if where == nil {
			where = items[p.Index]
		}
		d.Problem(where, fmt.Sprintf("%s[%d].%s", at, p.Index, p.Key), "%s", p.Message)
	}
	return all
}
