package render

import (
	"maps"
	"slices"
	"strings"

	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
)

// Order is which services are led live traffic after which others, by the names of their workloads; nil: all
// together. An error is a *BuildError about wheelwright.yaml, and names all that is wrong with it.
func Order(files []provenance.File) (map[string][]string, error) {
	t := newTree()
	t.mount("/", files)
	s, err := settings(t)
	return s.after, err
}

func (r *settingsReader) services(v any) map[string][]string {
	all, ok := v.(map[string]any)
	if !ok {
		r.add("services: want names of services, each with after")
		return nil
	}
	after := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		at := "services." + name
		m, ok := all[name].(map[string]any)
		if !ok {
			r.add("%s: want a mapping with after", at)
			continue
		}
		r.unknown(m, at+".", "after")
		list, ok := m["after"].([]any)
		if !ok {
			r.add("%s.after: want a list of services, such as [backend]", at)
			continue
		}
		for i, v := range list {
			earlier, ok := v.(string)
			switch {
			case !ok || earlier == "":
				r.add("%s.after[%d]: want a service's name, not %v", at, i, v)
			case slices.Contains(after[name], earlier):
				r.add("%s.after[%d]: %q is given twice", at, i, earlier)
			default:
				after[name] = append(after[name], earlier)
			}
		}
	}
	if ring := circle(after); ring != nil {
		r.add("services: each of %s comes after the one before it, and so after itself", strings.Join(ring, ", "))
	}
	return after
}

// circle is one of the ways from a service back to it; nil: there is none.
func circle(after map[string][]string) []string {
	over := map[string]bool{}
	var walk func(name string, way []string) []string
	walk = func(name string, way []string) []string {
		if i := slices.Index(way, name); i >= 0 {
			return append(slices.Clone(way[i:]), name)
		}
		if over[name] {
			return nil
		}
		for _, earlier := range after[name] {
			if ring := walk(earlier, append(slices.Clone(way), name)); ring != nil {
				return ring
			}
		}
		over[name] = true
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if ring := walk(name, nil); ring != nil {
			slices.Reverse(ring)
			return ring
		}
	}
	return nil
}
