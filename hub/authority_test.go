package hub

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/hub/internal/clientcontext"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// renew is what a spoke does when it is asked to: a certificate of a new key, and whom to trust from now on.
func (r *running) renew(t *testing.T, p provider) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	next, err := p.client.Renew(t.Context(), &syncv1.RenewRequest{Csr: csr})
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	for _, der := range next.GetAuthorities() {
		ca, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		roots.AddCert(ca)
	}
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{next.GetCertificate()}, PrivateKey: key}}}
}

// askedToRenew waits for the hub to ask for a renewal.
func askedToRenew(t *testing.T, s syncv1.SyncService_ConnectClient) {
	t.Helper()
	for hear(t, s).GetRenewal() == nil {
	}
}

func (r *running) behind(t *testing.T) (names []string) {
	t.Helper()
	a, err := r.fleet.GetAuthority(t.Context(), &fleetv1.GetAuthorityRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range a.GetLeftBehind() {
		names = append(names, b.GetWho())
	}
	slices.Sort(names)
	return names
}

// A hub, two spokes and an operator go over to a new key one by one; the hub is restarted on the way. A third spoke
// is away for all of it.
func TestAFleetGoesOverToANewKeyOfTheAuthority(t *testing.T) {
	dir := t.TempDir()
	hub := start(t, Config{Dir: dir, Heartbeat: time.Second})
	one, two, away := hub.enrol(t, "acme/eu-1"), hub.enrol(t, "acme/eu-2"), hub.enrol(t, "acme/away")
	maria := hub.hire(t, "maria", "viewer")
	here := hub.dial(t, one)
	stream, _ := here.connect(t, 0)
	before, err := clientcontext.Load(hub.AdminContext)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hub.fleet.RotateAuthority(t.Context(), &fleetv1.RotateAuthorityRequest{Reason: "it is time"}); err != nil {
		t.Fatal(err)
	}
	// Who is connected is told at once, and keeps its stream; the hub's own context file follows by itself.
	askedToRenew(t, stream)
	one = hub.renew(t, here)
	hub.dial(t, one).connect(t, 0)
	hub.eventually(t, "the admin's context with both keys", func() bool {
		c, err := clientcontext.Load(hub.AdminContext)
		return err == nil && len(c.Pins()) == 2 && c.Certificate != before.Certificate
	})
	if got := strings.Join(hub.behind(t), ", "); got != "acme/away, acme/eu-2, operator maria" {
		t.Errorf("left behind: %s", got)
	}
	_, err = hub.fleet.RetireAuthority(t.Context(), &fleetv1.RetireAuthorityRequest{Reason: "too early"})
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "acme/eu-2") || !strings.Contains(err.Error(), "operator maria") {
		t.Errorf("retired: %v", err)
	}

	// Over a restart, who comes with the old key is served, told, and goes over.
	address := hub.Addr
	hub.stop()
	hub = start(t, Config{Dir: dir, Listen: address, Heartbeat: time.Second})
	late := hub.dial(t, two)
	stream, _ = late.connect(t, 0)
	askedToRenew(t, stream)
	two = hub.renew(t, late)
	hub.dial(t, two).connect(t, 0)
	answer, err := maria.fleet.RenewOperator(t.Context(), &fleetv1.RenewOperatorRequest{Csr: certificateRequest()})
	if err != nil || len(answer.GetAuthorities()) != 2 {
		t.Fatalf("got %v, %v", answer, err)
	}
	if leaf, err := x509.ParseCertificate(answer.GetCertificate()); err != nil || leaf.NotAfter.Sub(answer.GetNotAfter().AsTime()).Abs() > time.Second || time.Until(leaf.NotAfter) > 90*24*time.Hour {
		t.Errorf("a renewed certificate lasts until %v: %v", leaf.NotAfter, err)
	}
	if got := strings.Join(hub.behind(t), ", "); got != "acme/away" {
		t.Errorf("left behind: %s", got)
	}
	r, err := hub.fleet.RetireAuthority(t.Context(), &fleetv1.RetireAuthorityRequest{Reason: "it is gone for good", Force: true})
	if err != nil || len(r.GetLeftBehind()) != 1 {
		t.Fatalf("got %v, %v", r, err)
	}
	hub.stop()
	hub = start(t, Config{Dir: dir, Listen: address, Heartbeat: time.Second})
	hub.dial(t, one).connect(t, 0)
	hub.dial(t, two).connect(t, 0)
	if connects(t, hub.Addr, away) {
		t.Error("who was left behind is still served")
	}
	if connects(t, hub.Addr, hub.presenting(t, &away.Certificates[0])) {
		t.Error("a certificate of the retired key is taken")
	}
	if got := hub.behind(t); len(got) != 0 {
		t.Errorf("left behind, with one key: %v", got)
	}
	fresh := hub.enrol(t, "acme/away") // and comes back by an invitation
	hub.dial(t, fresh).connect(t, 0)
}
