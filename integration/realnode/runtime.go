package realnode

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"sigs.k8s.io/yaml"
)

func (n *Node) socket() string { return n.file("state", "containerd.sock") }

// startContainerd starts containerd with all of its state in the node's folder.
func (n *Node) startContainerd(ctx context.Context) error {
	network := map[string]any{"cniVersion": "1.0.0", "name": "wheelwright-node", "plugins": []any{map[string]any{
		"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
		"ipam": map[string]any{"type": "host-local", "dataDir": n.file("cni", "addresses"),
			"ranges": []any{[]any{map[string]any{"subnet": podNetwork}}}, "routes": []any{map[string]any{"dst": "0.0.0.0/0"}}},
	}}}
	list, err := json.Marshal(network)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(n.file("cni", "net.d"), 0o755); err != nil {
		return err
	}
	// Without restrict_oom_score_adj no container starts on a machine that lacks CAP_SYS_RESOURCE.
	config := fmt.Sprintf(`version = 2
root = %q
state = %q
[grpc]
address = %q
[plugins."io.containerd.internal.v1.opt"]
path = %q
[plugins."io.containerd.grpc.v1.cri"]
restrict_oom_score_adj = true
sandbox_image = %q
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = %q
conf_dir = %q
`, n.file("state", "containerd"), n.file("state", "run"), n.socket(), n.file("state", "opt"), pauseImage, pluginFolder(), n.file("cni", "net.d"))
	if err := errors.Join(os.WriteFile(n.file("cni", "net.d", "10-bridge.conflist"), list, 0o644),
		os.WriteFile(n.file("containerd.toml"), []byte(config), 0o644)); err != nil {
		return err
	}
	p, err := n.inside("containerd", "containerd", "--config", n.file("containerd.toml"))
	if err != nil {
		return err
	}
	return p.Await(ctx, "containerd", func(ctx context.Context) error {
		_, err := n.ctr(ctx, "plugins", "ls", "id==cri")
		return err
	})
}

// ctr runs containerd's own client on the namespace that kubelet uses.
func (n *Node) ctr(ctx context.Context, args ...string) (string, error) {
	program, line := n.machine.enter("ctr", append([]string{"--address", n.socket(), "--namespace", "k8s.io"}, args...)...)
	return run(ctx, append([]string{program}, line...)...)
}

// writeYAML writes a component's configuration file and returns its path.
func (n *Node) writeYAML(name string, content map[string]any) (string, error) {
	data, err := yaml.Marshal(content)
	if err != nil {
		return "", err
	}
	return n.file(name), os.WriteFile(n.file(name), data, 0o644)
}

func (n *Node) startKubelet(context.Context) error {
	kubeconfig, err := n.Cluster.KubeconfigFor("kubelet", forwardedAPI, "system:node:"+Name, "system:nodes")
	if err != nil {
		return err
	}
	certificate, key, err := n.Cluster.ServerCertificate("kubelet-serving", nodeAddress, Name)
	if err != nil {
		return err
	}
	config, err := n.writeYAML("kubelet.yaml", map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"authentication": map[string]any{"anonymous": map[string]any{"enabled": false}, "webhook": map[string]any{"enabled": true},
			"x509": map[string]any{"clientCAFile": n.Cluster.AuthorityFile()}},
		"authorization": map[string]any{"mode": "Webhook"},
		"tlsCertFile":   certificate, "tlsPrivateKeyFile": key,
		"cgroupDriver": "cgroupfs", "cgroupRoot": "/" + cgroup, "failCgroupV1": false, "failSwapOn": false,
		"containerRuntimeEndpoint": "unix://" + n.socket(),
		"clusterDNS":               []string{n.serviceAddress(10)}, "clusterDomain": "cluster.local", "resolvConf": "",
		"podLogsDir": n.file("state", "pods"), "volumePluginDir": n.file("state", "volume-plugins"),
		// A developer's disk may be full beyond what a node of a fleet would bear.
		"evictionHard":                map[string]string{"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
		"imageGCHighThresholdPercent": 100, "imageGCLowThresholdPercent": 99,
	})
	if err != nil {
		return err
	}
	_, err = n.inside("kubelet", n.bin.Path("kubelet"), "--config", config, "--kubeconfig", kubeconfig,
		"--root-dir", n.file("state", "kubelet"), "--hostname-override", Name, "--node-ip", nodeAddress)
	return err
}

func (n *Node) startProxy(ctx context.Context) error {
	kubeconfig, err := n.Cluster.KubeconfigFor("kube-proxy", forwardedAPI, "system:kube-proxy")
	if err != nil {
		return err
	}
	config, err := n.writeYAML("kube-proxy.yaml", map[string]any{
		"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
		"clientConnection": map[string]any{"kubeconfig": kubeconfig},
		"clusterCIDR":      podNetwork, "mode": "iptables", "hostnameOverride": Name,
		// The table's size is this machine's.
		"conntrack": map[string]any{"maxPerCore": 0, "min": 0},
	})
	if err != nil {
		return err
	}
	services := n.Cluster.ServiceNetwork()
	if err := errors.Join(n.machine.route(ctx, services), n.machine.ownRoute(ctx, services)); err != nil {
		return err
	}
	_, err = n.inside("kube-proxy", n.bin.Path("kube-proxy"), "--config", config)
	return err
}

// serviceAddress is the i-th address of the Services' network.
func (n *Node) serviceAddress(i int) string {
	return fmt.Sprintf("%s.%d", strings.TrimSuffix(n.Cluster.ServiceNetwork(), ".0/16"), i)
}
