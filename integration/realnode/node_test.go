package realnode_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/integration/load"
	"github.com/wheelwright-dev/wheelwright/integration/realnode"
)

func TestMain(m *testing.M) { realnode.Main(m) }

// eventually polls check until it returns nil, for as long as pods may take.
func eventually(t *testing.T, what string, within time.Duration, check func() error) {
	t.Helper()
	for deadline := time.Now().Add(within); ; time.Sleep(200 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// app is a Deployment of podinfo with a Service of its name. args are podinfo's flags.
func app(name string, replicas int, tag string, args ...string) string {
	return deployment(name, replicas, tag, args...) + fmt.Sprintf(`---
apiVersion: v1
kind: Service
metadata: {name: %[1]s}
spec:
  selector: {app: %[1]s}
  ports: [{name: http, port: 9898, targetPort: http}]
`, name)
}

func deployment(name string, replicas int, tag string, args ...string) string {
	flags := ""
	for _, a := range args {
		flags += ", " + a
	}
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: %[2]d
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}, annotations: {prometheus.io/scrape: "true", prometheus.io/port: "9797"}}
    spec:
      containers:
      - name: podinfo
        image: %[3]s
        command: [./podinfo, --port=9898, --port-metrics=9797%[4]s]
        ports: [{name: http, containerPort: 9898}, {name: http-metrics, containerPort: 9797}]
        readinessProbe: {tcpSocket: {port: http}, periodSeconds: 1}
`, name, replicas, realnode.PodinfoImage(tag), flags)
}

// deploy applies manifests in a namespace and waits for the Deployments named.
func deploy(t *testing.T, node *realnode.Node, namespace, manifests string, names ...string) {
	t.Helper()
	if err := node.Cluster.ApplyIn(namespace, manifests); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if _, err := node.Cluster.Kubectl("-n", namespace, "rollout", "status", "deployment/"+name, "--timeout=90s"); err != nil {
			pods, _ := node.Cluster.Kubectl("-n", namespace, "describe", "pods")
			t.Fatalf("%v\n%s", err, pods)
		}
	}
}

// inPod runs a shell script in a pod of its own to its end and returns what it printed.
func inPod(t *testing.T, node *realnode.Node, namespace, script string) string {
	t.Helper()
	if _, err := node.Cluster.Kubectl("-n", namespace, "run", "script", "--image="+realnode.ToolsImage, "--restart=Never", "--command", "--", "bash", "-c", script); err != nil {
		t.Fatal(err)
	}
	defer node.Cluster.Kubectl("-n", namespace, "delete", "pod", "script", "--wait=false")
	eventually(t, "the script's end", time.Minute, func() error {
		phase, err := node.Cluster.Kubectl("-n", namespace, "get", "pod", "script", "-o", "jsonpath={.status.phase}")
		if err == nil && phase != "Succeeded" && phase != "Failed" {
			err = fmt.Errorf("phase %q", phase)
		}
		return err
	})
	out, err := node.Cluster.Kubectl("-n", namespace, "logs", "script")
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// answering waits until kube-proxy leads a Service's address somewhere: that comes a moment after its pods are Ready.
func answering(t *testing.T, base string) {
	t.Helper()
	eventually(t, base+" to answer", 30*time.Second, func() error { _, err := hostname(base); return err })
}

// hostname asks podinfo which pod it is.
func hostname(base string) (string, error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	response, err := client.Get(base + "/api/info")
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	var info struct{ Hostname string }
	return info.Hostname, json.NewDecoder(response.Body).Decode(&info)
}

// query asks Prometheus and returns the values by the label.
func query(node *realnode.Node, label, expression string) (map[string]string, error) {
	response, err := http.Get(node.PrometheusURL + "/api/v1/query?query=" + url.QueryEscape(expression))
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var answer struct {
		Error string
		Data  struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return nil, err
	}
	if answer.Error != "" {
		return nil, errors.New(answer.Error)
	}
	out := map[string]string{}
	for _, r := range answer.Data.Result {
		out[r.Metric[label]] = fmt.Sprint(r.Value[1])
	}
	return out, nil
}

// Two pods behind a Service: reached by its address and by its names, from here and from a pod, both of them, and
// both counted by Prometheus.
func TestPodsServiceNamesMetrics(t *testing.T) {
	node := realnode.Shared(t)
	begin := time.Now()
	namespace := node.Cluster.NewNamespace(t)
	deploy(t, node, namespace, app("web", 2, "6.9.2"), "web")
	t.Logf("FIGURE e2e.two-pods-ready %.1f s from apply", time.Since(begin).Seconds())

	address := node.ServiceAddress(t, namespace, "web")
	seen := map[string]int{}
	eventually(t, "both pods behind the Service's address", time.Minute, func() error {
		name, err := hostname("http://" + address + ":9898")
		if err != nil {
			return err
		}
		if seen[name]++; len(seen) < 2 {
			return fmt.Errorf("only %v", seen)
		}
		return nil
	})
	name := "web." + namespace + ".svc.cluster.local"
	found, err := node.Resolver().LookupHost(t.Context(), name)
	if err != nil || len(found) != 1 || found[0] != address {
		t.Errorf("%s is %v, %v, want %s", name, found, err, address)
	}
	out := inPod(t, node, namespace, "for host in web "+name+"; do curl -sS --max-time 5 http://$host:9898/api/info | grep -o 'web-[a-z0-9-]*'; done")
	if strings.Count(out, "web-") != 2 {
		t.Errorf("from a pod, by two names: %q", out)
	}
	program, args := node.WithClusterDNS("curl", "-sS", "--max-time", "5", "http://"+name+":9898/readyz")
	if out, err := command(t, program, args...); err != nil || !strings.Contains(out, "OK") {
		t.Errorf("from a process of this machine, by name: %q, %v", out, err)
	}

	wrapper, err := node.ClusterDNSWrapper("curl")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := command(t, wrapper, "-sS", "--max-time", "5", "http://"+name+":9898/readyz"); err != nil || !strings.Contains(out, "OK") {
		t.Errorf("from a wrapped process of this machine, by name: %q, %v", out, err)
	}

	run, err := load.Start(t.Context(), load.Config{URL: "http://" + address + ":9898/", Rate: 20, Duration: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	report := run.Wait()
	t.Log(report)
	if report.Failed != 0 || report.Sent < 95 {
		t.Errorf("%v, want about a hundred without a failure", report)
	}
	eventually(t, "both pods' requests in Prometheus", 30*time.Second, func() error {
		counts, err := query(node, "kubernetes_pod_name", fmt.Sprintf(`sum by (kubernetes_pod_name) (http_requests_total{kubernetes_namespace=%q, app="web"})`, namespace))
		if err == nil && len(counts) != 2 {
			err = fmt.Errorf("counts of %v", counts)
		}
		for pod := range seen {
			if err == nil && counts[pod] == "" {
				err = fmt.Errorf("none of %s in %v", pod, counts)
			}
		}
		return err
	})
}

// Release 1.4.0 of the reference distribution starts its backend with --random-error=true. podinfo decides by the
// second: in a third of them every answer is an error, and of these a third has status 500, the rest 400 and 409.
func TestRandomErrors(t *testing.T) {
	node := realnode.Shared(t)
	namespace := node.Cluster.NewNamespace(t)
	deploy(t, node, namespace, app("backend", 1, "6.9.2", "--random-error=true"), "backend")
	base := "http://" + node.ServiceAddress(t, namespace, "backend") + ":9898"
	answering(t, base)
	run, err := load.Start(t.Context(), load.Config{URL: base + "/", Rate: 10, Duration: 3 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer run.Stop()
	eventually(t, "answers of 200, 500 and 400 or 409", 3*time.Minute, func() error {
		if o := run.Report().Outcomes; o["200"] == 0 || o["500"] == 0 || o["400"]+o["409"] == 0 {
			return fmt.Errorf("only %v", o)
		}
		return nil
	})
	report := run.Stop()
	t.Logf("%v", report)
	if o := report.Outcomes; report.Failed != o["500"]+o["400"]+o["409"] {
		t.Errorf("failures of another kind in %v", o)
	}
}

// A pod can ask the API server, by the name and the address that every client in a cluster uses.
func TestAPIServerFromAPod(t *testing.T) {
	node := realnode.Shared(t)
	namespace := node.Cluster.NewNamespace(t)
	out := inPod(t, node, namespace, "S=/var/run/secrets/kubernetes.io/serviceaccount; curl -sS --max-time 5 --cacert $S/ca.crt -H \"Authorization: Bearer $(cat $S/token)\" https://kubernetes.default.svc/version")
	if !strings.Contains(out, `"gitVersion": "v`) {
		t.Errorf("it answered %q", out)
	}
}

// An image that nobody imported fails as it does where a registry does not have it.
func TestUnknownImage(t *testing.T) {
	node := realnode.Shared(t)
	namespace := node.Cluster.NewNamespace(t)
	if err := node.Cluster.ApplyIn(namespace, strings.ReplaceAll(app("web", 1, "6.9.2"), "stefanprodan/podinfo:", "stefanprodan/podinfo-does-not-exist:")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the reason that a kubelet gives", time.Minute, func() error {
		out, err := node.Cluster.Kubectl("-n", namespace, "get", "pods", "-o", "jsonpath={.items[*].status.containerStatuses[*].state.waiting.reason}")
		if err == nil && out != "ImagePullBackOff" && out != "ErrImagePull" {
			err = fmt.Errorf("reason %q", out)
		}
		return err
	})
}
