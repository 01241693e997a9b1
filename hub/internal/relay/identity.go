package relay

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/hub/internal/identity"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/token"
	"github.com/wheelwright-dev/wheelwright/pkg/transport"
	"github.com/wheelwright-dev/wheelwright/pkg/wholefile"
	enrollv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/enroll/v1"
	relayv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/relay/v1"
)

// IdentityFile is the file in the data folder that holds key, certificates and authorities in one, so that a renewal
// replaces all of it or nothing.
const IdentityFile = "relay.json"

const (
	joinWait  = 30 * time.Second
	renewWait = 30 * time.Second
	// soon spreads the renewals that a change of the authority causes.
	soon = 5 * time.Second
)

var (
	// ErrNotJoined: the data folder holds no identity.
	ErrNotJoined = errors.New("this relay has not joined a hub")
	// ErrJoined: the data folder holds one, and Force was not set.
	ErrJoined = errors.New("already joined")
)

// Identity is who this relay is at its hub.
type Identity struct {
	Name     string
	Hub      string // HOST:PORT
	Hosts    []string
	NotAfter time.Time // the earlier end of the two certificates

	notBefore   time.Time
	key         *ecdsa.PrivateKey
	client      *x509.Certificate
	server      *x509.Certificate
	authorities []*x509.Certificate
}

type storedIdentity struct {
	Schema      int    `json:"schema"`
	Name        string `json:"name"`
	Hub         string `json:"hub"`
	Key         string `json:"key"`         // PEM
	Client      string `json:"client"`      // PEM
	Server      string `json:"server"`      // PEM
	Authorities string `json:"authorities"` // PEM, one or more
}

// LoadIdentity reads the identity in dir. ErrNotJoined where there is none.
func LoadIdentity(dir string) (Identity, error) {
	path := filepath.Join(dir, IdentityFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return Identity{}, fmt.Errorf("%w: %s is not there; run `hub relay invite NAME --host …` for the hub and the `hub relay join` line that it prints here", ErrNotJoined, path)
	}
	if err != nil {
		return Identity{}, fmt.Errorf("read the relay's identity: %w", err)
	}
	id, err := decode(data)
	if err != nil {
		return Identity{}, fmt.Errorf("read the relay's identity %s: %w; join again: `hub relay invite NAME --host …` for the hub, then `hub relay join … --force` here", path, err)
	}
	return id, nil
}

func decode(data []byte) (Identity, error) {
	var s storedIdentity
	if err := json.Unmarshal(data, &s); err != nil {
		return Identity{}, err
	}
	if s.Schema != 1 {
		return Identity{}, fmt.Errorf("schema %d, this relay knows 1", s.Schema)
	}
	pair, err := tls.X509KeyPair([]byte(s.Client), []byte(s.Key))
	if err != nil {
		return Identity{}, err
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return Identity{}, errors.New("its key is no ECDSA key")
	}
	return newIdentity(s.Name, s.Hub, key, pair.Certificate[0], first(blocks(s.Server)), blocks(s.Authorities))
}

func first(all [][]byte) []byte {
	if len(all) == 0 {
		return nil
	}
	return all[0]
}

func blocks(text string) (all [][]byte) {
	for rest := []byte(text); ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			return all
		}
		all = append(all, b.Bytes)
	}
}

// newIdentity checks that the parts belong together. A certificate may be of an authority that was retired a moment
// ago: it is renewed when the hub is there.
func newIdentity(name, hub string, key *ecdsa.PrivateKey, client, server []byte, authorities [][]byte) (id Identity, err error) {
	id = Identity{Name: name, Hub: hub, key: key}
	if id.authorities, err = parseAll(authorities); err != nil || len(id.authorities) == 0 {
		return id, fmt.Errorf("its authorities: %d, %w", len(authorities), err)
	}
	for _, c := range []struct {
		what string
		der  []byte
		to   **x509.Certificate
	}{{"client", client, &id.client}, {"server", server, &id.server}} {
		leaf, err := x509.ParseCertificate(c.der)
		switch {
		case err != nil:
			return id, fmt.Errorf("its %s certificate: %w", c.what, err)
		case !key.PublicKey.Equal(leaf.PublicKey):
			return id, fmt.Errorf("its %s certificate is of another key", c.what)
		case transport.RelayName(leaf) != name:
			return id, fmt.Errorf("its %s certificate is not of relay %s", c.what, name)
		}
		*c.to = leaf
	}
	id.Hosts = slices.Clone(id.server.DNSNames)
	for _, ip := range id.server.IPAddresses {
		id.Hosts = append(id.Hosts, ip.String())
	}
	id.notBefore, id.NotAfter = id.client.NotBefore, id.client.NotAfter
	if id.server.NotAfter.Before(id.NotAfter) {
		id.NotAfter = id.server.NotAfter
	}
	return id, nil
}

