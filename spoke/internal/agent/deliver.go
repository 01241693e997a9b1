package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/bundle"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
	"github.com/wheelwright-dev/wheelwright/pkg/render"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/apply"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/config"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/delivery"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/overlay"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/verify"
)

// scratch is what a delivery needs in memory only.
type scratch struct {
	bundle *bundle.Bundle
	unsure bool   // nobody saw the end of the last write to the cluster
	stuck  string // what was said last of a StatefulSet that waits
}

// resume takes up what a killed spoke left, once.
func (w *worker) resume(_ context.Context, in input) result {
	w.state.Timeout, w.state.Grace, w.state.Patience = in.sub.HealthTimeout, w.intervals().Grace, in.sub.ApprovalTimeout
	w.state.Tests, w.state.Retry, w.state.Proving = len(w.testers()) > 0, in.sub.Tests.Retry, cmp.Or(in.sub.Tests.Timeout, config.DefaultTestsTimeout)
	w.prepareWalk(in)
	w.repository = in.offers.GetUrl()
	if w.resumed {
		return result{}
	}
	was := w.state
	if err := w.feed(delivery.Event{Kind: delivery.Restart}); err != nil {
		return w.journalTrouble(err)
	}
	w.work.unsure, w.watch.last = was.Touching() || w.ledger.Mixed, time.Now()
	text := "spoke " + w.a.cfg.Version + " started"
	if was.Touching() {
		text += fmt.Sprintf("; goes on with %s, which it was killed in while %s", w.state.Target, was.Phase)
	}
	if err := w.record(w.rec, event(time.Now(), w.rec.Installation, fleet.EventAgent, text)); err != nil {
		return w.journalTrouble(err)
	}
	w.resumed = true
	return result{}
}

// finish brings a release that is half on the cluster to one end or the other before anything else.
func (w *worker) finish(ctx context.Context, in input) result {
	if !w.state.Touching() {
		return result{}
	}
	if !w.state.Applied && !w.state.Walk.Asked {
		return w.carry(ctx, in)
	}
	// The steps beyond are not reached while its provider is asked about what is on the cluster, or at a gate
	// of the canary.
	if r := w.decide(ctx, in); r.stop {
		return r
	}
	r, due := w.carry(ctx, in), w.expire(ctx, in)
	if due.after > 0 && (r.after == 0 || due.after < r.after) {
		r.after = due.after
	}
	return r
}

// deliver goes on with what was chosen.
func (w *worker) deliver(ctx context.Context, in input) result { return w.carry(ctx, in) }

// carry carries out effects until one has to wait.
func (w *worker) carry(ctx context.Context, in input) result {
	for len(w.todo) > 0 {
		tested := w.exam != nil && w.exam.isOver() && slices.Contains([]delivery.Effect{delivery.Test, delivery.Try}, w.todo[0])
		if left := w.wait.left(time.Now()); left > 0 && !tested {
			return result{after: left, stop: w.state.Touching()}
		}
		e, err := w.do(ctx, in, w.todo[0])
		if ctx.Err() != nil {
			return result{stop: true}
		}
		if errors.Is(err, errGoesOn) {
			w.wait.until = time.Now().Add(w.intervals().Settle)
			continue
		}
		if err != nil {
			e = w.delayed(err)
		} else {
			w.wait.tries = 0
		}
		if err := w.feed(e); err != nil {
			return w.journalTrouble(err)
		}
	}
	return result{stop: w.state.Touching()}
}

// delayed makes the event of trouble that will heal, and the wait for it.
func (w *worker) delayed(err error) delivery.Event {
	now := time.Now()
	e := delivery.Event{Kind: delivery.Delayed, Reason: err.Error()}
	if errors.Is(err, apply.ErrUnreachable) {
		e.Lost = now.Sub(w.watch.last)
	}
	w.watch.last = now
	w.log.Warn("this step will be tried again", logging.Phase, string(w.state.Phase), logging.Version, w.state.Target, "step", string(w.todo[0]), logging.Error, err)
	w.wait.failed(now, w.intervals())
	return e
}

