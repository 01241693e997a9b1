package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/cluster"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/course"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/follow"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/route"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// What --hand-over can say beside the leaders' names.
const (
	handAuto = "auto"
	handNone = "none"
)

var errFollows = errors.New("the course follows somebody else: call Follow, and Abort for the way back")

// handing is a Subject of which somebody else leads services.
type handing struct {
	subject        *pluginv1.Subject
	reader         reader
	coming, stable []strategy.Object
	canaries       []strategy.Object // of the release to come
	rollouts       []strategy.Object
	leaders        []string // those that lead
	followed       []follow.Service
	warnings       []string
}

func (h *handing) any() bool { return len(h.followed) > 0 }

func isCanary(o strategy.Object) bool {
	return document.Group(o) == "flagger.app" && document.Text(o, "kind") == "Canary"
}

func isRollout(o strategy.Object) bool {
	return document.Group(o) == "argoproj.io" && document.Text(o, "kind") == "Rollout"
}

// read takes a Subject apart. What is wrong with its streams is in the problems.
func (h *handing) read() {
	h.reader = reader{namespace: h.subject.GetNamespace(), seen: map[string]bool{}}
	for _, s := range h.subject.GetServices() {
		name := "Service " + s.GetName()
		h.coming = append(h.coming, h.reader.once(h.reader.stream(name, "declared", s.GetDeclared()))...)
		h.coming = append(h.coming, h.reader.once(h.reader.stream(name, "candidate", s.GetCandidate()))...)
		h.stable = append(h.stable, h.reader.stream(name, "stable", s.GetStable())...)
	}
	h.coming = append(h.coming, h.reader.once(h.reader.stream("the release", "objects", h.subject.GetObjects()))...)
	for _, o := range h.coming {
		switch {
		case isCanary(o):
			h.canaries = append(h.canaries, o)
		case isRollout(o):
			h.rollouts = append(h.rollouts, o)
		}
	}
}

// handOver finds out who leads what. Where the plugin leads everything itself nobody is followed and no
// problem is named: what is wrong then is found by who reads the release for that.
func (c *canary) handOver(ctx context.Context, subject *pluginv1.Subject) (*handing, error) {
	h := &handing{subject: subject}
	if c.settings.handOver == "" || c.settings.handOver == handNone || subject == nil {
		return h, nil
	}
	h.read()
	if len(h.reader.problems) > 0 {
		return &handing{subject: subject}, nil
	}
	h.leaders = []string{c.settings.handOver}
	if c.settings.handOver == handAuto {
		var err error
		if h.leaders, err = c.whoLeads(ctx, h); err != nil {
			return h, err
		}
	}
	h.follow()
	return h, nil
}

// whoLeads: Flagger leads where it has a status on one of the release's Canaries: nobody else may lead those
// then, and definitions alone tell of no controller. A Rollout can be led by its own controller only.
func (c *canary) whoLeads(ctx context.Context, h *handing) ([]string, error) {
	var out []string
	if len(h.rollouts) > 0 {
		out = append(out, follow.Rollouts)
	}
	if len(h.canaries) == 0 {
		return out, nil
	}
	server, end, err := c.open()
	if err != nil {
		return nil, err
	}
	defer end()
	view := cluster.New(server)
	for _, o := range h.canaries {
		live, err := view.Read(ctx, []course.Query{{Kind: route.Kind{Group: "flagger.app", Kind: "Canary"}, Namespace: h.namespace(o)}})
		if err != nil {
			return nil, err
		}
		for _, l := range live {
			if document.Text(l, "metadata", "name") == document.Text(o, "metadata", "name") && document.Text(l, "status", "phase") != "" {
				return append(out, follow.Flagger), nil
			}
		}
	}
	return out, nil
}

func (h *handing) namespace(o strategy.Object) string {
	return cmp.Or(document.Text(o, "metadata", "namespace"), h.subject.GetNamespace())
}

func (h *handing) id(o strategy.Object) string {
	return document.Text(o, "kind") + " " + h.namespace(o) + "/" + document.Text(o, "metadata", "name")
}

func (h *handing) get(set []strategy.Object, group, kind, namespace, name string) strategy.Object {
	for _, o := range set {
		if document.Group(o) == group && document.Text(o, "kind") == kind && h.namespace(o) == namespace && document.Text(o, "metadata", "name") == name {
			return o
		}
	}
	return nil
}

func (h *handing) leads(leader string) bool { return slices.Contains(h.leaders, leader) }

// follow makes the services of what the leaders lead.
func (h *handing) follow() {
	if h.leads(follow.Flagger) {
		for _, o := range h.canaries {
			h.followed = append(h.followed, h.service(o, document.Text(o, "spec", "targetRef", "name")))
		}
	}
	if h.leads(follow.Rollouts) {
		for _, o := range h.rollouts {
			h.followed = append(h.followed, h.service(o, document.Text(o, "spec", "workloadRef", "name")))
		}
	}
}

