package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"

	"github.com/wheelwright-dev/wheelwright/pkg/probe"
	"github.com/wheelwright-dev/wheelwright/plugins/conformance/internal/asker"
	"github.com/wheelwright-dev/wheelwright/plugins/conformance/internal/job"
	"github.com/wheelwright-dev/wheelwright/plugins/internal/excerpt"
	"github.com/wheelwright-dev/wheelwright/plugins/internal/kube"
	"github.com/wheelwright-dev/wheelwright/plugins/internal/webhook"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// preparation is what a moment asks for.
type preparation struct {
	tests    []test
	warnings []string // of what is declared wrongly
	redactor excerpt.Redactor
	closers  []func()
}

func (p preparation) close() {
	for _, c := range p.closers {
		c()
	}
}

// prepare finds the tests of a moment. cluster may be nil; then what needs one says so when it is run.
func (c *conformance) prepare(r release, m pluginv1.Moment, call string, cluster *kube.Client) preparation {
	secrets := r.secrets()
	dial := kube.DialFunc((&net.Dialer{}).DialContext)
	if cluster != nil {
		secrets = append(secrets, cluster.Secrets()...)
		dial = cluster.Dialer(dial)
	}
	p := preparation{redactor: excerpt.NewRedactor(secrets...)}
	if c.runs(kindWebhooks) {
		c.prepareWebhooks(&p, r, m, dial)
	}
	if m == pluginv1.Moment_MOMENT_BEFORE_TRAFFIC || m == pluginv1.Moment_MOMENT_AFTER_PROMOTION {
		if c.runs(kindProbes) {
			c.prepareProbes(&p, r, m, cluster, dial)
		}
		if c.runs(kindJobs) {
			c.prepareJobs(&p, r, m, call, cluster)
		}
	}
	for i, w := range p.warnings {
		p.warnings[i] = p.redactor.Redact(w)
	}
	if len(p.warnings) > 0 && m == pluginv1.Moment_MOMENT_BEFORE_TRAFFIC {
		p.tests = append([]test{problemsTest(p.warnings)}, p.tests...)
	}
	p.nameApart()
	return p
}

// nameApart gives tests of one name a number.
func (p *preparation) nameApart() {
	seen := map[string]int{}
	for i, t := range p.tests {
		seen[t.name]++
		if n := seen[t.name]; n > 1 {
			p.tests[i].name = fmt.Sprintf("%s #%d", t.name, n)
		}
	}
}

// typeOf is the type of webhook that a moment calls.
func typeOf(m pluginv1.Moment) webhook.Type {
	switch m {
	case pluginv1.Moment_MOMENT_ADMISSION:
		return webhook.ConfirmRollout
	case pluginv1.Moment_MOMENT_BEFORE_TRAFFIC:
		return webhook.PreRollout
	case pluginv1.Moment_MOMENT_STEP:
		return webhook.Rollout
	case pluginv1.Moment_MOMENT_BEFORE_INCREASE:
		return webhook.ConfirmTrafficIncrease
	case pluginv1.Moment_MOMENT_BEFORE_PROMOTION:
		return webhook.ConfirmPromotion
	case pluginv1.Moment_MOMENT_AFTER_PROMOTION:
		return webhook.PostRollout
	case pluginv1.Moment_MOMENT_ROLLBACK:
		return webhook.Rollback
	}
	return ""
}

func (c *conformance) prepareWebhooks(p *preparation, r release, m pluginv1.Moment, dial kube.DialFunc) {
	transport := webhook.Transport(dial)
	p.closers = append(p.closers, transport.CloseIdleConnections)
	client := webhook.New(webhook.Config{NoAnswer: c.noAnswer, Transport: transport, Redactor: p.redactor})
	for _, s := range r.canaries() {
		hooks, problems := webhook.Read(s.canary)
		for _, problem := range problems {
			p.warnings = append(p.warnings, fmt.Sprintf("Canary %s: %s", s.canary.Name(), problem))
		}
		payload := webhook.Payload{Name: s.canary.Name(), Namespace: cmp.Or(s.canary.Namespace(), r.GetNamespace()), Phase: typeOf(m).Phase(), Checksum: s.checksum}
		for _, h := range hooks {
			if h.Type != typeOf(m) {
				continue
			}
			p.tests = append(p.tests, test{name: "webhook " + s.canary.Name() + "/" + h.Name, service: s.GetName(), run: func(ctx context.Context, _ func(string)) result {
				return result{verdict: client.Call(ctx, h, payload)}
			}})
		}
	}
}

// isNow: probes and Jobs name moments as a person writes them.
func isNow(when []string, m pluginv1.Moment) bool {
	word := probe.BeforeTraffic
	if m == pluginv1.Moment_MOMENT_AFTER_PROMOTION {
		word = probe.AfterPromotion
	}
	return slices.Contains(when, word)
}

