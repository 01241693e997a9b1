package route

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
)

// Annotation keeps, on every patched object, what it was and how it is led.
const Annotation = "wheelwright.dev/led"

// The most that an annotation of ours may hold; a cluster takes 256 KiB of all of them together.
const annotationLimit = 192 << 10

// ledger is what the annotation says: the part of the object that is patched, as it was found, and the
// services whose traffic is led through it. The patched part follows from both, so that a service can
// come and go while another one stays.
type ledger struct {
	Original any              `json:"original"`
	Bare     bool             `json:"bare,omitempty"` // the object had no annotations
	Led      map[string]entry `json:"led"`            // by namespace/name
}

// entry is one service's traffic.
type entry struct {
	Name      string  `json:"name"`
	Namespace string  `json:"namespace"`
	Candidate string  `json:"candidate"`
	Traffic   Traffic `json:"traffic"`
}

func (e entry) key() string { return e.Namespace + "/" + e.Name }

func (c call) entry() entry {
	return entry{c.service.Name, c.service.Namespace, c.service.Candidate, c.traffic}
}

// rulebook knows the rules of one kind of route.
type rulebook interface {
	// at is where an object of the kind has its list of rules.
	at() []string
	// leads tells whether a rule sends requests to a service's stable side.
	leads(rule Object, e entry) bool
	// expand answers the rules in place of one that leads to the service. It may change its argument.
	expand(rule Object, e entry) ([]Object, error)
	// strip takes a candidate out of a rule that somebody changed; false: it led there alone.
	strip(rule Object, e entry) (Object, bool)
}

func readLedger(o Object) (ledger, bool, error) {
	text := document.Text(o, "metadata", "annotations", Annotation)
	if text == "" {
		return ledger{Bare: document.Mapping(o, "metadata", "annotations") == nil, Led: map[string]entry{}}, false, nil
	}
	var l ledger
	if err := json.Unmarshal([]byte(text), &l); err != nil {
		return l, false, strategy.Problems{{Object: id(o), Field: "metadata.annotations." + Annotation,
			Message: fmt.Sprintf("cannot be read (%v), so that what the route was is not known; restore it from the release and take the annotation out", err)}}
	}
	l.Original = whole(l.Original)
	if l.Led == nil {
		l.Led = map[string]entry{}
	}
	return l, true, nil
}

// whole turns the numbers that JSON gives into whole ones where they are.
func whole(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, item := range v {
			v[key] = whole(item)
		}
	case []any:
		for i, item := range v {
			v[i] = whole(item)
		}
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			return int64(v)
		}
	}
	return v
}

func id(o Object) string {
	return document.Text(o, "kind") + " " + document.Text(o, "metadata", "namespace") + "/" + document.Text(o, "metadata", "name")
}

// patchRules answers the object with one service's traffic led as told, and whether the service has to do
// with it at all.
func patchRules(o Object, e entry, book rulebook) (Object, bool, error) {
	l, had, err := readLedger(o)
	if err != nil {
		return nil, false, err
	}
	found, _ := document.At(o, book.at()...).([]any)
	original := found
	if had {
		if original, err = l.restore(found, book); err != nil {
			return nil, false, err
		}
	}
	concerned := l.Led[e.key()].Name != ""
	for _, rule := range document.Mappings(toAny(original)) {
		concerned = concerned || book.leads(rule, e)
	}
	if !concerned {
		return o, false, nil
	}
	delete(l.Led, e.key())
	if !e.Traffic.allStable() {
		l.Led[e.key()] = e
	}
	rules, _, err := l.render(original, book)
	if err != nil {
		return nil, true, named(err, o)
	}
	out := document.Clone(o)
	put(out, book.at(), rules, original == nil)
	l.Original = toAny(original)
	return out, true, l.write(out)
}

func toAny(list []any) any {
	if list == nil {
		return nil
	}
	return list
}

// named puts the object in front of what is wrong with one of its rules.
func named(err error, o Object) error {
	problems, ok := err.(strategy.Problems)
	if !ok {
		return err
	}
	out := slices.Clone(problems)
	for i := range out {
		out[i].Object = id(o)
	}
	return out
}

func put(o Object, at []string, rules []any, absent bool) {
	parent := o
	for _, key := range at[:len(at)-1] {
		next, ok := parent[key].(map[string]any)
		if !ok {
			next = Object{}
			parent[key] = next
		}
		parent = next
	}
	if absent && len(rules) == 0 {
		delete(parent, at[len(at)-1])
		return
	}
	parent[at[len(at)-1]] = rules
}

