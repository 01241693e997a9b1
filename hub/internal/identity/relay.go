package identity

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// RelayCertificates are what a relay is known by: one key, two certificates. As a client it follows the newest key of
// the authority; what it shows spokes comes from the key that everybody trusts, as the hub's own does.
type RelayCertificates struct {
	Client Certificate
	Server []byte // DER
}

// IssueRelay answers a PKCS#10 request in DER, of which only the public key is used. The server's certificate is for
// these hosts; both carry the URI wheelwright://relay/NAME. Errors are ErrRequest where the request is at fault.
func (a *Authority) IssueRelay(csrDER []byte, name string, hosts []string, ttl time.Duration) (RelayCertificates, error) {
	public, err := requestKey(csrDER)
	if err != nil {
		return RelayCertificates{}, err
	}
	fail := func(err error) (RelayCertificates, error) {
		return RelayCertificates{}, fmt.Errorf("issue certificates of relay %s: %w", name, err)
	}
	l := leaf{name: "relay " + name, uri: &url.URL{Scheme: "wheelwright", Host: "relay", Path: "/" + name}, usage: x509.ExtKeyUsageClientAuth, ttl: ttl}
	client, err := a.issue(public, l)
	if err != nil {
		return fail(err)
	}
	l.hosts, l.usage = hosts, x509.ExtKeyUsageServerAuth
	server, err := a.shown().issue(public, l)
	if err != nil {
		return fail(err)
	}
	return RelayCertificates{Client: client, Server: server.Raw}, nil
}

// VerifyClient accepts a certificate that one of these authorities issued for a client and that is valid now.
func VerifyClient(leaf *x509.Certificate, authorities *x509.CertPool, now time.Time) error {
	return verifyClient(leaf, authorities, now, 0)
}

// ErrTicket: it is not one that this hub made, or it is over.
var ErrTicket = errors.New("the ticket is not of this hub, or it is over")

// maxTicketLife is how long a ticket may be good for: the key that it is sealed under is of a day, and today's and
// yesterday's open.
const maxTicketLife = 24 * time.Hour

// RelayTicket is what a spoke's channels through a relay are opened with, and the hub remembers nowhere.
type RelayTicket struct {
	Certificate [32]byte          // SHA-256 of the spoke's, DER
	Key         fleet.Fingerprint // of its key
	Secret      [32]byte          // that channels' keys are derived from
}

// SealTicket encloses a ticket so that only this hub can read it, until a time within a day. The keys follow from the
// authority's newest, one for each day, as those of TLS sessions do from the one that is shown: they outlive the
// process, and the key that is retired.
func (a *Authority) SealTicket(t RelayTicket, now, until time.Time) ([]byte, error) {
	if until.Sub(now) > maxTicketLife {
		return nil, fmt.Errorf("seal ticket: it is to last %v, want at most %v", until.Sub(now), maxTicketLife)
	}
	day := dayOf(now)
	aead, err := a.issuing().ticketKey(day)
	if err != nil {
		return nil, err
	}
	ticket := binary.BigEndian.AppendUint32(nil, day)
	nonce := make([]byte, aead.NonceSize())
	_, _ = rand.Read(nonce) // never fails: crypto/rand ends the process instead
	ticket = append(ticket, nonce...)
	content := binary.BigEndian.AppendUint64(nil, uint64(until.Unix()))
	for _, part := range [][]byte{t.Certificate[:], t.Key[:], t.Secret[:]} {
		content = append(content, part...)
	}
	return aead.Seal(ticket, nonce, content, ticket[:4]), nil
}

// OpenTicket is what SealTicket enclosed. ErrTicket.
func (a *Authority) OpenTicket(ticket []byte, now time.Time) (t RelayTicket, err error) {
	if len(ticket) < 4 {
		return t, ErrTicket
	}
	day, today := binary.BigEndian.Uint32(ticket), dayOf(now)
	if day != today && day+1 != today {
		return t, ErrTicket
	}
	a.mu.RLock()
	roots := a.roots
	a.mu.RUnlock()
	for _, r := range roots {
		aead, err := r.ticketKey(day)
		if err != nil {
			return t, err
		}
		if len(ticket) < 4+aead.NonceSize() {
			return t, ErrTicket
		}
		content, err := aead.Open(nil, ticket[4:4+aead.NonceSize()], ticket[4+aead.NonceSize():], ticket[:4])
		if err != nil || len(content) != 8+3*32 {
			continue
		}
		if now.Unix() >= int64(binary.BigEndian.Uint64(content)) {
			return t, ErrTicket
		}
		copy(t.Certificate[:], content[8:])
		copy(t.Key[:], content[8+32:])
		copy(t.Secret[:], content[8+64:])
		return t, nil
	}
	return t, ErrTicket
}

func dayOf(t time.Time) uint32 { return uint32(t.Unix() / int64((24 * time.Hour).Seconds())) }

func (r root) ticketKey(day uint32) (cipher.AEAD, error) {
	secret, err := x509.MarshalPKCS8PrivateKey(r.key)
	if err != nil {
		return nil, fmt.Errorf("derive ticket key: %w", err)
	}
	key, err := hkdf.Key(sha256.New, secret, nil, "wheelwright relay tickets "+string(binary.BigEndian.AppendUint32(nil, day)), 32)
	if err != nil {
		return nil, fmt.Errorf("derive ticket key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("derive ticket key: %w", err)
	}
	return cipher.NewGCM(block)
}
