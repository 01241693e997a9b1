package oidc

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/integration/issuer"
)

func configOf(t *testing.T, i *issuer.Issuer) Config {
	t.Helper()
	text, err := os.ReadFile(i.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	return Config{Issuer: i.URL, ClientID: "wheelwright", Username: "email", CA: pool, Pause: time.Nanosecond,
		Required: map[string]string{"hd": "vendor.example"},
		Bindings: []Binding{
			{Role: caller.Role{Kind: caller.VendorOperator}, Users: []string{"maria@vendor.example"}},
			{Role: caller.Role{Kind: caller.Viewer}, Groups: []string{"engineering", "support"}},
		}}
}

// with are claims that are taken, with those of more over them.
func with(more map[string]any) map[string]any {
	all := map[string]any{"hd": "vendor.example"}
	maps.Copy(all, more)
	return all
}

func TestATokenSpeaksForItsUserAndGroups(t *testing.T) {
	i := issuer.New(t)
	tokens := New(configOf(t, i))
	for _, c := range []struct {
		claims map[string]any
		user   string
		role   caller.Kind
	}{
		{nil, "maria@vendor.example", caller.VendorOperator},
		{map[string]any{"groups": []string{"support"}}, "maria@vendor.example", caller.VendorOperator}, // the first binding that fits
		{map[string]any{"email": "jo@vendor.example", "groups": []string{"kitchen", "support"}}, "jo@vendor.example", caller.Viewer},
		{map[string]any{"email": "jo@vendor.example", "groups": "engineering"}, "jo@vendor.example", caller.Viewer},
		{map[string]any{"aud": []string{"other", "wheelwright"}}, "maria@vendor.example", caller.VendorOperator},
	} {
		got, err := tokens.Identify(t.Context(), i.Token(with(c.claims)))
		if err != nil || got.Operator != "oidc:"+c.user || got.Role.Kind != c.role || got.Spoke() || got.Token.Subject != "248289761001" || time.Until(got.NotAfter) > time.Hour {
			t.Errorf("%v: %+v, %v", c.claims, got, err)
		}
	}
	if n := i.Asked(); n != 1 {
		t.Errorf("the issuer was asked for its keys %d times", n)
	}
}

// forged are tokens that the issuer did not make.
func forged(t *testing.T, i *issuer.Issuer, published jose.JSONWebKey) map[string]string {
	t.Helper()
	claims := i.Claims(with(nil))
	other := issuer.NewKey(t, "first") // the same id, another key
	public, err := published.Public().MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(published.Public().Key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	part := func(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
	good := issuer.Sign(t, published, claims)
	parts := strings.Split(good, ".")
	signed, err := jose.ParseSignedCompact(good, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	otherClaims, err := json.Marshal(i.Claims(with(map[string]any{"email": "boss@vendor.example"})))
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{
		`is signed by "none"`:           part([]byte(`{"alg":"none"}`)) + "." + part(text) + ".",
		`is signed by "None"`:           part([]byte(`{"alg":"None"}`)) + "." + part(text) + "." + parts[2],
		`is signed by "HS256" #json`:    issuer.SignWith(t, jose.SigningKey{Algorithm: jose.HS256, Key: public}, nil, claims),
		`is signed by "HS256" #der`:     issuer.SignWith(t, jose.SigningKey{Algorithm: jose.HS256, Key: der}, nil, claims),
		"not signed by a key #other":    issuer.Sign(t, other, claims),
		"not signed by a key #unknown":  issuer.Sign(t, issuer.NewKey(t, "second"), claims),
		"not signed by a key #embedded": issuer.SignWith(t, jose.SigningKey{Algorithm: jose.ES256, Key: other.Key}, &jose.SignerOptions{EmbedJWK: true}, claims),
		"not signed by a key #jku":      issuer.SignWith(t, jose.SigningKey{Algorithm: jose.ES256, Key: other.Key}, (&jose.SignerOptions{}).WithHeader("jku", i.URL+"/keys").WithHeader("kid", "first"), claims),
		"not signed by a key #altered":  parts[0] + "." + part(otherClaims) + "." + parts[2],
		"no signed JSON web token #1":   "",
		"no signed JSON web token #2":   "maria",
		"no signed JSON web token #3":   good + "." + parts[2],
		"no signed JSON web token #4":   signed.FullSerialize(),
		"at most 16384":                 strings.Repeat("a", maxToken+1),
	}
}

// Each token that is not to be taken is refused for its own reason, and what it holds is in no error.
func TestTokensAreRefusedByName(t *testing.T) {
	i := issuer.New(t)
	key := issuer.NewKey(t, "first")
	i.Publish(key)
	tokens := New(configOf(t, i))
	cases := forged(t, i, key)
	now := time.Now()
	for want, claims := range map[string]map[string]any{
		"issued by a different provider":           {"iss": "https://issuer.example.com"},
		"different provider, expected #slash":      {"iss": i.URL + "/"},
		`expected audience "wheelwright"`:          {"aud": "other"},
		`expected audience "wheelwright" got []`:   {"aud": nil},
		`made for "other"`:                         {"aud": []string{"wheelwright", "other"}, "azp": "other"},
		"token is expired":                         {"exp": now.Add(-time.Second).Unix()},
		"token is expired #none":                   {"exp": nil},
		"not valid before":                         {"nbf": now.Add(2 * time.Minute).Unix()},
		"yet to come here":                         {"iat": now.Add(2 * time.Minute).Unix()},
		"no subject":                               {"sub": nil},
		`claim hd is not "vendor.example"`:         {"hd": "bank.example"},
		`claim hd is not "vendor.example" #none`:   {"hd": nil},
		`claim hd is not "vendor.example" #list`:   {"hd": []string{"vendor.example"}},
		"claim email, the user's name, is missing": {"email": nil},
		"name, is missing #number":                 {"email": 7},
		"email was verified":                       {"email_verified": false},
		"email was verified #none":                 {"email_verified": nil},
		"email was verified #text":                 {"email_verified": "true"},
		"characters that do not show":              {"email": "maria\x1b[2J@vendor.example"},
		"characters that do not show #rtl":         {"email": "maria\u202e@vendor.example"},
		"at most 200":                              {"email": strings.Repeat("m", 201)},
		"gives no role to jo@vendor.example":       {"email": "jo@vendor.example", "groups": []string{"Support", "engineerings"}},
		"gives no role to MARIA@vendor.example":    {"email": "MARIA@vendor.example"},
		"claim groups is no list":                  {"groups": map[string]any{"support": true}},
		"claim groups holds what is no name":       {"groups": []any{"support", 7}},
	} {
		cases[want] = i.Token(with(claims))
	}
	for want, token := range cases {
		who, err := tokens.Identify(t.Context(), token)
		name, _, _ := strings.Cut(want, " #")
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), name) || who.Operator != "" || who.Role.Kind != "" {
			t.Errorf("want %q: %+v, %v", want, who, err)
			continue
		}
		for part := range strings.SplitSeq(token, ".") {
			if len(part) > 8 && strings.Contains(err.Error(), part) {
				t.Errorf("%s: the error holds a part of the token: %v", want, err)
			}
		}
	}
	t.Logf("FIGURE oidc.refused %d tokens of %d", len(cases), len(cases))
}

func TestTheIssuersKeysAreFollowed(t *testing.T) {
	i := issuer.New(t)
	c := configOf(t, i)
	c.Refresh = time.Nanosecond
	tokens := New(c)
	old := i.Token(with(nil))
	taken := func(token string) error {
		_, err := tokens.Identify(t.Context(), token)
		return err
	}
	if err := taken(old); err != nil {
		t.Fatal(err)
	}
	i.Publish(issuer.NewKey(t, "second"))
	if err := taken(i.Token(with(nil))); err != nil {
		t.Errorf("by the new key: %v", err)
	}
	eventually(t, "a token by a key that was withdrawn is refused", func() bool { return errors.Is(taken(old), ErrRefused) })

	// Away: what is known counts, what is not cannot be told.
	fresh := i.Token(with(nil))
	i.Away(true)
	if err := taken(fresh); err != nil {
		t.Errorf("with the issuer away: %v", err)
	}
	if err := taken(issuer.Sign(t, issuer.NewKey(t, "third"), i.Claims(with(nil)))); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "503") {
		t.Errorf("by another key with the issuer away: %v", err)
	}
	c.Stale = time.Nanosecond
	tokens = New(c)
	if err := taken(fresh); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), i.URL) {
		t.Errorf("with nothing known and the issuer away: %v", err)
	}
	i.Away(false)
	if err := taken(fresh); err != nil {
		t.Errorf("with the issuer back: %v", err)
	}
	i.Away(true)
	if err := taken(fresh); !errors.Is(err, ErrUnavailable) {
		t.Errorf("keys that were last seen too long ago: %v", err)
	}
}

