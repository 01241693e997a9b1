package cli

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/wheelwright-dev/wheelwright/pkg/buildinfo"
)

func (a *app) versionCommand() *cobra.Command {
	var clientOnly bool
	c := &cobra.Command{
		Use:   "version",
		Short: "Print the versions of this command and of the spoke that runs",
		Args:  arguments(0, 0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			fmt.Fprintf(a.out, "client: %s (commit %s, %s)\n", buildinfo.Version(), buildinfo.Commit(), buildinfo.Go())
			if clientOnly || a.dir == "" && os.Getenv(dataVariable) == "" {
				return nil
			}
			dir, err := a.data(true)
			if err != nil {
				return err
			}
			r, err := a.ask(c.Context(), dir)
			if err != nil {
				fmt.Fprintf(a.err, "spoke: %v\n", err)
				return nil
			}
			fmt.Fprintf(a.out, "spoke: %s (commit %s), %s at %s\n", r.GetSpokeVersion(), r.GetSpokeCommit(), r.GetCluster(), r.GetHub())
			return nil
		},
	}
	c.Flags().BoolVar(&clientOnly, "client", false, "ask no running spoke")
	return c
}
