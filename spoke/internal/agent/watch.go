package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/apply"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/delivery"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/terms"
)

// watching is when was looked, and will be.
type watching struct {
	last   time.Time // the last try of an effect
	told   time.Time // the last event about a phase
	health time.Time // next look at what runs
	drift  time.Time // next look for drift
	said   time.Time // the last event about health
	blind  int       // looks in a row that failed
	ill    time.Time // since when what runs has not been well without a break
	well   int       // looks in a row that found it well
}

const remind = 30 * time.Second // between events about health that is not well and changes in detail only

// watchHealth looks at what runs, between deliveries.
func (w *worker) watchHealth(ctx context.Context, _ input) result {
	lost := w.state.Phase == fleet.RollbackFailed
	if w.state.Touching() && !w.state.Beside() || (w.rec.Installation.Running == "" && !lost) || len(w.ledger.Items) == 0 {
		return result{}
	}
	now := time.Now()
	if left := w.watch.health.Sub(now); left > 0 {
		return result{after: left}
	}
	every := w.intervals().Health
	w.watch.health = now.Add(every)
	before := w.rec.Installation
	w.learn() // others may have made the sink forget
	report, err := w.a.cfg.Observe.Health(ctx, w.ledger.Current(), w.healthRules())
	if ctx.Err() != nil {
		return result{}
	}
	if err != nil {
		if w.watch.blind++; w.watch.blind < 2 {
			return result{after: every}
		}
		report = apply.HealthReport{Health: fleet.HealthUnknown, Objects: before.Objects, Ready: before.Ready, Message: oneLine(err.Error())}
	} else {
		w.watch.blind = 0
	}
	report, soon := w.steady(now, report)
	if soon > 0 {
		every = min(every, soon)
		w.watch.health = now.Add(every)
	}
	w.noteHealth(report)
	w.publish()
	if err := w.sayHealth(now, before); err != nil {
		return w.journalTrouble(err)
	}
	if lost && err == nil {
		if err := w.feed(delivery.Event{Kind: delivery.Observed, Health: report.Health, Reason: report.Message}); err != nil {
			return w.journalTrouble(err)
		}
		if w.state.Touching() {
			return result{after: time.Millisecond}
		}
	}
	return result{after: every}
}

// steady keeps a verdict that comes and goes from being told back and forth: what was well is called ill
// after Grace without a break, and what was ill is called well after two looks. Until then the answer is
// what was said before, with what is seen now, and when to look again.
func (w *worker) steady(now time.Time, r apply.HealthReport) (apply.HealthReport, time.Duration) {
	said := w.rec.Installation.Health
	if r.Health == fleet.Healthy {
		w.watch.ill = time.Time{}
		w.watch.well++
		if said == fleet.Degraded && w.watch.well < 2 {
			r.Health = said
			return r, w.intervals().Settle
		}
		return r, 0
	}
	w.watch.well = 0
	if w.watch.ill.IsZero() {
		w.watch.ill = now
	}
	if left := w.intervals().Grace - now.Sub(w.watch.ill); said == fleet.Healthy && r.Health != fleet.HealthUnknown && left > 0 {
		r.Health = said
		return r, min(left, w.intervals().Settle*2)
	}
	return r, 0
}

// noteHealth takes a report into the installation, in memory.
func (w *worker) noteHealth(r apply.HealthReport) {
	i := &w.rec.Installation
	i.Health, i.HealthMessage, i.Objects, i.Ready, i.ObservedAt = r.Health, oneLine(r.Message), r.Objects, r.Ready, time.Now()
	if r.Health == fleet.HealthUnknown {
		i.ObservedAt = w.seen.Load().ObservedAt // nothing was seen
	}
}

// sayHealth records a change of health; what changes only in detail is said now and then.
func (w *worker) sayHealth(now time.Time, before fleet.Installation) error {
	i := w.rec.Installation
	detail := i.HealthMessage != before.HealthMessage || i.Objects != before.Objects || i.Ready != before.Ready
	if i.Health == before.Health && (!detail || now.Sub(w.watch.said) < remind) {
		return nil
	}
	w.watch.said = now
	text := string(i.Health)
	if i.HealthMessage != "" {
		text += ": " + i.HealthMessage
	}
	return w.record(w.rec, event(now, i, fleet.EventHealth, text))
}

