package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	localv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/local/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/local"
)

// pollEvery is the time between two looks at a rollback that is waited for.
const pollEvery = 500 * time.Millisecond

// rollback is what the command was told.
type rollback struct {
	distribution, to, reason string
	dry, yes, wait           bool
	timeout                  time.Duration
}

// flags are those of every command that goes back.
func (o *rollback) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.reason, "reason", "", "why, for the vendor to see")
	f.BoolVar(&o.dry, "dry-run", false, "only say what would be done")
	f.BoolVar(&o.yes, "yes", false, "do not ask")
	f.BoolVar(&o.wait, "wait", true, "wait until the earlier release runs")
	f.DurationVar(&o.timeout, "timeout", 10*time.Minute, "how long to wait")
}

func (a *app) rollbackCommand() *cobra.Command {
	var o rollback
	c := &cobra.Command{
		Use:   "rollback DISTRIBUTION",
		Short: "Go back to an earlier release, with hub and git away too",
		Long: `rollback puts an earlier release back out of the spoke's own memory, which keeps the last five that ran: nobody
else is asked. Without --to: the one before. While a delivery is under way, it is broken off, and what ran before is put back.

It sticks: the release that you went back from, and those between, are held until ` + "`spoke approve`" + ` takes one up
again or a newer release comes. On a terminal it asks first; elsewhere it wants --yes. It waits until the earlier
release runs, unless told otherwise.

Exit code 0: it runs; 1: it failed; 2: usage, or no spoke runs; 3: timed out, and the spoke goes on with it.`,
		Example: `  spoke rollback shop
  spoke rollback shop --to 1.2.0 --reason "orders are lost" --yes
  spoke status -o wide                what can be gone back to`,
		Args:              arguments(1, 1, "a distribution's name (and the version under --to)"),
		ValidArgsFunction: a.completed(nil),
		RunE: func(c *cobra.Command, given []string) error {
			o.distribution = given[0]
			return a.rollBack(c.Context(), o)
		},
	}
	c.Flags().StringVar(&o.to, "to", "", "`VERSION` to go back to (default: the one before)")
	o.flags(c)
	_ = c.RegisterFlagCompletionFunc("to", func(c *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
		r, ok := a.glance(c)
		if !ok || len(given) == 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return memory(r, given[0]).GetPrevious(), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
	})
	return c
}

func (a *app) rollBack(ctx context.Context, o rollback) error {
	var from, to string
	order := func(version string, dry bool) error {
		return a.call(ctx, o.timeout, func(ctx context.Context, spoke *local.Client) (err error) {
			if from, to, err = spoke.RollBack(ctx, o.distribution, version, o.reason, dry); err != nil {
				return fmt.Errorf("rollback: %w", err)
			}
			return nil
		})
	}
	if err := order(o.to, true); err != nil {
		return err
	}
	what := fmt.Sprintf("roll %s back from %s to %s", o.distribution, from, to)
	if o.dry {
		fmt.Fprintln(a.out, "would "+what)
		return nil
	}
	if err := a.confirm(what, o.yes); err != nil {
		return err
	}
	if err := order(to, false); err != nil { // by name, so that what was said is what is done
		return err
	}
	if !o.wait {
		fmt.Fprintf(a.out, "%s goes back from %s to %s\n", o.distribution, from, to)
		fmt.Fprintf(a.err, "next: spoke status %s\n", o.distribution)
		return nil
	}
	return a.awaitRollback(ctx, o, from, to)
}

// awaitRollback looks until the return is over. A spoke that is restarted meanwhile goes on with it, so
// that its absence is no failure.
func (a *app) awaitRollback(ctx context.Context, o rollback, from, to string) error {
	dir, err := a.data(true)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	said := ""
	for {
		now := ""
		r, err := a.ask(limited, dir)
		switch {
		case err == nil:
			s, err := one(r, o.distribution)
			if err != nil {
				return err
			}
			if over, err := a.rolledBack(s, from, to); over {
				return err
			}
			now = progress(s)
			if s.GetReason() != "" {
				now += ": " + oneLine(s.GetReason(), 200)
			}
		case errors.Is(err, local.ErrNotRunning):
			now = fmt.Sprintf("the spoke is away; it goes on when it is back: spoke run --data %s", dir)
		case limited.Err() == nil && exitcode.Of(err) != exitcode.TimedOut:
			return err
		}
		if now != "" && now != said {
			said = now
			fmt.Fprintf(a.err, "%s  %s\n", o.distribution, now)
		}
		select {
		case <-tick.C:
		case <-limited.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return exitcode.With(exitcode.TimedOut, fmt.Errorf("%s is not back on %s after %s; the spoke goes on: spoke status %s%s", o.distribution, to, o.timeout, o.distribution, because(said)))
		}
	}
}

func because(said string) string {
	if said == "" {
		return ""
	}
	return " (" + said + ")"
}

// one is a distribution's line of a status.
func one(r *localv1.GetStatusResponse, distribution string) (*syncv1.SubscriptionStatus, error) {
	_, n, err := subscription(r, distribution)
	if err != nil {
		return nil, err
	}
	return r.GetSubscriptions()[n], nil
}

// rolledBack reports whether the return is over, and says how it ended.
func (a *app) rolledBack(s *syncv1.SubscriptionStatus, from, to string) (over bool, err error) {
	phase := fleet.Phase(s.GetPhase())
	switch {
	case phase == fleet.RollbackFailed:
		return true, exitcode.With(exitcode.Failed, fmt.Errorf("%s could not go back to %s: %s; spoke status %[1]s says what is there now", s.GetDistribution(), to, cmp.Or(oneLine(s.GetReason(), 400), "no reason given")))
	case phase.Touching() || s.GetRunningVersion() != to:
		return false, nil
	}
	fmt.Fprintf(a.out, "%s runs %s, rolled back from %s\n", s.GetDistribution(), to, from)
	if held := "`spoke approve " + s.GetDistribution() + " " + from + "`"; phase == fleet.RolledBack {
		fmt.Fprintf(a.err, "%s is held: %s takes it up again\n", from, held)
	}
	return true, nil
}
