package identity_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/identity"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T) *identity.Authority {
	t.Helper()
	a, err := identity.Open(filepath.Join(t.TempDir(), "authority"))
	must(t, err)
	return a
}

func ecKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return key
}

func request(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "evil/one"}, DNSNames: []string{"hub.example.org"},
	}, key)
	must(t, err)
	return csr
}

func pool(t *testing.T, a *identity.Authority) *x509.CertPool {
	t.Helper()
	p := x509.NewCertPool()
	for _, der := range a.Authorities() {
		cert, err := x509.ParseCertificate(der)
		must(t, err)
		p.AddCert(cert)
	}
	return p
}

func TestTheAuthorityIsMadeOnceAndKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data", "authority")
	a, err := identity.Open(dir)
	must(t, err)
	again, err := identity.Open(dir)
	must(t, err)
	if a.Pin() != again.Pin() || len(a.Pin()) != 64 {
		t.Errorf("pins %s and %s", a.Pin(), again.Pin())
	}
	cert, err := x509.ParseCertificate(a.Authorities()[0])
	must(t, err)
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	if hex.EncodeToString(sum[:]) != a.Pin() {
		t.Error("the pin is not that of the public key")
	}
	entries, err := os.ReadDir(dir)
	must(t, err)
	if len(entries) != 1 {
		t.Errorf("%d files, want one", len(entries))
	}
	info, err := entries[0].Info()
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	folder, err := os.Stat(dir)
	must(t, err)
	if folder.Mode().Perm() != 0o700 {
		t.Errorf("folder's mode %v", folder.Mode())
	}
}

func TestAHalfPresentFolderIsRefused(t *testing.T) {
	good := filepath.Join(t.TempDir(), "good")
	_, err := identity.Open(good)
	must(t, err)
	data, err := os.ReadFile(filepath.Join(good, "authority.pem"))
	must(t, err)
	certificate, rest := pem.Decode(data)
	key, _ := pem.Decode(rest)
	other := filepath.Join(t.TempDir(), "other")
	_, err = identity.Open(other)
	must(t, err)
	otherData, err := os.ReadFile(filepath.Join(other, "authority.pem"))
	must(t, err)
	_, otherRest := pem.Decode(otherData)
	for name, c := range map[string]struct{ file, content, says string }{
		"lost":        {"something.pem", "x", "something.pem"},
		"empty":       {"authority.pem", "", "no certificate"},
		"no key":      {"authority.pem", string(pem.EncodeToMemory(certificate)), "no key"},
		"no cert":     {"authority.pem", string(pem.EncodeToMemory(key)), "no certificate"},
		"another key": {"authority.pem", string(pem.EncodeToMemory(certificate)) + string(otherRest), "belong together"},
		"cut":         {"authority.pem", string(data[:len(data)-40]), "no key"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			must(t, os.WriteFile(filepath.Join(dir, c.file), []byte(c.content), 0o600))
			_, err := identity.Open(dir)
			if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "backup") {
				t.Errorf("got %v", err)
			}
			entries, err := os.ReadDir(dir)
			must(t, err)
			if len(entries) != 1 {
				t.Error("a refused folder was changed")
			}
		})
	}
}

func TestAKilledCreationIsNoContent(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "authority.pem.new-123"), []byte("half"), 0o600))
	_, err := identity.Open(dir)
	must(t, err)
}

