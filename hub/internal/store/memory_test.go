package store

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/hub/internal/rollout"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/plan"
)

// Changes of one group see each other's, and nobody else sees either before both are on disk.
func TestAGroupSeesItsOwnChanges(t *testing.T) {
	s, _ := fresh(t)
	release := hold(t, s)
	var all sync.WaitGroup
	change := func(do func()) {
		waiting := waitingIn(s)
		all.Go(func() {
			if err := s.share(func(tx *txn) error { do(); return tx.Bucket(bucketMeta).Put([]byte("test"), nil) }); err != nil {
				t.Error(err)
			}
		})
		until(t, "the change waits", func() bool { return waitingIn(s) > waiting })
	}
	rows, ordered := &s.memory.installations, &s.memory.clusters
	named := func(labels ...string) (all []Cluster) {
		for _, l := range labels {
			all = append(all, Cluster{Name: fleet.Cluster(l[:1]), SpokeVersion: l[1:]})
		}
		return all
	}
	list := func(running string) []fleet.Installation { return []fleet.Installation{{Running: running}} }
	change(func() {
		rows.put(eu, list("first"))
		rows.put(us, list("first"))
		for _, c := range named("c1", "a1", "b1") {
			ordered.put(c)
		}
	})
	change(func() {
		before, _ := rows.latest(eu)
		same(t, "seen by the second", before, list("first"))
		same(t, "seen by all", len(rows.all())+len(ordered.all()), 0)
		rows.put(eu, list("second"))
		rows.drop(us)
		ordered.put(named("a2")[0])
		ordered.drop("c")
		_, found := ordered.latest("c")
		same(t, "the dropped one is seen", found, false)
	})
	before := transactions(s)
	release()
	all.Wait()
	same(t, "transactions", transactions(s)-before, 2) // that which was held, and the group
	same(t, "rows", rows.all(), map[fleet.Cluster][]fleet.Installation{eu: list("second")})
	same(t, "ordered rows", ordered.all(), named("a2", "b1"))
}

// Law 9: nothing is told that is not on disk.
func TestLaw9WhatWasNotCommittedIsNotSeen(t *testing.T) {
	s, _ := fresh(t)
	invite(t, s, eu, "t", start)
	must(t, s.Hello(eu, "v1", "v1.33", []fleet.Installation{installation("1.0.0", start)}))
	clusters, installations := s.memory.clusters.all(), s.memory.installations.all()
	broken := errors.New("disk full")
	err := s.update(func(tx *txn) error {
		must(t, s.putCluster(tx, us, clusterRecord{}))
		must(t, s.putInstallations(tx, eu, nil))
		same(t, "clusters before the commit", s.memory.clusters.all(), clusters)
		same(t, "installations before the commit", s.memory.installations.all(), installations)
		return broken
	})
	wantErr(t, err, broken)
	same(t, "clusters after no commit", s.memory.clusters.all(), clusters)
	same(t, "installations after no commit", s.memory.installations.all(), installations)
	if s.PutPin(fleet.HubPin{Cluster: eu, Distribution: "shop"}, fleet.Event{}, fleet.Entry{}) == nil {
		t.Error("a change by nobody was taken")
	}
	if _, found := s.Pin(eu, "shop"); found {
		t.Error("a pin that was not stored is seen")
	}
}

func TestAnAnswerOnceGivenNeverChanges(t *testing.T) {
	s, _ := fresh(t)
	for i, c := range []fleet.Cluster{us, eu} {
		invite(t, s, c, fmt.Sprint(i), start)
		must(t, s.Hello(c, "v1", "v1.33", []fleet.Installation{installation("1.0.0", start)}))
	}
	clusters, err := s.Clusters()
	must(t, err)
	installations, err := s.Installations()
	must(t, err)
	wereClusters, wereInstallations := slices.Clone(clusters), maps.Clone(installations)

	invite(t, s, "acme/ab-1", "t3", start)
	must(t, s.RemoveCluster(us))
	newer := installation("2.0.0", time.Now())
	_, err = s.RecordEvents(eu, "j", []fleet.Event{{Seq: 1, Kind: fleet.EventPhase, Distribution: "shop", Installation: &newer}})
	must(t, err)
	same(t, "clusters", clusters, wereClusters)
	same(t, "installations", installations, wereInstallations)
	i, _ := s.Installation(eu, "shop")
	same(t, "running now", i.Running, "2.0.0")
	now, err := s.Clusters()
	must(t, err)
	if len(now) != 2 || now[0].Name != "acme/ab-1" || now[1].Name != eu {
		t.Errorf("clusters now: %+v", now)
	}
}

