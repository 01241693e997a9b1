package agent

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance/channel"
	"github.com/wheelwright-dev/wheelwright/pkg/render"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/config"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/delivery"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/journal"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/overlay"
)

// recipe is all that a rendered set, and whether it may be applied, depends on beside the release.
func (p plan) recipe() fleet.Digest {
	text := fmt.Appendf(nil, "%q %q %q", p.Overlay, p.Variant, p.Namespace)
	if p.Bounds != "" {
		text = fmt.Appendf(text, " %q", p.Bounds)
	}
	return fleet.Digest(fmt.Sprintf("sha256:%x", sha256.Sum256(text)))
}

// content is the recipe of the rendered set alone, whatever it may hold.
func (p plan) content() fleet.Digest {
	p.Bounds = ""
	return p.recipe()
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
func (w *worker) choose(ctx context.Context, in input) result {
	if in.trouble != "" {
		return w.misconfigured(errors.New(in.trouble))
	}
	if err := w.unprovable(); err != nil {
		r := w.misconfigured(err)
		r.after = cmp.Or(r.after, w.intervals().Overlay) // the file may come
		return r
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
	now := time.Now()
	want, policy, err := wanted(in, w.saw.now)
	if err != nil {
		return w.misconfigured(err)
	}
	policy = inForce(policy, w.rec.Pin, in, now)
	changed, err := w.notePolicy(policy, now)
	if err != nil {
		return w.journalTrouble(err)
	}
	held := heldFor(w.rec.Held, want, now)
	selected, err := policy.Select(in.choice(now, held, w.rec, w.told))
	if err != nil {
		return w.misconfigured(err)
	}
	w.chosen = chosen{Selection: selected, windows: policy.Windows}
	w.state.Errand = w.chosen.errand()
	if err := w.pursue(ctx, in, want, policy, held, changed); err != nil {
		return w.journalTrouble(err)
	}
	return result{after: w.waits(policy, now)}
}

// chosen is what choose came to in this round.
type chosen struct {
	fleet.Selection
	windows fleet.Windows
}

// errand says what a required stop is taken for.
func (c chosen) errand() string {
	if c.Goal == "" || c.Goal == c.Version {
		return ""
	}
	return fmt.Sprintf("%s on the way to %s", c.Version, c.Goal)
}

// pursue does what was chosen, or goes on with it.
func (w *worker) pursue(ctx context.Context, in input, want plan, policy fleet.Policy, held map[string]bool, changed bool) error {
	if done, err := w.goBack(ctx, in); done || err != nil {
		return err
	}
	next := w.chosen.Selection
	if w.ownFirst(want, policy, held) {
		next = fleet.Selection{Version: w.rec.Installation.Running}
	}
	e, begin := w.verdict(in, want, policy, next, held)
	switch {
	case !begin:
		if err := w.tellWants(w.chosen.Selection); err != nil {
			return err
		}
		return w.goOn(in, want, changed)
	case e.Kind == delivery.Start:
		w.holdWithdrawn(in)
		w.begin(in, want, next.Version)
	default:
		w.holdWithdrawn(in)
	}
	w.rec.Installation.Wants, w.rec.Installation.Would = w.chosen.Version, w.chosen.Would // the event carries them
	return w.feed(e)
}

// ownFirst: the provider has changed its overlay while another release has to wait, for a window or for an
// answer. What runs gets the new overlay meanwhile, unless that is written for the other release.
func (w *worker) ownFirst(want plan, policy fleet.Policy, held map[string]bool) bool {
	running, s := w.rec.Installation.Running, w.chosen
	if running == "" || s.Version == "" || s.Version == running || w.asPlanned(want) || held[running] {
		return false
	}
	if policy.Pin != nil && policy.Pin.Source == fleet.PinOverlay {
		return false
	}
	return s.Asks != "" || !s.windows.Open(time.Now())
}

// tellWants keeps what the policy makes of what is offered, for those who look, and says when it is
// another thing than before.
func (w *worker) tellWants(s fleet.Selection) error {
	rec := w.rec
	i := &rec.Installation
	if i.Wants == s.Version && i.Would == s.Would {
		return nil
	}
	i.Wants, i.Would = s.Version, s.Would
	if !w.known {
		w.rec = rec
		w.publish()
		return nil
	}
	text := fmt.Sprintf("wants %s of what is on offer", cmp.Or(s.Version, "nothing"))
	if s.Would != "" {
		text += ", and would want " + s.Would + " without its pin"
	}
	return w.record(rec, event(time.Now(), *i, fleet.EventAgent, text))
}

// waits is how long until time alone may change what is chosen.
func (w *worker) waits(policy fleet.Policy, now time.Time) time.Duration {
	var next time.Duration
	for _, t := range []time.Time{pinEnds(policy), w.opens()} {
		if left := t.Sub(now); !t.IsZero() && left > 0 && (next == 0 || left < next) {
			next = left
		}
	}
	return next
}

// choice is what the policy chooses from.
func (in input) choice(now time.Time, held map[string]bool, rec journal.Record, told channel.Log) fleet.Choice {
	running := rec.Installation.Running
	last, _ := told.Last()
	return fleet.Choice{Now: now, Offered: wire.FromOffers(in.offers.GetOffers()), Withdrawn: wire.FromWithdrawals(in.offers.GetWithdrawals()),
		Held: held, Running: running, Floor: cmp.Or(rec.Floor, running), AskBack: !in.sub.Rollbacks() && !last.Recalls(running)}
}

// heldFor are the versions that are not to be taken now with this plan.
func heldFor(holds map[string]journal.Hold, p plan, now time.Time) map[string]bool {
	recipe, content := p.recipe(), p.content()
	held := map[string]bool{}
	for version, h := range holds {
		held[version] = (h.Overlay == "" || h.Overlay == recipe || h.Overlay == content) && (h.Until.IsZero() || now.Before(h.Until))
	}
	return held
}

// wanted is what the provider wants, but for the version.
func wanted(in input, o overlay.Overlay) (plan, fleet.Policy, error) {
	p := plan{Variant: in.sub.Variant, Namespace: in.sub.Namespace, Overlay: o.Digest, Bounds: boundsOf(in.sub)}
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
	if b.Ref != "" && policy.PinAt(time.Now()) == nil && policy.Range == "" {
		policy.Pin = &fleet.Pin{Version: b.Ref, Source: fleet.PinOverlay}
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
func (w *worker) verdict(in input, want plan, policy fleet.Policy, selected fleet.Selection, held map[string]bool) (e delivery.Event, begin bool) {
	i, phase := w.rec.Installation, w.state.Phase
	target := selected.Version
	content := delivery.Event{Kind: delivery.Content, Target: i.Running, Reason: selected.Why}
	if said := w.dropped(in, target); said != "" {
		content.Reason = strings.TrimSuffix(said+"; "+selected.Why, "; ")
	}
	start := delivery.Event{Kind: delivery.Start, Target: target, Previous: w.canReturn()}
	runs := target == "" || target == i.Running && w.asPlanned(want)
	switch {
	case runs && phase.Failed() && policy.Pin == nil && held[i.Target]:
		return e, false // it stays to be seen why the cluster is not where it should be
	case runs:
		return content, w.unsaid(content)
	case held[target]:
		return e, false
	case target != i.Running && w.bundleOf(in, target) == "": // to go back to
		content.Reason = fmt.Sprintf("%s; %s, the release to go to, is neither on offer nor kept here", selected.Why, target)
		return content, w.unsaid(content)
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
	case fleet.Fetching, fleet.Verifying, fleet.Rendering, fleet.Checking, fleet.AwaitingApproval, fleet.AwaitingWindow:
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
	w.rec.Delivery = &journal.Attempt{Target: target, Bundle: w.bundleOf(in, target), Overlay: want.Overlay, Started: time.Now(), Approved: w.approved(target)}
	w.ledger.Plan = want
	w.work.bundle = nil
	if i := &w.rec.Installation; i.Running == "" {
		i.Variant, i.Namespace = want.Variant, want.Namespace
	}
}

// approved is what the provider said yes to before, and is not asked again: of the same release, or of the
// chosen one while another attempt comes between.
func (w *worker) approved(target string) []string {
	d, s := w.rec.Delivery, w.chosen
	if d == nil {
		return nil
	}
	if d.Target == target {
		return d.Approved
	}
	between := s.Version + ": " + s.Asks
	switch {
	case s.Asks == "":
	case target == s.Version && slices.Contains(d.Approved, between):
		return []string{s.Asks}
	case target != s.Version && (slices.Contains(d.Approved, between) || d.Target == s.Version && slices.Contains(d.Approved, s.Asks)):
		return []string{between}
	}
	return nil
}

// bundleOf is a release's bundle: of what is on offer, or ran here. A release never changes.
func (w *worker) bundleOf(in input, version string) fleet.Digest {
	if i := w.rec.Installation; version == i.Running {
		return i.Bundle
	}
	if d := in.digest(version); d != "" {
		return d
	}
	for _, p := range w.rec.Previous {
		if p.Version == version {
			return p.Bundle
		}
	}
	return ""
}
