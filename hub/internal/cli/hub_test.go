package cli

import (
	"bytes"
	"context"
	"encoding/pem"
	"io"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/wheelwright-dev/wheelwright/hub/internal/clientcontext"
	"github.com/wheelwright-dev/wheelwright/hub/internal/identity"
	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/transport"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// answers is a FleetService that says what a test wants, over real TLS.
type answers struct {
	fleetv1.UnimplementedFleetServiceServer
	context string // file

	mu       sync.Mutex
	say      map[string]proto.Message // by method; a missing one is NOT_FOUND
	refuse   map[string]error
	audit    []*fleetv1.AuditEntry
	asked    []proto.Message
	changed  chan struct{} // closed with each change
	revision uint64
}

func serveAnswers(t *testing.T, say map[string]proto.Message) *answers {
	t.Helper()
	dir := t.TempDir()
	authority, err := identity.Open(filepath.Join(dir, "authority"))
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := authority.ServerTLS(nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := authority.IssueOperator("admin", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	h := &answers{context: filepath.Join(dir, "context.yaml"), say: say, refuse: map[string]error{}, changed: make(chan struct{})}
	if h.say == nil {
		h.say = map[string]proto.Message{}
	}
	if err := clientcontext.Save(h.context, clientcontext.Context{Address: listener.Addr().String(), CA: pemOf(authority), Certificate: string(cert.PEM()), Key: string(key)}); err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(transport.ServerOptions(cfg)...)
	fleetv1.RegisterFleetServiceServer(server, h)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return h
}

// set changes what a method answers and tells the watchers.
func (h *answers) set(method string, m proto.Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.say[method] = m
	h.revision++
	close(h.changed)
	h.changed = make(chan struct{})
}

func answer[T proto.Message](h *answers, method string, req proto.Message) (T, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var none T
	h.asked = append(h.asked, proto.Clone(req))
	if err := h.refuse[method]; err != nil {
		return none, err
	}
	m, ok := h.say[method].(T)
	if !ok {
		return none, status.Errorf(codes.NotFound, "there is no such thing; see `hub get releases`")
	}
	return m, nil
}

// last is the newest request of its kind.
func last[T proto.Message](t *testing.T, h *answers) T {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range slices.Backward(h.asked) {
		if r, ok := m.(T); ok {
			return r
		}
	}
	var none T
	t.Fatalf("the hub was not asked %T", none)
	return none
}

func (h *answers) PlanRollout(_ context.Context, r *fleetv1.PlanRolloutRequest) (*fleetv1.PlanRolloutResponse, error) {
	return answer[*fleetv1.PlanRolloutResponse](h, "PlanRollout", r)
}

func (h *answers) StartRollout(_ context.Context, r *fleetv1.StartRolloutRequest) (*fleetv1.StartRolloutResponse, error) {
	return answer[*fleetv1.StartRolloutResponse](h, "StartRollout", r)
}

func (h *answers) ListRollouts(_ context.Context, r *fleetv1.ListRolloutsRequest) (*fleetv1.ListRolloutsResponse, error) {
	m, err := answer[*fleetv1.ListRolloutsResponse](h, "ListRollouts", r)
	kept := &fleetv1.ListRolloutsResponse{}
	for _, ro := range m.GetRollouts() {
		if r.GetDistribution() == "" || r.GetDistribution() == ro.GetDistribution() {
			kept.Rollouts = append(kept.Rollouts, ro)
		}
	}
	return kept, err
}

func (h *answers) GetRollout(_ context.Context, r *fleetv1.GetRolloutRequest) (*fleetv1.GetRolloutResponse, error) {
	return answer[*fleetv1.GetRolloutResponse](h, "GetRollout", r)
}

func (h *answers) DecideRollout(_ context.Context, r *fleetv1.DecideRolloutRequest) (*fleetv1.DecideRolloutResponse, error) {
	return answer[*fleetv1.DecideRolloutResponse](h, "DecideRollout", r)
}

func (h *answers) RecallRelease(_ context.Context, r *fleetv1.RecallReleaseRequest) (*fleetv1.RecallReleaseResponse, error) {
	return answer[*fleetv1.RecallReleaseResponse](h, "RecallRelease", r)
}

func (h *answers) PinCluster(_ context.Context, r *fleetv1.PinClusterRequest) (*fleetv1.PinClusterResponse, error) {
	return answer[*fleetv1.PinClusterResponse](h, "PinCluster", r)
}

func (h *answers) UnpinCluster(_ context.Context, r *fleetv1.UnpinClusterRequest) (*fleetv1.UnpinClusterResponse, error) {
	return answer[*fleetv1.UnpinClusterResponse](h, "UnpinCluster", r)
}

func (h *answers) ListPins(_ context.Context, r *fleetv1.ListPinsRequest) (*fleetv1.ListPinsResponse, error) {
	return answer[*fleetv1.ListPinsResponse](h, "ListPins", r)
}

func (h *answers) DecideDelivery(_ context.Context, r *fleetv1.DecideDeliveryRequest) (*fleetv1.DecideDeliveryResponse, error) {
	return answer[*fleetv1.DecideDeliveryResponse](h, "DecideDelivery", r)
}

func (h *answers) Explain(_ context.Context, r *fleetv1.ExplainRequest) (*fleetv1.ExplainResponse, error) {
	return answer[*fleetv1.ExplainResponse](h, "Explain", r)
}

func (h *answers) GetStatus(_ context.Context, r *fleetv1.GetStatusRequest) (*fleetv1.GetStatusResponse, error) {
	return answer[*fleetv1.GetStatusResponse](h, "GetStatus", r)
}

func (h *answers) GetRelease(_ context.Context, r *fleetv1.GetReleaseRequest) (*fleetv1.GetReleaseResponse, error) {
	return answer[*fleetv1.GetReleaseResponse](h, "GetRelease", r)
}

func (h *answers) ListReleases(_ context.Context, r *fleetv1.ListReleasesRequest) (*fleetv1.ListReleasesResponse, error) {
	return answer[*fleetv1.ListReleasesResponse](h, "ListReleases", r)
}

func (h *answers) ListDistributions(_ context.Context, r *fleetv1.ListDistributionsRequest) (*fleetv1.ListDistributionsResponse, error) {
	return answer[*fleetv1.ListDistributionsResponse](h, "ListDistributions", r)
}

func (h *answers) ListClusters(_ context.Context, r *fleetv1.ListClustersRequest) (*fleetv1.ListClustersResponse, error) {
	return answer[*fleetv1.ListClustersResponse](h, "ListClusters", r)
}

func (h *answers) ListEvents(_ context.Context, r *fleetv1.ListEventsRequest) (*fleetv1.ListEventsResponse, error) {
	m, err := answer[*fleetv1.ListEventsResponse](h, "ListEvents", r)
	newer := &fleetv1.ListEventsResponse{}
	for _, e := range m.GetEvents() {
		if e.GetId() > r.GetAfterId() {
			newer.Events = append(newer.Events, e)
		}
	}
	return newer, err
}

func (h *answers) AddOperator(_ context.Context, r *fleetv1.AddOperatorRequest) (*fleetv1.AddOperatorResponse, error) {
	return answer[*fleetv1.AddOperatorResponse](h, "AddOperator", r)
}

func (h *answers) RemoveOperator(_ context.Context, r *fleetv1.RemoveOperatorRequest) (*fleetv1.RemoveOperatorResponse, error) {
	return answer[*fleetv1.RemoveOperatorResponse](h, "RemoveOperator", r)
}

func (h *answers) GetAuthority(_ context.Context, r *fleetv1.GetAuthorityRequest) (*fleetv1.GetAuthorityResponse, error) {
	return answer[*fleetv1.GetAuthorityResponse](h, "GetAuthority", r)
}

func (h *answers) RetireAuthority(_ context.Context, r *fleetv1.RetireAuthorityRequest) (*fleetv1.RetireAuthorityResponse, error) {
	return answer[*fleetv1.RetireAuthorityResponse](h, "RetireAuthority", r)
}

func (h *answers) ListOperators(_ context.Context, r *fleetv1.ListOperatorsRequest) (*fleetv1.ListOperatorsResponse, error) {
	return answer[*fleetv1.ListOperatorsResponse](h, "ListOperators", r)
}

func (h *answers) ExportAudit(r *fleetv1.ExportAuditRequest, out grpc.ServerStreamingServer[fleetv1.ExportAuditResponse]) error {
	for _, e := range h.audit {
		if e.GetNumber() > r.GetAfter() {
			if err := out.Send(&fleetv1.ExportAuditResponse{Entry: e}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (h *answers) Watch(_ *fleetv1.WatchRequest, out grpc.ServerStreamingServer[fleetv1.WatchResponse]) error {
	for {
		h.mu.Lock()
		revision, changed := h.revision, h.changed
		h.mu.Unlock()
		if err := out.Send(&fleetv1.WatchResponse{Revision: revision}); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-out.Context().Done():
			return nil
		}
	}
}

// hub runs a command against the answers, at the moment of the tests.
func (h *answers) hub(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	code = h.hubInto(t.Context(), &o, &e, args...)
	return code, o.String(), e.String()
}

func (h *answers) hubInto(ctx context.Context, out, errOut io.Writer, args ...string) int {
	a := &app{out: out, err: errOut, now: func() time.Time { return moment }}
	root := a.root()
	root.SetArgs(append(args, "--context", h.context))
	err := root.ExecuteContext(ctx)
	if m := exitcode.Message(err); m != "" {
		_, _ = io.WriteString(errOut, "hub: "+m+"\n")
	}
	return exitcode.Of(err)
}

func pemOf(authority *identity.Authority) string {
	var b []byte
	for _, der := range authority.Authorities() {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return string(b)
}

func (h *answers) SendOrder(_ context.Context, r *fleetv1.SendOrderRequest) (*fleetv1.SendOrderResponse, error) {
	return answer[*fleetv1.SendOrderResponse](h, "SendOrder", r)
}

func (h *answers) GetVersion(_ context.Context, r *fleetv1.GetVersionRequest) (*fleetv1.GetVersionResponse, error) {
	return answer[*fleetv1.GetVersionResponse](h, "GetVersion", r)
}

func (h *answers) InviteCluster(_ context.Context, r *fleetv1.InviteClusterRequest) (*fleetv1.InviteClusterResponse, error) {
	return answer[*fleetv1.InviteClusterResponse](h, "InviteCluster", r)
}

func (h *answers) SendReHome(_ context.Context, r *fleetv1.SendReHomeRequest) (*fleetv1.SendReHomeResponse, error) {
	return answer[*fleetv1.SendReHomeResponse](h, "SendReHome", r)
}

func (h *answers) ListReHomes(_ context.Context, r *fleetv1.ListReHomesRequest) (*fleetv1.ListReHomesResponse, error) {
	return answer[*fleetv1.ListReHomesResponse](h, "ListReHomes", r)
}

func (h *answers) ListOrders(_ context.Context, r *fleetv1.ListOrdersRequest) (*fleetv1.ListOrdersResponse, error) {
	return answer[*fleetv1.ListOrdersResponse](h, "ListOrders", r)
}

func (h *answers) WhoAmI(_ context.Context, r *fleetv1.WhoAmIRequest) (*fleetv1.WhoAmIResponse, error) {
	return answer[*fleetv1.WhoAmIResponse](h, "WhoAmI", r)
}

func (h *answers) CanI(_ context.Context, r *fleetv1.CanIRequest) (*fleetv1.CanIResponse, error) {
	return answer[*fleetv1.CanIResponse](h, "CanI", r)
}

// untilAsked waits until the hub was asked something of this type.
func (h *answers) untilAsked(t *testing.T, kind proto.Message) {
	t.Helper()
	tick, end := time.NewTicker(5*time.Millisecond), time.After(20*time.Second)
	defer tick.Stop()
	for {
		h.mu.Lock()
		found := slices.ContainsFunc(h.asked, func(m proto.Message) bool {
			return m.ProtoReflect().Descriptor() == kind.ProtoReflect().Descriptor()
		})
		h.mu.Unlock()
		if found {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("the hub was not asked")
		}
	}
}

func (h *answers) InviteRelay(_ context.Context, r *fleetv1.InviteRelayRequest) (*fleetv1.InviteRelayResponse, error) {
	return answer[*fleetv1.InviteRelayResponse](h, "InviteRelay", r)
}

func (h *answers) ListRelays(_ context.Context, r *fleetv1.ListRelaysRequest) (*fleetv1.ListRelaysResponse, error) {
	return answer[*fleetv1.ListRelaysResponse](h, "ListRelays", r)
}

func (h *answers) RemoveRelay(_ context.Context, r *fleetv1.RemoveRelayRequest) (*fleetv1.RemoveRelayResponse, error) {
	return answer[*fleetv1.RemoveRelayResponse](h, "RemoveRelay", r)
}
