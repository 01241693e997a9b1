// Package access is the hub's table of who may call what: read from the options that proto declares beside each
// method, and closed, so that nobody may call a method that does not say. The server judges every call by it,
// `hub auth can-i` answers from it, and the table in this package's README is printed from it.
//
// It knows kinds of callers and methods, no objects: that an operator of a provider reaches the provider's own
// clusters alone, and an approver answers for its own role, is the services' to see to.
package access

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	accessv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/access/v1"
	enrollv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/enroll/v1"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
	relayv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/relay/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// Audience is a set of kinds of callers.
type Audience uint16

// The kinds, one bit each.
const (
	Strangers       Audience = 1 << accessv1.Caller_CALLER_STRANGER
	Spokes          Audience = 1 << accessv1.Caller_CALLER_SPOKE
	Admins          Audience = 1 << accessv1.Caller_CALLER_ADMIN
	Viewers         Audience = 1 << accessv1.Caller_CALLER_VIEWER
	VendorReleases  Audience = 1 << accessv1.Caller_CALLER_VENDOR_RELEASE
	VendorOperators Audience = 1 << accessv1.Caller_CALLER_VENDOR_OPERATOR
	Approvers       Audience = 1 << accessv1.Caller_CALLER_APPROVER
	Providers       Audience = 1 << accessv1.Caller_CALLER_PROVIDER
	Relays          Audience = 1 << accessv1.Caller_CALLER_RELAY
)

// Sets of them.
const (
	Nobody    Audience = 0
	Vendors            = Admins | Viewers | VendorReleases | VendorOperators | Approvers // they see the whole fleet
	Operators          = Vendors | Providers
	Anyone             = Strangers | Spokes | Operators
)

// kinds in the order in which people read them; the name is a role's for operators.
func kinds() []struct {
	Is   Audience
	Name string
} {
	return []struct {
		Is   Audience
		Name string
	}{{Strangers, "stranger"}, {Spokes, "spoke"}, {Relays, "relay"}, {Admins, "admin"}, {Viewers, "viewer"}, {VendorReleases, "vendor-release"},
		{VendorOperators, "vendor-operator"}, {Approvers, "approver:ROLE"}, {Providers, "provider:PROVIDER"}}
}

// Of is the kind that a caller is of. An operator whose role this hub does not know is of none.
func Of(c caller.Caller) Audience {
	switch {
	case c.Spoke():
		return Spokes
	case c.Relay != "":
		return Relays
	}
	switch c.Role.Kind {
	case caller.Admin:
		return Admins
	case caller.Viewer:
		return Viewers
	case caller.VendorRelease:
		return VendorReleases
	case caller.VendorOperator:
		return VendorOperators
	case caller.Approver:
		return Approvers
	case caller.Provider:
		return Providers
	}
	return Nobody
}

// Roles are the operators of a set, by their roles.
func (a Audience) Roles() (names []string) {
	for _, k := range kinds() {
		if a&k.Is&Operators != 0 {
			names = append(names, k.Name)
		}
	}
	return names
}

// Rule is what the table says of one method. The zero Rule: nobody may call it.
type Rule struct {
	May         Audience
	Endless     bool // a stream that lasts until one side ends it
	OwnClusters bool // a provider's operator may call it about the provider's clusters alone
}

// Table holds rules by "/package.Service/Method". It is never changed after Read.
type Table map[string]Rule

// Read makes the table: every method of the hub's own services as its option says, and fixed rows for the
// standard services beside them. A method without the option has no row.
func Read() (Table, error) {
	t := Table{
		"/grpc.health.v1.Health/Check":                                   {May: Anyone},
		"/grpc.health.v1.Health/List":                                    {May: Anyone},
		"/grpc.health.v1.Health/Watch":                                   {May: Anyone, Endless: true},
		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      {May: Spokes | Operators},
		"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": {May: Spokes | Operators},
	}
	for _, m := range declared() {
		r, err := ruleOf(m)
		if err != nil {
			return nil, err
		}
		if r.May != Nobody {
			t[path(m)] = r
		}
	}
	return t, nil
}

// declared are the methods of the hub's own services.
func declared() (all []protoreflect.MethodDescriptor) {
	for _, f := range []protoreflect.FileDescriptor{enrollv1.File_wheelwright_enroll_v1_enroll_proto, syncv1.File_wheelwright_sync_v1_sync_proto,
		relayv1.File_wheelwright_relay_v1_relay_proto,
		fleetv1.File_wheelwright_fleet_v1_fleet_proto} {
		for i := range f.Services().Len() {
			methods := f.Services().Get(i).Methods()
			for j := range methods.Len() {
				all = append(all, methods.Get(j))
			}
		}
	}
	return all
}

func path(m protoreflect.MethodDescriptor) string {
	return "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
}

// ruleOf reads one method's option.
func ruleOf(m protoreflect.MethodDescriptor) (Rule, error) {
	o, _ := proto.GetExtension(m.Options(), accessv1.E_Access).(*accessv1.Access)
	r := Rule{Endless: o.GetEndless(), OwnClusters: o.GetOwnClusters()}
	for _, c := range o.GetCallers() {
		if c <= accessv1.Caller_CALLER_UNSPECIFIED || c > accessv1.Caller_CALLER_RELAY {
			return Rule{}, fmt.Errorf("who may call %s: %v is no kind of caller", m.FullName(), c)
		}
		r.May |= 1 << c
	}
	if r.OwnClusters && r.May&Providers == 0 {
		return Rule{}, fmt.Errorf("who may call %s: own_clusters without a provider's operators among the callers", m.FullName())
	}
	return r, nil
}

// Fleet are the methods that operators call, as the service declares them.
func Fleet() (names []string) {
	for _, m := range declared() {
		if m.Parent().FullName() == fleetv1.File_wheelwright_fleet_v1_fleet_proto.Services().Get(0).FullName() {
			names = append(names, string(m.Name()))
		}
	}
	return names
}

// Operator is the rule of one of Fleet's methods.
func (t Table) Operator(method string) Rule {
	return t["/"+string(fleetv1.File_wheelwright_fleet_v1_fleet_proto.Services().Get(0).FullName())+"/"+method]
}

// Markdown is the table for people: a row for each method, a column for each kind of caller.
func (t Table) Markdown() string {
	var b strings.Builder
	b.WriteString("| method |")
	for _, k := range kinds() {
		name, _, _ := strings.Cut(k.Name, ":")
		b.WriteString(" " + name + " |")
	}
	b.WriteString("\n|---|" + strings.Repeat(":-:|", len(kinds())) + "\n")
	row := func(name string, r Rule) {
		b.WriteString("| `" + name + "` |")
		for _, k := range kinds() {
			cell := ""
			if r.May&k.Is != 0 {
				cell = "yes"
			}
			if cell != "" && k.Is == Providers && r.OwnClusters {
				cell = "own clusters"
			}
			b.WriteString(" " + cell + " |")
		}
		b.WriteString("\n")
	}
	own := map[string]bool{}
	for _, m := range declared() {
		own[path(m)] = true
		row(string(m.Parent().Name())+"/"+string(m.Name()), t[path(m)])
	}
	var fixed []string
	for p := range t {
		if !own[p] {
			fixed = append(fixed, p)
		}
	}
	slices.Sort(fixed)
	for _, p := range fixed {
		row(strings.TrimPrefix(p, "/"), t[p])
	}
	return b.String()
}
