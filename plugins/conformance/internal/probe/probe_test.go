package probe_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/wheelwright-dev/wheelwright/plugins/conformance/internal/probe"
	"github.com/wheelwright-dev/wheelwright/plugins/internal/excerpt"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

const (
	pass    = pluginv1.Outcome_OUTCOME_PASS
	fail    = pluginv1.Outcome_OUTCOME_FAIL
	unknown = pluginv1.Outcome_OUTCOME_INCONCLUSIVE
)

// one parses a section with one test; text is what stands below its service.
func one(t *testing.T, text string) probe.Probe {
	t.Helper()
	probes, err := probe.Parse([]byte("- name: it\n  service: backend\n" + indent(text)))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return probes[0]
}

func indent(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  ") + "\n"
}

func target(t *testing.T, address string) probe.Target {
	t.Helper()
	if u, err := url.Parse(address); err == nil && u.Host != "" {
		address = u.Host
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return probe.Target{Host: host, Port: n}
}

func want(t *testing.T, v *pluginv1.Verdict, outcome pluginv1.Outcome, reason string) {
	t.Helper()
	if v.GetOutcome() != outcome || !strings.Contains(v.GetReason(), reason) || (outcome == pass) != (v.GetReason() == "") {
		t.Errorf("got %s %q, want %s because %q", v.GetOutcome(), v.GetReason(), outcome, reason)
	}
}

func shop() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/api/info", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"version": "1.4.0", "ready": true, "pods": [{"name": "a", "load": 1.5}], "none": null, "a.b": 1}`)
	})
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprintf(w, "%s %s %s %s ", r.Method, r.URL.RawQuery, r.Header.Get("X-User"), r.Host)
		_, _ = io.Copy(w, r.Body)
	})
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/api/info", http.StatusFound) })
	mux.HandleFunc("/broken", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "database hunter22 away", http.StatusInternalServerError)
	})
	mux.HandleFunc("/big", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Repeat("x", 1<<20+1)) })
	mux.HandleFunc("/hang", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/crash", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	return mux
}

func TestHTTP(t *testing.T) {
	s := httptest.NewServer(shop())
	defer s.Close()
	asker := probe.Asker{Redactor: excerpt.NewRedactor("hunter22")}
	for text, expected := range map[string]struct {
		outcome pluginv1.Outcome
		reason  string
	}{
		`http: {path: /api/info}`: {pass, ""},
		"http:\n  path: /api/info\n  expect: {status: [200, 3xx], contains: 1.4.0, matches: '\"version\": \"1\\.\\d', json: {.version: 1.4.0, \".pods[0].load\": 1.50, ready: true, $.none: null, '[\"a.b\"]': 1, '.pods[0]': {name: a, load: 1.5}}}": {pass, ""},
		`http: {method: POST, path: "/echo?a=b", headers: {X-User: me, Host: shop.example.com}, body: hello, expect: {status: 202, contains: POST a=b me shop.example.com hello}}`:                                                                    {pass, ""},
		`http: {path: /moved, expect: {status: 302}}`:                   {pass, ""},
		`http: {path: /moved}`:                                          {fail, "answers 302, not 2xx"},
		`http: {path: /broken, expect: {status: [200, 204]}}`:           {fail, "answers 500, not 200 or 204: database *** away"},
		`http: {path: /api/info, expect: {contains: 1.5.0}}`:            {fail, `without "1.5.0"`},
		`http: {path: /api/info, expect: {matches: "^x"}}`:              {fail, "does not match ^x"},
		`http: {path: /api/info, expect: {json: {.version: 1.5.0}}}`:    {fail, `"1.4.0" at .version, not "1.5.0"`},
		`http: {path: /api/info, expect: {json: {".pods[1].name": b}}}`: {fail, "JSON without .pods[1].name"},
		`http: {path: /api/info, expect: {json: {ready: "true"}}}`:      {fail, `true at ready, not "true"`},
		`http: {path: /echo, expect: {status: 202, json: {.a: 1}}}`:     {fail, "no JSON: GET"},
		`http: {path: /big}`:                                            {fail, "more than 1 MiB"},
		"timeout: 50ms\nhttp: {path: /hang}":                            {fail, "gives no answer within 50ms"},
		`http: {path: /crash}`:                                          {fail, "EOF"},
		"latency: 1ns\nhttp: {path: /api/info}":                         {fail, "later than 1ns"},
		`http: {scheme: https, path: /api/info}`:                        {fail, ""},
		`grpc: {}`:                                                      {fail, ""},
	} {
		t.Run(text, func(t *testing.T) {
			want(t, asker.Ask(t.Context(), one(t, text), target(t, s.URL)), expected.outcome, expected.reason)
		})
	}
}

