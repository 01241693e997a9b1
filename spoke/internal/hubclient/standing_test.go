package hubclient

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

func TestWhoWaitsToBeAcceptedIsServedByItself(t *testing.T) {
	h := newHub(t)
	h.refusal = &syncv1.Refusal{Kind: syncv1.RefusalKind_REFUSAL_KIND_PENDING}
	h.start()
	s := joined(t, h)
	if id := s.identity(t); !id.Pending || !strings.HasPrefix(id.Fingerprint(), "SHA256:") {
		t.Errorf("after the join: pending %v, %s", id.Pending, id.Fingerprint())
	}
	s.run(t)
	eventually(t, "the refusal is known", func() bool { _, pending := s.client.Refused(); return pending })
	if why, _ := s.client.Refused(); !strings.HasSuffix(why, ": acme/eu-1 is not served") {
		t.Errorf("got %q", why)
	}
	h.count(func() int { h.refusal = nil; return 0 })
	eventually(t, "it is served", func() bool { return s.client.Connected() && !s.identity(t).Pending })
	if why, pending := s.client.Refused(); why != "" || pending {
		t.Errorf("still refused: %q", why)
	}
	if n := s.said.count("no connection to the hub"); n != 1 || s.said.count("level=ERROR") != 0 {
		t.Errorf("said %d times: %s", n, s.said)
	}
}

func TestWhatWaitsForAPersonIsAskedForGently(t *testing.T) {
	refused := func(kind syncv1.RefusalKind) error {
		st, err := status.New(codes.PermissionDenied, "no").WithDetails(&syncv1.Refusal{Kind: kind})
		if err != nil {
			t.Fatal(err)
		}
		return wireError{"hub:1", st.Err()}
	}
	for kind, least := range map[syncv1.RefusalKind]time.Duration{
		syncv1.RefusalKind_REFUSAL_KIND_PENDING: 2 * time.Second, syncv1.RefusalKind_REFUSAL_KIND_QUARANTINED: 15 * time.Second, syncv1.RefusalKind_REFUSAL_KIND_SUPERSEDED: 15 * time.Second,
	} {
		if first, last := pause(refused(kind), 0, 0, 0), pause(refused(kind), 99, time.Hour, 0.999); first != least || last <= first || last > 30*time.Second {
			t.Errorf("%v: %v to %v", kind, first, last)
		}
	}
	if got := pause(errors.New("away"), 0, 0, 0.5); got != 250*time.Millisecond {
		t.Errorf("a hub that is away: %v", got)
	}
}

// The number is on disk before the hub hears of it, so that no two streams of one identity ever say the same.
func TestEachSessionHasANumberThatWasNeverSaid(t *testing.T) {
	h := newHub(t)
	onDisk := make(chan uint64, 100)
	var dir string
	h.connect = func(h *testHub, n int, st syncv1.SyncService_ConnectServer) error {
		id, err := LoadIdentity(dir)
		if err != nil {
			return err
		}
		onDisk <- id.session
		if n < 4 {
			return status.Error(codes.Unavailable, "again")
		}
		return h.serve(st)
	}
	h.start()
	s := joined(t, h)
	dir = s.dir
	stop := s.run(t)
	eventually(t, "the fourth stream stays", func() bool { return s.client.Connected() })
	stop()
	s.run(t) // a restart
	eventually(t, "it is back", func() bool { return h.count(func() int { return len(h.hellos) }) == 5 })
	h.count(func() int {
		for i, hello := range h.hellos {
			if hello.GetSession() != uint64(i+1) || hello.GetInstance() == "" || hello.GetInstance() != h.hellos[0].GetInstance() {
				t.Errorf("hello %d: session %d of %q", i, hello.GetSession(), hello.GetInstance())
			}
			if disk := <-onDisk; disk != hello.GetSession() {
				t.Errorf("session %d was said when %d was on disk", hello.GetSession(), disk)
			}
		}
		return 0
	})
}

func TestARenewalKeepsTheInstanceAndALostAnswerTakesANewKey(t *testing.T) {
	h := newHub(t)
	h.life, h.lost = 3*time.Second, 1
	h.start()
	s := joined(t, h)
	before := s.identity(t)
	s.run(t)
	eventually(t, "a renewal came through", func() bool { return h.count(func() int { return len(h.hellos) }) >= 2 })
	after := s.identity(t)
	if after.instance != before.instance || after.session < 2 || after.Fingerprint() == before.Fingerprint() {
		t.Errorf("before %s %d, after %s %d", before.instance, before.session, after.instance, after.session)
	}
	if n := h.count(func() int { return len(h.keys) }); n < 3 { // the join's, the lost one's and the next
		t.Errorf("%d keys", n)
	}
}

func TestAnIdentityOfBeforeGetsAnInstanceOnce(t *testing.T) {
	h := newHub(t).start()
	s := joined(t, h)
	old := s.identity(t)
	old.instance, old.session = "", 0
	if err := old.save(s.dir); err != nil {
		t.Fatal(err)
	}
	first, err := s.identity(t).openSession(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	second, err := s.identity(t).openSession(s.dir)
	if err != nil || first.instance == "" || second.instance != first.instance || first.session != 1 || second.session != 2 {
		t.Errorf("got %q %d, then %q %d, %v", first.instance, first.session, second.instance, second.session, err)
	}
}

func TestSessionsOpenedAtTheSameTimeHaveDifferentNumbers(t *testing.T) {
	h := newHub(t).start()
	s := joined(t, h)
	id := s.identity(t)
	var mu sync.Mutex
	var all sync.WaitGroup
	said := map[uint64]bool{}
	for range 20 {
		all.Go(func() {
			got, err := id.openSession(s.dir)
			mu.Lock()
			defer mu.Unlock()
			if err != nil || said[got.session] {
				t.Errorf("session %d twice, %v", got.session, err)
			}
			said[got.session] = true
		})
	}
	all.Wait()
}

func TestADataFolderThatCannotBeWrittenOpensNoSession(t *testing.T) {
	h := newHub(t).start()
	s := joined(t, h)
	if err := os.Remove(filepath.Join(s.dir, IdentityFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := (Identity{}).openSession(s.dir); !errors.Is(err, ErrNotJoined) {
		t.Errorf("got %v", err)
	}
}

func TestASpokeThatSleptPastItsExpiryRenewsAndGoesOn(t *testing.T) {
	h := newHub(t)
	h.lenient, h.life = true, -500*time.Millisecond
	h.start()
	s := joined(t, h)
	h.count(func() int { h.life = time.Hour; return 0 })
	before := s.identity(t)
	s.run(t)
	eventually(t, "it is back", s.client.Connected)
	if after := s.identity(t); after.Fingerprint() == before.Fingerprint() || after.instance != before.instance || time.Until(after.NotAfter) < time.Minute {
		t.Errorf("before %+v, after %+v", before, after)
	}
	if n := h.count(func() int { return len(h.presents) }); n != 1 {
		t.Errorf("%d streams, want none with the expired certificate", n)
	}
}
