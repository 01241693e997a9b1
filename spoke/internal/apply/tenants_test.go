package apply_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/wheelwright-dev/wheelwright/spoke/internal/apply"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/envelope"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/terms"
)

// Two subscriptions on one spoke, each in a namespace of its own: what one brings does not come to the other's, what
// runs there is neither taken over nor pruned, and each layer sees to that alone.
func TestTenantsAreApart(t *testing.T) {
	b := start(t)
	spaces := map[string]string{"shop": b.NewNamespace(t), "mail": b.NewNamespace(t)}
	for _, ns := range spaces {
		if err := b.Cluster.ApplyIn(ns, tenant("release", `{apiGroups: ["*"], resources: ["*"], verbs: ["*"]}`)); err != nil {
			t.Fatal(err)
		}
	}
	accounts, _ := connect(t, apply.Config{Kubeconfig: b.Kubeconfig, Patience: time.Second, Account: func(d string) (apply.Identity, error) {
		return apply.Identity{Namespace: spaces[d], Name: "release"}, nil
	}})
	of := func(distribution string, e envelope.Envelope, texts ...string) apply.Set {
		return apply.Set{Distribution: distribution, Namespace: spaces[distribution], Version: "1.0.0", Envelope: e, Objects: objects(t, texts...), Terms: terms.Default()}
	}
	theirs, _, err := accounts.Apply(t.Context(), of("mail", nil, configMap("settings", "theirs"), configMap("more", "theirs")), apply.Inventory{})
	if err != nil {
		t.Fatal(err)
	}
	state := func() string {
		return b.kubectl(t, "-n", spaces["mail"], "get", "configmaps,secrets", "-o", `jsonpath={range .items[*]}{.metadata.name} {.metadata.uid} {.metadata.resourceVersion}{"\n"}{end}`)
	}
	before := state()
	hostile := map[string]string{
		"a new object":                  in(spaces["mail"], configMap("new", "ours")),
		"an object of theirs":           in(spaces["mail"], configMap("settings", "ours")),
		"their inventory":               in(spaces["mail"], configMap("wheelwright-mail", "ours")),
		"another inventory beside them": in(spaces["mail"], configMap("wheelwright-shop", "ours")),
		"a secret":                      in(spaces["mail"], "apiVersion: v1\nkind: Secret\nmetadata: {name: new}\n"),
		"their namespace":               fmt.Sprintf("{apiVersion: v1, kind: Namespace, metadata: {name: %s, labels: {pod-security.kubernetes.io/enforce: privileged}}}", spaces["mail"]),
	}
	for layer, l := range map[string]struct {
		hand *apply.Cluster
		env  envelope.Envelope
	}{"envelope": {b.hand, envelope.Envelope{{}}}, "account": {accounts, nil}} {
		for what, text := range hostile {
			set := of("shop", l.env, configMap("settings", "ours"), text)
			if report, err := l.hand.Check(t.Context(), set, apply.Inventory{}); err != nil || report.Err() == nil {
				t.Errorf("%s, %s: %v, %v", layer, what, err, report.Err())
			}
			if _, _, err := l.hand.Apply(t.Context(), set, apply.Inventory{}); !errors.Is(err, apply.ErrRefused) {
				t.Errorf("%s, %s, not checked first: %v", layer, what, err)
			}
		}
		// An inventory that somebody forged to have what is theirs: nothing of it is pruned, put back or undone.
		forged := apply.Inventory{Distribution: "shop", Namespace: spaces["shop"], Items: theirs.Items}
		for n := range forged.Items {
			forged.Items[n].Made = true
		}
		left := apply.Inventory{Distribution: "shop", Namespace: spaces["shop"], Items: []apply.Item{{GroupVersionKind: theirs.Items[0].GroupVersionKind, Namespace: spaces["shop"], Name: "settings"}}}
		if change, err := l.hand.Prune(t.Context(), forged, left, terms.Default()); len(change.Deleted) > 0 {
			t.Errorf("%s: pruned %v, %v", layer, change, err)
		}
		if change, err := l.hand.Undo(t.Context(), forged); len(change.Deleted) > 0 {
			t.Errorf("%s: undone %v, %v", layer, change, err)
		}
	}
	if after := state(); after != before {
		t.Errorf("what is the other's has changed:\n%s\nit was\n%s", after, before)
	}
}

// in puts an object into a namespace.
func in(ns, text string) string {
	return strings.Replace(text, "metadata: {", "metadata: {namespace: "+ns+", ", 1)
}

