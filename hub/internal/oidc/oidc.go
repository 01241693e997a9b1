// Package oidc takes a token of the vendor's identity provider for an operator: it proves the token by the keys
// that the issuer publishes, asks of it what hub.yaml asks, and finds the role that hub.yaml gives its user or
// groups. It makes no tokens, keeps none, and writes none anywhere: not into an error, not into a log.
package oidc

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
)

// Config is whose tokens are taken, and for whom.
type Config struct {
	Issuer   string            // https URL, as it is in the tokens
	ClientID string            // that has to be among a token's audience
	Username string            // claim; default "sub"
	Groups   string            // claim; default "groups"
	Required map[string]string // claims that have to have these values
	CA       *x509.CertPool    // that the issuer's certificate comes from; nil: the system's
	Bindings []Binding         // the first that fits gives the role

	Refresh time.Duration // between looks at the issuer's keys; default 5m
	Pause   time.Duration // between looks for a key that is not among them; default 5s
	Stale   time.Duration // for how long keys count of an issuer that cannot be reached; default 12h
}

// Binding gives a role to users and to members of groups.
type Binding struct {
	Role   caller.Role
	Users  []string
	Groups []string
}

var (
	// ErrRefused: the token is not one that is taken. The error says which check it failed, and holds nothing of it
	// but names that its issuer signed.
	ErrRefused = errors.New("the token is refused")
	// ErrUnavailable: nobody can tell, as the issuer cannot be asked for its keys.
	ErrUnavailable = errors.New("the token cannot be checked now")
)

const (
	maxToken = 16 << 10 // bytes
	maxName  = 200      // bytes of a user's name, and of a group's
	maxGroup = 1000     // groups of one user
	leeway   = time.Minute
)

// algorithms are those whose key is public: with a shared secret the issuer's own key would be one, and anybody has
// that.
func algorithms() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA}
}

// Tokens identifies their bearers. Safe for concurrent use.
type Tokens struct {
	cfg      Config
	keys     *keys
	verifier *oidc.IDTokenVerifier
}

// New does not ask the issuer yet: it may come up after the hub.
func New(c Config) *Tokens {
	if c.Username == "" {
		c.Username = "sub"
	}
	if c.Groups == "" {
		c.Groups = "groups"
	}
	t := &Tokens{cfg: c, keys: newKeys(c)}
	var names []string
	for _, a := range algorithms() {
		names = append(names, string(a))
	}
	t.verifier = oidc.NewVerifier(c.Issuer, t.keys, &oidc.Config{ClientID: c.ClientID, SupportedSigningAlgs: names})
	return t
}

// Identify says who bears a token: an operator, never a spoke. NotAfter is when the token ends. Its errors are
// ErrRefused and ErrUnavailable.
func (t *Tokens) Identify(ctx context.Context, raw string) (caller.Caller, error) {
	if len(raw) > maxToken {
		return caller.Caller{}, refused("it has %d bytes, at most %d are taken", len(raw), maxToken)
	}
	if err := signed(raw); err != nil {
		return caller.Caller{}, err
	}
	ctx, trouble := watched(ctx)
	token, err := t.verifier.Verify(ctx, raw)
	switch {
	case trouble.err != nil:
		return caller.Caller{}, trouble.err
	case err != nil:
		return caller.Caller{}, refused("%s", unsaid(strings.TrimPrefix(err.Error(), "oidc: "), raw))
	}
	if err := t.timely(token, time.Now()); err != nil {
		return caller.Caller{}, err
	}
	claims := map[string]any{}
	if err := token.Claims(&claims); err != nil {
		return caller.Caller{}, refused("its claims cannot be read")
	}
	return t.operator(token, claims)
}

func refused(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrRefused, fmt.Sprintf(format, args...))
}

// signed looks at how a token says that it is signed, before anybody looks for a key.
func signed(raw string) error {
	if _, err := jose.ParseSignedCompact(raw, algorithms()); err == nil {
		return nil
	}
	parts := strings.Split(raw, ".")
	var header struct {
		Alg string `json:"alg"`
	}
	text, err := jsonPart(parts[0])
	if len(parts) != 3 || err != nil || json.Unmarshal(text, &header) != nil {
		return refused("it is no signed JSON web token")
	}
	return refused("it is signed by %q, want one of %v", clipped(header.Alg), algorithms())
}

