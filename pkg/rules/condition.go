package rules

import (
	"errors"
	"fmt"

	"github.com/google/cel-go/cel"
)

// Condition is one expression about any object, for who judges by whether it holds: unlike a Rule it is asked
// of objects as they were declared, has no kind, and gives no text of its own.
type Condition struct {
	Text    string
	program cel.Program
}

// Conditions reads expressions, in their language's limits; errs has for each of them what is wrong, or nil.
func Conditions(texts []string) (all []Condition, errs []error) {
	errs = make([]error, len(texts))
	all = make([]Condition, len(texts))
	language, err := newLanguage()
	for n, t := range texts {
		if err != nil {
			errs[n] = err
			continue
		}
		p, problems := program(language.conditions, t, cel.BoolType)
		all[n], errs[n] = Condition{t, p}, errors.Join(problems...)
	}
	return all, errs
}

// ErrLacks: the expression asks for something that the object does not have, and not whether it has it.
var ErrLacks = errors.New("the object does not have what the expression asks for")

// Holds answers for one object. Whatever keeps it from being answered is an error, so that nobody takes it for a yes.
func (c Condition) Holds(obj map[string]any) (bool, error) {
	if c.program == nil {
		return false, errors.New("it was never read")
	}
	v, there, err := run(c.program, variables(obj))
	switch {
	case err != nil:
		return false, err
	case !there:
		return false, fmt.Errorf("%w; ask with has(…), or object.?spec.?key.orValue(…)", ErrLacks)
	}
	yes, ok := v.Value().(bool)
	if !ok {
		return false, fmt.Errorf("it gives %s, want bool", v.Type().TypeName())
	}
	return yes, nil
}
