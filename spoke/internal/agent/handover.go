package agent

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/manifest"
	"github.com/wheelwright-dev/wheelwright/pkg/render"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/delivery"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/journal"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/terms"
)

// yieldsNote marks, in a rendered set, an object of which fields are left to who leads traffic in the canary
// plugin's place. It is kept with the set, so that whoever applies or restores it leaves them too.
const yieldsNote = "wheelwright.dev/yields"

// yieldsBetween stands between fields: no path has a space.
const yieldsBetween = ", "

// yield marks an object with what is to be left of it.
func yield(o *unstructured.Unstructured, id string, yields []*pluginv1.Yield) error {
	var fields []string
	for _, y := range yields {
		if y.GetObject() != id {
			continue
		}
		for _, f := range y.GetFields() {
			if _, err := terms.ParsePath(f); err != nil {
				return fmt.Errorf("what is left to others of %s: %w", id, err)
			}
			fields = append(fields, f)
		}
	}
	if len(fields) > 0 {
		slices.Sort(fields)
		mark(o, yieldsNote, strings.Join(slices.Compact(fields), yieldsBetween))
	}
	return nil
}

// unyielding refuses a release that carries the mark by itself: what is left to others is the provider's.
func unyielding(set []byte) error {
	if !bytes.Contains(set, []byte(yieldsNote)) {
		return nil
	}
	objs, err := manifest.Parse(set)
	if err != nil {
		return fmt.Errorf("read the rendered set: %w", err)
	}
	for _, o := range objs {
		if _, has := o.GetAnnotations()[yieldsNote]; has {
			return &render.BuildError{Problems: []string{fmt.Sprintf("%s %s: the annotation %s is the spoke's own; take it out (what a release leaves to others stands under ignore in spoke.yaml)", o.GetKind(), o.GetName(), yieldsNote)}}
		}
	}
	return nil
}

// withYields are the terms of a set: the provider's, and what its objects leave to who leads. The marks are
// taken off the objects.
func withYields(t terms.Terms, objs []*unstructured.Unstructured, namespace string) (terms.Terms, error) {
	own := t.Ignore
	for _, o := range objs {
		text, has := o.GetAnnotations()[yieldsNote]
		if !has {
			continue
		}
		gvk := o.GroupVersionKind()
		left := terms.Ignore{Object: terms.Pattern{Kind: gvk.Kind + "." + cmp.Or(gvk.Group, "core"), Namespace: cmp.Or(o.GetNamespace(), namespace), Name: o.GetName()}}
		for f := range strings.SplitSeq(text, yieldsBetween) {
			p, err := terms.ParsePath(f)
			if err != nil {
				return t, fmt.Errorf("what is left to others of %s: %w", left.Object, err)
			}
			left.Fields = append(left.Fields, p)
		}
		own = append(slices.Clip(own), left)
		unmarked([]*unstructured.Unstructured{o})
	}
	t.Ignore = own
	return t, nil
}

// withoutMarks is a set for people.
func withoutMarks(set []byte, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	objs, err := manifest.Parse(set)
	if err != nil {
		return nil, fmt.Errorf("read the rendered set: %w", err)
	}
	unmarked(objs)
	return manifest.Canonical(objs)
}

// ledByOthers tells whether others led what runs, so that a return has to go through them too; then rec also
// has what they led, for the plugin to find them by.
func (w *worker) ledByOthers(rec journal.Record) (journal.Record, bool) {
	if w.state.Walk.Led || !bytes.Contains(w.rec.Manifest, []byte(yieldsNote)) || w.a.leader(w.sub) == "" {
		return rec, false
	}
	d := *rec.Delivery
	d.Manifest = w.rec.Manifest
	rec.Delivery = &d
	return rec, true
}

// noteApplied remembers when a release was there for those who lead: what they ended before is not this one's.
// Applied once more after a crash, it is still there since then.
func (w *worker) noteApplied() {
	if !w.state.Walk.Follows() || !w.rec.Delivery.Measured.IsZero() {
		return
	}
	d := *w.rec.Delivery
	d.Measured = time.Now()
	w.rec.Delivery = &d
}

// askLeaders asks how far those have come who lead in the plugin's place.
func (w *worker) askLeaders(ctx context.Context, c call) (delivery.Event, error) {
	r, err := c.plugin.Follow(ctx, &pluginv1.FollowRequest{Call: c.head, Subject: c.subject, Course: c.course, Since: timestamppb.New(w.rec.Delivery.Measured)})
	if err != nil {
		return delivery.Event{}, c.failed("follow who leads traffic to "+w.state.Target, err)
	}
	w.watch.last = time.Now()
	switch v := r.GetVerdict(); v.GetOutcome() {
	case pluginv1.Outcome_OUTCOME_PASS:
		w.log.Info("who leads traffic has promoted all of it", logging.Version, w.state.Target, "services", progress(r, c))
		return delivery.Event{Kind: delivery.Concluded}, nil
	case pluginv1.Outcome_OUTCOME_FAIL:
		return delivery.Event{Kind: delivery.Unled, Reason: short(cmp.Or(refused(r, c), c.clean(v.GetReason()), "who leads traffic has given it up"), longest)}, nil
	}
	waits := cmp.Or(c.clean(r.GetWaitingFor()), c.clean(r.GetVerdict().GetReason()), "a verdict")
	return delivery.Event{Kind: delivery.Waiting, Reason: fmt.Sprintf("led by others: waits for %s (%s)", short(waits, longest/2), short(progress(r, c), longest/2))}, nil
}

// refused are the services that are not to be promoted, each with why.
func refused(r *pluginv1.FollowResponse, c call) string {
	var all []string
	for _, s := range r.GetServices() {
		if v := s.GetVerdict(); v.GetOutcome() == pluginv1.Outcome_OUTCOME_FAIL {
			all = append(all, c.clean(s.GetService()+": "+v.GetReason()))
		}
	}
	return strings.Join(all, "; ")
}

// progress is how far each service is.
func progress(r *pluginv1.FollowResponse, c call) string {
	var all []string
	for _, s := range r.GetServices() {
		text := fmt.Sprintf("%s %s", s.GetService(), cmp.Or(s.GetPhase(), "not seen"))
		if s.GetVerdict() == nil {
			text += fmt.Sprintf(" %d %%", min(s.GetWeight(), 100))
		}
		all = append(all, c.clean(text))
	}
	return strings.Join(all, ", ")
}
