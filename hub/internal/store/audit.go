package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// auditRecord is what an entry's hash is over, after the hash before: its JSON, byte for byte, as written
// by encoding/json in this order of fields.
type auditRecord struct {
	Number     uint64    `json:"number"`
	At         time.Time `json:"at"`
	Actor      string    `json:"actor"`
	Credential string    `json:"credential,omitempty"`
	Action     string    `json:"action"`
	Object     string    `json:"object,omitempty"`
	Reason     string    `json:"reason,omitempty"`
}

// Record appends to the audit alone. An entry's Number, Previous, Hash and Record are the store's to give;
// without At it is now.
func (s *Store) Record(e fleet.Entry) error {
	return s.update(func(tx *txn) error { return appendEntries(tx, e) })
}

// Audited makes changes together with what is told and accounted for about them: all on disk, or nothing.
type Audited struct {
	s     *Store
	event fleet.Event
	entry fleet.Entry
}

// Audited is for one change.
func (s *Store) Audited(event fleet.Event, entry fleet.Entry) Audited {
	return Audited{s, event, entry}
}

func (a Audited) update(change func(*txn) error) error {
	return a.s.update(func(tx *txn) error {
		if err := change(tx); err != nil {
			return err
		}
		return appendAll(tx, []fleet.Event{a.event}, a.entry)
	})
}

// AddDistributionWith is the Store's.
func (a Audited) AddDistributionWith(d fleet.Distribution, settings Settings) error {
	return a.update(func(tx *txn) error { return a.s.addDistribution(tx, d, settings) })
}

// SetSigners says whose signatures the tags of a distribution need from now on; ErrNotFound when there is none.
func (a Audited) SetSigners(name string, signers fleet.Signers) error {
	return a.update(func(tx *txn) error { return setSigners(tx, name, signers) })
}

// RemoveDistribution is the Store's.
func (a Audited) RemoveDistribution(name string) error {
	return a.update(func(tx *txn) error { return a.s.removeDistribution(tx, name) })
}

// Invite is the Store's. asks: who redeems the token waits to be accepted.
func (a Audited) Invite(name fleet.Cluster, labels map[string]string, tokenID string, secretHash [32]byte, expires time.Time, asks bool) (rejoin bool, err error) {
	err = a.update(func(tx *txn) error {
		rejoin, err = a.s.invite(tx, name, labels, tokenID, secretHash, expires, asks)
		return err
	})
	return rejoin, err
}

// RemoveCluster is the Store's.
func (a Audited) RemoveCluster(name fleet.Cluster) error {
	return a.update(func(tx *txn) error { return a.s.removeCluster(tx, name) })
}

// appendEntries chains entries to the audit, in the transaction of the change that they are about. They are
// never changed and never dropped.
func appendEntries(tx *txn, entries ...fleet.Entry) error {
	b := tx.Bucket(bucketAudit)
	b.FillPercent = 0.9 // keys only ever grow
	for _, e := range entries {
		if e.Actor == "" || e.Action == "" {
			return fmt.Errorf("audit %q of %q by %q: who did what is needed", e.Action, e.Object, e.Actor)
		}
		if e.At.IsZero() {
			e.At = time.Now()
		}
		previous := entryHash(b.Cursor().Last())
		n, err := b.NextSequence() // counts on where the last entries were cut off, which leaves a gap to be seen
		if err != nil {
			return fmt.Errorf("number an audit entry: %w", err)
		}
		record, err := json.Marshal(auditRecord{Number: n, At: utc(e.At), Actor: e.Actor, Credential: e.Credential, Action: e.Action, Object: e.Object, Reason: e.Reason})
		if err != nil {
			return fmt.Errorf("audit entry %d: %w", n, err)
		}
		if err := b.Put(number(n), append(chain(previous, record), record...)); err != nil {
			return fmt.Errorf("audit entry %d: %w", n, err)
		}
	}
	return nil
}

func chain(previous, record []byte) []byte {
	h := sha256.New()
	_, _ = h.Write(previous) // never fails
	_, _ = h.Write(record)
	return h.Sum(nil)
}

// entryHash is what a stored entry begins with.
func entryHash(_, stored []byte) []byte { return bytes.Clone(stored[:min(sha256.Size, len(stored))]) }

// Audit lists entries in the order they were made: those numbered above after, at most limit of them, 0
// for all. It gives back what is stored, damaged or not: VerifyAudit tells.
func (s *Store) Audit(after uint64, limit int) (all []fleet.Entry, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketAudit).Cursor()
		k, v := c.Seek(number(after + 1))
		previous := []byte(nil)
		if k != nil {
			if _, before := c.Prev(); before != nil {
				previous = entryHash(nil, before)
			}
			k, v = c.Seek(number(after + 1))
		}
		for ; k != nil && (limit == 0 || len(all) < limit); k, v = c.Next() {
			e := entryOf(k, v, previous)
			previous = e.Hash
			all = append(all, e)
		}
		return nil
	})
	return all, err
}

// entryOf is what is stored, damaged or not.
func entryOf(k, v, previous []byte) fleet.Entry {
	e := fleet.Entry{Previous: previous, Hash: entryHash(nil, v), Record: bytes.Clone(v[min(sha256.Size, len(v)):])}
	var r auditRecord
	if json.Unmarshal(e.Record, &r) == nil {
		e.At, e.Actor, e.Credential, e.Action, e.Object, e.Reason = r.At, r.Actor, r.Credential, r.Action, r.Object, r.Reason
	}
	e.Number = numberOf(string(k))
	return e
}

// VerifyAudit checks that entries follow one another without a gap and are what was hashed. previous is the
// hash of the entry before the first of them; nil where that one is number 1. The error names the first
// that is not as it was written.
func VerifyAudit(entries []fleet.Entry, previous []byte) error {
	next := uint64(1)
	if previous != nil && len(entries) > 0 {
		next = entries[0].Number
	}
	for _, e := range entries {
		if err := verifyEntry(e, next, previous); err != nil {
			return fmt.Errorf("audit entry %d: %w; keep the hub's store as it is and compare with an earlier export", next, err)
		}
		previous = e.Hash
		next++
	}
	return nil
}

func verifyEntry(e fleet.Entry, want uint64, previous []byte) error {
	if e.Number != want {
		return fmt.Errorf("it is missing: the next there is has number %d", e.Number)
	}
	if !bytes.Equal(e.Previous, previous) {
		return errors.New("it does not follow the one before")
	}
	if !bytes.Equal(e.Hash, chain(previous, e.Record)) {
		return errors.New("its record is not what was hashed")
	}
	var r auditRecord
	if err := json.Unmarshal(e.Record, &r); err != nil {
		return fmt.Errorf("its record: %w", err)
	}
	shown := auditRecord{Number: e.Number, At: utc(e.At), Actor: e.Actor, Credential: e.Credential, Action: e.Action, Object: e.Object, Reason: e.Reason}
	if shown != r {
		return errors.New("it does not say what its record says")
	}
	return nil
}
