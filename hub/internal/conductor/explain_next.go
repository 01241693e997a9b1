package conductor

import (
	"fmt"
	"strings"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// next is what a person can type, the likeliest first.
func (a account) next() []string {
	cluster := string(a.row.news.Name)
	switch word, _, _ := strings.Cut(a.row.phase, "("); {
	case a.row.phase == awaitingAcceptance:
		return []string{"hub cluster accept " + cluster, "hub cluster reject " + cluster}
	case a.row.phase == quarantined:
		return []string{"hub get events " + cluster, "hub cluster invite " + cluster, "hub cluster accept " + cluster}
	case a.row.phase == turnedAway, a.row.i == nil && word == "NotJoined":
		return []string{"hub cluster invite " + cluster}
	case a.row.i == nil, word == "Stale", word == reconnecting:
		return []string{atSpoke("status"), "hub get events " + cluster}
	}
	return append(a.answers(), "hub get events "+cluster)
}

// atSpoke is a command for the provider.
func atSpoke(command string) string { return "spoke " + command + "   (its provider, at the cluster)" }

// answers to the row's status word.
func (a account) answers() []string {
	v, i := a.view, a.view.i
	subscription := fmt.Sprintf("%s %s", v.news.Name, i.Distribution)
	release := func(version string) string { return fmt.Sprintf("hub release describe %s %s", i.Distribution, version) }
	_, recalled := v.o.shelf.recalls[i.Running]
	_, takenBack := v.withdrawn(i.Target)
	switch {
	case i.Phase == fleet.AwaitingConfig:
		return []string{atSpoke("check")}
	case i.Phase == fleet.AwaitingApproval:
		return []string{atSpoke("approve " + i.Distribution), "hub approve " + subscription, "hub reject " + subscription}
	case recalled:
		return []string{release(i.Running), atSpoke("rollback " + i.Distribution)}
	case i.Phase.Failed() && i.Target != "" && takenBack:
		return []string{atSpoke("status " + i.Distribution), release(i.Target)}
	case i.Declined && i.Target != "":
		return []string{atSpoke(fmt.Sprintf("approve %s %s", i.Distribution, i.Target)), release(i.Target)}
	case i.Phase.Failed() && i.Target != "":
		return []string{atSpoke("status " + i.Distribution), release(i.Target), fmt.Sprintf("hub release recall %s %s --reason '…'", i.Distribution, i.Target)}
	case v.pin != nil && v.pin.Source == fleet.PinHub:
		return []string{"hub unpin " + subscription}
	case v.pin != nil && v.pin.Source == fleet.PinSpoke:
		return []string{atSpoke("unpin " + i.Distribution)}
	}
	if all := a.rolloutAnswers(); len(all) > 0 {
		return all
	}
	if len(v.o.waiting) > 0 && fleet.CompareTags(v.o.waiting[len(v.o.waiting)-1], i.Running) > 0 {
		return []string{fmt.Sprintf("hub rollout start %s %s", i.Distribution, v.o.waiting[len(v.o.waiting)-1])}
	}
	return nil
}

// rolloutAnswers are the words that the newest rollout waits for.
func (a account) rolloutAnswers() []string {
	under := a.screen.under[a.view.i.Distribution]
	if len(under) == 0 {
		return nil
	}
	u := under[0]
	command := func(verb string) string { return fmt.Sprintf("hub rollout %s %s %s", verb, u.Distribution, u.Version) }
	all := []string{command("status")}
	switch u.Phase {
	case fleet.RolloutApproval:
		all = append(all, command("approve"), command("reject"))
	case fleet.RolloutHolding:
		all = append(all, command("resume"), command("abort"), command("undo"))
	case fleet.RolloutPaused:
		all = append(all, command("resume"))
	}
	return all
}
