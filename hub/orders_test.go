package hub

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/hub/internal/clientcontext"
	"github.com/wheelwright-dev/wheelwright/integration/issuer"
	"github.com/wheelwright-dev/wheelwright/pkg/order"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance/signer"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// signedOrder is a text with a signature of somebody's.
func signedOrder(t *testing.T, text []byte) *fleetv1.SendOrderRequest {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := signer.SignSSH(text, key, order.Namespace)
	if err != nil {
		t.Fatal(err)
	}
	return &fleetv1.SendOrderRequest{Text: text, Signature: sig}
}

func answered(seq uint64, nonce string, accepted bool) *syncv1.ConnectRequest {
	m := settled(seq, "1.0.1")
	e := m.GetEvent()
	e.Kind, e.Message, e.Order = syncv1.EventKind_EVENT_KIND_ORDER, "the spoke's own word", &syncv1.OrderAnswer{Nonce: nonce, Accepted: accepted}
	return m
}

// desiredWith reads a stream until an offer with so many orders comes.
func desiredWith(t *testing.T, s syncv1.SyncService_ConnectClient, orders int) []*syncv1.SignedOrder {
	t.Helper()
	for {
		d := hear(t, s).GetDesired()
		if d != nil && len(d.GetDistributions()) == 1 && len(d.GetDistributions()[0].GetOrders()) == orders {
			return d.GetDistributions()[0].GetOrders()
		}
	}
}

// The hub carries an order as it is, keeps it for a spoke that is away, and shows what the spoke answered.
func TestAnOrderIsCarriedAndAnswered(t *testing.T) {
	v := newVendor(t)
	v.tag(t, "1.0.1", "example.com/backend:1.0.1")
	dir := t.TempDir()
	hub := start(t, Config{Dir: dir})
	if _, err := hub.fleet.AddDistribution(t.Context(), &fleetv1.AddDistributionRequest{Distribution: &fleetv1.Distribution{Name: "shop", Url: v.dir, IntervalSeconds: 3600}}); err != nil {
		t.Fatal(err)
	}
	hub.release(t, "1.0.1")
	eu, us := hub.enrol(t, "acme/eu-1"), hub.enrol(t, "globex/us-1")
	at := hub.dial(t, eu)
	stream, _ := at.connect(t, 0)
	say(t, stream, settled(1, "1.0.1"))
	now := time.Now().Truncate(time.Second)
	o := order.Order{Verb: order.RollBack, Cluster: "acme/eu-1", Distribution: "shop", Target: "1.0.0", Running: "1.0.1", Nonce: order.NewNonce(), Issued: now, Expires: now.Add(time.Hour), Reason: "loses orders"}
	text, err := o.Text()
	if err != nil {
		t.Fatal(err)
	}
	given := signedOrder(t, text)
	altered := signedOrder(t, []byte(strings.Replace(string(text), "loses", "moses", 1)))
	altered.Text = text
	for want, bad := range map[string]*fleetv1.SendOrderRequest{
		"what is signed is not what is here": altered,
		"not an order as pkg/order":          {Text: []byte("rollback"), Signature: given.GetSignature()},
		"at most 8192":                       {Text: text, Signature: make([]byte, 9<<10)},
		"armour is damaged":                  {Text: text},
	} {
		if _, err := hub.fleet.SendOrder(t.Context(), bad); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
		}
	}
	late := o
	late.Issued, late.Expires, late.Nonce = now.Add(-time.Hour), now.Add(-time.Minute), order.NewNonce()
	lateText, err := late.Text()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hub.fleet.SendOrder(t.Context(), signedOrder(t, lateText)); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "it expired") {
		t.Errorf("one that is over: %v", err)
	}
	if _, err := hub.fleet.SendOrder(t.Context(), given); err != nil {
		t.Fatal(err)
	}
	if _, err := hub.fleet.SendOrder(t.Context(), given); status.Code(err) != codes.AlreadyExists {
		t.Errorf("the same again: %v", err)
	}
	if got := desiredWith(t, stream, 1)[0]; string(got.GetText()) != string(text) || string(got.GetSignature()) != string(given.GetSignature()) {
		t.Errorf("the hub altered it: %v", got)
	}

	// The hub is started anew, the spoke comes back: the order is still there. Another cluster has nothing of it, and
	// cannot answer it.
	hub.stop()
	hub = start(t, Config{Dir: dir, Listen: hub.Addr})
	other, _ := hub.dial(t, us).connect(t, 0)
	say(t, other, answered(1, o.Nonce.String(), true))
	stream, _ = hub.dial(t, eu).connect(t, 0)
	desiredWith(t, stream, 1)
	state := func() (string, string) {
		r, err := hub.fleet.ListOrders(t.Context(), &fleetv1.ListOrdersRequest{Nonce: o.Nonce.String()})
		if err != nil || len(r.GetOrders()) != 1 {
			t.Fatalf("got %v, %v", r, err)
		}
		return r.GetOrders()[0].GetState(), r.GetOrders()[0].GetAnswer()
	}
	if s, _ := state(); s != "Waiting" {
		t.Errorf("another cluster answered: %s", s)
	}
	say(t, stream, answered(2, o.Nonce.String(), false))
	hub.eventually(t, "the answer", func() bool { s, why := state(); return s == "Refused" && why == "the spoke's own word" })
	say(t, stream, answered(3, o.Nonce.String(), true)) // the first answer counts
	say(t, stream, settled(4, "1.0.1"))
	hub.eventually(t, "the event after it", func() bool {
		e, err := hub.fleet.ListEvents(t.Context(), &fleetv1.ListEventsRequest{Cluster: "acme/eu-1", Limit: 1})
		return err == nil && e.GetEvents()[0].GetKind() == "Phase"
	})
	if s, _ := state(); s != "Refused" {
		t.Errorf("it was answered twice: %s", s)
	}
}

