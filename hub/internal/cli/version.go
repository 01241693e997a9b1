package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/wheelwright-dev/wheelwright/pkg/buildinfo"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

func (a *app) versionCommand() *cobra.Command {
	var clientOnly bool
	c := &cobra.Command{
		Use:   "version",
		Short: "Print the versions of this command and of the hub it speaks to",
		Args:  args(0, 0, "no argument"),
		RunE: func(c *cobra.Command, _ []string) error {
			fmt.Fprintf(a.out, "client: %s (commit %s, %s)\n", buildinfo.Version(), buildinfo.Commit(), buildinfo.Go())
			if clientOnly {
				return nil
			}
			if _, err := a.contextPath(); err != nil {
				fmt.Fprintln(a.err, "hub: no context, so no server is asked; see `hub --help`")
				return nil
			}
			return a.call(c.Context(), func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
				r, err := hub.GetVersion(ctx, &fleetv1.GetVersionRequest{})
				if err != nil {
					return err
				}
				fmt.Fprintf(a.out, "server: %s (commit %s, %s)\n", r.GetVersion(), r.GetCommit(), r.GetGoVersion())
				return nil
			})
		},
	}
	c.Flags().BoolVar(&clientOnly, "client", false, "ask no server")
	return c
}
