package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/printer"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	localv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/local/v1"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/local"
)

func (a *app) diffCommand() *cobra.Command {
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "diff DISTRIBUTION [VERSION]",
		Short: "Show what delivering a release would do to the cluster",
		Long: `diff has the running spoke lay your overlay over a release, and the cluster try every object of it, without
touching anything. It prints whether the release could be gone back from, what would be done to which object,
what is taken over, which fields of others it sets, and why you would be asked first. Without VERSION: the
one that your policy would take next, or else the one that runs.

Exit code 0: no difference; 1: it differs; 2: the cluster would refuse it, or it cannot be told; 3: timed out.`,
		Example: `  spoke diff shop                     what comes next
  spoke diff shop 1.4.0 -o json       the same for programs`,
		Args:              arguments(1, 2, "a distribution's name and perhaps a version"),
		ValidArgsFunction: a.completed(known),
	}
	p := a.output(c)
	c.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "how long to wait for the cluster's answers")
	c.RunE = func(c *cobra.Command, given []string) error {
		if err := p.Check(); err != nil {
			return err
		}
		var r *localv1.PlanResponse
		err := a.call(c.Context(), timeout, func(ctx context.Context, spoke *local.Client) (err error) {
			r, err = spoke.Plan(ctx, given[0], second(given))
			return err
		})
		switch {
		case exitcode.Of(err) == exitcode.Failed: // 1 says that it differs
			return exitcode.With(exitcode.Usage, fmt.Errorf("diff: %w", err))
		case err != nil:
			return err
		}
		return a.printPlan(p, given[0], r)
	}
	return c
}

// second is the version among a command's arguments; empty where it is left out.
func second(given []string) string {
	if len(given) < 2 {
		return ""
	}
	return given[1]
}

// printPlan writes a plan and turns it into the exit code.
func (a *app) printPlan(p *printer.Printer, distribution string, r *localv1.PlanResponse) error {
	found, err := wire.FromPreflight(r.GetPreflight())
	if err != nil {
		return exitcode.With(exitcode.Usage, fmt.Errorf("read the spoke's answer: %w", err))
	}
	answer := printer.Answer{Message: r, Headers: []string{"VERB", "OBJECT"}}
	for _, s := range r.GetSteps() {
		answer.Rows = append(answer.Rows, []string{s.GetVerb(), s.GetObject()})
		answer.WideRows = append(answer.WideRows, nil)
		answer.Names = append(answer.Names, s.GetObject())
	}
	if p.Human() {
		a.printPlanHead(distribution, r, found)
	}
	if !p.Human() || len(answer.Rows) > 0 {
		if err := p.Print(answer); err != nil {
			return err
		}
	}
	if p.Human() {
		a.printPlanTail(distribution, r)
	}
	switch {
	case found.Outcome == fleet.OutcomeBreaks || len(r.GetProblems()) > 0:
		return exitcode.Silent(exitcode.Usage)
	case len(r.GetSteps()) > 0 || found.Outcome == fleet.OutcomeChanges:
		return exitcode.Silent(exitcode.Failed)
	}
	return nil
}

// printPlanHead says from where to where, what it comes to, and whether there is a way back.
func (a *app) printPlanHead(distribution string, r *localv1.PlanResponse, found fleet.Preflight) {
	fmt.Fprintf(a.out, "%s  %s -> %s\n", distribution, cmp.Or(r.GetFrom(), "nothing"), r.GetTo())
	counts := fleet.Preflight{Outcome: found.Outcome, Changes: found.Changes}.Summary()
	if found.Outcome == fleet.OutcomeBreaks {
		counts = a.paint("31", fleet.Preflight{Outcome: found.Outcome, Reason: found.Reason}.Summary())
	} else if found.Outcome == fleet.OutcomeOk {
		counts = a.paint("32", "no difference")
	}
	fmt.Fprintln(a.out, counts)
	switch {
	case r.GetFrom() == "" || found.Outcome != fleet.OutcomeChanges: // there is nothing to go back to, or from
	case found.Reversibility == fleet.OneWay:
		fmt.Fprintln(a.out, a.paint("31", "one way: it cannot be gone back from"))
	case found.Reversibility == fleet.ReversibleKeepingCRDs:
		fmt.Fprintln(a.out, a.paint("33", "reversible, keeping CustomResourceDefinitions: the newer ones stay"))
	case found.Reversibility == fleet.Reversible:
		fmt.Fprintln(a.out, "reversible")
	}
	for _, why := range r.GetOneWay() {
		fmt.Fprintln(a.out, "  "+why)
	}
	if len(r.GetSteps()) > 0 {
		fmt.Fprintln(a.out)
	}
}

func (a *app) printPlanTail(distribution string, r *localv1.PlanResponse) {
	section(a.out, "On the cluster already, and taken over:", r.GetAdopted())
	section(a.out, "Fields that others set, and the release sets too:", r.GetConflicts())
	section(a.out, "Cannot be tried before others are there:", r.GetUnchecked())
	section(a.out, a.paint("31", "The cluster would refuse:"), r.GetProblems())
	section(a.out, a.paint("33", "It would wait for you:"), r.GetAsks())
	if len(r.GetAsks()) > 0 && len(r.GetProblems()) == 0 {
		fmt.Fprintf(a.out, "  then: spoke approve %s %s\n", distribution, r.GetTo())
	}
}

// section prints lines below a title; nothing where there are none.
func section(out io.Writer, title string, lines []string) {
	if len(lines) == 0 {
		return
	}
	fmt.Fprintf(out, "\n%s\n", title)
	for _, l := range lines {
		fmt.Fprintln(out, "  "+l)
	}
}
