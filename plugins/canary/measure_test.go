package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wheelwright-dev/wheelwright/integration/controlplane"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/cluster"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/measure"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
	"github.com/wheelwright-dev/wheelwright/plugins/internal/kube"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// offline is the service without a cluster, asking a Prometheus at that address.
func offline(address string) *canary {
	return &canary{settings: settings{router: strategy.RouterNone, selectorKeys: strategy.SelectorKeys(), minimum: 20, prometheus: measure.Config{Address: address}},
		open: func() (cluster.Server, func(), error) { return nil, nil, errors.New("there is no cluster") }, log: slog.New(slog.DiscardHandler)}
}

// shopping is the shop on its way from 1.1.0 to 1.2.0 with both services at a third.
func shopping(t *testing.T) (*pluginv1.Subject, *pluginv1.CanaryStep) {
	s := subject(t, "1.1.0", "1.2.0", shop(t, "1.1.0", "kubernetes", "shop"), shop(t, "1.2.0", "kubernetes", "shop"), "shop")
	return s, &pluginv1.CanaryStep{Number: 1, Passes: 1, Traffic: []*pluginv1.Traffic{{Service: "web", Weight: 33}, {Service: "api", Weight: 33}}}
}

// script answers the three questions about a success rate, by service: percent, requests, age.
type script map[string][3]string

