package agent

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/manifest"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
	"github.com/wheelwright-dev/wheelwright/pkg/render"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/config"
)

// configures marks, in a rendered set, an object that is read by a plugin and not applied.
const configures = "wheelwright.dev/configures"

// leader is the plugin that leads traffic to a subscription's releases; "": they are promoted without.
func (a *Agent) leader(sub config.Subscription) string {
	if a.cfg.Plugins == nil || sub.Canary.None {
		return ""
	}
	all := a.cfg.Plugins.Named(pluginv1.Kind_KIND_CANARY)
	switch {
	case sub.Canary.Plugin != "":
		return sub.Canary.Plugin
	case len(all) > 0:
		return all[0]
	}
	return ""
}

// past is the release that another one is laid beside; zero: there is none.
type past struct {
	version  string
	manifest []byte
}

func (w *worker) past() past {
	if !w.canReturn() {
		return past{}
	}
	return past{w.rec.Installation.Running, w.rec.Manifest}
}

// laid is a rendered release, with what a canary plugin makes of it.
type laid struct {
	render.Result
	course *pluginv1.Course // nil or without steps: it is promoted at once
}

// planned has the canary plugin read what a release declares: its configuration is marked, what the bundle
// leaves out is added. What is wrong with it is a BuildError.
func (a *Agent) planned(ctx context.Context, in input, p plan, version string, was past, res render.Result, bundle []provenance.File) (laid, error) {
	if err := errors.Join(unyielding(res.Manifest), hookable(res.Manifest, was.manifest, p.Namespace)); err != nil {
		return laid{}, err
	}
	name := a.leader(in.sub)
	if name == "" {
		return laid{Result: res}, nil
	}
	subject, private, err := a.subjectOf(in.sub.Distribution, p.Namespace, was, past{version, res.Manifest}, true)
	if err != nil {
		return laid{}, err
	}
	after, err := render.Order(bundle)
	if err != nil {
		return laid{}, err
	}
	for _, unknown := range ordered(subject.GetServices(), after) {
		a.cfg.Log.Warn("wheelwright.yaml orders a service that the release does not have", logging.Version, version, "service", unknown)
	}
	plugin, err := a.cfg.Plugins.Canary(name)
	if err != nil {
		return laid{}, fmt.Errorf("plugin %s: %w", name, err)
	}
	id := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q", a.cfg.Cluster, in.sub.Distribution, was.version, res.Digest))
	r, err := plugin.Plan(ctx, &pluginv1.PlanRequest{Call: &pluginv1.Call{Id: fmt.Sprintf("%x", id[:10])}, Subject: subject})
	if err != nil {
		return laid{}, fmt.Errorf("plan the canary of %s: %w", version, errors.New(private.Text(err.Error())))
	}
	for _, text := range r.GetWarnings() {
		a.cfg.Log.Warn("a plugin does not understand all that the release declares", logging.Plugin, name, logging.Version, version, logging.Reason, private.Text(text))
	}
	if problems := r.GetProblems(); len(problems) > 0 {
		b := &render.BuildError{}
		for _, text := range problems {
			b.Problems = append(b.Problems, "canary: "+oneLine(private.Text(text)))
		}
		return laid{}, b
	}
	out := laid{Result: res, course: r.GetCourse()}
	out.Manifest, out.Objects, err = completed(res.Manifest, r.GetObjects(), r.GetConsumed(), r.GetYields(), p.Namespace)
	if err != nil {
		return laid{}, fmt.Errorf("take in what plugin %s adds to %s: %w", name, version, err)
	}
	out.Digest = fleet.Digest(fmt.Sprintf("sha256:%x", sha256.Sum256(out.Manifest)))
	return out, nil
}

// ordered tells each service which others step before it, and answers the names that are nobody's.
func ordered(services []*pluginv1.Service, after map[string][]string) (unknown []string) {
	has := func(name string) bool {
		return slices.ContainsFunc(services, func(s *pluginv1.Service) bool { return s.GetName() == name })
	}
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if !has(name) {
			unknown = append(unknown, name)
		}
		for _, earlier := range after[name] {
			if !has(earlier) {
				unknown = append(unknown, earlier)
			}
		}
	}
	for _, s := range services {
		s.After = slices.DeleteFunc(slices.Clone(after[s.GetName()]), func(earlier string) bool { return !has(earlier) })
	}
	return unknown
}

// completed is a set with objects added that it does not have, and with those marked that are read only, or
// whose fields are left to who leads.
func completed(set, added []byte, consumed []string, yields []*pluginv1.Yield, namespace string) ([]byte, int, error) {
	objs, err := manifest.Parse(set)
	if err != nil {
		return nil, 0, err
	}
	more, err := manifest.Parse(added)
	if err != nil {
		return nil, 0, err
	}
	id := func(o *unstructured.Unstructured) string {
		return fmt.Sprintf("%s %s/%s", o.GetKind(), cmp.Or(o.GetNamespace(), namespace), o.GetName())
	}
	for _, o := range more {
		same := func(b *unstructured.Unstructured) bool {
			return b.GroupVersionKind().GroupKind() == o.GroupVersionKind().GroupKind() && id(b) == id(o)
		}
		if !slices.ContainsFunc(objs, same) {
			objs = append(objs, o)
		}
	}
	left := 0
	for _, o := range objs {
		if slices.Contains(consumed, id(o)) {
			mark(o, configures, "canary")
		}
		if err := yield(o, id(o), yields); err != nil {
			return nil, 0, err
		}
		if applied(o) {
			left++
		}
	}
	text, err := manifest.Canonical(objs)
	return text, left, err
}

// applied: the object is a part of what runs: what configures a plugin is not, nor a test, nor a hook.
func applied(o *unstructured.Unstructured) bool {
	notes := o.GetAnnotations()
	_, hook, _ := manifest.ReadHook(o)
	return !hook && notes[configures] == "" && notes["wheelwright.dev/test"] == ""
}

// applicable are the objects of a set that are applied.
func applicable(objs []*unstructured.Unstructured) []*unstructured.Unstructured {
	return slices.DeleteFunc(objs, func(o *unstructured.Unstructured) bool { return !applied(o) })
}

// mark puts a note of ours on an object of a rendered set.
func mark(o *unstructured.Unstructured, key, text string) {
	notes := o.GetAnnotations()
	if notes == nil {
		notes = map[string]string{}
	}
	notes[key] = text
	o.SetAnnotations(notes)
}

// unmarked takes the marks off again, in place: they are nobody else's business.
func unmarked(objs []*unstructured.Unstructured) {
	for _, o := range objs {
		notes := o.GetAnnotations()
		before := len(notes)
		delete(notes, configures)
		delete(notes, yieldsNote)
		if len(notes) == before {
			continue
		}
		if len(notes) == 0 {
			notes = nil
		}
		o.SetAnnotations(notes)
	}
}
