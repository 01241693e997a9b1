package config

import (
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/spoke/internal/envelope"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/terms"
)

// The commented example is one, under the top of the file and in a subscription.
func TestTheEnvelopeOfTheExample(t *testing.T) {
	text, err := os.ReadFile("../../../deploy/examples/spoke.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(text), "\n# envelope:\n")
	if !found {
		t.Fatal("the example has no envelope")
	}
	written := "envelope:\n"
	for line := range strings.Lines(after) {
		if strings.HasPrefix(line, "# serviceAccount:") {
			written += strings.TrimPrefix(line, "# ")
		}
		if rest, more := strings.CutPrefix(line, "#   "); more {
			written += "  " + rest
		} else if !strings.HasPrefix(line, "#") && strings.Contains(written, "serviceAccount") {
			break
		}
	}
	c, err := Load(write(t, "version: 1\n"+written+"subscriptions:\n- {distribution: shop, variant: v, namespace: shop}\n"))
	if err != nil {
		t.Fatalf("%v in\n%s", err, written)
	}
	s := c.Subscriptions[0]
	if s.Account != (Account{"wheelwright", "shop-release"}) || len(s.Envelope) != 1 {
		t.Fatalf("got %+v", s)
	}
	l := s.Envelope[0]
	if len(l.Namespaces) != 2 || len(l.ClusterScoped) != 2 || len(l.Allow) != 8 || len(l.Deny) != 4 || len(l.Registries) != 2 || !l.Digests || l.PodSecurity != "restricted" || len(l.Rules) != 2 {
		t.Errorf("got %+v", l)
	}
}

func TestEnvelopes(t *testing.T) {
	c, err := Load(write(t, `version: 1
serviceAccount: release
envelope:
  namespaces: [shop, "team-*"]
  clusterScoped: [Namespace, ClusterRole/shop-*]
  kinds: {allow: [Deployment, "*.batch", Service.core], deny: [Job]}
  images: {registries: [Docker.io/library], digests: optional}
  podSecurity: baseline
subscriptions:
- {distribution: shop, variant: v, namespace: shop}
- distribution: mail
  variant: v
  namespace: mail
  serviceAccount: accounts/mail
  envelope:
    namespaces: [team-1]
    clusterScoped: []
    rules:
    - {rule: "true", message: nothing}
- {distribution: news, variant: v, namespace: news, envelope: {}}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := envelope.Layer{
		Namespaces:    []envelope.Namespace{"shop", "team-*"},
		ClusterScoped: []terms.Pattern{{Kind: "Namespace.core"}, {Kind: "ClusterRole.rbac.authorization.k8s.io", Name: "shop-*"}},
		Allow:         []envelope.Kind{{Name: "Deployment", Group: "apps"}, {Name: "*", Group: "batch"}, {Name: "Service"}}, Deny: []envelope.Kind{{Name: "Job", Group: "*"}},
		Registries: []envelope.Registry{"docker.io/library"}, PodSecurity: "baseline",
	}
	shop, mail, news := c.Subscriptions[0], c.Subscriptions[1], c.Subscriptions[2]
	if !reflect.DeepEqual(shop.Envelope, envelope.Envelope{want}) {
		t.Errorf("got %+v", shop.Envelope)
	}
	if shop.Account != (Account{"shop", "release"}) || mail.Account != (Account{"accounts", "mail"}) || news.Account != (Account{"news", "release"}) {
		t.Errorf("accounts %v %v %v", shop.Account, mail.Account, news.Account)
	}
	if len(mail.Envelope) != 2 || !reflect.DeepEqual(mail.Envelope[0], want) || mail.Envelope[1].ClusterScoped == nil || len(mail.Envelope[1].Rules) != 1 {
		t.Errorf("got %+v", mail.Envelope)
	}
	if len(news.Envelope) != 2 || !reflect.DeepEqual(news.Envelope[1], envelope.Layer{}) {
		t.Errorf("got %+v", news.Envelope)
	}
	none, err := Load(write(t, "version: 1\nsubscriptions:\n- {distribution: shop, variant: v, namespace: shop}\n- {distribution: mail, variant: v, namespace: mail, envelope: {}}\n"))
	if err != nil || !none.Subscriptions[0].Envelope.None() || none.Subscriptions[1].Envelope.None() || none.Subscriptions[0].Account != (Account{}) {
		t.Errorf("got %+v, %v", none.Subscriptions, err)
	}
}

// All that is wrong is named at once; nothing that was meant to bound is taken for absent.
func TestEnvelopesInError(t *testing.T) {
	_, err := Load(write(t, `version: 1
serviceAccount:
envelope:
  namespaces: [Shop, "*a"]
  clusterScoped: [ConfigMap, Widget/a, Namespace/a/b]
  kinds:
    allow: []
    deny: [job, "*"]
  images:
    registries: [acme, registry.example.com/acme:1, [a]]
    digests: always
  podSecurity: strict
  rules:
  - {rule: object.a ==, message: m}
  - {rule: object.kind.size(), message: m}
  - {rule: "true"}
  - {message: m}
  - text
  policies: []
subscriptions:
- distribution: shop
  variant: v
  namespace: shop
  serviceAccount: Shop/release
  envelope:
    podSecurity:
    images:
      registries:
- {distribution: mail, variant: v, namespace: mail, envelope: text, serviceAccount: ""}
- {distribution: news, variant: v, namespace: news, envelope: , serviceAccount: a/b/c}
`))
	var all *Error
	if !errors.As(err, &all) {
		t.Fatal(err)
	}
	var got []string
	for _, p := range all.Problems {
		got = append(got, p.String())
	}
	for _, want := range []string{
		"line 2: serviceAccount: there is nothing behind it",
		`line 4: envelope.namespaces[0]: "Shop": want a namespace`,
		`line 4: envelope.namespaces[1]: "*a": want a namespace`,
		`line 5: envelope.clusterScoped[0]: "ConfigMap": ConfigMap.core is namespaced`,
		`line 5: envelope.clusterScoped[1]: "Widget": name its group`,
		`line 5: envelope.clusterScoped[2]: "Namespace/a/b": want KIND or KIND/NAME`,
		"line 7: envelope.kinds.allow: is empty: want such as Deployment.apps",
		`line 8: envelope.kinds.deny[0]: "job": want KIND, KIND.GROUP or *.GROUP`,
		`line 8: envelope.kinds.deny[1]: "*": want KIND, KIND.GROUP or *.GROUP`,
		`line 10: envelope.images.registries[0]: "acme": want a host`,
		`line 10: envelope.images.registries[1]: "registry.example.com/acme:1": want a host`,
		"line 10: envelope.images.registries[2]: want text, found a list",
		`line 11: envelope.images.digests: "always": want required or optional`,
		`line 12: envelope.podSecurity: "strict": want privileged, baseline or restricted`,
		"line 14: envelope.rules[0].rule: column",
		"line 15: envelope.rules[1].rule: column 1: it gives int, want bool",
		"line 16: envelope.rules[2].message: missing",
		"line 17: envelope.rules[3].rule: missing",
		"line 18: envelope.rules[4]: want keys and values",
		"line 19: envelope.policies: unknown key; known here: clusterScoped, images, kinds, namespaces, podSecurity, rules",
		`line 24: subscriptions[0].serviceAccount: "Shop/release": want the name of a service account`,
		"line 26: subscriptions[0].envelope.podSecurity: there is nothing behind it",
		"line 28: subscriptions[0].envelope.images.registries: there is nothing behind it",
		`line 29: subscriptions[1].envelope: want keys and values, found "text"`,
		`line 29: subscriptions[1].serviceAccount: "": want the name`,
		"line 30: subscriptions[2].envelope: there is nothing behind it",
		`line 30: subscriptions[2].serviceAccount: "a/b/c": want the name`,
	} {
		found := false
		for n, line := range got {
			if strings.HasPrefix(line, want) {
				got, found = append(got[:n:n], got[n+1:]...), true
				break
			}
		}
		if !found {
			t.Errorf("not said: %s", want)
		}
	}
	if len(got) > 0 {
		t.Errorf("said besides:\n%s", strings.Join(got, "\n"))
	}

	_, err = Load(write(t, "version: 1\nenvelope: {}\nsubscriptions:\n- {distribution: shop, variant: v, namespace: shop, envelope: {namespaces: [more], clusterScoped: [Namespace/more]}}\n"))
	if !errors.As(err, &all) || len(all.Problems) != 2 || !strings.Contains(err.Error(), "subscriptions[0].envelope.namespaces: has no effect") || !strings.Contains(err.Error(), "subscriptions[0].envelope.clusterScoped: has no effect") {
		t.Errorf("what a subscription may not widen: %v", err)
	}
}
