// Package identity is the hub's certificate authority: it keeps one key on disk and issues
// certificates for spokes, operators and the hub's own server. Whom a certificate speaks for is the
// store's record of its fingerprint; nothing here, and nothing in a certificate's subject, decides it.
package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"sync"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	// skew is how far behind the hub's another clock may be and still find a new certificate valid.
	skew = 5 * time.Minute
)

// ErrRequest: a certificate request that the authority does not answer, for a reason that its sender
// can put right.
var ErrRequest = errors.New("certificate request")

// Authority issues certificates. It is safe for concurrent use. While it is rotated it has two keys: the hub shows
// itself under the old one, which everybody trusts, issues under the new one, and takes certificates of both.
type Authority struct {
	dir string

	mu      sync.RWMutex
	roots   []root // the oldest first; one, or two
	clients *x509.CertPool
	changed chan struct{} // closed when roots are others
}

// root is one key of the authority and the certificate that it gave itself.
type root struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func (r root) pin() string {
	sum := sha256.Sum256(r.cert.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

func opened(dir string, roots []root) *Authority {
	a := &Authority{dir: dir}
	a.set(roots)
	return a
}

func (a *Authority) set(roots []root) {
	if a.roots = roots; a.changed != nil {
		close(a.changed)
	}
	a.changed, a.clients = make(chan struct{}), x509.NewCertPool()
	for _, r := range roots {
		a.clients.AddCert(r.cert)
	}
}

// shown is the root that the hub shows itself under, issuing the one that it issues clients' certificates under.
func (a *Authority) shown() root {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if time.Now().After(a.roots[0].cert.NotAfter) {
		return a.roots[len(a.roots)-1]
	}
	return a.roots[0]
}

func (a *Authority) issuing() root {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.roots[len(a.roots)-1]
}

// Authorities lists, in DER, what a peer has to trust.
func (a *Authority) Authorities() [][]byte {
	a.mu.RLock()
	defer a.mu.RUnlock()
	var all [][]byte
	for _, r := range a.roots {
		all = append(all, r.cert.Raw)
	}
	return all
}

// Pin is the SHA-256 of the public key (SPKI, DER) that the hub shows itself under, 64 hexadecimal digits.
func (a *Authority) Pin() string { return a.shown().pin() }

// Pins are those of Authorities, in their order.
func (a *Authority) Pins() []string {
	a.mu.RLock()
	defer a.mu.RUnlock()
	var all []string
	for _, r := range a.roots {
		all = append(all, r.pin())
	}
	return all
}

// Changed is closed when what a peer has to trust is no longer what it was at the call.
func (a *Authority) Changed() <-chan struct{} {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.changed
}

// Certificate is one that was issued.
type Certificate struct {
	DER         []byte
	Fingerprint [32]byte // SHA-256 of DER
	NotAfter    time.Time
	Issuer      string // pin of the key that it is issued under
}

// PEM is the certificate's.
func (c Certificate) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: blockCertificate, Bytes: c.DER})
}

// IssueSpoke answers a PKCS#10 request in DER. Only its public key is used; the subject is the cluster's
// name and its URI wheelwright://cluster/PROVIDER/NAME. Errors are ErrRequest where the request is at fault.
func (a *Authority) IssueSpoke(csrDER []byte, cluster fleet.Cluster, ttl time.Duration) (Certificate, error) {
	public, err := requestKey(csrDER)
	if err != nil {
		return Certificate{}, err
	}
	c, err := a.issue(public, leaf{
		name: string(cluster), uri: &url.URL{Scheme: "wheelwright", Host: "cluster", Path: "/" + string(cluster)},
		usage: x509.ExtKeyUsageClientAuth, ttl: ttl,
	})
	if err != nil {
		return Certificate{}, fmt.Errorf("issue certificate of %s: %w", cluster, err)
	}
	return c, nil
}

