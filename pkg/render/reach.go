package render

import (
	"bytes"
	"encoding/json"
	"path"
	"strings"

	"go.yaml.in/yaml/v3"
	"sigs.k8s.io/kustomize/api/konfig"
	"sigs.k8s.io/kustomize/api/types"
)

// references lists the paths that a kustomization can name beside resources and components, by field:
// each is what kustomize's loader would be asked for, to the letter.
func references(k *types.Kustomization) map[string][]string {
	refs := map[string][]string{"crds": k.Crds, "configurations": k.Configurations}
	add := func(field, ref string) {
		if ref != "" {
			refs[field] = append(refs[field], ref)
		}
	}
	add("openapi.path", k.OpenAPI["path"])
	for _, p := range k.Patches {
		add("patches[].path", p.Path)
	}
	//lint:ignore SA1019 overlays still use it, and kustomize still reads it
	for _, p := range k.PatchesJson6902 {
		add("patchesJson6902[].path", p.Path)
	}
	//lint:ignore SA1019 overlays still use it, and kustomize still reads it
	for _, p := range k.PatchesStrategicMerge {
		if !inPlace(string(p)) {
			add("patchesStrategicMerge", string(p))
		}
	}
	for _, r := range k.Replacements {
		add("replacements[].path", r.Path)
	}
	generator := func(field string, g types.KvPairSources) {
		for _, f := range g.FileSources {
			if _, p, ok := strings.Cut(f, "="); ok {
				f = p
			}
			add(field, f)
		}
		for _, f := range g.EnvSources {
			add(field+"[].envs", f)
		}
	}
	for _, g := range k.ConfigMapGenerator {
		generator("configMapGenerator", g.KvPairSources)
	}
	for _, g := range k.SecretGenerator {
		generator("secretGenerator", g.KvPairSources)
	}
	return refs
}

// inlinePatches are the patches that stand in the kustomization itself.
func inlinePatches(k *types.Kustomization) (texts []string) {
	for _, p := range k.Patches {
		texts = append(texts, p.Patch)
	}
	//lint:ignore SA1019 overlays still use it, and kustomize still reads it
	for _, p := range k.PatchesJson6902 {
		texts = append(texts, p.Patch)
	}
	//lint:ignore SA1019 overlays still use it, and kustomize still reads it
	for _, p := range k.PatchesStrategicMerge {
		if inPlace(string(p)) {
			texts = append(texts, string(p))
		}
	}
	return texts
}

// inline bounds YAML that stands in a file's string.
func (s *scan) inline(file, field, text string) ([]*yaml.Node, bool) {
	docs, err := s.read([]byte(text))
	if err != nil {
		s.problem(file, "%s: %v", field, err)
	}
	return docs, err == nil
}

// inPlace tells an object that stands where a path may stand too. Kustomize tries to read it as an object
// and, where it is none after all, as a path: so one that could be an address is a path here.
func inPlace(ref string) bool {
	if addressed(ref) {
		return false
	}
	var doc yaml.Node
	return yaml.Unmarshal([]byte(ref), &doc) == nil && len(doc.Content) == 1 && doc.Content[0].Kind == yaml.MappingNode
}

// addressed tells whether a text begins as an address of something remote does.
func addressed(text string) bool {
	text = strings.TrimSpace(text)
	scheme, rest := cutScheme(text)
	return fetched(text) || scheme != "" || rest != text || userPrefix.MatchString(rest) || standardGitHub(rest)
}

// fetched tells what kustomize would fetch where it takes files only: what net/url reads as HTTP.
func fetched(text string) bool {
	scheme, _, found := strings.Cut(strings.TrimSpace(text), ":")
	return found && (strings.EqualFold(scheme, "http") || strings.EqualFold(scheme, "https"))
}

