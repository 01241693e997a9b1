// Command canary is the canary plugin of the spoke: it leads live traffic to a new release step by step,
// measures, and leads it back. It is told everything with every call and keeps nothing: what is left of
// one call is in the cluster's own objects. README.md is its reference.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/wheelwright-dev/wheelwright/pkg/buildinfo"
	"github.com/wheelwright-dev/wheelwright/pkg/pluginsdk"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/cluster"
	"github.com/wheelwright-dev/wheelwright/plugins/internal/kube"
)

func main() {
	log := pluginsdk.Logger()
	s, err := parse(os.Args[1:], os.Getenv, os.ReadFile, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(0)
	case err != nil:
		fmt.Fprintln(os.Stderr, "canary:", err)
		os.Exit(2)
	}
	pluginsdk.Serve(pluginsdk.Plugin{Name: "canary", Version: buildinfo.Version(), Canary: newCanary(s, open, log), Log: log})
}

// open takes the credentials that the spoke gives now.
func open() (cluster.Server, func(), error) {
	path := pluginsdk.Kubeconfig()
	if path == "" {
		return nil, nil, errors.New("the plugin has no credentials for the cluster: give it permissions in spoke.yaml; plugins/canary/README.md lists them")
	}
	client, err := kube.Open(path)
	if err != nil {
		return nil, nil, err
	}
	return client, client.Close, nil
}
