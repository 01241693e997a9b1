package realnode_test

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/integration/gateway"
	"github.com/wheelwright-dev/wheelwright/integration/load"
	"github.com/wheelwright-dev/wheelwright/integration/realnode"
	"github.com/wheelwright-dev/wheelwright/integration/world"
)

// edge is a distribution of one application behind an HTTPRoute, with users who come through the gateway.
type edge struct {
	*provider
	vendor  *world.Vendor
	gateway *gateway.Gateway
	seen    *witness
	route   *routeWatch
	users   map[string]*load.Run
}

// What the releases of the distribution differ in.
type changes struct {
	version, analysis string
	pages             string // where podinfo looks for its page; it is in "/pages", and nothing anywhere else
	filter            string // a header more that the route adds
}

const (
	byWeight = "stepWeight: 25\n    maxWeight: 50"
	byHeader = "iterations: 2\n    match: [{headers: {x-group: {exact: insider}}}]"
	byCopies = "iterations: 2\n    mirror: true"
)

const edgeBackend = `apiVersion: apps/v1
kind: Deployment
metadata: {name: backend}
spec:
  replicas: 2
  selector: {matchLabels: {app: backend}}
  template:
    metadata: {labels: {app: backend}, annotations: {prometheus.io/scrape: "true", prometheus.io/port: "9797"}}
    spec:
      terminationGracePeriodSeconds: 10
      volumes: [{name: pages, configMap: {name: pages}}]
      containers:
      - name: podinfo
        image: IMAGE
        command: [./podinfo, --port=9898, --port-metrics=9797, --ui-message=VERSION, --ui-path=PAGES]
        ports: [{name: http, containerPort: 9898}, {name: http-metrics, containerPort: 9797}]
        readinessProbe: {tcpSocket: {port: http}, periodSeconds: 1}
        lifecycle: {preStop: {sleep: {seconds: 3}}}
        volumeMounts: [{name: pages, mountPath: /pages}]
---
apiVersion: v1
kind: Service
metadata: {name: backend}
spec:
  selector: {app: backend}
  ports: [{name: http, port: 9898, targetPort: http}]
`

// One rule is the application's; the other leads somebody else's path to somebody else.
const edgeRoute = `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: stand-in}]
  hostnames: [shop.example]
  rules:
  - name: docs
    matches: [{path: {type: PathPrefix, value: /headers}}]
    filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Rule, value: docs}]}}]
    backendRefs: [{name: docs, port: 9898}]
  - name: shop
    matches: [{path: {type: PathPrefix, value: /}}]
    filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: X-Edge, value: own}FILTER]}}]
    timeouts: {request: 8s}
    backendRefs: [{name: backend, port: 9898}]
`

const edgeCanary = `apiVersion: flagger.app/v1beta1
kind: Canary
metadata: {name: backend}
spec:
  provider: gatewayapi:v1
  targetRef: {apiVersion: apps/v1, kind: Deployment, name: backend}
  progressDeadlineSeconds: 60
  service: {port: 9898}
  analysis:
    interval: 4s
    threshold: 1
    ANALYSIS
    metrics:
    - {name: request-success-rate, interval: 10s, thresholdRange: {min: 99}}
`

// release is one more version of the vendor's.
func (e *edge) release(c changes) {
	e.t.Helper()
	fill := strings.NewReplacer("IMAGE", realnode.PodinfoImage("6.9.2"), "VERSION", c.version, "PAGES", c.pages, "ANALYSIS", c.analysis, "FILTER", c.filter)
	for name, text := range map[string]string{
		"kustomization.yaml": "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [backend.yaml, docs.yaml, route.yaml, canary.yaml]\nconfigMapGenerator: [{name: pages, literals: [\"vue.html=<p>VERSION</p>\"]}]\n",
		"backend.yaml":       edgeBackend, "docs.yaml": app("docs", 1, "6.9.2"), "route.yaml": edgeRoute, "canary.yaml": edgeCanary,
	} {
		if err := e.vendor.Write(filepath.Join("dist", "edge", name), fill.Replace(text)); err != nil {
			e.t.Fatal(err)
		}
	}
	if err := e.vendor.Release(e.t.Context(), c.version); err != nil {
		e.t.Fatal(err)
	}
}