func TestASpokesCertificateSpeaksOfTheClusterNotOfTheRequest(t *testing.T) {
	a := open(t)
	key := ecKey(t)
	issued, err := a.IssueSpoke(request(t, key), "acme/eu-1", 24*time.Hour)
	must(t, err)
	der, fingerprint, notAfter := issued.DER, issued.Fingerprint, issued.NotAfter
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	if cert.Subject.CommonName != "acme/eu-1" || len(cert.URIs) != 1 || cert.URIs[0].String() != "wheelwright://cluster/acme/eu-1" ||
		len(cert.DNSNames) != 0 || cert.IsCA {
		t.Errorf("subject %v, URIs %v, names %v", cert.Subject, cert.URIs, cert.DNSNames)
	}
	if fingerprint != sha256.Sum256(der) || !notAfter.Equal(cert.NotAfter) {
		t.Error("fingerprint or end are not the certificate's")
	}
	if life := time.Until(notAfter); life > 24*time.Hour || life < 24*time.Hour-time.Minute {
		t.Errorf("lives %v", life)
	}
	if early := time.Since(cert.NotBefore); early < 5*time.Minute {
		t.Errorf("a clock %v behind would refuse it", early)
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		t.Error("another key")
	}
	_, err = cert.Verify(x509.VerifyOptions{Roots: pool(t, a), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	must(t, err)
	if _, err = cert.Verify(x509.VerifyOptions{Roots: pool(t, a), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err == nil {
		t.Error("a spoke's certificate is good for a server")
	}
	if _, err = cert.Verify(x509.VerifyOptions{Roots: pool(t, open(t)), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err == nil {
		t.Error("another hub's authority vouches for it")
	}
}

func TestWhichRequestsAreAnswered(t *testing.T) {
	a := open(t)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	rsa2048, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	rsa1024 := weakKey(t)
	forged := request(t, ecKey(t))
	forged[len(forged)-1] ^= 1
	for name, c := range map[string]struct {
		csr  []byte
		says string
	}{
		"ed25519": {request(t, ed), ""}, "rsa": {request(t, rsa2048), ""},
		"weak":   {request(t, rsa1024), "1024 bits"},
		"forged": {forged, "not signed by its own key"},
		"noise":  {[]byte("noise"), "PKCS#10"}, "nothing": {nil, "PKCS#10"},
	} {
		_, err := a.IssueSpoke(c.csr, "acme/eu-1", time.Hour)
		switch {
		case c.says == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.says != "" && (!errors.Is(err, identity.ErrRequest) || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%s: got %v, want it to say %q", name, err, c.says)
		}
	}
}

func TestAnOperatorsCertificateIsOfThisAuthority(t *testing.T) {
	a := open(t)
	issued, keyPEM, err := a.IssueOperator("admin", 365*24*time.Hour)
	must(t, err)
	pair, err := tls.X509KeyPair(issued.PEM(), keyPEM)
	must(t, err)
	if sha256.Sum256(pair.Certificate[0]) != issued.Fingerprint || !pair.Leaf.NotAfter.Equal(issued.NotAfter) || pair.Leaf.URIs[0].String() != "wheelwright://operator/admin" {
		t.Errorf("certificate %v", pair.Leaf.Subject)
	}
	far, _, err := a.IssueOperator("admin", 100*365*24*time.Hour)
	must(t, err)
	authority, err := x509.ParseCertificate(a.Authorities()[0])
	must(t, err)
	if far.NotAfter.After(authority.NotAfter) {
		t.Errorf("lives until %v, its authority until %v", far.NotAfter, authority.NotAfter)
	}
	if _, _, err := a.IssueOperator("admin", 0); err == nil {
		t.Error("a certificate without a life")
	}
}

// shake does one handshake over loopback and returns what each side says.
func shake(t *testing.T, server, client *tls.Config) (chain []*x509.Certificate, clientErr, serverErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { _ = l.Close() }()
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			s := tls.Server(c, server)
			err = s.Handshake()
			_ = c.Close()
		}
		done <- err
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	must(t, err)
	defer func() { _ = raw.Close() }()
	conn := tls.Client(raw, client)
	clientErr = conn.Handshake()
	return conn.ConnectionState().PeerCertificates, clientErr, <-done
}

func TestTheServerIsKnownByItsHostsAndSendsItsAuthority(t *testing.T) {
	a := open(t)
	server, err := a.ServerTLS([]string{"hub.example.org:7443", "192.0.2.7"}, 0)
	must(t, err)
	for _, name := range []string{"hub.example.org", "192.0.2.7", "localhost", "127.0.0.1", "::1"} {
		chain, clientErr, serverErr := shake(t, server, &tls.Config{RootCAs: pool(t, a), ServerName: name})
		if clientErr != nil || serverErr != nil {
			t.Errorf("%s: %v, %v", name, clientErr, serverErr)
			continue
		}
		if len(chain) != 2 || string(chain[1].Raw) != string(a.Authorities()[0]) {
			t.Errorf("%s: a chain of %d, want the authority in it", name, len(chain))
		}
	}
	if _, err, _ := shake(t, server, &tls.Config{RootCAs: pool(t, a), ServerName: "elsewhere.example.org"}); err == nil {
		t.Error("known by any name")
	}
	if _, err, _ := shake(t, server, &tls.Config{RootCAs: pool(t, open(t)), ServerName: "localhost"}); err == nil {
		t.Error("known under another authority")
	}
	if _, err, _ := shake(t, server, &tls.Config{RootCAs: pool(t, a), ServerName: "localhost", MaxVersion: tls.VersionTLS12}); err == nil {
		t.Error("spoke TLS 1.2")
	}
}

func TestAClientOfAnotherAuthorityIsTurnedAway(t *testing.T) {
	a, foreign := open(t), open(t)
	server, err := a.ServerTLS(nil, 0)
	must(t, err)
	for _, c := range []struct {
		from *identity.Authority
		good bool
	}{{a, true}, {foreign, false}} {
		issued, keyPEM, err := c.from.IssueOperator("admin", time.Hour)
		must(t, err)
		pair, err := tls.X509KeyPair(issued.PEM(), keyPEM)
		must(t, err)
		give := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
		_, _, serverErr := shake(t, server, &tls.Config{RootCAs: pool(t, a), ServerName: "localhost", GetClientCertificate: give})
		if (serverErr == nil) != c.good {
			t.Errorf("of this authority %v: server says %v", c.good, serverErr)
		}
	}
}

func TestTheServersCertificateIsRenewedAtHalfItsLife(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "authority")
	synctest.Test(t, func(t *testing.T) {
		a, err := identity.Open(dir)
		must(t, err)
		server, err := a.ServerTLS(nil, 0)
		must(t, err)
		serial := func() string {
			c, err := server.GetCertificate(nil)
			must(t, err)
			if left := time.Until(c.Leaf.NotAfter); left < 15*24*time.Hour-time.Minute {
				t.Errorf("served with %v left", left)
			}
			return c.Leaf.SerialNumber.String()
		}
		first := serial()
		time.Sleep(14 * 24 * time.Hour)
		if serial() != first {
			t.Error("renewed too early")
		}
		time.Sleep(2 * 24 * time.Hour)
		if serial() == first {
			t.Error("not renewed")
		}
		time.Sleep(11 * 365 * 24 * time.Hour)
		if _, err := server.GetCertificate(nil); err == nil || !strings.Contains(err.Error(), "authority has expired") {
			t.Errorf("past the authority's end: %v", err)
		}
		if _, err := identity.Open(dir); err == nil || !strings.Contains(err.Error(), "expired") {
			t.Errorf("opening an expired authority: %v", err)
		}
	})
}

// weakKey is an RSA key that Go refuses to make.
func weakKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	t.Setenv("GODEBUG", "rsa1024min=0")
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	must(t, err)
	return key
}

func TestAnOperatorsKeyStaysWhereItIs(t *testing.T) {
	a := open(t)
	key := ecKey(t)
	issued, err := a.SignOperator(request(t, key), "maria", time.Hour)
	must(t, err)
	der, fingerprint, notAfter := issued.DER, issued.Fingerprint, issued.NotAfter
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	if cert.Subject.CommonName != "maria" || len(cert.DNSNames) != 0 || cert.URIs[0].String() != "wheelwright://operator/maria" || !cert.NotAfter.Equal(notAfter) ||
		sha256.Sum256(der) != fingerprint || !key.PublicKey.Equal(cert.PublicKey) {
		t.Errorf("got %v of %v until %v", cert.Subject, cert.URIs, cert.NotAfter)
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: pool(t, a), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Error(err)
	}
	if _, err := a.SignOperator([]byte("no request"), "maria", time.Hour); !errors.Is(err, identity.ErrRequest) {
		t.Errorf("got %v", err)
	}
	if _, err := a.SignOperator(request(t, key), "maria", 0); err == nil || errors.Is(err, identity.ErrRequest) {
		t.Errorf("got %v", err)
	}
}
