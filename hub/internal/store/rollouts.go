package store

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wheelwright-dev/wheelwright/hub/internal/rollout"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/plan"
)

// Beginning is a rollout that is new, with what is told and accounted for about it.
type Beginning struct {
	Rollout rollout.State
	Layout  rollout.Layout // its plan, laid over the fleet; no waves: nothing to keep
	Events  []fleet.Event
	Entry   fleet.Entry
}

// NewRollouts begins to keep rollouts, all or none, gives them their ids in this order, and returns them as
// they are kept. ErrExists where one of the same release is not over.
func (s *Store) NewRollouts(all ...Beginning) (kept []rollout.State, err error) {
	err = s.update(func(tx *txn) error {
		b, underWay := tx.Bucket(bucketRollouts), map[string]error{}
		err := each(b, func(k string, other rolloutRecord) error {
			if !other.over() {
				underWay[other.Distribution+" "+other.Version] = fmt.Errorf("rollout %d is %s: %w", numberOf(k), other.Phase, ErrExists)
			}
			return nil
		})
		if err != nil {
			return err
		}
		over := map[string]bool{}
		for _, n := range all {
			release := n.Rollout.Distribution + " " + n.Rollout.Version
			if err := underWay[release]; err != nil {
				return fmt.Errorf("new rollout of %s: %w", release, err)
			}
			r, err := begin(tx, n)
			if err != nil {
				return fmt.Errorf("new rollout of %s: %w", release, err)
			}
			kept = append(kept, r)
			if r.Phase.Terminal() {
				over[r.Distribution] = true
			}
		}
		for distribution := range over {
			if err := boundRollouts(tx, distribution); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return kept, nil
}

func begin(tx *txn, n Beginning) (kept rollout.State, err error) {
	id, err := tx.Bucket(bucketRollouts).NextSequence()
	if err != nil {
		return kept, fmt.Errorf("next id: %w", err)
	}
	rec := rolloutRecordOf(n.Rollout)
	p, err := plan.Parse([]byte(rec.Plan)) // what cannot be read again must not be written
	if err != nil {
		return kept, fmt.Errorf("plan: %w", err)
	}
	kept = headOf(id, rec, p)
	kept.Wake = n.Rollout.Wake
	if err := put(tx.Bucket(bucketRollouts), number(id), rec); err != nil {
		return kept, err
	}
	for c, m := range n.Rollout.Members {
		rec := memberRecordOf(m)
		if err := put(tx.Bucket(bucketMembers), memberKey(id, c), rec); err != nil {
			return kept, err
		}
		if kept.Members == nil {
			kept.Members = make(map[fleet.Cluster]rollout.Member, len(n.Rollout.Members))
		}
		kept.Members[c] = memberOf(rec)
	}
	if len(n.Layout.Waves) > 0 {
		if err := putLayout(tx, id, n.Layout); err != nil {
			return kept, err
		}
	}
	return kept, appendAll(tx, n.Events, n.Entry)
}

// SaveRollout keeps the rollout's head and these of its members, with what is told and accounted for about
// the change, all or nothing. A member that is named and no more in r is forgotten. ErrNotFound for a
// rollout that NewRollout did not give out.
func (s *Store) SaveRollout(r rollout.State, members []fleet.Cluster, events []fleet.Event, entries ...fleet.Entry) error {
	err := s.update(func(tx *txn) error {
		old, found, err := get[rolloutRecord](tx.Bucket(bucketRollouts), number(r.ID))
		if err == nil && !found {
			err = ErrNotFound
		}
		if err != nil {
			return err
		}
		for _, c := range members {
			if err := saveMember(tx.Bucket(bucketMembers), r, c); err != nil {
				return fmt.Errorf("member %s: %w", c, err)
			}
		}
		rec := rolloutRecordOf(r)
		if err := put(tx.Bucket(bucketRollouts), number(r.ID), rec); err != nil {
			return err
		}
		if rec.over() && !old.over() {
			if err := boundRollouts(tx, r.Distribution); err != nil {
				return err
			}
		}
		return appendAll(tx, events, entries...)
	})
	if err != nil {
		return fmt.Errorf("save rollout %d of %s %s: %w", r.ID, r.Distribution, r.Version, err)
	}
	return nil
}

func saveMember(b *bolt.Bucket, r rollout.State, c fleet.Cluster) error {
	if m, there := r.Members[c]; there {
		return put(b, memberKey(r.ID, c), memberRecordOf(m))
	}
	return b.Delete(memberKey(r.ID, c))
}

// boundRollouts forgets of a distribution's ended rollouts what need not be remembered.
func boundRollouts(tx *txn, distribution string) error {
	var all []rollout.Trace
	err := each(tx.Bucket(bucketRollouts), func(k string, r rolloutRecord) error {
		if r.Distribution == distribution {
			all = append(all, rollout.Trace{ID: numberOf(k), Version: r.Version, Over: r.over(), Since: r.Since}) // keys ascend
		}
		return nil
	})
	if err != nil {
		return err
	}
	members, whole := rollout.Forget(all)
	for _, id := range members {
		if err := deletePrefix(tx.Bucket(bucketMembers), memberKey(id, "")); err != nil {
			return fmt.Errorf("forget the members of rollout %d: %w", id, err)
		}
	}
	for _, id := range whole {
		if err := tx.Bucket(bucketRollouts).Delete(number(id)); err != nil {
			return fmt.Errorf("forget rollout %d: %w", id, err)
		}
	}
	return nil
}

// Rollouts lists all in ascending order of id. Those under way and the last ended ones of each distribution
// have their members. It reads the file: once for a hub that then keeps them.
func (s *Store) Rollouts() (all []rollout.State, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		all, err = readRollouts(tx)
		return err
	})
	return all, err
}

// addRollouts is the step from schema 2: hubs of that schema offered a release to everybody as soon as its
// pre-flight was over. What they offered stays offered.
func addRollouts(tx *bolt.Tx) error {
	for _, name := range [][]byte{bucketRollouts, bucketMembers, bucketRecalls, bucketPins, bucketDecisions, bucketAudit} {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return fmt.Errorf("create bucket %s: %w", name, err)
		}
	}
	offered, err := offeredBefore(tx, time.Now())
	if err != nil {
		return err
	}
	standard := plan.Default()
	b := tx.Bucket(bucketRollouts)
	for _, r := range offered {
		id, err := b.NextSequence()
		if err != nil {
			return fmt.Errorf("next id: %w", err)
		}
		rec := rolloutRecord{Distribution: r.Distribution, Version: r.Version, Plan: string(standard.YAML()), PlanSource: "default", StartedBy: "hub",
			Started: r.Published, Phase: string(fleet.RolloutCompleted), Since: r.Published, Reason: "published before rollouts"}
		for _, w := range standard.Waves {
			rec.Waves = append(rec.Waves, waveRecord{Name: w.Name, Started: r.Published, Ended: r.Published})
		}
		if err := put(b, number(id), rec); err != nil {
			return err
		}
	}
	return nil
}

// offeredBefore lists the releases that a hub of schema 2 offers to everybody, in the order of publication.
func offeredBefore(tx *bolt.Tx, now time.Time) (all []releaseRecord, err error) {
	err = tx.Bucket(bucketReleases).ForEach(func(k, v []byte) error {
		r, err := decode[releaseRecord](v, k)
		if err != nil || r.Phase != string(fleet.Available) {
			return err
		}
		d, _, err := get[distributionRecord](tx.Bucket(bucketDistributions), []byte(r.Distribution))
		if err != nil {
			return err
		}
		pending := tx.Bucket(bucketOffered).Get(k) == nil && now.Before(r.Published.Add(d.Preflight)) && d.Preflight > 0
		if !pending {
			all = append(all, r)
		}
		return nil
	})
	slices.SortStableFunc(all, func(a, b releaseRecord) int {
		return cmp.Or(a.Published.Compare(b.Published), bytes.Compare([]byte(a.Distribution), []byte(b.Distribution)), fleet.CompareTags(a.Version, b.Version))
	})
	return all, err
}
