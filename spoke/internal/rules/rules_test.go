package rules

import (
	"strings"
	"testing"
)

func certificate(status map[string]any) map[string]any {
	return map[string]any{"kind": "Certificate", "metadata": map[string]any{"name": "web", "generation": int64(2)}, "spec": map[string]any{}, "status": status}
}

func conditions(kind, status string) map[string]any {
	return map[string]any{"observedGeneration": int64(2), "conditions": []any{map[string]any{"type": kind, "status": status, "message": "issuer is away"}}}
}

var ready = Rule{Group: "cert-manager.io", Kind: "Certificate",
	Current: "status.conditions.exists(c, c.type == 'Ready' && c.status == 'True') && status.observedGeneration == metadata.generation",
	Failed:  "has(status.conditions) && status.conditions.exists(c, c.type == 'Failed' && c.status == 'True')",
	Message: "status.conditions[0].message"}

func TestJudge(t *testing.T) {
	b, err := Compile([]Rule{ready, {Kind: "Thing", Failed: "status.phase == 'Broken'"}, {Group: "cert-manager.io", Kind: "Certificate", Current: "true"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		status  map[string]any
		want    Verdict
		message string
	}{
		{"ready", conditions("Ready", "True"), Current, ""},
		{"not ready", conditions("Ready", "False"), InProgress, "issuer is away"},
		{"failed", conditions("Failed", "True"), Failed, "issuer is away"},
		{"no status yet", nil, InProgress, "cannot be evaluated yet"},
		{"of an older generation", map[string]any{"observedGeneration": int64(1), "conditions": conditions("Ready", "True")["conditions"]}, InProgress, "issuer"},
	} {
		v, m, ok := b.Judge("cert-manager.io", "v1", "Certificate", certificate(c.status))
		if v != c.want || !ok || !strings.Contains(m, c.message) || v == Current && m != "" {
			t.Errorf("%s: %s %q %v, want %s %q", c.name, v, m, ok, c.want, c.message)
		}
	}
	if _, _, ok := b.Judge("example.com", "v1", "Certificate", certificate(nil)); ok {
		t.Error("another group's kind is judged")
	}
	if v, _, _ := b.Judge("", "v1", "Thing", map[string]any{"status": map[string]any{"phase": "Fine"}}); v != Current {
		t.Errorf("a thing that has not failed is %s", v)
	}
	if v, _, _ := b.Judge("", "v1", "Thing", map[string]any{}); v != InProgress {
		t.Errorf("a thing of which nothing is known is %s", v)
	}
	var none *Book
	if none.About("", "v1", "Thing") {
		t.Error("no book has a rule")
	}
}

func TestEverythingThatIsWrongIsSaid(t *testing.T) {
	_, err := Compile([]Rule{
		{Group: "example.com", Kind: "A", Current: "status.phase ==", Failed: "'text'"},
		{Group: "example.com", Kind: "B", Current: "nothing.here"},
		{Group: "example.com", Kind: "C"},
		{Group: "example.com", Kind: "D", Current: "true", Message: "1 + 1"},
	})
	if err == nil {
		t.Fatal("taken")
	}
	for _, want := range []string{"example.com A: current: column", "example.com A: failed: it gives string, want bool", "example.com B: current: column 1: undeclared reference to 'nothing'",
		"example.com C: want", "example.com D: message: it gives int, want string"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in:\n%v", want, err)
		}
	}
}

// A rule that would never end is cut off.
func TestCostIsBounded(t *testing.T) {
	many := make([]any, 2000)
	for i := range many {
		many[i] = int64(i)
	}
	b, err := Compile([]Rule{{Kind: "Thing", Current: "status.all.all(a, status.all.all(b, status.all.all(c, a + b + c >= 0)))"}})
	if err != nil {
		t.Fatal(err)
	}
	v, m, _ := b.Judge("", "v1", "Thing", map[string]any{"status": map[string]any{"all": many}})
	if v != InProgress || !strings.Contains(m, "cost") {
		t.Errorf("%s %s", v, m)
	}
}
