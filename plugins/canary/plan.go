package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/cluster"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/course"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// Plan answers the course of the whole release, rehearsed on the cluster's own routes.
func (c *canary) Plan(ctx context.Context, r *pluginv1.PlanRequest) (*pluginv1.PlanResponse, error) {
	if r.GetSubject() == nil {
		return nil, errors.New("plan: the call has no subject")
	}
	if handed, err := c.handOver(ctx, r.GetSubject()); err != nil || handed.any() {
		return handed.plan(ctx, c, err)
	}
	p := plan{}
	rel, err := c.understand(r.GetSubject())
	for _, w := range rel.warnings {
		p.warn(w.String())
	}
	if !p.reject(err) && err != nil {
		return nil, fmt.Errorf("plan %s: %w", rel.version, err)
	}
	if len(p.problems) == 0 {
		for _, m := range rel.members {
			c.planMember(&p, rel, m)
		}
	}
	if len(p.problems) == 0 && len(p.leads) > 0 {
		if err := c.rehearse(ctx, &p, rel); err != nil {
			return nil, fmt.Errorf("plan %s: %w", rel.version, err)
		}
	}
	out := &pluginv1.PlanResponse{Warnings: p.warnings, Problems: p.problems}
	if len(p.problems) == 0 {
		out.Consumed = rel.consumed()
		out.Course, out.Objects = &pluginv1.Course{Leads: p.leads}, []byte(strings.Join(p.objects, "---\n"))
		for _, s := range rel.course.Steps {
			out.Course.Steps = append(out.Course.Steps, rel.wireStep(s))
		}
	}
	return out, nil
}

// plan is what is found out for one answer.
type plan struct {
	leads              []*pluginv1.Lead
	objects            []string
	warnings, problems []string
}

func (p *plan) warn(text string) {
	if !slices.Contains(p.warnings, text) {
		p.warnings = append(p.warnings, text)
	}
}

// reject takes an error that is about what is declared; false: it is about something else.
func (p *plan) reject(err error) bool {
	if err == nil {
		return false
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all := true
		for _, one := range joined.Unwrap() {
			all = p.reject(one) && all
		}
		return all
	}
	problems, ok := errors.AsType[strategy.Problems](err)
	for _, problem := range problems {
		if text := problem.String(); !slices.Contains(p.problems, text) {
			p.problems = append(p.problems, text)
		}
	}
	return ok
}

func (c *canary) planMember(p *plan, rel release, m course.Member) {
	service, err := m.StableObject(true)
	if err != nil {
		p.problems = append(p.problems, err.Error())
		return
	}
	if service != nil {
		text, err := yaml.Marshal(service)
		if err != nil {
			p.problems = append(p.problems, err.Error())
			return
		}
		p.objects = append(p.objects, string(text))
	}
	if !m.Led {
		return
	}
	candidate, err := m.Candidate(0)
	if err != nil {
		p.problems = append(p.problems, err.Error())
		return
	}
	for _, w := range candidate.Warnings {
		p.warn(w.String())
	}
	lead := &pluginv1.Lead{Service: rel.wire(m.Name), Strategy: wireStrategy(m.Strategy), Router: m.Router}
	for _, o := range candidate.Objects() {
		lead.Objects = append(lead.Objects, cluster.ID(o))
	}
	checks := c.checks(rel, m)
	for _, w := range slices.Concat(checks.unmeasured, c.unloaded(m, checks)) {
		p.warn(w)
	}
	p.problems = append(p.problems, checks.problems...)
	lead.Objectives = checks.objectives()
	p.leads = append(p.leads, lead)
}

// rehearse finds what would go wrong with the cluster's routes, before anything is changed.
func (c *canary) rehearse(ctx context.Context, p *plan, rel release) error {
	server, end, err := c.open()
	if err != nil {
		return err
	}
	defer end()
	live, err := look(ctx, cluster.New(server), rel.led(), false)
	if err != nil {
		return err
	}
	warnings, err := course.Rehearse(rel.members, rel.spread(), live)
	for _, w := range warnings {
		p.warn(w)
	}
	if err != nil && !p.reject(err) {
		return err
	}
	return nil
}
