package hub

import (
	"crypto/ed25519"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/order"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance/signer"
	"github.com/wheelwright-dev/wheelwright/pkg/rehome"
	"github.com/wheelwright-dev/wheelwright/pkg/token"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// pin is of the hub's authority.
func (r *running) pin(t *testing.T) string {
	t.Helper()
	v, err := r.fleet.GetVersion(t.Context(), &fleetv1.GetVersionRequest{})
	if err != nil || len(v.GetAuthorityPin()) != 64 {
		t.Fatalf("got %v, %v", v, err)
	}
	return v.GetAuthorityPin()
}

// moving is a statement that is good for now.
func moving(c fleet.Cluster, from string) rehome.Statement {
	now := time.Now().UTC().Truncate(time.Second)
	return rehome.Statement{Cluster: c, From: from, To: "new.example.com:7443", Token: token.New(strings.Repeat("0f", 32)), Nonce: order.NewNonce(),
		Issued: now, Expires: now.Add(time.Hour), Reason: "another address"}
}

// signedBy signs with so many keys of nobody in particular.
func signedBy(s rehome.Statement, keys int) []byte {
	text, err := s.Text()
	if err != nil {
		panic(err)
	}
	f, err := rehome.ParseSigned(text)
	if err != nil {
		panic(err)
	}
	for range keys {
		_, private, _ := ed25519.GenerateKey(nil) // never fails
		key, wrong := ssh.NewSignerFromKey(private)
		if wrong != nil {
			panic(wrong)
		}
		sig, wrong := signer.SignSSH(text, key, rehome.Namespace)
		if wrong != nil {
			panic(wrong)
		}
		if f, err = f.Sign(sig); err != nil {
			panic(err)
		}
	}
	return f.Bytes()
}

func reHomeOf(c fleet.Cluster, from string) []byte { return signedBy(moving(c, from), 2) }

func said(seq uint64, nonce string, state fleet.ReHomeState, text string) *syncv1.ConnectRequest {
	m := settled(seq, "1.0.1")
	e := m.GetEvent()
	e.Kind, e.Distribution, e.Version, e.Status, e.Message = syncv1.EventKind_EVENT_KIND_IDENTITY, "", "", nil, text
	e.ReHome = &syncv1.ReHomeAnswer{Nonce: nonce, State: string(state)}
	return m
}

// handed reads a stream until a re-home comes.
func handed(t *testing.T, s syncv1.SyncService_ConnectClient) []byte {
	t.Helper()
	for {
		if m := hear(t, s).GetReHome(); m != nil {
			return m.GetSigned()
		}
	}
}

// The hub carries a re-home as it is, keeps it for a spoke that is away, and shows what the spoke made of it. It says
// nothing of the token in it.
func TestAReHomeIsCarriedAndAnswered(t *testing.T) {
	dir := t.TempDir()
	hub := start(t, Config{Dir: dir})
	eu, us := hub.enrol(t, "acme/eu-1"), hub.enrol(t, "globex/us-1")
	s := moving("acme/eu-1", hub.pin(t))
	given := signedBy(s, 2)
	one := signedBy(s, 1)
	f, err := rehome.ParseSigned(one)
	if err != nil {
		t.Fatal(err)
	}
	late := s
	late.Issued, late.Expires = s.Issued.Add(-2*time.Hour), s.Issued.Add(-time.Hour)
	gone := s
	gone.Cluster = "acme/none-1"
	other := s
	other.From = strings.Repeat("ab", 32)
	for want, bad := range map[string]struct {
		signed []byte
		code   codes.Code
	}{
		"not a re-home as pkg/rehome":        {[]byte("move"), codes.InvalidArgument},
		"it is signed by 1 different keys":   {one, codes.InvalidArgument},
		"it is signed by 0 different keys":   {signedBy(s, 0), codes.InvalidArgument},
		"what is signed is not what is here": {[]byte(strings.Replace(string(given), "new.example.com", "eve.example.com", 1)), codes.InvalidArgument},
		"it expired":                         {signedBy(late, 2), codes.FailedPrecondition},
		"hand it to the hub":                 {signedBy(other, 2), codes.FailedPrecondition},
		"acme/none-1":                        {signedBy(gone, 2), codes.NotFound},
	} {
		if _, err := hub.fleet.SendReHome(t.Context(), &fleetv1.SendReHomeRequest{Signed: bad.signed}); status.Code(err) != bad.code || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
		}
	}
	if twice, err := f.Sign(f.Signatures[0]); err != nil {
		t.Error(err)
	} else if _, err := hub.fleet.SendReHome(t.Context(), &fleetv1.SendReHomeRequest{Signed: twice.Bytes()}); err == nil || !strings.Contains(err.Error(), "it is signed by 1 different keys") {
		t.Errorf("one key twice: %v", err)
	}
	dry, err := hub.fleet.SendReHome(t.Context(), &fleetv1.SendReHomeRequest{Signed: given, DryRun: true})
	if err != nil || len(dry.GetWarnings()) != 1 || !strings.Contains(dry.GetWarnings()[0], "is not connected") {
		t.Errorf("dry run: %v, %v", dry, err)
	}
	stream, _ := hub.dial(t, eu).connect(t, 0)
	last := func() *fleetv1.ReHome {
		t.Helper()
		r, err := hub.fleet.ListReHomes(t.Context(), &fleetv1.ListReHomesRequest{Cluster: "acme/eu-1"})
		if err != nil || len(r.GetReHomes()) > 1 {
			t.Fatalf("got %v, %v", r, err)
		}
		if len(r.GetReHomes()) == 0 {
			return nil
		}
		return r.GetReHomes()[0]
	}
	if got := last(); got != nil {
		t.Errorf("a dry run left %v", got)
	}
	if _, err := hub.fleet.SendReHome(t.Context(), &fleetv1.SendReHomeRequest{Signed: given}); err != nil {
		t.Fatal(err)
	}
	if _, err := hub.fleet.SendReHome(t.Context(), &fleetv1.SendReHomeRequest{Signed: given}); status.Code(err) != codes.AlreadyExists {
		t.Errorf("the same again: %v", err)
	}
	if got := handed(t, stream); string(got) != string(given) {
		t.Errorf("the hub altered it: %s", got)
	}
	if got := last(); got.GetState() != "Waiting" || got.GetTo() != s.To || len(got.GetKeys()) != 2 || strings.Contains(got.String(), s.Token.Secret) {
		t.Errorf("got %v", got)
	}

	// The hub is started anew, the spoke comes back: it is still there. Another cluster has nothing of it, and cannot
	// answer it.
	hub.stop()
	hub = start(t, Config{Dir: dir, Listen: hub.Addr})
	foreign, _ := hub.dial(t, us).connect(t, 0)
	say(t, foreign, said(1, s.Nonce.String(), fleet.ReHomeMoved, "I did it"))
	stream, _ = hub.dial(t, eu).connect(t, 0)
	handed(t, stream)
	for n, step := range []struct{ say, want fleet.ReHomeState }{
		{fleet.ReHomeRefused, fleet.ReHomeRefused},
		{fleet.ReHomeMoving, fleet.ReHomeRefused}, // an answer that is over stays
	} {
		say(t, stream, said(uint64(2*n+1), s.Nonce.String(), step.say, "the spoke's own word"))
		say(t, stream, settled(uint64(2*n+2), "1.0.1"))
		hub.eventually(t, "the event behind the answer", func() bool {
			all, err := hub.fleet.ListEvents(t.Context(), &fleetv1.ListEventsRequest{Cluster: "acme/eu-1"})
			heard := 0
			for _, e := range all.GetEvents() {
				if e.GetKind() == "Phase" {
					heard++
				}
			}
			return err == nil && heard == n+1
		})
		if got := last(); got.GetState() != string(step.want) {
			t.Errorf("after %s: %v", step.say, got)
		}
	}
	// Once spoke.yaml is mended, the same may be sent again.
	if _, err := hub.fleet.SendReHome(t.Context(), &fleetv1.SendReHomeRequest{Signed: given}); err != nil {
		t.Fatal(err)
	}
	handed(t, stream)
	say(t, stream, said(5, s.Nonce.String(), fleet.ReHomeMoving, "to new.example.com:7443"))
	say(t, stream, said(6, s.Nonce.String(), fleet.ReHomeMoved, "to new.example.com:7443"))
	say(t, stream, said(7, s.Nonce.String(), "Escaped", "no state"))
	hub.eventually(t, "the move", func() bool { return last().GetState() == "Moved" })
	events, err := hub.fleet.ListEvents(t.Context(), &fleetv1.ListEventsRequest{Cluster: "acme/eu-1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"handed over the re-home of acme/eu-1 to new.example.com:7443", "re-home Refused: the spoke's own word", "re-home Moved: to new"} {
		found := false
		for _, e := range events.GetEvents() {
			found = found || e.GetKind() == "Identity" && strings.Contains(e.GetMessage(), want)
		}
		if !found {
			t.Errorf("no event says %q: %v", want, events.GetEvents())
		}
	}
	if strings.Contains(events.String(), s.Token.Secret) {
		t.Error("an event says the token")
	}
	if _, err := hub.fleet.RemoveCluster(t.Context(), &fleetv1.RemoveClusterRequest{Name: "acme/eu-1"}); err != nil || last() != nil {
		t.Errorf("a removed cluster: %v, %v", last(), err)
	}
}

// A token may live for days only where its holder is compared first.
func TestALongInvitationLetsNobodyInByItself(t *testing.T) {
	hub := start(t, Config{Dir: t.TempDir()})
	week := uint32(7 * 24 * 3600)
	r, err := hub.fleet.InviteCluster(t.Context(), &fleetv1.InviteClusterRequest{Name: "acme/eu-1", TtlSeconds: week})
	if err != nil || time.Until(r.GetExpires().AsTime()) < 167*time.Hour {
		t.Errorf("got %v, %v", r, err)
	}
	if _, err := hub.fleet.InviteCluster(t.Context(), &fleetv1.InviteClusterRequest{Name: "acme/eu-1", TtlSeconds: week, AcceptAutomatically: true}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("one that is accepted automatically: %v", err)
	}
}
