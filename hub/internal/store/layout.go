package store

import (
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/wheelwright-dev/wheelwright/hub/internal/rollout"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// maxLayouts is how many rollouts keep the plan as it was laid over the fleet; the oldest go first.
const maxLayouts = 100

// bucketLayouts is made with the first layout: rollouts of before have none.
const bucketLayouts = "layouts" // big-endian rollout id -> layoutRecord

type layoutRecord struct {
	Waves    []layoutWaveRecord    `json:"waves,omitempty"`
	LeftOut  []layoutClusterRecord `json:"leftOut,omitempty"`
	Warnings []string              `json:"warnings,omitempty"`
}

type layoutWaveRecord struct {
	Name        string                `json:"name"`
	Clusters    []layoutClusterRecord `json:"clusters,omitempty"`
	Concurrency int                   `json:"concurrency,omitempty"`
	Budget      int                   `json:"budget,omitempty"`
	Gates       []string              `json:"gates,omitempty"`
}

type layoutClusterRecord struct {
	Cluster  fleet.Cluster `json:"cluster"`
	Running  string        `json:"running,omitempty"`
	Blockers []string      `json:"blockers,omitempty"`
}

// putLayout keeps the plan of a rollout as it was laid over the fleet when the rollout started.
func putLayout(tx *txn, id uint64, l rollout.Layout) error {
	rec := layoutRecord{LeftOut: layoutClusterRecords(l.LeftOut), Warnings: l.Warnings}
	for _, w := range l.Waves {
		rec.Waves = append(rec.Waves, layoutWaveRecord{Name: w.Name, Clusters: layoutClusterRecords(w.Clusters), Concurrency: w.Concurrency, Budget: w.Budget, Gates: w.Gates})
	}
	b, err := tx.CreateBucketIfNotExists([]byte(bucketLayouts))
	if err != nil {
		return fmt.Errorf("create bucket %s: %w", bucketLayouts, err)
	}
	if err := put(b, number(id), rec); err != nil {
		return fmt.Errorf("layout of rollout %d: %w", id, err)
	}
	count, c := 0, b.Cursor()
	for k, _ := c.Last(); k != nil; k, _ = c.Prev() {
		if count++; count > maxLayouts {
			return b.Delete(k) // they come one at a time
		}
	}
	return nil
}

// Layout is what NewRollouts kept of a rollout; found is false where it was not, or not any more.
func (s *Store) Layout(id uint64) (l rollout.Layout, found bool, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(bucketLayouts))
		if b == nil {
			return nil
		}
		rec, there, err := get[layoutRecord](b, number(id))
		if err != nil || !there {
			return err
		}
		found, l = true, rollout.Layout{LeftOut: layoutClusters(rec.LeftOut), Warnings: rec.Warnings}
		for _, w := range rec.Waves {
			l.Waves = append(l.Waves, rollout.LayoutWave{Name: w.Name, Clusters: layoutClusters(w.Clusters), Concurrency: w.Concurrency, Budget: w.Budget, Gates: w.Gates})
		}
		return nil
	})
	return l, found, err
}

func layoutClusterRecords(list []rollout.LayoutCluster) (all []layoutClusterRecord) {
	for _, c := range list {
		all = append(all, layoutClusterRecord(c))
	}
	return all
}

func layoutClusters(list []layoutClusterRecord) (all []rollout.LayoutCluster) {
	for _, c := range list {
		all = append(all, rollout.LayoutCluster(c))
	}
	return all
}
