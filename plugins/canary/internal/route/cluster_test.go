package route_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/integration/controlplane"
	"github.com/wheelwright-dev/wheelwright/integration/harness"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/route"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
)

// stage is a real API server with the projects' own definitions of their routes.
type stage struct {
	t       *testing.T
	cluster *harness.Cluster
}

// newStage takes Linkerd's HTTPRoute from the file that WHEELWRIGHT_LINKERD_CRD names: it comes in a chart,
// not in a Go module. Without it, Linkerd's routes are read as the Gateway API's, of which they are a
// selection.
func newStage(t *testing.T) stage {
	if testing.Short() {
		t.Skip("starts an API server")
	}
	gateway, istio, err := controlplane.RouteCRDs(t.Context())
	if err != nil {
		t.Skipf("the definitions of routes cannot be had: %v", err)
	}
	h, err := harness.Start(t.Context(), harness.Options{Clusters: 1, Log: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Stop(); err != nil {
			t.Error(err)
		}
	})
	s := stage{t, h.Clusters()[0]}
	files := []string{gateway, istio}
	if linkerd := os.Getenv("WHEELWRIGHT_LINKERD_CRD"); linkerd != "" {
		files = append(files, linkerd)
	}
	for _, file := range files {
		s.kubectl("apply", "--server-side", "-f", file)
	}
	s.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
	s.kubectl("create", "namespace", "shop")
	return s
}