func (s script) serve(t *testing.T) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query := r.FormValue("query")
		for name, answers := range s {
			if !strings.Contains(query, name+"-canary-") {
				continue
			}
			answer := answers[0]
			switch {
			case strings.HasPrefix(query, "sum(increase("):
				answer = answers[1]
			case strings.HasPrefix(query, "max(timestamp("):
				age, err := time.ParseDuration(answers[2])
				if err != nil {
					t.Error(err)
				}
				answer = fmt.Sprint(time.Now().Add(-age).Unix())
			}
			if strings.HasPrefix(answer, "{") {
				fmt.Fprint(w, answer)
				return
			}
			fmt.Fprintf(w, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,%q]}]}}`, answer)
			return
		}
		fmt.Fprint(w, `{"status":"success","data":{"resultType":"vector","result":[]}}`)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// One verdict for all services, of three states, with what each of them shows.
func TestMeasure(t *testing.T) {
	s, step := shopping(t)
	good := [3]string{"99.9", "400", "10s"}
	vector := `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"a":"1"},"value":[1,"99"]},{"metric":{"a":"2"},"value":[1,"99"]}]}}`
	for _, test := range []struct {
		name    string
		script  script
		outcome pluginv1.Outcome
		reason  string
	}{
		{"both well", script{"web": good, "api": good}, pluginv1.Outcome_OUTCOME_PASS, ""},
		{"one bad", script{"web": good, "api": {"66.7", "300", "10s"}}, pluginv1.Outcome_OUTCOME_FAIL, "api: success rate 66.7 % < 99 % over 1m, 300 requests"},
		{"too few", script{"web": good, "api": {"0", "19", "10s"}}, pluginv1.Outcome_OUTCOME_INCONCLUSIVE, "api: no traffic: 19 requests in 1m, wants 20"},
		{"none", script{"web": good}, pluginv1.Outcome_OUTCOME_INCONCLUSIVE, "api: no traffic: 0 requests in 1m, wants 20"},
		{"stale", script{"web": good, "api": {"0", "300", "10m"}}, pluginv1.Outcome_OUTCOME_INCONCLUSIVE, "api: stale: newest sample is 10m"},
		{"not a number", script{"web": good, "api": {"NaN", "300", "10s"}}, pluginv1.Outcome_OUTCOME_INCONCLUSIVE, "api: success rate is NaN"},
		{"a vector", script{"web": good, "api": {vector, "300", "10s"}}, pluginv1.Outcome_OUTCOME_INCONCLUSIVE, "api: the query of request-success-rate returned a vector of 2, wants one number: write sum() around it"},
		{"bad beats doubt", script{"web": {"NaN", "300", "10s"}, "api": {"10", "300", "10s"}}, pluginv1.Outcome_OUTCOME_FAIL, "api: success rate 10 % < 99 % over 1m, 300 requests"},
	} {
		t.Run(test.name, func(t *testing.T) {
			now := timestamppb.Now()
			r, err := offline(test.script.serve(t)).Measure(t.Context(), &pluginv1.MeasureRequest{Call: aCall(), Subject: s, Step: step, To: now})
			if err != nil {
				t.Fatal(err)
			}
			if v := r.GetVerdict(); v.GetOutcome() != test.outcome || !strings.HasPrefix(v.GetReason(), test.reason) || (test.reason == "") != (v.GetReason() == "") || r.GetOver() {
				t.Errorf("got %v, over %v", v, r.GetOver())
			}
			if len(r.GetMetrics()) != 2 || r.GetMetrics()[0].GetService() == r.GetMetrics()[1].GetService() {
				t.Errorf("got %v", r.GetMetrics())
			}
		})
	}
	r, err := offline("http://127.0.0.1:1").Measure(t.Context(), &pluginv1.MeasureRequest{Call: aCall(), Subject: s, Step: step, To: timestamppb.Now()})
	if err != nil || r.GetVerdict().GetOutcome() != pluginv1.Outcome_OUTCOME_INCONCLUSIVE || !strings.Contains(r.GetVerdict().GetReason(), "Prometheus unreachable: ") {
		t.Errorf("nobody answers: got %v, %v", r, err)
	}
}

// Failed checks are counted by who asks: a pass between them does not forgive, doubt neither counts nor
// forgives, and the threshold of either service ends it.
func TestTally(t *testing.T) {
	s, step := shopping(t)
	good, bad, idle := [3]string{"99.9", "400", "10s"}, [3]string{"10", "400", "10s"}, [3]string{"NaN", "0", "10s"}
	var counted []*pluginv1.Tally
	for i, test := range []struct {
		api  [3]string
		over bool
	}{{bad, false}, {good, false}, {idle, false}, {bad, true}} {
		c := offline(script{"web": good, "api": test.api}.serve(t))
		r, err := c.Measure(t.Context(), &pluginv1.MeasureRequest{Call: aCall(), Subject: s, Step: step, To: timestamppb.Now(), Counted: counted})
		if err != nil || r.GetOver() != test.over {
			t.Fatalf("check %d: got %v, %v", i+1, r, err)
		}
		counted = r.GetCounted()
		if test.over && r.GetVerdict().GetReason() != "api failed 2 of at most 2 checks: api: success rate 10 % < 99 % over 1m, 400 requests" {
			t.Errorf("got %q", r.GetVerdict().GetReason())
		}
	}
	if len(counted) != 2 || counted[0].GetService() != "api" || counted[0].GetFailed() != 2 || counted[0].GetPassed() != 1 || counted[0].GetInconclusive() != 1 || counted[1].GetPassed() != 4 {
		t.Errorf("got %v", counted)
	}
}

// Who comes after others is not measured before it begins, and the matches of an A/B test survive the wire.
func TestOrder(t *testing.T) {
	s, _ := shopping(t)
	for _, service := range s.GetServices() {
		if service.GetName() == "api" {
			service.After = []string{"web", "billing"}
		}
	}
	c := offline(script{"web": {"99.9", "400", "10s"}, "api": {"99.9", "400", "10s"}}.serve(t))
	rel, err := c.understand(s)
	if err != nil || len(rel.course.Steps) != 4 {
		t.Fatal(rel.course, err)
	}
	for i, want := range []struct {
		web, api uint32
		metrics  int
	}{{33, 0, 1}, {50, 0, 1}, {50, 33, 2}, {50, 50, 2}} {
		step := rel.wireStep(rel.course.Steps[i])
		got := map[string]uint32{}
		for _, traffic := range step.GetTraffic() {
			got[traffic.GetService()] = traffic.GetWeight()
		}
		r, err := c.Measure(t.Context(), &pluginv1.MeasureRequest{Call: aCall(), Subject: s, Step: step, To: timestamppb.Now()})
		if err != nil || got["web"] != want.web || got["api"] != want.api || len(r.GetMetrics()) != want.metrics {
			t.Errorf("step %d: got %v, %v, %v", i+1, got, r, err)
		}
	}
	matches := []strategy.Match{{Headers: []strategy.Header{{Name: "cookie", Op: strategy.Regex, Value: ".*insider.*"}, {Name: "x-a", Op: strategy.Exact, Value: "b"}, {Name: "x-c", Op: strategy.Prefix, Value: "d"}}}}
	if got := matchesOf(wireMatches(matches)); !reflect.DeepEqual(got, matches) {
		t.Errorf("got %v", got)
	}
}

// Where there is no Prometheus, the pods are looked at, and that is said.
func TestMeasurePods(t *testing.T) {
	s, step := shopping(t)
	c := offline("")
	pod := func(service, ready string, restarts int) string {
		return fmt.Sprintf(`{"metadata":{"name":"%s-canary-1-x","creationTimestamp":"2020-01-01T00:00:00Z","namespace":"shop","labels":{"wheelwright.dev/candidate-of":%q}},
			"status":{"phase":"Running","conditions":[{"type":"Ready","status":%q,"lastTransitionTime":"2020-01-01T00:00:00Z"}],
			"containerStatuses":[{"name":"app","restartCount":%d,"lastState":{"terminated":{"reason":"OOMKilled","finishedAt":%q}}}]}}`,
			service, service, ready, restarts, time.Now().UTC().Format(time.RFC3339))
	}
	for _, test := range []struct {
		name    string
		pods    []string
		outcome pluginv1.Outcome
		reason  string
	}{
		{"well", []string{pod("web", "True", 0), pod("api", "True", 0)}, pluginv1.Outcome_OUTCOME_PASS, ""},
		{"restarts", []string{pod("web", "True", 0), pod("api", "True", 1)}, pluginv1.Outcome_OUTCOME_FAIL, "api: restarts 1 > 0"},
		{"unready", []string{pod("web", "False", 0), pod("api", "True", 0)}, pluginv1.Outcome_OUTCOME_FAIL, "web: longest unready"},
		{"gone", []string{pod("web", "True", 0)}, pluginv1.Outcome_OUTCOME_INCONCLUSIVE, "api: no data: there is no pod of api-canary"},
	} {
		c.open = func() (cluster.Server, func(), error) {
			return answers{`{"items":[` + strings.Join(test.pods, ",") + `]}`}, func() {}, nil
		}
		r, err := c.Measure(t.Context(), &pluginv1.MeasureRequest{Call: aCall(), Subject: s, Step: step, From: timestamppb.New(time.Now().Add(-time.Minute)), To: timestamppb.Now()})
		if err != nil || r.GetVerdict().GetOutcome() != test.outcome || !strings.HasPrefix(r.GetVerdict().GetReason(), test.reason) {
			t.Errorf("%s: got %v, %v", test.name, r.GetVerdict(), err)
		}
	}
	c.open = func() (cluster.Server, func(), error) { return nil, nil, errors.New("there is no cluster") }
	r, err := c.Measure(t.Context(), &pluginv1.MeasureRequest{Call: aCall(), Subject: s, Step: step, To: timestamppb.Now()})
	if err != nil || r.GetVerdict().GetOutcome() != pluginv1.Outcome_OUTCOME_INCONCLUSIVE || !strings.Contains(r.GetVerdict().GetReason(), "there is no cluster") {
		t.Errorf("got %v, %v", r, err)
	}
}

// answers is a cluster that says the same to everything.
type answers struct{ text string }

func (a answers) Do(_ context.Context, _ kube.Request, into any) error {
	o, err := kube.ReadObjects([]byte(a.text))
	if err != nil {
		return err
	}
	return remarshal(o[0], into)
}

// A real Prometheus that scrapes two candidates, one of which fails a third of its requests.
func TestMeasureWithPrometheus(t *testing.T) {
	s, step := shopping(t)
	c := offline(prometheus(t, func(n int64) string {
		line := func(pod, status string, count int64) string {
			return fmt.Sprintf("http_request_duration_seconds_count{kubernetes_namespace=\"shop\",kubernetes_pod_name=\"%s-canary-7f9c-x2x\",status=%q} %d\n", pod, status, count)
		}
		return line("web", "200", 30*n) + line("api", "200", 20*n) + line("api", "500", 10*n)
	}))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		r, err := c.Measure(ctx, &pluginv1.MeasureRequest{Call: aCall(), Subject: s, Step: step, To: timestamppb.Now()})
		if err != nil {
			t.Fatal(err)
		}
		if v := r.GetVerdict(); v.GetOutcome() == pluginv1.Outcome_OUTCOME_FAIL {
			if !strings.HasPrefix(v.GetReason(), "api: success rate 66.67 % < 99 % over 1m, ") || v.GetSample() < 40 {
				t.Errorf("got %v", v)
			}
			for _, m := range r.GetMetrics() {
				if m.GetService() == "web" && m.GetVerdict().GetOutcome() == pluginv1.Outcome_OUTCOME_FAIL {
					t.Errorf("got %v", m)
				}
			}
			return
		}
		if !sleep(ctx, 100*time.Millisecond) {
			t.Fatalf("no verdict within a minute: %v", r)
		}
	}
}

// prometheus starts a real one that scrapes what expose says after so many scrapes.
func prometheus(t *testing.T, expose func(int64) string) (address string) {
	t.Helper()
	if testing.Short() {
		t.Skip("a real Prometheus takes some seconds")
	}
	binary := controlplane.Built("prometheus")
	if binary == "" {
		t.Skip("Prometheus is not built: `make controlplane` builds it, once")
	}
	var scrapes atomic.Int64
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		fmt.Fprint(w, expose(scrapes.Add(1)))
	}))
	t.Cleanup(target.Close)
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf("global: {scrape_interval: 100ms, scrape_timeout: 100ms}\nscrape_configs:\n- job_name: shop\n  honor_labels: true\n  static_configs: [{targets: [%q]}]\n", strings.TrimPrefix(target.URL, "http://"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address=127.0.0.1:0")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	listening := regexp.MustCompile(`msg="Listening on".* address=(\S+)`)
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		if m := listening.FindStringSubmatch(lines.Text()); m != nil {
			go func() {
				for lines.Scan() {
				}
			}()
			return "http://" + m[1]
		}
	}
	t.Fatal("Prometheus ended before it listened")
	return ""
}
