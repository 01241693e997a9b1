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
)

// news of a cluster: what was heard by this process or, before a restart, by the one before.
func (c *Conductor) news(s *store.Cluster) ClusterNews {
	n := ClusterNews{Name: s.Name, Labels: s.Labels, Joined: s.Joined, Connected: c.cfg.Spokes.Connected(s.Name), LastSeen: c.cfg.Spokes.LastSeen(s.Name),
		Standing: s.Standing, StandingWhy: s.StandingWhy, Key: s.Key}
	if s.LastSeen.After(n.LastSeen) {
		n.LastSeen = s.LastSeen
	}
	return n
}

// view is one subscription under what it is offered.
type view struct {
	news   *ClusterNews
	i      *fleet.Installation
	o      *offering // nil: the hub does not watch the distribution
	parcel *parcel   // nil then too
	want   fleet.Selection
	pin    *fleet.Pin // the one that holds now
}

func (s *screen) view(c *ClusterNews, i *fleet.Installation) view {
	v := view{news: c, i: i, o: s.fleet.Offerings[i.Distribution], pin: i.Policy.PinAt(s.now)}
	if v.o != nil {
		v.parcel = v.o.to(s.now, c.Name, i)
		v.want = s.choose(v.parcel, i)
	}
	return v
}

// withdrawn is a release taken back from this cluster, and whether it is.
func (v view) withdrawn(version string) (fleet.Withdrawal, bool) {
	if v.parcel == nil || version == "" {
		return fleet.Withdrawal{}, false
	}
	n := slices.IndexFunc(v.parcel.withdrawn, func(w fleet.Withdrawal) bool { return w.Version == version })
	if n < 0 {
		return fleet.Withdrawal{}, false
	}
	return v.parcel.withdrawn[n], true
}

// goal is the release that the subscription is to go to: what the spoke says where it has said it.
func (v view) goal() string {
	if wants := v.i.Wants; wants != "" && wants != v.i.Running {
		return wants
	}
	return v.want.Version
}

// wording is a status word, what it counts as, whether it wants a person, and why.
type wording struct {
	word      string
	class     class
	attention bool
	reason    string // beside what the spoke says
	quiet     bool   // what the spoke says is over
}

// Status words of a subscription to which nothing is offered.
const nothing = "AwaitingRelease(vendor)"

// word is the status word of fresh news: of the delivery under way, else of what was withdrawn, else of
// what comes next.
func (s *screen) word(v view) wording {
	if w := s.delivery(v); w.word != "" {
		return w
	}
	if v.o == nil {
		if v.i.Running == "" {
			return wording{word: "UnknownDistribution", class: failed, attention: true}
		}
		return wording{word: string(fleet.Succeeded), class: upToDate} // the vendor stopped watching it; what runs goes on running
	}
	if w, gone := v.withdrawn(v.i.Running); gone && w.Kind == fleet.Recalled {
		said := wording{word: fmt.Sprintf("Recalled(%s)", v.i.Running), class: failed, attention: true, reason: v.want.Why}
		if v.want.Version != v.i.Running && v.want.Version != "" {
			said.reason += "; it is to go to " + v.want.Version
		}
		return said
	}
	if v.pin != nil {
		return s.pinnedWord(v)
	}
	return s.next(v)
}

// delivery is the word of a delivery that is under way or failed; none for one that is settled.
func (s *screen) delivery(v view) wording {
	i := v.i
	atPin := v.pin != nil && i.Running == v.pin.Version && i.Running != ""
	_, moot := v.withdrawn(i.Target) // nobody is to mend what nobody is to take
	moot = moot && i.Target != i.Running && i.Phase != fleet.RollbackFailed
	switch {
	case i.Phase == fleet.AwaitingConfig:
		return wording{word: "AwaitingConfig(provider)", class: failed, attention: true}
	case i.Phase.Failed() && moot:
		return wording{}
	case i.Declined && !atPin: // their provider has decided: nobody has failed
		return wording{word: fmt.Sprintf("Declined(%s)", shorten(cmp.Or(i.Reason, i.Target))), class: idle}
	case i.Phase.Failed() && !(atPin && i.Phase != fleet.RollbackFailed && i.Target != i.Running):
		return wording{word: fmt.Sprintf("%s(%s)", i.Phase, shorten(cmp.Or(i.Reason, i.Target, "no reason given"))), class: failed, attention: true}
	case i.Phase == fleet.AwaitingApproval:
		return wording{word: "AwaitingApproval(provider)", class: progressing, attention: true}
	case i.Phase == fleet.AwaitingWindow:
		return wording{word: "AwaitingWindow(provider)" + opens(s.now, i.Policy.Windows), class: progressing}
	case i.Phase == fleet.RollingBack:
		return wording{word: fmt.Sprintf("%s(%s)", i.Phase, shorten(cmp.Or(i.Reason, i.Target, i.Running))), class: progressing}
	case i.Phase == fleet.Progressing && i.Canary != nil:
		return wording{word: fmt.Sprintf("%s(%s %s)", i.Phase, i.Target, shorten(i.Canary.String())), class: progressing}
	case i.Phase != fleet.PhaseNone && !i.Phase.Terminal():
		return wording{word: fmt.Sprintf("%s(%s)", i.Phase, cmp.Or(i.Target, v.want.Version)), class: progressing}
	}
	return wording{}
}

