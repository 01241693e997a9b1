package render

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/wheelwright-dev/wheelwright/pkg/manifest"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/openapi"
	kyaml "sigs.k8s.io/kustomize/kyaml/yaml"
	"sigs.k8s.io/yaml"
)

// build renders in this process; only the child calls it.
func build(src Source, limits Limits) ([]byte, int, error) {
	t := newTree()
	t.mount(releaseRoot, src.Bundle)
	s := newScan(t, src, limits)
	root, err := s.root()
	if err != nil {
		return nil, 0, err
	}
	s.walk(root)
	s.weigh(root)
	if src.Overlay != nil && len(s.bases) == 0 && len(s.problems) == 0 {
		s.problem(root, "no base names the distribution: want a resource such as %s", s.example())
	}
	if len(s.problems) > 0 {
		return nil, 0, &BuildError{s.problems}
	}
	if s.openAPI { // kustomize keeps a schema for the life of the process; the next release is not to see it
		defer openapi.ResetOpenAPI()
	}
	rendered, err := kustomize(t, root)
	if err != nil {
		return nil, 0, &BuildError{[]string{s.explain(root, err)}}
	}
	if s.unmatchedTargets(); len(s.problems) > 0 {
		return nil, 0, &BuildError{s.problems}
	}
	if n := rendered.Size(); n > limits.Objects {
		return nil, 0, &BuildError{[]string{tooMuch(src, "it comes to %d objects, more than %d", n, limits.Objects)}}
	}
	objs, err := objects(rendered)
	if err != nil {
		return nil, 0, err
	}
	if src.Overlay != nil && src.Namespace != "" {
		defaultNamespace(objs, src.Namespace)
	}
	text, err := manifest.Canonical(objs)
	return text, len(objs), err
}

// root is the folder to build. Without an overlay of the provider's, a namespace makes one of ours.
func (s *scan) root() (string, error) {
	variant := path.Join(releaseRoot, s.tree.folder(releaseRoot, s.src.Variant))
	if s.src.Overlay != nil {
		s.tree.mount(overlayRoot, s.src.Overlay)
		return overlayDir(s.src.OverlayPath), nil
	}
	if _, ok := s.tree.kustomizationIn(variant); !ok || !inside(releaseRoot, variant) {
		return "", &BuildError{[]string{fmt.Sprintf("%s has no variant %q%s", s.release(), cmp.Or(s.src.Variant, DefaultVariant), s.choices())}}
	}
	if s.src.Namespace == "" {
		return variant, nil
	}
	s.walk(variant) // from where its own paths are judged
	s.visited[overlayRoot], s.over[overlayRoot] = nil, []string{variant}
	data, err := json.Marshal(types.Kustomization{Namespace: s.src.Namespace, Resources: []string{".." + variant}})
	if err != nil {
		return "", err
	}
	s.tree.put(path.Join(overlayRoot, "kustomization.yaml"), data)
	return overlayRoot, nil
}

func (s *scan) example() string {
	if len(s.src.URLs) == 0 {
		return "the vendor's repository, with //VARIANT?ref=VERSION"
	}
	u := strings.TrimSuffix(s.src.URLs[0], ".git")
	if p := split(s.src.BundlePath); len(p) > 0 {
		u += "/" + strings.Join(p, "/")
	}
	return u + "//VARIANT?ref=VERSION"
}

func kustomize(t *tree, root string) (resmap.ResMap, error) {
	opts := krusty.MakeDefaultOptions() // builtin plugins only, files only below each kustomization, no Helm
	opts.Reorder = krusty.ReorderOptionNone
	return krusty.MakeKustomizer(opts).Run(t, root)
}

func objects(rendered resmap.ResMap) ([]*unstructured.Unstructured, error) {
	var objs []*unstructured.Unstructured
	for _, r := range rendered.Resources() {
		js, err := r.MarshalJSON()
		if err != nil {
			return nil, err
		}
		parsed, err := manifest.FromJSON(js)
		if err != nil {
			return nil, err
		}
		objs = append(objs, parsed...)
	}
	return objs, nil
}

