package cli

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/token"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/hubclient"
)

func (a *app) joinCommand() *cobra.Command {
	var addr, via, tok string
	var force, ifNeeded bool
	c := &cobra.Command{
		Use:   "join --hub HOST:PORT --token T --data DIR",
		Short: "Give this spoke its identity at a hub",
		Long: `join redeems a one-time token for an identity, which it keeps in the data folder. The hub is believed only
if its authority is the one that the token is pinned to. The vendor has to accept the new identity before it is
of any use, unless their invitation says otherwise: tell them the fingerprint of the key, which join prints and
"spoke status" shows again, so that they can compare it with the one that their hub shows.

A spoke that lost its data folder joins again with a new token and takes over what it finds on the cluster:
workloads are not touched.`,
		Example: "  spoke join --hub hub.example.com:7443 --token ww1.… --data ./spoke-data",
		Args:    arguments(0, 0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			dir, err := a.data(false)
			if err != nil {
				return err
			}
			if addr == "" || tok == "" {
				return exitcode.With(exitcode.Usage, errors.New("join needs --hub HOST:PORT and --token T: run the whole line that `hub cluster invite PROVIDER/NAME` prints at the hub"))
			}
			if err := hubclient.CheckVia(via); err != nil {
				return exitcode.With(exitcode.Usage, fmt.Errorf("--via: %w", err))
			}
			if ifNeeded {
				id, err := hubclient.LoadIdentity(dir)
				if err == nil && a.now().Before(id.NotAfter) {
					fmt.Fprintf(a.err, "spoke: %s speaks for %s at %s already\n", dir, id.Cluster, id.Addr)
					return nil
				}
				force = force || err == nil // an expired one is of no use any more
			}
			if _, err := token.Parse(tok); err != nil {
				return exitcode.With(exitcode.Usage, err)
			}
			id, err := hubclient.Join(c.Context(), hubclient.JoinConfig{Addr: addr, Via: via, Token: tok, Dir: dir, Force: force, Log: slog.New(slog.DiscardHandler)})
			if errors.Is(err, hubclient.ErrUnreachable) {
				return exitcode.With(exitcode.Usage, err)
			}
			if err != nil {
				return exitcode.With(exitcode.Failed, err)
			}
			fmt.Fprintf(a.out, "joined %s as %s; the certificate is valid until %s and renews itself\n", id.Addr, id.Cluster, id.NotAfter.UTC().Format(time.RFC3339))
			fmt.Fprintf(a.out, "key %s\n", id.Fingerprint())
			if id.Pending {
				fmt.Fprintln(a.err, "the vendor lets it in once they have compared that key with you: read it to them over another way than this token came on; a running spoke goes on by itself then")
			}
			fmt.Fprintf(a.err, "next: spoke run --data %s --config spoke.yaml\n", dir)
			return nil
		},
	}
	c.Flags().StringVar(&addr, "hub", "", "`HOST:PORT` of the hub")
	c.Flags().StringVar(&via, "via", "", "`HOST:PORT` of a relay that everything is to go through; \"spoke via\" changes it later")
	c.Flags().StringVar(&tok, "token", "", "one-time `TOKEN`")
	c.Flags().BoolVar(&force, "force", false, "replace the identity that the data folder holds")
	c.Flags().BoolVar(&ifNeeded, "if-needed", false, "do nothing where the data folder holds a valid identity")
	return c
}
