package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/apply"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/delivery"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/journal"
)

// ledger is what the journal keeps as a record's inventory: everything of ours that may be on the
// cluster, and what the delivery under way was rendered for.
type ledger struct {
	apply.Inventory
	Plan plan `json:"plan"`
	// Mixed: objects of an unfinished or failed attempt may be among the running release's.
	Mixed bool `json:"mixed,omitempty"`
	// Keep are definitions that stayed in a newer form when the cluster went back.
	Keep []string `json:"keep,omitempty"`
	// Hooks are the objects that were made for the delivery under way, or the last one, as apply.Item names them.
	Hooks map[string]hookRun `json:"hooks,omitempty"`
}

// plan is what, beside the bundle, a rendered set depends on.
type plan struct {
	Variant   string       `json:"variant"`
	Namespace string       `json:"namespace"`
	Overlay   fleet.Digest `json:"overlay"`
	Bounds    fleet.Digest `json:"bounds,omitempty"` // of what it may hold; what runs stays when they change
}

// take makes rec the worker's record.
func (w *worker) take(rec journal.Record) error {
	w.ledger = ledger{}
	if len(rec.Inventory) > 0 {
		if err := json.Unmarshal(rec.Inventory, &w.ledger); err != nil {
			return fmt.Errorf("read the journal's inventory of %s: %w", rec.Distribution, err)
		}
	}
	var err error
	if w.told, err = remembered(rec.Told); err != nil {
		return fmt.Errorf("read what the vendor of %s told: %w", rec.Distribution, err)
	}
	w.rec = rec
	i := rec.Installation
	w.state = delivery.State{Phase: i.Phase, Target: i.Target, Reason: i.Reason, Since: i.PhaseSince, Previous: w.canReturn(), Declined: i.Declined}
	if rec.Delivery != nil {
		d := rec.Delivery
		if w.state.Walk, err = decodeWalk(d); err != nil {
			return fmt.Errorf("read the journal's record of the canary of %s: %w", rec.Distribution, err)
		}
		w.state.Touched = d.Touched
		w.state.Deadline, w.state.Restarts, w.state.ByHand, w.state.Proof, w.state.Applied = d.Deadline, d.Restarts, d.ByHand, delivery.Proof(d.Proof), d.Applied
	}
	w.learn()
	w.publish()
	return nil
}

// canReturn: a rendered set is there that ran here whole.
func (w *worker) canReturn() bool {
	return w.rec.Installation.Running != "" && len(w.rec.Manifest) > 0
}

// knows also keeps the sink from forgetting.
func (w *worker) knows(rendered, o fleet.Digest) bool {
	s := w.a.cfg.Private
	set, wrote := s.Knows("set "+string(rendered)), o == "" || s.Knows("overlay "+string(o))
	s.Knows("decrypted " + string(o))
	return set && wrote
}

// learn tells the sink what is in confidence of what runs and of what is delivered.
func (w *worker) learn() {
	i := w.rec.Installation
	known := map[fleet.Digest]bool{}
	tell := func(set []byte, rendered, release, o fleet.Digest) {
		if len(set) == 0 || known[rendered] || w.knows(rendered, o) {
			return
		}
		known[rendered] = true
		if objs, err := w.a.parse(w.name, set); err == nil {
			w.a.learnSet(w.name, objs, rendered, release, o)
		}
	}
	tell(w.rec.Manifest, i.Rendered, i.Bundle, i.Overlay)
	if d := w.rec.Delivery; d != nil {
		tell(d.Manifest, d.Rendered, d.Bundle, d.Overlay)
	}
}

func (w *worker) publish() {
	i := clean(w.a.cfg.Private, w.rec.Installation)
	w.seen.Store(&i)
	w.book.Store(&notes{rec: w.rec, inventory: w.ledger.Inventory})
}

