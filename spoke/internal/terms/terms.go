// Package terms holds what a provider allows a release to do and what it has to leave alone: the fields
// that belong to others, the objects that may be recreated or deleted, how many deletions are made
// without asking, and what becomes of drift. It is data and the questions asked of it: it reads no file
// and touches no cluster.
//
// A Pattern says which objects, a Path which fields of them, a Budget how much may be deleted at once.
package terms

import (
	"fmt"
	"strings"
)

// Terms is what holds for one subscription. The zero Terms consents to nothing: its Budget is empty,
// so that every deletion is asked about. Default is what holds where a provider says nothing.
type Terms struct {
	Ignore   []Ignore  // fields that are others'
	Recreate []Pattern // objects that may be deleted and made anew where a field cannot be changed
	Delete   []Pattern // objects that hold data and may be pruned all the same; each is Named
	Budget   Budget
	Drift    Drift
}

// Default is what holds where nothing is said.
func Default() Terms {
	return Terms{Budget: Budget{Percent: DefaultPercent, AtLeast: DefaultAtLeast}, Drift: Correct}
}

// Ignore names fields of objects that are left to others: by their paths, or by who owns them.
type Ignore struct {
	Object  Pattern
	Fields  []Path
	Manager string // a field manager: whatever it owns; instead of Fields
}

func (i Ignore) String() string {
	if i.Manager != "" {
		return fmt.Sprintf("%s: fields of %s", i.Object, i.Manager)
	}
	fields := make([]string, len(i.Fields))
	for n, p := range i.Fields {
		fields[n] = p.String()
	}
	return fmt.Sprintf("%s: %s", i.Object, strings.Join(fields, ", "))
}

// Ignored is what is left to others on one object: paths of fields, and the managers whose fields are
// left, both in the order in which they were written.
func (t Terms) Ignored(group, kind, namespace, name string) (fields []Path, managers []string) {
	for _, i := range t.Ignore {
		if !i.Object.Matches(group, kind, namespace, name) {
			continue
		}
		fields = append(fields, i.Fields...)
		if i.Manager != "" {
			managers = append(managers, i.Manager)
		}
	}
	return fields, managers
}

// MayRecreate reports consent to delete the object and to make it anew.
func (t Terms) MayRecreate(group, kind, namespace, name string) bool {
	return anyMatches(t.Recreate, group, kind, namespace, name)
}

// MayDelete reports consent, by name, to delete an object that holds data.
func (t Terms) MayDelete(group, kind, namespace, name string) bool {
	for _, p := range t.Delete {
		if p.Named() && p.Matches(group, kind, namespace, name) {
			return true
		}
	}
	return false
}

func anyMatches(patterns []Pattern, group, kind, namespace, name string) bool {
	for _, p := range patterns {
		if p.Matches(group, kind, namespace, name) {
			return true
		}
	}
	return false
}

// The budget where none is written.
const (
	DefaultPercent = 20
	DefaultAtLeast = 5
)

// Budget bounds what one upgrade deletes without asking.
type Budget struct {
	Percent int // of the inventory, 0 to 100
	AtLeast int // objects that are always within it
}

// Limit is how many objects of an inventory may be deleted: the larger of AtLeast and Percent of it,
// rounded down.
func (b Budget) Limit(inventory int) int { return max(b.AtLeast, inventory*b.Percent/100) }

// Allows reports that the deletions are made without asking.
func (b Budget) Allows(deletions, inventory int) bool { return deletions <= b.Limit(inventory) }

func (b Budget) String() string {
	return fmt.Sprintf("%d %% of the inventory, at least %d objects", b.Percent, b.AtLeast)
}

// Drift is what becomes of fields and objects that others changed. The zero value is Correct.
type Drift string

const (
	Correct Drift = "correct" // put back
	Report  Drift = "report"  // said, and left
	Leave   Drift = "ignore"  // not looked for
)

// Drifts lists what may be written, in the order in which people read it.
func Drifts() []Drift { return []Drift{Correct, Report, Leave} }

// ParseDrift reads one of Drifts.
func ParseDrift(s string) (Drift, error) {
	for _, d := range Drifts() {
		if string(d) == s {
			return d, nil
		}
	}
	return "", fmt.Errorf("%q: want %s, %s or %s", s, Correct, Report, Leave)
}
