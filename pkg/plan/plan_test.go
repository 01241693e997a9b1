package plan

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

const full = `
start: manual
onFailure: rollBackAll
supersede: false
joiners: wave
patience: 2h
waves:
- name: canary
  clusters: {matchLabels: {ring: 0, "y": "yes"}}
  max: 2
  concurrency: 1
  soak: 30m
  verdicts: {minimum: 2, passes: 90}
- name: "null"
  clusters:
    matchExpressions:
    - {key: ring, operator: In, values: [1, "two"]}
    - {key: wheelwright.dev/provider, operator: NotIn, values: [acme]}
    - {key: big, operator: Exists}
    - {key: odd, operator: DoesNotExist}
  max: 30%
  budget: 10%
  success: 95%
- name: rest
  approval: admin
  budget: 3
  windows: ["Mon-Fri 22:00-04:00 Europe/Berlin", "Sat,Sun 00:00-24:00 UTC"]
  patience: 90s
`

func TestParseFull(t *testing.T) {
	p, err := Parse([]byte(full))
	if err != nil {
		t.Fatal(err)
	}
	w := p.Waves
	switch {
	case p.Start != Manual, p.OnFailure != RollBackAll, p.Supersede, p.Joiners != JoinWave, p.Patience != 2*time.Hour, len(w) != 3:
		t.Errorf("top: %+v", p)
	case w[0].Max != Amount{N: 2}, w[0].Verdicts != Verdicts{2, 90}, w[0].Soak != 30*time.Minute, w[0].Clusters.MatchLabels["y"] != "yes":
		t.Errorf("canary: %+v", w[0])
	case w[1].Name != "null", w[1].Max != Amount{30, true}, w[1].Success != 95, w[1].Clusters.MatchExpressions[0].Values[0] != "1":
		t.Errorf("second: %+v", w[1])
	case len(w[2].Windows) != 2, w[2].Approval != "admin", w[2].Patience != 90*time.Second:
		t.Errorf("rest: %+v", w[2])
	}
}

func TestCanonicalTextReadsTheSame(t *testing.T) {
	for name, text := range map[string]string{"full": full, "short": "waves: [{name: all}]", "default": string(Default().YAML())} {
		p, err := Parse([]byte(text))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		again, err := Parse(p.YAML())
		if err != nil || !reflect.DeepEqual(p, again) {
			t.Errorf("%s: from\n%s\nread %+v %v\nwant %+v", name, p.YAML(), again, err, p)
		}
		if string(again.YAML()) != string(p.YAML()) {
			t.Errorf("%s: the canonical text is not canonical:\n%s\n%s", name, p.YAML(), again.YAML())
		}
		stored, err := json.Marshal(struct{ Plan Plan }{p})
		if err != nil {
			t.Fatal(err)
		}
		var back struct{ Plan Plan }
		if err := json.Unmarshal(stored, &back); err != nil || !reflect.DeepEqual(p, back.Plan) {
			t.Errorf("%s: through JSON: %+v %v", name, back.Plan, err)
		}
	}
	if got := string(Default().YAML()); got != "start: auto\nonFailure: hold\nsupersede: true\njoiners: wave\npatience: 1h\nwaves:\n  - name: everyone\n    budget: 100%\n" {
		t.Errorf("default plan:\n%s", got)
	}
}

func TestDefaults(t *testing.T) {
	p, err := Parse([]byte("waves: [{name: all, verdicts: {minimum: 1}, windows: }]"))
	want := Plan{Start: Auto, OnFailure: Hold, Supersede: true, Joiners: JoinCompleted, Patience: time.Hour,
		Waves: []Wave{{Name: "all", Verdicts: Verdicts{Minimum: 1, Passes: 100}}}}
	if err != nil || !reflect.DeepEqual(p, want) {
		t.Errorf("%+v %v\nwant %+v", p, err, want)
	}
	if d, err := Parse(Default().YAML()); err != nil || !reflect.DeepEqual(d, Default()) {
		t.Errorf("default: %+v %v", d, err)
	}
}