// feed takes an event through the machine and records what comes of it, in one transaction with the
// events that the hub will get: those given, and its own. On an error nothing has happened.
func (w *worker) feed(e delivery.Event, said ...fleet.Event) error {
	now := time.Now()
	e.Reason = oneLine(w.a.cfg.Private.Text(e.Reason))
	n, effects := delivery.Next(now, w.state, e)
	if slices.Contains(effects, delivery.Unexpected) {
		w.log.Warn("an event has no meaning in this phase; nothing changed", "event", string(e.Kind), logging.Phase, string(w.state.Phase))
		return nil
	}
	old, before, running := w.state, w.ledger, w.rec.Installation.Running
	rec := w.rec
	for _, effect := range effects {
		switch effect {
		case delivery.Promote:
			w.promote(&rec)
		case delivery.Hold:
			w.hold(&rec, e, old, n)
		}
	}
	if n.Phase == fleet.Promoting || n.Phase == fleet.Progressing && n.Walk.Hooks {
		w.ledger.Mixed = true
	}
	if n.Phase == fleet.RolledBack {
		w.ledger.Mixed = false
	}
	i := &rec.Installation
	i.Phase, i.Target, i.Reason, i.PhaseSince, i.Declined = n.Phase, n.Target, n.Reason, n.Since, n.Declined
	i.Canary = w.shown(i.Canary, e, n)
	rec.Delivery = attempt(rec.Delivery, e, n)
	for k := range said { // it was said of what has become of the subscription by now
		after := rec.Installation
		said[k].Installation = &after
	}
	news := append(said, w.news(now, e, old, n, rec)...)
	if n.Phase == old.Phase && n.Target == old.Target && n.Deadline.Equal(old.Deadline) && n.Walk == old.Walk && slices.Contains([]delivery.Kind{delivery.Observed, delivery.Waiting}, e.Kind) && len(news) == 0 {
		w.rec = rec // it goes on as recorded
		w.publish()
	} else if err := w.record(rec, news...); err != nil {
		w.ledger = before
		return err
	}
	w.state = n
	w.state.Previous = w.state.Previous && w.canReturn()
	w.tell(old, n)
	w.next(e, old, effects, now)
	w.proclaim(e, old, n, running)
	if old.Touching() && !n.Touching() || e.Kind == delivery.Restart {
		w.follow()
		w.watch.drift = now.Add(w.intervals().Drift)
		if n.Phase == fleet.RollbackFailed {
			w.watch.drift = now.Add(w.intervals().RetryMax) // what is between two releases does not stay there for so long
		}
	}
	return nil
}

// tell logs a phase, and what it waits for when that is another thing than before.
func (w *worker) tell(old, n delivery.State) {
	if n.Phase == old.Phase && (n.Reason == "" || n.Reason == old.Reason || underWay(n.Phase) || n.Touching()) {
		return
	}
	level, attrs := slog.LevelInfo, []any{logging.Phase, string(n.Phase), logging.Version, n.Target}
	switch {
	case n.Phase == fleet.RollbackFailed:
		level = slog.LevelError
	case n.Phase.Failed(), n.Phase == fleet.AwaitingConfig, n.Phase == fleet.RollingBack:
		level = slog.LevelWarn
	}
	if n.Reason != "" {
		attrs = append(attrs, logging.Reason, n.Reason)
	}
	w.log.Log(context.Background(), level, "phase changed", attrs...)
}

// next sets what is to be done. An effect that was delayed stays to be done, unless the delay changed
// the phase.
func (w *worker) next(e delivery.Event, old delivery.State, effects []delivery.Effect, now time.Time) {
	same := w.state.Phase == old.Phase && w.state.Walk.Stage == old.Walk.Stage && w.state.Walk.Asked == old.Walk.Asked
	if same && len(effects) == 0 && slices.Contains([]delivery.Kind{delivery.Delayed, delivery.Pause, delivery.Resume}, e.Kind) {
		return
	}
	w.wait = backoff{}
	w.todo = slices.DeleteFunc(slices.Clone(effects), func(e delivery.Effect) bool {
		return e == delivery.Promote || e == delivery.Hold // done with the record
	})
	switch i := w.intervals(); {
	case w.state.Applied:
		w.wait.until = now.Add(i.Health) // it may be long until somebody answers
	case slices.Contains(w.todo, delivery.Test) && e.Kind == delivery.Tested:
		w.wait.until = now.Add(i.RetryMax)
	case slices.Contains(w.todo, delivery.Watch) && e.Kind != delivery.Tested, slices.Contains(w.todo, delivery.Test) && w.exam != nil:
		w.wait.until = now.Add(i.Settle)
	case e.Kind == delivery.Waiting && w.state.Walk.Follows() && w.state.Forward():
		w.wait.until = now.Add(3 * i.Settle) // it is others' business, and takes minutes
	case e.Kind == delivery.Waiting:
		w.wait.until = now.Add(min(i.Settle, time.Second))
	case e.Kind == delivery.Tried && slices.Contains(w.todo, delivery.Try):
		w.wait.until = now.Add(i.RetryMax)
	}
	if !same {
		w.endExam()
	}
	if w.state.Phase != fleet.Testing && w.state.Phase != fleet.Progressing {
		w.tries, w.unsure, w.toldTests = 0, "", nil
	}
	if w.state.Phase != old.Phase {
		w.watch.last = now
	}
	if w.state.Phase.Terminal() && !old.Phase.Terminal() {
		w.release()
	}
}