// An operator logs in at the vendor's issuer, on a hub as it runs.
func TestAnOperatorWithAToken(t *testing.T) {
	i := issuer.New(t)
	dir := t.TempDir()
	file := filepath.Join(t.TempDir(), "hub.yaml")
	text := fmt.Sprintf("version: 1\noidc:\n  issuer: %s\n  clientID: wheelwright\n  usernameClaim: email\n  caFile: %s\n  bindings:\n  - {role: vendor-operator, users: [maria@vendor.example]}\n  - {role: 'provider:acme', groups: [acme]}\n", i.URL, i.CAFile)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	hub := start(t, Config{Dir: dir, File: file})
	admin, err := clientcontext.Load(hub.AdminContext)
	if err != nil {
		t.Fatal(err)
	}
	tokens := filepath.Join(t.TempDir(), "token")
	as := func(c clientcontext.Context) fleetv1.FleetServiceClient {
		t.Helper()
		c.Address, c.CA = admin.Address, admin.CA
		path := filepath.Join(t.TempDir(), "context.yaml")
		if err := clientcontext.Save(path, c); err != nil {
			t.Fatal(err)
		}
		c, err := clientcontext.Load(path)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := clientcontext.Dial(c, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return fleetv1.NewFleetServiceClient(conn)
	}
	if err := os.WriteFile(tokens, []byte(i.Token(nil)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	maria := as(clientcontext.Context{TokenFile: tokens})
	who, err := maria.WhoAmI(t.Context(), &fleetv1.WhoAmIRequest{})
	if err != nil || who.GetName() != "operator oidc:maria@vendor.example" || who.GetRole() != "vendor-operator" || who.GetCredentialKind() != "OIDC token" || who.GetCredential() != i.URL+" 248289761001" {
		t.Errorf("got %v, %v", who, err)
	}
	if _, err := maria.InviteCluster(t.Context(), &fleetv1.InviteClusterRequest{Name: "acme/eu-1"}); err != nil {
		t.Error(err)
	}
	if _, err := maria.RecallRelease(t.Context(), &fleetv1.RecallReleaseRequest{Distribution: "shop", Version: "1.0.0", Reason: "r"}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a recall: %v", err)
	}
	stream, err := hub.fleet.ExportAudit(t.Context(), &fleetv1.ExportAuditRequest{})
	if err != nil {
		t.Fatal(err)
	}
	seen := false
	for {
		r, err := stream.Recv()
		if err != nil {
			break
		}
		e := r.GetEntry()
		seen = seen || e.GetAction() == "cluster invite" && e.GetActor() == "operator oidc:maria@vendor.example" && e.GetCredential() == i.URL+" 248289761001"
	}
	if !seen {
		t.Error("the audit does not have who she is by her issuer")
	}

	// A program that prints kubectl's ExecCredential, for somebody who is a provider's by a group.
	credential := fmt.Sprintf(`{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":%q}}`, i.Token(map[string]any{"email": "ines@acme.example", "groups": []string{"acme"}}))
	ines := as(clientcontext.Context{TokenCommand: []string{"printf", "%s", credential}})
	if r, err := ines.CanI(t.Context(), &fleetv1.CanIRequest{Method: "PinCluster", Cluster: "globex/us-1"}); err != nil || r.GetPermissions()[0].GetAllowed() {
		t.Errorf("another's cluster: %v, %v", r, err)
	}
	if r, err := ines.ListClusters(t.Context(), &fleetv1.ListClustersRequest{}); err != nil || len(r.GetClusters()) != 1 {
		t.Errorf("her own: %v, %v", r, err)
	}
	failing := as(clientcontext.Context{TokenCommand: []string{"false"}})
	if _, err := failing.WhoAmI(t.Context(), &fleetv1.WhoAmIRequest{}); err == nil || !strings.Contains(err.Error(), "get a token from false") {
		t.Errorf("a program that fails: %v", err)
	}

	// Her stream ends with her token; with another in the file she goes on.
	if err := os.WriteFile(tokens, []byte(i.Token(map[string]any{"exp": time.Now().Add(12 * time.Second).Unix()})), 0o600); err != nil {
		t.Fatal(err)
	}
	short := as(clientcontext.Context{TokenFile: tokens})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	watch, err := short.Watch(ctx, &fleetv1.WatchRequest{})
	for err == nil {
		_, err = watch.Recv()
	}
	if status.Code(err) != codes.Unauthenticated || !strings.Contains(err.Error(), "expired at") {
		t.Errorf("the stream ended with %v", err)
	}
	if err := os.WriteFile(tokens, []byte(i.Token(nil)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := short.WhoAmI(ctx, &fleetv1.WhoAmIRequest{}); err != nil {
		t.Errorf("with the next token: %v", err)
	}
}
