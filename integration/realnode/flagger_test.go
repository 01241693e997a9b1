package realnode_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/integration/load"
	"github.com/wheelwright-dev/wheelwright/integration/realnode"
)

// canary hands the Deployment web to Flagger: blue/green, some iterations, Flagger's own success rate, and a
// test by the load tester, which Flagger finds by its name in the cluster.
const canary = `apiVersion: flagger.app/v1beta1
kind: Canary
metadata: {name: web}
spec:
  targetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  progressDeadlineSeconds: 60
  service: {port: 9898, targetPort: http}
  analysis:
    interval: 10s
    threshold: 2
    iterations: %[2]d
    metrics:
    - {name: request-success-rate, thresholdRange: {min: 99}, interval: 30s}
    webhooks:
    - name: ask the canary
      type: pre-rollout
      url: http://tester.%[1]s.svc.cluster.local/
      timeout: 15s
      metadata: {type: bash, cmd: "curl -sd test http://web-canary.%[1]s:9898/token | grep token"}
    - name: load
      url: http://tester.%[1]s.svc.cluster.local/
      timeout: 5s
      metadata: {cmd: "hey -z 30s -q 10 -c 1 http://web-canary.%[1]s:9898/"}
`

const tester = `---
apiVersion: apps/v1
kind: Deployment
metadata: {name: tester}
spec:
  selector: {matchLabels: {app: tester}}
  template:
    metadata: {labels: {app: tester}}
    spec:
      containers:
      - name: tester
        image: ` + realnode.TesterImage + `
        command: [./loadtester, -port=8080, -log-level=info, -timeout=1h]
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: tester}
spec: {selector: {app: tester}, ports: [{name: http, port: 80, targetPort: http}]}
`

// Flagger itself promotes a good release on the node and takes back a bad one, with real pods, traffic and metrics.
func TestFlagger(t *testing.T) {
	node := realnode.Shared(t)
	namespace := node.Cluster.NewNamespace(t)
	deploy(t, node, namespace, deployment("web", 1, "6.9.2")+tester, "tester")
	// The Service web is Flagger's: to apply one would lead the users away from the primary.
	mark := node.Cluster.MarkRequests(t)
	flagger, err := node.StartFlagger(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := flagger.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			text, _ := os.ReadFile(flagger.Log)
			lines := strings.Split(string(text), "\n")
			t.Log(strings.Join(lines[max(0, len(lines)-40):], "\n"))
		}
	}()
	if err := node.Cluster.ApplyIn(namespace, fmt.Sprintf(canary, namespace, 2)); err != nil {
		t.Fatal(err)
	}
	// Flagger's finalizer would keep the namespace when Flagger is gone.
	defer node.Cluster.Kubectl("-n", namespace, "delete", "canary", "web", "--timeout=30s")
	var users *load.Run
	become := func(want string) {
		t.Helper()
		begin := time.Now()
		eventually(t, "Flagger's verdict", 2*time.Minute, func() error {
			phase, err := node.Cluster.Kubectl("-n", namespace, "get", "canary", "web", "-o", "jsonpath={.status.phase}")
			if phase == "Failed" && want == "Succeeded" {
				t.Fatal("Flagger failed a good release")
			}
			if err == nil && phase != want {
				err = fmt.Errorf("phase %q, want %s", phase, want)
			}
			return err
		})
		t.Logf("%s after %.0f s", want, time.Since(begin).Seconds())
		if users != nil {
			t.Logf("users so far: %v", users.Report())
		}
	}
	become("Initialized")
	answering(t, "http://"+node.ServiceAddress(t, namespace, "web")+":9898")
	users, err = load.Start(t.Context(), load.Config{URL: "http://" + node.ServiceAddress(t, namespace, "web") + ":9898/", Rate: 10})
	if err != nil {
		t.Fatal(err)
	}
	defer users.Stop()

	if err := node.Cluster.ApplyIn(namespace, deployment("web", 0, "6.10.0")); err != nil {
		t.Fatal(err)
	}
	become("Succeeded")
	image, err := node.Cluster.Kubectl("-n", namespace, "get", "deployment", "web-primary", "-o", "jsonpath={.spec.template.spec.containers[0].image}")
	if err != nil || image != realnode.PodinfoImage("6.10.0") {
		t.Errorf("the primary runs %q, %v", image, err)
	}
	// Longer, for a bad release whose errors come by the second: it must not get by between two of them.
	bad := fmt.Sprintf(canary, namespace, 8) + "---\n" + deployment("web", 0, "6.10.0", "--random-error=true")
	if err := node.Cluster.ApplyIn(namespace, bad); err != nil {
		t.Fatal(err)
	}
	become("Failed")
	command, err := node.Cluster.Kubectl("-n", namespace, "get", "deployment", "web-primary", "-o", "jsonpath={.spec.template.spec.containers[0].command}")
	if err != nil || strings.Contains(command, "random-error") {
		t.Errorf("the primary runs %q, %v", command, err)
	}
	report := users.Stop()
	t.Logf("users meanwhile: %v; Flagger made %d requests", report, len(node.Cluster.Requests(t, mark, "flagger")))
	if report.FailedShare() > 0.01 {
		t.Errorf("%v: the primary had nothing wrong", report)
	}
}
