package asker_test

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

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/wheelwright-dev/wheelwright/pkg/probe"
	"github.com/wheelwright-dev/wheelwright/plugins/conformance/internal/asker"
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

func target(t *testing.T, address string) asker.Target {
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
	return asker.Target{Host: host, Port: n}
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
	through := asker.Asker{Redactor: excerpt.NewRedactor("hunter22")}
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
			want(t, through.Ask(t.Context(), one(t, text), target(t, s.URL)), expected.outcome, expected.reason)
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
		v := asker.Asker{}.Ask(t.Context(), one(t, text), target(t, gone))
		want(t, v, unknown, gone)
		if v.GetSample() != 0 {
			t.Errorf("a sample of %d of nobody", v.GetSample())
		}
	}
	never := func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	want(t, asker.Asker{Dial: never}.Ask(t.Context(), one(t, "timeout: 20ms\nhttp: {}"), target(t, gone)), unknown, "no connection within 20ms")

	s := httptest.NewServer(shop())
	at := target(t, s.URL)
	var calls atomic.Int32
	half := func(ctx context.Context, network, address string) (net.Conn, error) {
		if calls.Add(1) > 1 {
			address = gone
		}
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	v := asker.Asker{Dial: half}.Ask(t.Context(), one(t, "retries: 2\ninterval: 1ms\nhttp: {path: /broken}"), at)
	want(t, v, fail, "answers 500")
	if v.GetSample() != 1 {
		t.Errorf("a sample of %d, want 1", v.GetSample())
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	want(t, asker.Asker{}.Ask(over, one(t, "http: {path: /api/info}"), at), unknown, "before the deadline")
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
	v := asker.Asker{}.Ask(t.Context(), one(t, "retries: 5\ninterval: 1ms\nhttp: {}"), target(t, s.URL))
	want(t, v, pass, "")
	if v.GetSample() != 3 || calls.Load() != 3 {
		t.Errorf("%d calls, a sample of %d, want 3", calls.Load(), v.GetSample())
	}
}

func TestTLS(t *testing.T) {
	s := httptest.NewTLSServer(shop())
	defer s.Close()
	want(t, asker.Asker{}.Ask(t.Context(), one(t, "http: {scheme: https, path: /api/info}"), target(t, s.URL)), fail, "certificate")
	want(t, asker.Asker{}.Ask(t.Context(), one(t, "http: {scheme: https, insecure: true, path: /api/info}"), target(t, s.URL)), pass, "")
	want(t, asker.Asker{}.Ask(t.Context(), one(t, "http: {path: /api/info}"), target(t, s.URL)), fail, "answers 400")
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
	ask := func(text string) *pluginv1.Verdict { return asker.Asker{}.Ask(t.Context(), one(t, text), at) }
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
	want(t, asker.Asker{}.Ask(t.Context(), one(t, "grpc: {}"), target(t, l.Addr().String())), fail, "has no grpc.health.v1")

	pair := httptest.NewUnstartedServer(nil)
	pair.EnableHTTP2 = true
	pair.StartTLS()
	defer pair.Close()
	secure, _ := serveGRPC(t, grpc.Creds(credentials.NewServerTLSFromCert(&pair.TLS.Certificates[0])))
	want(t, asker.Asker{}.Ask(t.Context(), one(t, "grpc: {tls: true}"), target(t, secure)), fail, "certificate")
	want(t, asker.Asker{}.Ask(t.Context(), one(t, "grpc: {tls: true, insecure: true}"), target(t, secure)), pass, "")
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
	want(t, asker.Asker{}.Ask(t.Context(), one(t, text), at), pass, "")
	want(t, asker.Asker{}.Ask(t.Context(), one(t, `http: {scheme: https, insecure: true, headers: {Host: shop.example.com}, expect: {contains: "shop.example.com "}}`), at), pass, "")
}

// A secret at the edge of what is quoted does not stay there by half.
func TestSecretAtTheEdge(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, strings.Repeat("x", 114)+" hunter22hunter22")
	}))
	defer s.Close()
	v := asker.Asker{Redactor: excerpt.NewRedactor("hunter22hunter22")}.Ask(t.Context(), one(t, "http: {expect: {contains: nothing}}"), target(t, s.URL))
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
	through := asker.Asker{Proxy: http.DefaultTransport}
	want(t, through.Ask(t.Context(), one(t, "http: {path: /none}"), target(t, s.URL)), unknown, "no endpoints available")
	want(t, through.Ask(t.Context(), one(t, "http: {path: /}"), target(t, s.URL)), fail, "answers 503")
}
