package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

func (a *app) rolloutWait() *cobra.Command {
	var forWhat string
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "wait DISTRIBUTION VERSION",
		Short: "Wait until a rollout is healthy, or has come so far; made for pipelines",
		Long: `wait says on standard error what changes, and ends as soon as its end is certain. A release that is not there yet,
or whose rollout has not started, is waited for too.

  --for healthy     the rollout is completed, somebody has the release, and nobody failed with it
  --for wave=N      wave N, counted from 1 or by its name, is over within its budget, and somebody of it has the release
  --for approval    a wave waits for an approval

Clusters that are parked are named and do not count against it.

Exit code 0: so it is; 1: the rollout holds, goes back or ended otherwise, a cluster failed, or none has the release; 2: the hub could not be asked;
3: the time is over; 4: it waits for an approval first.`,
		Example:           "  hub rollout wait shop 1.4.0 --for wave=1 --timeout 30m",
		Args:              args(2, 2, "DISTRIBUTION and VERSION"),
		ValidArgsFunction: a.complete(distributionArg, versionArg),
		RunE: func(c *cobra.Command, given []string) error {
			goal, err := parseGoal(forWhat)
			if err != nil {
				return exitcode.With(exitcode.Usage, err)
			}
			if timeout <= 0 {
				return exitcode.With(exitcode.Usage, fmt.Errorf("--timeout %v: want a time to wait, such as 10m", timeout))
			}
			return a.wait(c.Context(), given[0], given[1], goal, timeout)
		},
	}
	c.Flags().StringVar(&forWhat, "for", "healthy", "`WHAT` to wait for: healthy, wave=N or approval")
	c.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "how long to wait")
	_ = c.RegisterFlagCompletionFunc("for", cobra.FixedCompletions([]string{"healthy", "wave=1", "approval"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// goal is what is waited for.
type goal struct {
	approval bool
	wave     string // number or name; empty: the end
}

func parseGoal(s string) (goal, error) {
	switch name, isWave := strings.CutPrefix(s, "wave="); {
	case s == "healthy":
		return goal{}, nil
	case s == "approval":
		return goal{approval: true}, nil
	case isWave && name != "":
		if n, err := strconv.Atoi(name); err == nil && n < 1 {
			return goal{}, fmt.Errorf("--for %s: waves count from 1", s)
		}
		return goal{wave: name}, nil
	}
	return goal{}, fmt.Errorf("--for %q: want healthy, wave=N or approval", s)
}

func (g goal) String() string {
	switch {
	case g.approval:
		return "an approval to be asked for"
	case g.wave != "":
		return "wave " + g.wave + " to be over"
	}
	return "the rollout to be completed"
}

// index of the wave, from 0.
func (g goal) index(r *fleetv1.Rollout) (int, error) {
	var names []string
	for i, w := range r.GetWaves() {
		if w.GetName() == g.wave {
			return i, nil
		}
		names = append(names, w.GetName())
	}
	if n, err := strconv.Atoi(g.wave); err == nil && n <= len(names) {
		return n - 1, nil
	}
	return 0, exitcode.With(exitcode.Usage, fmt.Errorf("the rollout of %s %s has no wave %s; it has %s: %s", r.GetDistribution(), r.GetVersion(), g.wave, plural(len(names), "wave", "waves"), strings.Join(names, ", ")))
}

// judge says whether the wait is over, and with what.
func (g goal) judge(r *fleetv1.Rollout) (over bool, err error) {
	phase := fleet.RolloutPhase(r.GetPhase())
	if g.wave != "" {
		i, err := g.index(r)
		if err != nil {
			return true, err
		}
		if through(r, i) {
			return true, well(r, i)
		}
	}
	what, why := r.GetDistribution()+" "+r.GetVersion(), ""
	if r.GetReason() != "" {
		why = ": " + shorten(r.GetReason(), 300)
	}
	switch {
	case phase == fleet.RolloutApproval && g.approval:
		return true, nil
	case phase == fleet.RolloutApproval:
		return true, exitcode.With(exitcode.Waiting, fmt.Errorf("the rollout of %s waits for an approval%s; next: %s", what, why, nextSteps(r)[0]))
	case phase == fleet.RolloutCompleted && g.approval:
		return true, exitcode.With(exitcode.Failed, fmt.Errorf("the rollout of %s is completed: no approval is asked for any more", what))
	case phase == fleet.RolloutCompleted:
		return true, well(r, everyWave)
	case phase == fleet.RolloutHolding, phase == fleet.RolloutReturning, phase.Terminal():
		return true, exitcode.With(exitcode.Failed, fmt.Errorf("the rollout of %s: %s%s; see `hub rollout status %s`", what, phase, why, what))
	}
	return false, nil
}

// everyWave, and those that joined later.
const everyWave = -1

// well says what is against a rollout that is over: somebody failed with the release, or nobody has it though
// there are clusters. Of a wave, failures within its budget are not.
func well(r *fleetv1.Rollout, wave int) error {
	n, what := outcomes(r, wave), fmt.Sprintf("the rollout of %s %s", r.GetDistribution(), r.GetVersion())
	if wave != everyWave {
		what = fmt.Sprintf("wave %s of %s", r.GetWaves()[wave].GetName(), what)
	}
	see := fmt.Sprintf("see `hub rollout status %s %s`", r.GetDistribution(), r.GetVersion())
	switch {
	case n.failed > 0 && wave == everyWave:
		return exitcode.With(exitcode.Failed, fmt.Errorf("%s is over, and %s with the release: %s%s; %s", what, plural(n.failed, "cluster failed", "clusters failed"), n, named(r, wave, fleet.MarkFailed, fleet.MarkStranded), see))
	case n.done == 0 && n.total > 0:
		return exitcode.With(exitcode.Failed, fmt.Errorf("%s is over, and no cluster has the release: %s%s; %s", what, n, named(r, wave, fleet.MarkParked, fleet.MarkFailed, fleet.MarkStranded), see))
	}
	return nil
}

// wellSaid is how a wave stands with which nothing is wrong.
func wellSaid(r *fleetv1.Rollout, wave int) string {
	n := outcomes(r, wave)
	if n.total == 0 {
		return fmt.Sprintf("%s %s: no cluster takes part", r.GetDistribution(), r.GetVersion())
	}
	return plain(fmt.Sprintf("%s %s: %s%s", r.GetDistribution(), r.GetVersion(), n, named(r, wave, fleet.MarkParked, fleet.MarkFailed, fleet.MarkStranded)))
}

// outcomes counts a wave's clusters by what became of them.
func outcomes(r *fleetv1.Rollout, wave int) count {
	if wave != everyWave {
		return countOf(r.GetWaves()[wave])
	}
	n := countOf(r.GetWaves()...)
	for _, m := range r.GetClusters() { // who joined is in no wave
		if m.GetWave() >= 0 {
			continue
		}
		n.total++
		switch fleet.Mark(m.GetMark()) {
		case fleet.MarkDone:
			n.done++
		case fleet.MarkFailed, fleet.MarkStranded:
			n.failed++
		case fleet.MarkParked:
			n.parked++
		}
	}
	return n
}

// mostNamed clusters are named one by one.
const mostNamed = 5

// named lists the clusters with one of the marks, each with why; empty for none.
func named(r *fleetv1.Rollout, wave int, marks ...fleet.Mark) string {
	var parts []string
	for _, m := range r.GetClusters() {
		if slices.Contains(marks, fleet.Mark(m.GetMark())) && (wave == everyWave || int(m.GetWave()) == wave) {
			parts = append(parts, strings.TrimSuffix(fmt.Sprintf("%s: %s", m.GetCluster(), shorten(m.GetReason(), 100)), ": "))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	text := " (" + strings.Join(parts[:min(len(parts), mostNamed)], "; ")
	if more := len(parts) - mostNamed; more > 0 {
		text += fmt.Sprintf("; and %s more", thousands(more))
	}
	return text + ")"
}

// errOver ends a wait that came to what it waited for.
var errOver = errors.New("over")

func (a *app) wait(ctx context.Context, distribution, version string, g goal, timeout time.Duration) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var last *fleetv1.Rollout
	var begin sync.Once
	var result error // of what was waited for; time that is up meanwhile changes nothing of it
	state := "nothing was heard of it"
	err := a.follow(ctx, true, func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
		// It begins with the hub's first answer, so that one is always looked at.
		defer begin.Do(func() { time.AfterFunc(timeout, func() { cancel(context.DeadlineExceeded) }) })
		r, err := hub.GetRollout(ctx, &fleetv1.GetRolloutRequest{Distribution: distribution, Version: version})
		if status.Code(err) == codes.NotFound {
			absent, err := notStarted(ctx, hub, distribution, version)
			if err == nil && absent != state {
				state = absent
				fmt.Fprintln(a.err, state)
			}
			return err
		}
		if err != nil {
			return err
		}
		for _, line := range differences(last, r.GetRollout(), wire.FromTime(r.GetAt())) {
			fmt.Fprintln(a.err, line)
		}
		last = r.GetRollout()
		state = phaseWord(wire.FromTime(r.GetAt()), last)
		if last.GetReason() != "" {
			state += ": " + shorten(last.GetReason(), 300)
		}
		if over, err := g.judge(last); over {
			if err == nil {
				a.sayOver(g, last)
				err = errOver
			}
			result = err
			return err
		}
		return nil
	})
	if result != nil {
		err = result
	}
	switch {
	case errors.Is(err, errOver):
		return nil
	case err != nil:
		return err
	case errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		return exitcode.With(exitcode.TimedOut, fmt.Errorf("%s %s: waited %s for %s: %s; see `hub rollout status %s %s`, or wait longer with --timeout", distribution, version, span(timeout), g, state, distribution, version))
	}
	return exitcode.With(exitcode.Usage, errors.New("interrupted"))
}

// sayOver says how what was waited for came out.
func (a *app) sayOver(g goal, r *fleetv1.Rollout) {
	wave := everyWave
	if g.wave != "" {
		wave, _ = g.index(r) // it was found before
	}
	if !g.approval {
		fmt.Fprintln(a.err, wellSaid(r, wave))
	}
}

// notStarted says why there is no rollout yet, or that there will be none.
func notStarted(ctx context.Context, hub fleetv1.FleetServiceClient, distribution, version string) (string, error) {
	what := distribution + " " + version
	r, err := hub.GetRelease(ctx, &fleetv1.GetReleaseRequest{Distribution: distribution, Version: version})
	if status.Code(err) == codes.NotFound {
		if err := knownDistribution(ctx, hub, distribution); err != nil {
			return "", err
		}
		return fmt.Sprintf("%s is not published yet", what), nil
	}
	if err != nil {
		return "", err
	}
	switch rel := r.GetRelease(); {
	case rel.GetPhase() != string(fleet.Available):
		return "", exitcode.With(exitcode.Failed, fmt.Errorf("%s is %s and will not be rolled out; see `hub release describe %s`", what, rel.GetPhase(), what))
	case rel.GetPreflightUntil() != nil:
		return fmt.Sprintf("%s is in pre-flight; its rollout comes after that", what), nil
	}
	return fmt.Sprintf("%s is published and its rollout has not started; where its plan waits for a person: hub rollout start %s", what, what), nil
}
