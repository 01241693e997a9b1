package provenance

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/provenance/signer"
)

// Skew is how far ahead of our clock a tagger's may be.
const Skew = 10 * time.Minute

// ErrUnsigned: fewer of the policy's keys than its threshold signed the release.
var ErrUnsigned = errors.New("not signed as this place requires")

// ShortError is an ErrUnsigned where some have signed, and not enough: others may yet.
type ShortError struct{ Have, Want int }

func (e *ShortError) Error() string { return fmt.Sprintf("%d of %d signatures", e.Have, e.Want) }

// Policy says whose signatures a release needs.
type Policy struct {
	Signers      signer.Set
	Threshold    int    // different keys; 0 is 1
	Distribution string // whose release it has to be; empty: any's
}

// Check finds a policy that no release can meet.
func (p Policy) Check() error {
	switch n := p.Signers.Len(); {
	case n == 0:
		return errors.New("no signers: list at least one key of the vendor's")
	case p.Threshold < 0 || p.threshold() > n:
		return fmt.Errorf("a threshold of %d with %d keys: no release can meet it; lower it or list more keys", p.Threshold, n)
	}
	return nil
}

func (p Policy) threshold() int { return max(1, p.Threshold) }

// Signed is what Verify found.
type Signed struct {
	Claim
	By           []Signature // in the order of the tag objects, each key once; at least the policy's threshold
	BundleSHA256 string      // of the files, where a signer put it into the tag's message
}

// Signature is one signature that holds.
type Signature struct {
	signer.Signer
	TagObject string    // hexadecimal id
	Tagged    time.Time // as the tagger says
}

// Verify is Check, and in addition: the version is the tag's name, and so the name inside every tag
// object; as many different keys of the policy as its threshold have signed a tag object of that name for
// that commit; and where one of them has a Bundle-SHA256 trailer, the files are those. Where one of them has a
// Wheelwright-Distribution trailer, it names the policy's: a vendor signs several products with the same keys, and
// who carries them may mix them up.
//
// A key is judged at the time at which the tagger says to have tagged, as git does it, and not at now: what
// was signed by a key that has expired since is still the vendor's. The signer chooses that time, so that a
// thief of an expired key may choose one too; against that the key is taken out of the policy (or, OpenPGP,
// revoked), and the floor of the subscription holds. What no signer may choose is a time that is yet to
// come: it would make a key valid that is not valid yet, so that more than Skew ahead of now is refused.
//
// A tag object whose signature does not hold or whose key is not in the policy counts for nothing and
// harms nothing, so that a vendor may add a signer before every provider knows the key. One that is not
// for this name and commit is refused with the whole.
func Verify(p Proof, files []File, version string, policy Policy, now time.Time) (Signed, error) {
	s, err := verify(p, files, version, policy, now)
	if err != nil {
		return Signed{}, fmt.Errorf("verify %s: %w", version, err)
	}
	return s, nil
}

func verify(p Proof, files []File, version string, policy Policy, now time.Time) (Signed, error) {
	if err := policy.Check(); err != nil {
		return Signed{}, err
	}
	if err := CheckTagName(version); err != nil {
		return Signed{}, err
	}
	if p.TagName != version {
		return Signed{}, fmt.Errorf("its tag is %q: the version and the tag's name must be one", p.TagName)
	}
	if p.Tag == nil {
		return Signed{}, fmt.Errorf("%w: the tag is lightweight and carries no signature; make it with git tag -s %s", ErrUnsigned, version)
	}
	// The signatures come first: they cost a millisecond, hashing the files costs more.
	by, trailers, err := signatures(p, policy, now)
	if err != nil {
		return Signed{}, err
	}
	claim, err := p.Check(files)
	if err != nil {
		return Signed{}, err
	}
	s := Signed{Claim: claim, By: by}
	for _, want := range trailers {
		if err := CheckContent(want, files); err != nil {
			return Signed{}, err
		}
		s.BundleSHA256 = want
	}
	return s, nil
}

// signatures takes those that hold, one for each key, and the different trailers of their tags.
func signatures(p Proof, policy Policy, now time.Time) (by []Signature, trailers []string, err error) {
	commit, err := ObjectID("commit", p.Commit)
	if err != nil {
		return nil, nil, err
	}
	tags, err := p.tags(&Claim{Commit: fmt.Sprintf("%x", commit[:])})
	if err != nil {
		return nil, nil, err
	}
	var why []error
	for _, t := range tags {
		who, err := signature(t, policy.Signers, now)
		if err != nil {
			why = append(why, fmt.Errorf("tag object %s: %w", t.id, err))
			continue
		}
		want, err := t.BundleSHA256()
		if err != nil {
			return nil, nil, err
		}
		if want != "" && !slices.Contains(trailers, want) {
			trailers = append(trailers, want)
		}
		switch name, err := t.Distribution(); {
		case err != nil:
			return nil, nil, err
		case name != "" && policy.Distribution != "" && name != policy.Distribution:
			return nil, nil, fmt.Errorf("tag %s is signed as a release of the distribution %s, this is %s", t.Name, name, policy.Distribution)
		}
		if slices.ContainsFunc(by, func(s Signature) bool { return s.Fingerprint == who.Fingerprint }) {
			why = append(why, fmt.Errorf("tag object %s: key %s signed another one already", t.id, who.Fingerprint))
			continue
		}
		by = append(by, Signature{Signer: who, TagObject: t.id, Tagged: t.Time})
	}
	if want := policy.threshold(); len(by) < want {
		if len(by) > 0 {
			why = append(why, &ShortError{len(by), want})
		}
		return nil, nil, fmt.Errorf("%w: %d of the %d keys listed here signed it, want %d: %w",
			ErrUnsigned, len(by), policy.Signers.Len(), want, errors.Join(why...))
	}
	return by, trailers, nil
}

func signature(t Tag, signers signer.Set, now time.Time) (signer.Signer, error) {
	payload, block, err := t.Signature()
	if err != nil {
		return signer.Signer{}, err
	}
	if block == nil {
		return signer.Signer{}, fmt.Errorf("it carries no signature; make it with git tag -s %s", t.Name)
	}
	latest := now.Add(Skew)
	if t.Time.After(latest) {
		return signer.Signer{}, fmt.Errorf("its tagger says %s, which is yet to come here at %s; correct the clock that is wrong",
			t.Time.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return signers.Verify(payload, block, t.Time, latest)
}
