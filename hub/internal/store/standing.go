package store

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// Standing is whether a cluster's identity is served.
type Standing string

const (
	Accepted    Standing = ""            // or none joined yet
	Pending     Standing = "Pending"     // joined, and nobody has compared the fingerprint of its key yet
	Quarantined Standing = "Quarantined" // used in two places
	Rejected    Standing = "Rejected"    // turned away; it has no identity any more
)

const (
	// overlap is how long after the first use of a newer certificate, or of a newer session, the one before may
	// still come in and be no more than late: a connection that was under way, a packet that took long. It is
	// refused all the same.
	overlap = time.Minute
	// lateness is the time within which a second session that is late is not believed to be.
	lateness = time.Hour
	// maxUnused is how many certificates a cluster may have that it never used: each is the answer to a renewal
	// that was lost on the way.
	maxUnused = 32
	// keyPrefix is how many bytes of a fingerprint are remembered of each key that a cluster has had. A false
	// match costs its finder a new key.
	keyPrefix = 16
	// maxKeys bounds them; a spoke renews about twice a day.
	maxKeys = 1024
)

// Buckets that are made when they are first needed: hubs of before have none.
const (
	bucketKeys     = "keys"     // cluster -> prefixes of its keys' fingerprints, one after the other; outlives the cluster
	bucketSessions = "sessions" // cluster -> sessionRecord
)

var (
	// ErrKeyUsed: the cluster has had this key before.
	ErrKeyUsed = errors.New("the cluster has had this key before")
	// ErrUnused: many certificates were issued for the cluster and none of them was used.
	ErrUnused = errors.New("certificates were issued and not used")
	// ErrLate: a session of this cluster with a higher number was there already; this one is not served.
	ErrLate = errors.New("a later session of this identity was there already")
	// ErrStanding: the cluster's identity is not in the standing that this needs.
	ErrStanding = errors.New("nothing waits")
	// ErrFingerprint: the key is another one, or there are several to choose from.
	ErrFingerprint = errors.New("which key")
)

// sessionRecord is the newest session of a cluster's identity.
type sessionRecord struct {
	Instance string    `json:"instance"`
	Number   uint64    `json:"number"`
	At       time.Time `json:"at,omitzero"`
	Late     time.Time `json:"late,omitzero"` // when one came that was late
}

// Revoked receives after an identity ended, lost its standing or was superseded; notices that come faster than
// they are read become one. It is for one reader.
func (s *Store) Revoked() <-chan struct{} { return s.revoked }

// revokes tells, once tx is on disk, that who is connected has to be looked at again.
func (s *Store) revokes(tx *txn) {
	tx.OnCommit(func() {
		select {
		case s.revoked <- struct{}{}:
		default:
		}
	})
}

// Use is Identity at the start of a call. The first use of a newer certificate is recorded, and supersedes the
// ones before; the use of a superseded one is a copy's, and puts the cluster into quarantine.
func (s *Store) Use(fingerprint [32]byte, now time.Time) (Identity, error) {
	id, err := s.Identity(fingerprint)
	if err != nil || id.Cluster == "" || id.Generation == id.used {
		return id, err
	}
	if id.Superseded() && (id.Standing != Accepted || now.Sub(id.usedAt) < overlap) {
		return id, nil
	}
	err = s.update(func(tx *txn) error { return s.use(tx, fingerprint, now) })
	if err != nil {
		return id, fmt.Errorf("record the use of a certificate: %w", err)
	}
	return s.Identity(fingerprint)
}