// Writers of every kind and readers at once; in the end memory is what a new process finds in the file.
func TestMemoryIsWhatTheFileSays(t *testing.T) {
	s, _ := fresh(t)
	const writers, rounds = 8, 60
	names := make([]fleet.Cluster, 12)
	for i := range names {
		names[i] = fleet.Cluster(fmt.Sprintf("acme/c-%d", i))
		invite(t, s, names[i], fmt.Sprint("first-", i), start)
	}
	must(t, s.PutRelease(release("1.0.0", fleet.Available, digest("a")), "h"))
	r, err := newRollout(s, rollout.State{Distribution: "shop", Version: "1.0.0", Plan: plan.Default(), Phase: fleet.RolloutProgressing}, nil, byAdmin)
	must(t, err)
	stop := make(chan struct{})
	var reading, writing sync.WaitGroup
	for range 2 {
		reading.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					readAll(t, s, names)
				}
			}
		})
	}
	for w := range writers {
		writing.Go(func() {
			random := rand.New(rand.NewPCG(uint64(w), 1))
			for round := range rounds {
				if err := write(s, random, names[random.IntN(len(names))], fmt.Sprintf("%d-%d", w, round), r); err != nil && !errors.Is(err, ErrNotFound) {
					t.Error(err)
				}
			}
		})
	}
	writing.Wait()
	close(stop)
	reading.Wait()

	path := filepath.Join(t.TempDir(), "copy.db")
	must(t, s.db.View(func(tx *bolt.Tx) error { return tx.CopyFile(path, 0o600) }))
	found, err := Open(path, discard)
	must(t, err)
	defer func() { must(t, found.Close()) }()
	same(t, "clusters", s.memory.clusters.rows, found.memory.clusters.rows)
	same(t, "installations", s.memory.installations.rows, found.memory.installations.rows)
	same(t, "identities", s.memory.identities.rows, found.memory.identities.rows)
	same(t, "revisions", s.memory.revisions.rows, found.memory.revisions.rows)
	same(t, "re-homes", s.memory.reHomes.rows, found.memory.reHomes.rows)
	if len(found.memory.revisions.rows) == 0 || len(found.memory.reHomes.rows) == 0 {
		t.Error("no revision or no re-home was written")
	}
	same(t, "pins", len(s.memory.pins.rows), len(found.memory.pins.rows))
	for i, p := range found.memory.pins.rows {
		same(t, "pin", s.memory.pins.rows[i], p)
	}
	same(t, "decisions", len(s.memory.decisions.rows), len(found.memory.decisions.rows))
	for i, d := range found.memory.decisions.rows {
		same(t, "decision", s.memory.decisions.rows[i], d)
	}
	same(t, "recalls", s.memory.recalls.rows, found.memory.recalls.rows)
	entries, err := found.Audit(0, 0)
	must(t, err)
	must(t, VerifyAudit(entries, nil))
}

func readAll(t *testing.T, s *Store, names []fleet.Cluster) {
	clusters, _ := s.Clusters()
	if !slices.IsSortedFunc(clusters, func(a, b Cluster) int { return slices.Compare([]byte(a.Name), []byte(b.Name)) }) {
		t.Error("clusters out of order")
	}
	installations, _ := s.Installations()
	for _, list := range installations {
		for _, i := range list {
			_ = i.Running
		}
	}
	for _, name := range names {
		_, _ = s.Installation(name, "shop")
		_, _ = s.Pin(name, "shop")
		_, _ = s.Cluster(name)
	}
	decisions, _ := s.Decisions()
	for _, d := range decisions {
		_ = d.Version
	}
}

// write makes one change of some kind.
func write(s *Store, random *rand.Rand, name fleet.Cluster, unique string, r rollout.State) error {
	now := time.Now()
	running := installation(fmt.Sprintf("1.%d.0", random.IntN(100)), now)
	e := fleet.Event{At: now, Kind: fleet.EventPinned, Cluster: name, Distribution: "shop"}
	switch random.IntN(13) {
	case 0:
		return s.RemoveCluster(name)
	case 1, 2:
		_, err := s.Invite(name, map[string]string{"by": unique}, unique, [32]byte{}, now)
		return err
	case 3:
		return s.Hello(name, "v"+unique, "v1.33", []fleet.Installation{running})
	case 4:
		return s.Heard(map[fleet.Cluster]time.Time{name: now})
	case 5:
		return s.PutPin(fleet.HubPin{Cluster: name, Distribution: "shop", Version: unique, Created: now}, e, byAdmin)
	case 6:
		return s.PutDecision(fleet.HubDecision{Cluster: name, Distribution: "shop", Version: unique, At: now}, e, byAdmin)
	case 7:
		r.Members = map[fleet.Cluster]rollout.Member{name: {Mark: fleet.MarkDone, Since: now}}
		return s.SaveRollout(r, []fleet.Cluster{name}, []fleet.Event{e}, byAdmin)
	case 8:
		return s.DeletePin(name, "shop", e, byAdmin)
	case 9:
		return s.Audited(e, byAdmin).PutReHome(fleet.SignedReHome{Cluster: name, Nonce: unique, To: "hub.example.com:7443", Sent: now, Expires: now.Add(time.Hour)})
	case 10:
		var err error
		if last, found, _ := s.ReHome(name); found {
			e.Seq, e.Kind, e.ReHome = 1, fleet.EventIdentity, &fleet.ReHomeAnswer{Nonce: last.Nonce, State: fleet.ReHomeMoving}
			_, err = s.RecordEvents(name, unique, []fleet.Event{e})
		}
		return err
	case 11:
		return s.PutRelease(release("1.0.0-"+unique, fleet.Available, digest("a")), "h")
	}
	_, err := s.RecordEvents(name, unique, []fleet.Event{{Seq: 1, At: now, Kind: fleet.EventPhase, Distribution: "shop", Installation: &running}})
	return err
}

