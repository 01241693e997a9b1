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

// access is who may call what; a service that is in no row may be called by nobody, and fails the test.
var access = map[protoreflect.FullName]struct{ stranger, spoke, operator bool }{
	"wheelwright.enroll.v1.EnrollService":      {true, true, true},
	"wheelwright.sync.v1.SyncService":          {false, true, false},
	"wheelwright.fleet.v1.FleetService":        {false, false, true},
	"grpc.health.v1.Health":                    {true, true, true},
	"grpc.reflection.v1.ServerReflection":      {false, true, true},
	"grpc.reflection.v1alpha.ServerReflection": {false, true, true},
}

// Every method of every service that the descriptors know, by everyone.
func TestEveryMethodIsOpenToExactlyItsAudience(t *testing.T) {
	h := build(t, services{}, time.Second)
	former := h.spoke("acme/former")
	must(t, h.store.RemoveCluster("acme/former"))
	callers := []struct {
		name string
		conn *grpc.ClientConn
		may  func(protoreflect.FullName) bool
	}{
		{"stranger", h.dial(nil), func(s protoreflect.FullName) bool { return access[s].stranger }},
		{"former spoke", h.dial(former), func(s protoreflect.FullName) bool { return access[s].stranger }},
		{"spoke", h.dial(h.spoke(eu)), func(s protoreflect.FullName) bool { return access[s].spoke }},
		{"operator", h.dial(h.operator()), func(s protoreflect.FullName) bool { return access[s].operator }},
	}
	methods := 0
	for _, service := range described() {
		if _, known := access[service.FullName()]; !known {
			t.Errorf("%s: nobody said who may call it", service.FullName())
			continue
		}
		for i := range service.Methods().Len() {
			m := service.Methods().Get(i)
			methods++
			for _, c := range callers {
				err := call(t, c.conn, m)
				code := status.Code(err)
				denied := code == codes.Unauthenticated || code == codes.PermissionDenied
				if code == codes.Unavailable || code == codes.DeadlineExceeded {
					t.Errorf("%s by %s: %v", m.FullName(), c.name, err)
				}
				if denied == c.may(service.FullName()) {
					t.Errorf("%s by %s: %v, want allowed %v", m.FullName(), c.name, err, !denied)
				}
			}
		}
	}
	if methods < 15 {
		t.Errorf("only %d methods were tried", methods)
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
