package conductor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/rollout"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// lastEvents are told with an explanation.
const lastEvents = 5

// account is everything that an explanation is made of.
type account struct {
	screen     *screen
	view       view
	row        row
	preflights map[string]fleet.Preflight // what this cluster found, by version
	trouble    string                     // of the distribution's repository
	events     []fleet.Event
}

// Explain says why a cluster runs what it runs.
func (c *Conductor) Explain(now time.Time, cluster fleet.Cluster, distribution string) (*fleetv1.ExplainResponse, error) {
	o, err := c.watched(distribution)
	if err != nil {
		return nil, err
	}
	news, i, err := c.subscribed(cluster, distribution)
	if err != nil {
		return nil, err
	}
	f := Fleet{Since: c.since, Clusters: []ClusterNews{news}, Offerings: map[string]*offering{distribution: o}, ClocksOff: c.cfg.Spokes.ClocksOff()}
	a := account{screen: newScreen(now, c.cfg.Heartbeat, f), trouble: c.trouble(distribution)}
	if i == nil {
		a.row = a.screen.empty(&news)
	} else {
		a.view = a.screen.view(&news, i)
		a.row = a.screen.row(&news, i)
		if a.preflights, err = c.found(cluster, o, a.view); err != nil {
			return nil, err
		}
	}
	if a.events, err = c.cfg.Store.Events(store.EventFilter{Cluster: string(cluster), Distribution: distribution, Limit: lastEvents}); err != nil {
		return nil, fmt.Errorf("read events of %s: %w", cluster, err)
	}
	m := a.message()
	m.Row.Distribution = distribution
	return m, nil
}

// found is what a cluster answered about the releases that concern it.
func (c *Conductor) found(cluster fleet.Cluster, o *offering, v view) (map[string]fleet.Preflight, error) {
	all := map[string]fleet.Preflight{}
	for _, version := range o.versions {
		_, trying := o.trying[version]
		if !trying && version != v.goal() || version == v.i.Running {
			continue
		}
		answers, err := c.cfg.Store.Preflights(o.distribution.Name, version)
		if err != nil {
			return nil, fmt.Errorf("read pre-flights of %s %s: %w", o.distribution.Name, version, err)
		}
		if p, ok := answers[cluster]; ok {
			all[version] = p
		}
	}
	return all, nil
}

func (a account) message() *fleetv1.ExplainResponse {
	m := &fleetv1.ExplainResponse{Row: a.row.message(), Facts: a.facts(), Next: a.next()}
	for _, e := range a.events {
		m.Events = append(m.Events, &fleetv1.FleetEvent{Id: e.ID, At: wire.Time(e.At), Cluster: string(e.Cluster), Distribution: e.Distribution,
			Version: e.Version, Kind: string(e.Kind), Message: e.Message})
	}
	return m
}

// facts are what speaks for and against, in the order in which it counts: how far the news can be trusted,
// what is, what the vendor offers, what the provider takes of it, and what both know against it.
func (a account) facts() []string {
	if a.row.i == nil {
		return a.screen.clockedNews(a.row.news)
	}
	return slices.Concat(a.screen.clockedNews(a.row.news), a.runs(), a.delivery(), a.offers(), a.rollouts(), a.policy(), a.selection(), a.withdrawals(), a.tried(), a.atHub(), a.repository())
}

// clockedNews is how far the news can be trusted.
func (s *screen) clockedNews(c *ClusterNews) []string {
	var all []string
	switch {
	case c.Joined.IsZero():
		return []string{"its spoke has not joined, so nothing runs there"}
	case c.reconnecting(s.now, s.heartbeat, s.fleet.Since):
		all = append(all, waitsFor(s.now, s.fleet.Since)+"; all below is from before")
	case c.stale(s.now, s.heartbeat):
		all = append(all, fmt.Sprintf("nothing heard from its spoke for %s; all below is from then, and it may have changed", fleet.Age(s.now, c.lastWord())))
	case c.Connected:
		all = append(all, fmt.Sprintf("its spoke is connected and was heard %s ago", fleet.Age(s.now, c.lastWord())))
	default:
		all = append(all, fmt.Sprintf("its spoke is not connected and was heard %s ago", fleet.Age(s.now, c.lastWord())))
	}
	return append(all, s.clockWarning(c)...)
}

