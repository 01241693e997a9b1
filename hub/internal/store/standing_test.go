package store

import (
	"encoding/base64"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// member is a cluster that joined, and the times of its test.
type member struct {
	t     *testing.T
	s     *Store
	now   time.Time
	certs byte
}

func print32(n byte) [32]byte { return [32]byte{n} }

func key(n byte) fleet.Fingerprint { return fleet.Fingerprint{n, 0xee} }

// enter joins with certificate 1 and key 1.
func enter(t *testing.T, s *Store, asks bool) *member {
	t.Helper()
	m := &member{t: t, s: s, now: time.Now().UTC()}
	m.join(asks)
	return m
}

func (m *member) join(asks bool) {
	m.t.Helper()
	m.certs++
	id := fmt.Sprint("token", m.certs)
	_, err := m.s.Audited(fleet.Event{Kind: fleet.EventInvited}, fleet.Entry{Actor: "operator admin", Action: "cluster invite"}).Invite(eu, nil, id, [32]byte{9}, m.now.Add(time.Minute), asks)
	must(m.t, err)
	_, err = m.s.Redeem(id, [32]byte{9}, key(m.certs), m.now, issuing(m.certs, m.now.Add(24*time.Hour)))
	must(m.t, err)
}

// renew makes the next certificate under that of number by.
func (m *member) renew(by byte) (next byte) {
	m.t.Helper()
	m.certs++
	must(m.t, m.s.RenewIdentity(Renewal{Current: print32(by), CurrentKey: key(by), Next: print32(m.certs), Key: key(m.certs), NotAfter: m.now.Add(24 * time.Hour)}))
	return m.certs
}

func (m *member) use(n byte) Identity {
	m.t.Helper()
	id, err := m.s.Use(print32(n), m.now)
	must(m.t, err)
	return id
}

func (m *member) standing(want Standing, words ...string) Cluster {
	m.t.Helper()
	c, err := m.s.Cluster(eu)
	must(m.t, err)
	if c.Standing != want {
		m.t.Errorf("standing %q (%s), want %q", c.Standing, c.StandingWhy, want)
	}
	for _, w := range words {
		if !strings.Contains(c.StandingWhy, w) {
			m.t.Errorf("standing %q does not say %q", c.StandingWhy, w)
		}
	}
	return c
}

func (m *member) accept(key fleet.Fingerprint) error {
	return m.s.Audited(fleet.Event{Kind: fleet.EventIdentity, Cluster: eu}, fleet.Entry{Actor: "operator admin", Action: "cluster accept"}).AcceptCluster(eu, key)
}

func TestWhoJoinsWaitsToBeAcceptedOverARestartToo(t *testing.T) {
	s, reopen := fresh(t)
	m := enter(t, s, true)
	if id := m.use(1); id.Standing != Pending || id.Key != key(1) {
		t.Errorf("before: %+v", id)
	}
	m.s = reopen()
	if c := m.standing(Pending); c.Key != key(1) || c.Generation != 1 {
		t.Errorf("after a restart: %+v", c)
	}
	err := m.s.RenewIdentity(Renewal{Current: print32(1), Next: print32(7), Key: key(7), NotAfter: m.now.Add(time.Hour)})
	wantErr(t, err, ErrNotFound)
	wantErr(t, m.accept(key(2)), ErrFingerprint, key(2).String())
	must(t, m.accept(key(1)))
	m.standing(Accepted)
	wantErr(t, m.accept(key(1)), ErrStanding)
	m.s = reopen()
	if id := m.use(1); id.Standing != Accepted {
		t.Errorf("accepted, after a restart: %+v", id)
	}
}

func TestARenewalWhoseAnswerWasLostLocksNobodyOut(t *testing.T) {
	s, reopen := fresh(t)
	m := enter(t, s, false)
	lost := m.renew(1)
	m.now = m.now.Add(12 * time.Hour)
	if id := m.use(1); id.Superseded() {
		t.Fatal("the certificate in use ended with an answer that was lost")
	}
	second := m.renew(1)
	m.s = reopen()
	if id := m.use(second); id.Superseded() || id.Standing != Accepted {
		t.Errorf("the new one: %+v", id)
	}
	if id := m.use(1); !id.Superseded() || id.Standing != Accepted {
		t.Errorf("the one before, a moment later: %+v, want it refused and no more", id)
	}
	if id := m.use(lost); !id.Superseded() || id.Standing != Accepted {
		t.Errorf("the lost one, a moment later: %+v", id)
	}
	m.standing(Accepted)
}

func TestASupersededCertificateIsACopys(t *testing.T) {
	s, reopen := fresh(t)
	m := enter(t, s, false)
	next := m.renew(1)
	m.use(next)
	m.now = m.now.Add(overlap)
	<-drained(m.s)
	if id := m.use(1); id.Standing != Quarantined || !id.Superseded() {
		t.Errorf("the copy: %+v", id)
	}
	if id := m.use(next); id.Standing != Quarantined {
		t.Errorf("the other: %+v", id)
	}
	select {
	case <-m.s.Revoked():
	default:
		t.Error("nobody was told to look at who is connected")
	}
	m.s = reopen()
	c := m.standing(Quarantined, "certificate 1 was used after certificate 2")
	if c.Key != key(2) || len(c.Rivals) != 1 || c.Rivals[0] != key(1) {
		t.Errorf("keys: %v and %v", c.Key, c.Rivals)
	}
	events, err := m.s.Events(EventFilter{Cluster: string(eu)})
	must(t, err)
	if last := events[len(events)-1]; last.Kind != fleet.EventIdentity || !strings.Contains(last.Message, "quarantine") {
		t.Errorf("event: %+v", last)
	}

	wantErr(t, m.accept(fleet.Fingerprint{}), ErrFingerprint, "2")
	must(t, m.accept(key(1))) // the vendor knows that the older is the right one
	if id := m.use(1); id.Standing != Accepted || id.Superseded() {
		t.Errorf("the chosen one: %+v", id)
	}
	_, err = m.s.Identity(print32(next))
	wantErr(t, err, ErrNotFound)
	third := m.renew(1)
	if id := m.use(third); id.Superseded() || id.Generation != 3 {
		t.Errorf("its next: %+v", id)
	}
}

// drained takes what was told before.
func drained(s *Store) <-chan struct{} {
	done := make(chan struct{})
	defer close(done)
	select {
	case <-s.Revoked():
	default:
	}
	return done
}

func TestAKeyIsUsedOnceByACluster(t *testing.T) {
	s, reopen := fresh(t)
	m := enter(t, s, false)
	second := m.renew(1)
	m.use(second)
	for n := range byte(2) {
		r := Renewal{Current: print32(second), CurrentKey: key(second), Next: print32(99), Key: key(n + 1), NotAfter: m.now.Add(time.Hour)}
		wantErr(t, m.s.RenewIdentity(r), ErrKeyUsed, key(n+1).String())
	}
	if _, err := m.s.Identity(print32(99)); err == nil {
		t.Error("a refused renewal left an identity")
	}
	m.s = reopen()
	must(t, m.s.RemoveCluster(eu))
	_, err := m.s.Invite(eu, nil, "again", [32]byte{9}, m.now.Add(time.Minute))
	must(t, err)
	_, err = m.s.Redeem("again", [32]byte{9}, key(1), m.now, issuing(50, m.now.Add(time.Hour)))
	wantErr(t, err, ErrKeyUsed)
	_, err = m.s.Redeem("again", [32]byte{9}, key(50), m.now, issuing(50, m.now.Add(time.Hour)))
	must(t, err) // the refusal did not spend the token
}

// A certificate from a hub that did not record keys shows its key when it renews.
func TestAKeyOfBeforeIsNotTakenAgain(t *testing.T) {
	s, _ := fresh(t)
	now := time.Now()
	hash := invite(t, s, eu, "t1", now.Add(time.Minute))
	_, err := s.Redeem("t1", hash, fleet.Fingerprint{}, now, issuing(1, now.Add(time.Hour)))
	must(t, err)
	r := Renewal{Current: print32(1), CurrentKey: key(1), Next: print32(2), Key: key(1), NotAfter: now.Add(time.Hour)}
	wantErr(t, s.RenewIdentity(r), ErrKeyUsed)
	r.Key = key(2)
	must(t, s.RenewIdentity(r))
}

func TestRenewingWithoutEndIsRefused(t *testing.T) {
	s, _ := fresh(t)
	m := enter(t, s, false)
	for range maxUnused {
		m.renew(1)
	}
	r := Renewal{Current: print32(1), CurrentKey: key(1), Next: print32(200), Key: key(200), NotAfter: m.now.Add(time.Hour)}
	wantErr(t, s.RenewIdentity(r), ErrUnused)
	m.use(m.certs) // the newest came through after all
	m.renew(m.certs)
}

func TestSessionsOfOneIdentityCountUp(t *testing.T) {
	const mine, other = "instance-a", "instance-b"
	type hello struct {
		instance string
		n        uint64
		after    time.Duration // since the one before
		late     bool
		standing Standing
	}
	for name, story := range map[string][]hello{
		"reconnects and restarts":         {{mine, 1, 0, false, Accepted}, {mine, 2, time.Second, false, Accepted}, {mine, 9, time.Hour, false, Accepted}},
		"an older spoke, then a newer":    {{"", 0, 0, false, Accepted}, {"", 0, time.Hour, false, Accepted}, {mine, 1, time.Hour, false, Accepted}},
		"a newer spoke, then an older":    {{mine, 1, 0, false, Accepted}, {"", 0, time.Hour, true, Accepted}},
		"one packet that took long":       {{mine, 2, 0, false, Accepted}, {mine, 1, time.Second, true, Accepted}, {mine, 3, time.Second, false, Accepted}},
		"a copy of a folder":              {{mine, 2, 0, false, Accepted}, {mine, 2, time.Hour, true, Quarantined}, {mine, 3, time.Second, false, Quarantined}},
		"a restored snapshot":             {{mine, 7, 0, false, Accepted}, {mine, 3, overlap, true, Quarantined}},
		"two that take turns":             {{mine, 2, 0, false, Accepted}, {mine, 3, time.Hour, false, Accepted}, {mine, 3, time.Second, true, Accepted}, {mine, 4, time.Second, false, Accepted}, {mine, 4, time.Second, true, Quarantined}},
		"an identity in another folder":   {{mine, 2, 0, false, Accepted}, {other, 3, time.Second, true, Quarantined}},
		"two packets that took long, far": {{mine, 2, 0, false, Accepted}, {mine, 1, time.Second, true, Accepted}, {mine, 5, 2 * lateness, false, Accepted}, {mine, 4, time.Second, true, Accepted}},
	} {
		t.Run(name, func(t *testing.T) {
			s, reopen := fresh(t)
			m := enter(t, s, false)
			for i, h := range story {
				m.now = m.now.Add(h.after)
				err := m.s.Session(eu, h.instance, h.n, m.now)
				if h.late {
					wantErr(t, err, ErrLate)
				} else {
					must(t, err)
				}
				m.standing(h.standing)
				if i == 0 {
					m.s = reopen()
				}
			}
		})
	}
}

func TestAcceptingOutOfQuarantineAndRejoiningCountSessionsAnew(t *testing.T) {
	s, _ := fresh(t)
	m := enter(t, s, false)
	clash := func() {
		t.Helper()
		must(t, s.Session(eu, "a", 7, m.now))
		m.now = m.now.Add(overlap)
		wantErr(t, s.Session(eu, "a", 7, m.now), ErrLate)
		m.standing(Quarantined, "two copies")
	}
	clash()
	must(t, m.accept(fleet.Fingerprint{})) // there is one key only
	m.standing(Accepted)
	must(t, s.Session(eu, "a", 1, m.now))
	clash()
	m.join(false)
	m.standing(Accepted)
	must(t, s.Session(eu, "b", 1, m.now))
}

func TestARejectedClusterKeepsItsRecord(t *testing.T) {
	s, reopen := fresh(t)
	m := enter(t, s, true)
	reject := func() error {
		return m.s.Audited(fleet.Event{Kind: fleet.EventIdentity, Cluster: eu}, fleet.Entry{Actor: "operator admin", Action: "cluster reject"}).RejectCluster(eu, "wrong key", m.now)
	}
	must(t, reject())
	wantErr(t, reject(), ErrStanding)
	m.s = reopen()
	_, err := m.s.Identity(print32(1))
	wantErr(t, err, ErrNotFound)
	m.standing(Rejected, "wrong key")
	m.join(true)
	m.standing(Pending)
}

// Records are as a hub wrote them before identities had standings, keys and generations.
func TestAHubThatIsUpgradedKeepsItsClusters(t *testing.T) {
	s, reopen := fresh(t)
	now := time.Now().UTC()
	end := now.Add(12 * time.Hour).Format(time.RFC3339Nano)
	must(t, s.update(func(tx *txn) error {
		for n := range byte(2) { // of before a renewal, and after it
			f := print32(n + 1)
			if err := tx.Bucket(bucketIdentities).Put(f[:], []byte(`{"cluster":"acme/eu-1","notAfter":"`+end+`"}`)); err != nil {
				return err
			}
			if err := tx.Bucket(bucketFingerprints).Put(join(string(eu), string(f[:])), []byte{1}); err != nil {
				return err
			}
		}
		if err := tx.Bucket(bucketTokens).Put([]byte("open"), []byte(`{"cluster":"acme/us-1","secretHash":"`+base64.StdEncoding.EncodeToString(make([]byte, 32))+`","expires":"`+end+`"}`)); err != nil {
			return err
		}
		if err := tx.Bucket(bucketClusters).Put([]byte(us), []byte(`{"created":"2026-01-02T03:04:05Z"}`)); err != nil {
			return err
		}
		return tx.Bucket(bucketClusters).Put([]byte(eu), []byte(`{"created":"2026-01-02T03:04:05Z","joined":"2026-01-02T03:04:05Z","certNotAfter":"`+end+`"}`))
	}))
	m := &member{t: t, s: reopen(), now: now, certs: 2}
	for n := range byte(2) {
		if id := m.use(n + 1); id.Standing != Accepted || id.Superseded() || id.Generation != 0 {
			t.Errorf("certificate %d: %+v", n+1, id)
		}
	}
	must(t, m.s.Session(eu, "", 0, now))
	next := m.renew(2)
	m.s = reopen()
	if id := m.use(next); id.Generation != 1 || id.Superseded() {
		t.Errorf("its first renewal: %+v", id)
	}
	if id := m.use(2); !id.Superseded() {
		t.Errorf("the one before: %+v", id)
	}
	// A token of before lets in at once, as it said when it was made; it lives for minutes.
	_, err := m.s.Redeem("open", [32]byte{}, key(30), now, issuing(30, now.Add(time.Hour)))
	must(t, err)
	if id := m.use(30); id.Standing != Accepted {
		t.Errorf("a token of before: %+v", id)
	}
}

// killed opens what a hub that is killed now leaves on disk.
func killed(t *testing.T, s *Store) *Store {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hub.db")
	must(t, s.db.View(func(tx *bolt.Tx) error { return tx.CopyFile(path, 0o600) }))
	after, err := Open(path, discard)
	must(t, err)
	t.Cleanup(func() { must(t, after.Close()) })
	return after
}

func (m *member) session(n uint64) error { return m.s.Session(eu, "folder", n, m.now) }

func TestTheNextSessionIsNoWriteAndIsKeptWithTheNextThatIs(t *testing.T) {
	s, reopen := fresh(t)
	m := enter(t, s, false)
	must(t, m.session(1))
	before := s.Stats().Writes
	for n := uint64(2); n <= 40; n++ {
		must(t, m.session(n))
		must(t, s.Hello(eu, "", "", nil)) // the first is news: no list was known
	}
	same(t, "writes of 39 sessions", s.Stats().Writes-before, uint64(1))
	stored := func(what string, s *Store, want uint64) {
		t.Helper()
		rec, _ := s.memory.sessions.latest(eu)
		same(t, what, rec.Number, want)
	}
	stored("after a kill: with the Hello that was news", killed(t, s), 2)
	_, err := s.RecordEvents(eu, "j", []fleet.Event{{Seq: 1, Kind: fleet.EventAgent}})
	must(t, err)
	stored("after a kill: with the event", killed(t, s), 40)
	must(t, m.session(41))
	must(t, s.Heard(nil))
	stored("after a kill: with Heard", killed(t, s), 41)
	before = s.Stats().Writes
	must(t, s.Heard(nil))
	same(t, "writes of nothing new", s.Stats().Writes, before)
	must(t, m.session(42))
	s = reopen()
	stored("after a stop", s, 42)
}

// The numbers that a hub forgets when it is killed delay the discovery of a copy until the two have taken turns.
func TestACopyIsFoundAfterTheHubWasKilled(t *testing.T) {
	for _, ahead := range []uint64{0, 1, 5} { // sessions that the original had after the copy was made
		for _, first := range []string{"copy", "original"} {
			s, _ := fresh(t)
			m := enter(t, s, false)
			must(t, m.session(1))
			must(t, s.Heard(nil))
			original, copied := uint64(20+ahead), uint64(20)
			for n := uint64(2); n <= original; n++ {
				must(t, m.session(n))
			}
			m.s = killed(t, s)
			turns := []*uint64{&copied, &original}
			if first == "original" {
				slices.Reverse(turns)
			}
			tries := 0
			for ; m.accepted(); tries++ {
				if tries > 20 {
					t.Fatalf("%d ahead, %s first: nobody was found", ahead, first)
				}
				m.now = m.now.Add(2 * overlap)
				*turns[tries%2]++
				_ = m.session(*turns[tries%2])
			}
			if tries > 4 {
				t.Errorf("%d ahead, %s first: found with connection %d only", ahead, first, tries)
			}
		}
	}
}

func (m *member) accepted() bool {
	c, err := m.s.Cluster(eu)
	must(m.t, err)
	return c.Standing == Accepted
}
