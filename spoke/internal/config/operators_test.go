package config

import (
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/wheelwright-dev/wheelwright/pkg/order"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/verify"
)

// keyOf is a line of a file of operators' keys.
func keyOf(t *testing.T, principal string) string {
	t.Helper()
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return principal + ` namespaces="order@wheelwright.dev,re-home@wheelwright.dev",valid-before="20990701" ` + string(ssh.MarshalAuthorizedKey(key))
}

// loaded reads a spoke.yaml beside a file of keys.
func loaded(t *testing.T, text, keys string) (Config, error) {
	t.Helper()
	path := write(t, text)
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "operators.keys"), []byte(keys), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load(path)
}

// The example's section says what it means, once it is no comment any more.
func TestTheExampleOfOperators(t *testing.T) {
	text, err := os.ReadFile("../../../deploy/examples/spoke.yaml")
	if err != nil {
		t.Fatal(err)
	}
	section := regexp.MustCompile(`(?m)^# operators:\n(#.*\n)+`).Find(text)
	plain := regexp.MustCompile(`(?m)^# ?`).ReplaceAllString(string(section), "")
	c, err := loaded(t, "version: 1\n"+plain+"subscriptions:\n- {distribution: shop, variant: app, namespace: shop}\n", keyOf(t, "maria@vendor.example")+keyOf(t, "ines@acme.example"))
	if err != nil {
		t.Fatal(err)
	}
	want := verify.Operators{Cluster: "acme/eu-1", Files: []string{filepath.Join(filepath.Dir(c.Path), "operators.keys")}, Allow: []verify.Grant{
		{Principal: "maria@vendor.example", Verbs: []order.Verb{order.RollBack, order.RunConformance}},
		{Principal: "ines@acme.example", Verbs: []order.Verb{order.RollBack, order.Force, order.WidenPrune, order.RunConformance}, ReHome: true}}}
	if !reflect.DeepEqual(c.Operators, want) || !reflect.DeepEqual(c.Subscriptions[0].Operators, want) {
		t.Errorf("got  %+v\nand  %+v\nwant %+v", c.Operators, c.Subscriptions[0].Operators, want)
	}
}

// A subscription's own list takes the place of the file's, and does not add to it.
func TestASubscriptionsOwnOperators(t *testing.T) {
	c, err := loaded(t, `version: 1
operators: {cluster: acme/eu-1, files: [operators.keys], allow: [{principal: a, verbs: [rollback]}]}
subscriptions:
- distribution: shop
  variant: app
  namespace: shop
  operators: {cluster: acme/eu-1, files: [operators.keys], allow: [{principal: b, verbs: [force]}]}
- {distribution: mail, variant: app, namespace: mail}
`, keyOf(t, "a")+keyOf(t, "b"))
	if err != nil {
		t.Fatal(err)
	}
	if own := c.Subscriptions[0].Operators.Allow; len(own) != 1 || own[0].Principal != "b" {
		t.Errorf("its own: %+v", own)
	}
	if shared := c.Subscriptions[1].Operators.Allow; len(shared) != 1 || shared[0].Principal != "a" {
		t.Errorf("the file's: %+v", shared)
	}
}

func TestAllThatIsWrongWithOperators(t *testing.T) {
	same := keyOf(t, "a")
	const good = "operators: {cluster: acme/eu-1, files: [operators.keys], allow: [{principal: a, verbs: [rollback]}]}"
	for _, c := range []struct {
		text, keys string
		want       []string
	}{
		{"operators: {}", same, []string{"operators.cluster: missing", "operators.files: missing", "operators.allow: missing"}},
		{"operators: {cluster: eu-1, files: [''], allow: [{verbs: [reboot]}, {principal: a}], key: x}", same,
			[]string{"operators.cluster", "operators.files[0]: empty", `order "reboot": want run-conformance`, "operators.allow[0].principal: missing", "operators.allow[1].verbs: missing", "operators.key: unknown key"}},
		{"operators: {cluster: acme/eu-1, files: [operators.keys], allow: [{principal: a, verbs: [rollback, rollback]}]}", same, []string{"rollback is there twice"}},
		{"operators: {cluster: acme/eu-1, files: [nowhere], allow: [{principal: a, verbs: [rollback]}]}", same, []string{"nowhere"}},
		{good, "no key\n", []string{"line 1"}},
		{good, keyOf(t, "b"), []string{"no key in the files is of a"}},
		{good, strings.Replace(same, "order@wheelwright.dev,", "git,", 1), []string{"no key in the files is of a and may sign in the namespace order@wheelwright.dev"}},
		{strings.Replace(good, "rollback", "re-home, re-home", 1), same, []string{"re-home is there twice"}},
		{strings.Replace(good, "rollback", "re-homed", 1), same, []string{`order "re-homed": want run-conformance, force, widen-prune, rollback, re-home`}},
		{strings.Replace(good, "rollback", "re-home", 1), strings.Replace(same, ",re-home@wheelwright.dev", "", 1), []string{"no key in the files is of a and may sign in the namespace re-home@wheelwright.dev"}},
		{good, same + "b" + same[1:], []string{"one key is one person's"}},
		{good, same + keyOf(t, "*@vendor.example"), []string{`the pattern "*@vendor.example"`}},
		{good, "-----BEGIN PGP PUBLIC KEY BLOCK-----\n", []string{"want allowed signers of SSH"}},
	} {
		_, err := loaded(t, "version: 1\n"+c.text+"\n", c.keys)
		var problems *Error
		if !errors.As(err, &problems) {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		for _, w := range c.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: want %q in: %v", c.text, w, err)
			}
		}
	}
}
