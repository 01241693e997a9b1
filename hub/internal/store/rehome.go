package store

import (
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// bucketReHomes is made with the first re-home.
const bucketReHomes = "rehomes" // cluster -> reHomeRecord, the last one; the history is in the events

type reHomeRecord struct {
	Signed   []byte            `json:"signed"`
	Nonce    string            `json:"nonce"`
	To       string            `json:"to"`
	Reason   string            `json:"reason,omitempty"`
	Keys     []string          `json:"keys,omitempty"`
	By       string            `json:"by,omitempty"`
	Sent     time.Time         `json:"sent,omitzero"`
	Issued   time.Time         `json:"issued,omitzero"`
	Expires  time.Time         `json:"expires,omitzero"`
	Said     fleet.ReHomeState `json:"said,omitempty"`
	Answer   string            `json:"answer,omitempty"`
	Answered time.Time         `json:"answered,omitzero"`
}

func reHomeOf(cluster fleet.Cluster, r reHomeRecord) fleet.SignedReHome {
	return fleet.SignedReHome{Cluster: cluster, Signed: r.Signed, Nonce: r.Nonce, To: r.To, Reason: r.Reason, Keys: r.Keys, By: r.By, Sent: r.Sent,
		Issued: r.Issued, Expires: r.Expires, Said: r.Said, Answer: r.Answer, Answered: r.Answered}
}

// PutReHome keeps a re-home that was handed over; it takes the place of the cluster's last one. ErrNotFound for a
// cluster that is not there, ErrExists where the same is on its way, or was taken.
func (a Audited) PutReHome(r fleet.SignedReHome) error {
	return a.update(func(tx *txn) error {
		if _, err := mustCluster(tx, r.Cluster); err != nil {
			return err
		}
		b, err := tx.CreateBucketIfNotExists([]byte(bucketReHomes))
		if err != nil {
			return fmt.Errorf("create bucket %s: %w", bucketReHomes, err)
		}
		before, found, err := get[reHomeRecord](b, []byte(r.Cluster))
		if err != nil {
			return err
		}
		if found && before.Nonce == r.Nonce && before.Said != fleet.ReHomeRefused {
			return fmt.Errorf("re-home %s: %w", r.Nonce, ErrExists)
		}
		return a.s.writeReHome(tx, b, r.Cluster, reHomeRecord{Signed: r.Signed, Nonce: r.Nonce, To: r.To, Reason: r.Reason, Keys: r.Keys, By: r.By,
			Sent: utc(r.Sent), Issued: utc(r.Issued), Expires: utc(r.Expires)})
	})
}

// writeReHome and forgetReHome are the only ones that change the bucket: memory follows it.
func (s *Store) writeReHome(tx *txn, b *bolt.Bucket, cluster fleet.Cluster, rec reHomeRecord) error {
	s.memory.reHomes.put(reHomeOf(cluster, rec))
	return put(b, []byte(cluster), rec)
}

// ReHome is the last one of a cluster, from memory; found is false where there is none.
func (s *Store) ReHome(cluster fleet.Cluster) (r fleet.SignedReHome, found bool, err error) {
	r, found = s.memory.reHomes.one(string(cluster))
	return r, found, nil
}

// ReHomes lists the last one of each cluster, by cluster, from memory. The list is the caller's.
func (s *Store) ReHomes() ([]fleet.SignedReHome, error) {
	return slices.Clone(s.memory.reHomes.all()), nil
}

// answerReHomes notes what a cluster's spoke says of the re-home that it was sent last.
func (s *Store) answerReHomes(tx *txn, cluster fleet.Cluster, events []fleet.Event) error {
	b := tx.Bucket([]byte(bucketReHomes))
	if b == nil {
		return nil
	}
	for _, e := range events {
		if e.ReHome == nil {
			continue
		}
		rec, found, err := get[reHomeRecord](b, []byte(cluster))
		if err != nil {
			return err
		}
		if !found || rec.Nonce != e.ReHome.Nonce || rec.Said != "" && rec.Said != fleet.ReHomeMoving {
			continue
		}
		rec.Said, rec.Answer, rec.Answered = e.ReHome.State, e.Message, utc(e.At)
		if err := s.writeReHome(tx, b, cluster, rec); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) forgetReHome(tx *txn, cluster fleet.Cluster) error {
	b := tx.Bucket([]byte(bucketReHomes))
	if b == nil {
		return nil
	}
	s.memory.reHomes.drop(string(cluster))
	return b.Delete([]byte(cluster))
}
