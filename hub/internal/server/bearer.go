package server

import (
	"context"
	"errors"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/hub/internal/oidc"
)

// tokens says who bears a token; oidc.ErrUnavailable where nobody can tell now. Its errors hold nothing of the token.
type tokens interface {
	Identify(ctx context.Context, token string) (caller.Caller, error)
}

// header is where a token stands.
const header = "authorization"

// errTokenOver is the cause of a context that ends with its caller's token.
var errTokenOver = errors.New("the token of the call is over")

// present takes the call's token, if it has one. A call that is given two ways to be identified is refused: which of
// them counts is nothing to guess at. done belongs to the call's end.
func (s *Server) present(c *call) (done func(), err error) {
	done = func() {}
	values := metadata.ValueFromIncomingContext(c.ctx, header)
	if len(values) == 0 {
		return done, nil
	}
	refuse := func(format string, args ...any) (func(), error) {
		c.stranger = "a token that is refused" // for the log
		return done, status.Errorf(codes.Unauthenticated, format, args...)
	}
	kind, token, _ := strings.Cut(values[0], " ")
	switch {
	case c.certificate != nil:
		return refuse("the call came with a client certificate and a token; use one of them")
	case len(values) > 1:
		return refuse("the call came with %d tokens; send one", len(values))
	case !strings.EqualFold(kind, "bearer") || token == "" || strings.ContainsAny(token, " ,"):
		return refuse("the call's %s is not `Bearer TOKEN`", header)
	case s.tokens == nil:
		return refuse("this hub takes no tokens: its hub.yaml has no `oidc`; use a client certificate")
	}
	who, err := s.tokens.Identify(c.ctx, token)
	switch {
	case errors.Is(err, oidc.ErrUnavailable):
		c.stranger = "a token that cannot be checked"
		return done, status.Error(codes.Unavailable, err.Error()+"; try again when it can, or use a client certificate")
	case err != nil:
		return refuse("%v; log in at the issuer anew, or ask who runs the hub for a binding in hub.yaml", err)
	case who.Spoke() || who.Operator == "": // a token is never a spoke's, whoever implements tokens
		return refuse("the token is of nobody who may call this hub")
	}
	c.bearer = &who
	ctx, cancel := context.WithDeadlineCause(c.ctx, who.NotAfter, errTokenOver)
	c.ctx = ctx
	return cancel, nil
}

// bears makes the caller the token's bearer, for as long as that lasts.
func (c *call) bears(now time.Time) error {
	if !now.Before(c.bearer.NotAfter) {
		return c.tokenOver()
	}
	c.who = *c.bearer
	return nil
}

func (c *call) tokenOver() error {
	return status.Errorf(codes.Unauthenticated, "the token of %s expired at %s; log in at the issuer anew", c.bearer, c.bearer.NotAfter.UTC().Format(time.RFC3339))
}
