package store

import (
	"crypto/subtle"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
)

// bucketRelays is made when the first relay is invited: name -> relayRecord.
const bucketRelays = "relays"

// Relay is one that was invited, and what is known of its certificate once it has joined.
type Relay struct {
	Name     string
	Hosts    []string // that its own certificate is for
	Created  time.Time
	By       string    // who invited it: "operator admin"
	Joined   time.Time // the last time; zero before the first
	NotAfter time.Time // of its newest certificate
}

type relayRecord struct {
	Hosts        []string     `json:"hosts"`
	Created      time.Time    `json:"created,omitzero"`
	By           string       `json:"by,omitempty"`
	Joined       time.Time    `json:"joined,omitzero"`
	NotAfter     time.Time    `json:"notAfter,omitzero"`
	Certificates [][]byte     `json:"certificates,omitempty"` // fingerprints of those that count, the newest last; at most two
	Token        *tokenRecord `json:"token,omitempty"`        // the last; its cluster is empty
	TokenID      string       `json:"tokenID,omitempty"`
}

func relayOf(name string, r relayRecord) Relay {
	return Relay{Name: name, Hosts: r.Hosts, Created: r.Created, By: r.By, Joined: r.Joined, NotAfter: r.NotAfter}
}

func eachRelay(tx buckets, do func(name string, r relayRecord) error) error {
	if b := tx.Bucket([]byte(bucketRelays)); b != nil {
		return each(b, do)
	}
	return nil
}

func mustRelay(tx buckets, name string) (rec relayRecord, err error) {
	found := false
	if b := tx.Bucket([]byte(bucketRelays)); b != nil {
		rec, found, err = get[relayRecord](b, []byte(name))
	}
	if err == nil && !found {
		err = fmt.Errorf("relay %s: %w", name, ErrNotFound)
	}
	return rec, err
}

func putRelay(tx *txn, name string, rec relayRecord) error {
	return put(tx.Bucket([]byte(bucketRelays)), []byte(name), rec)
}

// Relays lists all, by name.
func (s *Store) Relays() (all []Relay, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		return eachRelay(tx, func(name string, r relayRecord) error {
			all = append(all, relayOf(name, r))
			return nil
		})
	})
	return all, err
}

// InviteRelay keeps the hash of a one-time token for a relay, in place of the one before, and its record where it is
// new. rejoin: it has joined before.
func (a Audited) InviteRelay(r Relay, tokenID string, secretHash [32]byte, expires time.Time) (rejoin bool, err error) {
	err = a.update(func(tx *txn) error {
		b, err := tx.CreateBucketIfNotExists([]byte(bucketRelays))
		if err != nil {
			return fmt.Errorf("create bucket %s: %w", bucketRelays, err)
		}
		rec, found, err := get[relayRecord](b, []byte(r.Name))
		if err != nil {
			return err
		}
		if !found {
			rec.Created, rec.By = utc(r.Created), r.By
		}
		rejoin = !rec.Joined.IsZero()
		rec.Hosts, rec.TokenID, rec.Token = r.Hosts, tokenID, &tokenRecord{SecretHash: secretHash[:], Expires: utc(expires)}
		return putRelay(tx, r.Name, rec)
	})
	return rejoin, err
}

// RedeemRelay spends a relay's token, as Redeem does a cluster's: issue makes its certificate, which takes the place of
// every earlier one. Errors: ErrTokenUnknown, ErrTokenUsed, ErrTokenExpired.
func (s *Store) RedeemRelay(tokenID string, secretHash [32]byte, now time.Time, issue func(Relay) (Certificate, error)) (name string, err error) {
	err = s.update(func(tx *txn) error {
		var rec relayRecord
		err := eachRelay(tx, func(n string, r relayRecord) error {
			if r.Token != nil && r.TokenID == tokenID && subtle.ConstantTimeCompare(r.Token.SecretHash, secretHash[:]) == 1 {
				name, rec = n, r
			}
			return nil
		})
		switch {
		case err != nil:
			return err
		case name == "":
			return ErrTokenUnknown
		case !rec.Token.Used.IsZero():
			return ErrTokenUsed
		case !now.Before(rec.Token.Expires):
			return ErrTokenExpired
		}
		issued, err := issue(relayOf(name, rec))
		if err != nil {
			return err
		}
		if err := s.endRelay(tx, &rec); err != nil {
			return err
		}
		rec.Token.Used, rec.Joined = utc(now), utc(now)
		return s.certifyRelay(tx, name, rec, issued)
	})
	if err != nil {
		return name, fmt.Errorf("redeem token: %w", err)
	}
	return name, nil
}

// RenewRelay records a relay's next certificate, which issue makes. Only the one of the call counts beside it.
// ErrNotFound where the relay was removed or joined anew meanwhile.
func (s *Store) RenewRelay(current [32]byte, issue func(Relay) (Certificate, error)) error {
	return s.update(func(tx *txn) error {
		id, err := mustIdentity(tx, current)
		if err != nil {
			return fmt.Errorf("renew: %w", err)
		}
		rec, err := mustRelay(tx, id.Relay)
		if err != nil {
			return fmt.Errorf("renew: %w", err)
		}
		issued, err := issue(relayOf(id.Relay, rec))
		if err != nil {
			return err
		}
		kept := rec.Certificates[:0:0]
		for _, f := range rec.Certificates {
			if [32]byte(f) == current {
				kept = append(kept, f)
			} else if err := s.deleteIdentity(tx, f); err != nil {
				return err
			}
		}
		rec.Certificates = kept
		return s.certifyRelay(tx, id.Relay, rec, issued)
	})
}

func (s *Store) certifyRelay(tx *txn, name string, rec relayRecord, c Certificate) error {
	record := identityRecord{Relay: name, NotAfter: utc(c.NotAfter), Issuer: c.Issuer}
	if err := s.writeIdentity(tx, c.Fingerprint[:], record); err != nil {
		return err
	}
	rec.NotAfter, rec.Certificates = utc(c.NotAfter), append(rec.Certificates, c.Fingerprint[:])
	return putRelay(tx, name, rec)
}

// RemoveRelay forgets a relay and ends its certificates; ErrNotFound when there is none.
func (a Audited) RemoveRelay(name string) error {
	return a.update(func(tx *txn) error {
		rec, err := mustRelay(tx, name)
		if err != nil {
			return fmt.Errorf("remove: %w", err)
		}
		if err := a.s.endRelay(tx, &rec); err != nil {
			return err
		}
		return tx.Bucket([]byte(bucketRelays)).Delete([]byte(name))
	})
}

func (s *Store) endRelay(tx *txn, rec *relayRecord) error {
	for _, f := range rec.Certificates {
		if err := s.deleteIdentity(tx, f); err != nil {
			return fmt.Errorf("end a relay's certificates: %w", err)
		}
	}
	rec.Certificates = nil
	s.revokes(tx)
	return nil
}