func parseAll(ders [][]byte) (all []*x509.Certificate, err error) {
	for _, der := range ders {
		ca, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		all = append(all, ca)
	}
	return all, nil
}

func (id Identity) save(dir string) error {
	der, err := x509.MarshalPKCS8PrivateKey(id.key)
	if err != nil {
		return fmt.Errorf("encode key: %w", err)
	}
	text := func(kind string, ders ...[]byte) (all string) {
		for _, der := range ders {
			all += string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
		}
		return all
	}
	s := storedIdentity{Schema: 1, Name: id.Name, Hub: id.Hub, Key: text("PRIVATE KEY", der), Client: text("CERTIFICATE", id.client.Raw), Server: text("CERTIFICATE", id.server.Raw)}
	for _, ca := range id.authorities {
		s.Authorities += text("CERTIFICATE", ca.Raw)
	}
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("encode identity: %w", err)
	}
	if err := wholefile.Write(filepath.Join(dir, IdentityFile), "."+IdentityFile+"-*", append(data, '\n')); err != nil {
		return fmt.Errorf("write the relay's identity: %w", err)
	}
	return nil
}

// hubTLS are the settings under which the relay calls its hub.
func (id Identity) hubTLS() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: id.pool(), VerifyConnection: transport.NotRelay,
		Certificates: []tls.Certificate{{Certificate: [][]byte{id.client.Raw}, PrivateKey: id.key}}}
}

func (id Identity) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	for _, ca := range id.authorities {
		pool.AddCert(ca)
	}
	return pool
}

// JoinConfig is what Join needs.
type JoinConfig struct {
	Hub   string // HOST:PORT
	Token string // as `hub relay invite` printed it
	Dir   string // data folder; made if it is not there
	Force bool   // replace an identity that Dir holds
}

// Join redeems a token and leaves an identity in Dir. The hub is believed only if it shows the authority that the token
// is pinned to. Errors: ErrJoined and others that name the cause; nothing is written then.
func Join(ctx context.Context, cfg JoinConfig) (Identity, error) {
	t, err := token.Parse(cfg.Token)
	if err != nil {
		return Identity{}, err
	}
	host, _, err := net.SplitHostPort(cfg.Hub)
	if err != nil {
		return Identity{}, fmt.Errorf("hub address %q: want HOST:PORT", cfg.Hub)
	}
	if old, err := LoadIdentity(cfg.Dir); err == nil && !cfg.Force {
		return Identity{}, fmt.Errorf("join: %w: %s is relay %s of the hub at %s; start it with `hub relay serve --data %s`, or replace its identity with `hub relay join … --force`", ErrJoined, cfg.Dir, old.Name, old.Hub, cfg.Dir)
	} else if err != nil && !errors.Is(err, ErrNotJoined) && !cfg.Force {
		return Identity{}, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return Identity{}, fmt.Errorf("make data folder: %w", err)
	}
	key, csr, err := newKey()
	if err != nil {
		return Identity{}, err
	}
	conn, err := transport.Dial(cfg.Hub, &tls.Config{MinVersion: tls.VersionTLS13,
		InsecureSkipVerify: true, // nothing is known of the hub but the pin
		VerifyConnection:   func(s tls.ConnectionState) error { return pinned(s, t.Pin, host) },
	})
	if err != nil {
		return Identity{}, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, joinWait)
	defer cancel()
	r, err := enrollv1.NewEnrollServiceClient(conn).EnrollRelay(ctx, &enrollv1.EnrollRelayRequest{Token: t.String(), Csr: csr})
	if err != nil {
		return Identity{}, fmt.Errorf("join %s: %s", cfg.Hub, status.Convert(err).Message())
	}
	id, err := granted(cfg.Hub, key, r.GetCertificates())
	if err != nil {
		return Identity{}, fmt.Errorf("join %s: the hub's answer: %w", cfg.Hub, err)
	}
	if err := id.save(cfg.Dir); err != nil {
		return Identity{}, fmt.Errorf("join %s: %w; the token is spent: mend this, then ask for a new one with `hub relay invite %s --host …`", cfg.Hub, err, id.Name)
	}
	return id, nil
}

