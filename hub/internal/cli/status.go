package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/printer"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// defaultRows of a fleet fit on a screen.
const defaultRows = 20

func (a *app) statusCommand() *cobra.Command {
	var watch, all bool
	var limit uint32
	c := &cobra.Command{
		Use:   "status [DISTRIBUTION]",
		Short: "Show the fleet, and what needs a person, on one screen",
		Long: `status prints a line for each rollout under way, then one row for each subscription of each cluster: the version
that its provider's policy asks for, the one that runs, where the delivery stands and whose turn it is, health,
and how old that news is. Of many rows it prints those that want a person, and some of the others; -o json, yaml
and name always write all of them.

Exit code 0: nothing needs a person; 1: something does; 2: the hub could not be asked.`,
		Args:              args(0, 1, "at most the distribution's name"),
		ValidArgsFunction: a.complete(distributionArg),
	}
	p := a.output(c)
	c.Flags().BoolVarP(&watch, "watch", "w", false, "draw again after every change, until interrupted")
	c.Flags().BoolVar(&all, "all", false, "print every row")
	c.Flags().Uint32Var(&limit, "rows", defaultRows, "print at most `N` rows; 0: every one")
	c.RunE = func(c *cobra.Command, given []string) error {
		if err := p.Check(); err != nil {
			return err
		}
		req := &fleetv1.GetStatusRequest{}
		if p.Human() && !all || c.Flags().Changed("rows") {
			req.Limit = limit
		}
		if len(given) > 0 {
			req.Distribution = given[0]
		}
		show := func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
			r, err := hub.GetStatus(ctx, req)
			if err != nil {
				return err
			}
			return a.printStatus(p, req.GetDistribution(), r)
		}
		if watch {
			return a.watch(c.Context(), p, show)
		}
		return a.call(c.Context(), show)
	}
	return c
}

// printStatus writes the screen and turns what it shows into the exit code.
func (a *app) printStatus(p *printer.Printer, distribution string, r *fleetv1.GetStatusResponse) error {
	answer := answerOf(r)
	now := wire.FromTime(r.GetAt()) // the hub's clock made the times, so it tells their age
	answer.Headers = []string{"CLUSTER", "DISTRIBUTION", "DESIRED", "RUNNING", "PHASE", "HEALTH", "READY", "SEEN"}
	answer.WideHeaders = []string{"VARIANT", "NAMESPACE", "WITHOUT PIN", "DRIFT CORRECTED", "DRIFTED", "LABELS", "CANARY", "REASON"}
	answer.Empty = "No clusters. Invite one: hub cluster invite PROVIDER/NAME"
	if distribution != "" {
		answer.Empty = fmt.Sprintf("No cluster subscribes to %s. Providers do so in their spoke.yaml", distribution)
	}
	answer.Fill = func(answer *printer.Answer) {
		statusRows(answer, now, r)
		if width, _ := a.size(); p.Format == "table" && width > 0 {
			fitColumn(answer.Headers, answer.Rows, phaseColumn, width)
		}
	}
	if p.Human() {
		a.printRollouts(p.Out, r)
	}
	if err := p.Print(answer); err != nil {
		return err
	}
	needs := needsOf(r)
	if p.Human() {
		if more := int(r.GetTotal()) - len(r.GetRows()); more > 0 {
			fmt.Fprintln(p.Out, a.paint(dim, fmt.Sprintf("… and %s more; %s --all", thousands(more), strings.TrimSpace("hub status "+distribution))))
		}
		a.printSummary(p.Out, distribution, r, needs)
	}
	if needs.any() || len(r.GetTroubles()) > 0 || slices.ContainsFunc(r.GetSummaries(), troubled) {
		return exitcode.Silent(exitcode.Failed)
	}
	return nil
}

// statusRows are those of the table.
func statusRows(answer *printer.Answer, now time.Time, r *fleetv1.GetStatusResponse) {
	for _, row := range r.GetRows() {
		ready, canary := "", ""
		if c := wire.FromCanary(row.GetCanary()); c != nil {
			canary = c.String()
		}
		if row.GetObjects() > 0 {
			ready = fmt.Sprintf("%d/%d", row.GetReady(), row.GetObjects())
		}
		answer.Rows = append(answer.Rows, []string{row.GetCluster(), row.GetDistribution(), row.GetDesiredVersion(), row.GetRunningVersion(), row.GetPhase(), row.GetHealth(), ready, fleet.Age(now, wire.FromTime(row.GetLastSeen()))})
		answer.WideRows = append(answer.WideRows, []string{row.GetVariant(), row.GetNamespace(), row.GetWould(), fmt.Sprint(row.GetDriftCorrected()), fmt.Sprint(row.GetDrifted()), labelText(row.GetLabels()), canary, row.GetReason()})
		answer.Names = append(answer.Names, strings.TrimSuffix(row.GetCluster()+"/"+row.GetDistribution(), "/"))
	}
}

