package fleet

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Offered is a release that a cluster may take.
type Offered struct {
	Version string
	Stops   []string // releases that have to run before it is taken, ascending
}

// Choice is what a policy chooses from.
type Choice struct {
	Now       time.Time
	Offered   []Offered
	Withdrawn []Withdrawal
	Held      map[string]bool // not taken again by itself
	Running   string          // empty: nothing
	Floor     string          // nothing older is taken, but for the provider's own pin; empty: none
	AskBack   bool            // that what runs was withdrawn is the hub's word alone: the provider is asked before it is left for something older
}

// Selection is what a policy makes of a choice.
type Selection struct {
	Version string // empty: nothing to take; what runs stays
	Why     string // why nothing, why not the highest, or why it goes back; empty when there is nothing to say
	Asks    string // why the provider is asked before Version is taken; empty: they are not
	Return  bool   // what runs was withdrawn, and Version is where to go instead; it need not be on offer
	Would   string // what would be selected without the pin; empty: the same, or there is no pin
	Goal    string // Version is a required stop on the way to this release; empty: it is the goal itself
}

// Select picks what a cluster should run.
//
// A pin that has not expired is the goal; one that was made at the hub only within range and steps. Else it is the highest release in range that is neither held,
// withdrawn nor of a step that is never taken; one that is taken by itself comes before a higher one that
// the provider is asked about, which is selected afterwards. On the way to a goal its required stops are
// selected one after the other, but for a first install. What runs is never left for a lower version but
// by a pin, or where it was withdrawn and nothing higher is taken by itself. The floor is not gone below but
// by the provider's own pin, or by a withdrawal.
func (p Policy) Select(c Choice) (Selection, error) {
	s := selecting{policy: p, choice: c}
	pin := p.PinAt(c.Now)
	free := s.free()
	switch {
	case s.trouble != nil && (pin == nil || pin.Source == PinHub):
		return Selection{}, s.trouble
	case pin == nil:
		return free, nil
	}
	held := s.pinned(*pin)
	if free.Version != held.Version && s.trouble == nil {
		held.Would = free.Version
	}
	return held, nil
}

// selecting is one selection at work. The hub makes one for every cluster of a large fleet at once: what is
// not needed where nothing is new is not made.
type selecting struct {
	policy  Policy
	choice  Choice
	within  *Range // once it was needed
	trouble error  // of reading it
}

func (s *selecting) inRange(v Version) bool {
	if s.within == nil {
		r, err := ParseRange(s.policy.Range)
		s.within, s.trouble = &r, err
	}
	return s.within.Contains(v)
}

func (s *selecting) offered(version string) (Offered, bool) {
	for _, o := range s.choice.Offered {
		if o.Version == version {
			return o, true
		}
	}
	return Offered{}, false
}

func (s *selecting) withdrawn(version string) (Withdrawal, bool) {
	for _, w := range s.choice.Withdrawn {
		if w.Version == version {
			return w, true
		}
	}
	return Withdrawal{}, false
}

// said is a withdrawal in words.
func (w Withdrawal) said() string {
	text := w.Version + " was recalled"
	if w.Kind == TakenBack {
		text = "the rollout of " + w.Version + " was undone"
	}
	if w.Reason != "" {
		text += ": " + w.Reason
	}
	return text
}