func (s *Store) use(tx *txn, fingerprint [32]byte, now time.Time) error {
	id, err := mustIdentity(tx, fingerprint)
	if err != nil {
		return err
	}
	c, err := mustCluster(tx, id.Cluster)
	if err != nil {
		return err
	}
	switch {
	case id.Generation > c.Used:
		// Streams under the certificate before end with their next message; there is nothing new for them to take.
		c.Used, c.UsedAt, c.Key = id.Generation, utc(now), id.Key
		return s.putCluster(tx, id.Cluster, c)
	case id.Generation < c.Used && c.Standing == Accepted && now.Sub(c.UsedAt) >= overlap:
		why := fmt.Sprintf("certificate %d was used after certificate %d: there are two copies of its identity", id.Generation, c.Used)
		return s.quarantine(tx, id.Cluster, c, why, id.Key, now)
	}
	return nil
}

// Session counts that a session begins: instance and number are the spoke's, of its Hello. A number that is
// not above the one before, and another instance, are a copy's, and put the cluster into quarantine; ErrLate
// where it may have been no more than late. A spoke of before says neither; once one did, all have to.
//
// The next session of the same instance is what every spoke of a fleet opens when its hub comes back, and is
// counted in memory only: Heard, Close and whatever else writes of the cluster store it. The first one, another
// instance and all that is suspect are on disk before they are answered. So after a kill -9 the number to be above
// is the last that was stored, at most minutes old. That loses no copy for good, it finds it later: of two that
// count on from one number, each connection ends the other's, the other comes back with a number of its own, and
// the one that is behind is not above the one ahead. A copy gets past only if the original is never heard of again
// and the copy was made within those minutes; then nobody is left to be taken for it.
func (s *Store) Session(cluster fleet.Cluster, instance string, n uint64, now time.Time) error {
	if s.memory.sessions.next(cluster, instance, n, now) {
		return nil
	}
	late := false
	err := s.share(func(tx *txn) error {
		late = false // it may run again
		rec, found := s.memory.sessions.latest(cluster)
		if !found && instance == "" {
			return untouched{}
		}
		if !found || rec.Instance == instance && n > rec.Number {
			return s.putSession(tx, cluster, sessionRecord{Instance: instance, Number: n, At: utc(now), Late: rec.Late})
		}
		if late = true; instance == "" {
			return untouched{} // a program of before, put back in place of a newer one: no copy could gain by it
		}
		c, err := mustCluster(tx, cluster)
		if err != nil || c.Standing != Accepted {
			return untouched{err}
		}
		if rec.Instance == instance && now.Sub(rec.At) < overlap && now.Sub(rec.Late) >= lateness {
			rec.Late = utc(now)
			return s.putSession(tx, cluster, rec)
		}
		why := fmt.Sprintf("session %d was opened after session %d: there are two copies of its identity", n, rec.Number)
		switch {
		case rec.Instance == instance && n == rec.Number:
			why = fmt.Sprintf("session %d was opened twice: there are two copies of its identity", n)
		case rec.Instance != instance:
			why = "a session came from another data folder: there are two copies of its identity"
		}
		return s.quarantine(tx, cluster, c, why, c.Key, now)
	})
	switch {
	case err != nil:
		return fmt.Errorf("record session %d of %s: %w", n, cluster, err)
	case late:
		return fmt.Errorf("session %d of %s: %w", n, cluster, ErrLate)
	}
	return nil
}

// sessions are the newest of each cluster, on disk or not yet.
type sessions struct {
	mu      sync.Mutex
	rows    map[fleet.Cluster]sessionRecord
	news    map[fleet.Cluster]bool // newer than on disk
	pending pending[sessionRecord] // the writer's
}

// next counts the next session of the instance that there was; false: it is another case.
func (s *sessions) next(cluster fleet.Cluster, instance string, n uint64, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec, found := s.rows[cluster]
	if !found {
		return instance == "" // a spoke of before
	}
	if rec.Instance != instance || n <= rec.Number {
		return false
	}
	rec.Number, rec.At = n, utc(now)
	s.rows[cluster], s.news[cluster] = rec, true
	return true
}

