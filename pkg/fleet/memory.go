package fleet

import (
	"errors"
	"time"
)

// ErrNothingWaits: what a person asked for has nothing to act on: no release waits for its provider, none
// is held, there is none to go back to. It says nothing against asking again later.
var ErrNothingWaits = errors.New("nothing to act on")

// Memory is what a spoke can go back to without anybody's help, and what it does not take again by itself.
type Memory struct {
	Distribution string
	Previous     []string // versions of which the rendered set is kept, newest first
	Held         []Held   // by version
	Withdrawn    []Withdrawal
	Told         []Told            // the vendor's statements, in the order in which they came
	First        map[string]Digest // by version, the bundle that was first found good here
}

// Told is a vendor's statement, as package channel of pkg/provenance reads it.
type Told struct {
	Text []byte
	At   time.Time
}

// Held is a release that is not taken by itself, until a person or a newer release clears it.
type Held struct {
	Version string
	Reason  string
	At      time.Time
}

// Plan is what delivering a release to a cluster would do, found without touching anything.
type Plan struct {
	From, To  string // From is empty before the first install
	Preflight Preflight
	Steps     []Step
	Adopted   []string // objects that are on the cluster already and become the release's
	Conflicts []string // fields that others set and the release declares, with who they are
	Unchecked []string // objects that cannot be tried before others are there, with the reason
	Problems  []string // why the cluster would refuse it
	Asks      []string // why the provider would be asked first; empty: they would not
	OneWay    []string // why it is not simply reversible
}

// Step is what would be done to one object.
type Step struct {
	Verb   Verb
	Object string // "Deployment shop/web"
}
