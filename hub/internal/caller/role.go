package caller

import (
	"fmt"
	"regexp"
	"strings"
)

// Kind is the sort of a role.
type Kind string

const (
	Admin          Kind = "admin"           // everything
	Viewer         Kind = "viewer"          // everything that only reads
	VendorRelease  Kind = "vendor-release"  // what goes out: distributions, recalls, rollouts
	VendorOperator Kind = "vendor-operator" // to whom: clusters, operators below its rank, rollouts, signed orders and re-homes
	Approver       Kind = "approver"        // reads, and answers for its role where a rollout's plan asks for it
	Provider       Kind = "provider"        // its own clusters only
)

// Role is what the hub's record lets an operator do. The zero Role lets it do nothing.
type Role struct {
	Kind Kind
	Of   string // an Approver's role, a Provider's name
}

var roleName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// RoleForms are the roles as people write them.
const RoleForms = "admin, viewer, vendor-release, vendor-operator, approver:ROLE as plans name it (approver:qa), or provider:PROVIDER as clusters do (provider:acme)"

// ParseRole reads what RoleForms says.
func ParseRole(s string) (Role, error) {
	kind, of, colon := strings.Cut(s, ":")
	r := Role{Kind: Kind(kind), Of: of}
	switch r.Kind {
	case Admin, Viewer, VendorRelease, VendorOperator:
		if !colon {
			return r, nil
		}
	case Approver:
		if of == string(Admin) { // the rollout engine takes it for the admin's own word
			return Role{}, fmt.Errorf("role %q: who approves as an admin is one; write admin", s)
		}
		if roleName.MatchString(of) {
			return r, nil
		}
	case Provider:
		if roleName.MatchString(of) {
			return r, nil
		}
	}
	return Role{}, fmt.Errorf("role %q: want %s", s, RoleForms)
}

// String is what ParseRole reads.
func (r Role) String() string {
	if r.Of == "" {
		return string(r.Kind)
	}
	return string(r.Kind) + ":" + r.Of
}

// Approves is the role for which it answers where a plan asks; empty: for none.
func (r Role) Approves() string {
	switch r.Kind {
	case Admin:
		return string(Admin)
	case Approver:
		return r.Of
	}
	return ""
}

// Steers: it may pause, resume, abort and undo rollouts.
func (r Role) Steers() bool {
	return r.Kind == Admin || r.Kind == VendorRelease || r.Kind == VendorOperator
}

// Outranks: who has r may give the other role, and take it away. Whoever could make an approver could answer
// every gate through it, and whoever could make a vendor-release could publish.
func (r Role) Outranks(other Role) bool {
	switch r.Kind {
	case Admin:
		return true
	case VendorOperator:
		return other.Kind == Viewer || other.Kind == Provider
	}
	return false
}
