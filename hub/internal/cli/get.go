package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/printer"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// noun is one kind of thing that get lists.
type noun struct {
	use, short string
	aliases    []string
	maxArgs    int
	// list asks the hub. names holds the arguments; issues keeps what needs a person.
	list func(ctx context.Context, hub fleetv1.FleetServiceClient, a *app, names []string, issues bool) (printer.Answer, error)
	// names completes the arguments.
	names []argument
	// follow, where there is one, is what -w does: it shows what is new instead of all again.
	follow func(ctx context.Context, a *app, p *printer.Printer, names []string, issues bool) error
}

func (a *app) getCommand() *cobra.Command {
	nouns := []noun{
		{use: "distributions [NAME]", short: "the repositories being watched", aliases: []string{"distribution", "dist"}, maxArgs: 1, list: listDistributions, names: []argument{distributionArg}},
		{use: "releases [DISTRIBUTION [VERSION]]", short: "release tags and how they were judged", aliases: []string{"release", "rel"}, maxArgs: 2, list: listReleases, names: []argument{distributionArg, versionArg}},
		{use: "rollouts [DISTRIBUTION]", short: "releases on their way through the fleet, newest first", aliases: []string{"rollout", "ro"}, maxArgs: 1, list: listRollouts, names: []argument{distributionArg}},
		{use: "clusters [PROVIDER/NAME]", short: "the providers' clusters", aliases: []string{"cluster"}, maxArgs: 1, list: listClusters, names: []argument{clusterArg}},
		{use: "pins [PROVIDER/NAME]", short: "subscriptions held at one version, and what they would take without", aliases: []string{"pin"}, maxArgs: 1, list: listPins, names: []argument{clusterArg}},
		{use: "events [PROVIDER/NAME]", short: "what happened, oldest first", aliases: []string{"event"}, maxArgs: 1, list: listEvents, names: []argument{clusterArg}, follow: followEvents},
		{use: "orders [PROVIDER/NAME]", short: "operators' signed orders to spokes, and what came of them, newest first", aliases: []string{"order"}, maxArgs: 1, list: listOrders, names: []argument{clusterArg}},
		{use: "re-homes [PROVIDER/NAME]", short: "clusters that are moved to another hub, and what came of it, newest first", aliases: []string{"re-home"}, maxArgs: 1, list: listReHomes, names: []argument{clusterArg}},
		{use: "operators [NAME]", short: "who may call the hub, and as what", aliases: []string{"operator"}, maxArgs: 1, list: listOperators, names: []argument{operatorArg}},
		{use: "relays [NAME]", short: "relays between the hub and spokes", aliases: []string{"relay"}, maxArgs: 1, list: listRelays, names: []argument{relayArg}},
	}
	c := group("get", "List distributions, releases, rollouts, clusters, pins, events, orders, re-homes, operators or relays")
	for _, n := range nouns {
		c.AddCommand(a.getNoun(n))
	}
	return c
}

func (a *app) getNoun(n noun) *cobra.Command {
	var watch, issues bool
	c := &cobra.Command{Use: n.use, Short: "List " + n.short, Aliases: n.aliases, ValidArgsFunction: a.complete(n.names...)}
	c.Args = args(0, n.maxArgs, fmt.Sprintf("at most %d", n.maxArgs))
	p := a.output(c)
	c.Flags().BoolVarP(&watch, "watch", "w", false, map[bool]string{false: "print again after every change, until interrupted", true: "go on with what is new, a line each, until interrupted"}[n.follow != nil])
	c.Flags().BoolVar(&issues, "issues", false, "only what needs a person")
	c.RunE = func(c *cobra.Command, given []string) error {
		if err := p.Check(); err != nil {
			return err
		}
		if watch && n.follow != nil {
			return n.follow(c.Context(), a, p, given, issues)
		}
		show := func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
			answer, err := n.list(ctx, hub, a, given, issues)
			if err != nil {
				return err
			}
			return p.Print(answer)
		}
		if watch {
			return a.watch(c.Context(), p, show)
		}
		return a.call(c.Context(), show)
	}
	return c
}

