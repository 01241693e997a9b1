package hub

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/wheelwright-dev/wheelwright/hub/internal/clientcontext"
	"github.com/wheelwright-dev/wheelwright/hub/internal/rollout"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/order"
	"github.com/wheelwright-dev/wheelwright/pkg/plan"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance/channel"
	"github.com/wheelwright-dev/wheelwright/pkg/rehome"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// furnish makes a data folder with two providers' clusters, with everything in it that may name the other's:
// rollouts that hold because of a cluster, one of a cluster that is gone, pins, recalls, events, labels.
func furnish(t *testing.T, dir, repository string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	s, err := store.Open(filepath.Join(dir, storeFile), slog.New(slog.DiscardHandler))
	must(err)
	now := time.Now().Truncate(time.Second)
	hub := fleet.Entry{Actor: "hub", Action: "furnish"}
	must(s.AddDistribution(fleet.Distribution{Name: "shop", URL: repository, Path: "dist", Interval: time.Hour}))
	gated, err := plan.Parse([]byte("start: manual\nwaves: [{name: first, approval: qa}]"))
	must(err)
	for n, v := range []string{"1.0.0", "1.1.0", "1.2.0", "1.3.0"} {
		r := fleet.Release{Distribution: "shop", Version: v, Phase: fleet.Available, Digest: fleet.Digest("sha256:" + strings.Repeat(fmt.Sprint(n), 64)), Published: now, Plan: gated.YAML()}
		must(s.PutRelease(r, v))
	}
	members := map[fleet.Cluster]rollout.Member{"globex/gone-1": {Mark: fleet.MarkLeft, Reason: "removed"}}
	for c, phase := range map[fleet.Cluster]fleet.Phase{"acme/eu-1": fleet.AwaitingApproval, "globex/eu-1": fleet.RolledBack, "globex/us-1": fleet.AwaitingApproval} {
		_, err := s.Invite(c, map[string]string{"owner": c.Provider()}, string(c), [32]byte{1}, now.Add(time.Hour))
		must(err)
		i := fleet.Installation{Distribution: "shop", Variant: "app", Namespace: "shop", Running: "1.0.0", Target: "1.1.0", Phase: phase, PhaseSince: now, Health: fleet.Healthy, Reason: "minor upgrade"}
		must(s.Hello(c, "dev", "v1.36.3", []fleet.Installation{i}))
		members[c] = rollout.Member{Mark: fleet.MarkUnderway, Since: now, Offered: now}
		_, err = s.RecordEvents(c, "j", []fleet.Event{{Seq: 1, At: now, Kind: fleet.EventPhase, Distribution: "shop", Version: "1.1.0", Message: "waits on " + string(c)}})
		must(err)
		must(s.PutPin(fleet.HubPin{Cluster: c, Distribution: "shop", Version: "1.0.0", Reason: "as on globex/us-1", Author: "operator admin", Created: now},
			fleet.Event{At: now, Cluster: c, Distribution: "shop", Kind: fleet.EventPinned, Message: "pinned as on globex/us-1"}, hub))
	}
	began := func(version string, phase fleet.RolloutPhase, reason string, members map[fleet.Cluster]rollout.Member) {
		p := plan.Default()
		p.Supersede = false
		r := rollout.State{Distribution: "shop", Version: version, Plan: p, PlanSource: "default", StartedBy: "operator admin", Started: now, Phase: phase, Since: now,
			Reason: reason, Before: fleet.RolloutProgressing, Waves: []rollout.Wave{{Name: p.Waves[0].Name, Concurrency: 9, Started: now}}, Members: members}
		_, err := s.NewRollouts(store.Beginning{Rollout: r, Entry: hub,
			Events: []fleet.Event{{At: now, Distribution: "shop", Version: version, Kind: fleet.EventRollout, Message: string(phase) + ": " + reason}}})
		must(err)
	}
	began("1.0.0", fleet.RolloutCompleted, "", nil)
	began("1.1.0", fleet.RolloutHolding, "wave everyone: 2 failed, its budget is 0; globex/eu-1: crash; globex/gone-1: crash", members)
	must(s.PutRecall(fleet.Recall{Distribution: "shop", Version: "1.2.0", Reason: "globex/gone-1 lost orders", By: "operator admin", At: now},
		[]fleet.Event{{At: now, Distribution: "shop", Version: "1.2.0", Kind: fleet.EventRecalled, Message: "globex/gone-1 lost orders"}}, hub))
	must(s.Close())
}

