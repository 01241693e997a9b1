package relayapi

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/hub/internal/ending"
	"github.com/wheelwright-dev/wheelwright/hub/internal/identity"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/sealed"
	channelv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/channel/v1"
	relayv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/relay/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// desk serves spokes: it acknowledges each event, but of the one that it has no time for.
type desk struct{ busy fleet.Cluster }

func (d desk) serve(stream syncv1.SyncService_ConnectServer) (Conversation, error) {
	who, _ := caller.From(stream.Context())
	return &served{stream: stream, busy: who.Cluster == d.busy}, nil
}

// queue is how many messages wait at most for a desk that is busy.
const queue = 8

type served struct {
	stream syncv1.SyncService_ConnectServer
	busy   bool
	heard  int
}

func (s *served) Hear(m *syncv1.ConnectRequest) error {
	if s.heard++; s.busy && s.heard > queue {
		return status.Errorf(codes.ResourceExhausted, "%d wait", queue)
	}
	if s.busy {
		return nil
	}
	return s.stream.Send(&syncv1.ConnectResponse{Body: &syncv1.ConnectResponse_Ack{Ack: &syncv1.Ack{Seq: m.GetEvent().GetSeq()}}})
}

func (s *served) Finish() { ending.End(s.stream.Context(), nil) }
func (s *served) Close()  {}

// carrying is a relay's stream at a hub that serves spokes at a desk.
type carrying struct {
	relayv1.RelayService_CarryClient
	service   *Service
	authority *identity.Authority
	log       *lines
	last      uint64
}

// lines is what was logged.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// A certificate's fingerprint stands for its cluster here.
var clusters = map[[32]byte]fleet.Cluster{{1}: "acme/eu-1", {2}: "acme/eu-2"}

func carry(t *testing.T, d desk) *carrying {
	t.Helper()
	authority, err := identity.Open(filepath.Join(t.TempDir(), "authority"))
	if err != nil {
		t.Fatal(err)
	}
	r := &carrying{authority: authority, log: &lines{}}
	r.service = New(Config{Authority: authority, Spokes: d.serve, Log: slog.New(slog.NewTextHandler(r.log, nil)),
		Judge: func(certificate [32]byte, _ fleet.Fingerprint) (caller.Caller, error) {
			if c, ok := clusters[certificate]; ok {
				return caller.Caller{Cluster: c}, nil
			}
			return caller.Caller{}, status.Error(codes.Unauthenticated, "unknown")
		}})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.StreamInterceptor(func(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		return next(srv, identified{s})
	}))
	relayv1.RegisterRelayServiceServer(server, r.service)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	if r.RelayService_CarryClient, err = relayv1.NewRelayServiceClient(conn).Carry(ctx); err != nil {
		t.Fatal(err)
	}
	if m := r.next(t); m.GetAuthorities() == nil {
		t.Fatalf("the hub began with %v", m)
	}
	return r
}

// identified is a stream of relay fra-1, as the server finds out from its certificate.
type identified struct{ grpc.ServerStream }

func (s identified) Context() context.Context {
	return caller.With(s.ServerStream.Context(), caller.Caller{Relay: "fra-1"})
}

func (r *carrying) next(t *testing.T) *relayv1.CarryResponse {
	t.Helper()
	m, err := r.Recv()
	if err != nil {
		t.Fatalf("the relay's stream ended: %v; the hub said:\n%s", err, r.log)
	}
	return m
}

// end is a spoke's of a channel.
type end struct {
	t        *testing.T
	relay    *carrying
	number   uint64
	up, down sealed.Direction
	seq      uint64
}

