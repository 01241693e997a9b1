package agent

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/wheelwright-dev/wheelwright/pkg/manifest"
	"github.com/wheelwright-dev/wheelwright/pkg/probe"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
	"github.com/wheelwright-dev/wheelwright/pkg/redact"
	"github.com/wheelwright-dev/wheelwright/pkg/render"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// subject is the delivery under way, as plugins are told of it, and what keeps the values of its secrets
// out of what they answer. Only who has to make copies of them is told the values: else it is names and keys.
func (w *worker) subject(whole bool) (*pluginv1.Subject, *redact.Sink, error) {
	d := w.rec.Delivery
	was := past{w.rec.Installation.Running, w.rec.Manifest}
	s, private, err := w.a.subjectOf(w.name, w.ledger.Plan.Namespace, was, past{d.Target, d.Manifest}, whole)
	if err != nil || whole {
		return s, private, err
	}
	b, _, err := w.a.openVerified(w.sub, d.Bundle, d.Target)
	if err != nil {
		return nil, nil, fmt.Errorf("read what %s declares: %w", d.Target, err)
	}
	s.Objects, err = declared(s.Objects, b.Files())
	return s, private, err
}

func (a *Agent) subjectOf(name, namespace string, was, to past, whole bool) (*pluginv1.Subject, *redact.Sink, error) {
	next, err := a.parse(name, to.manifest)
	if err != nil {
		return nil, nil, fmt.Errorf("read the rendered set of %s: %w", to.version, err)
	}
	now, err := a.parse(name, was.manifest)
	if err != nil {
		return nil, nil, fmt.Errorf("read the rendered set that runs: %w", err)
	}
	unmarked(next)
	unmarked(now)
	private := append(secrets(next, !whole), secrets(now, !whole)...)
	s := &pluginv1.Subject{Distribution: name, VersionFrom: was.version, VersionTo: to.version, Namespace: namespace, Cluster: string(a.cfg.Cluster)}
	if s.Services, s.Objects, err = divided(now, next); err != nil {
		return nil, nil, err
	}
	return s, redact.Of(private), nil
}

// declared puts the tests of a release's wheelwright.yaml behind its objects, as a document of their own.
func declared(objects []byte, files []provenance.File) ([]byte, error) {
	section, err := render.Tests(files)
	if err != nil || section == nil {
		return objects, err
	}
	document, err := probe.Document(section)
	if err != nil {
		return nil, err
	}
	if len(objects) > 0 {
		objects = append(slices.Clip(objects), "---\n"...)
	}
	return append(objects, document...), nil
}

// divided makes a service of every workload, with the Services that lead to it, and one stream of the rest.
func divided(now, next []*unstructured.Unstructured) (services []*pluginv1.Service, rest []byte, err error) {
	parts := map[*unstructured.Unstructured]bool{}
	var names []string
	for _, o := range next {
		if !isWorkload(o) {
			continue
		}
		mine := part(next, o)
		for _, p := range mine {
			parts[p] = true
		}
		s := &pluginv1.Service{Name: o.GetName(), Strategy: pluginv1.Strategy_STRATEGY_NONE}
		if slices.Contains(names, s.Name) {
			s.Name = strings.ToLower(o.GetKind()) + "/" + o.GetNamespace() + "/" + o.GetName()
		}
		names = append(names, s.Name)
		if s.Candidate, err = manifest.Canonical(mine); err != nil {
			return nil, nil, err
		}
		i := slices.IndexFunc(now, func(b *unstructured.Unstructured) bool {
			return b.GroupVersionKind() == o.GroupVersionKind() && b.GetName() == o.GetName() && b.GetNamespace() == o.GetNamespace()
		})
		if i >= 0 {
			if s.Stable, err = manifest.Canonical(part(now, now[i])); err != nil {
				return nil, nil, err
			}
		}
		services = append(services, s)
	}
	rest, err = manifest.Canonical(slices.DeleteFunc(slices.Clone(next), func(o *unstructured.Unstructured) bool { return parts[o] }))
	return services, rest, err
}

// isWorkload: a Rollout is one where it has its pods in itself; else it is about the Deployment that has them.
func isWorkload(o *unstructured.Unstructured) bool {
	switch o.GroupVersionKind().Group {
	case "apps":
		return slices.Contains([]string{"Deployment", "StatefulSet", "DaemonSet"}, o.GetKind())
	case "argoproj.io":
		_, own, _ := unstructured.NestedMap(o.Object, "spec", "template")
		return own && o.GetKind() == "Rollout"
	}
	return false
}

// part is a workload and the Services that lead to its pods.
func part(objs []*unstructured.Unstructured, workload *unstructured.Unstructured) []*unstructured.Unstructured {
	pods, _, _ := unstructured.NestedStringMap(workload.Object, "spec", "template", "metadata", "labels")
	all := []*unstructured.Unstructured{workload}
	for _, o := range objs {
		if gvk := o.GroupVersionKind(); gvk.Group != "" || gvk.Kind != "Service" || o.GetNamespace() != workload.GetNamespace() {
			continue
		}
		selector, _, _ := unstructured.NestedStringMap(o.Object, "spec", "selector")
		if len(selector) > 0 && labels.SelectorFromSet(selector).Matches(labels.Set(pods)) {
			all = append(all, o)
		}
	}
	return all
}
