package measure

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/wheelwright-dev/wheelwright/integration/controlplane"
)

// app is a candidate by its number of requests and failures per scrape, and how many of ten are slow.
type app struct {
	name                   string
	requests, failed, slow int
}

func apps() []app {
	return []app{{"good", 20, 0, 0}, {"bad", 20, 5, 0}, {"dead", 20, 20, 0}, {"slow", 20, 0, 1}, {"idle", 0, 0, 0}}
}

// exposition is what a scrape finds after n of them: every provider's series of every app.
func exposition(n int) string {
	var b strings.Builder
	line := func(name, labels string, value int) { fmt.Fprintf(&b, "%s{%s} %d\n", name, labels, value) }
	for _, a := range apps() {
		for _, p := range []struct{ requests, buckets, labels, good, bad, le string }{
			{"http_request_duration_seconds_count", "http_request_duration_seconds_bucket",
				`kubernetes_namespace="shop",kubernetes_pod_name="%s-canary-7f9c-x2x"`, `status="200"`, `status="500"`, "0.1 0.5 1"},
			{"istio_requests_total", "istio_request_duration_milliseconds_bucket",
				`reporter="destination",destination_workload_namespace="shop",destination_workload="%s-canary"`, `response_code="200"`, `response_code="503"`, "100 500 1000"},
			{"response_total", "response_latency_ms_bucket",
				`direction="inbound",namespace="shop",deployment="%s-canary"`, `classification="success"`, `classification="failure"`, "100 500 1000"},
			{"nginx_ingress_controller_requests", "", `namespace="shop",ingress="%s",canary="shop-%[1]s-canary-80"`, `status="200"`, `status="502"`, ""},
		} {
			labels := fmt.Sprintf(p.labels, a.name)
			if a.failed < a.requests || a.requests == 0 { // a status that never was has no series
				line(p.requests, labels+","+p.good, 7+n*(a.requests-a.failed))
			}
			if a.failed > 0 {
				line(p.requests, labels+","+p.bad, n*a.failed)
			}
			quick := n * a.requests * (10 - a.slow) / 10
			for i, le := range append(strings.Fields(p.le), "+Inf") {
				count := quick
				if i >= 2 {
					count = n * a.requests
				}
				if p.buckets != "" {
					line(p.buckets, fmt.Sprintf(`%s,le=%q`, labels, le), count)
				}
			}
		}
		const latency = "nginx_ingress_controller_ingress_upstream_latency_seconds"
		labels := fmt.Sprintf(`namespace="shop",ingress=%q,canary="shop-%s-canary-80"`, a.name, a.name)
		line(latency+"_count", labels, n*a.requests)
		line(latency+"_sum", labels, n*a.requests*a.slow)
	}
	return b.String()
}

