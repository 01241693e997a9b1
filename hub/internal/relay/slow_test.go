package relay

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/wheelwright-dev/wheelwright/hub/internal/blob"
	"github.com/wheelwright-dev/wheelwright/hub/internal/identity"
	"github.com/wheelwright-dev/wheelwright/pkg/transport"
	channelv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/channel/v1"
	relayv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/relay/v1"
)

// hubEnd is the hub's end of a relay's stream, over real TLS.
type hubEnd struct {
	relayv1.UnimplementedRelayServiceServer
	authority *identity.Authority
	streams   chan relayv1.RelayService_CarryServer
	frames    chan *relayv1.CarryRequest
}

func (h *hubEnd) Carry(s relayv1.RelayService_CarryServer) error {
	pins := h.authority.Pins()
	if err := s.Send(&relayv1.CarryResponse{Frame: &relayv1.CarryResponse_Authorities{Authorities: &relayv1.Authorities{
		Certificates: h.authority.Authorities(), Shown: h.authority.Pin(), Issues: pins[len(pins)-1]}}}); err != nil {
		return err
	}
	h.streams <- s
	for {
		m, err := s.Recv()
		if err != nil {
			return err
		}
		h.frames <- m
	}
}

// next is what the relay passes up next.
func (h *hubEnd) next(t *testing.T, ctx context.Context) *relayv1.CarryRequest {
	t.Helper()
	select {
	case m := <-h.frames:
		return m
	case <-ctx.Done():
		t.Fatal("waited in vain for a frame of the relay")
		return nil
	}
}

const testHost = "127.0.0.1"

