package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

func (a *app) distributionCommand() *cobra.Command {
	return group("distribution", "Add and remove the repositories that the hub watches, and say whose tags are published", a.distributionAdd(), a.distributionSet(), a.distributionRemove())
}

func (a *app) distributionAdd() *cobra.Command {
	d := &fleetv1.Distribution{}
	var interval, preflight time.Duration
	var dryRun bool
	keys := signerFlags{}
	c := &cobra.Command{
		Use:   "add NAME --git URL",
		Short: "Watch a distribution repository for release tags",
		Long: `add watches a git repository: every tag that is a semantic version in range becomes a release.
The repository is read before anything is stored. URL is https, ssh (git@host:path) or a path on the hub's machine.
With --signers only tags that these keys have signed become releases. A spoke checks that for itself, against keys of its
provider's: this keeps what a spoke would refuse from being offered at all.`,
		Example: `  hub distribution add shop --git https://git.example.com/vendor/shop.git --tags '>=1.0.0'
  hub distribution add shop --git https://git.example.com/vendor/shop.git --signers allowed_signers`,
		Args: args(1, 1, "the distribution's NAME"),
		RunE: func(c *cobra.Command, given []string) error {
			if d.Url == "" {
				return exitcode.With(exitcode.Usage, fmt.Errorf("which repository? Name it: `hub distribution add %s --git URL`", given[0]))
			}
			if c.Flags().Changed("interval") && (interval < time.Second || interval > 24*time.Hour) {
				return exitcode.With(exitcode.Usage, fmt.Errorf("--interval %v: want 1s to 24h", interval))
			}
			if preflight < 0 || preflight > 24*time.Hour || preflight%time.Second != 0 {
				return exitcode.With(exitcode.Usage, fmt.Errorf("--preflight %v: want whole seconds, 0s to 24h", preflight))
			}
			var err error
			if d.Signers, err = keys.read(); err != nil {
				return exitcode.With(exitcode.Usage, err)
			}
			d.Name, d.IntervalSeconds, d.PreflightSeconds, d.Url = given[0], uint32(interval.Seconds()), uint32(preflight.Seconds()), absolute(d.Url)
			return a.call(c.Context(), func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
				r, err := hub.AddDistribution(ctx, &fleetv1.AddDistributionRequest{Distribution: d, DryRun: dryRun})
				if err != nil {
					return err
				}
				fmt.Fprintf(a.out, "distribution %s %s: %s, path %s\n", d.GetName(), done("added", dryRun), r.GetDistribution().GetUrl(), r.GetDistribution().GetPath())
				a.printSigners(r.GetDistribution().GetSigners())
				for _, n := range r.GetDistribution().GetNotes() {
					fmt.Fprintln(a.err, "note:", n)
				}
				if !dryRun {
					fmt.Fprintf(a.err, "next: hub get releases %s\n", d.GetName())
				}
				return nil
			})
		},
	}
	c.Flags().StringVar(&d.Url, "git", "", "repository `URL` or path")
	c.Flags().StringVar(&d.Path, "path", "dist", "`PATH` of the distribution inside the repository")
	c.Flags().StringVar(&d.Tags, "tags", "", "semver `RANGE` of tags that are releases, such as '>=1.0.0' (default: any)")
	c.Flags().DurationVar(&interval, "interval", 0, "time between polls (default: the hub's, 30s unless its hub.yaml says otherwise)")
	c.Flags().DurationVar(&preflight, "preflight", 0, "how long spokes may only try out a new release before they may take it, at most 24h; it ends early when all that are connected have answered and none would break")
	keys.flags(c)
	c.Flags().BoolVar(&dryRun, "dry-run", false, "read the repository and change nothing")
	return c
}

// absolute makes a path that exists here absolute, since the hub has a working folder of its own.
func absolute(url string) string {
	if strings.Contains(url, "://") {
		return url
	}
	if _, err := os.Stat(url); err != nil {
		return url
	}
	abs, err := filepath.Abs(url)
	if err != nil {
		return url
	}
	return abs
}

func (a *app) distributionRemove() *cobra.Command {
	var yes, dryRun bool
	c := &cobra.Command{
		Use:   "remove NAME",
		Short: "Stop watching a distribution; releases and clusters stay as they are",
		Args:  args(1, 1, "the distribution's NAME"),
		RunE: func(c *cobra.Command, given []string) error {
			if err := a.confirm(fmt.Sprintf("stop watching distribution %s", given[0]), yes || dryRun); err != nil {
				return err
			}
			return a.call(c.Context(), func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
				r, err := hub.RemoveDistribution(ctx, &fleetv1.RemoveDistributionRequest{Name: given[0], DryRun: dryRun})
				if err != nil {
					return err
				}
				for _, ro := range r.GetRollouts() {
					fmt.Fprintf(a.out, "rollout of %s %s %s: what has the release keeps it\n", ro.GetDistribution(), plain(ro.GetVersion()), done("aborted", dryRun))
				}
				fmt.Fprintf(a.out, "distribution %s %s\n", given[0], done("removed", dryRun))
				return nil
			})
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "say what would happen and change nothing")
	return c
}

func done(verb string, dryRun bool) string {
	if dryRun {
		return verb + " (dry run: nothing changed)"
	}
	return verb
}