// Every problem of a text is named at once, with its key.
func TestBadPlans(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "plan: is empty: want at least `waves: [{name: everyone}]`"},
		{"only a comment", "# waves", "plan: is empty: want at least `waves: [{name: everyone}]`"},
		{"no mapping", "[1]", "plan: want keys and values, found a list"},
		{"two documents", "waves: [{name: a}]\n---\nwaves: []", "plan: there is a second document after ---: one file, one document"},
		{"no waves", "start: auto", "waves: there are none: want at least one, such as `waves: [{name: everyone}]`"},
		{"empty waves", "waves: []", "waves: there are none: want at least one, such as `waves: [{name: everyone}]`"},
		{"waves are no list", "waves: all", `waves: want a list, found "all"`},
		{"unknown key", "wave: []\nwaves: [{name: a, bugdet: 1}]", "wave: unknown key; known here: joiners, onFailure, patience, start, supersede, waves\n" +
			"waves[0].bugdet: unknown key; known here: approval, budget, clusters, concurrency, max, name, patience, soak, success, verdicts, windows"},
		{"headed", "rollout:\n  waves: [{name: a}]", "rollout: leave this key out, and what is beside it: a plan is what stands under it"},
		{"headed, beside others", "name: shop\nrollout: {}", "rollout: leave this key out, and what is beside it: a plan is what stands under it"},
		{"twice", "waves: [{name: a}, {name: b}, {name: a}]", `waves[2].name: "a" is the name of waves[0] already: each wave has its own`},
		{"no name", "waves: [{soak: 1m}]", "waves[0].name: missing: people approve and wait by it"},
		{"bad name", "waves: [{name: Wave One}]", `waves[0].name: "Wave One": want lower-case letters, digits and dashes, at most 40`},
		{"over 100", "waves: [{name: a, max: 101%, concurrency: 200%, budget: 150%, success: 101, verdicts: {minimum: 1, passes: 101%}}]",
			`waves[0].max: "101%": is more than all of them: want at most 100%` + "\n" + `waves[0].concurrency: "200%": is more than all of them: want at most 100%` + "\n" +
				`waves[0].budget: "150%": is more than all of them: want at most 100%` + "\n" + `waves[0].success: "101": is more than all of them: want at most 100%` + "\n" +
				`waves[0].verdicts.passes: "101%": is more than all of them: want at most 100%`},
		{"nothing", "waves: [{name: a, max: 0, concurrency: 0%, success: 0, budget: 0}]", `waves[0].max: "0": want at least 1; leave it out for all that match` + "\n" +
			`waves[0].concurrency: "0%": want at least 1; leave it out for all at once` + "\n" +
			`waves[0].success: "0": want a share from 1% to 100%; a wave that may come to nothing has ` + "`budget: 100%`"},
		{"no amount", "waves: [{name: a, max: -1, budget: some}]", `waves[0].max: "-1": want a number of clusters, such as 3, or a share of them, such as 10%` + "\n" +
			`waves[0].budget: "some": want a number of clusters, such as 3, or a share of them, such as 10%`},
		{"no such word", "start: soon\nonFailure: panic\njoiners: never\nsupersede: maybe\nwaves: [{name: a}]", `start: "soon" is not known: want auto, manual` + "\n" +
			`onFailure: "panic" is not known: want hold, rollBackWave, rollBackAll` + "\n" + `joiners: "never" is not known: want completed, wave` + "\n" +
			`supersede: want true or false, found "maybe"`},
		{"durations", "patience: 5\nwaves: [{name: a, soak: -1m, patience: 1000000h}]", `patience: "5": want a duration with its unit, such as 90s or 24h` + "\n" +
			`waves[0].soak: "-1m": want 0s to 2160h` + "\n" + `waves[0].patience: "1000000h": want 1s to 2160h`},
		{"operator", "waves: [{name: a, clusters: {matchExpressions: [{key: ring, operator: Equals, values: [a]}]}}]",
			`waves[0].clusters.matchExpressions[0].operator: "Equals" is not known: want In, NotIn, Exists, DoesNotExist`},
		{"expressions", "waves: [{name: a, clusters: {matchExpressions: [{key: ring, operator: In}, {key: ring, operator: Exists, values: [a]}, {values: [a]}, {key: 'a b', operator: Exists}]}}]",
			"waves[0].clusters.matchExpressions[0].values: missing: In compares with at least one\n" +
				"waves[0].clusters.matchExpressions[1].values: Exists compares with none: leave them out\n" +
				"waves[0].clusters.matchExpressions[2].key: missing\nwaves[0].clusters.matchExpressions[2].operator: missing\n" +
				`waves[0].clusters.matchExpressions[3].key: "a b": want a label, such as ring or wheelwright.dev/provider`},
		{"labels", "waves: [{name: a, clusters: {matchLabels: [ring]}}]", "waves[0].clusters.matchLabels: want labels and their values, found a list"},
		{"verdicts", "waves: [{name: a, verdicts: {passes: 90}}, {name: b, verdicts: {minimum: 0}}]",
			"waves[0].verdicts.minimum: missing: how many clusters have to have a verdict\n" + `waves[1].verdicts.minimum: "0": want a number of clusters, at least 1`},
		{"key twice", "start: auto\nstart: manual\nwaves: [{name: a}]", "start: is there twice: first on line 1"},
		{"role", "waves: [{name: a, approval: The Boss}]", `waves[0].approval: "The Boss": want the role of who approves, such as admin`},
	} {
		_, err := Parse([]byte(c.text))
		if err == nil || err.Error() != c.want {
			t.Errorf("%s: got\n%v\nwant\n%s", c.name, err, c.want)
		}
	}
	if _, err := Parse([]byte("waves: [{name: a, windows: [whenever, 'Mon 25:00-26:00 UTC']}]")); err == nil || strings.Count(err.Error(), "\n") != 1 ||
		!strings.HasPrefix(err.Error(), "waves[0].windows[0]: ") {
		t.Errorf("windows: %v", err)
	}
	if _, err := Parse([]byte("a: [")); err == nil || !strings.HasPrefix(err.Error(), "plan: not YAML: ") || strings.Contains(err.Error(), "\n") {
		t.Errorf("no YAML: %v", err)
	}
}

