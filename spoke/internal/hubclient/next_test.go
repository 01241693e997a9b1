package hubclient

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/token"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// joinNext redeems a token of another hub beside the identity that s has.
func joinNext(t *testing.T, s *spoke, h *testHub) (Identity, error) {
	t.Helper()
	tok, err := token.Parse(h.invite())
	if err != nil {
		t.Fatal(err)
	}
	return s.client.JoinNext(t.Context(), h.addr, tok, "acme/eu-1")
}

func TestASecondIdentityIsMadeBesideTheFirst(t *testing.T) {
	old, next := newHub(t).start(), newHub(t)
	next.refusal = &syncv1.Refusal{Kind: syncv1.RefusalKind_REFUSAL_KIND_PENDING}
	next.start()
	s := joined(t, old)
	s.run(t)
	eventually(t, "it is at the old hub", s.client.Connected)
	before := s.identity(t)
	id, err := joinNext(t, s, next)
	if err != nil || !id.Pending {
		t.Fatalf("%+v, %v", id, err)
	}
	if kept, err := LoadNext(s.dir); err != nil || kept.Fingerprint() != id.Fingerprint() || kept.Pins()[0] == before.Pins()[0] {
		t.Errorf("kept %+v, %v", kept, err)
	}
	for range 2 {
		if err := s.client.GreetNext(t.Context()); !errors.Is(err, ErrPending) || Pause(err, 0) < 2*time.Second {
			t.Errorf("while it is not accepted: %v", err)
		}
	}
	next.count(func() int { next.refusal = &syncv1.Refusal{}; return 0 })
	if err := s.client.GreetNext(t.Context()); !errors.Is(err, ErrTurnedAway) {
		t.Errorf("rejected: %v", err)
	}
	next.count(func() int { next.refusal = nil; return 0 })
	if err := s.client.GreetNext(t.Context()); err != nil {
		t.Errorf("accepted: %v", err)
	}
	if !s.client.Connected() || s.identity(t).Fingerprint() != before.Fingerprint() {
		t.Error("it has left the old hub")
	}
	if err := s.client.TakeNext(pinOf(next.ca.cert)); !errors.Is(err, ErrOtherHub) {
		t.Errorf("from another hub: %v", err)
	}
	if err := s.client.TakeNext(pinOf(old.ca.cert)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is at the new hub", func() bool { return s.client.Connected() && next.count(func() int { return len(next.hellos) }) >= 2 })
	eventually(t, "its identity is the new one", func() bool { now := s.identity(t); return now.Fingerprint() == id.Fingerprint() && !now.Pending })
	if _, err := os.Lstat(filepath.Join(s.dir, NextFile)); !os.IsNotExist(err) {
		t.Errorf("it is still there: %v", err)
	}
	next.count(func() int {
		for i, hello := range next.hellos {
			if hello.GetSession() <= uint64(i) || hello.GetRevision() != 0 {
				t.Errorf("hello %d: session %d, revision %d", i, hello.GetSession(), hello.GetRevision())
			}
		}
		return 0
	})
}

func TestASecondIdentityThatWaitedForLongRenewsItself(t *testing.T) {
	old, next := newHub(t).start(), newHub(t)
	next.lenient, next.life = true, -500*time.Millisecond
	next.start()
	s := joined(t, old)
	before, err := joinNext(t, s, next)
	if err != nil {
		t.Fatal(err)
	}
	next.count(func() int { next.life = time.Hour; return 0 })
	if err := s.client.GreetNext(t.Context()); !errors.Is(err, errRenewed) {
		t.Errorf("got %v", err)
	}
	after, err := LoadNext(s.dir)
	if err != nil || after.Fingerprint() == before.Fingerprint() || time.Until(after.NotAfter) < time.Minute {
		t.Errorf("got %+v, %v", after, err)
	}
	if s.identity(t).Addr != old.addr {
		t.Error("the renewal took the place of the present identity")
	}
	if err := s.client.GreetNext(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestATokenThatBuysNothing(t *testing.T) {
	old, next := newHub(t).start(), newHub(t).start()
	s := joined(t, old)
	tok, err := token.Parse(next.invite())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.client.JoinNext(t.Context(), next.addr, tok, "acme/us-1"); !errors.Is(err, ErrOtherCluster) {
		t.Errorf("another cluster: %v", err)
	}
	if _, err := s.client.JoinNext(t.Context(), next.addr, tok, "acme/eu-1"); !errors.Is(err, ErrTokenRefused) {
		t.Errorf("a used one: %v", err)
	}
	if _, err := s.client.JoinNext(t.Context(), old.addr, tok, "acme/eu-1"); !errors.Is(err, ErrWrongAuthority) {
		t.Errorf("at another hub: %v", err)
	}
	if _, err := LoadNext(s.dir); !errors.Is(err, ErrNotJoined) {
		t.Errorf("it is kept: %v", err)
	}
}
