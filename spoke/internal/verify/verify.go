// Package verify decides at the spoke whether a bundle is the release that its vendor made. The hub is not
// asked: what is believed stands in the provider's own files, and everything else is in the bundle.
package verify

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/bundle"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance/signer"
)

// ErrUnproven: the bundle is not, or does not show to be, the release that it is offered as. The same bundle
// never will.
var ErrUnproven = errors.New("the bundle does not prove what it is")

// Signers are whose signatures a release needs. The zero Signers ask for none: then only the chain from every
// file to the tag is checked, and not whose tag it is.
type Signers struct {
	Files     []string // absolute paths: allowed signers of SSH, or armoured OpenPGP keys
	Threshold int      // how many different keys have to have signed; 0 is 1
}

// None reports that nobody's signature is asked for.
func (s Signers) None() bool { return len(s.Files) == 0 }

// Text tells these signers, as their files are now, from others. A file that cannot be read says nothing.
func (s Signers) Text() string {
	var b strings.Builder
	for _, path := range s.Files {
		text, _ := read(path) // what is wrong with it is said where a release is verified
		fmt.Fprintf(&b, "%q %x\n", path, sha256.Sum256(text))
	}
	fmt.Fprintf(&b, "%d", s.Threshold)
	return b.String()
}

// maxKeys bounds a file of keys, in bytes.
const maxKeys = 1 << 20

// Policy reads the files as they are now, for tags.
func (s Signers) Policy() (provenance.Policy, error) { return s.policy(signer.Git) }

func (s Signers) policy(namespace string) (provenance.Policy, error) {
	var sources []signer.Source
	var wrong []error
	for _, path := range s.Files {
		text, err := read(path)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("read signers: %w", err))
			continue
		}
		sources = append(sources, signer.Source{Name: path, Text: text})
	}
	set, err := signer.Read(namespace, sources...)
	if err := errors.Join(append(wrong, err)...); err != nil {
		return provenance.Policy{}, err
	}
	p := provenance.Policy{Signers: set, Threshold: s.Threshold}
	return p, p.Check()
}

func read(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: is no file; name one with the vendor's keys in it", path)
	case info.Size() > maxKeys:
		return nil, fmt.Errorf("%s: has %d KiB, more than %d: is it a file of keys?", path, info.Size()>>10, maxKeys>>10)
	}
	return os.ReadFile(path)
}

// Bundle opens a tar and checks everything about it that can be: that it is canonical, the chain from every
// file to the tag object, that the tag is the version, who signed it, and as whose release. Where nobody's signature is asked
// for, Signed.By is empty. An error that is not ErrUnproven is about the provider's own files.
func Bundle(tar []byte, distribution, version string, s Signers, now time.Time) (*bundle.Bundle, provenance.Signed, error) {
	b, err := bundle.Open(tar)
	if err != nil {
		return nil, provenance.Signed{}, fmt.Errorf("%w: %w", ErrUnproven, err)
	}
	if s.None() {
		signed, err := unsigned(b, version)
		return b, signed, err
	}
	policy, err := s.Policy()
	if err != nil {
		return nil, provenance.Signed{}, err
	}
	policy.Distribution = distribution
	signed, err := provenance.Verify(b.Proof(), b.Files(), version, policy, now)
	if err != nil {
		return nil, provenance.Signed{}, fmt.Errorf("%w: %w", ErrUnproven, err)
	}
	return b, signed, nil
}

// unsigned checks the chain alone.
func unsigned(b *bundle.Bundle, version string) (provenance.Signed, error) {
	claim, err := b.Proof().Check(b.Files())
	if err == nil && claim.TagName != version {
		err = fmt.Errorf("it is the content of tag %s, offered as %s", claim.TagName, version)
	}
	if err != nil {
		return provenance.Signed{}, fmt.Errorf("%w: %w", ErrUnproven, err)
	}
	return provenance.Signed{Claim: claim}, nil
}