func TestBelow(t *testing.T) {
	for problem, want := range map[string]string{"waves[0].max: too much": "rollouts.shop.waves[0].max: too much", "plan: is empty": "rollouts.shop: is empty"} {
		if got := Below("rollouts.shop", problem); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestAmounts(t *testing.T) {
	for _, c := range []struct {
		amount      string
		total, want int
	}{
		{"10%", 4, 1}, {"10%", 0, 0}, {"10%", 19, 1}, {"10%", 20, 2}, {"0%", 4, 0}, {"100%", 7, 7}, {"30%", 1000, 300}, {"3", 2, 3}, {"0", 5, 0}, {"1%", 1, 1},
	} {
		a, err := ParseAmount(c.amount)
		if err != nil || a.Of(c.total) != c.want {
			t.Errorf("%s of %d is %d %v, want %d", c.amount, c.total, a.Of(c.total), err, c.want)
		}
	}
	for _, bad := range []string{"", "%", "-1", "1.5", "101%", "ten", "1%%", "99999999"} {
		if a, err := ParseAmount(bad); err == nil {
			t.Errorf("%q is read as %v", bad, a)
		}
	}
}

func TestSelectorsAreAsInKubernetes(t *testing.T) {
	labels := map[string]string{"ring": "1", "empty": ""}
	expression := func(key string, o Operator, values ...string) Selector {
		return Selector{MatchExpressions: []Expression{{key, o, values}}}
	}
	for _, c := range []struct {
		name string
		s    Selector
		want bool
	}{
		{"zero", Selector{}, true},
		{"label", Selector{MatchLabels: map[string]string{"ring": "1"}}, true},
		{"another value", Selector{MatchLabels: map[string]string{"ring": "2"}}, false},
		{"an empty label is not a missing one", Selector{MatchLabels: map[string]string{"none": ""}}, false},
		{"empty", Selector{MatchLabels: map[string]string{"empty": ""}}, true},
		{"In", expression("ring", In, "0", "1"), true},
		{"In, missing", expression("none", In, ""), false},
		{"NotIn", expression("ring", NotIn, "1"), false},
		{"NotIn, missing", expression("none", NotIn, "1"), true},
		{"Exists", expression("empty", Exists), true},
		{"Exists, missing", expression("none", Exists), false},
		{"DoesNotExist", expression("none", DoesNotExist), true},
		{"DoesNotExist, there", expression("empty", DoesNotExist), false},
		{"another operator", expression("ring", "Gt", "0"), false},
		{"both have to hold", Selector{map[string]string{"ring": "1"}, []Expression{{"ring", In, []string{"2"}}}}, false},
	} {
		if got := c.s.Matches(labels); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(full)
	f.Add("waves: &a [{name: x, clusters: &b {matchLabels: *b}}, *a]")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Parse([]byte(text))
		if err != nil {
			return
		}
		again, err := Parse(p.YAML())
		if err != nil || !slices.Equal(again.YAML(), p.YAML()) {
			t.Errorf("%q: %v\n%s\n%s", text, err, p.YAML(), again.YAML())
		}
	})
}
