package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/cluster"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// Through the program itself, as a spoke starts it: a service without users is judged by what the plugin asks of
// it, and by nothing where that is not wanted.
func TestLoadThroughTheProgram(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program")
	}
	q := newQuiet(t)
	path := filepath.Join(t.TempDir(), "canary")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	s, step := q.subject(t)
	without := startProgram(t, path, q.kubeconfig(t), "--prometheus", q.prometheus)
	for range 3 {
		r, err := without.Measure(t.Context(), &pluginv1.MeasureRequest{Call: aCall(), Subject: s, Step: step, To: timestamppb.Now()})
		if err != nil || r.GetVerdict().GetOutcome() != pluginv1.Outcome_OUTCOME_INCONCLUSIVE || r.GetVerdict().GetReason() != "api: no traffic: 0 requests in 1m, wants 20" {
			t.Fatal(r, err)
		}
	}
	if n := q.asked.Load(); n != 0 {
		t.Fatalf("%d requests that nobody wanted", n)
	}
	with := startProgram(t, path, q.kubeconfig(t), "--prometheus", q.prometheus, "--generate-load", "50")
	measure := measures(func(ctx context.Context, r *pluginv1.MeasureRequest) (*pluginv1.MeasureResponse, error) {
		return with.Measure(ctx, r)
	})
	first, last := measure.until(t, s, step, pluginv1.Outcome_OUTCOME_PASS)
	url := fmt.Sprintf("http://api-canary.shop.svc:%d/", q.port)
	if want := "api: no traffic: 0 requests in 1m, wants 20; the plugin makes 50 requests a second to " + url + ", 0 so far"; first.GetVerdict().GetReason() != want {
		t.Errorf("got %q\nwant %q", first.GetVerdict().GetReason(), want)
	}
	var n int
	if _, err := fmt.Sscanf(last.GetVerdict().GetReason(), "api: %d requests so far were the plugin's own, to "+url, &n); err != nil || n < 20 || last.GetVerdict().GetSample() < 20 {
		t.Errorf("got %v, %v", last.GetVerdict(), err)
	}
	if c := last.GetCounted(); len(c) != 2 || c[0].GetPassed() != 1 || c[0].GetInconclusive() == 0 || c[0].GetFailed() != 0 {
		t.Errorf("got %v", c)
	}
	if r, err := with.Abort(t.Context(), &pluginv1.AbortRequest{Call: aCall(), Subject: s}); err != nil || !r.GetSettled() {
		t.Fatal(r, err)
	}
	q.silent(t) // though it is wound up for two minutes
}

// A candidate that fails what it is asked fails by what is counted; and each end of a step is the load's.
func TestLoad(t *testing.T) {
	asks := func(canary strategy.Object) {
		document.Mapping(canary, "metadata")["annotations"] = map[string]any{strategy.AnnotationLoadPath: "/items?limit=1"}
	}
	q := newQuiet(t)
	q.failing.Store(true)
	var log strings.Builder
	c := q.loading(t, 100, &log)
	s, step := q.subject(t, asks)
	_, last := measures(c.Measure).until(t, s, step, pluginv1.Outcome_OUTCOME_FAIL)
	if v := last.GetVerdict(); !strings.HasPrefix(v.GetReason(), "api: success rate 0 % < 99 % over 1m, ") || !strings.Contains(v.GetReason(), " requests so far were the plugin's own, to http://api-canary.shop.svc:") || last.GetOver() {
		t.Errorf("got %v", last)
	}
	if want := fmt.Sprintf("api.shop.svc:%d/items?limit=1", q.port); <-q.paths != want {
		t.Errorf("it did not ask %s", want)
	}
	for name, end := range map[string]func(context.Context) error{
		"the next step": func(ctx context.Context) error {
			_, err := c.Step(ctx, &pluginv1.StepRequest{Call: aCall(), Subject: s, Step: &pluginv1.CanaryStep{Number: 2}})
			return err
		},
		"promotion": func(ctx context.Context) error {
			_, err := c.Promote(ctx, &pluginv1.PromoteRequest{Call: aCall(), Subject: s})
			return err
		},
		"abort": func(ctx context.Context) error {
			_, err := c.Abort(ctx, &pluginv1.AbortRequest{Call: aCall(), Subject: s})
			return err
		},
	} {
		q.asked.Store(0)
		measures(c.Measure).until(t, s, step, pluginv1.Outcome_OUTCOME_FAIL)
		ctx, cancel := context.WithTimeout(t.Context(), margin+100*time.Millisecond) // what it comes to otherwise is shown elsewhere
		err := end(ctx)
		cancel()
		if err != nil {
			t.Logf("%s: %v", name, err)
		}
		q.silent(t)
	}
	for _, line := range []string{"generating load", "no more load is generated"} {
		if n := strings.Count(log.String(), line); n != 3 {
			t.Errorf("%q is logged %d times for three runs", line, n)
		}
	}
}

