package agent

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/manifest"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/apply"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/config"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/delivery"
)

// set reads a rendered manifest.
func (w *worker) set(data []byte, namespace, version string, b, o, r fleet.Digest) (apply.Set, error) {
	return w.a.setOf(w.sub, data, namespace, version, b, o, r)
}

// parse reads a rendered set that may be sealed.
func (a *Agent) parse(distribution string, data []byte) ([]*unstructured.Unstructured, error) {
	plain, err := a.keeper.open(distribution, data)
	if err != nil {
		return nil, err
	}
	return manifest.Parse(plain)
}

func (a *Agent) setOf(sub config.Subscription, data []byte, namespace, version string, b, o, r fleet.Digest) (s apply.Set, err error) {
	objs, err := a.parse(sub.Distribution, data)
	if err != nil {
		return apply.Set{}, fmt.Errorf("read the rendered set of %s: %w", version, err)
	}
	if r == "" {
		r = fleet.Digest(fmt.Sprintf("sha256:%x", sha256.Sum256(data)))
		defer func() { s.Rendered = "" }()
	}
	a.learnSet(sub.Distribution, objs, r, b, o)
	beside := besides(objs)
	objs = applicable(objs)
	t, err := withYields(sub.Terms, objs, namespace)
	if err != nil {
		return apply.Set{}, fmt.Errorf("read the rendered set of %s: %w", version, err)
	}
	return apply.Set{Distribution: sub.Distribution, Terms: t, Namespace: namespace, Objects: objs, Version: version, Bundle: b, Overlay: o, Rendered: r,
		Envelope: sub.Envelope, Beside: beside}, nil
}

// nextSet is the attempt's, runningSet the one that the cluster returns to.
func (w *worker) nextSet() (apply.Set, error) {
	d := w.rec.Delivery
	return w.set(d.Manifest, w.ledger.Plan.Namespace, d.Target, d.Bundle, d.Overlay, d.Rendered)
}

func (w *worker) runningSet() (apply.Set, error) {
	i := w.rec.Installation
	set, err := w.set(w.rec.Manifest, i.Namespace, i.Running, i.Bundle, i.Overlay, i.Rendered)
	set.Objects = slices.DeleteFunc(set.Objects, func(o *unstructured.Unstructured) bool {
		return len(definitions([]*unstructured.Unstructured{o})) > 0 && slices.Contains(w.ledger.Keep, o.GetName())
	})
	return set, err
}

func (w *worker) check(ctx context.Context) (delivery.Event, error) {
	set, err := w.nextSet()
	if err != nil {
		return refuse("%w", err)
	}
	first, err := hooks(w.rec.Delivery.Manifest, before, w.first())
	if err != nil {
		return refuse("%w", err)
	}
	if set, err = withAllHooks(set, w.rec.Delivery.Manifest, w.first()); err != nil {
		return refuse("%w", err)
	}
	prev := w.ledger.Inventory
	if w.ledger.Mixed {
		prev = prev.Unsure()
	}
	s, err := w.a.assess(ctx, set, prev, w.rec.Installation.Running)
	switch {
	case final(err):
		return refuse("%w", err)
	case err != nil:
		return delivery.Event{}, err
	}
	if err := w.sayTrial(w.ledger.Plan.recipe(), s.result(set)); err != nil {
		return delivery.Event{}, err
	}
	if w.chosen.Version == set.Version && w.chosen.Asks != "" {
		s.asks = append(s.asks, w.chosen.Asks)
	}
	report := s.report
	d := *w.rec.Delivery
	d.Keep, d.Asks = s.verdict.Keep, s.asks
	w.rec.Delivery = &d
	switch {
	case s.wrong(set) != "":
		for _, o := range report.Outside {
			w.log.Warn("an object is outside of the envelope", logging.Version, set.Version, logging.Object, o.Object, logging.Reason, o.Whole())
		}
		for _, p := range report.Problems {
			w.log.Warn("the dry run refuses an object", logging.Version, set.Version, logging.Object, p.Object, logging.Reason, p.Message)
		}
		return refuse("%s", s.wrong(set))
	case len(report.Adopted) > 0:
		if err := w.sayAdopted(set.Version, report.Adopted); err != nil {
			return delivery.Event{}, err
		}
	}
	if unanswered := slices.DeleteFunc(slices.Clone(s.asks), func(q string) bool { return slices.Contains(d.Approved, q) }); len(unanswered) > 0 {
		w.log.Warn("the provider is asked before anything is applied", logging.Version, set.Version, "asks", unanswered)
		if said := w.chosen.errand(); said != "" {
			unanswered = append(unanswered, said)
		}
		return delivery.Event{Kind: delivery.Asking, Reason: fmt.Sprintf("%s; see it with: spoke diff %s %s, then: spoke approve %[2]s, or: spoke reject %[2]s",
			strings.Join(unanswered, "; "), w.name, set.Version)}, nil
	}
	if e, wait := w.closed(time.Now(), set.Version); wait {
		return e, nil
	}
	if len(report.Conflicts) > 0 {
		if err := w.sayConflicts(set.Version, report.Conflicts); err != nil {
			return delivery.Event{}, err
		}
	}
	course := &pluginv1.Course{}
	if err := proto.Unmarshal(d.Course, course); err != nil {
		return refuse("read the course of %s: %w", set.Version, err)
	}
	return delivery.Event{Kind: delivery.Checked, Steps: len(course.GetSteps()), Follows: course.GetFollows(), Hooks: len(first) > 0}, nil
}

