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

func (a *app) rolloutStatus() *cobra.Command {
	var watch bool
	c := &cobra.Command{
		Use:   "status DISTRIBUTION [VERSION]",
		Short: "Show a rollout: its waves, and the clusters under way, failed or parked",
		Long: `status shows the newest rollout of a distribution, or that of VERSION. -o wide lists each cluster, beside what
the plan said of it at the start. With -w on a terminal it is a live picture; elsewhere, a line for each change.

Exit code 0: it goes on by itself, or is completed; 1: it holds, is paused, or ended otherwise;
2: the hub could not be asked; 4: it waits for an approval.`,
		Args:              args(1, 2, "DISTRIBUTION and perhaps VERSION"),
		ValidArgsFunction: a.complete(distributionArg, versionArg),
	}
	p := a.output(c)
	c.Flags().BoolVarP(&watch, "watch", "w", false, "go on showing what changes, until interrupted")
	c.RunE = func(c *cobra.Command, given []string) error {
		if err := p.Check(); err != nil {
			return err
		}
		req := &fleetv1.GetRolloutRequest{Distribution: given[0]}
		if len(given) > 1 {
			req.Version = given[1]
		}
		if watch && p.Format == "table" && !a.terminal() {
			return a.followRollout(c.Context(), req)
		}
		show := func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
			r, err := hub.GetRollout(ctx, req)
			if err != nil {
				return err
			}
			return a.printRollout(p, r, watch)
		}
		if watch {
			return a.watch(c.Context(), p, show)
		}
		return a.call(c.Context(), show)
	}
	return c
}

// printRollout writes one rollout and turns how it stands into the exit code.
func (a *app) printRollout(p *printer.Printer, r *fleetv1.GetRolloutResponse, live bool) error {
	switch p.Format {
	case "table":
		width, height := a.size()
		if !live {
			height = 0 // it may scroll
		} else if height > 1 {
			height-- // the cursor's line
		}
		c := canvas{width: width, height: height, colour: a.colour(), now: wire.FromTime(r.GetAt())}
		if _, err := fmt.Fprintln(p.Out, strings.Join(c.tree(r.GetRollout()), "\n")); err != nil {
			return err
		}
	default:
		if err := p.Print(rolloutClusters(r)); err != nil {
			return err
		}
	}
	return outcome(r.GetRollout())
}

// outcome is the exit code of how a rollout stands.
func outcome(r *fleetv1.Rollout) error {
	phase := fleet.RolloutPhase(r.GetPhase())
	switch {
	case phase == fleet.RolloutApproval:
		return exitcode.Silent(exitcode.Waiting)
	case wantsPerson(r), phase == fleet.RolloutReturning, phase.Terminal() && phase != fleet.RolloutCompleted:
		return exitcode.Silent(exitcode.Failed)
	}
	return nil
}

// rolloutClusters is a table of every cluster of a rollout, beside what the plan said of it.
func rolloutClusters(r *fleetv1.GetRolloutResponse) printer.Answer {
	answer := answerOf(r)
	answer.Headers = []string{"CLUSTER", "WAVE", "STATE", "FOR", "RUNNING", "PHASE"}
	answer.WideHeaders = []string{"RAN", "IN ITS WAY AT THE START", "WHY"}
	answer.Empty = "No clusters: nobody subscribed when it started"
	planned := map[string]*fleetv1.PlannedCluster{}
	for _, w := range r.GetRollout().GetPlan().GetWaves() {
		for _, m := range w.GetClusters() {
			planned[m.GetCluster()] = m
		}
	}
	now := wire.FromTime(r.GetAt())
	for _, m := range r.GetRollout().GetClusters() {
		wave := "(joined)"
		if i := int(m.GetWave()); i >= 0 && i < len(r.GetRollout().GetWaves()) {
			wave = r.GetRollout().GetWaves()[i].GetName()
		}
		was, age := planned[m.GetCluster()], ""
		if m.GetSince() != nil {
			age = fleet.Age(now, wire.FromTime(m.GetSince()))
		}
		answer.Rows = append(answer.Rows, []string{m.GetCluster(), wave, m.GetMark(), age, m.GetRunningVersion(), m.GetPhase()})
		answer.WideRows = append(answer.WideRows, []string{was.GetRunningVersion(), strings.Join(was.GetBlockers(), "; "), shorten(m.GetReason(), 400)})
		answer.Names = append(answer.Names, m.GetCluster())
	}
	return answer
}

// followRollout writes a line for each change of a rollout.
func (a *app) followRollout(ctx context.Context, req *fleetv1.GetRolloutRequest) error {
	var last *fleetv1.Rollout
	return a.follow(ctx, false, func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
		r, err := hub.GetRollout(ctx, req)
		if err != nil {
			return err
		}
		for _, line := range differences(last, r.GetRollout(), wire.FromTime(r.GetAt())) {
			if _, err := fmt.Fprintln(a.out, stamp(r.GetAt()), line); err != nil {
				return err
			}
		}
		last = r.GetRollout()
		return nil
	})
}

