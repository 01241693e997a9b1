package plan

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/strictyaml"
)

// DefaultPatience is how long a wave waits for clusters that do not move.
const DefaultPatience = time.Hour

// Most of what a plan may ask for; more is a slip of the pen.
const (
	mostWaves = 100
	mostWait  = 90 * 24 * time.Hour
)

// base is every plan before its text is read.
func base() Plan {
	return Plan{Start: Auto, OnFailure: Hold, Supersede: true, Joiners: JoinCompleted, Patience: DefaultPatience}
}

// Default is the plan of a release that nobody made one for: everybody at once, whoever joins meanwhile
// too, and no failure stops it.
func Default() Plan {
	p := base()
	p.Joiners = JoinWave
	p.Waves = []Wave{{Name: "everyone", Budget: Amount{N: 100, Percent: true}}}
	return p
}

// Problems are all that is wrong with a plan: "key.path: what is wrong", in the order of the text; "plan: …"
// is about the whole.
type Problems []string

func (p Problems) Error() string { return strings.Join(p, "\n") }

const whole = "plan"

// Below is a problem in a file that has the plan under key.
func Below(key, problem string) string {
	if rest, ok := strings.CutPrefix(problem, whole+": "); ok {
		return key + ": " + rest
	}
	return key + "." + problem
}

// Parse reads a plan, the mapping that stands under `rollout:`. It is strict; an error is Problems.
func Parse(text []byte) (Plan, error) {
	d := &decoder{}
	p := base()
	root := d.Document(text, "is empty: want at least `waves: [{name: everyone}]`")
	if root != nil && !d.headed(root) {
		d.plan(root, &p)
	}
	if len(d.Problems) > 0 {
		return Plan{}, d.all()
	}
	return p, nil
}

// headed: the text has the key that a plan stands under elsewhere, such as the file of another kind that it is.
func (d *decoder) headed(n *yaml.Node) bool {
	if n.Kind != yaml.MappingNode {
		return false
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == "rollout" {
			d.Problem(nil, "rollout", "leave this key out, and what is beside it: a plan is what stands under it")
			return true
		}
	}
	return false
}

func (d *decoder) plan(n *yaml.Node, p *Plan) {
	seen := d.Mapping(n, "", strictyaml.Fields{
		"start":     func(n *yaml.Node, at string) { p.Start = oneOf(d, n, at, Auto, Manual) },
		"onFailure": func(n *yaml.Node, at string) { p.OnFailure = oneOf(d, n, at, Hold, RollBackWave, RollBackAll) },
		"supersede": func(n *yaml.Node, at string) { p.Supersede = d.Flag(n, at) },
		"joiners":   func(n *yaml.Node, at string) { p.Joiners = oneOf(d, n, at, JoinCompleted, JoinWave) },
		"patience":  func(n *yaml.Node, at string) { p.Patience = d.Duration(n, at, time.Second, mostWait) },
		"waves": func(n *yaml.Node, at string) {
			named := map[string]int{}
			for i, item := range d.List(n, at) {
				here := fmt.Sprintf("%s[%d]", at, i)
				w := d.wave(item, here)
				if first, twice := named[w.Name]; twice && w.Name != "" {
					d.Problem(nil, here+".name", "%q is the name of %s[%d] already: each wave has its own", w.Name, at, first)
				} else {
					named[w.Name] = i
				}
				p.Waves = append(p.Waves, w)
			}
		},
	})
	switch {
	case seen == nil:
	case len(p.Waves) == 0 && (seen["waves"] == nil || seen["waves"].Kind == yaml.SequenceNode):
		d.Problem(nil, "waves", "there are none: want at least one, such as `waves: [{name: everyone}]`")
	case len(p.Waves) > mostWaves:
		d.Problem(nil, "waves", "there are %d: want at most %d", len(p.Waves), mostWaves)
	}
}

var (
	nameForm = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$`)
	roleForm = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$`)
)

func (d *decoder) wave(n *yaml.Node, at string) Wave {
	var w Wave
	seen := d.Mapping(n, at, strictyaml.Fields{
		"name": func(n *yaml.Node, at string) {
			if w.Name = d.Text(n, at); !nameForm.MatchString(w.Name) {
				d.Problem(nil, at, "%q: want lower-case letters, digits and dashes, at most 40", w.Name)
			}
		},
		"clusters":    func(n *yaml.Node, at string) { w.Clusters = d.selector(n, at) },
		"max":         func(n *yaml.Node, at string) { w.Max = d.amount(n, at, 1, "all that match") },
		"concurrency": func(n *yaml.Node, at string) { w.Concurrency = d.amount(n, at, 1, "all at once") },
		"budget":      func(n *yaml.Node, at string) { w.Budget = d.amount(n, at, 0, "none") },
		"soak":        func(n *yaml.Node, at string) { w.Soak = d.Duration(n, at, 0, mostWait) },
		"success": func(n *yaml.Node, at string) {
			w.Success = d.share(n, at, "a wave that may come to nothing has `budget: 100%`")
		},
		"approval": func(n *yaml.Node, at string) {
			if w.Approval = d.Text(n, at); !roleForm.MatchString(w.Approval) {
				d.Problem(nil, at, "%q: want the role of who approves, such as admin", w.Approval)
			}
		},
		"verdicts": func(n *yaml.Node, at string) { w.Verdicts = d.verdicts(n, at) },
		"windows": func(n *yaml.Node, at string) {
			for i, item := range d.List(n, at) {
				here := fmt.Sprintf("%s[%d]", at, i)
				window, err := fleet.ParseWindow(d.Text(item, here))
				if err != nil {
					d.Problem(nil, here, "%v", err)
				}
				w.Windows = append(w.Windows, window)
			}
		},
		"patience": func(n *yaml.Node, at string) { w.Patience = d.Duration(n, at, time.Second, mostWait) },
	})
	if seen != nil && seen["name"] == nil {
		d.Problem(nil, at+".name", "missing: people approve and wait by it")
	}
	return w
}