// opens says when the next window does; nothing where one is open.
func opens(now time.Time, ws fleet.Windows) string {
	if ws.Open(now) {
		return ""
	}
	return " until " + clock(now, ws.Next(now))
}

// clock is a time that is near, for people, with its zone.
func clock(now, t time.Time) string {
	if t.Sub(now) < 6*24*time.Hour {
		return t.Format("Mon 15:04 MST")
	}
	return t.Format("2006-01-02 15:04 MST")
}

// pinnedWord is that of a subscription with a pin that holds.
func (s *screen) pinnedWord(v view) wording {
	i, at := v.i, v.pin.Version
	_, gone := v.withdrawn(at)
	switch {
	case at == i.Running:
		if held := fleet.CompareTags(v.want.Would, i.Running) > 0 && v.want.Would != ""; held || s.laterOnItsWay(v) {
			return wording{word: pinWord(s.now, *v.pin), class: pinned, quiet: i.Phase.Failed()}
		}
		return wording{word: string(fleet.Succeeded), class: upToDate}
	case gone:
		return wording{word: fmt.Sprintf("Pinned(%s recalled)", at), class: pinned, attention: true, reason: v.want.Why}
	case v.want.Version == "":
		if trying := s.trying(v); trying != "" {
			return wording{word: fmt.Sprintf("Preflight(%s)", trying), class: idle, quiet: true}
		}
		return wording{word: fmt.Sprintf("Pinned(%s not on offer)", at), class: pinned, attention: true, reason: v.want.Why}
	}
	return s.next(v)
}

// pinWord is "Pinned(1.0.0 until 2027-01-31)"; of one that ends within a day, "Pinned(1.0.0 until Fri 14:00 UTC)".
func pinWord(now time.Time, p fleet.Pin) string {
	switch {
	case p.Until.IsZero():
		return fmt.Sprintf("Pinned(%s)", p.Version)
	case p.Until.Sub(now) <= 24*time.Hour:
		return fmt.Sprintf("Pinned(%s until %s)", p.Version, clock(now, p.Until.UTC()))
	}
	return fmt.Sprintf("Pinned(%s until %s)", p.Version, p.Until.UTC().Format(time.DateOnly))
}

// laterOnItsWay: a rollout of something newer has this cluster's turn still before it.
func (s *screen) laterOnItsWay(v view) bool {
	for n := range s.under[v.i.Distribution] {
		u := &s.under[v.i.Distribution][n]
		m, member := u.Members[v.news.Name]
		if member && fleet.CompareTags(u.Version, v.i.Running) > 0 && (m.Mark == fleet.MarkWaiting || m.Mark == fleet.MarkParked) {
			return true
		}
	}
	return false
}

// next is the word of a subscription that does not move: what it may take, or what has to come first.
func (s *screen) next(v view) wording {
	i, goal := v.i, v.goal()
	if goal != "" && goal != i.Running {
		// A reason beside an offer that is not taken is the spoke's own: it declined.
		declined := i.Reason != "" && !i.Phase.Failed()
		return wording{word: fmt.Sprintf("Offered(%s)", goal), class: progressing, attention: declined, reason: v.want.Asks, quiet: i.Phase.Failed()}
	}
	if stop := s.unmetStop(v); stop != "" {
		coming := slices.ContainsFunc(s.under[i.Distribution], func(u running) bool { return u.Version == stop })
		return wording{word: fmt.Sprintf("AwaitingStop(%s)", stop), class: progressing, attention: !coming, reason: v.want.Why}
	}
	if word, why := s.turn(v); word != "" {
		return wording{word: word, class: progressing, reason: why, quiet: true}
	}
	if i.Running != "" {
		quiet := i.Phase.Failed() // moot
		said := wording{word: string(fleet.Succeeded), class: upToDate, quiet: quiet}
		if w, gone := v.withdrawn(i.Target); quiet && gone {
			said.reason = fmt.Sprintf("%s was withdrawn after it failed here: %s", w.Version, w.Reason)
		}
		return said
	}
	if trying := s.trying(v); trying != "" {
		return wording{word: fmt.Sprintf("Preflight(%s)", trying), quiet: true}
	}
	return wording{word: nothing}
}

