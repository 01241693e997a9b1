package store

import (
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wheelwright-dev/wheelwright/hub/internal/rollout"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/plan"
)

// crowd makes a store with n clusters that each said what they run.
func crowd(b *testing.B, n int) (s *Store, names []fleet.Cluster, path string) {
	b.Helper()
	path = filepath.Join(b.TempDir(), "hub.db")
	s, err := Open(path, discard)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	err = s.db.Update(func(tx *bolt.Tx) error {
		for i := range n {
			name := fleet.Cluster(fmt.Sprintf("acme/c-%05d", i))
			names = append(names, name)
			if err := s.putCluster(tx, name, clusterRecord{Created: start, Joined: start, Labels: map[string]string{"env": "prod"}}); err != nil {
				return err
			}
			if err := s.putInstallations(tx, name, []installationRecord{installationRecordOf(installation("1.0.0", start))}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return s, names, path
}

// BenchmarkRecordEvents measures how many events of a thousand spokes that report at the same time are on
// disk and acknowledged in a second; each spoke waits for its acknowledgement before it sends the next.
func BenchmarkRecordEvents(b *testing.B) {
	const clusters = 1000
	s, names, _ := crowd(b, clusters)
	seq := uint64(0)
	events := 0
	for b.Loop() {
		seq++
		events += clusters
		var all sync.WaitGroup
		for _, name := range names {
			all.Go(func() {
				i := installation("1.1.0", time.Now())
				if _, err := s.RecordEvents(name, "j", []fleet.Event{{Seq: seq, At: time.Now(), Kind: fleet.EventPhase, Distribution: "shop", Version: "1.1.0", Installation: &i}}); err != nil {
					b.Error(err)
				}
			})
		}
		all.Wait()
	}
	fmt.Printf("FIGURE store.events-per-second %.0f events/s %d clusters at once, each event acknowledged on disk\n", float64(events)/b.Elapsed().Seconds(), clusters)
}

// BenchmarkInstallations measures what it costs to look at ten thousand clusters.
func BenchmarkInstallations(b *testing.B) {
	s, _, _ := crowd(b, 10_000)
	for b.Loop() {
		all, err := s.Installations()
		if err != nil || len(all) != 10_000 {
			b.Fatal(len(all), err)
		}
	}
	fmt.Printf("FIGURE store.installations-10000 %.2f µs from memory\n", float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000)
}

// BenchmarkInstallationsChanged is the same with an event between any two looks.
func BenchmarkInstallationsChanged(b *testing.B) {
	s, names, _ := crowd(b, 10_000)
	list := []installationRecord{installationRecordOf(installation("1.1.0", start))}
	s.db.NoSync = true // the disk is not what is measured
	for n := 0; b.Loop(); n++ {
		if _, err := s.Installations(); err != nil {
			b.Fatal(err)
		}
		if _, err := s.Clusters(); err != nil {
			b.Fatal(err)
		}
		err := s.db.Update(func(tx *bolt.Tx) error {
			name := names[n%len(names)]
			if err := s.putCluster(tx, name, clusterRecord{Created: start}); err != nil {
				return err
			}
			return s.putInstallations(tx, name, list)
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpen measures how long a hub of ten thousand clusters takes to know its fleet again.
func BenchmarkOpen(b *testing.B) {
	s, _, path := crowd(b, 10_000)
	for b.Loop() {
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		var err error
		if s, err = Open(path, discard); err != nil {
			b.Fatal(err)
		}
	}
	fmt.Printf("FIGURE store.open-10000 %.0f ms every page checked, clusters and installations decoded\n", float64(b.Elapsed().Milliseconds())/float64(b.N))
}

// BenchmarkRollout measures keeping a rollout of ten thousand members, one changed at a time, and reading it.
func BenchmarkRollout(b *testing.B) {
	s, names, _ := crowd(b, 10_000)
	r := rollout.State{Distribution: "shop", Version: "1.1.0", Plan: plan.Default(), Phase: fleet.RolloutProgressing, Members: map[fleet.Cluster]rollout.Member{}}
	for _, name := range names {
		r.Members[name] = rollout.Member{Mark: fleet.MarkWaiting, Since: start}
	}
	r, err := newRollout(s, r, nil, byAdmin)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("save", func(b *testing.B) {
		for n := 0; b.Loop(); n++ {
			name := names[n%len(names)]
			r.Members[name] = rollout.Member{Mark: fleet.MarkDone, Since: start}
			if err := s.SaveRollout(r, []fleet.Cluster{name}, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			if all, err := s.Rollouts(); err != nil || len(all[0].Members) != len(names) {
				b.Fatal(err)
			}
		}
	})
}
