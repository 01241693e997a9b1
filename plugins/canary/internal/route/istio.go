package route

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
)

const istioGroup = "networking.istio.io"

func sorted(m Object) []string { return slices.Sorted(maps.Keys(m)) }

// istioRules are the HTTP rules of one VirtualService. Stable and candidate are told apart by host: each
// has a Service of its own, and subsets stay what the release makes of them.
type istioRules struct {
	namespace string          // the VirtualService's own
	subsets   map[string]bool // hosts, as hostOf gives them, whose candidate has the subsets of its stable side
}

func (istioRules) at() []string { return []string{"spec", "http"} }

// hostOf is the name and the namespace that a destination's host means.
func (i istioRules) hostOf(host string) (name, namespace string) {
	name, rest, dotted := strings.Cut(host, ".")
	if !dotted {
		return name, i.namespace
	}
	namespace, suffix, _ := strings.Cut(rest, ".")
	if suffix != "" && suffix != "svc" && !strings.HasPrefix(suffix, "svc.") {
		return host, "" // of the world outside
	}
	return name, namespace
}

func (i istioRules) isHost(destination Object, name, namespace string) bool {
	n, ns := i.hostOf(document.Text(destination, "host"))
	return n == name && ns == namespace
}

func (i istioRules) stable(route Object, e entry) bool {
	return i.isHost(document.Mapping(route, "destination"), e.Name, e.Namespace)
}

// leads is about rules that send anything there: one destination without a weight has everything, one of
// several has nothing.
func (i istioRules) leads(rule Object, e entry) bool {
	routes := document.Mappings(rule["route"])
	return slices.ContainsFunc(routes, func(route Object) bool {
		w, given := document.Number(route["weight"])
		return i.stable(route, e) && (w > 0 || len(routes) == 1 && !given)
	})
}

func (i istioRules) expand(rule Object, e entry) ([]Object, error) {
	rules, err := twins(rule, e, i.addMatches, func(rule Object, percent int) error { return i.split(rule, e, percent) })
	if err != nil {
		return nil, err
	}
	if e.Traffic.Mirror > 0 {
		return rules, i.mirror(rules[len(rules)-1], e)
	}
	return rules, nil
}

func (i istioRules) split(rule Object, e entry, percent int) error {
	list, _ := rule["route"].([]any)
	otherwise := 0
	if len(list) == 1 {
		otherwise = 100
	}
	out, err := backends(list, e, percent, i.stable, otherwise, func(route Object) {
		route["destination"] = i.toCandidate(document.Mapping(route, "destination"), e)
		if e.Traffic.held() {
			addIstioHeader(route, setCookie(e.Traffic.Affinity))
		}
	})
	if err != nil {
		return err
	}
	rule["route"] = out
	return nil
}

func (i istioRules) toCandidate(destination Object, e entry) Object {
	out := document.Clone(destination)
	host := document.Text(out, "host")
	out["host"] = e.Candidate + strings.TrimPrefix(host, e.Name)
	if !i.subsets[e.key()] {
		delete(out, "subset")
	}
	return out
}

func addIstioHeader(route Object, cookie string) {
	parent := route
	for _, key := range []string{"headers", "response", "add"} {
		next, ok := parent[key].(map[string]any)
		if !ok {
			next = Object{}
			parent[key] = next
		}
		parent = next
	}
	parent["Set-Cookie"] = cookie
}

// mirror adds to the mirrors that a rule has: one alone in mirror, several in mirrors.
func (i istioRules) mirror(rule Object, e entry) error {
	var target Object
	for _, route := range document.Mappings(rule["route"]) {
		if i.stable(route, e) {
			target = i.toCandidate(document.Mapping(route, "destination"), e)
		}
	}
	share := Object{"value": int64(e.Traffic.Mirror)}
	if rule["mirror"] == nil && rule["mirrors"] == nil {
		rule["mirror"], rule["mirrorPercentage"] = target, share
		return nil
	}
	mirrors, _ := rule["mirrors"].([]any)
	if rule["mirror"] != nil {
		if len(mirrors) > 0 {
			return errors.New("has both mirror and mirrors, which Istio refuses; take mirror out")
		}
		own := Object{"destination": rule["mirror"]}
		for _, key := range []string{"mirrorPercentage", "mirrorPercent", "mirror_percent"} {
			if v := rule[key]; v != nil {
				own["percentage"] = v
				if key != "mirrorPercentage" {
					own["percentage"] = Object{"value": v}
				}
			}
			delete(rule, key)
		}
		delete(rule, "mirror")
		mirrors = append(mirrors, own)
	}
	rule["mirrors"] = append(mirrors, Object{"destination": target, "percentage": share})
	return nil
}

func (i istioRules) addMatches(rule Object, m []strategy.Match, suffix string) error {
	withSuffix(rule, suffix)
	base := document.Mappings(rule["match"])
	if len(base) == 0 {
		base = []Object{{}}
	}
	var out []any
	for _, have := range base {
		for _, more := range m {
			both := document.Clone(have)
			headers := document.Mapping(both, "headers")
			if headers == nil {
				headers = Object{}
				both["headers"] = headers
			}
			for _, h := range more.Headers {
				condition := Object{string(h.Op): h.Value}
				if other, known := headers[h.Name]; known && !document.Equal(other, condition) {
					return fmt.Errorf("goes by the header %s already, and a match knows each header once; take that condition out of the route or of the Canary", h.Name)
				}
				headers[h.Name] = condition
			}
			out = append(out, both)
		}
	}
	rule["match"] = out
	return nil
}

