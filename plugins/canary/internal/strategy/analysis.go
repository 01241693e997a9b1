package strategy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
)

func (c *canaryReader) analysis(n node) {
	c.since(n, "analysis")
	c.out.Interval = n.duration("interval", 0)
	if n.fields["interval"] == nil || n.fields["interval"] == "" {
		n.wrong("interval", "missing; write how long to wait between two checks, such as 30s")
	}
	c.out.Threshold = c.threshold(n)
	c.out.StableReady, c.out.CandidateReady = 100, 100
	if ready, ok := n.integer("primaryReadyThreshold", 0, 100); ok {
		c.out.StableReady = ready
	}
	if ready, ok := n.integer("canaryReadyThreshold", 0, 100); ok {
		c.out.CandidateReady = ready
	}
	c.matches(n)
	c.affinity(n)
	c.steps(n)
	for _, m := range n.children("metrics") {
		c.metric(m)
	}
	for _, w := range n.children("webhooks") {
		c.webhook(w)
	}
	n.unused("notifier plugins tell of a delivery", "alerts")
	n.done()
	c.repeated(n)
}

func (c *canaryReader) threshold(n node) int {
	if v, ok := document.Number(n.fields["threshold"]); n.has("threshold") && ok && v == 0 {
		n.wrong("threshold", "is 0; write how many failed checks end the canary, 1 for the first")
		return 0
	}
	if !n.has("threshold") {
		n.wrong("threshold", "missing; write how many failed checks end the canary, 1 for the first")
		return 0
	}
	v, _ := n.integer("threshold", 1, 1000)
	return v
}

// repeated names metrics and webhooks that cannot be told apart.
func (c *canaryReader) repeated(n node) {
	seen := map[string]bool{}
	for i, m := range c.out.Metrics {
		if seen[m.Name] && m.Name != "" {
			n.wrong(fmt.Sprintf("metrics[%d].name", i), "%s is given twice; give each metric its own name", m.Name)
		}
		seen[m.Name] = true
	}
	hooks := map[string]bool{}
	for i, w := range c.out.Webhooks {
		key := string(w.Type) + " " + w.Name
		if hooks[key] && w.Name != "" {
			n.wrong(fmt.Sprintf("webhooks[%d].name", i), "%s is given twice for %s; give each webhook its own name", w.Name, w.Type)
		}
		hooks[key] = true
	}
}

// The metrics that need no query: in which direction their old threshold points.
const (
	SuccessRate = "request-success-rate" // percent; the threshold is the least
	Duration    = "request-duration"     // milliseconds; the threshold is the most
)

func (c *canaryReader) metric(n node) {
	n = own(n)
	c.since(n, "analysis.metrics")
	m := Metric{Name: n.text("name"), Interval: n.duration("interval", time.Minute), Query: n.text("query"), Variables: n.texts("templateVariables")}
	builtin := m.Name == SuccessRate || m.Name == Duration
	if t, ok := n.child("templateRef"); ok {
		t.has("apiVersion")
		t.has("kind")
		m.Template = TemplateRef{t.text("namespace"), t.text("name")}
		t.done()
		if m.Template.Name == "" {
			t.wrong("name", "missing; write the name of a MetricTemplate")
		}
		if m.Template.Namespace == "" {
			m.Template.Namespace = c.out.Namespace
		}
	}
	templated := m.Template.Name != ""
	switch {
	case m.Name == "":
		n.wrong("name", "missing; write %s, %s or a name of your own with a query or a templateRef", SuccessRate, Duration)
	case m.Query != "" && templated:
		n.wrong("query", "stands beside templateRef, and only one can hold; take one of them out")
	case m.Query == "" && !templated && !builtin:
		n.wrong("query", "missing: %s is not built in (%s and %s are); write a query or a templateRef", m.Name, SuccessRate, Duration)
	}
	c.bounds(n, &m)
	n.done()
	c.out.Metrics = append(c.out.Metrics, m)
}

// bounds reads a metric's range, or the threshold that older objects have in its place.
func (c *canaryReader) bounds(n node, m *Metric) {
	old := n.float("threshold")
	if r, ok := n.child("thresholdRange"); ok {
		m.Min, m.Max = r.float("min"), r.float("max")
		r.done()
		switch {
		case m.Min == nil && m.Max == nil && r.fields["min"] == nil && r.fields["max"] == nil:
			r.wrong("", "has neither min nor max; write at least one")
		case m.Min != nil && m.Max != nil && *m.Min > *m.Max:
			r.wrong("min", "%v is above max, %v, which nothing can pass; exchange them", *m.Min, *m.Max)
		}
		if old != nil && *old != 0 {
			n.wrong("threshold", "stands beside thresholdRange, and only one can hold; take threshold out")
		}
	} else if old == nil || *old == 0 {
		if n.fields["threshold"] == nil || old != nil {
			n.wrong("thresholdRange", "missing, so that any value would pass; write min, max or both below it")
		}
	} else if m.Name == SuccessRate && m.Query == "" && m.Template.Name == "" {
		m.Min = old
	} else {
		m.Max = old
	}
	if m.Name == SuccessRate && m.Query == "" && m.Template.Name == "" && m.Min != nil && (*m.Min < 0 || *m.Min > 100) {
		n.wrong("thresholdRange", "%v is no percentage; write one from 0 to 100", *m.Min)
	}
}

var hooks = []Hook{ConfirmRollout, PreRollout, Rollout, ConfirmTrafficIncrease, ConfirmPromotion, PostRollout, Rollback, Event}

