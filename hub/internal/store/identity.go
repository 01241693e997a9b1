package store

import (
	"bytes"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// tokenMemory is how long a token that is over is remembered, so that "used" and "expired" can be told
// from "unknown".
const tokenMemory = 7 * 24 * time.Hour

// Identity is whom a certificate speaks for: exactly one of Cluster, Operator and Relay is set.
type Identity struct {
	Cluster  fleet.Cluster // a spoke's
	Operator string        // a person's or a program's name
	Relay    string        // a relay's
	NotAfter time.Time
	Role     caller.Role // of the operator, as its record has it now; PutIdentity passes it over

	// Of a cluster's, as its record has them now; PutIdentity passes them over.
	Standing   Standing
	Why        string // it is in that standing
	Key        fleet.Fingerprint
	Generation uint64
	Issuer     string // pin of the authority's key that the certificate is of; empty: of the first one

	used   uint64 // the newest generation that was used
	usedAt time.Time
}

// Superseded: a newer certificate of the cluster was used.
func (id Identity) Superseded() bool { return id.Generation < id.used }

// Invite keeps the hash of a one-time token for the cluster, whose record it makes if it is new. labels
// that are given replace the earlier ones. rejoin: the cluster had joined before. Who redeems the token is
// accepted at once.
func (s *Store) Invite(name fleet.Cluster, labels map[string]string, tokenID string, secretHash [32]byte, expires time.Time) (rejoin bool, err error) {
	err = s.update(func(tx *txn) error {
		rejoin, err = s.invite(tx, name, labels, tokenID, secretHash, expires, false)
		return err
	})
	return rejoin, err
}

func (s *Store) invite(tx *txn, name fleet.Cluster, labels map[string]string, tokenID string, secretHash [32]byte, expires time.Time, asks bool) (rejoin bool, err error) {
	if _, err := fleet.ParseCluster(string(name)); err != nil {
		return false, fmt.Errorf("invite: %w", err)
	}
	now := utc(time.Now())
	b := tx.Bucket(bucketTokens)
	if b.Get([]byte(tokenID)) != nil {
		return false, fmt.Errorf("invite %s: token %s: %w", name, tokenID, ErrExists)
	}
	rec, err := s.invited(tx, name, labels, now)
	if err != nil {
		return false, err
	}
	return !rec.Joined.IsZero(), put(b, []byte(tokenID), tokenRecord{Cluster: name, SecretHash: secretHash[:], Expires: utc(expires), Asks: asks})
}

// Redeem spends a token: issue makes the certificate of the token's cluster for this key, the identity takes
// the place of every earlier one of that cluster, and the token is used, all in one transaction. An error of
// issue leaves the token unspent. Of calls at the same time exactly one wins. Errors: ErrTokenUnknown (also for
// a wrong secret), and with the cluster's name ErrTokenUsed, ErrTokenExpired and ErrKeyUsed.
func (s *Store) Redeem(tokenID string, secretHash [32]byte, key fleet.Fingerprint, now time.Time,
	issue func(fleet.Cluster) (Certificate, error)) (fleet.Cluster, error) {
	var cluster fleet.Cluster
	err := s.update(func(tx *txn) error {
		b := tx.Bucket(bucketTokens)
		t, found, err := get[tokenRecord](b, []byte(tokenID))
		switch {
		case err != nil:
			return err
		case !found || subtle.ConstantTimeCompare(t.SecretHash, secretHash[:]) != 1:
			return ErrTokenUnknown
		}
		cluster = t.Cluster
		switch {
		case !t.Used.IsZero():
			return ErrTokenUsed
		case !now.Before(t.Expires):
			return ErrTokenExpired
		}
		if err := spendKeys(tx, cluster, key); err != nil {
			return err
		}
		issued, err := issue(cluster)
		if err != nil {
			return err
		}
		t.Used = utc(now)
		if err := put(b, []byte(tokenID), t); err != nil {
			return err
		}
		return s.joined(tx, cluster, issued, key, t.Asks, utc(now))
	})
	if err != nil {
		return cluster, fmt.Errorf("redeem token: %w", err)
	}
	return cluster, nil
}

// Certificate is one that was just issued.
type Certificate struct {
	Fingerprint [32]byte // SHA-256 of its DER
	NotAfter    time.Time
	Issuer      string // pin of the authority's key that it is of
}

func (s *Store) joined(tx *txn, cluster fleet.Cluster, issued Certificate, key fleet.Fingerprint, asks bool, now time.Time) error {
	if err := s.endIdentities(tx, cluster); err != nil {
		return err
	}
	if err := s.endSession(tx, cluster); err != nil {
		return err
	}
	rec, err := mustCluster(tx, cluster)
	if err != nil {
		return err
	}
	rec.Joined, rec.LastSeen = now, now
	rec.Standing, rec.StandingWhy, rec.StandingSince, rec.Rivals = Accepted, "", time.Time{}, nil
	if asks {
		rec.Standing, rec.StandingSince = Pending, now
	}
	rec.Key, rec.Used, rec.UsedAt = keyBytes(key), rec.Generation+1, now // and putIdentity makes it that
	if err := s.putCluster(tx, cluster, rec); err != nil {
		return err
	}
	return s.putIdentity(tx, issued.Fingerprint, Identity{Cluster: cluster, NotAfter: issued.NotAfter, Key: key, Issuer: issued.Issuer})
}

// keyBytes is how a record has a fingerprint.
func keyBytes(k fleet.Fingerprint) []byte {
	if k == (fleet.Fingerprint{}) {
		return nil
	}
	return k[:]
}

// PutIdentity records whom a certificate speaks for. The cluster's earlier identities are kept until
// their own end. ErrNotFound for a cluster or an operator that is not there.
func (s *Store) PutIdentity(fingerprint [32]byte, id Identity) error {
	if (id.Cluster == "") == (id.Operator == "") {
		return errors.New("put identity: want a cluster or an operator")
	}
	return s.update(func(tx *txn) error { return s.putIdentity(tx, fingerprint, id) })
}

// Renewal is the next certificate of a spoke that holds another.
type Renewal struct {
	Current, Next [32]byte          // fingerprints of the certificates
	CurrentKey    fleet.Fingerprint // as it was presented: hubs of before did not record it
	Key           fleet.Fingerprint // of the next
	NotAfter      time.Time
	Issuer        string // as of Certificate
}

// RenewIdentity records the next certificate of a cluster. The present one counts until the next is first used;
// the answer may be lost on the way. Errors: ErrNotFound where the present one was ended or superseded in
// between, so that a renewal under way outlives neither a removal nor a re-join; ErrKeyUsed; ErrUnused.
func (s *Store) RenewIdentity(r Renewal) error {
	return s.update(func(tx *txn) error {
		rec, err := mustIdentity(tx, r.Current)
		if err != nil {
			return fmt.Errorf("renew: %w", err)
		}
		c, err := mustCluster(tx, rec.Cluster)
		if err != nil {
			return fmt.Errorf("renew: %w", err)
		}
		if rec.Generation < c.Used || c.Standing != Accepted {
			return fmt.Errorf("renew: certificate %d of %s is superseded: %w", rec.Generation, rec.Cluster, ErrNotFound)
		}
		if err := spendKeys(tx, rec.Cluster, r.Key, r.CurrentKey); err != nil {
			return fmt.Errorf("renew: %w", err)
		}
		if err := s.putIdentity(tx, r.Next, Identity{Cluster: rec.Cluster, NotAfter: r.NotAfter, Key: r.Key, Issuer: r.Issuer}); err != nil {
			return err
		}
		return fewUnused(tx, rec.Cluster)
	})
}

// fewUnused bounds what a spoke that asks again and again costs.
func fewUnused(tx *txn, cluster fleet.Cluster) error {
	c, err := mustCluster(tx, cluster)
	if err != nil {
		return err
	}
	unused := 0
	for _, f := range fingerprints(tx, cluster) {
		rec, _, err := get[identityRecord](tx.Bucket(bucketIdentities), f)
		if err != nil {
			return err
		}
		if rec.Generation > c.Used {
			unused++
		}
	}
	if unused > maxUnused {
		return fmt.Errorf("renew: %w: %d of %s", ErrUnused, unused, cluster)
	}
	return nil
}

// Identity finds whom a certificate speaks for; ErrNotFound when it speaks for nobody, or no longer.
// Whether it has expired is the caller's to see.
func (s *Store) Identity(fingerprint [32]byte) (id Identity, err error) {
	id, found := s.memory.identities.one(string(fingerprint[:]))
	switch {
	case !found:
		return Identity{}, noIdentity(fingerprint)
	case id.Operator != "":
		err = s.db.View(func(tx *bolt.Tx) error {
			id.Role, err = roleOf(tx, id.Operator)
			return err
		})
	case id.Cluster != "":
		c, found := s.memory.clusters.one(string(id.Cluster))
		if !found {
			return Identity{}, fmt.Errorf("certificate %s of cluster %s: %w", hex.EncodeToString(fingerprint[:6]), id.Cluster, ErrNotFound)
		}
		id.Standing, id.Why, id.used, id.usedAt = c.Standing, c.StandingWhy, c.Used, c.UsedAt
	}
	return id, err
}

func noIdentity(fingerprint [32]byte) error {
	return fmt.Errorf("certificate %s: %w", hex.EncodeToString(fingerprint[:6]), ErrNotFound)
}

// identityOf is what a record says by itself; a role and a standing are others' to give.
func identityOf(rec identityRecord) Identity {
	id := Identity{Cluster: rec.Cluster, Operator: rec.Operator, Relay: rec.Relay, NotAfter: rec.NotAfter, Generation: rec.Generation, Issuer: rec.Issuer}
	copy(id.Key[:], rec.Key)
	return id
}

func mustIdentity(tx buckets, fingerprint [32]byte) (identityRecord, error) {
	rec, found, err := get[identityRecord](tx.Bucket(bucketIdentities), fingerprint[:])
	if err == nil && !found {
		err = noIdentity(fingerprint)
	}
	return rec, err
}

// Edition grows after each change by which an answer of Identity may be another one: what was answered since it was
// read holds for as long as it stays. It is never 0.
func (s *Store) Edition() uint64 { return s.memory.edition.number.Load() }

// writeIdentity and deleteIdentity are the only ones that change the bucket: memory follows it.
func (s *Store) writeIdentity(tx *txn, fingerprint []byte, rec identityRecord) error {
	s.memory.edition.due = true
	s.memory.identities.put(string(fingerprint), identityOf(rec))
	return put(tx.Bucket(bucketIdentities), fingerprint, rec)
}

func (s *Store) deleteIdentity(tx *txn, fingerprint []byte) error {
	s.memory.edition.due = true
	s.memory.identities.drop(string(fingerprint))
	return tx.Bucket(bucketIdentities).Delete(fingerprint)
}

func (s *Store) putIdentity(tx *txn, fingerprint [32]byte, id Identity) error {
	id.NotAfter = utc(id.NotAfter)
	record := identityRecord{Cluster: id.Cluster, Operator: id.Operator, NotAfter: id.NotAfter, Key: keyBytes(id.Key), Issuer: id.Issuer}
	if id.Cluster == "" {
		if err := s.writeIdentity(tx, fingerprint[:], record); err != nil {
			return err
		}
		return certified(tx, id.Operator, fingerprint, id.NotAfter)
	}
	rec, err := mustCluster(tx, id.Cluster)
	if err != nil {
		return fmt.Errorf("put identity: %w", err)
	}
	rec.Generation++
	record.Generation = rec.Generation
	if err := s.writeIdentity(tx, fingerprint[:], record); err != nil {
		return err
	}
	rec.CertNotAfter = id.NotAfter
	if err := s.putCluster(tx, id.Cluster, rec); err != nil {
		return err
	}
	if err := s.dropExpired(tx, id.Cluster, time.Now()); err != nil {
		return err
	}
	return tx.Bucket(bucketFingerprints).Put(join(string(id.Cluster), string(fingerprint[:])), []byte{1})
}

// fingerprints lists the certificates of a cluster.
func fingerprints(tx buckets, cluster fleet.Cluster) (all [][]byte) {
	c, prefix := tx.Bucket(bucketFingerprints).Cursor(), join(string(cluster), "")
	for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		all = append(all, bytes.Clone(k[len(prefix):]))
	}
	return all
}

