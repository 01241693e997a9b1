package realnode_test

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/integration/controlplane"
	"github.com/wheelwright-dev/wheelwright/integration/gateway"
	"github.com/wheelwright-dev/wheelwright/integration/load"
	"github.com/wheelwright-dev/wheelwright/integration/realnode"
)

// route is an HTTPRoute for web.example: weights to Services one and two, everything of the header's bearers to two,
// and a share of all mirrored to three.
func route(one, two, mirrored int) string {
	return fmt.Sprintf(`apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: stand-in}]
  hostnames: [web.example]
  rules:
  - matches: [{headers: [{name: X-Canary, value: always}]}]
    backendRefs: [{name: two, port: 9898}]
  - matches: [{path: {type: PathPrefix, value: /}}]
    filters: [{type: RequestMirror, requestMirror: {backendRef: {name: three, port: 9898}, percent: %[3]d}}]
    backendRefs: [{name: one, port: 9898, weight: %[1]d}, {name: two, port: 9898, weight: %[2]d}]
`, one, two, mirrored)
}

// routed starts a gateway in front of three podinfos and the route, once it is accepted.
func routed(t *testing.T, node *realnode.Node, namespace string) *gateway.Gateway {
	t.Helper()
	defined(t, node)
	names := []string{"one", "two", "three"}
	manifests := route(90, 10, 50)
	for _, name := range names {
		manifests += "---\n" + app(name, 1, "6.9.2")
	}
	deploy(t, node, namespace, manifests, names...)
	for _, name := range names {
		answering(t, "http://"+node.ServiceAddress(t, namespace, name)+":9898")
	}
	g := serving(t, node)
	accepted(t, node, namespace, 1)
	return g
}

// defined gives the cluster the Gateway API's own definition.
func defined(t *testing.T, node *realnode.Node) {
	t.Helper()
	crd, _, err := controlplane.RouteCRDs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := node.Cluster.Kubectl("apply", "--server-side", "-f", crd); err != nil {
		t.Fatal(err)
	}
	node.Cluster.Eventually(t, "HTTPRoutes to be served", func() error { // who waits for a status that is not there yet is told off
		_, err := node.Cluster.Kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd/httproutes.gateway.networking.k8s.io")
		return err
	})
}

// serving is a gateway for as long as the test runs.
func serving(t *testing.T, node *realnode.Node) *gateway.Gateway {
	t.Helper()
	g, err := gateway.Start(node.Cluster.RESTConfig(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Stop(); err != nil {
			t.Error(err)
		}
	})
	return g
}

// accepted waits until the gateway has taken a generation of the route.
func accepted(t *testing.T, node *realnode.Node, namespace string, generation int) {
	t.Helper()
	eventually(t, "the route to be accepted", 30*time.Second, func() error {
		out, err := node.Cluster.Kubectl("-n", namespace, "get", "httproute", "web", "-o", "jsonpath={.status.parents[0].conditions[0].status} {.status.parents[0].conditions[0].observedGeneration}")
		if err == nil && out != fmt.Sprintf("True %d", generation) {
			err = fmt.Errorf("accepted and observed generation are %q, want generation %d", out, generation)
		}
		return err
	})
}

// send sends requests for five seconds, none of which may fail, and returns how the gateway's counts by Service rose.
func send(t *testing.T, g *gateway.Gateway, rate int, header ...string) (sent int, served, mirrored map[string]int) {
	t.Helper()
	before, beside := g.Served(), g.Mirrored()
	h := http.Header{"Host": {"web.example"}}
	for i := 0; i+1 < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	run, err := load.Start(t.Context(), load.Config{URL: g.URL + "/", Rate: rate, Duration: 5 * time.Second, Header: h})
	if err != nil {
		t.Fatal(err)
	}
	report := run.Wait()
	t.Log(report)
	if report.Failed > 0 {
		t.Errorf("%v, want no failure", report)
	}
	rise := func(now, before map[string]int) map[string]int {
		out := map[string]int{}
		for key, n := range now {
			_, service, _ := strings.Cut(key, "/")
			out[service] = n - before[key]
		}
		return out
	}
	return report.Sent, rise(g.Served(), before), rise(g.Mirrored(), beside)
}

// What the route says is what the pods get: counted by the gateway and by the pods themselves, through Prometheus.
func TestGatewayHonoursRoutes(t *testing.T) {
	node := realnode.Shared(t)
	namespace := node.Cluster.NewNamespace(t)
	g := routed(t, node, namespace)
	sent, served, mirrored := send(t, g, 200)
	share := 100 * float64(served["two"]) / float64(sent)
	t.Logf("FIGURE e2e.gateway-weight-10 %.1f %% of %d requests", share, sent)
	// Of a thousand draws of 10 % the standard deviation is 0.95 %, of 50 % 1.6 %: five of them.
	if share < 5 || share > 15 || served["one"]+served["two"] != sent {
		t.Errorf("of %d requests %v, want 90 and 10 %%", sent, served)
	}
	if half := float64(mirrored["three"]) / float64(sent); half < 0.42 || half > 0.58 {
		t.Errorf("of %d requests %v were mirrored, want half", sent, mirrored)
	}
	total := map[string]int{"one": served["one"], "two": served["two"], "three": mirrored["three"]}
	if sent, served, _ = send(t, g, 20, "X-Canary", "always"); served["two"] != sent {
		t.Errorf("of %d requests with the header %v", sent, served)
	}
	total["two"] += served["two"]

	if err := node.Cluster.ApplyIn(namespace, route(0, 100, 0)); err != nil {
		t.Fatal(err)
	}
	accepted(t, node, namespace, 2)
	if sent, served, mirrored = send(t, g, 20); served["two"] != sent || mirrored["three"] != 0 {
		t.Errorf("of %d requests %v, mirrored %v, want all at two", sent, served, mirrored)
	}
	total["two"] += served["two"]
	eventually(t, "the pods' own counts", 30*time.Second, func() error {
		counts, err := query(node, "app", fmt.Sprintf(`sum by (app) (http_request_duration_seconds_count{kubernetes_namespace=%q, method="GET", path="root"})`, namespace))
		if err != nil {
			return err
		}
		for name, n := range total {
			if counts[name] != fmt.Sprint(n) {
				return fmt.Errorf("pods count %v, the gateway %v", counts, total)
			}
		}
		return nil
	})
}
