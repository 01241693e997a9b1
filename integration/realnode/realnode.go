// Package realnode starts one real Kubernetes node on this machine, for the tests of `make e2e`: a cluster of package
// harness without its simulated node, and beside it containerd and runc, kubelet, kube-proxy (iptables) and CoreDNS,
// so that pods are processes, Services are packets, and Prometheus scrapes what the pods count. Images come from
// local builds; there is no registry, and pods reach nothing outside. It needs root on Linux and some packages; Need
// says which, and skips.
//
// The node lives in mount, network and process namespaces of its own, joined to this machine by one virtual link over
// which the Services', pods' and load balancers' addresses are reached. So nothing of it (mounts, iptables rules,
// bridges, containers) is this machine's, and all of it is gone with the process that started it, however that ends;
// what can remain of a killed run, folders and cgroups, is cleared by the next. One node at a time: a second Start waits.
//
// Stand-ins are a load balancer's addresses (cloud.go) and the reference distribution's ingress image (cmd/ingress).
//
//	func TestMain(m *testing.M) { realnode.Main(m) }
//
//	func TestSomething(t *testing.T) {
//		node := realnode.Shared(t)                     // skips where Need does
//		c := node.Cluster                              // Kubeconfig, RESTConfig(), Kubectl, Apply, NewNamespace, Requests
//		c.Apply(manifests)                             // images: PodinfoTags, the load tester, the ingress, ToolsImage, or node.Import
//		run, err := load.Start(t.Context(), load.Config{URL: "http://" + node.ServiceAddress(t, ns, "web") + ":9898", Rate: 20})
//		node.PrometheusURL                             // labels kubernetes_namespace, kubernetes_pod_name
//		flagger, err := node.StartFlagger(t.Context()) // provider kubernetes, metrics from that Prometheus
//		defer flagger.Stop()
//		report := run.Stop()                           // failures by second
//		program, args := node.WithClusterDNS(spoke, "run") // a process here that resolves the cluster's names;
//		wrapper, err := node.ClusterDNSWrapper(spoke)      // the same as one path, for package world
//	}
package realnode

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wheelwright-dev/wheelwright/integration/child"
	"github.com/wheelwright-dev/wheelwright/integration/controlplane"
	"github.com/wheelwright-dev/wheelwright/integration/harness"
)

// Options says what Start brings up. The zero value will do.
type Options struct {
	Dir            string        // state and logs; empty: a temporary folder that Stop removes
	Log            io.Writer     // progress; nil: nothing
	ScrapeInterval time.Duration // Prometheus'; zero: one second
}

// Name of the node.
const Name = "real"

// Node is a running cluster with one real node.
type Node struct {
	Cluster       *harness.Cluster
	PrometheusURL string // on this machine's loopback; PrometheusInside for pods and what runs on the node

	options Options
	dir     string
	ownDir  bool
	keep    bool // the logs, for a person to read
	bin     controlplane.Dir
	harness *harness.Harness
	machine *machine
	unlock  func() error
	closers []func() error // what is ours in this process, in the order of its making
	parts   []*child.Process
}

// Start brings up the node and returns once it is Ready, has its images, and answers names. What it
// started is stopped again when it fails; its logs stay then. Cancelling ctx later does not stop the node: Stop does.
func Start(ctx context.Context, o Options) (*Node, error) {
	if o.Log == nil {
		o.Log = io.Discard
	}
	if o.ScrapeInterval == 0 {
		o.ScrapeInterval = time.Second
	}
	if os.Getenv("WHEELWRIGHT_KUBECONFIGS") != "" {
		return nil, errors.New("start a real node: WHEELWRIGHT_KUBECONFIGS names clusters to use instead, and this cannot join them: unset it")
	}
	if missing := Missing(); missing != "" {
		return nil, fmt.Errorf("start a real node: %s", missing)
	}
	n := &Node{options: o}
	if err := n.start(ctx); err != nil {
		n.keep = true
		return nil, errors.Join(fmt.Errorf("start a real node: %w; its logs are in %s", err, n.dir), n.Stop())
	}
	return n, nil
}