// member is an operator who is connected.
type member struct {
	conn       *grpc.ClientConn
	fleet      fleetv1.FleetServiceClient
	credential string
}

// hire adds an operator as `hub operator add` does, and connects as it.
func (r *running) hire(t *testing.T, name, role string) member {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	a, err := r.fleet.AddOperator(t.Context(), &fleetv1.AddOperatorRequest{Name: name, Role: role, Csr: csr})
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	m := r.as(t, clientcontext.Context{Address: a.GetAddress(), CA: certificatesPEM(a.GetAuthorities()), Certificate: certificatesPEM([][]byte{a.GetCertificate()}),
		Key: string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))})
	if o := a.GetOperator(); o.GetCredential() != m.credential || o.GetRole() != role || o.GetCreatedBy() != "operator admin" || time.Until(o.GetCertificateNotAfter().AsTime()) > 91*24*time.Hour {
		t.Errorf("got %v", o)
	}
	return m
}

func (r *running) as(t *testing.T, c clientcontext.Context) member {
	t.Helper()
	pair, err := tls.X509KeyPair([]byte(c.Certificate), []byte(c.Key))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := clientcontext.Dial(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	sum := sha256.Sum256(pair.Certificate[0])
	return member{conn, fleetv1.NewFleetServiceClient(conn), hex.EncodeToString(sum[:])}
}

// ask makes one call and returns all that was answered, as JSON; of an endless stream the first message.
func (m member) ask(t *testing.T, method protoreflect.MethodDescriptor, req proto.Message) (answer string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	path := "/" + string(method.Parent().FullName()) + "/" + string(method.Name())
	out := dynamicpb.NewMessage(method.Output())
	if !method.IsStreamingServer() {
		if err := m.conn.Invoke(ctx, path, req, out); err != nil {
			return "", err
		}
		return protojson.Format(out), nil
	}
	stream, err := m.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, path)
	if err != nil {
		return "", err
	}
	if err := errors.Join(stream.SendMsg(req), stream.CloseSend()); err != nil {
		return "", err
	}
	for {
		switch err := stream.RecvMsg(out); {
		case errors.Is(err, io.EOF):
			return answer, nil
		case err != nil:
			return "", err
		}
		if answer += protojson.Format(out); method.Name() == "Watch" {
			return answer, nil
		}
	}
}

