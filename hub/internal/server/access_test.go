package server_test

import (
	"context"
	"crypto/tls"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
)

// may is who may call what, written a second time by hand: s a stranger, c a cluster's spoke, and of operators a
// admin, v viewer, r vendor-release, o vendor-operator, q an approver, p a provider. A method that is in no row
// fails the test.
var may = map[protoreflect.FullName]string{
	"wheelwright.enroll.v1.EnrollService.Enroll": "scavroqp",

	"wheelwright.sync.v1.SyncService.Connect":     "c",
	"wheelwright.sync.v1.SyncService.FetchBundle": "c",
	"wheelwright.sync.v1.SyncService.Renew":       "c",

	"wheelwright.fleet.v1.FleetService.GetVersion":         "avroqp",
	"wheelwright.fleet.v1.FleetService.GetStatus":          "avroqp",
	"wheelwright.fleet.v1.FleetService.Watch":              "avroqp",
	"wheelwright.fleet.v1.FleetService.Explain":            "avroqp",
	"wheelwright.fleet.v1.FleetService.ListEvents":         "avroqp",
	"wheelwright.fleet.v1.FleetService.ListReleases":       "avroqp",
	"wheelwright.fleet.v1.FleetService.ListClusters":       "avroqp",
	"wheelwright.fleet.v1.FleetService.ListPins":           "avroqp",
	"wheelwright.fleet.v1.FleetService.PinCluster":         "ap",
	"wheelwright.fleet.v1.FleetService.UnpinCluster":       "ap",
	"wheelwright.fleet.v1.FleetService.DecideDelivery":     "ap",
	"wheelwright.fleet.v1.FleetService.DecideRollout":      "aroq",
	"wheelwright.fleet.v1.FleetService.ListDistributions":  "avroq",
	"wheelwright.fleet.v1.FleetService.GetRelease":         "avroq",
	"wheelwright.fleet.v1.FleetService.PlanRollout":        "avroq",
	"wheelwright.fleet.v1.FleetService.ListRollouts":       "avroq",
	"wheelwright.fleet.v1.FleetService.GetRollout":         "avroq",
	"wheelwright.fleet.v1.FleetService.ExportAudit":        "avroq",
	"wheelwright.fleet.v1.FleetService.ListOperators":      "avroq",
	"wheelwright.fleet.v1.FleetService.AddDistribution":    "ar",
	"wheelwright.fleet.v1.FleetService.RemoveDistribution": "ar",
	"wheelwright.fleet.v1.FleetService.SetSigners":         "ar",
	"wheelwright.fleet.v1.FleetService.PublishStatement":   "ar",
	"wheelwright.fleet.v1.FleetService.GetChannel":         "avroq",
	"wheelwright.fleet.v1.FleetService.StartRollout":       "aro",
	"wheelwright.fleet.v1.FleetService.RecallRelease":      "ar",
	"wheelwright.fleet.v1.FleetService.InviteCluster":      "ao",
	"wheelwright.fleet.v1.FleetService.RemoveCluster":      "ao",
	"wheelwright.fleet.v1.FleetService.AcceptCluster":      "ao",
	"wheelwright.fleet.v1.FleetService.RejectCluster":      "ao",
	"wheelwright.fleet.v1.FleetService.AddOperator":        "ao",
	"wheelwright.fleet.v1.FleetService.RemoveOperator":     "ao",

	"wheelwright.fleet.v1.FleetService.SendOrder":   "aop",
	"wheelwright.fleet.v1.FleetService.ListOrders":  "avroqp",
	"wheelwright.fleet.v1.FleetService.SendReHome":  "aop",
	"wheelwright.fleet.v1.FleetService.ListReHomes": "avroqp",
	"wheelwright.fleet.v1.FleetService.WhoAmI":      "avroqp",
	"wheelwright.fleet.v1.FleetService.CanI":        "avroqp",

	"wheelwright.fleet.v1.FleetService.RenewOperator":   "avroqp",
	"wheelwright.fleet.v1.FleetService.GetAuthority":    "avo",
	"wheelwright.fleet.v1.FleetService.RotateAuthority": "a",
	"wheelwright.fleet.v1.FleetService.Backup":          "a",
	"wheelwright.fleet.v1.FleetService.RetireAuthority": "a",

	"grpc.health.v1.Health.Check":                                   "scavroqp",
	"grpc.health.v1.Health.List":                                    "scavroqp",
	"grpc.health.v1.Health.Watch":                                   "scavroqp",
	"grpc.reflection.v1.ServerReflection.ServerReflectionInfo":      "cavroqp",
	"grpc.reflection.v1alpha.ServerReflection.ServerReflectionInfo": "cavroqp",
}

