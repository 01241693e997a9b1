package realnode

import (
	"context"
	"fmt"

	"github.com/wheelwright-dev/wheelwright/integration/child"
	"github.com/wheelwright-dev/wheelwright/integration/controlplane"
)

// Flagger is a running Flagger.
type Flagger struct {
	Log     string // the file with its log, JSON by line
	process *child.Process
}

// StartFlagger installs Flagger's CRDs and runs Flagger itself on the node, with the kubernetes provider and the
// node's Prometheus. It resolves the cluster's names, and it is not a pod: its requests to the API server can be
// counted by the user agent "flagger". The node stops it too.
func (n *Node) StartFlagger(ctx context.Context) (*Flagger, error) {
	bin, err := controlplane.Binaries(ctx, n.options.Log, "flagger")
	if err != nil {
		return nil, err
	}
	if err := n.Cluster.InstallFlaggerCRD(ctx); err != nil {
		return nil, fmt.Errorf("install Flagger's CRDs: %w", err)
	}
	kubeconfig, err := n.Cluster.KubeconfigFor("flagger", forwardedAPI, "flagger", "system:masters")
	if err != nil {
		return nil, err
	}
	program, args := n.machine.enter(bin.Path("flagger"), "-kubeconfig", kubeconfig, "-mesh-provider", "kubernetes",
		"-metrics-server", PrometheusInside, "-log-level", "info", "-port", "8080")
	p, err := child.Start("flagger", n.log("flagger"), nil, program, args...)
	if err != nil {
		return nil, err
	}
	f := &Flagger{Log: p.Log, process: p}
	if err := p.Await(ctx, "Flagger", func(ctx context.Context) error { return answers(ctx, "http://"+nodeAddress+":8080/healthz") }); err != nil {
		_ = p.Stop()
		return nil, err
	}
	n.closers = append(n.closers, f.Stop)
	return f, nil
}

// Stop ends Flagger. What it made stays in the cluster. A second time does nothing.
func (f *Flagger) Stop() error {
	if f.process == nil {
		return nil
	}
	p := f.process
	f.process = nil
	return p.Stop()
}
