// Package delivery decides how one attempt to bring a cluster to a release goes on: a pure state
// machine over the phases of pkg/fleet. It does no I/O, reads no clock and keeps nothing: the agent
// records the state that Next returns and then carries out its effects. The whole machine is printed
// in testdata/machine.golden.
package delivery

import (
	"sync"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// State is one delivery between two events.
type State struct {
	Phase  fleet.Phase
	Target string // the release that the delivery goes to
	Reason string // one line; empty when there is nothing to say
	Since  time.Time

	// Previous: a release runs that the cluster can be brought back to.
	Previous bool
	// Deadline of a waiting phase; zero where there is none. Of AwaitingWindow it is when the window opens.
	Deadline time.Time
	// Timeout is how long a waiting phase may take; Grace how long a failing object may take to recover.
	Timeout, Grace time.Duration
	// Patience is how long the provider may take to answer.
	Patience time.Duration

	// Errand is said where a phase has nothing else to say. The caller sets it, and keeps it.
	Errand string

	// Failing is since when objects have been seen failing without a break; zero when they are not.
	Failing time.Time
	// Ailing is since when the whole has been seen other than healthy without a break, once it was healthy.
	Ailing time.Time
	// Restored: in RollingBack and after it, the previous rendered set is applied whole.
	Restored bool
	// Restarts of the spoke since the delivery began to touch the cluster.
	Restarts int
	// Tests: the release has to be proven by tests before it counts as what runs. Proving is how long they may
	// take, Retry that those without a verdict are run again until then; else the provider is asked at once.
	Tests, Retry bool
	Proving      time.Duration
	// Proof is what is known of the target by its tests, or by its provider's word in their place.
	Proof Proof
	// Applied: it waits for its provider while the target is on the cluster, whole and healthy.
	Applied bool

	// Walk is how far the canary has come; the zero Walk where there is none.
	Walk Walk
	// Following is how long those who lead in the canary plugin's place may take to a verdict, until the provider
	// is asked; and how long their way back may take. The caller sets it, and keeps it.
	Following time.Duration
	// Touched: something of the target's own was applied. Until then a return has nothing to restore.
	Touched bool
	// Gates are where the provider is asked on the way; Evidence is how long a step waits for some before it
	// is asked too, 0 without an end. Hint says how to answer. The caller sets them, and keeps them.
	Gates    Gates
	Evidence time.Duration
	Hint     string

	// ByHand: a person wanted the return.
	ByHand bool
	// Declined: it is Refused since its provider said no, or did not answer in time.
	Declined bool
}

// Touching: objects on the cluster may be between two releases; nothing else is begun before that is over.
func (s State) Touching() bool { return s.Phase.Touching() || s.Applied || s.Walk.Asked }

// Beside: candidates stand beside the previous release, which runs as it did and is looked after.
func (s State) Beside() bool {
	return s.Walk.Led && !s.Touched && !s.Walk.Follows() && (s.Phase == fleet.Progressing || s.Walk.Asked)
}

// Forward: the target is, in part or whole, on the cluster and does not count as what runs yet.
func (s State) Forward() bool { return s.Touching() && s.Phase != fleet.RollingBack }

// Proof is what is known of a release that has to be proven.
type Proof string

const (
	Unproven  Proof = ""
	Passed    Proof = "passed"    // its tests; they are run again after a restart
	Accepted  Proof = "accepted"  // its provider, since the tests came to no verdict
	Disproved Proof = "disproved" // its tests failed, or its provider did not accept it without
)

// Verdict of tests.
type Verdict string

const (
	Pass         Verdict = "Pass"
	Fail         Verdict = "Fail"
	Inconclusive Verdict = "Inconclusive" // too little evidence: neither promoted nor taken back for it
)

// Kind of an event.
type Kind string

const (
	Start         Kind = "Start"         // a release, or another overlay over it, is to be delivered; Target, Previous
	Fetched       Kind = "Fetched"       // the bundle is on disk
	Verified      Kind = "Verified"      // digest, provenance chain and name are right
	Rendered      Kind = "Rendered"      // the set differs from the one that runs
	Unchanged     Kind = "Unchanged"     // the set is the one that runs
	Checked       Kind = "Checked"       // the API server would take every object, and nothing needs the provider's word; Steps, Follows, Hooks
	Asking        Kind = "Asking"        // it would take them, and the provider has to say yes first; Reason
	Approve       Kind = "Approve"       // the provider says yes
	Reject        Kind = "Reject"        // the provider says no; Reason
	Expired       Kind = "Expired"       // nobody answered in time
	Retest        Kind = "Retest"        // a person wants tests that came to no verdict run again
	Closed        Kind = "Closed"        // it would be done, and the provider's windows are closed; Until, Reason; Target where nothing was begun
	Opened        Kind = "Opened"        // a window is open
	Applied       Kind = "Applied"       // every object is sent
	Observed      Kind = "Observed"      // health was read; Health, Reason, Lost
	Tested        Kind = "Tested"        // the tests are over; Verdict, Reason
	Tried         Kind = "Tried"         // those of the stage of the canary are over; Verdict, Reason
	Led           Kind = "Led"           // traffic is as the step says; Passes
	Unled         Kind = "Unled"         // it will never be, or who leads says no; Reason
	Waiting       Kind = "Waiting"       // traffic is not yet as it is to be, who leads says nothing yet, or a hook has not ended; Reason, Lost
	Measured      Kind = "Measured"      // the candidates were judged; Verdict, Over, Reason
	Concluded     Kind = "Concluded"     // stable has all traffic, the candidates are gone; or who leads says yes
	Aborted       Kind = "Aborted"       // likewise, and stable is the previous release
	Pause         Kind = "Pause"         // a person holds the canary where it is
	Resume        Kind = "Resume"        // a person lets it go on
	Advance       Kind = "Advance"       // a person wants the next step now
	Skip          Kind = "Skip"          // a person wants the promotion now
	Pruned        Kind = "Pruned"        // what the release no longer has is gone
	Restored      Kind = "Restored"      // the previous set is applied and what only the failed one had is gone
	Undone        Kind = "Undone"        // what a first install had made is gone
	Return        Kind = "Return"        // the previous release is wanted back; Target is the one that is left, Reason, ByHand, Follows
	Delayed       Kind = "Delayed"       // the step could not be done now and will be tried again; Reason, Lost
	Refuse        Kind = "Refuse"        // the step can never be done; Reason
	Unrenderable  Kind = "Unrenderable"  // the provider's new overlay does not render; Reason
	Misconfigured Kind = "Misconfigured" // overlay or spoke.yaml cannot be read; Reason
	Content       Kind = "Content"       // what runs is what is wanted; Target is what runs, "" for nothing
	Restart       Kind = "Restart"       // the spoke was started and finds this state in its journal
)

// Kinds lists all events.
func Kinds() []Kind {
	return []Kind{Start, Fetched, Verified, Rendered, Unchanged, Checked, Applied, Observed, Tested, Pruned, Restored,
		Tried, Led, Unled, Waiting, Measured, Concluded, Aborted, Pause, Resume, Advance, Skip, Asking, Approve, Reject, Expired, Retest, Closed, Opened, Undone, Return, Delayed, Refuse, Unrenderable, Misconfigured, Content, Restart}
}

// Event is what happened. Fields beside Kind are set where the kind's comment names them.
type Event struct {
	Kind     Kind
	Target   string
	Previous bool
	Health   fleet.Health
	Verdict  Verdict
	Reason   string
	ByHand   bool          // a person wants it
	Until    time.Time     // when a window opens
	Lost     time.Duration // time in which nothing could be seen: it does not count against a deadline
	Steps    int           // of the canary's course; 0: there is none
	Follows  bool          // somebody else leads traffic to it
	Hooks    bool          // objects of it, such as migrations, go before its candidates
	Passes   int           // measurements that the step has to pass
	Over     bool          // more has failed than the release allows
}

// Effect is what the agent has to do next, in the order given.
type Effect string

const (
	Fetch      Effect = "fetch"      // bring the bundle; answers Fetched
	Verify     Effect = "verify"     // answers Verified
	Render     Effect = "render"     // answers Rendered or Unchanged
	Check      Effect = "check"      // dry run; answers Checked
	Apply      Effect = "apply"      // answers Applied, or Waiting for a hook
	Watch      Effect = "watch"      // read health after a while; answers Observed, or Tested where a hook failed after it
	Test       Effect = "test"       // begin the tests, or look how they and the cluster get on; answers Tested or Observed
	Try        Effect = "try"        // run the tests of the canary's stage; answers Tried
	Lead       Effect = "lead"       // make traffic be what the step says; answers Led, Unled or Waiting
	Measure    Effect = "measure"    // judge the candidates after a while; answers Measured
	Conclude   Effect = "conclude"   // lead all to stable and take the candidates away, or ask who leads; answers Concluded, Unled or Waiting
	Abort      Effect = "abort"      // the same, where stable is the previous release; answers Aborted or Waiting
	Prune      Effect = "prune"      // delete what the new release no longer has; answers Pruned
	Restore    Effect = "restore"    // apply the previous set, delete what only the failed one had; answers Restored
	Undo       Effect = "undo"       // delete what a first install made; answers Undone
	Promote    Effect = "promote"    // record the target as what runs
	Hold       Effect = "hold"       // record that the target is not to be tried again as it is
	Unexpected Effect = "unexpected" // the event has no meaning in this phase: say so, nothing changed
)

// machine is the table, made once: it never changes.
var machine = sync.OnceValue(table)

// Next is the machine. It is total: an event that has no meaning in a phase leaves the state as it
// is and has the one effect Unexpected.
func Next(now time.Time, s State, e Event) (State, []Effect) {
	seen := observe(now, s, e)
	for _, r := range machine() {
		if r.matches(now, seen, e) {
			return r.apply(now, seen, e), r.do
		}
	}
	return s, []Effect{Unexpected}
}

// observe takes into the state what an event says about time and failure, whatever it leads to.
func observe(now time.Time, s State, e Event) State {
	if e.Lost > 0 {
		if !s.Deadline.IsZero() {
			s.Deadline = s.Deadline.Add(e.Lost)
		}
		s.Failing, s.Ailing = time.Time{}, time.Time{}
	}
	if e.Kind != Observed {
		return s
	}
	if e.Health == fleet.Healthy {
		s.Ailing = time.Time{}
	} else if s.Ailing.IsZero() {
		s.Ailing = now
	}
	if e.Health != fleet.Degraded {
		s.Failing = time.Time{}
	} else if s.Failing.IsZero() {
		s.Failing = now
	}
	return s
}