// pinned selects what a pin names.
func (s *selecting) pinned(pin Pin) Selection {
	running, goal := s.choice.Running, pin.Version
	w, withdrawn := s.withdrawn(goal)
	switch {
	case goal == running && withdrawn:
		return Selection{Version: running, Why: fmt.Sprintf("%s; the pin of %s keeps it", w.said(), pin.Source)}
	case goal == running:
		return Selection{Version: running}
	case withdrawn:
		return Selection{Why: fmt.Sprintf("%s, the pin of %s, is not taken: %s", goal, pin.Source, w.said())}
	}
	if _, ok := s.offered(goal); !ok {
		return Selection{Why: fmt.Sprintf("%s, the pin of %s, is not on offer", goal, pin.Source)}
	}
	if pin.Source == PinHub && s.choice.AskBack && s.below(goal) {
		return Selection{Why: fmt.Sprintf("%s, the pin of %s, is %s; only a pin or a rollback of your own goes there", goal, pin.Source, s.older())}
	}
	unfit := func(string) string { return "" } // the provider's own pin takes the place of range and steps
	if pin.Source == PinHub {
		unfit = s.unfit
	}
	if why := unfit(goal); why != "" {
		return Selection{Why: fmt.Sprintf("%s, the pin of %s, %s", goal, pin.Source, why)}
	}
	next, missing := s.next(goal, unfit)
	if missing != "" {
		return Selection{Version: running, Why: missing}
	}
	held := Selection{Version: next}
	if next != goal {
		held.Goal = goal
	}
	if pin.Source == PinHub {
		held.Asks = s.asks(next)
	}
	return held
}

// next is the release to take now on the way to goal, or what is missing. unfit says why the policy does
// not take a stop, after "which"; empty where it does.
func (s *selecting) next(goal string, unfit func(string) string) (next, missing string) {
	running := s.choice.Running
	if running == "" || CompareTags(goal, running) <= 0 {
		return goal, ""
	}
	stop := ""
	offered, _ := s.offered(goal)
	for _, v := range offered.Stops {
		if CompareTags(v, running) > 0 && CompareTags(v, goal) < 0 && (stop == "" || CompareTags(v, stop) < 0) {
			stop = v
		}
	}
	if stop == "" {
		return goal, ""
	}
	which := unfit(stop)
	if _, ok := s.offered(stop); !ok {
		which = "is not on offer"
	}
	if w, ok := s.withdrawn(stop); ok {
		which = "is not taken any more: " + w.said()
	} else if s.choice.Held[stop] {
		which = "is held after it failed here"
	}
	if which != "" {
		return "", fmt.Sprintf("%s needs %s first, which %s", goal, stop, which)
	}
	return s.next(stop, unfit) // a stop may have stops of its own
}

// unfit is why the policy does not take a version, as the end of a sentence about it; empty: it does.
func (s *selecting) unfit(tag string) string {
	v, err := ParseVersion(tag)
	switch {
	case err != nil:
		return "is no version"
	case !s.inRange(v):
		return fmt.Sprintf("is not in range %q", s.policy.Range)
	case v.Prerelease() && !s.policy.Prereleases:
		return "is a prerelease"
	case s.choice.Running == "":
		return ""
	}
	if name, u := s.policy.step(s.choice.Running, tag); u == NeverTaken {
		return fmt.Sprintf("is not taken (versions.%s: never)", name)
	}
	return ""
}

// asks is why the provider is asked about going from what runs to a version; empty: they are not.
func (s *selecting) asks(to string) string {
	running := s.choice.Running
	if running == "" {
		return ""
	}
	name, u := s.policy.step(running, to)
	if u != AskFirst {
		return ""
	}
	what := "upgrade"
	if CompareTags(to, running) < 0 {
		what = "step back"
	}
	return fmt.Sprintf("%s %s from %s needs approval (versions.%s: approve)", name, what, running, name)
}

// free selects without a pin.
func (s *selecting) free() Selection {
	running := s.choice.Running
	up, why := s.upwards()
	w, withdrawn := s.withdrawn(running)
	switch {
	case up.Version != "" && (up.Asks == "" || !withdrawn):
		up.Why = why
		return up
	case withdrawn && running != "":
		return s.backwards(w, up)
	case running != "":
		return Selection{Version: running, Why: why}
	case why == "" && len(s.choice.Offered) == 0:
		why = "nothing is on offer"
	case why == "":
		why = s.none()
	}
	return Selection{Why: why}
}

