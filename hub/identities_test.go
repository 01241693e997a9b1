package hub

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/pkg/transport"
	enrollv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/enroll/v1"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// A token is good once, on a hub as it runs, over gRPC and TLS from many connections at the same time.
func TestOf100UsesOfATokenAtTheSameTimeOneWins(t *testing.T) {
	const uses, connections = 100, 10
	rounds := 5
	if os.Getenv("WHEELWRIGHT_FIGURES") != "" {
		rounds = 1000
	}
	hub := start(t, Config{Dir: t.TempDir()})
	var clients []enrollv1.EnrollServiceClient
	for range connections {
		conn, err := transport.Dial(hub.Addr, hub.trust(t))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		clients = append(clients, enrollv1.NewEnrollServiceClient(conn))
	}
	var keys [uses]*ecdsa.PrivateKey
	var requests [uses][]byte
	for n := range uses {
		var err error
		if keys[n], err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			t.Fatal(err)
		}
		if requests[n], err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, keys[n]); err != nil {
			t.Fatal(err)
		}
	}
	double := 0
	for round := range rounds {
		name := fmt.Sprintf("acme/round-%d", round)
		invitation, err := hub.fleet.InviteCluster(t.Context(), &fleetv1.InviteClusterRequest{Name: name, AcceptAutomatically: true})
		if err != nil {
			t.Fatal(err)
		}
		var answers [uses]*enrollv1.EnrollResponse
		var errs [uses]error
		var all sync.WaitGroup
		ready := make(chan struct{})
		for n := range uses {
			all.Go(func() {
				<-ready
				answers[n], errs[n] = clients[n%connections].Enroll(t.Context(), &enrollv1.EnrollRequest{Token: invitation.GetToken(), Csr: requests[n]})
			})
		}
		close(ready)
		all.Wait()
		winners := 0
		for n, err := range errs {
			switch {
			case err == nil && answers[n].GetCluster() == name:
				winners++
			case status.Code(err) != codes.Unauthenticated || !strings.Contains(err.Error(), "used already"):
				t.Fatalf("round %d, use %d: %v, %v", round, n, answers[n], err)
			}
		}
		if winners != 1 {
			double++
			t.Errorf("round %d: %d winners", round, winners)
		}
	}
	fmt.Printf("FIGURE token.double-winners %d of %d rounds of %d concurrent uses of one token over gRPC and TLS\n", double, rounds, uses)
}