func (s stage) kubectl(args ...string) string {
	s.t.Helper()
	out, err := s.cluster.Kubectl(args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

func (s stage) send(verb string, o route.Object) {
	s.t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		s.t.Fatal(err)
	}
	file := filepath.Join(s.t.TempDir(), "object.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.kubectl(verb, "--validate=strict", "-f", file)
}

// live reads every object of the kinds, as a plugin would.
func (s stage) live(kinds string) []route.Object {
	s.t.Helper()
	var list struct{ Items []route.Object }
	if err := json.Unmarshal([]byte(s.kubectl("-n", "shop", "get", kinds, "-o", "json")), &list); err != nil {
		s.t.Fatal(err)
	}
	return list.Items
}

func (s stage) carryOut(r route.Result, existing []route.Object) {
	s.t.Helper()
	for _, o := range r.Apply {
		verb := "create"
		for _, e := range existing {
			if e["kind"] == o["kind"] && e["apiVersion"] == o["apiVersion"] && document.Text(e, "metadata", "name") == document.Text(o, "metadata", "name") {
				verb = "replace"
			}
		}
		s.send(verb, o)
	}
	for _, o := range r.Delete {
		kind := strings.ToLower(document.Text(o, "kind")) + "." + document.Group(o)
		s.kubectl("-n", "shop", "delete", strings.TrimSuffix(kind, "."), document.Text(o, "metadata", "name"))
	}
}

// bare is an object without what a server counts.
func bare(objects []route.Object) []any {
	var out []any
	for _, o := range objects {
		o = document.Clone(o)
		for _, key := range []string{"resourceVersion", "generation", "managedFields"} {
			delete(document.Mapping(o, "metadata"), key)
		}
		if document.Text(o, "metadata", "name") != "kubernetes" {
			out = append(out, o)
		}
	}
	return out
}

var linkerdsOwn = regexp.MustCompile(`policy\.linkerd\.io/v1beta3`)

// Every kind of traffic, one after the other, on objects that a real API server has read, checked and
// filled in by each project's own definitions: accepted whole, nothing to do when told twice, and the
// same objects at the end.
func TestOnARealAPIServer(t *testing.T) {
	s := newStage(t)
	held := route.Traffic{Weight: 20, Affinity: sticky}
	tested := route.Traffic{Weight: 100, Matches: ab}
	for _, test := range []struct {
		router, file, kinds string
		traffic             []route.Traffic
	}{
		{strategy.RouterGatewayAPI, "gateway.yaml", "httproutes.gateway.networking.k8s.io", []route.Traffic{{Mirror: 25}, {Weight: 10}, held, tested, {Weight: 100}}},
		{strategy.RouterLinkerd, "linkerd.yaml", "httproutes.gateway.networking.k8s.io", []route.Traffic{{Weight: 10}, tested, {Weight: 100}}},
		{strategy.RouterIstio, "istio.yaml", "virtualservices.networking.istio.io,destinationrules.networking.istio.io", []route.Traffic{{Mirror: 25}, {Weight: 10}, held, tested, {Weight: 100}}},
		{strategy.RouterNGINX, "nginx.yaml", "ingresses.networking.k8s.io", []route.Traffic{{Weight: 10, Affinity: sticky}, {Weight: 100}, {Weight: 100, Matches: []strategy.Match{fits(exact("x", "y"))}}}},
		{strategy.RouterNone, "none.yaml", "services,deployments.apps", []route.Traffic{{Weight: 20}, {Weight: 50}, {Weight: 100}}},
	} {
		t.Run(test.router, func(t *testing.T) {
			s := stage{t, s.cluster}
			text, err := os.ReadFile(filepath.Join("testdata", test.file))
			if err != nil {
				t.Fatal(err)
			}
			if os.Getenv("WHEELWRIGHT_LINKERD_CRD") == "" {
				text = linkerdsOwn.ReplaceAll(text, []byte("gateway.networking.k8s.io/v1"))
			} else if test.router == strategy.RouterLinkerd {
				test.kinds += ",httproutes.policy.linkerd.io"
			}
			for _, o := range objects(t, string(text)) {
				if test.router == strategy.RouterNone {
					delete(document.Mapping(o, "spec"), "clusterIP")
				}
				s.send("create", o)
			}
			t.Cleanup(func() { s.kubectl("-n", "shop", "delete", test.kinds, "--all") })
			s.walk(router(t, test.router), test.kinds, test.traffic)
		})
	}
}

// walk leads two services through the traffic: one that routes lead to, and one that has none.
func (s stage) walk(r route.Router, kinds string, traffic []route.Traffic) {
	services := []route.Service{web}
	if strings.Contains(kinds, "routes") || strings.Contains(kinds, "istio") {
		services = append(services, route.Service{Name: "api", Namespace: "shop", Candidate: "api-canary", Port: 80, Route: route.Object{
			"gatewayRefs": []any{route.Object{"name": "public"}}, "timeout": "5s", "retries": route.Object{"attempts": 3, "perTryTimeout": "1s"},
			"match": []any{route.Object{"uri": route.Object{"prefix": "/api"}, "method": route.Object{"exact": "GET"}}}}})
	}
	found := bare(s.live(kinds))
	for _, t := range append(traffic, route.Traffic{}) {
		for _, service := range services {
			existing := s.live(kinds)
			result, err := r.Lead(service, t, existing)
			if err != nil {
				s.t.Fatal(err)
			}
			s.carryOut(result, existing)
			if result.Waits != "" {
				s.kubectl("-n", "shop", "patch", "deployment", "web-canary", "--subresource=status", "--type=merge", "-p", `{"status":{"replicas":4,"readyReplicas":4}}`)
				existing = s.live(kinds)
				if result, err = r.Lead(service, t, existing); err != nil || result.Waits != "" {
					s.t.Fatal(err, result.Waits)
				}
				s.carryOut(result, existing)
			}
			again, err := r.Lead(service, t, s.live(kinds))
			if err != nil || len(again.Apply)+len(again.Delete) > 0 {
				s.t.Fatalf("told %+v twice: %v\n%s", t, err, stream(s.t, append(again.Apply, again.Delete...)))
			}
		}
	}
	back := s.live(kinds)
	for _, o := range back {
		if document.Text(o, "metadata", "name") == "web-canary" && o["kind"] == "Deployment" {
			document.Mapping(o, "spec")["replicas"] = 1 // the candidate's own
			o["status"] = route.Object{}
		}
	}
	if !document.Equal(bare(back), found) {
		s.t.Errorf("all stable is not what was found:\n%s", stream(s.t, back))
	}
}
