// Package harness starts real Kubernetes clusters for tests, people and the demo: API server,
// controller manager and scheduler of the version pinned in integration/controlplane, and kwok for
// the kubelets, so that pods become ready without containers. Several clusters share one etcd.
//
// WHEELWRIGHT_KUBECONFIGS (a list separated by ':') names existing clusters to use instead; package
// controlplane has the variables for the binaries.
//
// It does not run containers: what a pod does is decided by its image's name and its annotations,
// see stages.go.
package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wheelwright-dev/wheelwright/integration/child"
	"github.com/wheelwright-dev/wheelwright/integration/controlplane"
)

// Options says what Start brings up.
type Options struct {
	Clusters    int
	Dir         string    // state and logs; empty: a temporary folder that Stop removes
	Log         io.Writer // progress; nil: nothing
	Controllers bool      // controller manager, scheduler and kwok too; without them nothing ever runs
	NoNode      bool      // no kwok and no simulated node: the caller brings a real one, as package realnode does
}

// Harness is a set of running clusters.
type Harness struct {
	dir         string
	ownDir      bool
	log         io.Writer
	controllers bool
	noNode      bool
	bin         controlplane.Dir

	mu       sync.Mutex
	existing []string // kubeconfigs of clusters that are not ours
	etcd     *child.Process
	etcdURL  string
	clusters []*Cluster
}

// Start brings up the clusters and returns once each has a ready node (or, without controllers, a
// ready API server). Whatever it started is stopped again when it fails. Cancelling ctx later does
// not stop the clusters: Stop does.
func Start(ctx context.Context, o Options) (*Harness, error) {
	h := &Harness{dir: o.Dir, log: o.Log, controllers: o.Controllers, noNode: o.NoNode}
	if h.log == nil {
		h.log = io.Discard
	}
	if list := os.Getenv("WHEELWRIGHT_KUBECONFIGS"); list != "" {
		h.existing = strings.Split(list, ":")
	}
	if err := h.prepare(ctx); err != nil {
		return nil, err
	}
	if err := h.Grow(ctx, o.Clusters); err != nil {
		h.Stop()
		return nil, err
	}
	return h, nil
}

func (h *Harness) prepare(ctx context.Context) error {
	var names []string // all
	if h.existing != nil {
		names = []string{"kubectl"}
	}
	bin, err := controlplane.Binaries(ctx, h.log, names...)
	if err != nil {
		return err
	}
	h.bin = bin
	if h.existing != nil {
		return nil
	}
	if h.dir == "" {
		h.ownDir = true
		h.dir, err = os.MkdirTemp("", "wheelwright-clusters-")
	} else {
		h.dir, err = filepath.Abs(h.dir)
	}
	if err != nil {
		return fmt.Errorf("choose a folder for the clusters: %w", err)
	}
	return nil
}

// Grow starts more clusters until there are n.
func (h *Harness) Grow(ctx context.Context, n int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.existing != nil {
		return h.adoptLocked(n)
	}
	if n <= len(h.clusters) {
		return nil
	}
	begin := time.Now()
	if h.etcd == nil {
		if err := h.startEtcdLocked(ctx); err != nil {
			return err
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	for i := len(h.clusters); i < n; i++ {
		c := newCluster(h, i)
		h.clusters = append(h.clusters, c)
		group.Go(func() error { return c.start(ctx) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	fmt.Fprintf(h.log, "harness: %d clusters ready after %.1f s in %s\n", n, time.Since(begin).Seconds(), h.dir)
	return nil
}

// adoptLocked takes the clusters named in WHEELWRIGHT_KUBECONFIGS.
func (h *Harness) adoptLocked(n int) error {
	if n > len(h.existing) {
		return fmt.Errorf("WHEELWRIGHT_KUBECONFIGS names %d clusters, %d are needed: name more, or unset it to have clusters started", len(h.existing), n)
	}
	for i := len(h.clusters); i < n; i++ {
		c := newCluster(h, i)
		c.Kubeconfig = h.existing[i]
		if err := c.adopt(); err != nil {
			return err
		}
		h.clusters = append(h.clusters, c)
	}
	return nil
}

// Clusters returns the running clusters in the order of their start.
func (h *Harness) Clusters() []*Cluster {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]*Cluster(nil), h.clusters...)
}

// Dir is where logs and kubeconfigs are.
func (h *Harness) Dir() string { return h.dir }

// Stop ends every process, waits for it, and removes the state, unless Options.Dir named a folder:
// there the logs stay. It returns an error that names the processes which had ended by themselves.
func (h *Harness) Stop() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var errs []error
	for _, c := range h.clusters {
		errs = append(errs, c.stop())
	}
	if h.etcd != nil {
		errs = append(errs, h.etcd.Stop())
	}
	h.clusters, h.etcd = nil, nil
	err := errors.Join(errs...)
	switch {
	case h.dir == "":
	case h.ownDir && err == nil:
		os.RemoveAll(h.dir)
	default:
		os.RemoveAll(filepath.Join(h.dir, "etcd"))
	}
	return err
}
