package apply

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/wheelwright-dev/wheelwright/spoke/internal/fields"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/terms"
)

// A part of an object is addressed as package terms has it: a map's key, "name=app" for the item of a
// list that has these values, the text of an item of a list of plain values.

// leave replaces in ours what path leads to by what we alone own of it, with the values that live has.
// Where live has nothing around it, it is new and stays as declared.
func leave(ours, live map[string]any, mine fields.Set, others []fields.Owner, path terms.Path) {
	if len(path) == 0 {
		return
	}
	for _, at := range expand(ours, path) {
		if _, there := find(live, at[:len(at)-1]); !there {
			continue
		}
		prune(ours, at)
		var kept []fields.Path
		for _, leaf := range mine.Paths() {
			if under(leaf, at) && !slices.ContainsFunc(others, func(o fields.Owner) bool { return o.Fields.Has(leaf) }) {
				graft(ours, live, leaf)
				kept = append(kept, leaf)
			}
		}
		undeclare(ours, mine, at, kept)
	}
}

// undeclare takes keys out of items that were put back, where they were never declared: the server filled them
// in (the protocol of a port), and to declare them would be to own more than before.
func undeclare(ours map[string]any, mine fields.Set, at []string, kept []fields.Path) {
	type key struct {
		item map[string]any
		name string
	}
	var all []key
	for _, leaf := range kept {
		for n := len(at); n < len(leaf); n++ {
			keys, isItem := terms.Item(leaf[n])
			found, _ := find(ours, leaf[:n+1])
			item, isMap := found.(map[string]any)
			if !isItem || !isMap {
				continue
			}
			for k := range keys {
				if !mine.Has(append(slices.Clone(leaf[:n+1]), k)) {
					all = append(all, key{item, k})
				}
			}
		}
	}
	for _, k := range all { // only now: the items were found by them
		delete(k.item, k.name)
	}
}

// expand lists what path leads to in v.
func expand(v any, path []string) [][]string {
	if len(path) == 0 {
		return [][]string{nil}
	}
	var all [][]string
	for _, element := range elements(v, path[0]) {
		child, ok := part(v, element)
		if !ok {
			continue
		}
		for _, rest := range expand(child, path[1:]) {
			all = append(all, append([]string{element}, rest...))
		}
	}
	return all
}

// listKeys are what items of lists are told apart by, where nothing else says so.
var listKeys = []string{"name", "key", "containerPort", "port", "mountPath", "devicePath", "type", "ip", "topologyKey"}

func elements(v any, element string) []string {
	if element != terms.AnyElement {
		return []string{element}
	}
	var all []string
	switch t := v.(type) {
	case map[string]any:
		return slices.Sorted(maps.Keys(t))
	case []any:
		for _, item := range t {
			m, isMap := item.(map[string]any)
			if !isMap {
				all = append(all, fmt.Sprint(item))
				continue
			}
			if n := slices.IndexFunc(listKeys, func(k string) bool { _, has := m[k]; return has }); n >= 0 {
				all = append(all, fmt.Sprint(listKeys[n], "=", m[listKeys[n]]))
			}
		}
	}
	return all
}

func index(list []any, element string) int {
	keys, isItem := terms.Item(element)
	return slices.IndexFunc(list, func(item any) bool {
		m, isMap := item.(map[string]any)
		if !isMap {
			return fmt.Sprint(item) == element
		}
		if !isItem {
			return false
		}
		for k, want := range keys {
			if v, ok := m[k]; !ok || fmt.Sprint(v) != want {
				return false
			}
		}
		return true
	})
}

func part(v any, element string) (any, bool) {
	switch t := v.(type) {
	case map[string]any:
		child, ok := t[element]
		return child, ok
	case []any:
		if n := index(t, element); n >= 0 {
			return t[n], true
		}
	}
	return nil, false
}

func find(v any, path []string) (any, bool) {
	for _, element := range path {
		var ok bool
		if v, ok = part(v, element); !ok {
			return nil, false
		}
	}
	return v, true
}

