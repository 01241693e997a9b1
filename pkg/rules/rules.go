// Package rules judges objects by rules that a vendor or a provider wrote in CEL: whether one is there,
// failed, or on its way. It reads no cluster and no file, sees one object at a time, and a rule can
// neither reach outside of that object nor run for long.
//
// A Rule is what was written about a kind; a Book is rules that can be run; a Verdict is what one says.
package rules

import (
	"errors"
	"fmt"
	"strings"

	"github.com/google/cel-go/cel"
)

// Rule says when an object of one kind is well. Its expressions see the object as object, and its parts
// as metadata, spec and status; what the object does not have is false. The message is told to others,
// who may not know the values that the object was given: it sees the status, and of the metadata name,
// namespace and generation.
type Rule struct {
	Group, Version, Kind        string // an empty Version: any; an empty Group: the core one
	Current, Failed, InProgress string // true where the object is so; at least one is written
	Message                     string // gives text; may be empty
}

// String is how a rule is spoken of: "Certificate of cert-manager.io/v1".
func (r Rule) String() string {
	gv := strings.Trim(r.Group+"/"+r.Version, "/")
	if gv == "" {
		return r.Kind
	}
	return r.Kind + " of " + gv
}

// is reports whether the rule is about a kind.
func (r Rule) is(group, version, kind string) bool {
	return r.Group == group && r.Kind == kind && (r.Version == "" || r.Version == version)
}

// Book is rules that can be run, also at the same time. A nil Book has none.
type Book struct {
	rules []compiled
}

type compiled struct {
	Rule
	current, failed, inProgress, message cel.Program // nil: not written
}

// Compile reads rules; of several about one kind the first counts. The error names all that is wrong,
// each with its rule, expression and place.
func Compile(all []Rule) (*Book, error) {
	if len(all) == 0 {
		return &Book{}, nil
	}
	language, err := newLanguage()
	if err != nil {
		return nil, fmt.Errorf("prepare to read health rules: %w", err)
	}
	b := &Book{}
	var problems []error
	for _, r := range all {
		c, errs := language.compile(r)
		for _, e := range errs {
			problems = append(problems, fmt.Errorf("health rule of %s: %w", r, e))
		}
		b.rules = append(b.rules, c)
	}
	if len(problems) > 0 {
		return nil, problemList(problems)
	}
	return b, nil
}

// problemList is all of them on one line.
type problemList []error

func (l problemList) Unwrap() []error { return l }

func (l problemList) Error() string {
	parts := make([]string, len(l))
	for n, e := range l {
		parts[n] = e.Error()
	}
	return strings.Join(parts, "; ")
}

// About reports whether there is a rule for a kind.
func (b *Book) About(group, version, kind string) bool { return b.find(group, version, kind) != nil }

func (b *Book) find(group, version, kind string) *compiled {
	if b == nil {
		return nil
	}
	for n := range b.rules {
		if b.rules[n].is(group, version, kind) {
			return &b.rules[n]
		}
	}
	return nil
}

// Verdict is what a rule says about an object.
type Verdict string

const (
	Unknown    Verdict = "Unknown" // no rule, or one that cannot be answered
	Current    Verdict = "Current"
	InProgress Verdict = "InProgress"
	Failed     Verdict = "Failed"
)

// Judge asks the rule of an object's kind: whether it failed, is on its way, is there, in this order. One
// that is none of these is on its way where the rule says what being there means, and is there where it
// does not. The message is about an object that is not there. ok is false without a rule for the kind. An
// expression that cannot be answered, but for want of something that the object does not have, is an
// error.
func (b *Book) Judge(obj map[string]any) (v Verdict, message string, ok bool, err error) {
	group, version, kind := kindOf(obj)
	c := b.find(group, version, kind)
	if c == nil {
		return Unknown, "", false, nil
	}
	if unseen(obj) {
		return InProgress, "its controller has not seen the latest change yet", true, nil
	}
	if v, err = c.judge(variables(obj)); err != nil {
		return Unknown, "", true, fmt.Errorf("health rule of %s: %w", c.Rule, err)
	}
	if v == Current {
		return v, "", true, nil
	}
	if c.message != nil {
		if message, err = text(c.message, tellable(obj)); err != nil {
			return v, "", true, fmt.Errorf("health rule of %s: message: %w", c.Rule, err)
		}
	}
	switch {
	case message != "":
	case v == Failed:
		message = "by its health rule it has failed"
	default:
		message = "by its health rule it is not ready yet"
	}
	return v, message, true, nil
}

func (c *compiled) judge(vars map[string]any) (Verdict, error) {
	for _, q := range []struct {
		name    string
		program cel.Program
		verdict Verdict
	}{{"failed", c.failed, Failed}, {"inProgress", c.inProgress, InProgress}, {"current", c.current, Current}} {
		if q.program == nil {
			continue
		}
		yes, err := holds(q.program, vars)
		if err != nil {
			return Unknown, fmt.Errorf("%s: %w", q.name, err)
		}
		if yes {
			return q.verdict, nil
		}
	}
	if c.current != nil {
		return InProgress, nil
	}
	return Current, nil
}

func kindOf(obj map[string]any) (group, version, kind string) {
	apiVersion, _ := obj["apiVersion"].(string)
	kind, _ = obj["kind"].(string)
	group, version, grouped := strings.Cut(apiVersion, "/")
	if !grouped {
		group, version = "", apiVersion
	}
	return group, version, kind
}

// unseen: a status that is about an earlier generation says nothing about this one.
func unseen(obj map[string]any) bool {
	metadata, _ := obj["metadata"].(map[string]any)
	status, _ := obj["status"].(map[string]any)
	wanted, known := number(metadata["generation"])
	seen, told := number(status["observedGeneration"])
	return known && told && seen < wanted
}

func number(v any) (int64, bool) {
	switch v := v.(type) {
	case int64:
		return v, true
	case float64:
		return int64(v), true
	}
	return 0, false
}

func variables(obj map[string]any) map[string]any {
	vars := map[string]any{"object": obj}
	for _, part := range parts {
		if vars[part] = obj[part]; vars[part] == nil {
			vars[part] = map[string]any{}
		}
	}
	return vars
}

// tellable is what a message may be made of.
func tellable(obj map[string]any) map[string]any {
	all := variables(obj)
	metadata, _ := all["metadata"].(map[string]any)
	name := map[string]any{}
	for _, key := range []string{"name", "namespace", "generation"} {
		if v, ok := metadata[key]; ok {
			name[key] = v
		}
	}
	return map[string]any{"metadata": name, "status": all["status"]}
}

var errSecret = errors.New("a Secret is never read; write a rule about what uses it")