// sayConflicts: fields that the release declares and that others have set are the release's from now on;
// those who set them are named.
func (w *worker) sayConflicts(version string, conflicts []apply.Conflict) error {
	var told []string
	for _, c := range conflicts {
		told = append(told, c.String())
	}
	w.log.Warn("fields that others have set are taken over", logging.Version, version, "conflicts", told)
	return w.record(w.rec, event(time.Now(), w.rec.Installation, fleet.EventAgent,
		fmt.Sprintf("%s takes over %d fields that others have set: %s", version, len(told), some(told))))
}

// sayAdopted: what others made and the release declares is the release's from now on.
func (w *worker) sayAdopted(version string, objects []string) error {
	w.log.Warn("objects that were on the cluster before are taken over", logging.Version, version, "objects", objects)
	return w.record(w.rec, event(time.Now(), w.rec.Installation, fleet.EventAgent,
		fmt.Sprintf("%s takes over %d objects that were on the cluster before: %s", version, len(objects), some(objects))))
}

// some are the first names of a list.
func some(names []string) string {
	const most = 5
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// summary tells every different problem once, with the first object that has it.
func summary(problems []apply.Problem) string {
	var told []string
	seen := map[string]bool{}
	for _, p := range problems {
		if !seen[p.Message] {
			told = append(told, p.String())
		}
		seen[p.Message] = true
	}
	text := strings.Join(told, "; ")
	if more := len(problems) - len(told); more > 0 {
		text = fmt.Sprintf("%d objects: %s; and %d like these", len(problems), text, more)
	}
	return text
}

// final: the same thing will fail again until somebody acts.
func final(err error) bool {
	return errors.Is(err, apply.ErrRefused) || errors.Is(err, apply.ErrEmptySet)
}

func (w *worker) apply(ctx context.Context) (delivery.Event, error) {
	o, err := w.hook(ctx, before, w.ahead)
	switch {
	case err != nil:
		return delivery.Event{}, err
	case o.failed != "":
		return delivery.Event{Kind: delivery.Refuse, Reason: o.failed}, nil
	case o.waits != "":
		return delivery.Event{Kind: delivery.Waiting, Reason: o.waits, Lost: o.lost}, nil
	}
	set, err := w.nextSet()
	if err != nil {
		return refuse("%w", err)
	}
	if set, err = w.beyondLed(ctx, set); err != nil {
		return delivery.Event{}, err
	}
	e, err := w.send(ctx, set, delivery.Applied)
	if err == nil && e.Kind == delivery.Applied {
		w.noteApplied()
	}
	return e, err
}

// send applies a set. Whatever comes of it, the ledger then names all that may be on the cluster.
func (w *worker) send(ctx context.Context, set apply.Set, then delivery.Kind) (delivery.Event, error) {
	if err := w.makeSure(ctx, set.Namespace); err != nil {
		return delivery.Event{}, err
	}
	was := w.ledger.Inventory
	inv, change, err := w.a.cfg.Apply.Apply(ctx, set, was)
	w.ledger.Inventory = merged(inv, was)
	switch {
	case final(err):
		return refuse("%w", err)
	case err != nil:
		return delivery.Event{}, err
	}
	if change.Requests == 0 {
		return delivery.Event{Kind: then}, nil // a second look
	}
	w.log.Info("applied", logging.Version, set.Version, "created", len(change.Created), "changed", len(change.Changed), "unchanged", len(change.Unchanged), "requests", change.Requests)
	return delivery.Event{Kind: then}, nil
}

// makeSure takes in, after a restart, what the cluster's own inventory names and the journal's does
// not: objects that were made between the last line of the journal and the kill.
func (w *worker) makeSure(ctx context.Context, namespace string) error {
	if !w.work.unsure {
		return nil
	}
	inv, found, err := w.inventoryOf(ctx, namespace)
	if err != nil {
		return err
	}
	if found {
		w.ledger.Inventory = merged(w.ledger.Inventory, inv)
	}
	w.ledger.Inventory = w.ledger.Unsure()
	w.work.unsure = false
	return nil
}

// merged is inv and, marked as leaving, what was there beside it.
func merged(inv, was apply.Inventory) apply.Inventory {
	type key struct{ group, kind, namespace, name string }
	have := map[key]bool{}
	for _, i := range inv.Items {
		have[key{i.Group, i.Kind, i.Namespace, i.Name}] = true
	}
	for _, i := range was.Items {
		if !have[key{i.Group, i.Kind, i.Namespace, i.Name}] {
			i.Leaving = true
			inv.Items = append(inv.Items, i)
		}
	}
	return inv
}

// prune deletes what is on the cluster beside the set applied last.
func (w *worker) prune(ctx context.Context, then delivery.Kind) (delivery.Event, error) {
	keep, old := w.keptHooks(w.ledger.Current()), w.ledger.Inventory
	for _, namespace := range []string{w.rec.Installation.Namespace, w.ledger.Plan.Namespace} {
		if namespace != "" && namespace != keep.Namespace {
			old.Namespace = namespace // the subscription moved: its inventory there goes too
		}
	}
	change, err := w.a.cfg.Apply.Prune(ctx, old, keep, w.sub.Terms)
	switch {
	case final(err):
		return refuse("%w", err)
	case err != nil:
		return delivery.Event{}, err
	}
	if len(change.Deleted)+len(change.Kept) > 0 {
		w.log.Info("pruned", "deleted", change.Deleted, "kept", change.Kept)
	}
	w.ledger.Inventory = keep
	return delivery.Event{Kind: then}, nil
}

// restore puts the rendered set back that ran before, out of the journal: it needs the cluster and
// nobody else (law 8).
func (w *worker) restore(ctx context.Context) (delivery.Event, error) {
	if d := w.rec.Delivery; d != nil {
		w.ledger.Keep = d.Keep
	}
	set, err := w.runningSet()
	if err != nil {
		return refuse("%w", err)
	}
	set.Envelope = nil // see insideAgain
	e, err := w.send(ctx, set, delivery.Restored)
	if err != nil || e.Kind == delivery.Refuse {
		return e, err
	}
	return w.prune(ctx, delivery.Restored)
}

// undo takes away what a first install made before it was cut off.
func (w *worker) undo(ctx context.Context) (delivery.Event, error) {
	if err := w.makeSure(ctx, w.ledger.Plan.Namespace); err != nil {
		return delivery.Event{}, err
	}
	change, err := w.a.cfg.Mend.Undo(ctx, w.ledger.Inventory)
	switch {
	case final(err):
		return refuse("%w", err)
	case err != nil:
		return delivery.Event{}, err
	}
	w.log.Warn("what was made of a first install is taken away", logging.Version, w.state.Target, "deleted", change.Deleted, "kept", change.Kept)
	w.ledger.Inventory = apply.Inventory{}
	return delivery.Event{Kind: delivery.Undone}, nil
}

// watchOver is observe; where it goes on for as long as a provider takes to answer, health is told too.
func (w *worker) watchOver(ctx context.Context) (delivery.Event, error) {
	before := w.rec.Installation
	e, err := w.observe(ctx)
	if settled := w.state.Phase == fleet.Settling && (!w.state.Walk.Led || w.state.Walk.Stage == delivery.Followed); err == nil && settled && e.Health == fleet.Healthy {
		return w.afterwards(ctx, e)
	}
	if err == nil && w.state.Applied {
		err = w.sayHealth(time.Now(), before)
	}
	return e, err
}

// observe reads the health of what was applied.
func (w *worker) observe(ctx context.Context) (delivery.Event, error) {
	report, err := w.a.cfg.Observe.Health(ctx, w.ledger.Current(), w.healthRules())
	if err != nil {
		return delivery.Event{}, err
	}
	w.watch.last = time.Now()
	w.noteHealth(report)
	w.publish()
	if report.Health != fleet.Healthy {
		w.unstick(ctx)
	}
	return delivery.Event{Kind: delivery.Observed, Health: report.Health, Reason: report.Message}, nil
}

// unstick replaces pods that would keep a StatefulSet from ever getting there. On the way back, or where
// nothing ran before, a pod of another template is the failed release's, whatever it does.
func (w *worker) unstick(ctx context.Context) {
	change, err := w.a.cfg.Mend.Unstick(ctx, w.ledger.Current(), w.state.Phase == fleet.RollingBack || !w.canReturn())
	if err != nil && ctx.Err() == nil && err.Error() != w.work.stuck {
		w.log.Warn("a StatefulSet may wait for pods that do not become ready", logging.Error, err)
		w.work.stuck = err.Error()
	}
	if len(change.Deleted) > 0 {
		w.log.Info("replaced pods that their StatefulSet waited for", "deleted", change.Deleted)
	}
}
