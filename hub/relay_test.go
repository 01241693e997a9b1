package hub

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/hub/internal/relay"
	"github.com/wheelwright-dev/wheelwright/pkg/relayed"
	"github.com/wheelwright-dev/wheelwright/pkg/transport"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// relayHost is loopback too, and not one of the addresses of the hub's own certificate.
const relayHost = "127.0.0.2"

// joinRelay invites a relay and redeems its token; the result is its data folder.
func (r *running) joinRelay(t testing.TB, name string) string {
	t.Helper()
	invited, err := r.fleet.InviteRelay(t.Context(), &fleetv1.InviteRelayRequest{Name: name, Hosts: []string{relayHost}})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if _, err := relay.Join(t.Context(), relay.JoinConfig{Hub: r.Addr, Token: invited.GetToken(), Dir: dir}); err != nil {
		t.Fatal(err)
	}
	return dir
}

// relaying is a relay that runs in this process.
type relaying struct {
	RelayInfo
	stop func()
}

func serveRelay(t *testing.T, dir, listen string) *relaying {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ready, over := make(chan RelayInfo, 1), make(chan error, 1)
	cfg := RelayConfig{Dir: dir, Listen: listen, Metrics: "127.0.0.1:0", Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	go func() { over <- RunRelay(ctx, cfg, func(i RelayInfo) { ready <- i }) }()
	r := &relaying{}
	select {
	case r.RelayInfo = <-ready:
	case err := <-over:
		cancel()
		t.Fatalf("relay ended: %v", err)
	}
	stopped := false
	r.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-over; err != nil {
			t.Errorf("relay ended: %v", err)
		}
	}
	t.Cleanup(r.stop)
	return r
}

// farSpoke is a spoke's end of a relay: its way to the hub, and its connection to the relay.
type farSpoke struct {
	identity *tls.Config
	hub      syncv1.SyncServiceClient
	hubConn  *grpc.ClientConn
	relay    *grpc.ClientConn
}

func (r *running) through(t *testing.T, identity *tls.Config, via string) farSpoke {
	t.Helper()
	toHub := identity.Clone()
	toHub.VerifyConnection = transport.NotRelay
	hubConn, err := transport.Dial(r.Addr, toHub, transport.Through(via))
	if err != nil {
		t.Fatal(err)
	}
	toRelay := identity.Clone()
	toRelay.NextProtos, toRelay.VerifyConnection = []string{transport.RelayProtocol}, transport.IsRelay
	relayConn, err := transport.Dial(via, toRelay)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hubConn.Close(); relayConn.Close() })
	return farSpoke{identity: identity, hub: syncv1.NewSyncServiceClient(hubConn), hubConn: hubConn, relay: relayConn}
}