// attempt is the record's attempt after an event. The set of one that is over is kept only where the
// cluster may still come to run it.
func attempt(was *journal.Attempt, e delivery.Event, n delivery.State) *journal.Attempt {
	if was == nil || e.Kind == delivery.Content {
		return nil
	}
	d := *was
	d.Phase, d.Deadline, d.Restarts, d.ByHand, d.Proof, d.Applied = n.Phase, n.Deadline, n.Restarts, n.ByHand, string(n.Proof), n.Applied
	d.Walk, d.Touched = encodeWalk(n.Walk), n.Touched
	if n.Phase.Terminal() && n.Phase != fleet.RollbackFailed {
		d.Manifest, d.Course, d.Counted = nil, nil, nil
	}
	return &d
}

const patter = 5 * time.Second // least time between events that only say how a phase goes on

// news is the event for the hub, if this is any.
func (w *worker) news(now time.Time, e delivery.Event, old, n delivery.State, rec journal.Record) []fleet.Event {
	if n.Phase == old.Phase && n.Target == old.Target && e.Kind != delivery.Start {
		if n.Reason == old.Reason || e.Kind != delivery.Led && (underWay(n.Phase) || n.Touching()) && (n.Reason == "" || now.Sub(w.watch.told) < patter) {
			return nil
		}
	}
	w.watch.told = now
	kind := fleet.EventPhase
	if e.Kind == delivery.Misconfigured || e.Kind == delivery.Content && n.Reason != "" {
		kind = fleet.EventDeclined
	}
	return []fleet.Event{event(now, rec.Installation, kind, story(n, rec))}
}

// record writes the journal and makes it the worker's state.
func (w *worker) record(rec journal.Record, events ...fleet.Event) error {
	inventory, err := json.Marshal(w.ledger)
	if err != nil {
		return fmt.Errorf("encode the inventory of %s: %w", w.name, err)
	}
	rec.Inventory = inventory
	if err := w.a.cfg.Memory.PutRecord(rec, events...); err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	w.rec, w.known = rec, true
	w.publish()
	return nil
}

// promote makes the attempt what runs.
func (w *worker) promote(rec *journal.Record) {
	i, d := &rec.Installation, rec.Delivery
	if len(rec.Manifest) > 0 && i.Running != "" && (i.Running != d.Target || i.Rendered != d.Rendered) {
		was := journal.Release{Version: i.Running, Variant: i.Variant, Namespace: i.Namespace, Bundle: i.Bundle, Overlay: i.Overlay, Rendered: i.Rendered, Manifest: rec.Manifest, SignedBy: i.SignedBy}
		rec.Previous = slices.Concat([]journal.Release{was}, rec.Previous)
		rec.Previous = rec.Previous[:min(len(rec.Previous), journal.KeepPrevious)]
	}
	rec.Manifest = d.Manifest
	rec.Floor = w.floor(*rec)
	i.SignedBy = d.SignedBy
	i.Running, i.Bundle, i.Overlay, i.Rendered = d.Target, d.Bundle, d.Overlay, d.Rendered
	i.Variant, i.Namespace = w.ledger.Plan.Variant, w.ledger.Plan.Namespace
	i.DriftCorrected, i.Drifted, i.DriftMessage = 0, 0, ""
	rec.Held = maps.Clone(rec.Held)
	maps.DeleteFunc(rec.Held, func(v string, _ journal.Hold) bool { return fleet.CompareTags(v, d.Target) <= 0 })
	w.ledger.Version, w.ledger.Bundle, w.ledger.Overlay, w.ledger.Rendered = d.Target, d.Bundle, d.Overlay, d.Rendered
	w.ledger.Mixed, w.ledger.Keep = false, nil
	w.ledger.Inventory = w.ledger.Settled()
}

