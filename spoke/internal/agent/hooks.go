package agent

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/manifest"
	"github.com/wheelwright-dev/wheelwright/pkg/render"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/apply"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/config"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/delivery"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/terms"
)

// hookRun is a hook of a delivery.
type hookRun struct {
	Run   string    `json:"run"` // of which
	Since time.Time `json:"since"`
	Done  bool      `json:"done,omitempty"` // it ended well; what is there of it may be gone by now
}

// turn is when hooks are made.
type turn string

const (
	before turn = "before" // what runs is touched, and before candidates stand beside it
	after  turn = "after"  // all of the release is well, and before it is tested
)

// hookable refuses a release whose hooks cannot be ones. One that has the name of something that runs would take
// its place before the release is well, and could not give it back.
func hookable(set, running []byte, namespace string) error {
	if !bytes.Contains(set, []byte("/hook")) {
		return nil
	}
	objs, err := manifest.Parse(set)
	if err != nil {
		return fmt.Errorf("read the rendered set: %w", err)
	}
	now, err := manifest.Parse(running)
	if err != nil {
		return fmt.Errorf("read the rendered set that runs: %w", err)
	}
	id := func(o *unstructured.Unstructured) string {
		return fmt.Sprintf("%s %s/%s", o.GroupVersionKind().GroupKind(), cmp.Or(o.GetNamespace(), namespace), o.GetName())
	}
	b := &render.BuildError{}
	for _, p := range manifest.HookProblems(objs) {
		b.Problems = append(b.Problems, p.String())
	}
	for _, o := range slices.DeleteFunc(objs, func(o *unstructured.Unstructured) bool { return !hasTurn(o) }) {
		if slices.ContainsFunc(now, func(other *unstructured.Unstructured) bool { return applied(other) && id(other) == id(o) }) {
			b.Problems = append(b.Problems, manifest.ID(o)+": it is a hook, and a part of the release that runs has its name; give the hook another one")
		}
	}
	if len(b.Problems) == 0 {
		return nil
	}
	return b
}

// hooks are a set's hooks of a turn, by weight.
func hooks(set []byte, when turn, first bool) (groups [][]*unstructured.Unstructured, err error) {
	if !bytes.Contains(set, []byte("/hook")) {
		return nil, nil
	}
	objs, err := manifest.Parse(set)
	if err != nil {
		return nil, fmt.Errorf("read the rendered set: %w", err)
	}
	byWeight := map[int][]*unstructured.Unstructured{}
	for _, o := range objs {
		h, is, err := manifest.ReadHook(o)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", manifest.ID(o), err)
		}
		if is && h.Due(first) && h.Before == (when == before) {
			byWeight[h.Weight] = append(byWeight[h.Weight], o)
		}
	}
	for _, weight := range slices.Sorted(maps.Keys(byWeight)) {
		groups = append(groups, byWeight[weight])
	}
	return groups, nil
}

// hasTurn: the object is a hook, and some deliveries make it.
func hasTurn(o *unstructured.Unstructured) bool {
	h, is, err := manifest.ReadHook(o)
	return is && err == nil && (h.Before || h.After)
}

// dressed is a hook as it is sent. Of a Job the template has the run too, which cannot be changed: so each run
// makes it anew, and the same run never twice. How long it stays is not the cluster's business: it is looked
// at when it has ended, and stays for its logs until the next delivery.
func dressed(o *unstructured.Unstructured, run string) *unstructured.Unstructured {
	o = o.DeepCopy()
	mark(o, apply.HookRunAnnotation, run)
	if isJob(o) {
		_ = unstructured.SetNestedField(o.Object, run, "spec", "template", "metadata", "annotations", apply.HookRunAnnotation) // refused by the dry run where that is no map
		unstructured.RemoveNestedField(o.Object, "spec", "ttlSecondsAfterFinished")
	}
	return o
}

func isJob(o *unstructured.Unstructured) bool {
	gvk := o.GroupVersionKind()
	return gvk.Group == "batch" && gvk.Kind == "Job"
}

// withHooks is a set with hooks, which may be made anew.
func withHooks(set apply.Set, group []*unstructured.Unstructured, run string) apply.Set {
	set.Objects, set.Terms.Recreate = slices.Clone(set.Objects), slices.Clone(set.Terms.Recreate)
	for _, o := range group {
		d := dressed(o, run)
		set.Objects = append(set.Objects, d)
		if isJob(d) {
			set.Terms.Recreate = append(set.Terms.Recreate, terms.Pattern{Kind: "Job.batch", Namespace: cmp.Or(d.GetNamespace(), set.Namespace), Name: d.GetName()})
		}
	}
	return set
}

