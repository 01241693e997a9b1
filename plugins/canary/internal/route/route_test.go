package route_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/route"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
)

var update = flag.Bool("update", false, "write the golden files anew")

func objects(t testing.TB, text string) []route.Object {
	t.Helper()
	var out []route.Object
	for _, doc := range strings.Split(text, "\n---\n") {
		var o route.Object
		if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		out = append(out, o)
	}
	return out
}

func file(t testing.TB, name string) []route.Object {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return objects(t, string(text))
}

func stream(t testing.TB, objects []route.Object) string {
	t.Helper()
	var docs []string
	for _, o := range objects {
		text, err := yaml.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, string(text))
	}
	return strings.Join(docs, "---\n")
}

func router(t testing.TB, name string, options ...route.Option) route.Router {
	t.Helper()
	r, err := route.For(name, options...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// apply is what a cluster makes of an answer.
func apply(existing []route.Object, r route.Result) []route.Object {
	same := func(a, b route.Object) bool {
		return a["kind"] == b["kind"] && document.Group(a) == document.Group(b) && document.Text(a, "metadata", "name") == document.Text(b, "metadata", "name")
	}
	var out []route.Object
	for _, o := range existing {
		keep := true
		for _, d := range r.Delete {
			keep = keep && !same(o, d)
		}
		for _, a := range r.Apply {
			if same(o, a) {
				o = a
			}
		}
		if keep {
			out = append(out, document.Clone(o))
		}
	}
	for _, a := range r.Apply {
		known := false
		for _, o := range existing {
			known = known || same(o, a)
		}
		if !known {
			out = append(out, document.Clone(a))
		}
	}
	return out
}

func lead(t testing.TB, r route.Router, s route.Service, traffic route.Traffic, existing []route.Object) []route.Object {
	t.Helper()
	before := stream(t, existing)
	result, err := r.Lead(s, traffic, existing)
	if err != nil {
		t.Fatal(err)
	}
	if stream(t, existing) != before {
		t.Fatal("an argument was changed")
	}
	return apply(existing, result)
}

var (
	web    = route.Service{Name: "web", Namespace: "shop", Candidate: "web-canary", Port: 80, Target: "web", Label: "app"}
	sticky = route.Affinity{Cookie: "shop", Value: "r2-0-0", MaxAge: time.Hour}
)

func fits(headers ...strategy.Header) strategy.Match { return strategy.Match{Headers: headers} }

func exact(name, value string) strategy.Header {
	return strategy.Header{Name: name, Op: strategy.Exact, Value: value}
}

var ab = []strategy.Match{fits(exact("x-group", "beta"), strategy.Header{Name: "x-region", Op: strategy.Prefix, Value: "eu."}),
	fits(strategy.Header{Name: "cookie", Op: strategy.Regex, Value: "^(.*?;)?(type=insider)(;.*)?$"})}

// What each router makes of each kind of traffic, to be looked at; and for each of them: told twice it
// changes nothing, and all stable gives back what was there.
func TestGolden(t *testing.T) {
	for _, test := range []struct {
		router, name string
		service      route.Service
		traffic      route.Traffic
	}{
		{strategy.RouterGatewayAPI, "weight", web, route.Traffic{Weight: 10}},
		{strategy.RouterGatewayAPI, "match", web, route.Traffic{Weight: 100, Matches: ab}},
		{strategy.RouterGatewayAPI, "mirror", web, route.Traffic{Mirror: 25}},
		{strategy.RouterGatewayAPI, "affinity", web, route.Traffic{Weight: 20, Affinity: sticky}},
		{strategy.RouterGatewayAPI, "candidate", web, route.Traffic{Weight: 100}},
		{strategy.RouterGatewayAPI, "made", route.Service{Name: "api", Namespace: "shop", Candidate: "api-canary", Port: 80, Route: route.Object{
			"gatewayRefs": []any{route.Object{"name": "public", "namespace": "edge"}}, "hosts": []any{"api.example.com"}, "timeout": "5s",
			"match": []any{route.Object{"uri": route.Object{"prefix": "/api"}, "headers": route.Object{"x-a": route.Object{"suffix": ".b"}}}}}}, route.Traffic{Weight: 30}},
		{strategy.RouterLinkerd, "weight", web, route.Traffic{Weight: 10}},
		{strategy.RouterLinkerd, "match", web, route.Traffic{Weight: 100, Matches: ab}},
		{strategy.RouterLinkerd, "made", route.Service{Name: "api", Namespace: "shop", Candidate: "api-canary", Port: 80}, route.Traffic{Weight: 30}},
		{strategy.RouterIstio, "weight", web, route.Traffic{Weight: 10}},
		{strategy.RouterIstio, "match", web, route.Traffic{Weight: 100, Matches: ab}},
		{strategy.RouterIstio, "mirror", web, route.Traffic{Mirror: 25}},
		{strategy.RouterIstio, "affinity", web, route.Traffic{Weight: 20, Affinity: sticky}},
		{strategy.RouterIstio, "candidate", web, route.Traffic{Weight: 100}},
		{strategy.RouterIstio, "made", route.Service{Name: "api", Namespace: "shop", Candidate: "api-canary", Port: 80, Route: route.Object{
			"gateways": []any{"edge/public"}, "hosts": []any{"api.example.com"}, "retries": route.Object{"attempts": 3}}}, route.Traffic{Weight: 30}},
		{strategy.RouterNGINX, "weight", web, route.Traffic{Weight: 10, Affinity: sticky}},
		{strategy.RouterNGINX, "match", web, route.Traffic{Weight: 100, Matches: []strategy.Match{fits(exact("x-group", "beta")), fits(exact("cookie", "insider"))}}},
		{strategy.RouterNone, "share", web, route.Traffic{Weight: 20}},
		{strategy.RouterNone, "candidate", web, route.Traffic{Weight: 100}},
	} {
		short, _, _ := strings.Cut(test.router, "api:")
		t.Run(short+"/"+test.name, func(t *testing.T) {
			existing := file(t, short+".yaml")
			r := router(t, test.router)
			result, err := r.Lead(test.service, test.traffic, existing)
			if err != nil {
				t.Fatal(err)
			}
			text := stream(t, result.Apply)
			for _, w := range result.Warnings {
				text += "# " + w + "\n"
			}
			golden(t, short+"-"+test.name+".golden.yaml", text)
			after := lead(t, r, test.service, test.traffic, existing)
			if again, err := r.Lead(test.service, test.traffic, after); err != nil || len(again.Apply)+len(again.Delete) > 0 {
				t.Errorf("told twice: %v, %s", err, stream(t, append(again.Apply, again.Delete...)))
			}
			back := lead(t, r, test.service, route.Traffic{}, after)
			if test.router == strategy.RouterNone {
				document.Mapping(back[2], "spec")["replicas"] = 1 // the candidate's own
			}
			if !document.Equal(toList(back), toList(existing)) {
				t.Errorf("all stable is not what was found:\n%s", stream(t, back))
			}
		})
	}
}

func toList(objects []route.Object) []any {
	var out []any
	for _, o := range objects {
		out = append(out, o)
	}
	return out
}

func golden(t testing.TB, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; look at it, then go test -update\n%s", path, got)
	}
}

// What cannot be done is said, and nothing is changed.
func TestProblems(t *testing.T) {
	for _, test := range []struct {
		name, router, objects string
		options               []route.Option
		traffic               route.Traffic
		want                  string
	}{
		{"no headers without a router", strategy.RouterNone, "none.yaml", nil, route.Traffic{Weight: 100, Matches: ab},
			"Service shop/web: router none sees no headers; use blue/green, or a router that does"},
		{"no copies in Linkerd", strategy.RouterLinkerd, "linkerd.yaml", nil, route.Traffic{Mirror: 10},
			"Service shop/web: router linkerd cannot copy requests; mirror nothing, or use istio or gatewayapi:v1"},
		{"no cookie in Linkerd", strategy.RouterLinkerd, "linkerd.yaml", nil, route.Traffic{Weight: 10, Affinity: sticky},
			"Service shop/web: router linkerd cannot set a cookie for the candidate alone; hold nobody, or use istio, nginx or gatewayapi:v1"},
		{"a Gateway API that copies all or nothing", strategy.RouterGatewayAPI, "gateway.yaml", []route.Option{route.WithoutMirrorPercent()}, route.Traffic{Mirror: 10},
			"HTTPRoute shop/shop: spec.rules[1]: this Gateway API's requestMirror filter has no percent (1.3 and later have it); mirror 100 % or nothing"},
		{"a header that the route goes by", strategy.RouterGatewayAPI, "gateway.yaml", nil, route.Traffic{Weight: 100, Matches: []strategy.Match{fits(exact("X-Tenant", "blue"))}},
			"HTTPRoute shop/shop: spec.rules[1]: goes by the header X-Tenant already, and a match knows each header once; take that condition out of the route or of the Canary"},
		{"the same in Istio", strategy.RouterIstio, "istio.yaml", nil, route.Traffic{Weight: 100, Matches: []strategy.Match{fits(exact("x-tenant", "blue"))}},
			"VirtualService shop/shop: spec.http[1]: goes by the header x-tenant already, and a match knows each header once; take that condition out of the route or of the Canary"},
		{"two headers together in NGINX", strategy.RouterNGINX, "nginx.yaml", nil, route.Traffic{Weight: 100, Matches: ab},
			"Ingress shop/shop: ingress-nginx goes by one header at a time, and the Canary asks for 2 together; write one for each match"},
		{"an expression that NGINX passes over", strategy.RouterNGINX, "nginx.yaml", nil, route.Traffic{Weight: 100, Matches: ab[1:]},
			`Ingress shop/shop: ingress-nginx refuses the expression ^(.*?;)?(type=insider)(;.*)?$ for the header cookie; write it with letters, digits and -._~/:^$[](){}*+?|&=\ only`},
		{"some of those who fit in NGINX", strategy.RouterNGINX, "nginx.yaml", nil, route.Traffic{Weight: 50, Matches: []strategy.Match{fits(exact("a", "b"))}},
			"Ingress shop/shop: ingress-nginx leads all requests that fit or none, not 50 % of them"},
		{"no Ingress", strategy.RouterNGINX, "none.yaml", nil, route.Traffic{Weight: 50},
			"Service shop/web: no Ingress leads to it; write one in the release, or another provider in its Canary"},
		{"no route and no gateway", strategy.RouterGatewayAPI, "none.yaml", nil, route.Traffic{Weight: 50},
			"Service shop/web: no HTTPRoute leads to it, and its Canary names no gateway; write an HTTPRoute in the release, or spec.service.gatewayRefs in the Canary"},
		{"more than everything", strategy.RouterIstio, "istio.yaml", nil, route.Traffic{Weight: 101}, "Service shop/web: weight 101 and mirror 0: want percentages from 0 to 100"},
	} {
		t.Run(test.name, func(t *testing.T) {
			result, err := router(t, test.router, test.options...).Lead(web, test.traffic, file(t, test.objects))
			if err == nil || err.Error() != test.want || len(result.Apply) > 0 {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
	if _, err := route.For("contour"); err == nil || !strings.Contains(err.Error(), `router "contour" is not known`) {
		t.Errorf("got %v", err)
	}
}

func TestLinkerdServiceProfile(t *testing.T) {
	existing := append(file(t, "linkerd.yaml"), objects(t, "{apiVersion: linkerd.io/v1alpha2, kind: ServiceProfile, metadata: {name: web.shop.svc.cluster.local, namespace: shop}}")...)
	_, err := router(t, strategy.RouterLinkerd).Lead(web, route.Traffic{Weight: 10}, existing)
	if err == nil || !strings.Contains(err.Error(), "proxies go by it in place of any HTTPRoute") {
		t.Errorf("got %v", err)
	}
}

// In a Gateway's order, more headers win: a test must not take in what another rule has.
func TestAnotherRuleIsNotOvertaken(t *testing.T) {
	text := `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop, namespace: shop}
spec:
  rules:
  - matches: [{path: {type: PathPrefix, value: /}, headers: [{name: x-tenant, value: red}]}]
    backendRefs: [{name: red, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /api}}]
    backendRefs: [{name: api, port: 80}]
  - backendRefs: [{name: web, port: 80}]
`
	r := router(t, strategy.RouterGatewayAPI)
	for _, traffic := range []route.Traffic{{Weight: 100, Matches: ab}, {Weight: 10, Affinity: sticky}} {
		_, err := r.Lead(web, traffic, objects(t, text))
		want := "HTTPRoute shop/shop: spec.rules[0]: leads elsewhere by headers or query on the path of rules[2], and a test by headers of web would win over it; move it to a route of its own"
		if traffic.Weight == 10 {
			// One header each, and the first rule stands first.
			want = ""
		}
		if got := fmt.Sprint(err); got != want && (want != "" || err != nil) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if _, err := r.Lead(web, route.Traffic{Weight: 10}, objects(t, text)); err != nil {
		t.Error(err)
	}
}

// Two services in one rule come and go without knowing of each other, and in any order.
func TestTwoServicesInOneRoute(t *testing.T) {
	legacy := route.Service{Name: "legacy", Namespace: "shop", Candidate: "legacy-canary", Port: 80}
	for _, test := range []struct{ router, objects string }{{strategy.RouterGatewayAPI, "gateway.yaml"}, {strategy.RouterIstio, "istio.yaml"}} {
		r, existing := router(t, test.router), file(t, test.objects)
		a := lead(t, r, legacy, route.Traffic{Weight: 50}, lead(t, r, web, route.Traffic{Weight: 10, Matches: ab}, existing))
		b := lead(t, r, web, route.Traffic{Weight: 10, Matches: ab}, lead(t, r, legacy, route.Traffic{Weight: 50}, existing))
		if stream(t, a[:1]) != stream(t, b[:1]) {
			t.Errorf("%s: the order matters:\n%s\n%s", test.router, stream(t, a), stream(t, b))
		}
		only := lead(t, r, legacy, route.Traffic{Weight: 50}, existing)
		if got := lead(t, r, web, route.Traffic{}, a); stream(t, got[:1]) != stream(t, only[:1]) {
			t.Errorf("%s: one's return took the other along:\n%s", test.router, stream(t, got))
		}
		if got := lead(t, r, legacy, route.Traffic{}, lead(t, r, web, route.Traffic{}, a)); !document.Equal(toList(got), toList(existing)) {
			t.Errorf("%s: not what was found:\n%s", test.router, stream(t, got))
		}
	}
}

// Somebody edits a patched route: what they changed stays, and the candidate goes all the same.
func TestEditedMeanwhile(t *testing.T) {
	r, existing := router(t, strategy.RouterGatewayAPI), file(t, "gateway.yaml")
	led := lead(t, r, web, route.Traffic{Weight: 10}, existing)
	rules := document.At(led[0], "spec", "rules").([]any)
	rules[1].(route.Object)["timeouts"] = route.Object{"request": "30s"}
	rules = append(rules[:0:0], rules[1], rules[2], rules[3], route.Object{"backendRefs": []any{route.Object{"group": "", "kind": "Service", "name": "new", "port": 80, "weight": 1}}})
	document.Mapping(led[0], "spec")["rules"] = rules

	still := lead(t, r, web, route.Traffic{Weight: 20}, led)
	if got := fmt.Sprint(document.At(still[0], "spec", "rules").([]any)[0]); !strings.Contains(got, "30s") || !strings.Contains(got, "web-canary") {
		t.Errorf("the next step lost the edit or the candidate: %s", got)
	}
	back := lead(t, r, web, route.Traffic{}, still)
	want := file(t, "gateway.yaml")
	list := document.At(want[0], "spec", "rules").([]any)
	list[1].(route.Object)["timeouts"] = route.Object{"request": "30s"}
	document.Mapping(want[0], "spec")["rules"] = append(list[:0:0], list[1], list[2], list[3], rules[3])
	if !document.Equal(back[0], want[0]) {
		t.Errorf("got\n%s", stream(t, back[:1]))
	}
}

// A release is applied over a patched route: it holds, and the next step is made of it.
func TestAppliedOver(t *testing.T) {
	for _, test := range []struct{ router, objects string }{{strategy.RouterGatewayAPI, "gateway.yaml"}, {strategy.RouterIstio, "istio.yaml"}, {strategy.RouterNone, "none.yaml"}} {
		r, existing := router(t, test.router), file(t, test.objects)
		led := lead(t, r, web, route.Traffic{Weight: 100}, existing)
		over := document.Clone(led[0])
		over["spec"] = document.Clone(existing[0]["spec"])
		back := lead(t, r, web, route.Traffic{}, append([]route.Object{over}, led[1:]...))
		if !document.Equal(back[0], existing[0]) {
			t.Errorf("%s: got\n%s", test.router, stream(t, back[:1]))
		}
	}
}

// A cluster fills in what a route leaves out; that is no edit.
func TestDefaultsAreNoEdit(t *testing.T) {
	r := router(t, strategy.RouterLinkerd)
	existing := file(t, "linkerd.yaml")
	led := lead(t, r, web, route.Traffic{Weight: 100, Matches: ab}, existing)
	for _, rule := range document.Mappings(document.At(led[0], "spec", "rules")) {
		for _, ref := range document.Mappings(rule["backendRefs"]) {
			ref["group"], ref["kind"] = "", "Service"
		}
	}
	if back := lead(t, r, web, route.Traffic{}, led); !document.Equal(back[0], existing[0]) {
		t.Errorf("got\n%s", stream(t, back[:1]))
	}
}

// An annotation that cannot be read stops everything: what the route was is not guessed.
func TestUnreadableLedger(t *testing.T) {
	existing := file(t, "gateway.yaml")
	document.Mapping(existing[0], "metadata", "annotations")[route.Annotation] = "{"
	_, err := router(t, strategy.RouterGatewayAPI).Lead(web, route.Traffic{}, existing)
	if err == nil || !strings.Contains(err.Error(), "HTTPRoute shop/shop: metadata.annotations.wheelwright.dev/led: cannot be read") {
		t.Errorf("got %v", err)
	}
}

// All requests go to the candidate when it can carry them, not before.
func TestTakeOver(t *testing.T) {
	r, existing := router(t, strategy.RouterNone), file(t, "none.yaml")
	existing[2]["status"] = route.Object{"readyReplicas": 1}
	for _, step := range []struct {
		ready int
		want  string
	}{{1, "1 of 4 pods of Deployment shop/web-canary are ready"}, {3, "3 of 4 pods of Deployment shop/web-canary are ready"}, {4, ""}} {
		existing[2]["status"] = route.Object{"readyReplicas": step.ready}
		result, err := r.Lead(web, route.Traffic{Weight: 100}, existing)
		if err != nil || result.Waits != step.want {
			t.Fatalf("with %d ready: got %q, %v, want %q", step.ready, result.Waits, err, step.want)
		}
		existing = apply(existing, result)
		if to := document.Text(existing[0], "spec", "selector", strategy.LabelCandidateOf); (to == "web") != (step.want == "") {
			t.Errorf("with %d ready the Service selects %v", step.ready, document.At(existing[0], "spec", "selector"))
		}
	}
	scaler := objects(t, "{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: web, namespace: shop}, spec: {scaleTargetRef: {name: web-canary}}}")
	result, err := r.Lead(web, route.Traffic{Weight: 100}, append(file(t, "none.yaml"), scaler...))
	if err != nil || len(result.Apply) != 1 {
		t.Errorf("the number of pods is the autoscaler's: %v, %s", err, stream(t, result.Apply))
	}
}

func TestRatio(t *testing.T) {
	for _, test := range []struct{ stable, weight, pods, percent int }{
		{4, 0, 0, 0}, {4, 20, 1, 20}, {4, 50, 4, 50}, {2, 10, 1, 33}, {9, 10, 1, 10}, {3, 80, 3, 50}, {1, 99, 1, 50}, {0, 50, 1, 50},
	} {
		if pods, percent := route.Ratio(test.stable, test.weight); pods != test.pods || int(percent+0.5) != test.percent {
			t.Errorf("%d stable, %d %%: got %d pods, %.1f %%; want %d, %d", test.stable, test.weight, pods, percent, test.pods, test.percent)
		}
	}
}