// timely checks what the library leaves to us, or takes with more leeway than clocks need.
func (t *Tokens) timely(token *oidc.IDToken, now time.Time) error {
	var c struct {
		NotBefore *float64 `json:"nbf"`
		Party     string   `json:"azp"`
	}
	if err := token.Claims(&c); err != nil {
		return refused("its claims nbf and azp cannot be read")
	}
	latest := now.Add(leeway)
	switch {
	case c.NotBefore != nil && time.Unix(int64(*c.NotBefore), 0).After(latest):
		return refused("it is not valid before %s", time.Unix(int64(*c.NotBefore), 0).UTC().Format(time.RFC3339))
	case token.IssuedAt.After(latest):
		return refused("it was issued at %s, which is yet to come here: compare the clocks", token.IssuedAt.UTC().Format(time.RFC3339))
	case token.Subject == "":
		return refused("it has no subject")
	case len(token.Audience) > 1 && c.Party != "" && c.Party != t.cfg.ClientID:
		return refused("it was made for %q, want %q", clipped(c.Party), t.cfg.ClientID)
	}
	return nil
}

// operator is who the claims speak of.
func (t *Tokens) operator(token *oidc.IDToken, claims map[string]any) (caller.Caller, error) {
	for _, name := range slices.Sorted(keysOf(t.cfg.Required)) {
		if have, ok := claims[name].(string); !ok || have != t.cfg.Required[name] {
			return caller.Caller{}, refused("its claim %s is not %q", name, t.cfg.Required[name])
		}
	}
	user, _ := claims[t.cfg.Username].(string)
	if err := readable(user); err != nil {
		return caller.Caller{}, refused("its claim %s, the user's name, %v", t.cfg.Username, err)
	}
	if verified, ok := claims["email_verified"].(bool); t.cfg.Username == "email" && (!ok || !verified) {
		return caller.Caller{}, refused("its issuer does not say that the address in its claim email was verified")
	}
	if err := readable(token.Subject); err != nil {
		return caller.Caller{}, refused("its subject %v", err)
	}
	groups, err := groupsOf(claims[t.cfg.Groups])
	if err != nil {
		return caller.Caller{}, refused("its claim %s %v", t.cfg.Groups, err)
	}
	for _, b := range t.cfg.Bindings {
		if slices.Contains(b.Users, user) || slices.ContainsFunc(groups, func(g string) bool { return slices.Contains(b.Groups, g) }) {
			return caller.Caller{Operator: caller.TokenPrefix + user, Role: b.Role, NotAfter: token.Expiry,
				Token: &caller.Token{Issuer: token.Issuer, Subject: token.Subject, Groups: groups}}, nil
		}
	}
	return caller.Caller{}, refused("hub.yaml gives no role to %s, nor to any of its %d groups", user, len(groups))
}

// groupsOf reads a list of names, or one.
func groupsOf(claim any) (groups []string, err error) {
	var all []any
	switch c := claim.(type) {
	case nil:
	case string:
		all = []any{c}
	case []any:
		all = c
	default:
		return nil, errors.New("is no list of names")
	}
	if len(all) > maxGroup {
		return nil, fmt.Errorf("has %d names, at most %d are taken", len(all), maxGroup)
	}
	for _, g := range all {
		name, ok := g.(string)
		if !ok || readable(name) != nil {
			return nil, errors.New("holds what is no name")
		}
		groups = append(groups, name)
	}
	return groups, nil
}

// readable: a name goes into logs, tables and the audit.
func readable(name string) error {
	switch {
	case name == "":
		return errors.New("is missing")
	case len(name) > maxName:
		return fmt.Errorf("has %d bytes, at most %d are taken", len(name), maxName)
	case !utf8.ValidString(name), strings.ContainsFunc(name, func(r rune) bool { return r == utf8.RuneError || r != ' ' && !unicode.IsPrint(r) }), strings.TrimSpace(name) != name:
		return errors.New("holds characters that do not show, or blanks around it")
	}
	return nil
}

// unsaid is a library's text without anything of the token, and not too long.
func unsaid(text, raw string) string {
	for _, part := range append([]string{raw}, strings.Split(raw, ".")...) {
		if len(part) > 8 {
			text = strings.ReplaceAll(text, part, "…")
		}
	}
	return clipped(text)
}

func clipped(s string) string {
	s = strings.ToValidUTF8(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s), "")
	if r := []rune(s); len(r) > 300 {
		return string(r[:299]) + "…"
	}
	return s
}
