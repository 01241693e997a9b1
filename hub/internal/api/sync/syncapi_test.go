package syncapi

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/hub/internal/blob"
	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/hub/internal/depot"
	"github.com/wheelwright-dev/wheelwright/hub/internal/ending"
	"github.com/wheelwright-dev/wheelwright/hub/internal/identity"
	"github.com/wheelwright-dev/wheelwright/hub/internal/presence"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/transport"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const acme = fleet.Cluster("acme/eu-1")

// as is a caller who is let in: the server's part is not tested here.
type as struct {
	grpc.ServerStream
	ctx context.Context
}

func (s as) Context() context.Context { return s.ctx }

// offered answers as the conductor does; the revision is what a test says.
type offered struct{ revision, asked atomic.Uint64 }

func (o *offered) Offers(_ fleet.Cluster, names []string) (wire.Desired, error) {
	d := wire.Desired{Revision: o.revision.Load()}
	defer o.asked.Add(1)
	for _, n := range names {
		part, err := wire.EncodeOffers(&syncv1.DistributionOffers{Distribution: n})
		if err != nil {
			return d, err
		}
		d.Parts = append(d.Parts, part)
	}
	return d, nil
}

// oneBundle is stored, whatever its data is.
type oneBundle struct {
	digest fleet.Digest
	data   []byte
}

type issuer struct{ notAfter time.Time }

func (i issuer) IssueSpoke(csr []byte, c fleet.Cluster, ttl time.Duration) (identity.Certificate, error) {
	if len(csr) == 0 {
		return identity.Certificate{}, identity.ErrRequest
	}
	return identity.Certificate{DER: []byte("certificate of " + c), Fingerprint: [32]byte{2}, NotAfter: i.notAfter}, nil
}
func (issuer) Authorities() [][]byte    { return [][]byte{[]byte("authority")} }
func (issuer) Pins() []string           { return []string{"pin"} }
func (issuer) Changed() <-chan struct{} { return nil }

type world struct {
	store    *store.Store
	presence *presence.Registry
	offers   *offered
	bundle   oneBundle
	blobs    *blob.Store
	depot    *depot.Depot
	service  *Service
	client   syncv1.SyncServiceClient
}

func digestOf(c string) fleet.Digest { return fleet.Digest("sha256:" + strings.Repeat(c, 64)) }

// newWorld serves SyncService on loopback to one joined cluster, with fingerprint {1}.
func newWorld(t *testing.T, heartbeat time.Duration, options ...func(*Config)) *world {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	s, err := store.Open(filepath.Join(t.TempDir(), "hub.db"), log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := s.Invite(acme, nil, "0123456789abcdef", [32]byte{}, time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	issue := func(fleet.Cluster) (store.Certificate, error) {
		return store.Certificate{Fingerprint: [32]byte{1}, NotAfter: time.Now().Add(time.Hour)}, nil
	}
	if _, err := s.Redeem("0123456789abcdef", [32]byte{}, fleet.Fingerprint{}, time.Now(), issue); err != nil {
		t.Fatal(err)
	}
	w := &world{store: s, presence: presence.New(), offers: &offered{},
		bundle: oneBundle{digestOf("a"), bytes.Repeat([]byte("0123456789"), 20_000)}}
	if err := s.PutRelease(fleet.Release{Distribution: "shop", Version: "1.0.0", Phase: fleet.Available, Digest: w.bundle.digest}, "h"); err != nil {
		t.Fatal(err)
	}
	if w.blobs, err = blob.Open(filepath.Join(t.TempDir(), "bundles")); err != nil {
		t.Fatal(err)
	}
	if err := w.blobs.Put(w.bundle.digest, w.bundle.data); err != nil {
		t.Fatal(err)
	}
	deltas, err := blob.OpenDeltas(filepath.Join(t.TempDir(), "deltas"), 100, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	w.depot = depot.New(depot.Config{Wholes: w.blobs, Deltas: deltas, Log: log})
	t.Cleanup(func() {
		if err := w.depot.Close(); err != nil {
			t.Error(err)
		}
	})
	cfg := Config{Reports: s, Identities: s, Bundles: w.depot, Offers: w.offers, Authority: issuer{time.Now().Add(24 * time.Hour)},
		Presence: w.presence, Heartbeat: heartbeat, CertificateTTL: 24 * time.Hour, Version: "dev", Log: log}
	for _, o := range options {
		o(&cfg)
	}
	w.service = New(cfg)
	who := caller.Caller{Cluster: acme, Fingerprint: [32]byte{1}}
	server := grpc.NewServer(grpc.ForceServerCodecV2(transport.Codec{}),
		grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			return h(srv, as{ss, caller.With(ending.Stream(ss.Context()), who)})
		}),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			return h(caller.With(ctx, who), req)
		}))
	syncv1.RegisterSyncServiceServer(server, w.service)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	w.client = syncv1.NewSyncServiceClient(conn)
	return w
}

