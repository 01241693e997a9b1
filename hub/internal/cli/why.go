package cli

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

func (a *app) whyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "why PROVIDER/NAME DISTRIBUTION",
		Short: "Say on one screen why a cluster runs what it runs",
		Long: `why lists what speaks for and against, in the order in which it counts: what is offered, the provider's policy, pin
and window, the rollout, what the spoke reported; then what happened last, and what can be typed next.`,
		Args:              args(2, 2, "PROVIDER/NAME and DISTRIBUTION"),
		ValidArgsFunction: a.complete(clusterArg, distributionArg),
	}
	p := a.output(c)
	c.RunE = func(c *cobra.Command, given []string) error {
		if err := p.Check(); err != nil {
			return err
		}
		if err := cluster(given[0]); err != nil {
			return err
		}
		return a.call(c.Context(), func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
			r, err := hub.Explain(ctx, &fleetv1.ExplainRequest{Cluster: given[0], Distribution: given[1]})
			if err != nil {
				return err
			}
			if p.Human() {
				width, _ := a.size()
				_, err := fmt.Fprintln(p.Out, strings.Join(canvas{width: width, colour: a.colour(), now: a.now()}.why(r, p.Format == "wide"), "\n"))
				return err
			}
			answer := answerOf(r)
			answer.Names = []string{given[0] + "/" + given[1]}
			return p.Print(answer)
		})
	}
	return c
}

// lastEvents are shown of those that the hub sends, unless more are asked for.
const lastEvents = 6

// why draws the answer.
func (c canvas) why(r *fleetv1.ExplainResponse, wide bool) []string {
	row := r.GetRow()
	lines := []string{c.paint(bold, plain(row.GetCluster()+" "+row.GetDistribution())) + "  " + c.paint(rowColour(row), plain(row.GetPhase()))}
	runs := "runs nothing"
	if row.GetRunningVersion() != "" {
		runs = "runs " + row.GetRunningVersion()
	}
	parts := []string{runs}
	if d := row.GetDesiredVersion(); d != "" && d != row.GetRunningVersion() {
		parts = append(parts, "shall run "+d)
	}
	if row.GetWould() != "" {
		parts = append(parts, "without its pin "+row.GetWould())
	}
	health := cmp.Or(row.GetHealth(), string(fleet.HealthUnknown))
	if row.GetObjects() > 0 {
		health += fmt.Sprintf(" %d/%d", row.GetReady(), row.GetObjects())
	}
	parts = append(parts, health)
	heard := "never heard"
	if row.GetLastSeen() != nil {
		heard = "heard " + fleet.Age(c.now, wire.FromTime(row.GetLastSeen())) + " ago"
	}
	lines = append(lines, plain(strings.Join(append(parts, heard), " · ")))
	section := func(title string, of []string) {
		if len(of) > 0 {
			lines = append(append(lines, "", c.paint(bold, title)), of...)
		}
	}
	var facts []string
	for i, f := range r.GetFacts() {
		facts = append(facts, c.wrap(fmt.Sprintf("%2d. ", i+1), f)...)
	}
	section("Why", facts)
	var warnings []string
	for _, w := range row.GetWarnings() {
		warnings = append(warnings, c.wrap("  "+c.paint(yellow, "!")+" ", w)...)
	}
	section("Odd", warnings)
	events := r.GetEvents()
	if !wide {
		events = events[max(0, len(events)-lastEvents):]
	}
	section("Lately", c.lately(events))
	var next []string
	for _, n := range r.GetNext() {
		next = append(next, "  "+c.paint(cyan, plain(n)))
	}
	section("Next", next)
	return lines
}

func rowColour(row *fleetv1.StatusRow) string {
	switch {
	case row.GetAttention():
		return red
	case row.GetHealth() == string(fleet.Healthy) && row.GetDesiredVersion() == row.GetRunningVersion():
		return green
	}
	return yellow
}

func (c canvas) lately(events []*fleetv1.FleetEvent) []string {
	kind, age := 0, 0
	for _, e := range events {
		kind = max(kind, utf8.RuneCountInString(e.GetKind()))
		age = max(age, len(fleet.Age(c.now, wire.FromTime(e.GetAt()))))
	}
	var lines []string
	for _, e := range events {
		head := "  " + c.paint(dim, fmt.Sprintf("%*s ago", age, fleet.Age(c.now, wire.FromTime(e.GetAt())))) + "  " + pad(plain(e.GetKind()), kind) + "  "
		room := 160
		if c.width > 0 {
			room = max(c.width-columnsOf(head), 20)
		}
		lines = append(lines, clip(head+shorten(e.GetMessage(), room), c.width))
	}
	return lines
}

// wrap breaks a text at its blanks; what follows the first line stands below it.
func (c canvas) wrap(head, text string) []string {
	indent := columnsOf(head)
	var lines []string
	line, used := head, indent
	for i, word := range strings.Fields(plain(text)) {
		n := utf8.RuneCountInString(word)
		if c.width > 0 && i > 0 && used > indent && used+1+n > c.width {
			lines = append(lines, line)
			line, used = strings.Repeat(" ", indent), indent
		}
		if used > indent {
			line += " "
			used++
		}
		line += word
		used += n
	}
	return append(lines, line)
}