// IssueOperator makes a key, in PEM, and its certificate for a person of this name.
func (a *Authority) IssueOperator(name string, ttl time.Duration) (c Certificate, keyPEM []byte, err error) {
	fail := func(err error) (Certificate, []byte, error) {
		return Certificate{}, nil, fmt.Errorf("issue certificate of operator %s: %w", name, err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fail(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fail(err)
	}
	if c, err = a.issue(&key.PublicKey, operatorLeaf(name, ttl)); err != nil {
		return fail(err)
	}
	return c, pem.EncodeToMemory(&pem.Block{Type: blockKey, Bytes: keyDER}), nil
}

// SignOperator answers a PKCS#10 request in DER for a person or a program of this name, whose key stays where
// it is. Only the request's public key is used. Errors are ErrRequest where the request is at fault.
func (a *Authority) SignOperator(csrDER []byte, name string, ttl time.Duration) (Certificate, error) {
	public, err := requestKey(csrDER)
	if err != nil {
		return Certificate{}, err
	}
	c, err := a.issue(public, operatorLeaf(name, ttl))
	if err != nil {
		return Certificate{}, fmt.Errorf("issue certificate of operator %s: %w", name, err)
	}
	return c, nil
}

// issue is for clients.
func (a *Authority) issue(public crypto.PublicKey, l leaf) (Certificate, error) {
	r := a.issuing()
	cert, err := r.issue(public, l)
	if err != nil {
		return Certificate{}, err
	}
	return Certificate{DER: cert.Raw, Fingerprint: sha256.Sum256(cert.Raw), NotAfter: cert.NotAfter, Issuer: r.pin()}, nil
}

func operatorLeaf(name string, ttl time.Duration) leaf {
	return leaf{name: name, uri: &url.URL{Scheme: "wheelwright", Host: "operator", Path: "/" + name}, usage: x509.ExtKeyUsageClientAuth, ttl: ttl}
}

// RequestKey is the fingerprint of the key that a PKCS#10 request in DER is about. Errors are ErrRequest.
func RequestKey(csrDER []byte) (fleet.Fingerprint, error) {
	public, err := requestKey(csrDER)
	if err != nil {
		return fleet.Fingerprint{}, err
	}
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return fleet.Fingerprint{}, fmt.Errorf("%w: its key: %w", ErrRequest, err)
	}
	return fleet.FingerprintOf(spki), nil
}

// requestKey reads the public key of a request that its holder signed.
func requestKey(csrDER []byte) (crypto.PublicKey, error) {
	csr, err := x509.ParseCertificateRequest(csrDER)
	if err != nil {
		return nil, fmt.Errorf("%w: not PKCS#10 in DER: %w", ErrRequest, err)
	}
	// The kind and size of the key come first: checking a signature of an enormous one is work for the asking.
	switch k := csr.PublicKey.(type) {
	case *ecdsa.PublicKey, ed25519.PublicKey:
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < 2048 || bits > 8192 {
			return nil, fmt.Errorf("%w: RSA key of %d bits, want 2048 to 8192", ErrRequest, bits)
		}
	default:
		return nil, fmt.Errorf("%w: key of kind %v, want ECDSA, Ed25519 or RSA", ErrRequest, csr.PublicKeyAlgorithm)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("%w: not signed by its own key: %w", ErrRequest, err)
	}
	return csr.PublicKey, nil
}

// leaf is what differs between the certificates that the authority issues.
type leaf struct {
	name  string
	uri   *url.URL
	hosts []string
	usage x509.ExtKeyUsage
	ttl   time.Duration
}

func (r root) issue(public crypto.PublicKey, l leaf) (*x509.Certificate, error) {
	if l.ttl <= 0 {
		return nil, fmt.Errorf("lifetime %v, want more than none", l.ttl)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: l.name},
		NotBefore:    now.Add(-skew), NotAfter: now.Add(l.ttl),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{l.usage},
		BasicConstraintsValid: true,
	}
	if template.NotAfter.After(r.cert.NotAfter) {
		template.NotAfter = r.cert.NotAfter // a certificate is worth nothing past its authority
	}
	if l.uri != nil {
		template.URIs = []*url.URL{l.uri}
	}
	addHosts(template, l.hosts)
	der, err := x509.CreateCertificate(rand.Reader, template, r.cert, public, r.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// serial is 127 random bits, within the 20 octets of RFC 5280 §4.1.2.2.
func serial() *big.Int {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the process instead
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b)
}

func selfSigned() (root, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return root{}, err
	}
	number := serial()
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: number,
		// Each hub's authority has a name of its own, so that a wrong one shows in an error.
		Subject:   pkix.Name{CommonName: "wheelwright hub " + hex.EncodeToString(number.Bytes()[:4])},
		NotBefore: now.Add(-skew), NotAfter: now.Add(authorityLife),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:     true, BasicConstraintsValid: true, MaxPathLenZero: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return root{}, err
	}
	cert, err := x509.ParseCertificate(der)
	return root{cert, key}, err
}
