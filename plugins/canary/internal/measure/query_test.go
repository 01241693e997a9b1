package measure

import (
	"strings"
	"testing"
	"time"
)

func backend() Model {
	return Model{Name: "backend", Namespace: "shop", Target: "backend-canary", Stable: "backend", Service: "backend", Ingress: "shop",
		Route: "shop", Interval: time.Minute, Variables: map[string]string{"direction": "inbound"}}
}

func TestBuiltInQueries(t *testing.T) {
	for _, test := range []struct{ provider, metric, value, sample string }{
		{"kubernetes", SuccessRate,
			`100 * (1 - (sum(rate(http_request_duration_seconds_count{kubernetes_namespace="shop", kubernetes_pod_name=~"backend-canary-[0-9a-zA-Z]+-[0-9a-zA-Z]+", status=~"5.*"}[1m])) or vector(0)) / ` +
				`sum(rate(http_request_duration_seconds_count{kubernetes_namespace="shop", kubernetes_pod_name=~"backend-canary-[0-9a-zA-Z]+-[0-9a-zA-Z]+"}[1m])))`,
			`sum(increase(http_request_duration_seconds_count{kubernetes_namespace="shop", kubernetes_pod_name=~"backend-canary-[0-9a-zA-Z]+-[0-9a-zA-Z]+"}[1m]))`},
		{"gatewayapi:v1", Duration,
			`1000 * histogram_quantile(0.99, sum by (le) (rate(http_request_duration_seconds_bucket{kubernetes_namespace="shop", kubernetes_pod_name=~"backend-canary-[0-9a-zA-Z]+-[0-9a-zA-Z]+"}[1m])))`, ""},
		{"istio", SuccessRate,
			`100 * (1 - (sum(rate(istio_requests_total{reporter="destination", destination_workload_namespace="shop", destination_workload="backend-canary", response_code=~"5.*"}[1m])) or vector(0)) / ` +
				`sum(rate(istio_requests_total{reporter="destination", destination_workload_namespace="shop", destination_workload="backend-canary"}[1m])))`, ""},
		{"istio", Duration,
			`histogram_quantile(0.99, sum by (le) (rate(istio_request_duration_milliseconds_bucket{reporter="destination", destination_workload_namespace="shop", destination_workload="backend-canary"}[1m])))`, ""},
		{"linkerd", SuccessRate,
			`100 * (1 - (sum(rate(response_total{direction="inbound", namespace="shop", deployment="backend-canary", classification="failure"}[1m])) or vector(0)) / ` +
				`sum(rate(response_total{direction="inbound", namespace="shop", deployment="backend-canary"}[1m])))`, ""},
		{"linkerd", Duration,
			`histogram_quantile(0.99, sum by (le) (rate(response_latency_ms_bucket{direction="inbound", namespace="shop", deployment="backend-canary"}[1m])))`, ""},
		{"nginx", SuccessRate,
			`100 * (1 - (sum(rate(nginx_ingress_controller_requests{namespace="shop", ingress="shop", canary!="", status=~"5.*"}[1m])) or vector(0)) / ` +
				`sum(rate(nginx_ingress_controller_requests{namespace="shop", ingress="shop", canary!=""}[1m])))`, ""},
		{"nginx", Duration,
			`1000 * sum(rate(nginx_ingress_controller_ingress_upstream_latency_seconds_sum{namespace="shop", ingress="shop", canary!=""}[1m])) / ` +
				`sum(rate(nginx_ingress_controller_ingress_upstream_latency_seconds_count{namespace="shop", ingress="shop", canary!=""}[1m]))`, ""},
	} {
		q, err := BuiltIn(test.metric, test.provider, backend())
		if err != nil || q.Value != test.value || test.sample != "" && q.Sample != test.sample {
			t.Errorf("%s of %s: %v\n %s\n %s", test.metric, test.provider, err, q.Value, q.Sample)
		}
		if q.Title == "" || q.Unit == "" || !strings.HasPrefix(q.Newest, "max(timestamp(") {
			t.Errorf("%s of %s: %+v", test.metric, test.provider, q)
		}
	}
	for provider, metric := range map[string]string{"crossover": SuccessRate, "istio": "request-size"} {
		if _, err := BuiltIn(metric, provider, backend()); err == nil || !strings.Contains(err.Error(), "MetricTemplate") {
			t.Errorf("%s of %s: %v", metric, provider, err)
		}
	}
}

