package store

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

func invite(t *testing.T, s *Store, name fleet.Cluster, id string, expires time.Time) (hash [32]byte) {
	t.Helper()
	copy(hash[:], "hash of "+id)
	_, err := s.Invite(name, map[string]string{"env": "prod"}, id, hash, expires)
	must(t, err)
	return hash
}

// issuing is an issue function that gives this certificate.
func issuing(fingerprint byte, notAfter time.Time) func(fleet.Cluster) (Certificate, error) {
	return func(fleet.Cluster) (Certificate, error) {
		return Certificate{Fingerprint: [32]byte{fingerprint}, NotAfter: notAfter}, nil
	}
}

func TestATokenIsRedeemedOnceAndRejoiningEndsTheEarlierIdentity(t *testing.T) {
	s, reopen := fresh(t)
	now := time.Now().UTC()
	hash := invite(t, s, eu, "t1", now.Add(time.Minute))

	_, err := s.Redeem("t0", hash, fleet.Fingerprint{}, now, issuing(9, now))
	wantErr(t, err, ErrTokenUnknown)
	_, err = s.Redeem("t1", [32]byte{1}, fleet.Fingerprint{}, now, issuing(9, now))
	wantErr(t, err, ErrTokenUnknown)
	name, err := s.Redeem("t1", hash, fleet.Fingerprint{}, now.Add(time.Minute), issuing(9, now))
	wantErr(t, err, ErrTokenExpired)
	same(t, "cluster of an expired token", name, eu)
	broken := errors.New("request is not signed")
	_, err = s.Redeem("t1", hash, fleet.Fingerprint{}, now, func(fleet.Cluster) (Certificate, error) { return Certificate{}, broken })
	wantErr(t, err, broken)

	end := now.Add(24 * time.Hour)
	name, err = s.Redeem("t1", hash, fleet.Fingerprint{}, now, issuing(1, end))
	must(t, err)
	same(t, "cluster", name, eu)
	_, err = s.Redeem("t1", hash, fleet.Fingerprint{}, now, issuing(9, now))
	wantErr(t, err, ErrTokenUsed)

	s = reopen()
	_, err = s.Redeem("t1", hash, fleet.Fingerprint{}, now, issuing(9, now))
	wantErr(t, err, ErrTokenUsed)
	id, err := s.Identity([32]byte{1})
	must(t, err)
	same(t, "identity", id, Identity{Cluster: eu, NotAfter: end, Generation: 1, used: 1, usedAt: now})
	c, err := s.Cluster(eu)
	must(t, err)
	if !c.Joined.Equal(now) || !c.CertNotAfter.Equal(end) || c.Labels["env"] != "prod" {
		t.Errorf("cluster: %+v", c)
	}

	must(t, s.PutIdentity([32]byte{2}, Identity{Cluster: eu, NotAfter: end})) // renewed
	if _, err := s.Identity([32]byte{1}); err != nil {
		t.Errorf("renewal ended the present certificate: %v", err)
	}
	var hash2 [32]byte
	rejoin, err := s.Invite(eu, nil, "t2", hash2, now.Add(time.Minute))
	must(t, err)
	if !rejoin {
		t.Error("a second invitation does not say rejoin")
	}
	_, err = s.Redeem("t2", hash2, fleet.Fingerprint{}, now, issuing(3, end))
	must(t, err)
	for _, old := range []byte{1, 2} {
		_, err := s.Identity([32]byte{old})
		wantErr(t, err, ErrNotFound)
	}
	if _, err := s.Identity([32]byte{3}); err != nil {
		t.Error(err)
	}
	wantErr(t, s.RenewIdentity(Renewal{Current: [32]byte{2}, Next: [32]byte{4}, NotAfter: end}), ErrNotFound)
	must(t, s.RenewIdentity(Renewal{Current: [32]byte{3}, Next: [32]byte{4}, NotAfter: end}))
	c, err = s.Cluster(eu)
	must(t, err)
	same(t, "labels after an invitation without any", c.Labels["env"], "prod")
}

