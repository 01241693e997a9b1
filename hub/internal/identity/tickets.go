package identity

import (
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"sync"
	"time"
)

// ticketDays is how long a session may be resumed: TLS 1.3 allows seven days.
const ticketDays = 7

// tickets seal what a client needs to resume its session, which spares both sides most of a handshake: a
// hub that comes back is dialled by all of its spokes at once. The keys follow from the one that the hub shows
// itself under, one for each day, so that they outlive the process and need no file of their own. Whom a resumed session speaks for
// is asked of the store as for any other: its certificate comes with it.
type tickets struct {
	authority *Authority

	mu   sync.Mutex
	root root
	day  int64
	keys *tls.Config // holds keys only
}

// current are the keys of today, with which tickets are sealed, and of the days before.
func (t *tickets) current() (*tls.Config, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	day := time.Now().Unix() / int64((24 * time.Hour).Seconds())
	shown := t.authority.shown()
	if t.keys != nil && t.day == day && t.root == shown {
		return t.keys, nil
	}
	secret, err := x509.MarshalPKCS8PrivateKey(shown.key)
	if err != nil {
		return nil, fmt.Errorf("derive session keys: %w", err)
	}
	var keys [ticketDays][32]byte
	for n := range keys {
		key, err := hkdf.Key(sha256.New, secret, nil, "wheelwright session tickets "+string(binary.BigEndian.AppendUint64(nil, uint64(day-int64(n)))), len(keys[n]))
		if err != nil {
			return nil, fmt.Errorf("derive session keys: %w", err)
		}
		copy(keys[n][:], key)
	}
	t.keys, t.day, t.root = &tls.Config{MinVersion: tls.VersionTLS13}, day, shown
	t.keys.SetSessionTicketKeys(keys[:])
	return t.keys, nil
}

func (t *tickets) wrap(c tls.ConnectionState, s *tls.SessionState) ([]byte, error) {
	keys, err := t.current()
	if err != nil {
		return nil, err
	}
	return keys.EncryptTicket(c, s)
}

func (t *tickets) unwrap(ticket []byte, c tls.ConnectionState) (*tls.SessionState, error) {
	keys, err := t.current()
	if err != nil {
		return nil, err
	}
	return keys.DecryptTicket(ticket, c)
}
