package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/wheelwright-dev/wheelwright/hub"
	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
)

func (a *app) serveCommand() *cobra.Command {
	var cfg hub.Config
	var level, format string
	c := &cobra.Command{
		Use:   "serve --data DIR",
		Short: "Run a hub",
		Long: `serve runs a hub on the data folder DIR. The first start creates the folder, the hub's certificate
authority and DIR/admin.yaml, the context with which the other commands speak to it.

It runs the notifier plugins that hub.yaml names, which tell people how rollouts end and git hosts how far
each release has come in the fleet; deploy/examples/hub.yaml shows every key.

It stops on SIGINT or SIGTERM after the calls under way; whatever it acknowledged survives being killed.`,
		Example: "  hub serve --data ./hub-data --listen :7443 --advertise hub.example.com:7443",
		Args:    args(0, 0, "no argument"),
		RunE: func(c *cobra.Command, _ []string) error {
			log, err := logging.New(a.err, level, format)
			if err != nil {
				return exitcode.With(exitcode.Usage, err)
			}
			if cfg.Dir == "" {
				return exitcode.With(exitcode.Usage, fmt.Errorf("which data folder? Name it: `hub serve --data DIR`; it is created where it does not exist"))
			}
			cfg.Log = log
			return exitcode.With(exitcode.Failed, hub.Run(c.Context(), cfg, func(i hub.Info) {
				if i.FirstStart {
					fmt.Fprintf(a.err, "hub: new data folder %s\n", cfg.Dir)
				}
				fmt.Fprintf(a.err, "hub: serving on %s; in another terminal:\n\n  export %s=%s\n  hub status\n\n", i.Addr, contextVariable, i.AdminContext)
			}))
		},
	}
	c.Flags().StringVar(&cfg.Dir, "data", "", "data `DIR`")
	c.Flags().StringVar(&cfg.File, "config", "", "hub.yaml `FILE`; flags win over it")
	c.Flags().StringVar(&cfg.Listen, "listen", "", "`ADDR` to listen on (default 127.0.0.1:7443)")
	c.Flags().StringVar(&cfg.Advertise, "advertise", "", "`HOST:PORT` that spokes and operators dial (default: the listen address)")
	c.Flags().StringVar(&cfg.Metrics, "metrics", "", "`ADDR` for /metrics, /healthz and /readyz (default: none)")
	c.Flags().StringVar(&cfg.Debug, "debug", "", "loopback `ADDR` for the profiles of /debug/pprof/ (default: none)")
	c.Flags().Int64Var(&cfg.BundleRate, "bundle-rate", 0, "`BYTES` of bundles a second, to all spokes together (default: no limit)")
	c.Flags().Int64Var(&cfg.BundleFetches, "bundle-fetches", 0, "send `N` bundles at once, the others wait their turn (default 256)")
	c.Flags().StringVar(&level, "log-level", "info", "debug, info, warn or error")
	c.Flags().StringVar(&format, "log-format", "text", "text or json")
	return c
}
