// Command notify is a notifier plugin of the spoke and of the hub: it tells Slack, Microsoft Teams, any
// receiver of webhooks, or the commit that a release was made of, how releases get on. One process tells one place, so
// that each can fail and be repeated alone; README.md says how each is set up.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/wheelwright-dev/wheelwright/pkg/buildinfo"
	"github.com/wheelwright-dev/wheelwright/pkg/pluginsdk"
)

func main() {
	log := pluginsdk.Logger()
	s, err := parse(os.Args[1:], os.Getenv, os.ReadFile, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(0)
	case err != nil:
		fmt.Fprintln(os.Stderr, "notify:", err)
		os.Exit(2)
	}
	n := &notifier{settings: s, log: log}
	if s.sample {
		if err := n.sendSample(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, "notify:", err)
			os.Exit(1)
		}
		return
	}
	pluginsdk.Serve(pluginsdk.Plugin{Name: "notify-" + s.kind, Version: buildinfo.Version(), Notifier: n, Log: log})
}
