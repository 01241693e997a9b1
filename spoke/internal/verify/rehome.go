package verify

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance/signer"
	"github.com/wheelwright-dev/wheelwright/pkg/rehome"
)

// ReHomeVerb is the word in spoke.yaml with which an operator may move the spoke to another hub. It is no order's.
const ReHomeVerb = "re-home"

// ReHomed is a move to another hub, and who wants it.
type ReHomed struct {
	rehome.Signed
	Principal string   // of the provider
	Key       string   // its fingerprint
	Vendor    []string // who signed for the vendor, each PRINCIPAL (KIND FINGERPRINT), each once
}

// By is who wants it, for people.
func (r ReHomed) By() string {
	return fmt.Sprintf("%s (%s) and %s", r.Principal, r.Key, strings.Join(r.Vendor, ", "))
}

// ReHome says whether vendor and provider both want a move: an operator who is allowed it, and as many
// signers as every policy asks for, with keys of their own. pins are of the authorities of the hub that the spoke
// belongs to. What is not allowed now may be once the provider has changed spoke.yaml.
func ReHome(s rehome.Signed, o Operators, vendor []Signers, pins []string, now time.Time) (ReHomed, error) {
	by, err := o.reHome(s, now)
	if err != nil {
		return ReHomed{}, fmt.Errorf("for the provider: %w", err)
	}
	var wrong error
	for _, p := range by {
		d := ReHomed{Signed: s, Principal: p.Principal, Key: p.Fingerprint}
		if d.Vendor, err = vendorsOf(s, vendor, p.Fingerprint, now); err != nil {
			wrong = err
			continue
		}
		switch {
		case s.Cluster != o.Cluster:
			return ReHomed{}, fmt.Errorf("it is for %s, and this is %s", s.Cluster, o.Cluster)
		case !slices.Contains(pins, s.From):
			return ReHomed{}, fmt.Errorf("it is from another hub, with the authority %.12s…, than this spoke belongs to", s.From)
		}
		return d, s.Fresh(now)
	}
	return ReHomed{}, fmt.Errorf("for the vendor: %w", wrong)
}

// reHome are the operators who signed it and are allowed to, at least one.
func (o Operators) reHome(s rehome.Signed, now time.Time) (by []signer.Signer, err error) {
	var names []string
	for _, g := range o.Allow {
		if g.ReHome {
			names = append(names, g.Principal)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("spoke.yaml allows nobody to move this spoke: at its top want operators: {cluster: …, files: […], allow: [{principal: …, verbs: [%s]}]}", ReHomeVerb)
	}
	set, err := o.keys(rehome.Namespace)
	if err != nil {
		return nil, err
	}
	found, why := signed(s, set, now)
	for _, k := range found {
		at := slices.IndexFunc(names, func(name string) bool { return slices.Contains(strings.Split(k.Principal, ","), name) })
		if at < 0 {
			why = append(why, fmt.Errorf("spoke.yaml does not allow %s to %s", k.Principal, ReHomeVerb))
			continue
		}
		k.Principal = names[at]
		by = append(by, k)
	}
	if len(by) == 0 {
		return nil, fmt.Errorf("none of the operators who are allowed to %s has signed it: %w", ReHomeVerb, errors.Join(why...))
	}
	return by, nil
}

// vendorsOf are those who signed for the vendor; the provider's own key is none of them.
func vendorsOf(s rehome.Signed, vendor []Signers, provider string, now time.Time) (all []string, err error) {
	asked := false
	for _, v := range vendor {
		if v.None() {
			continue
		}
		asked = true
		policy, err := v.policy(rehome.Namespace)
		if err != nil {
			return nil, fmt.Errorf("keys in %s, as far as they are listed for the namespace %s: %w", strings.Join(v.Files, ", "), rehome.Namespace, err)
		}
		found, why := signed(s, policy.Signers, now)
		found = slices.DeleteFunc(found, func(k signer.Signer) bool { return k.Fingerprint == provider })
		if want := max(1, policy.Threshold); len(found) < want {
			return nil, fmt.Errorf("%w: %d of the keys in %s signed it besides the provider's, want %d: %w", provenance.ErrUnsigned, len(found), strings.Join(v.Files, ", "), want, errors.Join(why...))
		}
		for _, k := range found {
			if !slices.Contains(all, k.String()) {
				all = append(all, k.String())
			}
		}
	}
	if !asked {
		return nil, errors.New("spoke.yaml names no signers, so that nobody speaks for the vendor: want signers: {files: […]} with the vendor's keys")
	}
	return all, nil
}

// signed are the different keys of a set that signed, valid at the time of issue and now; why is what is wrong with
// the other signatures.
func signed(s rehome.Signed, set signer.Set, now time.Time) (by []signer.Signer, why []error) {
	for _, sig := range s.Signatures {
		k, err := set.Verify(s.Text, sig, s.Issued, now)
		if err == nil {
			_, err = set.Verify(s.Text, sig, now, now)
		}
		switch {
		case err != nil:
			why = append(why, err)
		case !slices.ContainsFunc(by, func(b signer.Signer) bool { return b.Fingerprint == k.Fingerprint }):
			by = append(by, k)
		}
	}
	return by, why
}