// wanted keeps the item that was named, or says that there is none.
func wanted[T any](items []T, names []string, name func(T) string, what, next string) ([]T, error) {
	if len(names) == 0 {
		return items, nil
	}
	kept := slices.DeleteFunc(slices.Clone(items), func(i T) bool { return name(i) != names[0] })
	if len(kept) == 0 {
		return nil, exitcode.With(exitcode.Failed, fmt.Errorf("there is no %s %q; see `%s`", what, names[0], next))
	}
	return kept, nil
}

func listDistributions(ctx context.Context, hub fleetv1.FleetServiceClient, a *app, names []string, issues bool) (printer.Answer, error) {
	r, err := hub.ListDistributions(ctx, &fleetv1.ListDistributionsRequest{})
	if err != nil {
		return printer.Answer{}, err
	}
	items, err := wanted(r.GetDistributions(), names, (*fleetv1.Distribution).GetName, "distribution", "hub get distributions")
	if err != nil {
		return printer.Answer{}, err
	}
	if issues {
		items = slices.DeleteFunc(items, func(d *fleetv1.Distribution) bool { return d.GetLastError() == "" && len(d.GetNotes()) == 0 })
	}
	answer := printer.Answer{
		Message: &fleetv1.ListDistributionsResponse{Distributions: items},
		Headers: []string{"NAME", "LATEST", "AVAILABLE", "REJECTED", "POLLED", "STATE"}, WideHeaders: []string{"URL", "PATH", "TAGS", "SIGNERS", "PREFLIGHT", "NOTES"},
		Empty: "No distributions. Add one: hub distribution add NAME --git URL",
	}
	for _, d := range items {
		preflight := ""
		if s := d.GetPreflightSeconds(); s > 0 {
			preflight = (time.Duration(s) * time.Second).String()
		}
		state := "Watching"
		switch n := len(d.GetNotes()); {
		case d.GetLastError() != "":
			state = "Unreachable: " + d.GetLastError()
		case n > 0:
			state = fmt.Sprintf("Watching, with %s: see -o wide", plural(n, "note", "notes"))
		}
		answer.Rows = append(answer.Rows, []string{d.GetName(), d.GetLatest(), fmt.Sprint(d.GetReleasesAvailable()), fmt.Sprint(d.GetReleasesRejected()), a.age(d.GetLastPolled()), state})
		answer.WideRows = append(answer.WideRows, []string{d.GetUrl(), d.GetPath(), d.GetTags(), signedBy(d.GetSigners()), preflight, strings.Join(d.GetNotes(), "; ")})
		answer.Names = append(answer.Names, d.GetName())
	}
	return answer, nil
}

func listReleases(ctx context.Context, hub fleetv1.FleetServiceClient, a *app, names []string, issues bool) (printer.Answer, error) {
	req := &fleetv1.ListReleasesRequest{}
	if len(names) > 0 {
		req.Distribution = names[0]
	}
	r, err := hub.ListReleases(ctx, req)
	if err != nil {
		return printer.Answer{}, err
	}
	items := r.GetReleases()
	if len(names) > 1 {
		if items, err = wanted(items, names[1:], (*fleetv1.Release).GetVersion, "release", "hub get releases "+names[0]); err != nil {
			return printer.Answer{}, err
		}
	}
	if issues {
		items = slices.DeleteFunc(items, func(r *fleetv1.Release) bool { return r.GetPhase() == "Available" })
	}
	answer := printer.Answer{
		Message: &fleetv1.ListReleasesResponse{Releases: items},
		Headers: []string{"DISTRIBUTION", "VERSION", "PHASE", "RUNNING ON", "PUBLISHED", "WHY"}, WideHeaders: []string{"DIGEST", "SIZE", "STORED", "COMMIT"},
		Empty: "No releases yet: a release is a tag such as 1.0.0 in a distribution's repository",
	}
	for _, r := range items {
		why := shorten(firstReason(r), 90)
		if r.GetRecalled() != nil {
			why = shorten("recalled: "+r.GetRecallReason(), 90)
		}
		if until := r.GetPreflightUntil(); until != nil {
			why = fmt.Sprintf("in pre-flight, %s left; see `hub release describe %s %s`", fleet.Age(wire.FromTime(until), a.now()), r.GetDistribution(), r.GetVersion())
		}
		answer.Rows = append(answer.Rows, []string{r.GetDistribution(), r.GetVersion(), r.GetPhase(), plural(len(r.GetRunningOn()), "cluster", "clusters"), a.age(r.GetPublished()), why})
		answer.WideRows = append(answer.WideRows, []string{r.GetDigest(), fmt.Sprint(r.GetSize()), fmt.Sprint(r.GetCompressedSize()), r.GetCommit()})
		answer.Names = append(answer.Names, r.GetDistribution()+"/"+r.GetVersion())
	}
	return answer, nil
}

