package hubclient

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/token"
	"github.com/wheelwright-dev/wheelwright/pkg/transport"
	enrollv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/enroll/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/journal"
)

// authority is a certificate authority.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test hub"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{cert, key}
}

func (a authority) issue(pub any, usage x509.ExtKeyUsage, from, to time.Time, hosts ...string) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{SerialNumber: serial, NotBefore: from, NotAfter: to, ExtKeyUsage: []x509.ExtKeyUsage{usage}}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, h)
		}
	}
	return x509.CreateCertificate(rand.Reader, tmpl, a.cert, pub, a.key)
}

// testHub answers as a hub does: real gRPC over real TLS, state in memory.
type testHub struct {
	enrollv1.UnimplementedEnrollServiceServer
	syncv1.UnimplementedSyncServiceServer
	t      *testing.T
	ca     authority
	addr   string
	hosts  []string
	life   time.Duration // of certificates
	server *grpc.Server

	// Set before start; nil: as a hub does.
	connect func(h *testHub, n int, s grpc.BidiStreamingServer[syncv1.ConnectRequest, syncv1.ConnectResponse]) error
	fetch   func(n int, r *syncv1.FetchBundleRequest, s grpc.ServerStreamingServer[syncv1.FetchBundleResponse]) error

	mu       sync.Mutex
	tokens   map[string]bool // secret: spent
	issued   int
	hellos   []*syncv1.Hello
	events   map[string][]*syncv1.Event // by journal
	beats    int
	fetches  int
	presents []*x509.Certificate // of each stream
	keys     map[string]bool     // public keys for which certificates were issued
	refusal  *syncv1.Refusal     // of Connect; nil: it is served
	lost     int                 // so many answers to renewals are lost
	lenient  bool                // an expired certificate is taken
	desired  *syncv1.DesiredState
}

func newHub(t *testing.T) *testHub {
	return &testHub{t: t, ca: newAuthority(t), life: time.Hour, hosts: []string{"127.0.0.1"}, tokens: map[string]bool{}, keys: map[string]bool{}, events: map[string][]*syncv1.Event{}}
}

// start listens; again on the same port after stop.
func (h *testHub) start() *testHub {
	h.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		h.t.Fatal(err)
	}
	der, err := h.ca.issue(&key.PublicKey, x509.ExtKeyUsageServerAuth, time.Now().Add(-time.Hour), time.Now().Add(time.Hour), h.hosts...)
	if err != nil {
		h.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(h.ca.cert)
	cfg := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der, h.ca.cert.Raw}, PrivateKey: key}}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool}
	if h.lenient {
		cfg.ClientAuth = tls.RequestClientCert
	}
	if h.addr == "" {
		h.addr = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", h.addr)
	if err != nil {
		h.t.Fatal(err)
	}
	h.addr = l.Addr().String()
	h.server = grpc.NewServer(transport.ServerOptions(cfg)...)
	enrollv1.RegisterEnrollServiceServer(h.server, h)
	syncv1.RegisterSyncServiceServer(h.server, h)
	server := h.server
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(l) }()
	h.t.Cleanup(func() { server.Stop(); <-done })
	return h
}

func (h *testHub) invite() string {
	tok := token.New(pinOf(h.ca.cert))
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tokens[tok.String()] = false
	return tok.String()
}

func (h *testHub) sign(csr []byte) ([]byte, time.Time, error) {
	r, err := x509.ParseCertificateRequest(csr)
	if err != nil || r.CheckSignature() != nil {
		return nil, time.Time{}, status.Error(codes.InvalidArgument, "certificate request")
	}
	h.issued++
	if h.keys[string(r.RawSubjectPublicKeyInfo)] {
		h.t.Error("a key came for the second time")
	}
	h.keys[string(r.RawSubjectPublicKeyInfo)] = true
	to := time.Now().Add(h.life)
	der, err := h.ca.issue(r.PublicKey, x509.ExtKeyUsageClientAuth, time.Now().Add(-time.Second), to)
	return der, to, err
}

func (h *testHub) Enroll(_ context.Context, r *enrollv1.EnrollRequest) (*enrollv1.EnrollResponse, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch spent, ok := h.tokens[r.GetToken()]; {
	case !ok:
		return nil, status.Error(codes.Unauthenticated, "this token is not known")
	case spent:
		return nil, status.Error(codes.Unauthenticated, "this token was used already")
	}
	der, to, err := h.sign(r.GetCsr())
	if err != nil {
		return nil, err
	}
	h.tokens[r.GetToken()] = true
	return &enrollv1.EnrollResponse{Cluster: "acme/eu-1", Certificate: der, Authorities: [][]byte{h.ca.cert.Raw}, NotAfter: timestamppb.New(to), Pending: h.refusal != nil}, nil
}

