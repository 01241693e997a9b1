package render

import (
	"errors"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/plan"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
	"sigs.k8s.io/yaml"
)

// Course is how a release wants to reach clusters.
type Course struct {
	Plan  []byte   // of its rollout, canonical YAML; nil: it brings none
	Stops []string // releases that have to run before it is taken, ascending
}

// CourseOf reads a release's course. An error is a *BuildError about wheelwright.yaml, and names all that
// is wrong with it.
func CourseOf(files []provenance.File) (Course, error) {
	t := newTree()
	t.mount("/", files)
	s, err := settings(t)
	return s.course, err
}

// rollout reads a plan; pkg/plan names what is wrong with it by keys below this one.
func (r *settingsReader) rollout(v any) []byte {
	text, err := yaml.Marshal(v)
	if err != nil {
		r.add("rollout: %v", err)
		return nil
	}
	p, err := plan.Parse(text)
	var wrong plan.Problems
	switch {
	case errors.As(err, &wrong):
		for _, problem := range wrong {
			r.add("%s", plan.Below("rollout", problem))
		}
		return nil
	case err != nil:
		r.add("rollout: %v", err)
		return nil
	}
	return p.YAML()
}

func (r *settingsReader) upgrade(v any) []string {
	m, ok := v.(map[string]any)
	if !ok {
		r.add("upgrade: want a mapping with stops")
		return nil
	}
	r.unknown(m, "upgrade.", "stops")
	if m["stops"] == nil {
		return nil
	}
	list, ok := m["stops"].([]any)
	if !ok {
		r.add("upgrade.stops: want a list of versions, such as [1.4.0]")
		return nil
	}
	var stops []string
	for i, v := range list {
		tag, _ := v.(string)
		if _, err := fleet.ParseVersion(tag); err != nil {
			r.add("upgrade.stops[%d]: %v: want the version of a release, such as 1.4.0", i, v)
			continue
		}
		if n := len(stops); n > 0 && fleet.CompareTags(tag, stops[n-1]) <= 0 {
			r.add("upgrade.stops[%d]: %s comes after %s; write each once, the lowest first", i, tag, stops[n-1])
			continue
		}
		stops = append(stops, tag)
	}
	return stops
}
