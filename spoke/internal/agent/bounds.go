package agent

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/manifest"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/apply"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/config"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/envelope"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/journal"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/terms"
)

// boundsOf tells what a release has to keep within, and who has to have signed it, from what it had to before;
// empty: there are no bounds.
func boundsOf(sub config.Subscription) fleet.Digest {
	if sub.Envelope.None() && sub.Account == (config.Account{}) && sub.Signers.None() {
		return ""
	}
	text := fmt.Appendf(nil, "%q %q", sub.Envelope.Text(), sub.Account)
	if !sub.Signers.None() {
		text = fmt.Appendf(text, " %q", sub.Signers.Text())
	}
	return fleet.Digest(fmt.Sprintf("sha256:%x", sha256.Sum256(text)))
}

// besides are the objects of a rendered set that are not a part of what runs and come to the cluster all the
// same: tests, which a plugin makes, and hooks, whether this delivery makes them or not.
func besides(objs []*unstructured.Unstructured) (all []*unstructured.Unstructured) {
	for _, o := range objs {
		if _, hook, _ := manifest.ReadHook(o); hook || o.GetAnnotations()["wheelwright.dev/test"] != "" {
			all = append(all, o)
		}
	}
	return all
}

// wrong is all that speaks against a set, as it may be told to others; empty: nothing does.
func (s assessment) wrong(set apply.Set) string {
	var parts []string
	if out := s.report.Outside; len(out) > 0 {
		text := outside(out)
		if len(out) > 1 { // more than a status holds
			text = fmt.Sprintf("outside of the envelope in %d ways, all of which spoke diff %s %s shows: %s", len(out), set.Distribution, set.Version, strings.TrimPrefix(text, outsideText))
		}
		parts = append(parts, text)
	}
	if len(s.report.Problems) > 0 {
		parts = append(parts, "dry run: "+summary(s.report.Problems))
	}
	return strings.Join(parts, "; ")
}

const outsideText = "outside of the envelope: "

// outside tells every different thing once, with the first object that has it.
func outside(out []apply.Outside) string {
	all := make([]apply.Problem, len(out))
	for n, o := range out {
		all[n] = apply.Problem{Object: o.Object, Message: o.Text()}
	}
	return outsideText + summary(all)
}

// judge tells what of a set is outside, for its provider. Where the cluster cannot be asked, what Kubernetes
// itself brings is known, and any other kind is taken for a namespaced one.
func (a *Agent) judge(ctx context.Context, set apply.Set) (all []apply.Outside) {
	if a.cfg.Find != nil {
		if out, err := a.cfg.Find.Outside(ctx, set); err == nil {
			return out
		}
	}
	for _, o := range slices.Concat(set.Objects, set.Beside) {
		namespaced, known := envelope.Namespaced(o.GroupVersionKind().GroupKind())
		ns := ""
		if namespaced || !known {
			ns = cmp.Or(o.GetNamespace(), set.Namespace)
		}
		for _, v := range set.Envelope.Check(envelope.Subject{Unstructured: o, Namespaced: ns != "", Namespace: ns, Home: set.Namespace}) {
			all = append(all, apply.Outside{Object: manifest.ID(o), Violation: v})
		}
	}
	return all
}

// insideAgain refuses to go back to an earlier release of which something is outside of the envelope by now: it
// ran here, and its provider has said since that it may not. What ran when a delivery began is gone back to
// whatever the envelope says, so that the cluster never stays between two releases.
func (w *worker) insideAgain(ctx context.Context, rec journal.Record) error {
	i := rec.Installation
	set, err := w.set(rec.Manifest, i.Namespace, i.Running, i.Bundle, i.Overlay, i.Rendered)
	if err != nil {
		return err
	}
	out := w.a.judge(ctx, set)
	if len(out) == 0 {
		return nil
	}
	for _, o := range out {
		w.log.Warn("an earlier release is outside of the envelope", logging.Version, i.Running, logging.Object, o.Object, logging.Reason, o.Whole())
	}
	return fmt.Errorf("%s %s: %w: %s; nothing has changed: name another release, or widen the envelope in spoke.yaml", w.name, i.Running, fleet.ErrNothingWaits, outside(out))
}

// noteBounds has what runs be looked at where its bounds have changed; while a release is half on the cluster, when
// that is over.
func (w *worker) noteBounds(sub config.Subscription) {
	if now := boundsOf(sub); now != w.bounds && !w.state.Touching() {
		w.bounds, w.watch.drift = now, time.Time{}
	}
}

// leftOutside says what of a running set is outside of the envelope where drift is not looked for.
func (w *worker) leftOutside(ctx context.Context, sub config.Subscription) ([]apply.Drifted, error) {
	if sub.Terms.Drift != terms.Leave || sub.Envelope.None() {
		return nil, nil
	}
	set, err := w.runningSet()
	if err != nil {
		return nil, err
	}
	out, err := w.a.cfg.Find.Outside(ctx, set)
	return apply.LeftOutside(out), err
}
