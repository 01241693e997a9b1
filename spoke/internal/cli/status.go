package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/printer"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	localv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/local/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/hubclient"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/journal"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/local"
)

const (
	askWait      = 10 * time.Second
	reasonLength = 60 // runes of a reason within a table
)

func (a *app) statusCommand() *cobra.Command {
	var probe bool
	c := &cobra.Command{
		Use:   "status",
		Short: "Show what this cluster runs, and what waits for you",
		Long: `status asks the running spoke; where none runs, it shows what the journal remembers, and says so.

Exit code 0: nothing needs you; 1: something does, or the spoke does not run; 2: there is nothing to read;
3: the spoke does not answer.`,
		Args: arguments(0, 0, "no arguments"),
	}
	p := a.output(c)
	c.Flags().BoolVar(&probe, "probe", false, "print no status; exit code 0 if the spoke answers, 1 if not (for the probes of its Pod)")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := p.Check(); err != nil {
			return err
		}
		dir, err := a.data(true)
		if err != nil {
			return err
		}
		r, err := a.ask(c.Context(), dir)
		if probe {
			return exitcode.With(exitcode.Failed, err)
		}
		if errors.Is(err, local.ErrNotRunning) {
			fmt.Fprintf(a.err, "spoke: %v: this is what its journal remembers; start it with `spoke run --data %s`\n", err, dir)
			r, err = a.remembered(dir)
		}
		if err != nil {
			return err
		}
		return a.printStatus(p, r)
	}
	return c
}

