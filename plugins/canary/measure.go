package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/cluster"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/course"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/measure"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/route"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

const (
	sourcePrometheus = "prometheus"
	sourceKubernetes = "kubernetes"
)

// checks are what is asked about one service.
type checks struct {
	prometheus []measure.Check
	pods       []measure.Objective
	problems   []string // what can never be asked
	unmeasured []string // what nobody can tell here
}

// checks resolves what a service declares. Where nothing of it can be measured, its pods are.
func (c *canary) checks(rel release, m course.Member) checks {
	var out checks
	templates := func(name string) (measure.MetricTemplate, error) { return rel.template(name) }
	model := measure.Model{Name: m.Canary, Namespace: m.Namespace, Target: m.Target.Name + strategy.Suffix, Kind: m.Target.Kind,
		Stable: m.Target.Name, Service: m.Name, Ingress: cmp.Or(m.Ingress.Name, rel.ingress(m)), Route: m.Name}
	for _, metric := range m.Metrics {
		d := measure.Declared{Name: metric.Name, Interval: metric.Interval, Min: metric.Min, Max: metric.Max, Query: metric.Query, Variables: metric.Variables}
		if metric.Template.Name != "" {
			d.Template = metric.Template.Namespace + "/" + metric.Template.Name
		}
		check, err := d.Check(m.Router, model, measure.Policy{MinimumSample: c.minimum, OnInconclusive: c.withoutTraffic(m, metric)}, templates)
		switch {
		case err != nil:
			out.problems = append(out.problems, fmt.Sprintf("Canary %s/%s: spec.analysis.metrics: %v", m.Namespace, m.Canary, err))
		case c.prometheus.Address == "" && (check.Template == nil || check.Template.Address == ""):
			out.unmeasured = append(out.unmeasured, fmt.Sprintf("Canary %s/%s: metric %s is not measured: there is no Prometheus; give its address with --prometheus. Its pods are measured", m.Namespace, m.Canary, metric.Name))
		default:
			out.prometheus = append(out.prometheus, check)
		}
	}
	if len(out.prometheus) == 0 && len(out.problems) == 0 {
		out.pods = measure.PodObjectives(orMinute(m.Interval))
	}
	return out
}

func (c checks) objectives() []*pluginv1.Objective {
	var out []*pluginv1.Objective
	for _, check := range c.prometheus {
		out = append(out, check.Wire(sourcePrometheus, check.Query.Value))
	}
	for _, o := range c.pods {
		out = append(out, o.Wire(sourceKubernetes, ""))
	}
	return out
}

// template finds a MetricTemplate among the release's objects.
func (r release) template(name string) (measure.MetricTemplate, error) {
	for _, o := range r.objects {
		if document.Text(o, "kind") != "MetricTemplate" || document.Text(o, "metadata", "name") != name[strings.IndexByte(name, '/')+1:] {
			continue
		}
		namespace, _, _ := strings.Cut(name, "/")
		if own := document.Text(o, "metadata", "namespace"); own != "" && own != namespace {
			continue
		}
		text, err := yaml.Marshal(o)
		if err != nil {
			return measure.MetricTemplate{}, err
		}
		t, _, err := measure.ParseTemplate(text)
		t.Namespace = cmp.Or(t.Namespace, namespace)
		return t, err
	}
	return measure.MetricTemplate{}, fmt.Errorf("the release has no MetricTemplate %s; add it", name)
}

// ingress is the first one of the release that leads to the service.
func (r release) ingress(m course.Member) string {
	for _, o := range r.objects {
		if document.Text(o, "kind") != "Ingress" {
			continue
		}
		if text, err := json.Marshal(document.At(o, "spec")); err == nil && bytes.Contains(text, []byte(`"service":{"name":"`+m.Name+`"`)) {
			return document.Text(o, "metadata", "name")
		}
	}
	return ""
}