func TestAnIssuerThatIsAnotherIsNotBelieved(t *testing.T) {
	i := issuer.New(t)
	i.CallItself("https://issuer.example.com")
	c := configOf(t, i)
	if _, err := New(c).Identify(t.Context(), i.Token(with(nil))); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "issuer.example.com") {
		t.Errorf("one that calls itself another: %v", err)
	}
	i.CallItself("")
	c.CA = x509.NewCertPool()
	if _, err := New(c).Identify(t.Context(), i.Token(with(nil))); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("one of another authority: %v", err)
	}
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Skip("this Go makes no weak keys")
	}
	i.Publish(jose.JSONWebKey{Key: weak, KeyID: "weak", Algorithm: "RS256"})
	by := issuer.SignWith(t, jose.SigningKey{Algorithm: jose.RS256, Key: weak}, nil, i.Claims(with(nil)))
	if _, err := New(configOf(t, i)).Identify(t.Context(), by); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "none of its 1 keys") {
		t.Errorf("a weak key: %v", err)
	}
}

// Whoever makes up key ids does not have the hub ask the issuer each time.
func TestMadeUpKeyIDsDoNotAskTheIssuer(t *testing.T) {
	i := issuer.New(t)
	c := configOf(t, i)
	c.Pause = time.Hour
	tokens := New(c)
	for n := range 50 {
		if _, err := tokens.Identify(t.Context(), issuer.Sign(t, issuer.NewKey(t, fmt.Sprint("made-up-", n)), i.Claims(with(nil)))); !errors.Is(err, ErrRefused) {
			t.Fatal(err)
		}
	}
	if n := i.Asked(); n > 2 {
		t.Errorf("the issuer was asked %d times", n)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick, end := time.NewTicker(5*time.Millisecond), time.After(20*time.Second)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("not within 20s: " + what)
		}
	}
}

func TestAlgorithmsHaveNoSharedSecret(t *testing.T) {
	for _, a := range algorithms() {
		if strings.HasPrefix(string(a), "HS") || a == "none" {
			t.Error(a)
		}
	}
	if !slices.Contains(algorithms(), jose.RS256) {
		t.Error("what most issuers use is not taken")
	}
}