// phaseColumn is where a row's words are that have no end; they are told again, whole, below the table.
const phaseColumn = 4

// fitColumn shortens one column so that the table is as wide as the screen, where that leaves something to read.
func fitColumn(headers []string, rows [][]string, column, width int) {
	const least = 16
	for i := range headers {
		if i == column {
			continue
		}
		widest := utf8.RuneCountInString(headers[i])
		for _, row := range rows {
			widest = max(widest, utf8.RuneCountInString(row[i]))
		}
		width -= widest + 2
	}
	for _, row := range rows {
		row[column] = shorten(row[column], max(width, least))
	}
}

// needs is what wants a person.
type needs struct {
	rows     int // all that there are, shown or not
	rollouts []*fleetv1.Rollout
	releases []string // lines about those that nobody has started
}

func (n needs) any() bool { return n.rows > 0 || len(n.rollouts) > 0 || len(n.releases) > 0 }

func needsOf(r *fleetv1.GetStatusResponse) needs {
	var n needs
	for _, row := range r.GetRows() {
		if row.GetAttention() {
			n.rows++
		}
	}
	n.rows = max(n.rows, int(r.GetAttention()))
	for _, ro := range r.GetRollouts() {
		if wantsPerson(ro) {
			n.rollouts = append(n.rollouts, ro)
		}
	}
	for _, s := range r.GetSummaries() {
		for _, w := range s.GetWaiting() {
			n.releases = append(n.releases, s.GetDistribution()+" "+w)
		}
	}
	return n
}

// troubled: new tags of the distribution do not become releases.
func troubled(s *fleetv1.DistributionSummary) bool { return s.GetTrouble() != "" }

// printRollouts writes, above the table, a line for each rollout under way.
func (a *app) printRollouts(out io.Writer, r *fleetv1.GetStatusResponse) {
	width, _ := a.size()
	lines := canvas{width: width, colour: a.colour(), now: wire.FromTime(r.GetAt())}.rollouts(r.GetRollouts())
	if len(lines) > 0 {
		fmt.Fprintf(out, "%s\n\n", strings.Join(lines, "\n"))
	}
}

// rollouts draws a line for each.
func (c canvas) rollouts(all []*fleetv1.Rollout) []string {
	var names []string
	total := 0
	for _, r := range all {
		names = append(names, plain(r.GetDistribution()+" "+r.GetVersion()))
		total = max(total, countOf(r.GetWaves()...).total)
	}
	g := c.grid(names, total)
	var lines []string
	for i, r := range all {
		n := countOf(r.GetWaves()...)
		parts := []string{c.paint(standing(r), phaseWord(c.now, r))}
		if w := int(r.GetWave()); w < len(r.GetWaves()) {
			where := "wave " + plain(r.GetWaves()[w].GetName())
			if len(r.GetWaves()) > 1 {
				where = fmt.Sprintf("wave %d of %d, %s", w+1, len(r.GetWaves()), plain(r.GetWaves()[w].GetName()))
			}
			parts = append(parts, where)
		}
		if n.failed > 0 {
			parts = append(parts, c.paint(red, thousands(n.failed)+" failed"))
		}
		if n.parked > 0 {
			parts = append(parts, c.paint(yellow, thousands(n.parked)+" parked"))
		}
		parts = append(parts, fleet.Age(c.now, wire.FromTime(r.GetSince())))
		if r.GetReason() != "" {
			parts = append(parts, c.paint(dim, shorten(r.GetReason(), 120)))
		}
		lines = append(lines, clip(strings.TrimRight(c.line(g, "", names[i], bold, n, strings.Join(parts, c.paint(dim, " · "))), " "), c.width))
	}
	return lines
}