// The whole of a double opt-in as the wire has it: refused with a reason that a program reads, until accepted.
func TestWhoJoinsIsServedOnceItIsAccepted(t *testing.T) {
	hub := start(t, Config{Dir: t.TempDir()})
	hub.asks = true
	id := hub.enrol(t, "acme/eu-1")
	leaf, err := x509.ParseCertificate(id.Certificates[0].Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	p := hub.dial(t, id)
	refused := func() *syncv1.Refusal {
		t.Helper()
		s, err := p.client.Connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Recv()
		if status.Code(err) != codes.PermissionDenied {
			t.Fatalf("got %v, want it denied", err)
		}
		for _, d := range status.Convert(err).Details() {
			if r, ok := d.(*syncv1.Refusal); ok {
				return r
			}
		}
		t.Fatalf("%v has no detail", err)
		return nil
	}
	r := refused()
	row := hub.row(t)
	list, err := hub.fleet.ListClusters(t.Context(), &fleetv1.ListClustersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	c := list.GetClusters()[0]
	if key := c.GetKeyFingerprint(); r.GetKind() != syncv1.RefusalKind_REFUSAL_KIND_PENDING || r.GetFingerprint() != key || key != fingerprintOf(leaf) ||
		c.GetStanding() != "Pending" || row.GetPhase() != "AwaitingAcceptance(vendor)" || !row.GetAttention() || !strings.Contains(row.GetReason(), "hub cluster accept acme/eu-1 --fingerprint "+key) {
		t.Errorf("got %v, %v, %v", r, c, row)
	}
	for fingerprint, want := range map[string]codes.Code{"SHA256:": codes.InvalidArgument, r.GetFingerprint()[:20]: codes.InvalidArgument, "SHA256:" + strings.Repeat("A", 42) + "E": codes.FailedPrecondition} {
		if _, err := hub.fleet.AcceptCluster(t.Context(), &fleetv1.AcceptClusterRequest{Name: "acme/eu-1", Fingerprint: fingerprint}); status.Code(err) != want {
			t.Errorf("accept %s: %v, want %v", fingerprint, err, want)
		}
	}
	refused()
	if _, err := hub.fleet.AcceptCluster(t.Context(), &fleetv1.AcceptClusterRequest{Name: "acme/eu-1", Fingerprint: r.GetFingerprint()}); err != nil {
		t.Fatal(err)
	}
	p.connect(t, 0)
	if _, err := hub.fleet.AcceptCluster(t.Context(), &fleetv1.AcceptClusterRequest{Name: "acme/eu-1"}); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "hub get clusters") {
		t.Errorf("accepted twice: %v", err)
	}
	if _, err := hub.fleet.RejectCluster(t.Context(), &fleetv1.RejectClusterRequest{Name: "acme/eu-1", Reason: "left"}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.client.Renew(t.Context(), &syncv1.RenewRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a rejected cluster: %v", err)
	}
	if row := hub.row(t); row.GetPhase() != "Rejected(vendor)" {
		t.Errorf("got %v", row)
	}
}

// Two spokes with one identity, as a copied data folder makes them: both lose everything, the stream that is open
// included, over a restart too, until a person lets one in.
func TestACopyOfAnIdentityPutsBothInQuarantine(t *testing.T) {
	dir := t.TempDir()
	hub := start(t, Config{Dir: dir})
	id := hub.enrol(t, "acme/eu-1")
	hello := func(p provider, session uint64) (syncv1.SyncService_ConnectClient, error) {
		t.Helper()
		s, err := p.client.Connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		// A stream that was refused says so below.
		_ = s.Send(&syncv1.ConnectRequest{Body: &syncv1.ConnectRequest_Hello{Hello: &syncv1.Hello{JournalId: "j1", Instance: "folder", Session: session}}})
		_, err = s.Recv()
		return s, err
	}
	original := hub.dial(t, id)
	if _, err := hello(original, 1); err != nil {
		t.Fatal(err)
	}
	copied := hub.dial(t, id)
	open, err := hello(copied, 2) // copied while the original was at 1: it takes over
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hello(original, 2); status.Code(err) != codes.Aborted { // this may have been late
		t.Errorf("got %v", err)
	}
	if _, err := hello(original, 2); status.Code(err) != codes.Aborted && status.Code(err) != codes.PermissionDenied { // this is not
		t.Errorf("got %v", err)
	}
	for err = nil; err == nil; {
		_, err = open.Recv() // nothing is said on it but by the hub
	}
	if status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "quarantine") {
		t.Errorf("the copy's stream ended with %v", err)
	}
	denied := func(p provider) {
		t.Helper()
		if _, err := hello(p, 9); status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "quarantine") {
			t.Errorf("connect: %v", err)
		}
		if _, err := p.client.Renew(t.Context(), &syncv1.RenewRequest{}); status.Code(err) != codes.PermissionDenied {
			t.Errorf("renew: %v", err)
		}
	}
	denied(original)
	denied(copied)
	hub.stop()
	hub = start(t, Config{Dir: dir})
	if row := hub.row(t); row.GetPhase() != "Quarantined" || !row.GetAttention() || !strings.Contains(row.GetReason(), "two copies") {
		t.Errorf("got %v", row)
	}
	denied(hub.dial(t, id))
	if _, err := hub.fleet.AcceptCluster(t.Context(), &fleetv1.AcceptClusterRequest{Name: "acme/eu-1"}); err != nil {
		t.Fatal(err)
	}
	if _, err := hello(hub.dial(t, id), 2); err != nil {
		t.Errorf("let out of quarantine: %v", err)
	}
}

// A certificate that expired a moment ago renews itself and does nothing else; the new one does everything.
func TestAClusterThatSleptRenewsAndDoesNothingElse(t *testing.T) {
	dir := t.TempDir()
	o := openOffice(t, dir)
	late := o.join("acme/eu-1", false, time.Millisecond)
	o.must(o.store.Close())
	hub := start(t, Config{Dir: dir})
	cfg := hub.presenting(t, late)
	p := hub.dial(t, cfg)
	s, err := p.client.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); status.Code(err) != codes.Unauthenticated || !strings.Contains(err.Error(), "expired") {
		t.Errorf("connect: %v", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	renew := func(key *ecdsa.PrivateKey) (*syncv1.RenewResponse, error) {
		t.Helper()
		csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		if err != nil {
			t.Fatal(err)
		}
		return p.client.Renew(t.Context(), &syncv1.RenewRequest{Csr: csr})
	}
	if _, err := renew(late.PrivateKey.(*ecdsa.PrivateKey)); status.Code(err) != codes.AlreadyExists {
		t.Errorf("with the same key: %v", err)
	}
	r, err := renew(key)
	if err != nil {
		t.Fatal(err)
	}
	hub.dial(t, hub.presenting(t, &tls.Certificate{Certificate: [][]byte{r.GetCertificate()}, PrivateKey: key})).connect(t, 0)
	if _, err := renew(key); status.Code(err) != codes.PermissionDenied { // the newer was used
		t.Errorf("once more: %v", err)
	}
	events, err := hub.fleet.ListEvents(t.Context(), &fleetv1.ListEventsRequest{Cluster: "acme/eu-1"})
	if err != nil || !slices.ContainsFunc(events.GetEvents(), func(e *fleetv1.FleetEvent) bool {
		return strings.Contains(e.GetMessage(), "came back: its certificate had expired")
	}) {
		t.Errorf("got %v, %v", events, err)
	}
}
