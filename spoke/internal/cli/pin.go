package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"

	"github.com/spf13/cobra"

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/printer"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	localv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/local/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/local"
)

func (a *app) pinCommand() *cobra.Command {
	var reason, until, author string
	var dry bool
	c := &cobra.Command{
		Use:   "pin DISTRIBUTION VERSION",
		Short: "Stay on one release, whatever is offered",
		Long: `pin holds a subscription at one version until it ends or ` + "`spoke unpin`" + ` takes it away. The version has to run
already or to be on offer; where it does not run yet, the cluster goes there, by way of the releases that the
vendor requires in between. A pin in spoke.yaml or in the overlay goes before it. It survives a restart of the spoke,
works with the hub away, and is told to the vendor with its reason, its author and its end.

--until takes a date (its beginning, UTC), a time such as 2027-01-31T18:00:00+01:00, or how long from now.`,
		Example: `  spoke pin shop 1.2.0 --reason "year-end freeze" --until 2027-01-07
  spoke pin shop 1.2.0 --reason "INC-17" --until 7d --dry-run
  spoke unpin shop`,
		Args:              arguments(2, 2, "a distribution's name and a version"),
		ValidArgsFunction: a.completed(known),
	}
	p := a.output(c)
	c.RunE = func(c *cobra.Command, given []string) error {
		pin := fleet.Pin{Version: given[1], Reason: oneLine(reason, 400), Source: fleet.PinSpoke, Author: cmp.Or(author, operator())}
		if err := errors.Join(p.Check(), a.checkPin(&pin, until)); err != nil {
			return exitcode.With(exitcode.Usage, fmt.Errorf("pin: %w; see `spoke pin --help`", err))
		}
		return a.call(c.Context(), orderWait, func(ctx context.Context, spoke *local.Client) error {
			before, err := spoke.Status(ctx)
			if err != nil {
				return err
			}
			running, err := one(before, given[0])
			if err != nil {
				return err
			}
			s, err := spoke.Pin(ctx, given[0], pin, dry)
			if err != nil {
				return fmt.Errorf("pin: %w", err)
			}
			return a.printPin(p, pin, running, s, dry)
		})
	}
	f := c.Flags()
	f.StringVar(&reason, "reason", "", "why, for the vendor to see (required)")
	f.StringVar(&until, "until", "", "when it ends: a date, a `TIME`, or how long from now, such as 7d (default: when it is taken away)")
	f.StringVar(&author, "author", "", "`NAME` of who pins (default: the user of this system)")
	f.BoolVar(&dry, "dry-run", false, "only say what would be done")
	return c
}

// checkPin finds all that is wrong with what was typed.
func (a *app) checkPin(pin *fleet.Pin, until string) error {
	var problems []error
	if _, err := fleet.ParseVersion(pin.Version); err != nil {
		problems = append(problems, err)
	}
	if pin.Reason == "" {
		problems = append(problems, errors.New("--reason is missing: say why, for your colleagues and the vendor to see"))
	}
	var err error
	if pin.Until, err = fleet.ParseUntil(a.now(), until); err != nil {
		problems = append(problems, fmt.Errorf("--until: %w", err))
	}
	return errors.Join(problems...)
}

// operator is who types.
func operator() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return cmp.Or(os.Getenv("USER"), fmt.Sprintf("uid %d", os.Getuid())) // a container without a user database
}