// latest is one as the transaction under way sees it.
func (s *sessions) latest(cluster fleet.Cluster) (sessionRecord, bool) {
	if row, found, known := s.pending.latest(string(cluster)); known {
		return row, found
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	row, found := s.rows[cluster]
	return row, found
}

// newer is a cluster's, where it is not on disk.
func (s *sessions) newer(cluster fleet.Cluster) (sessionRecord, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rows[cluster], s.news[cluster]
}

// unstored are the clusters of which one is not on disk, by name.
func (s *sessions) unstored() []fleet.Cluster {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.news))
}

func (s *sessions) forget() { clear(s.pending) }

// commit leaves a number alone that was counted up since.
func (s *sessions) commit() {
	if len(s.pending) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, stored := range s.pending {
		cluster := fleet.Cluster(name)
		switch row, found := s.rows[cluster]; {
		case stored == nil:
			delete(s.rows, cluster)
			delete(s.news, cluster)
		case found && row.Instance == stored.Instance && row.Number > stored.Number:
			row.Late = stored.Late
			s.rows[cluster] = row
		default:
			s.rows[cluster] = *stored
			delete(s.news, cluster)
		}
	}
	clear(s.pending)
}

func (s *Store) putSession(tx *txn, cluster fleet.Cluster, rec sessionRecord) error {
	b, err := tx.CreateBucketIfNotExists([]byte(bucketSessions))
	if err != nil {
		return err
	}
	s.memory.sessions.pending[string(cluster)] = &rec
	return put(b, []byte(cluster), rec)
}

// keepSession stores the newest session of a cluster that is written anyway.
func (s *Store) keepSession(tx *txn, cluster fleet.Cluster) error {
	if rec, news := s.memory.sessions.newer(cluster); news {
		return s.putSession(tx, cluster, rec)
	}
	return nil
}

// quarantine stops serving a cluster: both copies. rival is the key of the one that gave it away.
func (s *Store) quarantine(tx *txn, cluster fleet.Cluster, c clusterRecord, why string, rival []byte, now time.Time) error {
	c.Standing, c.StandingWhy, c.StandingSince, c.Rivals = Quarantined, why, utc(now), nil
	if len(rival) > 0 && !bytes.Equal(rival, c.Key) {
		c.Rivals = [][]byte{rival}
	}
	if err := s.putCluster(tx, cluster, c); err != nil {
		return err
	}
	s.revokes(tx)
	return appendEvent(tx, fleet.Event{At: utc(now), Cluster: cluster, Kind: fleet.EventIdentity,
		Message: fmt.Sprintf("put in quarantine: %s; it gets nothing until `hub cluster accept %s` or a new `hub cluster invite %s`", why, cluster, cluster)})
}

// AcceptCluster lets in the identity that waits, or one of those in quarantine: the one with this key, or, for
// the zero Fingerprint, the only one there is. The certificates of its other keys end. Errors: ErrNotFound,
// ErrStanding, ErrFingerprint.
func (a Audited) AcceptCluster(name fleet.Cluster, key fleet.Fingerprint) error {
	return a.update(func(tx *txn) error { return a.s.accept(tx, name, key) })
}

func (s *Store) accept(tx *txn, name fleet.Cluster, key fleet.Fingerprint) error {
	c, err := mustCluster(tx, name)
	if err != nil {
		return fmt.Errorf("accept: %w", err)
	}
	if err := acceptable(clusterOf(string(name), c), key); err != nil {
		return err
	}
	if key == (fleet.Fingerprint{}) {
		copy(key[:], c.Key)
	}
	if c.Standing == Quarantined {
		if err := s.settle(tx, name, &c, key); err != nil {
			return err
		}
	}
	c.Standing, c.StandingWhy, c.Rivals, c.StandingSince = Accepted, "", nil, time.Time{}
	s.revokes(tx)
	return s.putCluster(tx, name, c)
}