// asked are calls of every method: of one's own and of everybody, or of acme's cluster, and of another's.
// may says who is answered: a the admin, v a viewer, r vendor-release, o vendor-operator, q who approves for qa, d who
// approves for dev, p the provider acme. Everybody else is denied. Changes are tried out only, here.
var asked = []struct {
	method string
	req    proto.Message
	may    string
}{
	{"GetVersion", &fleetv1.GetVersionRequest{}, "avqdpro"},
	{"GetStatus", &fleetv1.GetStatusRequest{}, "avqdpro"},
	{"GetStatus", &fleetv1.GetStatusRequest{Distribution: "shop", Limit: 5}, "avqdpro"},
	{"Watch", &fleetv1.WatchRequest{}, "avqdpro"},
	{"Explain", &fleetv1.ExplainRequest{Cluster: "acme/eu-1", Distribution: "shop"}, "avqdpro"},
	{"Explain", &fleetv1.ExplainRequest{Cluster: "globex/eu-1", Distribution: "shop"}, "avqdro"},
	{"ListEvents", &fleetv1.ListEventsRequest{}, "avqdpro"},
	{"ListEvents", &fleetv1.ListEventsRequest{Distribution: "shop"}, "avqdpro"},
	{"ListEvents", &fleetv1.ListEventsRequest{Cluster: "acme/eu-1"}, "avqdpro"},
	{"ListEvents", &fleetv1.ListEventsRequest{Cluster: "globex/eu-1"}, "avqdro"},
	{"ListReleases", &fleetv1.ListReleasesRequest{}, "avqdpro"},
	{"ListReleases", &fleetv1.ListReleasesRequest{Distribution: "shop"}, "avqdpro"},
	{"ListClusters", &fleetv1.ListClustersRequest{}, "avqdpro"},
	{"ListPins", &fleetv1.ListPinsRequest{}, "avqdpro"},
	{"ListPins", &fleetv1.ListPinsRequest{Distribution: "shop"}, "avqdpro"},
	{"PinCluster", &fleetv1.PinClusterRequest{DryRun: true, Pin: &fleetv1.Pin{Cluster: "acme/eu-1", Distribution: "shop", Version: "1.1.0", Reason: "r"}}, "ap"},
	{"PinCluster", &fleetv1.PinClusterRequest{DryRun: true, Pin: &fleetv1.Pin{Cluster: "globex/eu-1", Distribution: "shop", Version: "1.1.0", Reason: "r"}}, "a"},
	{"UnpinCluster", &fleetv1.UnpinClusterRequest{DryRun: true, Cluster: "acme/eu-1", Distribution: "shop"}, "ap"},
	{"UnpinCluster", &fleetv1.UnpinClusterRequest{DryRun: true, Cluster: "globex/eu-1", Distribution: "shop"}, "a"},
	{"DecideDelivery", &fleetv1.DecideDeliveryRequest{DryRun: true, Cluster: "acme/eu-1", Distribution: "shop", Approve: true}, "ap"},
	{"DecideDelivery", &fleetv1.DecideDeliveryRequest{DryRun: true, Cluster: "globex/us-1", Distribution: "shop", Approve: true}, "a"},
	{"DecideRollout", &fleetv1.DecideRolloutRequest{DryRun: true, Distribution: "shop", Version: "1.3.0", Decision: fleetv1.RolloutDecision_ROLLOUT_DECISION_APPROVE}, "aq"},
	{"DecideRollout", &fleetv1.DecideRolloutRequest{DryRun: true, Distribution: "shop", Version: "1.3.0", Decision: fleetv1.RolloutDecision_ROLLOUT_DECISION_REJECT, Wave: "first"}, "aq"},
	{"DecideRollout", &fleetv1.DecideRolloutRequest{DryRun: true, Distribution: "shop", Version: "1.3.0", Decision: fleetv1.RolloutDecision_ROLLOUT_DECISION_PAUSE}, "aro"},
	{"DecideRollout", &fleetv1.DecideRolloutRequest{DryRun: true, Distribution: "shop", Version: "1.3.0", Decision: fleetv1.RolloutDecision_ROLLOUT_DECISION_ABORT}, "aro"},
	{"ListDistributions", &fleetv1.ListDistributionsRequest{}, "avqdro"},
	{"GetRelease", &fleetv1.GetReleaseRequest{Distribution: "shop", Version: "1.0.0"}, "avqdro"},
	{"PlanRollout", &fleetv1.PlanRolloutRequest{Distribution: "shop", Version: "1.3.0"}, "avqdro"},
	{"ListRollouts", &fleetv1.ListRolloutsRequest{}, "avqdro"},
	{"GetRollout", &fleetv1.GetRolloutRequest{Distribution: "shop", Version: "1.1.0"}, "avqdro"},
	{"ExportAudit", &fleetv1.ExportAuditRequest{}, "avqdro"},
	{"ListOperators", &fleetv1.ListOperatorsRequest{}, "avqdro"},
	{"AddDistribution", nil, "ar"}, // of the test's own repository
	{"RemoveDistribution", &fleetv1.RemoveDistributionRequest{DryRun: true, Name: "shop"}, "ar"},
	{"StartRollout", &fleetv1.StartRolloutRequest{DryRun: true, Distribution: "shop", Version: "1.0.1"}, "aro"},
	{"RecallRelease", &fleetv1.RecallReleaseRequest{DryRun: true, Distribution: "shop", Version: "1.3.0", Reason: "r"}, "ar"},
	{"InviteCluster", &fleetv1.InviteClusterRequest{Name: "acme/new-1"}, "ao"},
	{"RemoveCluster", &fleetv1.RemoveClusterRequest{DryRun: true, Name: "acme/eu-1"}, "ao"},
	{"AddOperator", &fleetv1.AddOperatorRequest{DryRun: true, Name: "new", Role: "viewer"}, "ao"},
	{"AddOperator", &fleetv1.AddOperatorRequest{DryRun: true, Name: "new", Role: "provider:acme"}, "ao"},
	{"AddOperator", &fleetv1.AddOperatorRequest{DryRun: true, Name: "new", Role: "vendor-operator"}, "a"},
	{"AddOperator", &fleetv1.AddOperatorRequest{DryRun: true, Name: "new", Role: "approver:qa"}, "a"},
	{"AddOperator", &fleetv1.AddOperatorRequest{DryRun: true, Name: "new", Role: "admin"}, "a"},
	{"RemoveOperator", &fleetv1.RemoveOperatorRequest{DryRun: true, Name: "r", Reason: "r"}, "a"},
	{"SendOrder", &fleetv1.SendOrderRequest{DryRun: true, Text: orderTo("acme/eu-1")}, "aop"},
	{"SendOrder", &fleetv1.SendOrderRequest{DryRun: true, Text: orderTo("globex/us-1")}, "ao"},
	{"ListOrders", &fleetv1.ListOrdersRequest{}, "avqdpro"},
	{"ListOrders", &fleetv1.ListOrdersRequest{Cluster: "acme/eu-1"}, "avqdpro"},
	{"ListOrders", &fleetv1.ListOrdersRequest{Cluster: "globex/eu-1"}, "avqdro"},
	{"SendReHome", &fleetv1.SendReHomeRequest{DryRun: true, Signed: reHomeOf("acme/eu-1", strings.Repeat("ab", 32))}, "aop"},
	{"SendReHome", &fleetv1.SendReHomeRequest{DryRun: true, Signed: reHomeOf("globex/us-1", strings.Repeat("ab", 32))}, "ao"},
	{"ListReHomes", &fleetv1.ListReHomesRequest{}, "avqdpro"},
	{"ListReHomes", &fleetv1.ListReHomesRequest{Cluster: "acme/eu-1"}, "avqdpro"},
	{"ListReHomes", &fleetv1.ListReHomesRequest{Cluster: "globex/eu-1"}, "avqdro"},
	{"WhoAmI", &fleetv1.WhoAmIRequest{}, "avqdpro"},
	{"CanI", &fleetv1.CanIRequest{}, "avqdpro"},
	{"RenewOperator", &fleetv1.RenewOperatorRequest{Csr: certificateRequest()}, "avqdpro"},
	{"GetAuthority", &fleetv1.GetAuthorityRequest{}, "avo"},
	{"Backup", &fleetv1.BackupRequest{}, "a"},
	{"RotateAuthority", &fleetv1.RotateAuthorityRequest{DryRun: true, Reason: "r"}, "a"},
	{"RetireAuthority", &fleetv1.RetireAuthorityRequest{DryRun: true, Reason: "r"}, "a"},
	{"RemoveOperator", &fleetv1.RemoveOperatorRequest{DryRun: true, Name: "v", Reason: "r"}, "ao"},
	{"SetSigners", &fleetv1.SetSignersRequest{DryRun: true, Distribution: "shop"}, "ar"},
	{"PublishStatement", &fleetv1.PublishStatementRequest{DryRun: true, Statement: statementAbout("shop")}, "ar"},
	{"GetChannel", &fleetv1.GetChannelRequest{Distribution: "shop"}, "avqdro"},
	{"AcceptCluster", &fleetv1.AcceptClusterRequest{DryRun: true, Name: "acme/eu-1"}, "ao"},
	{"RejectCluster", &fleetv1.RejectClusterRequest{DryRun: true, Name: "acme/eu-1", Reason: "r"}, "ao"},
}

