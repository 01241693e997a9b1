package identity_test

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/identity"
)

// client is somebody whom an authority gave a certificate and, with it, what to trust.
func client(t *testing.T, a *identity.Authority) *tls.Config {
	t.Helper()
	key := ecKey(t)
	c, err := a.IssueSpoke(request(t, key), "acme/eu-1", time.Hour)
	must(t, err)
	return &tls.Config{RootCAs: pool(t, a), ServerName: "localhost", Certificates: []tls.Certificate{{Certificate: [][]byte{c.DER}, PrivateKey: key}}}
}

func meets(t *testing.T, server *tls.Config, client *tls.Config) (chain []*x509.Certificate, ok bool) {
	t.Helper()
	chain, clientErr, serverErr := shake(t, server, client)
	return chain, clientErr == nil && serverErr == nil
}

func rootOf(chain []*x509.Certificate) string {
	sum := sha256.Sum256(chain[len(chain)-1].RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// Under one listener, and over restarts: whoever has a certificate of either key is served until the old one is retired.
func TestTheAuthorityIsRotatedWithoutAGap(t *testing.T) {
	for _, restarts := range []bool{false, true} {
		dir := filepath.Join(t.TempDir(), "authority")
		a, err := identity.Open(dir)
		must(t, err)
		server, err := a.ServerTLS(nil, 0)
		must(t, err)
		restart := func() {
			if restarts {
				a, err = identity.Open(dir)
				must(t, err)
				server, err = a.ServerTLS(nil, 0)
				must(t, err)
			}
		}
		first, early := a.Pin(), client(t, a)
		if err := a.Retire(); !errors.Is(err, identity.ErrNotRotating) {
			t.Errorf("retired the only key: %v", err)
		}
		changed := a.Changed()
		second, err := a.Rotate()
		must(t, err)
		<-changed
		if _, err := a.Rotate(); !errors.Is(err, identity.ErrRotating) {
			t.Errorf("rotated twice: %v", err)
		}
		restart()
		if !slices.Equal(a.Pins(), []string{first, second}) || a.Pin() != first {
			t.Errorf("pins %v, shown %s; want %s, then %s", a.Pins(), a.Pin(), first, second)
		}
		late := client(t, a)
		for name, c := range map[string]*tls.Config{"of the old key": early, "of the new key": late} {
			if chain, ok := meets(t, server, c); !ok || rootOf(chain) != first {
				t.Errorf("restarts %v, while it is rotated, %s: met %v", restarts, name, ok)
			}
		}
		changed = a.Changed()
		must(t, a.Retire())
		<-changed
		restart()
		if !slices.Equal(a.Pins(), []string{second}) || a.Pin() != second {
			t.Errorf("pins %v, shown %s; want %s alone", a.Pins(), a.Pin(), second)
		}
		if chain, ok := meets(t, server, late); !ok || rootOf(chain) != second {
			t.Errorf("restarts %v, after it, of the new key: met %v", restarts, ok)
		}
		if _, ok := meets(t, server, early); ok {
			t.Errorf("restarts %v, after it, of the old key: still served", restarts)
		}
		forged := early.Clone()
		forged.RootCAs = late.RootCAs
		if _, ok := meets(t, server, forged); ok {
			t.Errorf("restarts %v: a certificate of the retired key is taken", restarts)
		}
		entries, err := os.ReadDir(dir)
		must(t, err)
		if len(entries) != 1 {
			t.Errorf("%d files, want one", len(entries))
		}
	}
}

// A kill is before the new file is in its place, or after: what lies beside it is no content.
func TestAKilledRotationIsDoneOrNot(t *testing.T) {
	dir := t.TempDir()
	a, err := identity.Open(dir)
	must(t, err)
	path := filepath.Join(dir, "authority.pem")
	before, err := os.ReadFile(path)
	must(t, err)
	_, err = a.Rotate()
	must(t, err)
	after, err := os.ReadFile(path)
	must(t, err)
	for n := range len(after) {
		if n%97 != 0 && n != len(after)-1 {
			continue
		}
		must(t, os.WriteFile(path, before, 0o600))
		must(t, os.WriteFile(path+".new-1", after[:n], 0o600))
		b, err := identity.Open(dir)
		must(t, err)
		if len(b.Pins()) != 1 || b.Pin() != a.Pin() {
			t.Fatalf("killed after %d bytes: pins %v", n, b.Pins())
		}
	}
	must(t, os.WriteFile(path, after, 0o600))
	b, err := identity.Open(dir)
	must(t, err)
	if !slices.Equal(b.Pins(), a.Pins()) {
		t.Errorf("pins %v, want %v", b.Pins(), a.Pins())
	}
}

// Nobody has to be there when the old one ends.
func TestAnOldKeyThatEndsIsNotShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		a, err := identity.Open(dir)
		must(t, err)
		time.Sleep(5 * 365 * 24 * time.Hour)
		second, err := a.Rotate()
		must(t, err)
		time.Sleep(6 * 365 * 24 * time.Hour)
		if a.Pin() != second {
			t.Error("the hub shows itself under a key that has ended")
		}
		b, err := identity.Open(dir)
		must(t, err)
		if b.Pin() != second || len(b.Roots()) != 2 || !b.Roots()[1].Shown || b.Roots()[0].Shown {
			t.Errorf("roots %+v", b.Roots())
		}
	})
}
