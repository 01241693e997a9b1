package render

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"path"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
	"sigs.k8s.io/kustomize/api/konfig"
	"sigs.k8s.io/kustomize/api/types"
)

const (
	releaseRoot = "/release" // where the release is mounted
	overlayRoot = "/overlay" // where the overlay is
)

// DefaultVariant is the variant of a distribution whose path itself holds the kustomization.
const DefaultVariant = "default"

// folder is a variant's place in the release that is mounted at the root; a subfolder may happen to be
// called as DefaultVariant is.
func (t *tree) folder(root, variant string) string {
	if variant == "" || variant == DefaultVariant {
		if _, ok := t.kustomizationIn(root); ok || variant == "" || !t.IsDir(path.Join(root, variant)) {
			return "."
		}
	}
	return path.Clean(variant)
}

func variantAt(folder string) string {
	if folder == "." {
		return DefaultVariant
	}
	return folder
}

// scan walks every kustomization that a build reaches, before kustomize does, reading each with
// kustomize's own decoder. It refuses what is remote, runs something, or lies outside, and rewrites the
// overlay's bases that name the distribution.
type scan struct {
	tree     *tree
	src      Source
	visited  map[string]*types.Kustomization // by folder
	order    []string                        // folders of visited, as met
	bases    []base
	problems []string
	said     map[string]bool // problems
	missing  []string        // local folders or files that are named and not there
	openAPI  bool            // some kustomization brings a schema of its own

	limits   Limits
	measured map[string][]*yaml.Node // YAML files, by name; nil: refused
	over     map[string][]string     // by folder: those that its kustomization is over, as often as it names them
	contents map[string]int          // by folder: the objects in the files that its kustomization names
	configs  map[string]bool         // field and folder: plugin configurations that were looked at
}

func newScan(t *tree, src Source, limits Limits) *scan {
	return &scan{tree: t, src: src, visited: map[string]*types.Kustomization{}, said: map[string]bool{}, limits: limits, measured: map[string][]*yaml.Node{},
		over: map[string][]string{}, contents: map[string]int{}, configs: map[string]bool{}}
}

// label names a file or folder for people, without the mounts.
func label(p string) string {
	if rest, ok := strings.CutPrefix(p, overlayRoot+"/"); ok {
		return "overlay " + rest
	}
	if p == overlayRoot {
		return "overlay"
	}
	if rest, ok := strings.CutPrefix(p, releaseRoot+"/"); ok {
		return rest
	}
	return strings.TrimPrefix(p, "/")
}

func (s *scan) problem(where, format string, args ...any) {
	text := label(where) + ": " + fmt.Sprintf(format, args...)
	if !s.said[text] {
		s.said[text] = true
		s.problems = append(s.problems, text)
	}
}

func mountOf(dir string) string {
	if dir == overlayRoot || strings.HasPrefix(dir, overlayRoot+"/") {
		return overlayRoot
	}
	return releaseRoot
}

// KustomizationFiles lists the names that kustomize looks for in a folder.
func KustomizationFiles() []string { return konfig.RecognizedKustomizationFileNames() }

// kustomizationIn returns the folder's kustomization file; more than one is kustomize's to refuse.
func (t *tree) kustomizationIn(dir string) (string, bool) {
	for _, name := range KustomizationFiles() {
		if p := path.Join(dir, name); t.isFile(p) {
			return p, true
		}
	}
	return "", false
}

func (s *scan) walk(dir string) {
	if _, seen := s.visited[dir]; seen {
		return
	}
	s.visited[dir] = nil
	name, ok := s.tree.kustomizationIn(dir)
	if !ok {
		s.missing = append(s.missing, dir)
		s.problem(dir, "holds no kustomization.yaml")
		return
	}
	if _, ok := s.documents(name, s.tree.files[name]); !ok {
		return
	}
	k := &types.Kustomization{}
	if err := k.Unmarshal(s.tree.files[name]); err != nil {
		s.problem(name, "%v", err)
		return
	}
	k.FixKustomization()
	s.visited[dir], s.order = k, append(s.order, dir)
	s.openAPI = s.openAPI || len(k.OpenAPI) > 0

	rewritten := s.entries(name, "resources", k.Resources)
	rewritten = s.entries(name, "components", k.Components) || rewritten
	for field, list := range map[string][]string{"generators": k.Generators, "transformers": k.Transformers, "validators": k.Validators} {
		s.plugins(name, field, list)
	}
	for field, list := range references(k) {
		for _, ref := range list {
			target, ok := s.local(name, field, ref)
			switch {
			case !ok || !s.tree.isFile(target) || strings.HasSuffix(field, "Generator"):
			case strings.HasSuffix(field, "[].envs"):
				s.lines(target)
			default:
				s.documents(target, s.tree.files[target])
			}
		}
	}
	for _, p := range inlinePatches(k) {
		s.inline(name, "patches", p)
	}
	if len(k.HelmCharts) > 0 || k.HelmGlobals != nil {
		s.problem(name, "helmCharts: charts are not inflated while rendering; commit the output of helm template instead")
	}
	if rewritten {
		data, err := json.Marshal(k) // JSON is YAML
		if err != nil {
			s.problem(name, "%v", err)
			return
		}
		s.tree.put(name, data)
	}
}

