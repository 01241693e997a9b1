package strategy

import (
	"fmt"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
)

// bystanders names what in the release would take a candidate's pods for stable ones, or would not know
// them: a candidate has another value in one label, and all the others are the same.
func (c *canaryReader) bystanders(key, value string) {
	workload := c.all.get("apps", "Deployment", c.out.Namespace, c.out.Target.Name)
	labels := document.Clone(document.Mapping(workload, "spec", "template", "metadata", "labels"))
	labels[key] = value + Suffix
	for _, o := range c.all.sorted() {
		kind, name := document.Text(o, "kind"), document.Text(o, "metadata", "name")
		if c.all.namespaceOf(o) != c.out.Namespace {
			continue
		}
		id := fmt.Sprintf("%s %s/%s", kind, c.out.Namespace, name)
		switch {
		case kind == "Service" && document.Group(o) == "":
			c.selects(o, id, labels)
		case kind != "Deployment" && kind != "PodDisruptionBudget" && mentions(o["spec"], key, value):
			c.warnings = append(c.warnings, Problem{id, "spec", fmt.Sprintf(
				"goes by %s=%s, and the candidate's pods have %s=%s; admit those too where the candidate needs it", key, value, key, value+Suffix)})
		}
	}
}

// selects names a Service that would send live requests to the candidate whatever its share is.
func (c *canaryReader) selects(service Object, id string, labels map[string]any) {
	selector := document.Mapping(service, "spec", "selector")
	if len(selector) == 0 {
		return
	}
	for key, value := range selector {
		if labels[key] != value {
			return
		}
	}
	p := Problem{id, "spec.selector", "selects the candidate's pods too, before they are tested; add the label that tells the workload apart, such as app"}
	if document.Text(service, "metadata", "name") == c.out.Name {
		c.problems = append(c.problems, p)
		return
	}
	c.warnings = append(c.warnings, p)
}

// mentions tells whether a label selector with that value is anywhere in v.
func mentions(v any, key, value string) bool {
	switch v := v.(type) {
	case map[string]any:
		if labels, ok := v["matchLabels"].(map[string]any); ok && labels[key] == value {
			return true
		}
		for _, item := range v {
			if mentions(item, key, value) {
				return true
			}
		}
	case []any:
		for _, item := range v {
			if mentions(item, key, value) {
				return true
			}
		}
	}
	return false
}
