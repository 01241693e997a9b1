package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/delivery"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/journal"
)

// word is what a person wants of a worker now. It is carried out on the worker's goroutine.
type word struct {
	do   func(*worker, input) error
	done chan error
}

// order interrupts what the worker is doing and carries f out; what was interrupted is taken up again
// afterwards, if it is still to be done.
func (a *Agent) order(ctx context.Context, distribution string, f func(*worker, input) error) error {
	w, err := a.worker(distribution)
	if err != nil {
		return err
	}
	o := word{do: f, done: make(chan error, 1)}
	w.box.mu.Lock()
	w.box.orders = append(w.box.orders, o)
	interrupt := w.box.interrupt
	w.box.mu.Unlock()
	if interrupt != nil {
		interrupt()
	}
	w.box.poke()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-w.ended:
		return fmt.Errorf("distribution %q: %w any more", distribution, ErrNotSubscribed)
	case err := <-o.done:
		return err
	}
}

// worker finds a subscription's.
func (a *Agent) worker(distribution string) (*worker, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w := a.workers[distribution]; w != nil {
		return w, nil
	}
	names := slices.Sorted(maps.Keys(a.workers))
	return nil, fmt.Errorf("distribution %q: %w; subscriptions there: %v", distribution, ErrNotSubscribed, names)
}

// obey carries out what was ordered.
func (w *worker) obey(_ context.Context, in input) result {
	w.box.mu.Lock()
	orders := w.box.orders
	w.box.orders = nil
	w.box.mu.Unlock()
	for _, o := range orders {
		if !w.resumed || !w.known && !w.asked {
			o.done <- fmt.Errorf("%s: the spoke has just started and cannot see its cluster yet; try again, spoke status says why", w.name)
			continue
		}
		o.done <- o.do(w, in)
	}
	return result{}
}

// Approve lets a delivery go on that waits for its provider, or takes a held release up again.
func (a *Agent) Approve(ctx context.Context, distribution, version string) (approved string, err error) {
	err = a.order(ctx, distribution, func(w *worker, in input) error {
		approved, err = w.approve(in, version, everything)
		return err
	})
	return approved, err
}

// approve records what was said, if anything, beside what comes of it. Of what was asked about a release that is
// held, answers says which it answers.
func (w *worker) approve(in input, version string, answers func(ask string) bool, said ...fleet.Event) (string, error) {
	waits := w.state.Phase == fleet.AwaitingApproval
	if v := cmp.Or(version, w.state.Target); version != "" || waits {
		if err := w.mayTake(in, v); err != nil {
			return "", err
		}
	}
	if waits && (version == "" || version == w.state.Target) {
		before := w.rec
		d := *w.rec.Delivery
		d.Approved = d.Asks
		w.rec.Delivery = &d
		w.log.Info("the provider approves", logging.Version, d.Target, "asks", d.Asks)
		if err := w.feed(delivery.Event{Kind: delivery.Approve}, said...); err != nil {
			w.rec = before
			return "", err
		}
		return d.Target, nil
	}
	if version == "" {
		held := w.heldNow()
		switch {
		case len(held) == 0:
			return "", fmt.Errorf("%s: %w; spoke status %s says what runs", w.name, fleet.ErrNothingWaits, w.name)
		case len(held) > 1:
			return "", fmt.Errorf("%s: %d releases are held: name one of %v", w.name, len(held), held)
		}
		if version = held[0]; w.mayTake(in, version) != nil {
			return "", w.mayTake(in, version)
		}
	}
	h, ok := w.rec.Held[version]
	if !ok {
		return "", fmt.Errorf("%s %s: %w: it is neither waiting nor held; spoke status %s says what is", w.name, version, fleet.ErrNothingWaits, w.name)
	}
	rec := w.rec
	rec.Held = without(rec.Held, version)
	if floor := cmp.Or(rec.Floor, rec.Installation.Running); fleet.CompareTags(version, floor) < 0 {
		rec.Floor = version // by name, its provider wants it
	}
	if d := rec.Delivery; d != nil && d.Target == version { // what was asked is answered with it
		n := *d
		n.Approved = answered(n, answers)
		rec.Delivery = &n
	}
	w.log.Info("the provider takes a held release up again", logging.Version, version, logging.Reason, h.Reason)
	said = append(said, event(time.Now(), rec.Installation, fleet.EventAgent, "a person takes up again what was held: "+version))
	if err := w.record(rec, said...); err != nil {
		return "", err
	}
	return version, nil
}

