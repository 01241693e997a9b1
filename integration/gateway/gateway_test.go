package gateway

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// routesOf reads HTTPRoutes, one a document.
func routesOf(t *testing.T, text string) map[string]*unstructured.Unstructured {
	t.Helper()
	all := map[string]*unstructured.Unstructured{}
	for doc := range strings.SplitSeq(text, "---\n") {
		var object map[string]any
		if err := yaml.Unmarshal([]byte(doc), &object); err != nil {
			t.Fatal(err)
		}
		u := &unstructured.Unstructured{Object: object}
		all[u.GetNamespace()+"/"+u.GetName()] = u
	}
	return all
}

// serve starts a gateway on the routes, in front of real servers that stand for the Services a and b of namespace n
// and say their name and what they were sent.
func serve(t *testing.T, routes string) (g *Gateway, get func(path string, header ...string) (int, string, http.Header)) {
	t.Helper()
	g = newGateway()
	for _, name := range []string{"a", "b"} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s %s %s %s %s", name, r.Host, r.URL.RequestURI(), r.Header.Get("X-Added"), body)
		}))
		t.Cleanup(server.Close)
		routes = strings.ReplaceAll(routes, "name: "+name+",", "name: "+name+", port: "+server.URL[strings.LastIndex(server.URL, ":")+1:]+",")
		g.services["shop/"+name] = "127.0.0.1"
	}
	g.rules, _ = compile(routesOf(t, routes))
	front := httptest.NewServer(g)
	t.Cleanup(front.Close)
	return g, func(path string, header ...string) (int, string, http.Header) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, front.URL+path, strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i+1 < len(header); i += 2 {
			request.Header.Set(header[i], header[i+1])
		}
		if host := request.Header.Get("Host"); host != "" {
			request.Host = host
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(body), response.Header
	}
}

func TestMatches(t *testing.T) {
	_, get := serve(t, `
metadata: {namespace: shop, name: plain, creationTimestamp: "2026-01-02T00:00:00Z"}
spec:
  hostnames: [web.example, "*.wild.example"]
  rules:
  - backendRefs: [{name: a, weight: 1}]
  - matches:
    - {headers: [{name: X-Canary, value: always}]}
    - {headers: [{type: RegularExpression, name: Cookie, value: '.*canary=yes.*'}]}
    backendRefs: [{name: b, weight: 1}]
  - matches: [{path: {type: PathPrefix, value: /api}}]
    backendRefs: [{name: b, weight: 1}]
  - matches: [{path: {type: Exact, value: /api/old}}]
    backendRefs: [{name: a, weight: 1}]
  - matches: [{queryParams: [{name: v, value: "2"}], method: POST}]
    backendRefs: [{name: b, weight: 1}]
---
metadata: {namespace: shop, name: broken, creationTimestamp: "2026-01-01T00:00:00Z"}
spec:
  hostnames: [broken.example]
  rules: [{filters: [{type: RequestRedirect}], backendRefs: [{name: a, weight: 1}]}]
`)
	for _, c := range []struct {
		path, host, want string
		header           []string
	}{
		{"/", "web.example", "a", nil},
		{"/", "x.wild.example", "a", nil},
		{"/", "web.example", "b", []string{"x-canary", "always"}},
		{"/", "web.example", "a", []string{"X-Canary", "never"}},
		{"/", "web.example", "b", []string{"Cookie", "one=1; canary=yes"}},
		{"/api", "web.example", "b", nil},
		{"/api/new?x=1", "web.example:80", "b", nil},
		{"/apis", "web.example", "a", nil},
		{"/api/old", "web.example", "a", nil},
		{"/?v=2", "web.example", "b", nil},
		{"/", "other.example", "no HTTPRoute", nil},
		{"/", "wild.example", "no HTTPRoute", nil},
		{"/", "broken.example", "filter RequestRedirect is not known", nil},
	} {
		code, body, _ := get(c.path, append([]string{"Host", c.host}, c.header...)...)
		if !strings.HasPrefix(body, c.want) || (code == http.StatusOK) != (len(c.want) == 1) {
			t.Errorf("%s of %s with %v: %d %q, want %q", c.path, c.host, c.header, code, body, c.want)
		}
		if len(c.want) == 1 && !strings.Contains(body, c.host+" "+c.path) {
			t.Errorf("%s of %s arrived as %q", c.path, c.host, body)
		}
	}
}

func TestFiltersAndMirrors(t *testing.T) {
	g, get := serve(t, `
metadata: {namespace: shop, name: r}
spec:
  rules:
  - filters:
    - {type: RequestMirror, requestMirror: {backendRef: {name: b, kind: Service}}}
    - {type: RequestMirror, requestMirror: {backendRef: {name: b, kind: Service}, percent: 0}}
    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Added, value: "yes"}]}}
    backendRefs:
    - name: a
      weight: 1
      filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: Set-Cookie, value: canary=yes}]}}]
`)
	g.rules[0].backends[0].port = g.rules[0].mirrors[0].backend.port // the list form has no place for the test's port
	for range 20 {
		code, body, header := get("/x")
		if code != http.StatusOK || !strings.Contains(body, "yes body") || header.Get("Set-Cookie") != "canary=yes" {
			t.Fatalf("%d %q %v", code, body, header)
		}
	}
	if g.Mirrored()["shop/b"] != 20 || g.Served()["shop/a"] != 20 {
		t.Errorf("served %v, mirrored %v, want 20 each", g.Served(), g.Mirrored())
	}
	g.wait.Wait()
}

func TestDraw(t *testing.T) {
	backends := []backend{{service: "a", weight: 90}, {service: "none"}, {service: "b", weight: 10}}
	got := map[string]int{}
	for i := range 100 {
		b, ok := draw(backends, func(n int) int {
			if n != 100 {
				t.Fatalf("drawn of %d", n)
			}
			return i
		})
		if !ok {
			t.Fatal("nothing drawn")
		}
		got[b.service]++
	}
	if got["a"] != 90 || got["b"] != 10 {
		t.Error(got)
	}
	if _, ok := draw([]backend{{service: "a"}}, func(int) int { return 0 }); ok {
		t.Error("a backend without weight was drawn")
	}
}

func TestReportedOncePerGeneration(t *testing.T) {
	route := routesOf(t, `
metadata: {namespace: shop, name: r}
spec: {parentRefs: [{name: gw}]}
`)["shop/r"]
	route.SetGeneration(2)
	if reported(route) {
		t.Error("a route without status is reported")
	}
	set := func(generation int64) {
		route.Object["status"] = map[string]any{"parents": []any{map[string]any{"conditions": []any{map[string]any{"type": "Accepted", "observedGeneration": generation}}}}}
	}
	if set(1); reported(route) {
		t.Error("a report of an older generation is enough")
	}
	if set(2); !reported(route) {
		t.Error("a report of this generation is not enough")
	}
	if _, states := compile(map[string]*unstructured.Unstructured{"shop/r": route}); len(states["shop/r"].parents) != 1 {
		t.Errorf("%+v", states)
	}
}