// runs is what there is.
func (a account) runs() []string {
	i := a.view.i
	if i.Running == "" {
		return []string{"it runs no release yet"}
	}
	text := fmt.Sprintf("it runs %s, %s", i.Running, cmp.Or(i.Health, fleet.HealthUnknown))
	if i.Objects > 0 {
		text += fmt.Sprintf(", %d of %d objects ready", i.Ready, i.Objects)
	}
	if i.HealthMessage != "" {
		text += ": " + i.HealthMessage
	}
	all := []string{text}
	if i.Drifted > 0 {
		all = append(all, fmt.Sprintf("%d objects are not as the release has them, and are left so: %s", i.Drifted, i.DriftMessage))
	}
	return all
}

// delivery is the one under way, or the last where it says something.
func (a account) delivery() []string {
	i, now := a.view.i, a.screen.now
	since := ""
	if !i.PhaseSince.IsZero() {
		since = " since " + fleet.Age(now, i.PhaseSince)
	}
	target := cmp.Or(i.Target, i.Running)
	switch {
	case i.Phase == fleet.PhaseNone, i.Phase == fleet.Succeeded && i.Reason == "":
		return nil
	case i.Phase == fleet.Succeeded:
		return []string{"its spoke says: " + i.Reason}
	case i.Phase == fleet.AwaitingConfig:
		return []string{strings.TrimSuffix(fmt.Sprintf("its provider's configuration is in error%s: %s", since, i.Reason), ": ")}
	case i.Phase.Failed():
		return []string{strings.TrimSuffix(fmt.Sprintf("%s did not come to be there: %s%s: %s", target, i.Phase, since, i.Reason), ": ") + "; it is not tried again by itself"}
	case i.Phase == fleet.AwaitingApproval:
		return []string{strings.TrimSuffix(fmt.Sprintf("%s waits for its provider's approval%s: %s", target, since, i.Reason), ": ")}
	case i.Phase == fleet.AwaitingWindow:
		return []string{fmt.Sprintf("%s waits for its provider's maintenance window%s", target, since)}
	}
	if i.Phase == fleet.Progressing && i.Canary != nil {
		since = " (" + i.Canary.String() + ")" + since
	}
	return []string{strings.TrimSuffix(fmt.Sprintf("%s is being delivered: %s%s: %s", target, i.Phase, since, i.Reason), ": ")}
}

// mostVersions are listed one by one.
const mostVersions = 5

// offers is what the cluster may take, and since when of what is new to it.
func (a account) offers() []string {
	v := a.view
	var newer []string
	for _, o := range v.parcel.offered {
		if v.i.Running == "" || fleet.CompareTags(o.Version, v.i.Running) > 0 {
			newer = append(newer, o.Version)
		}
	}
	all := []string{}
	switch n := len(newer); {
	case n == 0 && v.i.Running == "":
		all = append(all, "nothing is on offer to it")
	case n == 0:
		all = append(all, "nothing newer is on offer to it")
	case n > mostVersions:
		all = append(all, fmt.Sprintf("on offer to it: %s and %d below", newer[n-1], n-1))
	default:
		all = append(all, "on offer to it: "+strings.Join(newer, ", "))
	}
	for _, version := range v.o.waiting {
		if v.i.Running == "" || fleet.CompareTags(version, v.i.Running) > 0 {
			all = append(all, fmt.Sprintf("%s was published and has no rollout yet, so nobody is offered it", version))
		}
	}
	for _, version := range v.o.versions {
		if until, trying := v.o.trying[version]; trying {
			all = append(all, fmt.Sprintf("%s is in pre-flight: it may be tried out only, for %s at most", version, fleet.Age(until, a.screen.now)))
		}
	}
	return all
}