// A name with what means something in PromQL or in a regular expression stays a name.
func TestNamesAreQuoted(t *testing.T) {
	m := backend()
	m.Target, m.Namespace, m.Kind = `a.b"} or up{x="`, `n\`, "DaemonSet"
	q, err := BuiltIn(SuccessRate, "none", m)
	if err != nil || !strings.Contains(q.Sample, `{kubernetes_namespace="n\\", kubernetes_pod_name=~"a\\.b\"\\} or up\\{x=\"-[0-9a-zA-Z]+"}`) {
		t.Errorf("%v: %s", err, q.Sample)
	}
}

const template404 = `
apiVersion: flagger.app/v1beta1
kind: MetricTemplate
metadata:
  name: not-found
  namespace: istio-system
  annotations:
    wheelwright.dev/sample-query: sum(increase(istio_requests_total{destination_workload="{{ target }}"}[{{ interval }}]))
spec:
  provider:
    type: prometheus
    address: http://prometheus.istio-system:9090
    secretRef: {name: login}
    colour: red
  query: |
    100 - sum(rate(istio_requests_total{reporter="{{ variables.direction }}",
        destination_workload_namespace="{{ namespace }}", destination_workload="{{ target }}", response_code!="404"}[{{ interval }}]))
      / sum(rate(istio_requests_total{destination_workload=~"{{ target }}-canary|{{ target }}-primary"}[{{ interval }}])) * 100
  extra: 1
`

func TestMetricTemplate(t *testing.T) {
	m, warnings, err := ParseTemplate([]byte(template404))
	if err != nil {
		t.Fatal(err)
	}
	if m.Name != "not-found" || m.Address != "http://prometheus.istio-system:9090" || m.Secret != "login" || m.Type != "prometheus" {
		t.Errorf("%+v", m)
	}
	want := []string{"MetricTemplate istio-system/not-found: spec.extra is not understood", "MetricTemplate istio-system/not-found: spec.provider.colour is not understood"}
	if strings.Join(warnings, "\n") != strings.Join(want, "\n") {
		t.Errorf("warnings: %q", warnings)
	}
	q, err := m.Query(backend())
	if err != nil {
		t.Fatal(err)
	}
	if want := `100 - sum(rate(istio_requests_total{reporter="inbound", destination_workload_namespace="shop", destination_workload="backend-canary", response_code!="404"}[1m]))` +
		` / sum(rate(istio_requests_total{destination_workload=~"backend-canary|backend"}[1m])) * 100`; q.Value != want {
		t.Errorf("got  %s\nwant %s", q.Value, want)
	}
	if want := `sum(increase(istio_requests_total{destination_workload="backend-canary"}[1m]))`; q.Sample != want {
		t.Errorf("sample: %s", q.Sample)
	}
	for name, text := range map[string]string{
		"the provider datadog is not supported": "apiVersion: flagger.app/v1beta1\nkind: MetricTemplate\nspec: {provider: {type: datadog}, query: up}",
		"has no spec.query":                     "apiVersion: flagger.app/v1beta1\nkind: MetricTemplate\nspec: {provider: {type: prometheus}}",
		"is not a MetricTemplate":               "apiVersion: flagger.app/v1beta1\nkind: Canary\n",
		"read a MetricTemplate":                 "kind: [",
	} {
		if _, _, err := ParseTemplate([]byte(text)); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A vendor's template may say what is asked, not keep a provider's machine busy.
func TestRenderIsBounded(t *testing.T) {
	for name, text := range map[string]string{
		"not allowed in it":      `{{ range 1000000000000 }}{{ end }}`,
		"are not allowed":        `{{ if true }}{{ with "x" }}{{ range variables }}x{{ end }}{{ end }}{{ end }}`,
		"range, template":        `{{ define "a" }}{{ template "a" }}{{ end }}{{ template "a" }}`,
		"define and block":       `{{ block "a" . }}up{{ end }}`,
		"longer than 32768":      `{{ printf "%999999d" 1 }}`,
		"at most 32768":          strings.Repeat("x", maxQuery+1),
		`function "env"`:         `{{ env "HOME" }}`,
		`no entry for key "who"`: `{{ variables.who }}`,
	} {
		if got, err := Render(text, backend()); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%.60s: %.60q, %v", text, got, err)
		}
	}
	q, err := Custom(`{{ if eq namespace "shop" }}up{ingress="{{ ingress }}", route="{{ route }}",{{ end }} svc="{{ service }}", by="{{ name }}"}`, backend())
	if want := `up{ingress="shop", route="shop", svc="backend", by="backend"}`; err != nil || q.Value != want {
		t.Errorf("%s, %v", q.Value, err)
	}
}
