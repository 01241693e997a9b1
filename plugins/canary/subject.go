package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/course"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/route"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
	"github.com/wheelwright-dev/wheelwright/plugins/internal/kube"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// release is a Subject as it is understood.
type release struct {
	version   string
	namespace string // of objects that name none
	members   []course.Member
	course    course.Course
	objects   []strategy.Object // of the release to come
	names     map[string]string // the Subject's name of a service -> that of its Service object
	warnings  []strategy.Problem
}

// led are the members that have a canary.
func (r release) led() []course.Member {
	return slices.DeleteFunc(slices.Clone(r.members), func(m course.Member) bool { return !m.Led })
}

// configures tells whether an object says how to lead, and is nothing on a cluster without Flagger.
func configures(o strategy.Object) bool {
	return document.Group(o) == "flagger.app" && slices.Contains([]string{"Canary", "MetricTemplate", "AlertProvider"}, document.Text(o, "kind"))
}

// consumed are the objects that are read here and are not applied.
func (r release) consumed() []string {
	var out []string
	for _, o := range r.objects {
		if configures(o) {
			out = append(out, r.id(o))
		}
	}
	slices.Sort(out)
	return out
}

// id names an object as the contract does.
func (r release) id(o strategy.Object) string {
	return document.Text(o, "kind") + " " + cmp.Or(document.Text(o, "metadata", "namespace"), r.namespace) + "/" + document.Text(o, "metadata", "name")
}

// mistakable are the consumed objects that share their name with one of another group, which would be left
// out with them.
func (r release) mistakable() []strategy.Problem {
	var out []strategy.Problem
	consumed := r.consumed()
	for _, o := range r.objects {
		if !configures(o) && slices.Contains(consumed, r.id(o)) {
			out = append(out, strategy.Problem{Object: r.id(o), Field: "metadata.name", Message: "is that of Flagger's " + document.Text(o, "kind") + " too, which is not applied; rename one of them"})
		}
	}
	return out
}

// wire is the Subject's name of a service.
func (r release) wire(service string) string {
	for name, own := range r.names {
		if own == service {
			return name
		}
	}
	return service
}

// understand reads a Subject. An error is strategy.Problems where what it declares is the reason.
func (c *canary) understand(subject *pluginv1.Subject) (release, error) {
	if subject == nil {
		return release{}, errors.New("the call has no subject")
	}
	out := release{version: subject.GetVersionTo(), namespace: subject.GetNamespace(), names: map[string]string{}}
	read := reader{namespace: subject.GetNamespace(), seen: map[string]bool{}}
	var running []strategy.Object
	after := map[string][]string{}
	for _, s := range subject.GetServices() {
		declared := read.stream("Service "+s.GetName(), "declared", s.GetDeclared())
		out.objects = append(out.objects, read.once(declared)...)
		out.objects = append(out.objects, read.once(read.stream("Service "+s.GetName(), "candidate", s.GetCandidate()))...)
		running = append(running, read.stream("Service "+s.GetName(), "stable", s.GetStable())...)
		own := s.GetName()
		for _, o := range declared {
			own = cmp.Or(document.Text(o, "spec", "service", "name"), document.Text(o, "spec", "targetRef", "name"), own)
		}
		out.names[s.GetName()] = own
		if len(declared) == 0 && s.GetStrategy() > pluginv1.Strategy_STRATEGY_NONE {
			read.wrong("Service "+s.GetName(), "declared", "missing, though it asks for a canary; hand over its Canary object, or no strategy")
		}
	}
	out.objects = append(out.objects, read.once(read.stream("the release", "objects", subject.GetObjects()))...)
	for _, s := range subject.GetServices() {
		for _, earlier := range s.GetAfter() {
			own := out.names[s.GetName()]
			after[own] = append(after[own], cmp.Or(out.names[earlier], earlier))
		}
	}
	for name, list := range after { // who has no Canary is replaced at promotion, and nobody can wait for that
		after[name] = slices.DeleteFunc(list, func(earlier string) bool { return !read.declares(out.objects, earlier) })
		if !read.declares(out.objects, name) {
			delete(after, name)
		}
	}
	read.problems = append(read.problems, out.mistakable()...)
	if len(read.problems) > 0 {
		return out, strategy.Problems(read.problems)
	}
	found, err := strategy.Read(out.objects, strategy.Options{Namespace: subject.GetNamespace(), Router: c.router, After: after, SelectorKeys: c.selectorKeys})
	out.warnings = found.Warnings
	if err != nil {
		return out, err
	}
	return out, c.gather(&out, found.Services, running, subject.GetNamespace())
}

