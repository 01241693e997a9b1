package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/rehome"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

func (a *app) clusterCommand() *cobra.Command {
	return group("cluster", "Invite, accept and remove the providers' clusters", a.clusterInvite(), a.clusterAccept(), a.clusterReject(), a.clusterRemove(), a.reHomeCommand())
}

func (a *app) clusterInvite() *cobra.Command {
	var labels map[string]string
	var ttl time.Duration
	var automatically bool
	c := &cobra.Command{
		Use:   "invite PROVIDER/NAME",
		Short: "Print the line with which a cluster's spoke joins",
		Long: `invite prints one "spoke join" line for the provider to run. Its token works once, for ten minutes or for as long
as --ttl says, and carries the fingerprint of this hub's authority, so that the spoke knows whom it joins.

Who runs it gets nothing yet: both sides are shown the fingerprint of the new key, and once they have compared
it, "hub cluster accept" lets the spoke in. With --accept-automatically whoever holds the token is let in at once.

A cluster that lost its identity is brought back by a new invitation; its workloads are not touched.`,
		Example: "  hub cluster invite acme/eu-1 --label env=production --label region=eu",
		Args:    args(1, 1, "the cluster's PROVIDER/NAME"),
		RunE: func(c *cobra.Command, given []string) error {
			name, err := fleet.ParseCluster(given[0])
			if err != nil {
				return exitcode.With(exitcode.Usage, err)
			}
			if ttl < time.Second || ttl > rehome.MaxLife || automatically && ttl > 10*time.Minute {
				return exitcode.With(exitcode.Usage, fmt.Errorf("--ttl %v: want 1s to 168h, and to 10m with --accept-automatically; `hub cluster invite %s` makes another token whenever it is needed", ttl, name))
			}
			return a.call(c.Context(), func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
				r, err := hub.InviteCluster(ctx, &fleetv1.InviteClusterRequest{Name: string(name), Labels: labels, TtlSeconds: uint32(ttl.Seconds()), AcceptAutomatically: automatically})
				if err != nil {
					return err
				}
				if r.GetRejoin() {
					fmt.Fprintf(a.err, "%s has joined before: its present identity ends when this token is used\n", name)
				}
				fmt.Fprintf(a.err, "token for %s, valid once, until %s; run this on the provider's side:\n", name, r.GetExpires().AsTime().Local().Format(time.DateTime))
				if automatically {
					fmt.Fprintln(a.err, "whoever runs it first is accepted automatically: hand it over on a way that nobody else reads")
				}
				fmt.Fprintf(a.out, "spoke join --hub %s --token %s --data ./spoke-data\n", r.GetAddress(), r.GetToken())
				return nil
			})
		},
	}
	c.Flags().StringToStringVar(&labels, "label", nil, "`KEY=VALUE` of the cluster, repeatable")
	c.Flags().BoolVar(&automatically, "accept-automatically", false, "let the holder of the token in without \"hub cluster accept\"")
	c.Flags().DurationVar(&ttl, "ttl", 10*time.Minute, "how long the token works: at most 168h, and 10m with --accept-automatically")
	return c
}

func (a *app) clusterRemove() *cobra.Command {
	var yes, dryRun bool
	c := &cobra.Command{
		Use:   "remove PROVIDER/NAME",
		Short: "Forget a cluster and end its identity; its workloads stay",
		Args:  args(1, 1, "the cluster's PROVIDER/NAME"),
		RunE: func(c *cobra.Command, given []string) error {
			if err := a.confirm(fmt.Sprintf("remove cluster %s from the fleet", given[0]), yes || dryRun); err != nil {
				return err
			}
			return a.call(c.Context(), func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
				if _, err := hub.RemoveCluster(ctx, &fleetv1.RemoveClusterRequest{Name: given[0], DryRun: dryRun}); err != nil {
					return err
				}
				fmt.Fprintf(a.out, "cluster %s %s\n", given[0], done("removed", dryRun))
				return nil
			})
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "say what would happen and change nothing")
	return c
}
