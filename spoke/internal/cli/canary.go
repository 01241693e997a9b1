package cli

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/printer"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	localv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/local/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/local"
)

func (a *app) canaryCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "canary",
		Short: "See and steer how live traffic is led to a release",
		Long: `canary is about a release that is not promoted yet: its candidates stand beside what runs, and are led live
traffic step by step, all services together. ` + "`spoke approve` and `spoke reject`" + ` answer where you are asked.`,
		Example: `  spoke canary status shop -w
  spoke canary hold shop --reason "the sale starts at noon"
  spoke canary abort shop --reason "orders are slow" --yes`,
		Args: arguments(0, 0, "status, hold, resume, step, skip or abort"),
		RunE: func(c *cobra.Command, _ []string) error {
			_ = c.Help()
			return exitcode.Silent(exitcode.Usage)
		},
	}
	c.AddCommand(a.canaryStatusCommand())
	for _, s := range steers() {
		c.AddCommand(a.steerCommand(s))
	}
	c.AddCommand(a.canaryAbortCommand())
	return c
}

// steer is one word that steers.
type steer struct {
	word              fleet.Steer
	short, long, done string
	asks              string // what is asked first, about a release; empty: nothing
	next              string
}

func steers() []steer {
	return []steer{
		{word: fleet.SteerHold, short: "Keep a canary at the step where it is", done: "held",
			long: `hold keeps a canary at the step where it is, until ` + "`spoke canary resume`" + `. It is measured further: what fails is
taken back, held or not.`, next: "`spoke canary resume %s` lets it go on"},
		{word: fleet.SteerResume, short: "Let a held canary go on", done: "resumed",
			long: `resume ends a hold. What was measured meanwhile counts.`, next: "spoke canary status %s -w"},
		{word: fleet.SteerStep, short: "Go to the next step now, whatever was measured of this one", done: "led on",
			long: `step ends the step that is under way, without waiting for its measurements, and a hold or a question with it. After
the last step comes the promotion. On a terminal it asks first; elsewhere it wants --yes.`,
			asks: "go on from %s of %s %s, whatever was measured", next: "spoke canary status %s -w"},
		{word: fleet.SteerSkip, short: "Promote now, without the steps that are left", done: "promoted",
			long: `skip leaves out the steps that are left: the release is applied now, and has to become healthy and pass its tests as
one without a canary does. On a terminal it asks first; elsewhere it wants --yes.`,
			asks: "promote at %s of %s %s, without what is left", next: "spoke status %s"},
	}
}

