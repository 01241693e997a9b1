package server_test

import (
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

// access is who may call what: s a stranger, c a cluster's spoke, and of operators a admin, v viewer, q an
// approver, p a provider. A method that is in no row fails the test.
var access = map[protoreflect.FullName]string{
	"wheelwright.enroll.v1.EnrollService.Enroll": "scavqp",

	"wheelwright.sync.v1.SyncService.Connect":     "c",
	"wheelwright.sync.v1.SyncService.FetchBundle": "c",
	"wheelwright.sync.v1.SyncService.Renew":       "c",

	"wheelwright.fleet.v1.FleetService.GetVersion":         "avqp",
	"wheelwright.fleet.v1.FleetService.GetStatus":          "avqp",
	"wheelwright.fleet.v1.FleetService.Watch":              "avqp",
	"wheelwright.fleet.v1.FleetService.Explain":            "avqp",
	"wheelwright.fleet.v1.FleetService.ListEvents":         "avqp",
	"wheelwright.fleet.v1.FleetService.ListReleases":       "avqp",
	"wheelwright.fleet.v1.FleetService.ListClusters":       "avqp",
	"wheelwright.fleet.v1.FleetService.ListPins":           "avqp",
	"wheelwright.fleet.v1.FleetService.PinCluster":         "ap",
	"wheelwright.fleet.v1.FleetService.UnpinCluster":       "ap",
	"wheelwright.fleet.v1.FleetService.DecideDelivery":     "ap",
	"wheelwright.fleet.v1.FleetService.DecideRollout":      "aq",
	"wheelwright.fleet.v1.FleetService.ListDistributions":  "avq",
	"wheelwright.fleet.v1.FleetService.GetRelease":         "avq",
	"wheelwright.fleet.v1.FleetService.PlanRollout":        "avq",
	"wheelwright.fleet.v1.FleetService.ListRollouts":       "avq",
	"wheelwright.fleet.v1.FleetService.GetRollout":         "avq",
	"wheelwright.fleet.v1.FleetService.ExportAudit":        "avq",
	"wheelwright.fleet.v1.FleetService.ListOperators":      "avq",
	"wheelwright.fleet.v1.FleetService.AddDistribution":    "a",
	"wheelwright.fleet.v1.FleetService.RemoveDistribution": "a",
	"wheelwright.fleet.v1.FleetService.StartRollout":       "a",
	"wheelwright.fleet.v1.FleetService.RecallRelease":      "a",
	"wheelwright.fleet.v1.FleetService.InviteCluster":      "a",
	"wheelwright.fleet.v1.FleetService.RemoveCluster":      "a",
	"wheelwright.fleet.v1.FleetService.AcceptCluster":      "a",
	"wheelwright.fleet.v1.FleetService.RejectCluster":      "a",
	"wheelwright.fleet.v1.FleetService.AddOperator":        "a",
	"wheelwright.fleet.v1.FleetService.RemoveOperator":     "a",

	"grpc.health.v1.Health.Check":                                   "scavqp",
	"grpc.health.v1.Health.List":                                    "scavqp",
	"grpc.health.v1.Health.Watch":                                   "scavqp",
	"grpc.reflection.v1.ServerReflection.ServerReflectionInfo":      "cavqp",
	"grpc.reflection.v1alpha.ServerReflection.ServerReflectionInfo": "cavqp",
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
		{"approver", "q", h.dial(h.operatorAs("quentin", "approver:qa"))},
		{"provider", "p", h.dial(h.operatorAs("petra", "provider:acme"))},
	}
	tried := map[protoreflect.FullName]bool{}
	for _, service := range described() {
		for i := range service.Methods().Len() {
			m := service.Methods().Get(i)
			may, known := access[m.FullName()]
			if !known {
				t.Errorf("%s: nobody said who may call it", m.FullName())
				continue
			}
			tried[m.FullName()] = true
			for _, c := range callers {
				err := call(t, c.conn, m)
				code := status.Code(err)
				denied := code == codes.Unauthenticated || code == codes.PermissionDenied
				if code == codes.Unavailable || code == codes.DeadlineExceeded {
					t.Errorf("%s by %s: %v", m.FullName(), c.name, err)
				}
				if denied == strings.Contains(may, c.letter) {
					t.Errorf("%s by %s: %v, want allowed %v", m.FullName(), c.name, err, !denied)
				}
				if denied && c.letter != "s" && c.letter != "c" && service.Name() == "FleetService" {
					// Who, what, and what to type.
					wantCode(t, err, codes.PermissionDenied, "operator ", string(m.Name()), "hub operator add NAME --role", "admin")
				}
			}
		}
	}
	for name := range access {
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

// call makes one call with an empty message and returns how it ended; nil for a stream that answers.
func call(t *testing.T, conn *grpc.ClientConn, m protoreflect.MethodDescriptor) error {
	t.Helper()
	path := "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
	in, out := dynamicpb.NewMessage(m.Input()), dynamicpb.NewMessage(m.Output())
	if !m.IsStreamingClient() && !m.IsStreamingServer() {
		return conn.Invoke(t.Context(), path, in, out)
	}
	stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: m.IsStreamingClient(), ServerStreams: true}, path)
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
