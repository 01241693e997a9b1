package store

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

type recallRecord struct {
	Reason   string    `json:"reason,omitempty"`
	By       string    `json:"by,omitempty"`
	At       time.Time `json:"at,omitzero"`
	RollBack bool      `json:"rollBack,omitempty"`
}

func recallOf(key string, r recallRecord) fleet.Recall {
	distribution, version, _ := strings.Cut(key, "\x00")
	return fleet.Recall{Distribution: distribution, Version: version, Reason: r.Reason, By: r.By, At: r.At, RollBack: r.RollBack}
}

type hubPinRecord struct {
	Version string    `json:"version"`
	Reason  string    `json:"reason,omitempty"`
	Author  string    `json:"author,omitempty"`
	Until   time.Time `json:"until,omitzero"`
	Created time.Time `json:"created,omitzero"`
}

func hubPinOf(key string, r hubPinRecord) fleet.HubPin {
	cluster, distribution, _ := strings.Cut(key, "\x00")
	return fleet.HubPin{Cluster: fleet.Cluster(cluster), Distribution: distribution, Version: r.Version, Reason: r.Reason, Author: r.Author,
		Until: r.Until, Created: r.Created}
}

type decisionRecord struct {
	Version  string    `json:"version"`
	Approved bool      `json:"approved,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	Author   string    `json:"author,omitempty"`
	At       time.Time `json:"at,omitzero"`
	Asked    time.Time `json:"asked,omitzero"`
}

func decisionOf(key string, r decisionRecord) fleet.HubDecision {
	cluster, distribution, _ := strings.Cut(key, "\x00")
	return fleet.HubDecision{Cluster: fleet.Cluster(cluster), Distribution: distribution, Version: r.Version, Approved: r.Approved, Reason: r.Reason,
		Author: r.Author, At: r.At, Asked: r.Asked}
}

// PutRecall records that a release is called back, for ever; a later word on the same release takes the
// earlier one's place. ErrNotFound for a release that was never judged.
func (s *Store) PutRecall(r fleet.Recall, events []fleet.Event, entry fleet.Entry) error {
	key := join(r.Distribution, r.Version)
	err := s.update(func(tx *txn) error {
		if tx.Bucket(bucketReleases).Get(key) == nil {
			return fmt.Errorf("release %s of %s: %w", r.Version, r.Distribution, ErrNotFound)
		}
		rec := recallRecord{Reason: r.Reason, By: r.By, At: utc(r.At), RollBack: r.RollBack}
		if err := put(tx.Bucket(bucketRecalls), key, rec); err != nil {
			return err
		}
		s.memory.recalls.put(recallOf(string(key), rec))
		return appendAll(tx, events, entry)
	})
	if err != nil {
		return fmt.Errorf("recall: %w", err)
	}
	return nil
}

// Recalls lists a distribution's recalls by version.
func (s *Store) Recalls(distribution string) (map[string]fleet.Recall, error) {
	byVersion := map[string]fleet.Recall{}
	for _, r := range s.memory.recalls.all() {
		if r.Distribution == distribution {
			byVersion[r.Version] = r
		}
	}
	return byVersion, nil
}

// PutPin records a pin that was made at the hub, in place of the subscription's earlier one. ErrNotFound for
// a cluster that is not there.
func (s *Store) PutPin(p fleet.HubPin, event fleet.Event, entry fleet.Entry) error {
	key := join(string(p.Cluster), p.Distribution)
	err := s.update(func(tx *txn) error {
		if _, err := mustCluster(tx, p.Cluster); err != nil {
			return err
		}
		rec := hubPinRecord{Version: p.Version, Reason: p.Reason, Author: p.Author, Until: utc(p.Until), Created: utc(p.Created)}
		if err := put(tx.Bucket(bucketPins), key, rec); err != nil {
			return err
		}
		s.memory.pins.put(hubPinOf(string(key), rec))
		return appendAll(tx, []fleet.Event{event}, entry)
	})
	if err != nil {
		return fmt.Errorf("pin: %w", err)
	}
	return nil
}

// DeletePin takes a pin away; ErrNotFound when there is none.
func (s *Store) DeletePin(cluster fleet.Cluster, distribution string, event fleet.Event, entry fleet.Entry) error {
	key := join(string(cluster), distribution)
	err := s.update(func(tx *txn) error {
		b := tx.Bucket(bucketPins)
		if b.Get(key) == nil {
			return fmt.Errorf("pin of %s on %s: %w", distribution, cluster, ErrNotFound)
		}
		s.memory.pins.drop(string(key))
		if err := b.Delete(key); err != nil {
			return err
		}
		return appendAll(tx, []fleet.Event{event}, entry)
	})
	if err != nil {
		return fmt.Errorf("unpin: %w", err)
	}
	return nil
}

// Pins lists those made at the hub, by cluster and distribution, the expired ones too.
func (s *Store) Pins() ([]fleet.HubPin, error) { return s.memory.pins.all(), nil }

// Pin finds the one of a subscription.
func (s *Store) Pin(cluster fleet.Cluster, distribution string) (p fleet.HubPin, found bool) {
	return s.memory.pins.one(string(join(string(cluster), distribution)))
}

// PutDecision records an answer for a provider, in place of the subscription's earlier one. ErrNotFound for
// a cluster that is not there.
func (s *Store) PutDecision(d fleet.HubDecision, event fleet.Event, entry fleet.Entry) error {
	key := join(string(d.Cluster), d.Distribution)
	err := s.update(func(tx *txn) error {
		if _, err := mustCluster(tx, d.Cluster); err != nil {
			return err
		}
		rec := decisionRecord{Version: d.Version, Approved: d.Approved, Reason: d.Reason, Author: d.Author, At: utc(d.At), Asked: utc(d.Asked)}
		if err := put(tx.Bucket(bucketDecisions), key, rec); err != nil {
			return err
		}
		s.memory.decisions.put(decisionOf(string(key), rec))
		return appendAll(tx, []fleet.Event{event}, entry)
	})
	if err != nil {
		return fmt.Errorf("decide: %w", err)
	}
	return nil
}

// Decisions lists the newest of each subscription, by cluster and distribution.
func (s *Store) Decisions() ([]fleet.HubDecision, error) { return s.memory.decisions.all(), nil }

// Decision finds the newest of a subscription.
func (s *Store) Decision(cluster fleet.Cluster, distribution string) (d fleet.HubDecision, found bool) {
	return s.memory.decisions.one(string(join(string(cluster), distribution)))
}

// forgetPins drops what was said at the hub for a cluster.
func (s *Store) forgetPins(tx *txn, cluster fleet.Cluster) error {
	prefix := join(string(cluster), "")
	for _, p := range []struct {
		bucket []byte
		drop   func(string)
	}{{bucketPins, s.memory.pins.drop}, {bucketDecisions, s.memory.decisions.drop}} {
		b := tx.Bucket(p.bucket)
		c := b.Cursor()
		for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = c.Next() {
			p.drop(string(k))
		}
		if err := deletePrefix(b, prefix); err != nil {
			return fmt.Errorf("forget pins and decisions of %s: %w", cluster, err)
		}
	}
	return nil
}

// appendAll records what is told and what is accounted for, in the transaction of the change.
func appendAll(tx *txn, events []fleet.Event, entries ...fleet.Entry) error {
	for _, e := range events {
		if err := appendEvent(tx, e); err != nil {
			return err
		}
	}
	return appendEntries(tx, entries...)
}