// gather makes the members of what was read.
func (c *canary) gather(out *release, services []strategy.Service, running []strategy.Object, namespace string) error {
	var problems strategy.Problems
	var walking []strategy.Service
	for _, s := range services {
		r, err := route.For(s.Router, c.options...)
		if err != nil {
			return err
		}
		m := course.Member{Service: s, Version: out.version, Running: running, Coming: out.objects, Routers: []route.Router{r},
			Making: strategy.Making{Namespace: namespace, SelectorKeys: c.selectorKeys}}
		m.Led = len(s.Steps) > 0 && slices.ContainsFunc(running, func(o strategy.Object) bool {
			return document.Group(o) == "apps" && document.Text(o, "kind") == "Deployment" && document.Text(o, "metadata", "name") == s.Target.Name &&
				cmp.Or(document.Text(o, "metadata", "namespace"), namespace) == s.Namespace
		})
		if m.Led {
			walking = append(walking, s)
		}
		if s.Suspended {
			problems = append(problems, strategy.Problem{Object: "Canary " + s.Namespace + "/" + s.Canary, Field: "spec.suspend", Message: "holds it; take suspend out to go on"})
		}
		out.members = append(out.members, m)
	}
	out.course = course.Of(walking)
	if len(problems) > 0 {
		return problems
	}
	return nil
}

// abandoned are the members of a Subject that cannot be understood: enough of them to lead back whatever
// was led by an earlier, better one.
func (c *canary) abandoned(subject *pluginv1.Subject) []course.Member {
	var routers []route.Router
	for _, name := range []string{strategy.RouterNone, strategy.RouterGatewayAPI, strategy.RouterLinkerd, strategy.RouterIstio, strategy.RouterNGINX} {
		if r, err := route.For(name, c.options...); err == nil {
			routers = append(routers, r)
		}
	}
	var out []course.Member
	for _, s := range subject.GetServices() {
		read := reader{namespace: subject.GetNamespace(), seen: map[string]bool{}}
		m := course.Member{Version: subject.GetVersionTo(), Routers: routers, Making: strategy.Making{Namespace: subject.GetNamespace()}}
		m.Service = strategy.Service{Name: s.GetName(), Namespace: subject.GetNamespace(), Target: strategy.Ref{APIVersion: "apps/v1", Kind: "Deployment", Name: s.GetName()}}
		for _, o := range read.stream("", "", s.GetDeclared()) {
			m.Target.Name = cmp.Or(document.Text(o, "spec", "targetRef", "name"), m.Target.Name)
			m.Name = cmp.Or(document.Text(o, "spec", "service", "name"), m.Target.Name)
			m.Namespace = cmp.Or(document.Text(o, "metadata", "namespace"), m.Namespace)
		}
		m.Running = read.stream("", "", s.GetStable())
		for _, o := range m.Running {
			labels := document.Mapping(o, "spec", "selector", "matchLabels")
			for _, key := range c.selectorKeys {
				if document.Text(o, "kind") == "Deployment" && document.Text(o, "metadata", "name") == m.Target.Name && m.Label == "" && labels[key] != nil {
					m.Label = key
				}
			}
		}
		if m.Name != "" { // nothing is made for who has none, and nothing may be taken for its
			out = append(out, m)
		}
	}
	return out
}

// reader collects what is wrong with streams.
type reader struct {
	namespace string
	seen      map[string]bool
	problems  []strategy.Problem
}

func (r *reader) wrong(object, field, format string, args ...any) {
	r.problems = append(r.problems, strategy.Problem{Object: object, Field: field, Message: fmt.Sprintf(format, args...)})
}

func (r *reader) stream(object, field string, text []byte) []strategy.Object {
	read, err := kube.ReadObjects(text)
	if err != nil {
		r.wrong(object, field, "is no stream of objects: %v; correct its YAML", err)
	}
	out := make([]strategy.Object, len(read))
	for i, o := range read {
		out[i] = o
	}
	return out
}

// once leaves out what has been before: the declaration may be among the objects too.
func (r *reader) once(objects []strategy.Object) []strategy.Object {
	return slices.DeleteFunc(slices.Clone(objects), func(o strategy.Object) bool {
		key := document.Group(o) + " " + document.Text(o, "kind") + " " + cmp.Or(document.Text(o, "metadata", "namespace"), r.namespace) + "/" + document.Text(o, "metadata", "name")
		known := r.seen[key]
		r.seen[key] = true
		return known
	})
}

// declares tells whether a Canary leads the Service of that name.
func (r *reader) declares(objects []strategy.Object, service string) bool {
	return slices.ContainsFunc(objects, func(o strategy.Object) bool {
		return document.Text(o, "kind") == "Canary" && document.Group(o) == "flagger.app" &&
			cmp.Or(document.Text(o, "spec", "service", "name"), document.Text(o, "spec", "targetRef", "name")) == service
	})
}
