package store

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// maxPreflights is how many releases' pre-flights of one subscription are remembered; the oldest answers
// go first. Spokes try the newest few.
const maxPreflights = 20

// preflightKey is cluster NUL distribution NUL version.
func preflightKey(cluster fleet.Cluster, distribution, version string) []byte {
	return join(string(cluster), distribution+"\x00"+version)
}

// putPreflights keeps what the events say that pre-flights found, the newest answer for each release. An
// answer about anything but an available release's own bundle is passed over.
func putPreflights(tx *txn, cluster fleet.Cluster, events []fleet.Event, now time.Time) error {
	b := tx.Bucket(bucketPreflights)
	for _, e := range events {
		if e.Preflight == nil {
			continue
		}
		p := *e.Preflight
		release, found, err := get[releaseRecord](tx.Bucket(bucketReleases), join(e.Distribution, p.Version))
		if err != nil {
			return err
		}
		watched := tx.Bucket(bucketDistributions).Get([]byte(e.Distribution)) != nil
		if !found || !watched || release.Phase != string(fleet.Available) || (p.Bundle != "" && string(p.Bundle) != release.Digest) {
			continue
		}
		key := preflightKey(cluster, e.Distribution, p.Version)
		old, known, err := get[preflightRecord](b, key)
		if err != nil {
			return err
		}
		if known && staler(p.At, old.At, now) {
			continue
		}
		if err := put(b, key, preflightRecordOf(p)); err != nil {
			return err
		}
		if !known {
			if err := boundPreflights(b, cluster, e.Distribution, key); err != nil {
				return err
			}
		}
	}
	return nil
}

// boundPreflights forgets the oldest answer of a subscription past maxPreflights, but never the one just
// kept.
func boundPreflights(b *bolt.Bucket, cluster fleet.Cluster, distribution string, kept []byte) error {
	prefix := preflightKey(cluster, distribution, "")
	var oldest []byte
	var at time.Time
	count := 0
	c := b.Cursor()
	for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
		r, err := decode[preflightRecord](v, k)
		if err != nil {
			return err
		}
		count++
		if !bytes.Equal(k, kept) && (oldest == nil || r.At.Before(at)) {
			oldest, at = bytes.Clone(k), r.At
		}
	}
	if count <= maxPreflights {
		return nil
	}
	return b.Delete(oldest)
}

// forgetPreflights drops every cluster's answers about a distribution.
func forgetPreflights(tx *txn, distribution string) error {
	b := tx.Bucket(bucketPreflights)
	var keys [][]byte
	err := b.ForEach(func(k, _ []byte) error {
		if parts := bytes.SplitN(k, []byte{0}, 3); len(parts) == 3 && string(parts[1]) == distribution {
			keys = append(keys, bytes.Clone(k))
		}
		return nil
	})
	for _, k := range keys {
		err = errors.Join(err, b.Delete(k))
	}
	return err
}

// Preflights lists what each cluster last answered about one release. A cluster that did not is absent.
func (s *Store) Preflights(distribution, version string) (map[fleet.Cluster]fleet.Preflight, error) {
	all := map[fleet.Cluster]fleet.Preflight{}
	err := s.db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketPreflights)
		return tx.Bucket(bucketInstallations).ForEach(func(cluster, _ []byte) error {
			rec, found, err := get[preflightRecord](b, preflightKey(fleet.Cluster(cluster), distribution, version))
			if found {
				all[fleet.Cluster(cluster)] = preflightOf(version, rec)
			}
			return err
		})
	})
	return all, err
}

// Preflight is what a cluster last answered about one release; found is false where it did not.
func (s *Store) Preflight(cluster fleet.Cluster, distribution, version string) (p fleet.Preflight, found bool, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		rec, there, err := get[preflightRecord](tx.Bucket(bucketPreflights), preflightKey(cluster, distribution, version))
		p, found = preflightOf(version, rec), there
		return err
	})
	return p, found, err
}

// Offered says which releases of a distribution are past their pre-flight, as far as that was recorded.
func (s *Store) Offered(distribution string) (map[string]bool, error) {
	versions := map[string]bool{}
	err := s.db.View(func(tx *bolt.Tx) error {
		c, prefix := tx.Bucket(bucketOffered).Cursor(), join(distribution, "")
		for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = c.Next() {
			versions[string(k[len(prefix):])] = true
		}
		return nil
	})
	return versions, err
}

// Offer records that releases are past their pre-flight, for ever, and raises the distribution's revision
// where that is news.
func (s *Store) Offer(distribution string, versions []string, at time.Time) error {
	return s.update(func(tx *txn) error {
		b := tx.Bucket(bucketOffered)
		news := slices.DeleteFunc(slices.Clone(versions), func(v string) bool { return b.Get(join(distribution, v)) != nil })
		if len(news) == 0 {
			return nil
		}
		for _, v := range news {
			if err := put(b, join(distribution, v), offeredRecord{At: utc(at)}); err != nil {
				return fmt.Errorf("offer %s of %s: %w", v, distribution, err)
			}
		}
		return s.bump(tx, distribution)
	})
}

// addPreflights is the step from schema 1: hubs of that schema knew no pre-flights.
func addPreflights(tx *bolt.Tx) error {
	for _, name := range [][]byte{bucketPreflights, bucketOffered} {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return fmt.Errorf("create bucket %s: %w", name, err)
		}
	}
	return nil
}
