package agent

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
)

// inForce is a policy with the pin that counts: the one that the provider wrote, else the one that was said
// at the spoke's command line, else the hub's where spoke.yaml lets it. One that has ended gives way to the
// next.
func inForce(p fleet.Policy, said *fleet.Pin, in input, now time.Time) fleet.Policy {
	p.FromHub = fleet.FromHub{Told: true, Pins: in.sub.FromHub.Pins, Decisions: in.sub.FromHub.Decisions, Rollbacks: in.sub.Rollbacks()}
	var hubs *fleet.Pin
	if in.sub.FromHub.Pins {
		hubs, _ = wire.FromHubPin(in.offers.GetPin()) // one that names no version holds nothing
	}
	for _, pin := range []*fleet.Pin{p.Pin, said, hubs} {
		if pin != nil && !pin.Expired(now) {
			p.Pin = pin
			return p
		}
	}
	p.Pin = nil
	return p
}

// notePolicy keeps the policy in force for those who look, and reports whether it is another one.
func (w *worker) notePolicy(p fleet.Policy, now time.Time) (changed bool, err error) {
	was, rec := w.rec.Installation.Policy, w.rec
	if rec.Pin != nil && rec.Pin.Expired(now) {
		rec.Pin = nil
	}
	heard := was.FromHub
	was.FromHub = p.FromHub // it changes nothing of what is selected
	same := was.Equal(p) && rec.Pin == w.rec.Pin
	if same && heard == p.FromHub {
		w.rec.Installation.Policy = p // its windows may know their zones better than the journal does
		return false, nil
	}
	rec.Installation.Policy = p
	if !w.known {
		w.rec = rec
		w.publish()
		return !same, nil
	}
	text := told(p)
	if same {
		text = heeds(p.FromHub)
	}
	if pin := was.Pin; pin != nil && pin.Expired(now) {
		text = fmt.Sprintf("the pin at %s by %s is over: %s", pin.Version, who(*pin), text)
	}
	return !same, w.record(rec, event(now, rec.Installation, fleet.EventAgent, text))
}

// heeds says what counts of what is said at the hub for this provider.
func heeds(f fleet.FromHub) string {
	word := map[bool]string{true: "count", false: "do not count"}
	text := fmt.Sprintf("of what is said at the hub for this provider, pins %s and approvals %s", word[f.Pins], word[f.Decisions])
	if !f.Rollbacks {
		text += "; nothing that runs is left for an older release on the hub's word alone"
	}
	return text
}

// who made a pin, and where.
func who(p fleet.Pin) string {
	if p.Author == "" {
		return p.Source
	}
	return fmt.Sprintf("%s (%s)", p.Author, p.Source)
}

// told is a policy in one line.
func told(p fleet.Policy) string {
	text := "follows " + p.Range
	switch {
	case p.Pin != nil:
		text = pinned(*p.Pin)
	case p.Range == "":
		text = "follows every release"
	}
	for _, step := range []struct {
		name string
		u    fleet.Upgrade
	}{{"patch", p.Patch}, {"minor", p.Minor}, {"major", p.Major}} {
		if p.Pin == nil && step.u != "" && step.u != fleet.Automatic {
			text += fmt.Sprintf(", %s upgrades: %s", step.name, step.u)
		}
	}
	if len(p.Windows) > 0 {
		text += ", in " + p.Windows.String()
	}
	return text
}

// pinned is a pin in one line.
func pinned(p fleet.Pin) string {
	text := fmt.Sprintf("pinned at %s by %s", p.Version, who(p))
	if !p.Until.IsZero() {
		text += " until " + fleet.Moment(p.Until)
	}
	return because(text, p.Reason)
}

// pinEnds is when a pin that holds now does not any more; the zero time: never by itself.
func pinEnds(p fleet.Policy) time.Time {
	if p.Pin == nil {
		return time.Time{}
	}
	return p.Pin.Until
}

