package signer

import (
	"bytes"
	"crypto/rsa"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
)

// sshKey is one line of allowed signers.
type sshKey struct {
	principals    string
	key           ssh.PublicKey
	fingerprint   string
	counts        bool // the line's namespaces hold the set's
	after, before time.Time
}

func (s *Set) readAllowed(text []byte) (wrong []error) {
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		k, err := parseAllowed(line, s.namespace)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("line %d: %w", i+1, err))
			continue
		}
		s.ssh = append(s.ssh, k)
	}
	return wrong
}

// parseAllowed reads "principals [options] type key [comment]", ssh-keygen(1), ALLOWED SIGNERS.
func parseAllowed(line, namespace string) (sshKey, error) {
	principals, rest := field(line)
	if principals = strings.Trim(principals, `"`); principals == "" || strings.Contains(principals, `"`) {
		return sshKey{}, errors.New("no principals, such as release@example.com, in front")
	}
	k := sshKey{principals: principals, counts: true}
	kind, rest := field(rest)
	if !isKeyType(kind) {
		if err := k.options(kind, namespace); err != nil {
			return sshKey{}, err
		}
		kind, rest = field(rest)
	}
	encoded, _ := field(rest)
	blob, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || encoded == "" {
		return sshKey{}, errors.New(`want principals, options if any, and a key as in a .pub file ("ssh-ed25519 AAAA…")`)
	}
	if k.key, err = ssh.ParsePublicKey(blob); err != nil {
		return sshKey{}, fmt.Errorf("key of %s: %w", principals, err)
	}
	if k.key.Type() != kind {
		return sshKey{}, fmt.Errorf("key of %s says it is a %s and is a %s", principals, kind, k.key.Type())
	}
	if err := strongSSH(k.key); err != nil {
		return sshKey{}, fmt.Errorf("key of %s: %w", principals, err)
	}
	k.fingerprint = ssh.FingerprintSHA256(k.key)
	return k, nil
}

// field takes what is in front of the first blank that is not between quotes.
func field(s string) (first, rest string) {
	quoted := false
	for i := range len(s) {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case !quoted && (s[i] == ' ' || s[i] == '\t'):
			return s[:i], strings.TrimLeft(s[i:], " \t")
		}
	}
	return s, ""
}

func isKeyType(s string) bool {
	return strings.HasPrefix(s, "ssh-") || strings.HasPrefix(s, "ecdsa-") || strings.HasPrefix(s, "sk-")
}

// strongSSH lists what is taken; what is not known is not.
func strongSSH(k ssh.PublicKey) error {
	switch k.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoSKECDSA256:
		return nil
	case ssh.KeyAlgoRSA:
		if c, ok := k.(ssh.CryptoPublicKey); ok {
			if r, ok := c.CryptoPublicKey().(*rsa.PublicKey); ok && r.N.BitLen() >= minRSABits {
				return nil
			}
		}
		return fmt.Errorf("an RSA key of less than %d bits is too weak; sign with ssh-ed25519", minRSABits)
	}
	if _, ok := k.(*ssh.Certificate); ok {
		return errors.New("it is a certificate; list the key itself")
	}
	return fmt.Errorf("a %s key is too weak or not known; sign with ssh-ed25519", k.Type())
}

// options reads "name" and "name=value" between commas. One that is not known may restrict the key, so
// that it is refused.
func (k *sshKey) options(text, namespace string) error {
	seen := map[string]bool{}
	for text != "" {
		var option string
		option, text = cutUnquoted(text)
		name, value, _ := strings.Cut(option, "=")
		name = strings.ToLower(name)
		if seen[name] {
			return fmt.Errorf("option %q is there twice", name)
		}
		seen[name] = true
		if len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"' {
			value = value[1 : len(value)-1]
		}
		var err error
		switch name {
		case "namespaces":
			k.counts, err = matchList(value, namespace)
		case "valid-after":
			k.after, err = parseTime(value)
		case "valid-before":
			k.before, err = parseTime(value)
		case "cert-authority":
			err = errors.New("certificates are not taken, as nothing here asks whether one was withdrawn; list the signers' own keys")
		default:
			err = errors.New("not known; want namespaces, valid-after or valid-before")
		}
		if err != nil {
			return fmt.Errorf("option %q: %w", name, err)
		}
	}
	if !k.after.IsZero() && !k.before.IsZero() && !k.after.Before(k.before) {
		return errors.New("valid-after is not before valid-before: the key is never valid")
	}
	return nil
}

