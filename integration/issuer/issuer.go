// Package issuer is an OpenID Connect issuer for tests, over HTTPS on the loopback: discovery, keys, and tokens with
// whatever claims a test wants. It knows nothing of Wheelwright and is of no use but in tests.
package issuer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Issuer is one that answers until the test ends.
type Issuer struct {
	URL    string
	CAFile string // PEM

	t      testing.TB
	server *httptest.Server

	mu    sync.Mutex
	keys  []jose.JSONWebKey // with their private halves
	calls string            // itself; empty: URL
	away  bool
	asked int
}

// New starts an issuer with one key, "first".
func New(t testing.TB) *Issuer {
	t.Helper()
	i := &Issuer{t: t}
	i.server = httptest.NewTLSServer(http.HandlerFunc(i.answer))
	t.Cleanup(i.server.Close)
	i.URL = i.server.URL
	i.CAFile = filepath.Join(t.TempDir(), "issuer.pem")
	if err := os.WriteFile(i.CAFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	i.Publish(NewKey(t, "first"))
	return i
}

// NewKey makes a key of an id.
func NewKey(t testing.TB, id string) jose.JSONWebKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return jose.JSONWebKey{Key: key, KeyID: id, Algorithm: string(jose.ES256), Use: "sig"}
}

// Publish makes these the issuer's keys; tokens are signed by the last of them.
func (i *Issuer) Publish(keys ...jose.JSONWebKey) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = keys
}

// Away has it answer nothing but errors, or answer again.
func (i *Issuer) Away(away bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.away = away
}

// CallItself has its discovery name another issuer.
func (i *Issuer) CallItself(url string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.calls = url
}

// Asked is how often its keys were asked for.
func (i *Issuer) Asked() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.asked
}

func (i *Issuer) answer(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.away {
		http.Error(w, "out of order", http.StatusServiceUnavailable)
		return
	}
	name := i.URL
	if i.calls != "" {
		name = i.calls
	}
	var said any
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		said = map[string]any{"issuer": name, "jwks_uri": i.URL + "/keys", "authorization_endpoint": i.URL + "/auth", "token_endpoint": i.URL + "/token",
			"id_token_signing_alg_values_supported": []string{"ES256"}}
	case "/keys":
		i.asked++
		set := jose.JSONWebKeySet{}
		for _, k := range i.keys {
			set.Keys = append(set.Keys, k.Public())
		}
		said = set
	default:
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(said)
}

// Claims are good ones for an hour, with those of more over them; one that is nil is left out.
func (i *Issuer) Claims(more map[string]any) map[string]any {
	now := time.Now()
	all := map[string]any{"iss": i.URL, "sub": "248289761001", "aud": "wheelwright", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		"email": "maria@vendor.example", "email_verified": true}
	maps.Copy(all, more)
	maps.DeleteFunc(all, func(_ string, v any) bool { return v == nil })
	return all
}

// Token is one that the issuer signed.
func (i *Issuer) Token(more map[string]any) string {
	i.t.Helper()
	i.mu.Lock()
	key := i.keys[len(i.keys)-1]
	i.mu.Unlock()
	return Sign(i.t, key, i.Claims(more))
}

// Sign makes a token by any key.
func Sign(t testing.TB, key jose.JSONWebKey, claims map[string]any) string {
	t.Helper()
	return SignWith(t, jose.SigningKey{Algorithm: jose.SignatureAlgorithm(key.Algorithm), Key: key}, nil, claims)
}

// SignWith makes a token with further headers.
func SignWith(t testing.TB, key jose.SigningKey, options *jose.SignerOptions, claims map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(key, options)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(text)
	if err != nil {
		t.Fatal(err)
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}