// Who cannot be reached has not failed; where one try reached him, he has.
func TestReach(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := free.Addr().String()
	free.Close()
	for _, text := range []string{"retries: 1\ninterval: 1ms\nhttp: {}", "grpc: {}"} {
		v := probe.Asker{}.Ask(t.Context(), one(t, text), target(t, gone))
		want(t, v, unknown, gone)
		if v.GetSample() != 0 {
			t.Errorf("a sample of %d of nobody", v.GetSample())
		}
	}
	never := func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	want(t, probe.Asker{Dial: never}.Ask(t.Context(), one(t, "timeout: 20ms\nhttp: {}"), target(t, gone)), unknown, "no connection within 20ms")

	s := httptest.NewServer(shop())
	at := target(t, s.URL)
	var calls atomic.Int32
	half := func(ctx context.Context, network, address string) (net.Conn, error) {
		if calls.Add(1) > 1 {
			address = gone
		}
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	v := probe.Asker{Dial: half}.Ask(t.Context(), one(t, "retries: 2\ninterval: 1ms\nhttp: {path: /broken}"), at)
	want(t, v, fail, "answers 500")
	if v.GetSample() != 1 {
		t.Errorf("a sample of %d, want 1", v.GetSample())
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	want(t, probe.Asker{}.Ask(over, one(t, "http: {path: /api/info}"), at), unknown, "before the deadline")
	s.Close()
}

func TestRetries(t *testing.T) {
	var calls atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if calls.Add(1) < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer s.Close()
	v := probe.Asker{}.Ask(t.Context(), one(t, "retries: 5\ninterval: 1ms\nhttp: {}"), target(t, s.URL))
	want(t, v, pass, "")
	if v.GetSample() != 3 || calls.Load() != 3 {
		t.Errorf("%d calls, a sample of %d, want 3", calls.Load(), v.GetSample())
	}
}

func TestTLS(t *testing.T) {
	s := httptest.NewTLSServer(shop())
	defer s.Close()
	want(t, probe.Asker{}.Ask(t.Context(), one(t, "http: {scheme: https, path: /api/info}"), target(t, s.URL)), fail, "certificate")
	want(t, probe.Asker{}.Ask(t.Context(), one(t, "http: {scheme: https, insecure: true, path: /api/info}"), target(t, s.URL)), pass, "")
	want(t, probe.Asker{}.Ask(t.Context(), one(t, "http: {path: /api/info}"), target(t, s.URL)), fail, "answers 400")
}

// serveGRPC is a real gRPC server with a real health service.
func serveGRPC(t *testing.T, options ...grpc.ServerOption) (string, *health.Server) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, h := grpc.NewServer(options...), health.NewServer()
	grpc_health_v1.RegisterHealthServer(s, h)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return l.Addr().String(), h
}

func TestGRPC(t *testing.T) {
	address, h := serveGRPC(t)
	h.SetServingStatus("shop.Orders", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	at := target(t, address)
	ask := func(text string) *pluginv1.Verdict { return probe.Asker{}.Ask(t.Context(), one(t, text), at) }
	want(t, ask("grpc: {}"), pass, "")
	want(t, ask("grpc:"), pass, "")
	want(t, ask("grpc: {service: shop.Orders}"), fail, `NOT_SERVING of "shop.Orders"`)
	want(t, ask("grpc: {service: shop.Nothing}"), fail, `does not know the service "shop.Nothing"`)
	want(t, ask("grpc: {tls: true}"), fail, "")
	want(t, ask("http: {}"), fail, "")
	h.Shutdown()
	want(t, ask("grpc: {}"), fail, "NOT_SERVING")

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	bare := grpc.NewServer()
	go func() { _ = bare.Serve(l) }()
	t.Cleanup(bare.Stop)
	want(t, probe.Asker{}.Ask(t.Context(), one(t, "grpc: {}"), target(t, l.Addr().String())), fail, "has no grpc.health.v1")

	pair := httptest.NewUnstartedServer(nil)
	pair.EnableHTTP2 = true
	pair.StartTLS()
	defer pair.Close()
	secure, _ := serveGRPC(t, grpc.Creds(credentials.NewServerTLSFromCert(&pair.TLS.Certificates[0])))
	want(t, probe.Asker{}.Ask(t.Context(), one(t, "grpc: {tls: true}"), target(t, secure)), fail, "certificate")
	want(t, probe.Asker{}.Ask(t.Context(), one(t, "grpc: {tls: true, insecure: true}"), target(t, secure)), pass, "")
}

// A candidate is asked under the name that users call it by, and its certificate is for that.
func TestName(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s", r.Host, r.TLS.ServerName)
	}))
	defer s.Close()
	at := target(t, s.URL)
	at.Name = "backend.shop.svc"
	text := fmt.Sprintf("http: {scheme: https, insecure: true, expect: {contains: \"backend.shop.svc:%d backend.shop.svc\"}}", at.Port)
	want(t, probe.Asker{}.Ask(t.Context(), one(t, text), at), pass, "")
	want(t, probe.Asker{}.Ask(t.Context(), one(t, `http: {scheme: https, insecure: true, headers: {Host: shop.example.com}, expect: {contains: "shop.example.com "}}`), at), pass, "")
}

