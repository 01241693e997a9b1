package cli

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/plugintest"
)

func (a *app) pluginCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "plugin",
		Short: "Try programs that the spoke runs beside itself",
		Args:  arguments(0, 0, "a command"),
		RunE: func(c *cobra.Command, _ []string) error {
			_ = c.Help()
			return exitcode.Silent(exitcode.Usage)
		},
	}
	c.AddCommand(a.pluginCheckCommand())
	return c
}

func (a *app) pluginCheckCommand() *cobra.Command {
	var cfg plugintest.Config
	c := &cobra.Command{
		Use:   "check PATH [-- ARGUMENT…]",
		Short: "Tell whether a plugin keeps the contract",
		Long: `Starts the program at PATH as a plugin, asks it about an application that does not exist, and prints one
line for each thing that the contract asks for. It needs no spoke, no hub and no cluster. The program runs
without the walls that a spoke puts around it, and with no other environment than --env gives it. A notifier is
told of one event, several times over.

Exit codes: 0 it keeps the contract; 1 it does not; 2 usage.`,
		Example: "  spoke plugin check bin/smoke --env PATH=/usr/bin:/bin -- --url http://localhost:8080",
		Args: func(c *cobra.Command, given []string) error {
			if at := c.ArgsLenAtDash(); at != 1 && (at >= 0 || len(given) != 1) {
				return exitcode.With(exitcode.Usage, fmt.Errorf("%s: want the path of one program, and its own arguments after --; see `%s --help`", c.CommandPath(), c.CommandPath()))
			}
			return nil
		},
		RunE: func(c *cobra.Command, given []string) error {
			cfg.Path, cfg.Args = given[0], given[1:]
			switch info, err := os.Stat(cfg.Path); {
			case err != nil:
				return exitcode.With(exitcode.Usage, fmt.Errorf("plugin: %w", err))
			case !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0:
				return exitcode.With(exitcode.Usage, fmt.Errorf("plugin %s is not an executable file: `chmod +x %s`", cfg.Path, cfg.Path))
			}
			for _, e := range cfg.Env {
				if name, _, ok := strings.Cut(e, "="); !ok || name == "" {
					return exitcode.With(exitcode.Usage, fmt.Errorf("--env %q: want NAME=VALUE", e))
				}
			}
			failed, skipped := 0, 0
			all := plugintest.Check(c.Context(), cfg, func(r plugintest.Result) {
				fmt.Fprintln(a.out, r)
				switch {
				case !r.OK():
					failed++
				case r.Skipped != "":
					skipped++
				}
			})
			if err := c.Context().Err(); err != nil {
				return err
			}
			fmt.Fprintf(a.out, "%d ok, %d not ok, %d skipped\n", len(all)-failed-skipped, failed, skipped)
			if failed > 0 {
				return exitcode.Silent(exitcode.Failed)
			}
			return nil
		},
	}
	c.Flags().StringArrayVar(&cfg.Env, "env", nil, "`NAME=VALUE` for the plugin's environment; may be repeated")
	c.Flags().DurationVar(&cfg.Timeout, "timeout", 10*time.Second, "how long each call may take")
	return c
}
