package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/wheelwright-dev/wheelwright/pkg/order"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// argument is what a word of a command line names.
type argument int

const (
	distributionArg argument = iota
	versionArg               // of the distribution named before
	clusterArg
	operatorArg
	relayArg
	verbArg
)

// patience of somebody who pressed the tab key.
const patience = 2 * time.Second

// complete proposes names that the hub knows, argument by argument. A hub that cannot be asked proposes nothing.
func (a *app) complete(kinds ...argument) cobra.CompletionFunc {
	return func(c *cobra.Command, given []string, _ string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
		if len(given) >= len(kinds) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(c.Context(), patience)
		defer cancel()
		_ = a.call(ctx, func(ctx context.Context, hub fleetv1.FleetServiceClient) (err error) {
			names, err = known(ctx, hub, kinds, given)
			return err
		})
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// known lists what the next argument can be.
func known(ctx context.Context, hub fleetv1.FleetServiceClient, kinds []argument, given []string) (names []string, err error) {
	switch kinds[len(given)] {
	case distributionArg:
		r, err := hub.ListDistributions(ctx, &fleetv1.ListDistributionsRequest{})
		for _, d := range r.GetDistributions() {
			names = append(names, d.GetName())
		}
		return names, err
	case clusterArg:
		r, err := hub.ListClusters(ctx, &fleetv1.ListClustersRequest{})
		for _, c := range r.GetClusters() {
			names = append(names, c.GetName())
		}
		return names, err
	case verbArg:
		for _, v := range order.Verbs() {
			names = append(names, string(v))
		}
		return names, nil
	case relayArg:
		r, err := hub.ListRelays(ctx, &fleetv1.ListRelaysRequest{})
		for _, r := range r.GetRelays() {
			names = append(names, r.GetName())
		}
		return names, err
	case operatorArg:
		r, err := hub.ListOperators(ctx, &fleetv1.ListOperatorsRequest{})
		for _, o := range r.GetOperators() {
			names = append(names, o.GetName())
		}
		return names, err
	}
	r, err := hub.ListReleases(ctx, &fleetv1.ListReleasesRequest{Distribution: given[len(given)-1]})
	for _, rel := range r.GetReleases() {
		names = append(names, rel.GetVersion())
	}
	return names, err
}