// mayTake refuses what was withdrawn: an approval would change nothing.
func (w *worker) mayTake(in input, version string) error {
	why := in.withdrawal(version)
	if why == "" {
		return nil
	}
	return fmt.Errorf("%s %s: %w: it is not to be taken any more: %s; nothing has changed, and spoke status %[1]s says what runs and what is on offer", w.name, version, fleet.ErrNothingWaits, why)
}

// heldNow are the versions that are held and that no retry will take up by itself.
func (w *worker) heldNow() (held []string) {
	for v, h := range w.rec.Held {
		if h.Until.IsZero() {
			held = append(held, v)
		}
	}
	fleet.SortVersions(held)
	return held
}

// Reject ends a delivery that waits for its provider.
func (a *Agent) Reject(ctx context.Context, distribution, version, reason string) (rejected string, err error) {
	err = a.order(ctx, distribution, func(w *worker, _ input) error {
		if w.state.Phase != fleet.AwaitingApproval || version != "" && version != w.state.Target {
			return fmt.Errorf("%s: %w; spoke status says what does", strings.TrimSpace(w.name+" "+version), fleet.ErrNothingWaits)
		}
		rejected = w.state.Target
		return w.feed(delivery.Event{Kind: delivery.Reject, Reason: because("rejected by its provider", reason)})
	})
	return rejected, err
}

func because(what, reason string) string {
	if reason == "" {
		return what
	}
	return what + ": " + reason
}

// RollBack begins the return to an earlier release out of the journal: neither the hub nor a git host
// is asked (law 8). It answers when the return is recorded; the phase says how it goes on.
func (a *Agent) RollBack(ctx context.Context, distribution, version, reason string, dry bool) (from, to string, err error) {
	err = a.order(ctx, distribution, func(w *worker, in input) error {
		from, to, err = w.rollBack(ctx, in, version, reason, dry)
		return err
	})
	return from, to, err
}

func (w *worker) rollBack(ctx context.Context, in input, version, reason string, dry bool, said ...fleet.Event) (from, to string, err error) {
	i := w.rec.Installation
	aborts := w.canReturn() && w.state.Forward()
	if aborts && (version == "" || version == i.Running) {
		from, to = w.state.Target, i.Running
		if dry {
			return from, to, nil
		}
		return from, to, w.leaveByHand(w.rec, from, to, in, reason, said...)
	}
	if w.state.Touching() {
		return "", "", fmt.Errorf("%s is %s on the way to %s; wait until that is over: spoke status %s", w.name, w.state.Phase, w.state.Target, w.name)
	}
	if version == "" { // what was withdrawn would be left again
		n := slices.IndexFunc(w.rec.Previous, func(p journal.Release) bool { return in.withdrawal(p.Version) == "" })
		if n >= 0 {
			version = w.rec.Previous[n].Version
		}
	}
	to, rec, err := w.earlier(version)
	if err == nil {
		err = w.insideAgain(ctx, rec)
	}
	if err != nil {
		return "", "", err
	}
	if dry {
		return i.Running, to, nil
	}
	if rec.Delivery.Keep, err = w.kept(ctx, rec.Manifest); err != nil {
		return "", "", err
	}
	return i.Running, to, w.leaveByHand(rec, i.Running, to, in, reason, said...)
}