// settle ends what a quarantine was about: certificates of other keys end, and sessions count from anew.
func (s *Store) settle(tx *txn, name fleet.Cluster, c *clusterRecord, key fleet.Fingerprint) error {
	for _, f := range fingerprints(tx, name) {
		rec, _, err := get[identityRecord](tx.Bucket(bucketIdentities), f)
		if err != nil {
			return err
		}
		if !bytes.Equal(rec.Key, key[:]) && !(len(rec.Key) == 0 && key == (fleet.Fingerprint{})) {
			if err := s.dropIdentity(tx, name, f); err != nil {
				return err
			}
			continue
		}
		c.Used, c.Key = rec.Generation, rec.Key
	}
	return s.endSession(tx, name)
}

// Acceptable says whether AcceptCluster would do it.
func Acceptable(c Cluster, key fleet.Fingerprint) error { return acceptable(c, key) }

func acceptable(c Cluster, key fleet.Fingerprint) error {
	if c.Standing != Pending && c.Standing != Quarantined {
		return fmt.Errorf("accept %s: %w", c.Name, ErrStanding)
	}
	if key == (fleet.Fingerprint{}) {
		if len(c.Rivals) > 0 {
			return fmt.Errorf("accept %s: %w: there are %d", c.Name, ErrFingerprint, 1+len(c.Rivals))
		}
		return nil
	}
	for _, k := range append([]fleet.Fingerprint{c.Key}, c.Rivals...) {
		if k.Equal(key) {
			return nil
		}
	}
	return fmt.Errorf("accept %s: %w: none has the fingerprint %s", c.Name, ErrFingerprint, key)
}

// RejectCluster ends the identity of a cluster and keeps its record. Errors: ErrNotFound; ErrStanding where it
// has none.
func (a Audited) RejectCluster(name fleet.Cluster, why string, now time.Time) error {
	return a.update(func(tx *txn) error {
		c, err := mustCluster(tx, name)
		if err != nil {
			return fmt.Errorf("reject: %w", err)
		}
		if len(fingerprints(tx, name)) == 0 {
			return fmt.Errorf("reject %s: %w", name, ErrStanding)
		}
		if err := a.s.endIdentities(tx, name); err != nil {
			return err
		}
		if err := a.s.endSession(tx, name); err != nil {
			return err
		}
		c.Standing, c.StandingWhy, c.StandingSince, c.Rivals = Rejected, why, utc(now), nil
		return a.s.putCluster(tx, name, c)
	})
}

func (s *Store) endSession(tx *txn, cluster fleet.Cluster) error {
	s.memory.sessions.pending[string(cluster)] = nil
	if b := tx.Bucket([]byte(bucketSessions)); b != nil {
		return b.Delete([]byte(cluster))
	}
	return nil
}

// spendKeys refuses a key that the cluster has had, and remembers it and those that it is known to have by now:
// the newest maxKeys, which is more than a year of renewals. The zero key is passed over.
func spendKeys(tx *txn, cluster fleet.Cluster, key fleet.Fingerprint, known ...fleet.Fingerprint) error {
	b, err := tx.CreateBucketIfNotExists([]byte(bucketKeys))
	if err != nil {
		return err
	}
	all := bytes.Clone(b.Get([]byte(cluster)))
	had := func(k fleet.Fingerprint) bool {
		for i := 0; i+keyPrefix <= len(all); i += keyPrefix {
			if bytes.Equal(all[i:i+keyPrefix], k[:keyPrefix]) {
				return true
			}
		}
		return false
	}
	for _, k := range known {
		if k != (fleet.Fingerprint{}) && !had(k) {
			all = append(all, k[:keyPrefix]...)
		}
	}
	if key == (fleet.Fingerprint{}) {
		return nil
	}
	if had(key) {
		return fmt.Errorf("%w: %s", ErrKeyUsed, key)
	}
	all = append(all, key[:keyPrefix]...)
	return b.Put([]byte(cluster), all[max(0, len(all)-maxKeys*keyPrefix):])
}
