package strategy_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
)

func objects(t testing.TB, text string) []strategy.Object {
	t.Helper()
	var out []strategy.Object
	for _, doc := range strings.Split(text, "\n---\n") {
		var o strategy.Object
		if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		if o != nil {
			out = append(out, o)
		}
	}
	return out
}

// workload is a Deployment and its autoscaler, without a Service, as the reference distribution has them.
func workload(name string) string {
	return strings.ReplaceAll(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME, namespace: shop, labels: {app: NAME, team: red}}
spec:
  selector: {matchLabels: {app: NAME}}
  template:
    metadata: {labels: {app: NAME, team: red}, annotations: {prometheus.io/scrape: "true"}}
    spec:
      containers:
      - name: NAME
        image: registry.example/NAME:2.0.0
        ports: [{name: http, containerPort: 9898}, {name: grpc, containerPort: 9999}]
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: NAME, namespace: shop}
spec: {scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: NAME}, minReplicas: 2, maxReplicas: 4}
`, "NAME", name)
}

// canary declares a course for a workload; spec is added to targetRef and service, indented by two.
func canary(version, name, spec string) string {
	return fmt.Sprintf(`
apiVersion: flagger.app/%s
kind: Canary
metadata: {name: %[2]s, namespace: shop}
spec:
  targetRef: {apiVersion: apps/v1, kind: Deployment, name: %[2]s}
  service: {port: 9898, portDiscovery: true}