// A secret at the edge of what is quoted does not stay there by half.
func TestSecretAtTheEdge(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, strings.Repeat("x", 114)+" hunter22hunter22")
	}))
	defer s.Close()
	v := probe.Asker{Redactor: excerpt.NewRedactor("hunter22hunter22")}.Ask(t.Context(), one(t, "http: {expect: {contains: nothing}}"), target(t, s.URL))
	if want(t, v, fail, "xxx ***"); strings.Contains(v.GetReason(), "hun") {
		t.Errorf("half of it is in %q", v.GetReason())
	}
}

// What the API server answers in a Service's place is no answer of the Service.
func TestProxy(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		if r.URL.Path == "/none" {
			fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","message":"no endpoints available for service \"backend\""}`)
		}
	}))
	defer s.Close()
	asker := probe.Asker{Proxy: http.DefaultTransport}
	want(t, asker.Ask(t.Context(), one(t, "http: {path: /none}"), target(t, s.URL)), unknown, "no endpoints available")
	want(t, asker.Ask(t.Context(), one(t, "http: {path: /}"), target(t, s.URL)), fail, "answers 503")
}

func TestParse(t *testing.T) {
	probes, err := probe.Parse([]byte("- {name: a, service: backend, port: http, when: after-promotion, timeout: 3s, retries: 2, interval: 5s, latency: 200ms, http: {}}\n" +
		"- {name: b, service: backend, port: 9999, grpc: {service: x}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	a, b := probes[0], probes[1]
	if a.Port != "http" || len(a.When) != 1 || a.When[0] != probe.AfterPromotion || a.Timeout != 3*time.Second || a.Retries != 2 || a.Interval != 5*time.Second ||
		a.Latency != 200*time.Millisecond || a.HTTP.Method != "GET" || a.HTTP.Path != "/" || a.GRPC != nil {
		t.Errorf("got %+v", a)
	}
	if b.Port != "9999" || len(b.When) != 2 || b.GRPC.Service != "x" || b.HTTP != nil || b.Timeout != 5*time.Second {
		t.Errorf("got %+v", b)
	}
	_, err = probe.Parse([]byte(`
- {name: "", service: Shop!, port: 70000, when: [sometimes], timeout: soon, retries: 1000, interval: 5, latency: 1m, colour: red}
- {name: a, service: s, http: {scheme: ftp, method: get, path: x, headers: {"a b": c, d: 5}, body: 7, insecure: maybe, follow: true,
   expect: {status: [99, ok], matches: "(", json: {"a[": 1, "..": 2}, header: x}}}
- {name: a, service: s, http: {}, grpc: {port: 1}}
- nothing
`))
	for _, part := range []string{`tests[0].name: ""`, `tests[0].service: "Shop!"`, "tests[0].port", "tests[0].when: want before-traffic, after-promotion", "tests[0].timeout", "tests[0].retries: want a whole number from 0 to 100",
		"tests[0].interval", "tests[0].latency: 1m0s is longer", "tests[0].colour: unknown key", "tests[0].http: want either http or grpc", "tests[1].http.scheme", "tests[1].http.method", "tests[1].http.path",
		"tests[1].http.headers.a b", "tests[1].http.headers.d: want text", "tests[1].http.body", "tests[1].http.insecure", "tests[1].http.follow: unknown key", "tests[1].http.expect.status: 99", "expect.status: ok",
		"expect.matches", `expect.json: "a["`, `expect.json: ".."`, "expect.header: unknown key", `tests[2].name: "a" is the name of tests[1] too`, "tests[2].http: want either", "tests[2].grpc.port: unknown key", "tests[3]: want keys and values"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("want %q in:\n%v", part, err)
		}
	}
	for _, text := range []string{"a: b", "- {name: a, name: b}", "[", "x"} {
		if _, err := probe.Parse([]byte(text)); err == nil {
			t.Errorf("%q was read", text)
		}
	}
	if got, err := probe.ReadFile([]byte("version: 1\ntests: [{name: a, service: s, grpc: }]\n")); err != nil || len(got) != 1 {
		t.Errorf("a file: %v, %v", got, err)
	}
	if _, err := probe.ReadFile([]byte("test: []\ntests: [{}]\n")); err == nil || !strings.Contains(err.Error(), "test: unknown key") || !strings.Contains(err.Error(), "tests[0].name") {
		t.Errorf("a bad file: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("- {name: a, service: b, http: {path: /, expect: {status: 2xx, json: {'.a[0][\"b\"].c': 1}}}}")
	f.Fuzz(func(t *testing.T, text string) {
		probes, err := probe.Parse([]byte(text))
		if err != nil && probes != nil {
			t.Error("an error and probes")
		}
		for _, p := range probes {
			if (p.HTTP == nil) == (p.GRPC == nil) || p.Name == "" || p.Timeout <= 0 || len(p.When) == 0 {
				t.Errorf("%+v", p)
			}
		}
	})
}
