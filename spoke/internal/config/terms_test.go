package config

import (
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
	"github.com/wheelwright-dev/wheelwright/pkg/render"
	"github.com/wheelwright-dev/wheelwright/pkg/rules"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/terms"
)

// A subscription's lists are added to the top's, wherever that stands in the file, and its scalars take
// the place of the top's; what one adds is not seen by another.
func TestTermsOfSubscriptions(t *testing.T) {
	c, err := Load(write(t, `version: 1
subscriptions:
- {distribution: shop, variant: v, namespace: n, drift: ignore, recreate: [Service], delete: [Namespace/shop], approvalTimeout: 1h,
   deletionBudget: {atLeast: 0}, health: [{apiVersion: example.com/v1, kind: Queue, current: "true"}, {apiVersion: example.com, kind: Other, failed: "false"}]}
- {distribution: mail, variant: v, namespace: n, recreate: [ConfigMap/mail/x], ignore: [{object: Service, manager: cloud}]}
- {distribution: chat, variant: v, namespace: n}
drift: report
recreate: [Job, Pod/shop/*]
ignore: [{object: Deployment/web, fields: [spec.replicas]}]
deletionBudget: {percent: 0, atLeast: 3}
health: [{apiVersion: example.com/v1, kind: Queue, current: "false"}, {apiVersion: v1, kind: Endpoints, current: "true"}]
`))
	if err != nil {
		t.Fatal(err)
	}
	texts := func(all []terms.Pattern) string {
		var out []string
		for _, p := range all {
			out = append(out, p.String())
		}
		return strings.Join(out, " ")
	}
	queue := rules.Rule{Group: "example.com", Version: "v1", Kind: "Queue", Current: "false"}
	own, other := queue, rules.Rule{Group: "example.com", Kind: "Other", Failed: "false"}
	own.Current = "true"
	endpoints := rules.Rule{Version: "v1", Kind: "Endpoints", Current: "true"}
	for i, want := range []struct {
		drift    terms.Drift
		recreate string
		ignore   int
		budget   terms.Budget
		patience time.Duration
		health   []rules.Rule
	}{
		{terms.Leave, "Job Pod/shop/* Service", 1, terms.Budget{}, time.Hour, []rules.Rule{own, other, endpoints}},
		{terms.Report, "Job Pod/shop/* ConfigMap/mail/x", 2, terms.Budget{AtLeast: 3}, DefaultApprovalTimeout, []rules.Rule{queue, endpoints}},
		{terms.Report, "Job Pod/shop/*", 1, terms.Budget{AtLeast: 3}, DefaultApprovalTimeout, []rules.Rule{queue, endpoints}},
	} {
		s := c.Subscriptions[i]
		if s.Terms.Drift != want.drift || texts(s.Terms.Recreate) != want.recreate || len(s.Terms.Ignore) != want.ignore || s.Terms.Budget != want.budget ||
			s.ApprovalTimeout != want.patience || !reflect.DeepEqual(s.Health, want.health) {
			t.Errorf("%s: got %+v, want %+v", s.Distribution, s, want)
		}
	}
	if !c.Subscriptions[0].Terms.MayDelete("", "Namespace", "", "shop") || len(c.Subscriptions[1].Terms.Delete) != 0 {
		t.Error("the consent to delete is wrong")
	}
	// The zero budget was asked for: everything is asked about.
	if c.Subscriptions[0].Terms.Budget.Allows(1, 100) {
		t.Error("a budget of nothing allows a deletion")
	}
}