func (w *world) connect(t *testing.T) syncv1.SyncService_ConnectClient {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	stream, err := w.client.Connect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func hello(revision uint64, names ...string) *syncv1.ConnectRequest {
	h := &syncv1.Hello{SpokeVersion: "dev", KubernetesVersion: "v1.36.3", JournalId: "j1", Revision: revision}
	for _, n := range names {
		h.Subscriptions = append(h.Subscriptions, &syncv1.SubscriptionStatus{Distribution: n})
	}
	return &syncv1.ConnectRequest{Body: &syncv1.ConnectRequest_Hello{Hello: h}}
}

func eventMessage(e *syncv1.Event) *syncv1.ConnectRequest {
	return &syncv1.ConnectRequest{Body: &syncv1.ConnectRequest_Event{Event: e}}
}

func phase(seq uint64, p, running string) *syncv1.ConnectRequest {
	return eventMessage(&syncv1.Event{Seq: seq, Kind: syncv1.EventKind_EVENT_KIND_PHASE, Distribution: "shop", Version: running, Message: p,
		Status: &syncv1.SubscriptionStatus{Distribution: "shop", Phase: p, RunningVersion: running}})
}

func send(t *testing.T, s syncv1.SyncService_ConnectClient, messages ...*syncv1.ConnectRequest) {
	t.Helper()
	for _, m := range messages {
		if err := s.Send(m); err != nil {
			t.Fatal(err)
		}
	}
}

// next is the next message that is no heartbeat.
func next(t *testing.T, s syncv1.SyncService_ConnectClient) *syncv1.ConnectResponse {
	t.Helper()
	for {
		m, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if m.GetHeartbeat() == nil {
			return m
		}
	}
}

// ends reads a stream to its end and checks how it ended.
func ends(t *testing.T, s syncv1.SyncService_ConnectClient, code codes.Code, word string) {
	t.Helper()
	for {
		_, err := s.Recv()
		if err == nil {
			continue
		}
		if got := status.Convert(err); got.Code() != code || !strings.Contains(got.Message(), word) {
			t.Errorf("got %v %q, want %v with %q", got.Code(), got.Message(), code, word)
		}
		return
	}
}

// watched is a session of somebody else's.
type watched struct{ ended atomic.Value }

func (*watched) Woken()           {}
func (w *watched) Over(why error) { w.ended.Store(why) }

func TestDesiredStateIsSentWhenTheSpokeLacksIt(t *testing.T) {
	w := newWorld(t, time.Minute)
	w.offers.revision.Store(7)
	s := w.connect(t)
	send(t, s, hello(0, "shop"))
	welcome := next(t, s).GetWelcome()
	if welcome.GetCluster() != string(acme) || welcome.GetEpoch() == 0 || welcome.GetHeartbeatSeconds() != 60 || welcome.GetHubVersion() != "dev" {
		t.Errorf("got %v", welcome)
	}
	if d := next(t, s).GetDesired(); d.GetRevision() != 7 || len(d.GetDistributions()) != 1 {
		t.Errorf("got %v", d)
	}
	w.presence.Wake(acme) // nothing changed: nothing is sent
	for deadline := time.Now().Add(time.Minute); w.offers.asked.Load() < 2; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("a wake went unheard")
		}
	}
	w.offers.revision.Store(8)
	w.presence.Wake(acme)
	if d := next(t, s).GetDesired(); d.GetRevision() != 8 {
		t.Errorf("got %v", d)
	}
	w.offers.revision.Store(9)
	send(t, s, hello(8, "shop", "web")) // the subscriptions changed
	if d := next(t, s).GetDesired(); d.GetRevision() != 9 || len(d.GetDistributions()) != 2 {
		t.Errorf("got %v", d)
	}
	// Whoever has the revision gets nothing but an answer to what it says.
	again := w.connect(t)
	send(t, again, hello(9, "shop", "web"), phase(1, "Succeeded", "1.0.0"))
	if m := next(t, again).GetWelcome(); m.GetEpoch() <= welcome.GetEpoch() {
		t.Errorf("got %v, want an epoch above %d", m, welcome.GetEpoch())
	}
	if m := next(t, again); m.GetAck().GetSeq() != 1 {
		t.Errorf("got %v, want the acknowledgement", m)
	}
	ends(t, s, codes.Aborted, "newer session")
	if got := w.service.Stats(); got.OffersSent != 3 || got.Events != 1 {
		t.Errorf("got %+v", got)
	}
}