// Two subscriptions that share a namespace: an object of one's inventory is refused to the other by name, and so is
// either's inventory, which no label marks as an object of a distribution.
func TestTenantsOfOneNamespace(t *testing.T) {
	b := start(t)
	ns := b.NewNamespace(t)
	of := func(distribution string, texts ...string) apply.Set {
		return apply.Set{Distribution: distribution, Namespace: ns, Version: "1.0.0", Envelope: envelope.Envelope{{}}, Objects: objects(t, texts...)}
	}
	if _, _, err := b.hand.Apply(t.Context(), of("mail", configMap("settings", "theirs")), apply.Inventory{}); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string][2]string{
		"an object":       {configMap("settings", "ours"), "distributions shop and mail both declare it"},
		"their inventory": {configMap("wheelwright-mail", "ours"), "the inventory of a distribution"},
		"its own":         {configMap("wheelwright-shop", "ours"), "the inventory of a distribution"},
		"one by label":    {"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, labels: {wheelwright.dev/inventory: mail}}\n", "the inventory of a distribution"},
	} {
		set := of("shop", c[0])
		report, err := b.hand.Check(t.Context(), set, apply.Inventory{})
		if err != nil || report.Err() == nil || !strings.Contains(report.Err().Error(), c[1]) {
			t.Errorf("%s: %v, %v", what, err, report.Err())
		}
		if _, _, err := b.hand.Apply(t.Context(), set, apply.Inventory{}); !errors.Is(err, apply.ErrRefused) || !strings.Contains(err.Error(), c[1]) {
			t.Errorf("%s, not checked first: %v", what, err)
		}
	}
	if inv, found, err := b.hand.ReadInventory(t.Context(), "mail", ns); err != nil || !found || len(inv.Items) != 1 {
		t.Errorf("their inventory: %v, %v, %v", inv, found, err)
	}
}

// A name that leads elsewhere in an URL, a namespace that is a path: neither is sent.
func TestNamesThatLeadElsewhere(t *testing.T) {
	b := start(t)
	home, victim := b.NewNamespace(t), b.NewNamespace(t)
	for _, o := range []*unstructured.Unstructured{
		named("../../"+victim+"/configmaps/a", ""), named("a", "../"+victim), named("..", ""), named("a%2f..", ""), named("a", ".."), named("a/b", home), named("a", victim+"/configmaps/b"),
	} {
		for _, e := range []envelope.Envelope{nil, {{}}} {
			set := apply.Set{Distribution: "shop", Namespace: home, Envelope: e, Objects: []*unstructured.Unstructured{o}}
			if report, err := b.hand.Check(t.Context(), set, apply.Inventory{}); err != nil || report.Err() == nil || !strings.Contains(report.Err().Error(), "metadata.name") {
				t.Errorf("%q in %q: %v, %v", o.GetName(), o.GetNamespace(), err, report.Err())
			}
			if _, _, err := b.hand.Apply(t.Context(), set, apply.Inventory{}); !errors.Is(err, apply.ErrRefused) {
				t.Errorf("%q in %q, not checked first: %v", o.GetName(), o.GetNamespace(), err)
			}
		}
	}
	if out := b.kubectl(t, "-n", victim, "get", "configmaps", "-o", "name"); strings.Contains(out, "/a") || strings.Contains(out, "/b") {
		t.Errorf("there: %s", out)
	}
}

func named(name, namespace string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": name}}}
	if namespace != "" {
		o.SetNamespace(namespace)
	}
	return o
}

// What runs and is outside by now is told as drift, is not put back, and what is inside is.
func TestDriftOutside(t *testing.T) {
	b := start(t)
	home, other := b.NewNamespace(t), b.NewNamespace(t)
	set := setOf(home, "1.0.0", objects(t, configMap("here", "x"), in(other, configMap("there", "x"))))
	inv := b.install(t, set)
	b.kubectl(t, "-n", home, "delete", "configmap", "here")
	b.kubectl(t, "-n", other, "delete", "configmap", "there")
	set.Envelope = envelope.Envelope{{}}
	for range 2 {
		next, drifted, err := b.hand.Drift(t.Context(), set, inv, true)
		if err != nil {
			t.Fatal(err)
		}
		var left []string
		for _, d := range drifted {
			if !d.Corrected {
				left = append(left, d.String())
			}
		}
		if len(left) != 1 || !strings.HasPrefix(left[0], "ConfigMap "+other+"/there is outside of the envelope, is left as it is and not put back: metadata.namespace: ") {
			t.Errorf("left: %q of %v", left, drifted)
		}
		if len(next.Items) != 2 {
			t.Errorf("the inventory forgets it: %v", next.Items)
		}
		inv = next
	}
	if out := b.kubectl(t, "-n", other, "get", "configmap", "there", "--ignore-not-found", "-o", "name"); out != "" {
		t.Error("it was put back")
	}
	b.kubectl(t, "-n", home, "get", "configmap", "here")
	set.Envelope = nil
	if _, drifted, err := b.hand.Drift(t.Context(), set, inv, true); err != nil || len(drifted) != 1 || !drifted[0].Corrected {
		t.Errorf("inside again: %v, %v", drifted, err)
	}
}
