package store

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

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
func (s *Store) revokes(tx *bolt.Tx) {
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
	err = s.db.Update(func(tx *bolt.Tx) error { return s.use(tx, fingerprint, now) })
	if err != nil {
		return id, fmt.Errorf("record the use of a certificate: %w", err)
	}
	return s.Identity(fingerprint)
}

func (s *Store) use(tx *bolt.Tx, fingerprint [32]byte, now time.Time) error {
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

// Session records that a session begins: instance and number are the spoke's, of its Hello. A number that is
// not above the one before, and another instance, are a copy's, and put the cluster into quarantine; ErrLate
// where it may have been no more than late. A spoke of before says neither; once one did, all have to.
func (s *Store) Session(cluster fleet.Cluster, instance string, n uint64, now time.Time) error {
	if instance == "" && !s.hasSession(cluster) {
		return nil
	}
	late := false
	err := s.db.Batch(func(tx *bolt.Tx) error {
		late = false // a batch may run this again
		b, err := tx.CreateBucketIfNotExists([]byte(bucketSessions))
		if err != nil {
			return err
		}
		rec, found, err := get[sessionRecord](b, []byte(cluster))
		if err != nil || !found && instance == "" {
			return err
		}
		if !found || rec.Instance == instance && n > rec.Number {
			return put(b, []byte(cluster), sessionRecord{Instance: instance, Number: n, At: utc(now), Late: rec.Late})
		}
		if late = true; instance == "" {
			return nil // a program of before, put back in place of a newer one: no copy could gain by it
		}
		c, err := mustCluster(tx, cluster)
		if err != nil || c.Standing != Accepted {
			return err
		}
		if rec.Instance == instance && now.Sub(rec.At) < overlap && now.Sub(rec.Late) >= lateness {
			rec.Late = utc(now)
			return put(b, []byte(cluster), rec)
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

func (s *Store) hasSession(cluster fleet.Cluster) (has bool) {
	_ = s.db.View(func(tx *bolt.Tx) error { // an error would be this function's own
		b := tx.Bucket([]byte(bucketSessions))
		has = b != nil && b.Get([]byte(cluster)) != nil
		return nil
	})
	return has
}

// quarantine stops serving a cluster: both copies. rival is the key of the one that gave it away.
func (s *Store) quarantine(tx *bolt.Tx, cluster fleet.Cluster, c clusterRecord, why string, rival []byte, now time.Time) error {
	c.Standing, c.StandingWhy, c.StandingSince, c.Rivals = Quarantined, why, utc(now), nil
	if len(rival) > 0 && !bytes.Equal(rival, c.Key) {
		c.Rivals = [][]byte{rival}
	}
	if err := s.putCluster(tx, cluster, c); err != nil {
		return err
	}
	s.revokes(tx)
	_, err := appendEvent(tx, fleet.Event{At: utc(now), Cluster: cluster, Kind: fleet.EventIdentity,
		Message: fmt.Sprintf("put in quarantine: %s; it gets nothing until `hub cluster accept %s` or a new `hub cluster invite %s`", why, cluster, cluster)})
	return err
}

// AcceptCluster lets in the identity that waits, or one of those in quarantine: the one with this key, or, for
// the zero Fingerprint, the only one there is. The certificates of its other keys end. Errors: ErrNotFound,
// ErrStanding, ErrFingerprint.
func (a Audited) AcceptCluster(name fleet.Cluster, key fleet.Fingerprint) error {
	return a.update(func(tx *bolt.Tx) error { return a.s.accept(tx, name, key) })
}

func (s *Store) accept(tx *bolt.Tx, name fleet.Cluster, key fleet.Fingerprint) error {
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
func (s *Store) settle(tx *bolt.Tx, name fleet.Cluster, c *clusterRecord, key fleet.Fingerprint) error {
	for _, f := range fingerprints(tx, name) {
		rec, _, err := get[identityRecord](tx.Bucket(bucketIdentities), f)
		if err != nil {
			return err
		}
		if !bytes.Equal(rec.Key, key[:]) && !(len(rec.Key) == 0 && key == (fleet.Fingerprint{})) {
			if err := dropIdentity(tx, name, f); err != nil {
				return err
			}
			continue
		}
		c.Used, c.Key = rec.Generation, rec.Key
	}
	return endSession(tx, name)
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
	return a.update(func(tx *bolt.Tx) error {
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
		if err := endSession(tx, name); err != nil {
			return err
		}
		c.Standing, c.StandingWhy, c.StandingSince, c.Rivals = Rejected, why, utc(now), nil
		return a.s.putCluster(tx, name, c)
	})
}

func endSession(tx *bolt.Tx, cluster fleet.Cluster) error {
	if b := tx.Bucket([]byte(bucketSessions)); b != nil {
		return b.Delete([]byte(cluster))
	}
	return nil
}

// spendKeys refuses a key that the cluster has had, and remembers it and those that it is known to have by now.
// The zero key is passed over.
func spendKeys(tx *bolt.Tx, cluster fleet.Cluster, key fleet.Fingerprint, known ...fleet.Fingerprint) error {
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
	return b.Put([]byte(cluster), append(all, key[:keyPrefix]...))
}
