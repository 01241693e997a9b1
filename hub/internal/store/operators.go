package store

import (
	"bytes"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
)

// Operator is a person or a program that calls the hub. What it may do is this record's to say, whatever
// its certificate does; a certificate of an operator without a record speaks for nobody.
type Operator struct {
	Name        string
	Role        caller.Role
	Created     time.Time
	By          string   // who made it: "operator admin", "hub"
	Fingerprint [32]byte // of the newest certificate
	NotAfter    time.Time
	Issuer      string // of the newest certificate, as of Certificate; Operators passes it over
}

type operatorRecord struct {
	Role        string    `json:"role"`
	Created     time.Time `json:"created,omitzero"`
	By          string    `json:"by,omitempty"`
	Fingerprint []byte    `json:"fingerprint,omitempty"`
	NotAfter    time.Time `json:"notAfter,omitzero"`
}

func operatorOf(name string, r operatorRecord) (Operator, error) {
	o := Operator{Name: name, Created: r.Created, By: r.By, NotAfter: r.NotAfter}
	copy(o.Fingerprint[:], r.Fingerprint)
	var err error
	if o.Role, err = caller.ParseRole(r.Role); err != nil {
		return o, fmt.Errorf("operator %s: %w: %w", name, ErrCorrupt, err)
	}
	return o, nil
}

// Operators lists all, by name.
func (s *Store) Operators() (all []Operator, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		return each(tx.Bucket(bucketOperators), func(name string, r operatorRecord) error {
			o, err := operatorOf(name, r)
			all = append(all, o)
			return err
		})
	})
	return all, err
}

// AddOperator records an operator and its certificate; ErrExists for another of the name.
func (a Audited) AddOperator(o Operator) error {
	return a.update(func(tx *txn) error {
		if tx.Bucket(bucketOperators).Get([]byte(o.Name)) != nil {
			return fmt.Errorf("operator %s: %w", o.Name, ErrExists)
		}
		return a.s.putOperator(tx, o)
	})
}

// RemoveOperator forgets an operator and ends its certificates; ErrNotFound when there is none.
func (a Audited) RemoveOperator(name string) error {
	return a.update(func(tx *txn) error {
		if _, err := mustOperator(tx, name); err != nil {
			return err
		}
		if err := a.s.endOperator(tx, name); err != nil {
			return err
		}
		a.s.revokes(tx)
		return tx.Bucket(bucketOperators).Delete([]byte(name))
	})
}

// KeepOperator records a certificate of an operator that the hub has by itself, and the operator where it is
// not there yet. alone: its earlier certificates end.
func (s *Store) KeepOperator(o Operator, alone bool) error {
	return s.update(func(tx *txn) error {
		if alone {
			if err := s.endOperator(tx, o.Name); err != nil {
				return err
			}
			s.revokes(tx)
		}
		if rec, found, err := get[operatorRecord](tx.Bucket(bucketOperators), []byte(o.Name)); err != nil {
			return err
		} else if found {
			o.Created, o.By = rec.Created, rec.By
		}
		return s.putOperator(tx, o)
	})
}

func (s *Store) putOperator(tx *txn, o Operator) error {
	if o.Name == "" || o.Role.String() == "" {
		return fmt.Errorf("operator %q with role %q: both are needed", o.Name, o.Role)
	}
	rec := operatorRecord{Role: o.Role.String(), Created: utc(o.Created), By: o.By}
	if err := put(tx.Bucket(bucketOperators), []byte(o.Name), rec); err != nil {
		return err
	}
	return s.putIdentity(tx, o.Fingerprint, Identity{Operator: o.Name, NotAfter: o.NotAfter, Issuer: o.Issuer})
}

func mustOperator(tx buckets, name string) (operatorRecord, error) {
	rec, found, err := get[operatorRecord](tx.Bucket(bucketOperators), []byte(name))
	if err == nil && !found {
		err = fmt.Errorf("operator %s: %w", name, ErrNotFound)
	}
	return rec, err
}

// roleOf is what an operator's record lets it do now.
func roleOf(tx buckets, name string) (caller.Role, error) {
	rec, err := mustOperator(tx, name)
	if err != nil {
		return caller.Role{}, err
	}
	o, err := operatorOf(name, rec)
	return o.Role, err
}

// certified notes an operator's newest certificate.
func certified(tx *txn, name string, fingerprint [32]byte, notAfter time.Time) error {
	rec, err := mustOperator(tx, name)
	if err != nil {
		return fmt.Errorf("put identity: %w", err)
	}
	rec.Fingerprint, rec.NotAfter = fingerprint[:], notAfter
	return put(tx.Bucket(bucketOperators), []byte(name), rec)
}

// endOperator ends every certificate of an operator. It looks at all that there are: it happens rarely.
func (s *Store) endOperator(tx *txn, name string) error {
	b := tx.Bucket(bucketIdentities)
	var ended [][]byte
	err := b.ForEach(func(k, v []byte) error {
		rec, err := decode[identityRecord](v, k)
		if err == nil && rec.Operator == name {
			ended = append(ended, bytes.Clone(k))
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, k := range ended {
		if err := s.deleteIdentity(tx, k); err != nil {
			return fmt.Errorf("end a certificate of operator %s: %w", name, err)
		}
	}
	return nil
}

// addOperators is the step from schema 3: hubs of that schema knew one operator, who might do everything.
func addOperators(tx *bolt.Tx) error {
	if _, err := tx.CreateBucketIfNotExists(bucketOperators); err != nil {
		return fmt.Errorf("create bucket %s: %w", bucketOperators, err)
	}
	return tx.Bucket(bucketIdentities).ForEach(func(k, v []byte) error {
		id, err := decode[identityRecord](v, k)
		if err != nil || id.Operator == "" {
			return err
		}
		rec, found, err := get[operatorRecord](tx.Bucket(bucketOperators), []byte(id.Operator))
		if err != nil || found && !id.NotAfter.After(rec.NotAfter) {
			return err
		}
		return put(tx.Bucket(bucketOperators), []byte(id.Operator), operatorRecord{Role: string(caller.Admin), By: actorHub, Fingerprint: k, NotAfter: id.NotAfter})
	})
}

// actorHub is who did what no person did.
const actorHub = "hub"
