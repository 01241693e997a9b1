package render

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/wheelwright-dev/wheelwright/pkg/probe"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
	"sigs.k8s.io/yaml"
)

// SettingsFile is the vendor's optional file at the root of a distribution's path.
const SettingsFile = "wheelwright.yaml"

// settingsVersion is the number of the file's format.
const settingsVersion = "1"

// HealthRule says in CEL when an object of one kind is well. What its expressions may use, and whether
// they can be read, is for the reader who runs them to say.
type HealthRule struct {
	Group, Version, Kind        string // an empty Version: any; an empty Group: the core one
	Current, Failed, InProgress string // true where the object is so; at least one is written
	Message                     string // gives text; may be empty
}

// Check names what is missing, by the key that it belongs to.
func (r HealthRule) Check() map[string]string {
	missing := map[string]string{}
	if !kindForm.MatchString(r.Kind) {
		missing["kind"] = fmt.Sprintf("%q: want the name of a kind, such as Certificate", r.Kind)
	}
	if r.Current+r.Failed+r.InProgress == "" {
		missing["current"] = "missing: want an expression under current, failed or inProgress"
	}
	return missing
}

// Key is equal for rules about the same kind.
func (r HealthRule) Key() string {
	return fmt.Sprintf("%s/%s %s", r.Group, r.Version, r.Kind)
}

var (
	kindForm    = regexp.MustCompile(`^[A-Z][A-Za-z0-9]{0,62}$`)
	groupForm   = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$`)
	versionForm = regexp.MustCompile(`^v[0-9]+((alpha|beta)[0-9]+)?$`)
)

// ParseAPIVersion reads the apiVersion of a HealthRule: GROUP/VERSION, GROUP for any version of it, or
// the VERSION of a kind without a group.
func ParseAPIVersion(s string) (group, version string, err error) {
	group, version, both := strings.Cut(s, "/")
	switch {
	case both && groupForm.MatchString(group) && versionForm.MatchString(version):
		return group, version, nil
	case !both && versionForm.MatchString(s):
		return "", s, nil
	case !both && groupForm.MatchString(s):
		return s, "", nil
	}
	return "", "", fmt.Errorf("%q: want GROUP/VERSION, such as example.com/v1, or GROUP alone for any version", s)
}

// Health lists the health rules that a release brings, in the file's order; none is not an error. An
// error is a *BuildError about wheelwright.yaml, and names all that is wrong with it.
func Health(files []provenance.File) ([]HealthRule, error) {
	t := newTree()
	t.mount("/", files)
	s, err := settings(t)
	return s.health, err
}

// declaration is what wheelwright.yaml says.
type declaration struct {
	variants []string // sorted; nil: it names none
	health   []HealthRule
	course   Course
	tests    []byte // YAML; nil: it declares none
	after    map[string][]string
}

// settingsReader collects what is wrong with the file.
type settingsReader struct {
	tree     *tree
	problems []string
}

func (r *settingsReader) add(format string, args ...any) {
	r.problems = append(r.problems, SettingsFile+": "+fmt.Sprintf(format, args...))
}

// settings reads wheelwright.yaml; where there is none, the declaration is empty.
func settings(t *tree) (declaration, error) {
	data, ok := t.files["/"+SettingsFile]
	if !ok {
		return declaration{}, nil
	}
	r := &settingsReader{tree: t}
	var top map[string]any
	if err := yaml.UnmarshalStrict(data, &top); err != nil {
		r.add("%v", err)
		return declaration{}, &BuildError{r.problems}
	}
	r.unknown(top, "", "version", "variants", "health", "rollout", "upgrade", "services", probe.Section)
	switch v := top["version"].(type) {
	case nil:
		r.add("version: is missing; want version: %s", settingsVersion)
	default:
		if fmt.Sprint(v) != settingsVersion {
			r.add("version: is %v; this program reads version %s", v, settingsVersion)
		}
	}
	var d declaration
	if v, ok := top["variants"]; ok {
		d.variants = r.variants(v)
	}
	if v := top["health"]; v != nil {
		d.health = r.health(v)
	}
	if v := top["rollout"]; v != nil {
		d.course.Plan = r.rollout(v)
	}
	if v := top["upgrade"]; v != nil {
		d.course.Stops = r.upgrade(v)
	}
	if v := top["services"]; v != nil {
		d.after = r.services(v)
	}
	if v := top[probe.Section]; v != nil {
		d.tests = r.tests(v)
	}
	if len(r.problems) > 0 {
		return declaration{}, &BuildError{r.problems}
	}
	return d, nil
}

// unknown names the keys of a mapping that nobody reads.
func (r *settingsReader) unknown(m map[string]any, at string, known ...string) {
	for _, key := range slices.Sorted(maps.Keys(m)) {
		if !slices.Contains(known, key) {
			r.add("%s%s: unknown key (known: %s)", at, key, strings.Join(known, ", "))
		}
	}
}

func (r *settingsReader) variants(v any) []string {
	list, ok := v.([]any)
	if !ok || len(list) == 0 {
		r.add("variants: want a list of folders, such as [app]")
	}
	var out []string
	for i, v := range list {
		name, ok := v.(string)
		if !ok {
			r.add("variants[%d]: want a folder's name, not %v", i, v)
			continue
		}
		clean := variantAt(path.Clean(name))
		switch {
		case name == "" || path.IsAbs(name) || strings.HasPrefix(path.Clean(name), ".."):
			r.add("variants[%d]: %q is no folder below this file", i, name)
		case slices.Contains(out, clean):
			r.add("variants[%d]: %q is given twice", i, name)
		default:
			if _, ok := r.tree.kustomizationIn(path.Join("/", r.tree.folder("/", clean))); !ok {
				r.add("variants[%d]: folder %q holds no kustomization.yaml", i, name)
				continue
			}
			out = append(out, clean)
		}
	}
	slices.Sort(out)
	return out
}

func (r *settingsReader) health(v any) []HealthRule {
	list, ok := v.([]any)
	if !ok {
		r.add("health: want a list of rules, each with apiVersion, kind and current")
		return nil
	}
	var out []HealthRule
	first := map[string]int{}
	for i, v := range list {
		at := fmt.Sprintf("health[%d]", i)
		m, ok := v.(map[string]any)
		if !ok {
			r.add("%s: want keys and values, not %v", at, v)
			continue
		}
		before := len(r.problems)
		rule := r.rule(m, at+".")
		if len(r.problems) > before {
			continue
		}
		if n, twice := first[rule.Key()]; twice {
			r.add("%s: health[%d] is about the same kind", at, n)
			continue
		}
		first[rule.Key()] = i
		out = append(out, rule)
	}
	return out
}

func (r *settingsReader) rule(m map[string]any, at string) HealthRule {
	r.unknown(m, at, "apiVersion", "kind", "current", "failed", "inProgress", "message")
	text := func(key string) string {
		switch v := m[key].(type) {
		case nil:
			return ""
		case string:
			return strings.TrimSpace(v)
		default:
			r.add("%s%s: want text, not %v", at, key, v)
			return ""
		}
	}
	rule := HealthRule{Kind: text("kind"), Current: text("current"), Failed: text("failed"), InProgress: text("inProgress"), Message: text("message")}
	var err error
	if rule.Group, rule.Version, err = ParseAPIVersion(text("apiVersion")); err != nil {
		r.add("%sapiVersion: %v", at, err)
	}
	missing := rule.Check()
	for _, key := range slices.Sorted(maps.Keys(missing)) {
		r.add("%s%s: %s", at, key, missing[key])
	}
	return rule
}
