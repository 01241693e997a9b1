package hub

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

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
