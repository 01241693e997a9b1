package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/apply"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/delivery"
)

// watching is when was looked, and will be.
type watching struct {
	last   time.Time // the last try of an effect
	told   time.Time // the last event about a phase
	health time.Time // next look at what runs
	drift  time.Time // next look for drift
	said   time.Time // the last event about health
	blind  int       // looks in a row that failed
}

const remind = 30 * time.Second // between events about health that is not well and changes in detail only

// watchHealth looks at what runs, between deliveries.
func (w *worker) watchHealth(ctx context.Context, _ input) result {
	lost := w.state.Phase == fleet.RollbackFailed
	if w.state.Phase.Touching() || (w.rec.Installation.Running == "" && !lost) || len(w.ledger.Items) == 0 {
		return result{}
	}
	now := time.Now()
	if left := w.watch.health.Sub(now); left > 0 {
		return result{after: left}
	}
	every := w.intervals().Health
	w.watch.health = now.Add(every)
	before := w.rec.Installation
	report, err := w.a.cfg.Observe.Health(ctx, w.ledger.Current())
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
	w.noteHealth(report)
	w.publish()
	if err := w.sayHealth(now, before); err != nil {
		return w.journalTrouble(err)
	}
	if lost && err == nil {
		if err := w.feed(delivery.Event{Kind: delivery.Observed, Health: report.Health, Reason: report.Message}); err != nil {
			return w.journalTrouble(err)
		}
		if w.state.Phase.Touching() {
			return result{after: time.Millisecond}
		}
	}
	return result{after: every}
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

// correctDrift puts back what others changed or deleted of what runs.
func (w *worker) correctDrift(ctx context.Context, in input) result {
	if w.state.Phase.Touching() || !w.canReturn() || ctx.Err() != nil {
		return result{}
	}
	now := time.Now()
	if w.watch.drift.IsZero() {
		w.watch.drift = now.Add(in.sub.DriftInterval)
	}
	if left := w.watch.drift.Sub(now); left > 0 {
		return result{after: min(left, in.sub.DriftInterval)}
	}
	w.watch.drift = now.Add(in.sub.DriftInterval)
	if w.state.Phase == fleet.RollbackFailed && !w.state.Restored {
		return w.restoreAgain(ctx)
	}
	set, err := w.runningSet()
	if err != nil {
		w.log.Error("drift cannot be looked for", logging.Error, err)
		return result{after: in.sub.DriftInterval}
	}
	inv, change, err := w.a.cfg.Apply.Drift(ctx, set, w.ledger.Current())
	if ctx.Err() != nil {
		return result{}
	}
	if err != nil {
		w.log.Warn("drift was not corrected, or not all of it", logging.Error, err)
	}
	if len(inv.Items) > 0 {
		w.ledger.Inventory = merged(inv, w.ledger.Inventory)
	}
	if err := w.sayDrift(now, slices.Concat(change.Created, change.Changed)); err != nil {
		return w.journalTrouble(err)
	}
	return result{after: in.sub.DriftInterval}
}

func (w *worker) sayDrift(now time.Time, objects []string) error {
	if len(objects) == 0 {
		return nil
	}
	rec := w.rec
	rec.Installation.DriftCorrected += len(objects)
	w.log.Info("drift corrected", "objects", objects)
	return w.record(rec, event(now, rec.Installation, fleet.EventDrift, fmt.Sprintf("put back %d objects: %s", len(objects), some(objects))))
}

// restoreAgain: a return that failed is tried again as long as nothing newer comes, so that the
// cluster does not stay between two releases (law 7).
func (w *worker) restoreAgain(ctx context.Context) result {
	e, err := w.restore(ctx)
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
