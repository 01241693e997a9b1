package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/manifest"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/apply"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/journal"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/overlay"
)

// adopt: a spoke without a record of its own asks the cluster for one. What it finds there it takes
// over as what runs, and touches nothing.
func (w *worker) adopt(ctx context.Context, in input) result {
	if w.known || w.asked {
		return result{}
	}
	if left := w.wait.left(time.Now()); left > 0 {
		return result{after: left, stop: true}
	}
	inv, found, err := w.inventoryOf(ctx, in.sub.Namespace)
	if ctx.Err() != nil {
		return result{stop: true}
	}
	if err != nil {
		w.log.Warn("the cluster cannot be asked what runs there; nothing is begun until it can", logging.Error, err)
		i := &w.rec.Installation
		i.Reason, i.Health, i.HealthMessage = oneLine(err.Error()), fleet.HealthUnknown, oneLine(err.Error())
		w.publish()
		w.wait.failed(time.Now(), w.intervals())
		return result{after: w.wait.left(time.Now()), stop: true}
	}
	w.wait, w.asked = backoff{}, true
	rec := journal.Record{Distribution: w.name, Installation: fleet.Installation{
		Distribution: w.name, Variant: in.sub.Variant, Namespace: in.sub.Namespace, Policy: in.sub.Policy, Health: fleet.HealthUnknown,
	}}
	if !found {
		w.rec = rec
		w.publish()
		return result{}
	}
	now := time.Now()
	i := &rec.Installation
	if inv.Version == "" {
		inv.Version = "an unknown release"
		return w.adoptUnfinished(rec, inv, now)
	}
	if !whole(inv) {
		return w.adoptUnfinished(rec, inv, now)
	}
	i.Variant = "" // the inventory does not say
	i.Running, i.Target, i.Bundle, i.Overlay, i.Rendered = inv.Version, inv.Version, inv.Bundle, inv.Overlay, inv.Rendered
	i.Phase, i.PhaseSince, i.Objects = fleet.Succeeded, now, len(inv.Items)
	w.ledger = ledger{Inventory: inv, Mixed: true}
	w.log.Info("took over what runs on the cluster", logging.Version, inv.Version, "objects", len(inv.Items))
	if err := w.record(rec, event(now, *i, fleet.EventAgent, fmt.Sprintf("took over %s with %d objects as found on the cluster; nothing was touched", inv.Version, len(inv.Items)))); err != nil {
		w.asked = false
		return w.journalTrouble(err)
	}
	w.state.Phase, w.state.Target, w.state.Since = i.Phase, i.Target, now
	return result{}
}

// inventoryOf reads the inventory on the cluster; where there is none, or a damaged one, it is rebuilt from
// the objects' own labels and managed fields.
func (w *worker) inventoryOf(ctx context.Context, namespace string) (apply.Inventory, bool, error) {
	inv, found, err := w.a.cfg.Observe.ReadInventory(ctx, w.name, namespace)
	if err != nil && !errors.Is(err, apply.ErrDamagedInventory) || found {
		return inv, found, err
	}
	if err != nil {
		w.log.Warn("the inventory on the cluster is damaged", logging.Error, err)
	}
	inv, found, err = w.a.cfg.Observe.Rebuild(ctx, w.name, namespace)
	if err == nil && found {
		w.log.Warn("the inventory is lost; it is rebuilt from the objects' own labels and managed fields", "objects", len(inv.Items))
	}
	return inv, found, err
}

// whole: a release was applied and nothing of another waits to be pruned.
func whole(inv apply.Inventory) bool {
	return inv.Applied != "" && !slices.ContainsFunc(inv.Items, func(i apply.Item) bool { return i.Leaving })
}

// adoptUnfinished: the spoke's folder was lost in the middle of a delivery. What is on the cluster may be
// of two releases, so neither is said to run; the next delivery brings all of it to one (law 7).
func (w *worker) adoptUnfinished(rec journal.Record, inv apply.Inventory, now time.Time) result {
	w.ledger = ledger{Inventory: inv, Mixed: true}
	w.log.Warn("found an unfinished delivery on the cluster: it is carried out anew", logging.Version, inv.Version, "objects", len(inv.Items))
	if err := w.record(rec, event(now, rec.Installation, fleet.EventAgent,
		fmt.Sprintf("found an unfinished delivery of %s with %d objects on the cluster; it is carried out anew", inv.Version, len(inv.Items)))); err != nil {
		w.asked = false
		return w.journalTrouble(err)
	}
	return result{}
}

