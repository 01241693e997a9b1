package plan

import (
	"bytes"
	"strconv"

	"go.yaml.in/yaml/v3"

	"github.com/wheelwright-dev/wheelwright/pkg/strictyaml"
)

// YAML is the plan's canonical text: every key at the top with its value, those of a wave that are not at
// their default. Parse reads the same plan from it.
func (p Plan) YAML() []byte {
	top := &mapping{}
	top.text("start", string(p.Start), "")
	top.text("onFailure", string(p.OnFailure), "")
	top.add("supersede", scalar("!!bool", strconv.FormatBool(p.Supersede)))
	top.text("joiners", string(p.Joiners), "")
	top.text("patience", strictyaml.Brief(p.Patience), "0s")
	waves := &yaml.Node{Kind: yaml.SequenceNode}
	for _, w := range p.Waves {
		waves.Content = append(waves.Content, w.node())
	}
	top.add("waves", waves)
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(&top.Node); err != nil {
		panic("bug: a plan's own nodes are no YAML: " + err.Error())
	}
	return b.Bytes()
}

// MarshalText is YAML: what stores a plan stores what a person would write.
func (p Plan) MarshalText() ([]byte, error) { return p.YAML(), nil }

// UnmarshalText is Parse.
func (p *Plan) UnmarshalText(text []byte) error {
	parsed, err := Parse(text)
	if err == nil {
		*p = parsed
	}
	return err
}

func (w Wave) node() *yaml.Node {
	m := &mapping{}
	m.text("name", w.Name, "")
	if s := w.Clusters.node(); len(s.Content) > 0 {
		m.add("clusters", s)
	}
	m.text("max", w.Max.String(), "0")
	m.text("concurrency", w.Concurrency.String(), "0")
	m.text("budget", w.Budget.String(), "0")
	m.text("soak", strictyaml.Brief(w.Soak), "0s")
	m.text("success", Amount{N: w.Success, Percent: true}.String(), "0%")
	m.text("approval", w.Approval, "")
	if w.Verdicts.Minimum > 0 {
		v := &mapping{}
		v.text("minimum", strconv.Itoa(w.Verdicts.Minimum), "")
		v.text("passes", Amount{N: w.Verdicts.Passes, Percent: true}.String(), "100%")
		m.add("verdicts", &v.Node)
	}
	if len(w.Windows) > 0 {
		m.add("windows", list(w.Windows.Texts()))
	}
	m.text("patience", strictyaml.Brief(w.Patience), "0s")
	m.Kind = yaml.MappingNode
	return &m.Node
}

func (s Selector) node() *yaml.Node {
	m := &mapping{}
	m.Kind = yaml.MappingNode
	if len(s.MatchLabels) > 0 {
		labels := &mapping{}
		for _, k := range sortedKeys(s.MatchLabels) {
			labels.add(k, scalar("!!str", s.MatchLabels[k]))
		}
		m.add("matchLabels", &labels.Node)
	}
	if len(s.MatchExpressions) > 0 {
		all := &yaml.Node{Kind: yaml.SequenceNode}
		for _, e := range s.MatchExpressions {
			one := &mapping{}
			one.add("key", scalar("!!str", e.Key))
			one.text("operator", string(e.Operator), "")
			if len(e.Values) > 0 {
				one.add("values", list(e.Values))
			}
			all.Content = append(all.Content, &one.Node)
		}
		m.add("matchExpressions", all)
	}
	return &m.Node
}

// mapping is a YAML mapping that is being written.
type mapping struct{ yaml.Node }

func (m *mapping) add(key string, value *yaml.Node) {
	m.Kind = yaml.MappingNode
	m.Content = append(m.Content, scalar("!!str", key), value)
}

// text leaves out a value that is as good as absent.
func (m *mapping) text(key, value, absent string) {
	switch {
	case value == absent:
	case value != "" && value[0] >= '0' && value[0] <= '9': // an amount or a duration looks better without quotes
		m.add(key, scalar("", value))
	default:
		m.add(key, scalar("!!str", value))
	}
}

// scalar of tag "!!str" is quoted where it would read as something else.
func scalar(tag, value string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: value}
}

func list(values []string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
	for _, v := range values {
		n.Content = append(n.Content, scalar("!!str", v))
	}
	return n
}