// service is what one Canary or Rollout leads.
func (h *handing) service(o strategy.Object, workload string) follow.Service {
	s := follow.Service{Kind: document.Text(o, "kind"), Namespace: h.namespace(o), Object: document.Text(o, "metadata", "name"), Workload: workload}
	s.Name = cmp.Or(workload, s.Object)
	group, kind, name := "apps", "Deployment", workload
	if isRollout(o) && workload == "" {
		group, kind, name = "argoproj.io", "Rollout", s.Object
	}
	s.Coming, s.Stable = h.get(h.coming, group, kind, s.Namespace, name), h.get(h.stable, group, kind, s.Namespace, name)
	for _, part := range h.subject.GetServices() {
		own := append(h.reader.stream("", "", part.GetDeclared()), h.reader.stream("", "", part.GetCandidate())...)
		if h.get(own, document.Group(o), s.Kind, s.Namespace, s.Object) != nil {
			s.Name = part.GetName()
		}
	}
	return s
}

// yields are what the leaders write into the release's own objects.
func (h *handing) yields() []*pluginv1.Yield {
	var out []*pluginv1.Yield
	add := func(group, kind, namespace, name string, fields ...string) {
		if o := h.get(h.coming, group, kind, namespace, name); o != nil && name != "" {
			out = append(out, &pluginv1.Yield{Object: h.id(o), Fields: fields})
		}
	}
	for _, s := range h.followed {
		add("apps", "Deployment", s.Namespace, s.Workload, "spec.replicas")
		if s.Kind == "Canary" {
			o := h.get(h.canaries, "flagger.app", "Canary", s.Namespace, s.Object)
			name := cmp.Or(document.Text(o, "spec", "service", "name"), s.Workload)
			add("", "Service", s.Namespace, name, "spec.selector", "spec.ports")
			add("networking.istio.io", "VirtualService", s.Namespace, name, "spec")
			add("networking.istio.io", "DestinationRule", s.Namespace, name, "spec")
			add("gateway.networking.k8s.io", "HTTPRoute", s.Namespace, name, "spec")
			continue
		}
		o := h.get(h.rollouts, "argoproj.io", "Rollout", s.Namespace, s.Object)
		// One with its pods in itself leaves nothing else to its controller. That it is led is known by this too.
		add("argoproj.io", "Rollout", s.Namespace, s.Object, "status")
		for _, how := range []strategy.Object{document.Mapping(o, "spec", "strategy", "canary"), document.Mapping(o, "spec", "strategy", "blueGreen")} {
			for _, key := range []string{"activeService", "previewService", "stableService", "canaryService"} {
				add("", "Service", s.Namespace, document.Text(how, key), "spec.selector")
			}
			istio := document.Mapping(how, "trafficRouting", "istio")
			for _, v := range append(document.Mappings(istio["virtualServices"]), document.Mapping(istio, "virtualService")) {
				add("networking.istio.io", "VirtualService", s.Namespace, document.Text(v, "name"), "spec.http", "spec.tls", "spec.tcp")
			}
			add("networking.istio.io", "DestinationRule", s.Namespace, document.Text(istio, "destinationRule", "name"), "spec.subsets")
		}
	}
	return out
}

// plan answers a course that follows, or what stands in its way.
func (h *handing) plan(ctx context.Context, c *canary, err error) (*pluginv1.PlanResponse, error) {
	if err == nil {
		err = h.check(ctx, c)
	}
	if err != nil {
		return nil, fmt.Errorf("plan %s: %w", h.subject.GetVersionTo(), err)
	}
	out := &pluginv1.PlanResponse{Warnings: h.warnings}
	for _, p := range h.reader.problems {
		out.Problems = append(out.Problems, p.String())
	}
	if len(out.Problems) > 0 {
		return out, nil
	}
	out.Course, out.Yields = &pluginv1.Course{Follows: true}, h.yields()
	for _, s := range h.followed {
		out.Course.Leads = append(out.Course.Leads, &pluginv1.Lead{Service: s.Name, Router: s.Router(), Objects: []string{s.ID()}})
	}
	if !h.leads(follow.Flagger) {
		for _, o := range h.coming {
			if configures(o) {
				out.Consumed = append(out.Consumed, h.id(o))
			}
		}
	}
	return out, nil
}

// followed are the services that a call is about; none: the plugin leads. What the course says counts more
// than what the cluster says now.
func (c *canary) followed(ctx context.Context, kept *pluginv1.Course, subject *pluginv1.Subject) ([]follow.Service, error) {
	if kept != nil && !kept.GetFollows() && len(kept.GetLeads()) > 0 {
		return nil, nil
	}
	if !kept.GetFollows() {
		h, err := c.handOver(ctx, subject)
		return h.followed, err
	}
	h := &handing{subject: subject}
	h.read()
	for _, lead := range kept.GetLeads() {
		if !h.leads(lead.GetRouter()) {
			h.leaders = append(h.leaders, lead.GetRouter())
		}
	}
	h.follow()
	return h.followed, nil
}