// running is a relay with its hub, and what a spoke dials it with.
func running(t *testing.T) (h *hubEnd, r *Relay, dial func() channelv1.ChannelServiceClient) {
	t.Helper()
	dir := t.TempDir()
	authority, err := identity.Open(filepath.Join(dir, "authority"))
	if err != nil {
		t.Fatal(err)
	}
	h = &hubEnd{authority: authority, streams: make(chan relayv1.RelayService_CarryServer, 1), frames: make(chan *relayv1.CarryRequest, 1024)}
	cfg, err := authority.ServerTLS(nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	hubListener := listening(t)
	server := grpc.NewServer(transport.ServerOptions(cfg)...)
	relayv1.RegisterRelayServiceServer(server, h)
	go func() { _ = server.Serve(hubListener) }()
	t.Cleanup(server.Stop)

	key, csr := request(t)
	issued, err := authority.IssueRelay(csr, "fra-1", []string{testHost}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	id, err := granted(hubListener.Addr().String(), key, &relayv1.Certificates{Name: "fra-1", Client: issued.Client.DER, Server: issued.Server, Authorities: authority.Authorities()})
	if err != nil {
		t.Fatal(err)
	}
	if err := id.save(dir); err != nil {
		t.Fatal(err)
	}
	blobs, err := blob.Open(filepath.Join(dir, "bundles"))
	if err != nil {
		t.Fatal(err)
	}
	l := listening(t)
	if r, err = New(Config{Dir: dir, Listener: l, Bundles: blobs, Keep: 1 << 20, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- r.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-over; err != nil {
			t.Errorf("relay ended: %v", err)
		}
	})

	return h, r, func() channelv1.ChannelServiceClient {
		t.Helper()
		key, csr := request(t)
		issued, err := authority.IssueSpoke(csr, "acme/eu-1", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := transport.Dial(l.Addr().String(), &tls.Config{RootCAs: id.pool(), NextProtos: []string{transport.RelayProtocol}, VerifyConnection: transport.IsRelay,
			Certificates: []tls.Certificate{{Certificate: [][]byte{issued.DER}, PrivateKey: key}}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return channelv1.NewChannelServiceClient(conn)
	}
}

func listening(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", testHost+":0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func request(t *testing.T) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, csr, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	return key, csr
}

// A spoke that does not read is cut off when as much waits for it as may. The hub's stream never waits for it, nor does
// another spoke.
func TestASpokeThatDoesNotReadIsCutOffAndNobodyWaitsForIt(t *testing.T) {
	h, r, dial := running(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var hub relayv1.RelayService_CarryServer
	select {
	case hub = <-h.streams:
	case <-ctx.Done():
		t.Fatal("the relay did not connect")
	}
	say := func(m *relayv1.CarryResponse) {
		t.Helper()
		if err := hub.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	for !r.Stats().HubConnected { // it takes the hub's greeting
		if ctx.Err() != nil {
			t.Fatal("the relay did not take its hub's greeting")
		}
		runtime.Gosched()
	}
	// opened is a spoke whose channel the hub has answered.
	opened := func() (number uint64, s channelv1.ChannelService_ConnectClient) {
		t.Helper()
		s, err := dial().Connect(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Send(&channelv1.ConnectRequest{Frame: &channelv1.ConnectRequest_Open{Open: &channelv1.Open{Ticket: []byte("ticket"), Nonce: []byte("nonce")}}}); err != nil {
			t.Fatal(err)
		}
		number = h.next(t, ctx).GetChannel()
		say(&relayv1.CarryResponse{Channel: number, Frame: &relayv1.CarryResponse_Challenge{Challenge: &channelv1.Challenge{Nonce: []byte("nonce")}}})
		if m, err := s.Recv(); err != nil || m.GetChallenge() == nil {
			t.Fatalf("a channel was answered with %v, %v", m, err)
		}
		return number, s
	}
	slow, deaf := opened()
	quick, reads := opened()
	if got := r.Stats(); got.Channels != 2 || !got.HubConnected {
		t.Fatalf("%+v", got)
	}

	body := bytes.Repeat([]byte("what many are told "), 1<<12)
	sum := sha256.Sum256(body)
	say(&relayv1.CarryResponse{Frame: &relayv1.CarryResponse_Body{Body: &relayv1.Body{Content: body}}})
	told := func(number uint64, tag byte) {
		t.Helper()
		say(&relayv1.CarryResponse{Channel: number, Frame: &relayv1.CarryResponse_Referred{Referred: &relayv1.Referred{Digest: sum[:], Tag: []byte{tag}}}})
	}
	heard := func(tag byte) {
		t.Helper()
		m, err := reads.Recv()
		if err != nil || !bytes.Equal(m.GetSealed().GetTag(), []byte{tag}) || !bytes.Equal(m.GetSealed().GetBody(), body) {
			t.Fatalf("message %d to who reads: %v, %v", tag, m.GetSealed().GetTag(), err)
		}
	}
	said := 0
	for ; r.Stats().Slow == 0; said++ {
		if said > 4*queue {
			t.Fatalf("%d messages wait for a spoke that does not read", said)
		}
		told(slow, byte(said))
		told(quick, byte(said)) // after it on the same stream: by then the one before was taken
		heard(byte(said))
	}
	if said < queue {
		t.Errorf("it was cut off after %d messages, want %d at least", said, queue)
	}
	if m := h.next(t, ctx); m.GetChannel() != slow || m.GetGone() == nil {
		t.Errorf("the hub was told %v, want that channel %d is gone", m, slow)
	}
	// More for it is dropped, and the other one goes on.
	for tag := byte(200); tag < 210; tag++ {
		told(slow, tag)
		told(quick, tag)
		heard(tag)
	}
	if got := r.Stats(); got.Slow != 1 || got.Channels != 1 {
		t.Errorf("%+v", got)
	}
	// Its connection was ended, and it finds out when it reads.
	for n := 0; ; n++ {
		if _, err := deaf.Recv(); err != nil {
			if err == io.EOF || ctx.Err() != nil {
				t.Errorf("its channel ended with %v", err)
			}
			if n >= said {
				t.Errorf("%d messages came of %d", n, said)
			}
			break
		}
	}
	if err := reads.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if m := h.next(t, ctx); m.GetChannel() != quick || m.GetGone() == nil {
		t.Errorf("the hub was told %v, want that channel %d is gone", m, quick)
	}
}