// plugins follows generators, transformers and validators: each entry is a configuration in place, or a
// file or folder of them. Only kustomize's builtin ones run, and of those not the one for Helm.
func (s *scan) plugins(file, field string, list []string) {
	for _, ref := range list {
		if inPlace(ref) {
			if docs, ok := s.inline(file, field, ref); ok {
				s.pluginConfigs(file, field, docs)
			}
			continue
		}
		target, ok := s.local(file, field, ref)
		switch {
		case !ok:
		case s.tree.isFile(target):
			if docs, ok := s.documents(target, s.tree.files[target]); ok {
				s.pluginConfigs(target, field, docs)
			}
		case s.tree.IsDir(target):
			s.enter(file, target)
			s.pluginFolder(target, field)
		default:
			s.missing = append(s.missing, target)
			s.problem(file, "%s names %q, which does not exist", field, ref)
		}
	}
}

func sameJSON(a, b types.Kustomization) bool {
	one, err := json.Marshal(a)
	two, err2 := json.Marshal(b)
	return err == nil && err2 == nil && bytes.Equal(one, two)
}

// pluginFolder: what a kustomization makes of its resources is not known before it is built, so one of
// plugin configurations may have nothing but resources.
func (s *scan) pluginFolder(folder, field string) {
	k := s.visited[folder]
	if k == nil || s.configs[field+folder] {
		return
	}
	s.configs[field+folder] = true
	file, _ := s.tree.kustomizationIn(folder)
	plain := types.Kustomization{TypeMeta: k.TypeMeta, MetaData: k.MetaData, Resources: k.Resources}
	if !sameJSON(plain, *k) {
		s.problem(file, "is used as %s and has more than resources: a plugin's configuration has to be seen before it is built; list its files in resources and nothing beside", field)
		return
	}
	s.plugins(file, field, k.Resources)
}

func (s *scan) pluginConfigs(file, field string, docs []*yaml.Node) {
	for _, doc := range docs {
		var c any
		if err := doc.Decode(&c); err != nil {
			s.problem(file, "%s: is not readable: %v", field, err)
			continue
		}
		s.pluginConfig(file, field, c)
	}
}

func (s *scan) pluginConfig(file, field string, v any) {
	c, ok := v.(map[string]any)
	switch {
	case v == nil:
		return
	case !ok:
		s.problem(file, "%s: holds something that is no configuration of a plugin", field)
		return
	}
	version, _ := c["apiVersion"].(string)
	kind, _ := c["kind"].(string)
	if list, ok := c["items"].([]any); ok && strings.HasSuffix(kind, "List") {
		for _, e := range list {
			s.pluginConfig(file, field, e)
		}
		return
	}
	if version != konfig.BuiltinPluginApiVersion || kind == "HelmChartInflationGenerator" {
		s.problem(file, "%s: %s %s would run a program: only kustomize's builtin plugins are used, and no Helm", field, version, kind)
	}
	s.paths(file, field, c)
	for key, v := range c {
		for _, named := range [...]string{"path", "paths", "files", "envs", "env", "targetFilePath"} {
			if strings.EqualFold(key, named) {
				s.outside(file, field, v)
			}
		}
	}
}

// outside refuses the files of a plugin's configuration that are not below the kustomization which uses it.
func (s *scan) outside(file, field string, v any) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			s.outside(file, field, e)
		}
	case string:
		if _, p, ok := strings.Cut(v, "="); ok {
			v = p
		}
		if path.IsAbs(v) || !inside("/x", path.Join("/x", v)) {
			s.problem(file, "%s names %q, which is not in or below the kustomization's folder", field, v)
		}
	}
}

// paths checks every value of a plugin's configuration that looks like something to fetch, or is outside.
// Kustomize is not particular about the case of keys, so they do not count, but for the literals of
// generators, which are no paths.
func (s *scan) paths(file, field string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for key, e := range v {
			if !strings.EqualFold(key, "literals") {
				s.paths(file, field, e)
			}
		}
	case []any:
		for _, e := range v {
			s.paths(file, field, e)
		}
	case string:
		_, named, _ := strings.Cut(v, "=")
		for _, ref := range []string{v, named} {
			if fetched(ref) {
				s.problem(file, "%s names %q, which is remote: nothing is fetched while rendering", field, ref)
			}
		}
		if p := path.Join(path.Dir(file), v); s.tree.isFile(p) {
			s.documents(p, s.tree.files[p])
		}
	}
}
