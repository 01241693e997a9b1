// Package signer knows the keys whose signatures are taken, and checks a signature over a payload, as git or
// ssh-keygen makes it: SSH in one namespace (keys listed as ssh-keygen(1) describes under ALLOWED SIGNERS) and OpenPGP (armoured public
// keys). It has one idea of what is too weak, for both kinds.
//
// It does not know what was signed, when it was or who counts: that is package provenance's business.
package signer

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"
)

// minRSABits of either kind of key.
const minRSABits = 2048

// Kind of a signature.
type Kind string

// The kinds of signature.
const (
	SSH     Kind = "ssh"
	OpenPGP Kind = "openpgp"
)

// ErrUnknownKey: the signature is of a key that is not listed.
var ErrUnknownKey = errors.New("the key is not among the signers listed here")

// Signer is who signed.
type Signer struct {
	Kind        Kind
	Principal   string // SSH: the principals of the line; OpenPGP: the key's first user id
	Fingerprint string // SSH: SHA256:…; OpenPGP: of the primary key, in upper-case hexadecimal
	Algorithm   string // such as ssh-ed25519 or rsa4096
}

// String names who signed and the key: PRINCIPAL (KIND FINGERPRINT).
func (s Signer) String() string { return fmt.Sprintf("%s (%s %s)", s.Principal, s.Kind, s.Fingerprint) }

// Source is one file of keys.
type Source struct {
	Name string // for errors
	Text []byte
}

// The namespaces of signatures: one over a mail or a file is none over a tag. SSH signatures hold it; what
// OpenPGP signs has to say itself what it is, as tags do and statements.
const (
	Git     = "git"                     // what git signs in
	Channel = "channel@wheelwright.dev" // a vendor's statement of what is current
)

// how a signature in a namespace is made.
func how(namespace string) string {
	switch namespace {
	case Git:
		return "sign with git tag -s"
	case Channel:
		return "sign with hub channel sign"
	}
	return "sign with ssh-keygen -Y sign -n " + namespace
}

// itself reports that what is signed in a namespace says what it is.
func itself(namespace string) bool { return namespace == Git || namespace == Channel }

// Set holds keys for one namespace. The zero Set holds none. It is never changed, and safe for concurrent use.
type Set struct {
	namespace string
	ssh       []sshKey
	pgp       []pgpKey
}

// Read takes what is in the files, allowed signers or armoured OpenPGP keys, and reports all that is wrong
// with them. Keys that are listed for other namespaces are known, and sign nothing here.
func Read(namespace string, sources ...Source) (Set, error) {
	s := Set{namespace: namespace}
	var wrong []error
	for _, source := range sources {
		read := s.readAllowed
		if bytes.HasPrefix(bytes.TrimLeft(source.Text, " \t\r\n"), []byte("-----BEGIN PGP ")) {
			if read = s.readKeyring; !itself(namespace) {
				wrong = append(wrong, fmt.Errorf("read signers of %s: OpenPGP keys; want allowed signers of SSH, as only their signatures say what they are for", source.Name))
				continue
			}
		}
		for _, err := range read(source.Text) {
			wrong = append(wrong, fmt.Errorf("read signers of %s: %w", source.Name, err))
		}
	}
	if len(wrong) > 0 {
		return Set{}, errors.Join(wrong...)
	}
	return s, nil
}

// Len is the number of different keys that may sign.
func (s Set) Len() int { return len(s.Keys()) }

// Keys are those that may sign, each once, in the order of the files. One key that is listed as an SSH and as
// an OpenPGP key is two.
func (s Set) Keys() []Signer {
	var out []Signer
	seen := map[string]bool{}
	add := func(k Signer) {
		if !seen[k.Fingerprint] {
			seen[k.Fingerprint] = true
			out = append(out, k)
		}
	}
	for _, k := range s.ssh {
		if k.counts {
			add(Signer{Kind: SSH, Principal: k.principals, Fingerprint: k.fingerprint, Algorithm: k.key.Type()})
		}
	}
	for _, k := range s.pgp {
		add(k.signer())
	}
	return out
}

// Principals are of the lines of SSH keys that may sign, as they are written, by the keys' fingerprints.
func (s Set) Principals() map[string][]string {
	all := map[string][]string{}
	for _, k := range s.ssh {
		if k.counts {
			all[k.fingerprint] = append(all[k.fingerprint], k.principals)
		}
	}
	return all
}

// Verify checks an armoured signature over the payload, made by a key of the set that was valid at that
// time. No time that the signature itself holds may be after latest.
func (s Set) Verify(payload, armoured []byte, at, latest time.Time) (Signer, error) {
	if len(s.ssh)+len(s.pgp) == 0 {
		return Signer{}, ErrUnknownKey
	}
	switch begin, _, _ := strings.Cut(string(armoured[:min(len(armoured), 64)]), "\n"); begin {
	case "-----BEGIN SSH SIGNATURE-----":
		return s.verifySSH(payload, armoured, at)
	case "-----BEGIN PGP SIGNATURE-----":
		if !itself(s.namespace) {
			return Signer{}, errors.New("an OpenPGP signature, which does not say what it is for; sign with an SSH key")
		}
		return s.verifyPGP(payload, armoured, at, latest)
	default:
		return Signer{}, fmt.Errorf("a signature that begins %q, want SSH or OpenPGP", begin)
	}
}

// between says in what way a time is outside of what a key is valid for; nil where it is inside.
func between(key string, at, after, before time.Time) error {
	switch {
	case !after.IsZero() && at.Before(after):
		return fmt.Errorf("key %s was valid from %s on, what is signed is of %s", key, after.UTC().Format(time.RFC3339), at.UTC().Format(time.RFC3339))
	case !before.IsZero() && !at.Before(before):
		return fmt.Errorf("key %s was valid until %s, what is signed is of %s; have it signed with a current key", key, before.UTC().Format(time.RFC3339), at.UTC().Format(time.RFC3339))
	}
	return nil
}