// realPrometheus starts one behind TLS and a password, scraping apps ten times a second, and waits for
// what it knows to be enough.
func realPrometheus(t *testing.T) Config {
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
		fmt.Fprint(w, exposition(int(scrapes.Add(1))))
	}))
	t.Cleanup(target.Close)
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	hash, err := bcrypt.GenerateFromPassword([]byte("open sesame"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	certificate, key := pair(t)
	write("cert.pem", certificate)
	write("key.pem", key)
	web := write("web.yml", fmt.Sprintf("tls_server_config: {cert_file: cert.pem, key_file: key.pem}\nbasic_auth_users: {spoke: %q}\n", hash))
	config := write("prometheus.yml", fmt.Sprintf("global: {scrape_interval: 100ms, scrape_timeout: 100ms}\nscrape_configs:\n- job_name: apps\n  honor_labels: true\n  static_configs: [{targets: [%q]}]\n",
		strings.TrimPrefix(target.URL, "http://")))
	address := start(t, exec.Command(binary, "--config.file="+config, "--web.config.file="+web, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address=127.0.0.1:0"))
	return Config{Address: "https://" + address, Secret: map[string][]byte{
		"username": []byte("spoke"), "password": []byte("open sesame"), "ca.crt": []byte(certificate)}}
}

// pair is a certificate for 127.0.0.1 with its key, in PEM.
func pair(t *testing.T) (string, string) {
	t.Helper()
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	key, err := x509.MarshalPKCS8PrivateKey(server.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
}

// start runs Prometheus until the test ends and returns where it listens.
func start(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	address, said := make(chan string, 1), make(chan string, 1)
	go func() {
		var log strings.Builder
		listening := regexp.MustCompile(`msg="Listening on".* address=(\S+)`)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			fmt.Fprintln(&log, lines.Text())
			if m := listening.FindStringSubmatch(lines.Text()); m != nil {
				address <- m[1]
			}
		}
		said <- log.String()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		log := <-said
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(log)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	select {
	case at := <-address:
		return at
	case log := <-said:
		said <- log
		t.Fatalf("Prometheus ended: %s", log)
	case <-ctx.Done():
		t.Fatal("Prometheus did not listen within a minute")
	}
	return ""
}

// enough waits until the good app has been seen to be asked that many times over the interval.
func enough(t *testing.T, p *Prometheus, interval time.Duration, requests float64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var last Samples
	for {
		q, err := BuiltIn(SuccessRate, "none", Model{Namespace: "shop", Target: "good-canary", Interval: interval})
		if err != nil {
			t.Fatal(err)
		}
		if last = p.Samples(ctx, q, time.Now()); last.Counted != nil && *last.Counted >= requests && len(last.Values) == 1 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("Prometheus did not scrape enough: %+v", last)
		}
	}
}

func TestAgainstPrometheus(t *testing.T) {
	c := realPrometheus(t)
	p, err := NewPrometheus(c)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	const interval = 3 * time.Second
	enough(t, p, interval, 300)
	t.Run("built in", func(t *testing.T) { builtIn(t, p, interval) })
	t.Run("all requests fail", func(t *testing.T) { allFail(t, p, interval) })
	t.Run("own queries", func(t *testing.T) { ownQueries(t, p) })
	t.Run("old", func(t *testing.T) {
		// Asked as of later, the same data is old: the span still has it, the objective does not take it.
		later := time.Now().Add(3 * time.Minute)
		q, err := BuiltIn(SuccessRate, "none", Model{Namespace: "shop", Target: "good-canary", Interval: 10 * time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		o := Objective{Name: SuccessRate, Min: f(99), Interval: 10 * time.Minute, MaxAge: time.Minute}
		if v := Judge(later, o, p.Samples(t.Context(), q, later)); v.Cause != Stale || !strings.HasPrefix(v.Reason, "stale: newest sample is ") {
			t.Errorf("%+v", v)
		}
	})
	t.Run("strangers", func(t *testing.T) {
		for want, secret := range map[string]map[string][]byte{
			"Prometheus answers 401 Unauthorized":              {"username": []byte("spoke"), "password": []byte("guess"), "ca.crt": c.Secret["ca.crt"]},
			"Prometheus unreachable: tls: failed to verify ce": {"username": []byte("spoke"), "password": []byte("open sesame")},
		} {
			stranger, err := NewPrometheus(Config{Address: c.Address, Secret: secret})
			if err != nil {
				t.Fatal(err)
			}
			if s := stranger.Samples(t.Context(), Query{Value: "1"}, time.Now()); !strings.HasPrefix(s.Problem, want) || s.Cause != Unreachable {
				t.Errorf("%+v, want %s", s, want)
			}
			stranger.Close()
		}
	})
}

// builtIn judges every app by every provider's metrics, all of them made from the same numbers.
func builtIn(t *testing.T, p *Prometheus, interval time.Duration) {
	for _, test := range []struct {
		app, metric string
		outcome     Outcome
		reason      string // its beginning
		nginx       string // where that differs
	}{
		{"good", SuccessRate, Pass, "success rate 100 % >= 99 % over 3s", ""},
		{"good", Duration, Pass, "p99 latency 99 ms <= 500 ms over 3s", "mean latency 0 ms <= 500 ms over 3s"},
		{"bad", SuccessRate, Fail, "success rate 75 % < 99 % over 3s", ""},
		{"dead", SuccessRate, Fail, "success rate 0 % < 99 % over 3s", ""},
		{"slow", Duration, Fail, "p99 latency 950 ms > 500 ms over 3s", "mean latency 1000 ms > 500 ms over 3s"},
		{"idle", SuccessRate, Inconclusive, "no traffic: 0 requests in 3s, wants 20", ""},
		{"idle", Duration, Inconclusive, "no traffic: 0 requests in 3s, wants 20", ""},
		{"absent", SuccessRate, Inconclusive, "no traffic: 0 requests in 3s, wants 20", ""},
		{"absent", Duration, Inconclusive, "no traffic: 0 requests in 3s, wants 20", ""},
	} {
		for _, provider := range []string{"none", "gatewayapi:v1", "istio", "linkerd", "nginx"} {
			q, err := BuiltIn(test.metric, provider, Model{Namespace: "shop", Target: test.app + "-canary", Ingress: test.app, Interval: interval})
			if err != nil {
				t.Fatal(err)
			}
			o := Objective{Name: test.metric, Title: q.Title, Unit: q.Unit, Min: f(99), Interval: interval, MinimumSample: 20}
			want := test.reason
			if test.metric == Duration {
				o.Min, o.Max = nil, f(500)
			}
			if provider == "nginx" && test.nginx != "" {
				want = test.nginx
			}
			now := time.Now()
			if v := Judge(now, o, p.Samples(t.Context(), q, now)); v.Outcome != test.outcome || !strings.HasPrefix(v.Reason, want) {
				t.Errorf("%s of %s by %s: %s %q, want %s %q", test.metric, test.app, provider, v.Outcome, v.Reason, test.outcome, want)
			}
		}
	}
}

// Where nothing but errors comes back there is no series of good requests: dividing those by all, as
// Flagger does, answers nothing, and a verdict on that would never come.
func allFail(t *testing.T, p *Prometheus, interval time.Duration) {
	const dividing = `sum(rate(istio_requests_total{destination_workload="{{ target }}", response_code!~"5.*"}[{{ interval }}])) / sum(rate(istio_requests_total{destination_workload="{{ target }}"}[{{ interval }}])) * 100`
	for target, want := range map[string]Outcome{"bad-canary": Fail, "dead-canary": Inconclusive} {
		q, err := Custom(dividing, Model{Target: target, Interval: interval})
		if err != nil {
			t.Fatal(err)
		}
		now := time.Now()
		if v := Judge(now, Objective{Name: "x", Min: f(99), Interval: interval}, p.Samples(t.Context(), q, now)); v.Outcome != want {
			t.Errorf("%s: %+v", target, v)
		}
	}
}

func ownQueries(t *testing.T, p *Prometheus) {
	for query, want := range map[string]string{
		`sum(up)`:              "x 1 <= 1.5",
		`vector(2)`:            "x 2 > 1.5",
		`istio_requests_total`: "the query of x returned a vector of 6, wants one number",
		`up[1m]`:               "the query of x returned a matrix of 1, wants one number",
		`"hello"`:              "the query of x returned a string, wants one number",
		`nobody_has_this`:      "no data: the query of x returned nothing",
		`vector(0) / 0`:        "x is NaN",
		`1 / 0`:                "x is Inf",
		`sum(`:                 "Prometheus refuses the query: bad_data: ",
		`istio_requests_total / on() (1 + up) * on() istio_requests_total`: "Prometheus refuses the query: execution: ",
		strings.Repeat("1 + ", 3000) + "1":                                 "x 3001 > 1.5", // goes as POST
	} {
		now := time.Now()
		v := Judge(now, Objective{Name: "x", Max: f(1.5)}, p.Samples(t.Context(), Query{Value: query}, now))
		if !strings.HasPrefix(v.Reason, want) {
			t.Errorf("%.70s: %s %q, want %q", query, v.Outcome, v.Reason, want)
		}
	}
}
