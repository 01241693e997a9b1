package route_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/route"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
)

// dice makes routes and traffic.
type dice struct{ *rand.Rand }

func (d dice) maybe() bool { return d.IntN(2) == 0 }

var names = []string{"web", "legacy", "docs"}

func (d dice) traffic(affinity bool) route.Traffic {
	t := route.Traffic{Weight: d.IntN(101)}
	switch d.IntN(4) {
	case 0:
		t.Matches = ab
	case 1:
		t = route.Traffic{Mirror: 1 + d.IntN(100)}
	case 2:
		t = route.Traffic{}
	}
	if affinity && d.maybe() {
		t.Affinity = sticky
	}
	return t
}

func (d dice) httpRoute() route.Object {
	var rules []any
	for i := range 1 + d.IntN(5) {
		rule := route.Object{"matches": []any{route.Object{"path": route.Object{"type": "PathPrefix", "value": fmt.Sprint("/", i)}}}}
		if d.maybe() {
			rule["name"] = fmt.Sprint("rule", i)
		}
		if d.maybe() {
			rule["timeouts"] = route.Object{"request": "10s"}
		}
		if d.maybe() {
			rule["filters"] = []any{route.Object{"type": "RequestHeaderModifier", "requestHeaderModifier": route.Object{"remove": []any{"x-a"}}}}
		}
		var refs []any
		for _, j := range d.Perm(len(names))[:1+d.IntN(len(names))] {
			ref := route.Object{"group": "", "kind": "Service", "name": names[j], "port": 80, "weight": 1}
			if d.maybe() {
				ref["weight"] = d.IntN(50)
			}
			refs = append(refs, ref)
		}
		rule["backendRefs"] = refs
		rules = append(rules, rule)
	}
	o := route.Object{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": route.Object{"name": "r", "namespace": "shop"},
		"spec": route.Object{"parentRefs": []any{route.Object{"name": "public"}}, "rules": rules}}
	if d.maybe() {
		o["metadata"].(route.Object)["annotations"] = route.Object{"a": "b"}
	}
	return o
}

func (d dice) virtualService() route.Object {
	var rules []any
	for i := range 1 + d.IntN(5) {
		rule := route.Object{}
		if d.maybe() {
			rule["match"] = []any{route.Object{"uri": route.Object{"prefix": fmt.Sprint("/", i)}}, route.Object{"method": route.Object{"exact": "PUT"}}}
		}
		if d.maybe() {
			rule["timeout"] = "5s"
		}
		switch d.IntN(4) {
		case 0:
			rule["mirror"], rule["mirrorPercentage"] = route.Object{"host": "audit"}, route.Object{"value": 12.5}
		case 1:
			rule["mirrors"] = []any{route.Object{"destination": route.Object{"host": "audit"}}}
		}
		if d.IntN(6) == 0 {
			rule["redirect"] = route.Object{"uri": "/"}
			rules = append(rules, rule)
			continue
		}
		var routes []any
		picked := d.Perm(len(names))[:1+d.IntN(len(names))]
		for _, j := range picked {
			host := names[j]
			if d.maybe() {
				host += ".shop.svc.cluster.local"
			}
			r := route.Object{"destination": route.Object{"host": host, "subset": "v1"}}
			if len(picked) > 1 || d.maybe() {
				r["weight"] = d.IntN(101)
			}
			routes = append(routes, r)
		}
		rule["route"] = routes
		rules = append(rules, rule)
	}
	return route.Object{"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": route.Object{"name": "r", "namespace": "shop"},
		"spec": route.Object{"hosts": []any{"shop.example.com"}, "http": rules}}
}

// leads tells by itself whether a rule has to do with a service or its candidate.
func leads(rule route.Object, service string) bool {
	for _, list := range []string{"backendRefs", "route"} {
		for _, ref := range document.Mappings(rule[list]) {
			for _, name := range []string{service, service + strategy.Suffix} {
				host := document.Text(ref, "destination", "host")
				if document.Text(ref, "name") == name || host == name || host == name+".shop.svc.cluster.local" {
					return true
				}
			}
		}
	}
	return false
}