func (a *app) rolloutHistory() *cobra.Command {
	c := &cobra.Command{
		Use:               "history DISTRIBUTION",
		Short:             "List the rollouts of a distribution, newest first, with how they ended",
		Args:              args(1, 1, "the distribution's name"),
		ValidArgsFunction: a.complete(distributionArg),
	}
	p := a.output(c)
	c.RunE = func(c *cobra.Command, given []string) error {
		if err := p.Check(); err != nil {
			return err
		}
		return a.call(c.Context(), func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
			r, err := hub.ListRollouts(ctx, &fleetv1.ListRolloutsRequest{Distribution: given[0]})
			if err != nil {
				return err
			}
			if len(r.GetRollouts()) == 0 {
				if err := knownDistribution(ctx, hub, given[0]); err != nil {
					return err
				}
			}
			return p.Print(a.history(given[0], r))
		})
	}
	return c
}

func (a *app) history(distribution string, r *fleetv1.ListRolloutsResponse) printer.Answer {
	answer := answerOf(r)
	answer.Headers = []string{"VERSION", "OUTCOME", "DONE", "FAILED", "STARTED", "TOOK", "BY", "WHY"}
	answer.WideHeaders = []string{"ID", "WAVES", "PARKED", "PLAN", "ENDED"}
	answer.Empty = fmt.Sprintf("No rollouts of %s yet. Start one: hub rollout start %s VERSION", distribution, distribution)
	for _, ro := range r.GetRollouts() {
		n := countOf(ro.GetWaves()...)
		ended, end := "", a.now()
		if !underWay(ro) {
			ended, end = stamp(ro.GetSince()), wire.FromTime(ro.GetSince())
		}
		answer.Rows = append(answer.Rows, []string{ro.GetVersion(), phaseWord(a.now(), ro), n.of(), fmt.Sprint(n.failed), stamp(ro.GetStarted()), span(end.Sub(wire.FromTime(ro.GetStarted()))), ro.GetStartedBy(), shorten(ro.GetReason(), 90)})
		answer.WideRows = append(answer.WideRows, []string{fmt.Sprint(ro.GetId()), fmt.Sprint(len(ro.GetWaves())), fmt.Sprint(n.parked), ro.GetPlanSource(), ended})
		answer.Names = append(answer.Names, ro.GetDistribution()+"/"+ro.GetVersion())
	}
	return answer
}

func (n count) of() string { return fmt.Sprintf("%d/%d", n.done, n.total) }

// listRollouts is `hub get rollouts`.
func listRollouts(ctx context.Context, hub fleetv1.FleetServiceClient, a *app, names []string, issues bool) (printer.Answer, error) {
	req := &fleetv1.ListRolloutsRequest{}
	if len(names) > 0 {
		req.Distribution = names[0]
	}
	r, err := hub.ListRollouts(ctx, req)
	if err != nil {
		return printer.Answer{}, err
	}
	if len(r.GetRollouts()) == 0 && len(names) > 0 {
		if err := knownDistribution(ctx, hub, names[0]); err != nil {
			return printer.Answer{}, err
		}
	}
	answer := printer.Answer{
		Headers: []string{"DISTRIBUTION", "VERSION", "STATE", "WAVE", "DONE", "FAILED", "PARKED", "FOR", "WHY"}, WideHeaders: []string{"ID", "PLAN", "STARTED", "BY"},
		Empty: "No rollouts. Start one: hub rollout start DISTRIBUTION VERSION",
	}
	kept := &fleetv1.ListRolloutsResponse{}
	for _, ro := range r.GetRollouts() {
		if issues && !wantsPerson(ro) {
			continue
		}
		kept.Rollouts = append(kept.Rollouts, ro)
		n := countOf(ro.GetWaves()...)
		wave := ""
		if i := int(ro.GetWave()); i < len(ro.GetWaves()) && underWay(ro) {
			wave = fmt.Sprintf("%d/%d %s", i+1, len(ro.GetWaves()), ro.GetWaves()[i].GetName())
		}
		answer.Rows = append(answer.Rows, []string{ro.GetDistribution(), ro.GetVersion(), phaseWord(a.now(), ro), wave, n.of(), fmt.Sprint(n.failed), fmt.Sprint(n.parked), a.age(ro.GetSince()), shorten(ro.GetReason(), 90)})
		answer.WideRows = append(answer.WideRows, []string{fmt.Sprint(ro.GetId()), ro.GetPlanSource(), stamp(ro.GetStarted()), ro.GetStartedBy()})
		answer.Names = append(answer.Names, ro.GetDistribution()+"/"+ro.GetVersion())
	}
	answer.Message = kept
	return answer, nil
}

// knownDistribution says so when the hub watches no such distribution.
func knownDistribution(ctx context.Context, hub fleetv1.FleetServiceClient, name string) error {
	r, err := hub.ListDistributions(ctx, &fleetv1.ListDistributionsRequest{})
	if err != nil {
		return err
	}
	_, err = wanted(r.GetDistributions(), []string{name}, (*fleetv1.Distribution).GetName, "distribution", "hub get distributions")
	return err
}
