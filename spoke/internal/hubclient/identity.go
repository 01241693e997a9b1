package hubclient

import (
	"bytes"
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/transport"
	"github.com/wheelwright-dev/wheelwright/pkg/wholefile"
)

// IdentityFile is the file in the data folder that holds the spoke's identity: cluster, hub, key,
// certificate and authorities in one, so that a renewal replaces all of it or nothing.
const IdentityFile = "identity.json"

const identitySchema = 1

var (
	// ErrNotJoined: the data folder holds no identity.
	ErrNotJoined = errors.New("this spoke has not joined a hub")
	// ErrJoined: the data folder holds an identity, and Force was not set.
	ErrJoined = errors.New("already joined")
	// ErrIdentity: the data folder's identity can't be used.
	ErrIdentity = errors.New("the spoke's identity can't be used")
	// ErrExpired: the certificate is too old to renew itself.
	ErrExpired = errors.New("the spoke's certificate has expired")
)

// Identity is who this spoke is at its hub.
type Identity struct {
	Cluster   string // "provider/name"
	Addr      string // the hub's HOST:PORT
	Via       string // HOST:PORT of the relay that everything goes through; empty: none
	NotBefore time.Time
	NotAfter  time.Time
	Pending   bool // the vendor had not accepted it yet when it was last heard

	certificate []byte // DER
	key         *ecdsa.PrivateKey
	authorities [][]byte // DER
	fresh       bool     // nothing was taken from the hub under it yet
	instance    string   // random, of this data folder's identity from its join on
	session     uint64   // how many it has opened
	file        string   // that it is kept in; empty: IdentityFile
}

// Fingerprint is of the public key: what the two sides compare.
func (id Identity) Fingerprint() string {
	spki, err := x509.MarshalPKIXPublicKey(&id.key.PublicKey)
	if err != nil {
		return "" // not with a key that has loaded
	}
	return fleet.FingerprintOf(spki).String()
}

// storedIdentity is the file.
type storedIdentity struct {
	Schema      int    `json:"schema"`
	Cluster     string `json:"cluster"`
	Hub         string `json:"hub"`
	Via         string `json:"via,omitempty"`
	Key         string `json:"key"`         // PEM
	Certificate string `json:"certificate"` // PEM
	Authorities string `json:"authorities"` // PEM, one or more
	Fresh       bool   `json:"fresh,omitempty"`
	Pending     bool   `json:"pending,omitempty"`
	Instance    string `json:"instance,omitempty"`
	Session     uint64 `json:"session,omitempty"`
}

// LoadIdentity reads the identity in dir. Errors: ErrNotJoined, ErrIdentity with what is wrong with the
// file, or the file system's. An expired one loads.
func LoadIdentity(dir string) (Identity, error) { return loadIdentity(dir, IdentityFile) }

func loadIdentity(dir, file string) (Identity, error) {
	path := filepath.Join(dir, file)
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return Identity{}, fmt.Errorf("%w: %s is not there; run `hub cluster invite PROVIDER/NAME` at the hub and the `spoke join` line that it prints here", ErrNotJoined, path)
	}
	if err != nil {
		return Identity{}, fmt.Errorf("read identity: %w", err)
	}
	id, err := decodeIdentity(data)
	if err != nil {
		return Identity{}, fmt.Errorf("%w: %s: %w; join again: `hub cluster invite PROVIDER/NAME` at the hub, then `spoke join … --force` here", ErrIdentity, path, err)
	}
	id.file = file
	return id, nil
}

func decodeIdentity(data []byte) (Identity, error) {
	var s storedIdentity
	if err := json.Unmarshal(data, &s); err != nil {
		return Identity{}, err
	}
	if s.Schema != identitySchema {
		return Identity{}, fmt.Errorf("schema %d, this spoke knows %d", s.Schema, identitySchema)
	}
	pair, err := tls.X509KeyPair([]byte(s.Certificate), []byte(s.Key))
	if err != nil {
		return Identity{}, err
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return Identity{}, errors.New("its key is no ECDSA key")
	}
	var authorities [][]byte
	for rest := []byte(s.Authorities); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		authorities = append(authorities, block.Bytes)
	}
	id, err := newIdentity(s.Cluster, s.Hub, key, pair.Certificate[0], authorities, s.Fresh)
	id.Pending, id.instance, id.session, id.Via = s.Pending, s.Instance, s.Session, s.Via
	return id, err
}

