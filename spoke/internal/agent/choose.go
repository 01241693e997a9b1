package agent

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/render"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/config"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/delivery"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/journal"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/overlay"
)

// overlayed is the provider's overlay as last seen.
type overlayed struct {
	src  Source
	from config.Overlay
	now  overlay.Overlay
	good bool // now was loaded
	bad  bool // the last look failed, and a provider has to act
	next time.Time
	seen fleet.Digest // of the last look
	said string       // of the trouble of the last look
}

// recipe is all that a rendered set depends on, beside the release.
func (p plan) recipe() fleet.Digest {
	return fleet.Digest(fmt.Sprintf("sha256:%x", sha256.Sum256(fmt.Appendf(nil, "%q %q %q", p.Overlay, p.Variant, p.Namespace))))
}

// loadOverlay looks at the provider's overlay when it is time.
func (w *worker) loadOverlay(ctx context.Context, in input) result {
	now, o := time.Now(), &w.saw
	if o.src != nil && o.from != in.sub.Overlay {
		w.closeOverlay()
	}
	if in.sub.Overlay.None() {
		*o = overlayed{good: true}
		return result{}
	}
	if o.src == nil {
		src, err := w.a.cfg.Overlay(in.sub)
		if err != nil {
			*o = overlayed{}
			return w.misconfigured(fmt.Errorf("overlay: %w", err))
		}
		*o = overlayed{src: src, from: in.sub.Overlay}
	}
	if left := o.next.Sub(now); left > 0 {
		return result{after: left, stop: !o.good || o.bad}
	}
	every := w.intervals().Overlay
	if in.sub.Overlay.Git != "" {
		every = in.sub.Overlay.Interval
	}
	o.next = now.Add(every)
	seen, err := w.look(ctx)
	if ctx.Err() != nil {
		return result{stop: true}
	}
	if err == nil {
		return w.takeOverlay(seen, in, every)
	}
	if text := err.Error(); text != o.said {
		w.log.Warn("the overlay cannot be read", logging.Error, err)
		o.said = text
	}
	if errors.Is(err, overlay.ErrUnreachable) || errors.Is(err, context.DeadlineExceeded) {
		return result{after: every, stop: !o.good}
	}
	o.bad = true
	r := w.misconfigured(err)
	r.after = every
	return r
}

// closeOverlay forgets the overlay.
func (w *worker) closeOverlay() {
	if w.saw.src != nil {
		if err := w.saw.src.Close(); err != nil {
			w.log.Warn("the overlay was not closed", logging.Error, err)
		}
	}
	w.saw = overlayed{}
	w.laid.Store(nil)
}

