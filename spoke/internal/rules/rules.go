// Package rules judges the health of objects of kinds that nobody else knows about, by expressions in
// the Common Expression Language (https://cel.dev) that a vendor or a provider wrote. It is pure: an
// object in, a verdict out. What is worth asking, and when, is package apply's.
package rules

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/ext"
)

// Rule says when an object of a kind is well. At least one of Current, Failed and InProgress is there;
// they see the object as object, and its metadata, spec and status.
type Rule struct {
	Group, Version, Kind        string // an empty Version: any; an empty Group: the core one
	Current, Failed, InProgress string // true where the object is so; Failed is asked first, then InProgress
	Message                     string // gives text about an object that is not current; may be empty
}

func (r Rule) String() string {
	gv := strings.Trim(r.Group+"/"+r.Version, "/")
	return strings.TrimSpace(gv + " " + r.Kind)
}

// Verdict is about one object.
type Verdict string

const (
	Current    Verdict = "Current"
	Failed     Verdict = "Failed"
	InProgress Verdict = "InProgress"
)

// costLimit bounds one evaluation, in CEL's own units (about one for each step): ample for conditions
// over an object's status, and some milliseconds at the most.
const costLimit = 200_000

// Book is a set of rules, compiled. It is safe for concurrent use.
type Book struct{ entries []entry }

type entry struct {
	rule                        Rule
	current, failed, inProgress cel.Program // nil: not written
	message                     cel.Program
}

// Compile reads rules. Of two about the same kind the first counts. The error names everything that is
// wrong, by rule and column.
func Compile(all []Rule) (*Book, error) {
	if len(all) == 0 {
		return &Book{}, nil
	}
	env, err := cel.NewEnv(ext.Strings(), cel.OptionalTypes(),
		cel.Variable("object", cel.DynType), cel.Variable("metadata", cel.DynType),
		cel.Variable("spec", cel.DynType), cel.Variable("status", cel.DynType))
	if err != nil {
		return nil, fmt.Errorf("prepare the language of health rules: %w", err)
	}
	b := &Book{}
	var problems []error
	for _, r := range all {
		e := entry{rule: r}
		if r.Kind == "" || r.Current+r.Failed+r.InProgress == "" {
			problems = append(problems, fmt.Errorf("health rule of %s: want a kind, and an expression under current, failed or inProgress", r))
			continue
		}
		for _, x := range []struct {
			name, text string
			want       *cel.Type
			at         *cel.Program
		}{{"current", r.Current, cel.BoolType, &e.current}, {"failed", r.Failed, cel.BoolType, &e.failed},
			{"inProgress", r.InProgress, cel.BoolType, &e.inProgress}, {"message", r.Message, cel.StringType, &e.message}} {
			if x.text == "" {
				continue
			}
			if *x.at, err = compile(env, x.text, x.want); err != nil {
				problems = append(problems, fmt.Errorf("health rule of %s: %s: %w", r, x.name, err))
			}
		}
		b.entries = append(b.entries, e)
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return b, nil
}

func compile(env *cel.Env, text string, want *cel.Type) (cel.Program, error) {
	ast, issues := env.Compile(text)
	if issues.Err() != nil {
		var parts []string
		for _, e := range issues.Errors() {
			parts = append(parts, fmt.Sprintf("column %d: %s", e.Location.Column()+1, e.Message))
		}
		return nil, errors.New(strings.Join(parts, "; "))
	}
	if t := ast.OutputType(); !t.IsExactType(want) && !t.IsExactType(cel.DynType) {
		return nil, fmt.Errorf("it gives %s, want %s", t, want)
	}
	return env.Program(ast, cel.CostLimit(costLimit), cel.InterruptCheckFrequency(100))
}

// About reports whether a rule is about the kind.
func (b *Book) About(group, version, kind string) bool { return b.find(group, version, kind) != nil }

func (b *Book) find(group, version, kind string) *entry {
	if b == nil {
		return nil
	}
	n := slices.IndexFunc(b.entries, func(e entry) bool {
		return e.rule.Kind == kind && e.rule.Group == group && (e.rule.Version == "" || e.rule.Version == version)
	})
	if n < 0 {
		return nil
	}
	return &b.entries[n]
}

// Judge judges an object; ok is false where no rule is about its kind. An expression that cannot be
// evaluated, as one about a status that is not there yet, does not hold; where none holds the object is
// in progress, and message says what could not be evaluated.
func (b *Book) Judge(group, version, kind string, object map[string]any) (verdict Verdict, message string, ok bool) {
	e := b.find(group, version, kind)
	if e == nil {
		return "", "", false
	}
	in := map[string]any{"object": object}
	for _, part := range []string{"metadata", "spec", "status"} {
		in[part] = map[string]any{}
		if m, is := object[part].(map[string]any); is {
			in[part] = m
		}
	}
	var trouble error
	holds := func(p cel.Program) bool {
		if p == nil {
			return false
		}
		v, _, err := p.Eval(in)
		if err != nil {
			trouble = err
			return false
		}
		return v == types.True
	}
	switch {
	case holds(e.failed):
		verdict = Failed
	case holds(e.inProgress):
		verdict = InProgress
	case e.current == nil || holds(e.current):
		verdict = Current
		if e.current == nil && trouble != nil {
			verdict = InProgress
		}
	default:
		verdict = InProgress
	}
	if verdict == Current {
		return verdict, "", true
	}
	return verdict, e.explain(in, verdict, trouble), true
}

func (e *entry) explain(in map[string]any, verdict Verdict, trouble error) string {
	if e.message != nil {
		if v, _, err := e.message.Eval(in); err == nil {
			if text, ok := v.Value().(string); ok && text != "" {
				return text
			}
		}
	}
	switch {
	case verdict == Failed:
		return "by its health rule it has failed"
	case trouble != nil:
		return "its health rule cannot be evaluated yet: " + trouble.Error()
	}
	return "by its health rule it is not ready"
}
