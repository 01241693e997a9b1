package render

import (
	"path"
	"slices"
	"strings"

	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
	"sigs.k8s.io/kustomize/api/types"
)

// Variants lists the folders of a release that are to be built: those that wheelwright.yaml declares;
// else DefaultVariant where the root itself holds a kustomization; else every direct subfolder with a
// kustomization that no sibling uses as a base. The list is sorted, and empty where there is none. An
// error is a *BuildError about wheelwright.yaml, and names all that is wrong with it.
func Variants(files []provenance.File) ([]string, error) {
	t := newTree()
	t.mount("/", files)
	if declared, err := settings(t); err != nil || declared.variants != nil {
		return declared.variants, err
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
