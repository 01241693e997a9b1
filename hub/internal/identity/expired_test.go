package identity_test

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/identity"
)

// The way back after an expiry is as long as it is said to be, for certificates of this authority only.
func TestAnExpiredClientIsTakenWithinItsGraceOnly(t *testing.T) {
	synctest.Test(t, graces)
}

func graces(t *testing.T) {
	a, err := identity.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	other, err := identity.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	leaf := func(a *identity.Authority, ttl time.Duration) *x509.Certificate {
		t.Helper()
		issued, err := a.IssueSpoke(request(t, ecKey(t)), "acme/eu-1", ttl)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(issued.DER)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	authority, err := x509.ParseCertificate(a.Authorities()[0])
	if err != nil {
		t.Fatal(err)
	}
	short, good := leaf(a, time.Minute), leaf(a, time.Hour)
	late := leaf(other, time.Minute)
	time.Sleep(10 * time.Minute)
	server, err := a.ServerTLS(nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	own, err := server.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name        string
		certificate *x509.Certificate
		grace       time.Duration
		good        bool
	}{
		{"valid", good, 0, true},
		{"expired, no grace", short, 0, false},
		{"expired, long ago", short, time.Minute, false},
		{"expired a moment ago", short, time.Hour, true},
		{"another authority's", leaf(other, time.Hour), time.Hour, false},
		{"another authority's, expired", late, time.Hour, false},
		{"the server's own", own.Leaf, time.Hour, false},
		{"the authority's", authority, time.Hour, false},
	} {
		cfg, err := a.ServerTLS(nil, c.grace)
		if err != nil {
			t.Fatal(err)
		}
		for _, resumed := range []bool{false, true} {
			err = cfg.VerifyConnection(tls.ConnectionState{PeerCertificates: []*x509.Certificate{c.certificate}, DidResume: resumed})
			if (err == nil) != c.good {
				t.Errorf("%s, resumed %v: %v, want it taken %v", c.name, resumed, err, c.good)
			}
		}
	}
}
