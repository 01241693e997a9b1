package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const sample = `static_resources:
  listeners:
    - address: {socket_address: {address: 0.0.0.0, port_value: 8080}}
      filter_chains:
        - filters:
            - name: envoy.http_connection_manager
              config:
                route_config:
                  virtual_hosts:
                    - routes:
                        - match: {prefix: "/"}
                          route:
                            host_rewrite: frontend.app
                            retry_policy: {retry_on: gateway-error, num_retries: 3, per_try_timeout: 5s}
  clusters:
    - load_assignment:
        endpoints:
          - lb_endpoints:
              - endpoint: {address: {socket_address: {address: frontend.app.svc.cluster.local, port_value: 9898}}}
admin:
  address: {socket_address: {address: 0.0.0.0, port_value: 9999}}
`

func TestParse(t *testing.T) {
	got, err := parse([]byte(sample))
	want := config{listen: "0.0.0.0:8080", admin: "0.0.0.0:9999", upstream: "frontend.app.svc.cluster.local:9898", host: "frontend.app", retries: 3, tryTimeout: 5 * time.Second}
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"{", "admin: {}"} {
		if _, err := parse([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestProxyRepeatsGatewayErrorsOnly(t *testing.T) {
	var requests atomic.Int32
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch n := requests.Add(1); {
		case r.URL.Path == "/unavailable" && n < 3:
			w.WriteHeader(http.StatusServiceUnavailable)
		case r.URL.Path == "/down":
			w.WriteHeader(http.StatusBadGateway)
		case r.URL.Path == "/broken":
			w.WriteHeader(http.StatusInternalServerError)
		default:
			_, _ = io.WriteString(w, r.Host+" "+r.URL.RequestURI()+" "+string(body))
		}
	}))
	defer upstream.Close()
	address := strings.TrimPrefix(upstream.URL, "http://")
	front := httptest.NewServer(newProxy(config{upstream: address, host: "frontend.app", retries: 3, tryTimeout: time.Second}))
	defer front.Close()
	for _, c := range []struct {
		path, body string
		code       int
		requests   int32
	}{
		{"/echo?a=1", "frontend.app /echo?a=1 text", 200, 1},
		{"/unavailable", "frontend.app /unavailable text", 200, 3},
		{"/down", "", 502, 4},
		{"/broken", "", 500, 1},
	} {
		requests.Store(0)
		response, err := http.Post(front.URL+c.path, "text/plain", strings.NewReader("text"))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != c.code || string(body) != c.body || requests.Load() != c.requests {
			t.Errorf("%s: %d %q after %d requests", c.path, response.StatusCode, body, requests.Load())
		}
	}
	upstream.Close()
	if response, err := http.Get(front.URL); err != nil || response.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("without an upstream: %v, %v", response, err)
	}
}
