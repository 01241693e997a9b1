package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

func (a *app) releaseCommand() *cobra.Command {
	return group("release", "Look into one release", a.releaseDescribe())
}

func (a *app) releaseDescribe() *cobra.Command {
	c := &cobra.Command{
		Use:   "describe DISTRIBUTION VERSION",
		Short: "Say how a release was judged, what is in it and who runs it",
		Args:  args(2, 2, "DISTRIBUTION and VERSION"),
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
				_, err = fmt.Fprint(a.out, a.describe(r.GetRelease()))
				return err
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
	line("Phase", r.GetPhase())
	line("Published", fmt.Sprintf("%s (%s ago)", stamp(r.GetPublished()), a.age(r.GetPublished())))
	line("Commit", r.GetCommit())
	tag := r.GetTagObject()
	if tag == "" {
		tag = "lightweight, no tag object"
	}
	line("Tag", tag)
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
