package measure

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

var noon = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

func f(v float64) *float64 { return &v }

func rate() Objective {
	return Objective{Name: SuccessRate, Title: "success rate", Unit: "%", Min: f(99), Interval: time.Minute, MinimumSample: 50}
}

func latency() Objective {
	return Objective{Name: Duration, Title: "p99 latency", Unit: "ms", Max: f(500), Interval: 90 * time.Second}
}

func seen(value, requests float64) Samples {
	return Samples{Values: []float64{value}, Counted: &requests, Newest: noon.Add(-10 * time.Second)}
}

func TestJudge(t *testing.T) {
	with := func(o Objective, change func(*Objective)) Objective { change(&o); return o }
	for _, test := range []struct {
		name    string
		o       Objective
		s       Samples
		outcome Outcome
		cause   Cause
		reason  string
	}{
		{"good", rate(), seen(99.95, 4120), Pass, "", "success rate 99.95 % >= 99 % over 1m, 4,120 requests"},
		{"bad", rate(), seen(92.1, 4120), Fail, "", "success rate 92.1 % < 99 % over 1m, 4,120 requests"},
		{"just below", rate(), seen(98.9999, 4120), Fail, "", "success rate 98.9999 % < 99 % over 1m, 4,120 requests"},
		{"on the bound", rate(), seen(99, 100), Pass, "", "success rate 99 % >= 99 % over 1m, 100 requests"},
		{"on the bound, divided", rate(), seen(100*(1-1.0/100), 100), Pass, "", "success rate 99 % >= 99 % over 1m, 100 requests"},
		{"slow", latency(), seen(812.4, 60), Fail, "", "p99 latency 812.4 ms > 500 ms over 1m30s, 60 requests"},
		{"very slow", latency(), seen(123456.7, 60), Fail, "", "p99 latency 123457 ms > 500 ms over 1m30s, 60 requests"},
		{"nothing but errors", rate(), seen(0, 50), Fail, "", "success rate 0 % < 99 % over 1m, 50 requests"},
		{"sample unknown, none wanted", latency(), Samples{Values: []float64{1}}, Pass, "", "p99 latency 1 ms <= 500 ms over 1m30s"},
		{"few", rate(), seen(0, 3), Inconclusive, NoTraffic, "no traffic: 3 requests in 1m, wants 50"},
		{"none", latency(), Samples{Counted: f(0)}, Inconclusive, NoTraffic, "no traffic: 0 requests in 1m30s, wants 1"},
		{"none, divided by", rate(), seen(math.NaN(), 0), Inconclusive, NoTraffic, "no traffic: 0 requests in 1m, wants 50"},
		{"sample unknown", rate(), Samples{Values: []float64{1}}, Inconclusive, NoTraffic, "unknown sample: the query does not tell how many requests it rests on, wants 50"},
		{"sample NaN", rate(), seen(99, math.NaN()), Inconclusive, NotANumber, "the number of requests is NaN"},
		{"sample endless", rate(), seen(99, math.Inf(1)), Inconclusive, NotANumber, "the number of requests is Inf"},
		{"empty", latency(), Samples{}, Inconclusive, NoData, "no data: the query of request-duration returned nothing"},
		{"vector", latency(), Samples{Values: []float64{1, 2, 3}}, Inconclusive, WrongShape, "the query of request-duration returned a vector of 3, wants one number: write sum() around it, or what else makes one"},
		{"matrix", latency(), Samples{Shape: "matrix of 2"}, Inconclusive, WrongShape, "the query of request-duration returned a matrix of 2, wants one number"},
		{"NaN", latency(), Samples{Values: []float64{math.NaN()}}, Inconclusive, NotANumber, "p99 latency is NaN"},
		{"Inf", latency(), Samples{Values: []float64{math.Inf(-1)}}, Inconclusive, NotANumber, "p99 latency is -Inf"},
		{"stale", rate(), Samples{Values: []float64{99.9}, Counted: f(90), Newest: noon.Add(-4 * time.Minute)}, Inconclusive, Stale, "stale: newest sample is 4m old"},
		{"of the future", rate(), Samples{Values: []float64{99.9}, Counted: f(90), Newest: noon.Add(time.Hour)}, Inconclusive, Stale, "newest sample is 1h in the future: the clocks differ"},
		{"old is allowed", with(rate(), func(o *Objective) { o.MaxAge = 5 * time.Minute }), Samples{Values: []float64{99.9}, Counted: f(90), Newest: noon.Add(-4 * time.Minute)}, Pass, "", "success rate 99.9 % >= 99 % over 1m, 90 requests"},
		{"unreachable", rate(), Samples{Problem: "Prometheus unreachable: EOF", Cause: Unreachable}, Inconclusive, Unreachable, "Prometheus unreachable: EOF"},
		{"no bound", with(rate(), func(o *Objective) { o.Min = nil }), seen(1, 90), Inconclusive, NoBound, "success rate has neither a minimum nor a maximum"},
		{"NaN bound", with(rate(), func(o *Objective) { o.Min = f(math.NaN()) }), seen(1, 90), Inconclusive, NoBound, "a bound of success rate is not a finite number"},
		{"crossed bounds", with(rate(), func(o *Objective) { o.Max = f(1) }), seen(1, 90), Inconclusive, NoBound, "success rate has a minimum of 99 above its maximum of 1"},
		{"no title", Objective{Name: "errors", Max: f(0)}, Samples{Values: []float64{2}, Detail: "all of them mine"}, Fail, "", "errors 2 > 0 (all of them mine)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := Judge(noon, test.o, test.s)
			if v.Outcome != test.outcome || v.Cause != test.cause || v.Reason != test.reason {
				t.Errorf("%s %s %q", v.Outcome, v.Cause, v.Reason)
				t.Errorf("want %s %s %q", test.outcome, test.cause, test.reason)
			}
			if (v.Do == "") != (test.outcome != Inconclusive) {
				t.Errorf("to do: %q", v.Do)
			}
			if wire := v.Wire(); wire.GetOutcome() == pluginv1.Outcome_OUTCOME_UNSPECIFIED || (wire.GetReason() == "") != (test.outcome == Pass) {
				t.Errorf("on the wire: %v", wire)
			}
		})
	}
}

