package hubclient

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/token"
	"github.com/wheelwright-dev/wheelwright/pkg/transport"
	enrollv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/enroll/v1"
)

// ErrWrongAuthority: who answers at the hub's address is not whom the token was made by.
var ErrWrongAuthority = errors.New("the certificate authority there is not the one that the token is pinned to")

// ErrUnreachable: nobody answers at the hub's address.
var ErrUnreachable = errors.New("the hub can't be reached")

// ErrTokenRefused: the hub does not take the token, and will not.
var ErrTokenRefused = errors.New("the hub refused the token")

// joinWait bounds the whole of Join.
const joinWait = 30 * time.Second

// JoinConfig is what Join needs.
type JoinConfig struct {
	Addr  string // the hub's HOST:PORT
	Via   string // a relay's, that everything is to go through; empty: none
	Token string // as `hub cluster invite` printed it
	Dir   string // data folder; made if it is not there
	Force bool   // replace an identity that Dir holds
	Log   *slog.Logger
}

// Join redeems a token and leaves an identity in Dir. The hub is believed only if it shows the
// authority that the token is pinned to. Errors: ErrJoined, ErrWrongAuthority, and others that name the
// cause and the next command; nothing is written then.
func Join(ctx context.Context, cfg JoinConfig) (Identity, error) {
	t, err := token.Parse(cfg.Token)
	if err != nil {
		return Identity{}, err
	}
	if _, _, err := net.SplitHostPort(cfg.Addr); err != nil {
		return Identity{}, fmt.Errorf("hub address %q: want HOST:PORT", cfg.Addr)
	}
	if err := CheckVia(cfg.Via); err != nil {
		return Identity{}, err
	}
	if old, err := LoadIdentity(cfg.Dir); err == nil && !cfg.Force {
		return Identity{}, fmt.Errorf("join: %w: %s speaks for %s at %s; start it with `spoke run --data %s`, or replace its identity with `spoke join … --force`", ErrJoined, cfg.Dir, old.Cluster, old.Addr, cfg.Dir)
	} else if err != nil && !errors.Is(err, ErrNotJoined) && !cfg.Force {
		return Identity{}, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return Identity{}, fmt.Errorf("make data folder: %w", err)
	}
	id, err := enroll(ctx, cfg.Addr, cfg.Via, t)
	if err != nil {
		return Identity{}, fmt.Errorf("join %s: %w", cfg.Addr, err)
	}
	if err := locked(cfg.Dir, func() error { return id.save(cfg.Dir) }); err != nil {
		return Identity{}, fmt.Errorf("join %s: %w; the token is spent: mend this, then ask for a new one with `hub cluster invite %s` at the hub", cfg.Addr, err, id.Cluster)
	}
	cfg.Log.Debug("joined", logging.Cluster, id.Cluster, logging.Address, id.Addr, "not_after", id.NotAfter)
	return id, nil
}

func enroll(ctx context.Context, addr, via string, t token.Token) (Identity, error) {
	key, csr, err := newKey()
	if err != nil {
		return Identity{}, err
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return Identity{}, err
	}
	var refused atomic.Pointer[error] // grpc shows a handshake's error as text only
	conn, err := transport.Dial(addr, &tls.Config{
		MinVersion: tls.VersionTLS13,
		// Nothing is known of the hub but the pin: VerifyConnection checks the chain against it.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			err := checkPin(s.PeerCertificates, t.Pin, host)
			if err == nil {
				err = transport.NotRelay(s)
			}
			if err != nil {
				refused.Store(&err)
			}
			return err
		},
	}, transport.Through(via))
	if err != nil {
		return Identity{}, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, joinWait)
	defer cancel()
	r, err := enrollv1.NewEnrollServiceClient(conn).Enroll(ctx, &enrollv1.EnrollRequest{Token: t.String(), Csr: csr})
	if p := refused.Load(); err != nil && p != nil {
		return Identity{}, *p
	}
	if err != nil {
		return Identity{}, enrollError(err)
	}
	if _, err := fleet.ParseCluster(r.GetCluster()); err != nil {
		return Identity{}, fmt.Errorf("the hub's answer: %w", err)
	}
	pinned := func(der []byte) bool { ca, err := x509.ParseCertificate(der); return err == nil && pinOf(ca) == t.Pin }
	if !slices.ContainsFunc(r.GetAuthorities(), pinned) {
		return Identity{}, fmt.Errorf("the hub's answer: %w", ErrWrongAuthority)
	}
	id, err := newIdentity(r.GetCluster(), addr, key, r.GetCertificate(), r.GetAuthorities(), true)
	if err != nil {
		return Identity{}, fmt.Errorf("the hub's answer: %w", err)
	}
	id.Pending, id.instance, id.Via = r.GetPending(), rand.Text(), via
	return id, nil
}

// checkPin accepts a chain that leads to a certificate authority with the pinned key, for this host.
func checkPin(chain []*x509.Certificate, pin, host string) error {
	roots, between, found := x509.NewCertPool(), x509.NewCertPool(), false
	for _, c := range chain {
		if c.IsCA && pinOf(c) == pin {
			roots.AddCert(c)
			found = true
		} else {
			between.AddCert(c)
		}
	}
	if !found {
		return fmt.Errorf("%w (pin %s…): another server answers at this address, or somebody is in between; nothing was sent, do not go on before you know who: compare the address with the line that `hub cluster invite` printed", ErrWrongAuthority, pin[:12])
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: host, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Errorf("the hub's certificate is valid from %s to %s, and here it is %s: compare the clocks of the two machines", chain[0].NotBefore.Format(time.RFC3339), chain[0].NotAfter.Format(time.RFC3339), time.Now().Format(time.RFC3339))
	case errors.As(err, &name):
		return fmt.Errorf("the hub's certificate is not for %s but for %s; use one of these addresses, or start the hub with --advertise %s:PORT", host, strings.Join(hosts(chain[0]), ", "), host)
	case err != nil:
		return fmt.Errorf("%w: %w; do not go on before you know who answers at this address", ErrWrongAuthority, err)
	}
	return nil
}

func hosts(c *x509.Certificate) []string {
	names := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	return names
}

func pinOf(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

func enrollError(err error) error {
	s := status.Convert(err)
	switch s.Code() {
	case codes.Unauthenticated, codes.PermissionDenied:
		if strings.Contains(s.Message(), "hub cluster invite") {
			return fmt.Errorf("%w: %s", ErrTokenRefused, s.Message())
		}
		return fmt.Errorf("%w: %s; ask for a new one: `hub cluster invite PROVIDER/NAME` at the hub", ErrTokenRefused, s.Message())
	case codes.Unavailable, codes.DeadlineExceeded:
		return fmt.Errorf("%w: %s; check the address, and at the hub that `hub serve` runs, then try again: the token is not spent", ErrUnreachable, s.Message())
	case codes.Unimplemented:
		return fmt.Errorf("who answers there is no hub of this version: %s; compare `spoke version` and `hub version`", s.Message())
	}
	return fmt.Errorf("the hub answered: %s; its log says more, try again", s.Message())
}