// Every method by every role, on a hub as it runs: who may not is denied, and a provider is never told of
// another's clusters.
func TestEveryMethodAnswersEachRoleWithWhatIsItsOwn(t *testing.T) {
	v := newVendor(t)
	v.tag(t, "1.0.1", "example.com/backend:1.0.1")
	dir := t.TempDir()
	furnish(t, dir, v.dir)
	hub := start(t, Config{Dir: dir})
	hub.release(t, "1.0.1") // has a plan of its own: none, so that it begins by itself
	begun := &fleetv1.StartRolloutRequest{Distribution: "shop", Version: "1.3.0"}
	if _, err := hub.fleet.StartRollout(t.Context(), begun); err != nil {
		t.Fatal(err)
	}
	team := map[string]member{}
	for letter, role := range map[string]string{"a": "admin", "v": "viewer", "q": "approver:qa", "d": "approver:dev", "p": "provider:acme",
		"r": "vendor-release", "o": "vendor-operator"} {
		team[letter] = hub.hire(t, letter, role)
	}
	methods := fleetv1.File_wheelwright_fleet_v1_fleet_proto.Services().ByName("FleetService").Methods()
	tried := map[string]bool{}
	for _, c := range asked {
		method := methods.ByName(protoreflect.Name(c.method))
		if method == nil {
			t.Errorf("there is no method %s", c.method)
			continue
		}
		tried[c.method] = true
		if c.req == nil {
			c.req = &fleetv1.AddDistributionRequest{DryRun: true, Distribution: &fleetv1.Distribution{Name: "bank", Url: v.dir}}
		}
		for letter, m := range team {
			answer, err := m.ask(t, method, c.req)
			code := status.Code(err)
			if said := m.can(t, c.method, c.req); said == (code == codes.PermissionDenied) && (!said || !finer(c.method, letter)) {
				t.Errorf("%s %v by %s: can-i says %v, and it ends with %v", c.method, c.req, letter, said, err)
			}
			if !strings.Contains(c.may, letter) {
				if code != codes.PermissionDenied || !strings.Contains(err.Error(), "operator "+letter) || !strings.Contains(err.Error(), "`hub ") {
					t.Errorf("%s %v by %s: %v, want it denied, with who and what to type", c.method, c.req, letter, err)
				}
				continue
			}
			// What is refused for another reason was let in; only what the state does not allow may be.
			if err != nil && (c.method != "StartRollout" && c.method != "AcceptCluster" && c.method != "RetireAuthority" && c.method != "RejectCluster" && c.method != "SendReHome" || code != codes.AlreadyExists && code != codes.FailedPrecondition) {
				t.Errorf("%s %v by %s: %v", c.method, c.req, letter, err)
			}
			if letter == "p" && strings.Contains(answer+fmt.Sprint(err), "globex") {
				t.Errorf("%s %v tells the provider acme of another: %s, %v", c.method, c.req, answer, err)
			}
		}
	}
	for i := range methods.Len() {
		if name := string(methods.Get(i).Name()); !tried[name] {
			t.Errorf("method %s has no row: who may call it?", name)
		}
	}
	t.Run("own", func(t *testing.T) { ownIsThere(t, team["p"].fleet, team["v"].fleet) })
}