// newIdentity checks that the parts belong together.
func newIdentity(cluster, addr string, key *ecdsa.PrivateKey, certificate []byte, authorities [][]byte, fresh bool) (Identity, error) {
	leaf, err := x509.ParseCertificate(certificate)
	if err != nil {
		return Identity{}, fmt.Errorf("its certificate: %w", err)
	}
	if !key.PublicKey.Equal(leaf.PublicKey) {
		return Identity{}, errors.New("its certificate is of another key")
	}
	id := Identity{Cluster: cluster, Addr: addr, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter,
		certificate: certificate, key: key, authorities: authorities, fresh: fresh}
	err = errors.New("it names no authority of the hub")
	for _, der := range authorities {
		var ca *x509.Certificate
		if ca, err = x509.ParseCertificate(der); err != nil {
			return Identity{}, fmt.Errorf("an authority of the hub: %w", err)
		}
		// Dates are not asked here: an expired identity loads, so that it can be named.
		if err = leaf.CheckSignatureFrom(ca); err == nil {
			return id, nil
		}
	}
	return Identity{}, fmt.Errorf("its certificate is not of the hub's authority: %w", err)
}

func (id Identity) roots() (*x509.CertPool, error) {
	roots := x509.NewCertPool()
	for _, der := range id.authorities {
		ca, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("an authority of the hub: %w", err)
		}
		roots.AddCert(ca)
	}
	return roots, nil
}

// tls are the settings under which this identity meets its hub.
func (id Identity) tls() (*tls.Config, error) {
	roots, err := id.roots()
	if err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, VerifyConnection: transport.NotRelay,
		Certificates: []tls.Certificate{{Certificate: [][]byte{id.certificate}, PrivateKey: id.key}}}, nil
}

// save replaces the identity in dir, in the file that it was read from.
func (id Identity) save(dir string) error {
	key, err := x509.MarshalPKCS8PrivateKey(id.key)
	if err != nil {
		return fmt.Errorf("encode key: %w", err)
	}
	encode := func(kind string, ders ...[]byte) string {
		var b bytes.Buffer
		for _, der := range ders {
			pem.Encode(&b, &pem.Block{Type: kind, Bytes: der})
		}
		return b.String()
	}
	data, err := json.MarshalIndent(storedIdentity{Schema: identitySchema, Cluster: id.Cluster, Hub: id.Addr, Via: id.Via, Fresh: id.fresh, Pending: id.Pending, Instance: id.instance, Session: id.session,
		Key: encode("PRIVATE KEY", key), Certificate: encode("CERTIFICATE", id.certificate), Authorities: encode("CERTIFICATE", id.authorities...)}, "", "  ")
	if err != nil {
		return fmt.Errorf("encode identity: %w", err)
	}
	if err := wholefile.Write(filepath.Join(dir, cmp.Or(id.file, IdentityFile)), "."+cmp.Or(id.file, IdentityFile)+"-*", append(data, '\n')); err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	return nil
}

// locked keeps others of this machine from replacing the identity in dir while do reads and replaces it: `spoke
// join --force` may run beside a running spoke.
func locked(dir string, do func() error) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("lock identity: %w", err)
	}
	defer d.Close() // with its lock
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock identity: %w", err)
	}
	return do()
}

// openSession raises the number of sessions on disk, before the hub is told of it: whoever has a copy of this
// folder says a number that was said already.
func (id Identity) openSession(dir string) (Identity, error) {
	err := locked(dir, func() error {
		now, err := loadIdentity(dir, cmp.Or(id.file, IdentityFile))
		if err != nil {
			return err
		}
		if !bytes.Equal(now.certificate, id.certificate) {
			return errRehello // with the identity that is there now
		}
		if now.session++; now.instance == "" {
			now.instance = rand.Text()
		}
		id = now
		return now.save(dir)
	})
	return id, err
}

// newKey makes a key and a request for its certificate; the hub reads nothing but the public key.
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
