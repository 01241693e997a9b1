package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
)

// serverLife is of the server's certificate; it is made anew at half of it, and at each start, since it
// is kept in memory only.
const serverLife = 30 * 24 * time.Hour

// ServerHosts are what the hub's certificate is for: these names or addresses, of which a port is cut off, and the
// machine itself.
func ServerHosts(hosts []string) (all []string) {
	for _, h := range append(slices.Clone(hosts), "localhost", "127.0.0.1", "::1") {
		if host, _, err := net.SplitHostPort(h); err == nil {
			h = host
		}
		if h != "" && !slices.Contains(all, h) {
			all = append(all, h)
		}
	}
	return all
}

// ServerTLS is what the hub listens with: a certificate for ServerHosts of these hosts, sent with the authority's so that a newcomer can compare the pin. A
// client may come without a certificate; one that comes with one must have it from this authority, and it must
// not have expired longer ago than grace. Whom it speaks for, and whether it still does, is the record's to say.
func (a *Authority) ServerTLS(hosts []string, grace time.Duration) (*tls.Config, error) {
	s := &serverCertificate{authority: a, hosts: ServerHosts(hosts)}
	if _, err := s.get(nil); err != nil {
		return nil, err
	}
	resumed := &tickets{authority: a}
	if _, err := resumed.current(); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// TLS itself checks that the client has the key; VerifyConnection, that the certificate is good, which TLS
		// would do at the present time only, and for the authorities of the present only.
		ClientAuth: tls.RequestClientCert,
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return nil
			}
			leaf, now := s.PeerCertificates[0], time.Now()
			if s.DidResume && a.issued(leaf, now) {
				return nil
			}
			return verifyClient(leaf, a.clientRoots(), now, grace)
		},
		GetCertificate: s.get,
		NextProtos:     []string{"h2"},
		WrapSession:    resumed.wrap,
		UnwrapSession:  resumed.unwrap,
	}, nil
}

// verifyClient accepts a certificate that one of these authorities issued for a client and that is valid, or that
// expired no longer ago than grace. Nothing that the client sends beside it counts: no authority of ours issues
// other authorities.
func verifyClient(leaf *x509.Certificate, authorities *x509.CertPool, now time.Time, grace time.Duration) error {
	at := now
	if now.After(leaf.NotAfter) && now.Sub(leaf.NotAfter) <= grace {
		at = leaf.NotAfter
	}
	chains, err := leaf.Verify(x509.VerifyOptions{Roots: authorities, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil {
		return fmt.Errorf("client certificate: %w", err)
	}
	for _, chain := range chains {
		if ca := chain[len(chain)-1]; len(chain) == 2 && !now.After(ca.NotAfter) {
			return nil
		}
	}
	return errors.New("client certificate: its authority has expired, or it is one itself")
}

// issued is verifyClient without the signature, for a session that is resumed: its certificate came out of a ticket
// that the authority itself sealed after it had checked that. What may have changed since is the time, and which
// authorities count.
func (a *Authority) issued(leaf *x509.Certificate, now time.Time) bool {
	if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) || !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth) {
		return false
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, r := range a.roots {
		if bytes.Equal(leaf.RawIssuer, r.cert.RawSubject) && bytes.Equal(leaf.AuthorityKeyId, r.cert.SubjectKeyId) {
			return !now.After(r.cert.NotAfter)
		}
	}
	return false
}

func (a *Authority) clientRoots() *x509.CertPool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.clients
}

type serverCertificate struct {
	authority *Authority
	hosts     []string

	mu      sync.Mutex
	current *tls.Certificate
	root    root // that it is of
	renew   time.Time
}

func (s *serverCertificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	shown := s.authority.shown()
	if s.current != nil && now.Before(s.renew) && s.root == shown {
		return s.current, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("issue server certificate: %w", err)
	}
	cert, err := shown.issue(&key.PublicKey, leaf{name: "wheelwright hub", hosts: s.hosts, usage: x509.ExtKeyUsageServerAuth, ttl: serverLife})
	if err != nil {
		return nil, fmt.Errorf("issue server certificate: %w", err)
	}
	if !cert.NotAfter.After(now) {
		return nil, errors.New("issue server certificate: the authority has expired")
	}
	s.current = &tls.Certificate{Certificate: [][]byte{cert.Raw, shown.cert.Raw}, PrivateKey: key, Leaf: cert}
	s.root = shown
	s.renew = now.Add(cert.NotAfter.Sub(now) / 2)
	return s.current, nil
}

func addHosts(template *x509.Certificate, hosts []string) {
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
			continue
		}
		template.DNSNames = append(template.DNSNames, h)
	}
}
