package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wheelwright-dev/wheelwright/hub/internal/clientcontext"
	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/printer"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

func (a *app) authorityCommand() *cobra.Command {
	return group("authority", "The hub's own certificate authority: see it, and replace its key without a gap",
		a.authorityStatus(), a.authorityRotate(), a.authorityRetire())
}

func (a *app) authorityStatus() *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "Show the authority's keys, and who does not follow the newest yet",
		Args:  args(0, 0, "no arguments"),
	}
	p := a.output(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := p.Check(); err != nil {
			return err
		}
		return a.call(c.Context(), func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
			r, err := hub.GetAuthority(ctx, &fleetv1.GetAuthorityRequest{})
			if err != nil {
				return err
			}
			return a.showAuthority(p, r)
		})
	}
	return c
}

// shortPin is how much of a pin a table shows.
const shortPin = 16

func (a *app) showAuthority(p *printer.Printer, r *fleetv1.GetAuthorityResponse) error {
	answer := printer.Answer{Message: r, Headers: []string{"KEY", "USE", "UNTIL"}, WideHeaders: []string{"PIN", "NAME", "SINCE"}}
	for _, k := range r.GetKeys() {
		var use []string
		if k.GetShown() {
			use = append(use, "the hub shows itself under it")
		}
		if k.GetIssues() {
			use = append(use, "issues certificates")
		}
		answer.Names = append(answer.Names, k.GetPin())
		answer.Rows = append(answer.Rows, []string{k.GetPin()[:min(shortPin, len(k.GetPin()))], strings.Join(use, ", "), stamp(k.GetNotAfter())})
		answer.WideRows = append(answer.WideRows, []string{k.GetPin(), plain(k.GetName()), stamp(k.GetNotBefore())})
	}
	if err := p.Print(answer); err != nil || p.Format != "table" && p.Format != "wide" || len(r.GetKeys()) < 2 {
		return err
	}
	relays := ""
	if r.GetRelays() > 0 {
		relays = fmt.Sprintf(", %d of %s", r.GetRelaysFollowing(), plural(int(r.GetRelays()), "relay", "relays"))
	}
	fmt.Fprintf(a.out, "\n%d of %s%s and %d of %s follow the new key\n", r.GetClustersFollowing(), plural(int(r.GetClusters()), "cluster", "clusters"), relays,
		r.GetOperatorsFollowing(), plural(int(r.GetOperators()), "operator", "operators"))
	for _, b := range r.GetLeftBehind() {
		fmt.Fprintf(a.out, "  %s: %s\n", plain(b.GetWho()), plain(b.GetReason()))
	}
	if len(r.GetLeftBehind()) == 0 {
		fmt.Fprintln(a.err, "next: hub authority retire --reason '…'; context files with a token are not counted: have their owners run `hub auth renew` first")
	}
	return nil
}

func (a *app) authorityRotate() *cobra.Command {
	req := &fleetv1.RotateAuthorityRequest{}
	var yes bool
	c := &cobra.Command{
		Use:   "rotate --reason WHY",
		Short: "Make a new key of the authority beside the old one",
		Long: `rotate makes a new key beside the one that there is. From then on certificates are issued under the new key, and
whoever gets one is told to trust both; the hub still shows itself under the old key, which everybody trusts. Spokes
that are connected renew within a minute or so, others when they are back; operators run "hub auth renew". Once
"hub authority status" has nobody left behind, "hub authority retire" ends the old key. Nothing stops meanwhile,
and DIR/authority wants a new backup after each of the two.`,
		Example: "  hub authority rotate --reason 'every five years'",
		Args:    args(0, 0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			if strings.TrimSpace(req.Reason) == "" {
				return exitcode.With(exitcode.Usage, fmt.Errorf("why? The audit keeps it: `hub authority rotate --reason '…'`"))
			}
			if err := a.confirm("make a new key of the hub's authority", yes || req.DryRun); err != nil {
				return err
			}
			return a.call(c.Context(), func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
				r, err := hub.RotateAuthority(ctx, req)
				if err != nil {
					return err
				}
				fmt.Fprintln(a.out, done("a new key of the authority made", req.DryRun))
				if !req.DryRun {
					fmt.Fprintf(a.err, "next: back up DIR/authority; `hub auth renew` with each context file; then hub authority status (%s to go)\n", plural(len(r.GetAuthority().GetLeftBehind()), "holder", "holders"))
				}
				return nil
			})
		},
	}
	c.Flags().StringVar(&req.Reason, "reason", "", "`WHY`")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	c.Flags().BoolVar(&req.DryRun, "dry-run", false, "say what would happen and change nothing")
	return c
}

func (a *app) authorityRetire() *cobra.Command {
	req := &fleetv1.RetireAuthorityRequest{}
	var yes bool
	c := &cobra.Command{
		Use:   "retire --reason WHY",
		Short: "End the authority's old key, once nobody needs it any more",
		Long: `retire ends the old key: the hub shows itself under the new one, and certificates of the old one are refused. The hub
refuses as long as somebody would be locked out by it, and says who. With --force it does so all the same: after a
theft of the key, when nobody may wait for a cluster that sleeps. Each that is left behind needs a new
"hub cluster invite", or context file.`,
		Example: "  hub authority retire --reason 'everybody follows the new key'",
		Args:    args(0, 0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			if strings.TrimSpace(req.Reason) == "" {
				return exitcode.With(exitcode.Usage, fmt.Errorf("why? The audit keeps it: `hub authority retire --reason '…'`"))
			}
			what := "end the old key of the hub's authority"
			if req.Force {
				what += ", and lock out whoever does not follow the new one"
			}
			if err := a.confirm(what, yes || req.DryRun); err != nil {
				return err
			}
			return a.call(c.Context(), func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
				r, err := hub.RetireAuthority(ctx, req)
				if err != nil {
					return err
				}
				fmt.Fprintln(a.out, done("the old key of the authority retired", req.DryRun))
				for _, b := range r.GetLeftBehind() {
					fmt.Fprintf(a.out, "  left behind: %s\n", plain(b.GetWho()))
				}
				return nil
			})
		},
	}
	c.Flags().StringVar(&req.Reason, "reason", "", "`WHY`")
	c.Flags().BoolVar(&req.Force, "force", false, "retire it although somebody would be locked out")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	c.Flags().BoolVar(&req.DryRun, "dry-run", false, "say what would happen and change nothing")
	return c
}

// compareAuthorities says so where the hub's authority is no longer what the context file has, in good time: once the
// old key is retired, the file is worth nothing. A file that differed when it was read is read again, for the command
// may have renewed it.
func (a *app) compareAuthorities(path string, was clientcontext.Context, hub []string) {
	if len(hub) == 0 || slices.Equal(was.Pins(), hub) {
		return
	}
	c, err := clientcontext.Load(path)
	if err != nil {
		return
	}
	have := c.Pins()
	switch {
	case !slices.Contains(have, hub[len(hub)-1]):
		fmt.Fprintf(a.err, "warning: %s does not know the hub's new key and ends with the old one: run `hub auth renew --context %s`\n", path, path)
	case slices.ContainsFunc(have, func(pin string) bool { return !slices.Contains(hub, pin) }):
		fmt.Fprintf(a.err, "warning: %s still trusts a key that the hub has retired: run `hub auth renew --context %s`\n", path, path)
	}
}