func (c *conformance) prepareProbes(p *preparation, r release, m pluginv1.Moment, cluster *kube.Client, dial kube.DialFunc) {
	prober := asker.Asker{Dial: dial, Redactor: p.redactor}
	if c.throughAPI && cluster != nil {
		prober.Proxy = cluster.Via()
	}
	declared, problems := r.probes()
	p.warnings = append(p.warnings, problems...)
	for i, one := range append(declared, c.own...) {
		name := "probe " + one.Name
		if i >= len(declared) {
			name = "provider's probe " + one.Name
		}
		s, ok := r.service(one.Service)
		if !ok {
			if i < len(declared) { // the provider's own may be about another release
				p.warnings = append(p.warnings, fmt.Sprintf("%s: service: the release has no Service %s", name, one.Service))
			}
			continue
		}
		port, err := r.port(s, one.Port)
		if err != nil && i < len(declared) {
			p.warnings = append(p.warnings, fmt.Sprintf("%s: %v", name, err))
			continue
		}
		if !isNow(one.When, m) || !r.stands(s, m) {
			continue
		}
		domain := "." + r.namespaceOf(s) + ".svc"
		at := asker.Target{Host: r.target(s, m) + domain, Port: port, Name: s.GetName() + domain}
		p.tests = append(p.tests, test{name: name, service: one.Service, run: func(ctx context.Context, _ func(string)) result {
			if err != nil { // the provider's mistake, which says nothing of the release
				return unable(err)
			}
			if c.throughAPI && cluster == nil && one.HTTP != nil {
				return unable(errNoCredentials)
			}
			return result{verdict: prober.Ask(ctx, one, at)}
		}})
	}
}

// unable is for what could not be done: no evidence.
func unable(err error) result {
	return result{verdict: &pluginv1.Verdict{Outcome: pluginv1.Outcome_OUTCOME_INCONCLUSIVE, Reason: excerpt.OneLine(err.Error(), 400)}}
}

func (c *conformance) prepareJobs(p *preparation, r release, m pluginv1.Moment, call string, cluster *kube.Client) {
	tests, problems := job.Read(r.objects(), r.GetNamespace(), c.jobTimeout)
	p.warnings = append(p.warnings, problems...)
	stay := slices.ContainsFunc(r.services, func(s service) bool { return r.stands(s, m) })
	if !stay && beforePromotion(m) && r.GetVersionFrom() != "" {
		return // nothing of the new release runs yet
	}
	runner := job.Runner{Client: cluster, Redactor: p.redactor, Distribution: r.GetDistribution(), Call: call + "/" + m.String(), Environment: environment(r, m)}
	swept := map[string]bool{}
	for _, t := range tests {
		if !isNow(t.When, m) {
			continue
		}
		p.tests = append(p.tests, test{name: strings.ToLower(t.Kind[:1]) + t.Name[1:], slow: true, run: func(ctx context.Context, tell func(string)) result {
			if cluster == nil {
				return unable(errNoCredentials)
			}
			return c.runJob(ctx, runner, r, m, t, swept, tell)
		}})
	}
}

func (c *conformance) runJob(ctx context.Context, runner job.Runner, r release, m pluginv1.Moment, t job.Test, swept map[string]bool, tell func(string)) result {
	release, err := c.turns.take(ctx, r.GetDistribution())
	if err != nil {
		return unable(err)
	}
	defer release()
	if !swept[t.Namespace] {
		n, err := runner.Sweep(ctx, t.Namespace)
		if err != nil {
			return unable(err)
		}
		if swept[t.Namespace] = true; n > 0 {
			tell(fmt.Sprintf("%d objects that a run before this one left are deleted", n))
		}
	}
	if runner.Hosts, err = hosts(ctx, runner.Client, r, m); err != nil {
		return unable(err)
	}
	done := runner.Run(ctx, t, tell)
	return result{verdict: done.Verdict, log: done.Log}
}

// hosts leads the names of Services that have a candidate to it, within a test's pods: a test that was
// written without Wheelwright asks for backend, and must not pass on the release that runs.
func hosts(ctx context.Context, cluster *kube.Client, r release, m pluginv1.Moment) ([]job.Host, error) {
	var out []job.Host
	for _, s := range r.services {
		if !beforePromotion(m) || !r.hasCandidate(s) {
			continue
		}
		namespace, name := r.namespaceOf(s), r.target(s, m)
		o, err := cluster.Get(ctx, kube.Services(), namespace, name)
		if err != nil {
			return nil, fmt.Errorf("look up Service %s/%s of the candidate: %w", namespace, name, err)
		}
		if at := o.Text("spec", "clusterIP"); net.ParseIP(at) != nil {
			short := s.GetName() + "." + namespace
			out = append(out, job.Host{IP: at, Names: []string{s.GetName(), short, short + ".svc", short + ".svc.cluster.local"}})
		}
	}
	return out, nil
}

var unfit = regexp.MustCompile(`[^A-Z0-9_]`)

// environment is what tests learn of the release: which it is, when it is, and where its services are.
func environment(r release, m pluginv1.Moment) []job.Variable {
	word := probe.BeforeTraffic
	if m == pluginv1.Moment_MOMENT_AFTER_PROMOTION {
		word = probe.AfterPromotion
	}
	out := []job.Variable{{Name: "WHEELWRIGHT_MOMENT", Value: word}, {Name: "WHEELWRIGHT_VERSION", Value: r.GetVersionTo()}}
	for _, s := range r.services {
		name := "WHEELWRIGHT_TARGET_" + unfit.ReplaceAllString(strings.ToUpper(s.GetName()), "_")
		out = append(out, job.Variable{Name: name, Value: r.target(s, m) + "." + r.namespaceOf(s)})
	}
	return out
}
