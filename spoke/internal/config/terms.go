package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/render"
	"github.com/wheelwright-dev/wheelwright/pkg/rules"
	"github.com/wheelwright-dev/wheelwright/pkg/sops"
	"github.com/wheelwright-dev/wheelwright/pkg/strictyaml"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/envelope"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/terms"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/verify"
)

// shared is what a subscription may set, and the top of the file for all of them.
type shared struct {
	terms                                       *terms.Terms
	healthTimeout, hookTimeout, approvalTimeout *time.Duration
	health                                      *[]rules.Rule
	windows                                     *fleet.Windows
	fromHub                                     *FromHub
	tests                                       *Tests
	canary                                      *Canary
	signers                                     *verify.Signers
	operators                                   *verify.Operators
	envelope                                    *envelope.Envelope
	account                                     *Account
	decryption                                  *sops.Keys
}

// shared reads into s. What is there already is the default: a scalar and the windows take its place,
// another list is added to it, and an envelope makes it narrower.
func (d *decoder) shared(s shared) strictyaml.Fields {
	t := s.terms
	return strictyaml.Fields{
		"healthTimeout": func(n *yaml.Node, key string) { *s.healthTimeout = d.duration(n, key) },
		"hookTimeout":   func(n *yaml.Node, key string) { *s.hookTimeout = d.duration(n, key) },
		"approvalTimeout": func(n *yaml.Node, key string) {
			*s.approvalTimeout = d.Duration(n, key, time.Minute, 365*24*time.Hour)
		},
		"drift": func(n *yaml.Node, key string) {
			if n.Kind != yaml.ScalarNode {
				d.Problem(n, key, "want text, found %s", strictyaml.Kind(n))
				return
			}
			var err error
			if t.Drift, err = terms.ParseDrift(d.Text(n, key)); err != nil {
				d.Problem(n, key, "%v", err)
			}
		},
		"ignore":         func(n *yaml.Node, key string) { t.Ignore = added(t.Ignore, d.ignored(n, key)) },
		"recreate":       func(n *yaml.Node, key string) { t.Recreate = added(t.Recreate, d.patterns(n, key, nil)) },
		"delete":         func(n *yaml.Node, key string) { t.Delete = added(t.Delete, d.patterns(n, key, named)) },
		"deletionBudget": func(n *yaml.Node, key string) { d.budget(n, key, &t.Budget) },
		"health":         func(n *yaml.Node, key string) { *s.health = overridden(*s.health, d.health(n, key)) },
		"windows":        func(n *yaml.Node, key string) { *s.windows = d.windows(n, key) },
		"fromHub":        func(n *yaml.Node, key string) { d.fromHub(n, key, s.fromHub) },
		"tests":          func(n *yaml.Node, key string) { d.provenBy(n, key, s.tests) },
		"canary":         func(n *yaml.Node, key string) { d.canary(n, key, s.canary) },
		"signers":        func(n *yaml.Node, key string) { d.signers(n, key, s.signers) },
		"operators":      func(n *yaml.Node, key string) { d.operators(n, key, s.operators) },
		"envelope":       func(n *yaml.Node, key string) { *s.envelope = d.layer(n, key, *s.envelope) },
		"serviceAccount": func(n *yaml.Node, key string) { *s.account = d.account(n, key) },
		"decryption":     func(n *yaml.Node, key string) { d.decryption(n, key, s.decryption) },
	}
}

// added makes a list of its own, so that what two subscriptions add does not meet.
func added[T any](defaults, more []T) []T { return slices.Concat(defaults, more) }

// overridden puts a subscription's rules before the defaults that are about other kinds.
func overridden(defaults, own []rules.Rule) []rules.Rule {
	all := slices.Clone(own)
	for _, r := range defaults {
		key := render.HealthRule(r).Key()
		if !slices.ContainsFunc(own, func(o rules.Rule) bool { return render.HealthRule(o).Key() == key }) {
			all = append(all, r)
		}
	}
	return all
}

// patterns reads a list of objects; further refuses some of them.
func (d *decoder) patterns(n *yaml.Node, at string, further func(terms.Pattern) error) []terms.Pattern {
	var all []terms.Pattern
	for i, item := range d.List(n, at) {
		if p, ok := d.pattern(item, fmt.Sprintf("%s[%d]", at, i), further); ok {
			all = append(all, p)
		}
	}
	return all
}

func (d *decoder) pattern(n *yaml.Node, at string, further func(terms.Pattern) error) (terms.Pattern, bool) {
	if n.Kind != yaml.ScalarNode {
		d.Problem(n, at, "want text, found %s", strictyaml.Kind(n))
		return terms.Pattern{}, false
	}
	p, err := terms.ParsePattern(d.Text(n, at))
	if err == nil && further != nil {
		err = further(p)
	}
	if err != nil {
		d.Problem(n, at, "%v", err)
	}
	return p, err == nil
}

