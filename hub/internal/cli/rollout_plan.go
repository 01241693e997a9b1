package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wheelwright-dev/wheelwright/pkg/printer"
	"github.com/wheelwright-dev/wheelwright/pkg/table"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

func (a *app) rolloutPlan() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "plan DISTRIBUTION VERSION",
		Short: "Show what a rollout would do, and what stands in its way; nothing is started",
		Long: `plan lays the plan over the fleet as it is now: the waves in their order with their clusters, and for each
cluster what would keep it from the release. Clusters without a blocker are counted where a wave is long;
-o wide lists every one.`,
		Example:           "  hub rollout plan shop 1.4.0\n  hub rollout plan shop 1.4.0 --plan slow.yaml -o wide",
		Args:              args(2, 2, "DISTRIBUTION and VERSION"),
		ValidArgsFunction: a.complete(distributionArg, versionArg),
	}
	p := a.output(c)
	c.Flags().StringVar(&file, "plan", "", planUsage)
	c.RunE = func(c *cobra.Command, given []string) error {
		if err := p.Check(); err != nil {
			return err
		}
		plan, err := readPlan(file)
		if err != nil {
			return err
		}
		return a.call(c.Context(), func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
			r, err := hub.PlanRollout(ctx, &fleetv1.PlanRolloutRequest{Distribution: given[0], Version: given[1], Plan: plan})
			if err != nil {
				return err
			}
			if err := a.printPlan(*p, r.GetPlan()); err != nil {
				return err
			}
			if p.Human() {
				fmt.Fprintln(a.err, afterPlan(given[0]+" "+given[1], r.GetPlan().GetState(), file))
			}
			return nil
		})
	}
	return c
}

// afterPlan is what can be typed next.
func afterPlan(what, state, file string) string {
	switch {
	case state == "Preflight":
		return fmt.Sprintf("nothing was started: %s is in pre-flight; next: hub release describe %[1]s", what)
	case state != "":
		return fmt.Sprintf("nothing was started: the rollout of %s is %s already; next: hub rollout status %[1]s", what, plain(state))
	case file != "":
		what += " --plan " + file
	}
	return "nothing was started; next: hub rollout start " + what
}

// foldAfter is how many clusters without a blocker a wave names before it counts the others.
const foldAfter = 20

func (a *app) printPlan(p printer.Printer, plan *fleetv1.RolloutPlan) error {
	if p.Human() {
		return a.drawPlan(p.Out, plan, p.Format == "wide", p.NoHeaders)
	}
	answer := answerOf(plan)
	for _, w := range plan.GetWaves() {
		for _, m := range w.GetClusters() {
			answer.Names = append(answer.Names, m.GetCluster())
		}
	}
	return p.Print(answer)
}

// drawPlan writes the waves one below the other, their columns aligned.
func (a *app) drawPlan(out io.Writer, plan *fleetv1.RolloutPlan, all, noHeaders bool) error {
	clusters, blocked := 0, 0
	var rows [][]string
	heads := map[int]string{} // above row
	notes := map[int]string{} // below row
	for i, w := range plan.GetWaves() {
		heads[len(rows)] += "\n" + waveTitle(i, w) + "\n"
		free, folded := 0, 0
		for _, m := range w.GetClusters() {
			clusters++
			if len(m.GetBlockers()) > 0 && m.GetRunningVersion() != plan.GetVersion() { // to run it already stands in nobody's way
				blocked++
			} else if free++; free > foldAfter && !all {
				folded++
				continue
			}
			rows = append(rows, planRow(m))
		}
		if len(w.GetClusters()) == 0 {
			heads[len(rows)] += "  matches no cluster\n"
		}
		if folded > 0 {
			notes[len(rows)] = fmt.Sprintf("  … and %s without a blocker; -o wide names them\n", plural(folded, "cluster more", "clusters more"))
		}
	}
	if len(plan.GetLeftOut()) > 0 {
		heads[len(rows)] += fmt.Sprintf("\nIn no wave: %s\n", plural(len(plan.GetLeftOut()), "cluster", "clusters"))
		for _, m := range plan.GetLeftOut() {
			rows = append(rows, planRow(m))
		}
	}
	summary := fmt.Sprintf("%s %s %s: %s in %s", plan.GetDistribution(), plan.GetVersion(), origin(plan.GetSource()), plural(clusters, "cluster", "clusters"), plural(len(plan.GetWaves()), "wave", "waves"))
	if blocked > 0 {
		summary += fmt.Sprintf("; %s with something in the way", plural(blocked, "cluster", "clusters"))
	}
	var t bytes.Buffer
	if err := table.Write(&t, []string{"  CLUSTER", "RUNNING", "IN ITS WAY"}, rows, noHeaders); err != nil {
		return err
	}
	lines := strings.SplitAfter(t.String(), "\n")
	header := ""
	if !noHeaders {
		header, lines = lines[0], lines[1:]
	}
	var b strings.Builder
	b.WriteString(plain(summary) + "\n")
	for i := 0; i <= len(rows); i++ {
		b.WriteString(notes[i])
		b.WriteString(heads[i])
		if i < len(rows) {
			if i == 0 {
				b.WriteString(header)
			}
			b.WriteString(lines[i])
		}
	}
	if len(plan.GetWarnings()) > 0 {
		fmt.Fprintf(&b, "\n%s\n", a.paint(yellow, "Warnings:"))
		for _, w := range plan.GetWarnings() {
			fmt.Fprintf(&b, "  %s\n", plain(w))
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func planRow(m *fleetv1.PlannedCluster) []string {
	return []string{"  " + m.GetCluster(), m.GetRunningVersion(), strings.Join(m.GetBlockers(), "; ")}
}

func waveTitle(i int, w *fleetv1.PlannedWave) string {
	parts := []string{plural(len(w.GetClusters()), "cluster", "clusters")}
	if n := int(w.GetConcurrency()); n > 0 && n < len(w.GetClusters()) {
		parts = append(parts, thousands(n)+" at once")
	}
	if len(w.GetClusters()) > 0 {
		allowed := plural(int(w.GetBudget()), "failure allowed", "failures allowed")
		if w.GetBudget() == 0 {
			allowed = "no failure allowed"
		}
		parts = append(parts, allowed)
	}
	parts = append(parts, w.GetGates()...)
	return plain(fmt.Sprintf("%d. %s: %s", i+1, w.GetName(), strings.Join(parts, ", ")))
}