// rollouts is where the cluster stands in those that are under way, newest first.
func (a account) rollouts() (all []string) {
	s, v := a.screen, a.view
	for n := range s.under[v.i.Distribution] {
		u := &s.under[v.i.Distribution][n]
		m, member := u.Members[v.news.Name]
		switch {
		case member:
			all = append(all, standing(s.now, u.State, m))
		case u.leftOut[v.news.Name]:
			all = append(all, fmt.Sprintf("it is in no wave of the rollout of %s, and may take it when that is completed", u.Version))
		default:
			all = append(all, fmt.Sprintf("it has no part in the rollout of %s", u.Version))
		}
		all = append(all, strings.TrimSuffix(fmt.Sprintf("the rollout of %s is %s since %s: %s", u.Version, u.Phase, fleet.Age(s.now, u.Since), u.waits), ": "))
	}
	return all
}

// standing is one member's place in a rollout.
func standing(now time.Time, r rollout.State, m rollout.Member) string {
	text := fmt.Sprintf("in the rollout of %s it is %s, %s", r.Version, waveName(r, m.Wave), m.Mark)
	if !m.Since.IsZero() {
		text += " since " + fleet.Age(now, m.Since)
	}
	if why := cmp.Or(m.Reason, string(m.Block)); why != "" {
		text += ": " + why
	}
	if !m.Offered.IsZero() {
		text += fmt.Sprintf("; offered %s ago", fleet.Age(now, m.Offered))
	}
	return text
}

// policy is the provider's.
func (a account) policy() (all []string) {
	i, now := a.view.i, a.screen.now
	terms := []string{"any version"}
	if i.Policy.Range != "" {
		terms[0] = fmt.Sprintf("versions %q", i.Policy.Range)
	}
	if i.Policy.Prereleases {
		terms = append(terms, "prereleases too")
	}
	for _, l := range []struct {
		step string
		u    fleet.Upgrade
	}{{"patch", i.Policy.Patch}, {"minor", i.Policy.Minor}, {"major", i.Policy.Major}} {
		if l.u != "" && l.u != fleet.Automatic {
			terms = append(terms, fmt.Sprintf("%s upgrades: %s", l.step, l.u))
		}
	}
	all = append(all, "its provider's policy takes "+strings.Join(terms, ", "))
	if pin := i.Policy.Pin; pin != nil {
		all = append(all, pinFact(now, *pin, a.row.would))
	}
	if ws := i.Policy.Windows; len(ws) > 0 {
		all = append(all, fmt.Sprintf("its maintenance window (%s) is %s", ws, windowState(now, ws)))
	}
	return all
}

func windowState(now time.Time, ws fleet.Windows) string {
	switch opens, closes := ws.Next(now), ws.Closes(now); {
	case opens.IsZero():
		return "never open"
	case opens.After(now):
		return "closed until " + clock(now, opens)
	case closes.IsZero():
		return "always open"
	default:
		return "open until " + clock(now, closes)
	}
}

func pinFact(now time.Time, pin fleet.Pin, would string) string {
	text := fmt.Sprintf("it is pinned to %s (%s", pin.Version, pin.Source)
	if pin.Author != "" {
		text += ", by " + pin.Author
	}
	text += ")"
	if pin.Expired(now) {
		return text + fmt.Sprintf(", which ended %s ago", fleet.Age(now, pin.Until))
	}
	if !pin.Until.IsZero() {
		text += " until " + pin.Until.UTC().Format("2006-01-02 15:04 MST")
	}
	if pin.Reason != "" {
		text += ": " + pin.Reason
	}
	if would != "" && would != pin.Version {
		text += "; without the pin it would take " + would
	}
	return text
}