// rebuild renders a release anew that was taken over, so that the cluster can be brought back to it:
// only where the result is, byte for byte, the set that the inventory names.
func (w *worker) rebuild(ctx context.Context, in input) result {
	i := w.rec.Installation
	if i.Running == "" || len(w.rec.Manifest) > 0 || in.trouble != "" || in.digest(i.Running) != i.Bundle {
		return result{}
	}
	want, _, err := wanted(in, w.saw.now)
	if err != nil || want.recipe() == w.tried {
		return result{}
	}
	if left := w.wait.left(time.Now()); left > 0 {
		return result{after: left, stop: true}
	}
	res, err := w.a.again(ctx, in, i.Bundle, i.Running, w.saw.now, want, past{})
	if ctx.Err() != nil {
		return result{stop: true}
	}
	if err != nil && !unproven(err) && !builds(err) {
		w.log.Warn("the release that runs cannot be rendered anew yet", logging.Version, i.Running, logging.Error, err)
		w.wait.failed(time.Now(), w.intervals())
		return result{after: w.wait.left(time.Now()), stop: true}
	}
	w.wait, w.tried = backoff{}, want.recipe()
	if err != nil || res.Digest != i.Rendered {
		w.log.Warn("the release that runs was rendered from something else than what is here now; it cannot be returned to", logging.Version, i.Running, logging.Error, err)
		return result{}
	}
	rec := w.rec
	rec.Manifest, rec.Installation.Variant = res.Manifest, want.Variant
	w.ledger.Mixed = w.ledger.Applied == ""
	if err := w.record(rec); err != nil {
		return w.journalTrouble(err)
	}
	w.follow()
	return result{}
}

// again obtains, verifies and renders a release.
func (a *Agent) again(ctx context.Context, in input, d fleet.Digest, version string, o overlay.Overlay, p plan, was past) (laid, error) {
	if err := a.obtain(ctx, d); err != nil {
		return laid{}, err
	}
	b, _, err := a.openVerified(in.sub, d, version)
	if err != nil {
		return laid{}, err
	}
	return a.lay(ctx, in, b, version, o, p, was)
}

// overlayFor is what a preview lays over the release: a folder as it is this moment, a repository as
// the worker saw it last.
func (a *Agent) overlayFor(ctx context.Context, in input, w *worker) (overlay.Overlay, error) {
	switch {
	case in.sub.Overlay.None():
		return overlay.Overlay{}, nil
	case in.sub.Overlay.Git == "":
		src, err := a.cfg.Overlay(in.sub)
		if err != nil {
			return overlay.Overlay{}, err
		}
		o, err := src.Load(ctx)
		return o, errors.Join(err, src.Close())
	case w == nil || w.laid.Load() == nil:
		return overlay.Overlay{}, fmt.Errorf("the overlay in %s was not read yet; try again, spoke status says why it cannot be", where(in.sub.Overlay))
	}
	return *w.laid.Load(), nil
}

// preview renders for somebody who looks, with what plugins make of it; nothing of it is recorded.
func (a *Agent) preview(ctx context.Context, in input, o overlay.Overlay, version string, d fleet.Digest) ([]byte, error) {
	name := in.sub.Distribution
	if d == "" {
		return nil, fmt.Errorf("%s %q is not on offer; on offer are %v (spoke status shows what runs)", name, version, in.versions())
	}
	p, _, err := wanted(in, o)
	if err != nil {
		return nil, err
	}
	res, err := a.again(ctx, in, d, version, o, p, past{})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return res.Manifest, nil
}

// sent is the part of a rendered set that the spoke sends to the cluster.
func sent(rendered []byte) ([]byte, error) {
	objs, err := manifest.Parse(rendered)
	if err != nil {
		return nil, fmt.Errorf("read the rendered set: %w", err)
	}
	return manifest.Canonical(slices.DeleteFunc(objs, func(o *unstructured.Unstructured) bool { return !applied(o) && !hasTurn(o) }))
}
