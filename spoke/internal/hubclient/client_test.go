package hubclient

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/pkg/bundle"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

type stream = grpc.BidiStreamingServer[syncv1.ConnectRequest, syncv1.ConnectResponse]

// Law 9, the spoke's half: an event leaves the journal only when the hub has it.
func TestEventsAreKeptUntilAcknowledged(t *testing.T) {
	h := newHub(t)
	h.connect = func(h *testHub, n int, s stream) error {
		if n > 1 {
			return h.serve(s)
		}
		// The first stream takes three events, acknowledges two, and breaks.
		if err := h.welcome(s, h.hellos[0]); err != nil {
			return err
		}
		for range 3 {
			m, err := s.Recv()
			if err != nil {
				return err
			}
			if m.GetEvent().GetSeq() <= 2 {
				h.record(h.hellos[0].GetJournalId(), m.GetEvent())
			}
		}
		if err := s.Send(&syncv1.ConnectResponse{Body: &syncv1.ConnectResponse_Ack{Ack: &syncv1.Ack{Seq: 2}}}); err != nil {
			return err
		}
		return status.Error(codes.Unavailable, "broken on purpose")
	}
	s := joined(t, h.start())
	s.append(t, 10)
	s.run(t)
	eventually(t, "all events arrive", func() bool { return len(h.seen(s.journal.ID())) == 10 })
	eventually(t, "the journal is empty", func() bool { p, err := s.journal.Pending(0, 0); return err == nil && len(p) == 0 })
	s.append(t, 1)
	eventually(t, "a later event arrives", func() bool { return len(h.seen(s.journal.ID())) == 11 })
	if e := h.seen(s.journal.ID())[0]; e.GetDistribution() != "shop" || e.GetKind() != syncv1.EventKind_EVENT_KIND_PHASE {
		t.Errorf("got %v", e)
	}
}

func TestTheWindowBoundsWhatIsInFlight(t *testing.T) {
	h := newHub(t)
	got, release := make(chan uint64, 10*window), make(chan struct{})
	h.connect = func(h *testHub, n int, s stream) error {
		if err := h.welcome(s, h.hellos[n-1]); err != nil {
			return err
		}
		beats := 0
		for {
			m, err := s.Recv()
			if err != nil {
				return err
			}
			if e := m.GetEvent(); e != nil {
				h.record(h.hellos[0].GetJournalId(), e)
				got <- e.GetSeq()
				select {
				case <-release:
					err = s.Send(&syncv1.ConnectResponse{Body: &syncv1.ConnectResponse_Ack{Ack: &syncv1.Ack{Seq: e.GetSeq()}}})
				default:
				}
			} else if beats++; beats == 2 { // two heartbeats after the last event: nothing more comes by itself
				close(release)
				err = s.Send(&syncv1.ConnectResponse{Body: &syncv1.ConnectResponse_Ack{Ack: &syncv1.Ack{Seq: window}}})
			} else {
				err = s.Send(&syncv1.ConnectResponse{Body: &syncv1.ConnectResponse_Heartbeat{Heartbeat: &syncv1.Heartbeat{}}})
			}
			if err != nil {
				return err
			}
		}
	}
	s := joined(t, h.start())
	s.append(t, window+50)
	s.run(t)
	<-waitClosed(release)
	if n := len(got); n != window {
		t.Errorf("%d events in flight, want %d", n, window)
	}
	eventually(t, "the rest arrives", func() bool { return len(h.seen(s.journal.ID())) == window+50 })
}

// waitClosed returns c: it names what the receive is for.
func waitClosed(c chan struct{}) chan struct{} { return c }

func TestHeartbeatsGoBothWays(t *testing.T) {
	h := newHub(t).start()
	s := joined(t, h)
	if !s.client.LastContact().IsZero() || s.client.Connected() {
		t.Error("contact before the start")
	}
	stop := s.run(t)
	eventually(t, "connected", s.client.Connected)
	first := s.client.LastContact()
	eventually(t, "heartbeats reach the hub", func() bool { return h.count(func() int { return h.beats }) >= 2 })
	eventually(t, "heartbeats reach the spoke", func() bool { return s.client.LastContact().After(first) })
	stop()
	if s.client.Connected() {
		t.Error("connected after the end")
	}
}

