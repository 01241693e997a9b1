package render

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/yaml"
)

// SettingsFile is the vendor's optional file at the root of a distribution's path.
const SettingsFile = "wheelwright.yaml"

// Variants lists the folders of a release that are to be built: those that wheelwright.yaml declares;
// else DefaultVariant where the root itself holds a kustomization; else every direct subfolder with a
// kustomization that no sibling uses as a base. The list is sorted, and empty where there is none. An
// error is a *BuildError about wheelwright.yaml.
func Variants(files []provenance.File) ([]string, error) {
	t := newTree()
	t.mount("/", files)
	if data, ok := t.files["/"+SettingsFile]; ok {
		return declared(t, data)
	}
	if _, ok := t.kustomizationIn("/"); ok {
		return []string{DefaultVariant}, nil
	}
	used := t.usedAsBase()
	var out []string
	for _, name := range t.children("/") {
		file, ok := t.kustomizationIn("/" + name)
		if !ok || used[name] {
			continue
		}
		var k types.Kustomization
		if k.Unmarshal(t.files[file]) == nil && k.Kind == types.ComponentKind {
			continue
		}
		out = append(out, name)
	}
	return out, nil
}

// usedAsBase lists the direct subfolders that a kustomization of another one refers into.
func (t *tree) usedAsBase() map[string]bool {
	used := map[string]bool{}
	top := func(p string) string {
		name, _, _ := strings.Cut(strings.TrimPrefix(p, "/"), "/")
		return name
	}
	for dir := range t.dirs {
		file, ok := t.kustomizationIn(dir)
		var k types.Kustomization
		if !ok || k.Unmarshal(t.files[file]) != nil {
			continue
		}
		k.FixKustomization()
		for _, ref := range slices.Concat(k.Resources, k.Components) {
			target := path.Join(dir, ref)
			if t.IsDir(target) && top(target) != top(dir) {
				used[top(target)] = true
			}
		}
	}
	return used
}

// declared reads wheelwright.yaml, and names all that is wrong with it.
func declared(t *tree, data []byte) ([]string, error) {
	var problems []string
	add := func(format string, args ...any) {
		problems = append(problems, SettingsFile+": "+fmt.Sprintf(format, args...))
	}
	var settings map[string]any
	if err := yaml.UnmarshalStrict(data, &settings); err != nil {
		add("%v", err)
		return nil, &BuildError{problems}
	}
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		if key != "version" && key != "variants" {
			add("%s: unknown key (known: version, variants)", key)
		}
	}
	switch v := settings["version"].(type) {
	case nil:
		add("version: is missing; want version: 1")
	default:
		if fmt.Sprint(v) != "1" {
			add("version: is %v; this program reads version 1", v)
		}
	}
	list, ok := settings["variants"].([]any)
	if !ok || len(list) == 0 {
		add("variants: want a list of folders, such as [app]")
	}
	var out []string
	for i, v := range list {
		name, ok := v.(string)
		if !ok {
			add("variants[%d]: want a folder's name, not %v", i, v)
			continue
		}
		clean := variantAt(path.Clean(name))
		switch {
		case name == "" || path.IsAbs(name) || strings.HasPrefix(path.Clean(name), ".."):
			add("variants[%d]: %q is no folder below this file", i, name)
		case slices.Contains(out, clean):
			add("variants[%d]: %q is given twice", i, name)
		default:
			if _, ok := t.kustomizationIn(path.Join("/", t.folder("/", clean))); !ok {
				add("variants[%d]: folder %q holds no kustomization.yaml", i, name)
				continue
			}
			out = append(out, clean)
		}
	}
	if len(problems) > 0 {
		return nil, &BuildError{problems}
	}
	slices.Sort(out)
	return out, nil
}