func TestAHelloOfAnIdentityThatJustEndedChangesNothing(t *testing.T) {
	w := newWorld(t, time.Minute)
	late := w.connect(t) // let in, and silent until its cluster has joined again
	if _, err := w.store.Invite(acme, nil, "1123456789abcdef", [32]byte{}, time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	issue := func(fleet.Cluster) (store.Certificate, error) {
		return store.Certificate{Fingerprint: [32]byte{9}, NotAfter: time.Now().Add(time.Hour)}, nil
	}
	if _, err := w.store.Redeem("1123456789abcdef", [32]byte{}, fleet.Fingerprint{}, time.Now(), issue); err != nil {
		t.Fatal(err)
	}
	successor := &watched{}
	defer w.presence.Register(acme, successor).Close()
	send(t, late, hello(0, "shop"))
	ends(t, late, codes.Unauthenticated, "hub cluster invite acme/eu-1")
	if why := successor.ended.Load(); why != nil {
		t.Errorf("it ended the session of the spoke that took its place: %v", why)
	}
	if all, err := w.store.Installations(); err != nil || len(all) != 0 {
		t.Errorf("it was recorded: %v, %v", all, err)
	}
}

// Law 9, the hub's half: recorded before acknowledged.
func TestEventsAreStoredBeforeTheyAreAcknowledged(t *testing.T) {
	w := newWorld(t, time.Minute)
	s := w.connect(t)
	send(t, s, hello(0, "shop"))
	next(t, s)
	const n = 500
	for seq := uint64(1); seq <= n; seq++ {
		send(t, s, phase(seq, "Succeeded", fmt.Sprintf("1.0.%d", seq)))
	}
	acks := 0
	for acked := uint64(0); acked < n; acks++ {
		acked = next(t, s).GetAck().GetSeq()
		if stored, err := w.store.AckedSeq(acme, "j1"); err != nil || stored < acked {
			t.Fatalf("acknowledged %d, stored %d, %v", acked, stored, err)
		}
	}
	t.Logf("%d acknowledgements for %d events", acks, n)
	all, err := w.store.Installations()
	if err != nil || all[acme][0].Running != "1.0.500" {
		t.Errorf("got %v, %v", all, err)
	}
	// Sent again, they change nothing and are acknowledged again.
	s = w.connect(t)
	send(t, s, hello(0, "shop"))
	if m := next(t, s).GetWelcome(); m.GetAckedSeq() != n {
		t.Errorf("got %v", m)
	}
	send(t, s, phase(n, "Succeeded", "9.9.9"))
	if m := next(t, s).GetAck(); m.GetSeq() != n {
		t.Errorf("got %v", m)
	}
	history, err := w.store.Events(store.EventFilter{Cluster: string(acme), Distribution: "shop"})
	if err != nil || len(history) != n {
		t.Errorf("got %d events, %v", len(history), err)
	}
}

func TestWhatCannotBeReadIsNotedAndAcknowledged(t *testing.T) {
	w := newWorld(t, time.Minute)
	s := w.connect(t)
	send(t, s, hello(0, "shop"))
	next(t, s)
	send(t, s,
		eventMessage(&syncv1.Event{Seq: 1, Kind: 99}),
		eventMessage(&syncv1.Event{Seq: 2, Kind: syncv1.EventKind_EVENT_KIND_PHASE, Distribution: "shop", Status: &syncv1.SubscriptionStatus{Distribution: "web"}}),
		eventMessage(&syncv1.Event{Seq: 3, Kind: syncv1.EventKind_EVENT_KIND_HEALTH, Distribution: "shop", Message: "\x1b[2J" + strings.Repeat("é", 5000)}))
	for m := next(t, s); m.GetAck().GetSeq() < 3; m = next(t, s) {
	}
	history, err := w.store.Events(store.EventFilter{Cluster: string(acme)})
	if err != nil {
		t.Fatal(err)
	}
	history = history[len(history)-3:]
	if !strings.Contains(history[0].Message, "unknown kind 99") || history[1].Kind != fleet.EventAgent {
		t.Errorf("got %v", history)
	}
	if m := history[2].Message; len(m) > maxMessage || strings.Contains(m, "\x1b") || !strings.HasSuffix(m, "é…") {
		t.Errorf("got %d bytes: %.20q", len(m), m)
	}
}

func TestStreamsThatAreRefused(t *testing.T) {
	w := newWorld(t, time.Minute)
	many := make([]string, maxSubscriptions+1)
	for i := range many {
		many[i] = fmt.Sprintf("d%d", i)
	}
	for _, c := range []struct {
		name string
		m    *syncv1.ConnectRequest
		word string
	}{
		{"no Hello", phase(1, "Succeeded", "1.0.0"), "first message must be Hello"},
		{"no journal", &syncv1.ConnectRequest{Body: &syncv1.ConnectRequest_Hello{Hello: &syncv1.Hello{}}}, "journal"},
		{"too many subscriptions", hello(0, many...), "at most 100"},
		{"one twice", hello(0, "shop", "shop"), "two subscriptions to shop"},
		{"no name", hello(0, "../x"), "distribution name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := w.connect(t)
			send(t, s, c.m)
			ends(t, s, codes.InvalidArgument, c.word)
		})
	}
	s := w.connect(t)
	send(t, s, hello(0), eventMessage(&syncv1.Event{Kind: syncv1.EventKind_EVENT_KIND_AGENT}))
	ends(t, s, codes.InvalidArgument, "count from 1")
}

