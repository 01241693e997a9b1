package caller

import (
	"encoding/hex"
	"errors"
)

// Who is a caller as the record of what people changed names them.
type Who struct {
	Actor      string // "operator NAME", or a cluster's name
	Credential string // as Caller.Credential says; empty for the hub itself
	Role       string // what they may approve; empty: nothing
}

// Who is the caller for the record.
func (c Caller) Who() Who {
	return Who{Actor: c.String(), Credential: c.Credential(), Role: c.Role.Approves()}
}

// Credential is the SHA-256 of the certificate, hexadecimal; of a token who it is by its issuer, never the token.
func (c Caller) Credential() string {
	if c.Token != nil {
		return c.Token.Issuer + " " + c.Token.Subject
	}
	return hex.EncodeToString(c.Fingerprint[:])
}

// What a request that was understood can come to but being done. Behaviour wraps one of them with the
// cause, the object and the next command to type; an API gives it a code.
var (
	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("exists already")
	ErrInvalid  = errors.New("not valid")
	ErrConflict = errors.New("not now")
	ErrDenied   = errors.New("not allowed")
)
