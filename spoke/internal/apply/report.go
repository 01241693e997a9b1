package apply

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// CheckReport is what the API server would say to a set.
type CheckReport struct {
	Objects   int
	Problems  []Problem // all of them; none: the set would be taken
	Outside   []Outside // all that is outside of the envelope; it was not tried
	Unchecked []string  // objects that cannot be tried before others are there, with the reason
	Adopted   []string  // objects that are on the cluster already and no distribution's: Apply takes them over

	Conflicts []Conflict // fields that others have set, and that Apply takes over
	Steps     []Step     // what Apply and Prune would do, and what they would leave
	Deletions int        // steps that delete
	Inventory int        // objects of the inventory that the deletions are a share of

	Requests int
}

// Conflict is a field of the set that somebody else has set to something else.
type Conflict struct {
	Object, Field, Manager string
}

func (c Conflict) String() string {
	return fmt.Sprintf("%s: %s was set by %s", c.Object, c.Field, c.Manager)
}

// Step is what would be done to one object.
type Step struct {
	Verb         fleet.Verb
	Kind, Object string // "Deployment", "Deployment app/backend"
}

// Changes counts the steps: by kind, then in the order of fleet.Verbs.
func (r CheckReport) Changes() []fleet.KindChange {
	counts := map[fleet.KindChange]int{}
	for _, s := range r.Steps {
		counts[fleet.KindChange{Kind: s.Kind, Verb: s.Verb}]++
	}
	var all []fleet.KindChange
	for c, n := range counts {
		c.Count = n
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b fleet.KindChange) int {
		return cmp.Or(strings.Compare(a.Kind, b.Kind), slices.Index(fleet.Verbs, a.Verb)-slices.Index(fleet.Verbs, b.Verb))
	})
	return all
}

// Err is nil where nothing is outside and there are no problems, else an ErrRefused that names them all.
func (r CheckReport) Err() error {
	var problems error
	if len(r.Problems) > 0 {
		problems = refused(r.Problems, r.Objects)
	}
	return join(beyond(r.Outside), problems)
}

func (r *CheckReport) sort() {
	slices.SortFunc(r.Problems, func(a, b Problem) int { return strings.Compare(a.Object, b.Object) })
	slices.SortStableFunc(r.Outside, func(a, b Outside) int { return strings.Compare(a.Object, b.Object) })
	slices.SortFunc(r.Conflicts, func(a, b Conflict) int { return strings.Compare(a.String(), b.String()) })
	slices.SortFunc(r.Steps, func(a, b Step) int { return strings.Compare(a.Object, b.Object) })
	slices.Sort(r.Unchecked)
	slices.Sort(r.Adopted)
}
