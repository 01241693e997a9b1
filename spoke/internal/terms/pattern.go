package terms

import (
	"fmt"
	"regexp"
	"strings"
)

// coreGroup names the API group without a name in a pattern: Service.core is not Service.serving.knative.dev.
const coreGroup = "core"

// Pattern picks objects.
type Pattern struct {
	Kind      string // "Deployment"; "Deployment.apps" names the group too, and "Service.core" the group without a name
	Namespace string // "" or "*": any, and objects without one
	Name      string // "" or "*": any; "migrate-*" begins with migrate-
}

var (
	kindPart      = regexp.MustCompile(`^[A-Z][A-Za-z0-9]{0,62}(\.[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)?$`)
	namespacePart = regexp.MustCompile(`^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?|\*)$`)
	namePart      = regexp.MustCompile(`^[A-Za-z0-9:._-]{0,253}\*?$`) // RBAC allows capitals and colons
)

// ParsePattern reads KIND, KIND/NAME or KIND/NAMESPACE/NAME.
func ParsePattern(s string) (Pattern, error) {
	parts := strings.Split(s, "/")
	p := Pattern{Kind: parts[0]}
	switch len(parts) {
	case 1:
	case 2:
		p.Name = parts[1]
	case 3:
		p.Namespace, p.Name = parts[1], parts[2]
	default:
		return Pattern{}, fmt.Errorf("%q: want KIND, KIND/NAME or KIND/NAMESPACE/NAME", s)
	}
	switch {
	case !kindPart.MatchString(p.Kind):
		return Pattern{}, fmt.Errorf("%q: want a kind first, such as Deployment or Deployment.apps", s)
	case len(parts) == 3 && !namespacePart.MatchString(p.Namespace):
		return Pattern{}, fmt.Errorf("%q: %q is not a namespace: want lower-case letters, digits and dashes, or * for any", s, p.Namespace)
	case len(parts) > 1 && (p.Name == "" || !namePart.MatchString(p.Name)):
		return Pattern{}, fmt.Errorf("%q: %q is not a name: a * may stand at its end only", s, p.Name)
	}
	return p, nil
}

// Matches reports whether the pattern picks the object; the empty group is the core one, the empty
// namespace that of objects without one.
func (p Pattern) Matches(group, kind, namespace, name string) bool {
	wantKind, wantGroup, grouped := strings.Cut(p.Kind, ".")
	if wantGroup == coreGroup {
		wantGroup = ""
	}
	if kind != wantKind || grouped && group != wantGroup {
		return false
	}
	if p.Namespace != "" && p.Namespace != "*" && p.Namespace != namespace {
		return false
	}
	if start, open := strings.CutSuffix(p.Name, "*"); open {
		return strings.HasPrefix(name, start)
	}
	return p.Name == "" || p.Name == name
}

// Named reports that the pattern has a name without a wildcard.
func (p Pattern) Named() bool { return p.Name != "" && !strings.HasSuffix(p.Name, "*") }

// String is what ParsePattern reads.
func (p Pattern) String() string {
	switch {
	case p.Namespace != "":
		name := p.Name
		if name == "" {
			name = "*"
		}
		return p.Kind + "/" + p.Namespace + "/" + name
	case p.Name != "":
		return p.Kind + "/" + p.Name
	}
	return p.Kind
}