func TestASilentStreamEnds(t *testing.T) {
	w := newWorld(t, 50*time.Millisecond)
	s := w.connect(t)
	send(t, s, hello(0))
	beats := 0
	for {
		m, err := s.Recv()
		if err != nil {
			if status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("got %v", err)
			}
			break
		}
		if m.GetHeartbeat() != nil {
			beats++
		}
	}
	if beats == 0 {
		t.Error("the hub sent no heartbeat")
	}
	// One that says something stays.
	s = w.connect(t)
	send(t, s, hello(0))
	for range 10 {
		if _, err := s.Recv(); err != nil { // a heartbeat apart
			t.Fatal(err)
		}
		send(t, s, &syncv1.ConnectRequest{Body: &syncv1.ConnectRequest_Heartbeat{Heartbeat: &syncv1.Heartbeat{}}})
	}
}

func TestARemovedClusterEnds(t *testing.T) {
	w := newWorld(t, 50*time.Millisecond)
	s := w.connect(t)
	send(t, s, hello(0))
	next(t, s)
	// Nobody tells the stream: it asks the record again by itself.
	if err := w.store.RemoveCluster(acme); err != nil {
		t.Fatal(err)
	}
	ends(t, s, codes.Unauthenticated, "hub cluster invite acme/eu-1")
}

func TestFetchBundle(t *testing.T) {
	w := newWorld(t, time.Minute)
	fetch := func(digest string) ([]byte, error) {
		s, err := w.client.FetchBundle(t.Context(), &syncv1.FetchBundleRequest{Digest: digest})
		if err != nil {
			return nil, err
		}
		var all []byte
		for {
			m, err := s.Recv()
			if errors.Is(err, io.EOF) {
				return all, nil
			}
			if err != nil {
				return nil, err
			}
			if len(m.Data) > transport.ChunkSize {
				t.Errorf("a chunk of %d bytes", len(m.Data))
			}
			all = append(all, m.Data...)
		}
	}
	if got, err := fetch(string(w.bundle.digest)); err != nil || !bytes.Equal(got, w.bundle.data) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	if _, err := fetch(string(digestOf("b"))); status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), string(digestOf("b"))) {
		t.Errorf("got %v", err)
	}
	if _, err := fetch("latest"); status.Code(err) != codes.InvalidArgument {
		t.Errorf("got %v", err)
	}
}

// request is a certificate request of a new key.
func request(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

func TestRenew(t *testing.T) {
	w := newWorld(t, time.Minute)
	r, err := w.client.Renew(t.Context(), &syncv1.RenewRequest{Csr: request(t)})
	if err != nil || string(r.Certificate) != "certificate of acme/eu-1" || len(r.Authorities) != 1 {
		t.Fatalf("got %v, %v", r, err)
	}
	if id, err := w.store.Identity([32]byte{2}); err != nil || id.Cluster != acme || !id.NotAfter.Equal(r.NotAfter.AsTime()) {
		t.Errorf("got %+v, %v", id, err)
	}
	if _, err := w.store.Identity([32]byte{1}); err != nil {
		t.Errorf("the old identity ended: %v", err)
	}
	if _, err := w.client.Renew(t.Context(), &syncv1.RenewRequest{}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("got %v", err)
	}
	if err := w.store.RemoveCluster(acme); err != nil {
		t.Fatal(err)
	}
	if _, err := w.client.Renew(t.Context(), &syncv1.RenewRequest{Csr: request(t)}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a renewal that a removal overtook: got %v", err)
	}
	if _, err := w.store.Identity([32]byte{2}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("it left an identity behind: %v", err)
	}
}

// A spoke that says more than its part is read later, and what it says is kept; others are answered meanwhile.
func TestASpokeThatSendsAsFastAsItCanHasItsPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, leave := context.WithCancel(t.Context())
		c := &Conversation{stream: paced{ctx: ctx}}
		start := time.Now()
		for range 10 * messageBurst / 256 {
			c.pace(256, time.Now())
		}
		if took := time.Since(start); took != 9*messageBurst*time.Second/messageRate {
			t.Errorf("%d messages took %v", 10*messageBurst, took)
		}
		time.Sleep(time.Minute) // of rest give the burst back, and no more
		start = time.Now()
		c.pace(messageBurst, start)
		if took := time.Since(start); took != 0 {
			t.Errorf("a burst waited for %v", took)
		}
		leave()
		c.pace(1<<20, time.Now()) // nobody waits for a session that is over
		if took := time.Since(start); took != 0 {
			t.Errorf("a session that is over waited for %v", took)
		}
	})
}

