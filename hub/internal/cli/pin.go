package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/printer"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// cluster reads the name of a cluster before the hub is asked.
func cluster(name string) error {
	_, err := fleet.ParseCluster(name)
	return exitcode.With(exitcode.Usage, err)
}

func (a *app) pinCommand() *cobra.Command {
	pin := &fleetv1.Pin{}
	var end string
	var dryRun bool
	c := &cobra.Command{
		Use:   "pin PROVIDER/NAME DISTRIBUTION VERSION --reason WHY",
		Short: "Hold a subscription at one version, where its provider lets the hub do that",
		Long: `pin is for a provider's operators at the hub; the provider's own pins, in the overlay, in spoke.yaml or by
"spoke pin", win over it. "hub get pins" lists all of them, with what each cluster would take without.`,
		Example:           "  hub pin acme/eu-1 shop 1.3.0 --reason 'audit week' --until 7d",
		Args:              args(3, 3, "PROVIDER/NAME, DISTRIBUTION and VERSION"),
		ValidArgsFunction: a.complete(clusterArg, distributionArg, versionArg),
		RunE: func(c *cobra.Command, given []string) error {
			if err := cluster(given[0]); err != nil {
				return err
			}
			if strings.TrimSpace(pin.Reason) == "" {
				return exitcode.With(exitcode.Usage, fmt.Errorf("why? Whoever finds the pin later has to know: `hub pin %s --reason '…'`", strings.Join(given, " ")))
			}
			t, err := fleet.ParseUntil(a.now(), end)
			if err != nil {
				return exitcode.With(exitcode.Usage, fmt.Errorf("--until: %w", err))
			}
			if !t.IsZero() {
				pin.Until = wire.Time(t)
			}
			pin.Cluster, pin.Distribution, pin.Version = given[0], given[1], given[2]
			return a.call(c.Context(), func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
				r, err := hub.PinCluster(ctx, &fleetv1.PinClusterRequest{Pin: pin, DryRun: dryRun})
				if err != nil {
					return err
				}
				lasts := ", until it is taken away"
				if pin.Until != nil {
					lasts = ", until " + stamp(pin.Until)
				}
				fmt.Fprintf(a.out, "%s of %s %s\n", given[1], given[0], done("pinned at "+given[2]+lasts, dryRun))
				for _, w := range r.GetWarnings() {
					fmt.Fprintln(a.err, "warning:", plain(w))
				}
				if !dryRun {
					fmt.Fprintf(a.err, "next: hub why %s %s\n", given[0], given[1])
				}
				return nil
			})
		},
	}
	c.Flags().StringVar(&pin.Reason, "reason", "", "`WHY`")
	c.Flags().StringVar(&end, "until", "", "`WHEN` it ends by itself: a date such as 2027-01-31 (its start, UTC), a moment, or a stretch such as 7d (default: never)")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "say what would happen and change nothing")
	return c
}

func (a *app) unpinCommand() *cobra.Command {
	req := &fleetv1.UnpinClusterRequest{}
	c := &cobra.Command{
		Use:               "unpin PROVIDER/NAME DISTRIBUTION",
		Short:             "Take the hub's pin off a subscription",
		Args:              args(2, 2, "PROVIDER/NAME and DISTRIBUTION"),
		ValidArgsFunction: a.complete(clusterArg, distributionArg),
		RunE: func(c *cobra.Command, given []string) error {
			if err := cluster(given[0]); err != nil {
				return err
			}
			req.Cluster, req.Distribution = given[0], given[1]
			return a.call(c.Context(), func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
				if _, err := hub.UnpinCluster(ctx, req); err != nil {
					return err
				}
				fmt.Fprintf(a.out, "%s of %s %s\n", given[1], given[0], done("unpinned", req.DryRun))
				if !req.DryRun {
					fmt.Fprintf(a.err, "next: hub why %s %s\n", given[0], given[1])
				}
				return nil
			})
		},
	}
	audited(c, &req.Reason, &req.DryRun)
	return c
}

// audited adds the flags of a command that is written down.
func audited(c *cobra.Command, reason *string, dryRun *bool) {
	c.Flags().StringVar(reason, "reason", "", "why, for the audit")
	c.Flags().BoolVar(dryRun, "dry-run", false, "say what would happen and change nothing")
}