// correctDrift looks at what others changed or deleted of what runs, when the watch says that something
// was, and now and then for what a watch may have missed. What is done about it is the provider's.
func (w *worker) correctDrift(ctx context.Context, in input) result {
	if w.state.Touching() && !w.state.Beside() || !w.canReturn() || ctx.Err() != nil {
		return result{}
	}
	now := time.Now()
	if left := w.watch.drift.Sub(now); left > 0 {
		return result{after: left}
	}
	every := w.intervals().Drift
	w.watch.drift = now.Add(every)
	if w.state.Phase == fleet.RollbackFailed && !w.state.Restored {
		w.watch.drift = now.Add(w.intervals().RetryMax)
		return w.restoreAgain(ctx)
	}
	if in.sub.Terms.Drift == terms.Leave {
		w.follow()
		left, err := w.leftOutside(ctx, in.sub)
		if err == nil {
			err = w.sayDrift(now, left)
		}
		if err != nil {
			w.log.Warn("what runs was not compared with the envelope", logging.Error, err)
		}
		return result{}
	}
	set, err := w.runningSet()
	if err != nil {
		w.log.Error("drift cannot be looked for", logging.Error, err)
		return result{after: every}
	}
	if set, err = w.unled(ctx, set); err != nil {
		w.log.Warn("drift was not looked for", logging.Error, err)
		w.watch.drift = now.Add(w.intervals().RetryMax)
		return result{after: w.intervals().RetryMax}
	}
	inv, found, err := w.a.cfg.Apply.Drift(ctx, set, w.ledger.Current(), in.sub.Terms.Drift != terms.Report)
	if ctx.Err() != nil {
		return result{}
	}
	if err != nil {
		w.log.Warn("drift was not corrected, or not all of it", logging.Error, err)
		every = w.intervals().RetryMax
		w.watch.drift = now.Add(every)
	}
	if len(inv.Items) > 0 {
		w.ledger.Inventory = merged(inv, w.ledger.Inventory)
	}
	w.follow()
	if err := w.sayDrift(now, found); err != nil {
		return w.journalTrouble(err)
	}
	return result{after: every}
}

// follow tells the watch how the objects were left.
func (w *worker) follow() {
	inv := w.ledger.Current()
	if w.sub.Terms.Drift == terms.Leave || !w.canReturn() {
		inv = apply.Inventory{}
	}
	w.guard.Follow(inv)
}

// sayDrift tells what was put back, and what is left as others want it.
func (w *worker) sayDrift(now time.Time, found []apply.Drifted) error {
	var fixed, left []string
	for _, d := range found {
		if d.Corrected {
			fixed = append(fixed, d.String())
		} else {
			left = append(left, d.String())
		}
	}
	rec := w.rec
	i := &rec.Installation
	was := i.Drifted
	i.Drifted, i.DriftMessage = len(left), oneLine(some(left))
	var events []fleet.Event
	if len(fixed) > 0 {
		i.DriftCorrected += len(fixed)
		w.log.Info("drift corrected", "objects", fixed)
		events = append(events, event(now, *i, fleet.EventDrift, fmt.Sprintf("put back %d objects: %s", len(fixed), some(fixed))))
	}
	if len(left) > 0 && (was != i.Drifted || i.DriftMessage != w.rec.Installation.DriftMessage) {
		w.log.Warn("drift is left as it is", "objects", left)
		events = append(events, event(now, *i, fleet.EventDrift, fmt.Sprintf("%d objects are left as others have them: %s", len(left), some(left))))
	}
	if len(events) == 0 && was == i.Drifted {
		return nil
	}
	return w.record(rec, events...)
}

// restoreAgain: a return that failed is tried again as long as nothing newer comes, so that the
// cluster does not stay between two releases (law 7).
func (w *worker) restoreAgain(ctx context.Context) result {
	again := w.restore
	if w.state.Walk.Led && !w.state.Touched {
		again = w.abort
	}
	e, err := again(ctx)
	if ctx.Err() != nil {
		return result{}
	}
	if err == nil && e.Kind == delivery.Refuse {
		err = errors.New(e.Reason)
	}
	if err != nil {
		w.log.Error("the previous release could not be put back whole; this is tried again", logging.Error, err)
		return result{after: w.intervals().RetryMax}
	}
	if err := w.feed(e); err != nil {
		return w.journalTrouble(err)
	}
	return result{after: w.intervals().Settle}
}
