package harness

import (
	"context"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sync/errgroup"
)

// startEtcdLocked starts the one etcd that all clusters share.
func (h *Harness) startEtcdLocked(ctx context.Context) error {
	for _, name := range h.needed() {
		if h.bin.Path(name) == "" {
			return fmt.Errorf("KUBEBUILDER_ASSETS=%s has no %s: add it, or unset the variable to have it built", os.Getenv("KUBEBUILDER_ASSETS"), name)
		}
	}
	if err := os.MkdirAll(h.dir, 0o755); err != nil {
		return fmt.Errorf("make the clusters' folder: %w", err)
	}
	for range portAttempts {
		ports, err := freePorts(1)
		if err != nil {
			return err
		}
		h.etcdURL = fmt.Sprintf("http://127.0.0.1:%d", ports[0])
		os.RemoveAll(filepath.Join(h.dir, "etcd"))
		h.etcd, err = startProcess("etcd", filepath.Join(h.dir, "etcd.log"), h.bin.Path("etcd"),
			"--data-dir", filepath.Join(h.dir, "etcd"), "--unsafe-no-fsync", "--log-level=warn",
			"--listen-client-urls", h.etcdURL, "--advertise-client-urls", h.etcdURL,
			"--listen-peer-urls", "http://127.0.0.1:0")
		if err != nil {
			return err
		}
		err = h.etcd.await(ctx, "etcd", func(ctx context.Context) error {
			return get(ctx, http.DefaultClient, h.etcdURL+"/health", nil)
		})
		if err == nil || !portTaken(h.etcd) {
			return err
		}
		h.etcd = nil
	}
	return fmt.Errorf("start etcd: %w", errNoPort)
}

func (h *Harness) needed() []string {
	names := []string{"etcd", "kube-apiserver", "kubectl"}
	if h.controllers {
		names = append(names, "kube-controller-manager", "kube-scheduler", "kwok")
	}
	return names
}

// start brings up one cluster; Grow stops the others when it fails.
func (c *Cluster) start(ctx context.Context) error {
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return fmt.Errorf("start cluster %s: %w", c.Name, err)
	}
	authority, err := c.writeCertificates()
	if err != nil {
		return fmt.Errorf("start cluster %s: %w", c.Name, err)
	}
	if err := os.WriteFile(c.file("audit-policy.yaml"), []byte(auditPolicy), 0o644); err != nil {
		return fmt.Errorf("start cluster %s: %w", c.Name, err)
	}
	if err := c.startAPIServer(ctx, authority); err != nil {
		return fmt.Errorf("start cluster %s: %w", c.Name, err)
	}
	if !c.harness.controllers {
		return nil
	}
	if err := c.startControllers(ctx); err != nil {
		return fmt.Errorf("start cluster %s: %w", c.Name, err)
	}
	return nil
}

