// Package evilhub is a hub whose operator is the attacker: it speaks the real protocol over real TLS with an
// authority of its own, has enrolled the spoke in all honesty, and then says whatever a script wants. The
// stories of the attacks are its tests; what they may never do is bring anything to a cluster that the vendor
// has not signed and the provider does not want.
package evilhub

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"math/big"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/pkg/token"
	"github.com/wheelwright-dev/wheelwright/pkg/transport"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	enrollv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/enroll/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// Cluster is the name that the spoke was enrolled under.
const Cluster = "acme/eu-1"

// Hub is the attacker's. Its methods are safe for concurrent use.
type Hub struct {
	enrollv1.UnimplementedEnrollServiceServer
	syncv1.UnimplementedSyncServiceServer
	Addr   string
	ca     *x509.Certificate
	key    *ecdsa.PrivateKey
	server *grpc.Server
	done   chan struct{}

	mu       sync.Mutex
	desired  *syncv1.DesiredState
	script   Script
	ran      bool              // something of the script was called
	bundles  map[string][]byte // compressed, by the digest under which they are handed out
	live     chan *syncv1.ConnectResponse
	hellos   int
	fetched  map[string]int
	statuses []*syncv1.SubscriptionStatus // in the order in which they came
	told     []string                     // all that the spoke said, in words
}

// Script is how the hub behaves where it does not behave. What is nil, it does as a hub should.
type Script struct {
	Welcome func(*syncv1.Welcome) []*syncv1.ConnectResponse // what the spoke is greeted with, in place of the welcome
	Ack     func(seq uint64) *syncv1.ConnectResponse
	Fetch   func(r *syncv1.FetchBundleRequest, s grpc.ServerStreamingServer[syncv1.FetchBundleResponse]) error
	Renew   func(*syncv1.RenewRequest) (*syncv1.RenewResponse, error)
}

// Start listens on loopback.
func Start() (*Hub, error) {
	h := &Hub{desired: &syncv1.DesiredState{}, bundles: map[string][]byte{}, fetched: map[string]int{}, done: make(chan struct{})}
	var err error
	if h.ca, h.key, err = authority(); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	leaf, err := h.Issue(&key.PublicKey, x509.ExtKeyUsageServerAuth)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(h.ca)
	h.server = grpc.NewServer(transport.ServerOptions(&tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{leaf, h.ca.Raw}, PrivateKey: key}},
		ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool})...)
	enrollv1.RegisterEnrollServiceServer(h.server, h)
	syncv1.RegisterSyncServiceServer(h.server, h)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	h.Addr = l.Addr().String()
	go func() {
		defer close(h.done)
		_ = h.server.Serve(l) // Stop ends it
	}()
	return h, nil
}

// Stop ends every stream.
func (h *Hub) Stop() {
	h.server.Stop()
	<-h.done
}

func authority() (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return cert, key, err
}

// Issue signs a certificate of one hour for loopback.
func (h *Hub) Issue(public any, usage x509.ExtKeyUsage) ([]byte, error) {
	return x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Minute),
		NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{usage}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}, h.ca, public, h.key)
}

// Token is a join token of this hub; it takes any.
func (h *Hub) Token() string {
	sum := sha256.Sum256(h.ca.RawSubjectPublicKeyInfo)
	return token.New(hex.EncodeToString(sum[:])).String()
}

// Authorities are what the spoke is told to trust, in DER.
func (h *Hub) Authorities() [][]byte { return [][]byte{h.ca.Raw} }

// Enroll takes everybody for the one spoke.
func (h *Hub) Enroll(_ context.Context, r *enrollv1.EnrollRequest) (*enrollv1.EnrollResponse, error) {
	csr, err := x509.ParseCertificateRequest(r.GetCsr())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	der, err := h.Issue(csr.PublicKey, x509.ExtKeyUsageClientAuth)
	return &enrollv1.EnrollResponse{Cluster: Cluster, Certificate: der, Authorities: h.Authorities(), NotAfter: wire.Time(time.Now().Add(time.Hour))}, err
}

// Connect says what the script wants for as long as the spoke listens.
func (h *Hub) Connect(s grpc.BidiStreamingServer[syncv1.ConnectRequest, syncv1.ConnectResponse]) error {
	first, err := s.Recv()
	if err != nil {
		return err
	}
	for _, m := range h.greet(first.GetHello()) {
		if err := s.Send(m); err != nil {
			return err
		}
	}
	mine := make(chan *syncv1.ConnectResponse, 4096)
	h.mu.Lock()
	h.live = mine
	h.mu.Unlock()
	heard := make(chan error, 1)
	go func() {
		for {
			m, err := s.Recv()
			if err != nil {
				heard <- err
				return
			}
			if answer := h.hear(m); answer != nil {
				mine <- answer
			}
		}
	}()
	pulse := time.NewTicker(time.Second)
	defer pulse.Stop()
	for {
		select {
		case <-pulse.C:
			if err := s.Send(&syncv1.ConnectResponse{Body: &syncv1.ConnectResponse_Heartbeat{Heartbeat: &syncv1.Heartbeat{At: wire.Time(time.Now())}}}); err != nil {
				return err
			}
		case m := <-mine:
			if m == nil {
				return status.Error(codes.Unavailable, "the attacker ends the stream")
			}
			if err := s.Send(m); err != nil {
				return err
			}
		case err := <-heard:
			return err
		}
	}
}

