package main

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/cluster"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/course"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/load"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/measure"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// delivery names whose load it is.
func delivery(s *pluginv1.Subject) string { return s.GetNamespace() + "/" + s.GetDistribution() }

// stepOf names a step of a delivery.
func stepOf(s *pluginv1.Subject, step *pluginv1.CanaryStep) string {
	return fmt.Sprintf("%d of %s", step.GetNumber(), s.GetVersionTo())
}

// withoutTraffic is what is done about a metric that rests on too few requests.
func (c *canary) withoutTraffic(m course.Member, metric strategy.Metric) measure.OnInconclusive {
	if c.load == nil || spoken(m.Main) != "" || passedBy(m, metric) {
		return measure.Hold
	}
	return measure.GenerateLoad
}

// passedBy tells whether the metric is of requests that come through a router which load does not take.
func passedBy(m course.Member, metric strategy.Metric) bool {
	return m.Router == strategy.RouterNGINX && metric.Query == "" && metric.Template.Name == ""
}

// spoken is what a port says that it speaks, where plain HTTP would be answered with an error; the name of a
// port says so too, before a dash.
func spoken(p strategy.Port) string {
	name, _, _ := strings.Cut(p.Name, "-")
	protocol := strings.ToLower(cmp.Or(p.AppProtocol, name))
	if slices.Contains([]string{"https", "grpc", "grpcs", "tls", "tcp", "udp", "mongo", "mysql", "redis", "kubernetes.io/wss"}, protocol) {
		return protocol
	}
	return ""
}

// unloaded are warnings of a Plan: why load that is asked for is not made, or is not enough.
func (c *canary) unloaded(m course.Member, todo checks) []string {
	if c.load == nil {
		return nil
	}
	id := "Canary " + m.Namespace + "/" + m.Canary + ": "
	if protocol := spoken(m.Main); protocol != "" {
		return []string{fmt.Sprintf("%sno load is generated: port %d of Service %s speaks %s, and load is HTTP; give the release a load test, as a webhook of type rollout", id, m.Main.Port, m.Name, protocol)}
	}
	var out []string
	for _, metric := range m.Metrics {
		if passedBy(m, metric) {
			out = append(out, fmt.Sprintf("%sno load is generated for %s: it is counted at the Ingress, which generated load does not pass; give the metric a query that counts at the pods", id, metric.Name))
		}
	}
	for _, check := range todo.prometheus {
		made := c.rate * check.Interval.Seconds()
		if check.OnInconclusive == measure.GenerateLoad && float64(check.MinimumSample) > made {
			out = append(out, fmt.Sprintf("%s%s: --generate-load %g makes %.0f requests in %s, too few for --minimum-sample %d; give at least %g", id, check.Name, c.rate, math.Floor(made), check.Interval, check.MinimumSample,
				math.Ceil(10*float64(check.MinimumSample)/check.Interval.Seconds())/10))
		}
	}
	return out
}

// wind gives load to whom requests are missing, for two intervals, and says in a verdict of everybody who has
// load in this step how much it is. It changes no outcome.
func (c *canary) wind(subject *pluginv1.Subject, step *pluginv1.CanaryStep, asked []asked) {
	if c.load == nil || step.GetNumber() == 0 {
		return
	}
	for i := range asked {
		a := &asked[i]
		t := load.Target{Delivery: delivery(subject), Step: stepOf(subject, step), Namespace: a.member.Namespace,
			Service: a.member.Service.Candidate(), Known: a.member.Name, Port: a.member.Main.Port, Path: a.member.LoadPath}
		if idle(a.verdicts) {
			a.load = c.said(t, c.load.Wind(t, 2*interval(a.member, step)), true)
		} else if r := c.load.Look(t); r.Sent > 0 {
			a.load = c.said(t, r, false)
		}
		i := slices.IndexFunc(a.verdicts, func(v measure.Verdict) bool { return v.Outcome != measure.Pass })
		if i >= 0 && a.load != "" {
			a.verdicts[i].Reason += "; " + a.load
		}
	}
}

// idle tells whether a service lacks requests: too few are counted, or nobody counts them, nothing is known and
// no other metric has counted enough.
func idle(verdicts []measure.Verdict) bool {
	missing, unknown, enough := false, false, false
	for _, v := range verdicts {
		switch {
		case v.Do == measure.GenerateLoad && v.Cause == measure.NoTraffic:
			missing = true
		case v.Do == measure.GenerateLoad:
			unknown = true
		}
		enough = enough || v.Sample > 0 && v.Sample >= v.Minimum
	}
	return missing || unknown && !enough
}

// interval is that of the step, or else of the service.
func interval(m course.Member, step *pluginv1.CanaryStep) time.Duration {
	return orMinute(cmp.Or(step.GetInterval().AsDuration(), m.Interval))
}

// said is a report for people.
func (c *canary) said(t load.Target, r load.Report, goesOn bool) string {
	out := fmt.Sprintf("%d requests so far were the plugin's own, to %s", r.Sent, t.URL())
	if goesOn {
		out = fmt.Sprintf("the plugin makes %g requests a second to %s, %d so far", c.rate, t.URL(), r.Sent)
	}
	if r.Unreached() {
		out += fmt.Sprintf(", and none was answered (%s): see that the spoke's Pod may connect to the candidate's", r.Trouble)
	}
	return out
}

// loads is what is said of all services that had load.
func loads(rel release, asked []asked) string {
	var out []string
	for _, a := range asked {
		if a.load != "" {
			out = append(out, rel.wire(a.member.Name)+": "+a.load)
		}
	}
	return strings.Join(out, "; ")
}

// whereabouts is the cluster address of a candidate's Service, so that it is reached on a node and outside of
// pods too; empty where it cannot be known: the name is looked up then.
func (c *canary) whereabouts(ctx context.Context, t load.Target) string {
	server, end, err := c.open()
	if err != nil {
		return ""
	}
	defer end()
	o, err := cluster.New(server).Get(ctx, "Service", t.Namespace, t.Service)
	if at := document.Text(o, "spec", "clusterIP"); err == nil && net.ParseIP(at) != nil {
		return at
	}
	return ""
}
