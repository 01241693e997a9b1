package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

const (
	pass    = pluginv1.Outcome_OUTCOME_PASS
	fail    = pluginv1.Outcome_OUTCOME_FAIL
	unknown = pluginv1.Outcome_OUTCOME_INCONCLUSIVE

	before = pluginv1.Moment_MOMENT_BEFORE_TRAFFIC
	after  = pluginv1.Moment_MOMENT_AFTER_PROMOTION
)

// with is the plugin as its arguments make it.
func with(t *testing.T, kubeconfig string, args ...string) *conformance {
	t.Helper()
	s, err := parse(args, os.ReadFile, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return newConformance(s, kubeconfig, slog.New(slog.DiscardHandler))
}

func plain() *conformance {
	return newConformance(settings{jobTimeout: time.Minute, noAnswer: "hold"}, "", slog.New(slog.DiscardHandler))
}

// run answers the report and, by test, the last that was told.
func run(t *testing.T, c *conformance, r *pluginv1.RunRequest) (*pluginv1.Report, map[string]*pluginv1.Progress) {
	t.Helper()
	r.Call = &pluginv1.Call{Id: t.Name(), Deadline: timestamppb.New(time.Now().Add(time.Minute))}
	told := map[string]*pluginv1.Progress{}
	report, err := c.Run(t.Context(), r, func(p *pluginv1.Progress) error {
		if last := told[p.GetTest()]; last == nil && p.GetState() != pluginv1.TestState_TEST_STATE_RUNNING && p.GetState() != pluginv1.TestState_TEST_STATE_SKIPPED {
			t.Errorf("%s ended before it began", p.GetTest())
		}
		told[p.GetTest()] = p
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return report, told
}

func wantVerdict(t *testing.T, r *pluginv1.Report, outcome pluginv1.Outcome, reason string) {
	t.Helper()
	if v := r.GetVerdict(); v.GetOutcome() != outcome || !strings.Contains(v.GetReason(), reason) || (outcome == pass) != (v.GetReason() == "") {
		t.Errorf("got %v, want %s because %q", r, outcome, reason)
	}
}

func wantTests(t *testing.T, told map[string]*pluginv1.Progress, want map[string]pluginv1.TestState) {
	t.Helper()
	for name, state := range want {
		if got := told[name].GetState(); got != state {
			t.Errorf("%s is %s (%s), want %s", name, got, told[name].GetMessage(), state)
		}
	}
	if len(told) != len(want) {
		t.Errorf("told of %v, want %v", told, want)
	}
}

const (
	passed       = pluginv1.TestState_TEST_STATE_PASSED
	failed       = pluginv1.TestState_TEST_STATE_FAILED
	inconclusive = pluginv1.TestState_TEST_STATE_INCONCLUSIVE
	skipped      = pluginv1.TestState_TEST_STATE_SKIPPED
)

// world is an application whose Services are all at loopback addresses, and an API server that says so.
type world struct {
	kubeconfig     string
	port           int
	stable, canary *atomic.Int32 // requests
	broken         *atomic.Bool
}

func newWorld(t *testing.T) world {
	t.Helper()
	w := world{stable: new(atomic.Int32), canary: new(atomic.Int32), broken: new(atomic.Bool)}
	serve := func(at string, count *atomic.Int32) {
		l, err := net.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		w.port = l.Addr().(*net.TCPAddr).Port
		s := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(out http.ResponseWriter, _ *http.Request) {
			count.Add(1)
			if w.broken.Load() {
				http.Error(out, "no database at postgres://shop:correct-horse@db", http.StatusInternalServerError)
			}
		})}}
		s.Start()
		t.Cleanup(s.Close)
	}
	serve("127.0.0.1:0", w.stable)
	serve(fmt.Sprintf("127.0.0.2:%d", w.port), w.canary)
	api := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/api/v1/namespaces/shop/services/backend":
			fmt.Fprint(out, `{"spec":{"clusterIP":"127.0.0.1"}}`)
		case "/api/v1/namespaces/shop/services/backend-canary":
			fmt.Fprint(out, `{"spec":{"clusterIP":"127.0.0.2"}}`)
		default:
			out.WriteHeader(http.StatusForbidden)
			fmt.Fprint(out, `{"kind":"Status","apiVersion":"v1","message":"not allowed"}`)
		}
	}))
	t.Cleanup(api.Close)
	w.kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf("current-context: a\ncontexts: [{name: a, context: {cluster: a, user: a}}]\nclusters: [{name: a, cluster: {server: %q}}]\nusers: [{name: a, user: {token: t0ken-of-mine}}]\n", api.URL)
	if err := os.WriteFile(w.kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

// subject is an upgrade of backend, which has a candidate, and cache, which has none.
func (w world) subject(objects string) *pluginv1.Subject {
	service := func(name string) []byte {
		return fmt.Appendf(nil, "apiVersion: v1\nkind: Service\nmetadata: {name: %s}\nspec: {ports: [{name: http, port: %d}]}\n---\n"+
			"apiVersion: v1\nkind: Secret\nmetadata: {name: %s}\ndata: {password: Y29ycmVjdC1ob3JzZQ==}\n", name, w.port, name)
	}
	return &pluginv1.Subject{Distribution: "shop", VersionFrom: "1.0.0", VersionTo: "1.1.0", Namespace: "shop", Cluster: "acme/eu-1", Objects: []byte(objects),
		Services: []*pluginv1.Service{
			{Name: "backend", Strategy: pluginv1.Strategy_STRATEGY_PROGRESSIVE, Candidate: service("backend")},
			{Name: "cache", Strategy: pluginv1.Strategy_STRATEGY_NONE, Candidate: service("cache")},
		}}
}

const declaredTests = `apiVersion: wheelwright.dev/v1
kind: Tests
tests:
- {name: answers, service: backend, port: http, http: {path: /healthz}}
- {name: later, service: backend, when: after-promotion, http: {}}
- {name: cache, service: cache, timeout: 1s, http: {}}
`

// Before live traffic the candidate is asked and nobody else, after promotion the Service itself.
func TestProbes(t *testing.T) {
	w := newWorld(t)
	c := with(t, w.kubeconfig)
	report, told := run(t, c, &pluginv1.RunRequest{Subject: w.subject(declaredTests), Moment: before})
	wantVerdict(t, report, pass, "")
	wantTests(t, told, map[string]pluginv1.TestState{"probe answers": passed})
	if w.canary.Load() != 1 || w.stable.Load() != 0 || told["probe answers"].GetService() != "backend" {
		t.Errorf("the candidate was asked %d times, the stable side %d times; %v", w.canary.Load(), w.stable.Load(), told)
	}
	report, told = run(t, c, &pluginv1.RunRequest{Subject: w.subject(declaredTests), Moment: after, Only: []string{"probe answers", "probe later"}})
	wantVerdict(t, report, pass, "")
	wantTests(t, told, map[string]pluginv1.TestState{"probe answers": passed, "probe later": passed})
	if w.canary.Load() != 1 || w.stable.Load() != 2 {
		t.Errorf("after promotion the candidate was asked %d times, the Service %d times", w.canary.Load(), w.stable.Load())
	}
	// A cluster that does not know the Service is out of reach: no evidence.
	report, told = run(t, c, &pluginv1.RunRequest{Subject: w.subject(declaredTests), Moment: after})
	wantVerdict(t, report, unknown, "probe cache: ")
	wantTests(t, told, map[string]pluginv1.TestState{"probe answers": passed, "probe later": passed, "probe cache": inconclusive})

	w.broken.Store(true)
	report, told = run(t, c, &pluginv1.RunRequest{Subject: w.subject(declaredTests), Moment: before})
	wantVerdict(t, report, fail, "probe answers: GET /healthz of backend-canary.shop.svc")
	if m := told["probe answers"].GetMessage(); !strings.Contains(m, "answers 500") || !strings.Contains(m, "shop:***@db") {
		t.Errorf("told %q", m)
	}
	w.broken.Store(false)
	first := w.subject(declaredTests)
	first.VersionFrom = ""
	stable := w.stable.Load()
	report, _ = run(t, c, &pluginv1.RunRequest{Subject: first, Moment: before, Only: []string{"probe answers"}})
	wantVerdict(t, report, pass, "")
	if w.stable.Load() != stable+1 {
		t.Error("a first install has no candidate, and its Service is asked")
	}
}

// The provider's own probes run beside the release's; a mistake in them is nothing against the release.
func TestOwnProbes(t *testing.T) {
	w := newWorld(t)
	file := filepath.Join(t.TempDir(), "tests.yaml")
	if err := os.WriteFile(file, []byte("tests:\n- {name: answers, service: backend, http: {}}\n- {name: typo, service: backend, port: htpp, http: {}}\n- {name: else, service: billing, http: {}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	report, told := run(t, with(t, w.kubeconfig, "--tests", file), &pluginv1.RunRequest{Subject: w.subject(""), Moment: before})
	wantVerdict(t, report, unknown, "provider's probe typo: port: Service backend of the release has none of the name \"htpp\"")
	wantTests(t, told, map[string]pluginv1.TestState{"provider's probe answers": passed, "provider's probe typo": inconclusive})
	report, _ = run(t, with(t, "", "--tests", file, "--via", "proxy"), &pluginv1.RunRequest{Subject: w.subject(""), Moment: before})
	wantVerdict(t, report, unknown, "grants this plugin no credentials")
}

// No test, no evidence; nothing that is declared wrongly is passed over.
func TestEvidence(t *testing.T) {
	w := newWorld(t)
	for _, m := range moments() {
		report, told := run(t, plain(), &pluginv1.RunRequest{Subject: w.subject(""), Moment: m})
		wantVerdict(t, report, unknown, "no test was run")
		wantTests(t, told, nil)
	}
	report, told := run(t, with(t, w.kubeconfig), &pluginv1.RunRequest{Moment: before, Subject: w.subject(declaredTests + "- {name: typo, service: bakcend, http: {}}\n- {name: portless, service: backend, port: admin, http: {}}\n---\n" +
		"apiVersion: batch/v1\nkind: Job\nmetadata: {name: smoke, annotations: {wheelwright.dev/test: soon}}\n---\n" +
		"apiVersion: flagger.app/v1beta1\nkind: Canary\nmetadata: {name: x}\nspec: {analysis: {webhooks: [{name: a, type: sometimes, url: \"http://x/\"}]}}\n")})
	wantVerdict(t, report, fail, "declared tests: ")
	wantTests(t, told, map[string]pluginv1.TestState{"declared tests": failed, "probe answers": passed})
	for _, part := range []string{"Canary x: spec.analysis.webhooks[0].type", "probe typo: service: the release has no Service bakcend", "probe portless: port", "Job smoke: wheelwright.dev/test: \"soon\""} {
		if log := told["declared tests"].GetLogTail(); !strings.Contains(log, part) {
			t.Errorf("want %q in:\n%s", part, log)
		}
	}
	report, _ = run(t, with(t, w.kubeconfig), &pluginv1.RunRequest{Moment: before, Subject: w.subject(strings.ReplaceAll(declaredTests, "http:", "htp:"))})
	wantVerdict(t, report, fail, "(and")
	for _, text := range []string{"a: [", "- x"} {
		_, err := plain().Run(t.Context(), &pluginv1.RunRequest{Subject: w.subject(text), Moment: before}, func(*pluginv1.Progress) error { return nil })
		if err == nil || !strings.Contains(err.Error(), "read the objects of the release") {
			t.Errorf("%q: %v", text, err)
		}
	}
	nobody := errors.New("nobody listens")
	if _, err := with(t, w.kubeconfig).Run(t.Context(), &pluginv1.RunRequest{Subject: w.subject(declaredTests), Moment: before}, func(*pluginv1.Progress) error { return nobody }); !errors.Is(err, nobody) {
		t.Errorf("without a listener: %v", err)
	}
}

// Describe names what Run would run, and asks nobody.
func TestDescribe(t *testing.T) {
	w := newWorld(t)
	objects := declaredTests + "---\napiVersion: batch/v1\nkind: Job\nmetadata: {name: smoke, annotations: {helm.sh/hook: test}}\n---\nkind: ConfigMap\napiVersion: v1\nmetadata: {name: a, annotations: {helm.sh/hook: test}}\n---\n" +
		"apiVersion: flagger.app/v1alpha3\nkind: Canary\nmetadata: {name: backend}\nspec: {canaryAnalysis: {webhooks: [{name: gate, type: confirm-promotion, url: \"http://x/\"}, {name: load, url: \"http://x/\"}, {name: load, url: \"http://y/\"}]}}\n"
	out, err := with(t, "").Describe(t.Context(), &pluginv1.DescribeConformanceRequest{Subject: w.subject(objects)})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, one := range out.GetTests() {
		got = append(got, strings.TrimPrefix(one.GetMoment().String(), "MOMENT_")+" "+one.GetName()+" "+one.GetService())
	}
	want := []string{"BEFORE_TRAFFIC declared tests ", "BEFORE_TRAFFIC probe answers backend", "BEFORE_TRAFFIC job smoke ",
		"STEP webhook backend/load backend", "STEP webhook backend/load #2 backend", "BEFORE_PROMOTION webhook backend/gate backend",
		"AFTER_PROMOTION probe answers backend", "AFTER_PROMOTION probe later backend", "AFTER_PROMOTION probe cache cache", "AFTER_PROMOTION job smoke "}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if warnings := out.GetWarnings(); len(warnings) != 1 || !strings.Contains(warnings[0], "ConfigMap a: is marked as a test") {
		t.Errorf("warnings %q", warnings)
	}
	without, err := with(t, "", "--without", "jobs,probes").Describe(t.Context(), &pluginv1.DescribeConformanceRequest{Subject: w.subject(objects)})
	if err != nil || len(without.GetTests()) != 3 {
		t.Errorf("%v, %v", without, err)
	}
}

// Once something has failed, what takes its time is not run; without credentials it says what to write.
func TestSlowTests(t *testing.T) {
	w := newWorld(t)
	objects := declaredTests + "---\napiVersion: v1\nkind: Pod\nmetadata: {name: smoke, annotations: {helm.sh/hook: test}}\nspec: {containers: [{name: a, image: b}]}\n"
	report, told := run(t, with(t, ""), &pluginv1.RunRequest{Subject: w.subject(objects), Moment: before, Only: []string{"pod smoke"}})
	wantVerdict(t, report, unknown, "pod smoke: spoke.yaml grants this plugin no credentials")
	wantTests(t, told, map[string]pluginv1.TestState{"pod smoke": inconclusive})
	w.broken.Store(true)
	report, told = run(t, with(t, w.kubeconfig), &pluginv1.RunRequest{Subject: w.subject(objects), Moment: before})
	wantVerdict(t, report, fail, "probe answers")
	wantTests(t, told, map[string]pluginv1.TestState{"probe answers": failed, "pod smoke": skipped})
	if report.GetFailed() != 1 || report.GetSkipped() != 1 || told["pod smoke"].GetMessage() != "probe answers has failed" {
		t.Errorf("%v, %v", report, told)
	}
	w.broken.Store(false)
	report, _ = run(t, with(t, w.kubeconfig), &pluginv1.RunRequest{Subject: w.subject(objects), Moment: before})
	wantVerdict(t, report, unknown, "pod smoke: look for jobs that a run before this one left in shop: the API server answers 403")
}

// A call ends with its deadline, and with the process.
func TestEnding(t *testing.T) {
	hang := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	defer hang.Close()
	subject := newWorld(t).subject(fmt.Sprintf("apiVersion: flagger.app/v1beta1\nkind: Canary\nmetadata: {name: x}\nspec: {analysis: {webhooks: [{name: a, type: pre-rollout, timeout: 1h, url: %q}]}}\n", hang.URL))
	discard := func(*pluginv1.Progress) error { return nil }
	report, err := plain().Run(t.Context(), &pluginv1.RunRequest{Subject: subject, Moment: before, Call: &pluginv1.Call{Deadline: timestamppb.New(time.Now().Add(50 * time.Millisecond))}}, discard)
	if err != nil {
		t.Fatal(err)
	}
	wantVerdict(t, report, unknown, "webhook x/a: ")
	c := plain()
	report, err = c.Run(context.WithoutCancel(t.Context()), &pluginv1.RunRequest{Subject: subject, Moment: before}, func(*pluginv1.Progress) error {
		select {
		case <-c.ending:
		default:
			close(c.ending)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	wantVerdict(t, report, unknown, "webhook x/a: ")
}

func TestSettings(t *testing.T) {
	if s, err := parse(nil, os.ReadFile, io.Discard); err != nil || s.noAnswer != "hold" || s.throughAPI || s.jobTimeout != 5*time.Minute || !s.runs(kindJobs) {
		t.Errorf("without arguments: %+v, %v", s, err)
	}
	if s, err := parse([]string{"--without", "jobs, webhooks", "--no-answer", "fail", "--via", "proxy"}, os.ReadFile, io.Discard); err != nil || s.runs(kindJobs) || !s.runs(kindProbes) || s.noAnswer != "fail" || !s.throughAPI {
		t.Errorf("%+v, %v", s, err)
	}
	_, err := parse([]string{"--without", "canaries", "--no-answer", "guess", "--via", "tunnel", "--job-timeout", "1ms", "--tests", "f", "more"}, func(string) ([]byte, error) { return []byte("test: 1"), nil }, io.Discard)
	for _, part := range []string{`--without: "canaries"`, `--no-answer: "guess"`, `--via: "tunnel"`, "--job-timeout: 1ms", "--tests: f: test: unknown key", `"more": no argument`} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("want %q in: %v", part, err)
		}
	}
}

// Calls about one distribution make objects one after the other; others do not wait for them.
func TestTurns(t *testing.T) {
	var turns turns
	release, err := turns.take(t.Context(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := turns.take(t.Context(), "billing"); err != nil {
		t.Errorf("another distribution waits: %v", err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := turns.take(over, "shop"); !errors.Is(err, context.Canceled) {
		t.Errorf("a second call has its turn: %v", err)
	}
	release()
	if _, err := turns.take(t.Context(), "shop"); err != nil {
		t.Errorf("after the first: %v", err)
	}
}
