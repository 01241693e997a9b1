package server_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/hub/internal/identity"
	"github.com/wheelwright-dev/wheelwright/hub/internal/oidc"
	"github.com/wheelwright-dev/wheelwright/hub/internal/server"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/transport"
	enrollv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/enroll/v1"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
	relayv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/relay/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const eu = fleet.Cluster("acme/eu-1")

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// house is a running server over a real store and a real authority.
type house struct {
	t         *testing.T
	store     *store.Store
	asked     *asked
	authority *identity.Authority
	addr      string
	log       *syncBuffer
	server    *server.Server
	stop      context.CancelFunc
	stopped   chan error
}

// asked is the store, and counts how often it is asked about an identity.
type asked struct {
	*store.Store
	times atomic.Int64
}

func (a *asked) Identity(fingerprint [32]byte) (store.Identity, error) {
	a.times.Add(1)
	return a.Store.Identity(fingerprint)
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// services are what the tests' server answers with; what is not embedded otherwise is unimplemented.
type services struct {
	enroll enrollv1.EnrollServiceServer
	sync   syncv1.SyncServiceServer
	fleet  fleetv1.FleetServiceServer
	tokens *oidc.Tokens // nil: none are taken

	age, reading time.Duration // as of server.Config
}

func build(t *testing.T, with services, grace time.Duration) *house {
	t.Helper()
	h := &house{t: t, log: &syncBuffer{}, stopped: make(chan error, 1)}
	dir := t.TempDir()
	log := slog.New(slog.NewTextHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	h.store, err = store.Open(filepath.Join(dir, "hub.db"), log)
	must(t, err)
	h.asked = &asked{Store: h.store}
	h.authority, err = identity.Open(filepath.Join(dir, "authority"))
	must(t, err)
	cfg, err := h.authority.ServerTLS(nil, 0)
	must(t, err)
	if with.enroll == nil {
		with.enroll = enrollv1.UnimplementedEnrollServiceServer{}
	}
	if with.sync == nil {
		with.sync = syncv1.UnimplementedSyncServiceServer{}
	}
	if with.fleet == nil {
		with.fleet = fleetv1.UnimplementedFleetServiceServer{}
	}
	setup := server.Config{
		Listen: "127.0.0.1:0", TLS: cfg, Identities: h.asked, Authorities: h.authority.Pins, GracePeriod: grace, Age: with.age, Reading: with.reading, Log: log,
		Register: func(r grpc.ServiceRegistrar) {
			enrollv1.RegisterEnrollServiceServer(r, with.enroll)
			syncv1.RegisterSyncServiceServer(r, with.sync)
			fleetv1.RegisterFleetServiceServer(r, with.fleet)
			relayv1.RegisterRelayServiceServer(r, relayv1.UnimplementedRelayServiceServer{})
		},
	}
	if with.tokens != nil {
		setup.Tokens = with.tokens
	}
	s, err := server.New(setup)
	must(t, err)
	h.server, h.addr = s, s.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	h.stop = cancel
	go func() { h.stopped <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-h.stopped; err != nil {
			t.Errorf("run: %v", err)
		}
		must(t, h.store.Close())
	})
	return h
}

// dial connects with this certificate; nil for a stranger.
func (h *house) dial(certificate *tls.Certificate) *grpc.ClientConn {
	h.t.Helper()
	return h.dialWith(certificate, nil)
}

// dialWith goes on with the sessions in the cache, where there are any.
func (h *house) dialWith(certificate *tls.Certificate, sessions tls.ClientSessionCache) *grpc.ClientConn {
	h.t.Helper()
	roots := x509.NewCertPool()
	for _, der := range h.authority.Authorities() {
		c, err := x509.ParseCertificate(der)
		must(h.t, err)
		roots.AddCert(c)
	}
	cfg := &tls.Config{RootCAs: roots, ClientSessionCache: sessions}
	if certificate != nil {
		cfg.Certificates = []tls.Certificate{*certificate}
	}
	conn, err := transport.Dial(h.addr, cfg)
	must(h.t, err)
	h.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (h *house) operator() *tls.Certificate {
	h.t.Helper()
	return h.operatorAs("admin", "admin")
}

// operatorAs is another certificate of an operator, who is made where there is none of the name.
func (h *house) operatorAs(name, role string) *tls.Certificate {
	h.t.Helper()
	certificate, keyPEM, err := h.authority.IssueOperator(name, time.Hour)
	must(h.t, err)
	r, err := caller.ParseRole(role)
	must(h.t, err)
	must(h.t, h.store.KeepOperator(store.Operator{Name: name, Role: r, Fingerprint: certificate.Fingerprint, NotAfter: certificate.NotAfter}, false))
	pair, err := tls.X509KeyPair(certificate.PEM(), keyPEM)
	must(h.t, err)
	return &pair
}

func (h *house) removeOperator(name string) error { return h.audited("").RemoveOperator(name) }

// relay invites and joins a relay.
func (h *house) relay(name string) *tls.Certificate {
	h.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(h.t, err)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	must(h.t, err)
	id := rand.Text()
	_, err = h.audited("").InviteRelay(store.Relay{Name: name, Hosts: []string{"relay.example.com"}}, id, [32]byte{1}, time.Now().Add(time.Minute))
	must(h.t, err)
	var issued identity.RelayCertificates
	_, err = h.store.RedeemRelay(id, [32]byte{1}, time.Now(), func(r store.Relay) (_ store.Certificate, err error) {
		issued, err = h.authority.IssueRelay(csr, r.Name, r.Hosts, time.Hour)
		return store.Certificate{Fingerprint: issued.Client.Fingerprint, NotAfter: issued.Client.NotAfter, Issuer: issued.Client.Issuer}, err
	})
	must(h.t, err)
	return &tls.Certificate{Certificate: [][]byte{issued.Client.DER}, PrivateKey: key}
}

// spoke invites and joins the cluster, as often as it is called.
func (h *house) spoke(name fleet.Cluster) *tls.Certificate {
	h.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(h.t, err)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	must(h.t, err)
	id := rand.Text()
	_, err = h.store.Invite(name, nil, id, [32]byte{1}, time.Now().Add(time.Minute))
	must(h.t, err)
	var issued identity.Certificate
	_, err = h.store.Redeem(id, [32]byte{1}, fleet.Fingerprint{}, time.Now(), func(c fleet.Cluster) (_ store.Certificate, err error) {
		issued, err = h.authority.IssueSpoke(csr, c, time.Hour)
		return store.Certificate{Fingerprint: issued.Fingerprint, NotAfter: issued.NotAfter, Issuer: issued.Issuer}, err
	})
	must(h.t, err)
	return &tls.Certificate{Certificate: [][]byte{issued.DER}, PrivateKey: key}
}

func wantCode(t *testing.T, err error, want codes.Code, words ...string) {
	t.Helper()
	if status.Code(err) != want {
		t.Fatalf("got %v, want %v", err, want)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not say %q", err, w)
		}
	}
}

// answering is a hub's services made of functions.
type answering struct {
	fleetv1.UnimplementedFleetServiceServer
	version func(context.Context) error
}

func (a answering) GetVersion(ctx context.Context, _ *fleetv1.GetVersionRequest) (*fleetv1.GetVersionResponse, error) {
	if err := a.version(ctx); err != nil {
		return nil, err
	}
	return &fleetv1.GetVersionResponse{}, nil
}

type echo struct {
	syncv1.UnimplementedSyncServiceServer
}

func (echo) Connect(stream syncv1.SyncService_ConnectServer) error {
	received := make(chan error)
	go func() {
		for {
			_, err := stream.Recv()
			select {
			case received <- err:
			case <-stream.Context().Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	for {
		select {
		case err := <-received:
			if err != nil {
				return err
			}
			if err := stream.Send(&syncv1.ConnectResponse{}); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func TestTheCallerIsWhoTheRecordSays(t *testing.T) {
	var mu sync.Mutex
	var got caller.Caller
	h := build(t, services{fleet: answering{version: func(ctx context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		got, _ = caller.From(ctx)
		return nil
	}}}, time.Second)
	certificate := h.operator()
	_, err := fleetv1.NewFleetServiceClient(h.dial(certificate)).GetVersion(t.Context(), &fleetv1.GetVersionRequest{})
	must(t, err)
	mu.Lock()
	defer mu.Unlock()
	leaf, err := x509.ParseCertificate(certificate.Certificate[0])
	must(t, err)
	want := caller.Caller{Operator: "admin", Role: caller.Role{Kind: caller.Admin}, Fingerprint: sha256.Sum256(leaf.Raw), Key: fleet.FingerprintOf(leaf.RawSubjectPublicKeyInfo), NotAfter: got.NotAfter}
	if got != want || !got.NotAfter.After(time.Now()) {
		t.Errorf("caller %v, want %v", got, want)
	}
}

// connect opens a stream and has one message answered.
func connect(t *testing.T, conn *grpc.ClientConn) syncv1.SyncService_ConnectClient {
	t.Helper()
	stream, err := syncv1.NewSyncServiceClient(conn).Connect(t.Context())
	must(t, err)
	must(t, stream.Send(&syncv1.ConnectRequest{}))
	_, err = stream.Recv()
	must(t, err)
	return stream
}

func TestAnEndedIdentityEndsItsStreamsAndItsCalls(t *testing.T) {
	h := build(t, services{sync: echo{}}, time.Second)
	for name, end := range map[string]func(fleet.Cluster){
		"removed":  func(c fleet.Cluster) { must(t, h.store.RemoveCluster(c)) },
		"rejoined": func(c fleet.Cluster) { h.spoke(c) },
	} {
		t.Run(name, func(t *testing.T) {
			cluster := fleet.Cluster("acme/" + name)
			conn := h.dial(h.spoke(cluster))
			stream := connect(t, conn)
			end(cluster)
			_ = stream.Send(&syncv1.ConnectRequest{}) // fails where the end was quicker
			_, err := stream.Recv()
			wantCode(t, err, codes.Unauthenticated, "removed or joined again", "hub cluster invite")
			again, err := syncv1.NewSyncServiceClient(conn).Connect(t.Context())
			must(t, err)
			_, err = again.Recv()
			wantCode(t, err, codes.Unauthenticated, "hub cluster invite")
		})
	}
}

// feed is a Watch that sends when it is told to.
type feed struct {
	fleetv1.UnimplementedFleetServiceServer
	news chan struct{}
}

func (f feed) Watch(_ *fleetv1.WatchRequest, stream fleetv1.FleetService_WatchServer) error {
	for {
		if err := stream.Send(&fleetv1.WatchResponse{}); err != nil {
			return err
		}
		select {
		case <-f.news:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// What an operator may do is asked of the record with every message, not of the certificate.
func TestAnOperatorThatIsRemovedOrChangedIsToldNothingMore(t *testing.T) {
	f := feed{news: make(chan struct{}, 1)} // the stream may be cut before the news is taken
	h := build(t, services{fleet: f}, time.Second)
	conn := h.dial(h.operatorAs("maria", "viewer"))
	watch, err := fleetv1.NewFleetServiceClient(conn).Watch(t.Context(), &fleetv1.WatchRequest{})
	must(t, err)
	_, err = watch.Recv()
	must(t, err)
	must(t, h.removeOperator("maria"))
	f.news <- struct{}{}
	_, err = watch.Recv()
	wantCode(t, err, codes.Unauthenticated, "operator was removed", "hub operator add")
	_, err = fleetv1.NewFleetServiceClient(conn).GetVersion(t.Context(), &fleetv1.GetVersionRequest{})
	wantCode(t, err, codes.Unauthenticated, "operator was removed")

	// One that is added again under the name has another certificate: the old one stays dead.
	again := h.dial(h.operatorAs("maria", "admin"))
	_, err = fleetv1.NewFleetServiceClient(conn).GetVersion(t.Context(), &fleetv1.GetVersionRequest{})
	wantCode(t, err, codes.Unauthenticated)
	_, err = fleetv1.NewFleetServiceClient(again).RecallRelease(t.Context(), &fleetv1.RecallReleaseRequest{})
	wantCode(t, err, codes.Unimplemented)

	// The same certificate, and another role in the record.
	role, err := caller.ParseRole("provider:acme")
	must(t, err)
	issued, _, err := h.authority.IssueOperator("maria", time.Hour)
	must(t, err)
	must(t, h.store.KeepOperator(store.Operator{Name: "maria", Role: role, Fingerprint: issued.Fingerprint, NotAfter: issued.NotAfter}, false))
	_, err = fleetv1.NewFleetServiceClient(again).RecallRelease(t.Context(), &fleetv1.RecallReleaseRequest{})
	wantCode(t, err, codes.PermissionDenied, "maria", "provider:acme", "RecallRelease")
}

func TestAnExpiredRecordIsRefusedEvenWhereTheCertificateIsNot(t *testing.T) {
	h := build(t, services{}, time.Second)
	certificate := h.operator()
	must(t, h.store.PutIdentity(sha256.Sum256(certificate.Certificate[0]), store.Identity{Operator: "admin", NotAfter: time.Now().Add(-time.Second)}))
	_, err := fleetv1.NewFleetServiceClient(h.dial(certificate)).GetVersion(t.Context(), &fleetv1.GetVersionRequest{})
	wantCode(t, err, codes.Unauthenticated, "operator admin", "expired")
}

func TestErrorsWithoutACodeAndPanics(t *testing.T) {
	h := build(t, services{fleet: answering{version: func(ctx context.Context) error {
		return errors.New("disk is full at /srv/hub")
	}}, sync: faulty{}}, time.Second)
	admin := fleetv1.NewFleetServiceClient(h.dial(h.operator()))
	_, err := admin.GetVersion(t.Context(), &fleetv1.GetVersionRequest{})
	wantCode(t, err, codes.Internal, "disk is full")

	spoke := syncv1.NewSyncServiceClient(h.dial(h.spoke(eu)))
	_, err = spoke.Renew(t.Context(), &syncv1.RenewRequest{})
	wantCode(t, err, codes.Internal)
	if strings.Contains(err.Error(), "/srv") {
		t.Errorf("a spoke is told about the hub's inside: %v", err)
	}
	stream, err := spoke.FetchBundle(t.Context(), &syncv1.FetchBundleRequest{})
	must(t, err)
	_, err = stream.Recv()
	wantCode(t, err, codes.Internal, "log")
	stranger := syncv1.NewSyncServiceClient(h.dial(nil))
	_, err = stranger.Renew(t.Context(), &syncv1.RenewRequest{Csr: []byte("a secret thing")})
	wantCode(t, err, codes.Unauthenticated, "without a client certificate", "hub cluster invite")
	for _, want := range []string{"boom at the wheel", "table missing at /srv/hub", "disk is full", "caller=stranger", "caller=acme/eu-1", `caller="operator admin"`, "/wheelwright.sync.v1.SyncService/Renew"} {
		if !strings.Contains(h.log.String(), want) {
			t.Errorf("the log does not say %q", want)
		}
	}
	if strings.Contains(h.log.String(), "a secret thing") {
		t.Error("the log says what was in a call")
	}
}

type faulty struct {
	syncv1.UnimplementedSyncServiceServer
}

func (faulty) Renew(context.Context, *syncv1.RenewRequest) (*syncv1.RenewResponse, error) {
	return nil, errors.New("table missing at /srv/hub")
}

func (faulty) FetchBundle(*syncv1.FetchBundleRequest, syncv1.SyncService_FetchBundleServer) error {
	panic("boom at the wheel")
}

func TestStoppingEndsEndlessStreamsAtOnceAndLetsCallsFinish(t *testing.T) {
	begun, finish := make(chan struct{}), make(chan struct{})
	h := build(t, services{sync: echo{}, fleet: answering{version: func(ctx context.Context) error {
		close(begun)
		select {
		case <-finish:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}}, time.Minute)
	stream := connect(t, h.dial(h.spoke(eu)))
	watch, err := grpc_health_v1.NewHealthClient(h.dial(nil)).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	must(t, err)
	_, err = watch.Recv()
	must(t, err)
	answered := make(chan error, 1)
	admin := fleetv1.NewFleetServiceClient(h.dial(h.operator()))
	go func() {
		_, err := admin.GetVersion(context.Background(), &fleetv1.GetVersionRequest{})
		answered <- err
	}()
	select {
	case <-begun:
	case err := <-answered:
		t.Fatalf("the call ended before it began: %v", err)
	}
	h.stop()
	_, err = stream.Recv()
	wantCode(t, err, codes.Unavailable, "stopping")
	close(finish)
	if err := <-answered; err != nil {
		t.Errorf("a call under way got %v", err)
	}
	err = <-h.stopped
	must(t, err)
	h.stopped <- nil // for the cleanup
}

func TestACallThatDoesNotEndIsCutOff(t *testing.T) {
	begun := make(chan struct{})
	h := build(t, services{fleet: answering{version: func(ctx context.Context) error {
		close(begun)
		<-ctx.Done()
		return ctx.Err()
	}}}, 50*time.Millisecond)
	answered := make(chan error, 1)
	admin := fleetv1.NewFleetServiceClient(h.dial(h.operator()))
	go func() {
		_, err := admin.GetVersion(context.Background(), &fleetv1.GetVersionRequest{})
		answered <- err
	}()
	<-begun
	h.stop()
	err := <-h.stopped
	must(t, err)
	h.stopped <- nil // for the cleanup
	if err := <-answered; err == nil {
		t.Error("the call was answered")
	}
}

func TestAPortThatIsTakenIsNamedWithHowToFindWho(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { _ = taken.Close() }()
	for address, says := range map[string]string{taken.Addr().String(): "ss -ltnp", "192.0.2.1:0": "ip addr", "nonsense": "HOST:PORT"} {
		_, err = server.New(server.Config{Listen: address, TLS: &tls.Config{}, Register: func(grpc.ServiceRegistrar) {}, Log: slog.New(slog.DiscardHandler)})
		if err == nil || !strings.Contains(err.Error(), address) || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "--listen") {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestAMethodWithoutARuleIsRefused(t *testing.T) {
	for _, desc := range []*grpc.ServiceDesc{
		{ServiceName: "wheelwright.new.v1.NewService"},
		{ServiceName: "wheelwright.fleet.v1.FleetService", Methods: []grpc.MethodDesc{{MethodName: "GetStatus"}, {MethodName: "GetSecrets"}}},
	} {
		desc.HandlerType = (*any)(nil)
		_, err := server.New(server.Config{Listen: "127.0.0.1:0", TLS: &tls.Config{}, Log: slog.New(slog.DiscardHandler), Register: func(r grpc.ServiceRegistrar) {
			r.RegisterService(desc, fmt.Stringer(nil))
		}})
		if err == nil || !strings.Contains(err.Error(), desc.ServiceName) {
			t.Errorf("got %v", err)
		}
	}
}

func TestAServerThatWasNeverRunLetsGoOfItsPort(t *testing.T) {
	s, err := server.New(server.Config{Listen: "127.0.0.1:0", TLS: &tls.Config{}, Register: func(grpc.ServiceRegistrar) {}, Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	must(t, s.Close())
	l, err := net.Listen("tcp", s.Addr().String())
	must(t, err)
	must(t, l.Close())
}
