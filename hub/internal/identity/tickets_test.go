package identity_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"net"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/identity"
)

// cable is a connection on which both sides may write at once, as they do on a network.
func cable() (near, far net.Conn) {
	near, a := net.Pipe()
	far, b := net.Pipe()
	pump := func(to, from net.Conn) {
		pieces := make(chan []byte, 100)
		go func() {
			defer to.Close()
			for p := range pieces {
				if _, err := to.Write(p); err != nil {
					return
				}
			}
		}()
		go func() {
			defer close(pieces)
			for {
				p := make([]byte, 16<<10)
				n, err := from.Read(p)
				if err != nil {
					return
				}
				pieces <- p[:n]
			}
		}()
	}
	pump(a, b)
	pump(b, a)
	return near, far
}

// visit is one connection of a client; it returns whether the session was resumed and whom the server saw.
func visit(t *testing.T, server, client *tls.Config) (resumed bool, seen []byte) {
	t.Helper()
	near, far := cable()
	defer func() { _, _ = near.Close(), far.Close() }()
	s, done := tls.Server(far, server), make(chan error, 1)
	go func() {
		_, err := s.Write([]byte("x")) // the ticket goes before it
		done <- err
	}()
	c := tls.Client(near, client)
	_, err := c.Read(make([]byte, 1))
	must(t, err)
	must(t, <-done)
	if certs := s.ConnectionState().PeerCertificates; len(certs) > 0 {
		seen = certs[0].Raw
	}
	resumed = c.ConnectionState().DidResume
	return resumed, seen
}

// A client goes on with its session at a hub that was started anew, and is known by its certificate still. A
// week later, when its certificate is over, or at another hub, it has to say again who it is.
func TestASessionIsResumedAfterARestart(t *testing.T) {
	dir, other := filepath.Join(t.TempDir(), "authority"), filepath.Join(t.TempDir(), "other")
	synctest.Test(t, func(t *testing.T) {
		start := func(dir string) *tls.Config {
			a, err := identity.Open(dir)
			must(t, err)
			c, err := a.ServerTLS(nil, 0)
			must(t, err)
			return c
		}
		a, err := identity.Open(dir)
		must(t, err)
		client := func(ttl time.Duration) *tls.Config {
			issued, keyPEM, err := a.IssueOperator("admin", ttl)
			must(t, err)
			pair, err := tls.X509KeyPair(issued.PEM(), keyPEM)
			must(t, err)
			return &tls.Config{RootCAs: pool(t, a), ServerName: "localhost", Certificates: []tls.Certificate{pair}, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
		}
		c := client(30 * 24 * time.Hour)
		first, who := visit(t, start(dir), c)
		if first || len(who) == 0 {
			t.Fatalf("the first visit: resumed %v, known %v", first, len(who) > 0)
		}
		time.Sleep(36 * time.Hour)
		if again, whoAgain := visit(t, start(dir), c); !again || string(whoAgain) != string(who) {
			t.Errorf("after a restart: resumed %v, the same client %v", again, string(whoAgain) == string(who))
		}
		time.Sleep(8 * 24 * time.Hour)
		if late, whoLate := visit(t, start(dir), c); late || string(whoLate) != string(who) {
			t.Errorf("a week later: resumed %v, the same client %v", late, string(whoLate) == string(who))
		}
		b, err := identity.Open(other)
		must(t, err)
		trusted, err := x509.ParseCertificate(b.Authorities()[0])
		must(t, err)
		c.RootCAs.AddCert(trusted)
		if elsewhere, _ := visit(t, start(other), func() *tls.Config { x := c.Clone(); x.Certificates = nil; return x }()); elsewhere {
			t.Error("resumed at another hub")
		}
	})
}

// A session outlives neither its certificate nor the authority that it is of, though its signature is not looked at
// again: that was checked before the ticket was sealed.
func TestAResumedSessionIsOfAnAuthorityThatCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, err := identity.Open(t.TempDir())
		must(t, err)
		server, err := a.ServerTLS(nil, 0)
		must(t, err)
		issued, err := a.IssueSpoke(request(t, ecKey(t)), "acme/eu-1", time.Hour)
		must(t, err)
		broken := bytes.Clone(issued.DER)
		broken[len(broken)-1] ^= 1
		taken := func(der []byte, resumed bool) bool {
			leaf, err := x509.ParseCertificate(der)
			must(t, err)
			return server.VerifyConnection(tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}, DidResume: resumed}) == nil
		}
		for _, c := range []struct {
			name   string
			do     func()
			counts bool
		}{
			{"at once", func() {}, true},
			{"while the authority is rotated", func() { _, err := a.Rotate(); must(t, err) }, true},
			{"when it is retired", func() { must(t, a.Retire()) }, false},
		} {
			c.do()
			if first, again := taken(issued.DER, false), taken(issued.DER, true); first != c.counts || again != c.counts {
				t.Errorf("%s: taken %v, resumed %v; want %v", c.name, first, again, c.counts)
			}
			if first, again := taken(broken, false), taken(broken, true); first || again != c.counts {
				t.Errorf("%s, with a broken signature: taken %v, resumed %v; want false, %v", c.name, first, again, c.counts)
			}
		}
		late, err := a.IssueSpoke(request(t, ecKey(t)), "acme/eu-1", time.Hour)
		must(t, err)
		time.Sleep(time.Hour + time.Second)
		if taken(late.DER, true) {
			t.Error("a session is resumed after its certificate's end")
		}
	})
}