// named: what holds data is given up one by one.
func named(p terms.Pattern) error {
	if !p.Named() {
		return fmt.Errorf("%q: names no object: consent to delete is for one, such as PersistentVolumeClaim/shop/data", p)
	}
	return nil
}

func (d *decoder) ignored(n *yaml.Node, at string) []terms.Ignore {
	var all []terms.Ignore
	for i, item := range d.List(n, at) {
		var one terms.Ignore
		here := fmt.Sprintf("%s[%d]", at, i)
		seen := d.Mapping(item, here, strictyaml.Fields{
			"object":  func(n *yaml.Node, key string) { one.Object, _ = d.pattern(n, key, nil) },
			"fields":  func(n *yaml.Node, key string) { one.Fields = d.paths(n, key) },
			"manager": func(n *yaml.Node, key string) { one.Manager = d.Text(n, key) },
		})
		if seen == nil {
			continue
		}
		if seen["object"] == nil {
			d.Problem(item, here+".object", "missing: want KIND, KIND/NAME or KIND/NAMESPACE/NAME")
		}
		switch fields, manager := seen["fields"] != nil, one.Manager != ""; {
		case fields && manager:
			d.Problem(item, here, "has `fields` and `manager`: want one of the two")
		case !fields && !manager:
			d.Problem(item, here, "names neither `fields: [PATH, …]` nor `manager: FIELD MANAGER`")
		}
		all = append(all, one)
	}
	return all
}

func (d *decoder) paths(n *yaml.Node, at string) []terms.Path {
	var all []terms.Path
	items := d.List(n, at)
	for i, item := range items {
		here := fmt.Sprintf("%s[%d]", at, i)
		if item.Kind != yaml.ScalarNode {
			d.Problem(item, here, "want text, found %s", strictyaml.Kind(item))
			continue
		}
		p, err := terms.ParsePath(d.Text(item, here))
		if err != nil {
			d.Problem(item, here, "%v", err)
		}
		all = append(all, p)
	}
	if n.Kind == yaml.SequenceNode && len(items) == 0 {
		d.Problem(n, at, "is empty: want paths such as spec.replicas")
	}
	return all
}

func (d *decoder) budget(n *yaml.Node, at string, b *terms.Budget) {
	d.Mapping(n, at, strictyaml.Fields{
		"percent": func(n *yaml.Node, key string) { b.Percent = d.number(n, key, 100) },
		"atLeast": func(n *yaml.Node, key string) { b.AtLeast = d.number(n, key, 1_000_000) },
	})
}

func (d *decoder) number(n *yaml.Node, at string, most int) int {
	v, err := strconv.Atoi(d.Text(n, at))
	if err != nil || v < 0 || v > most {
		d.Problem(n, at, "%q: want a number from 0 to %d", n.Value, most)
	}
	return v
}

// health reads rules of the form that wheelwright.yaml has too, and compiles them.
func (d *decoder) health(n *yaml.Node, at string) []rules.Rule {
	var all []rules.Rule
	lines := map[string]int{}
	for i, item := range d.List(n, at) {
		here := fmt.Sprintf("%s[%d]", at, i)
		before := len(d.Problems)
		r := d.rule(item, here)
		if len(d.Problems) > before {
			continue
		}
		if first, twice := lines[r.Key()]; twice {
			d.Problem(item, here, "line %d has a rule about the same kind", first)
			continue
		}
		lines[r.Key()] = item.Line
		if _, err := rules.Compile([]rules.Rule{rules.Rule(r)}); err != nil {
			d.Problem(item, here, "%v", err)
			continue
		}
		all = append(all, rules.Rule(r))
	}
	return all
}

func (d *decoder) rule(n *yaml.Node, at string) render.HealthRule {
	var r render.HealthRule
	text := func(to *string) func(*yaml.Node, string) {
		return func(n *yaml.Node, key string) { *to = d.Text(n, key) }
	}
	seen := d.Mapping(n, at, strictyaml.Fields{
		"apiVersion": func(n *yaml.Node, key string) {
			var err error
			if r.Group, r.Version, err = render.ParseAPIVersion(d.Text(n, key)); err != nil {
				d.Problem(n, key, "%v", err)
			}
		},
		"kind": text(&r.Kind), "current": text(&r.Current), "failed": text(&r.Failed), "inProgress": text(&r.InProgress), "message": text(&r.Message),
	})
	if seen == nil {
		return r
	}
	if seen["apiVersion"] == nil {
		d.Problem(n, at+".apiVersion", "missing: want GROUP/VERSION, such as example.com/v1, or GROUP alone for any version")
	}
	missing := r.Check()
	for _, key := range slices.Sorted(maps.Keys(missing)) {
		where := seen[key]
		if where == nil {
			where = n
		}
		d.Problem(where, at+"."+key, "%s", missing[key])
	}
	return r
}