// withAllHooks is a set with all hooks of what it was read from, to be tried out.
func withAllHooks(set apply.Set, rendered []byte, first bool) (apply.Set, error) {
	for _, when := range []turn{before, after} {
		groups, err := hooks(rendered, when, first)
		if err != nil {
			return set, err
		}
		set = withHooks(set, slices.Concat(groups...), "check")
	}
	return set, nil
}

// hookRun names the delivery under way for its hooks.
func (w *worker) hookRun() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %d", w.name, w.rec.Delivery.Target, w.rec.Delivery.Started.UnixNano()))
	return fmt.Sprintf("%x", sum[:8])
}

func (w *worker) first() bool { return w.rec.Installation.Running == "" }

// ahead is what is on the cluster while the first hooks run: all that runs, and of the release what does
// nothing by itself and has not been there.
func (w *worker) ahead() (apply.Set, error) {
	set, err := w.nextSet()
	if moves := w.rec.Installation.Namespace != w.ledger.Plan.Namespace; err != nil || w.first() || moves {
		set.Objects = slices.DeleteFunc(set.Objects, func(o *unstructured.Unstructured) bool { return !apply.Inert(o) })
		return set, err
	}
	now, err := w.runningSet()
	if err != nil {
		return set, err
	}
	has := map[string]bool{}
	id := func(o *unstructured.Unstructured) string {
		return fmt.Sprintf("%s %s/%s", o.GroupVersionKind().GroupKind(), cmp.Or(o.GetNamespace(), set.Namespace), o.GetName())
	}
	for _, o := range now.Objects {
		has[id(o)] = true
	}
	set.Objects = slices.DeleteFunc(set.Objects, func(o *unstructured.Unstructured) bool { return has[id(o)] || !apply.Inert(o) })
	set.Objects, set.Terms = slices.Concat(now.Objects, set.Objects), now.Terms
	return set, nil
}

// outcome of a turn's hooks: at most one is set; the zero outcome: all have ended well.
type outcome struct {
	waits  string // for what
	failed string // why; it is final
	lost   time.Duration
}

// hook sees to the hooks of a turn, one weight after the other; base is what is on the cluster beside them.
func (w *worker) hook(ctx context.Context, when turn, base func() (apply.Set, error)) (outcome, error) {
	groups, err := hooks(w.rec.Delivery.Manifest, when, w.first())
	if err != nil {
		return outcome{failed: err.Error()}, nil
	}
	var all []*unstructured.Unstructured
	for _, group := range groups {
		all = append(all, group...)
		if w.through(group) {
			continue
		}
		set, err := base()
		if err != nil {
			return outcome{failed: err.Error()}, nil
		}
		o, err := w.hookGroup(ctx, withHooks(set, w.unended(all), w.hookRun()), group)
		if err != nil || o != (outcome{}) {
			return o, err
		}
	}
	return outcome{}, nil
}

// hookGroup makes the hooks of one weight, and looks whether they have ended.
func (w *worker) hookGroup(ctx context.Context, set apply.Set, group []*unstructured.Unstructured) (outcome, error) {
	since, err := w.beginHooks(group)
	if err != nil {
		return outcome{}, err
	}
	e, err := w.send(ctx, set, delivery.Applied)
	if err != nil || e.Kind == delivery.Refuse {
		return outcome{failed: e.Reason}, err
	}
	report, err := w.a.cfg.Observe.Hooks(ctx, w.ledger.Inventory, group)
	if err != nil {
		return outcome{}, err
	}
	now := time.Now()
	most := cmp.Or(w.sub.HookTimeout, config.DefaultHookTimeout)
	switch took := now.Sub(since); {
	case report.Health == fleet.Healthy:
		return outcome{}, w.endHooks(w.names(group), took)
	case report.Health == fleet.Degraded:
		return outcome{failed: "a hook failed: " + report.Message + w.logsOf(group)}, nil
	case took > most:
		return outcome{failed: fmt.Sprintf("a hook has not ended after %s: %s; hookTimeout in spoke.yaml says how long it may take", most, report.Message)}, nil
	}
	o := outcome{waits: "waits for a hook: " + report.Message}
	if lost := now.Sub(w.watch.last); lost > w.state.Timeout/8 { // not at each look: the journal is written for it
		o.lost, w.watch.last = lost, now
	}
	return o, nil
}

