package strategy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
)

// Options is what a release's objects do not say.
type Options struct {
	Namespace    string              // of objects that name none
	Router       string              // of services whose Canary names no provider; empty: RouterNone
	After        map[string][]string // service -> services that step before it
	SelectorKeys []string            // labels that tell workloads apart, the first one present counts; nil: SelectorKeys
}

// SelectorKeys are the labels that tell one workload's pods from another's, as Flagger takes them.
func SelectorKeys() []string { return []string{"app", "name", "app.kubernetes.io/name"} }

// Suffix is what a candidate's name ends with.
const Suffix = "-canary"

// Release is what a release asks for.
type Release struct {
	// Services in the order in which they step: those before that others come after, else by name.
	Services []Service
	// Warnings name every field that is unknown or not acted on.
	Warnings []Problem
}

// Read reads the Canary objects among a release's objects. An error is Problems, and names everything
// that is wrong.
func Read(objects []Object, o Options) (Release, error) {
	o.Router = cmp.Or(o.Router, RouterNone)
	r := &report{}
	all := newSet(objects, o.Namespace)
	var services []Service
	for _, object := range objects {
		if document.Group(object) == "flagger.app" && document.Text(object, "kind") == "Canary" {
			services = append(services, readCanary(r, all, object, o))
		}
	}
	r.overlaps(services)
	services = r.order(services, o.After)
	if len(r.problems) > 0 {
		return Release{Warnings: r.warnings}, Problems(r.problems)
	}
	return Release{services, r.warnings}, nil
}

func canaryID(namespace, name string) string {
	return "Canary " + strings.TrimPrefix(namespace+"/"+name, "/")
}

func (s Service) id() string { return canaryID(s.Namespace, s.Canary) }

// overlaps names workloads, autoscalers and Service objects that two canaries want: each would undo the
// other's steps.
func (r *report) overlaps(services []Service) {
	taken := map[string]Service{}
	claim := func(s Service, what, field, advice string) {
		key := s.Namespace + " " + what
		if first, twice := taken[key]; twice {
			r.problems = append(r.problems, Problem{s.id(), field, fmt.Sprintf("%s is that of %s too; %s", what, first.id(), advice)})
			return
		}
		taken[key] = s
	}
	for _, s := range services {
		claim(s, "Canary "+s.Canary, "metadata.name", "give each its own name")
		if s.Target.Name != "" {
			claim(s, s.Target.String(), "spec.targetRef", "keep one Canary for a workload")
			claim(s, "Service "+s.Name, "spec.service.name", "write another name here or there")
			claim(s, "Service "+s.Candidate(), "spec.service.name", "write another name here or there")
		}
		if s.Autoscaler.Name != "" {
			claim(s, s.Autoscaler.String(), "spec.autoscalerRef", "name the autoscaler of this workload")
		}
	}
}

// order puts every service behind those that it comes after.
func (r *report) order(services []Service, after map[string][]string) []Service {
	byName := map[string]Service{}
	for _, s := range services {
		if other, twice := byName[s.Name]; twice && other.Namespace != s.Namespace {
			r.problems = append(r.problems, Problem{s.id(), "spec.service.name", fmt.Sprintf("%s is the name of a service in namespace %s too, and a release knows each name once; write another", s.Name, other.Namespace)})
		}
		byName[s.Name] = s
	}
	wrong := func(key, format string, args ...any) {
		r.problems = append(r.problems, Problem{"wheelwright.yaml", "after." + key, fmt.Sprintf(format, args...)})
	}
	known := strings.Join(slices.Sorted(maps.Keys(byName)), ", ")
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if _, ok := byName[name]; !ok {
			wrong(name, "no Canary leads a service of that name; known: %s", known)
			continue
		}
		for _, earlier := range after[name] {
			if _, ok := byName[earlier]; !ok {
				wrong(name, "%s: no Canary leads a service of that name; known: %s", earlier, known)
			}
		}
	}
	var out []Service
	var path []string
	state := map[string]int{} // 1: on the path, 2: in out
	var visit func(name string)
	visit = func(name string) {
		s, ok := byName[name]
		if !ok || state[name] == 2 {
			return
		}
		if state[name] == 1 {
			circle := append(slices.Clone(path[slices.Index(path, name):]), name)
			wrong(name, "%s wait for each other; take one of them out", strings.Join(circle, " after "))
			return
		}
		state[name] = 1
		path = append(path, name)
		s.After = slices.Compact(slices.Sorted(slices.Values(after[name])))
		for _, earlier := range s.After {
			visit(earlier)
		}
		path = path[:len(path)-1]
		state[name] = 2
		out = append(out, s)
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		visit(name)
	}
	return out
}
