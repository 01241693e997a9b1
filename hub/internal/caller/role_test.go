package caller

import (
	"strings"
	"testing"
)

func TestRolesAreReadAsTheyAreWritten(t *testing.T) {
	for text, approves := range map[string]string{"admin": "admin", "viewer": "", "approver:qa": "qa", "approver:release-board": "release-board", "provider:acme": ""} {
		r, err := ParseRole(text)
		if err != nil || r.String() != text || r.Approves() != approves {
			t.Errorf("%s: got %+v, %v, approves %q", text, r, err, r.Approves())
		}
	}
	for _, text := range []string{"", "root", "Admin", "admin:", "admin:all", "viewer:acme", "approver", "approver:", "approver:The Boss", "approver:admin", "provider", "provider:", "provider:acme/eu-1", "provider:*", "provider:acme,globex", " admin"} {
		if r, err := ParseRole(text); err == nil || !strings.Contains(err.Error(), "admin") || r != (Role{}) {
			t.Errorf("%q: got %+v, %v", text, r, err)
		}
	}
	if (Role{}).Approves() != "" {
		t.Error("no role approves something")
	}
}