// earlier is the record as it is once an earlier release is what runs.
func (w *worker) earlier(version string) (string, journal.Record, error) {
	rec, i := w.rec, w.rec.Installation
	var have []string
	for _, p := range rec.Previous {
		have = append(have, p.Version)
	}
	n := slices.Index(have, version)
	switch {
	case len(have) == 0:
		return "", rec, fmt.Errorf("%s: %w: no earlier release ran here", w.name, fleet.ErrNothingWaits)
	case version == "":
		n = 0
	case n < 0:
		return "", rec, fmt.Errorf("%s %s: %w: kept are %v", w.name, version, fleet.ErrNothingWaits, have)
	}
	p := rec.Previous[n]
	rec.Delivery = &journal.Attempt{Target: i.Running, Bundle: i.Bundle, Overlay: i.Overlay, Rendered: i.Rendered, Started: time.Now()}
	rec.Previous = slices.Clone(rec.Previous[n+1:])
	rec.Manifest = p.Manifest
	rec.Floor = cmp.Or(rec.Floor, i.Running) // to go back by hand moves it not
	j := &rec.Installation
	j.SignedBy = p.SignedBy
	j.Running, j.Bundle, j.Overlay, j.Rendered, j.Variant, j.Namespace = p.Version, p.Bundle, p.Overlay, p.Rendered, p.Variant, p.Namespace
	j.DriftCorrected, j.Drifted, j.DriftMessage = 0, 0, ""
	return p.Version, rec, nil
}

// leaveByHand records that a person wants to be back on another release, and holds everything between the
// two: nothing takes the cluster there again by itself.
func (w *worker) leaveByHand(rec journal.Record, from, to string, in input, reason string, said ...fleet.Event) error {
	now := time.Now()
	text := because("rolled back by hand", oneLine(reason))
	rec.Held = maps.Clone(rec.Held)
	if rec.Held == nil {
		rec.Held = map[string]journal.Hold{}
	}
	recipe := w.ledger.Plan.content()
	if want, _, err := wanted(in, w.saw.now); err == nil && w.saw.good {
		recipe = want.content()
	}
	rec.Held[to] = journal.Hold{Overlay: recipe, Reason: text, At: now} // the rendered set stays, until another overlay comes
	for _, v := range append(in.versions(), from) {
		if v != to && fleet.CompareTags(v, to) > 0 && fleet.CompareTags(v, from) <= 0 {
			rec.Held[v] = journal.Hold{Reason: text, At: now}
		}
	}
	w.log.Warn("a person rolls back", logging.Version, from, "to", to, logging.Reason, reason)
	return w.leave(rec, from, text, true, said...)
}

// leave begins the return to what runs in rec.
func (w *worker) leave(rec journal.Record, from, text string, byHand bool, said ...fleet.Event) error {
	was, ledger, state := w.rec, w.ledger, w.state
	rec, follows := w.ledByOthers(rec)
	w.rec, w.ledger.Mixed = rec, true
	if err := w.feed(delivery.Event{Kind: delivery.Return, Target: from, Reason: text, ByHand: byHand, Follows: follows}, said...); err != nil {
		w.rec, w.ledger, w.state = was, ledger, state
		return err
	}
	return nil
}

// Memories is what each subscription can go back to, and what it holds.
func (a *Agent) Memories() ([]fleet.Memory, error) {
	installations, err := a.Installations()
	if err != nil {
		return nil, err
	}
	var all []fleet.Memory
	for _, i := range installations {
		rec, _, err := a.cfg.Memory.Record(i.Distribution)
		if err != nil {
			return nil, fmt.Errorf("read the journal: %w", err)
		}
		m := fleet.Memory{Distribution: i.Distribution}
		if in, _, err := a.subscribed(i.Distribution); err == nil {
			m.Withdrawn = wire.FromWithdrawals(in.offers.GetWithdrawals())
		}
		m.Told, m.First = rec.Told, rec.First
		for _, p := range rec.Previous {
			m.Previous = append(m.Previous, p.Version)
		}
		versions := slices.Collect(maps.Keys(rec.Held))
		fleet.SortVersions(versions)
		for _, v := range versions {
			if v != i.Running {
				m.Held = append(m.Held, fleet.Held{Version: v, Reason: rec.Held[v].Reason, At: rec.Held[v].At})
			}
		}
		all = append(all, m)
	}
	return all, nil
}

// expire ends a wait for a provider who does not answer.
func (w *worker) expire(_ context.Context, _ input) result {
	if w.state.Phase != fleet.AwaitingApproval || w.state.Deadline.IsZero() {
		return result{}
	}
	if left := time.Until(w.state.Deadline); left > 0 {
		return result{after: left}
	}
	if err := w.feed(delivery.Event{Kind: delivery.Expired}); err != nil {
		return w.journalTrouble(err)
	}
	return result{}
}

var errNotSeen = errors.New("it cannot be told yet what would change")