// journalTrouble: nothing goes on without the journal (law 9).
func (w *worker) journalTrouble(err error) result {
	w.log.Error("the journal cannot be written; nothing is begun until it can", logging.Error, err)
	return result{after: w.intervals().RetryMax, stop: true}
}

// do carries out one effect. An error means: not now, try again.
func (w *worker) do(ctx context.Context, in input, effect delivery.Effect) (delivery.Event, error) {
	switch effect {
	case delivery.Fetch:
		return w.fetch(ctx)
	case delivery.Verify:
		return w.verify()
	case delivery.Render:
		return w.render(ctx, in)
	case delivery.Check:
		return w.check(ctx)
	case delivery.Apply:
		return w.apply(ctx)
	case delivery.Watch:
		return w.watchOver(ctx)
	case delivery.Test:
		return w.test(ctx)
	case delivery.Try:
		return w.tryStage(ctx)
	case delivery.Lead:
		return w.lead(ctx)
	case delivery.Measure:
		return w.measure(ctx)
	case delivery.Conclude:
		return w.conclude(ctx)
	case delivery.Abort:
		return w.abort(ctx)
	case delivery.Prune:
		return w.prune(ctx, delivery.Pruned)
	case delivery.Restore:
		return w.restore(ctx)
	case delivery.Undo:
		return w.undo(ctx)
	}
	return delivery.Event{}, fmt.Errorf("effect %q: the agent does not know it", effect)
}

func refuse(format string, args ...any) (delivery.Event, error) {
	return delivery.Event{Kind: delivery.Refuse, Reason: fmt.Errorf(format, args...).Error()}, nil
}

func (w *worker) fetch(ctx context.Context) (delivery.Event, error) {
	d := w.rec.Delivery.Bundle
	if _, err := fleet.ParseDigest(string(d)); err != nil {
		return refuse("the offer of %s: %w", w.state.Target, err)
	}
	if err := w.a.obtain(ctx, d); err != nil {
		return delivery.Event{}, err
	}
	return delivery.Event{Kind: delivery.Fetched}, nil
}

// obtain brings a bundle into the cache.
func (a *Agent) obtain(ctx context.Context, d fleet.Digest) error {
	_, err := a.cache.get(d)
	if err == nil {
		return nil
	}
	if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, errDamaged) {
		return err
	}
	tar, err := a.cfg.Fetch(ctx, d)
	if err != nil {
		return fmt.Errorf("fetch bundle %s from the hub: %w", d.Short(), err)
	}
	if bundle.DigestOf(tar) != d {
		return fmt.Errorf("fetch bundle %s from the hub: what came is another", d.Short())
	}
	return a.cache.put(d, tar)
}

// openVerified reads a bundle from the cache and has everything about it checked that can be: see package verify.
func (a *Agent) openVerified(sub config.Subscription, d fleet.Digest, version string) (*bundle.Bundle, provenance.Signed, error) {
	tar, err := a.cache.get(d)
	if err != nil {
		return nil, provenance.Signed{}, err
	}
	return verify.Bundle(tar, sub.Distribution, version, sub.Signers, time.Now())
}

func unproven(err error) bool { return errors.Is(err, verify.ErrUnproven) }

func (w *worker) verify() (delivery.Event, error) {
	b, signed, err := w.a.openVerified(w.sub, w.rec.Delivery.Bundle, w.state.Target)
	switch {
	case unproven(err):
		return refuse("%w", err)
	case err != nil:
		return delivery.Event{}, err
	}
	w.rec.First = withFirst(w.rec.First, w.state.Target, w.rec.Delivery.Bundle)
	if err := w.saySigned(signed); err != nil {
		return delivery.Event{}, err
	}
	w.work.bundle = b
	return delivery.Event{Kind: delivery.Verified}, nil
}

// saySigned tells who signed the release.
func (w *worker) saySigned(s provenance.Signed) error {
	if w.sub.Signers.None() {
		w.log.Warn("whose release it is was not checked: spoke.yaml names no signers", logging.Version, w.state.Target)
		return nil
	}
	var by []string
	for _, one := range s.By {
		by = append(by, oneLine(one.String()))
	}
	d := *w.rec.Delivery
	d.SignedBy, w.rec.Delivery = by, &d
	text := oneLine(fmt.Sprintf("%s is signed by %s", w.state.Target, strings.Join(by, ", ")))
	w.log.Info("the signature holds", logging.Version, w.state.Target, "by", by, "commit", s.Commit)
	return w.record(w.rec, event(time.Now(), w.rec.Installation, fleet.EventAgent, text))
}

