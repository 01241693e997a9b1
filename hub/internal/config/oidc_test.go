package config

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/integration/issuer"
)

// The example's section says what it means, once it is no comment any more.
func TestTheExampleOfOIDC(t *testing.T) {
	text, err := os.ReadFile("../../../deploy/examples/hub.yaml")
	if err != nil {
		t.Fatal(err)
	}
	section := regexp.MustCompile(`(?m)^# oidc:\n(#.*\n)+`).Find(text)
	dir := t.TempDir()
	ca, err := os.ReadFile(issuer.New(t).CAFile)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "issuer-ca.pem"), ca, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	c, err := Parse(filepath.Join(dir, "hub.yaml"), []byte("version: 1\n"+regexp.MustCompile(`(?m)^# ?`).ReplaceAllString(string(section), "")))
	if err != nil {
		t.Fatal(err)
	}
	role := func(s string) caller.Role {
		r, err := caller.ParseRole(s)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	got := c.OIDC
	if got.CA == nil {
		t.Error("the authority is not read")
	}
	got.CA = nil
	want := OIDC{Issuer: "https://login.vendor.example", ClientID: "wheelwright", Username: "email", Groups: "groups", Required: map[string]string{"hd": "vendor.example"},
		Bindings: []OIDCBinding{{Role: role("vendor-operator"), Users: []string{"maria@vendor.example"}}, {Role: role("vendor-release"), Groups: []string{"release-engineering"}},
			{Role: role("viewer"), Groups: []string{"engineering", "support"}}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestAllThatIsWrongWithOIDC(t *testing.T) {
	for text, want := range map[string][]string{
		"oidc: yes please": {"oidc: want a mapping"},
		"oidc: {}":         {"oidc.issuer", "oidc.clientID: is missing", "oidc.bindings: is missing"},
		"oidc: {issuer: 'http://a.example', clientID: 7, usernameClaim: [], requiredClaims: {hd: 1}, caFile: nowhere.pem, secret: x, bindings: [{role: root, users: [7]}, {role: viewer}, 7]}": {
			"oidc.secret: unknown key", "oidc.issuer: \"http://a.example\": want the issuer's https URL", "oidc.clientID", "oidc.usernameClaim", "oidc.requiredClaims.hd",
			"nowhere.pem", "oidc.bindings[0].role", "oidc.bindings[0].users[0]", "oidc.bindings[1]: names neither", "oidc.bindings[2]: want a mapping"},
		"oidc: {issuer: 'https://user:pass@a.example', clientID: a, bindings: [{role: viewer, users: [a]}]}": {"oidc.issuer"},
		"oidc: {issuer: 'https://a.example?x=1', clientID: a, bindings: [{role: viewer, users: [a]}]}":       {"oidc.issuer"},
	} {
		_, err := Parse("hub.yaml", []byte("version: 1\n"+text))
		if err == nil {
			t.Errorf("%s: no error", text)
			continue
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: want %q in: %v", text, w, err)
			}
		}
	}
}