func TestWhatIsDoneWithoutEvidence(t *testing.T) {
	idle, away := Samples{Counted: f(2)}, Samples{Problem: "away", Cause: Unreachable}
	for _, test := range []struct {
		policy OnInconclusive
		s      Samples
		want   OnInconclusive
	}{
		{"", idle, Hold}, {Hold, idle, Hold}, {Ask, idle, Ask}, {GenerateLoad, idle, GenerateLoad},
		{"", away, Hold}, {Ask, away, Ask}, {GenerateLoad, away, Hold}, // no load brings a server back
	} {
		o := rate()
		o.OnInconclusive = test.policy
		if v := Judge(noon, o, test.s); v.Do != test.want {
			t.Errorf("%q on %q: %q, want %q", test.policy, v.Reason, v.Do, test.want)
		}
	}
}

// Whatever else is true, one thing that is missing, old, infinite or of the wrong shape leaves the
// question open, alone and in a pool. And what is whole is decided.
func TestNoDataNeverDecides(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 0))
	odd := []float64{math.NaN(), math.Inf(1), math.Inf(-1)}
	spoil := []func(*Objective, *Samples){
		func(_ *Objective, s *Samples) { s.Values = nil },
		func(_ *Objective, s *Samples) { s.Values = []float64{odd[r.IntN(3)]} },
		func(_ *Objective, s *Samples) { s.Values = append(s.Values, s.Values[0]) },
		func(_ *Objective, s *Samples) { s.Shape = "matrix of 1" },
		func(_ *Objective, s *Samples) { s.Counted = f(odd[r.IntN(3)]) },
		func(o *Objective, s *Samples) { o.MinimumSample, s.Counted = 2+r.Uint64N(1000), nil },
		func(o *Objective, s *Samples) { *s.Counted = r.Float64() * (float64(o.MinimumSample) - 0.51) },
		func(_ *Objective, s *Samples) { *s.Counted = -r.Float64() * 1e6 },
		func(o *Objective, s *Samples) {
			s.Newest = noon.Add(-o.maxAge() - time.Duration(1+r.Int64N(int64(1000*time.Hour))))
		},
		func(o *Objective, s *Samples) {
			s.Newest = noon.Add(o.maxAge() + time.Duration(1+r.Int64N(int64(time.Hour))))
		},
		func(_ *Objective, s *Samples) { s.Problem = "away" },
		func(o *Objective, _ *Samples) { o.Min, o.Max = nil, nil },
		func(o *Objective, _ *Samples) { o.Min = f(odd[r.IntN(3)]) },
	}
	for range 20_000 {
		low := r.NormFloat64() * 100
		o := Objective{Name: "x", Interval: time.Duration(r.Int64N(int64(time.Hour))), MinimumSample: 1 + r.Uint64N(1000)}
		if o.Min = f(low); r.IntN(2) == 0 {
			o.Max = f(low + r.Float64()*100)
		}
		value := r.NormFloat64() * 200
		s := Samples{Values: []float64{value}, Counted: f(float64(o.MinimumSample) + r.Float64()*1e6), Newest: noon.Add(-time.Duration(r.Int64N(int64(o.maxAge()))))}
		whole := Judge(noon, o, s)
		want := Pass
		if value < low || o.Max != nil && value > *o.Max {
			want = Fail
		}
		if whole.Outcome != want {
			t.Fatalf("seed %d: %+v on %+v: %s, want %s", seed, s, o, whole.Reason, want)
		}
		for range 1 + r.IntN(3) {
			if len(s.Values) == 1 && s.Counted != nil {
				spoil[r.IntN(len(spoil))](&o, &s)
			}
		}
		v := Judge(noon, o, s)
		if v.Outcome != Inconclusive || v.Reason == "" || v.Cause == "" || v.Do == "" {
			t.Fatalf("seed %d: %+v on %+v: %+v", seed, s, o, v)
		}
		if p := Pool(nil, []Verdict{v, {Outcome: Pass}}); p.Outcome != Inconclusive {
			t.Fatalf("seed %d: a pool of nothing and a pass: %+v", seed, p)
		}
	}
}