// newEdge runs 1.0.0, and has users.
func newEdge(t *testing.T) *edge {
	t.Helper()
	node := realnode.Shared(t)
	namespace := node.Cluster.NewNamespace(t)
	defined(t, node)
	e := &edge{vendor: &world.Vendor{Dir: filepath.Join(t.TempDir(), "vendor")}, gateway: serving(t, node), seen: newWitness(), users: map[string]*load.Run{}}
	s := &shop{t: t, node: node}
	e.provider = &provider{shop: s}
	if err := e.vendor.Write("README.md", "One application behind an HTTPRoute.\n"); err != nil {
		t.Fatal(err)
	}
	if err := e.vendor.Init(t.Context(), "Start"); err != nil {
		t.Fatal(err)
	}
	e.release(changes{version: "1.0.0", analysis: byWeight, pages: "/pages"})
	e.provider = s.providerOf(e.vendor, install{variant: "edge", namespace: namespace, first: "1.0.0", plugins: []plugin{
		{"canary", "[--drain, 1s, --prometheus, " + node.PrometheusURL + "]", candidateRules + `
    - {apiGroups: [gateway.networking.k8s.io], resources: [httproutes], verbs: [get, list, create, patch, delete]}`},
	}})
	e.reaches("Succeeded", "1.0.0")
	accepted(t, node, namespace, 1)
	e.route = watchRoute(t, node, namespace, "web", "backend")
	for name, c := range map[string]load.Config{
		"readers":  {URL: "/api/info", Rate: 20},
		"insiders": {URL: "/api/info", Rate: 10, Header: http.Header{"X-Group": {"insider"}}},
		"browsers": {URL: "/", Rate: 20, Header: http.Header{"User-Agent": {"Mozilla/5.0"}}},
		"docs":     {URL: "/headers", Rate: 2},
	} {
		if c.Header == nil {
			c.Header = http.Header{}
		}
		c.Header.Set("Host", "shop.example")
		c.URL, c.Duration, c.Transport = e.gateway.URL+c.URL, 15*time.Minute, e.seen
		run, err := load.Start(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { run.Stop() })
		e.users[name] = run
	}
	eventually(t, "users of 1.0.0", time.Minute, func() error { return e.answered("1.0.0", time.Now().Add(-2*time.Second)) })
	return e
}

// answered tells whether every answer since some moment came from a version, and there are any.
func (e *edge) answered(version string, since time.Time) error {
	got := map[string]int{}
	for _, a := range e.seen.between(since, time.Now()) {
		got[a.version]++
	}
	if len(got) != 1 || got[version] == 0 {
		return fmt.Errorf("answers came from %v, want %s alone", got, version)
	}
	return nil
}

// delivered pins a release that the vendor has just made, waits for its end, and looks at all that holds at
// every end: how the route led on the way, what it is now, who answers, and that nothing of a candidate is left.
func (e *edge) delivered(c changes, phase, runs string, way ...string) row {
	e.t.Helper()
	e.release(c)
	e.route.forget()
	e.pin(c.version, "")
	took, r := e.reaches(phase, c.version)
	e.t.Logf("%s is %s after %.0f s; the route led %v", c.version, phase, took.Seconds(), e.route.way())
	if got := e.route.way(); !slices.Equal(got, way) {
		e.t.Errorf("%s: the route led %v, want %v", c.version, got, way)
	}
	for _, problem := range append(e.route.problems(), e.seen.problems()...) {
		e.t.Errorf("%s: %s", c.version, problem)
	}
	if r.Running != runs {
		e.t.Errorf("after %s %s runs, want %s", c.version, r.Running, runs)
	}
	if left := e.kubectl("-n", e.namespace, "get", "deployments,services,configmaps,horizontalpodautoscalers", "-l", "wheelwright.dev/candidate-of", "-o", "name"); left != "" {
		e.t.Errorf("%s leaves %s", c.version, left)
	}
	begin := time.Now()
	eventually(e.t, "users after "+c.version, time.Minute, func() error {
		if len(e.seen.between(begin, time.Now())) < 20 {
			return fmt.Errorf("not many yet")
		}
		return nil
	})
	if err := e.answered(runs, begin); err != nil {
		e.t.Errorf("after %s: %v", c.version, err)
	}
	return r
}

// is fails unless the route says what it is to say, as a whole, and remembers nothing.
func (e *edge) is(want map[string]any) {
	e.t.Helper()
	o, err := e.route.get(e.t.Context())
	if err != nil {
		e.t.Fatal(err)
	}
	now, then := text(o.Object["spec"]), text(want)
	if now != then {
		e.t.Errorf("the route's spec is\n%s\nwant\n%s", now, then)
	}
	if notes := o.GetAnnotations(); notes["wheelwright.dev/led"] != "" {
		e.t.Errorf("the route remembers %v", notes)
	}
}

func text(v any) string {
	data, _ := json.Marshal(v)
	return string(data)
}

// share fails unless, while the route led so, the candidate had its percentage of the answers.
func (e *edge) share(how string, percent float64) {
	e.t.Helper()
	candidates, all := 0, 0
	for _, a := range e.during(how) {
		if all++; a.candidate {
			candidates++
		}
	}
	n, p := float64(all), percent/100
	// Five standard deviations of as many draws; not one in a million runs is further off.
	if off := math.Abs(float64(candidates) - n*p); all < 50 || off > 5*math.Sqrt(n*p*(1-p)) {
		e.t.Errorf("while the route led %q, %d of %d answers came from the candidate", how, candidates, all)
	}
	e.t.Logf("while the route led %q, %.1f %% of %d answers came from the candidate", how, 100*float64(candidates)/n, all)
}

// during are the answers to requests that began and ended while the gateway led so.
func (e *edge) during(how string) (out []answer) {
	for _, s := range e.route.spans() {
		if s.how == how {
			out = append(out, e.seen.between(s.from, s.to)...)
		}
	}
	return out
}