// none is why nothing of what is on offer is installed first.
func (s *selecting) none() string {
	if s.policy.Range != "" {
		return fmt.Sprintf("none of %d releases is in range %q", len(s.choice.Offered), s.policy.Range)
	}
	above := s.above()
	if len(above) == 0 {
		return "what is on offer names no version"
	}
	if w, ok := s.withdrawn(above[0]); ok {
		return w.said()
	}
	return above[0] + " " + s.unfit(above[0])
}

// upwards selects of what is above that which runs; an empty version for none. why says what keeps a still
// higher one back.
func (s *selecting) upwards() (up Selection, why string) {
	passed := "" // over by policy: said only where nothing else is
	for _, tag := range s.above() {
		if reason := s.unfit(tag); reason != "" {
			if _, u := s.policy.step(s.choice.Running, tag); u == NeverTaken && s.choice.Running != "" {
				passed = cmp.Or(passed, tag+" "+reason)
			}
			continue
		}
		if _, ok := s.withdrawn(tag); ok {
			continue
		}
		if s.choice.Held[tag] {
			why = cmp.Or(why, tag+" is held after it failed here")
			continue
		}
		if s.below(tag) {
			passed = cmp.Or(passed, tag+" is "+s.older())
			continue
		}
		next, missing := s.next(tag, s.unfit)
		if missing != "" {
			why = cmp.Or(why, missing)
			continue
		}
		found := Selection{Version: next, Asks: s.asks(next)}
		if next != tag {
			found.Goal = tag
		}
		if found.Asks == "" {
			return found, cmp.Or(why, passed)
		}
		if up.Version == "" {
			up = found
		}
	}
	return up, cmp.Or(why, passed)
}

// below: the version is older than what ran healthy here.
func (s *selecting) below(version string) bool {
	return s.choice.Floor != "" && CompareTags(version, s.choice.Floor) < 0
}

func (s *selecting) older() string {
	return "older than " + s.choice.Floor + ", which ran healthy here"
}

// above are the offered releases that are higher than what runs, the highest first.
func (s *selecting) above() []string {
	var all []string
	running, err := ParseVersion(s.choice.Running)
	for _, o := range s.choice.Offered {
		if err != nil && CompareTags(o.Version, s.choice.Running) > 0 {
			all = append(all, o.Version)
		} else if v, bad := ParseVersion(o.Version); err == nil && bad == nil && v.Compare(running) > 0 {
			all = append(all, o.Version)
		}
	}
	slices.SortFunc(all, func(a, b string) int { return CompareTags(b, a) })
	return all
}

// backwards selects where what runs was withdrawn: where its withdrawal says to go, unless the provider
// would be asked about that and about something higher.
func (s *selecting) backwards(w Withdrawal, up Selection) Selection {
	stays := ""
	switch {
	case w.To == "" || w.To == w.Version:
		stays = w.said()
	case s.unfit(w.To) != "":
		stays = fmt.Sprintf("%s; %s, the release to go to, %s", w.said(), w.To, s.unfit(w.To))
	case s.choice.Held[w.To]:
		stays = fmt.Sprintf("%s; %s, the release to go to, is held after it failed here", w.said(), w.To)
	}
	if again, ok := s.withdrawn(w.To); ok && stays == "" {
		stays = fmt.Sprintf("%s; %s, the release to go to, was withdrawn too: %s", w.said(), w.To, again.said())
	}
	asks := s.asks(w.To)
	if s.choice.AskBack && w.To != "" && asks == "" {
		asks = fmt.Sprintf("going back from %s to %s is the hub's word alone and needs approval (fromHub.rollbacks: false)", w.Version, w.To)
	}
	switch {
	case up.Version != "" && (stays != "" || asks != ""):
		up.Why = w.said()
		return up
	case stays != "":
		return Selection{Version: s.choice.Running, Why: stays}
	}
	return Selection{Version: w.To, Why: w.said(), Asks: asks, Return: true}
}