func (i istioRules) strip(rule Object, e entry) (Object, bool) {
	candidate := func(destination Object) bool { return i.isHost(destination, e.Candidate, e.Namespace) }
	if candidate(document.Mapping(rule, "mirror")) {
		delete(rule, "mirror")
		delete(rule, "mirrorPercentage")
	}
	if mirrors, ok := rule["mirrors"].([]any); ok {
		rule["mirrors"] = slices.DeleteFunc(slices.Clone(mirrors), func(v any) bool {
			m, _ := v.(map[string]any)
			return candidate(document.Mapping(m, "destination"))
		})
	}
	list, _ := rule["route"].([]any)
	of := func(route Object) bool { return candidate(document.Mapping(route, "destination")) }
	if !slices.ContainsFunc(document.Mappings(list), of) {
		return rule, true
	}
	out, keep := stripBackends(list, func(route Object) bool { return i.stable(route, e) }, of)
	rule["route"] = out
	return rule, keep
}

// leadIstio patches the VirtualServices that lead to the service, and copies the DestinationRules of its
// host for the candidate's: without one, requests would go without its mutual TLS and limits.
func leadIstio(c call) (Result, error) {
	rules, stale, err := c.destinationRules()
	if err != nil {
		return Result{}, err
	}
	result := Result{Apply: rules}
	var mine Object
	found := false
	for _, o := range c.of(istioGroup, "VirtualService") {
		if c.ours(o) {
			mine = o
			continue
		}
		patched, concerned, err := patchRules(o, c.entry(), c.istioRules(o))
		if err != nil {
			return Result{}, err
		}
		for _, kind := range []string{"tcp", "tls"} {
			if c.leadsTCP(o, kind) && !c.traffic.allStable() {
				result.Warnings = append(result.Warnings, fmt.Sprintf("%s: spec.%s leads to %s and stays as it is: only HTTP is led by share", id(o), kind, c.service.Name))
			}
		}
		if concerned {
			found = true
			result.Apply = append(result.Apply, patched)
		}
	}
	if !found && c.service.Route["trafficPolicy"] != nil && len(rules) == 0 && !c.traffic.allStable() {
		result.Warnings = append(result.Warnings, "Service "+c.service.Namespace+"/"+c.service.Name+": spec.service.trafficPolicy of its Canary is not acted on; write a DestinationRule in the release")
	}
	result, err = c.freshly(result, mine, found, c.newVirtualService, func(o Object) rulebook { return c.istioRules(o) })
	result.Delete = append(result.Delete, stale...)
	return result, err
}

func (c call) istioRules(o Object) istioRules {
	i := istioRules{namespace: document.Text(o, "metadata", "namespace"), subsets: map[string]bool{}}
	for _, rule := range c.of(istioGroup, "DestinationRule") {
		own := istioRules{namespace: document.Text(rule, "metadata", "namespace")}
		name, namespace := own.hostOf(document.Text(rule, "spec", "host"))
		if own.namespace == namespace && document.At(rule, "spec", "subsets") != nil {
			i.subsets[namespace+"/"+name] = true
		}
	}
	return i
}

// destinationRules copies those of the stable host; stale are copies that are not needed any more.
func (c call) destinationRules() (copies, stale []Object, err error) {
	wanted := map[string]bool{}
	for _, o := range c.of(istioGroup, "DestinationRule") {
		own := istioRules{namespace: document.Text(o, "metadata", "namespace")}
		host := document.Text(o, "spec", "host")
		if c.ours(o) || !own.isHost(Object{"host": host}, c.service.Name, c.service.Namespace) || own.namespace != c.service.Namespace || c.traffic.allStable() {
			continue
		}
		name := document.Text(o, "metadata", "name") + strategy.Suffix
		if taken := c.named(istioGroup, "DestinationRule", name); taken != nil && !c.ours(taken) {
			return nil, nil, strategy.Problems{{Object: id(taken), Message: "has the name of the copy that is made for the candidate; rename it"}}
		}
		spec := document.Clone(document.Mapping(o, "spec"))
		spec["host"] = c.service.Candidate + strings.TrimPrefix(host, c.service.Name)
		for _, subset := range document.Mappings(spec["subsets"]) {
			// Every subset is all of the candidate: its pods need not have the labels of the stable ones.
			delete(subset, "labels")
		}
		wanted[name] = true
		copies = append(copies, c.made(Object{"apiVersion": o["apiVersion"], "kind": "DestinationRule", "metadata": Object{"name": name}, "spec": spec}))
	}
	for _, o := range c.of(istioGroup, "DestinationRule") {
		if c.ours(o) && !wanted[document.Text(o, "metadata", "name")] {
			stale = append(stale, gone(o))
		}
	}
	return copies, stale, nil
}

func (c call) leadsTCP(o Object, kind string) bool {
	i := istioRules{namespace: document.Text(o, "metadata", "namespace")}
	for _, rule := range document.Mappings(document.At(o, "spec", kind)) {
		for _, route := range document.Mappings(rule["route"]) {
			if i.stable(route, c.entry()) {
				return true
			}
		}
	}
	return false
}