// write puts the ledger on the object, or takes it off where nothing is led any more.
func (l ledger) write(o Object) error {
	meta := document.Mapping(o, "metadata")
	annotations := document.Mapping(meta, "annotations")
	if len(l.Led) == 0 {
		delete(annotations, Annotation)
		if len(annotations) == 0 && l.Bare {
			delete(meta, "annotations")
		}
		return nil
	}
	if annotations == nil {
		annotations = Object{}
		meta["annotations"] = annotations
	}
	text, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("write down what %s was: %w", id(o), err)
	}
	if len(text) > annotationLimit {
		return strategy.Problems{{Object: id(o), Message: fmt.Sprintf("its rules take %d bytes, more than the %d that fit beside it; split it into several routes", len(text), annotationLimit)}}
	}
	annotations[Annotation] = string(text)
	return nil
}

// render answers the rules with every service led, and for each the number of the original that it is of.
func (l ledger) render(original []any, book rulebook) (rules []any, origins []int, err error) {
	rules = []any{}
	for i, v := range original {
		rule, ok := v.(map[string]any)
		if !ok {
			rules, origins = append(rules, v), append(origins, i)
			continue
		}
		list := []Object{document.Clone(rule)}
		for _, key := range slices.Sorted(maps.Keys(l.Led)) {
			var next []Object
			for _, rule := range list {
				if !book.leads(rule, l.Led[key]) {
					next = append(next, rule)
					continue
				}
				more, err := book.expand(rule, l.Led[key])
				if err != nil {
					return nil, nil, inRule(err, book, i)
				}
				next = append(next, more...)
			}
			list = next
		}
		for _, rule := range list {
			rules, origins = append(rules, rule), append(origins, i)
		}
	}
	return rules, origins, nil
}

func inRule(err error, book rulebook, i int) error {
	path := ""
	for _, key := range book.at() {
		path += key + "."
	}
	return strategy.Problems{{Field: fmt.Sprintf("%s[%d]", path[:len(path)-1], i), Message: err.Error()}}
}

// restore answers the rules as they would be if nothing had ever been led: what was written down, with
// what somebody changed since. A rule that is as it was left here becomes the original again; one that
// is not was changed by somebody, and stays so, without the candidates.
func (l ledger) restore(found []any, book rulebook) ([]any, error) {
	original, _ := l.Original.([]any)
	left, origins, err := l.render(original, book)
	if err != nil {
		return nil, err
	}
	if len(left) == len(found) && coversAll(found, left) {
		return original, nil
	}
	used := make([]bool, len(left))
	emitted := map[int]bool{}
	var out []any
	for _, v := range found {
		if i := l.find(v, left, used); i >= 0 {
			used[i] = true
			if !emitted[origins[i]] {
				emitted[origins[i]] = true
				out = append(out, original[origins[i]])
			}
			continue
		}
		rule, ok := v.(map[string]any)
		keep := true
		if ok {
			rule = document.Clone(rule)
			for _, key := range slices.Sorted(maps.Keys(l.Led)) {
				if keep {
					rule, keep = book.strip(rule, l.Led[key])
				}
			}
			v = rule
		}
		if keep {
			out = append(out, v)
		}
	}
	return out, nil
}

func (l ledger) find(v any, left []any, used []bool) int {
	for i := range left {
		if !used[i] && covers(v, left[i]) {
			return i
		}
	}
	return -1
}

func coversAll(found, left []any) bool {
	for i := range found {
		if !covers(found[i], left[i]) {
			return false
		}
	}
	return true
}

// defaults are what a cluster adds to routes by itself; it does not make a rule another one.
var defaults = map[string][]any{
	"group":   {"", "gateway.networking.k8s.io"},
	"kind":    {"Service", "Gateway"},
	"weight":  {1},
	"type":    {"Exact", "PathPrefix"},
	"path":    {Object{"type": "PathPrefix", "value": "/"}},
	"matches": {[]any{Object{"path": Object{"type": "PathPrefix", "value": "/"}}}},
}

// covers tells whether found is what was written, but for what the cluster added.
func covers(found, written any) bool {
	switch w := written.(type) {
	case map[string]any:
		f, ok := found.(map[string]any)
		if !ok {
			return false
		}
		for key, v := range w {
			if other, ok := f[key]; !ok || !covers(other, v) {
				return false
			}
		}
		for key, v := range f {
			if _, ok := w[key]; !ok && !slices.ContainsFunc(defaults[key], func(d any) bool { return document.Equal(d, v) }) {
				return false
			}
		}
		return true
	case []any:
		f, ok := found.([]any)
		return ok && len(f) == len(w) && coversAll(f, w)
	}
	return document.Equal(found, written)
}