func (h *Hub) greet(hello *syncv1.Hello) []*syncv1.ConnectResponse {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hellos++
	for _, s := range hello.GetSubscriptions() {
		h.hearStatus(s)
	}
	w := &syncv1.Welcome{Cluster: Cluster, Epoch: uint64(h.hellos), HeartbeatSeconds: 2}
	if h.script.Welcome != nil {
		h.ran = true
		return h.script.Welcome(w)
	}
	return []*syncv1.ConnectResponse{{Body: &syncv1.ConnectResponse_Welcome{Welcome: w}}, Desired(h.desired)}
}

// hear notes what a spoke says, and answers.
func (h *Hub) hear(m *syncv1.ConnectRequest) *syncv1.ConnectResponse {
	e := m.GetEvent()
	if e == nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.told = append(h.told, fmt.Sprintf("%s %s: %s", e.GetKind(), e.GetVersion(), e.GetMessage()))
	h.hearStatus(e.GetStatus())
	if p := e.GetPreflight(); p != nil {
		h.told = append(h.told, fmt.Sprintf("pre-flight of %s: %s %s", p.GetVersion(), p.GetOutcome(), p.GetReason()))
	}
	if h.script.Ack != nil {
		h.ran = true
		return h.script.Ack(e.GetSeq())
	}
	return &syncv1.ConnectResponse{Body: &syncv1.ConnectResponse_Ack{Ack: &syncv1.Ack{Seq: e.GetSeq()}}}
}

func (h *Hub) hearStatus(s *syncv1.SubscriptionStatus) {
	if s == nil {
		return
	}
	h.statuses = append(h.statuses, s)
	h.told = append(h.told, fmt.Sprintf("%s %s runs %s: %s %s", s.GetPhase(), s.GetTargetVersion(), s.GetRunningVersion(), s.GetReason(), s.GetAlarm()))
}

// FetchBundle hands out what was put under a digest.
func (h *Hub) FetchBundle(r *syncv1.FetchBundleRequest, s grpc.ServerStreamingServer[syncv1.FetchBundleResponse]) error {
	h.mu.Lock()
	h.fetched[r.GetDigest()]++
	data, there := h.bundles[r.GetDigest()]
	serve := h.script.Fetch
	h.ran = h.ran || serve != nil
	h.mu.Unlock()
	if serve != nil {
		return serve(r, s)
	}
	if !there {
		return status.Error(codes.NotFound, "no such bundle")
	}
	const chunk = 64 << 10
	for len(data) > chunk {
		if err := s.Send(&syncv1.FetchBundleResponse{Data: data[:chunk]}); err != nil {
			return err
		}
		data = data[chunk:]
	}
	return s.Send(&syncv1.FetchBundleResponse{Data: data})
}

// Renew signs what comes, or does what the script wants.
func (h *Hub) Renew(_ context.Context, r *syncv1.RenewRequest) (*syncv1.RenewResponse, error) {
	h.mu.Lock()
	renew := h.script.Renew
	h.ran = h.ran || renew != nil
	h.mu.Unlock()
	if renew != nil {
		return renew(r)
	}
	csr, err := x509.ParseCertificateRequest(r.GetCsr())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	der, err := h.Issue(csr.PublicKey, x509.ExtKeyUsageClientAuth)
	return &syncv1.RenewResponse{Certificate: der, Authorities: h.Authorities(), NotAfter: wire.Time(time.Now().Add(time.Hour))}, err
}

// Desired is the message of a desired state.
func Desired(d *syncv1.DesiredState) *syncv1.ConnectResponse {
	return &syncv1.ConnectResponse{Body: &syncv1.ConnectResponse_Desired{Desired: d}}
}

// Behave changes the script.
func (h *Hub) Behave(s Script) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.script, h.ran = s, false
}

// Ran: something of the script was called since Behave.
func (h *Hub) Ran() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ran
}

// Put hands out data under a digest from now on.
func (h *Hub) Put(digest string, data []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.bundles[digest] = data
}

// Want makes d what every new stream is told, and tells it at once.
func (h *Hub) Want(d *syncv1.DesiredState) {
	h.mu.Lock()
	h.desired = d
	h.mu.Unlock()
	h.Say(Desired(d))
}

// Say sends a message on the stream that is open, if one is; nil ends it.
func (h *Hub) Say(m *syncv1.ConnectResponse) {
	h.mu.Lock()
	live := h.live
	h.mu.Unlock()
	if live == nil {
		return
	}
	select {
	case live <- m:
	default: // it does not listen any more
	}
}

// Heard is all that the spoke said since mark; the next mark goes with it.
func (h *Hub) Heard(mark int) (said []string, next int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string(nil), h.told[mark:]...), len(h.told)
}

// Hellos is how often a stream was opened.
func (h *Hub) Hellos() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.hellos
}

// Last is the newest status of the subscription.
func (h *Hub) Last() *syncv1.SubscriptionStatus {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.statuses) == 0 {
		return &syncv1.SubscriptionStatus{}
	}
	return h.statuses[len(h.statuses)-1]
}
