package rules_test

import (
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/rules"
)

type object = map[string]any

func widget(generation, observed any, status object) object {
	if observed != nil {
		status["observedGeneration"] = observed
	}
	return object{"apiVersion": "example.com/v1", "kind": "Widget", "metadata": object{"name": "w", "generation": generation}, "spec": object{"size": int64(3)}, "status": status}
}

func conditions(kind, status, message string) object {
	return object{"conditions": []any{object{"type": kind, "status": status, "message": message}}}
}

var ready = rules.Rule{
	Group: "example.com", Kind: "Widget",
	Current:    `status.conditions.exists(c, c.type == "Ready" && c.status == "True")`,
	Failed:     `has(status.conditions) && status.conditions.exists(c, c.type == "Stalled" && c.status == "True")`,
	InProgress: `status.phase == "Moving"`,
	Message:    `status.conditions[0].message.trim()`,
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		what    string
		rule    rules.Rule
		object  object
		want    rules.Verdict
		message string
		trouble string
	}{
		{"there", ready, widget(int64(2), int64(2), conditions("Ready", "True", "all is well")), rules.Current, "", ""},
		{"not there", ready, widget(int64(2), int64(2), conditions("Ready", "False", " issuer is away ")), rules.InProgress, "issuer is away", ""},
		{"failed", ready, widget(int64(2), int64(2), conditions("Stalled", "True", "no way")), rules.Failed, "no way", ""},
		{"failed before it is on its way", ready, widget(int64(2), int64(2), object{"phase": "Moving", "conditions": conditions("Stalled", "True", "no way")["conditions"]}), rules.Failed, "no way", ""},
		{"on its way before it is there", ready, widget(int64(2), int64(2), object{"phase": "Moving", "conditions": conditions("Ready", "True", "m")["conditions"]}), rules.InProgress, "m", ""},
		{"a status of nothing", ready, widget(int64(2), nil, object{}), rules.InProgress, "by its health rule it is not ready yet", ""},
		{"no status at all", ready, object{"apiVersion": "example.com/v1beta1", "kind": "Widget"}, rules.InProgress, "by its health rule it is not ready yet", ""},
		{"a status about what was before", ready, widget(int64(2), int64(1), conditions("Ready", "True", "m")), rules.InProgress, "its controller has not seen the latest change yet", ""},
		{"numbers as JSON has them", ready, widget(float64(2), float64(2), conditions("Ready", "True", "m")), rules.Current, "", ""},
		{"only what fails is said, and it did not", rules.Rule{Group: "example.com", Kind: "Widget", Failed: "status.phase == 'Broken'"}, widget(int64(1), nil, object{"phase": "Fine"}), rules.Current, "", ""},
		{"only what fails is said, and it did", rules.Rule{Group: "example.com", Kind: "Widget", Failed: "status.phase == 'Broken'"}, widget(int64(1), nil, object{"phase": "Broken"}), rules.Failed, "by its health rule it has failed", ""},
		{"numbers are compared whatever their kind", rules.Rule{Group: "example.com", Kind: "Widget", Current: "spec.size == status.size && object.spec.size >= 2.5"}, widget(int64(1), nil, object{"size": 3.0}), rules.Current, "", ""},
		{"what may be missing", rules.Rule{Group: "example.com", Kind: "Widget", Current: "status.?phase.orValue('Fine') == 'Fine'"}, widget(int64(1), nil, object{}), rules.Current, "", ""},
		{"a message without values", rules.Rule{Group: "example.com", Kind: "Widget", Current: "false", Message: "metadata.name + ': ' + (has(metadata.annotations) ? 'told' : 'not told')"},
			object{"apiVersion": "example.com/v1", "kind": "Widget", "metadata": object{"name": "w", "annotations": object{"a": "b"}}}, rules.InProgress, "w: not told", ""},
		{"no bool", rules.Rule{Group: "example.com", Kind: "Widget", Current: "status.phase"}, widget(int64(1), nil, object{"phase": "x"}), rules.Unknown, "", "health rule of Widget of example.com: current: it gives string, want bool"},
		{"a list where a map was thought of", rules.Rule{Group: "example.com", Kind: "Widget", Current: "status.conditions.ready == true"}, widget(int64(1), nil, conditions("a", "b", "c")), rules.Unknown, "", "health rule of Widget of example.com: current: "},
	} {
		b, err := rules.Compile([]rules.Rule{c.rule})
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		v, message, ok, err := b.Judge(c.object)
		if v != c.want || message != c.message || !ok {
			t.Errorf("%s: got %s %q %v, want %s %q", c.what, v, message, ok, c.want, c.message)
		}
		if (err == nil) != (c.trouble == "") || err != nil && !strings.HasPrefix(err.Error(), c.trouble) {
			t.Errorf("%s: error %v, want %q", c.what, err, c.trouble)
		}
	}
}

