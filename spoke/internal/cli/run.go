package cli

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/redact"
	"github.com/wheelwright-dev/wheelwright/spoke"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/apply"
)

// configName is the configuration's name in the data folder, where --config names no other.
const configName = "spoke.yaml"

func (a *app) runCommand() *cobra.Command {
	var file, level, format string
	c := &cobra.Command{
		Use:   "run --data DIR",
		Short: "Run the spoke",
		Long: `run keeps the cluster on the releases that you want, as spoke.yaml says; that file is read again when it
changes. The hub may be away at any time: what runs is kept as it is.

It stops on SIGINT or SIGTERM and goes on where it was when it is started again, also after being killed.`,
		Example: "  spoke run --data ./spoke-data --config ./spoke.yaml",
		Args:    arguments(0, 0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			log, err := logging.New(a.err, level, format)
			if err != nil {
				return exitcode.With(exitcode.Usage, err)
			}
			dir, err := a.data(true)
			if err != nil {
				return err
			}
			cfg := spoke.Config{Dir: dir, File: cmp.Or(file, filepath.Join(dir, configName)), Log: log, Private: redact.New()}
			apply.LogTo(slog.New(cfg.Private.Handler(log.Handler())))
			err = spoke.Run(c.Context(), cfg, func(i spoke.Info) {
				fmt.Fprintf(a.err, "spoke: running for %s at %s, subscriptions in %s: %d; in another terminal: spoke status --data %s\n", i.Cluster, i.Hub, cfg.File, i.Subscriptions, dir)
			})
			if err != nil { // it is printed where the log is
				err = errors.New(cfg.Private.Text(err.Error()))
			}
			return exitcode.With(exitcode.Failed, err)
		},
	}
	c.Flags().StringVar(&file, "config", "", "spoke.yaml `FILE` (default DIR/"+configName+")")
	c.Flags().StringVar(&level, "log-level", "info", "debug, info, warn or error")
	c.Flags().StringVar(&format, "log-format", "text", "text or json")
	_ = c.MarkFlagFilename("config", "yaml", "yml")
	return c
}