// Load helps where requests are missing, and is made nowhere else.
func TestLoadIsForMissingRequests(t *testing.T) {
	custom := func(canary strategy.Object) {
		metric := document.Mappings(document.At(canary, "spec", "analysis", "metrics"))[0]
		metric["name"], metric["query"] = "errors", `errors{pod=~"{{ target }}-.*"}`
	}
	beside := func(canary strategy.Object) {
		analysis := document.Mapping(canary, "spec", "analysis")
		analysis["metrics"] = append(analysis["metrics"].([]any), map[string]any{"name": "errors", "query": `errors{pod=~"{{ target }}-.*"}`, "thresholdRange": map[string]any{"max": 100}})
	}
	for _, test := range []struct {
		name   string
		mode   string
		asked  int64 // before
		number uint32
		change func(strategy.Object)
		load   bool
	}{
		{"too few", "counting", 19, 1, nil, true},
		{"enough, and the value is NaN", "NaN", 20, 1, nil, false},
		{"Prometheus is away", "away", 0, 1, nil, false},
		{"before the first step", "counting", 0, 0, nil, false},
		{"nobody counts, and the value is NaN", "NaN", 0, 1, custom, true},
		{"nobody counts, and there is a value", "99.9", 0, 1, custom, false},
		{"another metric has counted enough", "NaN", 20, 1, beside, false},
		{"another metric has counted too few", "NaN", 3, 1, beside, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			q := newQuiet(t)
			q.mode.Store(test.mode)
			q.asked.Store(test.asked)
			var changes []func(strategy.Object)
			if test.change != nil {
				changes = append(changes, test.change)
			}
			s, step := q.subject(t, changes...)
			step.Number = test.number
			c := q.loading(t, 50, io.Discard)
			r, err := c.Measure(t.Context(), &pluginv1.MeasureRequest{Call: aCall(), Subject: s, Step: step, To: timestamppb.Now()})
			c.load.Stop(delivery(s), "")
			if err != nil || strings.Contains(r.GetVerdict().GetReason(), "to http://api-canary.shop.svc:") != test.load {
				t.Errorf("got %v, %v", r, err)
			}
			if n := q.asked.Load(); !test.load && n != test.asked {
				t.Errorf("%d requests", n-test.asked)
			}
		})
	}
}

// A candidate that nobody can connect to is no failed one, and the reason says who could not.
func TestLoadThatDoesNotArrive(t *testing.T) {
	q := newQuiet(t)
	c := q.loading(t, 100, io.Discard)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	q.port = closed.Addr().(*net.TCPAddr).Port
	closed.Close()
	s, step := q.subject(t)
	defer c.load.Stop(delivery(s), "")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		r, err := c.Measure(ctx, &pluginv1.MeasureRequest{Call: aCall(), Subject: s, Step: step, To: timestamppb.Now()})
		if err != nil || r.GetVerdict().GetOutcome() != pluginv1.Outcome_OUTCOME_INCONCLUSIVE {
			t.Fatal(r, err)
		}
		reason := r.GetVerdict().GetReason()
		if strings.Contains(reason, "and none was answered (dial tcp 127.0.0.1:") && strings.HasSuffix(reason, "connection refused): see that the spoke's Pod may connect to the candidate's") {
			return
		}
		if !sleep(ctx, 20*time.Millisecond) {
			t.Fatalf("got %q", reason)
		}
	}
}