func firstReason(r *fleetv1.Release) string {
	var all []string // the object at fault says more than the count of variants
	for _, v := range r.GetVariants() {
		for _, reason := range v.GetReasons() {
			all = append(all, v.GetName()+": "+reason)
		}
	}
	all = append(all, r.GetReasons()...)
	switch len(all) {
	case 0:
		return ""
	case 1:
		return all[0]
	}
	return fmt.Sprintf("%s (and %d more)", all[0], len(all)-1)
}

func listClusters(ctx context.Context, hub fleetv1.FleetServiceClient, a *app, names []string, issues bool) (printer.Answer, error) {
	r, err := hub.ListClusters(ctx, &fleetv1.ListClustersRequest{})
	if err != nil {
		return printer.Answer{}, err
	}
	items, err := wanted(r.GetClusters(), names, (*fleetv1.Cluster).GetName, "cluster", "hub get clusters")
	if err != nil {
		return printer.Answer{}, err
	}
	var why map[string]string
	if issues {
		if why, err = wanting(ctx, hub); err != nil {
			return printer.Answer{}, err
		}
		items = slices.DeleteFunc(items, func(c *fleetv1.Cluster) bool { return c.GetConnected() && why[c.GetName()] == "" })
	}
	answer := printer.Answer{
		Message: &fleetv1.ListClustersResponse{Clusters: items},
		Headers: []string{"NAME", "STATE", "SEEN", "SUBSCRIPTIONS", "KUBERNETES", "SPOKE"}, WideHeaders: []string{"LABELS", "CERTIFICATE UNTIL", "CANARY", "KEY"},
		Empty: "No clusters. Invite one: hub cluster invite PROVIDER/NAME",
		Fill:  func(answer *printer.Answer) { a.clusterRows(answer, items, why) },
	}
	return answer, nil
}

// clusterRows are those of the table; why is what wants a person, by cluster.
func (a *app) clusterRows(answer *printer.Answer, items []*fleetv1.Cluster, why map[string]string) {
	for _, c := range items {
		var subs, canaries []string
		for _, s := range c.GetSubscriptions() {
			subs = append(subs, s.GetDistribution())
			if of := wire.FromCanary(s.GetCanary()); of != nil {
				canaries = append(canaries, fmt.Sprintf("%s %s %s", s.GetDistribution(), s.GetTargetVersion(), of))
			}
		}
		answer.Rows = append(answer.Rows, []string{c.GetName(), cmp.Or(why[c.GetName()], clusterState(c)), a.age(c.GetLastSeen()), strings.Join(subs, ","), c.GetKubernetesVersion(), c.GetSpokeVersion()})
		answer.WideRows = append(answer.WideRows, []string{labelText(c.GetLabels()), stamp(c.GetCertificateNotAfter()), strings.Join(canaries, " | "), c.GetKeyFingerprint()})
		answer.Names = append(answer.Names, c.GetName())
	}
}

func clusterState(c *fleetv1.Cluster) string {
	switch {
	case c.GetStanding() == string(store.Pending):
		return "Pending(" + c.GetKeyFingerprint() + ")"
	case c.GetStanding() != "":
		return c.GetStanding()
	case c.GetConnected():
		return "Connected"
	case c.GetJoined() == nil:
		return "Invited"
	}
	return "Away"
}

// wanting is what wants a person, by cluster: its first such row in the fleet's status.
func wanting(ctx context.Context, hub fleetv1.FleetServiceClient) (map[string]string, error) {
	r, err := hub.GetStatus(ctx, &fleetv1.GetStatusRequest{})
	if err != nil {
		return nil, err
	}
	why := map[string]string{}
	for _, row := range r.GetRows() {
		if row.GetAttention() && why[row.GetCluster()] == "" {
			why[row.GetCluster()] = cmp.Or(row.GetPhase(), "Unknown")
		}
	}
	return why, nil
}