// pinned accepts a chain that leads to the authority with the pinned key, for this host, and to no relay.
func pinned(s tls.ConnectionState, pin, host string) error {
	roots := x509.NewCertPool()
	found := false
	for _, c := range s.PeerCertificates {
		if c.IsCA && pinOf(c) == pin {
			roots.AddCert(c)
			found = true
		}
	}
	if !found {
		return fmt.Errorf("the certificate authority there is not the one that the token is pinned to (pin %s…): compare the address with the line that `hub relay invite` printed", pin[:12])
	}
	_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, DNSName: host, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	return errors.Join(err, transport.NotRelay(s))
}

func pinOf(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

func granted(hub string, key *ecdsa.PrivateKey, c *relayv1.Certificates) (Identity, error) {
	id, err := newIdentity(c.GetName(), hub, key, c.GetClient(), c.GetServer(), c.GetAuthorities())
	if err != nil {
		return id, err
	}
	for _, leaf := range []*x509.Certificate{id.client, id.server} {
		if !slices.ContainsFunc(id.authorities, func(ca *x509.Certificate) bool { return leaf.CheckSignatureFrom(ca) == nil }) {
			return id, errors.New("a certificate is not of the hub's authority")
		}
	}
	return id, nil
}

func newKey() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make key: %w", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, nil, fmt.Errorf("make certificate request: %w", err)
	}
	return key, csr, nil
}

// holder has the identity as it is now: it is renewed, and told of new authorities, while the relay runs.
type holder struct {
	dir string
	now atomic.Pointer[Identity]

	mu sync.Mutex // for whoever changes it
}

// trust takes what the hub says has to be trusted.
func (h *holder) trust(a *relayv1.Authorities) (stale bool, err error) {
	all, err := parseAll(a.GetCertificates())
	if err != nil || len(all) == 0 {
		return false, fmt.Errorf("the hub's authorities: %d, %w", len(a.GetCertificates()), err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	id := *h.now.Load()
	of := func(pin string, leaf *x509.Certificate) bool {
		i := slices.IndexFunc(all, func(ca *x509.Certificate) bool { return pinOf(ca) == pin })
		return i >= 0 && leaf.CheckSignatureFrom(all[i]) == nil
	}
	stale = !of(a.GetShown(), id.server) || !of(a.GetIssues(), id.client)
	if slices.EqualFunc(all, id.authorities, func(a, b *x509.Certificate) bool { return a.Equal(b) }) {
		return stale, nil
	}
	id.authorities = all
	if err := id.save(h.dir); err != nil {
		return stale, err
	}
	h.now.Store(&id)
	return stale, nil
}

// serverTLS are the settings under which spokes are answered.
func (h *holder) serverTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{transport.RelayProtocol},
		ClientAuth: tls.RequireAnyClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			id := h.now.Load()
			return &tls.Certificate{Certificate: [][]byte{id.server.Raw}, PrivateKey: id.key, Leaf: id.server}, nil
		},
		VerifyConnection: func(s tls.ConnectionState) error {
			if s.NegotiatedProtocol != transport.RelayProtocol {
				return errors.New("not of the protocol of relays")
			}
			return identity.VerifyClient(s.PeerCertificates[0], h.now.Load().pool(), time.Now())
		},
	}
}

// keep renews the certificates at half of their life, and when the authority that they are of is replaced.
func (h *holder) keep(ctx context.Context, hub *upstream, log *slog.Logger) error {
	for {
		id := h.now.Load()
		wait := time.Until(id.notBefore.Add(id.NotAfter.Sub(id.notBefore) / 2))
		select {
		case <-ctx.Done():
			return nil
		case <-hub.stale:
			wait = mathrand.N(soon)
		case <-time.After(wait):
			wait = 0
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		if err := h.renew(ctx, hub); err != nil {
			log.Warn("the relay's certificates were not renewed: trying again", slog.Time("not_after", id.NotAfter), slog.Any(logging.Error, err))
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(soon + mathrand.N(soon)):
			}
			hub.renewSoon()
			continue
		}
		log.Info("the relay's certificates were renewed", slog.Time("not_after", h.now.Load().NotAfter))
	}
}

func (h *holder) renew(ctx context.Context, hub *upstream) error {
	conn, err := hub.connection()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, renewWait)
	defer cancel()
	key, csr, err := newKey()
	if err != nil {
		return err
	}
	r, err := relayv1.NewRelayServiceClient(conn).Renew(ctx, &relayv1.RenewRequest{Csr: csr})
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	next, err := granted(h.now.Load().Hub, key, r.GetCertificates())
	if err != nil {
		return fmt.Errorf("the hub's answer: %w", err)
	}
	if err := next.save(h.dir); err != nil {
		return err
	}
	h.now.Store(&next)
	return nil
}