// Measure asks everything that can be known about the step's candidates, and counts.
func (c *canary) Measure(ctx context.Context, r *pluginv1.MeasureRequest) (*pluginv1.MeasureResponse, error) {
	if r.GetCourse().GetFollows() {
		return nil, errFollows
	}
	rel, err := c.understand(r.GetSubject())
	if err != nil {
		return nil, fmt.Errorf("measure: %w", err)
	}
	if _, err := rel.told(r.GetStep()); err != nil {
		return nil, err
	}
	at := time.Now()
	if r.GetTo() != nil {
		at = r.GetTo().AsTime()
	}
	asked := c.ask(ctx, rel, rel.measured(r.GetStep()), r.GetFrom().AsTime(), at)
	c.wind(r.GetSubject(), r.GetStep(), asked)
	out := &pluginv1.MeasureResponse{Counted: rel.tallies(r.GetCounted())}
	var names []string
	var all []measure.Verdict
	var over []string
	for _, a := range asked {
		for _, v := range a.verdicts {
			metric := v.Metric(rel.wire(a.member.Name))
			out.Metrics = append(out.Metrics, metric)
			if v.Outcome == measure.Pass {
				metric.Verdict.Reason = a.load
			}
			names, all = append(names, rel.wire(a.member.Name)), append(all, v)
		}
		counted := rel.count(out.Counted, a)
		if (measure.Threshold{Total: uint32(a.member.Threshold)}).Reached(counted) {
			over = append(over, fmt.Sprintf("%s failed %d of at most %d checks", rel.wire(a.member.Name), counted.Failed, a.member.Threshold))
		}
	}
	out.Verdict = measure.Pool(names, all).Wire()
	if out.Verdict.GetOutcome() == pluginv1.Outcome_OUTCOME_PASS {
		out.Verdict.Reason = loads(rel, asked)
	}
	if out.Over = len(over) > 0; out.Over {
		reason := strings.Join(over, "; ")
		if out.Verdict.GetOutcome() == pluginv1.Outcome_OUTCOME_FAIL {
			reason += ": " + out.Verdict.GetReason()
		}
		out.Verdict.Outcome, out.Verdict.Reason = pluginv1.Outcome_OUTCOME_FAIL, reason
	}
	return out, nil
}

// measured are the members that are under way in a step: who waits for others has nothing to show yet.
func (r release) measured(step *pluginv1.CanaryStep) []course.Member {
	var own map[string]course.Position
	for _, s := range r.course.Steps {
		if s.Number == int(step.GetNumber()) {
			own = s.At
		}
	}
	var out []course.Member
	for _, m := range r.led() {
		i := slices.IndexFunc(step.GetTraffic(), func(t *pluginv1.Traffic) bool { return r.names[t.GetService()] == m.Name })
		if i < 0 || own[m.Name].Waiting && step.GetTraffic()[i].GetWeight() == 0 && step.GetTraffic()[i].GetMirror() == 0 {
			continue
		}
		out = append(out, m)
	}
	return out
}

// asked is what one service's checks have come to.
type asked struct {
	member   course.Member
	verdicts []measure.Verdict
	load     string // what is to be said of load that the plugin made; empty: it made none
}

// ask asks all services' checks, as of one moment.
func (c *canary) ask(ctx context.Context, rel release, members []course.Member, from, at time.Time) []asked {
	out := make([]asked, len(members))
	var all []measure.Check
	var whose []int
	lists := map[string][]course.Object{}
	for i, m := range members {
		out[i].member = m
		todo := c.checks(rel, m)
		for _, check := range todo.prometheus {
			all, whose = append(all, check), append(whose, i)
		}
		for _, problem := range todo.problems {
			out[i].verdicts = append(out[i].verdicts, measure.Verdict{Objective: "declared", Outcome: measure.Inconclusive, Cause: measure.NoBound, Reason: problem})
		}
		if len(todo.pods) > 0 {
			out[i].verdicts = append(out[i].verdicts, c.podVerdicts(ctx, m, todo.pods, lists, from, at)...)
		}
	}
	servers := servers{canary: c, known: map[string]*measure.Prometheus{}}
	defer servers.close()
	for _, check := range all {
		servers.prepare(ctx, check) // here, and not by many at once
	}
	for i, v := range measure.JudgeAll(ctx, all, at, servers.of) {
		out[whose[i]].verdicts = append(out[whose[i]].verdicts, v)
	}
	return out
}

// podVerdicts judges by the candidate's pods; each namespace's are read once.
func (c *canary) podVerdicts(ctx context.Context, m course.Member, objectives []measure.Objective, lists map[string][]course.Object, from, at time.Time) []measure.Verdict {
	pods, err := c.pods(ctx, m, lists, at)
	var out []measure.Verdict
	for _, o := range objectives {
		s := measure.Samples{Cause: measure.Unreachable}
		if err != nil {
			s.Problem = err.Error()
		} else {
			s = pods.Samples(o.Name, from)
		}
		out = append(out, measure.Judge(at, o, s))
	}
	return out
}

