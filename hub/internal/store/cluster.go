package store

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// Cluster is what the hub knows of a cluster apart from what it runs.
type Cluster struct {
	Name              fleet.Cluster
	Labels            map[string]string
	Created, Joined   time.Time // Joined: the last time; zero before the first
	SpokeVersion      string
	KubernetesVersion string
	CertNotAfter      time.Time // of the newest certificate
	LastSeen          time.Time // as of the last durable write; presence knows better of those connected

	Standing      Standing
	StandingWhy   string
	StandingSince time.Time
	Key           fleet.Fingerprint   // of the key that is used, or that waits; zero where it is not known
	Rivals        []fleet.Fingerprint // of others, in quarantine
	Generation    uint64              // of its newest certificate
	Used          uint64              // of the newest that was used
	UsedAt        time.Time           // for the first time
}

func clusterOf(name string, r clusterRecord) Cluster {
	c := Cluster{
		Name: fleet.Cluster(name), Labels: r.Labels, Created: r.Created, Joined: r.Joined, SpokeVersion: r.SpokeVersion,
		KubernetesVersion: r.KubernetesVersion, CertNotAfter: r.CertNotAfter, LastSeen: r.LastSeen,
		Standing: r.Standing, StandingWhy: r.StandingWhy, StandingSince: r.StandingSince, Generation: r.Generation, Used: r.Used, UsedAt: r.UsedAt,
	}
	copy(c.Key[:], r.Key)
	for _, k := range r.Rivals {
		c.Rivals = append(c.Rivals, fleet.Fingerprint(append(bytes.Clone(k), make([]byte, len(c.Key))...)[:len(c.Key)]))
	}
	return c
}

// Clusters lists all, by name, from memory.
func (s *Store) Clusters() ([]Cluster, error) { return s.memory.clusters.all(), nil }

// Cluster finds one, in memory; ErrNotFound when there is none.
func (s *Store) Cluster(name fleet.Cluster) (Cluster, error) {
	c, found := s.memory.clusters.one(string(name))
	if !found {
		return c, fmt.Errorf("cluster %s: %w", name, ErrNotFound)
	}
	return c, nil
}

func mustCluster(tx *bolt.Tx, name fleet.Cluster) (clusterRecord, error) {
	rec, found, err := get[clusterRecord](tx.Bucket(bucketClusters), []byte(name))
	if err == nil && !found {
		err = fmt.Errorf("cluster %s: %w", name, ErrNotFound)
	}
	return rec, err
}

func (s *Store) putCluster(tx *bolt.Tx, name fleet.Cluster, rec clusterRecord) error {
	s.memory.clusters.put(tx, clusterOf(string(name), rec))
	return put(tx.Bucket(bucketClusters), []byte(name), rec)
}

func (s *Store) putInstallations(tx *bolt.Tx, cluster fleet.Cluster, list []installationRecord) error {
	s.memory.installations.put(tx, cluster, installationsOf(list, &s.memory.windows))
	return put(tx.Bucket(bucketInstallations), []byte(cluster), list)
}

// RemoveCluster forgets a cluster with its identities, tokens, installations, pre-flights, journals, pins and
// decisions; its events and its part in rollouts stay. ErrNotFound when there is none.
func (s *Store) RemoveCluster(name fleet.Cluster) error {
	return s.db.Update(func(tx *bolt.Tx) error { return s.removeCluster(tx, name) })
}

func (s *Store) removeCluster(tx *bolt.Tx, name fleet.Cluster) error {
	if _, err := mustCluster(tx, name); err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	if err := s.endIdentities(tx, name); err != nil {
		return err
	}
	if err := endSession(tx, name); err != nil {
		return err
	}
	err := deleteTokens(tx, func(t tokenRecord) bool { return t.Cluster == name })
	if err != nil {
		return err
	}
	if err := deletePrefix(tx.Bucket(bucketJournals), join(string(name), "")); err != nil {
		return err
	}
	if err := deletePrefix(tx.Bucket(bucketPreflights), join(string(name), "")); err != nil {
		return err
	}
	if err := s.forgetPins(tx, name); err != nil {
		return err
	}
	if err := s.forgetOrders(tx, name); err != nil {
		return err
	}
	if err := forgetReHome(tx, name); err != nil {
		return err
	}
	s.memory.installations.drop(tx, name)
	if err := tx.Bucket(bucketInstallations).Delete([]byte(name)); err != nil {
		return err
	}
	s.memory.clusters.drop(tx, string(name))
	return tx.Bucket(bucketClusters).Delete([]byte(name))
}

