package harness_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/integration/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

const deployment = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: %s}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata:
      labels: {app: web}
      annotations: {%s}
    spec:
      containers:
      - {name: web, image: "%s"}
`

func deploy(t *testing.T, c *harness.Cluster, namespace, annotations, image string) {
	t.Helper()
	if err := c.Apply(fmt.Sprintf(deployment, namespace, annotations, image)); err != nil {
		t.Fatal(err)
	}
}

// expect waits until a kubectl command prints exactly want.
func expect(t *testing.T, c *harness.Cluster, want string, args ...string) {
	t.Helper()
	c.Eventually(t, strings.Join(args, " "), func() error {
		got, err := c.Kubectl(args...)
		if err == nil && strings.TrimSpace(got) != want {
			err = fmt.Errorf("got %q, want %q", got, want)
		}
		return err
	})
}

func TestDeploymentBecomesReady(t *testing.T) {
	c := harness.Shared(t, 1)[0]
	ns := c.NewNamespace(t)
	deploy(t, c, ns, "", "podinfo:1")
	ready := []string{"-n", ns, "get", "deployment", "web", "-o", "jsonpath={.status.readyReplicas}"}
	expect(t, c, "2", ready...)

	c.SetPodsReady(t, ns, "app=web", false)
	expect(t, c, "", ready...)
	c.SetPodsReady(t, ns, "app=web", true)
	expect(t, c, "2", ready...)
}

func TestPodsThatStayUnready(t *testing.T) {
	c := harness.Shared(t, 1)[0]
	const waiting = "jsonpath={range .items[*]}{.status.phase} {.status.containerStatuses[*].state.waiting.reason}{\"\\n\"}{end}"
	for _, test := range []struct {
		name, annotations, image, pods string
	}{
		{"wrong image", "", "stefanprodan/podinfo-does-not-exist:0.0.1", "Pending ImagePullBackOff\nPending ImagePullBackOff"},
		{"crash", "", "example.org/crash-loop:1", "Running CrashLoopBackOff\nRunning CrashLoopBackOff"},
		{"annotation", harness.NeverReady + `: "yes"`, "podinfo:1", "Running \nRunning"},
	} {
		t.Run(test.name, func(t *testing.T) {
			ns := c.NewNamespace(t)
			deploy(t, c, ns, test.annotations, test.image)
			expect(t, c, test.pods, "-n", ns, "get", "pods", "-o", waiting)
			// A second workload that is ready shows that the first was given its time.
			if _, err := c.Kubectl("-n", ns, "create", "deployment", "other", "--image=podinfo:1"); err != nil {
				t.Fatal(err)
			}
			expect(t, c, "1", "-n", ns, "get", "deployment", "other", "-o", "jsonpath={.status.readyReplicas}")
			expect(t, c, "", "-n", ns, "get", "deployment", "web", "-o", "jsonpath={.status.readyReplicas}")
		})
	}
}

func TestReadyAfter(t *testing.T) {
	c := harness.Shared(t, 1)[0]
	ns := c.NewNamespace(t)
	begin := time.Now()
	deploy(t, c, ns, harness.ReadyAfter+": 2s", "podinfo:1")
	expect(t, c, "2", "-n", ns, "get", "deployment", "web", "-o", "jsonpath={.status.readyReplicas}")
	if took := time.Since(begin); took < 2*time.Second {
		t.Errorf("ready after %s, want 2s at least", took)
	}
}

func TestJobCompletes(t *testing.T) {
	c := harness.Shared(t, 1)[0]
	ns := c.NewNamespace(t)
	if _, err := c.Kubectl("-n", ns, "create", "job", "once", "--image=podinfo:1"); err != nil {
		t.Fatal(err)
	}
	expect(t, c, "1", "-n", ns, "get", "job", "once", "-o", "jsonpath={.status.succeeded}")
}

func TestLoadBalancerHasAnAddress(t *testing.T) {
	c := harness.Shared(t, 1)[0]
	ns := c.NewNamespace(t)
	if _, err := c.Kubectl("-n", ns, "create", "service", "loadbalancer", "web", "--tcp=80"); err != nil {
		t.Fatal(err)
	}
	expect(t, c, "203.0.113.7", "-n", ns, "get", "service", "web", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}")
}

func TestClustersAreApart(t *testing.T) {
	clusters := harness.Shared(t, 2)
	ns := clusters[0].NewNamespace(t)
	if out, err := clusters[1].Kubectl("get", "namespace", ns); err == nil || !strings.Contains(err.Error(), "NotFound") {
		t.Errorf("the second cluster answers %q, %v for the first one's namespace", out, err)
	}
	// Nor does one accept the other's administrator.
	stranger := *clusters[0]
	stranger.Kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	mine, theirs := read(t, clusters[0].Kubeconfig), read(t, clusters[1].Kubeconfig)
	mixed := mine[:strings.Index(mine, "users:")] + theirs[strings.Index(theirs, "users:"):]
	if err := os.WriteFile(stranger.Kubeconfig, []byte(strings.ReplaceAll(mixed, "cluster: c2", "cluster: c1")), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := stranger.Kubectl("--context", "c2", "get", "namespaces"); err == nil {
		t.Error("the first cluster accepts the second one's administrator")
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestRequestsAreCounted(t *testing.T) {
	c := harness.Shared(t, 1)[0]
	ns := c.NewNamespace(t)
	mark := c.MarkRequests(t)
	if _, err := c.Kubectl("-n", ns, "create", "configmap", "counted"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Kubectl("-n", ns, "create", "configmap", "not-written", "--dry-run=server"); err != nil {
		t.Fatal(err)
	}
	var created, written int
	for _, r := range c.Requests(t, mark, "kubectl/") {
		if r.Verb == "create" && strings.Contains(r.URI, ns) {
			created++
		}
		if r.Writes() {
			written++
		}
	}
	if created != 2 || written != 1 {
		t.Errorf("%d creations and %d writes in the log, want 2 and 1", created, written)
	}
	if rest := c.Requests(t, c.MarkRequests(t), ""); len(rest) != 0 {
		t.Errorf("requests after the last: %v", rest)
	}
}

func TestInstallFlaggerCRD(t *testing.T) {
	c := harness.Shared(t, 1)[0]
	if err := c.InstallFlaggerCRD(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Kubectl("get", "canaries", "-A"); err != nil {
		t.Error(err)
	}
}
