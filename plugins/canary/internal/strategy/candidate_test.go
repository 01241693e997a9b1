package strategy_test

import (
	"flag"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t testing.TB, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("%s differs; look at it, then go test -update\n%s", file, got)
	}
}

func stream(t testing.TB, objects []strategy.Object) []byte {
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

const shopService = `
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, labels: {app: web}, annotations: {example.com/owner: red}}
spec:
  type: LoadBalancer
  clusterIP: 10.0.0.7
  externalTrafficPolicy: Local
  sessionAffinity: None
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http, nodePort: 30080}]
`

const configured = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop, labels: {app: web, team: red}}
spec:
  minReadySeconds: 3
  selector: {matchLabels: {app: web, team: red}}
  template:
    metadata: {labels: {app: web, team: red}, annotations: {checksum: CHECKSUM}}
    spec:
      serviceAccountName: web
      affinity:
        podAntiAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
          - {topologyKey: kubernetes.io/hostname, labelSelector: {matchExpressions: [{key: app, operator: In, values: [web]}]}}
          - {topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: database}}}
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: web}}}
      containers:
      - name: web
        image: registry.example/web:VERSION
        env: [{name: TOKEN, valueFrom: {secretKeyRef: {name: token, key: t}}}]
      volumes: [{name: config, configMap: {name: web-CHECKSUM}}, {name: data, persistentVolumeClaim: {claimName: web}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: web-CHECKSUM, namespace: shop}
data: {a: CHECKSUM}
---
apiVersion: v1
kind: Secret
metadata: {name: token, namespace: shop}
stringData: {t: VERSION}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: web, namespace: shop}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: web, namespace: shop}
`

func side(t testing.TB, version, checksum string) []strategy.Object {
	return objects(t, strings.NewReplacer("VERSION", version, "CHECKSUM", checksum).Replace(strings.Join([]string{configured, shopService,
		strings.Split(workload("web"), "\n---\n")[1], canary("v1beta1", "web", "  analysis: {interval: 10s, threshold: 2, iterations: 3}")}, "\n---\n")))
}

// The copies stand beside what runs: other names, one label, one selector; the rest is the release's.
func TestCandidate(t *testing.T) {
	stable, next := side(t, "1.0.0", "aaa"), side(t, "2.0.0", "bbb")
	release, err := strategy.Read(next, strategy.Options{})
	if err == nil {
		t.Fatal("the Service has no port 9898, and nobody said so")
	}
	next = append(next[:len(next)-1], objects(t, strings.Replace(canary("v1beta1", "web", "  analysis: {interval: 10s, threshold: 2, iterations: 3}"), "port: 9898", "port: 80", 1))...)
	if release, err = strategy.Read(next, strategy.Options{}); err != nil {
		t.Fatal(err)
	}
	before, beforeNext := stream(t, stable), stream(t, next)
	c, err := release.Services[0].MakeCandidate(stable, next, strategy.Making{})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "candidate.yaml", stream(t, c.Objects()))
	if string(stream(t, stable)) != string(before) || string(stream(t, next)) != string(beforeNext) {
		t.Error("an argument was changed")
	}
	var warnings []string
	for _, w := range c.Warnings {
		warnings = append(warnings, w.Object)
	}
	if want := []string{"PersistentVolumeClaim shop/web", "Secret shop/token"}; !reflect.DeepEqual(warnings, want) {
		t.Errorf("warnings about %v, want %v", warnings, want)
	}
}

// A release that leaves the Service to its Canary gets both: the stable one as Flagger would name and
// number it, and the candidate's.
func TestServicesThatNobodyBrings(t *testing.T) {
	all := objects(t, workload("web")+"\n---\n"+canary("v1beta1", "web", "  analysis: {interval: 10s, threshold: 2, iterations: 3}"))
	release, err := strategy.Read(all, strategy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := release.Services[0]
	service, err := s.StableService(all[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.MakeCandidate(all, all, strategy.Making{Replicas: 3})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "services.yaml", stream(t, append([]strategy.Object{service}, c.Objects()...)))
}

// Another label may tell workloads apart.
func TestSelectorKey(t *testing.T) {
	all := objects(t, strings.ReplaceAll(workload("web"), "app: web", "component: web")+"\n---\n"+canary("v1beta1", "web", "  analysis: {interval: 10s, threshold: 2, iterations: 3}"))
	release, err := strategy.Read(all, strategy.Options{SelectorKeys: []string{"component"}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := release.Services[0].MakeCandidate(all, all, strategy.Making{SelectorKeys: []string{"component"}})
	if err != nil {
		t.Fatal(err)
	}
	labels := c.Workload["spec"].(strategy.Object)["template"].(strategy.Object)["metadata"].(strategy.Object)["labels"].(strategy.Object)
	if want := (strategy.Object{"component": "web-canary", "team": "red", strategy.LabelCandidateOf: "web"}); !maps.Equal(labels, want) {
		t.Errorf("got %v, want %v", labels, want)
	}
	if _, err := release.Services[0].MakeCandidate(nil, all, strategy.Making{SelectorKeys: []string{"component"}}); err == nil || !strings.Contains(err.Error(), "first install") {
		t.Errorf("got %v", err)
	}
}