// Every method of every service that the descriptors know, by everyone.
func TestEveryMethodIsOpenToExactlyItsAudience(t *testing.T) {
	h := build(t, services{}, time.Second)
	former := h.spoke("acme/former")
	must(t, h.store.RemoveCluster("acme/former"))
	gone := h.operatorAs("gone", "admin")
	must(t, h.removeOperator("gone"))
	callers := []struct {
		name, letter string
		conn         *grpc.ClientConn
	}{
		{"stranger", "s", h.dial(nil)},
		{"former spoke", "s", h.dial(former)},
		{"former admin", "s", h.dial(gone)},
		{"spoke", "c", h.dial(h.spoke(eu))},
		{"admin", "a", h.dial(h.operator())},
		{"viewer", "v", h.dial(h.operatorAs("maria", "viewer"))},
		{"vendor-release", "r", h.dial(h.operatorAs("rita", "vendor-release"))},
		{"vendor-operator", "o", h.dial(h.operatorAs("otto", "vendor-operator"))},
		{"approver", "q", h.dial(h.operatorAs("quentin", "approver:qa"))},
		{"provider", "p", h.dial(h.operatorAs("petra", "provider:acme"))},
	}
	tried := map[protoreflect.FullName]bool{}
	for _, service := range described() {
		for i := range service.Methods().Len() {
			m := service.Methods().Get(i)
			who, known := may[m.FullName()]
			if !known {
				t.Errorf("%s: nobody said who may call it", m.FullName())
				continue
			}
			tried[m.FullName()] = true
			for _, c := range callers {
				err := callWith(t.Context(), t, c.conn, m)
				denied := refusedCode(err)
				if code := status.Code(err); code == codes.Unavailable || code == codes.DeadlineExceeded {
					t.Errorf("%s by %s: %v", m.FullName(), c.name, err)
				}
				if denied == strings.Contains(who, c.letter) {
					t.Errorf("%s by %s: %v, want allowed %v", m.FullName(), c.name, err, !denied)
				}
				if denied && c.letter != "s" && c.letter != "c" && service.Name() == "FleetService" {
					// Who, what, and what to type.
					wantCode(t, err, codes.PermissionDenied, "operator ", string(m.Name()), "hub operator add NAME --role", "admin")
				}
			}
		}
	}
	for name := range may {
		if !tried[name] {
			t.Errorf("%s: there is no such method", name)
		}
	}
}

func described() (all []protoreflect.ServiceDescriptor) {
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		if p := string(f.Package()); !strings.HasPrefix(p, "wheelwright.") && p != "grpc.health.v1" && !strings.HasPrefix(p, "grpc.reflection.") {
			return true
		}
		for i := range f.Services().Len() {
			all = append(all, f.Services().Get(i))
		}
		return true
	})
	return all
}

// refusedCode: the call was not let through.
func refusedCode(err error) bool {
	code := status.Code(err)
	return code == codes.Unauthenticated || code == codes.PermissionDenied
}

// callWith makes one call with an empty message and returns how it ended; nil for a stream that answers.
func callWith(ctx context.Context, t *testing.T, conn *grpc.ClientConn, m protoreflect.MethodDescriptor) error {
	t.Helper()
	path := "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
	in, out := dynamicpb.NewMessage(m.Input()), dynamicpb.NewMessage(m.Output())
	if !m.IsStreamingClient() && !m.IsStreamingServer() {
		return conn.Invoke(ctx, path, in, out)
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: m.IsStreamingClient(), ServerStreams: true}, path)
	must(t, err)
	_ = stream.SendMsg(in) // a stream that was refused says so below
	if err := stream.RecvMsg(out); err != nil {
		return err
	}
	return stream.CloseSend()
}

func TestAMethodThatIsNotThereIsRefused(t *testing.T) {
	h := build(t, services{}, time.Second)
	for _, certificate := range []*tls.Certificate{nil, h.operator()} {
		in := dynamicpb.NewMessage(described()[0].Methods().Get(0).Input())
		err := h.dial(certificate).Invoke(t.Context(), "/wheelwright.fleet.v1.FleetService/NoSuchMethod", in, in)
		wantCode(t, err, codes.Unimplemented)
	}
}