// Who asks about an identity for each message asks again only when the edition is another one: what makes another
// answer changes it, by the time that the change is answered, and what a fleet says all day does not.
func TestAnotherAnswerAboutAnIdentityIsAnotherEdition(t *testing.T) {
	s, reopen := fresh(t)
	m := enter(t, s, true)
	changes := func(what string, another bool, do func()) {
		t.Helper()
		before := m.s.Edition()
		do()
		if got := m.s.Edition() != before; got != another {
			t.Errorf("%s: another edition %v, want %v", what, got, another)
		}
	}
	operator := Operator{Name: "maria", Role: caller.Role{Kind: caller.Viewer}, Created: m.now, Fingerprint: print32(200), NotAfter: m.now.Add(time.Hour)}
	changes("accepted", true, func() { must(t, m.accept(key(1))) })
	changes("renewed", true, func() { m.renew(1) })
	changes("the next one is used", true, func() { m.use(2) })
	changes("used again", false, func() { m.use(2) })
	changes("a first session", false, func() { must(t, s.Session(eu, "a", 1, m.now)) })
	changes("news of a Hello", false, func() {
		must(t, s.Hello(eu, "v1", "v1.33", []fleet.Installation{installation("1.0.0", m.now)}))
	})
	changes("heard", false, func() { must(t, s.Heard(map[fleet.Cluster]time.Time{eu: m.now.Add(time.Hour)})) })
	changes("an event", false, func() {
		newer := installation("2.0.0", m.now)
		_, err := s.RecordEvents(eu, "j", []fleet.Event{{Seq: 1, At: m.now, Kind: fleet.EventPhase, Distribution: "shop", Installation: &newer}})
		must(t, err)
	})
	changes("a change that is not on disk", false, func() {
		if err := s.update(func(tx *txn) error {
			return errors.Join(s.writeIdentity(tx, []byte("x"), identityRecord{Cluster: eu}), errors.New("disk full"))
		}); err == nil {
			t.Error("a change that failed is none")
		}
	})
	changes("what comes after it", false, func() { must(t, s.Heard(map[fleet.Cluster]time.Time{eu: m.now.Add(2 * time.Hour)})) })
	changes("a copy", true, func() { wantErr(t, s.Session(eu, "b", 1, m.now), ErrLate) })
	changes("turned away", true, func() {
		must(t, s.Audited(fleet.Event{Kind: fleet.EventIdentity}, byAdmin).RejectCluster(eu, "why", m.now))
	})
	changes("joined again", true, func() { m.join(false) })
	changes("removed", true, func() { must(t, s.RemoveCluster(eu)) })
	changes("an operator", true, func() { must(t, s.Audited(fleet.Event{}, byAdmin).AddOperator(operator)) })
	changes("an operator is no more", true, func() { must(t, s.Audited(fleet.Event{}, byAdmin).RemoveOperator("maria")) })
	m.s = reopen()
	changes("after a restart", true, func() { m.join(false) })
}

// Who lists re-homes puts them in an order of its own, which must not be memory's.
func TestAListOfReHomesIsTheCallers(t *testing.T) {
	s, _ := fresh(t)
	for i, c := range []fleet.Cluster{eu, us} {
		invite(t, s, c, fmt.Sprint(i), start)
		must(t, s.Audited(fleet.Event{Kind: fleet.EventIdentity, Cluster: c}, byAdmin).PutReHome(fleet.SignedReHome{Cluster: c, Nonce: string(c), Sent: start}))
	}
	all, err := s.ReHomes()
	must(t, err)
	slices.Reverse(all)
	for _, c := range []fleet.Cluster{eu, us} {
		if r, found, err := s.ReHome(c); err != nil || !found || r.Nonce != string(c) {
			t.Errorf("the re-home of %s: %q, %v, %v", c, r.Nonce, found, err)
		}
	}
}