func TestOf100RedemptionsOfOneTokenOneWins(t *testing.T) {
	s, _ := fresh(t)
	now := time.Now()
	hash := invite(t, s, eu, "t1", now.Add(time.Minute))
	var won, used atomic.Int64
	var winner atomic.Int64
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			_, err := s.Redeem("t1", hash, fleet.Fingerprint{}, now, issuing(byte(i), now.Add(time.Hour)))
			switch {
			case err == nil:
				won.Add(1)
				winner.Store(int64(i))
			case errors.Is(err, ErrTokenUsed):
				used.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	if won.Load() != 1 || used.Load() != 99 {
		t.Errorf("%d won, %d were told it is used", won.Load(), used.Load())
	}
	for i := range 100 {
		if _, err := s.Identity([32]byte{byte(i)}); (err == nil) != (int64(i) == winner.Load()) {
			t.Errorf("identity of call %d: %v", i, err)
		}
	}
}

func TestARemovedClusterLeavesNothingButItsEvents(t *testing.T) {
	s, reopen := fresh(t)
	now := time.Now()
	for i, c := range []fleet.Cluster{eu, us} {
		hash := invite(t, s, c, fmt.Sprint("used", i), now.Add(time.Minute))
		_, err := s.Redeem(fmt.Sprint("used", i), hash, fleet.Fingerprint{}, now, issuing(byte(i), now.Add(time.Hour)))
		must(t, err)
		invite(t, s, c, fmt.Sprint("open", i), now.Add(time.Minute))
		must(t, s.Hello(c, "v1", "v1.33", []fleet.Installation{{Distribution: "shop"}}))
		_, err = s.RecordEvents(c, "j", []fleet.Event{{Seq: 1, Kind: fleet.EventAgent}})
		must(t, err)
	}
	must(t, s.RemoveCluster(eu))
	s = reopen()
	wantErr(t, s.RemoveCluster(eu), ErrNotFound, string(eu))
	_, err := s.Cluster(eu)
	wantErr(t, err, ErrNotFound)
	_, err = s.Identity([32]byte{0})
	wantErr(t, err, ErrNotFound)
	var hash [32]byte
	copy(hash[:], "hash of open0")
	_, err = s.Redeem("open0", hash, fleet.Fingerprint{}, now, issuing(5, now))
	wantErr(t, err, ErrTokenUnknown)
	wantErr(t, s.Hello(eu, "v1", "v1", nil), ErrNotFound)
	_, err = s.RecordEvents(eu, "j", []fleet.Event{{Seq: 2, Kind: fleet.EventAgent}})
	wantErr(t, err, ErrNotFound)
	wantErr(t, s.PutIdentity([32]byte{7}, Identity{Cluster: eu}), ErrNotFound)

	installations, err := s.Installations()
	must(t, err)
	if _, there := installations[eu]; there || len(installations[us]) != 1 {
		t.Errorf("installations: %v", installations)
	}
	all, err := s.Clusters()
	must(t, err)
	if len(all) != 1 || all[0].Name != us {
		t.Errorf("clusters: %+v", all)
	}
	if _, err := s.Identity([32]byte{1}); err != nil {
		t.Errorf("another cluster lost its identity: %v", err)
	}
	events, err := s.Events(EventFilter{Cluster: string(eu)})
	must(t, err)
	if len(events) != 1 {
		t.Errorf("%d events of the removed cluster, want its history kept", len(events))
	}
}

func installation(running string, at time.Time) fleet.Installation {
	return fleet.Installation{
		Distribution: "shop", Variant: "app-istio", Namespace: "shop",
		Policy:  fleet.Policy{Range: "1.x", Pin: &fleet.Pin{Version: "1.0.0", Reason: "audit", Source: "overlay"}},
		Running: running, Bundle: digest("a"), Overlay: digest("b"), Rendered: digest("c"), Phase: fleet.Succeeded, Target: running,
		Reason: "r", PhaseSince: start, Health: fleet.Healthy, HealthMessage: "m", Objects: 5, Ready: 4, DriftCorrected: 1, Drifted: 2,
		DriftMessage: "Service/backend: spec.ports was changed by kubectl", ObservedAt: at,
	}
}

// transactions counts what was committed since the file was opened.
func transactions(s *Store) int {
	n := 0
	_ = s.db.View(func(tx *bolt.Tx) error { n = tx.ID(); return nil })
	return n
}

func TestHelloReplacesTheListAndWritesOnlyNews(t *testing.T) {
	s, reopen := fresh(t)
	invite(t, s, eu, "t1", start)
	at := time.Now().UTC()
	must(t, s.Hello(eu, "v1", "v1.33", []fleet.Installation{installation("1.0.0", at), {Distribution: "bank"}}))
	s = reopen()
	all, err := s.Installations()
	must(t, err)
	same(t, "installations", all[eu], []fleet.Installation{installation("1.0.0", at), {Distribution: "bank"}})

	before := transactions(s)
	must(t, s.Hello(eu, "v1", "v1.33", []fleet.Installation{installation("1.0.0", at.Add(time.Hour)), {Distribution: "bank"}}))
	if n := transactions(s); n != before {
		t.Errorf("%d transactions for a Hello without news", n-before)
	}
	must(t, s.Hello(eu, "v2", "v1.33", nil))
	all, err = s.Installations()
	must(t, err)
	if list, there := all[eu]; !there || len(list) != 0 {
		t.Errorf("installations after an empty Hello: %v", all)
	}
	c, err := s.Cluster(eu)
	must(t, err)
	if c.SpokeVersion != "v2" || c.KubernetesVersion != "v1.33" || c.LastSeen.Before(at) {
		t.Errorf("cluster: %+v", c)
	}
}

func TestEventsAreRecordedOnceInAnyOrderOfSending(t *testing.T) {
	s, reopen := fresh(t)
	invite(t, s, eu, "t1", start)
	event := func(seq uint64) fleet.Event {
		return fleet.Event{Seq: seq, At: start, Kind: fleet.EventPhase, Distribution: "shop", Cluster: "someone/else"}
	}
	for _, c := range []struct {
		send  []uint64
		acked uint64
	}{{[]uint64{2, 1}, 2}, {[]uint64{1, 2, 3}, 3}, {[]uint64{3}, 3}, {nil, 3}, {[]uint64{4, 4}, 4}} {
		var batch []fleet.Event
		for _, seq := range c.send {
			batch = append(batch, event(seq))
		}
		acked, err := s.RecordEvents(eu, "j1", batch)
		must(t, err)
		same(t, fmt.Sprint("acked after ", c.send), acked, c.acked)
		s = reopen()
	}
	all, err := s.Events(EventFilter{Cluster: string(eu)})
	must(t, err)
	if len(all) != 4 {
		t.Fatalf("%d events, want 4: %+v", len(all), all)
	}
	for i, e := range all {
		same(t, "seq", e.Seq, uint64(i+1))
	}
	seq, err := s.AckedSeq(eu, "j1")
	must(t, err)
	same(t, "acked", seq, uint64(4))
	seq, err = s.AckedSeq(eu, "j2")
	must(t, err)
	same(t, "acked of another journal", seq, uint64(0))
	if _, err := s.RecordEvents(eu, "", nil); err == nil {
		t.Error("took an empty journal id")
	}
}

func TestOnlyTheLatestJournalsOfAClusterAreRemembered(t *testing.T) {
	s, _ := fresh(t)
	invite(t, s, eu, "t1", start)
	for i := range maxJournals + 2 {
		_, err := s.RecordEvents(eu, fmt.Sprint("j", i), []fleet.Event{{Seq: 7, Kind: fleet.EventAgent}})
		must(t, err)
	}
	kept := 0
	for i := range maxJournals + 2 {
		seq, err := s.AckedSeq(eu, fmt.Sprint("j", i))
		must(t, err)
		if seq == 7 {
			kept++
		}
	}
	last, _ := s.AckedSeq(eu, fmt.Sprint("j", maxJournals+1))
	if kept != maxJournals || last != 7 {
		t.Errorf("%d journals kept, the last at %d", kept, last)
	}
}

func TestEventsUpdateInstallationsButNeverBackwards(t *testing.T) {
	s, _ := fresh(t)
	invite(t, s, eu, "t1", start)
	now := time.Now().UTC()
	running := func() string {
		all, err := s.Installations()
		must(t, err)
		if len(all[eu]) != 1 {
			t.Fatalf("installations: %+v", all)
		}
		return all[eu][0].Running
	}
	seq := uint64(0)
	record := func(i fleet.Installation) {
		seq++
		_, err := s.RecordEvents(eu, "j", []fleet.Event{{Seq: seq, Kind: fleet.EventPhase, Distribution: i.Distribution, Installation: &i}})
		must(t, err)
	}
	must(t, s.Hello(eu, "v1", "v1", []fleet.Installation{installation("1.2.0", now)}))
	record(installation("1.1.0", now.Add(-time.Hour)))
	same(t, "after an older event", running(), "1.2.0")
	record(installation("1.3.0", now))
	same(t, "after a newer event", running(), "1.3.0")
	gone := installation("9.9.9", now)
	gone.Distribution = "gone"
	record(gone)
	same(t, "after an event of a subscription that Hello did not list", running(), "1.3.0")

	record(installation("1.4.0", now.Add(24*time.Hour))) // its clock was wrong
	record(installation("1.5.0", now))                   // and was put right
	same(t, "after a clock that went back", running(), "1.5.0")
}

func TestConcurrentEventsShareCommits(t *testing.T) {
	s, _ := fresh(t)
	const spokes = 50
	for i := range spokes {
		invite(t, s, fleet.Cluster(fmt.Sprintf("acme/c-%d", i)), fmt.Sprint("t", i), start)
	}
	release := hold(t, s)
	before := transactions(s)
	var all sync.WaitGroup
	for i := range spokes {
		all.Go(func() {
			if acked, err := s.RecordEvents(fleet.Cluster(fmt.Sprintf("acme/c-%d", i)), "j", []fleet.Event{{Seq: 1, Kind: fleet.EventAgent}}); err != nil || acked != 1 {
				t.Errorf("acked %d, %v", acked, err)
			}
		})
	}
	until(t, "all wait", func() bool { return waitingIn(s) == spokes })
	release()
	all.Wait()
	events, err := s.Events(EventFilter{})
	must(t, err)
	if n := transactions(s) - before; n != 2 || len(events) != spokes { // that which was held, and theirs
		t.Errorf("%d commits for %d events", n, len(events))
	}
}

func TestHeardKeepsTheLatestTime(t *testing.T) {
	s, reopen := fresh(t)
	now := time.Now().UTC().Truncate(time.Millisecond)
	hash := invite(t, s, eu, "t1", now.Add(time.Minute))
	_, err := s.Redeem("t1", hash, fleet.Fingerprint{}, now, issuing(1, now.Add(time.Hour)))
	must(t, err)
	must(t, s.Heard(map[fleet.Cluster]time.Time{eu: now.Add(time.Minute), "acme/gone": now}))
	must(t, s.Heard(map[fleet.Cluster]time.Time{eu: now.Add(time.Second)})) // older
	s = reopen()
	all, err := s.Clusters()
	must(t, err)
	if len(all) != 1 || !all[0].LastSeen.Equal(now.Add(time.Minute)) {
		t.Errorf("got %+v", all)
	}
}

// A spoke that says again what it said is acknowledged and costs no write, and loses nothing by it.
func TestHealthThatIsAsItWasIsNoWrite(t *testing.T) {
	s, reopen := fresh(t)
	invite(t, s, eu, "t1", start)
	i := installation("1.0.0", time.Now().UTC())
	tell := func(seq uint64, health fleet.Health) {
		t.Helper()
		i.Health, i.ObservedAt = health, i.ObservedAt.Add(time.Second)
		acked, err := s.RecordEvents(eu, "j", []fleet.Event{{Seq: seq, Kind: fleet.EventHealth, Distribution: "shop", Installation: &i}})
		if err != nil || acked != seq {
			t.Fatalf("event %d: acknowledged %d, %v", seq, acked, err)
		}
	}
	tell(1, fleet.Healthy)
	before := s.Stats().Writes
	for seq := uint64(2); seq <= 50; seq++ {
		tell(seq, fleet.Healthy)
	}
	same(t, "writes of what is no news", s.Stats().Writes, before)
	tell(51, fleet.Degraded)
	tell(52, fleet.Degraded)
	same(t, "writes of the news", s.Stats().Writes, before+1)
	after := killed(t, s)
	acked, err := after.AckedSeq(eu, "j")
	must(t, err)
	events, err := after.Events(EventFilter{})
	must(t, err)
	if health, _ := after.Installation(eu, "shop"); acked != 51 || len(events) != 2 || health.Health != fleet.Degraded {
		t.Errorf("after a kill: acknowledged %d, %d events, %s", acked, len(events), health.Health)
	}
	s = reopen()
	if acked, err = s.AckedSeq(eu, "j"); err != nil || acked != 52 {
		t.Errorf("after a stop: acknowledged %d, %v", acked, err)
	}
	tell(53, fleet.Healthy)
	if now, _ := s.Installation(eu, "shop"); now.Health != fleet.Healthy {
		t.Errorf("then: %s", now.Health)
	}
}
