// Command cluster runs real Kubernetes clusters in the foreground, for people: it prints one
// kubeconfig a line and stops them at Ctrl-C.
//
//	go run ./integration/harness/cmd/cluster -n 3
//	go run ./integration/harness/cmd/cluster -build     # only fill the cache of binaries
//	go run ./integration/harness/cmd/cluster -real      # one cluster with a real node: root on Linux
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/wheelwright-dev/wheelwright/integration/controlplane"
	"github.com/wheelwright-dev/wheelwright/integration/harness"
	"github.com/wheelwright-dev/wheelwright/integration/realnode"
)

func main() {
	n := flag.Int("n", 1, "number of clusters")
	dir := flag.String("dir", "", "folder for state and logs (default: a temporary one, removed at the end)")
	build := flag.Bool("build", false, "build the binaries where they are missing, and stop")
	real := flag.Bool("real", false, "one cluster whose pods really run, with Prometheus and names")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	act := func() error { return run(ctx, *n, *dir, *build, os.Stdout) }
	if *real {
		act = func() error { return runReal(ctx, *dir, *build, os.Stdout) }
	}
	if err := act(); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, n int, dir string, build bool, out io.Writer) error {
	if build {
		_, err := controlplane.Binaries(ctx, os.Stderr)
		return err
	}
	h, err := harness.Start(ctx, harness.Options{Clusters: n, Dir: dir, Log: os.Stderr, Controllers: true})
	if err != nil {
		return err
	}
	for _, c := range h.Clusters() {
		fmt.Fprintln(out, c.Kubeconfig)
	}
	fmt.Fprintln(os.Stderr, "Try `kubectl --kubeconfig FILE get nodes`; Ctrl-C stops the clusters.")
	<-ctx.Done()
	return h.Stop()
}

func runReal(ctx context.Context, dir string, build bool, out io.Writer) error {
	if missing := realnode.Missing(); build && missing != "" {
		fmt.Fprintln(os.Stderr, "cluster: no real node can be had here: "+missing)
		return nil
	}
	if build {
		return realnode.Build(ctx, os.Stderr)
	}
	node, err := realnode.Start(ctx, realnode.Options{Dir: dir, Log: os.Stderr})
	if err != nil {
		return err
	}
	fmt.Fprintln(out, node.Cluster.Kubeconfig)
	fmt.Fprintln(os.Stderr, "Prometheus is at "+node.PrometheusURL+"; images are "+realnode.PodinfoImage("6.9.2")+", "+realnode.ToolsImage+" and others. Ctrl-C stops the node.")
	<-ctx.Done()
	return node.Stop()
}
