package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
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
	reasonLength = 60  // runes of a reason within a table
	needLength   = 200 // below it
)

func (a *app) statusCommand() *cobra.Command {
	var probe bool
	c := &cobra.Command{
		Use:   "status [DISTRIBUTION]",
		Short: "Show what this cluster runs, and what waits for you",
		Long: `status asks the running spoke; where none runs, it shows what the journal remembers, and says so. With -o wide it
also shows what can be gone back to, and what is held: not taken again until you approve it or a newer release comes.

Exit code 0: nothing needs you; 1: something does, or the spoke does not run; 2: there is nothing to read;
3: the spoke does not answer; 4: a release waits for your approval, and nothing else needs you.`,
		Example: `  spoke status
  spoke status shop -o wide`,
		Args:              arguments(0, 1, "at most a distribution's name"),
		ValidArgsFunction: a.completed(nil),
	}
	p := a.output(c)
	c.Flags().BoolVar(&probe, "probe", false, "print no status; exit code 0 if the spoke answers, 1 if not (for the probes of its Pod)")
	c.RunE = func(c *cobra.Command, given []string) error {
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
		if len(given) > 0 {
			m, n, err := subscription(r, given[0])
			if err != nil {
				return err
			}
			r.Subscriptions, r.Memories = r.Subscriptions[n:n+1], []*localv1.Memory{m}
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
		r.Memories = append(r.Memories, memoryOf(rec))
	}
	return r, nil
}

func memoryOf(rec journal.Record) *localv1.Memory {
	m := fleet.Memory{Distribution: rec.Distribution}
	for _, p := range rec.Previous {
		m.Previous = append(m.Previous, p.Version)
	}
	versions := slices.Collect(maps.Keys(rec.Held))
	fleet.SortVersions(versions)
	for _, v := range versions {
		if v != rec.Installation.Running {
			m.Held = append(m.Held, fleet.Held{Version: v, Reason: rec.Held[v].Reason, At: rec.Held[v].At})
		}
	}
	return local.Memory(m)
}

// printStatus writes the screen and turns what it shows into the exit code.
func (a *app) printStatus(p *printer.Printer, r *localv1.GetStatusResponse) error {
	answer := printer.Answer{Message: r,
		Headers:     []string{"DISTRIBUTION", "RUNNING", "PHASE", "HEALTH", "READY", "SEEN"},
		WideHeaders: []string{"VARIANT", "NAMESPACE", "POLICY", "BUNDLE", "OVERLAY", "DRIFT CORRECTED", "DRIFT LEFT", "BACK TO", "HELD", "REASON"},
		Empty:       "No subscriptions. Write them into spoke.yaml: see deploy/examples/spoke.yaml",
	}
	if !r.GetRunning() {
		answer.Empty = "Nothing was delivered here yet."
	}
	var needs, waits []string
	approvals := 0
	for _, s := range r.GetSubscriptions() {
		word, why := judge(s)
		if why != "" {
			needs = append(needs, fmt.Sprintf("%s  %s", s.GetDistribution(), oneLine(why, needLength)+next(s, memory(r, s.GetDistribution()))))
			if asks(s) {
				approvals++
			}
		} else if underWay(s) && s.GetReason() != "" {
			waits = append(waits, fmt.Sprintf("%s  %s", s.GetDistribution(), oneLine(s.GetReason(), needLength)))
		}
		ready := ""
		if s.GetObjects() > 0 {
			ready = fmt.Sprintf("%d/%d", s.GetReady(), s.GetObjects())
		}
		answer.Rows = append(answer.Rows, []string{s.GetDistribution(), s.GetRunningVersion(), word, s.GetHealth(), ready, fleet.Age(a.now(), wire.FromTime(s.GetObservedAt()))})
		answer.WideRows = append(answer.WideRows, wide(s, memory(r, s.GetDistribution())))
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
	if p.Format == "wide" {
		section(a.out, "Held, until you approve it or a newer release comes:", holds(r))
	}
	switch {
	case len(needs) > approvals || !r.GetRunning():
		return exitcode.Silent(exitcode.Failed)
	case approvals > 0:
		return exitcode.Silent(exitcode.Waiting)
	}
	return nil
}

// wide are the further cells of a subscription's row.
func wide(s *syncv1.SubscriptionStatus, m *localv1.Memory) []string {
	var held []string
	for _, h := range m.GetHeld() {
		held = append(held, h.GetVersion())
	}
	return []string{s.GetVariant(), s.GetNamespace(), policy(s.GetPolicy()), fleet.Digest(s.GetBundleDigest()).Short(), fleet.Digest(s.GetOverlayDigest()).Short(),
		fmt.Sprint(s.GetDriftCorrected()), fmt.Sprint(s.GetDrifted()), strings.Join(m.GetPrevious(), ","), strings.Join(held, ","), oneLine(s.GetReason(), 400)}
}

// holds are the releases that are not taken again by themselves, one line each.
func holds(r *localv1.GetStatusResponse) []string {
	var all []string
	for _, m := range r.GetMemories() {
		for _, h := range m.GetHeld() {
			all = append(all, fmt.Sprintf("%s %s  %s", m.GetDistribution(), h.GetVersion(), cmp.Or(oneLine(h.GetReason(), needLength), "no reason given")))
		}
	}
	return all
}

// asks: the delivery waits for its provider.
func asks(s *syncv1.SubscriptionStatus) bool {
	return fleet.Phase(s.GetPhase()) == fleet.AwaitingApproval
}

// next is the command to type about what a subscription needs; empty where none helps.
func next(s *syncv1.SubscriptionStatus, m *localv1.Memory) string {
	d, target := s.GetDistribution(), s.GetTargetVersion()
	switch {
	case asks(s):
		return fmt.Sprintf("; look: spoke diff %s %s, then: spoke approve %[1]s %s, or: spoke reject %[1]s %[2]s", d, target)
	case fleet.Phase(s.GetPhase()).Failed() && slices.ContainsFunc(m.GetHeld(), func(h *localv1.Held) bool { return h.GetVersion() == target }):
		return fmt.Sprintf("; held: spoke approve %s %s tries it again", d, target)
	}
	return ""
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
	case asks(s):
		return "AwaitingApproval(provider)", s.GetTargetVersion() + " waits for you: " + cmp.Or(reason, "no reason given")
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
	case s.GetDrifted() > 0:
		return fmt.Sprintf("Drifted(%d)", s.GetDrifted()), left(s)
	case s.GetRunningVersion() == "" && reason != "":
		return fmt.Sprintf("Waiting(%s)", oneLine(reason, reasonLength)), ""
	case s.GetRunningVersion() == "":
		return "AwaitingRelease(vendor)", ""
	case s.GetPolicy().GetPin() == s.GetRunningVersion():
		return fmt.Sprintf("Pinned(%s)", s.GetRunningVersion()), ""
	}
	return string(fleet.Succeeded), ""
}

// left is what others changed and the spoke leaves so.
func left(s *syncv1.SubscriptionStatus) string {
	what, count := cmp.Or(s.GetDriftMessage(), "see the spoke's log"), s.GetDrifted()
	if count == 1 {
		return "1 object differs from the release and is left so: " + what
	}
	return fmt.Sprintf("%d objects differ from the release and are left so, the first: %s", count, what)
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