// prune takes what path leads to out of v, and returns v.
func prune(v any, path []string) any {
	switch t := v.(type) {
	case map[string]any:
		child, ok := t[path[0]]
		switch {
		case ok && len(path) == 1:
			delete(t, path[0])
		case ok:
			t[path[0]] = prune(child, path[1:])
		}
	case []any:
		n := index(t, path[0])
		switch {
		case n >= 0 && len(path) == 1:
			return slices.Delete(t, n, n+1)
		case n >= 0:
			t[n] = prune(t[n], path[1:])
		}
	}
	return v
}

// graft puts what path leads to in live into v, with all that has to be around it, and returns v.
func graft(v, live any, path []string) any {
	if len(path) == 0 {
		return runtime.DeepCopyJSONValue(live)
	}
	child, ok := part(live, path[0])
	if !ok {
		return v
	}
	switch live.(type) {
	case map[string]any:
		m, isMap := v.(map[string]any)
		if !isMap {
			m = map[string]any{}
		}
		m[path[0]] = graft(m[path[0]], child, path[1:])
		return m
	case []any:
		list, _ := v.([]any)
		n := index(list, path[0])
		if n < 0 {
			list, n = append(list, bare(child, path[0])), len(list)
		}
		list[n] = graft(list[n], child, path[1:])
		return list
	}
	return v
}

// bare is an item with nothing but what it is told apart by.
func bare(item any, element string) any {
	m, isMap := item.(map[string]any)
	if !isMap {
		return item
	}
	keys, _ := terms.Item(element)
	only := map[string]any{}
	for k := range keys {
		only[k] = m[k]
	}
	return only
}

// under reports whether path is top or below it. An item may be named by fewer keys in top.
func under(path, top []string) bool {
	if len(top) == 0 || len(path) < len(top) {
		return false
	}
	for n, want := range top {
		if path[n] == want {
			continue
		}
		have, _ := terms.Item(path[n])
		keys, isItem := terms.Item(want)
		if !isItem {
			return false
		}
		for k, v := range keys {
			if have[k] != v {
				return false
			}
		}
	}
	return true
}

// resolve reads a path as the API server writes it in a conflict (.metadata.labels.example.com/x,
// .spec.containers[name="app"].image) or as package fields does. Since keys are written without quotes,
// only the object itself tells where one ends. It is nil where v has no such part.
func resolve(v any, text string) []string {
	text = strings.TrimPrefix(text, ".")
	if text == "" {
		return []string{}
	}
	if m, ok := v.(map[string]any); ok {
		for k, child := range m {
			rest, found := strings.CutPrefix(text, "["+k+"]")
			if !found {
				if rest, found = strings.CutPrefix(text, k); !found || rest != "" && rest[0] != '.' && rest[0] != '[' {
					continue
				}
			}
			if below := resolve(child, rest); below != nil {
				return append([]string{k}, below...)
			}
		}
		return nil
	}
	inside, rest, ok := bracket(text)
	if !ok {
		return nil
	}
	child, ok := part(v, inside)
	if !ok {
		return nil
	}
	if below := resolve(child, rest); below != nil {
		return append([]string{inside}, below...)
	}
	return nil
}

// bracket cuts [name="app",port=80] off, and takes the quotes away: name=app,port=80. Of ["x"] and
// [="x"], an item of plain values, x is left.
func bracket(text string) (inside, rest string, ok bool) {
	if text, ok = strings.CutPrefix(text, "["); !ok {
		return "", "", false
	}
	var b strings.Builder
	for text != "" && text[0] != ']' {
		if quoted, err := strconv.QuotedPrefix(text); err == nil {
			plain, err := strconv.Unquote(quoted)
			if err != nil {
				return "", "", false
			}
			b.WriteString(plain)
			text = text[len(quoted):]
			continue
		}
		b.WriteByte(text[0])
		text = text[1:]
	}
	if text == "" {
		return "", "", false
	}
	return strings.TrimPrefix(b.String(), "="), text[1:], true
}