// Whatever the route, and whatever the traffic was: other rules stay, weights are right, told twice is
// told once, only the last word counts, and the end is what was found.
func TestAnyRoute(t *testing.T) {
	const rounds = 500
	refused := 0
	for seed := range uint64(rounds) {
		d := dice{rand.New(rand.NewPCG(seed, 7))}
		r, original, list := router(t, strategy.RouterGatewayAPI), d.httpRoute(), "rules"
		if d.maybe() {
			r, original, list = router(t, strategy.RouterIstio), d.virtualService(), "http"
		}
		services := []route.Service{web, {Name: "legacy", Namespace: "shop", Candidate: "legacy-canary", Port: 80}}
		existing := []route.Object{original}
		last := map[string]route.Traffic{}
		for range 1 + d.IntN(6) {
			s, traffic := services[d.IntN(2)], d.traffic(true)
			result, err := r.Lead(s, traffic, existing)
			if err != nil || len(result.Apply) > 0 && document.Text(result.Apply[0], "metadata", "name") != "r" {
				refused++ // nothing there leads to it, or too much would be asked of one rule
				continue
			}
			existing = apply(existing, result)
			last[s.Name] = traffic
			if again, err := r.Lead(s, traffic, existing); err != nil || len(again.Apply)+len(again.Delete) > 0 {
				t.Fatalf("seed %d: told twice: %v %s", seed, err, stream(t, again.Apply))
			}
		}
		checkRules(t, seed, original, existing[0], list, last)
		straight := []route.Object{original}
		for _, s := range services {
			if traffic, ok := last[s.Name]; ok {
				straight = lead(t, r, s, traffic, straight)
			}
		}
		if !document.Equal(straight[0], existing[0]) {
			t.Fatalf("seed %d: the way there matters:\n%s\n%s", seed, stream(t, straight), stream(t, existing))
		}
		for _, i := range d.Perm(2) {
			existing = lead(t, r, services[i], route.Traffic{}, existing)
		}
		if !document.Equal(toList(existing), []any{original}) {
			t.Fatalf("seed %d: not what was found:\n%s\nfrom\n%s", seed, stream(t, existing), stream(t, []route.Object{original}))
		}
	}
	if refused > rounds {
		t.Errorf("%d of the steps were refused: the dice are loaded", refused)
	}
}

// checkRules holds what must be true of a patched route beside its original.
func checkRules(t *testing.T, seed uint64, original, patched route.Object, list string, last map[string]route.Traffic) {
	t.Helper()
	var before, after []any
	for _, rule := range document.Mappings(document.At(original, "spec", list)) {
		if !leads(rule, "web") && !leads(rule, "legacy") {
			before = append(before, rule)
		}
	}
	for _, rule := range document.Mappings(document.At(patched, "spec", list)) {
		if !leads(rule, "web") && !leads(rule, "legacy") {
			after = append(after, rule)
		}
		refs := document.Mappings(rule["backendRefs"])
		if list == "http" {
			refs = document.Mappings(rule["route"])
		}
		if len(refs) != 2 || !leads(route.Object{"backendRefs": rule["backendRefs"], "route": rule["route"]}, "web") {
			continue
		}
		a, _ := document.Number(refs[0]["weight"])
		b, _ := document.Number(refs[1]["weight"])
		pair := fmt.Sprint(document.Text(refs[1], "name"), document.Text(refs[1], "destination", "host"))
		if w := last["web"].Weight; w > 0 && len(pair) > 9 && pair[:10] == "web-canary" && (a+b != 100 || int(b) != w && int(b) != 100) {
			t.Fatalf("seed %d: %v and %v of 100, want %d:\n%s", seed, a, b, w, stream(t, []route.Object{rule}))
		}
	}
	if !document.Equal(before, after) {
		t.Fatalf("seed %d: rules that lead elsewhere were touched:\n%v\n%v", seed, before, after)
	}
}
