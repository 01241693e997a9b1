package access

import (
	"os"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	accessv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/access/v1"
)

func table(t *testing.T) Table {
	t.Helper()
	all, err := Read()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Whoever adds a method says who may call it.
func TestEveryMethodSaysWhoMayCallIt(t *testing.T) {
	all := table(t)
	for _, m := range declared() {
		if all[path(m)].May == Nobody {
			t.Errorf("%s: no option (wheelwright.access.v1.access) says who may call it, so nobody may", m.FullName())
		}
	}
	if all["/wheelwright.fleet.v1.FleetService/NoSuchMethod"].May != Nobody || all["/wheelwright.local.v1.LocalService/RollBack"].May != Nobody {
		t.Error("somebody may call what no service of the hub declares")
	}
}

// made is a method of a service that is not there, with an option.
func made(t *testing.T, o *accessv1.Access) protoreflect.MethodDescriptor {
	t.Helper()
	options := &descriptorpb.MethodOptions{}
	if o != nil {
		proto.SetExtension(options, accessv1.E_Access, o)
	}
	f, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{Name: proto.String("a.proto"), Package: proto.String("a"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("M")}},
		Service: []*descriptorpb.ServiceDescriptorProto{{Name: proto.String("S"), Method: []*descriptorpb.MethodDescriptorProto{
			{Name: proto.String("Do"), InputType: proto.String(".a.M"), OutputType: proto.String(".a.M"), Options: options}}}}}, protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	return f.Services().Get(0).Methods().Get(0)
}

func TestAMethodThatDoesNotSayIsNobodys(t *testing.T) {
	for _, o := range []*accessv1.Access{nil, {}, {Endless: true}} {
		if r, err := ruleOf(made(t, o)); err != nil || r.May != Nobody {
			t.Errorf("%v: %+v, %v", o, r, err)
		}
	}
	for _, o := range []*accessv1.Access{
		{Callers: []accessv1.Caller{accessv1.Caller_CALLER_UNSPECIFIED}},
		{Callers: []accessv1.Caller{accessv1.Caller_CALLER_ADMIN, 99}},
		{Callers: []accessv1.Caller{accessv1.Caller_CALLER_ADMIN, -1}},
		{Callers: []accessv1.Caller{accessv1.Caller_CALLER_ADMIN}, OwnClusters: true},
	} {
		if r, err := ruleOf(made(t, o)); err == nil || r.May != Nobody {
			t.Errorf("%v: %+v, %v", o, r, err)
		}
	}
	r, err := ruleOf(made(t, &accessv1.Access{Callers: []accessv1.Caller{accessv1.Caller_CALLER_ADMIN, accessv1.Caller_CALLER_PROVIDER}, OwnClusters: true}))
	if err != nil || r != (Rule{May: Admins | Providers, OwnClusters: true}) {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestCallersAreOfOneKind(t *testing.T) {
	for _, role := range []string{"admin", "viewer", "vendor-release", "vendor-operator", "approver:qa", "provider:acme"} {
		r, err := caller.ParseRole(role)
		if err != nil {
			t.Fatal(err)
		}
		kind := Of(caller.Caller{Operator: "a", Role: r})
		want, _, _ := strings.Cut(role, ":")
		if got := kind.Roles(); len(got) != 1 || !strings.HasPrefix(got[0], want) {
			t.Errorf("%s is of %v", role, got)
		}
		// A record that names a cluster is a spoke's, whatever else is in it.
		if Of(caller.Caller{Cluster: fleet.Cluster("acme/eu-1"), Operator: "a", Role: r}) != Spokes {
			t.Errorf("a spoke with the role %s is no spoke", role)
		}
	}
	for _, c := range []caller.Caller{{}, {Operator: "a"}, {Operator: "a", Role: caller.Role{Kind: "root"}}} {
		if Of(c) != Nobody {
			t.Errorf("%+v is somebody", c)
		}
	}
}

// The README's table is this one: `WRITE=1 go test ./hub/internal/access` writes it anew.
func TestTheTableInTheReadme(t *testing.T) {
	const file, begin, end = "README.md", "<!-- the table: begin -->\n", "<!-- the table: end -->"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	have, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatal("README.md has no place for the table")
	}
	want := table(t).Markdown()
	if have == want {
		return
	}
	if os.Getenv("WRITE") != "" {
		if err := os.WriteFile(file, []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("README.md has another table than the descriptors; write it anew with WRITE=1:\n%s", want)
}