func (c *canary) pods(ctx context.Context, m course.Member, lists map[string][]course.Object, at time.Time) (measure.Pods, error) {
	list, known := lists[m.Namespace]
	if !known {
		server, end, err := c.open()
		if err != nil {
			return measure.Pods{}, err
		}
		defer end()
		list, err = cluster.New(server).Read(ctx, []course.Query{{Kind: route.Kind{Kind: "Pod"}, Namespace: m.Namespace, Selector: strategy.LabelCandidateOf}})
		if err != nil {
			return measure.Pods{}, err
		}
		lists[m.Namespace] = list
	}
	own := slices.DeleteFunc(slices.Clone(list), func(o course.Object) bool {
		return document.Text(o, "metadata", "labels", strategy.LabelCandidateOf) != m.Name
	})
	text, err := json.Marshal(map[string]any{"items": own})
	if err != nil {
		return measure.Pods{}, err
	}
	return measure.ReadPods(text, m.Target.Name+strategy.Suffix, 0, at)
}

// servers are the Prometheus servers of one measurement.
type servers struct {
	*canary
	known  map[string]*measure.Prometheus
	failed map[string]error
}

func serverKey(check measure.Check) string {
	if check.Template == nil || check.Template.Address == "" {
		return ""
	}
	return fmt.Sprint(check.Template.Address, " ", check.Template.Namespace, "/", check.Template.Secret, " ", check.Template.Insecure)
}

func (s *servers) prepare(ctx context.Context, check measure.Check) {
	key := serverKey(check)
	if s.known[key] != nil || s.failed[key] != nil {
		return
	}
	config, err := s.canary.prometheus, error(nil)
	if key != "" {
		config = measure.Config{Address: check.Template.Address, Insecure: check.Template.Insecure}
		if check.Template.Secret != "" {
			config.Secret, err = s.secret(ctx, check.Template.Namespace, check.Template.Secret)
		}
	}
	if err == nil {
		s.known[key], err = measure.NewPrometheus(config)
	}
	if err != nil {
		if s.failed == nil {
			s.failed = map[string]error{}
		}
		s.failed[key] = err
	}
}

func (s *servers) of(check measure.Check) (*measure.Prometheus, error) {
	return s.known[serverKey(check)], s.failed[serverKey(check)]
}

func (s *servers) close() {
	for _, p := range s.known {
		if p != nil {
			p.Close()
		}
	}
}

// secret is what a MetricTemplate's provider is asked with.
func (s *servers) secret(ctx context.Context, namespace, name string) (map[string][]byte, error) {
	server, end, err := s.open()
	if err != nil {
		return nil, err
	}
	defer end()
	o, err := cluster.New(server).Get(ctx, "Secret", namespace, name)
	if err != nil {
		return nil, err
	}
	if o == nil {
		return nil, fmt.Errorf("there is no Secret %s/%s; make it, or take secretRef out of the MetricTemplate", namespace, name)
	}
	out := map[string][]byte{}
	for key := range document.Mapping(o, "data") {
		value, err := base64.StdEncoding.DecodeString(document.Text(o, "data", key))
		if err != nil {
			return nil, errors.New("the Secret " + namespace + "/" + name + " has no base64 under " + key)
		}
		out[key] = value
	}
	return out, nil
}

// tallies are the counts so far, one for every service that has a canary.
func (r release) tallies(before []*pluginv1.Tally) []*pluginv1.Tally {
	var out []*pluginv1.Tally
	for _, m := range r.led() {
		t := &pluginv1.Tally{Service: r.wire(m.Name)}
		for _, b := range before {
			if b.GetService() == t.Service {
				t.Passed, t.Failed, t.Inconclusive = b.GetPassed(), b.GetFailed(), b.GetInconclusive()
			}
		}
		out = append(out, t)
	}
	return out
}

// count adds one service's check.
func (r release) count(tallies []*pluginv1.Tally, a asked) measure.Tally {
	i := slices.IndexFunc(tallies, func(t *pluginv1.Tally) bool { return t.GetService() == r.wire(a.member.Name) })
	if i < 0 {
		return measure.Tally{}
	}
	t := tallies[i]
	n := measure.Tally{Passed: t.Passed, Failed: t.Failed, Inconclusive: t.Inconclusive}.Add(measure.Pool(nil, a.verdicts).Outcome)
	t.Passed, t.Failed, t.Inconclusive = n.Passed, n.Failed, n.Inconclusive
	return n
}