func (h *testHub) Renew(ctx context.Context, r *syncv1.RenewRequest) (*syncv1.RenewResponse, error) {
	if clientCert(ctx) == nil {
		return nil, status.Error(codes.Unauthenticated, "no certificate")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	der, to, err := h.sign(r.GetCsr())
	if err != nil {
		return nil, err
	}
	if h.lost > 0 {
		h.lost--
		return nil, status.Error(codes.Unavailable, "the answer is lost")
	}
	return &syncv1.RenewResponse{Certificate: der, Authorities: [][]byte{h.ca.cert.Raw}, NotAfter: timestamppb.New(to)}, nil
}

func clientCert(ctx context.Context) *x509.Certificate {
	p, _ := peer.FromContext(ctx)
	if info, ok := p.AuthInfo.(credentials.TLSInfo); ok && len(info.State.PeerCertificates) > 0 {
		return info.State.PeerCertificates[0]
	}
	return nil
}

func (h *testHub) Connect(s grpc.BidiStreamingServer[syncv1.ConnectRequest, syncv1.ConnectResponse]) error {
	cert := clientCert(s.Context())
	if cert == nil {
		return status.Error(codes.Unauthenticated, "no certificate")
	}
	m, err := s.Recv()
	if err != nil {
		return err
	}
	if m.GetHello() == nil {
		return status.Error(codes.InvalidArgument, "no hello")
	}
	h.mu.Lock()
	h.hellos = append(h.hellos, m.GetHello())
	h.presents = append(h.presents, cert)
	n, refusal := len(h.hellos), h.refusal
	h.mu.Unlock()
	if refusal != nil {
		st, err := status.New(codes.PermissionDenied, "acme/eu-1 is not served").WithDetails(refusal)
		if err != nil {
			return err
		}
		return st.Err()
	}
	if h.connect != nil {
		return h.connect(h, n, s)
	}
	return h.serve(s)
}

// serve is a hub's usual side of a stream.
func (h *testHub) serve(s grpc.BidiStreamingServer[syncv1.ConnectRequest, syncv1.ConnectResponse]) error {
	h.mu.Lock()
	hello := h.hellos[len(h.hellos)-1]
	desired := h.desired
	h.mu.Unlock()
	if err := h.welcome(s, hello); err != nil {
		return err
	}
	if desired != nil && desired.GetRevision() != hello.GetRevision() {
		if err := s.Send(&syncv1.ConnectResponse{Body: &syncv1.ConnectResponse_Desired{Desired: desired}}); err != nil {
			return err
		}
	}
	for {
		m, err := s.Recv()
		if err != nil {
			return err
		}
		switch body := m.GetBody().(type) {
		case *syncv1.ConnectRequest_Event:
			h.record(hello.GetJournalId(), body.Event)
			err = s.Send(&syncv1.ConnectResponse{Body: &syncv1.ConnectResponse_Ack{Ack: &syncv1.Ack{Seq: body.Event.GetSeq()}}})
		case *syncv1.ConnectRequest_Heartbeat:
			h.mu.Lock()
			h.beats++
			h.mu.Unlock()
			err = s.Send(&syncv1.ConnectResponse{Body: &syncv1.ConnectResponse_Heartbeat{Heartbeat: &syncv1.Heartbeat{At: timestamppb.Now()}}})
		}
		if err != nil {
			return err
		}
	}
}

func (h *testHub) welcome(s grpc.BidiStreamingServer[syncv1.ConnectRequest, syncv1.ConnectResponse], hello *syncv1.Hello) error {
	w := &syncv1.Welcome{Cluster: "acme/eu-1", Epoch: 1, HubVersion: "test", HeartbeatSeconds: 1, AckedSeq: uint64(len(h.seen(hello.GetJournalId())))}
	return s.Send(&syncv1.ConnectResponse{Body: &syncv1.ConnectResponse_Welcome{Welcome: w}})
}

func (h *testHub) record(journalID string, e *syncv1.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if have := uint64(len(h.events[journalID])); e.GetSeq() == have+1 {
		h.events[journalID] = append(h.events[journalID], e)
	} else if e.GetSeq() > have {
		h.t.Errorf("event %d after %d", e.GetSeq(), have)
	}
}

func (h *testHub) seen(journalID string) []*syncv1.Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.events[journalID])
}

func (h *testHub) FetchBundle(r *syncv1.FetchBundleRequest, s grpc.ServerStreamingServer[syncv1.FetchBundleResponse]) error {
	if clientCert(s.Context()) == nil {
		return status.Error(codes.Unauthenticated, "no certificate")
	}
	h.mu.Lock()
	h.fetches++
	n := h.fetches
	h.mu.Unlock()
	return h.fetch(n, r, s)
}

func (h *testHub) count(f func() int) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return f()
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("timed out: %s", what)
		case <-tick.C:
		}
	}
}

// said is a log to look into.
type said struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *said) count(text string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Count(s.buf.Bytes(), []byte(text))
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// spoke is a joined spoke: a folder, a journal and a client.
type spoke struct {
	dir     string
	journal *journal.Journal
	client  *Client
	said    *said

	mu       sync.Mutex
	revision uint64
	taken    []uint64
	refuse   int // so many desired states are refused
}

func joined(t *testing.T, h *testHub) *spoke {
	t.Helper()
	s := &spoke{dir: t.TempDir(), said: &said{}}
	log := slog.New(slog.NewTextHandler(s.said, nil))
	if _, err := Join(t.Context(), JoinConfig{Addr: h.addr, Token: h.invite(), Dir: s.dir, Log: log}); err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open(filepath.Join(s.dir, "journal.db"), log)
	if err != nil {
		t.Fatal(err)
	}
	s.journal = j
	s.client, err = New(Config{Dir: s.dir, Events: j, Log: log,
		Hello: func() (*syncv1.Hello, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			return &syncv1.Hello{SpokeVersion: "test", JournalId: j.ID(), Revision: s.revision}, nil
		},
		OnDesired: func(d *syncv1.DesiredState) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.refuse > 0 {
				s.refuse--
				return errors.New("no room")
			}
			s.revision, s.taken = d.GetRevision(), append(s.taken, d.GetRevision())
			return nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return s
}

func (s *spoke) run(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.client.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func (s *spoke) append(t *testing.T, n int) {
	t.Helper()
	for range n {
		if _, err := s.journal.Append(fleet.Event{At: time.Now(), Kind: fleet.EventPhase, Distribution: "shop", Version: "1.0.0"}); err != nil {
			t.Fatal(err)
		}
	}
}

func (s *spoke) identity(t *testing.T) Identity {
	t.Helper()
	id, err := LoadIdentity(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func mode(t *testing.T, path string) os.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}

// No goroutine is left behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
