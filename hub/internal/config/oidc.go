package config

import (
	"crypto/x509"
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
)

// OIDC says whose tokens are taken for operators. The zero OIDC: nobody's.
type OIDC struct {
	Issuer, ClientID string
	Username, Groups string            // claims; empty: the default
	Required         map[string]string // claims that have to have these values
	CA               *x509.CertPool    // nil: the system's
	Bindings         []OIDCBinding     // the first that fits gives the role
}

// OIDCBinding gives a role to users and groups.
type OIDCBinding struct {
	Role   caller.Role
	Users  []string
	Groups []string
}

func (d *decoder) oidc(key string, v any) (o OIDC) {
	if v == nil {
		return o
	}
	m, ok := v.(map[string]any)
	if !ok {
		d.problem(key, "want a mapping with issuer, clientID and bindings")
		return o
	}
	d.section(key, m, "issuer", "clientID", "usernameClaim", "groupsClaim", "requiredClaims", "caFile", "bindings")
	o.Issuer, _ = d.text(key+".issuer", m["issuer"])
	if u, err := url.Parse(o.Issuer); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		d.problem(key+".issuer", "%q: want the issuer's https URL, as its tokens have it", o.Issuer)
	}
	if o.ClientID, ok = d.text(key+".clientID", m["clientID"]); !ok {
		d.problem(key+".clientID", "is missing: the audience that a token has to be made for")
	}
	o.Username, _ = d.text(key+".usernameClaim", m["usernameClaim"])
	o.Groups, _ = d.text(key+".groupsClaim", m["groupsClaim"])
	o.Required = d.claims(key+".requiredClaims", m["requiredClaims"])
	if file, ok := d.text(key+".caFile", m["caFile"]); ok {
		o.CA = d.authorities(key+".caFile", d.local(file))
	}
	list, ok := m["bindings"].([]any)
	if !ok || len(list) == 0 {
		d.problem(key+".bindings", "is missing: who gets which role, such as {role: viewer, groups: [engineering]}")
	}
	for n, item := range list {
		o.Bindings = append(o.Bindings, d.binding(fmt.Sprintf("%s.bindings[%d]", key, n), item))
	}
	return o
}

func (d *decoder) claims(key string, v any) map[string]string {
	if v == nil {
		return nil
	}
	m, ok := v.(map[string]any)
	if !ok {
		d.problem(key, "want a mapping from a claim to the text that it has to be")
		return nil
	}
	all := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if all[name], ok = d.text(key+"."+name, m[name]); !ok {
			d.problem(key+"."+name, "want the text that the claim has to be")
		}
	}
	return all
}

func (d *decoder) authorities(key, file string) *x509.CertPool {
	text, err := os.ReadFile(file)
	pool := x509.NewCertPool()
	switch {
	case err != nil:
		d.problem(key, "%v", err)
	case !pool.AppendCertsFromPEM(text):
		d.problem(key, "%s holds no certificate in PEM", file)
	}
	return pool
}

func (d *decoder) binding(key string, v any) (b OIDCBinding) {
	m, ok := v.(map[string]any)
	if !ok {
		d.problem(key, "want a mapping with role, and users or groups")
		return b
	}
	d.section(key, m, "role", "users", "groups")
	role, _ := d.text(key+".role", m["role"])
	var err error
	if b.Role, err = caller.ParseRole(role); err != nil {
		d.problem(key+".role", "%v", err)
	}
	b.Users, b.Groups = d.names(key+".users", m["users"]), d.names(key+".groups", m["groups"])
	if len(b.Users) == 0 && len(b.Groups) == 0 {
		d.problem(key, "names neither users nor groups: nobody gets the role")
	}
	return b
}

func (d *decoder) names(key string, v any) (all []string) {
	if v == nil {
		return nil
	}
	list, ok := v.([]any)
	if !ok {
		d.problem(key, "want a list of names, got %v", v)
	}
	for n, item := range list {
		s, ok := item.(string)
		if !ok || s == "" {
			d.problem(fmt.Sprintf("%s[%d]", key, n), "want a name, got %v", item)
			continue
		}
		all = append(all, s)
	}
	return all
}
