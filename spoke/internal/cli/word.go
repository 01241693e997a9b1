package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	localv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/local/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// judge is the status word of a subscription, and why it needs a person; empty when it does not.
func judge(now time.Time, s *syncv1.SubscriptionStatus, m *localv1.Memory) (word, why string) {
	phase, reason := fleet.Phase(s.GetPhase()), s.GetReason()
	switch {
	case asks(s):
		reason, _, _ = strings.Cut(reason, "; see it with: spoke ") // next says it
		return "AwaitingApproval(provider)", s.GetTargetVersion() + " waits for you: " + cmp.Or(reason, "no reason given")
	case phase == fleet.AwaitingConfig:
		return "AwaitingConfig(provider)", cmp.Or(reason, "its configuration is in error")
	case phase == fleet.RolledBack && withdrawn(m, s.GetTargetVersion()) != nil: // as it was told to: nobody has to act
		return fmt.Sprintf("%s(%s)", phase, oneLine(cmp.Or(reason, s.GetTargetVersion()), reasonLength)), ""
	case phase.Failed():
		if s.GetTargetVersion() != "" && s.GetTargetVersion() != s.GetRunningVersion() {
			why = s.GetTargetVersion() + ": "
		}
		return fmt.Sprintf("%s(%s)", phase, oneLine(cmp.Or(reason, s.GetTargetVersion(), "no reason given"), reasonLength)), why + cmp.Or(reason, string(phase))
	case s.GetHealth() == string(fleet.HealthUnknown) && s.GetHealthMessage() != "": // nobody can see what runs
		return cmp.Or(progress(s), string(phase), "Waiting(cluster)"), s.GetHealthMessage()
	case underWay(s):
		return progress(s), ""
	case s.GetRunningVersion() != "" && withdrawn(m, s.GetRunningVersion()) != nil:
		return takenBack(s, withdrawn(m, s.GetRunningVersion()))
	case s.GetHealth() == string(fleet.Degraded):
		return string(phase), cmp.Or(s.GetHealthMessage(), "it is not healthy")
	case s.GetDrifted() > 0:
		return fmt.Sprintf("Drifted(%d)", s.GetDrifted()), left(s)
	case s.GetRunningVersion() == "" && reason != "":
		return fmt.Sprintf("Waiting(%s)", oneLine(reason, reasonLength)), ""
	case s.GetRunningVersion() == "":
		return "AwaitingRelease(vendor)", ""
	}
	if pin := pinOf(now, s); pin != nil && pin.Version == s.GetRunningVersion() {
		return fmt.Sprintf("Pinned(%s%s)", pin.Version, ends(*pin)), ""
	} else if pin != nil && reason != "" {
		return fmt.Sprintf("Pinned(%s not taken)", pin.Version), ""
	}
	return string(fleet.Succeeded), ""
}

// takenBack: what runs should not any more, and stays all the same.
func takenBack(s *syncv1.SubscriptionStatus, w *syncv1.Withdrawal) (word, why string) {
	word = "Recalled"
	text := fmt.Sprintf("%s runs and was recalled", w.GetVersion())
	if wire.FromWithdrawal(w).Kind == fleet.TakenBack {
		word, text = "TakenBack", fmt.Sprintf("%s runs, and its rollout was undone", w.GetVersion())
	}
	return fmt.Sprintf("%s(%s)", word, w.GetVersion()), cmp.Or(s.GetReason(), text+": "+cmp.Or(strings.TrimPrefix(w.GetReason(), "undone "), "no reason given"))
}

func withdrawn(m *localv1.Memory, version string) *syncv1.Withdrawal {
	for _, w := range m.GetWithdrawn() {
		if w.GetVersion() == version {
			return w
		}
	}
	return nil
}

// asks: the delivery waits for its provider.
func asks(s *syncv1.SubscriptionStatus) bool {
	return fleet.Phase(s.GetPhase()) == fleet.AwaitingApproval
}

// next is the command to type about what a subscription needs; empty where none helps.
func next(now time.Time, s *syncv1.SubscriptionStatus, m *localv1.Memory) string {
	d, target := s.GetDistribution(), s.GetTargetVersion()
	pin := pinOf(now, s)
	switch {
	case asks(s) && s.GetCanary() != nil:
		return fmt.Sprintf("; look: spoke canary status %s, then: spoke approve %[1]s %s, or: spoke reject %[1]s %[2]s", d, target)
	case asks(s) && strings.HasPrefix(s.GetReason(), "Inconclusive("): // it is on the cluster
		return fmt.Sprintf("; it runs already: spoke approve %s %s keeps it, spoke reject %[1]s %[2]s goes back", d, target)
	case asks(s):
		return fmt.Sprintf("; look: spoke diff %s %s, then: spoke approve %[1]s %s, or: spoke reject %[1]s %[2]s", d, target)
	case fleet.Phase(s.GetPhase()).Failed() && slices.ContainsFunc(m.GetHeld(), func(h *localv1.Held) bool { return h.GetVersion() == target }):
		return fmt.Sprintf("; held: spoke approve %s %s tries it again", d, target)
	case withdrawn(m, s.GetRunningVersion()) == nil:
		return ""
	case pin != nil && pin.Source == fleet.PinSpoke:
		return fmt.Sprintf("; spoke unpin %s lets it go", d)
	case len(m.GetPrevious()) > 0:
		return fmt.Sprintf("; spoke rollback %s goes back to %s", d, m.GetPrevious()[0])
	}
	return ""
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
	what := cmp.Or(s.GetTargetVersion(), s.GetRunningVersion())
	if c := wire.FromCanary(s.GetCanary()); c != nil {
		what += " " + oneLine(c.String(), reasonLength)
	}
	return fmt.Sprintf("%s(%s)", s.GetPhase(), what)
}

// pinOf is the pin that holds a subscription now; nil for none.
func pinOf(now time.Time, s *syncv1.SubscriptionStatus) *fleet.Pin {
	p, _ := wire.FromPolicy(s.GetPolicy()) // the pin is read, whatever else is not understood
	return p.PinAt(now)
}

// policy is the provider's in a cell.
func policy(now time.Time, s *syncv1.SubscriptionStatus) string {
	if pin := pinOf(now, s); pin != nil {
		short := *pin
		short.Reason = ""
		return "pin " + pinned(short)
	}
	p := s.GetPolicy()
	parts := []string{cmp.Or(p.GetRange(), "any")}
	for _, step := range [][2]string{{"patch", p.GetPatch()}, {"minor", p.GetMinor()}, {"major", p.GetMajor()}} {
		if step[1] != "" && step[1] != string(fleet.Automatic) {
			parts = append(parts, step[0]+": "+step[1])
		}
	}
	return strings.Join(parts, ", ")
}

// window says until when the maintenance windows are open or closed; empty where there are none.
func window(now time.Time, s *syncv1.SubscriptionStatus) string {
	ws, err := fleet.ParseWindows(s.GetPolicy().GetWindows())
	switch opens, closes := ws.Next(now), ws.Closes(now); {
	case err != nil:
		return err.Error()
	case len(ws) == 0:
		return ""
	case opens.IsZero():
		return "never open"
	case opens.After(now):
		return "closed until " + fleet.Moment(opens)
	case closes.IsZero():
		return "always open"
	default:
		return "open until " + fleet.Moment(closes)
	}
}