// can asks the hub whether a member may do what a request asks.
func (m member) can(t *testing.T, method string, req proto.Message) bool {
	t.Helper()
	ask := &fleetv1.CanIRequest{Method: method}
	switch r := req.(type) {
	case *fleetv1.PinClusterRequest:
		ask.Cluster = r.GetPin().GetCluster()
	case *fleetv1.SendOrderRequest:
		if o, err := order.Parse(r.GetText()); err == nil {
			ask.Cluster = string(o.Cluster)
		}
	case *fleetv1.SendReHomeRequest:
		if s, err := rehome.ParseSigned(r.GetSigned()); err == nil {
			ask.Cluster = string(s.Cluster)
		}
	case *fleetv1.DecideRolloutRequest:
		ask.Decision = strings.ToLower(strings.TrimPrefix(r.GetDecision().String(), "ROLLOUT_DECISION_"))
	case interface{ GetCluster() string }:
		ask.Cluster = r.GetCluster()
	}
	r, err := m.fleet.CanI(t.Context(), ask)
	if err != nil || len(r.GetPermissions()) != 1 {
		t.Fatalf("can-i %v: %v, %v", ask, r, err)
	}
	return r.GetPermissions()[0].GetAllowed()
}

// finer: can-i answers yes within limits that it says and that are not asked about: which gate, and which role.
func finer(method, letter string) bool {
	return method == "DecideRollout" && letter == "d" || strings.HasSuffix(method, "Operator") && letter == "o"
}

