package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
	"github.com/wheelwright-dev/wheelwright/plugins/internal/kube"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// shop is a release of two services behind one route: one brings its Service, one leaves it to its Canary.
func shop(t *testing.T, version, router, namespace string) []strategy.Object {
	t.Helper()
	text := ""
	for _, name := range []string{"web", "api"} {
		text += strings.NewReplacer("NAME", name, "VERSION", version, "HASH", strings.ReplaceAll(version, ".", ""), "ROUTER", router).Replace(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME, labels: {app: NAME}}
spec:
  replicas: 2
  selector: {matchLabels: {app: NAME}}
  template:
    metadata: {labels: {app: NAME}}
    spec:
      containers:
      - {name: NAME, image: "registry.example/NAME:VERSION", ports: [{name: http, containerPort: 8080}], envFrom: [{configMapRef: {name: NAME-HASH}}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: NAME-HASH}
data: {version: VERSION}
---
apiVersion: flagger.app/v1beta1
kind: Canary
metadata: {name: NAME}
spec:
  provider: ROUTER
  targetRef: {apiVersion: apps/v1, kind: Deployment, name: NAME}
  service: {port: 80, targetPort: http}
  analysis:
    interval: 1s
    threshold: 2
    stepWeights: [33, 50]
    metrics:
    - {name: request-success-rate, interval: 1m, thresholdRange: {min: 99}}
---
`)
	}
	text += `
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}
---
`
	return decoded(t, text+routes(router), namespace)
}

// routes are what leads to the shop.
func routes(router string) string {
	switch router {
	case "nginx":
		return `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop}
spec:
  ingressClassName: nginx
  rules:
  - host: shop.example
    http:
      paths:
      - {path: /api, pathType: Prefix, backend: {service: {name: api, port: {number: 80}}}}
      - {path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}
`
	case "istio":
		return `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, annotations: {team: red}}
spec:
  hosts: [shop.example]
  http:
  - match: [{uri: {prefix: /api}}]
    timeout: 5s
    route: [{destination: {host: api}}]
  - name: rest
    headers: {request: {set: {x-shop: "1"}}}
    route: [{destination: {host: web}, weight: 100}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: api}
spec: {host: api, trafficPolicy: {connectionPool: {http: {maxRetries: 3}}}}
`
	case "gatewayapi:v1":
		return `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop}
spec:
  parentRefs: [{name: public}]
  hostnames: [shop.example]
  rules:
  - matches: [{path: {type: PathPrefix, value: /api}}]
    backendRefs: [{name: api, port: 80}]
  - filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-shop, value: "1"}]}}]
    backendRefs: [{name: web, port: 80}]
`
	}
	return ""
}

// variant builds one variant of the public reference distribution, which is not part of this project.
func variant(t *testing.T, tag, name, namespace string) []strategy.Object {
	t.Helper()
	bundle, err := filepath.Abs("../../../shared/distributions/app-distribution.gitbundle")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(bundle); err != nil {
		t.Skip("the reference input is absent: ../shared/distributions/app-distribution.gitbundle")
	}
	dir := filepath.Join(t.TempDir(), "app")
	if out, err := exec.CommandContext(t.Context(), "git", "clone", "-q", "--branch", tag, bundle, dir).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	rendered, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(dir, "dist", name))
	if err != nil {
		t.Fatal(err)
	}
	text, err := rendered.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	return decoded(t, string(text), namespace)
}

// decoded reads a stream and puts it into a namespace. Nothing waits a second for its second.
func decoded(t *testing.T, text, namespace string) []strategy.Object {
	t.Helper()
	list, err := kube.ReadObjects([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var out []strategy.Object
	for _, o := range list {
		if o.Kind() == "Namespace" {
			continue
		}
		o["metadata"].(map[string]any)["namespace"] = namespace
		if spec, ok := o["spec"].(map[string]any); ok {
			delete(spec, "minReadySeconds")
		}
		out = append(out, o)
	}
	return out
}

// subject cuts two releases into services, as the spoke does.
func subject(t *testing.T, from, to string, stable, next []strategy.Object, namespace string) *pluginv1.Subject {
	t.Helper()
	out := &pluginv1.Subject{Distribution: "app", VersionFrom: from, VersionTo: to, Namespace: namespace, Cluster: "acme/eu-1"}
	rest := slices.Clone(next)
	for _, o := range next {
		if document.Text(o, "kind") != "Canary" {
			continue
		}
		target := document.Text(o, "spec", "targetRef", "name")
		own := func(o strategy.Object) bool {
			name := document.Text(o, "metadata", "name")
			return document.Text(o, "kind") != "Canary" && (name == target || strings.HasPrefix(name, target+"-") && document.Text(o, "kind") == "ConfigMap")
		}
		is := func(other strategy.Object) bool {
			return document.Text(other, "kind") == "Canary" && document.Text(other, "metadata", "name") == document.Text(o, "metadata", "name")
		}
		out.Services = append(out.Services, &pluginv1.Service{Name: target, Declared: stream(t, []strategy.Object{o}),
			Stable: stream(t, filter(stable, own)), Candidate: stream(t, filter(next, own))})
		rest = filter(rest, func(o strategy.Object) bool { return !own(o) && !is(o) })
	}
	out.Objects = stream(t, rest)
	return out
}

func filter(objects []strategy.Object, keep func(strategy.Object) bool) (out []strategy.Object) {
	for _, o := range objects {
		if keep(o) {
			out = append(out, o)
		}
	}
	return out
}

func stream(t *testing.T, objects []strategy.Object) []byte {
	t.Helper()
	var docs []string
	for _, o := range objects {
		text, err := yaml.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, string(text))
	}
	return []byte(strings.Join(docs, "---\n"))
}

func aCall() *pluginv1.Call {
	return &pluginv1.Call{Id: "test", Deadline: timestamppb.New(time.Now().Add(time.Minute))}
}

// remarshal decodes as the client does.
func remarshal(o map[string]any, into any) error {
	text, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}
