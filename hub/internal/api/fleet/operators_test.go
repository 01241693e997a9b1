package fleetapi

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

func csr(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestOperatorsComeAndGo(t *testing.T) {
	w, ctx := newWorld(t)
	for _, c := range []struct {
		req  *fleetv1.AddOperatorRequest
		word string
	}{
		{&fleetv1.AddOperatorRequest{Name: "Maria", Role: "viewer"}, "lower-case"},
		{&fleetv1.AddOperatorRequest{Name: "m\x1b[2J", Role: "viewer"}, "lower-case"},
		{&fleetv1.AddOperatorRequest{Role: "viewer"}, "lower-case"},
		{&fleetv1.AddOperatorRequest{Name: "maria"}, "--role"},
		{&fleetv1.AddOperatorRequest{Name: "maria", Role: "approver:admin"}, "write admin"},
		{&fleetv1.AddOperatorRequest{Name: "maria", Role: "viewer", TtlSeconds: 59}, "--ttl 59s"},
		{&fleetv1.AddOperatorRequest{Name: "maria", Role: "viewer", TtlSeconds: 366 * 24 * 3600}, "365d"},
		{&fleetv1.AddOperatorRequest{Name: "maria", Role: "viewer"}, "hub operator add"},
		{&fleetv1.AddOperatorRequest{Name: "maria", Role: "viewer", Csr: []byte("no request")}, "hub operator add"},
		{&fleetv1.AddOperatorRequest{Name: "maria", Role: "viewer", Csr: make([]byte, 20<<10)}, "20480 bytes"},
	} {
		_, err := w.AddOperator(ctx, c.req)
		wantStatus(t, err, codes.InvalidArgument, c.word)
	}
	add := &fleetv1.AddOperatorRequest{Name: "maria", Role: "approver:qa", Csr: csr(t)}
	r, err := w.AddOperator(ctx, add)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(r.GetCertificate())
	if r.GetOperator().GetCredential() != hex.EncodeToString(sum[:]) || r.GetAddress() != "hub.example.com:7443" || len(r.GetAuthorities()) != 1 {
		t.Errorf("got %v", r)
	}
	if id, err := w.store.Identity(sum); err != nil || id.Operator != "maria" || id.Role.String() != "approver:qa" {
		t.Errorf("got %v, %v", id, err)
	}
	add.Csr = csr(t)
	_, err = w.AddOperator(ctx, add)
	wantStatus(t, err, codes.AlreadyExists, "approver:qa", "hub operator remove maria --reason")
	remove := func(name, why string, dry bool) error {
		_, err := w.RemoveOperator(ctx, &fleetv1.RemoveOperatorRequest{Name: name, Reason: why, DryRun: dry})
		return err
	}
	wantStatus(t, remove("maria", "", false), codes.InvalidArgument, "--reason")
	wantStatus(t, remove("nobody", "left", true), codes.NotFound, "hub get operators")
	if err := remove("maria", "left", true); err != nil {
		t.Error(err)
	}
	if list, err := w.ListOperators(ctx, nil); err != nil || len(list.GetOperators()) != 1 {
		t.Errorf("after a dry run: %v, %v", list, err)
	}
	if err := remove("maria", "left", false); err != nil {
		t.Error(err)
	}
	if _, err := w.store.Identity(sum); err == nil {
		t.Error("the certificate still speaks for somebody")
	}
	// What was done is told and accounted for once, what was refused not at all.
	events, err := w.ListEvents(ctx, &fleetv1.ListEventsRequest{})
	if err != nil || len(events.GetEvents()) != 2 || !strings.HasPrefix(events.GetEvents()[1].GetMessage(), "operator admin took the role approver:qa from operator maria: left") {
		t.Errorf("got %v, %v", events, err)
	}
	if entries, err := w.store.Audit(0, 0); err != nil || len(entries) != 2 || entries[1].Reason != "left" {
		t.Errorf("got %v, %v", entries, err)
	}
}

// A call that no server let through, and one of a role that is not known, see nothing.
func TestNobodyInParticularSeesNothing(t *testing.T) {
	w, ctx := newWorld(t)
	if _, err := w.InviteCluster(ctx, &fleetv1.InviteClusterRequest{Name: "acme/eu-1"}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []caller.Caller{{}, {Operator: "x"}, {Operator: "x", Role: caller.Role{Kind: "emperor", Of: "acme"}}, {Operator: "x", Role: caller.Role{Kind: caller.Provider}}, {Cluster: "acme/eu-1"},
		{Operator: "x", Role: caller.Role{Kind: caller.Provider, Of: "acm"}}} {
		as := caller.With(t.Context(), c)
		if list, err := w.ListClusters(as, nil); err != nil || len(list.GetClusters()) != 0 {
			t.Errorf("%v: got %v, %v", c, list, err)
		}
		_, err := w.Explain(as, &fleetv1.ExplainRequest{Cluster: "acme/eu-1", Distribution: "shop"})
		wantStatus(t, err, codes.PermissionDenied, "acme/eu-1", "hub get clusters")
	}
	if len(w.asks.asked) != 0 {
		t.Errorf("the conductor was asked %v", w.asks.asked)
	}
}

func TestTextsAreVeiledWhereTheyNameAnother(t *testing.T) {
	w, _ := newWorld(t)
	acme := scope{provider: "acme"}
	shared := []string{"globex/eu-1 broke", "image shop/cache:1.0.0"}
	m := &fleetv1.StatusRow{Cluster: "acme/eu-1", Labels: map[string]string{"near": "globex/eu-1", "own": "acme/eu-1"}, Warnings: shared,
		Reason: "(globex/eu-1), globex/eu-1: as acme/eu-1 and globex/eu-10 at https://example.com/globex/x"}
	if err := w.veil(acme, m); err != nil {
		t.Fatal(err)
	}
	if m.GetReason() != "(another provider's cluster), another provider's cluster: as acme/eu-1 and globex/eu-10 at https://example.com/globex/x" ||
		m.GetWarnings()[0] != "another provider's cluster broke" || m.GetWarnings()[1] != shared[1] || m.GetLabels()["near"] != anothers || m.GetLabels()["own"] != "acme/eu-1" {
		t.Errorf("got %v", m)
	}
	if shared[0] != "globex/eu-1 broke" {
		t.Error("what others hold too was changed")
	}
	nested := &fleetv1.ExplainResponse{Row: &fleetv1.StatusRow{Phase: "Holding(globex/eu-1)"}, Events: []*fleetv1.FleetEvent{{Message: "globex/eu-1"}}}
	if err := w.veil(acme, nested); err != nil || strings.Contains(nested.String(), "globex") {
		t.Errorf("got %v, %v", nested, err)
	}
	if err := w.veil(scope{all: true}, nested); err != nil {
		t.Error(err)
	}
	if !(scope{all: true}).sees("globex/eu-1") || acme.sees("acmeplus/eu-1") {
		t.Error("sees the wrong ones")
	}
}