func TestASilentHubCountsAsGone(t *testing.T) {
	h := newHub(t)
	h.connect = func(h *testHub, n int, s stream) error {
		if n > 1 {
			return h.serve(s)
		}
		if err := h.welcome(s, h.hellos[0]); err != nil {
			return err
		}
		<-s.Context().Done()
		return nil
	}
	s := joined(t, h.start())
	s.run(t)
	eventually(t, "a second stream", func() bool { return h.count(func() int { return len(h.hellos) }) == 2 })
	eventually(t, "connected again", s.client.Connected)
	if s.said.count("no word from the hub for 3s") != 1 {
		t.Errorf("log: %s", s.said)
	}
}

func TestDesiredState(t *testing.T) {
	h := newHub(t)
	h.desired = &syncv1.DesiredState{Revision: 7}
	s := joined(t, h.start())
	s.revision = 7 // of the hub that it was joined to before
	s.refuse = 1
	stop := s.run(t)
	eventually(t, "taken at the second try", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return slices.Equal(s.taken, []uint64{7}) })
	if r := h.hellos[1].GetRevision(); r != 0 {
		t.Errorf("a fresh identity said revision %d, want 0", r)
	}
	eventually(t, "the identity is not fresh any more", func() bool { id, err := LoadIdentity(s.dir); return err == nil && !id.fresh })
	s.client.Rehello()
	eventually(t, "a third stream", func() bool { return h.count(func() int { return len(h.hellos) }) == 3 })
	if r := h.hellos[2].GetRevision(); r != 7 {
		t.Errorf("said revision %d, want 7", r)
	}
	h.mu.Lock()
	h.desired = &syncv1.DesiredState{Revision: 5} // restored from a backup
	h.mu.Unlock()
	s.client.Rehello()
	eventually(t, "a lower revision is taken", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return slices.Equal(s.taken, []uint64{7, 5}) })
	stop()
}

// Law 3: a hub that goes away is said once and changes nothing.
func TestAHubThatIsAwayIsSaidOnce(t *testing.T) {
	h := newHub(t).start()
	s := joined(t, h)
	s.run(t)
	eventually(t, "connected", s.client.Connected)
	h.server.Stop()
	eventually(t, "not connected", func() bool { return !s.client.Connected() })
	s.append(t, 3)
	eventually(t, "several attempts", func() bool { return s.said.count("level=WARN") == 1 })
	h.start()
	eventually(t, "the events arrive", func() bool { return len(h.seen(s.journal.ID())) == 3 })
	if s.said.count("level=WARN") != 1 || s.said.count("connected to the hub") != 2 || s.said.count("rpc error") != 0 {
		t.Errorf("log: %s", s.said)
	}
}

func TestTheCertificateIsRenewedAtHalfLife(t *testing.T) {
	h := newHub(t)
	h.life = 5 * time.Second
	s := joined(t, h.start())
	first := s.identity(t)
	s.run(t)
	eventually(t, "the hub meets another certificate", func() bool {
		return h.count(func() int { return len(h.presents) }) >= 2 && !h.presents[1].Equal(h.presents[0])
	})
	id := s.identity(t)
	if bytes.Equal(id.certificate, first.certificate) || id.key.Equal(first.key) {
		t.Error("want a new certificate of a new key")
	}
	if bytes.Equal(h.presents[0].RawSubjectPublicKeyInfo, h.presents[1].RawSubjectPublicKeyInfo) {
		t.Error("the hub saw the old key again")
	}
	eventually(t, "connected", s.client.Connected)
	if s.said.count("level=WARN") != 0 {
		t.Errorf("log: %s", s.said)
	}
}