// turn says where a subscription stands in a rollout that has not reached it.
func (s *screen) turn(v view) (word, why string) {
	for n := range s.under[v.i.Distribution] {
		u := &s.under[v.i.Distribution][n]
		m, member := u.Members[v.news.Name]
		if v.i.Running != "" && fleet.CompareTags(u.Version, v.i.Running) <= 0 {
			continue
		}
		switch {
		case member && m.Mark == fleet.MarkWaiting && m.Wave >= 0:
			return fmt.Sprintf("Waiting(wave %d)", m.Wave+1), fmt.Sprintf("its turn in the rollout of %s is %s; %s", u.Version, waveName(u.State, m.Wave), u.waits)
		case (member && m.Mark == fleet.MarkWaiting || u.leftOut[v.news.Name]) && s.takes(v, u.Version):
			return "Waiting(rollout)", fmt.Sprintf("it is in no wave of the rollout of %s and takes it when that is completed; %s", u.Version, u.waits)
		}
	}
	return "", ""
}

func waveName(r rollout.State, wave int) string {
	if wave < 0 || wave >= len(r.Waves) {
		return "after its waves"
	}
	return fmt.Sprintf("wave %d of %d, %s", wave+1, len(r.Waves), r.Waves[wave].Name)
}

// takes: the policy would take the version if it were offered.
func (s *screen) takes(v view, version string) bool {
	c := s.chooseFor(chosenFor{of: v.parcel, extra: version}, v.i)
	return c.Version == version || c.Goal == version
}

// unmetStop is a release that has to run first and is not to be had.
func (s *screen) unmetStop(v view) string {
	if v.want.Why == "" || v.i.Running == "" {
		return ""
	}
	goal := s.chooseFor(chosenFor{of: v.parcel, stopless: true}, v.i).Version
	if goal == "" || fleet.CompareTags(goal, v.i.Running) <= 0 {
		return ""
	}
	for _, stop := range v.o.releases[goal].Stops { // ascending
		if fleet.CompareTags(stop, v.i.Running) > 0 {
			return stop
		}
	}
	return ""
}

// trying is the release in pre-flight that a subscription would take, where it waits for nothing else.
func (s *screen) trying(v view) string {
	best := ""
	for _, version := range v.o.versions { // ascending
		if _, trying := v.o.trying[version]; trying && s.takes(v, version) {
			best = version
		}
	}
	return best
}

// warnings are what is odd and hurts nobody yet.
func (s *screen) warnings(v view) []string {
	all := s.clockWarning(v.news)
	if v.o == nil {
		return all
	}
	pin, ok := v.o.shelf.pins[v.news.Name]
	if !ok || expired(pin, s.now) || follows(v.i.Policy, pin) {
		return all
	}
	who := "whether it does is for its spoke.yaml to say"
	if f := v.i.Policy.FromHub; f.Told && !f.Pins {
		who = "its spoke.yaml says `fromHub: {pins: false}`"
	}
	if own := v.pin; own != nil && own.Source != fleet.PinHub {
		who = fmt.Sprintf("its own pin of %s (%s) counts", own.Version, own.Source)
	}
	return append(all, fmt.Sprintf("pinned to %s at the hub by %s, which its spoke does not follow; %s", pin.Version, pin.Author, who))
}

func expired(p fleet.HubPin, now time.Time) bool { return !p.Until.IsZero() && !now.Before(p.Until) }

// follows: the spoke has said that a pin of the hub is the one that counts.
func follows(p fleet.Policy, pin fleet.HubPin) bool {
	return p.Pin != nil && p.Pin.Source == fleet.PinHub && p.Pin.Version == pin.Version
}

func (s *screen) clockWarning(c *ClusterNews) []string {
	off, wrong := s.fleet.ClocksOff[c.Name]
	if !wrong {
		return nil
	}
	way := "ahead of"
	if off < 0 {
		way = "behind"
	}
	return []string{fmt.Sprintf("its clock is %s %s the hub's; windows and expiries go by its own", strings.TrimSuffix(off.Abs().Round(time.Minute).String(), "0s"), way)}
}
