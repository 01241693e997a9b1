package server

import (
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// audience is who may call a service.
type audience int

const (
	nobody audience = iota
	anyone
	identified // a spoke or an operator
	spokes
	operators
)

// audienceOf is the whole of the hub's authorisation, by service and method: nobody may call what is not
// named here, a method that was added later included.
func audienceOf(service, method string) audience {
	switch service {
	case "wheelwright.enroll.v1.EnrollService", "grpc.health.v1.Health":
		return anyone
	case "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection":
		return identified
	case "wheelwright.sync.v1.SyncService":
		switch method {
		case "Connect", "FetchBundle", "Renew":
			return spokes
		}
	case "wheelwright.fleet.v1.FleetService":
		switch method {
		case "GetVersion", "GetStatus", "Watch", "Explain", "ListEvents", "ExportAudit",
			"AddDistribution", "RemoveDistribution", "ListDistributions",
			"ListReleases", "GetRelease", "RecallRelease",
			"InviteCluster", "RemoveCluster", "ListClusters",
			"PlanRollout", "StartRollout", "ListRollouts", "GetRollout", "DecideRollout",
			"PinCluster", "UnpinCluster", "ListPins", "DecideDelivery":
			return operators
		}
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
	who := audienceOf(service, method)
	switch who {
	case anyone:
		return nil
	case nobody:
		return status.Errorf(codes.PermissionDenied, "nobody may call %s of %s", method, service)
	}
	if c.stranger != "" {
		return status.Errorf(codes.Unauthenticated, "%s; %s", c.stranger, remedy(who))
	}
	if (who == spokes && !c.who.Spoke()) || (who == operators && c.who.Spoke()) {
		return status.Errorf(codes.PermissionDenied, "%s may not call %s; %s", c.who, service, remedy(who))
	}
	return nil
}

func remedy(a audience) string {
	join := "a spoke gets a certificate with `hub cluster invite PROVIDER/NAME` at the hub and the `spoke join` line that it prints"
	operate := "an operator uses DIR/admin.yaml, which `hub serve --data DIR` writes"
	switch a {
	case spokes:
		return join
	case operators:
		return operate
	}
	return join + ", " + operate
}
