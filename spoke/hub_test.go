package spoke_test

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
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/pkg/bundle"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
	"github.com/wheelwright-dev/wheelwright/pkg/token"
	"github.com/wheelwright-dev/wheelwright/pkg/transport"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	enrollv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/enroll/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// hub is the other end of the wire, as small as it can be: real gRPC over real TLS. The real hub and
// the real spoke meet in integration.
type hub struct {
	enrollv1.UnimplementedEnrollServiceServer
	syncv1.UnimplementedSyncServiceServer
	addr string
	ca   *x509.Certificate
	key  *ecdsa.PrivateKey
	stop func()

	mu       sync.Mutex
	desired  *syncv1.DesiredState
	tars     map[string][]byte
	greeting *syncv1.Hello
	states   map[string]*syncv1.SubscriptionStatus
}

func newHub(t *testing.T) *hub {
	t.Helper()
	h := &hub{desired: &syncv1.DesiredState{}, tars: map[string][]byte{}, states: map[string]*syncv1.SubscriptionStatus{}}
	var err error
	if h.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	h.ca = &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, h.ca, h.ca, &h.key.PublicKey, h.key)
	if err != nil {
		t.Fatal(err)
	}
	if h.ca, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := h.issue(&key.PublicKey, x509.ExtKeyUsageServerAuth)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(h.ca)
	server := grpc.NewServer(transport.ServerOptions(&tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{leaf, der}, PrivateKey: key}},
		ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool})...)
	enrollv1.RegisterEnrollServiceServer(server, h)
	syncv1.RegisterSyncServiceServer(server, h)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.addr = l.Addr().String()
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	h.stop = sync.OnceFunc(func() { server.Stop(); <-done })
	t.Cleanup(h.stop)
	return h
}

func (h *hub) issue(pub any, usage x509.ExtKeyUsage) ([]byte, error) {
	return x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Minute),
		NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{usage}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}, h.ca, pub, h.key)
}

func (h *hub) invite() string {
	sum := sha256.Sum256(h.ca.RawSubjectPublicKeyInfo)
	return token.New(hex.EncodeToString(sum[:])).String()
}

func (h *hub) Enroll(_ context.Context, r *enrollv1.EnrollRequest) (*enrollv1.EnrollResponse, error) {
	csr, err := x509.ParseCertificateRequest(r.GetCsr())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	der, err := h.issue(csr.PublicKey, x509.ExtKeyUsageClientAuth)
	return &enrollv1.EnrollResponse{Cluster: "acme/eu-1", Certificate: der, Authorities: [][]byte{h.ca.Raw}, NotAfter: wire.Time(time.Now().Add(time.Hour))}, err
}

func (h *hub) Connect(s grpc.BidiStreamingServer[syncv1.ConnectRequest, syncv1.ConnectResponse]) error {
	for {
		m, err := s.Recv()
		if err != nil {
			return err
		}
		for _, answer := range h.answer(m) {
			if err := s.Send(answer); err != nil {
				return err
			}
		}
	}
}

func (h *hub) answer(m *syncv1.ConnectRequest) []*syncv1.ConnectResponse {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case m.GetHello() != nil:
		h.greeting = m.GetHello()
		return []*syncv1.ConnectResponse{
			{Body: &syncv1.ConnectResponse_Welcome{Welcome: &syncv1.Welcome{Cluster: "acme/eu-1", Epoch: 1, HeartbeatSeconds: 5}}},
			{Body: &syncv1.ConnectResponse_Desired{Desired: h.desired}},
		}
	case m.GetEvent() != nil:
		h.states[m.GetEvent().GetDistribution()] = m.GetEvent().GetStatus()
		return []*syncv1.ConnectResponse{{Body: &syncv1.ConnectResponse_Ack{Ack: &syncv1.Ack{Seq: m.GetEvent().GetSeq()}}}}
	}
	return nil
}

func (h *hub) FetchBundle(r *syncv1.FetchBundleRequest, s grpc.ServerStreamingServer[syncv1.FetchBundleResponse]) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return s.Send(&syncv1.FetchBundleResponse{Data: h.tars[r.GetDigest()]})
}

func (h *hub) hello() *syncv1.Hello {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.greeting
}

// last is the newest state of a subscription that came with an event.
func (h *hub) last(distribution string) *syncv1.SubscriptionStatus {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.states[distribution]
}

// offer makes a release of one ConfigMap.
func (h *hub) offer(t *testing.T, version string) {
	t.Helper()
	files := []provenance.File{
		{Path: "kustomization.yaml", Data: []byte("resources:\n- settings.yaml\n")},
		{Path: "settings.yaml", Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings\ndata:\n  release: \"" + version + "\"\n")},
	}
	app, err := provenance.TreeID(files)
	if err != nil {
		t.Fatal(err)
	}
	id, err := hex.DecodeString(app)
	if err != nil {
		t.Fatal(err)
	}
	root := append([]byte("40000 app\x00"), id...)
	rootID, err := provenance.ObjectID("tree", root)
	if err != nil {
		t.Fatal(err)
	}
	for i := range files {
		files[i].Path = "app/" + files[i].Path
	}
	commit := fmt.Appendf(nil, "tree %x\nauthor V <v@example.com> 1700000000 +0000\ncommitter V <v@example.com> 1700000000 +0000\n\nrelease\n", rootID[:])
	tar, err := bundle.Pack(files, provenance.Proof{Commit: commit, Trees: [][]byte{root}, Path: ".", TagName: version})
	if err != nil {
		t.Fatal(err)
	}
	d := string(bundle.DigestOf(tar))
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tars[d] = bundle.Compress(tar)
	h.desired = &syncv1.DesiredState{Revision: 1, Distributions: []*syncv1.DistributionOffers{{Distribution: "shop", Url: "https://git.example.com/vendor/shop", Path: ".",
		Offers: []*syncv1.Offer{{Version: version, Digest: d, Size: uint64(len(tar)), Variants: []string{"app"}}}}}}
}
