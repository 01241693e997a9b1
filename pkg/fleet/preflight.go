package fleet

import (
	"fmt"
	"strings"
	"time"
)

// Outcome is what a pre-flight found.
type Outcome string

const (
	OutcomeOk      Outcome = "Ok"      // the rendered set is the one that runs
	OutcomeChanges Outcome = "Changes" // it would be taken, and this would change
	OutcomeBreaks  Outcome = "Breaks"  // it cannot be rendered over the provider's overlay, or the cluster refuses it
)

// Verb is what would be done to an object.
type Verb string

const (
	VerbCreate   Verb = "create"
	VerbChange   Verb = "change"
	VerbRecreate Verb = "recreate" // deleted and made anew, with the provider's consent
	VerbDelete   Verb = "delete"
	VerbKeep     Verb = "keep" // no longer in the release, and left where it is
)

// Verbs in the order in which people read them.
var Verbs = []Verb{VerbCreate, VerbChange, VerbRecreate, VerbDelete, VerbKeep}

// KindChange counts objects of one kind.
type KindChange struct {
	Kind  string
	Verb  Verb
	Count int
}

func (c KindChange) String() string { return fmt.Sprintf("%s %d %s", c.Verb, c.Count, c.Kind) }

// Reversibility says whether a cluster can go back from a release to the one before.
type Reversibility string

const (
	Reversible            Reversibility = "Reversible"
	ReversibleKeepingCRDs Reversibility = "ReversibleKeepingCRDs" // the newer definitions stay
	OneWay                Reversibility = "OneWay"
)

// Preflight is what a spoke found when it tried a release out without touching anything.
type Preflight struct {
	Version         string
	Bundle, Overlay Digest
	Outcome         Outcome
	Changes         []KindChange // by kind, then in the order of Verbs
	Reason          string       // why it breaks or asks first; one redacted line
	Reversibility   Reversibility
	At              time.Time
}

// Summary is one line for people: "ok", "changes: create 1 ConfigMap, change 3 Deployment", "breaks: why".
func (p Preflight) Summary() string {
	text := strings.ToLower(string(p.Outcome))
	if len(p.Changes) > 0 && p.Outcome == OutcomeChanges {
		parts := make([]string, len(p.Changes))
		for i, c := range p.Changes {
			parts[i] = c.String()
		}
		text += ": " + strings.Join(parts, ", ")
	}
	if p.Outcome == OutcomeChanges && p.Reversibility != Reversible && p.Reversibility != "" {
		text += "; " + string(p.Reversibility)
	}
	if p.Reason != "" {
		sep := "; "
		if p.Outcome == OutcomeBreaks {
			sep = ": "
		}
		text += sep + p.Reason
	}
	return text
}