func TestPool(t *testing.T) {
	good := Verdict{Outcome: Pass, Reason: "fine", Sample: 100, Minimum: 50, Newest: noon}
	bad := Verdict{Outcome: Fail, Reason: "success rate 92.1 % < 99 %", Sample: 70, Minimum: 50, Newest: noon.Add(-time.Minute)}
	idle := Verdict{Outcome: Inconclusive, Cause: NoTraffic, Reason: "no traffic", Do: GenerateLoad}
	asks := Verdict{Outcome: Inconclusive, Cause: Stale, Reason: "stale", Do: Ask}
	names := []string{"backend", "cache", "database", "frontend", "search"}
	for _, test := range []struct {
		name    string
		all     []Verdict
		outcome Outcome
		reason  string
		sample  uint64
		do      OnInconclusive
	}{
		{"none", nil, Inconclusive, "no data: nothing was measured", 0, Hold},
		{"all good", []Verdict{good, good}, Pass, "backend: fine; cache: fine", 200, ""},
		{"one bad", []Verdict{good, bad, good}, Fail, "cache: success rate 92.1 % < 99 %", 270, ""},
		{"bad and unknown", []Verdict{idle, bad, asks}, Fail, "cache: success rate 92.1 % < 99 %", 70, ""},
		{"one unknown", []Verdict{good, good, idle}, Inconclusive, "database: no traffic", 200, GenerateLoad},
		{"somebody is asked", []Verdict{idle, good, asks}, Inconclusive, "backend: no traffic; database: stale", 100, Ask},
		{"no outcome at all", []Verdict{good, {}}, Inconclusive, "cache: ", 100, Hold},
		{"all bad", []Verdict{bad, bad, bad, bad, bad}, Fail, "backend: success rate 92.1 % < 99 %; cache: success rate 92.1 % < 99 %; database: success rate 92.1 % < 99 %; and 2 more", 350, ""},
	} {
		v := Pool(names, test.all)
		if v.Outcome != test.outcome || v.Reason != test.reason || v.Sample != test.sample || v.Do != test.do {
			t.Errorf("%s: %+v", test.name, v)
		}
		slices.Reverse(test.all)
		if again := Pool(nil, test.all); again.Outcome != test.outcome {
			t.Errorf("%s, the other way round: %s", test.name, again.Outcome)
		}
	}
	if v := Pool(nil, []Verdict{good, bad}); !v.Newest.Equal(bad.Newest) {
		t.Errorf("a pool is as old as its oldest: %s", v.Newest)
	}
}