// floor is the floor once a delivery's release is what runs: it rises, and sinks where the provider agreed to
// leave what runs for something older. A pin of the provider's own goes below it and leaves it where it is.
func (w *worker) floor(rec journal.Record) string {
	i, to := rec.Installation, rec.Delivery.Target
	was := cmp.Or(rec.Floor, i.Running)
	if pin := i.Policy.Pin; fleet.CompareTags(to, was) < 0 && pin != nil && pin.Source != fleet.PinHub && pin.Version == to {
		return was
	}
	return to
}

// hold keeps the attempt from being made again as it was (law 8). What a dry run refused has touched
// nothing, and the provider may mend the cluster, so that one is tried again after a while.
func (w *worker) hold(rec *journal.Record, e delivery.Event, old, n delivery.State) {
	rec.Held = maps.Clone(rec.Held)
	if rec.Held == nil {
		rec.Held = map[string]journal.Hold{}
	}
	h := journal.Hold{Overlay: w.ledger.Plan.recipe(), Reason: n.Reason, At: n.Since}
	switch {
	case n.ByHand, wasLeft(n, *rec):
		h.Overlay = ""
	case e.Kind == delivery.Reject, e.Kind == delivery.Expired:
	case e.Kind == delivery.Delayed && underWay(old.Phase):
		h.Until = n.Since.Add(w.intervals().RetryMax)
	case old.Phase == fleet.Checking:
		h.Until = n.Since.Add(w.intervals().Refused)
	case old.Touching(): // it failed, and other bounds make it no better
		h.Overlay = w.ledger.Plan.content()
	}
	rec.Held[n.Target] = h
}

// event is about an installation as it is after it.
func event(now time.Time, i fleet.Installation, kind fleet.EventKind, message string) fleet.Event {
	version := i.Target
	if version == "" || (kind != fleet.EventPhase && kind != fleet.EventDeclined) {
		version = i.Running
	}
	return fleet.Event{At: now, Distribution: i.Distribution, Version: version, Kind: kind, Message: oneLine(message), Installation: &i}
}

// wasLeft: the delivery's release did not fail; it was left, by hand or since it was withdrawn.
func wasLeft(n delivery.State, rec journal.Record) bool {
	h, held := rec.Held[n.Target]
	return n.ByHand || held && h.Overlay == "" && h.Until.IsZero()
}

// story tells a phase in one line.
func story(n delivery.State, rec journal.Record) string {
	i, left := rec.Installation, wasLeft(n, rec)
	because := ""
	if n.Reason != "" {
		because = ": " + n.Reason
	}
	switch n.Phase {
	case fleet.Succeeded:
		return fmt.Sprintf("%s runs, %d objects%s", i.Running, i.Objects, because)
	case fleet.Refused:
		return fmt.Sprintf("%s is refused, nothing was applied%s", n.Target, because)
	case fleet.AwaitingWindow:
		return fmt.Sprintf("%s waits for its window%s", n.Target, because)
	case fleet.AwaitingApproval:
		return fmt.Sprintf("%s waits for its provider%s", n.Target, because)
	case fleet.RollingBack:
		if i.Running == "" {
			return fmt.Sprintf("%s was cut off half-way, what it made is taken away%s", n.Target, because)
		}
		if left {
			return fmt.Sprintf("going back from %s to %s%s", n.Target, i.Running, because)
		}
		return fmt.Sprintf("%s failed, going back to %s%s", n.Target, i.Running, because)
	case fleet.RolledBack:
		if i.Running == "" {
			return fmt.Sprintf("%s was cut off half-way, nothing of it is left%s", n.Target, because)
		}
		if left {
			return fmt.Sprintf("%s runs again, whole, and %s is held%s", i.Running, n.Target, because)
		}
		return fmt.Sprintf("%s failed, %s runs again, whole%s", n.Target, i.Running, because)
	case fleet.RollbackFailed:
		if i.Running == "" {
			return fmt.Sprintf("%s failed and nothing ran before it; its objects stay%s", n.Target, because)
		}
		return fmt.Sprintf("%s failed and the return to %s did not work%s", n.Target, i.Running, because)
	case fleet.PhaseNone:
		return "nothing runs" + because
	}
	return strings.TrimSpace(fmt.Sprintf("%s %s", n.Phase, n.Target)) + because
}
