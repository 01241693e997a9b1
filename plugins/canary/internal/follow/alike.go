package follow

import (
	"slices"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
)

// covers tells whether an object of the cluster says all that a manifest says; what the cluster filled in is
// no difference. Amounts of resources are left out: the cluster writes them in its own way.
func covers(manifest, live any) bool {
	switch m := manifest.(type) {
	case map[string]any:
		l, _ := live.(map[string]any)
		for key, v := range m {
			if key != "resources" && !covers(v, l[key]) {
				return false
			}
		}
		return true
	case []any:
		l, _ := live.([]any)
		if len(l) != len(m) {
			return false
		}
		for i := range m {
			if !covers(m[i], l[i]) {
				return false
			}
		}
		return true
	}
	return empty(manifest) && live == nil || document.Equal(manifest, live)
}

func empty(v any) bool {
	n, number := document.Number(v)
	return v == nil || v == "" || v == false || number && n == 0
}

const primarySuffix = "-primary"

// copied tells whether primary is what Flagger makes of target: the same, but for names of its own.
func copied(target, primary any) bool {
	switch t := target.(type) {
	case map[string]any:
		p, ok := primary.(map[string]any)
		if !ok || len(p) != len(t) {
			return false
		}
		for key, v := range t {
			if other, both := p[key]; !both || !copied(v, other) {
				return false
			}
		}
		return true
	case []any:
		p, ok := primary.([]any)
		return ok && slices.EqualFunc(t, p, copied)
	case string:
		return primary == t || primary == t+primarySuffix
	}
	return document.Equal(target, primary)
}

// template tells whether the pods of a primary are those of its target.
func template(target, primary Object) bool {
	t, p := document.Mapping(target, "spec", "template"), document.Mapping(primary, "spec", "template")
	return copied(t["spec"], p["spec"]) && copied(document.At(t, "metadata", "labels"), document.At(p, "metadata", "labels")) &&
		covers(document.Mapping(t, "metadata", "annotations"), document.At(p, "metadata", "annotations")) // also of a target without any
}

// config is a ConfigMap or Secret that pods name.
type config struct{ kind, name string }

// configs are what a pod's specification names.
func configs(v any) []config {
	var out []config
	switch v := v.(type) {
	case map[string]any:
		for key, item := range v {
			m, ok := item.(map[string]any)
			name, _ := m["name"].(string)
			switch {
			case ok && slices.Contains([]string{"configMapRef", "configMapKeyRef", "configMap"}, key):
				out = append(out, config{"ConfigMap", name})
			case ok && slices.Contains([]string{"secretRef", "secretKeyRef", "secret"}, key):
				if secret, _ := m["secretName"].(string); secret != "" {
					name = secret
				}
				out = append(out, config{"Secret", name})
			}
			out = append(out, configs(item)...)
		}
	case []any:
		for _, item := range v {
			out = append(out, configs(item)...)
		}
	}
	return out
}

// NeedsConfigs tells which kinds have to be read to know whether Flagger has brought a service's pods what
// they read.
func NeedsConfigs(workload Object) (kinds []string) {
	for _, c := range configs(document.At(workload, "spec", "template", "spec")) {
		if !slices.Contains(kinds, c.kind) {
			kinds = append(kinds, c.kind)
		}
	}
	slices.Sort(kinds)
	return kinds
}

// configured tells whether the primary's own copies of what the pods read say what the target's say.
func (s Service) configured(live Live, target, primary Object) bool {
	kept := configs(document.At(primary, "spec", "template", "spec"))
	for _, c := range configs(document.At(target, "spec", "template", "spec")) {
		own := config{c.kind, c.name + primarySuffix}
		if !slices.Contains(kept, own) {
			continue // not tracked: both read the same
		}
		now, then := live.find("", c.kind, s.Namespace, c.name), live.find("", c.kind, s.Namespace, own.name)
		if now == nil || then == nil || !document.Equal(now["data"], then["data"]) {
			return false
		}
	}
	return true
}
