package oidc

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

const (
	askTimeout = 10 * time.Second
	maxAnswer  = 1 << 20 // bytes of an answer of the issuer
	minRSABits = 2048
)

// keys are those that the issuer publishes. They are asked for anew from time to time, so that one that the issuer
// withdrew does not count for long, and when a token names another. While the issuer is away those that are known
// count, for a while.
type keys struct {
	cfg    Config
	client *http.Client

	asking sync.Mutex // one asks at a time

	mu    sync.Mutex
	known []jose.JSONWebKey
	at    time.Time // when known was read
	tried time.Time // when the issuer was asked last
	err   error     // what came of that
}

func newKeys(c Config) *keys {
	for _, d := range []struct {
		at   *time.Duration
		want time.Duration
	}{{&c.Refresh, 5 * time.Minute}, {&c.Pause, 5 * time.Second}, {&c.Stale, 12 * time.Hour}} {
		if *d.at <= 0 {
			*d.at = d.want
		}
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.CA},
		TLSHandshakeTimeout: askTimeout, IdleConnTimeout: time.Minute, MaxIdleConns: 2, ForceAttemptHTTP2: true}
	return &keys{cfg: c, client: &http.Client{Timeout: askTimeout, Transport: bounded{transport},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return errors.New("the issuer sends elsewhere, which is not followed")
		}}}
}

// bounded limits what is read of an answer.
type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxAnswer), resp.Body}
	return resp, nil
}

// trouble carries past the library that it is not the token that is at fault.
type trouble struct{ err error }

type troubleKey struct{}

func watched(ctx context.Context) (context.Context, *trouble) {
	t := &trouble{}
	return context.WithValue(ctx, troubleKey{}, t), t
}

var errNoKey = errors.New("it is not signed by a key that the issuer publishes")

// VerifySignature is for the library, which checks the rest.
func (k *keys) VerifySignature(ctx context.Context, raw string) ([]byte, error) {
	payload, err := k.verify(ctx, raw)
	if t, ok := ctx.Value(troubleKey{}).(*trouble); ok && errors.Is(err, ErrUnavailable) {
		t.err = err
	}
	return payload, err
}

func (k *keys) verify(ctx context.Context, raw string) ([]byte, error) {
	token, err := jose.ParseSignedCompact(raw, algorithms())
	if err != nil || len(token.Signatures) != 1 {
		return nil, errors.New("it is no token with one signature")
	}
	if err := k.fresh(ctx); err != nil {
		return nil, err
	}
	known, at := k.now()
	if payload, ok := by(known, token); ok {
		return payload, nil
	}
	if err := k.ask(ctx, at); err != nil {
		return nil, err
	}
	known, _ = k.now()
	if payload, ok := by(known, token); ok {
		return payload, nil
	}
	return nil, errNoKey
}

func (k *keys) now() ([]jose.JSONWebKey, time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.known, k.at
}

// by tries the keys that the token may be signed by.
func by(known []jose.JSONWebKey, token *jose.JSONWebSignature) ([]byte, bool) {
	h := token.Signatures[0].Header
	for _, key := range known {
		if h.KeyID != "" && key.KeyID != h.KeyID || key.Algorithm != "" && key.Algorithm != h.Algorithm {
			continue
		}
		if payload, err := token.Verify(&key); err == nil {
			return payload, true
		}
	}
	return nil, false
}

// fresh sees to it that there are keys, and that they are not too old.
func (k *keys) fresh(ctx context.Context) error {
	_, at := k.now()
	age := time.Since(at)
	switch {
	case at.IsZero(), age > k.cfg.Stale:
		return k.ask(ctx, at)
	case age > k.cfg.Refresh && k.asking.TryLock():
		go func() { // nobody waits for it: what is known counts meanwhile
			defer k.asking.Unlock()
			ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
			defer cancel()
			if k.rested() {
				_ = k.read(ctx)
			}
		}()
	}
	return nil
}

// rested: the issuer was not asked just now. Whoever makes up key ids must not have the hub ask all the time.
func (k *keys) rested() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return time.Since(k.tried) >= k.cfg.Pause
}

// ask reads the keys unless somebody did after seen, or tried just now.
func (k *keys) ask(ctx context.Context, seen time.Time) error {
	k.asking.Lock()
	defer k.asking.Unlock()
	if _, at := k.now(); at.After(seen) {
		return nil
	}
	if k.rested() {
		return k.read(ctx)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil {
		return k.err
	}
	return nil
}

// read asks the issuer. The caller holds asking.
func (k *keys) read(ctx context.Context) error {
	set, err := k.fetch(ctx)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tried = time.Now()
	if k.err = err; err != nil {
		k.err = fmt.Errorf("%w: the issuer %s cannot be asked for its keys: %w", ErrUnavailable, k.cfg.Issuer, err)
		return k.err
	}
	k.known, k.at = set, time.Now()
	return nil
}

func (k *keys) fetch(ctx context.Context) ([]jose.JSONWebKey, error) {
	ctx, cancel := context.WithTimeout(oidc.ClientContext(context.WithoutCancel(ctx), k.client), askTimeout)
	defer cancel()
	provider, err := oidc.NewProvider(ctx, k.cfg.Issuer) // which has to call itself what hub.yaml does
	if err != nil {
		return nil, err
	}
	var said struct {
		Keys string `json:"jwks_uri"`
	}
	if err := provider.Claims(&said); err != nil || !strings.HasPrefix(said.Keys, "https://") {
		return nil, fmt.Errorf("it names no https URL of its keys: %q", clipped(said.Keys))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, said.Keys, nil)
	if err != nil {
		return nil, err
	}
	resp, err := k.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("its keys: %s", resp.Status)
	}
	var set jose.JSONWebKeySet
	if err := json.NewDecoder(resp.Body).Decode(&set); err != nil {
		return nil, fmt.Errorf("its keys cannot be read: %w", err)
	}
	return usable(set.Keys)
}

// usable keeps public keys for signatures that are not too weak.
func usable(all []jose.JSONWebKey) (kept []jose.JSONWebKey, err error) {
	for _, key := range all {
		if r, ok := key.Key.(*rsa.PublicKey); ok && r.N.BitLen() < minRSABits {
			continue
		}
		if key.Valid() && key.IsPublic() && (key.Use == "" || key.Use == "sig") {
			kept = append(kept, key)
		}
	}
	if len(kept) == 0 {
		return nil, fmt.Errorf("none of its %d keys is a public one for signatures", len(all))
	}
	return kept, nil
}

func jsonPart(part string) ([]byte, error) { return base64.RawURLEncoding.DecodeString(part) }

func keysOf[V any](m map[string]V) iter.Seq[string] { return maps.Keys(m) }
