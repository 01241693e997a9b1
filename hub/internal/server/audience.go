package server

import (
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
)

// audience is who may call a method: a set.
type audience uint8

const (
	strangers audience = 1 << iota
	spokes
	admins
	viewers
	approvers
	providers

	nobody    audience = 0
	readers            = admins | viewers | approvers // they see the whole fleet
	operators          = readers | providers
	anyone             = strangers | spokes | operators
)

// audienceOf is the whole of the hub's authorisation, by service and method: nobody may call what is not
// named here, a method that was added later included. What a provider may call still answers for its own
// clusters alone, and what an approver may call for its own role: that is the service's to see to.
func audienceOf(service, method string) audience {
	switch service {
	case "wheelwright.enroll.v1.EnrollService", "grpc.health.v1.Health":
		return anyone
	case "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection":
		return spokes | operators
	case "wheelwright.sync.v1.SyncService":
		switch method {
		case "Connect", "FetchBundle", "Renew":
			return spokes
		}
	case "wheelwright.fleet.v1.FleetService":
		switch method {
		case "GetVersion", "GetStatus", "Watch", "Explain", "ListEvents", "ListReleases", "ListClusters", "ListPins":
			return operators
		case "PinCluster", "UnpinCluster", "DecideDelivery":
			return admins | providers
		case "DecideRollout":
			return admins | approvers
		case "ListDistributions", "GetRelease", "PlanRollout", "ListRollouts", "GetRollout", "ExportAudit", "ListOperators":
			return readers
		case "AddDistribution", "RemoveDistribution", "StartRollout", "RecallRelease", "InviteCluster", "RemoveCluster",
			"AcceptCluster", "RejectCluster",
			"AddOperator", "RemoveOperator":
			return admins
		}
	}
	return nobody
}

// audience is the one that the caller is of. An operator whose role this hub does not know is of none.
func (c *call) audience() audience {
	switch {
	case c.stranger != "":
		return strangers
	case c.who.Spoke():
		return spokes
	}
	switch c.who.Role.Kind {
	case caller.Admin:
		return admins
	case caller.Viewer:
		return viewers
	case caller.Approver:
		return approvers
	case caller.Provider:
		return providers
	}
	return nobody
}

// endless names the streams that last until one side ends them, so that a stopping hub has to.
func endless(method string) bool {
	switch method {
	case "/wheelwright.sync.v1.SyncService/Connect", "/wheelwright.fleet.v1.FleetService/Watch", "/grpc.health.v1.Health/Watch":
		return true
	}
	return false
}

// allowed says whether the caller may call the method, and if not, why and what to do.
func (c *call) allowed() error {
	service, method, _ := strings.Cut(strings.TrimPrefix(c.method, "/"), "/")
	may, is := audienceOf(service, method), c.audience()
	switch {
	case may&is != 0:
		return nil
	case may == nobody:
		return status.Errorf(codes.PermissionDenied, "nobody may call %s of %s", method, service)
	case c.refused != nil:
		return c.refused
	case is == strangers:
		return status.Errorf(codes.Unauthenticated, "%s; %s", c.stranger, remedy(may))
	case is == spokes, may&operators == 0:
		return status.Errorf(codes.PermissionDenied, "%s may not call %s; %s", c.who, service, remedy(may))
	}
	return status.Errorf(codes.PermissionDenied, "%s, whose role is %q, may not call %s: it is for %s; an admin gives a role with `hub operator add NAME --role ROLE`",
		c.who, c.who.Role, method, may.roles())
}

// roles names those of operators.
func (a audience) roles() string {
	var names []string
	for _, r := range []struct {
		is   audience
		name string
	}{{admins, "admin"}, {viewers, "viewer"}, {approvers, "approver:ROLE"}, {providers, "provider:PROVIDER"}} {
		if a&r.is != 0 {
			names = append(names, r.name)
		}
	}
	return strings.Join(names, " or ")
}

func remedy(a audience) string {
	var ways []string
	if a&spokes != 0 {
		ways = append(ways, "a spoke gets a certificate with `hub cluster invite PROVIDER/NAME` at the hub and the `spoke join` line that it prints")
	}
	if a&operators != 0 {
		ways = append(ways, fmt.Sprintf("an operator uses DIR/admin.yaml, which `hub serve --data DIR` writes, or the file of `hub operator add NAME --role ROLE` (%s)", a.roles()))
	}
	return strings.Join(ways, ", ")
}