// failed is what of the users' requests failed since a moment, without what a busy machine did not answer in time.
func (e *edge) failed(since time.Time) (sent, failed int) {
	for _, run := range e.users {
		s, _ := run.Report().Between(since, time.Now())
		sent += s
	}
	return sent, e.seen.failures(since)
}

// A release behind an HTTPRoute: led by weight and promoted, taken back by its success rate, tried by insiders
// alone, tried by copies of requests. The route keeps its own filter and its other rule on every way, and is
// afterwards what the release that runs says, or exactly what it was.
func TestCanaryThroughHTTPRoute(t *testing.T) {
	e := newEdge(t)
	o, err := e.route.get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	own, _ := o.Object["spec"].(map[string]any)

	begin := time.Now()
	e.delivered(changes{version: "1.1.0", analysis: byWeight, pages: "/pages", filter: ", {name: X-Release, value: 1.1.0}"}, "Succeeded", "1.1.0", "stable", "25", "50", "stable")
	e.share("25", 25)
	e.share("50", 50)
	if sent, failed := e.failed(begin); float64(failed) > 0.01*float64(sent) {
		t.Errorf("%d of %d requests failed while a good release came", failed, sent)
	}
	set := own["rules"].([]any)[1].(map[string]any)["filters"].([]any)[0].(map[string]any)["responseHeaderModifier"].(map[string]any)
	set["set"] = append(set["set"].([]any), map[string]any{"name": "X-Release", "value": "1.1.0"})
	e.is(own)

	begin = time.Now()
	r := e.delivered(changes{version: "1.2.0", analysis: byWeight, pages: "/page", filter: ", {name: X-Release, value: 1.1.0}"}, "RolledBack", "1.1.0", "stable", "25", "stable")
	if !strings.Contains(r.Reason, "success rate") || !strings.Contains(r.Reason, "step 1 of 2") {
		t.Errorf("1.2.0 is taken back because of %q", r.Reason)
	}
	e.is(own)
	// Browsers make two fifths of the requests, and 1.2.0, which has no page for them, got a quarter of those for a while.
	sent, failed := e.failed(begin)
	t.Logf("while 1.2.0 was tried %d of %d requests failed", failed, sent)
	if failed == 0 || float64(failed) > 0.1*float64(sent) {
		t.Errorf("%d of %d requests failed while 1.2.0 was tried", failed, sent)
	}

	e.delivered(changes{version: "1.3.0", analysis: byHeader, pages: "/pages", filter: ", {name: X-Release, value: 1.1.0}"}, "Succeeded", "1.3.0", "stable", "header", "stable")
	e.apart()
	e.is(own)

	e.delivered(changes{version: "1.4.0", analysis: byCopies, pages: "/pages", filter: ", {name: X-Release, value: 1.1.0}"}, "Succeeded", "1.4.0", "stable", "mirror", "100", "stable")
	e.copied()
	e.is(own)
	for name, run := range e.users {
		t.Logf("%s: %v", name, run.Stop())
	}
}

// apart fails unless insiders and nobody else were led to the candidate.
func (e *edge) apart() {
	e.t.Helper()
	led := map[string]int{}
	for _, a := range e.during("header") {
		led[fmt.Sprintf("insider %v, candidate %v", a.insider, a.candidate)]++
	}
	if led["insider true, candidate true"] < 10 || led["insider false, candidate false"] < 30 || len(led) != 2 {
		e.t.Errorf("while insiders tried it, answers went %v", led)
	}
}

// copied fails unless the candidate got copies, as its pods count them, and no user an answer of it.
func (e *edge) copied() {
	e.t.Helper()
	answers, candidates := 0, 0
	for _, a := range e.during("mirror") {
		if answers++; a.candidate {
			candidates++
		}
	}
	spans := slices.DeleteFunc(e.route.spans(), func(s span) bool { return s.how != "mirror" })
	if answers < 50 || candidates > 0 || len(spans) == 0 {
		e.t.Fatalf("while copies were made, %d of %d answers came from the candidate", candidates, answers)
	}
	at := float64(spans[len(spans)-1].to.UnixMilli()) / 1000
	counts, err := query(e.node, "kubernetes_namespace", fmt.Sprintf(`sum by (kubernetes_namespace) (http_request_duration_seconds_count{kubernetes_namespace=%q, kubernetes_pod_name=~"backend-canary-.*", path="api_info"} @ %.3f)`, e.namespace, at))
	if err != nil {
		e.t.Fatal(err)
	}
	made := e.gateway.Mirrored()[e.namespace+"/backend-canary"]
	e.t.Logf("%d answers while copies were made, %d copies, of which the pods had counted %s reads by then", answers, made, counts[e.namespace])
	if n := 0; made < 50 || counts[e.namespace] == "" {
		e.t.Errorf("%d copies, the candidate's pods count %v", made, counts)
	} else if _, err := fmt.Sscan(counts[e.namespace], &n); err != nil || n < 20 {
		e.t.Errorf("the candidate's pods count %v of %d copies, %v", counts, made, err)
	}
}
