package store

import (
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// Holder is who has a certificate that counts: exactly one of Cluster, Operator and Relay is set.
type Holder struct {
	Cluster  fleet.Cluster
	Operator string
	Relay    string
	Issuer   string // pin of the authority's key that it is of; empty: of the first one
	NotAfter time.Time
}

// Holders lists the clusters' certificates that were used last and the operators' and relays' newest, by name.
func (s *Store) Holders() (all []Holder, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		err := each(tx.Bucket(bucketClusters), func(name string, c clusterRecord) error {
			for _, f := range fingerprints(tx, fleet.Cluster(name)) {
				id, err := mustIdentity(tx, [32]byte(f))
				if err != nil {
					return err
				}
				if id.Generation == c.Used {
					all = append(all, Holder{Cluster: id.Cluster, Issuer: id.Issuer, NotAfter: id.NotAfter})
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		err = each(tx.Bucket(bucketOperators), func(name string, o operatorRecord) error {
			if len(o.Fingerprint) != len([32]byte{}) {
				return nil // the record of one that never had a certificate
			}
			id, err := mustIdentity(tx, [32]byte(o.Fingerprint))
			if err != nil {
				return err
			}
			all = append(all, Holder{Operator: name, Issuer: id.Issuer, NotAfter: id.NotAfter})
			return nil
		})
		if err != nil {
			return err
		}
		return eachRelay(tx, func(name string, r relayRecord) error {
			if len(r.Certificates) == 0 {
				return nil
			}
			id, err := mustIdentity(tx, [32]byte(r.Certificates[len(r.Certificates)-1]))
			if err != nil {
				return err
			}
			all = append(all, Holder{Relay: name, Issuer: id.Issuer, NotAfter: id.NotAfter})
			return nil
		})
	})
	return all, err
}

// Invitations counts the tokens that may still be redeemed, and says until when.
func (s *Store) Invitations(now time.Time) (n int, last time.Time, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		return each(tx.Bucket(bucketTokens), func(_ string, t tokenRecord) error {
			if !t.Used.IsZero() || !now.Before(t.Expires) {
				return nil
			}
			if n++; t.Expires.After(last) {
				last = t.Expires
			}
			return nil
		})
	})
	return n, last, err
}

// RenewOperator records a further certificate of an operator; ErrNotFound when there is none of the name. The
// certificates before count until their end.
func (a Audited) RenewOperator(name string, c Certificate) error {
	return a.update(func(tx *txn) error {
		return a.s.putIdentity(tx, c.Fingerprint, Identity{Operator: name, NotAfter: c.NotAfter, Issuer: c.Issuer})
	})
}

// Along has do, whose effect is elsewhere, done together with its event and its entry: where it fails nothing is
// recorded.
func (a Audited) Along(do func() error) error {
	return a.update(func(*txn) error { return do() })
}
