package gateway

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// httpRoute is the part of an HTTPRoute's spec that the stand-in knows.
type httpRoute struct {
	ParentRefs []map[string]any `json:"parentRefs"`
	Hostnames  []string         `json:"hostnames"`
	Rules      []struct {
		Matches     []matchSpec  `json:"matches"`
		Filters     []filterSpec `json:"filters"`
		BackendRefs []struct {
			refSpec
			Weight  *int         `json:"weight"`
			Filters []filterSpec `json:"filters"`
		} `json:"backendRefs"`
	} `json:"rules"`
}

type refSpec struct {
	Group     string `json:"group"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Port      int    `json:"port"`
}

type valueSpec struct{ Type, Name, Value string }

type matchSpec struct {
	Path        *struct{ Type, Value string } `json:"path"`
	Headers     []valueSpec                   `json:"headers"`
	QueryParams []valueSpec                   `json:"queryParams"`
	Method      string                        `json:"method"`
}

type filterSpec struct {
	Type                   string   `json:"type"`
	RequestHeaderModifier  modifier `json:"requestHeaderModifier"`
	ResponseHeaderModifier modifier `json:"responseHeaderModifier"`
	RequestMirror          struct {
		BackendRef refSpec `json:"backendRef"`
		Percent    *int    `json:"percent"`
		Fraction   *struct {
			Numerator   int  `json:"numerator"`
			Denominator *int `json:"denominator"`
		} `json:"fraction"`
	} `json:"requestMirror"`
}

// modifier changes headers, as the API defines it: set, then add, then remove.
type modifier struct {
	Set    []struct{ Name, Value string } `json:"set"`
	Add    []struct{ Name, Value string } `json:"add"`
	Remove []string                       `json:"remove"`
}

func (m modifier) apply(h http.Header) {
	for _, v := range m.Set {
		h.Set(v.Name, v.Value)
	}
	for _, v := range m.Add {
		h.Add(v.Name, v.Value)
	}
	for _, name := range m.Remove {
		h.Del(name)
	}
}

// backend is a Service's port, with the weight of the rule that names it.
type backend struct {
	service           string // namespace/name
	port              int
	weight            int
	request, response modifier
	mirrors           []mirror
}

type mirror struct {
	backend                backend
	numerator, denominator int
}

// rule is one match of one rule of one route.
type rule struct {
	route             string // namespace/name
	hosts             []string
	match             matchSpec
	backends          []backend
	mirrors           []mirror
	request, response modifier
	problem           string // what the stand-in cannot do

	created string
	order   int
}

// state is what a route is told.
type state struct {
	parents []map[string]any
	problem string
}

// compile makes the rules of all routes, the first that takes a request being the one that the API wants: the most
// specific match, then the older route.
func compile(all map[string]*unstructured.Unstructured) ([]rule, map[string]state) {
	var rules []rule
	states := map[string]state{}
	for key, object := range all {
		var spec httpRoute
		data, err := json.Marshal(object.Object["spec"])
		if err == nil {
			err = json.Unmarshal(data, &spec)
		}
		if err != nil {
			states[key] = state{problem: err.Error()}
			continue
		}
		s := state{parents: spec.ParentRefs}
		for i := range spec.Rules {
			base := compileRule(object, &spec, i)
			s.problem = cmp.Or(s.problem, base.problem)
			matches := spec.Rules[i].Matches
			if len(matches) == 0 {
				matches = []matchSpec{{}}
			}
			for j, m := range matches {
				one := base
				one.match, one.order = m, i*100+j
				rules = append(rules, one)
			}
		}
		states[key] = s
	}
	slices.SortFunc(rules, moreSpecific)
	return rules, states
}

func compileRule(object *unstructured.Unstructured, spec *httpRoute, i int) rule {
	r := rule{route: object.GetNamespace() + "/" + object.GetName(), hosts: spec.Hostnames, created: object.GetCreationTimestamp().UTC().Format("20060102150405")}
	r.request, r.response, r.mirrors, r.problem = filters(object.GetNamespace(), spec.Rules[i].Filters)
	for _, ref := range spec.Rules[i].BackendRefs {
		b, problem := toBackend(object.GetNamespace(), ref.refSpec)
		b.weight = 1
		if ref.Weight != nil {
			b.weight = *ref.Weight
		}
		var own string
		b.request, b.response, b.mirrors, own = filters(object.GetNamespace(), ref.Filters)
		r.problem = cmp.Or(r.problem, problem, own)
		r.backends = append(r.backends, b)
	}
	return r
}

func toBackend(namespace string, ref refSpec) (backend, string) {
	if ref.Group != "" || ref.Kind != "" && ref.Kind != "Service" {
		return backend{}, fmt.Sprintf("backend %s is a %s.%s: this stand-in leads to Services only", ref.Name, ref.Kind, ref.Group)
	}
	return backend{service: cmp.Or(ref.Namespace, namespace) + "/" + ref.Name, port: ref.Port}, ""
}

func filters(namespace string, specs []filterSpec) (request, response modifier, mirrors []mirror, problem string) {
	for _, f := range specs {
		switch f.Type {
		case "RequestHeaderModifier":
			request = f.RequestHeaderModifier
		case "ResponseHeaderModifier":
			response = f.ResponseHeaderModifier
		case "RequestMirror":
			b, bad := toBackend(namespace, f.RequestMirror.BackendRef)
			problem = cmp.Or(problem, bad)
			m := mirror{backend: b, numerator: 100, denominator: 100}
			if p := f.RequestMirror.Percent; p != nil {
				m.numerator = *p
			}
			if fraction := f.RequestMirror.Fraction; fraction != nil {
				m.numerator = fraction.Numerator
				if fraction.Denominator != nil {
					m.denominator = max(*fraction.Denominator, 1)
				}
			}
			mirrors = append(mirrors, m)
		default:
			problem = cmp.Or(problem, fmt.Sprintf("filter %s is not known to this stand-in", f.Type))
		}
	}
	return request, response, mirrors, problem
}

// moreSpecific orders as the API says that conflicts between rules are decided.
func moreSpecific(a, b rule) int {
	hosts := func(r rule) (longest int) {
		for _, h := range r.hosts {
			length := 2 * len(h)
			if !strings.HasPrefix(h, "*.") {
				length++
			}
			longest = max(longest, length)
		}
		return longest
	}
	path := func(r rule) int {
		if r.match.Path == nil {
			return 1
		}
		if r.match.Path.Type == "Exact" {
			return 1 << 20
		}
		return len(r.match.Path.Value)
	}
	method := func(r rule) int { return min(len(r.match.Method), 1) }
	return cmp.Or(cmp.Compare(hosts(b), hosts(a)), cmp.Compare(path(b), path(a)), cmp.Compare(method(b), method(a)),
		cmp.Compare(len(b.match.Headers), len(a.match.Headers)), cmp.Compare(len(b.match.QueryParams), len(a.match.QueryParams)),
		cmp.Compare(a.created, b.created), cmp.Compare(a.route, b.route), cmp.Compare(a.order, b.order))
}

// takes tells whether the rule is for a request.
func (r rule) takes(q *http.Request) bool {
	return r.takesHost(q.Host) && r.match.takesPath(q.URL.Path) && (r.match.Method == "" || r.match.Method == q.Method) &&
		!slices.ContainsFunc(r.match.Headers, func(v valueSpec) bool { return !v.fits(strings.Join(q.Header.Values(v.Name), ",")) }) &&
		!slices.ContainsFunc(r.match.QueryParams, func(v valueSpec) bool { return !v.fits(q.URL.Query().Get(v.Name)) })
}

func (r rule) takesHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return len(r.hosts) == 0 || slices.ContainsFunc(r.hosts, func(h string) bool {
		suffix, wild := strings.CutPrefix(h, "*")
		return strings.EqualFold(h, host) || wild && len(host) > len(suffix) && strings.EqualFold(host[len(host)-len(suffix):], suffix)
	})
}

func (m matchSpec) takesPath(path string) bool {
	if m.Path == nil {
		return true
	}
	switch m.Path.Type {
	case "Exact":
		return path == m.Path.Value
	case "RegularExpression":
		return whole(m.Path.Value, path)
	}
	prefix := strings.TrimSuffix(m.Path.Value, "/")
	return path == prefix || strings.HasPrefix(path, prefix+"/")
}

func (v valueSpec) fits(value string) bool {
	if v.Type == "RegularExpression" {
		return whole(v.Value, value)
	}
	return value == v.Value
}

// whole tells whether the expression matches all of the text; a bad expression matches nothing.
func whole(expression, text string) bool {
	re, err := regexp.Compile("^(?:" + expression + ")$")
	return err == nil && re.MatchString(text)
}

// draw chooses by weight; intN draws from 0 to below its argument.
func draw(backends []backend, intN func(int) int) (backend, bool) {
	sum := 0
	for _, b := range backends {
		sum += b.weight
	}
	if sum == 0 {
		return backend{}, false
	}
	at := intN(sum)
	for _, b := range backends {
		if at -= b.weight; at < 0 {
			return b, true
		}
	}
	return backend{}, false
}
