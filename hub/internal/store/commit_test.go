package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// hold keeps the lead with a change that does not end before release is called: what comes then waits.
func hold(t *testing.T, s *Store) (release func()) {
	t.Helper()
	begun, end, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- s.update(func(tx *txn) error {
			close(begun)
			<-end
			return tx.Bucket(bucketMeta).Put([]byte("held"), nil)
		})
	}()
	<-begun
	return sync.OnceFunc(func() {
		close(end)
		must(t, <-ended)
	})
}

func waitingIn(s *Store) int {
	s.commits.mu.Lock()
	defer s.commits.mu.Unlock()
	return len(s.commits.waiting)
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// One that fails must neither take the others of its group with it nor leave anything of itself behind.
func TestAChangeThatFailsFailsAlone(t *testing.T) {
	s, reopen := fresh(t)
	release := hold(t, s)
	broken := errors.New("broken")
	const changes = 30
	var all sync.WaitGroup
	results := make([]error, changes)
	for n := range changes {
		all.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					results[n] = fmt.Errorf("panic: %v", p)
				}
			}()
			results[n] = s.share(func(tx *txn) error {
				if n%5 == 3 {
					return untouched{ErrNotFound}
				}
				name := fleet.Cluster(fmt.Sprintf("acme/c-%02d", n))
				if err := s.putCluster(tx, name, clusterRecord{}); err != nil {
					return err
				}
				if err := appendEvent(tx, fleet.Event{Cluster: name, Kind: fleet.EventJoined}); err != nil {
					return err
				}
				switch n % 5 {
				case 1:
					return broken
				case 2:
					panic("at the disco")
				}
				return nil
			})
		})
	}
	until(t, "all wait", func() bool { return waitingIn(s) == changes })
	release()
	all.Wait()
	kept := 0
	for n, err := range results {
		switch n % 5 {
		case 1:
			wantErr(t, err, broken)
		case 2:
			if err == nil || err.Error() != "panic: at the disco" {
				t.Errorf("change %d: %v, want its own panic", n, err)
			}
		case 3:
			wantErr(t, err, ErrNotFound)
		default:
			must(t, err)
			kept++
		}
	}
	look := func(when string) {
		clusters, err := s.Clusters()
		must(t, err)
		events, err := s.Events(EventFilter{})
		must(t, err)
		if len(clusters) != kept || len(events) != kept {
			t.Errorf("%s: %d clusters and %d events of %d changes that were told to be stored", when, len(clusters), len(events), kept)
		}
	}
	look("at once")
	s = reopen()
	look("after a restart")
}

func TestWhatWritesNothingIsNoTransaction(t *testing.T) {
	s, _ := fresh(t)
	before := s.Stats()
	wantErr(t, s.share(func(*txn) error { return untouched{ErrNotFound} }), ErrNotFound)
	must(t, s.share(func(*txn) error { return untouched{} }))
	if after := s.Stats(); after.Writes != before.Writes || after.Changes != before.Changes {
		t.Errorf("counted %+v after %+v", after, before)
	}
	must(t, s.AppendEvent(fleet.Event{Kind: fleet.EventJoined}))
	if after := s.Stats(); after.Writes != before.Writes+1 || after.Changes != before.Changes+1 {
		t.Errorf("counted %+v after %+v and one event", after, before)
	}
}

func TestACloseAnswersWhoWaitsAndRefusesWhoComes(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "hub.db"), discard)
	must(t, err)
	release := hold(t, s)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() { must(t, s.AppendEvent(fleet.Event{Kind: fleet.EventJoined})) })
	}
	until(t, "all wait", func() bool { return waitingIn(s) == 20 })
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	release()
	all.Wait()
	must(t, <-closed)
	wantErr(t, s.AppendEvent(fleet.Event{Kind: fleet.EventJoined}), ErrClosed)
	must(t, s.Close())
}