func (c *canaryReader) webhook(n node) {
	n = own(n)
	c.since(n, "analysis.webhooks")
	w := Webhook{Name: n.text("name"), Type: Hook(n.text("type")), URL: n.text("url"), Timeout: n.duration("timeout", 10*time.Second),
		Mute: n.boolean("muteAlert"), Metadata: n.texts("metadata")}
	w.Retries, _ = n.integer("retries", 0, 100)
	n.done()
	if w.Type == "" {
		w.Type = Rollout
	}
	if !slices.Contains(hooks, w.Type) {
		n.wrong("type", "%s is no kind of webhook; write one of %s", w.Type, join(hooks))
	}
	if w.Name == "" {
		n.wrong("name", "missing; write a name that a person knows it by")
	}
	if !strings.HasPrefix(w.URL, "http://") && !strings.HasPrefix(w.URL, "https://") {
		n.wrong("url", "%q: write a URL that starts with http:// or https://", w.URL)
	}
	c.out.Webhooks = append(c.out.Webhooks, w)
}

func join[T ~string](list []T) string {
	var out []string
	for _, item := range list {
		out = append(out, string(item))
	}
	return strings.Join(out, ", ")
}

// matches reads the conditions of an A/B test. One that no router can evaluate is left out and reported:
// they are alternatives, so that leaving one out leads fewer users to the candidate, never more.
func (c *canaryReader) matches(n node) {
	for _, m := range n.children("match") {
		m.has("name")
		for _, key := range []string{"uri", "scheme", "method", "authority", "port", "sourceLabels", "sourceNamespace", "queryParams", "gateways", "withoutHeaders", "ignoreUriCase"} {
			if m.has(key) {
				m.wrong(key, "an A/B test goes by headers and cookies only, and without this condition it would take in more users; take it out")
			}
		}
		headers, ok := m.child("headers")
		m.done()
		if !ok || len(headers.fields) == 0 {
			m.wrong("headers", "missing; write a header's name and exact, prefix or regex below it")
			continue
		}
		var match Match
		usable := true
		for _, name := range sortedKeys(headers.fields) {
			h, fits := c.header(headers, name)
			match.Headers = append(match.Headers, h)
			usable = usable && fits
		}
		if usable {
			c.out.Matches = append(c.out.Matches, match)
		}
	}
	if list, _ := n.fields["match"].([]any); len(list) > 0 && len(c.out.Matches) == 0 {
		n.wrong("match", "none of its conditions can be evaluated; write at least one that can")
	}
}

func (c *canaryReader) header(headers node, name string) (Header, bool) {
	h := Header{Name: strings.ToLower(name)}
	m, ok := headers.child(name)
	if !ok {
		return h, false
	}
	ops := 0
	for _, op := range []string{"exact", "prefix", "suffix", "regex"} {
		if m.has(op) {
			ops++
			h.Op, h.Value = Op(op), m.text(op)
		}
	}
	m.done()
	if ops != 1 {
		m.wrong("", "has %d of exact, prefix, suffix and regex; write one", ops)
		return h, false
	}
	if h.Op == "suffix" {
		h.Op, h.Value = Regex, ".*"+regexp.QuoteMeta(h.Value)
	}
	if h.Op == Regex {
		if _, err := regexp.Compile(h.Value); err != nil {
			m.warn("regex", "is no RE2 expression, which is what routers evaluate (%v); this alternative is left out; write it without what RE2 has not", err)
			return h, false
		}
	}
	if i := strings.IndexFunc(h.Value, func(r rune) bool { return r < ' ' }); i >= 0 {
		m.warn(string(h.Op), "has a control character, which no header has; in YAML a backslash in double quotes is written twice")
		return h, false
	}
	return h, true
}

func (c *canaryReader) affinity(n node) {
	m, ok := n.child("sessionAffinity")
	if !ok {
		return
	}
	c.out.Affinity = Affinity{Cookie: m.text("cookieName"), MaxAge: 24 * time.Hour}
	if seconds, ok := m.integer("maxAge", 1, 400*24*3600); ok {
		c.out.Affinity.MaxAge = time.Duration(seconds) * time.Second
	}
	c.out.Affinity.Attributes = attributes(m)
	m.unused("who is at the stable side is not held there, so that the candidate's share can grow", "primaryCookieName")
	m.done()
	if !cookieName.MatchString(c.out.Affinity.Cookie) {
		m.wrong("cookieName", "%q is no name of a cookie; write letters, digits, - and _", c.out.Affinity.Cookie)
	}
	switch c.out.Router {
	case RouterNone, RouterLinkerd:
		m.wrong("", "router %s cannot set a cookie for the candidate alone; take sessionAffinity out, or write provider: istio or gatewayapi:v1", c.out.Router)
	}
}

// attributes spells what else the cookie is to have.
func attributes(m node) []string {
	out := []string{"Path=/"}
	if path := m.text("path"); path != "" {
		out[0] = "Path=" + path
	}
	if domain := m.text("domain"); domain != "" {
		out = append(out, "Domain="+domain)
	}
	switch site := m.text("sameSite"); site {
	case "":
	case "Strict", "Lax", "None":
		out = append(out, "SameSite="+site)
	default:
		m.wrong("sameSite", "%s: write Strict, Lax or None", site)
	}
	for _, flag := range []struct{ key, name string }{{"httpOnly", "HttpOnly"}, {"secure", "Secure"}, {"partitioned", "Partitioned"}} {
		if m.boolean(flag.key) {
			out = append(out, flag.name)
		}
	}
	for _, attribute := range out {
		if strings.ContainsAny(attribute, ";\r\n") {
			m.wrong("", "%q is no attribute of a cookie; write path and domain without semicolons", attribute)
		}
	}
	return out
}

var cookieName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,128}$`)
