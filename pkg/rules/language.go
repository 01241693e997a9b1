package rules

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/ext"
)

var parts = [...]string{"metadata", "spec", "status"} // of an object

const (
	costLimit      = 1_000_000 // what Kubernetes allows one expression of its own
	timeLimit      = time.Second
	interruptEvery = 100     // steps of a loop between looks at the clock
	longest        = 4 << 10 // of an expression, in characters
	deepest        = 50      // levels of brackets
)

// language is what rules are written in. It is made when there are rules and not kept: it is larger than
// they are.
type language struct {
	conditions *cel.Env
	messages   *cel.Env
}

func newLanguage() (language, error) {
	messages, err := cel.NewEnv(
		// Version 0 has no functions that make much text out of little, but for replace.
		ext.Strings(ext.StringsVersion(0)),
		cel.OptionalTypes(),
		cel.CrossTypeNumericComparisons(true),
		cel.DefaultUTCTimeZone(true),
		cel.ParserExpressionSizeLimit(longest),
		cel.ParserRecursionLimit(deepest),
		cel.Variable("metadata", cel.DynType),
		cel.Variable("status", cel.DynType),
	)
	if err != nil {
		return language{}, err
	}
	conditions, err := messages.Extend(cel.Variable("object", cel.DynType), cel.Variable("spec", cel.DynType))
	return language{conditions, messages}, err
}

// compile reads a rule and collects all that is wrong with it.
func (l language) compile(r Rule) (compiled, []error) {
	c := compiled{Rule: r}
	var problems []error
	if r.Kind == "" {
		problems = append(problems, errors.New("it names no kind"))
	}
	if r.Group == "" && r.Kind == "Secret" {
		problems = append(problems, errSecret)
	}
	if r.Current+r.Failed+r.InProgress == "" {
		problems = append(problems, errors.New("it has no expression: want current, failed or inProgress"))
	}
	for _, e := range []struct {
		name, text string
		env        *cel.Env
		want       *cel.Type
		program    *cel.Program
	}{
		{"current", r.Current, l.conditions, cel.BoolType, &c.current},
		{"failed", r.Failed, l.conditions, cel.BoolType, &c.failed},
		{"inProgress", r.InProgress, l.conditions, cel.BoolType, &c.inProgress},
		{"message", r.Message, l.messages, cel.StringType, &c.message},
	} {
		if e.text == "" {
			continue
		}
		p, errs := program(e.env, e.text, e.want)
		for _, err := range errs {
			problems = append(problems, fmt.Errorf("%s: %w", e.name, err))
		}
		*e.program = p
	}
	return c, problems
}

func program(env *cel.Env, text string, want *cel.Type) (cel.Program, []error) {
	checked, issues := env.Compile(text)
	if issues.Err() != nil {
		var problems []error
		for _, e := range issues.Errors() {
			at := ""
			if line, column := e.Location.Line(), e.Location.Column(); line > 1 {
				at = fmt.Sprintf("line %d, column %d: ", line, column+1)
			} else if line == 1 {
				at = fmt.Sprintf("column %d: ", column+1)
			}
			problems = append(problems, fmt.Errorf("%s%s", at, strings.Join(strings.Fields(e.Message), " ")))
		}
		return nil, problems
	}
	if got := checked.OutputType(); !got.IsExactType(want) && !got.IsExactType(cel.DynType) {
		return nil, []error{fmt.Errorf("column 1: it gives %s, want %s", got, want)}
	}
	native := checked.NativeRep()
	if calls := ast.MatchDescendants(ast.NavigateAST(native), ast.FunctionMatcher("replace")); len(calls) > 0 {
		at := native.SourceInfo().GetStartLocation(calls[0].ID())
		return nil, []error{fmt.Errorf("column %d: replace is not to be had: nothing bounds the length of what it makes", at.Column()+1)}
	}
	p, err := env.Program(checked, cel.CostLimit(costLimit), cel.InterruptCheckFrequency(interruptEvery))
	if err != nil {
		return nil, []error{err}
	}
	return p, nil
}

// run evaluates; there is false where the object lacks what is asked about.
func run(p cel.Program, vars map[string]any) (v ref.Val, there bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeLimit)
	defer cancel()
	v, _, err = p.ContextEval(ctx, vars)
	switch {
	case err == nil:
		return v, true, nil
	case strings.HasPrefix(err.Error(), "no such key: "):
		return nil, false, nil
	case ctx.Err() != nil:
		return nil, false, fmt.Errorf("it took longer than %s", timeLimit)
	}
	return nil, false, err
}

func holds(p cel.Program, vars map[string]any) (bool, error) {
	v, there, err := run(p, vars)
	if err != nil || !there {
		return false, err
	}
	yes, ok := v.Value().(bool)
	if !ok {
		return false, fmt.Errorf("it gives %s, want bool", v.Type().TypeName())
	}
	return yes, nil
}

func text(p cel.Program, vars map[string]any) (string, error) {
	v, there, err := run(p, vars)
	if err != nil || !there {
		return "", err
	}
	s, ok := v.Value().(string)
	if !ok {
		return "", fmt.Errorf("it gives %s, want string", v.Type().TypeName())
	}
	return s, nil
}
