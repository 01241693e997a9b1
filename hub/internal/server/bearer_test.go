package server_test

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/hub/internal/oidc"
	"github.com/wheelwright-dev/wheelwright/integration/issuer"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// takes makes tokens of an issuer count: everybody of the group GROUP has the role GROUP.
func takes(t *testing.T, i *issuer.Issuer) *oidc.Tokens {
	t.Helper()
	text, err := os.ReadFile(i.CAFile)
	must(t, err)
	c := oidc.Config{Issuer: i.URL, ClientID: "wheelwright", CA: x509.NewCertPool()}
	c.CA.AppendCertsFromPEM(text)
	for _, role := range []string{"admin", "viewer", "vendor-release", "vendor-operator", "approver:qa", "provider:acme"} {
		r, err := caller.ParseRole(role)
		must(t, err)
		c.Bindings = append(c.Bindings, oidc.Binding{Role: r, Groups: []string{role}})
	}
	return oidc.New(c)
}

// Every method by the bearer of a token of each role: the same table as for certificates, and never what is a spoke's.
func TestATokenOpensWhatItsRoleDoes(t *testing.T) {
	i := issuer.New(t)
	h := build(t, services{tokens: takes(t, i)}, time.Second)
	conn := h.dial(nil)
	for role, letter := range map[string]string{"admin": "a", "viewer": "v", "vendor-release": "r", "vendor-operator": "o", "approver:qa": "q", "provider:acme": "p"} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+i.Token(map[string]any{"groups": []string{role}}))
		for _, service := range described() {
			for n := range service.Methods().Len() {
				m := service.Methods().Get(n)
				err := callWith(ctx, t, conn, m)
				if denied := refusedCode(err); denied == strings.Contains(may[m.FullName()], letter) {
					t.Errorf("%s by a token of %s: %v, want allowed %v", m.FullName(), role, err, !denied)
				}
			}
		}
	}
	if strings.Contains(h.log.String(), "wheelwright.sync.v1.SyncService/Connect caller=acme") {
		t.Error("a token was taken for a spoke")
	}
}

func TestACallIsIdentifiedInOneWay(t *testing.T) {
	i := issuer.New(t)
	h := build(t, services{tokens: takes(t, i)}, time.Second)
	good := i.Token(map[string]any{"groups": []string{"admin"}})
	version := func(conn *grpc.ClientConn, values ...string) error {
		ctx := t.Context()
		for _, v := range values {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", v)
		}
		_, err := fleetv1.NewFleetServiceClient(conn).GetVersion(ctx, &fleetv1.GetVersionRequest{})
		return err
	}
	stranger := h.dial(nil)
	wantCode(t, version(stranger, "Bearer "+good), codes.Unimplemented) // it got through
	wantCode(t, version(stranger, "bearer "+good), codes.Unimplemented)
	for what, values := range map[string][]string{
		"with 2 tokens":      {"Bearer " + good, "Bearer " + good},
		"not `Bearer TOKEN`": {"Basic bWFyaWE6c2VjcmV0"},
		"is not `Bearer":     {"Bearer"},
		"`Bearer TOKEN`":     {"Bearer " + good + ", Bearer " + good},
		"the token is":       {"Bearer " + good + "x"},
		"no role to":         {"Bearer " + i.Token(map[string]any{"groups": []string{"kitchen"}})},
	} {
		wantCode(t, version(stranger, values...), codes.Unauthenticated, what)
	}
	for _, certificate := range []*tls.Certificate{h.spoke(eu), h.operator()} {
		conn := h.dial(certificate)
		wantCode(t, version(conn, "Bearer "+good), codes.Unauthenticated, "a client certificate and a token")
		stream, err := syncv1.NewSyncServiceClient(conn).Connect(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+good))
		must(t, err)
		_, err = stream.Recv()
		wantCode(t, err, codes.Unauthenticated, "a client certificate and a token")
	}
	_, err := syncv1.NewSyncServiceClient(stranger).Renew(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+good), &syncv1.RenewRequest{})
	wantCode(t, err, codes.PermissionDenied, "operator oidc:248289761001 may not call")

	i.Away(true)
	other := build(t, services{tokens: takes(t, i)}, time.Second)
	wantCode(t, version(other.dial(nil), "Bearer "+good), codes.Unavailable, i.URL, "503")
	none := build(t, services{}, time.Second)
	wantCode(t, version(none.dial(nil), "Bearer "+good), codes.Unauthenticated, "hub.yaml has no `oidc`")

	for _, log := range []string{h.log.String(), other.log.String(), none.log.String()} {
		for part := range strings.SplitSeq(good, ".") {
			if strings.Contains(log, part) {
				t.Errorf("the log holds a part of the token")
			}
		}
		if !strings.Contains(log, "stranger") {
			t.Errorf("nothing is said of who was refused:\n%s", log)
		}
	}
}

// A stream does not outlive the token that opened it, whether anything is said on it or not.
func TestAStreamEndsWithItsToken(t *testing.T) {
	i := issuer.New(t)
	h := build(t, services{tokens: takes(t, i), fleet: &silent{}}, time.Second)
	token := i.Token(map[string]any{"groups": []string{"viewer"}, "exp": time.Now().Add(6 * time.Second).Unix()})
	stream, err := fleetv1.NewFleetServiceClient(h.dial(nil)).Watch(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token), &fleetv1.WatchRequest{})
	must(t, err)
	_, err = stream.Recv()
	must(t, err)
	_, err = stream.Recv()
	wantCode(t, err, codes.Unauthenticated, "the token of operator oidc:248289761001 expired at", "log in")
}

// silent watches nothing after its first word.
type silent struct {
	fleetv1.UnimplementedFleetServiceServer
}

func (*silent) Watch(_ *fleetv1.WatchRequest, stream fleetv1.FleetService_WatchServer) error {
	if err := stream.Send(&fleetv1.WatchResponse{Revision: 1}); err != nil {
		return err
	}
	<-stream.Context().Done()
	return stream.Context().Err()
}
