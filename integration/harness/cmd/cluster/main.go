// Command cluster runs real Kubernetes clusters in the foreground, for people: it prints one
// kubeconfig a line and stops them at Ctrl-C.
//
//	go run ./integration/harness/cmd/cluster -n 3
//	go run ./integration/harness/cmd/cluster -build     # only fill the cache of binaries
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
)

func main() {
	n := flag.Int("n", 1, "number of clusters")
	dir := flag.String("dir", "", "folder for state and logs (default: a temporary one, removed at the end)")
	build := flag.Bool("build", false, "build the control plane's binaries where they are missing, and stop")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *n, *dir, *build, os.Stdout); err != nil {
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