func (c *Cluster) writeCertificates() (*authority, error) {
	a, err := newAuthority(c.dir)
	if err != nil {
		return nil, err
	}
	// 10.N.0.1 is the kubernetes Service's address.
	if err := a.issue("apiserver", pkix.Name{CommonName: "kube-apiserver"}, "127.0.0.1", "localhost",
		"kubernetes.default.svc", fmt.Sprintf("10.%d.0.1", c.network())); err != nil {
		return nil, err
	}
	for name, user := range map[string]string{"admin": "admin", "controlplane": controlPlaneUser} {
		if err := a.issue(name, pkix.Name{CommonName: user, Organization: []string{"system:masters"}}); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func (c *Cluster) network() int { return 100 + c.index }

func (c *Cluster) startAPIServer(ctx context.Context, a *authority) error {
	for range portAttempts {
		ports, err := freePorts(1)
		if err != nil {
			return err
		}
		url := fmt.Sprintf("https://127.0.0.1:%d", ports[0])
		c.Kubeconfig = c.file("kubeconfig")
		for file, user := range map[string]string{c.Kubeconfig: "admin", c.file("controlplane.kubeconfig"): "controlplane"} {
			if err := a.writeKubeconfig(file, c.Name, url, user); err != nil {
				return err
			}
		}
		p, err := c.run("kube-apiserver",
			"--etcd-servers="+c.harness.etcdURL, "--etcd-prefix=/"+c.Name,
			"--secure-port="+strconv.Itoa(ports[0]), "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
			"--endpoint-reconciler-type=none",
			"--tls-cert-file=apiserver.crt", "--tls-private-key-file=apiserver.key", "--client-ca-file=ca.crt",
			"--service-account-key-file=sa.key", "--service-account-signing-key-file=sa.key",
			"--service-account-issuer=https://kubernetes.default.svc",
			fmt.Sprintf("--service-cluster-ip-range=10.%d.0.0/16", c.network()),
			"--authorization-mode=RBAC", "--allow-privileged=true",
			"--audit-policy-file=audit-policy.yaml", "--audit-log-path="+c.auditLog(), "--audit-log-maxsize=1000")
		if err != nil {
			return err
		}
		if err := c.connect(); err != nil {
			return err
		}
		err = p.await(ctx, "the API server of "+c.Name, func(ctx context.Context) error {
			return c.get(ctx, "/readyz", nil)
		})
		if err == nil {
			c.processes = append(c.processes, p)
			return nil
		}
		if taken := portTaken(p); !taken {
			c.processes = append(c.processes, p)
			return err
		}
	}
	return fmt.Errorf("start kube-apiserver: %w", errNoPort)
}

// startControllers starts what makes workloads run, and waits for the simulated node and for the
// default namespace's service account, without which no pod can be made.
func (c *Cluster) startControllers(ctx context.Context) error {
	if err := writeStages(c.harness.bin.Path("stages"), c.file("stages.yaml")); err != nil {
		return err
	}
	const kubeconfig = "--kubeconfig=controlplane.kubeconfig"
	for _, command := range [][]string{
		{"kube-controller-manager", kubeconfig, "--service-account-private-key-file=sa.key", "--root-ca-file=ca.crt",
			"--use-service-account-credentials=true", "--leader-elect=false", "--secure-port=0",
			"--kube-api-qps=200", "--kube-api-burst=400"},
		{"kube-scheduler", kubeconfig, "--leader-elect=false", "--secure-port=0", "--kube-api-qps=200", "--kube-api-burst=400"},
		{"kwok", kubeconfig, "--manage-all-nodes=true", "--node-lease-duration-seconds=40", "--config=stages.yaml", "--node-port=0"},
	} {
		p, err := c.run(command[0], command[1:]...)
		if err != nil {
			return err
		}
		c.processes = append(c.processes, p)
	}
	if err := c.Apply(node); err != nil {
		return fmt.Errorf("add a simulated node: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	for i, path := range map[int]string{1: "/api/v1/namespaces/default/serviceaccounts/default", 3: "/api/v1/nodes/sim"} {
		p := c.processes[i]
		group.Go(func() error {
			return p.await(ctx, path+" of "+c.Name, func(ctx context.Context) error { return c.settled(ctx, path) })
		})
	}
	return group.Wait()
}

// settled checks that the object at path exists and, if it has conditions, is Ready.
func (c *Cluster) settled(ctx context.Context, path string) error {
	var object struct {
		Status struct {
			Conditions []struct{ Type, Status string }
		}
		Spec struct{ Taints []struct{ Key string } }
	}
	if err := c.get(ctx, path, &object); err != nil {
		return err
	}
	if len(object.Spec.Taints) > 0 {
		return fmt.Errorf("%s has taint %s", path, object.Spec.Taints[0].Key)
	}
	for _, condition := range object.Status.Conditions {
		if condition.Type == "Ready" && condition.Status != "True" {
			return fmt.Errorf("%s is not ready", path)
		}
	}
	return nil
}

// run starts one of the control plane's programs in the cluster's folder.
func (c *Cluster) run(program string, args ...string) (*process, error) {
	return startProcess(program+" of "+c.Name, c.file(program+".log"), c.harness.bin.Path(program), args...)
}

const node = `apiVersion: v1
kind: Node
metadata:
  name: sim
  labels: {kubernetes.io/hostname: sim, kubernetes.io/os: linux, kubernetes.io/arch: amd64}
  annotations: {kwok.x-k8s.io/node: fake}
`

func (a *authority) writeKubeconfig(path, cluster, url, user string) error {
	embed := func(name string) string {
		data, err := os.ReadFile(filepath.Join(a.dir, name))
		if err != nil {
			panic(err) // we wrote it a moment ago
		}
		return base64.StdEncoding.EncodeToString(data)
	}
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: %[1]s
  cluster: {server: "%[2]s", certificate-authority-data: %[4]s}
users:
- name: %[3]s
  user: {client-certificate-data: %[5]s, client-key-data: %[6]s}
contexts:
- name: %[1]s
  context: {cluster: %[1]s, user: %[3]s}
current-context: %[1]s
`, cluster, url, user, embed("ca.crt"), embed(user+".crt"), embed(user+".key"))
	return os.WriteFile(path, []byte(text), 0o600)
}
