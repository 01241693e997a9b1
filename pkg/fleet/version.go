package fleet

import (
	"fmt"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"
)

// Version is a release tag read as a semantic version (https://semver.org). A leading "v" is
// allowed; three numbers are required, so that "1" and "2024" are no releases by accident.
type Version struct {
	tag string
	sem *semver.Version
}

// ParseVersion reads a tag's name.
func ParseVersion(tag string) (Version, error) {
	s, err := semver.StrictNewVersion(strings.TrimPrefix(tag, "v"))
	if err != nil {
		return Version{}, fmt.Errorf("tag %q is not a semantic version (want MAJOR.MINOR.PATCH)", tag)
	}
	return Version{tag: tag, sem: s}, nil
}

func (v Version) String() string { return v.tag }

// Prerelease: 1.0.0-rc.1 is one.
func (v Version) Prerelease() bool { return v.sem.Prerelease() != "" }

// Same: equal but for a leading "v".
func (v Version) Same(o Version) bool { return v.sem.Equal(o.sem) }

// Compare orders by semantic version, then by the tag's bytes, so that the order is total.
func (v Version) Compare(o Version) int {
	if c := v.sem.Compare(o.sem); c != 0 {
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
func (r Range) Contains(v Version) bool { return r.sem == nil || r.sem.Check(v.sem) }

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
