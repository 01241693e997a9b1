package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

func (a *app) rolloutCommand() *cobra.Command {
	c := group("rollout", "Plan, start, watch and steer a release on its way through the fleet",
		a.rolloutPlan(), a.rolloutStart(), a.rolloutStatus(), a.rolloutHistory(), a.rolloutWait())
	for _, v := range verbs {
		c.AddCommand(a.rolloutVerb(v))
	}
	return c
}

// largestPlan bounds the file of a plan in bytes; a plan is a page.
const largestPlan = 1 << 20

// readPlan reads the file of --plan. An empty one is refused: the hub would take the default for it.
func readPlan(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	var in io.Reader = os.Stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, exitcode.With(exitcode.Usage, fmt.Errorf("reading the plan: %w", err))
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, largestPlan+1))
	switch {
	case err != nil:
		return nil, exitcode.With(exitcode.Usage, fmt.Errorf("reading the plan: %w", err))
	case len(b) > largestPlan:
		return nil, exitcode.With(exitcode.Usage, fmt.Errorf("the plan %s is larger than 1 MiB", path))
	case len(bytes.TrimSpace(b)) == 0:
		return nil, exitcode.With(exitcode.Usage, fmt.Errorf("the plan %s is empty; leave --plan out for the plan of the hub or of the release", path))
	}
	return b, nil
}

const planUsage = "`FILE` of the plan, what stands under rollout: in a wheelwright.yaml; - for standard input (default: the hub's for the distribution, else the release's, else one wave of everybody)"

func (a *app) rolloutStart() *cobra.Command {
	var file, reason string
	var dryRun bool
	c := &cobra.Command{
		Use:   "start DISTRIBUTION VERSION",
		Short: "Carry a release through the waves of its plan",
		Long: `start lays the plan over the fleet as it is now and offers the release to the clusters of the first wave.
"hub rollout plan" shows beforehand what it will do. Many plans start by themselves when a release is published.`,
		Example:           "  hub rollout start shop 1.4.0 --plan slow.yaml --reason 'change 4711'",
		Args:              args(2, 2, "DISTRIBUTION and VERSION"),
		ValidArgsFunction: a.complete(distributionArg, versionArg),
		RunE: func(c *cobra.Command, given []string) error {
			plan, err := readPlan(file)
			if err != nil {
				return err
			}
			return a.call(c.Context(), func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
				r, err := hub.StartRollout(ctx, &fleetv1.StartRolloutRequest{Distribution: given[0], Version: given[1], Plan: plan, Reason: reason, DryRun: dryRun})
				if err != nil {
					return err
				}
				ro := r.GetRollout()
				fmt.Fprintf(a.out, "rollout of %s %s %s: %s in %s, %s\n", given[0], given[1], done("started", dryRun),
					plural(countOf(ro.GetWaves()...).total, "cluster", "clusters"), plural(len(ro.GetWaves()), "wave", "waves"), origin(ro.GetPlanSource()))
				for _, w := range ro.GetPlan().GetWarnings() {
					fmt.Fprintln(a.err, "warning:", plain(w))
				}
				if !dryRun {
					a.sayNext(ro)
				} else {
					fmt.Fprintf(a.err, "next: hub rollout plan %s %s\n", given[0], given[1])
				}
				return nil
			})
		},
	}
	c.Flags().StringVar(&file, "plan", "", planUsage)
	audited(c, &reason, &dryRun)
	return c
}

// origin says where a plan is from.
func origin(source string) string {
	switch source {
	case "", "default":
		return "by the default plan"
	case "--plan":
		return "by the plan that was given"
	}
	return "by the plan of " + source
}

// sayNext tells a person how a rollout stands and what to type about it.
func (a *app) sayNext(r *fleetv1.Rollout) {
	state := phaseWord(a.now(), r)
	if r.GetReason() != "" {
		state += ": " + shorten(r.GetReason(), 200)
	}
	fmt.Fprintf(a.err, "now %s\n", state)
	next := nextSteps(r)
	if len(next) == 0 {
		next = []string{fmt.Sprintf("hub rollout status %s %s -w", r.GetDistribution(), r.GetVersion())}
	}
	fmt.Fprintln(a.err, "next:", strings.Join(next, "\n      "))
}

// verb is a person's word about a rollout under way.
type verb struct {
	word, past, short string
	decision          fleetv1.RolloutDecision
	gate              bool                        // it is about one wave
	asks              string                      // what it is about to do, where that cannot be taken back
	takes             func(*fleetv1.Rollout) bool // rollouts it can be meant for, when no version was named
}

func underWay(r *fleetv1.Rollout) bool { return !fleet.RolloutPhase(r.GetPhase()).Terminal() }

func in(phases ...fleet.RolloutPhase) func(*fleetv1.Rollout) bool {
	return func(r *fleetv1.Rollout) bool {
		for _, p := range phases {
			if r.GetPhase() == string(p) {
				return true
			}
		}
		return false
	}
}

