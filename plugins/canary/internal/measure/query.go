package measure

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// The two metrics that need no query of one's own, by the names that Flagger gave them.
const (
	SuccessRate = "request-success-rate" // percent of requests that did not fail on the server's side
	Duration    = "request-duration"     // milliseconds: the 99th percentile; with nginx the mean
)

// Query is what Prometheus is asked for one objective. Sample and Newest may be empty: then nobody knows
// how many requests the value rests on, and from when it is.
type Query struct {
	Value  string // one number
	Sample string // how many requests it rests on
	Newest string // the time of the newest sample, as Unix seconds
	Title  string // for Objective
	Unit   string
}

// Model is whose metrics are asked for.
type Model struct {
	Name      string // of the object that declares the strategy
	Namespace string
	Target    string // the workload with the candidate's pods: "backend-canary"
	Kind      string // of Target; empty: Deployment
	Stable    string // the workload with the stable pods: "backend"
	Service   string // the Service that users call: "backend"
	Ingress   string
	Route     string
	Interval  time.Duration
	Variables map[string]string
}

// family is how one provider of metrics names requests. Its facts are those of Flagger's built-in metrics
// (pkg/metrics/observers of v1.36): the same series and labels, so that what feeds one feeds the other.
type family struct {
	requests string // counter
	bucket   string // histogram of durations; empty: sum and count
	sum      string
	count    string
	where    string // matchers of the candidate's requests
	failed   string // one more matcher: those that failed
	millis   string // what makes a duration milliseconds
}

// families by router or provider; what comes after a colon is a version.
func familyOf(provider string, m Model) (family, error) {
	pods := regexp.QuoteMeta(m.Target) + `-[0-9a-zA-Z]+-[0-9a-zA-Z]+`
	if m.Kind == "DaemonSet" {
		pods = regexp.QuoteMeta(m.Target) + `-[0-9a-zA-Z]+`
	}
	switch name, _, _ := strings.Cut(provider, ":"); name {
	case "none", "kubernetes", "gatewayapi":
		return family{
			requests: "http_request_duration_seconds_count", bucket: "http_request_duration_seconds_bucket", millis: "1000 * ",
			where:  fmt.Sprintf(`kubernetes_namespace=%q, kubernetes_pod_name=~%q`, m.Namespace, pods),
			failed: `status=~"5.*"`,
		}, nil
	case "istio":
		return family{
			requests: "istio_requests_total", bucket: "istio_request_duration_milliseconds_bucket",
			where:  fmt.Sprintf(`reporter="destination", destination_workload_namespace=%q, destination_workload=%q`, m.Namespace, m.Target),
			failed: `response_code=~"5.*"`,
		}, nil
	case "linkerd":
		return family{
			requests: "response_total", bucket: "response_latency_ms_bucket",
			where:  fmt.Sprintf(`direction="inbound", namespace=%q, deployment=%q`, m.Namespace, m.Target),
			failed: `classification="failure"`,
		}, nil
	case "nginx":
		const latency = "nginx_ingress_controller_ingress_upstream_latency_seconds"
		return family{
			requests: "nginx_ingress_controller_requests", sum: latency + "_sum", count: latency + "_count", millis: "1000 * ",
			where:  fmt.Sprintf(`namespace=%q, ingress=%q, canary!=""`, m.Namespace, m.Ingress),
			failed: `status=~"5.*"`,
		}, nil
	}
	return family{}, fmt.Errorf("no built-in metrics for %q: there are kubernetes, gatewayapi, istio, linkerd and nginx; give a query or a MetricTemplate", provider)
}

// BuiltIn is the query of SuccessRate or Duration for a router ("none", "gatewayapi:v1", "istio",
// "linkerd", "nginx") or a provider as Flagger names it ("kubernetes").
//
// Two things are other than Flagger's. A candidate all of whose requests fail has a success rate of 0,
// where Flagger's division has no value because no series of good requests exists. And milliseconds are
// not cut to whole ones.
func BuiltIn(metric, provider string, m Model) (Query, error) {
	f, err := familyOf(provider, m)
	if err != nil {
		return Query{}, fmt.Errorf("query for %s: %w", metric, err)
	}
	over := "[" + span(max(m.Interval, time.Second)) + "]"
	total := f.requests + "{" + f.where + "}"
	q := Query{
		Sample: fmt.Sprintf("sum(increase(%s%s))", total, over),
		Newest: fmt.Sprintf("max(timestamp(%s))", total),
	}
	switch metric {
	case SuccessRate:
		failed := f.requests + "{" + f.where + ", " + f.failed + "}"
		q.Title, q.Unit = "success rate", "%"
		q.Value = fmt.Sprintf("100 * (1 - (sum(rate(%s%s)) or vector(0)) / sum(rate(%s%s)))", failed, over, total, over)
	case Duration:
		q.Title, q.Unit = "p99 latency", "ms"
		q.Value = fmt.Sprintf("%shistogram_quantile(0.99, sum by (le) (rate(%s{%s}%s)))", f.millis, f.bucket, f.where, over)
		if f.bucket == "" {
			q.Title = "mean latency"
			q.Value = fmt.Sprintf("%ssum(rate(%s{%s}%s)) / sum(rate(%s{%s}%s))", f.millis, f.sum, f.where, over, f.count, f.where, over)
		}
	default:
		return Query{}, fmt.Errorf("%s is no built-in metric: %s and %s are; give it a query or a MetricTemplate", metric, SuccessRate, Duration)
	}
	return q, nil
}

// Custom is the query of somebody's own text, with Flagger's template functions in it.
func Custom(text string, m Model) (Query, error) {
	value, err := Render(text, m)
	return Query{Value: value}, err
}
