package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/hubclient"
)

func (a *app) viaCommand() *cobra.Command {
	var direct bool
	c := &cobra.Command{
		Use:   "via HOST:PORT | --direct",
		Short: "Reach the hub through a relay, through another one, or directly",
		Long: `via says which relay everything between this spoke and its hub goes through from now on. The spoke stays who it is:
no token is needed, and a spoke that runs goes over by itself within some heartbeats. A relay can neither speak in the
spoke's place nor change what the hub says. Where it cannot be reached, the spoke waits for it, and never goes around it
by itself. Without an argument, via says what is so now.`,
		Example: "  spoke via relay.fra.example.com:7444 --data ./spoke-data\n  spoke via --direct",
		Args:    arguments(0, 1, "a relay's HOST:PORT, --direct or nothing"),
		RunE: func(c *cobra.Command, given []string) error {
			dir, err := a.data(true)
			if err != nil {
				return err
			}
			if direct && len(given) > 0 {
				return exitcode.With(exitcode.Usage, errors.New("want a relay's HOST:PORT or --direct, not both"))
			}
			var id hubclient.Identity
			switch {
			case direct:
				id, err = hubclient.SetVia(dir, "")
			case len(given) == 1:
				if err := hubclient.CheckVia(given[0]); err != nil || given[0] == "" {
					return exitcode.With(exitcode.Usage, fmt.Errorf("relay address %q: want HOST:PORT, or --direct", given[0]))
				}
				id, err = hubclient.SetVia(dir, given[0])
			default:
				id, err = hubclient.LoadIdentity(dir)
			}
			if err != nil {
				return exitcode.With(exitcode.Failed, err)
			}
			if id.Via == "" {
				fmt.Fprintf(a.out, "%s reaches the hub at %s directly\n", id.Cluster, id.Addr)
				return nil
			}
			fmt.Fprintf(a.out, "%s reaches the hub at %s through the relay at %s\n", id.Cluster, id.Addr, id.Via)
			return nil
		},
	}
	c.Flags().BoolVar(&direct, "direct", false, "through no relay")
	return c
}
