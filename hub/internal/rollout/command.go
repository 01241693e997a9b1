package rollout

import (
	"errors"
	"time"
)

// Verb is what a person, or the hub for another rollout's sake, tells a rollout to do.
type Verb string

const (
	Approve   Verb = "approve"
	Reject    Verb = "reject"
	Pause     Verb = "pause"
	Resume    Verb = "resume"
	Abort     Verb = "abort"
	Undo      Verb = "undo"
	Recall    Verb = "recall"
	Supersede Verb = "supersede"
)

// Command is one word to a rollout, with who said it.
type Command struct {
	Verb     Verb
	Wave     string // Approve, Reject: the wave that is meant; empty: the one that waits
	By, Role string // "operator admin", "admin"
	Reason   string
	RollBack bool // Recall: bring back the clusters that took the release
}

var (
	ErrNotWaiting = errors.New("it does not wait for that")
	ErrOver       = errors.New("the rollout is over")
	ErrTwice      = errors.New("that was said already")
	ErrNoSuchWave = errors.New("there is no such wave")
	ErrRole       = errors.New("another role decides this")
)

// Do carries out a command: the state after it, not yet brought to its fixed point. The error says what
// to do instead.
func Do(now time.Time, s State, c Command) (State, error) { return s, nil }
