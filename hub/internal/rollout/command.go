package rollout

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// Verb is what a person, or the hub for another release's sake, tells a rollout to do.
type Verb string

const (
	Approve   Verb = "approve"   // the wave may start; or may end without the evidence that was asked for
	Reject    Verb = "reject"    // the wave may not: the rollout holds
	Pause     Verb = "pause"     // no more offers; who is under way goes on
	Resume    Verb = "resume"    // after a pause or a hold; the failures so far no longer count
	Abort     Verb = "abort"     // who has the release keeps it, nobody else gets it
	Undo      Verb = "undo"      // who took the release goes back
	Recall    Verb = "recall"    // the release was called back
	Supersede Verb = "supersede" // a newer release takes over
)

// Command is one word to a rollout, with who said it.
type Command struct {
	Verb     Verb
	Wave     string // Approve, Reject: the wave that is meant; empty: the one that waits
	By, Role string // "operator admin", "admin"
	Reason   string
	RollBack bool // Recall: clusters that took the release go back
}

// text is what the rollout says from then on.
func (c Command) text() string {
	done := map[Verb]string{Approve: "approved", Reject: "rejected", Pause: "paused", Abort: "aborted", Undo: "undone", Recall: "recalled", Supersede: "superseded"}[c.Verb]
	if c.By != "" {
		done += " by " + c.By
	}
	if c.Reason != "" {
		done += ": " + c.Reason
	}
	return done
}

// What Do refuses.
var (
	ErrNotWaiting = errors.New("it does not wait for that")
	ErrOver       = errors.New("the rollout is over")
	ErrTwice      = errors.New("that was said already")
	ErrNoSuchWave = errors.New("the plan has no such wave")
	ErrRole       = errors.New("that is for another role to decide")
)

// admin may speak for every role: a hub that has one certificate for people has its admin's.
const admin = "admin"

// Do carries out a command. The state that it returns is looked at with Next before it is used. An error
// wraps one of those above and says what to do instead.
func Do(now time.Time, s State, c Command) (State, error) {
	if err := s.allows(c); err != nil {
		return s, fmt.Errorf("%s rollout of %s %s: %w", c.Verb, s.Distribution, s.Version, err)
	}
	l := &sight{now: now, s: s, command: c}
	l.s.Waves = slices.Clone(s.Waves)
	rows := table()
	i := slices.IndexFunc(rows, func(r row) bool { return r.matches(l, c.Verb) })
	if i < 0 {
		return s, fmt.Errorf("%s rollout of %s %s: %w", c.Verb, s.Distribution, s.Version, s.refuses(c))
	}
	rows[i].apply(l)
	l.s.Wake = time.Time{} // nobody has looked since
	return l.s, nil
}

// allows checks what a command names.
func (s State) allows(c Command) error {
	if len(s.Waves) == 0 || s.Wave >= len(s.Waves) {
		return fmt.Errorf("%w: it is %s and has no waves", ErrOver, s.Phase)
	}
	if c.Verb == Undo && len(s.Members) == 0 {
		return fmt.Errorf("%w: no cluster took the release in it; hub release recall %s %s takes it from all that run it", ErrNotWaiting, s.Distribution, s.Version)
	}
	if c.Verb != Approve && c.Verb != Reject {
		return nil
	}
	i := s.Wave
	if c.Wave != "" {
		if i = slices.IndexFunc(s.Waves, func(w Wave) bool { return w.Name == c.Wave }); i < 0 {
			return fmt.Errorf("%w: %q is none of %s", ErrNoSuchWave, c.Wave, s.waveNames())
		}
	}
	w := s.Waves[i]
	waits := i == s.Wave && (s.Phase == fleet.RolloutApproval || s.Phase == fleet.RolloutVerdicts)
	switch {
	case s.Phase.Terminal():
		return fmt.Errorf("%w: it is %s: %s", ErrOver, s.Phase, s.Reason)
	case !waits && c.Verb == Approve && w.ApprovedBy != "":
		return fmt.Errorf("%w: wave %s was approved by %s; see hub rollout status %s %s", ErrTwice, w.Name, w.ApprovedBy, s.Distribution, s.Version)
	case !waits:
		return fmt.Errorf("%w: it is %s in wave %s: %s; see hub rollout status %s %s", ErrNotWaiting, s.Phase, s.Waves[s.Wave].Name, s.Waits(), s.Distribution, s.Version)
	}
	if want := s.Plan.Waves[i].Approval; want != "" && c.Role != want && c.Role != admin || c.Role == "" {
		return fmt.Errorf("%w: wave %s wants %s, and this is said as %s", ErrRole, w.Name, orNobody(want), orNobody(c.Role))
	}
	return nil
}

func orNobody(role string) string {
	if role == "" {
		return "somebody with a role"
	}
	return role
}

// refuses says why no row takes a command.
func (s State) refuses(c Command) error {
	status := fmt.Sprintf("see hub rollout status %s %s", s.Distribution, s.Version)
	switch {
	case c.Verb == Pause && s.Phase == fleet.RolloutPaused, c.Verb == Undo && (s.Phase == fleet.RolloutReturning || s.Phase == fleet.RolloutReturned),
		c.Verb == Recall && s.Phase == fleet.RolloutRecalled, c.Verb == Abort && s.Phase == fleet.RolloutAborted, c.Verb == Supersede && s.Phase == fleet.RolloutSuperseded:
		return fmt.Errorf("%w: it is %s: %s; %s", ErrTwice, s.Phase, s.Reason, status)
	case s.Phase.Terminal():
		return fmt.Errorf("%w: it is %s: %s; a new one starts with hub rollout start %s %s", ErrOver, s.Phase, s.Reason, s.Distribution, s.Version)
	}
	return fmt.Errorf("%w: it is %s: %s; %s", ErrNotWaiting, s.Phase, s.Waits(), status)
}

func (s State) waveNames() (names []string) {
	for _, w := range s.Waves {
		names = append(names, w.Name)
	}
	return names
}