func (a *app) steerCommand(s steer) *cobra.Command {
	var reason string
	var yes bool
	c := &cobra.Command{
		Use:               string(s.word) + " DISTRIBUTION [VERSION]",
		Short:             s.short,
		Long:              s.long + " Without VERSION: the one that is under way.",
		Example:           fmt.Sprintf("  spoke canary %s shop --reason \"INC-17\"", s.word),
		Args:              arguments(1, 2, "a distribution's name and perhaps a version"),
		ValidArgsFunction: a.completed(led),
		RunE: func(c *cobra.Command, given []string) error {
			return a.call(c.Context(), orderWait, func(ctx context.Context, spoke *local.Client) error {
				version := second(given)
				if s.asks != "" {
					now, err := a.leading(ctx, spoke, string(s.word), given[0], version)
					if err != nil {
						return err
					}
					version = now.GetTargetVersion() // what was asked about is what is done
					if err := a.confirm(fmt.Sprintf(s.asks, wire.FromCanary(now.GetCanary()), given[0], version), yes); err != nil {
						return err
					}
				}
				version, err := spoke.Steer(ctx, given[0], version, s.word, oneLine(reason, 400))
				if err != nil {
					return fmt.Errorf("canary %s: %w", s.word, err)
				}
				fmt.Fprintf(a.out, "the canary of %s %s is %s\n", given[0], version, s.done)
				fmt.Fprintf(a.err, "next: "+s.next+"\n", given[0])
				return nil
			})
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why, for the vendor to see")
	c.Flags().BoolVar(&yes, "yes", false, map[bool]string{true: "do not ask", false: "for scripts; nothing is asked here"}[s.asks != ""])
	return c
}

func (a *app) canaryAbortCommand() *cobra.Command {
	var o rollback
	c := &cobra.Command{
		Use:   "abort DISTRIBUTION",
		Short: "Take a canary back: all traffic to what runs",
		Long: `abort ends a canary: all traffic is led to what runs, the candidates go, and the release is held until
` + "`spoke approve`" + ` takes it up again or a newer one comes. Of a release that is being promoted already, ` + "`spoke rollback`" + `
goes back. On a terminal it asks first; elsewhere it wants --yes. It waits until that is over, unless told otherwise.

Exit code 0: what ran before runs, alone; 1: no canary is under way, or the return failed; 2: usage, or no spoke runs;
3: timed out, and the spoke goes on with it.`,
		Example:           `  spoke canary abort shop --reason "orders are slow"`,
		Args:              arguments(1, 1, "a distribution's name"),
		ValidArgsFunction: a.completed(nil),
		RunE: func(c *cobra.Command, given []string) error {
			o.distribution = given[0]
			err := a.call(c.Context(), orderWait, func(ctx context.Context, spoke *local.Client) error {
				s, err := a.leading(ctx, spoke, "abort", o.distribution, "")
				o.to = s.GetRunningVersion() // nothing else is gone back to, should it be over meanwhile
				return err
			})
			if err != nil {
				return err
			}
			return a.rollBack(c.Context(), o)
		},
	}
	o.flags(c)
	return c
}

// leading is a subscription with a canary under way, of this version where one is named.
func (a *app) leading(ctx context.Context, spoke *local.Client, verb, distribution, version string) (*syncv1.SubscriptionStatus, error) {
	r, err := spoke.Status(ctx)
	if err != nil {
		return nil, err
	}
	s, err := one(r, distribution)
	switch {
	case err != nil:
		return nil, err
	case s.GetCanary() == nil || version != "" && version != s.GetTargetVersion():
		return nil, fmt.Errorf("canary %s: %s: %w: no canary is under way; spoke status %s says what is", verb, strings.TrimSpace(distribution+" "+version), fleet.ErrNothingWaits, distribution)
	}
	return s, nil
}

// led are the versions that a canary is under way of.
func led(r *localv1.GetStatusResponse, distribution string) []string {
	if s, err := one(r, distribution); err == nil && s.GetCanary() != nil {
		return []string{s.GetTargetVersion()}
	}
	return nil
}

func (a *app) canaryStatusCommand() *cobra.Command {
	var watch bool
	c := &cobra.Command{
		Use:   "status DISTRIBUTION",
		Short: "Show how far live traffic is led",
		Long: `status shows the step of a canary, the part of each service's traffic that its candidate has, and what was measured
last. With -w it writes a line at each change, until the canary is over.

Exit code 0: it goes on, or with -w: the release runs; 1: none is under way, or with -w: it was taken back; 2: usage, or
no spoke runs; 4: it waits for your approval.`,
		Args:              arguments(1, 1, "a distribution's name"),
		ValidArgsFunction: a.completed(nil),
	}
	p := a.output(c)
	c.Flags().BoolVarP(&watch, "watch", "w", false, "write a line at each change, until it is over")
	c.RunE = func(c *cobra.Command, given []string) error {
		if err := p.Check(); err != nil {
			return err
		}
		var s *syncv1.SubscriptionStatus
		err := a.call(c.Context(), askWait, func(ctx context.Context, spoke *local.Client) (err error) {
			s, err = a.leading(ctx, spoke, "status", given[0], "")
			return err
		})
		switch {
		case err != nil:
			return err
		case watch:
			return a.watchCanary(c.Context(), s)
		}
		return a.printCanary(p, s)
	}
	return c
}

// printCanary writes how far a canary is.
func (a *app) printCanary(p *printer.Printer, s *syncv1.SubscriptionStatus) error {
	c := wire.FromCanary(s.GetCanary())
	if c == nil {
		return fmt.Errorf("%s: the spoke says of its canary what this command does not understand; are both of one version? spoke version", s.GetDistribution())
	}
	answer := printer.Answer{Message: s, Headers: []string{"SERVICE", "TRAFFIC", "COPIES", "OF"}, Empty: "No service is led traffic yet."}
	for _, t := range c.Traffic {
		of := "all"
		if t.Matches {
			of = "what matches"
		}
		answer.Rows = append(answer.Rows, []string{t.Service, fmt.Sprintf("%d %%", t.Weight), fmt.Sprintf("%d %%", t.Mirror), of})
		answer.WideRows = append(answer.WideRows, nil)
		answer.Names = append(answer.Names, t.Service)
	}
	if p.Human() {
		where := fmt.Sprintf("step %d of %d", c.Step, c.Steps)
		if c.Held {
			where += ", held"
		}
		fmt.Fprintf(a.out, "%s %s beside %s: %s; %s for %s\n\n", s.GetDistribution(), s.GetTargetVersion(), s.GetRunningVersion(), where, s.GetPhase(), fleet.Age(a.now(), wire.FromTime(s.GetPhaseSince())))
	}
	if err := p.Print(answer); err != nil {
		return err
	}
	if p.Human() {
		reason, _, _ := strings.Cut(s.GetReason(), "; see it with: spoke ")
		fmt.Fprintf(a.out, "\n%s\n", cmp.Or(oneLine(reason, 400), "nothing was measured yet"))
		if asks(s) {
			fmt.Fprintf(a.err, "next: spoke approve %s %s, or: spoke reject %[1]s %[2]s\n", s.GetDistribution(), s.GetTargetVersion())
		}
	}
	if asks(s) {
		return exitcode.Silent(exitcode.Waiting)
	}
	return nil
}

// watchCanary writes a line at each change until the delivery is over, its promotion and tests included. A
// spoke that is restarted meanwhile goes on with it.
func (a *app) watchCanary(ctx context.Context, s *syncv1.SubscriptionStatus) error {
	target, said := s.GetTargetVersion(), ""
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		word := cmp.Or(progress(s), s.GetPhase())
		if line := strings.TrimSuffix(fmt.Sprintf("%s  %s: %s", s.GetDistribution(), word, oneLine(s.GetReason(), 300)), ": "); line != said {
			said = line
			fmt.Fprintln(a.out, line)
		}
		switch phase := fleet.Phase(s.GetPhase()); {
		case s.GetRunningVersion() == target && !underWay(s):
			return nil
		case s.GetTargetVersion() != target, phase.Terminal():
			return exitcode.With(exitcode.Failed, fmt.Errorf("%s %s was not promoted; spoke status %[1]s says what runs", s.GetDistribution(), target))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		err := a.call(ctx, askWait, func(ctx context.Context, spoke *local.Client) error {
			r, err := spoke.Status(ctx)
			if err == nil {
				s, err = one(r, s.GetDistribution())
			}
			return err
		})
		if err != nil {
			return err
		}
	}
}