// deliveryCommand answers at the hub for a release that waits for its provider.
func (a *app) deliveryCommand(word, past string, approve bool) *cobra.Command {
	req := &fleetv1.DecideDeliveryRequest{Approve: approve}
	c := &cobra.Command{
		Use:   word + " PROVIDER/NAME DISTRIBUTION [VERSION]",
		Short: map[bool]string{true: "Let a cluster take the release that waits for its provider", false: "Refuse the release that waits for a cluster's provider"}[approve],
		Long: fmt.Sprintf(`%s answers for one cluster, where its spoke.yaml lets the hub do that; "spoke %s" does it at the spoke.
It is about what its provider is asked now: each gate of a canary wants an answer of its own. For a wave of a rollout
there is "hub rollout %s".`, word, word, word),
		Args:              args(2, 3, "PROVIDER/NAME, DISTRIBUTION and perhaps VERSION"),
		ValidArgsFunction: a.complete(clusterArg, distributionArg, versionArg),
		RunE: func(c *cobra.Command, given []string) error {
			if err := cluster(given[0]); err != nil {
				return err
			}
			req.Cluster, req.Distribution = given[0], given[1]
			if len(given) > 2 {
				req.Version = given[2]
			}
			return a.call(c.Context(), func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
				r, err := hub.DecideDelivery(ctx, req)
				if err != nil {
					return err
				}
				fmt.Fprintf(a.out, "%s %s on %s %s\n", given[1], plain(r.GetVersion()), given[0], done(past, req.DryRun))
				for _, w := range r.GetWarnings() {
					fmt.Fprintln(a.err, "warning:", plain(w))
				}
				if !req.DryRun {
					fmt.Fprintf(a.err, "next: hub why %s %s\n", given[0], given[1])
				}
				return nil
			})
		},
	}
	audited(c, &req.Reason, &req.DryRun)
	return c
}

// listPins is `hub get pins`: those of the providers and those of the hub.
func listPins(ctx context.Context, hub fleetv1.FleetServiceClient, a *app, names []string, issues bool) (printer.Answer, error) {
	r, err := hub.ListPins(ctx, &fleetv1.ListPinsRequest{})
	if err != nil {
		return printer.Answer{}, err
	}
	kept := &fleetv1.ListPinsResponse{}
	answer := printer.Answer{Message: kept, Empty: "No pins",
		Headers: []string{"CLUSTER", "DISTRIBUTION", "PIN", "STATE", "WOULD TAKE", "UNTIL", "SOURCE", "REASON"}, WideHeaders: []string{"BY", "SINCE"}}
	for _, p := range r.GetPins() {
		if len(names) > 0 && p.GetCluster() != names[0] || issues && a.pinState(p) == inForce {
			continue
		}
		kept.Pins = append(kept.Pins, p)
		answer.Rows = append(answer.Rows, []string{p.GetCluster(), p.GetDistribution(), p.GetVersion(), a.pinState(p), p.GetWould(), stamp(p.GetUntil()), p.GetSource(), shorten(p.GetReason(), 90)})
		answer.WideRows = append(answer.WideRows, []string{p.GetAuthor(), stamp(p.GetCreated())})
		answer.Names = append(answer.Names, p.GetCluster()+"/"+p.GetDistribution())
	}
	if len(names) > 0 && len(kept.GetPins()) == 0 { // is there such a cluster?
		all, err := hub.ListClusters(ctx, &fleetv1.ListClustersRequest{})
		if err != nil {
			return printer.Answer{}, err
		}
		if _, err := wanted(all.GetClusters(), names, (*fleetv1.Cluster).GetName, "cluster", "hub get clusters"); err != nil {
			return printer.Answer{}, err
		}
	}
	return answer, nil
}

const inForce = "InForce"

// pinState says whose turn it is with a pin.
func (a *app) pinState(p *fleetv1.Pin) string {
	switch {
	case p.GetUntil() != nil && !wire.FromTime(p.GetUntil()).After(a.now()):
		return "Expired"
	case !p.GetInForce():
		return "Waiting(spoke)"
	}
	return inForce
}