// printPin says what came of a pin: the subscription before it, and with it.
func (a *app) printPin(p *printer.Printer, pin fleet.Pin, before, s *syncv1.SubscriptionStatus, dry bool) error {
	if !p.Human() {
		return p.Print(printer.Answer{Message: &localv1.PinResponse{Subscription: s}, Names: []string{s.GetDistribution()}})
	}
	d, running, wants := s.GetDistribution(), before.GetRunningVersion(), s.GetWants()
	said := "pinned"
	if dry {
		said = "would pin"
	}
	fmt.Fprintf(a.out, "%s %s at %s%s\n", said, d, pin.Version, ends(pin))
	switch reason := oneLine(s.GetReason(), 400); {
	case running == pin.Version && reason != "":
		fmt.Fprintf(a.err, "warning: %s\n", reason)
	case running == pin.Version:
	case wants == pin.Version && running != "" && fleet.CompareTags(pin.Version, running) < 0:
		fmt.Fprintf(a.err, "warning: %s is lower than %s, which runs: %s goes back\n", pin.Version, running, d)
	case wants == pin.Version:
		fmt.Fprintf(a.err, "%s goes from %s to %s\n", d, cmp.Or(running, "nothing"), wants)
	case wants != "" && wants != running:
		fmt.Fprintf(a.err, "warning: %s is not on the way from %s in one step: %s comes first (%s)\n", pin.Version, running, wants, cmp.Or(reason, "a required stop"))
	default:
		fmt.Fprintf(a.err, "warning: %s is not taken now: %s; what runs stays\n", pin.Version, cmp.Or(reason, "the spoke does not say why"))
	}
	if would := s.GetWould(); would != "" && would != running {
		fmt.Fprintf(a.err, "without the pin, %s would be taken\n", would)
	}
	if !dry {
		fmt.Fprintf(a.err, "next: spoke status %s; `spoke unpin %[1]s` takes the pin away\n", d)
	}
	return nil
}

func ends(p fleet.Pin) string {
	if p.Until.IsZero() {
		return ""
	}
	return " until " + fleet.Moment(p.Until)
}

func (a *app) unpinCommand() *cobra.Command {
	var reason string
	var dry bool
	c := &cobra.Command{
		Use:   "unpin DISTRIBUTION",
		Short: "Take away what `spoke pin` made",
		Long: `unpin takes away the pin that was made with ` + "`spoke pin`" + `: what is offered and in range is taken again. A pin of
the overlay, of spoke.yaml or of the hub is taken away where it was made.`,
		Example:           `  spoke unpin shop --reason "the freeze is over"`,
		Args:              arguments(1, 1, "a distribution's name"),
		ValidArgsFunction: a.completed(nil),
		RunE: func(c *cobra.Command, given []string) error {
			return a.call(c.Context(), orderWait, func(ctx context.Context, spoke *local.Client) error {
				before, err := spoke.Status(ctx)
				if err != nil {
					return err
				}
				s, err := one(before, given[0])
				if err != nil {
					return err
				}
				if err := spoke.Unpin(ctx, given[0], oneLine(reason, 400), dry); err != nil {
					return fmt.Errorf("unpin: %w", err)
				}
				said := "unpinned"
				if dry {
					said = "would unpin"
				}
				fmt.Fprintf(a.out, "%s %s%s\n", said, given[0], wasPinned(s))
				if would := s.GetWould(); would != "" {
					fmt.Fprintf(a.err, "%s is taken then, where nothing else holds it back\n", would)
				}
				if !dry {
					fmt.Fprintf(a.err, "next: spoke status %s\n", given[0])
				}
				return nil
			})
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why, for the vendor to see")
	c.Flags().BoolVar(&dry, "dry-run", false, "only say what would be done")
	return c
}

func wasPinned(s *syncv1.SubscriptionStatus) string {
	policy, err := wire.FromPolicy(s.GetPolicy())
	if err != nil || policy.Pin == nil || policy.Pin.Source != fleet.PinSpoke {
		return "" // another pin went before it
	}
	return ", which was pinned at " + pinned(*policy.Pin)
}

// pinned is a pin in words: "1.0.0 until 2027-01-31 by ada (spoke): audit".
func pinned(p fleet.Pin) string {
	who := cmp.Or(p.Source, "its provider")
	if p.Author != "" {
		who = fmt.Sprintf("%s (%s)", p.Author, who)
	}
	text := p.Version + ends(p) + " by " + who
	if p.Reason != "" {
		text += ": " + p.Reason
	}
	return text
}
