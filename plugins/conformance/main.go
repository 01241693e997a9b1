// Command conformance is a conformance plugin of the spoke: at each moment of a delivery it runs what the
// release declares for it, which are the webhooks of Flagger's Canary objects, Jobs and Pods that are
// marked as tests, and the probes of wheelwright.yaml, and answers with one verdict. It keeps nothing and
// decides nothing else; README.md says what each means and what it needs.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/wheelwright-dev/wheelwright/pkg/buildinfo"
	"github.com/wheelwright-dev/wheelwright/pkg/pluginsdk"
)

func main() {
	log := pluginsdk.Logger()
	s, err := parse(os.Args[1:], os.ReadFile, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(0)
	case err != nil:
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(2)
	}
	c := newConformance(s, pluginsdk.Kubeconfig(), log)
	// What runs is told at once, so that it has the moment before the end to take away what it made.
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, os.Interrupt)
	go func() {
		<-ended
		close(c.ending)
	}()
	pluginsdk.Serve(pluginsdk.Plugin{Name: "conformance", Version: buildinfo.Version(), Conformance: c, Health: c.health, Log: log})
}