func (s *Store) dropIdentity(tx *txn, cluster fleet.Cluster, fingerprint []byte) error {
	if err := s.deleteIdentity(tx, fingerprint); err != nil {
		return err
	}
	return tx.Bucket(bucketFingerprints).Delete(join(string(cluster), string(fingerprint)))
}

func (s *Store) endIdentities(tx *txn, cluster fleet.Cluster) error {
	for _, f := range fingerprints(tx, cluster) {
		s.revokes(tx)
		if err := s.dropIdentity(tx, cluster, f); err != nil {
			return fmt.Errorf("end identities of %s: %w", cluster, err)
		}
	}
	return nil
}

// dropExpired keeps a cluster that renews twice a day from collecting records. A day's grace lets the
// server say "expired" rather than "unknown". The newest that was used stays, and what came after it: a spoke
// that slept may be let back in by it.
func (s *Store) dropExpired(tx *txn, cluster fleet.Cluster, now time.Time) error {
	c, err := mustCluster(tx, cluster)
	if err != nil {
		return err
	}
	for _, f := range fingerprints(tx, cluster) {
		rec, _, err := get[identityRecord](tx.Bucket(bucketIdentities), f)
		if err != nil {
			return err
		}
		if now.Sub(rec.NotAfter) < 24*time.Hour || rec.Generation >= c.Used && c.Used > 0 {
			continue
		}
		if err := s.dropIdentity(tx, cluster, f); err != nil {
			return fmt.Errorf("drop expired identity of %s: %w", cluster, err)
		}
	}
	return nil
}

func deleteTokens(tx *txn, which func(tokenRecord) bool) error {
	b := tx.Bucket(bucketTokens)
	var ids [][]byte
	err := b.ForEach(func(k, v []byte) error {
		t, err := decode[tokenRecord](v, k)
		if err == nil && which(t) {
			ids = append(ids, bytes.Clone(k))
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := b.Delete(id); err != nil {
			return fmt.Errorf("delete token: %w", err)
		}
	}
	return nil
}