// entries follows resources or components, and rewrites those that name the distribution in place.
func (s *scan) entries(file, field string, list []string) (rewritten bool) {
	for i, ref := range list {
		if remote(ref) { // though there be a file of that name: kustomize may fetch it all the same
			if to, ok := s.resolve(file, field, ref); ok {
				list[i], rewritten = to, true
			}
			continue
		}
		target, ok := s.local(file, field, ref)
		switch {
		case !ok:
		case s.tree.isFile(target):
			s.reads(file, target)
		case s.tree.IsDir(target):
			s.enter(file, target)
		default:
			s.missing = append(s.missing, target)
			s.problem(file, "%s names %q, which does not exist%s", field, ref, schemeless(ref))
		}
	}
	return rewritten
}

// lines refuses an environment file with a line that kustomize would stop at, without a word and without
// what follows.
func (s *scan) lines(file string) {
	for line := range bytes.Lines(s.tree.files[file]) {
		if len(line) >= bufio.MaxScanTokenSize {
			s.problem(file, "has a line of %d bytes, and kustomize reads none of %d or more; name it under files instead of envs", len(line), bufio.MaxScanTokenSize)
			return
		}
	}
}

// enter walks a folder that a kustomization is over.
func (s *scan) enter(file, folder string) {
	s.over[path.Dir(file)] = append(s.over[path.Dir(file)], folder)
	s.walk(folder)
}

// schemeless is a hint for a repository that kustomize reads as a path, since nothing says that it is
// none: only github.com may go without a scheme.
func schemeless(ref string) string {
	if !strings.Contains(ref, "?ref=") && !strings.Contains(ref, "?version=") {
		return ""
	}
	return fmt.Sprintf("; if it is a repository, write https://%s", ref)
}

// resolve turns a remote base into the release's folder, relative to the kustomization.
func (s *scan) resolve(file, field, ref string) (string, bool) {
	if mountOf(file) == releaseRoot {
		s.problem(file, "%s names %q, which is remote: a release has to hold all it needs; copy it into the distribution", field, ref)
		return "", false
	}
	b, ok, same := matchBase(ref, s.src.URLs, s.src.BundlePath)
	switch {
	case same && !ok:
		s.problem(file, "base %q is in the distribution's repository, but not below %q, which is what its releases hold", ref, s.src.BundlePath)
		return "", false
	case !ok:
		s.problem(file, "base %q is remote and is not the distribution's repository (%s), and nothing is fetched while rendering; if it is that repository under another address, set subscriptions[].source to it in spoke.yaml",
			ref, strings.Join(s.src.URLs, ", "))
		return "", false
	}
	if field == "resources" {
		s.bases = append([]base{b}, s.bases...)
	} else {
		s.bases = append(s.bases, b)
	}
	if s.src.Bundle == nil { // only the overlay is looked at
		return "", false
	}
	target := path.Join(releaseRoot, b.Folder)
	if _, ok := s.tree.kustomizationIn(target); !ok {
		s.problem(file, "base %q: %s has no variant %q%s", ref, s.release(), variantAt(b.Folder), s.choices())
		return "", false
	}
	if v := s.src.Variant; v != "" && field == "resources" && !inside(s.tree.folder(releaseRoot, v), b.Folder) {
		s.problem(file, "base %q is variant %q, but the subscription says %q; make the two agree in spoke.yaml", ref, variantAt(b.Folder), v)
		return "", false
	}
	s.enter(file, target)
	to, err := filepath.Rel(path.Dir(file), target)
	if err != nil {
		s.problem(file, "base %q: %v", ref, err)
		return "", false
	}
	return to, true
}

func inside(dir, p string) bool {
	return dir == "." || p == dir || strings.HasPrefix(p, dir+"/")
}

func (s *scan) release() string {
	if s.src.Version == "" {
		return "the release"
	}
	return "release " + s.src.Version
}

func (s *scan) choices() string {
	names, err := Variants(s.src.Bundle)
	if err != nil || len(names) == 0 {
		return ""
	}
	return " (it has " + strings.Join(names, ", ") + ")"
}

// local resolves a path and refuses one that is remote, absolute, or leaves the release or the overlay.
func (s *scan) local(file, field, ref string) (string, bool) {
	mount := mountOf(file)
	what := map[string]string{releaseRoot: "release", overlayRoot: "overlay"}[mount]
	target := path.Join(path.Dir(file), ref)
	switch {
	case remote(ref):
		s.problem(file, "%s names %q, which is remote: nothing is fetched while rendering; use a file of the %s", field, ref, what)
	case path.IsAbs(ref) || !inside(mount, target):
		s.problem(file, "%s names %q, which is outside the %s", field, ref, what)
	default:
		return target, true
	}
	return "", false
}
