package verify

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/order"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance/signer"
	"github.com/wheelwright-dev/wheelwright/pkg/rehome"
)

// Operators are whose signed orders count, and for what. The zero Operators: nobody's do.
type Operators struct {
	Cluster fleet.Cluster // this one, as orders have to name it; the hub is not asked
	Files   []string      // absolute paths: allowed signers of SSH
	Allow   []Grant
}

// Grant is what one principal of the files may order.
type Grant struct {
	Principal string
	Verbs     []order.Verb
	ReHome    bool // and, with the vendor, move the spoke to another hub
}

// None reports that nobody's orders count.
func (o Operators) None() bool {
	return !slices.ContainsFunc(o.Allow, func(g Grant) bool { return len(g.Verbs) > 0 })
}

// Ordered is an order and who signed it.
type Ordered struct {
	order.Order
	Principal string
	Key       string // its fingerprint
}

// String is who ordered, for people.
func (o Ordered) String() string { return fmt.Sprintf("%s (%s)", o.Principal, o.Key) }

// Errors of Order, beside those about the provider's own files.
var (
	// ErrNotSigned: nobody who counts is known to have ordered this; nothing in the text is to be believed.
	ErrNotSigned = errors.New("nobody whose orders count here has signed this")
	// ErrNotAllowed: the order is authentic, and not to be obeyed. It never will be.
	ErrNotAllowed = errors.New("not to be obeyed")
)

// keys reads the files as they are now, for a namespace.
func (o Operators) keys(namespace string) (signer.Set, error) {
	var sources []signer.Source
	var wrong []error
	for _, path := range o.Files {
		text, err := read(path)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("read operators' keys: %w", err))
			continue
		}
		sources = append(sources, signer.Source{Name: path, Text: text})
	}
	set, err := signer.Read(namespace, sources...)
	return set, errors.Join(append(wrong, err)...)
}

// Check says what is wrong with the files, as far as it can be known before an order comes: one that could never
// be obeyed is noticed when it is needed.
func (o Operators) Check() error {
	var wrong []error
	for namespace, wanted := range map[string]func(Grant) bool{
		order.Namespace:  func(g Grant) bool { return len(g.Verbs) > 0 },
		rehome.Namespace: func(g Grant) bool { return g.ReHome },
	} {
		if !slices.ContainsFunc(o.Allow, wanted) {
			continue
		}
		set, err := o.keys(namespace)
		if err != nil {
			return err // of the files, and the same in every namespace
		}
		known, mistakes := principals(set)
		for _, m := range mistakes {
			if !slices.ContainsFunc(wrong, func(w error) bool { return w.Error() == m.Error() }) {
				wrong = append(wrong, m)
			}
		}
		for _, g := range o.Allow {
			if wanted(g) && !known[g.Principal] {
				wrong = append(wrong, fmt.Errorf("no key in the files is of %s and may sign in the namespace %s", g.Principal, namespace))
			}
		}
	}
	slices.SortFunc(wrong, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(wrong...)
}

// principals are those of the keys that may sign, and what is wrong with how they are listed.
func principals(set signer.Set) (known map[string]bool, wrong []error) {
	known = map[string]bool{}
	for key, lines := range set.Principals() {
		if len(lines) > 1 {
			wrong = append(wrong, fmt.Errorf("key %s is listed for %s: one key is one person's", key, strings.Join(lines, " and for ")))
		}
		for _, line := range lines {
			for name := range strings.SplitSeq(line, ",") {
				if known[name] = true; strings.ContainsAny(name, "*?!") {
					wrong = append(wrong, fmt.Errorf("key %s is listed for the pattern %q: want the principal's own name, as under allow", key, name))
				}
			}
		}
	}
	return known, wrong
}

// Order reads an order and says who gave it. An error that is neither ErrNotSigned nor ErrNotAllowed is about the
// provider's own files; with ErrNotAllowed the order and its signer are told too.
func (o Operators) Order(text, signature []byte, now time.Time) (Ordered, error) {
	if o.None() {
		return Ordered{}, fmt.Errorf("%w: spoke.yaml names no operators, so that nobody's orders count", ErrNotSigned)
	}
	if len(signature) > order.MaxSignature {
		return Ordered{}, fmt.Errorf("%w: a signature of %d bytes, at most %d are taken", ErrNotSigned, len(signature), order.MaxSignature)
	}
	given, err := order.Parse(text)
	if err != nil {
		return Ordered{}, fmt.Errorf("%w: %w", ErrNotSigned, err)
	}
	set, err := o.keys(order.Namespace)
	if err != nil {
		return Ordered{}, err
	}
	by, err := set.Verify(text, signature, given.Issued, now)
	if err != nil {
		return Ordered{}, fmt.Errorf("%w: %w", ErrNotSigned, err)
	}
	d := Ordered{Order: given, Principal: by.Principal, Key: by.Fingerprint}
	if _, err := set.Verify(text, signature, now, now); err != nil {
		return d, fmt.Errorf("%w: %w", ErrNotAllowed, err)
	}
	if err := o.allows(&d, now); err != nil {
		return d, fmt.Errorf("%w: %w", ErrNotAllowed, err)
	}
	return d, nil
}

// allows judges what is known to be ordered by whom.
func (o Operators) allows(d *Ordered, now time.Time) error {
	names := strings.Split(d.Principal, ",")
	var may []order.Verb
	for _, g := range o.Allow {
		if slices.Contains(names, g.Principal) {
			d.Principal = g.Principal
			may = append(may, g.Verbs...)
		}
	}
	switch {
	case !slices.Contains(may, d.Verb):
		return fmt.Errorf("spoke.yaml lets %s order %v, not %s", d.Principal, may, d.Verb)
	case d.Cluster != o.Cluster:
		return fmt.Errorf("it is for %s, and this is %s", d.Cluster, o.Cluster)
	}
	return d.Fresh(now)
}
