package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/printer"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

func (a *app) statusCommand() *cobra.Command {
	var watch bool
	c := &cobra.Command{
		Use:   "status [DISTRIBUTION]",
		Short: "Show the fleet, and what needs a person, on one screen",
		Long: `status prints one row for each subscription of each cluster: the version that its provider's policy asks
for, the one that runs, where the delivery stands and whose turn it is, health, and how old that news is.

Exit code 0: nothing needs a person; 1: something does; 2: the hub could not be asked.`,
		Args: args(0, 1, "at most the distribution's name"),
	}
	p := a.output(c)
	c.Flags().BoolVarP(&watch, "watch", "w", false, "draw again after every change, until interrupted")
	c.RunE = func(c *cobra.Command, given []string) error {
		if err := p.Check(); err != nil {
			return err
		}
		req := &fleetv1.GetStatusRequest{}
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
	answer.WideHeaders = []string{"VARIANT", "NAMESPACE", "DRIFT CORRECTED", "DRIFTED", "LABELS", "REASON"}
	answer.Empty = "No clusters. Invite one: hub cluster invite PROVIDER/NAME"
	if distribution != "" {
		answer.Empty = fmt.Sprintf("No cluster subscribes to %s. Providers do so in their spoke.yaml", distribution)
	}
	needs := 0
	for _, row := range r.GetRows() {
		if row.GetAttention() {
			needs++
		}
		ready := ""
		if row.GetObjects() > 0 {
			ready = fmt.Sprintf("%d/%d", row.GetReady(), row.GetObjects())
		}
		answer.Rows = append(answer.Rows, []string{row.GetCluster(), row.GetDistribution(), row.GetDesiredVersion(), row.GetRunningVersion(), row.GetPhase(), row.GetHealth(), ready, fleet.Age(now, wire.FromTime(row.GetLastSeen()))})
		answer.WideRows = append(answer.WideRows, []string{row.GetVariant(), row.GetNamespace(), fmt.Sprint(row.GetDriftCorrected()), fmt.Sprint(row.GetDrifted()), labelText(row.GetLabels()), row.GetReason()})
		answer.Names = append(answer.Names, strings.TrimSuffix(row.GetCluster()+"/"+row.GetDistribution(), "/"))
	}
	if err := p.Print(answer); err != nil {
		return err
	}
	if p.Human() {
		a.printSummary(p.Out, r, needs)
	}
	if needs > 0 || slices.ContainsFunc(r.GetSummaries(), troubled) {
		return exitcode.Silent(exitcode.Failed)
	}
	return nil
}

// troubled: new tags of the distribution do not become releases.
func troubled(s *fleetv1.DistributionSummary) bool { return s.GetTrouble() != "" }

// printSummary writes, below the table, a line a distribution, then what needs a person and why.
func (a *app) printSummary(out io.Writer, r *fleetv1.GetStatusResponse, needs int) {
	fmt.Fprintln(out)
	for _, s := range r.GetSummaries() {
		parts := []string{fmt.Sprintf("%d of %s up to date", s.GetUpToDate(), plural(int(s.GetClusters()), "cluster", "clusters"))}
		for _, c := range []struct {
			n    uint32
			word string
		}{{s.GetProgressing(), "in progress"}, {s.GetPinned(), "pinned"}, {s.GetFailed(), "failed"}, {s.GetStale(), "stale"}} {
			if c.n > 0 {
				parts = append(parts, fmt.Sprintf("%d %s", c.n, c.word))
			}
		}
		latest := s.GetLatest()
		if latest == "" {
			latest = "no release yet"
		}
		fmt.Fprintf(out, "%s: latest %s; %s\n", s.GetDistribution(), latest, strings.Join(parts, ", "))
		for _, rejected := range s.GetRejected() {
			fmt.Fprintf(out, "  rejected %s\n", shorten(rejected, 200))
		}
		for _, trying := range s.GetPreflight() {
			fmt.Fprintf(out, "  in pre-flight %s\n", shorten(trying, 200))
		}
		if troubled(s) {
			fmt.Fprintln(out, "  "+a.paint("31", "trouble: "+shorten(s.GetTrouble(), 200)))
		}
	}
	if needs == 0 {
		if !slices.ContainsFunc(r.GetSummaries(), troubled) {
			fmt.Fprintln(out, a.paint("32", "Nothing needs a person."))
		}
		return
	}
	fmt.Fprintln(out, a.paint("31", plural(needs, "row needs", "rows need")+" a person:"))
	rowsOf := map[string]int{}
	for _, row := range r.GetRows() {
		rowsOf[row.GetCluster()]++
	}
	for _, row := range r.GetRows() {
		if row.GetAttention() {
			why := row.GetReason()
			if why == "" {
				why = row.GetPhase()
			}
			if row.GetTargetVersion() != "" && row.GetTargetVersion() != row.GetRunningVersion() {
				why = row.GetTargetVersion() + ": " + why
			}
			who := row.GetCluster()
			if rowsOf[who] > 1 {
				who += " " + row.GetDistribution()
			}
			fmt.Fprintf(out, "  %s  %s\n", who, shorten(why, 200))
		}
	}
}

func (a *app) paint(code, s string) string {
	if !a.colour() {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func answerOf(m proto.Message) printer.Answer { return printer.Answer{Message: m} }
