package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	localv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/local/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/local"
)

// orderWait bounds how long the spoke may take to let go of what it is at and to write an order down.
const orderWait = time.Minute

func (a *app) approveCommand() *cobra.Command {
	var dry bool
	c := &cobra.Command{
		Use:   "approve DISTRIBUTION [VERSION]",
		Short: "Let a release go on that waits for you, or take up one that is held",
		Long: `approve lets a delivery go on that waits for you: one that deletes more than the deletion budget of spoke.yaml or
cannot be gone back from, a canary at a gate, or tests that came to no verdict. It answers what is asked now: the next
gate asks again. It also takes up again a release that is held after it failed, was rejected or was rolled back
from. Without VERSION: the one that waits, or else the only one that is held.`,
		Example: `  spoke status                        what waits, and why
  spoke diff shop 1.4.0               what it would do
  spoke approve shop 1.4.0`,
		Args:              arguments(1, 2, "a distribution's name and perhaps a version"),
		ValidArgsFunction: a.completed(actionable),
		RunE: func(c *cobra.Command, given []string) error {
			return a.call(c.Context(), orderWait, func(ctx context.Context, spoke *local.Client) error {
				if dry {
					return a.wouldAct(ctx, spoke, "approve", given[0], second(given), true)
				}
				version, err := spoke.Approve(ctx, given[0], second(given))
				if err != nil {
					return fmt.Errorf("approve: %w", err)
				}
				fmt.Fprintf(a.out, "approved %s %s\n", given[0], version)
				fmt.Fprintf(a.err, "next: spoke status %s\n", given[0])
				return nil
			})
		},
	}
	c.Flags().BoolVar(&dry, "dry-run", false, "only say what would be approved")
	return c
}

func (a *app) rejectCommand() *cobra.Command {
	var reason string
	var dry bool
	c := &cobra.Command{
		Use:   "reject DISTRIBUTION [VERSION]",
		Short: "Refuse a release that waits for you",
		Long: `reject ends a delivery that waits for you: what runs is kept as it is, traffic that a canary has is led back, and what
was applied already is taken back. The release is held, until you approve it after all or a newer one comes. Your
reason is told to the vendor.`,
		Example:           `  spoke reject shop 1.4.0 --reason "it deletes the search service"`,
		Args:              arguments(1, 2, "a distribution's name and perhaps a version"),
		ValidArgsFunction: a.completed(actionable),
		RunE: func(c *cobra.Command, given []string) error {
			return a.call(c.Context(), orderWait, func(ctx context.Context, spoke *local.Client) error {
				if dry {
					return a.wouldAct(ctx, spoke, "reject", given[0], second(given), false)
				}
				version, err := spoke.Reject(ctx, given[0], second(given), reason)
				if err != nil {
					return fmt.Errorf("reject: %w", err)
				}
				fmt.Fprintf(a.out, "rejected %s %s\n", given[0], version)
				fmt.Fprintf(a.err, "next: spoke status %s; `spoke approve %[1]s %s` takes it after all\n", given[0], version)
				return nil
			})
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why, for the vendor to see")
	c.Flags().BoolVar(&dry, "dry-run", false, "only say what would be rejected")
	return c
}

// wouldAct says what an approval or a rejection would be about; held says that a held release counts too.
func (a *app) wouldAct(ctx context.Context, spoke *local.Client, verb, distribution, version string, held bool) error {
	r, err := spoke.Status(ctx)
	if err != nil {
		return err
	}
	m, n, err := subscription(r, distribution)
	if err != nil {
		return err
	}
	s := r.GetSubscriptions()[n]
	if held {
		if err := mayApprove(s, m, version); err != nil {
			return err
		}
	}
	if fleet.Phase(s.GetPhase()) == fleet.AwaitingApproval && (version == "" || version == s.GetTargetVersion()) {
		fmt.Fprintf(a.out, "would %s %s %s, which waits: %s\n", verb, distribution, s.GetTargetVersion(), cmp.Or(oneLine(s.GetReason(), 400), "no reason given"))
		return nil
	}
	candidates := slices.DeleteFunc(slices.Clone(m.GetHeld()), func(h *localv1.Held) bool { return !held || version != "" && version != h.GetVersion() })
	switch len(candidates) {
	case 0:
		return fmt.Errorf("%s: %s: %w; spoke status %s says what waits", verb, distribution, fleet.ErrNothingWaits, distribution)
	case 1:
		fmt.Fprintf(a.out, "would %s %s %s, which is held: %s\n", verb, distribution, candidates[0].GetVersion(), cmp.Or(oneLine(candidates[0].GetReason(), 400), "no reason given"))
		return nil
	}
	var versions []string
	for _, h := range candidates {
		versions = append(versions, h.GetVersion())
	}
	return exitcode.With(exitcode.Failed, fmt.Errorf("%s: %s: %d releases are held: name one of %v", verb, distribution, len(versions), versions))
}

// mayApprove refuses what was withdrawn, as the spoke does.
func mayApprove(s *syncv1.SubscriptionStatus, m *localv1.Memory, version string) error {
	if version == "" && asks(s) {
		version = s.GetTargetVersion()
	} else if version == "" && len(m.GetHeld()) == 1 {
		version = m.GetHeld()[0].GetVersion()
	}
	if w := withdrawn(m, version); w != nil {
		return fmt.Errorf("approve: %s %s: %w: it was withdrawn: %s; spoke status %[1]s says what runs and what is on offer", s.GetDistribution(), version, fleet.ErrNothingWaits, cmp.Or(oneLine(w.GetReason(), 400), "no reason given"))
	}
	return nil
}
