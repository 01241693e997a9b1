package strategy_test

import (
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/route"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
)

// What is asked where load is generated, and which of several ports routes and load lead to.
func TestWhatIsAsked(t *testing.T) {
	const fine = "  analysis: {interval: 10s, threshold: 2, iterations: 3}"
	service := `
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: admin, port: 9797}, {name: http, port: 9898}]}
`
	annotated := func(value string) string {
		return strings.Replace(canary("v1beta1", "web", fine), "metadata: {", "metadata: {annotations: {example.com/load: x, wheelwright.dev/load-path: "+value+"}, ", 1)
	}
	for _, test := range []struct {
		name, canary, service, path string
		port                        int
	}{
		{"nothing written", canary("v1beta1", "web", fine), "", "/", 9898},
		{"the port that is led is the second", canary("v1beta1", "web", fine), service, "/", 9898},
		{"no port is named", strings.Replace(canary("v1beta1", "web", fine), "{port: 9898, portDiscovery: true}", "{name: web}", 1), service, "/", 9797},
		{"a path", annotated(`"/items?limit=1&a=%20"`), "", "/items?limit=1&a=%20", 9898},
	} {
		release, err := read(t, strategy.Options{}, workload("web"), test.canary, test.service)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		if s := release.Services[0]; s.LoadPath != test.path || s.Main.Port != test.port || route.Of(s).Port != test.port {
			t.Errorf("%s: got %s at %d", test.name, s.LoadPath, s.Main.Port)
		}
	}
	for _, value := range []string{"healthz", `""`, "//example.com/", `"http://example.com/"`, "/a b", "/a#b", `'/a\b'`, `"/a\nb"`, "/%zz", "7", "{a: b}", "/" + strings.Repeat("x", 1024)} {
		if _, err := read(t, strategy.Options{}, workload("web"), annotated(value)); err == nil || !strings.HasPrefix(err.Error(), "Canary shop/web: metadata.annotations[wheelwright.dev/load-path]: ") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", value, err)
		}
	}
}
