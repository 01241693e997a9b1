package config

import (
	"path/filepath"

	"go.yaml.in/yaml/v3"

	"github.com/wheelwright-dev/wheelwright/pkg/pluginlist"
	"github.com/wheelwright-dev/wheelwright/pkg/strictyaml"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// plugins reads the list out of the text itself: what is meant as text, such as `LEVEL: 1.10` of an
// environment, keeps its letters there.
func (d *decoder) plugins(key string, data []byte) (all []pluginlist.Plugin) {
	list := &strictyaml.Decoder{}
	root := list.Document(data, "")
	if root == nil || root.Kind != yaml.MappingNode {
		return nil // said already
	}
	r := pluginlist.Reader{Decoder: list, Kinds: []pluginv1.Kind{pluginv1.Kind_KIND_NOTIFIER}, Host: "the hub", Local: d.local}
	for i := 0; i+1 < len(root.Content); i += 2 {
		if v := strictyaml.Resolved(root.Content[i+1]); root.Content[i].Value == key && v.Tag != "!!null" {
			all = r.List(v, key, nil)
		}
	}
	for _, p := range list.Problems {
		d.problem(p.Key, "%s", p.Message)
	}
	return all
}

// local is a path of the file.
func (d *decoder) local(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(d.dir, path)
}