func (w *worker) render(ctx context.Context, in input) (delivery.Event, error) {
	d := w.rec.Delivery
	res, err := w.a.lay(ctx, in, w.work.bundle, d.Target, w.saw.now, w.ledger.Plan, w.past())
	if err != nil {
		if errors.Is(err, errEncrypted) {
			return delivery.Event{Kind: delivery.Unrenderable, Reason: err.Error()}, nil
		}
		if !builds(err) {
			return delivery.Event{}, err
		}
		if err := w.sayTrial(w.ledger.Plan.recipe(), breaks(d.Target, d.Bundle, d.Overlay, err.Error())); err != nil {
			return delivery.Event{}, err
		}
		if !in.sub.Overlay.None() && d.Overlay != w.rec.Installation.Overlay {
			return delivery.Event{Kind: delivery.Unrenderable, Reason: err.Error()}, nil
		}
		return refuse("%w", err)
	}
	if o := w.saw.now; o.Digest == d.Overlay && d.Overlay != "" {
		if err := w.a.cache.putOverlay(o); err != nil {
			return delivery.Event{}, err
		}
	}
	n := *d
	n.Manifest, n.Rendered = res.Manifest, res.Digest
	if n.Course, err = w.courseOf(res.course); err != nil {
		return delivery.Event{}, err
	}
	w.rec.Delivery = &n
	i := w.rec.Installation
	if res.Digest == i.Rendered && i.Running != "" && w.ledger.Plan.Namespace == i.Namespace && !w.ledger.Mixed {
		return delivery.Event{Kind: delivery.Unchanged}, nil
	}
	return delivery.Event{Kind: delivery.Rendered}, nil
}

// lay renders the overlay over a bundle.
func (a *Agent) lay(ctx context.Context, in input, b *bundle.Bundle, version string, o overlay.Overlay, p plan, was past) (laid, error) {
	defer a.worked()
	s := render.Source{
		Name: in.sub.Distribution, Version: version, Bundle: b.Files(), URLs: in.urls(), BundlePath: in.offers.GetPath(),
		Variant: p.Variant, Namespace: p.Namespace,
	}
	if !in.sub.Overlay.None() {
		files, hidden, err := decrypted(in.sub.Decryption, o.Files)
		if err != nil {
			return laid{}, err
		}
		a.cfg.Private.Know("decrypted "+string(o.Digest), hidden)
		a.learnOverlay(o.Digest, files, b.Files())
		s.Overlay, s.OverlayPath = files, o.Path
	}
	res, err := a.cfg.Renderer.Render(ctx, s)
	if err != nil {
		return laid{}, fmt.Errorf("render %s: %w", version, err)
	}
	if res.Objects == 0 {
		return laid{}, &render.BuildError{Problems: []string{fmt.Sprintf("render %s: the set is empty", version)}}
	}
	return a.planned(ctx, in, p, version, was, res, b.Files())
}

// release lets go of what a delivery needed.
func (w *worker) release() {
	w.work.bundle = nil
	if err := w.a.sweep(); err != nil {
		w.log.Warn("the bundle cache was not tidied", logging.Error, err)
	}
	w.a.worked()
}

// sweep keeps the bundles that run, are being delivered, or can be returned to.
func (a *Agent) sweep() error {
	records, err := a.cfg.Memory.Records()
	if err != nil {
		return err
	}
	needed, overlays := map[fleet.Digest]bool{}, map[fleet.Digest]bool{}
	for _, r := range records {
		needed[r.Installation.Bundle], overlays[r.Installation.Overlay] = true, true
		if r.Delivery != nil {
			needed[r.Delivery.Bundle], overlays[r.Delivery.Overlay] = true, true
		}
		for _, p := range r.Previous {
			needed[p.Bundle], overlays[p.Overlay] = true, true
		}
	}
	return errors.Join(a.cache.sweep(".tar", needed), a.cache.sweep(".overlay", overlays))
}