// opens is a channel of the spoke with this certificate.
func (r *carrying) opens(t *testing.T, certificate byte) *end {
	t.Helper()
	ticket := identity.RelayTicket{Certificate: [32]byte{certificate}}
	nonce := make([]byte, sealed.NonceSize)
	_, _ = rand.Read(ticket.Secret[:])
	_, _ = rand.Read(nonce)
	now := time.Now()
	enclosed, err := r.authority.SealTicket(ticket, now, now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	r.last++
	if err := r.Send(&relayv1.CarryRequest{Channel: r.last, Frame: &relayv1.CarryRequest_Open{Open: &channelv1.Open{Ticket: enclosed, Nonce: nonce}}}); err != nil {
		t.Fatal(err)
	}
	m := r.next(t)
	if m.GetChannel() != r.last || m.GetChallenge() == nil {
		t.Fatalf("a channel was answered with %v", m)
	}
	e := &end{t: t, relay: r, number: r.last}
	if e.up, e.down, err = sealed.Channel(ticket.Secret[:], enclosed, nonce, m.GetChallenge().GetNonce()); err != nil {
		t.Fatal(err)
	}
	return e
}

// says sends the next event.
func (e *end) says() {
	e.t.Helper()
	e.seq++
	body, err := proto.Marshal(&syncv1.ConnectRequest{Body: &syncv1.ConnectRequest_Event{Event: &syncv1.Event{Seq: e.seq}}})
	if err != nil {
		e.t.Fatal(err)
	}
	tag, err := e.up.Seal(sha256.Sum256(body), false)
	if err != nil {
		e.t.Fatal(err)
	}
	if err := e.relay.Send(&relayv1.CarryRequest{Channel: e.number, Frame: &relayv1.CarryRequest_Sealed{Sealed: &channelv1.Sealed{Body: body, Tag: tag}}}); err != nil {
		e.t.Fatal(err)
	}
}

// acked wants the acknowledgement of the last event to be the next thing that the hub says on the relay's stream: frames
// before it have been taken by then.
func (e *end) acked() {
	e.t.Helper()
	m := e.relay.next(e.t)
	s := m.GetSealed()
	if m.GetChannel() != e.number || s == nil || e.down.Open(s.GetBody(), s.GetTag(), s.GetEnd()) != nil || s.GetEnd() {
		e.t.Fatalf("channel %d was told %v; the hub said:\n%s", e.number, m, e.relay.log)
	}
	said := &syncv1.ConnectResponse{}
	if err := proto.Unmarshal(s.GetBody(), said); err != nil || said.GetAck().GetSeq() != e.seq {
		e.t.Fatalf("event %d was answered with %v, %v", e.seq, said, err)
	}
}

// ended wants the hub's sealed last word, and that the relay is told that the channel is gone.
func (e *end) ended() error {
	e.t.Helper()
	m := e.relay.next(e.t)
	s := m.GetSealed()
	if m.GetChannel() != e.number || s == nil || e.down.Open(s.GetBody(), s.GetTag(), s.GetEnd()) != nil || !s.GetEnd() {
		e.t.Fatalf("channel %d was told %v; the hub said:\n%s", e.number, m, e.relay.log)
	}
	word := &spb.Status{}
	if err := proto.Unmarshal(s.GetBody(), word); err != nil {
		e.t.Fatal(err)
	}
	if m := e.relay.next(e.t); m.GetChannel() != e.number || m.GetGone() == nil {
		e.t.Fatalf("after the end of channel %d: %v", e.number, m)
	}
	return status.FromProto(word).Err()
}

// A spoke that says more than may wait is told so, sealed, and the operator is told which; the others are served on the
// same stream, before and after, and so is that spoke on another channel.
func TestASpokeThatSaysMoreThanItMayLosesItsChannelAndNobodyElseDoes(t *testing.T) {
	r := carry(t, desk{busy: "acme/eu-1"})
	busy, other := r.opens(t, 1), r.opens(t, 2)
	for range queue {
		busy.says()
		other.says()
		other.acked()
	}
	if n := r.service.Connected()["fra-1"]; n != 2 || strings.Contains(r.log.String(), "acme/eu-1") {
		t.Fatalf("%d spokes, with as many messages as may wait:\n%s", n, r.log)
	}
	busy.says()
	err := busy.ended()
	if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), fmt.Sprintf("%d wait", queue)) {
		t.Errorf("it ended with %v", err)
	}
	if n := strings.Count(r.log.String(), `msg="a spoke says more than it waits to be answered" relay=fra-1 cluster=acme/eu-1`); n != 1 {
		t.Errorf("said %d times:\n%s", n, r.log)
	}
	busy.says() // on its way when the channel ended
	other.says()
	other.acked()
	if n := r.service.Connected()["fra-1"]; n != 1 {
		t.Errorf("%d spokes, want 1", n)
	}
	again := r.opens(t, 1)
	again.says()
	other.says()
	other.acked()
	if n := r.service.Connected()["fra-1"]; n != 2 {
		t.Errorf("%d spokes after it came back, want 2", n)
	}
}

// What is no spoke's word ends the channel that it came on, and no other.
func TestWhatTheSpokeDidNotSayEndsItsChannelAlone(t *testing.T) {
	r := carry(t, desk{})
	victim, other := r.opens(t, 1), r.opens(t, 2)
	for _, e := range []*end{victim, other} {
		e.says()
		e.acked()
	}
	if err := r.Send(&relayv1.CarryRequest{Channel: victim.number, Frame: &relayv1.CarryRequest_Sealed{Sealed: &channelv1.Sealed{Body: []byte{1}, Tag: make([]byte, sealed.TagSize)}}}); err != nil {
		t.Fatal(err)
	}
	if err := victim.ended(); status.Code(err) != codes.DataLoss || !strings.Contains(err.Error(), "is not this spoke's") {
		t.Errorf("it ended with %v", err)
	}
	if !strings.Contains(r.log.String(), `msg="a relay brought what its spoke did not say" relay=fra-1 cluster=acme/eu-1`) {
		t.Errorf("the hub said:\n%s", r.log)
	}
	other.says()
	other.acked()
}
