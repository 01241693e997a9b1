// Command fluxssa applies manifests as the users of github.com/fluxcd/pkg/ssa do, so that our own
// applying can be measured beside it. It is a module of its own: nothing of it comes into the product.
//
//	fluxssa KUBECONFIG < lines, each the path of a manifest
//
// For each line it prints the seconds that applying took, without the process's start and the reading
// of the file.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/polling"
	"github.com/fluxcd/pkg/ssa"
	"github.com/fluxcd/pkg/ssa/normalize"
	"github.com/fluxcd/pkg/ssa/utils"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
)

// concurrency is the default of Flux's kustomize-controller (--concurrent-ssa).
const concurrency = 4

func main() {
	if err := run(context.Background(), os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "fluxssa:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, kubeconfig string) error {
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	cfg.QPS = -1 // Flux limits itself; here the server decides, as for the others
	cfg.UserAgent = "fluxssa"
	manager, err := newManager(cfg)
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		took, err := apply(ctx, manager, lines.Text())
		if err != nil {
			return err
		}
		fmt.Printf("%.6f\n", took.Seconds())
	}
	return lines.Err()
}

func newManager(cfg *rest.Config) (*ssa.ResourceManager, error) {
	http, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, err
	}
	mapper, err := apiutil.NewDynamicRESTMapper(cfg, http)
	if err != nil {
		return nil, err
	}
	c, err := client.New(cfg, client.Options{HTTPClient: http, Mapper: mapper})
	if err != nil {
		return nil, err
	}
	m := ssa.NewResourceManager(c, polling.NewStatusPoller(c, mapper, polling.Options{}), ssa.Owner{Field: "fluxssa", Group: "compare.wheelwright.dev"})
	m.SetConcurrency(concurrency)
	return m, nil
}

func apply(ctx context.Context, m *ssa.ResourceManager, path string) (time.Duration, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	objects, err := utils.ReadObjects(bufio.NewReader(f))
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	if err := normalize.UnstructuredList(objects); err != nil {
		return 0, err
	}
	m.SetOwnerLabels(objects, "compare", "default")
	if _, err := m.ApplyAllStaged(ctx, objects, ssa.DefaultApplyOptions()); err != nil {
		return 0, err
	}
	return time.Since(begin), nil
}
