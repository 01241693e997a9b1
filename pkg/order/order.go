// Package order is an operator's order to one spoke, as the bytes that are signed: a text of a few lines with one
// form only, so that what a person reads before signing is what the spoke obeys, and no two texts mean the same.
//
// It neither signs nor verifies, and does not know who may order what: keys are package provenance/signer's, and
// whose order counts is for the provider's spoke.yaml to say.
package order

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/strictlines"
)

// Namespace is what orders are signed in, and nothing else is: a signature over a tag or a file is no order.
const Namespace = "order@wheelwright.dev"

// Limits of an order and of what carries it.
const (
	MaxText      = 4 << 10 // bytes
	MaxSignature = 8 << 10 // bytes, armoured
	MaxReason    = 500     // bytes
	// MaxLife is the longest from issue to expiry: for so long, and MaxSkew, a spoke remembers nonces.
	MaxLife = 24 * time.Hour
	// MaxSkew is how far ahead the clock of whoever signed may be.
	MaxSkew = 2 * time.Minute
)

// Verb is what is ordered.
type Verb string

// The verbs. Each does what the provider's own command at the spoke does, and no more.
const (
	// RollBack goes back to Target, an earlier release that the spoke keeps, as `spoke rollback` does; where Target
	// is what runs, it leaves the release that is on its way onto the cluster.
	RollBack Verb = "rollback"
	// Force takes Target up again where it is held, or answers what the delivery of it asks its provider, as
	// `spoke approve` does, but for deletions beyond the budget. Windows, pins and signers count as before.
	Force Verb = "force"
	// WidenPrune answers once that the delivery of Target may delete more than the budget allows.
	WidenPrune Verb = "widen-prune"
	// RunConformance runs the conformance tests of Target again, which is on the cluster and came to no verdict by
	// them, so that its provider is asked. What they come to counts as it did the first time.
	RunConformance Verb = "run-conformance"
)

// Verbs are all of them, the most drastic last.
func Verbs() []Verb { return []Verb{RunConformance, Force, WidenPrune, RollBack} }

// ParseVerb reads one of Verbs.
func ParseVerb(s string) (Verb, error) {
	var names []string
	for _, v := range Verbs() {
		if string(v) == s {
			return v, nil
		}
		names = append(names, string(v))
	}
	return "", fmt.Errorf("order %q: want %s", s, strings.Join(names, ", "))
}

// Nonce tells two orders apart that are alike otherwise.
type Nonce [16]byte

func (n Nonce) String() string { return hex.EncodeToString(n[:]) }

// NewNonce is a random one.
func NewNonce() (n Nonce) {
	rand.Read(n[:]) // never fails
	return n
}

// ParseNonce reads what String wrote.
func ParseNonce(s string) (n Nonce, err error) {
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw) != len(n) {
		return n, fmt.Errorf("nonce %q: want %d bytes in hexadecimal", s, len(n))
	}
	copy(n[:], raw)
	return n, nil
}

// Order is what one person wants of one subscription on one cluster.
type Order struct {
	Verb         Verb
	Cluster      fleet.Cluster
	Distribution string
	Target       string // the release that it is about
	Running      string // what runs when it is carried out, else it is refused; empty: nothing
	Nonce        Nonce
	Issued       time.Time // whole seconds
	Expires      time.Time // whole seconds
	Reason       string    // one line
}

// ErrForm: the bytes are no order.
var ErrForm = errors.New("not an order as pkg/order writes it")

const (
	layout  = "2006-01-02T15:04:05Z"
	nothing = "-" // where nothing runs
)

// form is the text's.
func form() strictlines.Form {
	return strictlines.Form{Header: "wheelwright order, version 1", Max: MaxText,
		Fields: []string{"verb", "cluster", "distribution", "target", "running", "nonce", "issued", "expires", "reason"}}
}

// Text is what is signed. It fails where Parse would.
func (o Order) Text() ([]byte, error) {
	text := o.text()
	back, err := Parse(text)
	if err != nil {
		return nil, err
	}
	if !back.Issued.Equal(o.Issued) || !back.Expires.Equal(o.Expires) {
		return nil, fmt.Errorf("%w: its times are not whole seconds", ErrForm)
	}
	return text, nil
}