func (a *app) ask(ctx context.Context, dir string) (*localv1.GetStatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	spoke, err := local.Dial(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer spoke.Close()
	r, err := spoke.Status(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, exitcode.With(exitcode.TimedOut, fmt.Errorf("the spoke on %s did not answer within %s; its log says what it does", dir, askWait))
	}
	return r, err
}

// remembered reads the data folder of a spoke that does not run. Health is of the past, so it is not
// known (law 6).
func (a *app) remembered(dir string) (*localv1.GetStatusResponse, error) {
	r := &localv1.GetStatusResponse{At: wire.Time(a.now())}
	id, err := hubclient.LoadIdentity(dir)
	if err == nil {
		r.Cluster, r.Hub, r.CertificateNotAfter = id.Cluster, id.Addr, wire.Time(id.NotAfter)
	}
	notJoined := err
	c, err := journal.Read(filepath.Join(dir, journal.File))
	switch {
	case errors.Is(err, journal.ErrAbsent) && notJoined != nil:
		return nil, exitcode.With(exitcode.Usage, notJoined)
	case errors.Is(err, journal.ErrAbsent):
		return r, nil
	case err != nil:
		return nil, exitcode.With(exitcode.Usage, err)
	}
	for _, rec := range c.Records {
		s := wire.Installation(rec.Installation)
		s.Distribution, s.Health, s.HealthMessage = rec.Distribution, string(fleet.HealthUnknown), ""
		r.Subscriptions = append(r.Subscriptions, s)
	}
	return r, nil
}

// printStatus writes the screen and turns what it shows into the exit code.
func (a *app) printStatus(p *printer.Printer, r *localv1.GetStatusResponse) error {
	answer := printer.Answer{Message: r,
		Headers:     []string{"DISTRIBUTION", "RUNNING", "PHASE", "HEALTH", "READY", "SEEN"},
		WideHeaders: []string{"VARIANT", "NAMESPACE", "POLICY", "BUNDLE", "OVERLAY", "DRIFT CORRECTED", "REASON"},
		Empty:       "No subscriptions. Write them into spoke.yaml: see deploy/examples/spoke.yaml",
	}
	if !r.GetRunning() {
		answer.Empty = "Nothing was delivered here yet."
	}
	var needs, waits []string
	for _, s := range r.GetSubscriptions() {
		word, why := judge(s)
		if why != "" {
			needs = append(needs, fmt.Sprintf("%s  %s", s.GetDistribution(), oneLine(why, 200)))
		} else if underWay(s) && s.GetReason() != "" {
			waits = append(waits, fmt.Sprintf("%s  %s", s.GetDistribution(), oneLine(s.GetReason(), 200)))
		}
		ready := ""
		if s.GetObjects() > 0 {
			ready = fmt.Sprintf("%d/%d", s.GetReady(), s.GetObjects())
		}
		answer.Rows = append(answer.Rows, []string{s.GetDistribution(), s.GetRunningVersion(), word, s.GetHealth(), ready, fleet.Age(a.now(), wire.FromTime(s.GetObservedAt()))})
		answer.WideRows = append(answer.WideRows, []string{s.GetVariant(), s.GetNamespace(), policy(s.GetPolicy()), fleet.Digest(s.GetBundleDigest()).Short(),
			fleet.Digest(s.GetOverlayDigest()).Short(), fmt.Sprint(s.GetDriftCorrected()), oneLine(s.GetReason(), 400)})
		answer.Names = append(answer.Names, s.GetDistribution())
	}
	if end := wire.FromTime(r.GetCertificateNotAfter()); !end.IsZero() && a.now().After(end) {
		needs = append(needs, fmt.Sprintf("the certificate expired %s ago: ask the vendor for a new `hub cluster invite` line and run it with --force", fleet.Age(a.now(), end)))
	}
	if err := p.Print(answer); err != nil {
		return err
	}
	if p.Human() {
		a.printSummary(r, needs, waits)
	}
	if len(needs) > 0 || !r.GetRunning() {
		return exitcode.Silent(exitcode.Failed)
	}
	return nil
}

func (a *app) printSummary(r *localv1.GetStatusResponse, needs, waits []string) {
	who := cmp.Or(r.GetCluster(), "not joined")
	switch {
	case !r.GetRunning():
		who += "; the spoke does not run"
	case r.GetConnected():
		who += "; connected to " + r.GetHub()
	case r.GetLastContact() == nil:
		who += fmt.Sprintf("; %s was not reached yet: what runs is kept as it is", r.GetHub())
	default:
		who += fmt.Sprintf("; %s is away, last heard %s ago: what runs is kept as it is", r.GetHub(), fleet.Age(a.now(), wire.FromTime(r.GetLastContact())))
	}
	fmt.Fprintf(a.out, "\n%s\n", who)
	if len(waits) > 0 {
		fmt.Fprintln(a.out, "Under way, and waiting for:")
		for _, w := range waits {
			fmt.Fprintln(a.out, "  "+w)
		}
	}
	switch {
	case len(needs) > 0:
		fmt.Fprintln(a.out, a.paint("31", "Needs you:"))
		for _, n := range needs {
			fmt.Fprintln(a.out, "  "+n)
		}
	case r.GetRunning():
		fmt.Fprintln(a.out, a.paint("32", "Nothing needs you."))
	}
}

// judge is the status word of a subscription, and why it needs a person; empty when it does not.
func judge(s *syncv1.SubscriptionStatus) (word, why string) {
	phase, reason := fleet.Phase(s.GetPhase()), s.GetReason()
	switch {
	case phase == fleet.AwaitingConfig:
		return "AwaitingConfig(provider)", cmp.Or(reason, "its configuration is in error")
	case phase.Failed():
		if s.GetTargetVersion() != "" && s.GetTargetVersion() != s.GetRunningVersion() {
			why = s.GetTargetVersion() + ": "
		}
		return fmt.Sprintf("%s(%s)", phase, oneLine(cmp.Or(reason, s.GetTargetVersion(), "no reason given"), reasonLength)), why + cmp.Or(reason, string(phase))
	case s.GetHealth() == string(fleet.HealthUnknown) && s.GetHealthMessage() != "": // nobody can see what runs
		return cmp.Or(progress(s), string(phase), "Waiting(cluster)"), s.GetHealthMessage()
	case underWay(s):
		return progress(s), ""
	case s.GetHealth() == string(fleet.Degraded):
		return string(phase), cmp.Or(s.GetHealthMessage(), "it is not healthy")
	case s.GetRunningVersion() == "" && reason != "":
		return fmt.Sprintf("Waiting(%s)", oneLine(reason, reasonLength)), ""
	case s.GetRunningVersion() == "":
		return "AwaitingRelease(vendor)", ""
	case s.GetPolicy().GetPin() == s.GetRunningVersion():
		return fmt.Sprintf("Pinned(%s)", s.GetRunningVersion()), ""
	}
	return string(fleet.Succeeded), ""
}

// underWay: the spoke is at work on it.
func underWay(s *syncv1.SubscriptionStatus) bool {
	p := fleet.Phase(s.GetPhase())
	return p != fleet.PhaseNone && p != fleet.AwaitingConfig && !p.Terminal()
}

// progress is the word for a delivery under way; empty for none.
func progress(s *syncv1.SubscriptionStatus) string {
	if !underWay(s) {
		return ""
	}
	return fmt.Sprintf("%s(%s)", s.GetPhase(), cmp.Or(s.GetTargetVersion(), s.GetRunningVersion()))
}

func policy(p *syncv1.Policy) string {
	switch {
	case p.GetPin() != "":
		return fmt.Sprintf("pin %s by %s", p.GetPin(), cmp.Or(p.GetPinSource(), "provider"))
	case p.GetRange() == "":
		return "any"
	}
	return p.GetRange()
}

func oneLine(s string, n int) string {
	r := []rune(strings.Join(strings.Fields(s), " "))
	if len(r) <= n {
		return string(r)
	}
	return string(r[:n-1]) + "…"
}

func (a *app) paint(code, s string) string {
	if !a.colour() {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}
