// Package store keeps everything that the hub must not forget in one bbolt file: distributions,
// releases and their judgement, clusters, tokens, identities, installations, events, rollouts, recalls, pins
// and the audit. What a method has returned without an error survives kill -9 and power loss. It holds no
// bundles (those are blobs beside it), decides nothing about rollouts, and never stores a heartbeat.
//
// All writes go through one group commit, which makes a transaction of whatever waits; heartbeats, sessions of a spoke
// that is known, and news that is none write nothing. The history of events is bounded, and each list of it costs what
// it shows. The audit is kept whole.
//
// What is asked for all the time is answered from memory, which is read at Open and follows the file after
// each commit. Such answers are shared: nobody may change them.
//
// Exported methods open a transaction, unexported functions take one. Records are private structs in
// JSON under a schema number; neither wire messages nor pkg/fleet's structs are a storage format.
package store

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Opening.
var (
	// ErrLocked: another process has the file.
	ErrLocked = errors.New("in use by another process")
	// ErrNewerSchema: a newer hub wrote the file.
	ErrNewerSchema = errors.New("written by a newer hub")
	// ErrClosed: nothing is written any more.
	ErrClosed = errors.New("the store is closed")
	// ErrCorrupt: the file, or a record in it, cannot be read.
	ErrCorrupt = errors.New("damaged")
)

// Records.
var (
	ErrExists   = errors.New("exists already")
	ErrNotFound = errors.New("not found")
)

// Redeeming a token.
var (
	ErrTokenUnknown = errors.New("the token is unknown")
	ErrTokenUsed    = errors.New("the token was used already")
	ErrTokenExpired = errors.New("the token has expired")
)

// Buckets.
var (
	bucketMeta          = []byte("meta")          // "format", "schema"
	bucketDistributions = []byte("distributions") // name -> distributionRecord
	bucketRevisions     = []byte("revisions")     // distribution -> uint64; outlives the distribution
	bucketReleases      = []byte("releases")      // distribution NUL version -> releaseRecord; outlives the distribution
	bucketDigests       = []byte("digests")       // digest of an available release -> its releases key
	bucketClusters      = []byte("clusters")      // name -> clusterRecord
	bucketTokens        = []byte("tokens")        // id -> tokenRecord
	bucketIdentities    = []byte("identities")    // fingerprint -> identityRecord
	bucketOperators     = []byte("operators")     // name -> operatorRecord
	bucketFingerprints  = []byte("fingerprints")  // cluster NUL fingerprint -> 1: a cluster's identities
	bucketInstallations = []byte("installations") // cluster -> []installationRecord; journals may have newer health
	bucketJournals      = []byte("journals")      // cluster NUL journal id -> journalRecord
	bucketEvents        = []byte("events")        // big-endian id -> eventRecord
	bucketPreflights    = []byte("preflights")    // cluster NUL distribution NUL version -> preflightRecord
	bucketOffered       = []byte("offered")       // distribution NUL version -> offeredRecord; outlives the distribution
	bucketRollouts      = []byte("rollouts")      // big-endian id -> rolloutRecord; outlives the distribution
	bucketMembers       = []byte("members")       // big-endian rollout id NUL cluster -> memberRecord; outlives the cluster
	bucketRecalls       = []byte("recalls")       // distribution NUL version -> recallRecord; outlives the distribution
	bucketPins          = []byte("pins")          // cluster NUL distribution -> hubPinRecord
	bucketDecisions     = []byte("decisions")     // cluster NUL distribution -> decisionRecord
	bucketAudit         = []byte("audit")         // big-endian number -> hash and auditRecord
)

// Store is safe for concurrent use.
type Store struct {
	db      *bolt.DB
	log     *slog.Logger
	memory  *memory
	commits committer
	keep    atomic.Pointer[History]

	revoked chan struct{}
}

// Close stores what was kept in memory, and waits for transactions under way.
func (s *Store) Close() error {
	err := s.Heard(nil)
	if errors.Is(err, ErrClosed) {
		return nil
	}
	s.commits.close()
	return errors.Join(err, s.close())
}

func (s *Store) close() error {
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("close store %s: %w", s.db.Path(), err)
	}
	return nil
}

// get reads one record; found is false when there is none.
func get[T any](b *bolt.Bucket, key []byte) (record T, found bool, err error) {
	data := b.Get(key)
	if data == nil {
		return record, false, nil
	}
	record, err = decode[T](data, key)
	return record, err == nil, err
}

func decode[T any](data, key []byte) (record T, err error) {
	if err := json.Unmarshal(data, &record); err != nil {
		return record, fmt.Errorf("record %q: %w: %w", key, ErrCorrupt, err)
	}
	return record, nil
}

func put(b *bolt.Bucket, key []byte, record any) error {
	data, err := encode(record)
	if err != nil {
		return fmt.Errorf("record %q: %w", key, err)
	}
	return b.Put(key, data)
}

// join makes the key of something that belongs to owner. No name holds a NUL.
func join(owner, rest string) []byte { return []byte(owner + "\x00" + rest) }

// number makes a key that sorts as the number does.
func number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// numberOf reads the number that a key begins with.
func numberOf(key string) uint64 {
	var b [8]byte
	copy(b[:], key) // a damaged key may be shorter
	return binary.BigEndian.Uint64(b[:])
}

// utc drops the monotonic clock and the zone, neither of which is stored.
func utc(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Round(0)
}
