package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// Settings are how the hub hands out a distribution's releases, apart from what the distribution is.
type Settings struct {
	Preflight time.Duration // for how long a new release is only to be tried out; 0: not at all
}

// AddDistribution begins to keep d; ErrExists for another of its name. A distribution that is added
// again finds the releases that were judged under its name before.
func (s *Store) AddDistribution(d fleet.Distribution) error {
	return s.AddDistributionWith(d, Settings{})
}

// AddDistributionWith is AddDistribution with settings that are not the defaults.
func (s *Store) AddDistributionWith(d fleet.Distribution, settings Settings) error {
	return s.update(func(tx *txn) error { return s.addDistribution(tx, d, settings) })
}

func (s *Store) addDistribution(tx *txn, d fleet.Distribution, settings Settings) error {
	if err := fleet.CheckDistributionName(d.Name); err != nil {
		return fmt.Errorf("add distribution: %w", err)
	}
	b := tx.Bucket(bucketDistributions)
	if b.Get([]byte(d.Name)) != nil {
		return fmt.Errorf("add distribution %s: %w", d.Name, ErrExists)
	}
	rec := distributionRecord{URL: d.URL, Path: d.Path, Tags: d.Tags, Interval: d.Interval, Created: utc(d.Created), Preflight: settings.Preflight,
		Signers: d.Signers.Files, Threshold: d.Signers.Threshold}
	if err := put(b, []byte(d.Name), rec); err != nil {
		return err
	}
	return s.bump(tx, d.Name)
}

func setSigners(tx *txn, name string, signers fleet.Signers) error {
	b := tx.Bucket(bucketDistributions)
	rec, found, err := get[distributionRecord](b, []byte(name))
	if err == nil && !found {
		err = ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("set the signers of %s: %w", name, err)
	}
	rec.Signers, rec.Threshold = signers.Files, signers.Threshold
	return put(b, []byte(name), rec)
}

// RemoveDistribution forgets the distribution and what pre-flights found; its releases stay. ErrNotFound
// when there is none.
func (s *Store) RemoveDistribution(name string) error {
	return s.update(func(tx *txn) error { return s.removeDistribution(tx, name) })
}

func (s *Store) removeDistribution(tx *txn, name string) error {
	b := tx.Bucket(bucketDistributions)
	if b.Get([]byte(name)) == nil {
		return fmt.Errorf("remove distribution %s: %w", name, ErrNotFound)
	}
	if err := b.Delete([]byte(name)); err != nil {
		return err
	}
	if err := forgetPreflights(tx, name); err != nil {
		return err
	}
	return s.bump(tx, name)
}

// Distributions lists all, by name.
func (s *Store) Distributions() (all []fleet.Distribution, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketDistributions).ForEach(func(k, v []byte) error {
			rec, err := decode[distributionRecord](v, k)
			if err != nil {
				return err
			}
			all = append(all, distributionOf(string(k), rec))
			return nil
		})
	})
	return all, err
}

// Settings lists those of each distribution, by name.
func (s *Store) Settings() (map[string]Settings, error) {
	all := map[string]Settings{}
	err := s.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketDistributions).ForEach(func(k, v []byte) error {
			rec, err := decode[distributionRecord](v, k)
			all[string(k)] = Settings{Preflight: rec.Preflight}
			return err
		})
	})
	return all, err
}

// PutRelease records the judgement of a tag, once and for ever: ErrExists when it was judged before.
// tagHash is what the tag pointed at. It raises the distribution's revision.
func (s *Store) PutRelease(r fleet.Release, tagHash string) error {
	if r.Distribution == "" || r.Version == "" {
		return fmt.Errorf("put release %q of %q: both names are needed", r.Version, r.Distribution)
	}
	return s.update(func(tx *txn) error {
		b, key := tx.Bucket(bucketReleases), join(r.Distribution, r.Version)
		if b.Get(key) != nil {
			return fmt.Errorf("put release %s of %s: %w", r.Version, r.Distribution, ErrExists)
		}
		if err := put(b, key, releaseRecordOf(r, tagHash)); err != nil {
			return err
		}
		if r.Phase == fleet.Available {
			if err := tx.Bucket(bucketDigests).Put([]byte(r.Digest), key); err != nil {
				return fmt.Errorf("index release %s of %s: %w", r.Version, r.Distribution, err)
			}
		}
		return s.bump(tx, r.Distribution)
	})
}

// Release finds one release; ErrNotFound when that tag was never judged.
func (s *Store) Release(distribution, version string) (r fleet.Release, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		rec, found, err := get[releaseRecord](tx.Bucket(bucketReleases), join(distribution, version))
		if err == nil && !found {
			err = fmt.Errorf("release %s of %s: %w", version, distribution, ErrNotFound)
		}
		r = releaseOf(rec)
		return err
	})
	return r, err
}

// Releases lists a distribution's releases in ascending order of version.
func (s *Store) Releases(distribution string) (all []fleet.Release, err error) {
	err = s.eachRelease(distribution, func(rec releaseRecord) { all = append(all, releaseOf(rec)) })
	slices.SortFunc(all, func(a, b fleet.Release) int { return fleet.CompareTags(a.Version, b.Version) })
	return all, err
}

// JudgedTags maps each tag of the distribution that was judged to what it pointed at then.
func (s *Store) JudgedTags(distribution string) (map[string]string, error) {
	tags := map[string]string{}
	err := s.eachRelease(distribution, func(rec releaseRecord) { tags[rec.Version] = rec.TagHash })
	return tags, err
}

func (s *Store) eachRelease(distribution string, do func(releaseRecord)) error {
	return s.db.View(func(tx *bolt.Tx) error {
		c, prefix := tx.Bucket(bucketReleases).Cursor(), join(distribution, "")
		for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
			rec, err := decode[releaseRecord](v, k)
			if err != nil {
				return err
			}
			do(rec)
		}
		return nil
	})
}

// ReleaseByDigest reports whether an available release has this bundle.
func (s *Store) ReleaseByDigest(d fleet.Digest) (found bool, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		found = d != "" && tx.Bucket(bucketDigests).Get([]byte(d)) != nil
		return nil
	})
	return found, err
}

// Revision grows with every change of what the distribution has, rejected releases too; 0 for one that never was. All
// distributions count from one number, so that the maximum over some of them grows with each of them,
// and it stays when the distribution goes. It is asked for each message to each spoke, and answered from memory.
func (s *Store) Revision(distribution string) (uint64, error) {
	revision, _ := s.memory.revisions.one(distribution)
	return revision, nil
}

// bump is the only one that changes the bucket: memory follows it.
func (s *Store) bump(tx *txn, distribution string) error {
	b := tx.Bucket(bucketRevisions)
	next, err := b.NextSequence()
	if err != nil {
		return fmt.Errorf("next revision: %w", err)
	}
	s.memory.revisions.put(distribution, next)
	return b.Put([]byte(distribution), binary.BigEndian.AppendUint64(nil, next))
}
