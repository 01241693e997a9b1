package strategy

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
)

// Problem is one thing that is wrong with, or not understood of, one object.
type Problem struct {
	Object  string // "Canary shop/backend"
	Field   string // "spec.analysis.interval"; empty: the whole object
	Message string // ends with what to write
}

func (p Problem) String() string {
	if p.Field == "" {
		return p.Object + ": " + p.Message
	}
	return p.Object + ": " + p.Field + ": " + p.Message
}

// Problems is everything that keeps a release from having a course.
type Problems []Problem

func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, one := range p {
		lines[i] = one.String()
	}
	return strings.Join(lines, "\n")
}

// report collects what reading finds.
type report struct{ problems, warnings []Problem }

// node is a mapping under reading. Every key that is asked for counts as read; done reports the rest, so
// that no field can be forgotten.
type node struct {
	report *report
	object string
	path   string // with a trailing dot, empty at the top
	fields map[string]any
	read   map[string]bool
}

func newNode(r *report, object, path string, fields map[string]any) node {
	return node{r, object, path, fields, map[string]bool{}}
}

func (n node) wrong(key, format string, args ...any) {
	n.report.problems = append(n.report.problems, Problem{n.object, strings.TrimSuffix(n.path+key, "."), fmt.Sprintf(format, args...)})
}

func (n node) warn(key, format string, args ...any) {
	n.report.warnings = append(n.report.warnings, Problem{n.object, strings.TrimSuffix(n.path+key, "."), fmt.Sprintf(format, args...)})
}

// has marks the key as read.
func (n node) has(key string) bool {
	n.read[key] = true
	return n.fields[key] != nil
}

// done reports the keys that nobody asked for.
func (n node) done() {
	for _, key := range slices.Sorted(maps.Keys(n.fields)) {
		if !n.read[key] {
			n.warn(key, "unknown field, not acted on; correct its name or take it out")
		}
	}
}

// unused reports keys that Flagger knows and that mean nothing here.
func (n node) unused(why string, keys ...string) {
	for _, key := range keys {
		if n.has(key) {
			n.warn(key, "not acted on: %s", why)
		}
	}
}

func (n node) text(key string) string {
	switch v := n.fields[key].(type) {
	case nil:
		n.read[key] = true
		return ""
	case string:
		n.read[key] = true
		return v
	default:
		n.read[key] = true
		n.wrong(key, "%v is no text; write it in quotes", v)
		return ""
	}
}

func (n node) boolean(key string) bool {
	if !n.has(key) {
		return false
	}
	v, ok := n.fields[key].(bool)
	if !ok {
		n.wrong(key, "%v: write true or false", n.fields[key])
	}
	return v
}

// integer tells whether there is a whole number at key that fits low to high.
func (n node) integer(key string, low, high int) (int, bool) {
	if !n.has(key) {
		return 0, false
	}
	v, ok := document.Number(n.fields[key])
	if !ok || v != math.Trunc(v) {
		n.wrong(key, "%v is no whole number; write one from %d to %d", n.fields[key], low, high)
		return 0, false
	}
	if v < float64(low) || v > float64(high) {
		n.wrong(key, "%d is out of bounds; write a number from %d to %d", int(v), low, high)
		return 0, false
	}
	return int(v), true
}

func (n node) float(key string) *float64 {
	if !n.has(key) {
		return nil
	}
	v, ok := document.Number(n.fields[key])
	if !ok || math.IsNaN(v) || math.IsInf(v, 0) {
		n.wrong(key, "%v is no finite number; write one, such as 99 or 0.5", n.fields[key])
		return nil
	}
	return &v
}

// duration answers otherwise where there is nothing at key.
func (n node) duration(key string, otherwise time.Duration) time.Duration {
	if !n.has(key) || n.fields[key] == "" {
		return otherwise
	}
	text, ok := n.fields[key].(string)
	d, err := time.ParseDuration(text)
	if !ok || err != nil || d <= 0 {
		n.wrong(key, "%v is no span of time above zero; write one with its unit, such as 30s or 1m", n.fields[key])
		return otherwise
	}
	return d
}

// child is the mapping at key; an empty one where there is none.
func (n node) child(key string) (node, bool) {
	m, ok := n.fields[key].(map[string]any)
	if n.has(key) && !ok {
		n.wrong(key, "want a mapping, not %v", n.fields[key])
	}
	return newNode(n.report, n.object, n.path+key+".", m), ok
}

// children are the mappings of the list at key.
func (n node) children(key string) []node {
	var out []node
	for i, v := range n.list(key) {
		at := fmt.Sprintf("%s[%d]", key, i)
		m, ok := v.(map[string]any)
		if !ok {
			n.wrong(at, "want a mapping, not %v", v)
			continue
		}
		out = append(out, newNode(n.report, n.object, n.path+at+".", m))
	}
	return out
}

func (n node) list(key string) []any {
	if !n.has(key) {
		return nil
	}
	list, ok := n.fields[key].([]any)
	if !ok {
		n.wrong(key, "want a list, not %v", n.fields[key])
	}
	return list
}

func (n node) texts(key string) map[string]string {
	m, ok := n.child(key)
	if !ok {
		return nil
	}
	out := map[string]string{}
	for _, k := range slices.Sorted(maps.Keys(m.fields)) {
		out[k] = m.text(k)
	}
	return out
}