// Hello records what a spoke says of itself when it connects: subs is its full list of subscriptions
// and replaces the earlier one. When nothing but the age of the news changed, nothing is written, so that
// a fleet that reconnects to a restarted hub costs no disk.
func (s *Store) Hello(cluster fleet.Cluster, spokeVersion, kubernetesVersion string, subs []fleet.Installation) error {
	list := make([]installationRecord, 0, len(subs))
	for _, sub := range subs {
		list = append(list, installationRecordOf(sub))
	}
	same := false
	err := s.db.View(func(tx *bolt.Tx) error {
		rec, err := mustCluster(tx, cluster)
		if err != nil {
			return err
		}
		old, found, err := get[[]installationRecord](tx.Bucket(bucketInstallations), []byte(cluster))
		same = found && rec.SpokeVersion == spokeVersion && rec.KubernetesVersion == kubernetesVersion && sameNews(old, list)
		return err
	})
	if err != nil || same {
		return err
	}
	return s.db.Batch(func(tx *bolt.Tx) error {
		rec, err := mustCluster(tx, cluster)
		if err != nil {
			return err
		}
		rec.SpokeVersion, rec.KubernetesVersion, rec.LastSeen = spokeVersion, kubernetesVersion, utc(time.Now())
		if err := s.putCluster(tx, cluster, rec); err != nil {
			return err
		}
		return s.putInstallations(tx, cluster, list)
	})
}

// sameNews compares but for when it was observed.
func sameNews(a, b []installationRecord) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		x, y := a[i], b[i]
		x.ObservedAt, y.ObservedAt = time.Time{}, time.Time{}
		if !reflect.DeepEqual(x, y) {
			return false
		}
	}
	return true
}

// Heard records when clusters were last heard of. It is for now and then, never for each heartbeat. A
// cluster that is not there is passed over, as is a time before the known one.
func (s *Store) Heard(at map[fleet.Cluster]time.Time) error {
	return s.db.Update(func(tx *bolt.Tx) error {
		for name, when := range at {
			rec, found, err := get[clusterRecord](tx.Bucket(bucketClusters), []byte(name))
			if err != nil {
				return err
			}
			if !found || !when.After(rec.LastSeen) || !when.After(rec.Joined) {
				continue
			}
			rec.LastSeen = utc(when)
			if err := s.putCluster(tx, name, rec); err != nil {
				return err
			}
		}
		return nil
	})
}

// Installations lists what each cluster last said it runs, from memory. A cluster that said nothing yet is
// absent.
func (s *Store) Installations() (map[fleet.Cluster][]fleet.Installation, error) {
	return s.memory.installations.all(), nil
}

// Installation finds what a cluster last said of one subscription, in memory.
func (s *Store) Installation(cluster fleet.Cluster, distribution string) (i fleet.Installation, found bool) {
	list, _ := s.memory.installations.one(cluster)
	for _, i := range list {
		if i.Distribution == distribution {
			return i, true
		}
	}
	return i, false
}

// invited makes the cluster's record if it is new; labels that are given replace the earlier ones.
func (s *Store) invited(tx *bolt.Tx, name fleet.Cluster, labels map[string]string, now time.Time) (clusterRecord, error) {
	rec, found, err := get[clusterRecord](tx.Bucket(bucketClusters), []byte(name))
	if err != nil {
		return rec, err
	}
	if !found {
		rec.Created = now
	}
	if len(labels) > 0 {
		rec.Labels = maps.Clone(labels)
	}
	return rec, s.putCluster(tx, name, rec)
}

// deletePrefix collects first: deleting under a moving cursor skips keys.
func deletePrefix(b *bolt.Bucket, prefix []byte) error {
	var keys [][]byte
	c := b.Cursor()
	for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		keys = append(keys, bytes.Clone(k))
	}
	for _, k := range keys {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return nil
}