func (d *decoder) verdicts(n *yaml.Node, at string) Verdicts {
	v := Verdicts{Passes: 100}
	seen := d.Mapping(n, at, strictyaml.Fields{
		"minimum": func(n *yaml.Node, at string) {
			number, err := strconv.Atoi(d.Text(n, at))
			if v.Minimum = number; err != nil || number < 1 {
				d.Problem(nil, at, "%q: want a number of clusters, at least 1", n.Value)
			}
		},
		"passes": func(n *yaml.Node, at string) { v.Passes = d.share(n, at, "without a demand, leave out verdicts") },
	})
	if seen != nil && seen["minimum"] == nil {
		d.Problem(nil, at+".minimum", "missing: how many clusters have to have a verdict")
	}
	return v
}

func (d *decoder) selector(n *yaml.Node, at string) Selector {
	var s Selector
	d.Mapping(n, at, strictyaml.Fields{
		"matchLabels": func(n *yaml.Node, at string) {
			if n.Kind != yaml.MappingNode {
				d.Problem(nil, at, "want labels and their values, found %s", strictyaml.Kind(n))
				return
			}
			if len(n.Content) > 0 {
				s.MatchLabels = map[string]string{}
			}
			for i := 0; i+1 < len(n.Content); i += 2 {
				key := d.labelKey(n.Content[i], at)
				if _, twice := s.MatchLabels[key]; twice {
					d.Problem(nil, at+"."+key, "is there twice")
				}
				s.MatchLabels[key] = d.Text(strictyaml.Resolved(n.Content[i+1]), at+"."+key)
			}
		},
		"matchExpressions": func(n *yaml.Node, at string) {
			for i, item := range d.List(n, at) {
				s.MatchExpressions = append(s.MatchExpressions, d.expression(item, fmt.Sprintf("%s[%d]", at, i)))
			}
		},
	})
	return s
}

func (d *decoder) expression(n *yaml.Node, at string) Expression {
	var e Expression
	seen := d.Mapping(n, at, strictyaml.Fields{
		"key":      func(n *yaml.Node, at string) { e.Key = d.labelKey(n, at) },
		"operator": func(n *yaml.Node, at string) { e.Operator = oneOf(d, n, at, In, NotIn, Exists, DoesNotExist) },
		"values": func(n *yaml.Node, at string) {
			for i, item := range d.List(n, at) {
				e.Values = append(e.Values, d.Text(item, fmt.Sprintf("%s[%d]", at, i)))
			}
		},
	})
	if seen == nil {
		return e
	}
	for _, key := range []string{"key", "operator"} {
		if seen[key] == nil {
			d.Problem(nil, at+"."+key, "missing")
		}
	}
	switch e.Operator {
	case In, NotIn:
		if len(e.Values) == 0 {
			d.Problem(nil, at+".values", "missing: %s compares with at least one", e.Operator)
		}
	case Exists, DoesNotExist:
		if len(e.Values) > 0 {
			d.Problem(nil, at+".values", "%s compares with none: leave them out", e.Operator)
		}
	}
	return e
}

var amountForm = regexp.MustCompile(`^([0-9]{1,7}) ?(%?)$`)

// ParseAmount reads "3" or "10%".
func ParseAmount(s string) (Amount, error) {
	m := amountForm.FindStringSubmatch(s)
	if m == nil {
		return Amount{}, fmt.Errorf("%q: want a number of clusters, such as 3, or a share of them, such as 10%%", s)
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		return Amount{}, fmt.Errorf("%q: %w", s, err)
	}
	a := Amount{N: n, Percent: m[2] != ""}
	if a.Percent && n > 100 {
		return Amount{}, fmt.Errorf("%q: is more than all of them: want at most 100%%", s)
	}
	return a, nil
}

func (d *decoder) amount(n *yaml.Node, at string, least int, absent string) Amount {
	a, err := ParseAmount(d.Text(n, at))
	switch {
	case n.Kind != yaml.ScalarNode:
	case err != nil:
		d.Problem(nil, at, "%v", err)
	case a.N < least:
		d.Problem(nil, at, "%q: want at least %d; leave it out for %s", n.Value, least, absent)
	case a.N == 0:
		return Amount{} // "0%" is 0
	}
	return a
}

// share reads 1 to 100 per cent, with or without the sign.
func (d *decoder) share(n *yaml.Node, at, nothing string) int {
	text := d.Text(n, at)
	number, err := strconv.Atoi(strings.TrimSuffix(text, "%"))
	switch {
	case n.Kind != yaml.ScalarNode:
	case err != nil:
		d.Problem(nil, at, "%q: want a share from 1%% to 100%%", text)
	case number > 100:
		d.Problem(nil, at, "%q: is more than all of them: want at most 100%%", text)
	case number < 1:
		d.Problem(nil, at, "%q: want a share from 1%% to 100%%; %s", text, nothing)
	}
	return number
}

func oneOf[T ~string](d *decoder, n *yaml.Node, at string, known ...T) T {
	v := T(d.Text(n, at))
	if n.Kind == yaml.ScalarNode && !slices.Contains(known, v) {
		names := make([]string, len(known))
		for i, k := range known {
			names[i] = string(k)
		}
		d.Problem(nil, at, "%q is not known: want %s", v, strings.Join(names, ", "))
	}
	return v
}