%[3]s
`, version, name, spec)
}

func read(t testing.TB, o strategy.Options, docs ...string) (strategy.Release, error) {
	t.Helper()
	return strategy.Read(objects(t, strings.Join(docs, "\n---\n")), o)
}

func TestCourses(t *testing.T) {
	for _, test := range []struct{ name, router, spec, want string }{
		{"a share that grows by steps", "istio", `{stepWeight: 20, maxWeight: 50}`, "web Progressive 20%x1 40%x1 50%x1"},
		{"to everything where no maximum is written", "istio", `{stepWeight: 40}`, "web Progressive 40%x1 80%x1 100%x1"},
		{"steps of its own", "linkerd", `{stepWeights: [1, 5, 25]}`, "web Progressive 1%x1 5%x1 25%x1"},
		{"steps of its own, cut", "linkerd", `{stepWeights: [1, 5, 25], maxWeight: 10}`, "web Progressive 1%x1 5%x1"},
		{"back by steps after promotion", "istio", `{stepWeight: 25, maxWeight: 50, stepWeightPromotion: 20}`, "web Progressive 25%x1 50%x1 back [30 10 0]"},
		{"copies first", "gatewayapi:v1", `{stepWeight: 50, maxWeight: 50, mirror: true, mirrorWeight: 30}`, "web Progressive 0%+30%x1 50%x1"},
		{"pods for shares where nothing weighs requests", "none", `{stepWeight: 25, maxWeight: 50}`, "web Replicas 25%x1 50%x1"},
		{"blue/green", "none", `{iterations: 7}`, "web BlueGreen 0%x7 100%x1"},
		{"copies all along", "istio", `{iterations: 7, mirror: true}`, "web Mirror 0%+100%x7 100%x1"},
		{"who has the cookie", "nginx", `{iterations: 7, match: [{headers: {cookie: {exact: insider}}}]}`, "web ABTest 100%of-matchesx7"},
	} {
		t.Run(test.name, func(t *testing.T) {
			spec := "  analysis: {interval: 10s, threshold: 2, " + test.spec[1:]
			release, err := read(t, strategy.Options{Router: test.router}, workload("web"), canary("v1beta1", "web", spec))
			if err != nil || len(release.Warnings) > 0 {
				t.Fatal(err, release.Warnings)
			}
			if got := courses(release.Services); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

// Everything that a Canary can say, once.
func TestEverything(t *testing.T) {
	release, err := read(t, strategy.Options{}, workload("web"), canary("v1beta1", "web", `
  provider: istio
  progressDeadlineSeconds: 90
  suspend: true
  analysis:
    interval: 30s
    threshold: 3
    primaryReadyThreshold: 80
    canaryReadyThreshold: 90
    iterations: 4
    match:
    - headers: {X-Group: {prefix: beta-}, cookie: {regex: '^(.*?;)?(insider=true)(;.*)?$'}}
    - headers: {x-region: {suffix: .test}}
    sessionAffinity: {cookieName: shop, maxAge: 60, domain: example.com, sameSite: Lax, secure: true}
    metrics:
    - {name: request-success-rate, thresholdRange: {min: 99}, interval: 1m}
    - {name: request-duration, threshold: 500}
    - {name: queue, query: 'sum(queue)', thresholdRange: {min: 1, max: 5.5}, interval: 20s}
    - {name: errors, templateRef: {name: errors, namespace: monitoring}, templateVariables: {a: b}, thresholdRange: {max: 0}}
    webhooks:
    - {name: a, type: confirm-rollout, url: http://tester/gate}
    - {name: b, type: pre-rollout, url: http://tester/, timeout: 3m, metadata: {type: bash, cmd: test}}
    - {name: c, type: rollout, url: http://tester/, retries: 2, muteAlert: true}
    - {name: d, type: confirm-traffic-increase, url: http://tester/}
    - {name: e, type: confirm-promotion, url: http://tester/}
    - {name: f, type: post-rollout, url: http://tester/}
    - {name: g, type: rollback, url: http://tester/}
    - {name: h, type: event, url: http://tester/}
    - {name: i, url: http://tester/}
`))
	if err != nil || len(release.Warnings) > 0 {
		t.Fatal(err, release.Warnings)
	}
	s := release.Services[0]
	s.Declared = nil
	text, err := yaml.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "everything.yaml", text)
}

// What is wrong is said all at once: which object, which field, what to write.
func TestProblems(t *testing.T) {
	fine := "  analysis: {interval: 10s, threshold: 2, iterations: 3}"
	for _, test := range []struct {
		name   string
		router string
		docs   []string
		after  map[string][]string
		want   []string
	}{
		{"no such workload", "", []string{workload("web"), canary("v1beta1", "wbe", fine)}, nil,
			[]string{"Canary shop/wbe: spec.targetRef.name: the release has no Deployment shop/wbe; write the name of one that it has: web"}},
		{"a workload of another kind", "", []string{strings.Replace(canary("v1beta1", "web", fine), "kind: Deployment", "kind: DaemonSet", 1)}, nil,
			[]string{"Canary shop/web: spec.targetRef.kind: DaemonSet of apps/v1: a candidate can be made of a Deployment of apps/v1 only; take this Canary out, and web is replaced at promotion"}},
		{"two canaries for one workload", "", []string{workload("web"), canary("v1beta1", "web", fine), strings.Replace(canary("v1beta1", "web", fine), "{name: web, namespace", "{name: other, namespace", 1)}, nil,
			[]string{"Canary shop/other: spec.targetRef: Deployment web is that of Canary shop/web too; keep one Canary for a workload",
				"Canary shop/other: spec.service.name: Service web is that of Canary shop/web too; write another name here or there",
				"Canary shop/other: spec.service.name: Service web-canary is that of Canary shop/web too; write another name here or there",
				"Canary shop/other: spec.autoscalerRef: HorizontalPodAutoscaler web is that of Canary shop/web too; name the autoscaler of this workload"}},
		{"no interval, threshold 0, more than everything", "istio", []string{workload("web"), canary("v1beta1", "web", "  analysis: {threshold: 0, stepWeight: 120}")}, nil,
			[]string{"Canary shop/web: spec.analysis.interval: missing; write how long to wait between two checks, such as 30s",
				"Canary shop/web: spec.analysis.threshold: is 0; write how many failed checks end the canary, 1 for the first",
				"Canary shop/web: spec.analysis.stepWeight: 120 is out of bounds; write a number from 0 to 100"}},
		{"two courses at once", "istio", []string{workload("web"), canary("v1beta1", "web", "  analysis: {interval: 10s, threshold: 2, iterations: 3, stepWeight: 10}")}, nil,
			[]string{"Canary shop/web: spec.analysis.iterations: stands beside stepWeight or stepWeights: checks at one amount and a growing amount exclude each other; take one of them out"}},
		{"steps that do not rise", "istio", []string{workload("web"), canary("v1beta1", "web", "  analysis: {interval: 10s, threshold: 2, stepWeights: [10, 10, 200]}")}, nil,
			[]string{"Canary shop/web: spec.analysis.stepWeights[1]: 10 is not above the one before, 10; write them ascending",
				"Canary shop/web: spec.analysis.stepWeights[2]: 200 is out of bounds; write a number from 1 to 100"}},
		{"no course", "istio", []string{workload("web"), canary("v1beta1", "web", "  analysis: {interval: 10s, threshold: 2}")}, nil,
			[]string{"Canary shop/web: spec.analysis: has no course; write stepWeight and maxWeight, stepWeights, or iterations"}},
		{"no analysis", "", []string{workload("web"), canary("v1beta1", "web", "")}, nil,
			[]string{"Canary shop/web: spec.analysis: missing; write it, or skipAnalysis: true for a promotion that nothing measures"}},
		{"the new word in the old version", "", []string{workload("web"), canary("v1alpha3", "web", fine)}, nil,
			[]string{"Canary shop/web: spec.analysis: is of flagger.app/v1beta1, and this is v1alpha3; write apiVersion: flagger.app/v1beta1, or canaryAnalysis here"}},
		{"a router that sees no headers", "", []string{workload("web"), canary("v1beta1", "web", "  analysis: {interval: 10s, threshold: 2, iterations: 3, match: [{headers: {x: {exact: y}}}]}")}, nil,
			[]string{"Canary shop/web: spec.analysis.match: router none sees no headers; take it out for blue/green, or write provider: istio, linkerd, nginx or gatewayapi:v1"}},
		{"a router that copies nothing", "linkerd", []string{workload("web"), canary("v1beta1", "web", "  analysis: {interval: 10s, threshold: 2, iterations: 3, mirror: true}")}, nil,
			[]string{"Canary shop/web: spec.analysis.mirror: router linkerd cannot copy requests; take it out, or write provider: istio or gatewayapi:v1"}},
		{"a condition that would be lost", "istio", []string{workload("web"), canary("v1beta1", "web", "  analysis: {interval: 10s, threshold: 2, iterations: 3, match: [{uri: {prefix: /x}, headers: {x: {exact: y}}}]}")}, nil,
			[]string{"Canary shop/web: spec.analysis.match[0].uri: an A/B test goes by headers and cookies only, and without this condition it would take in more users; take it out"}},
		{"metrics that nothing or everything passes", "", []string{workload("web"), canary("v1beta1", "web",
			"  analysis: {interval: 10s, threshold: 2, iterations: 3, metrics: [{name: request-success-rate}, {name: x, query: q, thresholdRange: {min: 2, max: 1}}, {name: mine, thresholdRange: {min: 1}}]}")}, nil,
			[]string{"Canary shop/web: spec.analysis.metrics[0].thresholdRange: missing, so that any value would pass; write min, max or both below it",
				"Canary shop/web: spec.analysis.metrics[1].thresholdRange.min: 2 is above max, 1, which nothing can pass; exchange them",
				"Canary shop/web: spec.analysis.metrics[2].query: missing: mine is not built in (request-success-rate and request-duration are); write a query or a templateRef"}},
		{"a webhook of no kind", "", []string{workload("web"), canary("v1beta1", "web",
			"  analysis: {interval: 10s, threshold: 2, iterations: 3, webhooks: [{name: a, type: before, url: tester}]}")}, nil,
			[]string{"Canary shop/web: spec.analysis.webhooks[0].type: before is no kind of webhook; write one of confirm-rollout, pre-rollout, rollout, confirm-traffic-increase, confirm-promotion, post-rollout, rollback, event",
				`Canary shop/web: spec.analysis.webhooks[0].url: "tester": write a URL that starts with http:// or https://`}},
		{"somebody else's router", "", []string{workload("web"), canary("v1beta1", "web", "  provider: contour\n"+fine)}, nil,
			[]string{"Canary shop/web: spec.provider: contour is no router of this plugin; write kubernetes, istio, linkerd, nginx or gatewayapi:v1"}},
		{"an autoscaler that is not there", "", []string{workload("web"), canary("v1beta1", "web", "  autoscalerRef: {apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, name: wbe}\n"+fine)}, nil,
			[]string{"Canary shop/web: spec.autoscalerRef.name: the release has no HorizontalPodAutoscaler shop/wbe; write the name of one that it has, or take autoscalerRef out"}},
		{"pods that nothing tells apart", "", []string{strings.ReplaceAll(workload("web"), "app: web", "component: web"), canary("v1beta1", "web", fine)}, nil,
			[]string{"Deployment shop/web: spec.selector.matchLabels: none of the labels app, name, app.kubernetes.io/name selects the pods of web; write one of them in spec.selector and in the template, or name another with selectorKeys"}},
		{"one name in two namespaces", "", []string{workload("web"), canary("v1beta1", "web", fine), strings.ReplaceAll(workload("web"), "namespace: shop", "namespace: old"), strings.Replace(canary("v1beta1", "web", fine), "namespace: shop", "namespace: old", 1)}, nil,
			[]string{"Canary old/web: spec.service.name: web is the name of a service in namespace shop too, and a release knows each name once; write another"}},
		{"services that wait for each other", "", []string{workload("a"), workload("b"), canary("v1beta1", "a", fine), canary("v1beta1", "b", fine)}, map[string][]string{"a": {"b"}, "b": {"a", "c"}},
			[]string{"wheelwright.yaml: after.b: c: no Canary leads a service of that name; known: a, b", "wheelwright.yaml: after.a: a after b after a wait for each other; take one of them out"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := read(t, strategy.Options{Router: test.router, After: test.after}, test.docs...)
			var problems strategy.Problems
			if !errors.As(err, &problems) {
				t.Fatalf("got %v", err)
			}
			if got, want := err.Error(), strings.Join(test.want, "\n"); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// A field that is not known, known to another version, or known and without meaning here is never
// passed over in silence.
func TestWarnings(t *testing.T) {
	release, err := read(t, strategy.Options{Router: "istio"}, workload("web"), canary("v1alpha3", "web", `
  metricsServer: http://prometheus
  revertOnDeletion: true
  canaryAnalysis:
    interval: 10s
    treshold: 3
    threshold: 3
    stepWeight: 10
    maxWeight: 20
    stepWeights: [5]
    match: []
    metrics:
    - {name: request-success-rate, threshold: 99, thresholdRange: {min: 50}, intervall: 1m}
`), workload("api"), canary("v1beta1", "api", `
  metricsServer: http://prometheus
  Analysis: {}
  analysis:
    interval: 10s
    threshold: 3
    iterations: 2
    alerts: [{name: a}]
    match:
    - headers: {user-agent: {regex: '^(?!.*Chrome).*$'}}
    - headers: {cookie: {exact: insider}}
`))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range release.Warnings {
		got = append(got, w.String())
	}
	want := []string{
		"Canary shop/web: spec.revertOnDeletion: unknown to flagger.app/v1alpha3, not acted on; write apiVersion: flagger.app/v1beta1 to have it",
		"Canary shop/web: spec.metricsServer: not acted on: metrics come from the source that the spoke is configured with",
		"Canary shop/web: spec.canaryAnalysis.stepWeights: unknown to flagger.app/v1alpha3, not acted on; write apiVersion: flagger.app/v1beta1 to have it",
		"Canary shop/web: spec.canaryAnalysis.metrics[0].thresholdRange: unknown to flagger.app/v1alpha3, not acted on; write apiVersion: flagger.app/v1beta1 to have it",
		"Canary shop/web: spec.canaryAnalysis.metrics[0].intervall: unknown field, not acted on; correct its name or take it out",
		"Canary shop/web: spec.canaryAnalysis.treshold: unknown field, not acted on; correct its name or take it out",
		"Canary shop/api: spec.metricsServer: not acted on: metrics come from the source that the spoke is configured with",
		"Canary shop/api: spec.analysis.match[0].headers.user-agent.regex: is no RE2 expression, which is what routers evaluate (error parsing regexp: invalid or unsupported Perl syntax: `(?!`); this alternative is left out; write it without what RE2 has not",
		"Canary shop/api: spec.analysis.alerts: not acted on: notifier plugins tell of a delivery",
		"Canary shop/api: spec.Analysis: unknown field, not acted on; correct its name or take it out",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if m := release.Services[1].Metrics[0]; *m.Min != 99 || m.Max != nil {
		t.Errorf("the old threshold of a success rate is its least, not %+v", m)
	}
}

// Who asks for no analysis goes straight to promotion, whatever else is written.
func TestSkipAnalysis(t *testing.T) {
	for _, spec := range []string{"  skipAnalysis: true", "  skipAnalysis: true\n  analysis: {interval: 10s, threshold: 2, iterations: 3}"} {
		release, err := read(t, strategy.Options{}, workload("web"), canary("v1beta1", "web", spec))
		if err != nil || courses(release.Services) != "web BlueGreen" || !release.Services[0].SkipAnalysis {
			t.Errorf("got %v, %v", release, err)
		}
	}
}

// What goes by the label in which a candidate differs is looked at too.
func TestBystanders(t *testing.T) {
	fine := "  analysis: {interval: 10s, threshold: 2, iterations: 3}"
	release, err := read(t, strategy.Options{}, workload("web"), canary("v1beta1", "web", fine), `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: database, namespace: shop}
spec: {podSelector: {matchLabels: {app: database}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: all, namespace: shop}
spec: {selector: {team: red}, ports: [{port: 80}]}
`)
	want := "[NetworkPolicy shop/database: spec: goes by app=web, and the candidate's pods have app=web-canary; admit those too where the candidate needs it " +
		"Service shop/all: spec.selector: selects the candidate's pods too, before they are tested; add the label that tells the workload apart, such as app]"
	if err != nil || fmt.Sprint(release.Warnings) != want {
		t.Errorf("got %v, %v, want %s", release.Warnings, err, want)
	}
	_, err = read(t, strategy.Options{}, workload("web"), canary("v1beta1", "web", fine), `
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {team: red}, ports: [{port: 9898}]}
`)
	if err == nil || !strings.HasPrefix(err.Error(), "Service shop/web: spec.selector: selects the candidate's pods too") {
		t.Errorf("got %v", err)
	}
}

// The database steps first, then what uses it; who nobody waits for stands by name.
func TestOrder(t *testing.T) {
	fine := "  analysis: {interval: 10s, threshold: 2, iterations: 3}"
	var docs []string
	for _, name := range []string{"frontend", "backend", "cache", "database"} {
		docs = append(docs, workload(name), canary("v1beta1", name, fine))
	}
	release, err := read(t, strategy.Options{After: map[string][]string{"backend": {"database", "cache"}, "frontend": {"backend"}}}, docs...)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range release.Services {
		got = append(got, s.Name+fmt.Sprint(s.After))
	}
	if want := "cache[] database[] backend[cache database] frontend[backend]"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}