func cutUnquoted(s string) (first, rest string) {
	quoted := false
	for i := range len(s) {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case !quoted && s[i] == ',':
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}

// matchList is ssh's pattern list: one pattern must match, and none that begins with "!".
func matchList(list, s string) (bool, error) {
	if list == "" {
		return false, errors.New("no value")
	}
	found := false
	for pattern := range strings.SplitSeq(list, ",") {
		pattern, negated := strings.CutPrefix(pattern, "!")
		if wildcard(pattern, s) {
			if negated {
				return false, nil
			}
			found = true
		}
	}
	return found, nil
}

func wildcard(pattern, s string) bool {
	if pattern == "" {
		return s == ""
	}
	if pattern[0] == '*' {
		return wildcard(pattern[1:], s) || (s != "" && wildcard(pattern, s[1:]))
	}
	return s != "" && (pattern[0] == '?' || pattern[0] == s[0]) && wildcard(pattern[1:], s[1:])
}

// parseTime reads YYYYMMDD and YYYYMMDDHHMM[SS], with or without the Z of UTC. ssh-keygen reads one
// without Z in its machine's zone; here it is UTC too, so that a key is valid everywhere at the same time.
func parseTime(s string) (time.Time, error) {
	s = strings.TrimSuffix(s, "Z")
	layout := map[int]string{8: "20060102", 12: "200601021504", 14: "20060102150405"}[len(s)]
	t, err := time.Parse(layout, s)
	if layout == "" || err != nil {
		return time.Time{}, fmt.Errorf("%q is no time; want YYYYMMDD or YYYYMMDDHHMMSS, in UTC", s)
	}
	return t, nil
}

// readSSH takes one signature in its armour, and nothing around it.
func readSSH(armoured []byte) (*sshsig.Signature, error) {
	block, rest := pem.Decode(armoured)
	if block == nil || block.Type != sshsig.PEMType || len(rest) > 0 || len(block.Headers) > 0 {
		return nil, errors.New("the SSH signature's armour is damaged")
	}
	sig, err := sshsig.ParseSignature(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read SSH signature: %w", err)
	}
	return sig, nil
}

// SignSSH signs a payload in a namespace, as `ssh-keygen -Y sign` does, with a key that Read would take.
func SignSSH(payload []byte, key ssh.Signer, namespace string) (armoured []byte, err error) {
	if err := strongSSH(key.PublicKey()); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	sig, err := sshsig.Sign(bytes.NewReader(payload), key, sshsig.HashSHA512, namespace)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return sshsig.Armor(sig), nil
}

// ClaimedBy is the fingerprint of the key that a signature in a namespace says it is of, once the signature holds
// by that key. Whether the key counts anywhere is not said by it.
func ClaimedBy(payload, armoured []byte, namespace string) (fingerprint string, err error) {
	sig, err := readSSH(armoured)
	if err != nil {
		return "", err
	}
	if sig.Namespace != namespace {
		return "", fmt.Errorf("the SSH signature is for the namespace %q, want %q", sig.Namespace, namespace)
	}
	if err := strongSSH(sig.PublicKey); err != nil {
		return "", err
	}
	fingerprint = ssh.FingerprintSHA256(sig.PublicKey)
	if err := sshsig.Verify(bytes.NewReader(payload), sig, sig.PublicKey, sig.HashAlgorithm, namespace); err != nil {
		return "", fmt.Errorf("SSH signature of %s: what is signed is not what is here, or the signature is damaged: %w", fingerprint, err)
	}
	return fingerprint, nil
}

func (s Set) verifySSH(payload, armoured []byte, at time.Time) (Signer, error) {
	sig, err := readSSH(armoured)
	if err != nil {
		return Signer{}, err
	}
	if sig.Namespace != s.namespace && len(s.ssh) > 0 { // one without keys knows none of them, whatever they signed for
		return Signer{}, fmt.Errorf("the SSH signature is for the namespace %q, want %q; %s", sig.Namespace, s.namespace, how(s.namespace))
	}
	shown, blob := ssh.FingerprintSHA256(sig.PublicKey), sig.PublicKey.Marshal()
	refusal := fmt.Errorf("SSH key %s (%s): %w", shown, sig.PublicKey.Type(), ErrUnknownKey)
	for _, k := range s.ssh {
		if !bytes.Equal(k.key.Marshal(), blob) {
			continue
		}
		if !k.counts {
			refusal = fmt.Errorf("SSH key %s of %s is listed for other namespaces than %q", shown, k.principals, s.namespace)
			continue
		}
		// k.key, not the signature's own: what is checked is what the provider wrote.
		if err := sshsig.Verify(bytes.NewReader(payload), sig, k.key, sig.HashAlgorithm, s.namespace); err != nil {
			return Signer{}, fmt.Errorf("SSH signature of %s: what is signed is not what is here, or the signature is damaged: %w", shown, err)
		}
		if err := between(shown, at, k.after, k.before); err != nil {
			refusal = err
			continue
		}
		return Signer{Kind: SSH, Principal: k.principals, Fingerprint: shown, Algorithm: k.key.Type()}, nil
	}
	return Signer{}, refusal
}