// What cannot be asked is said when it is planned, by object and field.
func TestLoadIsPlanned(t *testing.T) {
	annotate := func(key string, value any) func(strategy.Object) {
		return func(canary strategy.Object) {
			if document.Text(canary, "metadata", "name") == "api" {
				document.Mapping(canary, "metadata")["annotations"] = map[string]any{key: value}
			}
		}
	}
	field := func(change func(service strategy.Object)) func(strategy.Object) {
		return func(canary strategy.Object) {
			if document.Text(canary, "metadata", "name") == "api" {
				change(document.Mapping(canary, "spec", "service"))
			}
		}
	}
	for _, test := range []struct {
		name              string
		rate              float64
		change            func(strategy.Object)
		problem, warnings string
	}{
		{"nothing special", 1, annotate(strategy.AnnotationLoadPath, "/items?limit=1"), "", ""},
		{"relative", 1, annotate(strategy.AnnotationLoadPath, "healthz"), `Canary shop/api: metadata.annotations[wheelwright.dev/load-path]: "healthz" does not begin with one /; write a path, such as /healthz`, ""},
		{"of another host", 0, annotate(strategy.AnnotationLoadPath, "//example.com/"), `Canary shop/api: metadata.annotations[wheelwright.dev/load-path]: "//example.com/" does not begin with one /;`, ""},
		{"no path", 1, annotate(strategy.AnnotationLoadPath, "/a b"), `Canary shop/api: metadata.annotations[wheelwright.dev/load-path]: "/a b" is no path of at most 1024 characters;`, ""},
		{"no text", 1, annotate(strategy.AnnotationLoadPath, 5), `Canary shop/api: metadata.annotations[wheelwright.dev/load-path]: is no text; write a path in quotes`, ""},
		{"misspelt", 1, annotate("wheelwright.dev/load-paht", "/"), `Canary shop/api: metadata.annotations[wheelwright.dev/load-paht]: is not known; write wheelwright.dev/load-path, or take it out`, ""},
		{"not HTTP", 1, field(func(service strategy.Object) { service["appProtocol"] = "grpc" }), "", "Canary shop/api: no load is generated: port PORT of Service api speaks grpc, and load is HTTP;"},
		{"not HTTP by its name", 1, field(func(service strategy.Object) { service["portName"] = "grpc-items" }), "", "Canary shop/api: no load is generated: port PORT of Service api speaks grpc,"},
		{"not wanted", 0, field(func(service strategy.Object) { service["appProtocol"] = "grpc" }), "", ""},
		{"too slow", 0.3, nil, "", "Canary shop/api: request-success-rate: --generate-load 0.3 makes 18 requests in 1m0s, too few for --minimum-sample 20; give at least 0.4"},
		{"another way", 1, func(canary strategy.Object) { document.Mapping(canary, "spec")["provider"] = "nginx" }, "",
			"Canary shop/api: no load is generated for request-success-rate: it is counted at the Ingress, which generated load does not pass; give the metric a query"},
	} {
		t.Run(test.name, func(t *testing.T) {
			q := newQuiet(t)
			var changes []func(strategy.Object)
			if test.change != nil {
				changes = append(changes, test.change)
			}
			s, _ := q.subject(t, changes...)
			c := q.loading(t, test.rate, io.Discard)
			c.open = func() (cluster.Server, func(), error) { return nil, nil, errors.New("there is no cluster") }
			rel, err := c.understand(s)
			if problems := fmt.Sprint(err); (err != nil) != (test.problem != "") || !strings.HasPrefix(problems, test.problem) && test.problem != "" {
				t.Fatalf("got %v, want %q", err, test.problem)
			}
			p := plan{}
			p.reject(err)
			for _, m := range rel.members {
				if err == nil {
					c.planMember(&p, rel, m)
				}
			}
			want := strings.ReplaceAll(test.warnings, "PORT", fmt.Sprint(q.port))
			if slices.ContainsFunc(p.warnings, func(w string) bool { return strings.HasPrefix(w, want) }) != (want != "" || len(p.warnings) > 0) {
				t.Errorf("got %q, want %q", p.warnings, want)
			}
			if test.problem != "" {
				r, err := c.Plan(t.Context(), &pluginv1.PlanRequest{Call: aCall(), Subject: s})
				if err != nil || r.GetCourse() != nil || len(r.GetProblems()) != 1 || !strings.HasPrefix(r.GetProblems()[0], test.problem) {
					t.Errorf("got %v, %v", r, err)
				}
			}
		})
	}
}
