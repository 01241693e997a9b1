package envelope

import (
	"cmp"

	"github.com/wheelwright-dev/wheelwright/pkg/rules"
)

// Rule is a condition of the provider's own, and what is said where it does not hold.
type Rule struct {
	Condition rules.Condition
	Message   string
}

func (l Layer) rules(s Subject) []Violation {
	if len(l.Rules) == 0 {
		return nil
	}
	object := s.DeepCopy() // as it is going to be: the namespace of the subscription counts
	object.SetNamespace(s.Namespace)
	var all []Violation
	for _, r := range l.Rules {
		holds, err := r.Condition.Holds(object.Object)
		switch {
		case err != nil:
			all = append(all, Violation{"", cmp.Or(r.Message, "a rule of the provider does not hold") + " (envelope.rules)", "the rule cannot be answered for it: " + err.Error()})
		case !holds:
			all = append(all, Violation{"", cmp.Or(r.Message, "a rule of the provider does not hold") + " (envelope.rules)", "the rule is: " + r.Condition.Text})
		}
	}
	return all
}