var verbs = []verb{
	{word: "approve", past: "approved", short: "Let a wave begin that waits for an approval", decision: fleetv1.RolloutDecision_ROLLOUT_DECISION_APPROVE, gate: true, takes: in(fleet.RolloutApproval)},
	{word: "reject", past: "rejected", short: "Refuse a wave that waits for an approval: the rollout holds", decision: fleetv1.RolloutDecision_ROLLOUT_DECISION_REJECT, gate: true, takes: in(fleet.RolloutApproval)},
	{word: "pause", past: "paused", short: "Offer the release to nobody more until it is resumed", decision: fleetv1.RolloutDecision_ROLLOUT_DECISION_PAUSE, takes: underWay},
	{word: "resume", past: "resumed", short: "Go on after a pause or a hold; the failures so far no longer count", decision: fleetv1.RolloutDecision_ROLLOUT_DECISION_RESUME, takes: in(fleet.RolloutPaused, fleet.RolloutHolding)},
	{word: "abort", past: "aborted", short: "End a rollout; what has the release keeps it", decision: fleetv1.RolloutDecision_ROLLOUT_DECISION_ABORT, takes: underWay,
		asks: "end the rollout of %s %s for good; what has the release keeps it"},
	{word: "undo", past: "undone", short: "Bring every cluster that took the release back to what it ran before", decision: fleetv1.RolloutDecision_ROLLOUT_DECISION_UNDO,
		takes: func(r *fleetv1.Rollout) bool { return underWay(r) || in(fleet.RolloutCompleted)(r) },
		asks:  "bring every cluster that took %s %s in its rollout back to what it ran before"},
}

func (a *app) rolloutVerb(v verb) *cobra.Command {
	req := &fleetv1.DecideRolloutRequest{Decision: v.decision}
	var yes bool
	c := &cobra.Command{
		Use:               v.word + " DISTRIBUTION [VERSION]",
		Short:             v.short,
		Args:              args(1, 2, "DISTRIBUTION and perhaps VERSION"),
		ValidArgsFunction: a.complete(distributionArg, versionArg),
		RunE: func(c *cobra.Command, given []string) error {
			yes = yes || req.DryRun || v.asks == ""
			if err := mayAsk(v.word+" the rollout of "+strings.Join(given, " "), yes); err != nil {
				return err
			}
			req.Distribution = given[0]
			if len(given) > 1 {
				req.Version = given[1]
			} else if err := a.call(c.Context(), func(ctx context.Context, hub fleetv1.FleetServiceClient) (err error) {
				req.Version, err = v.choose(ctx, hub, given[0])
				return err
			}); err != nil {
				return err
			}
			if v.asks != "" {
				if err := a.confirm(fmt.Sprintf(v.asks, req.Distribution, req.Version), yes); err != nil {
					return err
				}
			}
			return a.call(c.Context(), func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
				r, err := hub.DecideRollout(ctx, req)
				if err != nil {
					return err
				}
				what := fmt.Sprintf("rollout of %s %s", req.Distribution, req.Version)
				if req.Wave != "" {
					what = fmt.Sprintf("wave %s of the %s", req.Wave, what)
				}
				fmt.Fprintf(a.out, "%s %s\n", what, done(v.past, req.DryRun))
				if !req.DryRun {
					a.sayNext(r.GetRollout())
				}
				return nil
			})
		},
	}
	if v.gate {
		c.Flags().StringVar(&req.Wave, "wave", "", "`NAME` of the wave (default: the one that waits)")
	}
	if v.asks != "" {
		c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	}
	audited(c, &req.Reason, &req.DryRun)
	return c
}

// choose finds the one rollout of the distribution that the word can be meant for.
func (v verb) choose(ctx context.Context, hub fleetv1.FleetServiceClient, distribution string) (string, error) {
	r, err := hub.ListRollouts(ctx, &fleetv1.ListRolloutsRequest{Distribution: distribution})
	if err != nil {
		return "", err
	}
	var active, fit []string
	for _, ro := range r.GetRollouts() {
		if underWay(ro) {
			active = append(active, ro.GetVersion())
		}
		if v.takes(ro) && (underWay(ro) || len(fit) == 0) { // of those that are over, only the newest
			fit = append(fit, ro.GetVersion())
		}
	}
	switch {
	case len(fit) == 1:
		return fit[0], nil
	case len(fit) > 1:
		return "", exitcode.With(exitcode.Usage, fmt.Errorf("which rollout of %s? Name its version, one of %s: `hub rollout %s %s %s`", distribution, strings.Join(fit, ", "), v.word, distribution, fit[0]))
	case len(active) > 0:
		return "", exitcode.With(exitcode.Failed, fmt.Errorf("there is nothing to %s: the rollout of %s %s does not wait for that; see `hub rollout status %s %s`", v.word, distribution, active[0], distribution, active[0]))
	}
	return "", exitcode.With(exitcode.Failed, fmt.Errorf("there is nothing to %s: no rollout of %s is under way; see `hub rollout history %s`", v.word, distribution, distribution))
}