// certificateRequest is of a key that nobody keeps.
func certificateRequest() []byte {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		panic(err)
	}
	return csr
}

// orderTo is an order that is good for now.
func orderTo(c fleet.Cluster) []byte {
	now := time.Now().Truncate(time.Second)
	text, err := order.Order{Verb: order.Force, Cluster: c, Distribution: "shop", Target: "1.1.0", Running: "1.0.0", Nonce: order.NewNonce(), Issued: now, Expires: now.Add(time.Hour), Reason: "r"}.Text()
	if err != nil {
		panic(err)
	}
	return text
}

// ownIsThere: what is left out is the others', not one's own.
func ownIsThere(t *testing.T, acme, viewer fleetv1.FleetServiceClient) {
	ctx := t.Context()
	s, err := acme.GetStatus(ctx, &fleetv1.GetStatusRequest{})
	if err != nil || len(s.GetRows()) != 2 || s.GetTotal() != 2 || s.GetRows()[0].GetCluster() != "acme/eu-1" || len(s.GetSummaries()) != 1 || s.GetSummaries()[0].GetClusters() != 1 {
		t.Errorf("status: got %v, %v", s, err)
	}
	clusters, err := acme.ListClusters(ctx, &fleetv1.ListClustersRequest{})
	if err != nil || len(clusters.GetClusters()) != 2 || clusters.GetClusters()[0].GetLabels()["owner"] != "acme" {
		t.Errorf("clusters: got %v, %v", clusters, err)
	}
	pins, err := acme.ListPins(ctx, &fleetv1.ListPinsRequest{})
	if err != nil || len(pins.GetPins()) != 1 || !strings.Contains(pins.GetPins()[0].GetReason(), "as on another provider's cluster") {
		t.Errorf("pins: got %v, %v", pins, err)
	}
	why, err := acme.Explain(ctx, &fleetv1.ExplainRequest{Cluster: "acme/eu-1", Distribution: "shop"})
	if err != nil || !strings.Contains(strings.Join(why.GetFacts(), "\n"), "another provider's cluster: crash") || strings.Contains(strings.Join(why.GetNext(), "\n"), "hub rollout") {
		t.Errorf("why: got %v, %v", why, err)
	}
	releases, err := acme.ListReleases(ctx, &fleetv1.ListReleasesRequest{})
	if err != nil || len(releases.GetReleases()) != 5 || fmt.Sprint(releases.GetReleases()[0].GetRunningOn()) != "[acme/eu-1]" {
		t.Errorf("releases: got %v, %v", releases, err)
	}
	events, err := acme.ListEvents(ctx, &fleetv1.ListEventsRequest{Limit: 3})
	if err != nil || len(events.GetEvents()) != 3 {
		t.Errorf("events: a limit counts what is seen: got %v, %v", events, err)
	}
	for _, e := range events.GetEvents() {
		if e.GetKind() == "Operator" || e.GetCluster() == "" && e.GetDistribution() == "" {
			t.Errorf("the provider is told %v", e)
		}
	}
	all, err := viewer.GetStatus(ctx, &fleetv1.GetStatusRequest{})
	if err != nil || all.GetTotal() != 4 || len(all.GetRollouts()) == 0 {
		t.Errorf("a viewer's status: got %v, %v", all, err)
	}
}

