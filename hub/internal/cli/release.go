package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/printer"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

func (a *app) releaseCommand() *cobra.Command {
	return group("release", "Look into one release, or call it back", a.releaseDescribe(), a.releaseRecall())
}

func (a *app) releaseDescribe() *cobra.Command {
	c := &cobra.Command{
		Use:   "describe DISTRIBUTION VERSION",
		Short: "Say how a release was judged, what is in it, who runs it, and what it would do where it does not run yet",
		Args:  args(2, 2, "DISTRIBUTION and VERSION"),

		ValidArgsFunction: a.complete(distributionArg, versionArg),
	}
	p := a.output(c)
	c.RunE = func(c *cobra.Command, given []string) error {
		if err := p.Check(); err != nil {
			return err
		}
		return a.call(c.Context(), func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
			r, err := hub.GetRelease(ctx, &fleetv1.GetReleaseRequest{Distribution: given[0], Version: given[1]})
			if err != nil {
				return err
			}
			if p.Human() {
				if _, err = fmt.Fprint(a.out, a.describe(r.GetRelease())); err != nil {
					return err
				}
				return a.describeClusters(*p, r)
			}
			answer := answerOf(r)
			answer.Names = []string{r.GetRelease().GetDistribution() + "/" + r.GetRelease().GetVersion()}
			return p.Print(answer)
		})
	}
	return c
}

// describe is a release in full, for a person.
func (a *app) describe(r *fleetv1.Release) string {
	var b strings.Builder
	line := func(key, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%-14s%s\n", key+":", value)
		}
	}
	line("Release", r.GetDistribution()+" "+r.GetVersion())
	phase := r.GetPhase()
	if until := r.GetPreflightUntil(); until != nil {
		phase += fmt.Sprintf(", in pre-flight: may be taken in %s at the latest", fleet.Age(wire.FromTime(until), a.now()))
	}
	line("Phase", phase)
	if r.GetRecalled() != nil {
		line("Recalled", fmt.Sprintf("%s (%s ago) by %s: %s", stamp(r.GetRecalled()), a.age(r.GetRecalled()), plain(r.GetRecalledBy()), plain(r.GetRecallReason())))
	}
	if stops := r.GetStops(); len(stops) > 0 {
		line("Needs first", strings.Join(stops, ", then ")+", on a cluster that runs an earlier release")
	}
	line("Published", fmt.Sprintf("%s (%s ago)", stamp(r.GetPublished()), a.age(r.GetPublished())))
	line("Commit", r.GetCommit())
	tag := r.GetTagObject()
	if tag == "" {
		tag = "lightweight, no tag object"
	}
	line("Tag", tag)
	for _, who := range r.GetSignedBy() {
		line("Signed by", plain(who))
	}
	line("Bundle", r.GetDigest())
	if r.GetSize() > 0 {
		line("Size", fmt.Sprintf("%d bytes, %d stored", r.GetSize(), r.GetCompressedSize()))
	}
	for _, reason := range r.GetReasons() {
		line("Reason", reason)
	}
	b.WriteString("Variants:\n")
	for _, v := range r.GetVariants() {
		if len(v.GetReasons()) == 0 {
			fmt.Fprintf(&b, "  %s: builds, %s\n", v.GetName(), plural(int(v.GetObjects()), "object", "objects"))
			continue
		}
		fmt.Fprintf(&b, "  %s: rejected\n", v.GetName())
		for _, reason := range v.GetReasons() {
			fmt.Fprintf(&b, "    - %s\n", reason)
		}
	}
	if len(r.GetVariants()) == 0 {
		b.WriteString("  none\n")
	}
	running := strings.Join(r.GetRunningOn(), ", ")
	if running == "" {
		running = "no cluster"
	}
	line("Running on", running)
	return b.String()
}

// describeClusters is the table of what each subscribed cluster answered when it tried the release out,
// and a line that sums it up.
func (a *app) describeClusters(p printer.Printer, r *fleetv1.GetReleaseResponse) error {
	if r.GetRelease().GetPhase() != string(fleet.Available) {
		return nil // nobody tries it out
	}
	answer := printer.Answer{Headers: []string{"CLUSTER", "RUNNING", "PREFLIGHT", "AGE"}, WideHeaders: []string{"SPOKE", "PHASE", "BACK"},
		Empty: fmt.Sprintf("No cluster subscribes to %s. Providers do so in their spoke.yaml", r.GetRelease().GetDistribution())}
	most := 160
	if p.Format == "wide" {
		most = 1000
	}
	breaking, silent := 0, 0
	for _, c := range r.GetClusters() {
		text, age := "", ""
		if m := c.GetPreflight(); m != nil {
			found, err := wire.FromPreflight(m)
			if err != nil {
				return fmt.Errorf("what %s answered: %w", c.GetCluster(), err)
			}
			if found.Outcome == fleet.OutcomeBreaks {
				breaking++
			}
			text, age = shorten(found.Summary(), most), fleet.Age(wire.FromTime(r.GetAt()), found.At)
		} else if running := c.GetRunningVersion(); running == "" || fleet.CompareTags(running, r.GetRelease().GetVersion()) < 0 {
			silent++
		}
		spoke := "Away"
		if c.GetConnected() {
			spoke = "Connected"
		}
		answer.Rows = append(answer.Rows, []string{c.GetCluster(), c.GetRunningVersion(), text, age})
		answer.WideRows = append(answer.WideRows, []string{spoke, c.GetPhase(), c.GetPreflight().GetReversibility()})
	}
	fmt.Fprintln(a.out)
	p.Out = a.out
	if err := p.Print(answer); err != nil || len(answer.Rows) == 0 {
		return err
	}
	_, err := fmt.Fprintln(a.out, sumUp(len(answer.Rows), breaking, silent))
	return err
}

// sumUp says how many of a release's clusters would break, and how many have not said.
func sumUp(all, breaking, silent int) string {
	text := fmt.Sprintf("%d of %s' overlays would break", breaking, plural(all, "cluster", "clusters"))
	if all == 1 {
		text = strings.Replace(text, "cluster' overlays", "cluster's overlays", 1)
	}
	switch {
	case silent == all:
		return fmt.Sprintf("None of %s has answered yet", plural(all, "cluster", "clusters"))
	case silent > 0:
		text += fmt.Sprintf("; %d not answered yet", silent)
	}
	return text
}