func TestAnExpiredCertificateIsSaidAndHealedByJoining(t *testing.T) {
	h := newHub(t).start()
	s := joined(t, h)
	id := s.identity(t)
	der, err := h.ca.issue(&id.key.PublicKey, x509.ExtKeyUsageClientAuth, time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	id.certificate = der
	if err := id.save(s.dir); err != nil {
		t.Fatal(err)
	}
	s.run(t)
	eventually(t, "it is said", func() bool { return s.said.count("level=ERROR") == 1 })
	if _, err := s.client.Fetch(t.Context(), bundle.DigestOf(nil)); !errors.Is(err, ErrExpired) {
		t.Errorf("fetch: %v", err)
	}
	if s.said.count("hub cluster invite") != 1 || s.said.count("certificate has expired") != 1 {
		t.Errorf("log: %s", s.said)
	}
	if _, err := Join(t.Context(), JoinConfig{Addr: h.addr, Token: h.invite(), Dir: s.dir, Force: true, Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "connected", s.client.Connected)
}

func TestAHubThatForgotThisSpoke(t *testing.T) {
	h := newHub(t)
	h.connect = func(*testHub, int, stream) error { return status.Error(codes.Unauthenticated, "no such identity") }
	s := joined(t, h.start())
	s.run(t)
	eventually(t, "it is said", func() bool { return s.said.count("level=ERROR") == 1 })
	if s.said.count("--force") != 1 {
		t.Errorf("log: %s", s.said)
	}
}

func TestTroubleOfThisSideEndsRun(t *testing.T) {
	h := newHub(t).start()
	s := joined(t, h)
	s.client.cfg.Hello = func() (*syncv1.Hello, error) { return nil, errors.New("disk on fire") }
	if err := s.client.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "disk on fire") {
		t.Errorf("got %v", err)
	}
	s = joined(t, h)
	s.journal.Close()
	if err := s.client.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "journal") {
		t.Errorf("got %v", err)
	}
}

func TestFetch(t *testing.T) {
	tar := bytes.Repeat([]byte("not really a tar "), 40_000)
	digest := bundle.DigestOf(tar)
	z := bundle.Compress(tar)
	noise := make([]byte, 0, 1<<20)
	for sum := sha256.Sum256(nil); len(noise) < 1<<20; sum = sha256.Sum256(sum[:]) {
		noise = append(noise, sum[:]...)
	}
	send := func(s grpc.ServerStreamingServer[syncv1.FetchBundleResponse], data []byte) error {
		for chunk := range slices.Chunk(data, 1000) {
			if err := s.Send(&syncv1.FetchBundleResponse{Data: chunk}); err != nil {
				return err
			}
		}
		return nil
	}
	h := newHub(t)
	s := joined(t, h.start())
	for _, c := range []struct {
		name   string
		fetch  func(n int, s grpc.ServerStreamingServer[syncv1.FetchBundleResponse]) error
		offers int64 // the size that an offer told; 0: none
		is     error
		calls  int
	}{
		{"whole", func(_ int, s grpc.ServerStreamingServer[syncv1.FetchBundleResponse]) error { return send(s, z) }, 0, nil, 1},
		{"of the offered size", func(_ int, s grpc.ServerStreamingServer[syncv1.FetchBundleResponse]) error { return send(s, z) }, int64(len(tar)), nil, 1},
		{"the stream breaks once", func(n int, s grpc.ServerStreamingServer[syncv1.FetchBundleResponse]) error {
			if n == 1 {
				return errors.Join(send(s, z[:len(z)/2]), status.Error(codes.Unavailable, "broken on purpose"))
			}
			return send(s, z)
		}, 0, nil, 2},
		{"unknown", func(int, grpc.ServerStreamingServer[syncv1.FetchBundleResponse]) error {
			return status.Error(codes.NotFound, "no release has it")
		}, 0, ErrNoBundle, 1},
		{"another", func(_ int, s grpc.ServerStreamingServer[syncv1.FetchBundleResponse]) error {
			return send(s, bundle.Compress([]byte("x")))
		}, 0, ErrDigest, 1},
		{"cut", func(_ int, s grpc.ServerStreamingServer[syncv1.FetchBundleResponse]) error {
			return send(s, z[:len(z)/2])
		}, 0, ErrDigest, 1},
		{"larger than offered", func(_ int, s grpc.ServerStreamingServer[syncv1.FetchBundleResponse]) error { return send(s, z) }, int64(len(tar)) - 1, ErrDigest, 1},
		{"far larger than offered", func(_ int, s grpc.ServerStreamingServer[syncv1.FetchBundleResponse]) error { return send(s, noise) }, 1000, errTooLarge, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			h.mu.Lock()
			h.fetches = 0
			h.fetch = func(n int, r *syncv1.FetchBundleRequest, s grpc.ServerStreamingServer[syncv1.FetchBundleResponse]) error {
				if r.GetDigest() != string(digest) {
					return status.Errorf(codes.InvalidArgument, "digest %s", r.GetDigest())
				}
				return c.fetch(n, s)
			}
			h.mu.Unlock()
			s.client.setSizes(&syncv1.DesiredState{Distributions: []*syncv1.DistributionOffers{{Offers: []*syncv1.Offer{{Digest: string(digest), Size: uint64(c.offers)}}}}})
			got, err := s.client.Fetch(t.Context(), digest)
			if !errors.Is(err, c.is) || c.is == nil && !bytes.Equal(got, tar) {
				t.Errorf("got %d bytes, %v", len(got), err)
			}
			if err != nil && !strings.Contains(err.Error(), digest.Short()) {
				t.Errorf("%v: does not name the bundle", err)
			}
			if h.fetches != c.calls {
				t.Errorf("%d calls, want %d", h.fetches, c.calls)
			}
		})
	}
}

