package terms

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Path leads to a field of an object, and to all that is below it. An element is
//
//	replicas          the key of a map
//	example.com/x     a key too, written in brackets because of its dots
//	name=app          the item of a list whose keys have these values; several with commas between them
//	*                 any key or item, written in brackets
//
// An item of a list of plain values is written as a key.
type Path []string

// AnyElement is the element that stands for every key or item.
const AnyElement = "*"

// ParsePath reads "spec.replicas", "metadata.annotations[example.com/x]",
// "spec.template.spec.containers[name=app].resources".
func ParsePath(s string) (Path, error) {
	p, err := split(s)
	if err != nil {
		return nil, fmt.Errorf("field %q: %w", s, err)
	}
	if identifies(p) {
		return nil, fmt.Errorf("field %q: says which object it is, and cannot be left to others", s)
	}
	return p, nil
}

func split(s string) (Path, error) {
	var p Path
	rest := s
	for rest != "" {
		if inside, ok := strings.CutPrefix(rest, "["); ok {
			element, after, closed := strings.Cut(inside, "]")
			if !closed {
				return nil, errors.New("a [ is not closed")
			}
			if err := checkElement(element); err != nil {
				return nil, err
			}
			p, rest = append(p, element), after
		} else {
			end := strings.IndexAny(rest, ".[")
			if end < 0 {
				end = len(rest)
			}
			key := rest[:end]
			if key == "" || strings.ContainsAny(key, "]=,* /\t") {
				return nil, fmt.Errorf("%q is no key: want names with dots between them, and what has dots or slashes itself in brackets, as in metadata.annotations[example.com/x]", key)
			}
			p, rest = append(p, key), rest[end:]
		}
		if after, dot := strings.CutPrefix(rest, "."); dot {
			if after == "" || after[0] == '[' {
				return nil, errors.New("a dot stands before nothing")
			}
			rest = after
		} else if rest != "" && rest[0] != '[' {
			return nil, errors.New("want a dot after ]")
		}
	}
	if len(p) == 0 {
		return nil, errors.New("want a path such as spec.replicas")
	}
	if p[0] == AnyElement || strings.Contains(p[0], "=") {
		return nil, errors.New("starts with a key, such as spec or metadata")
	}
	return p, nil
}

func checkElement(element string) error {
	if element == "" || strings.ContainsAny(element, "[ \t") {
		return fmt.Errorf("[%s]: want a key, KEY=VALUE of a list's item, or *", element)
	}
	if !strings.Contains(element, "=") {
		return nil
	}
	for _, pair := range strings.Split(element, ",") {
		if k, v, ok := strings.Cut(pair, "="); !ok || k == "" || v == "" {
			return fmt.Errorf("[%s]: want KEY=VALUE, and commas between several", element)
		}
	}
	return nil
}

// identifies reports fields without which nobody knows what the object is.
func identifies(p Path) bool {
	switch p[0] {
	case "apiVersion", "kind":
		return true
	case "metadata":
		return len(p) == 1 || slices.Contains([]string{"name", "namespace", "uid", AnyElement}, p[1])
	}
	return false
}

// Item reads an element that picks an item of a list: its keys and their values as text; ok is false
// for keys of maps and AnyElement.
func Item(element string) (keys map[string]string, ok bool) {
	if !strings.Contains(element, "=") {
		return nil, false
	}
	keys = map[string]string{}
	for _, pair := range strings.Split(element, ",") {
		k, v, _ := strings.Cut(pair, "=")
		keys[k] = v
	}
	return keys, true
}

// String is what ParsePath reads.
func (p Path) String() string {
	var b strings.Builder
	for i, element := range p {
		switch {
		case strings.ContainsAny(element, ".=,*/"):
			b.WriteString("[" + element + "]")
		case i > 0:
			b.WriteString("." + element)
		default:
			b.WriteString(element)
		}
	}
	return b.String()
}
