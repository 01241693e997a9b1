package realnode

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/integration/child"
)

const (
	forwardedAPI = hostAddress + ":6443"
	// PrometheusInside is where pods, and what runs on the node, reach Prometheus.
	PrometheusInside = "http://" + hostAddress + ":9090"

	resolvConf = "nameserver " + hostAddress + "\nsearch svc.cluster.local cluster.local\noptions ndots:5\n"
)

// forwardAPIServer lets node and pods reach the API server, which listens on this machine's loopback only.
func (n *Node) forwardAPIServer(context.Context) error {
	if err := n.forward(forwardedAPI, n.Cluster.Address()); err != nil {
		return err
	}
	// The API server would enter itself, but does not know the address that it is reached by.
	return n.Cluster.Apply(endpoints("default", "kubernetes", "[{name: https, port: 6443, protocol: TCP}]"))
}

// endpoints is an EndpointSlice that leads a Service without selector to this machine.
func endpoints(namespace, service, ports string) string {
	return fmt.Sprintf(`apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %[2]s, namespace: %[1]s, labels: {kubernetes.io/service-name: %[2]s}}
addressType: IPv4
endpoints: [{addresses: [%[3]s], conditions: {ready: true}}]
ports: %[4]s
---
`, namespace, service, hostAddress, ports)
}

func (n *Node) startDNS(ctx context.Context) error {
	corefile := fmt.Sprintf(".:53 {\n bind %s\n errors\n kubernetes cluster.local {\n  kubeconfig %s\n  ttl 1\n }\n}\n", hostAddress, n.Cluster.Kubeconfig)
	if err := os.WriteFile(n.file("Corefile"), []byte(corefile), 0o644); err != nil {
		return err
	}
	const ports = "[{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]"
	service := fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system}
spec: {clusterIP: %s, ports: %s}
`, n.serviceAddress(10), ports)
	if err := n.Cluster.Apply(endpoints("kube-system", "kube-dns", ports) + service); err != nil {
		return err
	}
	p, err := n.part("coredns", n.bin.Path("coredns"), "-conf", n.file("Corefile"))
	if err != nil {
		return err
	}
	resolver := n.Resolver()
	return p.Await(ctx, "the cluster's names", func(ctx context.Context) error {
		_, err := resolver.LookupHost(ctx, "kubernetes.default.svc.cluster.local.")
		return err
	})
}

// Resolver asks the cluster's DNS.
func (n *Node) Resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, network, hostAddress+":53")
	}}
}

// startPrometheus scrapes every pod that asks for it, by the usual annotations or by a port named http-metrics.
func (n *Node) startPrometheus(ctx context.Context) error {
	config := fmt.Sprintf(`global: {scrape_interval: %[1]s, scrape_timeout: %[1]s}
scrape_configs:
- job_name: kubernetes-pods
  kubernetes_sd_configs: [{role: pod, kubeconfig_file: %[2]q}]
  relabel_configs:
  - {source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_scrape, __meta_kubernetes_pod_container_port_name], action: keep, regex: 'true;.*|;http-metrics'}
  - {source_labels: [__meta_kubernetes_pod_phase], action: keep, regex: Running}
  - {source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_scheme], action: replace, regex: '(https?)', target_label: __scheme__}
  - {source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_path], action: replace, regex: '(.+)', target_label: __metrics_path__}
  - {source_labels: [__address__, __meta_kubernetes_pod_annotation_prometheus_io_port], action: replace, regex: '([^:]+)(?::\d+)?;(\d+)', replacement: '$1:$2', target_label: __address__}
  - {source_labels: [__meta_kubernetes_namespace], target_label: kubernetes_namespace}
  - {source_labels: [__meta_kubernetes_pod_name], target_label: kubernetes_pod_name}
  - {source_labels: [__meta_kubernetes_pod_label_app], target_label: app}
`, n.options.ScrapeInterval, n.Cluster.Kubeconfig)
	if err := os.WriteFile(n.file("prometheus.yml"), []byte(config), 0o644); err != nil {
		return err
	}
	for range child.PortAttempts {
		ports, err := child.FreePorts(1)
		if err != nil {
			return err
		}
		address := fmt.Sprintf("127.0.0.1:%d", ports[0])
		p, err := child.Start("prometheus", n.log("prometheus"), nil, n.bin.Path("prometheus"), "--config.file", n.file("prometheus.yml"),
			"--storage.tsdb.path", n.file("state", "prometheus"), "--web.listen-address", address, "--log.level=warn")
		if err != nil {
			return err
		}
		n.PrometheusURL = "http://" + address
		err = p.Await(ctx, "Prometheus", func(ctx context.Context) error { return answers(ctx, n.PrometheusURL+"/-/ready") })
		if err != nil && p.PortTaken() {
			continue
		}
		n.parts = append(n.parts, p)
		if err != nil {
			return err
		}
		return n.forward(strings.TrimPrefix(PrometheusInside, "http://"), address)
	}
	return fmt.Errorf("start prometheus: %w", child.ErrNoPort)
}

// answers checks that a GET of the url is answered with 200.
func answers(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	return nil
}

// awaitReady waits for the node, and for what every pod needs.
func (n *Node) awaitReady(ctx context.Context) error {
	kubelet := n.parts[0]
	for _, p := range n.parts {
		if p.Name == "kubelet" {
			kubelet = p
		}
	}
	return kubelet.Await(ctx, "the node to be Ready", func(ctx context.Context) error {
		out, err := n.Cluster.Kubectl("get", "node", Name, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status} {.status.conditions[?(@.type=="Ready")].message} {.spec.taints}`)
		if err == nil && strings.TrimSpace(out) != "True kubelet is posting ready status" {
			err = fmt.Errorf("node %s: %s", Name, strings.TrimSpace(out))
		}
		return err
	})
}

// ServiceAddress is the cluster IP of a Service, to be reached from this machine through kube-proxy.
func (n *Node) ServiceAddress(t testing.TB, namespace, service string) string {
	t.Helper()
	out, err := n.Cluster.Kubectl("-n", namespace, "get", "service", service, "-o", "jsonpath={.spec.clusterIP}")
	if err != nil {
		t.Fatal(err)
	}
	if net.ParseIP(out) == nil {
		t.Fatalf("Service %s/%s has no cluster IP, only %q", namespace, service, out)
	}
	return out
}

// WithClusterDNS is the command line that runs a program of this machine with the cluster's names: webhooks at
// http://tester.app.svc.cluster.local/ are found then, while this machine's own addresses stay what they are.
func (n *Node) WithClusterDNS(program string, args ...string) (string, []string) {
	const mount = `mount --make-rprivate / && mount --bind "$1" /etc/resolv.conf && shift && exec "$@"`
	return "unshare", append([]string{"--mount", "sh", "-c", mount, "sh", n.file("resolv.conf"), program}, args...)
}

// ClusterDNSWrapper writes a script that runs a program as WithClusterDNS does, for those who can only be told the path of
// one: world.Binaries{Spoke: wrapper}. The program keeps the script's process ID.
func (n *Node) ClusterDNSWrapper(program string) (path string, err error) {
	program, args := n.WithClusterDNS(program)
	line := "exec " + program
	for _, a := range args {
		line += " '" + strings.ReplaceAll(a, "'", `'\''`) + "'"
	}
	path = n.file("state", fmt.Sprintf("%s-with-cluster-dns", filepath.Base(args[len(args)-1])))
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+line+" \"$@\"\n"), 0o755); err != nil {
		return "", fmt.Errorf("write a wrapper of %s: %w", program, err)
	}
	return path, nil
}