// Each change is accounted for with the certificate that was used, in the transaction of the change.
func TestTheAuditHasTheCertificateOfEveryChange(t *testing.T) {
	v := newVendor(t)
	v.tag(t, "1.0.1", "example.com/backend:1.0.1")
	dir := t.TempDir()
	furnish(t, dir, v.dir)
	o := openOffice(t, dir)
	o.join("acme/wait-1", true, time.Hour)
	o.must(o.store.Close())
	hub := start(t, Config{Dir: dir})
	hub.release(t, "1.0.1")
	c, err := clientcontext.Load(hub.AdminContext)
	if err != nil {
		t.Fatal(err)
	}
	admin := hub.as(t, c)
	qa, acme := hub.hire(t, "q", "approver:qa"), hub.hire(t, "p", "provider:acme")
	changed := map[string]bool{"AddOperator": true} // by hire: seen below
	var after uint64
	entries := func() (all []*fleetv1.AuditEntry) {
		t.Helper()
		stream, err := hub.fleet.ExportAudit(t.Context(), &fleetv1.ExportAuditRequest{After: after})
		if err != nil {
			t.Fatal(err)
		}
		for {
			r, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return all
			}
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, r.GetEntry())
			after = r.GetEntry().GetNumber()
		}
	}
	hired := 0
	for _, e := range entries() {
		if e.GetAction() == "operator add" && e.GetCredential() == admin.credential && strings.Contains(e.GetReason(), "certificate ") {
			hired++
		}
	}
	if hired != 2 {
		t.Errorf("%d of 2 operators are accounted for", hired)
	}
	methods := fleetv1.File_wheelwright_fleet_v1_fleet_proto.Services().ByName("FleetService").Methods()
	for _, change := range []struct {
		by             member
		name           string
		method, action string
		req            proto.Message
	}{
		{admin, "admin", "StartRollout", "rollout start shop 1.3.0", &fleetv1.StartRolloutRequest{Distribution: "shop", Version: "1.3.0"}},
		{qa, "q", "DecideRollout", "rollout approve shop 1.3.0", &fleetv1.DecideRolloutRequest{Distribution: "shop", Version: "1.3.0", Decision: fleetv1.RolloutDecision_ROLLOUT_DECISION_APPROVE}},
		{acme, "p", "UnpinCluster", "unpin acme/eu-1 shop 1.0.0", &fleetv1.UnpinClusterRequest{Cluster: "acme/eu-1", Distribution: "shop"}},
		{acme, "p", "PinCluster", "pin acme/eu-1 shop 1.1.0", &fleetv1.PinClusterRequest{Pin: &fleetv1.Pin{Cluster: "acme/eu-1", Distribution: "shop", Version: "1.1.0", Reason: "audit week"}}},
		{acme, "p", "DecideDelivery", "delivery approve acme/eu-1 shop 1.1.0", &fleetv1.DecideDeliveryRequest{Cluster: "acme/eu-1", Distribution: "shop", Approve: true}},
		{acme, "p", "SendOrder", "order force acme/eu-1 shop 1.1.0", signedOrder(t, orderTo("acme/eu-1"))},
		{acme, "p", "SendReHome", "cluster re-home acme/wait-1", &fleetv1.SendReHomeRequest{Signed: reHomeOf("acme/wait-1", hub.pin(t))}},
		{admin, "admin", "RecallRelease", "release recall shop 1.3.0", &fleetv1.RecallReleaseRequest{Distribution: "shop", Version: "1.3.0", Reason: "r"}},
		{admin, "admin", "PublishStatement", "channel publish shop", &fleetv1.PublishStatementRequest{Statement: statementAbout("shop")}},
		{admin, "admin", "SetSigners", "distribution set shop", &fleetv1.SetSignersRequest{Distribution: "shop"}},
		{admin, "admin", "InviteCluster", "cluster invite acme/new-1", &fleetv1.InviteClusterRequest{Name: "acme/new-1"}},
		{admin, "admin", "AcceptCluster", "cluster accept acme/wait-1", &fleetv1.AcceptClusterRequest{Name: "acme/wait-1"}},
		{admin, "admin", "RejectCluster", "cluster reject acme/wait-1", &fleetv1.RejectClusterRequest{Name: "acme/wait-1", Reason: "r"}},
		{admin, "admin", "RemoveCluster", "cluster remove acme/new-1", &fleetv1.RemoveClusterRequest{Name: "acme/new-1"}},
		{admin, "admin", "AddDistribution", "distribution add bank", &fleetv1.AddDistributionRequest{Distribution: &fleetv1.Distribution{Name: "bank", Url: v.dir}}},
		{admin, "admin", "RemoveDistribution", "distribution remove shop", &fleetv1.RemoveDistributionRequest{Name: "shop"}},
		{admin, "admin", "RemoveOperator", "operator remove q", &fleetv1.RemoveOperatorRequest{Name: "q", Reason: "left"}},
		{acme, "p", "RenewOperator", "operator renew p", &fleetv1.RenewOperatorRequest{Csr: certificateRequest()}},
		{admin, "admin", "Backup", "backup hub", &fleetv1.BackupRequest{}},
		{admin, "admin", "RotateAuthority", "authority rotate " + hub.pin(t), &fleetv1.RotateAuthorityRequest{Reason: "r"}},
		{admin, "admin", "RetireAuthority", "authority retire " + hub.pin(t), &fleetv1.RetireAuthorityRequest{Reason: "r", Force: true}},
	} {
		if _, err := change.by.ask(t, methods.ByName(protoreflect.Name(change.method)), change.req); err != nil {
			t.Errorf("%s: %v", change.method, err)
			continue
		}
		changed[change.method] = true
		found := false
		for _, e := range entries() {
			if e.GetAction()+" "+e.GetObject() == change.action {
				found = e.GetCredential() == change.by.credential && e.GetActor() == "operator "+change.name
			}
			if change.method == "RemoveDistribution" && e.GetAction() == "rollout abort" && (e.GetObject() != "shop 1.1.0" || e.GetReason() != "distribution shop was removed" || e.GetCredential() != admin.credential) {
				t.Errorf("got %v", e)
			}
		}
		if !found {
			t.Errorf("%s: no entry %q by %s with the certificate that was used", change.method, change.action, change.name)
		}
	}
	for _, c := range asked { // whatever is not for readers changes something
		if !strings.Contains(c.may, "v") && !strings.HasPrefix(c.method, "Explain") && !strings.HasPrefix(c.method, "List") && !changed[c.method] {
			t.Errorf("nobody looked at what %s leaves in the audit", c.method)
		}
	}
	if r, err := hub.fleet.GetRollout(t.Context(), &fleetv1.GetRolloutRequest{Distribution: "shop", Version: "1.1.0"}); err != nil || r.GetRollout().GetPhase() != string(fleet.RolloutAborted) {
		t.Errorf("the rollout of a removed distribution: got %v, %v", r, err)
	}
}

