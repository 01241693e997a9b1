package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/cluster"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/course"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/follow"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/route"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
)

// check finds what would keep the leaders from leading, by what the release says and by what the cluster has.
func (h *handing) check(ctx context.Context, c *canary) error {
	server, end, err := c.open()
	if err != nil {
		return err
	}
	defer end()
	view := cluster.New(server)
	if h.leads(follow.Flagger) {
		err = h.checkCanaries(ctx, view)
	} else {
		h.checkUnled()
	}
	if err != nil {
		return err
	}
	if h.leads(follow.Rollouts) {
		return h.checkRollouts(ctx, view)
	}
	for _, o := range h.rollouts {
		h.warnings = append(h.warnings, h.id(o)+": is not followed: --hand-over flagger is about Canaries only; auto follows both")
	}
	return nil
}

func (h *handing) served(ctx context.Context, view *cluster.View, o strategy.Object, kind route.Kind, who string) (bool, error) {
	there, err := view.Serves(ctx, kind, h.namespace(o))
	if err == nil && !there {
		h.reader.wrong(h.id(o), "kind", "the cluster has no %s of %s; install %s, or start the plugin without --hand-over", kind.Kind, kind.Group, who)
	}
	return there, err
}

// deployment wants one of that name in the release.
func (h *handing) deployment(o strategy.Object, field, name string) {
	if h.get(h.coming, "apps", "Deployment", h.namespace(o), name) != nil {
		return
	}
	var names []string
	for _, other := range h.coming {
		if document.Group(other) == "apps" && document.Text(other, "kind") == "Deployment" && h.namespace(other) == h.namespace(o) {
			names = append(names, document.Text(other, "metadata", "name"))
		}
	}
	slices.Sort(names)
	h.reader.wrong(h.id(o), field, "the release has no Deployment %s/%s; write the name of one that it has: %s", h.namespace(o), name, strings.Join(names, ", "))
}

func (h *handing) checkCanaries(ctx context.Context, view *cluster.View) error {
	kind := route.Kind{Group: "flagger.app", Kind: "Canary"}
	targets := map[string]string{}
	for _, o := range h.canaries {
		there, err := h.served(ctx, view, o, kind, "Flagger")
		if err != nil {
			return err
		}
		name := document.Text(o, "spec", "targetRef", "name")
		if k := document.Text(o, "spec", "targetRef", "kind"); k != "Deployment" {
			h.reader.wrong(h.id(o), "spec.targetRef.kind", "is %q; only how Flagger leads a Deployment can be followed", k)
		} else {
			h.deployment(o, "spec.targetRef.name", name)
		}
		key := h.namespace(o) + "/" + name
		if other := targets[key]; other != "" {
			h.reader.wrong(h.id(o), "spec.targetRef", "Deployment %s is that of %s too; keep one Canary for a workload", name, other)
		}
		targets[key] = h.id(o)
		if document.At(o, "spec", "suspend") == true {
			h.reader.wrong(h.id(o), "spec.suspend", "holds it; take suspend out to go on")
		}
		if document.At(o, "spec", "skipAnalysis") == true {
			h.warnings = append(h.warnings, h.id(o)+": spec.skipAnalysis: Flagger promotes it unmeasured")
		}
		if !there {
			continue
		}
		live, err := view.Read(ctx, []course.Query{{Kind: kind, Namespace: h.namespace(o)}})
		if err != nil {
			return err
		}
		for _, l := range live {
			if document.Text(l, "metadata", "name") == document.Text(o, "metadata", "name") && follow.Returning(l) {
				h.reader.wrong(h.id(o), "metadata.annotations", "%s on the cluster says that it is still on its way back to an earlier release, unmeasured; abort that delivery to its end", follow.Annotation)
			}
		}
	}
	return nil
}

func (h *handing) checkRollouts(ctx context.Context, view *cluster.View) error {
	for _, o := range h.rollouts {
		if _, err := h.served(ctx, view, o, route.Kind{Group: "argoproj.io", Kind: "Rollout"}, "Argo Rollouts"); err != nil {
			return err
		}
		if name := document.Text(o, "spec", "workloadRef", "name"); name != "" {
			if k := document.Text(o, "spec", "workloadRef", "kind"); k != "Deployment" {
				h.reader.wrong(h.id(o), "spec.workloadRef.kind", "is %q; only a Deployment can be followed", k)
			} else {
				h.deployment(o, "spec.workloadRef.name", name)
			}
		}
		if document.At(o, "spec", "paused") == true {
			h.reader.wrong(h.id(o), "spec.paused", "holds it; take paused out to go on")
		}
	}
	return nil
}

// checkUnled: a Canary that nobody follows asks for a measurement that nobody makes.
func (h *handing) checkUnled() {
	for _, o := range h.canaries {
		target := document.Text(o, "spec", "targetRef", "name")
		by := slices.IndexFunc(h.followed, func(s follow.Service) bool { return s.Workload == target && s.Namespace == h.namespace(o) })
		if by >= 0 {
			h.warnings = append(h.warnings, fmt.Sprintf("%s: is left out: %s leads its Deployment", h.id(o), h.followed[by].ID()))
			continue
		}
		h.reader.wrong(h.id(o), "spec.targetRef", "Argo Rollouts, to which the release is handed over, does not lead Deployment %s, and nobody would measure it; make a Rollout of it, take the Canary out, or leave Flagger to lead with --hand-over auto", target)
	}
}