func TestTheFirstRuleAboutAKindCounts(t *testing.T) {
	b, err := rules.Compile([]rules.Rule{
		{Group: "example.com", Version: "v2", Kind: "Widget", Current: "false"},
		{Group: "example.com", Kind: "Widget", Current: "true"},
		{Group: "example.com", Version: "v1", Kind: "Widget", Failed: "true"},
		{Kind: "ConfigMap", Current: "object.data.key == 'a'"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		apiVersion, kind string
		want             rules.Verdict
	}{
		{"example.com/v1", "Widget", rules.Current},
		{"example.com/v2", "Widget", rules.InProgress},
		{"v1", "ConfigMap", rules.Current},
		{"example.org/v1", "Widget", rules.Unknown},
		{"v1", "Widget", rules.Unknown},
		{"example.com/v1", "Gadget", rules.Unknown},
	} {
		v, _, ok, err := b.Judge(object{"apiVersion": c.apiVersion, "kind": c.kind, "data": object{"key": "a"}})
		if v != c.want || err != nil || ok != (c.want != rules.Unknown) {
			t.Errorf("%s %s: %s %v, %v", c.apiVersion, c.kind, v, ok, err)
		}
	}
	var none *rules.Book
	if _, _, ok, err := none.Judge(object{"kind": "X"}); ok || err != nil || none.About("", "v1", "X") {
		t.Error("no book has a rule")
	}
	if !b.About("example.com", "v3", "Widget") || b.About("", "v1", "Widget") {
		t.Error("About")
	}
}

func TestEverythingThatIsWrongIsSaid(t *testing.T) {
	_, err := rules.Compile([]rules.Rule{
		{Group: "example.com", Kind: "A", Current: "status.phase ==", Failed: "'text'"},
		{Group: "example.com", Version: "v1", Kind: "B", Current: "true &&\n  nothing.here"},
		{Group: "example.com", Kind: "C"},
		{Group: "example.com", Kind: "D", Current: "true", Message: "1 + 1"},
		{Current: "true"},
		{Kind: "Secret", Current: "object.data.key != ''"},
		{Kind: "E", Current: "object.data.key.replace('', object.data.key) == ''"},
		{Kind: "F", Current: "true || " + strings.Repeat("(", 60) + "true" + strings.Repeat(")", 60)},
		{Kind: "G", Current: "'" + strings.Repeat("x", 5000) + "' == ''"},
		{Kind: "H", Current: "'a'.format(['b']) == ''"},
		{Kind: "I", Current: "true", Message: "object.data.key"},
		{Kind: "J", Current: "true", Message: "spec.password"},
		{Kind: "Fine", Current: "true", Message: "metadata.name + status.phase"},
	})
	if err == nil {
		t.Fatal("taken")
	}
	for _, want := range []string{
		"health rule of A of example.com: current: column ", "A of example.com: failed: column 1: it gives string, want bool",
		"health rule of B of example.com/v1: current: line 2, column 3: undeclared reference to 'nothing'",
		"health rule of C of example.com: it has no expression",
		"D of example.com: message: column 1: it gives int, want string",
		"it names no kind", "health rule of Secret: a Secret is never read",
		"health rule of E: current: column 24: replace is not to be had",
		"health rule of I: message: column 1: undeclared reference to 'object'", "health rule of J: message: column 1: undeclared reference to 'spec'",
		"health rule of F: current: ", "health rule of G: current: ", "health rule of H: current: ",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "Fine") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
}

// What would never end, or fill the memory, is cut off.
func TestCostIsBounded(t *testing.T) {
	many := make([]any, 2000)
	for i := range many {
		many[i] = int64(i)
	}
	for _, expression := range []string{
		"status.all.all(a, status.all.all(b, status.all.all(c, a + b + c >= 0)))",
		"status.all.map(a, status.all.map(b, status.all)).size() > 0",
		"status.text.split('').exists(a, status.text.split('').exists(b, a + b == 'no'))",
	} {
		b, err := rules.Compile([]rules.Rule{{Kind: "Thing", Current: expression}})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		v, _, ok, err := b.Judge(object{"apiVersion": "v1", "kind": "Thing", "status": object{"all": many, "text": strings.Repeat("xy", 100_000)}})
		if v != rules.Unknown || !ok || err == nil {
			t.Errorf("%s: %s %v", expression, v, err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%s: %s", expression, took)
		}
	}
}

func TestABookMayBeUsedAtTheSameTime(t *testing.T) {
	b, err := rules.Compile([]rules.Rule{ready})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if v, _, _, err := b.Judge(widget(int64(2), int64(2), conditions("Ready", "True", "m"))); v != rules.Current || err != nil {
					t.Errorf("%s %v", v, err)
				}
			}
		})
	}
	wg.Wait()
}

// A spoke is small: rules cost it memory only where there are some, and then little.
func TestRulesAreLean(t *testing.T) {
	use := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := use()
	b, err := rules.Compile([]rules.Rule{ready})
	if err != nil {
		t.Fatal(err)
	}
	grown := int64(use()) - int64(before)
	t.Logf("%d KiB on the heap", grown>>10)
	if grown > 4<<20 {
		t.Errorf("%d KiB on the heap for one rule", grown>>10)
	}
	runtime.KeepAlive(b)
}
