package store

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
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

func mustCluster(tx buckets, name fleet.Cluster) (clusterRecord, error) {
	rec, found, err := get[clusterRecord](tx.Bucket(bucketClusters), []byte(name))
	if err == nil && !found {
		err = fmt.Errorf("cluster %s: %w", name, ErrNotFound)
	}
	return rec, err
}

func (s *Store) putCluster(tx *txn, name fleet.Cluster, rec clusterRecord) error {
	c := clusterOf(string(name), rec)
	before, found := s.memory.clusters.latest(string(name))
	if found && before.LastSeen.After(c.LastSeen) {
		c.LastSeen = before.LastSeen // by an event: see heardLately
	}
	if !found || before.Standing != c.Standing || before.StandingWhy != c.StandingWhy || before.Used != c.Used || !before.UsedAt.Equal(c.UsedAt) {
		s.memory.edition.due = true
	}
	s.memory.clusters.put(c)
	return put(tx.Bucket(bucketClusters), []byte(name), rec)
}

// putInstallations writes the whole of what a cluster runs: what its journals have of it is old from here on.
func (s *Store) putInstallations(tx *txn, cluster fleet.Cluster, list []installationRecord) error {
	if err := s.endHealth(tx, cluster); err != nil {
		return err
	}
	s.memory.installations.put(cluster, installationsOf(list, &s.memory.windows))
	return put(tx.Bucket(bucketInstallations), []byte(cluster), list)
}

// RemoveCluster forgets a cluster with its identities, tokens, installations, pre-flights, journals, pins and
// decisions; its events and its part in rollouts stay. ErrNotFound when there is none.
func (s *Store) RemoveCluster(name fleet.Cluster) error {
	return s.update(func(tx *txn) error { return s.removeCluster(tx, name) })
}

func (s *Store) removeCluster(tx *txn, name fleet.Cluster) error {
	if _, err := mustCluster(tx, name); err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	if err := s.endIdentities(tx, name); err != nil {
		return err
	}
	if err := s.endSession(tx, name); err != nil {
		return err
	}
	err := deleteTokens(tx, func(t tokenRecord) bool { return t.Cluster == name })
	if err != nil {
		return err
	}
	if err := s.forgetJournals(tx, name); err != nil {
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
	if err := s.forgetReHome(tx, name); err != nil {
		return err
	}
	s.memory.installations.drop(name)
	if err := tx.Bucket(bucketInstallations).Delete([]byte(name)); err != nil {
		return err
	}
	s.memory.clusters.drop(string(name))
	s.memory.heard.drop(name)
	return tx.Bucket(bucketClusters).Delete([]byte(name))
}

func (s *Store) forgetJournals(tx *txn, name fleet.Cluster) error {
	b, prefix := tx.Bucket(bucketJournals), join(string(name), "")
	c := b.Cursor()
	for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		s.memory.journals.drop(string(k))
	}
	tx.OnCommit(func() { s.memory.acks.forget(name) })
	return deletePrefix(b, prefix)
}

// Hello records what a spoke says of itself when it connects: subs is its full list of subscriptions
// and replaces the earlier one. When nothing but the age of the news changed, nothing is written, so that
// a fleet that reconnects to a restarted hub costs no disk.
func (s *Store) Hello(cluster fleet.Cluster, spokeVersion, kubernetesVersion string, subs []fleet.Installation) error {
	list := make([]installationRecord, 0, len(subs))
	for n := range subs {
		list = append(list, *installationRecordOf(&subs[n]))
	}
	c, found := s.memory.clusters.one(string(cluster))
	if !found {
		return fmt.Errorf("cluster %s: %w", cluster, ErrNotFound)
	}
	if old, listed := s.memory.installations.one(cluster); listed && c.SpokeVersion == spokeVersion && c.KubernetesVersion == kubernetesVersion && sameNews(old, list) {
		return nil
	}
	return s.share(func(tx *txn) error {
		rec, err := mustCluster(tx, cluster)
		if err != nil {
			return untouched{err}
		}
		rec.SpokeVersion, rec.KubernetesVersion, rec.LastSeen = spokeVersion, kubernetesVersion, utc(time.Now())
		if err := s.putCluster(tx, cluster, rec); err != nil {
			return err
		}
		if err := s.keepSession(tx, cluster); err != nil {
			return err
		}
		return s.putInstallations(tx, cluster, list)
	})
}

// sameNews compares but for when it was observed.
func sameNews(known []fleet.Installation, next []installationRecord) bool {
	if len(known) != len(next) {
		return false
	}
	for n := range next {
		if !next[n].delivers(&known[n]) || !next[n].saysThe(healthRecordOf(&known[n])) {
			return false
		}
	}
	return true
}

// heardAtOnce bounds how long others wait for Heard.
const heardAtOnce = 500

// Heard records when clusters were last heard of, and what else is kept in memory between its calls: the numbers of
// their sessions, and the acknowledgement of events that told nothing new. It is for now and then, never for each
// heartbeat. A cluster that is not there is passed over, as is a time before the known one. Others' changes come
// between its transactions.
func (s *Store) Heard(at map[fleet.Cluster]time.Time) error {
	acks, all := s.memory.acks.take(), map[fleet.Cluster]map[string]uint64{}
	for name := range at {
		all[name] = nil
	}
	for _, name := range s.memory.sessions.unstored() {
		all[name] = nil
	}
	for journal, seq := range acks {
		name, _, _ := strings.Cut(journal, "\x00")
		if all[fleet.Cluster(name)] == nil {
			all[fleet.Cluster(name)] = map[string]uint64{}
		}
		all[fleet.Cluster(name)][journal] = seq
	}
	for names := range slices.Chunk(slices.Sorted(maps.Keys(all)), heardAtOnce) {
		err := s.share(func(tx *txn) error {
			wrote := false
			for _, name := range names {
				did, err := s.heard(tx, name, at[name], all[name])
				if err != nil {
					return err
				}
				wrote = wrote || did
			}
			if !wrote {
				return untouched{}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("record when clusters were heard: %w", err)
		}
	}
	s.memory.acks.drop(acks)
	return nil
}

func (s *Store) heard(tx *txn, name fleet.Cluster, when time.Time, acks map[string]uint64) (wrote bool, err error) {
	rec, found, err := get[clusterRecord](tx.Bucket(bucketClusters), []byte(name))
	if err != nil || !found {
		return false, err
	}
	if when.After(rec.LastSeen) && when.After(rec.Joined) {
		wrote, rec.LastSeen = true, utc(when)
		if err := s.putCluster(tx, name, rec); err != nil {
			return false, err
		}
	}
	if _, news := s.memory.sessions.newer(name); news {
		wrote = true
		if err := s.keepSession(tx, name); err != nil {
			return false, err
		}
	}
	for _, journal := range slices.Sorted(maps.Keys(acks)) {
		if stored, known := s.memory.journals.latest(journal); stored.Acked < acks[journal] {
			wrote = true
			stored.Acked, stored.At = acks[journal], utc(time.Now())
			if err := s.putJournal(tx, name, journal, stored, known); err != nil {
				return false, err
			}
		}
	}
	return wrote, nil
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
func (s *Store) invited(tx *txn, name fleet.Cluster, labels map[string]string, now time.Time) (clusterRecord, error) {
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