// defaultNamespace fills in what has none and, by kustomize's schema, needs one. Kinds that the schema
// does not know are left to the cluster, which does.
func defaultNamespace(objs []*unstructured.Unstructured, namespace string) {
	for _, o := range objs {
		namespaced, known := openapi.IsNamespaceScoped(kyaml.TypeMeta{APIVersion: o.GetAPIVersion(), Kind: o.GetKind()})
		if known && namespaced && o.GetNamespace() == "" {
			o.SetNamespace(namespace)
		}
	}
}

// Kustomize nests one "accumulating …" per folder, and its ids read Kind.version.group/name.namespace.
var (
	nesting = regexp.MustCompile(`(?s)^accumulating (?:resources|components): accumulation err='.*?': (?:recursed accumulation|recursed merging from|couldn't make target for|accumulateDirectory)[^']*path '([^']*)': (.*)$`)
	targets = regexp.MustCompile(`(?:strategic merge patch|unique target for patch) "?([A-Za-z0-9]+)\.[^/"]*/([^"\s]+)\.(\[[^\]]*\]|[^."\s]+)"?`)
)

// private are the places where kustomize's errors quote a whole patch, generator or value, and print
// addresses of memory: not for other people's screens, nor the same twice.
var private = []struct {
	found *regexp.Regexp
	said  string
}{
	{regexp.MustCompile("(?s) with config: `.*?`"), ""},
	{regexp.MustCompile(`(?s)(merging from generator|annotations for generator|merging config|merging CRDs) .*[}\]]: `), "$1: "},
	{regexp.MustCompile(`(?s)\[patch: "(?:[^"\\]|\\.)*"\]`), "an inline patch"},
	{regexp.MustCompile(`(?s)must specify one of patch and path in\n.*`), "must specify one of patch and path"},
	{regexp.MustCompile(`(?s)patch and path can't be set at the same time\n.*`), "patch and path can't be set at the same time"},
	{regexp.MustCompile(`(?s)literal sources \[.*\]: `), "literals: "},
	{regexp.MustCompile(`id resid\.ResId\{Gvk:resid\.Gvk\{[^}]*Kind:"([^"]*)"[^}]*\}, Name:"([^"]*)"[^}]*\}`), `$1 "$2"`},
	{regexp.MustCompile(`(?s)invalid literal source .*, expected`), "invalid literal source, expected"},
	{regexp.MustCompile(`0x[0-9a-f]{6,}`), "0x…"},
}

// explain makes kustomize's error one that a person can act on, in stable text.
func (s *scan) explain(root string, err error) string {
	where, text := root, strings.TrimSpace(err.Error())
	for m := nesting.FindStringSubmatch(text); m != nil; m = nesting.FindStringSubmatch(text) {
		where, text = m[1], m[2]
	}
	for _, p := range private {
		text = p.found.ReplaceAllString(text, p.said)
	}
	text = strings.NewReplacer(releaseRoot+"/", "", overlayRoot+"/", "overlay ", "\n", " ").Replace(text)
	if m := targets.FindStringSubmatch(text); m != nil && mountOf(where) == overlayRoot && s.src.Overlay != nil {
		if file, patch, ok := s.findPatch(m[1], m[2]); ok {
			return fmt.Sprintf("%s: %s has no target: %s", label(file), patch, s.lacks(fmt.Sprintf("%s %q", m[1], m[2])))
		}
	}
	return label(where) + ": " + text
}

// lacks is the second half of a sentence about an overlay's patch.
func (s *scan) lacks(what string) string {
	name := s.src.Name
	if name == "" {
		name = "DISTRIBUTION"
	}
	return fmt.Sprintf("%s has no %s; change or remove the patch, then check with: spoke render %s", s.release(), what, name)
}