func TestAnOperatorThatIsRemovedIsCutOffAtOnce(t *testing.T) {
	hub := start(t, Config{Dir: t.TempDir(), Heartbeat: time.Hour})
	maria := hub.hire(t, "maria", "viewer")
	watch, err := maria.fleet.Watch(t.Context(), &fleetv1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	if _, err := hub.fleet.RemoveOperator(t.Context(), &fleetv1.RemoveOperatorRequest{Name: "maria", Reason: "left"}); err != nil {
		t.Fatal(err)
	}
	for err = nil; err == nil; {
		_, err = watch.Recv()
	}
	if status.Code(err) != codes.Unauthenticated {
		t.Errorf("the open stream ended with %v", err)
	}
	if _, err := maria.fleet.GetStatus(t.Context(), &fleetv1.GetStatusRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("got %v", err)
	}
	if _, err := hub.fleet.RemoveOperator(t.Context(), &fleetv1.RemoveOperatorRequest{Name: "maria", Reason: "left"}); status.Code(err) != codes.NotFound {
		t.Errorf("got %v", err)
	}
	if _, err := hub.fleet.RemoveOperator(t.Context(), &fleetv1.RemoveOperatorRequest{Name: "admin", Reason: "left"}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("got %v", err)
	}
}

// statementAbout is what a vendor could say of a distribution whose tags need nobody's signature.
func statementAbout(distribution string) []byte {
	now := time.Now()
	s, err := channel.New(channel.Statement{Distribution: distribution, Sequence: 1, Latest: "1.3.0", Issued: now, Expires: now.Add(time.Hour)})
	if err != nil {
		panic(err)
	}
	return s.Bytes()
}
