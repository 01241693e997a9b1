package verify_test

import (
	"crypto/ed25519"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/order"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance/signer"
	"github.com/wheelwright-dev/wheelwright/pkg/rehome"
	"github.com/wheelwright-dev/wheelwright/pkg/token"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/verify"
)

// person is somebody with an SSH key.
type person struct {
	ssh.Signer
	name string
}

func somebody(t *testing.T, name string) person {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return person{s, name}
}

// listed is the person's line of allowed signers.
func (p person) listed(options string) string {
	return p.name + " " + options + " " + string(ssh.MarshalAuthorizedKey(p.PublicKey()))
}

const both = `namespaces="git,order@wheelwright.dev,re-home@wheelwright.dev"`

func TestWhoMayMoveASpoke(t *testing.T) {
	maria, ines, thief := somebody(t, "maria@acme.example"), somebody(t, "ines@acme.example"), somebody(t, "maria@acme.example")
	vendor, second := somebody(t, "release@vendor.example"), somebody(t, "second@vendor.example")
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	allow := verify.Operators{Cluster: "acme/eu-1", Files: []string{file("operators", maria.listed(both)+ines.listed(both))},
		Allow: []verify.Grant{{Principal: maria.name, ReHome: true}, {Principal: ines.name, Verbs: []order.Verb{order.RollBack}}}}
	with := func(change func(*verify.Operators)) verify.Operators {
		o := allow
		change(&o)
		return o
	}
	one := verify.Signers{Files: []string{file("vendor", vendor.listed(both)+second.listed(both))}}
	two := verify.Signers{Files: one.Files, Threshold: 2}
	now := time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)
	old, next := strings.Repeat("a1", 32), strings.Repeat("b2", 32)
	statement := func(change func(*rehome.Statement)) rehome.Statement {
		s := rehome.Statement{Cluster: "acme/eu-1", From: old, To: "new.example.com:7443", Token: token.New(next), Nonce: order.NewNonce(),
			Issued: now, Expires: now.Add(time.Hour), Reason: "another address"}
		if change != nil {
			change(&s)
		}
		return s
	}
	// in signs in a namespace.
	in := func(namespace string, s rehome.Statement, by ...person) rehome.Signed {
		t.Helper()
		text, err := s.Text()
		if err != nil {
			t.Fatal(err)
		}
		f, err := rehome.ParseSigned(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range by {
			sig, wrong := signer.SignSSH(text, p, namespace)
			if wrong != nil {
				t.Fatal(wrong)
			}
			if f, err = f.Sign(sig); err != nil {
				t.Fatal(err)
			}
		}
		return f
	}
	by := func(s rehome.Statement, people ...person) rehome.Signed { return in(rehome.Namespace, s, people...) }
	good := statement(nil)
	// altered has the signatures of one text under another.
	altered := func(change func(*rehome.Statement)) rehome.Signed {
		f, other := by(good, maria, vendor), good
		change(&other)
		f.Statement = other
		f.Text = by(other).Text
		return f
	}
	mixed := in(signer.Git, good, vendor)
	mixed.Signatures = append(mixed.Signatures, by(good, maria).Signatures...)
	ordered := in(order.Namespace, good, maria)
	ordered.Signatures = append(ordered.Signatures, by(good, vendor).Signatures...)
	for name, c := range map[string]struct {
		signed    rehome.Signed
		operators verify.Operators
		vendor    []verify.Signers
		want      string // empty: it counts
	}{
		"vendor and provider":                       {by(good, vendor, maria), allow, []verify.Signers{one}, ""},
		"the other way round":                       {by(good, maria, vendor), allow, []verify.Signers{one}, ""},
		"some subscriptions without signers":        {by(good, maria, vendor), allow, []verify.Signers{{}, one, {}}, ""},
		"a threshold":                               {by(good, maria, vendor, second), allow, []verify.Signers{one, two}, ""},
		"more who do not count":                     {by(good, thief, ines, maria, vendor), allow, []verify.Signers{one}, ""},
		"nobody":                                    {by(good), allow, []verify.Signers{one}, "for the provider: none of the operators"},
		"the vendor alone":                          {by(good, vendor, second), allow, []verify.Signers{one}, "for the provider: none of the operators"},
		"the provider alone":                        {by(good, maria), allow, []verify.Signers{one}, "for the vendor: "},
		"the provider twice":                        {by(good, maria, maria), allow, []verify.Signers{one}, "for the vendor: "},
		"a stranger of the provider's name":         {by(good, thief, vendor), allow, []verify.Signers{one}, "not among the signers"},
		"an operator who may do other things":       {by(good, ines, vendor), allow, []verify.Signers{one}, "does not allow ines@acme.example to re-home"},
		"a threshold that is not met":               {by(good, maria, vendor), allow, []verify.Signers{one, two}, "1 of the keys in"},
		"the vendor twice, of a threshold of two":   {by(good, maria, vendor, vendor), allow, []verify.Signers{two}, "1 of the keys in"},
		"another subscription's vendor":             {by(good, maria, vendor), allow, []verify.Signers{one, {Files: []string{file("other", thief.listed(both))}}}, "0 of the keys in"},
		"no operators":                              {by(good, maria, vendor), verify.Operators{}, []verify.Signers{one}, "operators: {cluster: …, files: […]"},
		"operators for orders only":                 {by(good, maria, vendor), with(func(o *verify.Operators) { o.Allow = o.Allow[1:] }), []verify.Signers{one}, "allows nobody to move this spoke"},
		"no signers":                                {by(good, maria, vendor), allow, []verify.Signers{{}}, "signers: {files: […]}"},
		"no subscription":                           {by(good, maria, vendor), allow, nil, "signers: {files: […]}"},
		"the vendor's signature in another space":   {mixed, allow, []verify.Signers{one}, `namespace "git"`},
		"the provider's signature in another space": {ordered, allow, []verify.Signers{one}, `namespace "order@wheelwright.dev"`},
		"a vendor's key listed for tags only": {by(good, maria, vendor), allow, []verify.Signers{{Files: []string{file("tags", vendor.listed(`namespaces="git"`))}}},
			"for the namespace re-home@wheelwright.dev"},
		"an operator's key listed for orders only": {by(good, maria, vendor), with(func(o *verify.Operators) {
			o.Files = []string{file("orders", maria.listed(`namespaces="order@wheelwright.dev"`))}
		}), []verify.Signers{one}, "listed for other namespaces"},
		"a key of the provider's that has run out": {by(good, maria, vendor), with(func(o *verify.Operators) {
			o.Files = []string{file("late", maria.listed(`valid-before="20200101Z"`))}
		}), []verify.Signers{one}, "was valid until"},
		"a key of the vendor's that has run out": {by(good, maria, vendor), allow, []verify.Signers{{Files: []string{file("past", vendor.listed(`valid-before="20200101Z"`))}}}, "was valid until"},
		"the provider's key as the vendor's":     {by(good, maria), allow, []verify.Signers{{Files: []string{file("same", maria.listed(both))}}}, "besides the provider's"},
		"OpenPGP keys of the vendor's":           {by(good, maria, vendor), allow, []verify.Signers{{Files: []string{file("pgp", "-----BEGIN PGP PUBLIC KEY BLOCK-----\n")}}}, "want allowed signers of SSH"},
		"files that are gone":                    {by(good, maria, vendor), allow, []verify.Signers{{Files: []string{filepath.Join(dir, "gone")}}}, "no such file"},
		"another cluster":                        {by(statement(func(s *rehome.Statement) { s.Cluster = "acme/us-1" }), maria, vendor), allow, []verify.Signers{one}, "it is for acme/us-1, and this is acme/eu-1"},
		"from another hub":                       {by(statement(func(s *rehome.Statement) { s.From = strings.Repeat("c3", 32) }), maria, vendor), allow, []verify.Signers{one}, "it is from another hub, with the authority c3c3c3c3c3c3…"},
		"one that has expired": {by(statement(func(s *rehome.Statement) { s.Issued, s.Expires = now.Add(-2*time.Hour), now.Add(-time.Hour) }), maria, vendor), allow,
			[]verify.Signers{one}, "it expired"},
		"one of tomorrow": {by(statement(func(s *rehome.Statement) { s.Issued, s.Expires = now.Add(24*time.Hour), now.Add(25*time.Hour) }), maria, vendor), allow,
			[]verify.Signers{one}, "ahead of the clock"},
		"another address": {altered(func(s *rehome.Statement) { s.To = "eve.example.com:7443" }), allow, []verify.Signers{one}, "what is signed is not what is here"},
		"another token":   {altered(func(s *rehome.Statement) { s.Token = token.New(next) }), allow, []verify.Signers{one}, "what is signed is not what is here"},
		"another end":     {altered(func(s *rehome.Statement) { s.Expires = s.Expires.Add(time.Hour) }), allow, []verify.Signers{one}, "what is signed is not what is here"},
		"another nonce":   {altered(func(s *rehome.Statement) { s.Nonce = order.NewNonce() }), allow, []verify.Signers{one}, "what is signed is not what is here"},
	} {
		d, err := verify.ReHome(c.signed, c.operators, c.vendor, []string{strings.Repeat("ee", 32), old}, now)
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), good.Token.Secret) {
				t.Errorf("%s: want %q: %v", name, c.want, err)
			}
			continue
		}
		if err != nil || d.Principal != maria.name || d.Key != ssh.FingerprintSHA256(maria.PublicKey()) || !strings.Contains(d.By(), vendor.name) || d.Cluster != fleet.Cluster("acme/eu-1") {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
	}
}

// An operator whom spoke.yaml allows re-home needs a key for that.
func TestTheKeysOfThoseWhoMayMoveASpoke(t *testing.T) {
	maria := somebody(t, "maria@acme.example")
	path := filepath.Join(t.TempDir(), "keys")
	o := verify.Operators{Cluster: "acme/eu-1", Files: []string{path}, Allow: []verify.Grant{{Principal: maria.name, ReHome: true}}}
	for options, want := range map[string]string{
		both:                                   "",
		`namespaces="re-home@wheelwright.dev"`: "",
		`namespaces="order@wheelwright.dev"`:   "no key in the files is of maria@acme.example and may sign in the namespace re-home@wheelwright.dev",
	} {
		if err := os.WriteFile(path, []byte(maria.listed(options)), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := o.Check(); (err == nil) != (want == "") || err != nil && err.Error() != want {
			t.Errorf("%s: %v", options, err)
		}
	}
}
