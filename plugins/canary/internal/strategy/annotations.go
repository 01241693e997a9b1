package strategy

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
)

// AnnotationLoadPath, on a Canary, is what is asked of a candidate that nobody uses, where load is generated.
const AnnotationLoadPath = "wheelwright.dev/load-path"

// ofLoad is how every annotation about load begins: a misspelt one is not passed over.
const ofLoad = "wheelwright.dev/load"

// annotations reads what Flagger's own fields cannot tell.
func (c *canaryReader) annotations() {
	c.out.LoadPath = "/"
	written := document.Mapping(c.object, "metadata", "annotations")
	wrong := func(key, message string) {
		c.problems = append(c.problems, Problem{c.id, "metadata.annotations[" + key + "]", message})
	}
	for _, key := range slices.Sorted(maps.Keys(written)) {
		switch {
		case !strings.HasPrefix(key, ofLoad):
		case key != AnnotationLoadPath:
			wrong(key, "is not known; write "+AnnotationLoadPath+", or take it out")
		default:
			path, ok := written[key].(string)
			if !ok {
				wrong(key, "is no text; write a path in quotes, such as \"/healthz\"")
			} else if err := checkPath(path); err != nil {
				wrong(key, err.Error())
			} else {
				c.out.LoadPath = path
			}
		}
	}
}

// checkPath says what is wrong with a path to ask.
func checkPath(path string) error {
	u, err := url.ParseRequestURI(path)
	switch {
	case !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//"):
		return fmt.Errorf("%.60q does not begin with one /; write a path, such as /healthz", path)
	case err != nil || u.Host != "" || strings.ContainsAny(path, "# \\") || len(path) > 1024:
		return fmt.Errorf("%.60q is no path of at most 1024 characters; write one, such as /api/items?limit=1, without spaces and #", path)
	}
	return nil
}
