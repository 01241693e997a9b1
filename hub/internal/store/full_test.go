package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// small is a disk of so many bytes, of its own.
func small(t *testing.T, bytes int) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=700", bytes)); err != nil {
		t.Skipf("a small disk cannot be had here (it takes root): %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// Law 9, on a disk that fills up in the middle of a burst: what was acknowledged is there, what is not there was not
// acknowledged, reads go on, the cause has a name, and with room again the store goes on by itself.
func TestLaw9AFullDiskLosesNothingThatWasAcknowledged(t *testing.T) {
	dir := small(t, 12<<20)
	path := filepath.Join(dir, "hub.db")
	s, err := Open(path, discard)
	must(t, err)
	const clusters = 40
	names := make([]fleet.Cluster, clusters)
	for n := range names {
		names[n] = fleet.Cluster(fmt.Sprintf("acme/c-%02d", n))
		invite(t, s, names[n], fmt.Sprint("t", n), start)
	}
	acked := make([]uint64, clusters)
	burst := func(rounds int) (failed error) {
		var mu sync.Mutex
		var all sync.WaitGroup
		for n, name := range names {
			all.Go(func() {
				for range rounds {
					i := installation("1.0.0", time.Now())
					i.Health = []fleet.Health{fleet.Healthy, fleet.Degraded}[acked[n]%2]
					got, err := s.RecordEvents(name, "j", []fleet.Event{{Seq: acked[n] + 1, At: time.Now(), Kind: fleet.EventHealth, Distribution: "shop",
						Message: strings.Repeat("x", 2000), Installation: &i}})
					if err != nil {
						mu.Lock()
						failed = errors.Join(failed, err)
						mu.Unlock()
						return
					}
					acked[n] = got
				}
			})
		}
		all.Wait()
		return failed
	}
	failed := burst(10_000)
	wantErr(t, failed, syscall.ENOSPC, path)
	wantErr(t, s.AppendEvent(fleet.Event{Kind: fleet.EventAgent, Message: strings.Repeat("x", 1<<20)}), syscall.ENOSPC)
	if why := s.Trouble(); !strings.Contains(why, "nothing can be stored since") || !strings.Contains(why, "df -h "+path) {
		t.Errorf("trouble: %q", why)
	}
	if st := s.Stats(); st.Failures == 0 || st.Trouble == nil {
		t.Errorf("counted %+v", st)
	}
	look := func(when string, s *Store) {
		t.Helper()
		for n, name := range names {
			got, err := s.AckedSeq(name, "j")
			must(t, err)
			i, _ := s.Installation(name, "shop")
			events, err := s.Events(EventFilter{Cluster: string(name), Limit: 1})
			must(t, err)
			want := []fleet.Health{fleet.Healthy, fleet.Degraded}[(acked[n]+1)%2]
			if got != acked[n] || i.Health != want || len(events) != 1 || events[0].Seq != acked[n] {
				t.Fatalf("%s: %s: acknowledged %d, stored %d, %s, last event %+v", when, name, acked[n], got, i.Health, events)
			}
		}
	}
	look("while the disk is full", s)

	must(t, syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, fmt.Sprintf("size=%d,mode=700", 64<<20)))
	must(t, burst(20))
	look("with room again", s)
	if why := s.Trouble(); why != "" {
		t.Errorf("trouble that is over: %q", why)
	}
	must(t, s.Close())
	r, err := Check(path)
	must(t, err)
	if p := problems(r); p != nil {
		t.Errorf("problems %q", p)
	}
	s, err = Open(path, discard)
	must(t, err)
	look("after a restart", s)
	must(t, s.Close())
}