// look bounds how long a git host that does not answer keeps the worker from everything else.
func (w *worker) look(ctx context.Context) (overlay.Overlay, error) {
	patience := 20 * time.Second
	if !w.saw.good {
		patience = 2 * time.Minute // the first look may have to bring a whole repository
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return w.saw.src.Load(ctx)
}

const stillness = 300 * time.Millisecond

// takeOverlay takes what was seen; of a folder only what two looks agree on, since people save one
// file after the other.
func (w *worker) takeOverlay(seen overlay.Overlay, in input, every time.Duration) result {
	o := &w.saw
	again := in.sub.Overlay.Git == "" && o.good && seen.Digest != o.now.Digest && seen.Digest != o.seen
	o.seen = seen.Digest
	if again {
		every = min(every, stillness)
		o.next = time.Now().Add(every)
		return result{after: every}
	}
	o.now, o.good, o.bad, o.said = seen, true, false, ""
	w.laid.Store(&seen)
	return result{after: every}
}

// builds reports that err is about the release and the overlay, and would be the same again.
func builds(err error) bool {
	var b *render.BuildError
	return errors.As(err, &b)
}

// misconfigured waits for the provider.
func (w *worker) misconfigured(err error) result {
	reason := oneLine(err.Error())
	if w.state.Phase == fleet.AwaitingConfig && w.state.Reason == reason || w.state.Phase == fleet.RollbackFailed {
		return result{stop: true}
	}
	if err := w.feed(delivery.Event{Kind: delivery.Misconfigured, Reason: reason}); err != nil {
		return w.journalTrouble(err)
	}
	return result{stop: true}
}

// choose decides what should run and starts a delivery where something else does.
func (w *worker) choose(_ context.Context, in input) result {
	if in.trouble != "" {
		return w.misconfigured(errors.New(in.trouble))
	}
	if in.offers == nil { // the hub has not said anything yet, or no longer knows the distribution
		if !underWay(w.state.Phase) {
			return result{}
		}
		if err := w.feed(delivery.Event{Kind: delivery.Content, Target: w.rec.Installation.Running, Reason: "it is not on offer any more"}); err != nil {
			return w.journalTrouble(err)
		}
		return result{}
	}
	want, policy, err := wanted(in, w.saw.now)
	if err != nil {
		return w.misconfigured(err)
	}
	if err := w.notePolicy(policy); err != nil {
		return w.journalTrouble(err)
	}
	held := heldFor(w.rec.Held, want.recipe(), time.Now())
	selected, err := policy.Select(in.choice(time.Now(), held, w.rec.Installation.Running))
	if err != nil {
		return w.misconfigured(err)
	}
	e, begin := w.verdict(want, policy, selected, held)
	if !begin {
		return result{}
	}
	if e.Kind == delivery.Start {
		w.begin(in, want, selected.Version)
	}
	if err := w.feed(e); err != nil {
		return w.journalTrouble(err)
	}
	return result{}
}

// choice is what the policy chooses from.
func (in input) choice(now time.Time, held map[string]bool, running string) fleet.Choice {
	return fleet.Choice{Now: now, Offered: wire.FromOffers(in.offers.GetOffers()), Withdrawn: wire.FromWithdrawals(in.offers.GetWithdrawals()),
		Held: held, Running: running}
}

// heldFor are the versions that are not to be taken now with this recipe.
func heldFor(holds map[string]journal.Hold, recipe fleet.Digest, now time.Time) map[string]bool {
	held := map[string]bool{}
	for version, h := range holds {
		held[version] = (h.Overlay == "" || h.Overlay == recipe) && (h.Until.IsZero() || now.Before(h.Until))
	}
	return held
}

// wanted is what the provider wants, but for the version.
func wanted(in input, o overlay.Overlay) (plan, fleet.Policy, error) {
	p := plan{Variant: in.sub.Variant, Namespace: in.sub.Namespace, Overlay: o.Digest}
	policy := in.sub.Policy
	if in.sub.Overlay.None() || in.offers == nil {
		return p, policy, nil
	}
	b, err := render.OverlayPin(o.Files, o.Path, in.urls(), in.offers.GetPath())
	if err != nil {
		return p, policy, fmt.Errorf("overlay: %w", err)
	}
	if !b.Found {
		return p, policy, fmt.Errorf("the overlay in %s has no base that names the distribution; let its kustomization name %s//%s/VARIANT?ref=VERSION, or put the URL that it uses under source in spoke.yaml",
			where(in.sub.Overlay), in.offers.GetUrl(), in.offers.GetPath())
	}
	if p.Variant == "" {
		p.Variant = b.Variant
	}
	if b.Ref != "" && policy.Pin == nil && policy.Range == "" {
		policy.Pin = &fleet.Pin{Version: b.Ref, Source: "overlay"}
	}
	return p, policy, nil
}

func where(o config.Overlay) string {
	if o.Git != "" {
		return o.Git + "//" + o.Path
	}
	return o.Path
}

// verdict compares what should run with what does. The machine gets the event when begin is true.
func (w *worker) verdict(want plan, policy fleet.Policy, selected fleet.Selection, held map[string]bool) (e delivery.Event, begin bool) {
	i, phase := w.rec.Installation, w.state.Phase
	target := selected.Version
	content := delivery.Event{Kind: delivery.Content, Target: i.Running, Reason: selected.Why}
	start := delivery.Event{Kind: delivery.Start, Target: target, Previous: w.canReturn()}
	runs := target == "" || target == i.Running && w.asPlanned(want)
	switch {
	case runs && phase.Failed() && policy.Pin == nil && held[i.Target]:
		return e, false // it stays to be seen why the cluster is not where it should be
	case runs:
		return content, w.unsaid(content)
	case held[target]:
		return e, false
	case underWay(phase) && w.state.Target == target && w.ledger.Plan == want:
		return e, false // it is being delivered
	case phase == fleet.AwaitingConfig && policy.Pin == nil && held[i.Target] && fleet.CompareTags(target, i.Target) < 0:
		return e, false // an overlay in error is not tried on every older release
	}
	return start, true
}

// unsaid: the machine does not know yet that what runs is what should.
func (w *worker) unsaid(e delivery.Event) bool {
	switch w.state.Phase {
	case fleet.RollbackFailed:
		return false
	case fleet.Succeeded, fleet.PhaseNone:
		return w.state.Reason != oneLine(e.Reason) || w.state.Target != e.Target
	}
	return true
}

// underWay: a delivery that has not touched the cluster yet.
func underWay(p fleet.Phase) bool {
	switch p {
	case fleet.Fetching, fleet.Verifying, fleet.Rendering, fleet.Checking, fleet.AwaitingApproval:
		return true
	}
	return false
}

// asPlanned: what runs was rendered for this plan. What was taken over from the cluster does not know
// its variant.
func (w *worker) asPlanned(want plan) bool {
	i := w.rec.Installation
	return i.Overlay == want.Overlay && i.Namespace == want.Namespace && (i.Variant == want.Variant || i.Variant == "")
}

// begin prepares the record of a new attempt; the Start event writes it.
func (w *worker) begin(in input, want plan, target string) {
	w.rec.Delivery = &journal.Attempt{Target: target, Bundle: in.digest(target), Overlay: want.Overlay, Started: time.Now()}
	if target == w.rec.Installation.Running {
		w.rec.Delivery.Bundle = w.rec.Installation.Bundle // a release never changes, and it may be off the offer
	}
	w.ledger.Plan = want
	w.work.bundle = nil
	if i := &w.rec.Installation; i.Running == "" {
		i.Variant, i.Namespace = want.Variant, want.Namespace
	}
}

// notePolicy keeps the policy in force for those who look.
func (w *worker) notePolicy(p fleet.Policy) error {
	was := w.rec.Installation.Policy
	if was.Equal(p) {
		return nil
	}
	w.rec.Installation.Policy = p
	if !w.known {
		w.publish()
		return nil
	}
	text := "follows " + p.Range
	switch {
	case p.Pin != nil:
		text = fmt.Sprintf("pinned at %s by %s", p.Pin.Version, p.Pin.Source)
	case p.Range == "":
		text = "follows every release"
	}
	return w.record(w.rec, event(time.Now(), w.rec.Installation, fleet.EventAgent, text))
}