// printSummary writes, below the table, a line a distribution, then what needs a person and why.
func (a *app) printSummary(out io.Writer, distribution string, r *fleetv1.GetStatusResponse, needs needs) {
	fmt.Fprintln(out)
	for _, s := range r.GetSummaries() {
		a.printDistribution(out, s)
	}
	for _, trouble := range r.GetTroubles() {
		fmt.Fprintln(out, a.paint(red, "The hub is in trouble: ")+shorten(trouble, 400))
	}
	a.printWarnings(out, r)
	if !needs.any() {
		if len(r.GetTroubles()) == 0 && !slices.ContainsFunc(r.GetSummaries(), troubled) {
			fmt.Fprintln(out, a.paint(green, "Nothing needs a person."))
		}
		return
	}
	for _, ro := range needs.rollouts {
		what := ro.GetDistribution() + " " + ro.GetVersion()
		fmt.Fprintf(out, "%s %s\n", a.paint(red, "The rollout of "+what+" needs a person:"), shorten(cmp.Or(ro.GetReason(), ro.GetPhase()), 200))
		for _, next := range nextSteps(ro) {
			fmt.Fprintf(out, "  %s\n", next)
		}
	}
	for _, release := range needs.releases {
		fmt.Fprintf(out, "%s %s\n", a.paint(red, "A release needs a person:"), shorten(release, 200))
	}
	if needs.rows == 0 {
		return
	}
	fmt.Fprintln(out, a.paint(red, plural(needs.rows, "row needs", "rows need")+" a person:"))
	rowsOf := map[string]int{}
	for _, row := range r.GetRows() {
		rowsOf[row.GetCluster()]++
	}
	shown := 0
	for _, row := range r.GetRows() {
		if !row.GetAttention() {
			continue
		}
		shown++
		why := cmp.Or(row.GetReason(), row.GetPhase())
		if row.GetTargetVersion() != "" && row.GetTargetVersion() != row.GetRunningVersion() {
			why = row.GetTargetVersion() + ": " + why
		}
		fmt.Fprintf(out, "  %s  %s\n", whose(row, rowsOf), shorten(why, 200))
	}
	if more := needs.rows - shown; more > 0 {
		fmt.Fprintf(out, "  … and %s more; %s --all\n", thousands(more), strings.TrimSpace("hub status "+distribution))
	}
}

// whose names a row: by its cluster, and by its distribution too where the cluster has several.
func whose(row *fleetv1.StatusRow, rowsOf map[string]int) string {
	if rowsOf[row.GetCluster()] > 1 {
		return row.GetCluster() + " " + row.GetDistribution()
	}
	return row.GetCluster()
}

func (a *app) printDistribution(out io.Writer, s *fleetv1.DistributionSummary) {
	parts := []string{fmt.Sprintf("%s of %s up to date", thousands(int(s.GetUpToDate())), plural(int(s.GetClusters()), "cluster", "clusters"))}
	for _, c := range []struct {
		n    uint32
		word string
	}{{s.GetProgressing(), "in progress"}, {s.GetPinned(), "pinned"}, {s.GetFailed(), "failed"}, {s.GetStale(), "stale"}} {
		if c.n > 0 {
			parts = append(parts, thousands(int(c.n))+" "+c.word)
		}
	}
	fmt.Fprintf(out, "%s: latest %s; %s\n", s.GetDistribution(), cmp.Or(s.GetLatest(), "no release yet"), strings.Join(parts, ", "))
	for _, ended := range s.GetEnded() {
		fmt.Fprintf(out, "  not on its way %s\n", shorten(ended, 200))
	}
	for _, rejected := range s.GetRejected() {
		fmt.Fprintf(out, "  rejected %s\n", shorten(rejected, 200))
	}
	for _, trying := range s.GetPreflight() {
		fmt.Fprintf(out, "  in pre-flight %s\n", shorten(trying, 200))
	}
	if troubled(s) {
		fmt.Fprintln(out, "  "+a.paint(red, "trouble: "+shorten(s.GetTrouble(), 200)))
	}
}

// mostWarnings are written below the fleet.
const mostWarnings = 10

// printWarnings writes what is odd about the rows shown and hurts nobody yet.
func (a *app) printWarnings(out io.Writer, r *fleetv1.GetStatusResponse) {
	var lines []string
	seen := map[string]bool{} // a clock is the cluster's, not the subscription's
	for _, row := range r.GetRows() {
		for _, w := range row.GetWarnings() {
			if line := fmt.Sprintf("  %s  %s", row.GetCluster(), shorten(w, 200)); !seen[line] {
				seen[line] = true
				lines = append(lines, line)
			}
		}
	}
	if len(lines) == 0 {
		return
	}
	fmt.Fprintln(out, a.paint(yellow, plural(len(lines), "warning", "warnings")+":"))
	for _, l := range lines[:min(len(lines), mostWarnings)] {
		fmt.Fprintln(out, l)
	}
	if more := len(lines) - mostWarnings; more > 0 {
		fmt.Fprintf(out, "  … and %s more; -o json has them\n", thousands(more))
	}
}

func (a *app) paint(code, s string) string { return canvas{colour: a.colour()}.paint(code, s) }

func answerOf(m proto.Message) printer.Answer { return printer.Answer{Message: m} }