func TestThreshold(t *testing.T) {
	for _, test := range []struct {
		limit  Threshold
		checks string // p, f, i
		at     int    // the check that reaches it; 0: none
	}{
		{Threshold{}, "ppf", 3},
		{Threshold{}, "iiiiiiii", 0},
		{Threshold{Total: 3}, "fpfpf", 5}, // as Flagger: passes do not forgive
		{Threshold{Total: 3}, "ffppp", 0},
		{Threshold{Total: 3}, "fififi", 5},
		{Threshold{InRow: 2}, "fpfpfpff", 8},
		{Threshold{InRow: 2}, "fif", 3}, // not knowing is no recovery
		{Threshold{Total: 4, InRow: 2}, "fpfpff", 6},
		{Threshold{Total: 3, InRow: 3}, "fpfpf", 5},
	} {
		var tally Tally
		reached := 0
		for i, check := range test.checks {
			tally = tally.Add(map[rune]Outcome{'p': Pass, 'f': Fail, 'i': Inconclusive}[check])
			if reached == 0 && test.limit.Reached(tally) {
				reached = i + 1
			}
		}
		if reached != test.at {
			t.Errorf("%+v on %s: reached at %d, want %d", test.limit, test.checks, reached, test.at)
		}
		if n := tally.Passed + tally.Failed + tally.Inconclusive; int(n) != len(test.checks) {
			t.Errorf("%s: counted %d", test.checks, n)
		}
	}
}

func TestMetricOnTheWire(t *testing.T) {
	m := Judge(noon, rate(), seen(92.1, 4120)).Metric("backend")
	if m.GetService() != "backend" || m.GetName() != SuccessRate || m.GetValue() != 92.1 || m.GetUnit() != "%" || m.GetNewest() == nil ||
		m.GetVerdict().GetSample() != 4120 || m.GetVerdict().GetMinimumSample() != 50 {
		t.Errorf("%v", m)
	}
	if m := Judge(noon, latency(), Samples{Values: []float64{math.NaN()}}).Metric("backend"); m.Value != nil || m.Newest != nil {
		t.Errorf("what is no number has no value: %v", m)
	}
	o := latency().Wire("prometheus", "up")
	if o.GetMax() != 500 || o.Min != nil || o.GetQuery() != "up" || o.GetUnit() != "ms" {
		t.Errorf("%v", o)
	}
}

func TestForeignTextBecomesOneLine(t *testing.T) {
	got := oneLine("a\r\n\tb\x1b[31m\x00 c \xff" + strings.Repeat("é", 400))
	if strings.ContainsAny(got, "\r\n\t\x1b\x00") || !strings.HasPrefix(got, "a b [31m c ?") || len(got) > 310 || !strings.HasSuffix(got, "…") {
		t.Errorf("%q", got)
	}
}
