package store

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wheelwright-dev/wheelwright/hub/internal/rollout"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/plan"
)

// maxEnded is how many ended rollouts of one distribution keep their members.
const maxEnded = 20

// NewRollout begins to keep a rollout, gives it its id, and returns it as it is kept. ErrExists where one of
// the same release is not over.
func (s *Store) NewRollout(r rollout.State, events []fleet.Event, entry fleet.Entry) (rollout.State, error) {
	s.plans.Lock()
	defer s.plans.Unlock()
	if err := s.underWay(r); err != nil {
		return r, fmt.Errorf("new rollout: %w", err)
	}
	var kept rollout.State
	err := s.db.Update(func(tx *bolt.Tx) error {
		id, err := tx.Bucket(bucketRollouts).NextSequence()
		if err != nil {
			return fmt.Errorf("next id: %w", err)
		}
		r.ID = id
		if kept, err = s.putRollout(tx, r, rollout.State{}, slices.Collect(maps.Keys(r.Members))); err != nil {
			return err
		}
		return appendAll(tx, events, entry)
	})
	if err != nil {
		return r, fmt.Errorf("new rollout of %s %s: %w", r.Distribution, r.Version, err)
	}
	return kept, nil
}

func (s *Store) underWay(r rollout.State) error {
	for _, other := range s.memory.rollouts.all() {
		if other.Distribution == r.Distribution && other.Version == r.Version && !other.Phase.Terminal() {
			return fmt.Errorf("rollout %d of %s %s is %s: %w", other.ID, r.Distribution, r.Version, other.Phase, ErrExists)
		}
	}
	return nil
}

// SaveRollout keeps the rollout's head and these of its members, with what is told and accounted for about
// the change, all or nothing. A member that is named and no more in r is forgotten. ErrNotFound for a
// rollout that NewRollout did not give out.
func (s *Store) SaveRollout(r rollout.State, members []fleet.Cluster, events []fleet.Event, entries ...fleet.Entry) error {
	s.plans.Lock()
	defer s.plans.Unlock()
	old, found := s.memory.rollouts.one(string(number(r.ID)))
	if !found {
		return fmt.Errorf("save rollout %d of %s %s: %w", r.ID, r.Distribution, r.Version, ErrNotFound)
	}
	err := s.db.Update(func(tx *bolt.Tx) error {
		if _, err := s.putRollout(tx, r, old, members); err != nil {
			return err
		}
		return appendAll(tx, events, entries...)
	})
	if err != nil {
		return fmt.Errorf("save rollout %d of %s %s: %w", r.ID, r.Distribution, r.Version, err)
	}
	return nil
}

// putRollout writes the head and these members. What is kept in memory is what was written, not what r says
// of other members.
func (s *Store) putRollout(tx *bolt.Tx, r, old rollout.State, members []fleet.Cluster) (kept rollout.State, err error) {
	rec := rolloutRecordOf(r)
	if old.ID == 0 {
		// What cannot be read again must not be written.
		if r.Plan, err = plan.Parse([]byte(rec.Plan)); err != nil {
			return kept, fmt.Errorf("plan: %w", err)
		}
	}
	if err := put(tx.Bucket(bucketRollouts), number(r.ID), rec); err != nil {
		return kept, err
	}
	kept = headOf(r.ID, rec, r.Plan)
	if kept.Members = old.Members; len(members) > 0 {
		if kept.Members = maps.Clone(old.Members); kept.Members == nil {
			kept.Members = make(map[fleet.Cluster]rollout.Member, len(members))
		}
	}
	b := tx.Bucket(bucketMembers)
	for _, c := range members {
		m, there := r.Members[c]
		if !there {
			delete(kept.Members, c)
			if err := b.Delete(memberKey(r.ID, c)); err != nil {
				return kept, fmt.Errorf("forget member %s: %w", c, err)
			}
			continue
		}
		rec := memberRecordOf(m)
		kept.Members[c] = memberOf(rec)
		if err := put(b, memberKey(r.ID, c), rec); err != nil {
			return kept, err
		}
	}
	if len(kept.Members) == 0 {
		kept.Members = nil
	}
	s.memory.rollouts.put(tx, kept)
	return kept, s.boundRollouts(tx, kept)
}

// boundRollouts forgets the members of all but the last ended rollouts of a distribution, and those rollouts
// too, but for the newest of each release: as long as it is kept, the release needs no other.
func (s *Store) boundRollouts(tx *bolt.Tx, changed rollout.State) error {
	if !changed.Phase.Terminal() {
		return nil
	}
	var ended []rollout.State
	newest := map[string]uint64{}
	all := append(slices.Clone(s.memory.rollouts.all()), changed)
	for i, r := range all {
		if r.Distribution != changed.Distribution || (r.ID == changed.ID && i < len(all)-1) {
			continue
		}
		newest[r.Version] = max(newest[r.Version], r.ID)
		if r.Phase.Terminal() {
			ended = append(ended, r)
		}
	}
	if len(ended) <= maxEnded {
		return nil
	}
	slices.SortFunc(ended, func(a, b rollout.State) int {
		return cmp.Or(b.Since.Compare(a.Since), cmp.Compare(b.ID, a.ID))
	})
	for _, r := range ended[maxEnded:] {
		if len(r.Members) > 0 {
			if err := deletePrefix(tx.Bucket(bucketMembers), memberKey(r.ID, "")); err != nil {
				return fmt.Errorf("forget the members of rollout %d: %w", r.ID, err)
			}
			r.Members = nil
			s.memory.rollouts.put(tx, r)
		}
		if newest[r.Version] == r.ID {
			continue
		}
		if err := tx.Bucket(bucketRollouts).Delete(number(r.ID)); err != nil {
			return fmt.Errorf("forget rollout %d: %w", r.ID, err)
		}
		s.memory.rollouts.drop(tx, string(number(r.ID)))
	}
	return nil
}

// Rollouts lists all in ascending order of id, from memory. Those under way and the last ended ones of each
// distribution have their members.
func (s *Store) Rollouts() ([]rollout.State, error) { return s.memory.rollouts.all(), nil }

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
