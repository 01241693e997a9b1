package store

import (
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

func TestWhoFollowsWhichKeyOfTheAuthority(t *testing.T) {
	s, reopen := fresh(t)
	now := time.Now().UTC().Truncate(time.Second)
	end := now.Add(time.Hour)
	hash := [32]byte{7}
	join := func(name fleet.Cluster, token string, f byte, issuer string) {
		_, err := s.Invite(name, nil, token, hash, end)
		must(t, err)
		_, err = s.Redeem(token, hash, fleet.Fingerprint{f}, now, func(fleet.Cluster) (Certificate, error) {
			return Certificate{Fingerprint: [32]byte{f}, NotAfter: end, Issuer: issuer}, nil
		})
		must(t, err)
	}
	join("acme/eu-1", "t1", 1, "")
	join("acme/eu-2", "t2", 2, "old")
	_, err := s.Invite("acme/eu-3", nil, "t3", hash, end) // has not joined
	must(t, err)
	_, err = s.Invite("acme/eu-4", nil, "t4", hash, now.Add(-time.Minute)) // too late
	must(t, err)
	must(t, changed(s, "add").AddOperator(Operator{Name: "maria", Role: viewer, Fingerprint: [32]byte{9}, NotAfter: end, Issuer: "old"}))
	want := []Holder{{Cluster: "acme/eu-1", NotAfter: end}, {Cluster: "acme/eu-2", Issuer: "old", NotAfter: end}, {Operator: "maria", Issuer: "old", NotAfter: end}}
	check := func(when string) {
		t.Helper()
		got, err := s.Holders()
		must(t, err)
		same(t, when, got, want)
	}
	check("joined")
	n, last, err := s.Invitations(now)
	must(t, err)
	if n != 1 || !last.Equal(end) {
		t.Errorf("%d invitations until %v, want 1 until %v", n, last, end)
	}

	// A renewal counts once its certificate is used: its answer may be lost.
	must(t, s.RenewIdentity(Renewal{Current: [32]byte{2}, Next: [32]byte{3}, Key: fleet.Fingerprint{3}, NotAfter: end, Issuer: "new"}))
	check("renewed and not used")
	_, err = s.Use([32]byte{3}, now)
	must(t, err)
	want[1].Issuer = "new"
	check("used")
	must(t, changed(s, "renew").RenewOperator("maria", Certificate{Fingerprint: [32]byte{10}, NotAfter: end, Issuer: "new"}))
	want[2].Issuer = "new"
	s = reopen()
	check("over a restart")
	wantErr(t, changed(s, "renew").RenewOperator("nobody", Certificate{Fingerprint: [32]byte{11}}), ErrNotFound)
	for _, f := range []byte{9, 10} { // the one before counts too
		if id, err := s.Identity([32]byte{f}); err != nil || id.Operator != "maria" {
			t.Errorf("certificate %d: %+v, %v", f, id, err)
		}
	}
}