// findPatch finds the overlay's patch of an object.
func (s *scan) findPatch(kind, name string) (file, patch string, ok bool) {
	for _, dir := range s.order {
		if mountOf(dir) != overlayRoot {
			continue
		}
		k := s.visited[dir]
		file, _ = s.tree.kustomizationIn(dir)
		for _, p := range k.Patches {
			text := []byte(p.Patch)
			if p.Path != "" {
				text = s.tree.files[path.Join(dir, p.Path)]
			}
			if p.Target == nil && names(text, kind, name) {
				return file, describe(p), true
			}
		}
		//lint:ignore SA1019 providers' overlays still use it, and kustomize still reads it
		for _, p := range k.PatchesStrategicMerge {
			inline := []byte(p)
			if names(inline, kind, name) {
				return file, "an inline patch", true
			}
			if names(s.tree.files[path.Join(dir, string(p))], kind, name) {
				return file, "patch " + string(p), true
			}
		}
	}
	return "", "", false
}

func describe(p types.Patch) string {
	if p.Path != "" {
		return "patch " + p.Path
	}
	return "an inline patch"
}

// names tells whether a patch is for the object.
func names(text []byte, kind, name string) bool {
	for _, doc := range bytes.Split(text, []byte("\n---")) {
		var head struct {
			Kind     string
			Metadata struct{ Name string }
		}
		if yaml.Unmarshal(doc, &head) == nil && head.Kind == kind && head.Metadata.Name == name {
			return true
		}
	}
	return false
}

// unmatchedTargets finds the overlay's patches whose target selector selects nothing, which kustomize
// passes over in silence. Each kustomization with such selectors is built once more with nothing but
// annotations as patches; an annotation that is not in the outcome had no target.
func (s *scan) unmatchedTargets() {
	const mark = "target.wheelwright.dev/"
	for _, dir := range s.order {
		k := s.visited[dir]
		if mountOf(dir) != overlayRoot || k.Kind == types.ComponentKind || s.src.Overlay == nil {
			continue
		}
		probe := types.Kustomization{TypeMeta: k.TypeMeta, OpenAPI: k.OpenAPI, Crds: k.Crds, Resources: k.Resources,
			Components: k.Components, ConfigMapGenerator: k.ConfigMapGenerator, SecretGenerator: k.SecretGenerator,
			GeneratorOptions: k.GeneratorOptions, Generators: k.Generators}
		for i, p := range k.Patches {
			if p.Target != nil {
				probe.Patches = append(probe.Patches, types.Patch{Target: p.Target, Patch: fmt.Sprintf(
					"apiVersion: v1\nkind: Probe\nmetadata: {name: probe, annotations: {%s%d: \"\"}}", mark, i)})
			}
		}
		if len(probe.Patches) == 0 {
			continue
		}
		file, _ := s.tree.kustomizationIn(dir)
		data, err := json.Marshal(probe)
		if err != nil {
			continue
		}
		rendered, err := kustomize(s.tree.with(file, data), dir)
		if err != nil {
			continue // the build itself went well; then this proves nothing
		}
		hit := map[string]bool{}
		for _, r := range rendered.Resources() {
			for a := range r.GetAnnotations() {
				hit[a] = true
			}
		}
		for i, p := range k.Patches {
			if p.Target != nil && !hit[fmt.Sprintf("%s%d", mark, i)] {
				s.problem(file, "%s has no target: %s", describe(p), s.lacks(selector(p.Target)))
			}
		}
	}
}

// selector writes a patch's target for people: Deployment "web".
func selector(t *types.Selector) string {
	text := "object"
	if t.Kind != "" {
		text = t.Kind
	}
	if t.Name != "" {
		text += fmt.Sprintf(" %q", t.Name)
	}
	for _, part := range []struct{ what, value string }{{"namespace", t.Namespace},
		{"labels", t.LabelSelector}, {"annotations", t.AnnotationSelector}} {
		if part.value != "" {
			text += fmt.Sprintf(" with %s %q", part.what, part.value)
		}
	}
	return text
}
