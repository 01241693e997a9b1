package caller

import (
	"fmt"
	"regexp"
	"strings"
)

// Kind is the sort of a role.
type Kind string

const (
	Admin    Kind = "admin"    // everything
	Viewer   Kind = "viewer"   // everything that only reads
	Approver Kind = "approver" // reads, and answers for its role where a rollout's plan asks for it
	Provider Kind = "provider" // its own clusters only
)

// Role is what the hub's record lets an operator do. The zero Role lets it do nothing.
type Role struct {
	Kind Kind
	Of   string // an Approver's role, a Provider's name
}

var roleName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// ParseRole reads "admin", "viewer", "approver:ROLE" or "provider:PROVIDER".
func ParseRole(s string) (Role, error) {
	kind, of, colon := strings.Cut(s, ":")
	r := Role{Kind: Kind(kind), Of: of}
	switch r.Kind {
	case Admin, Viewer:
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
	return Role{}, fmt.Errorf("role %q: want admin, viewer, approver:ROLE as plans name it (approver:qa), or provider:PROVIDER as clusters do (provider:acme)", s)
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
