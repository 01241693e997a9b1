package cli

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

func (a *app) clusterAccept() *cobra.Command {
	var key string
	var yes, dryRun bool
	c := &cobra.Command{
		Use:   "accept PROVIDER/NAME [--fingerprint SHA256:…]",
		Short: "Let in a spoke that joined and waits, once its fingerprint is compared",
		Long: `accept lets in the identity of a cluster that waits for it. It shows the fingerprint of the key that joined:
let the provider read out the one that "spoke join" and "spoke status" print at the cluster, and go on only if
they are the same; otherwise somebody else used the token: "hub cluster reject".

A fingerprint that is given with --fingerprint is compared by the hub, and nothing is asked then.

It also lets a cluster out of quarantine, into which the hub puts one whose identity is used in two places. Where
the two have different keys, --fingerprint says which is right, and the other one's certificates end. Where they
have the same, make sure that the copy is gone, or have the cluster join again with a new invitation.`,
		Example: `  hub cluster accept acme/eu-1
  hub cluster accept acme/eu-1 --fingerprint SHA256:n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg`,
		Args:              args(1, 1, "the cluster's PROVIDER/NAME"),
		ValidArgsFunction: a.complete(clusterArg),
		RunE: func(c *cobra.Command, given []string) error {
			if c.Flags().Changed("fingerprint") {
				f, err := fleet.ParseFingerprint(key)
				if err != nil {
					return exitcode.With(exitcode.Usage, err)
				}
				key = f.String()
			}
			var was *fleetv1.Cluster
			accept := func(dry bool) error {
				return a.call(c.Context(), func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
					r, err := hub.AcceptCluster(ctx, &fleetv1.AcceptClusterRequest{Name: given[0], Fingerprint: key, DryRun: dry})
					was = r.GetCluster()
					return err
				})
			}
			if err := accept(true); err != nil {
				return err
			}
			compared := key != ""
			key = cmp.Or(key, was.GetKeyFingerprint()) // the one that is shown, and no other
			a.showStanding(was, key)
			if err := a.confirm(fmt.Sprintf("accept %s", given[0]), yes || compared || dryRun); err != nil || dryRun {
				if err == nil {
					fmt.Fprintf(a.out, "cluster %s %s\n", given[0], done("accepted", true))
				}
				return err
			}
			if err := accept(false); err != nil {
				return err
			}
			fmt.Fprintf(a.out, "cluster %s accepted, with the key %s\n", given[0], cmp.Or(key, "it joined with"))
			return nil
		},
	}
	c.Flags().StringVar(&key, "fingerprint", "", "`SHA256:…` of the key, as the provider reads it out")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "say what would happen and change nothing")
	return c
}

// showStanding writes what has to be compared.
func (a *app) showStanding(c *fleetv1.Cluster, key string) {
	fmt.Fprintf(a.err, "%s  %s", c.GetName(), c.GetStanding())
	if c.GetStandingReason() != "" {
		fmt.Fprintf(a.err, ": %s", c.GetStandingReason())
	}
	fmt.Fprintf(a.err, "\nkey %s\n", cmp.Or(key, "not recorded: it joined before keys were"))
	if c.GetStanding() == string(store.Quarantined) && len(c.GetRivalFingerprints()) == 0 {
		fmt.Fprintln(a.err, "both copies have this key: go on only if one of them is gone for good; if that is not known, `hub cluster invite` ends both")
		return
	}
	fmt.Fprintln(a.err, "the provider reads the same from `spoke status` at the cluster; if it is not the same, `hub cluster reject`")
}

func (a *app) clusterReject() *cobra.Command {
	req := &fleetv1.RejectClusterRequest{}
	var yes bool
	c := &cobra.Command{
		Use:   "reject PROVIDER/NAME --reason WHY",
		Short: "End a cluster's identity, at once and on open streams too; its record and workloads stay",
		Long: `reject ends the identity of a cluster: one that waits to be accepted, one in quarantine, or one that works.
What it has open is cut. The cluster stays known, with its labels and its history, and joins again with a new
"hub cluster invite"; "hub cluster remove" forgets it.`,
		Example:           `  hub cluster reject acme/eu-1 --reason "not the fingerprint that they read out"`,
		Args:              args(1, 1, "the cluster's PROVIDER/NAME"),
		ValidArgsFunction: a.complete(clusterArg),
		RunE: func(c *cobra.Command, given []string) error {
			if strings.TrimSpace(req.Reason) == "" {
				return exitcode.With(exitcode.Usage, fmt.Errorf("why? The audit keeps it: `hub cluster reject %s --reason '…'`", given[0]))
			}
			if err := a.confirm(fmt.Sprintf("end the identity of cluster %s", given[0]), yes || req.DryRun); err != nil {
				return err
			}
			req.Name = given[0]
			return a.call(c.Context(), func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
				if _, err := hub.RejectCluster(ctx, req); err != nil {
					return err
				}
				fmt.Fprintf(a.out, "cluster %s %s\n", given[0], done("rejected", req.DryRun))
				return nil
			})
		},
	}
	c.Flags().StringVar(&req.Reason, "reason", "", "`WHY`")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	c.Flags().BoolVar(&req.DryRun, "dry-run", false, "say what would happen and change nothing")
	return c
}
