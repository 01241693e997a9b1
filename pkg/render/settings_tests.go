package render

import (
	"errors"

	"github.com/wheelwright-dev/wheelwright/pkg/probe"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
	"sigs.k8s.io/yaml"
)

// Tests is what stands under tests in wheelwright.yaml, as probe.Parse reads it; nil: a release declares
// none. An error is a *BuildError about wheelwright.yaml, and names all that is wrong with it.
func Tests(files []provenance.File) ([]byte, error) {
	t := newTree()
	t.mount("/", files)
	s, err := settings(t)
	return s.tests, err
}

// tests reads probes; pkg/probe names what is wrong with one by its key, this one included.
func (r *settingsReader) tests(v any) []byte {
	text, err := yaml.Marshal(v)
	if err == nil {
		_, err = probe.Parse(text)
	}
	var wrong probe.Problems
	switch {
	case errors.As(err, &wrong):
		for _, problem := range wrong {
			r.add("%s", problem)
		}
		return nil
	case err != nil:
		r.add("%s: %v", probe.Section, err)
		return nil
	}
	return text
}