func (n *Node) start(ctx context.Context) error {
	var err error
	if n.bin, err = controlplane.Binaries(ctx, n.options.Log, binaries()...); err != nil {
		return err
	}
	for _, name := range binaries() {
		if n.bin.Path(name) == "" {
			return fmt.Errorf("KUBEBUILDER_ASSETS=%s has no %s: add it, or unset the variable to have it built", os.Getenv("KUBEBUILDER_ASSETS"), name)
		}
	}
	if n.unlock, err = lock(ctx, n.options.Log); err != nil {
		return err
	}
	begin := time.Now()
	if err := sweep(); err != nil {
		return fmt.Errorf("clear what an earlier node left: %w", err)
	}
	if err := n.makeFolders(); err != nil {
		return err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		n.harness, err = harness.Start(groupCtx, harness.Options{Clusters: 1, Dir: filepath.Join(n.dir, "cluster"), Log: n.options.Log, Controllers: true, NoNode: true})
		return err
	})
	group.Go(func() error { return n.startRuntime(groupCtx) })
	if err := group.Wait(); err != nil {
		return err
	}
	n.Cluster = n.harness.Clusters()[0]
	if err := n.joinCluster(ctx); err != nil {
		return err
	}
	fmt.Fprintf(n.options.Log, "realnode: ready after %.1f s in %s\n", time.Since(begin).Seconds(), n.dir)
	return nil
}

// Build makes what a node and Flagger on it need into the cache, where it is not there yet: from nothing about
// twenty minutes on two cores.
func Build(ctx context.Context, progress io.Writer) error {
	if _, err := controlplane.Binaries(ctx, progress); err != nil {
		return err
	}
	_, err := controlplane.Binaries(ctx, progress, append(binaries(), "flagger")...)
	return err
}

// binaries are what the node needs beside the harness's own.
func binaries() []string {
	return []string{"kubelet", "kube-proxy", "coredns", "prometheus", "podinfo", "podcli", "loadtester", "hey"}
}

func (n *Node) makeFolders() (err error) {
	if n.dir = n.options.Dir; n.dir == "" {
		n.ownDir = true
		n.dir, err = os.MkdirTemp("", folderPrefix)
	} else {
		n.dir, err = filepath.Abs(n.dir)
	}
	if err != nil {
		return fmt.Errorf("choose a folder: %w", err)
	}
	if err := os.WriteFile(dirFile, []byte(n.dir), 0o644); err != nil {
		return err
	}
	for _, name := range append([]string{"logs", "cluster"}, bulk[:]...) {
		if err := os.MkdirAll(n.file(name), 0o755); err != nil {
			return err
		}
	}
	return nil
}

func (n *Node) file(parts ...string) string {
	return filepath.Join(append([]string{n.dir}, parts...)...)
}

func (n *Node) log(name string) string { return n.file("logs", name+".log") }

// startRuntime starts the machine and containerd, and imports the images.
func (n *Node) startRuntime(ctx context.Context) error {
	programs, err := n.buildPrograms(ctx)
	if err != nil {
		return err
	}
	if n.machine, err = startMachine(ctx, n.dir, programs.pause); err != nil {
		return err
	}
	if err := n.startContainerd(ctx); err != nil {
		return err
	}
	images, err := n.standardImages(ctx, programs)
	if err != nil {
		return err
	}
	return n.Import(ctx, images...)
}

// joinCluster starts what needs the API server, and waits for all of it.
func (n *Node) joinCluster(ctx context.Context) error {
	for _, step := range []func(context.Context) error{n.forwardAPIServer, n.startKubelet, n.startProxy, n.startDNS, n.startPrometheus, n.startCloud, n.awaitReady} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// part starts a program on this machine that Stop ends.
func (n *Node) part(name, program string, args ...string) (*child.Process, error) {
	p, err := child.Start(name, n.log(name), nil, program, args...)
	if err == nil {
		n.parts = append(n.parts, p)
	}
	return p, err
}

// inside starts a program on the node that Stop ends.
func (n *Node) inside(name, program string, args ...string) (*child.Process, error) {
	program, args = n.machine.enter(program, args...)
	return n.part(name, program, args...)
}

// Dir is where the logs are.
func (n *Node) Dir() string { return n.dir }

// Keep leaves the logs there when the node stops.
func (n *Node) Keep() { n.keep = true }

// Stop ends every process and pod and takes away all that the node had. It returns an error that names what had
// ended by itself.
func (n *Node) Stop() error {
	var errs []error
	for _, end := range slices.Backward(n.closers) {
		errs = append(errs, end())
	}
	for _, p := range slices.Backward(n.parts) {
		errs = append(errs, p.Stop())
	}
	if n.machine != nil {
		errs = append(errs, n.machine.stop())
	}
	if n.harness != nil {
		errs = append(errs, n.harness.Stop())
	}
	if err := errors.Join(errs...); err != nil {
		n.keep = true
	}
	if n.dir != "" {
		errs = append(errs, removeBulk(n.dir), os.Remove(dirFile))
	}
	if n.ownDir && !n.keep {
		errs = append(errs, os.RemoveAll(n.dir))
	}
	if n.unlock != nil {
		errs = append(errs, n.unlock())
	}
	n.parts, n.machine, n.harness, n.closers, n.unlock = nil, nil, nil, nil, nil
	return errors.Join(errs...)
}
