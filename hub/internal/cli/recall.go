package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/printer"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

func (a *app) releaseRecall() *cobra.Command {
	req := &fleetv1.RecallReleaseRequest{}
	var yes bool
	c := &cobra.Command{
		Use:   "recall DISTRIBUTION VERSION --reason WHY",
		Short: "Call a bad release back: no rollout offers it any more, and nothing selects it by itself again",
		Long: `recall stops every rollout of the release and lists the clusters that run it or are on their way to it, each with
the best release to go to. With --roll-back they are offered that; a provider's pin, window and approval still win.
A recall is for good: a release never changes, so a mended one is a new version.`,
		Example:           "  hub release recall shop 1.4.0 --reason 'loses orders' --dry-run\n  hub release recall shop 1.4.0 --reason 'loses orders' --roll-back --yes",
		Args:              args(2, 2, "DISTRIBUTION and VERSION"),
		ValidArgsFunction: a.complete(distributionArg, versionArg),
	}
	p := a.output(c)
	c.Flags().StringVar(&req.Reason, "reason", "", "`WHY`: it is shown to every provider that has the release")
	c.Flags().BoolVar(&req.RollBack, "roll-back", false, "offer the clusters that run it where to go")
	c.Flags().BoolVar(&req.DryRun, "dry-run", false, "list the clusters and change nothing")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	c.RunE = func(c *cobra.Command, given []string) error {
		if err := p.Check(); err != nil {
			return err
		}
		req.Distribution, req.Version = given[0], given[1]
		what := given[0] + " " + given[1]
		if strings.TrimSpace(req.Reason) == "" {
			return exitcode.With(exitcode.Usage, fmt.Errorf("why? Every provider that runs it is told: `hub release recall %s --reason '…'`", what))
		}
		if err := mayAsk("recall "+what+" for good", yes || req.DryRun); err != nil {
			return err
		}
		if !yes && !req.DryRun {
			if err := a.askToRecall(c.Context(), req); err != nil {
				return err
			}
		}
		return a.call(c.Context(), func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
			r, err := hub.RecallRelease(ctx, req)
			if err != nil {
				return err
			}
			if p.Human() {
				fmt.Fprintf(a.out, "release %s %s\n", what, done("recalled", req.DryRun))
			}
			return a.printRecall(*p, req, r)
		})
	}
	return c
}

// askToRecall shows whom it concerns before it asks.
func (a *app) askToRecall(ctx context.Context, req *fleetv1.RecallReleaseRequest) error {
	preview := &fleetv1.RecallReleaseRequest{Distribution: req.GetDistribution(), Version: req.GetVersion(), Reason: req.GetReason(), RollBack: req.GetRollBack(), DryRun: true}
	concerned := 0
	err := a.call(ctx, func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
		r, err := hub.RecallRelease(ctx, preview)
		if err != nil {
			return err
		}
		concerned = len(r.GetClusters())
		return a.printRecall(printer.Printer{Out: a.err, Format: "table"}, preview, r)
	})
	if err != nil {
		return err
	}
	what := fmt.Sprintf("recall %s %s for good; %s it", req.GetDistribution(), req.GetVersion(), plural(concerned, "cluster has", "clusters have"))
	if req.GetRollBack() {
		what += " and will be offered where to go"
	}
	return a.confirm(what, false)
}

// ending says what a recall ends, by how the rollout stood before.
func ending(r *fleetv1.Rollout) string {
	n := countOf(r.GetWaves()...)
	have := fmt.Sprintf("%s of %s have it", thousands(n.done), thousands(n.total))
	switch {
	case r.GetPhase() == string(fleet.RolloutCompleted):
		return "its rollout was completed: " + have
	case !underWay(r):
		return fmt.Sprintf("its rollout was over (%s): %s", plain(r.GetPhase()), have)
	}
	return fmt.Sprintf("stops its rollout, which is %s: %s, %s", plain(r.GetPhase()), have, origin(r.GetPlanSource()))
}

func (a *app) printRecall(p printer.Printer, req *fleetv1.RecallReleaseRequest, r *fleetv1.RecallReleaseResponse) error {
	answer := answerOf(r)
	answer.Headers = []string{"CLUSTER", "RUNNING", "TARGET", "WHY"}
	answer.Empty = "No cluster runs it or is on its way to it"
	homeless, targets := 0, 0
	for _, m := range r.GetClusters() {
		if m.GetTargetVersion() == "" {
			homeless++
		} else {
			targets++
		}
		answer.Rows = append(answer.Rows, []string{m.GetCluster(), m.GetRunningVersion(), m.GetTargetVersion(), shorten(m.GetReason(), 160)})
		answer.WideRows = append(answer.WideRows, nil)
		answer.Names = append(answer.Names, m.GetCluster())
	}
	if !p.Human() {
		return p.Print(answer)
	}
	var b bytes.Buffer
	for _, ro := range r.GetRollouts() {
		fmt.Fprintln(&b, ending(ro))
	}
	out := p.Out
	p.Out = &b
	if len(answer.Rows) > 0 {
		b.WriteByte('\n')
	}
	err := p.Print(answer)
	if homeless > 0 || targets > 0 {
		b.WriteByte('\n')
	}
	switch {
	case targets > 0 && req.GetRollBack():
		fmt.Fprintf(&b, "%s offered the way to the target\n", plural(targets, "cluster is", "clusters are"))
	case targets > 0:
		b.WriteString("nothing is moved: the targets are proposals; --roll-back offers them\n")
	}
	if homeless > 0 {
		fmt.Fprintf(&b, "%s nowhere to go: publish a mended release\n", plural(homeless, "cluster has", "clusters have"))
	}
	_, writeErr := out.Write(b.Bytes())
	return errors.Join(err, writeErr)
}