// open is a channel, when the relay has its hub.
func (b farSpoke) open(t *testing.T) (*relayed.Stream, relayed.Ticket) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	for {
		ticket, err := relayed.Ask(ctx, b.hubConn)
		if err == nil {
			var s *relayed.Stream
			if s, err = relayed.Open(ctx, b.relay, ticket); err == nil {
				return s, ticket
			}
		}
		if ctx.Err() != nil || status.Code(err) == codes.PermissionDenied {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// await asks until it is so.
func await(t testing.TB, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); !so(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func greeting(journal string, session uint64) *syncv1.ConnectRequest {
	return &syncv1.ConnectRequest{Body: &syncv1.ConnectRequest_Hello{Hello: &syncv1.Hello{SpokeVersion: "dev", KubernetesVersion: "v1.36.3", JournalId: journal,
		Instance: "i", Session: session, Subscriptions: []*syncv1.SubscriptionStatus{{Distribution: "shop", Variant: "app", Namespace: "shop"}}}}}
}

// talk is anything that a spoke has with its hub.
type talk interface {
	Send(*syncv1.ConnectRequest) error
	Recv() (*syncv1.ConnectResponse, error)
}

// heard is the next message that is no heartbeat.
func heard(t *testing.T, s talk) *syncv1.ConnectResponse {
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

func TestASpokeBehindARelayIsServedAsAnyOther(t *testing.T) {
	v := newVendor(t)
	v.tag(t, "1.1.0", "example.com/backend:1.1.0")
	dir := t.TempDir()
	hub := start(t, Config{Dir: dir, Poll: 50 * time.Millisecond, Heartbeat: time.Second})
	if _, err := hub.fleet.AddDistribution(t.Context(), &fleetv1.AddDistributionRequest{Distribution: &fleetv1.Distribution{Name: "shop", Url: v.dir}}); err != nil {
		t.Fatal(err)
	}
	hub.release(t, "1.1.0")
	folder := hub.joinRelay(t, "fra-1")
	fra := serveRelay(t, folder, relayHost+":0")
	spoke := hub.through(t, hub.enrol(t, "acme/eu-1"), fra.Addr)
	s, ticket := spoke.open(t)
	if err := s.Send(greeting("j1", 1)); err != nil {
		t.Fatal(err)
	}
	if w := heard(t, s).GetWelcome(); w.GetCluster() != "acme/eu-1" {
		t.Fatalf("got %v", w)
	}
	desired := heard(t, s).GetDesired()
	offers := desired.GetDistributions()[0].GetOffers()
	if len(offers) != 1 || offers[0].GetVersion() != "1.1.0" {
		t.Fatalf("got %v", desired)
	}
	provider{syncv1.NewSyncServiceClient(spoke.relay), nil}.fetch(t, offers[0])
	if err := s.Send(settled(1, "1.1.0")); err != nil {
		t.Fatal(err)
	}
	if a := heard(t, s).GetAck(); a.GetSeq() != 1 {
		t.Fatalf("got %v", a)
	}
	relays, err := hub.fleet.ListRelays(t.Context(), &fleetv1.ListRelaysRequest{})
	if err != nil || len(relays.GetRelays()) != 1 || !relays.GetRelays()[0].GetConnected() || relays.GetRelays()[0].GetSpokes() != 1 {
		t.Fatalf("got %v, %v", relays, err)
	}

	// The hub is away: the relay says so, and serves what it has.
	addr := hub.Addr
	hub.stop()
	if _, err := recvEnd(s); status.Code(err) != codes.Unavailable && !strings.Contains(err.Error(), "relay: ") {
		t.Errorf("the hub stopped: got %v", err)
	}
	await(t, "the relay to have noticed", func() bool {
		_, err := relayed.Open(t.Context(), spoke.relay, ticket)
		return err != nil && strings.Contains(err.Error(), "cannot be reached")
	})
	provider{syncv1.NewSyncServiceClient(spoke.relay), nil}.fetch(t, offers[0])

	// Both come back, and the ticket from before is still good: nobody had to shake hands with the hub.
	fra.stop()
	hub = start(t, Config{Dir: dir, Listen: addr, Poll: time.Hour, Heartbeat: time.Second})
	serveRelay(t, folder, fra.Addr)
	await(t, "a channel with the ticket of before", func() bool {
		s, err = relayed.Open(t.Context(), spoke.relay, ticket)
		return err == nil
	})
	if err := s.Send(greeting("j1", 2)); err != nil {
		t.Fatal(err)
	}
	if w := heard(t, s).GetWelcome(); w.GetAckedSeq() != 1 {
		t.Fatalf("got %v", w)
	}

	// The relay is removed: it is cut off at once, and its spokes are told that it is away.
	if _, err := hub.fleet.RemoveRelay(t.Context(), &fleetv1.RemoveRelayRequest{Name: "fra-1", Reason: "moved"}); err != nil {
		t.Fatal(err)
	}
	if _, err := recvEnd(s); err == nil {
		t.Error("the channel of a removed relay goes on")
	}
	await(t, "the relay to be told", func() bool {
		_, err := relayed.Open(t.Context(), spoke.relay, ticket)
		return err != nil && strings.Contains(err.Error(), "its relay was removed")
	})
	// The spoke's way through it, in TLS that ends at the hub, is not the relay's to speak on.
	if _, err := spoke.hub.OpenRelayed(t.Context(), &syncv1.OpenRelayedRequest{}); err != nil {
		t.Errorf("passed on as it is: %v", err)
	}
}

// recvEnd is how a conversation ends.
func recvEnd(s talk) (*syncv1.ConnectResponse, error) {
	for {
		if m, err := s.Recv(); err != nil {
			return m, err
		}
	}
}

// credentials are what a relay's data folder holds.
func credentials(t *testing.T, dir string) (client, server tls.Certificate, authorities *x509.CertPool) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, relay.IdentityFile))
	if err != nil {
		t.Fatal(err)
	}
	var stored struct{ Key, Client, Server, Authorities string }
	if err := json.Unmarshal(data, &stored); err != nil {
		t.Fatal(err)
	}
	var ders [][]byte
	for _, text := range []string{stored.Client, stored.Server, stored.Authorities} {
		b, _ := pem.Decode([]byte(text))
		ders = append(ders, b.Bytes)
	}
	b, _ := pem.Decode([]byte(stored.Key))
	key, err := x509.ParsePKCS8PrivateKey(b.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := x509.ParseCertificate(ders[2])
	if err != nil {
		t.Fatal(err)
	}
	authorities = x509.NewCertPool()
	authorities.AddCert(ca)
	private := key.(*ecdsa.PrivateKey)
	return tls.Certificate{Certificate: ders[:1], PrivateKey: private}, tls.Certificate{Certificate: ders[1:2], PrivateKey: private}, authorities
}