// Pin holds a subscription at one version until Unpin, or until it ends by itself. It is in the journal when
// it answers, and works with the hub away. The answer is the installation as it is with the pin, or would be;
// its reason says why the version that is then taken is not the pinned one.
func (a *Agent) Pin(ctx context.Context, distribution string, p fleet.Pin, dry bool) (i fleet.Installation, err error) {
	err = a.order(ctx, distribution, func(w *worker, in input) error {
		i, err = w.pin(in, p, dry)
		return err
	})
	return i, err
}

func (w *worker) pin(in input, p fleet.Pin, dry bool) (fleet.Installation, error) {
	now, none := time.Now(), fleet.Installation{}
	p.Source = fleet.PinSpoke
	if p.Expired(now) {
		return none, fmt.Errorf("pin %s at %s: %s is over already", w.name, p.Version, fleet.Moment(p.Until))
	}
	if !in.sub.Overlay.None() && !w.saw.good {
		return none, fmt.Errorf("pin %s: the overlay in %s was not read yet; try again, spoke status says why it cannot be", w.name, where(in.sub.Overlay))
	}
	want, policy, err := wanted(in, w.saw.now)
	if err != nil {
		return none, err
	}
	if written := policy.PinAt(now); written != nil {
		return none, fmt.Errorf("pin %s: it is pinned at %s by %s, which goes before: change it there", w.name, written.Version, written.Source)
	}
	rec, running := w.rec, w.rec.Installation.Running
	if _, there := in.offer(p.Version); !there && p.Version != running {
		return none, fmt.Errorf("pin %s: %s is not on offer and does not run; on offer are %v, and %s runs (an earlier release is had with: spoke rollback %s)",
			w.name, p.Version, in.versions(), cmp.Or(running, "nothing"), w.name)
	}
	if p.Version != running { // who names it wants it, whatever came of it before
		rec.Held = without(rec.Held, p.Version)
	}
	policy.Pin = &p
	selected, err := policy.Select(in.choice(now, heldFor(rec.Held, want, now), rec, w.told))
	if err != nil {
		return none, err
	}
	if selected.Version != p.Version && (selected.Version == "" || selected.Version == running) {
		return none, fmt.Errorf("pin %s: %s", w.name, selected.Why)
	}
	rec.Pin, rec.Installation.Policy = &p, policy
	rec.Installation.Wants, rec.Installation.Would = selected.Version, selected.Would
	answer := rec.Installation
	answer.Reason = cmp.Or(chosen{Selection: selected}.errand(), selected.Why)
	if dry {
		return answer, nil
	}
	w.log.Info("pinned", logging.Version, p.Version, "author", p.Author, logging.Reason, p.Reason, "until", p.Until)
	return answer, w.record(rec, event(now, rec.Installation, fleet.EventAgent, pinned(p)))
}

// Unpin takes away what Pin made, and nothing else.
func (a *Agent) Unpin(ctx context.Context, distribution, reason string, dry bool) error {
	return a.order(ctx, distribution, func(w *worker, in input) error { return w.unpin(in, reason, dry) })
}

func (w *worker) unpin(in input, reason string, dry bool) error {
	now, rec := time.Now(), w.rec
	if rec.Pin == nil || rec.Pin.Expired(now) {
		where := "it is not pinned"
		if p := rec.Installation.Policy.PinAt(now); p != nil {
			where = fmt.Sprintf("it is pinned at %s by %s, and has to be unpinned there", p.Version, who(*p))
		}
		return fmt.Errorf("unpin %s: %w: %s", w.name, fleet.ErrNothingWaits, where)
	}
	if dry {
		return nil
	}
	text := because(fmt.Sprintf("the pin at %s by %s is taken away", rec.Pin.Version, who(*rec.Pin)), oneLine(reason))
	rec.Pin = nil
	if _, policy, err := wanted(in, w.saw.now); err == nil {
		rec.Installation.Policy = inForce(policy, nil, in, now)
	}
	w.log.Info("unpinned", logging.Reason, reason)
	return w.record(rec, event(now, rec.Installation, fleet.EventAgent, text))
}
