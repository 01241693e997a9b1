package realnode_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/integration/load"
	"github.com/wheelwright-dev/wheelwright/integration/realnode"
)

func command(t *testing.T, program string, args ...string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput()
	return string(out), err
}

// render is one variant of one tag of the reference distribution, without its Canary objects.
func render(t *testing.T, node *realnode.Node, tag, variant string) string {
	t.Helper()
	vendor := reference(t)
	if err := vendor.Git(t.Context(), "checkout", "-q", tag); err != nil {
		t.Fatal(err)
	}
	out, err := node.Cluster.Kubectl("kustomize", filepath.Join(vendor.Dir, "dist", variant))
	if err != nil {
		t.Fatal(err)
	}
	var kept []string
	for doc := range strings.SplitSeq(out, "\n---\n") {
		if !strings.Contains("\n"+doc, "\nkind: Canary\n") {
			kept = append(kept, doc)
		}
	}
	return strings.Join(kept, "\n---\n")
}

// The reference distribution's 1.1.0, applied by hand: its pods become Ready, and with the Services that Flagger
// would make, users get an answer of all four through the ingress's load balancer.
func TestReferenceDistribution(t *testing.T) {
	node := realnode.Shared(t)
	manifests := render(t, node, "1.1.0", "app-kubernetes")
	t.Cleanup(func() {
		if _, err := node.Cluster.Kubectl("delete", "namespace", "app", "--timeout=90s"); err != nil {
			t.Error(err)
		}
	})
	begin := time.Now()
	names := []string{"frontend", "backend", "cache", "database"}
	services := ""
	for _, name := range names {
		services += fmt.Sprintf("---\napiVersion: v1\nkind: Service\nmetadata: {name: %[1]s, namespace: app}\nspec: {selector: {app: %[1]s}, ports: [{name: http, port: 9898, targetPort: http}]}\n", name)
	}
	deploy(t, node, "app", manifests+"\n"+services, append(names, "tester", "ingress")...)
	t.Logf("FIGURE e2e.reference-ready %.1f s from apply to every Deployment Ready", time.Since(begin).Seconds())

	var address string
	eventually(t, "the load balancer's address", 10*time.Second, func() (err error) {
		address, err = node.Cluster.Kubectl("-n", "app", "get", "service", "ingress", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}")
		if err == nil && address == "" {
			err = fmt.Errorf("none yet")
		}
		return err
	})
	// frontend asks backend and cache, backend asks database: the text comes back only through all of them.
	whole := func(body []byte) bool {
		return bytes.Count(body, []byte("test")) == 2 && !bytes.Contains(body, []byte("call failed"))
	}
	eventually(t, "an answer of all four services", 30*time.Second, func() error {
		response, err := http.Post("http://"+address+"/echo", "text/plain", strings.NewReader("test"))
		if err != nil {
			return err
		}
		defer response.Body.Close()
		var body bytes.Buffer
		if _, err := body.ReadFrom(response.Body); err != nil {
			return err
		}
		if !whole(body.Bytes()) {
			return fmt.Errorf("%s: %s", response.Status, body.String())
		}
		return nil
	})
	run, err := load.Start(t.Context(), load.Config{URL: "http://" + address + "/echo", Method: http.MethodPost, Body: "test", Rate: 20, Duration: 5 * time.Second,
		Failed: func(_ int, body []byte) bool { return !whole(body) }})
	if err != nil {
		t.Fatal(err)
	}
	if report := run.Wait(); report.Failed != 0 || report.Sent < 95 {
		t.Error(report)
	} else {
		t.Log(report)
	}
	// The distribution's own test, a suspended CronJob.
	if _, err := node.Cluster.Kubectl("-n", "app", "create", "job", "--from=cronjob/traffic-tester", "by-hand"); err != nil {
		t.Fatal(err)
	}
	if _, err := node.Cluster.Kubectl("-n", "app", "wait", "--for=condition=Complete", "--timeout=60s", "job/by-hand"); err != nil {
		out, _ := node.Cluster.Kubectl("-n", "app", "logs", "job/by-hand")
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := node.Cluster.Kubectl("-n", "app", "logs", "job/by-hand"); err != nil || !strings.Contains(out, "testing database") {
		t.Errorf("%q, %v", out, err)
	}
}