func (o Order) text() []byte {
	running := o.Running
	if running == "" {
		running = nothing
	}
	return form().Write(string(o.Verb), string(o.Cluster), o.Distribution, o.Target, running, o.Nonce.String(),
		o.Issued.UTC().Format(layout), o.Expires.UTC().Format(layout), o.Reason)
}

// Parse reads what Text wrote, byte for byte, and nothing else.
func Parse(text []byte) (Order, error) {
	values, err := form().Read(text)
	if err != nil {
		return Order{}, fmt.Errorf("%w: %w", ErrForm, err)
	}
	o := Order{Distribution: values["distribution"], Target: values["target"], Running: values["running"], Reason: values["reason"]}
	if o.Running == nothing {
		o.Running = ""
	}
	if err := o.read(values); err != nil {
		return Order{}, fmt.Errorf("%w: %w", ErrForm, err)
	}
	if !bytes.Equal(o.text(), text) { // one text for one meaning, whatever the checks above let through
		return Order{}, fmt.Errorf("%w: it is written in another way than Text writes it", ErrForm)
	}
	return o, nil
}

func (o *Order) read(values map[string]string) (err error) {
	if o.Verb, err = ParseVerb(values["verb"]); err != nil {
		return err
	}
	if o.Cluster, err = fleet.ParseCluster(values["cluster"]); err != nil {
		return err
	}
	if err := fleet.CheckDistributionName(o.Distribution); err != nil {
		return err
	}
	if _, err := fleet.ParseVersion(o.Target); err != nil {
		return fmt.Errorf("target: %w", err)
	}
	if o.Running != "" {
		if _, err := fleet.ParseVersion(o.Running); err != nil {
			return fmt.Errorf("running: %w", err)
		}
	}
	if o.Nonce, err = ParseNonce(values["nonce"]); err != nil {
		return err
	}
	if o.Issued, err = time.Parse(layout, values["issued"]); err != nil {
		return fmt.Errorf("issued %q: want a time such as %s", values["issued"], layout)
	}
	if o.Expires, err = time.Parse(layout, values["expires"]); err != nil {
		return fmt.Errorf("expires %q: want a time such as %s", values["expires"], layout)
	}
	return o.check()
}

// check is what the values have to be to one another.
func (o Order) check() error {
	switch life := o.Expires.Sub(o.Issued); {
	case life <= 0:
		return errors.New("it expires before it is issued")
	case life > MaxLife:
		return fmt.Errorf("it lives for %v, at most %v is taken", life, MaxLife)
	}
	switch {
	case o.Verb == RollBack && o.Running == "":
		return errors.New("a roll back where nothing runs")
	}
	return CheckReason(o.Reason)
}

// CheckReason takes one line that a terminal shows as it is, of at most MaxReason bytes.
func CheckReason(s string) error {
	switch {
	case s == "":
		return errors.New("no reason: whoever finds it later has to know")
	case len(s) > MaxReason:
		return fmt.Errorf("a reason of %d bytes, at most %d are taken", len(s), MaxReason)
	case !utf8.ValidString(s), strings.TrimSpace(s) != s:
		return errors.New("a reason that is no text, or has blanks around it")
	}
	for _, r := range s {
		if r == utf8.RuneError || r != ' ' && !unicode.IsPrint(r) {
			return fmt.Errorf("a reason with the character %U, which does not show", r)
		}
	}
	return nil
}

// Fresh says why an order may not be carried out at a time; nil: it may. Expiry knows no grace.
func (o Order) Fresh(now time.Time) error {
	if ahead := o.Issued.Sub(now); ahead > MaxSkew {
		return fmt.Errorf("it is issued at %s, %v ahead of the clock here: compare the clocks", o.Issued.Format(layout), ahead.Round(time.Second))
	}
	if !now.Before(o.Expires) {
		return fmt.Errorf("it expired at %s: order it anew", o.Expires.Format(layout))
	}
	return nil
}

// Until is how long its nonce has to be remembered.
func (o Order) Until() time.Time { return o.Expires.Add(MaxSkew) }

// String is the order in one line, for people.
func (o Order) String() string {
	return fmt.Sprintf("%s of %s to %s (order %s)", o.Verb, o.Distribution, o.Target, o.Nonce)
}