// selection is what follows from offer and policy. The spoke knows more than its hub, such as what it holds,
// so that its word goes before where it has had the time to say it.
func (a account) selection() (all []string) {
	i, want := a.view.i, a.view.want
	differs := i.Wants != "" && want.Version != "" && i.Wants != want.Version
	if differs && a.heardSince(want.Version) {
		return []string{strings.TrimSuffix(fmt.Sprintf("its spoke wants %s, and not %s: %s", i.Wants, want.Version, i.Reason), ": ")}
	}
	switch {
	case want.Return:
		all = append(all, fmt.Sprintf("so it is to go back to %s: %s", want.Version, want.Why))
	case want.Version != "" && want.Version != i.Running && want.Goal != "":
		all = append(all, fmt.Sprintf("so it is to take %s first, which %s requires", want.Version, want.Goal))
	case want.Version != "" && want.Version != i.Running:
		all = append(all, fmt.Sprintf("so it is to take %s", want.Version))
	case want.Why != "":
		all = append(all, want.Why)
	case i.Running != "":
		all = append(all, fmt.Sprintf("so %s is what it is to run", i.Running))
	}
	if want.Asks != "" {
		all = append(all, want.Asks)
	}
	if differs {
		all = append(all, strings.TrimSuffix(fmt.Sprintf("its spoke, which was heard before that, wants %s: %s", i.Wants, i.Reason), ": "))
	}
	return all
}

// heardSince: the spoke has been heard since it was offered a version.
func (a account) heardSince(version string) bool {
	r, began := a.view.o.shelf.newest(version)
	if !began {
		return true
	}
	offered := r.Members[a.view.news.Name].Offered
	if r.Phase == fleet.RolloutCompleted && offered.IsZero() {
		offered = r.Since
	}
	return a.view.news.lastWord().After(offered)
}

// withdrawals that concern the cluster: of what it runs, of what it went to, of what would be newer.
func (a account) withdrawals() (all []string) {
	i := a.view.i
	for _, w := range a.view.parcel.withdrawn {
		if w.Version != i.Running && w.Version != i.Target && i.Running != "" && fleet.CompareTags(w.Version, i.Running) < 0 {
			continue
		}
		text := w.Version + " was recalled"
		if r, ok := a.view.o.shelf.recalls[w.Version]; ok {
			text += fmt.Sprintf(" by %s %s ago", r.By, fleet.Age(a.screen.now, r.At))
		} else {
			text = "the rollout of " + w.Version + " was taken back"
		}
		if w.Reason != "" {
			text += ": " + w.Reason
		}
		if w.To != "" && w.Version == i.Running {
			text += "; to go to: " + w.To
		}
		all = append(all, text)
	}
	return all
}

// tried is what the cluster found when it tried releases out.
func (a account) tried() (all []string) {
	for _, version := range a.view.o.versions {
		if p, ok := a.preflights[version]; ok {
			all = append(all, fmt.Sprintf("it tried %s out %s ago: %s", version, fleet.Age(a.screen.now, p.At), p.Summary()))
		}
	}
	return all
}

// atHub is what was said at the hub in its provider's place.
func (a account) atHub() (all []string) {
	v, now := a.view, a.screen.now
	if pin, ok := v.o.shelf.pins[v.news.Name]; ok && (expired(pin, now) || !follows(v.i.Policy, pin)) {
		state := "its spoke does not follow that: spoke.yaml decides"
		if expired(pin, now) {
			state = fmt.Sprintf("that ended %s ago", fleet.Age(now, pin.Until))
		}
		all = append(all, fmt.Sprintf("%s pinned it to %s at the hub: %s; %s", pin.Author, pin.Version, pin.Reason, state))
	}
	if d, ok := v.o.shelf.decisions[v.news.Name]; ok && d.Version == v.i.Target {
		all = append(all, strings.TrimSuffix(fmt.Sprintf("%s %s %s at the hub %s ago: %s", d.Author, decided(d.Approved), d.Version, fleet.Age(now, d.At), d.Reason), ": "))
	}
	return all
}

// repository: what is newer may be missing because it cannot be read.
func (a account) repository() []string {
	if a.trouble == "" {
		return nil
	}
	return []string{"newer releases may be missing: " + a.trouble}
}
