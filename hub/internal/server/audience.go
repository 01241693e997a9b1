package server

import (
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/hub/internal/access"
)

// audience is the kind of caller that the caller is.
func (c *call) audience() access.Audience {
	if c.stranger != "" {
		return access.Strangers
	}
	return access.Of(c.who)
}

// unruled names what is registered and has no rule of who may call it.
func unruled(t access.Table, services map[string][]string) (names []string) {
	for service, methods := range services {
		if len(methods) == 0 {
			names = append(names, service)
		}
		for _, method := range methods {
			if t["/"+service+"/"+method].May == access.Nobody {
				names = append(names, service+"/"+method)
			}
		}
	}
	return names
}

// allowed says whether the caller may call the method, and if not, why and what to do.
func (c *call) allowed(t access.Table) error {
	service, method, _ := strings.Cut(strings.TrimPrefix(c.method, "/"), "/")
	may, is := t[c.method].May, c.audience()
	switch {
	case may&is != 0:
		return nil
	case may == access.Nobody:
		return status.Errorf(codes.PermissionDenied, "nobody may call %s of %s", method, service)
	case c.refused != nil:
		return c.refused
	case is == access.Strangers:
		return status.Errorf(codes.Unauthenticated, "%s; %s", c.stranger, remedy(may))
	case is == access.Spokes, is == access.Relays, may&access.Operators == 0:
		return status.Errorf(codes.PermissionDenied, "%s may not call %s; %s", c.who, service, remedy(may))
	}
	return status.Errorf(codes.PermissionDenied, "%s, whose role is %q, may not call %s: it is for %s; `hub auth can-i --list` says what it may, and an admin gives a role with `hub operator add NAME --role ROLE`",
		c.who, c.who.Role, method, strings.Join(may.Roles(), " or "))
}

func remedy(a access.Audience) string {
	var ways []string
	if a&access.Spokes != 0 {
		ways = append(ways, "a spoke gets a certificate with `hub cluster invite PROVIDER/NAME` at the hub and the `spoke join` line that it prints")
	}
	if a&access.Relays != 0 {
		ways = append(ways, "a relay gets a certificate with `hub relay invite NAME` at the hub and the `hub relay join` line that it prints")
	}
	if roles := a.Roles(); len(roles) > 0 {
		ways = append(ways, fmt.Sprintf("an operator uses DIR/admin.yaml, which `hub serve --data DIR` writes, or the file of `hub operator add NAME --role ROLE` (%s)", strings.Join(roles, " or ")))
	}
	return strings.Join(ways, ", ")
}