func TestFetchSharesTheSessionsConnection(t *testing.T) {
	tar := bytes.Repeat([]byte("tar "), 1000)
	h := newHub(t)
	h.fetch = func(_ int, _ *syncv1.FetchBundleRequest, s grpc.ServerStreamingServer[syncv1.FetchBundleResponse]) error {
		return s.Send(&syncv1.FetchBundleResponse{Data: bundle.Compress(tar)})
	}
	s := joined(t, h.start())
	s.run(t)
	eventually(t, "connected", s.client.Connected)
	conn, done, err := s.client.connection()
	if err != nil || conn != s.client.conn {
		t.Errorf("another connection, %v", err)
	}
	done()
	if got, err := s.client.Fetch(t.Context(), bundle.DigestOf(tar)); err != nil || !bytes.Equal(got, tar) {
		t.Error(err)
	}
	if !s.client.Connected() {
		t.Error("the fetch closed the session's connection")
	}
}

func TestBackoff(t *testing.T) {
	var got []string
	for attempt := range 9 {
		got = append(got, fmt.Sprint(Backoff(attempt, 1)))
	}
	if want := "500ms 1s 2s 4s 8s 16s 30s 30s 30s"; strings.Join(got, " ") != want {
		t.Errorf("ceilings %v, want %v", got, want)
	}
	if Backoff(1000, 0.5) != 15*time.Second || Backoff(3, 0) != 0 {
		t.Error("jitter is not full")
	}
	from := time.Unix(0, 0)
	to := from.Add(24 * time.Hour)
	if at := renewAt(from, to, 0); at != from.Add(12*time.Hour) {
		t.Errorf("renewal at %v", at)
	}
	if at := renewAt(from, to, 1); at.After(from.Add(14 * time.Hour)) {
		t.Errorf("renewal at %v", at)
	}
}

func TestAKillWhileTheIdentityIsReplacedLeavesAWholeOne(t *testing.T) {
	h := newHub(t).start()
	s := joined(t, h)
	id := s.identity(t)
	// What a kill leaves behind: a temporary file, and the file as it was.
	if err := os.WriteFile(filepath.Join(s.dir, "."+IdentityFile+"-123"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := s.identity(t); !bytes.Equal(got.certificate, id.certificate) {
		t.Error("another identity")
	}
}