// paced is a stream of which only the context is asked.
type paced struct {
	syncv1.SyncService_ConnectServer
	ctx context.Context
}

func (p paced) Context() context.Context { return p.ctx }

// held is a store that records nothing before a test lets it.
type held struct {
	reports
	free chan struct{}
}

func (h held) RecordEvents(c fleet.Cluster, journal string, events []fleet.Event) (uint64, error) {
	<-h.free
	return h.reports.RecordEvents(c, journal, events)
}

// carried is a stream of which the messages are brought; what is sent on it is counted.
type carried struct {
	syncv1.SyncService_ConnectServer
	ctx  context.Context
	sent atomic.Int64
}

func (c *carried) Context() context.Context { return c.ctx }

func (c *carried) Send(*syncv1.ConnectResponse) error { c.sent.Add(1); return nil }

func (c *carried) SendMsg(any) error { c.sent.Add(1); return nil }

func (w *world) carry(t *testing.T) (*Conversation, *carried) {
	t.Helper()
	stream := &carried{ctx: caller.With(ending.With(t.Context()), caller.Caller{Cluster: acme, Fingerprint: [32]byte{1}})}
	c, err := w.service.Converse(stream)
	if err != nil {
		t.Fatal(err)
	}
	return c, stream
}

// Who brings a spoke's messages never waits for the disk, and is told when too many wait; what was said before the
// spoke finished is stored.
func TestMessagesThatAreBroughtWaitUpToABound(t *testing.T) {
	free := make(chan struct{})
	w := newWorld(t, time.Minute, func(c *Config) { c.Reports = held{c.Reports, free} })
	c, stream := w.carry(t)
	if err := c.Hear(hello(0, "shop")); err != nil {
		t.Fatal(err)
	}
	seq := uint64(0)
	for refused := error(nil); ; {
		seq++
		if refused = c.Hear(phase(seq, "Succeeded", "1.0.0")); refused != nil {
			if status.Code(refused) != codes.ResourceExhausted || !strings.Contains(refused.Error(), "of acme/eu-1 wait already") {
				t.Errorf("got %v", refused)
			}
			break
		}
		if seq > 3*queue {
			t.Fatalf("%d messages wait, want %d at most", seq, queue)
		}
	}
	close(free)
	c.Finish()
	c.Close()
	if err, ended := ending.Answer(stream.ctx); !ended || err != nil {
		t.Errorf("it ended with %v, %v", err, ended)
	}
	if acked, err := w.store.AckedSeq(acme, "j1"); err != nil || acked != seq-1 {
		t.Errorf("%d events are stored, %v; want %d", acked, err, seq-1)
	}
	if err := c.Hear(phase(seq, "Succeeded", "1.0.0")); err != nil || w.presence.Connected(acme) {
		t.Errorf("after the end: %v, connected %v", err, w.presence.Connected(acme))
	}
}

// broken is a store with a fault of the hub's.
type broken struct{ reports }

func (broken) RecordEvents(fleet.Cluster, string, []fleet.Event) (uint64, error) { panic("a fault") }

func TestAFaultEndsOneSpokesStream(t *testing.T) {
	w := newWorld(t, time.Minute, func(c *Config) { c.Reports = broken{c.Reports} })
	s := w.connect(t)
	send(t, s, hello(0, "shop"), phase(1, "Succeeded", "1.0.0"))
	ends(t, s, codes.Internal, "the hub has a fault here")
	again := w.connect(t)
	send(t, again, hello(0, "shop"))
	if m := next(t, again).GetWelcome(); m.GetCluster() != string(acme) {
		t.Errorf("got %v", m)
	}
}
