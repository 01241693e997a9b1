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

	"github.com/wheelwright-dev/wheelwright/integration/child"
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
	for range child.PortAttempts {
		ports, err := child.FreePorts(1)
		if err != nil {
			return err
		}
		h.etcdURL = fmt.Sprintf("http://127.0.0.1:%d", ports[0])
		os.RemoveAll(filepath.Join(h.dir, "etcd"))
		h.etcd, err = child.Start("etcd", filepath.Join(h.dir, "etcd.log"), nil, h.bin.Path("etcd"),
			"--data-dir", filepath.Join(h.dir, "etcd"), "--unsafe-no-fsync", "--log-level=warn",
			"--listen-client-urls", h.etcdURL, "--advertise-client-urls", h.etcdURL,
			"--listen-peer-urls", "http://127.0.0.1:0")
		if err != nil {
			return err
		}
		err = h.etcd.Await(ctx, "etcd", func(ctx context.Context) error {
			return get(ctx, http.DefaultClient, h.etcdURL+"/health", nil)
		})
		if err == nil || !h.etcd.PortTaken() {
			return err
		}
		h.etcd = nil
	}
	return fmt.Errorf("start etcd: %w", child.ErrNoPort)
}

func (h *Harness) needed() []string {
	names := []string{"etcd", "kube-apiserver", "kubectl"}
	if h.controllers {
		names = append(names, "kube-controller-manager", "kube-scheduler")
	}
	if h.controllers && !h.noNode {
		names = append(names, "kwok")
	}
	return names
}

// start brings up one cluster; Grow stops the others when it fails.
func (c *Cluster) start(ctx context.Context) error {
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return fmt.Errorf("start cluster %s: %w", c.Name, err)
	}
	var err error
	if c.authority, err = c.writeCertificates(); err != nil {
		return fmt.Errorf("start cluster %s: %w", c.Name, err)
	}
	if err := os.WriteFile(c.file("audit-policy.yaml"), []byte(auditPolicy), 0o644); err != nil {
		return fmt.Errorf("start cluster %s: %w", c.Name, err)
	}
	if err := c.startAPIServer(ctx); err != nil {
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

// ServiceNetwork is where the addresses of the cluster's Services come from.
func (c *Cluster) ServiceNetwork() string { return fmt.Sprintf("10.%d.0.0/16", c.network()) }

func (c *Cluster) startAPIServer(ctx context.Context) error {
	for range child.PortAttempts {
		ports, err := child.FreePorts(1)
		if err != nil {
			return err
		}
		url := fmt.Sprintf("https://127.0.0.1:%d", ports[0])
		c.Kubeconfig = c.file("kubeconfig")
		for file, user := range map[string]string{c.Kubeconfig: "admin", c.file("controlplane.kubeconfig"): "controlplane"} {
			if err := c.authority.writeKubeconfig(file, c.Name, url, "", user); err != nil {
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
			"--service-cluster-ip-range="+c.ServiceNetwork(),
			"--authorization-mode="+c.authorizers(), "--allow-privileged=true",
			// How it reaches a real node's kubelet, for logs and exec.
			"--kubelet-certificate-authority=ca.crt", "--kubelet-preferred-address-types=InternalIP",
			"--kubelet-client-certificate=controlplane.crt", "--kubelet-client-key=controlplane.key",
			"--audit-policy-file=audit-policy.yaml", "--audit-log-path="+c.auditLog(), "--audit-log-maxsize=1000")
		if err != nil {
			return err
		}
		if err := c.connect(); err != nil {
			return err
		}
		err = p.Await(ctx, "the API server of "+c.Name, func(ctx context.Context) error {
			return c.get(ctx, "/readyz", nil)
		})
		if err == nil {
			c.processes = append(c.processes, p)
			return nil
		}
		if taken := p.PortTaken(); !taken {
			c.processes = append(c.processes, p)
			return err
		}
	}
	return fmt.Errorf("start kube-apiserver: %w", child.ErrNoPort)
}

func (c *Cluster) authorizers() string {
	if c.harness.noNode {
		return "Node,RBAC"
	}
	return "RBAC"
}

// startControllers starts what makes workloads run, and waits for the simulated node and for the
// default namespace's service account, without which no pod can be made.
func (c *Cluster) startControllers(ctx context.Context) error {
	const kubeconfig = "--kubeconfig=controlplane.kubeconfig"
	commands := [][]string{
		{"kube-controller-manager", kubeconfig, "--service-account-private-key-file=sa.key", "--root-ca-file=ca.crt",
			"--use-service-account-credentials=true", "--leader-elect=false", "--secure-port=0",
			"--kube-api-qps=200", "--kube-api-burst=400"},
		{"kube-scheduler", kubeconfig, "--leader-elect=false", "--secure-port=0", "--kube-api-qps=200", "--kube-api-burst=400"},
	}
	settled := map[int]string{1: "/api/v1/namespaces/default/serviceaccounts/default"} // by the process that it needs
	if !c.harness.noNode {
		if err := writeStages(c.harness.bin.Path("stages"), c.file("stages.yaml")); err != nil {
			return err
		}
		commands = append(commands, []string{"kwok", kubeconfig, "--manage-all-nodes=true", "--node-lease-duration-seconds=40", "--config=stages.yaml", "--node-port=0"})
		settled[3] = "/api/v1/nodes/sim"
	}
	for _, command := range commands {
		p, err := c.run(command[0], command[1:]...)
		if err != nil {
			return err
		}
		c.processes = append(c.processes, p)
	}
	if !c.harness.noNode {
		if err := c.Apply(node); err != nil {
			return fmt.Errorf("add a simulated node: %w", err)
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	for i, path := range settled {
		p := c.processes[i]
		group.Go(func() error {
			return p.Await(ctx, path+" of "+c.Name, func(ctx context.Context) error { return c.settled(ctx, path) })
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
func (c *Cluster) run(program string, args ...string) (*child.Process, error) {
	return child.Start(program+" of "+c.Name, c.file(program+".log"), nil, c.harness.bin.Path(program), args...)
}

const node = `apiVersion: v1
kind: Node
metadata:
  name: sim
  labels: {kubernetes.io/hostname: sim, kubernetes.io/os: linux, kubernetes.io/arch: amd64}
  annotations: {kwok.x-k8s.io/node: fake}
`

// writeKubeconfig writes one for the user, whose certificate was issued under that name. serverName is the name to
// expect in the server's certificate where it is not the url's.
func (a *authority) writeKubeconfig(path, cluster, url, serverName, user string) error {
	embed := func(name string) string {
		data, err := os.ReadFile(filepath.Join(a.dir, name))
		if err != nil {
			panic(err) // we wrote it a moment ago
		}
		return base64.StdEncoding.EncodeToString(data)
	}
	expected := ""
	if serverName != "" {
		expected = ", tls-server-name: " + serverName
	}
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: %[1]s
  cluster: {server: "%[2]s", certificate-authority-data: %[4]s%[7]s}
users:
- name: %[3]s
  user: {client-certificate-data: %[5]s, client-key-data: %[6]s}
contexts:
- name: %[1]s
  context: {cluster: %[1]s, user: %[3]s}
current-context: %[1]s
`, cluster, url, user, embed("ca.crt"), embed(user+".crt"), embed(user+".key"), expected)
	return os.WriteFile(path, []byte(text), 0o600)
}
