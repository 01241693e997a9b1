package store

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

var (
	viewer = caller.Role{Kind: caller.Viewer}
	acme   = caller.Role{Kind: caller.Provider, Of: "acme"}
	boss   = caller.Role{Kind: caller.Admin}
)

// changed is what is told and accounted for about a change of an operator.
func changed(s *Store, action string) Audited {
	return s.Audited(fleet.Event{At: start, Kind: fleet.EventOperator, Message: action}, fleet.Entry{At: start, Actor: "operator admin", Action: action})
}

func TestOperatorsAreWhatTheirRecordsSay(t *testing.T) {
	s, reopen := fresh(t)
	wantErr(t, s.PutIdentity([32]byte{9}, Identity{Operator: "maria", NotAfter: start}), ErrNotFound, "maria")
	maria := Operator{Name: "maria", Role: viewer, Created: start, By: "operator admin", Fingerprint: [32]byte{1}, NotAfter: start.Add(time.Hour)}
	petra := Operator{Name: "petra", Role: acme, Created: start, By: "operator admin", Fingerprint: [32]byte{2}, NotAfter: start.Add(time.Hour)}
	must(t, changed(s, "add").AddOperator(petra))
	must(t, changed(s, "add").AddOperator(maria))
	wantErr(t, changed(s, "add").AddOperator(Operator{Name: "maria", Role: boss, Fingerprint: [32]byte{3}}), ErrExists, "maria")
	if _, err := s.Identity([32]byte{3}); err == nil {
		t.Error("a certificate that was refused speaks for somebody")
	}
	s = reopen()
	all, err := s.Operators()
	must(t, err)
	same(t, "operators", all, []Operator{maria, petra})
	id, err := s.Identity([32]byte{2})
	must(t, err)
	same(t, "identity", id, Identity{Operator: "petra", NotAfter: start.Add(time.Hour), Role: acme})

	// A second certificate has the same role, and is the one that is shown.
	must(t, s.PutIdentity([32]byte{4}, Identity{Operator: "maria", NotAfter: start.Add(2 * time.Hour), Role: boss}))
	id, err = s.Identity([32]byte{4})
	must(t, err)
	same(t, "identity", id, Identity{Operator: "maria", NotAfter: start.Add(2 * time.Hour), Role: viewer})
	maria.Fingerprint, maria.NotAfter = [32]byte{4}, start.Add(2*time.Hour)
	all, err = s.Operators()
	must(t, err)
	same(t, "operators", all, []Operator{maria, petra})

	must(t, changed(s, "remove").RemoveOperator("maria"))
	wantErr(t, changed(s, "remove").RemoveOperator("maria"), ErrNotFound, "maria")
	s = reopen()
	for _, f := range [][32]byte{{1}, {4}} {
		_, err := s.Identity(f)
		wantErr(t, err, ErrNotFound)
	}
	_, err = s.Identity([32]byte{2})
	must(t, err)
	for _, bad := range []Identity{{}, {Operator: "petra", Cluster: eu}} {
		if s.PutIdentity([32]byte{5}, bad) == nil {
			t.Errorf("took %+v", bad)
		}
	}
	if changed(s, "add").AddOperator(Operator{Name: "nobody"}) == nil {
		t.Error("took an operator without a role")
	}
	entries, err := s.Audit(0, 0)
	must(t, err)
	same(t, "entries: what was refused left none", len(entries), 3)
}

func TestTheHubsOwnOperatorIsKept(t *testing.T) {
	s, _ := fresh(t)
	admin := Operator{Name: "admin", Role: boss, Created: start, By: "hub", Fingerprint: [32]byte{1}, NotAfter: start.Add(time.Hour)}
	must(t, s.KeepOperator(admin, false))
	next := Operator{Name: "admin", Role: boss, Created: start.Add(time.Minute), By: "hub", Fingerprint: [32]byte{2}, NotAfter: start.Add(2 * time.Hour)}
	must(t, s.KeepOperator(next, false))
	_, err := s.Identity([32]byte{1})
	must(t, err)
	next.Fingerprint = [32]byte{3}
	must(t, s.KeepOperator(next, true))
	for _, f := range [][32]byte{{1}, {2}} {
		_, err := s.Identity(f)
		wantErr(t, err, ErrNotFound)
	}
	all, err := s.Operators()
	must(t, err)
	next.Created = start
	same(t, "operators", all, []Operator{next})
}

func TestAnOperatorOfAHubWithoutRolesIsAnAdmin(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.db")
	old := steps()[:2] // schema 3
	s, err := open(path, discard, steps())
	must(t, err)
	must(t, s.update(func(tx *txn) error {
		for f, end := range map[byte]time.Time{1: start, 2: start.Add(time.Hour), 3: start.Add(-time.Hour)} {
			if err := put(tx.Bucket(bucketIdentities), []byte{f}, identityRecord{Operator: "admin", NotAfter: end}); err != nil {
				return err
			}
		}
		if err := tx.DeleteBucket(bucketOperators); err != nil {
			return err
		}
		return tx.Bucket(bucketMeta).Put([]byte("schema"), number(uint64(len(old)+1)))
	}))
	must(t, s.Close())
	s, err = Open(path, discard)
	must(t, err)
	all, err := s.Operators()
	must(t, err)
	same(t, "operators", all, []Operator{{Name: "admin", Role: boss, By: "hub", Fingerprint: [32]byte{2}, NotAfter: start.Add(time.Hour)}})
	must(t, s.Close())
}

func TestARoleThatThisHubDoesNotKnowLetsNobodyIn(t *testing.T) {
	s, _ := fresh(t)
	must(t, s.KeepOperator(Operator{Name: "maria", Role: viewer, Fingerprint: [32]byte{1}, NotAfter: start}, false))
	must(t, s.update(func(tx *txn) error {
		return put(tx.Bucket(bucketOperators), []byte("maria"), operatorRecord{Role: "emperor"})
	}))
	_, err := s.Identity([32]byte{1})
	wantErr(t, err, ErrCorrupt, "maria", "emperor")
}
