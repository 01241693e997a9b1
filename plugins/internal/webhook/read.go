package webhook

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Read takes the webhooks out of a Canary that was decoded from YAML or JSON, of flagger.app/v1beta1 or
// v1alpha3, and says what is wrong with those that it leaves out, by their path. Fields that it does not
// know are none of its business: who reads the whole Canary reports them.
func Read(canary map[string]any) (hooks []Hook, problems []string) {
	spec, _ := canary["spec"].(map[string]any)
	for _, key := range []string{"analysis", "canaryAnalysis"} {
		analysis, ok := spec[key].(map[string]any)
		if !ok {
			continue
		}
		list, _ := analysis["webhooks"].([]any)
		for i, item := range list {
			m, _ := item.(map[string]any)
			h, wrong := read(m)
			for _, w := range wrong {
				problems = append(problems, fmt.Sprintf("spec.%s.webhooks[%d].%s", key, i, w))
			}
			if len(wrong) == 0 {
				hooks = append(hooks, h)
			}
		}
		return hooks, problems
	}
	return nil, nil
}

func read(m map[string]any) (h Hook, wrong []string) {
	text := func(key string) string {
		switch v := m[key].(type) {
		case nil:
		case string:
			return v
		default:
			wrong = append(wrong, fmt.Sprintf("%s: %v is no text", key, v))
		}
		return ""
	}
	h = Hook{Name: text("name"), Type: Type(text("type")), URL: text("url"), Timeout: DefaultTimeout}
	if h.Type == "" {
		h.Type = Rollout
	}
	if h.Name == "" {
		wrong = append(wrong, "name: missing")
	}
	if !slices.Contains(Types(), h.Type) {
		wrong = append(wrong, fmt.Sprintf("type: %s is no kind of webhook: write one of %v", h.Type, Types()))
	}
	if t := text("timeout"); t != "" {
		d, err := time.ParseDuration(t)
		if err != nil || d <= 0 {
			wrong = append(wrong, fmt.Sprintf("timeout: %q is no span of time above zero: write one such as 30s", t))
		}
		h.Timeout = d
	}
	switch v := m["retries"].(type) {
	case nil:
	case json.Number:
		n, _ := v.Int64()
		h.Retries = int(n)
	case float64:
		h.Retries = int(v)
	case int:
		h.Retries = v
	case int64:
		h.Retries = int(v)
	default:
		wrong = append(wrong, fmt.Sprintf("retries: %v is no number", v))
	}
	h.Retries = min(max(h.Retries, 0), 100)
	if metadata, ok := m["metadata"].(map[string]any); ok {
		h.Metadata = map[string]string{}
		for key, v := range metadata {
			s, ok := v.(string)
			if !ok {
				wrong = append(wrong, fmt.Sprintf("metadata.%s: %v is no text: write it in quotes", key, v))
			}
			h.Metadata[key] = s
		}
	}
	slices.Sort(wrong)
	return h, wrong
}