func TestAllProblemsOfTermsAtOnce(t *testing.T) {
	_, err := Load(write(t, `version: 1
driftInterval: 60s
drift: [correct]
approvalTimeout: 1s
deletionBudget: {percent: 120, atLeast: some, absolute: 1}
recreate: [job, {kind: Job}]
delete:
- PersistentVolumeClaim
- PersistentVolumeClaim/shop/data-*
ignore:
- {object: Deployment}
- {fields: [spec.replicas, metadata.name]}
- {object: Deployment, fields: [spec.replicas], manager: hpa}
- {object: Deployment, fields: []}
- {object: Deployment, fields: spec.replicas}
- text
health:
- {kind: Queue, current: "true"}
- {apiVersion: example.com/v1, kind: queue}
- {apiVersion: example.com/v1, kind: Queue, current: "status.", ready: "true"}
- {apiVersion: example.com/v1, kind: Queue, current: "status."}
- {apiVersion: example.com/v1, kind: Other, current: "true"}
- {apiVersion: example.com/v1, kind: Other, failed: "true"}
`))
	var all *Error
	if !errors.As(err, &all) {
		t.Fatalf("got %v", err)
	}
	var got []string
	for _, p := range all.Problems {
		text := p.String()
		if p.Key == "health[3]" { // what follows is the rule's reader's
			text, _, _ = strings.Cut(text, ": ")
			if !strings.Contains(p.Message, "current") {
				t.Errorf("the expression is not named: %s", p.Message)
			}
		}
		got = append(got, text)
	}
	want := []string{
		"line 2: driftInterval: unknown key; known here: approvalTimeout, canary, context, decryption, delete, deletionBudget, drift, envelope, fromHub, git, health, healthTimeout, hookTimeout, ignore, kubeconfig, operators, plugins, recreate, serviceAccount, signers, subscriptions, tests, version, windows",
		"line 3: drift: want text, found a list",
		`line 4: approvalTimeout: "1s": want 1m to 8760h`,
		`line 5: deletionBudget.percent: "120": want a number from 0 to 100`,
		`line 5: deletionBudget.atLeast: "some": want a number from 0 to 1000000`,
		"line 5: deletionBudget.absolute: unknown key; known here: atLeast, percent",
		`line 6: recreate[0]: "job": want a kind first, such as Deployment or Deployment.apps`,
		"line 6: recreate[1]: want text, found keys and values",
		`line 8: delete[0]: "PersistentVolumeClaim": names no object: consent to delete is for one, such as PersistentVolumeClaim/shop/data`,
		`line 9: delete[1]: "PersistentVolumeClaim/shop/data-*": names no object: consent to delete is for one, such as PersistentVolumeClaim/shop/data`,
		"line 11: ignore[0]: names neither `fields: [PATH, …]` nor `manager: FIELD MANAGER`",
		`line 12: ignore[1].fields[1]: field "metadata.name": says which object it is, and cannot be left to others`,
		"line 12: ignore[1].object: missing: want KIND, KIND/NAME or KIND/NAMESPACE/NAME",
		"line 13: ignore[2]: has `fields` and `manager`: want one of the two",
		"line 14: ignore[3].fields: is empty: want paths such as spec.replicas",
		`line 15: ignore[4].fields: want a list, found "spec.replicas"`,
		`line 16: ignore[5]: want keys and values, found "text"`,
		"line 18: health[0].apiVersion: missing: want GROUP/VERSION, such as example.com/v1, or GROUP alone for any version",
		"line 19: health[1].current: missing: want an expression under current, failed or inProgress",
		`line 19: health[1].kind: "queue": want the name of a kind, such as Certificate`,
		"line 20: health[2].ready: unknown key; known here: apiVersion, current, failed, inProgress, kind, message",
		"line 21",
		"line 23: health[5]: line 22 has a rule about the same kind",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// The vendor's example has rules that a spoke can run.
func TestTheVendorsRulesLoad(t *testing.T) {
	data, err := os.ReadFile("../../../deploy/examples/shop/dist/wheelwright.yaml")
	if err != nil {
		t.Fatal(err)
	}
	files := []provenance.File{{Path: "wheelwright.yaml", Data: data}}
	for _, variant := range []string{"app-kubernetes", "app-istio", "app-linkerd"} {
		files = append(files, provenance.File{Path: variant + "/kustomization.yaml"})
	}
	found, err := render.Health(files)
	if err != nil || len(found) != 1 {
		t.Fatalf("got %v, %v", found, err)
	}
	book, err := rules.Compile([]rules.Rule{rules.Rule(found[0])})
	if err != nil {
		t.Fatal(err)
	}
	for want, status := range map[rules.Verdict]string{rules.Current: "True", rules.InProgress: "False"} {
		v, message, ok, err := book.Judge(map[string]any{"apiVersion": "cert-manager.io/v1", "kind": "Certificate", "status": map[string]any{
			"conditions": []any{map[string]any{"type": "Ready", "status": status, "message": "issuing"}}}})
		if v != want || !ok || err != nil || v != rules.Current && message != "the certificate is not ready: issuing" {
			t.Errorf("%s: got %s, %q, %v, %v", status, v, message, ok, err)
		}
	}
}
