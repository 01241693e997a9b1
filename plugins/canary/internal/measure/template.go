package measure

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/template"
	"text/template/parse"

	"sigs.k8s.io/yaml"
)

// maxQuery bounds a query's text, before and after rendering.
const maxQuery = 32 << 10

// Annotations of a MetricTemplate that tell what Flagger's own fields cannot.
const (
	SampleAnnotation = "wheelwright.dev/sample-query" // how many requests the value rests on
	NewestAnnotation = "wheelwright.dev/newest-query" // Unix seconds of the newest sample
)

// MetricTemplate is Flagger's object of that name: a query and whom to ask.
type MetricTemplate struct {
	Name, Namespace string
	Type            string // of the provider; "prometheus"
	Address         string
	Secret          string // name, in the template's namespace; empty: none
	Insecure        bool   // the server's certificate is not checked
	Text            string
	Sample, Newest  string // texts of the annotations
}

// ParseTemplate reads one MetricTemplate, YAML or JSON. What it does not understand is a warning; a
// provider other than Prometheus is an error.
func ParseTemplate(object []byte) (MetricTemplate, []string, error) {
	type shape struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Metadata   struct {
			Name        string            `json:"name"`
			Namespace   string            `json:"namespace"`
			Annotations map[string]string `json:"annotations"`
		} `json:"metadata"`
		Spec struct {
			Provider struct {
				Type      string `json:"type"`
				Address   string `json:"address"`
				Region    string `json:"region"`
				SecretRef *struct {
					Name string `json:"name"`
				} `json:"secretRef"`
				InsecureSkipVerify bool `json:"insecureSkipVerify"`
			} `json:"provider"`
			Query string `json:"query"`
		} `json:"spec"`
	}
	var s shape
	if err := yaml.Unmarshal(object, &s); err != nil {
		return MetricTemplate{}, nil, fmt.Errorf("read a MetricTemplate: %w", err)
	}
	name := "MetricTemplate " + s.Metadata.Namespace + "/" + s.Metadata.Name
	if group, _, _ := strings.Cut(s.APIVersion, "/"); group != "flagger.app" || s.Kind != "MetricTemplate" {
		return MetricTemplate{}, nil, fmt.Errorf("%s %s is not a MetricTemplate of flagger.app", s.APIVersion, s.Kind)
	}
	p := s.Spec.Provider
	if p.Type != "" && p.Type != "prometheus" {
		return MetricTemplate{}, nil, fmt.Errorf("%s: the provider %s is not supported, prometheus is", name, p.Type)
	}
	if strings.TrimSpace(s.Spec.Query) == "" {
		return MetricTemplate{}, nil, fmt.Errorf("%s has no spec.query", name)
	}
	t := MetricTemplate{
		Name: s.Metadata.Name, Namespace: s.Metadata.Namespace, Type: "prometheus", Address: p.Address,
		Insecure: p.InsecureSkipVerify, Text: s.Spec.Query,
		Sample: s.Metadata.Annotations[SampleAnnotation], Newest: s.Metadata.Annotations[NewestAnnotation],
	}
	if p.SecretRef != nil {
		t.Secret = p.SecretRef.Name
	}
	return t, unknown(name, object), nil
}

// unknown lists what the spec has that the type has not.
func unknown(name string, object []byte) (warnings []string) {
	var o struct {
		Spec map[string]any `json:"spec"`
	}
	if yaml.Unmarshal(object, &o) != nil {
		return nil
	}
	provider, _ := o.Spec["provider"].(map[string]any)
	for _, level := range []struct {
		at     string
		fields map[string]any
		known  []string
	}{
		{"spec.", o.Spec, []string{"provider", "query"}},
		{"spec.provider.", provider, []string{"type", "address", "region", "secretRef", "insecureSkipVerify"}},
	} {
		for _, field := range slices.Sorted(maps.Keys(level.fields)) {
			if !slices.Contains(level.known, field) {
				warnings = append(warnings, fmt.Sprintf("%s: %s%s is not understood", name, level.at, field))
			}
		}
	}
	return warnings
}

// Query renders the template.
func (t MetricTemplate) Query(m Model) (Query, error) {
	var q Query
	var problems []error
	for _, part := range []struct {
		from string
		to   *string
	}{{t.Text, &q.Value}, {t.Sample, &q.Sample}, {t.Newest, &q.Newest}} {
		rendered, err := Render(part.from, m)
		*part.to = rendered
		problems = append(problems, err)
	}
	if err := errors.Join(problems...); err != nil {
		return Query{}, fmt.Errorf("MetricTemplate %s/%s: %w", t.Namespace, t.Name, err)
	}
	return q, nil
}

// Render fills in Flagger's template functions: name, namespace, target, service, ingress, route, interval
// and variables. Flagger gives the candidate the workload's own name and calls the stable one -primary;
// here the stable one keeps its name and the candidate is called -canary. So target is the candidate,
// "{{ target }}-primary" comes out as the stable workload, and "{{ target }}-canary" as the candidate.
//
// The text comes from a vendor and runs in a provider's cluster: it may branch and format, but neither
// loop nor call itself.
func Render(text string, m Model) (string, error) {
	if len(text) > maxQuery {
		return "", fmt.Errorf("the query has %d bytes, at most %d are taken", len(text), maxQuery)
	}
	value := func(s string) func() string { return func() string { return s } }
	t, err := template.New("query").Option("missingkey=error").Funcs(template.FuncMap{
		"name": value(m.Name), "namespace": value(m.Namespace), "target": value(m.Target), "service": value(m.Service),
		"ingress": value(m.Ingress), "route": value(m.Route), "interval": value(span(m.Interval)),
		"variables": func() map[string]string { return m.Variables },
	}).Parse(text)
	if err != nil {
		return "", fmt.Errorf("parse the query: %w", err)
	}
	if len(t.Templates()) > 1 || t.Tree == nil || loops(t.Root) {
		return "", errors.New("parse the query: range, template, define and block are not allowed in it")
	}
	var out strings.Builder
	if err := t.Execute(&limited{to: &out}, nil); err != nil {
		return "", fmt.Errorf("render the query: %w", err)
	}
	rendered := strings.Join(strings.Fields(out.String()), " ")
	if m.Stable != "" && m.Stable != m.Target {
		rendered = strings.ReplaceAll(rendered, m.Target+"-primary", m.Stable)
	}
	if strings.HasSuffix(m.Target, "-canary") {
		rendered = strings.ReplaceAll(rendered, m.Target+"-canary", m.Target)
	}
	return rendered, nil
}

// loops tells whether running the tree could take longer than reading it.
func loops(node parse.Node) bool {
	branch := func(b parse.BranchNode) bool { return loops(b.List) || b.ElseList != nil && loops(b.ElseList) }
	switch n := node.(type) {
	case *parse.ListNode:
		if n == nil {
			return false
		}
		for _, child := range n.Nodes {
			if loops(child) {
				return true
			}
		}
	case *parse.IfNode:
		return branch(n.BranchNode)
	case *parse.WithNode:
		return branch(n.BranchNode)
	case *parse.RangeNode, *parse.TemplateNode:
		return true
	}
	return false
}

// limited refuses what comes past maxQuery.
type limited struct {
	to   *strings.Builder
	seen int
}

func (l *limited) Write(p []byte) (int, error) {
	if l.seen += len(p); l.seen > maxQuery {
		return 0, fmt.Errorf("it becomes longer than %d bytes", maxQuery)
	}
	return l.to.Write(p)
}
