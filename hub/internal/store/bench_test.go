package store

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

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
	err = s.update(func(tx *txn) error {
		for i := range n {
			name := fleet.Cluster(fmt.Sprintf("acme/c-%05d", i))
			names = append(names, name)
			if err := s.putCluster(tx, name, clusterRecord{Created: start, Joined: start, Labels: map[string]string{"env": "prod"}}); err != nil {
				return err
			}
			if err := s.putInstallations(tx, name, running("1.0.0")); err != nil {
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

func running(version string) []installationRecord {
	i := installation(version, start)
	return []installationRecord{*installationRecordOf(&i)}
}

// BenchmarkTransitions measures how many changes of health of ten thousand clusters are on disk and acknowledged
// in a second: each cluster waits for its acknowledgement before it tells the next, and the last thousands of
// events before are dropped as many as come. Beside it: what the disk itself does.
func BenchmarkTransitions(b *testing.B) {
	const clusters = 10_000
	s, names, path := crowd(b, clusters)
	history(b, s, names, DefaultHistory.Events)
	states := []fleet.Health{fleet.Healthy, fleet.Degraded}
	before, began := s.Stats(), time.Now()
	cpu, disk := cpuTime(), s.db.Stats().TxStats
	events := 0
	var all sync.WaitGroup
	turns := make([]chan uint64, clusters)
	for n, name := range names {
		turns[n] = make(chan uint64, 1)
		go func() {
			for seq := range turns[n] {
				i := installation("1.0.0", time.Now())
				i.Health = states[seq%2]
				if acked, err := s.RecordEvents(name, "j", []fleet.Event{{Seq: seq, At: time.Now(), Kind: fleet.EventHealth, Distribution: "shop", Version: "1.0.0", Installation: &i}}); err != nil || acked != seq {
					b.Error(acked, err)
				}
				all.Done()
			}
		}()
	}
	for seq := uint64(1); b.Loop(); seq++ {
		events += clusters
		all.Add(clusters)
		for _, turn := range turns {
			turn <- seq
		}
		all.Wait()
	}
	took, cpu := time.Since(began), cpuTime()-cpu
	after, wrote := s.Stats(), s.db.Stats().TxStats
	writes := after.Writes - before.Writes
	fmt.Printf("FIGURE scale.b11-per-second %.0f events/s %d clusters, each waits for its acknowledgement; %d writes of %.0f events on average, %d syncs\n",
		float64(events)/took.Seconds(), clusters, writes, float64(events)/float64(writes), 2*writes)
	fmt.Printf("FIGURE scale.b11-cpu %.1f µs of CPU for an event; %.1f µs of the time for it went to writing and syncing %.0f bytes\n",
		float64(cpu.Microseconds())/float64(events), float64((wrote.GetWriteTime()-disk.GetWriteTime()).Microseconds())/float64(events),
		float64(wrote.GetPageAlloc()-disk.GetPageAlloc())/float64(events))
	fmt.Printf("FIGURE scale.b11-disk-syncs %.0f syncs/s of 4 KiB appended to a file on the same disk\n", syncRate(b, filepath.Dir(path)))

	// The same news again, as from a spoke that repeats itself, and heartbeats.
	repeated := s.Stats()
	for _, name := range names {
		all.Go(func() {
			i, _ := s.Installation(name, "shop")
			seq, _ := s.AckedSeq(name, "j")
			i.ObservedAt = time.Now()
			if acked, err := s.RecordEvents(name, "j", []fleet.Event{{Seq: seq + 1, At: time.Now(), Kind: fleet.EventHealth, Distribution: "shop", Version: "1.0.0", Installation: &i}}); err != nil || acked != seq+1 {
				b.Error(acked, err)
			}
		})
	}
	all.Wait()
	for _, turn := range turns {
		close(turn)
	}
	fmt.Printf("FIGURE scale.b11-writes-without-news %d writes %d clusters told the same health again\n", s.Stats().Writes-repeated.Writes, clusters)
}

// BenchmarkTransitionAlone measures a change of health of one cluster of ten thousand while the others say nothing: what
// it writes, and what of the time is not the disk's.
func BenchmarkTransitionAlone(b *testing.B) {
	s, names, _ := crowd(b, 10_000)
	history(b, s, names, DefaultHistory.Events)
	pages := func() (n int64, disk time.Duration) {
		st := s.db.Stats().TxStats
		return st.GetPageCount(), st.GetWriteTime()
	}
	before, disk := pages()
	seq, cpu, began := uint64(0), cpuTime(), time.Now()
	for b.Loop() {
		seq++
		i := installation("1.0.0", time.Now())
		i.Ready = int(seq)
		if _, err := s.RecordEvents(names[seq%10_000], "j", health(seq, i)); err != nil {
			b.Fatal(err)
		}
	}
	took, cpu := time.Since(began), cpuTime()-cpu
	after, wrote := pages()
	fmt.Printf("FIGURE store.transition-alone %.1f pages written each, %.0f µs CPU, %v of which %v for the disk\n", float64(after-before)/float64(seq),
		float64(cpu.Microseconds())/float64(seq), (took / time.Duration(seq)).Round(time.Microsecond), ((wrote - disk) / time.Duration(seq)).Round(time.Microsecond))
}

// history fills the past with n events of these clusters.
func history(b *testing.B, s *Store, names []fleet.Cluster, n int) {
	b.Helper()
	s.Keep(History{Events: max(n, DefaultHistory.Events)})
	for from := 0; from < n; from += 10_000 {
		err := s.update(func(tx *txn) error {
			for i := from; i < min(n, from+10_000); i++ {
				e := fleet.Event{At: start, Seq: 1, Cluster: names[i%len(names)], Distribution: "shop", Version: "1.0.0", Kind: fleet.EventPhase, Message: "Succeeded: 14 objects applied, all of them are ready"}
				if err := appendEvent(tx, e); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// syncRate is how often a second the disk takes 4 KiB more of a file.
func syncRate(b *testing.B, dir string) float64 {
	b.Helper()
	f, err := os.CreateTemp(dir, "sync")
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	const n = 300
	began, page := time.Now(), make([]byte, 4096)
	for range n {
		if _, err := f.Write(page); err != nil {
			b.Fatal(err)
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			b.Fatal(err)
		}
	}
	return n / time.Since(began).Seconds()
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
	list := running("1.1.0")
	s.db.NoSync = true // the disk is not what is measured
	for n := 0; b.Loop(); n++ {
		if _, err := s.Installations(); err != nil {
			b.Fatal(err)
		}
		if _, err := s.Clusters(); err != nil {
			b.Fatal(err)
		}
		err := s.update(func(tx *txn) error {
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
