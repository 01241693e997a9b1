package fleet

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
)

// Fingerprint is the SHA-256 of a public key (SPKI, DER): what two people compare. The zero Fingerprint is
// of no key.
type Fingerprint [sha256.Size]byte

const fingerprintPrefix = "SHA256:"

// FingerprintOf is that of a public key in DER, SPKI.
func FingerprintOf(spki []byte) Fingerprint { return sha256.Sum256(spki) }

// String is "SHA256:" and base64 without padding, as ssh-keygen writes it; empty for no key.
func (f Fingerprint) String() string {
	if f == (Fingerprint{}) {
		return ""
	}
	return fingerprintPrefix + base64.RawStdEncoding.EncodeToString(f[:])
}

// Equal takes the same time wherever two differ.
func (f Fingerprint) Equal(g Fingerprint) bool { return subtle.ConstantTimeCompare(f[:], g[:]) == 1 }

// ParseFingerprint reads what String writes; 64 hexadecimal digits are good too. It wants the whole of it: a
// part that agrees can be made to.
func ParseFingerprint(s string) (f Fingerprint, err error) {
	text := strings.TrimPrefix(strings.TrimSpace(s), fingerprintPrefix)
	data, err := base64.RawStdEncoding.Strict().DecodeString(strings.TrimSuffix(text, "="))
	if err != nil || len(data) != len(f) {
		data, err = hex.DecodeString(text)
	}
	if err != nil || len(data) != len(f) {
		return f, fmt.Errorf("fingerprint %q: want the whole of SHA256:… as `spoke join` and `spoke status` print it", s)
	}
	copy(f[:], data)
	if f == (Fingerprint{}) {
		return f, fmt.Errorf("fingerprint %q: is of no key", s)
	}
	return f, nil
}
