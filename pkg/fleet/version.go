package fleet

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"
)

// Version is a release tag read as a semantic version (https://semver.org). A leading "v" is
// allowed; three numbers are required, so that "1" and "2024" are no releases by accident.
type Version struct {
	tag                 string
	major, minor, patch uint64
	sem                 *semver.Version // of what is more than three numbers; else nil
}

// ParseVersion reads a tag's name.
func ParseVersion(tag string) (Version, error) {
	text := strings.TrimPrefix(tag, "v")
	if n, ok := threeNumbers(text); ok {
		return Version{tag, n[0], n[1], n[2], nil}, nil
	}
	s, err := semver.StrictNewVersion(text)
	if err != nil {
		return Version{}, fmt.Errorf("tag %q is not a semantic version (want MAJOR.MINOR.PATCH)", tag)
	}
	return Version{tag, s.Major(), s.Minor(), s.Patch(), s}, nil
}

// threeNumbers reads what nearly all tags are. Versions are compared by the million where a fleet is large,
// and this costs no memory.
func threeNumbers(s string) (n [3]uint64, ok bool) {
	field, digits := 0, 0
	for i := range len(s) {
		switch c := s[i]; {
		case c == '.' && digits > 0 && field < 2:
			field, digits = field+1, 0
		case c < '0' || c > '9', digits == 18, digits == 1 && n[field] == 0:
			return n, false
		default:
			n[field] = n[field]*10 + uint64(c-'0')
			digits++
		}
	}
	return n, field == 2 && digits > 0
}

func (v Version) semver() *semver.Version {
	if v.sem != nil {
		return v.sem
	}
	return semver.New(v.major, v.minor, v.patch, "", "")
}

func (v Version) String() string { return v.tag }

// Prerelease: 1.0.0-rc.1 is one.
func (v Version) Prerelease() bool { return v.sem != nil && v.sem.Prerelease() != "" }

// Same: equal but for a leading "v".
func (v Version) Same(o Version) bool { return v.order(o) == 0 }

// order is that of semantic versions.
func (v Version) order(o Version) int {
	if c := cmp.Or(cmp.Compare(v.major, o.major), cmp.Compare(v.minor, o.minor), cmp.Compare(v.patch, o.patch)); c != 0 || v.sem == nil && o.sem == nil {
		return c
	}
	return v.semver().Compare(o.semver())
}

// Compare orders by semantic version, then by the tag's bytes, so that the order is total.
func (v Version) Compare(o Version) int {
	if c := v.order(o); c != 0 {
		return c
	}
	return strings.Compare(v.tag, o.tag)
}

// Range is a constraint over versions: ">=1.0.0 <2.0.0", "1.x", "~1.2", "^1.1.0", alternatives with "||".
// The zero Range holds everything.
type Range struct {
	text string
	sem  *semver.Constraints
}

// ParseRange reads a constraint; the empty text is the zero Range.
func ParseRange(s string) (Range, error) {
	if strings.TrimSpace(s) == "" {
		return Range{}, nil
	}
	c, err := semver.NewConstraint(s)
	if err != nil {
		return Range{}, fmt.Errorf("version range %q: %w (such as \">=1.0.0 <2.0.0\", \"1.x\", \"~1.2\")", s, err)
	}
	c.IncludePrerelease = true // who asks for prereleases says so in the policy, not in the range
	return Range{text: s, sem: c}, nil
}

func (r Range) String() string { return r.text }

// Contains reports whether the range holds v. A prerelease is held where its version lies inside.
func (r Range) Contains(v Version) bool { return r.sem == nil || r.sem.Check(v.semver()) }

// SortVersions orders tag names ascending; names that are no versions come first, by bytes.
func SortVersions(tags []string) {
	slices.SortFunc(tags, CompareTags)
}

// CompareTags orders two tag names as SortVersions does.
func CompareTags(a, b string) int {
	va, ea := ParseVersion(a)
	vb, eb := ParseVersion(b)
	switch {
	case ea != nil && eb != nil:
		return strings.Compare(a, b)
	case ea != nil:
		return -1
	case eb != nil:
		return 1
	}
	return va.Compare(vb)
}
