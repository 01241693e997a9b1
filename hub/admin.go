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

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
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
// identity that the hub knows as the admin's and that does not end soon. Where there is none, every earlier
// certificate of the admin ends.
func (a admin) ensure(now time.Time) error {
	want := clientcontext.Context{Address: a.address, CA: certificatesPEM(a.authority.Authorities())}
	have, missing := clientcontext.Load(a.path)
	if missing == nil && a.good(have, now) {
		if have.Address == want.Address && have.CA == want.CA {
			return nil
		}
		want.Certificate, want.Key = have.Certificate, have.Key
	} else {
		if missing != nil && !errors.Is(missing, fs.ErrNotExist) {
			a.log.Warn("admin context is made anew", slog.String(logging.Path, a.path), slog.Any(logging.Error, missing))
		}
		cert, key, err := a.authority.IssueOperator(adminName, adminLife)
		if err != nil {
			return fmt.Errorf("admin context: %w", err)
		}
		// A file that was taken away is how the owner of the folder ends copies of it.
		alone := errors.Is(missing, fs.ErrNotExist)
		o := store.Operator{Name: adminName, Role: caller.Role{Kind: caller.Admin}, Created: now, By: "hub", Fingerprint: cert.Fingerprint, NotAfter: cert.NotAfter, Issuer: cert.Issuer}
		if err := a.store.KeepOperator(o, alone); err != nil {
			return fmt.Errorf("admin context: %w", err)
		}
		want.Certificate, want.Key = string(cert.PEM()), string(key)
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
	// Of the newest key: while the authority is rotated, the admin's certificate outlives the old one.
	pool, all := x509.NewCertPool(), a.authority.Authorities()
	pool.AppendCertsFromPEM([]byte(certificatesPEM(all[len(all)-1:])))
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return false
	}
	id, err := a.store.Identity(sha256.Sum256(leaf.Raw))
	return err == nil && id.Operator == adminName && id.Role.Kind == caller.Admin
}

func certificatesPEM(certificates [][]byte) string {
	var b bytes.Buffer
	for _, der := range certificates {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	return b.String()
}
