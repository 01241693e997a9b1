// Package caller carries who makes a call, from the server that identified it to the API that answers
// it. It decides nothing: an API finds a caller here only after the server has allowed the call.
package caller

import (
	"context"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// Caller is who a client certificate speaks for by the hub's record: a cluster's spoke, an operator or a relay, one of them;
// or the operator that a token of the identity provider speaks for by hub.yaml.
type Caller struct {
	Cluster     fleet.Cluster
	Operator    string
	Relay       string
	Role        Role      // an operator's, by the hub's record
	Fingerprint [32]byte  // SHA-256 of the certificate, DER
	NotAfter    time.Time // when the credential ends
	Token       *Token    // nil: a certificate
	Key         fleet.Fingerprint
	Expired     time.Time // when the certificate did, of a spoke that is let in to renew it; zero: it is valid
}

// Token is what the identity provider says of an operator.
type Token struct {
	Issuer, Subject string
	Groups          []string
}

// TokenPrefix begins the name of every operator by a token, so that none is taken for one of the hub's own record:
// no name there holds a colon.
const TokenPrefix = "oidc:"

// Spoke: the caller speaks for a cluster.
func (c Caller) Spoke() bool { return c.Cluster != "" }

// String is for logs: the cluster's name, "relay NAME" or "operator NAME".
func (c Caller) String() string {
	switch {
	case c.Spoke():
		return string(c.Cluster)
	case c.Relay != "":
		return "relay " + c.Relay
	}
	return "operator " + c.Operator
}

type key struct{}

// With returns a context that carries c.
func With(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, key{}, c)
}

// From returns the caller of a call; false for a stranger.
func From(ctx context.Context) (Caller, bool) {
	c, ok := ctx.Value(key{}).(Caller)
	return c, ok
}
