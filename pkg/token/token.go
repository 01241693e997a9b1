// Package token reads and writes the one-time token that lets a spoke join: "ww1.ID.SECRET.PIN". It
// holds no state; whether a token is still good is the hub's to say.
package token

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
)

// Token is what a join line carries.
type Token struct {
	ID     string // names the token at the hub; 16 hexadecimal digits
	Secret string // 32 random bytes, base64url
	Pin    string // SHA-256 of the hub authority's public key (SPKI, DER), 64 hexadecimal digits
}

const prefix = "ww1"

// New makes a token for the authority with this pin.
func New(pin string) Token {
	id, secret := make([]byte, 8), make([]byte, 32)
	_, _ = rand.Read(id) // never fails: crypto/rand ends the process instead
	_, _ = rand.Read(secret)
	return Token{ID: hex.EncodeToString(id), Secret: base64.RawURLEncoding.EncodeToString(secret), Pin: pin}
}

func (t Token) String() string { return strings.Join([]string{prefix, t.ID, t.Secret, t.Pin}, ".") }

// Hash is what the hub keeps of the secret.
func (t Token) Hash() [32]byte { return sha256.Sum256([]byte(t.Secret)) }

// Parse checks the form only. Its errors never repeat the secret.
func Parse(s string) (Token, error) {
	parts := strings.Split(strings.TrimSpace(s), ".")
	bad := func(why string) (Token, error) {
		return Token{}, fmt.Errorf("join token: %s; copy the whole line that `hub cluster invite` printed", why)
	}
	if len(parts) != 4 {
		return bad(fmt.Sprintf("has %d parts, want 4", len(parts)))
	}
	if parts[0] != prefix {
		return bad("does not start with " + prefix)
	}
	t := Token{ID: parts[1], Secret: parts[2], Pin: parts[3]}
	if b, err := hex.DecodeString(t.ID); err != nil || len(b) != 8 {
		return bad("its id is damaged")
	}
	if b, err := base64.RawURLEncoding.DecodeString(t.Secret); err != nil || len(b) != 32 {
		return bad("its secret is damaged")
	}
	if b, err := hex.DecodeString(t.Pin); err != nil || len(b) != 32 {
		return bad("its pin is damaged")
	}
	return t, nil
}