// logsOf is how to read why a Job failed; after half a first install it is gone.
func (w *worker) logsOf(group []*unstructured.Unstructured) string {
	for _, o := range group {
		if isJob(o) && !w.first() {
			return fmt.Sprintf("; see: kubectl -n %s logs job/%s", cmp.Or(o.GetNamespace(), w.ledger.Plan.Namespace), o.GetName())
		}
	}
	return ""
}

// names are objects as an inventory names them.
func (w *worker) names(group []*unstructured.Unstructured) (all []string) {
	for _, o := range group {
		i := apply.Item{GroupVersionKind: o.GroupVersionKind(), Namespace: cmp.Or(o.GetNamespace(), w.ledger.Plan.Namespace), Name: o.GetName()}
		all = append(all, i.String())
	}
	return all
}

// hookEnded: the hook ended well in this delivery.
func (w *worker) hookEnded(name string) bool {
	h := w.ledger.Hooks[name]
	return h.Run == w.hookRun() && h.Done
}

func (w *worker) through(group []*unstructured.Unstructured) bool {
	return !slices.ContainsFunc(w.names(group), func(name string) bool { return !w.hookEnded(name) })
}

// unended leaves out the Jobs that ended: were one gone by now, it would be run again.
func (w *worker) unended(all []*unstructured.Unstructured) []*unstructured.Unstructured {
	return slices.DeleteFunc(slices.Clone(all), func(o *unstructured.Unstructured) bool {
		return isJob(o) && w.hookEnded(w.names([]*unstructured.Unstructured{o})[0])
	})
}

// beginHooks records that hooks are about to be made, once, and answers when that was.
func (w *worker) beginHooks(group []*unstructured.Unstructured) (since time.Time, err error) {
	run, names := w.hookRun(), w.names(group)
	if h := w.ledger.Hooks[names[0]]; h.Run == run {
		return h.Since, nil
	}
	was, next := w.ledger.Hooks, map[string]hookRun{}
	for name, h := range was {
		if h.Run == run { // others are of a delivery that is over
			next[name] = h
		}
	}
	since = time.Now()
	for _, name := range names {
		next[name] = hookRun{Run: run, Since: since}
	}
	w.ledger.Hooks = next
	if err = w.record(w.rec); err != nil {
		w.ledger.Hooks = was
	}
	w.watch.last = since
	return since, err
}

// endHooks records that hooks ended well.
func (w *worker) endHooks(names []string, took time.Duration) error {
	was := w.ledger.Hooks
	next := maps.Clone(was)
	for _, name := range names {
		h := next[name]
		h.Done = true
		next[name] = h
	}
	w.ledger.Hooks = next
	text := fmt.Sprintf("hooks of %s ended well after %s: %s", w.state.Target, took.Round(time.Second), strings.Join(names, ", "))
	w.log.Info("hooks ended well", logging.Version, w.state.Target, "hooks", names, "took", took.Round(time.Millisecond))
	err := w.record(w.rec, event(time.Now(), w.rec.Installation, fleet.EventAgent, text))
	if err != nil {
		w.ledger.Hooks = was
	}
	return err
}

// keptHooks is an inventory with the hooks that the last delivery made, whatever became of it: their logs are
// wanted until the next one.
func (w *worker) keptHooks(keep apply.Inventory) apply.Inventory {
	for _, i := range w.ledger.Items {
		of := i
		of.Namespace = cmp.Or(i.Namespace, w.ledger.Plan.Namespace)
		if _, made := w.ledger.Hooks[of.String()]; made && i.Hook && i.Leaving {
			i.Leaving = false
			keep.Items = append(keep.Items, i)
		}
	}
	return keep
}

// afterwards sees to the hooks of a release that is well; what was observed stands when they have ended.
func (w *worker) afterwards(ctx context.Context, seen delivery.Event) (delivery.Event, error) {
	o, err := w.hook(ctx, after, w.nextSet)
	switch {
	case err != nil:
		return delivery.Event{}, err
	case o.failed != "":
		return delivery.Event{Kind: delivery.Tested, Verdict: delivery.Fail, Reason: o.failed}, nil
	case o.waits != "":
		return delivery.Event{Kind: delivery.Observed, Health: fleet.InProgress, Reason: o.waits, Lost: o.lost}, nil
	}
	return seen, nil
}
