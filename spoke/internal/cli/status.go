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
	"github.com/wheelwright-dev/wheelwright/pkg/rehome"
	"github.com/wheelwright-dev/wheelwright/pkg/render"
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
	longAlarm    = 500 // of what is wrong with the hub
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
	return a.askFor(ctx, dir, (*local.Client).Status)
}

func (a *app) askFor(ctx context.Context, dir string, question func(*local.Client, context.Context) (*localv1.GetStatusResponse, error)) (*localv1.GetStatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	spoke, err := local.Dial(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer spoke.Close()
	r, err := question(spoke, ctx)
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
		r.KeyFingerprint, r.Pending, r.Via = id.Fingerprint(), id.Pending, id.Via
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
	r.ReHome = moving(dir, c.ReHome)
	for _, rec := range c.Records {
		s := wire.Installation(rec.Installation)
		s.Distribution, s.Health, s.HealthMessage = rec.Distribution, string(fleet.HealthUnknown), ""
		r.Subscriptions = append(r.Subscriptions, s)
		r.Memories = append(r.Memories, memoryOf(rec, c.Desired))
	}
	return r, nil
}

// moving is the move to another hub that the journal remembers.
func moving(dir string, rec journal.ReHome) *localv1.ReHome {
	s, err := rehome.ParseSigned(rec.Signed)
	if err != nil || !rec.UnderWay() {
		return nil
	}
	h := &local.ReHome{To: s.To, Expires: s.Expires}
	if next, err := hubclient.LoadNext(dir); err == nil {
		h.Key, h.Pending = next.Fingerprint(), next.Pending
	}
	return local.Moving(h)
}

func memoryOf(rec journal.Record, desired *syncv1.DesiredState) *localv1.Memory {
	m := fleet.Memory{Distribution: rec.Distribution}
	for _, d := range desired.GetDistributions() {
		if d.GetDistribution() == rec.Distribution {
			m.Withdrawn = wire.FromWithdrawals(d.GetWithdrawals())
		}
	}
	m.Told, m.First = rec.Told, rec.First
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
	message := local.Memory(m)
	message.Audited = local.Audited(m)
	return message
}

// printStatus writes the screen and turns what it shows into the exit code.
func (a *app) printStatus(p *printer.Printer, r *localv1.GetStatusResponse) error {
	answer := printer.Answer{Message: r,
		Headers:     []string{"DISTRIBUTION", "RUNNING", "PHASE", "HEALTH", "READY", "SEEN"},
		WideHeaders: []string{"VARIANT", "NAMESPACE", "POLICY", "WINDOW", "BUNDLE", "OVERLAY", "DRIFT CORRECTED", "DRIFT LEFT", "BACK TO", "HELD", "CANARY", "SIGNED BY", "REASON"},
		Empty:       "No subscriptions. Write them into spoke.yaml: see deploy/examples/spoke.yaml",
	}
	if !r.GetRunning() {
		answer.Empty = "Nothing was delivered here yet."
	}
	var say screen
	for _, s := range r.GetSubscriptions() {
		m := memory(r, s.GetDistribution())
		word := say.add(a.now(), s, m)
		ready := ""
		if s.GetObjects() > 0 {
			ready = fmt.Sprintf("%d/%d", s.GetReady(), s.GetObjects())
		}
		answer.Rows = append(answer.Rows, []string{s.GetDistribution(), s.GetRunningVersion(), word, s.GetHealth(), ready, fleet.Age(a.now(), wire.FromTime(s.GetObservedAt()))})
		answer.WideRows = append(answer.WideRows, wide(a.now(), s, m))
		answer.Names = append(answer.Names, s.GetDistribution())
	}
	switch {
	case r.GetPending():
		say.waits = append(say.waits, "the vendor accepts this spoke once they have compared its key with you: "+r.GetKeyFingerprint())
	case r.GetRefused() != "":
		say.needs = append(say.needs, "the hub does not serve this spoke: "+r.GetRefused())
	}
	if h := r.GetReHome(); h != nil {
		say.waits = append(say.waits, moves(h))
	}
	if end := wire.FromTime(r.GetCertificateNotAfter()); !end.IsZero() && a.now().After(end) {
		say.needs = append(say.needs, fmt.Sprintf("the certificate expired %s ago: ask the vendor for a new `hub cluster invite` line and run it with --force", fleet.Age(a.now(), end)))
	}
	if err := p.Print(answer); err != nil {
		return err
	}
	if p.Human() {
		a.printSummary(r, say)
	}
	if p.Format == "wide" {
		if r.GetSandbox() != "" {
			section(a.out, "Confined while rendering by:", []string{r.GetSandbox()})
		}
		section(a.out, "Held, until you approve it or a newer release comes:", holds(r))
	}
	switch {
	case len(say.needs) > say.approvals || !r.GetRunning():
		return exitcode.Silent(exitcode.Failed)
	case say.approvals > 0:
		return exitcode.Silent(exitcode.Waiting)
	}
	return nil
}

// screen is what stands below the table, one line each.
type screen struct {
	waits, pins, declined, needs []string
	approvals                    int // of needs
}

// add takes up a subscription and returns its status word.
func (say *screen) add(now time.Time, s *syncv1.SubscriptionStatus, m *localv1.Memory) string {
	d, reason := s.GetDistribution(), oneLine(s.GetReason(), needLength)
	word, why := judge(now, s, m)
	switch {
	case why != "":
		say.needs = append(say.needs, fmt.Sprintf("%s  %s", d, oneLine(why, needLength)+next(now, s, m)))
		if asks(s) {
			say.approvals++
		}
	case underWay(s) && reason != "":
		say.waits = append(say.waits, fmt.Sprintf("%s  %s", d, reason))
	case reason != "":
		say.declined = append(say.declined, fmt.Sprintf("%s  %s", d, reason))
	}
	if alarm := s.GetAlarm(); alarm != "" {
		say.needs = append(say.needs, fmt.Sprintf("%s  %s", d, oneLine(alarm, longAlarm)))
	}
	if pin := pinOf(now, s); pin != nil {
		line := fmt.Sprintf("%s  %s", d, pinned(*pin))
		if s.GetWould() != "" {
			line += "; without it " + s.GetWould() + " would be taken"
		}
		say.pins = append(say.pins, line)
	}
	return word
}

// wide are the further cells of a subscription's row.
func wide(now time.Time, s *syncv1.SubscriptionStatus, m *localv1.Memory) []string {
	var held []string
	canary := ""
	if c := wire.FromCanary(s.GetCanary()); c != nil {
		canary = c.String()
	}
	for _, h := range m.GetHeld() {
		held = append(held, h.GetVersion())
	}
	return []string{s.GetVariant(), s.GetNamespace(), policy(now, s), window(now, s), fleet.Digest(s.GetBundleDigest()).Short(), fleet.Digest(s.GetOverlayDigest()).Short(),
		fmt.Sprint(s.GetDriftCorrected()), fmt.Sprint(s.GetDrifted()), strings.Join(m.GetPrevious(), ","), strings.Join(held, ","), canary, strings.Join(s.GetSignedBy(), ", "), oneLine(s.GetReason(), 400)}
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

func (a *app) printSummary(r *localv1.GetStatusResponse, say screen) {
	who, hub := cmp.Or(r.GetCluster(), "not joined"), r.GetHub()
	if r.GetVia() != "" {
		hub += " through the relay at " + r.GetVia()
	}
	switch {
	case !r.GetRunning():
		who += "; the spoke does not run"
	case r.GetConnected():
		who += "; connected to " + hub
	case r.GetPending():
		who += "; waits to be accepted at " + hub
	case r.GetRefused() != "":
		who += fmt.Sprintf("; not served by %s: what runs is kept as it is", hub)
	case r.GetLastContact() == nil:
		who += fmt.Sprintf("; %s was not reached yet: what runs is kept as it is", hub)
	default:
		who += fmt.Sprintf("; %s is away, last heard %s ago: what runs is kept as it is", hub, fleet.Age(a.now(), wire.FromTime(r.GetLastContact())))
	}
	fmt.Fprintf(a.out, "\n%s\n", who)
	var weak []string
	if text := render.Weakness(r.GetSandbox()); text != "" && r.GetSandbox() != "" {
		weak = append(weak, text)
	}
	for _, part := range []struct {
		title string
		lines []string
	}{
		{a.paint("33", "Confined less than it should be:"), weak},
		{"Under way, and waiting for:", say.waits},
		{"Pinned:", say.pins},
		{"Not taken:", say.declined},
		{a.paint("31", "Needs you:"), say.needs},
	} {
		if len(part.lines) > 0 {
			fmt.Fprintln(a.out, part.title)
		}
		for _, line := range part.lines {
			fmt.Fprintln(a.out, "  "+line)
		}
	}
	if len(say.needs) == 0 && r.GetRunning() {
		fmt.Fprintln(a.out, a.paint("32", "Nothing needs you."))
	}
}

// moves is a move to another hub in one line.
func moves(h *localv1.ReHome) string {
	line := fmt.Sprintf("the move to the hub %s, until %s: ", h.GetTo(), fleet.Moment(wire.FromTime(h.GetExpires())))
	switch {
	case h.GetPending():
		return line + "the vendor accepts this spoke there once they have compared its key with you: " + h.GetKeyFingerprint()
	case h.GetWaits() != "":
		return line + oneLine(h.GetWaits(), longAlarm)
	}
	return line + "it begins"
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
