package hub

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/clientcontext"
	"github.com/wheelwright-dev/wheelwright/hub/internal/identity"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
)

const (
	adminName = "admin"
	adminLife = 365 * 24 * time.Hour
	// adminRenew is how much of its life is left when the admin's certificate is made anew.
	adminRenew = 30 * 24 * time.Hour
)

// admin keeps the context file with which whoever owns the data folder operates the hub.
type admin struct {
	path      string
	address   string
	store     *store.Store
	authority *identity.Authority
	log       *slog.Logger
}

// ensure writes the file unless the one that is there still works: same address and authority, and an
// identity that the hub knows and that does not end soon.
func (a admin) ensure(now time.Time) error {
	want := clientcontext.Context{Address: a.address, CA: certificatesPEM(a.authority.Authorities())}
	have, err := clientcontext.Load(a.path)
	if err == nil && a.good(have, now) {
		if have.Address == want.Address && have.CA == want.CA {
			return nil
		}
		want.Certificate, want.Key = have.Certificate, have.Key
	} else {
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			a.log.Warn("admin context is made anew", slog.String(logging.Path, a.path), slog.Any(logging.Error, err))
		}
		cert, key, fingerprint, notAfter, err := a.authority.IssueOperator(adminName, adminLife)
		if err != nil {
			return fmt.Errorf("admin context: %w", err)
		}
		if err := a.store.PutIdentity(fingerprint, store.Identity{Operator: adminName, NotAfter: notAfter}); err != nil {
			return fmt.Errorf("admin context: %w", err)
		}
		want.Certificate, want.Key = string(cert), string(key)
	}
	return clientcontext.Save(a.path, want)
}

func (a admin) good(c clientcontext.Context, now time.Time) bool {
	pair, err := tls.X509KeyPair([]byte(c.Certificate), []byte(c.Key))
	if err != nil {
		return false
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil || leaf.NotAfter.Before(now.Add(adminRenew)) {
		return false
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(certificatesPEM(a.authority.Authorities())))
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return false
	}
	id, err := a.store.Identity(sha256.Sum256(leaf.Raw))
	return err == nil && id.Operator != ""
}

func certificatesPEM(certificates [][]byte) string {
	var b bytes.Buffer
	for _, der := range certificates {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	return b.String()
}
