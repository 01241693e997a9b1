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
	"github.com/wheelwright-dev/wheelwright/spoke/internal/local"
)

// call asks the spoke that runs on the data folder. What only a running spoke can do says how to start
// one.
func (a *app) call(ctx context.Context, timeout time.Duration, f func(context.Context, *local.Client) error) error {
	dir, err := a.data(true)
	if err != nil {
		return err
	}
	if timeout <= 0 {
		return exitcode.With(exitcode.Usage, fmt.Errorf("--timeout %s: want a duration above 0, such as 5m", timeout))
	}
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	spoke, err := local.Dial(limited, dir)
	if err == nil {
		defer spoke.Close()
		err = f(limited, spoke)
	}
	switch {
	case errors.Is(err, local.ErrNotRunning):
		return exitcode.With(exitcode.Usage, fmt.Errorf("%w; start it with `spoke run --data %s`", err, dir))
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
		return exitcode.With(exitcode.TimedOut, fmt.Errorf("the spoke on %s did not answer within %s; its log says what it does", dir, timeout))
	}
	return err
}

// subscription finds a distribution's in a status.
func subscription(r *localv1.GetStatusResponse, distribution string) (*localv1.Memory, int, error) {
	var names []string
	for n, s := range r.GetSubscriptions() {
		if s.GetDistribution() == distribution {
			return memory(r, distribution), n, nil
		}
		names = append(names, s.GetDistribution())
	}
	return nil, 0, exitcode.With(exitcode.Usage, fmt.Errorf("distribution %q: not subscribed to; subscriptions there: %v", distribution, names))
}

// memory is what the spoke remembers of a distribution; empty where it does not say.
func memory(r *localv1.GetStatusResponse, distribution string) *localv1.Memory {
	for _, m := range r.GetMemories() {
		if m.GetDistribution() == distribution {
			return m
		}
	}
	return &localv1.Memory{Distribution: distribution}
}

// completionWait bounds what a shell waits for on a press of the Tab key.
const completionWait = 2 * time.Second

// completed completes a distribution's name, and after it what versions gives of the spoke's status.
func (a *app) completed(versions func(r *localv1.GetStatusResponse, distribution string) []string) cobra.CompletionFunc {
	return func(c *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
		r, ok := a.glance(c)
		if !ok || len(given) > 1 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		if len(given) == 1 {
			if versions == nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return versions(r, given[0]), cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		for _, s := range r.GetSubscriptions() {
			names = append(names, cobra.CompletionWithDesc(s.GetDistribution(), cmp.Or(s.GetRunningVersion(), "not installed")))
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// glance is the status of a running spoke, or else what its journal remembers.
func (a *app) glance(c *cobra.Command) (*localv1.GetStatusResponse, bool) {
	dir, err := a.data(true)
	if err != nil {
		return nil, false
	}
	ctx, cancel := context.WithTimeout(c.Context(), completionWait)
	defer cancel()
	r, err := a.ask(ctx, dir)
	if errors.Is(err, local.ErrNotRunning) {
		r, err = a.remembered(dir)
	}
	return r, err == nil
}

// known are the versions that a status names: what runs, what is on its way, and what is remembered.
func known(r *localv1.GetStatusResponse, distribution string) []string {
	m, n, err := subscription(r, distribution)
	if err != nil {
		return nil
	}
	seen := map[string]bool{"": true}
	var all []string
	add := func(v string) {
		if !seen[v] {
			seen[v] = true
			all = append(all, v)
		}
	}
	add(r.GetSubscriptions()[n].GetTargetVersion())
	add(r.GetSubscriptions()[n].GetRunningVersion())
	add(r.GetSubscriptions()[n].GetWants())
	add(r.GetSubscriptions()[n].GetWould())
	for _, h := range m.GetHeld() {
		add(h.GetVersion())
	}
	for _, v := range m.GetPrevious() {
		add(v)
	}
	return all
}

// actionable are the versions that an approval could be about.
func actionable(r *localv1.GetStatusResponse, distribution string) []string {
	m, n, err := subscription(r, distribution)
	if err != nil {
		return nil
	}
	var all []string
	if s := r.GetSubscriptions()[n]; fleet.Phase(s.GetPhase()) == fleet.AwaitingApproval {
		all = append(all, s.GetTargetVersion())
	}
	for _, h := range m.GetHeld() {
		all = append(all, h.GetVersion())
	}
	return all
}
