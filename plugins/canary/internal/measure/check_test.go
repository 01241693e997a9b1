package measure

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestDeclaredMetrics(t *testing.T) {
	policy := Policy{MinimumSample: 50, OnInconclusive: Ask}
	find := func(name string) (MetricTemplate, error) {
		if name != "istio-system/not-found" {
			return MetricTemplate{}, errors.New("there is no MetricTemplate " + name)
		}
		m, _, err := ParseTemplate([]byte(template404))
		return m, err
	}
	for _, test := range []struct {
		d       Declared
		value   string // a part of the query
		title   string
		minimum uint64
		err     string
	}{
		{Declared{Name: SuccessRate, Min: f(99)}, `status=~"5.*"}[1m]`, "success rate", 50, ""},
		{Declared{Name: Duration, Max: f(500), Interval: 30 * time.Second}, `[30s]`, "p99 latency", 50, ""},
		{Declared{Name: "mine", Max: f(1), Query: `up{d="{{ variables.d }}"}`, Variables: map[string]string{"d": "x"}}, `up{d="x"}`, "", 0, ""},
		{Declared{Name: "404", Max: f(5), Template: "istio-system/not-found", Variables: map[string]string{"direction": "in"}}, `reporter="in"`, "", 50, ""},
		{Declared{Name: "404", Max: f(5), Template: "a/b"}, "", "", 0, "metric 404: there is no MetricTemplate a/b"},
		{Declared{Name: "size", Max: f(5)}, "", "", 0, "metric size: size is no built-in metric"},
		{Declared{Name: SuccessRate}, "", "", 0, "metric request-success-rate: request-success-rate has neither a minimum nor a maximum"},
		{Declared{Name: "mine", Max: f(1), Query: "{{"}, "", "", 0, "metric mine: parse the query"},
	} {
		c, err := test.d.Check("none", backend(), policy, find)
		if test.err != "" {
			if err == nil || !strings.HasPrefix(err.Error(), test.err) {
				t.Errorf("%+v: %v", test.d, err)
			}
			continue
		}
		if err != nil || !strings.Contains(c.Query.Value, test.value) || c.Title != test.title || c.MinimumSample != test.minimum || c.OnInconclusive != Ask ||
			(c.Template != nil) != (test.d.Template != "") || c.Name != test.d.Name {
			t.Errorf("%+v: %+v, %v", test.d, c, err)
		}
	}
}

// One server that is away leaves its own checks open and no other.
func TestJudgeAll(t *testing.T) {
	p := client(t, Config{}, func(w http.ResponseWriter, r *http.Request) { scalar(w, r.FormValue("query")) })
	var checks []Check
	for i := range 20 {
		checks = append(checks, Check{Objective: Objective{Name: fmt.Sprint(i), Max: f(9)}, Query: Query{Value: fmt.Sprint(i)}})
	}
	for i, v := range JudgeAll(t.Context(), checks, noon, func(c Check) (*Prometheus, error) {
		if c.Name == "3" {
			return nil, errors.New("the secret shop/login\nis not there")
		}
		return p, nil
	}) {
		want := Pass
		if i > 9 {
			want = Fail
		}
		if i == 3 {
			if v.Outcome != Inconclusive || v.Cause != Unreachable || v.Reason != "the secret shop/login is not there" {
				t.Errorf("%+v", v)
			}
		} else if v.Outcome != want || v.Objective != fmt.Sprint(i) {
			t.Errorf("%d: %+v", i, v)
		}
	}
	if len(JudgeAll(t.Context(), nil, noon, nil)) != 0 {
		t.Error("verdicts of nothing")
	}
}

// Whatever a server answers: no panic, one line, and a decision on nothing but a finite number.
func FuzzAnswer(f *testing.F) {
	for _, r := range recorded[:len(recorded)-1] {
		f.Add(r.status, []byte(r.body))
	}
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		a, err := decode(status, body)
		s := Samples{Shape: a.shape, Values: a.values}
		if err != nil {
			s = Samples{Problem: oneLine(err.Error()), Cause: causeOf(err)}
		}
		bound := 1.0
		v := Judge(noon, Objective{Name: "x", Max: &bound}, s)
		if v.Outcome != Inconclusive && (status != http.StatusOK || len(a.values) != 1 || v.Value == nil || !finite(*v.Value)) {
			t.Errorf("%d %q: %+v", status, body, v)
		}
		if v.Outcome == Inconclusive && (v.Reason == "" || strings.ContainsAny(v.Reason, "\n\r")) {
			t.Errorf("%d %q: %q", status, body, v.Reason)
		}
	})
}
