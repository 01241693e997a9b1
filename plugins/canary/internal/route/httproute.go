package route

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
)

const (
	gatewayGroup = "gateway.networking.k8s.io"
	linkerdGroup = "policy.linkerd.io"
)

// What an HTTPRoute may hold (gateway.networking.k8s.io/v1).
const (
	maxRules    = 16
	maxMatches  = 64
	maxHeaders  = 16
	maxBackends = 16
)

// httpRules are the rules of one HTTPRoute.
type httpRules struct {
	namespace string // the route's own, of backends that name none
	percents  bool   // requestMirror has a percent
	parents   bool   // a rule without backends leads to the Services that the route is attached to
	attached  []Object
}

func (httpRules) at() []string { return []string{"spec", "rules"} }

func (h httpRules) isService(ref Object, name, namespace string) bool {
	group, kind := document.Text(ref, "group"), document.Text(ref, "kind")
	own := document.Text(ref, "namespace")
	if own == "" {
		own = h.namespace
	}
	return (group == "" || group == "core") && (kind == "" || kind == "Service") && document.Text(ref, "name") == name && own == namespace
}

func (h httpRules) stable(ref Object, e entry) bool { return h.isService(ref, e.Name, e.Namespace) }

// attachedTo is the reference by which the route is attached to a service; nil: it is not.
func (h httpRules) attachedTo(e entry) Object {
	for _, parent := range h.attached {
		if document.Text(parent, "kind") == "Service" && h.isService(parent, e.Name, e.Namespace) {
			return parent
		}
	}
	return nil
}

func (h httpRules) leads(rule Object, e entry) bool {
	refs := document.Mappings(rule["backendRefs"])
	if len(refs) == 0 && h.parents && !redirects(rule) {
		return h.attachedTo(e) != nil
	}
	return slices.ContainsFunc(refs, func(ref Object) bool {
		w, given := document.Number(ref["weight"])
		return h.stable(ref, e) && (!given || w > 0)
	})
}

// redirects tells whether a rule answers by itself.
func redirects(rule Object) bool {
	return slices.ContainsFunc(document.Mappings(rule["filters"]), func(f Object) bool { return f["requestRedirect"] != nil })
}

func (h httpRules) expand(rule Object, e entry) ([]Object, error) {
	if err := h.ownBackend(rule, e); err != nil {
		return nil, err
	}
	rules, err := twins(rule, e, h.addMatches, func(rule Object, percent int) error { return h.split(rule, e, percent) })
	if err != nil {
		return nil, err
	}
	if e.Traffic.Mirror > 0 {
		return rules, h.mirror(rules[len(rules)-1], e)
	}
	return rules, nil
}

// ownBackend writes down the backend of a rule that leads to its parent.
func (h httpRules) ownBackend(rule Object, e entry) error {
	if len(document.Mappings(rule["backendRefs"])) > 0 {
		return nil
	}
	parent := h.attachedTo(e)
	ref := Object{"group": "", "kind": "Service", "name": e.Name, "weight": int64(1)}
	if parent["port"] == nil {
		return errors.New("has no backendRefs, and the route's parentRefs name no port; write the Service's port in one of them")
	}
	ref["port"] = parent["port"]
	if ns := document.Text(parent, "namespace"); ns != "" {
		ref["namespace"] = ns
	}
	rule["backendRefs"] = []any{ref}
	return nil
}

func (h httpRules) split(rule Object, e entry, percent int) error {
	list, _ := rule["backendRefs"].([]any)
	out, err := backends(list, e, percent, h.stable, 1, func(ref Object) {
		ref["name"] = e.Candidate
		if e.Traffic.held() {
			addResponseHeader(ref, setCookie(e.Traffic.Affinity))
		}
	})
	if err != nil {
		return err
	}
	if len(out) > maxBackends {
		return fmt.Errorf("would have %d backends, more than the %d that a rule may have; split the rule", len(out), maxBackends)
	}
	rule["backendRefs"] = out
	return nil
}

// addResponseHeader adds to the one filter of its type that a backend may have.
func addResponseHeader(ref Object, cookie string) {
	header := Object{"name": "Set-Cookie", "value": cookie}
	filters, _ := ref["filters"].([]any)
	for _, f := range document.Mappings(filters) {
		if modifier := document.Mapping(f, "responseHeaderModifier"); modifier != nil {
			add, _ := modifier["add"].([]any)
			modifier["add"] = append(add, header)
			return
		}
	}
	ref["filters"] = append(filters, Object{"type": "ResponseHeaderModifier", "responseHeaderModifier": Object{"add": []any{header}}})
}

// mirror copies what a rule leads to the stable side.
func (h httpRules) mirror(rule Object, e entry) error {
	target := Object{}
	for _, ref := range document.Mappings(rule["backendRefs"]) {
		if !h.stable(ref, e) {
			continue
		}
		for _, key := range []string{"group", "kind", "namespace", "port"} {
			if ref[key] != nil {
				target[key] = ref[key]
			}
		}
	}
	target["name"] = e.Candidate
	mirror := Object{"backendRef": target}
	switch {
	case e.Traffic.Mirror < 100 && !h.percents:
		return errors.New("this Gateway API's requestMirror filter has no percent (1.3 and later have it); mirror 100 % or nothing")
	case e.Traffic.Mirror < 100:
		mirror["percent"] = int64(e.Traffic.Mirror)
	}
	filters, _ := rule["filters"].([]any)
	if len(filters) >= maxRules {
		return fmt.Errorf("has %d filters already, the most that a rule may have; take one out", len(filters))
	}
	rule["filters"] = append(filters, Object{"type": "RequestMirror", "requestMirror": mirror})
	return nil
}

// addMatches narrows a rule to requests that fit one of m too.
func (h httpRules) addMatches(rule Object, m []strategy.Match, suffix string) error {
	withSuffix(rule, suffix)
	base := document.Mappings(rule["matches"])
	if len(base) == 0 {
		base = []Object{{"path": Object{"type": "PathPrefix", "value": "/"}}}
	}
	var out []any
	for _, have := range base {
		for _, more := range m {
			both, err := narrow(have, more)
			if err != nil {
				return err
			}
			out = append(out, both)
		}
	}
	if len(out) > maxMatches {
		return fmt.Errorf("would have %d matches, more than the %d that a rule may have; write fewer conditions", len(out), maxMatches)
	}
	rule["matches"] = out
	return nil
}

func narrow(have Object, m strategy.Match) (Object, error) {
	out := document.Clone(have)
	headers, _ := out["headers"].([]any)
	for _, h := range m.Headers {
		condition := Object{"name": h.Name, "type": "RegularExpression", "value": asRegex(h)}
		if h.Op == strategy.Exact {
			condition["type"], condition["value"] = "Exact", h.Value
		}
		known := false
		for _, other := range document.Mappings(headers) {
			if !strings.EqualFold(document.Text(other, "name"), h.Name) {
				continue
			}
			if !sameCondition(other, condition) {
				return nil, fmt.Errorf("goes by the header %s already, and a match knows each header once; take that condition out of the route or of the Canary", h.Name)
			}
			known = true
		}
		if !known {
			headers = append(headers, condition)
		}
	}
	if len(headers) > maxHeaders {
		return nil, fmt.Errorf("would go by %d headers, more than the %d that a match may have; write fewer conditions", len(headers), maxHeaders)
	}
	out["headers"] = headers
	return out, nil
}

// sameCondition compares two conditions on one header; an exact value and the expression for it are one.
func sameCondition(a, b Object) bool {
	value := func(o Object) string {
		if t := document.Text(o, "type"); t == "" || t == "Exact" {
			return regexp.QuoteMeta(document.Text(o, "value"))
		}
		return document.Text(o, "value")
	}
	return value(a) == value(b)
}

func (h httpRules) strip(rule Object, e entry) (Object, bool) {
	candidate := func(ref Object) bool { return h.isService(ref, e.Candidate, e.Namespace) }
	if filters, ok := rule["filters"].([]any); ok {
		kept := slices.DeleteFunc(slices.Clone(filters), func(f any) bool {
			m, _ := f.(map[string]any)
			target := document.Mapping(m, "requestMirror", "backendRef")
			return target != nil && candidate(target)
		})
		rule["filters"] = kept
		if len(kept) == 0 && len(filters) > 0 {
			delete(rule, "filters")
		}
	}
	list, _ := rule["backendRefs"].([]any)
	if !slices.ContainsFunc(document.Mappings(list), candidate) {
		return rule, true
	}
	out, keep := stripBackends(list, func(ref Object) bool { return h.stable(ref, e) }, candidate)
	rule["backendRefs"] = out
	return rule, keep
}

// leadHTTPRoutes patches every HTTPRoute of the Gateway API that leads to the service.
func leadHTTPRoutes(c call) (Result, error) {
	return c.leadHTTP([]string{gatewayGroup}, func(o Object, book httpRules) bool { return true }, c.newGatewayRoute)
}

// leadLinkerd patches the HTTPRoutes, Linkerd's own and the Gateway API's, that are attached to the
// service: they are what a client's proxy goes by. One that is attached to a Gateway leads to the
// Service, and there through these.
func leadLinkerd(c call) (Result, error) {
	profile := c.service.Name + "." + c.service.Namespace + ".svc."
	for _, o := range c.of("linkerd.io", "ServiceProfile") {
		if strings.HasPrefix(document.Text(o, "metadata", "name"), profile) && !c.traffic.allStable() {
			return Result{}, strategy.Problems{{Object: id(o), Message: "proxies go by it in place of any HTTPRoute of the same Service; move what it says to an HTTPRoute and take it out"}}
		}
	}
	return c.leadHTTP([]string{gatewayGroup, linkerdGroup}, func(o Object, book httpRules) bool { return book.attachedTo(c.entry()) != nil }, c.newServiceRoute)
}

func (c call) leadHTTP(groups []string, fits func(Object, httpRules) bool, fresh func() (Object, error)) (Result, error) {
	var result Result
	var mine Object
	found := false
	for _, group := range groups {
		for _, o := range c.of(group, "HTTPRoute") {
			if c.ours(o) {
				mine = o
				continue
			}
			book := c.httpRules(o)
			if !fits(o, book) {
				continue
			}
			patched, concerned, err := patchRules(o, c.entry(), book)
			if err != nil {
				return Result{}, err
			}
			if !concerned {
				continue
			}
			if err := c.tooMuch(patched, book); err != nil {
				return Result{}, err
			}
			found = true
			result.Apply = append(result.Apply, patched)
		}
	}
	return c.freshly(result, mine, found, fresh, func(o Object) rulebook { return c.httpRules(o) })
}

// tooMuch names what the Gateway API would refuse, or understand in another way than it is meant.
func (c call) tooMuch(patched Object, book httpRules) error {
	rules := document.Mappings(document.At(patched, "spec", "rules"))
	if len(rules) > maxRules {
		return strategy.Problems{{Object: id(patched), Field: "spec.rules", Message: fmt.Sprintf("would be %d rules, more than the %d that an HTTPRoute may have; split the route", len(rules), maxRules)}}
	}
	added := 0
	for _, m := range c.traffic.Matches {
		added = max(added, len(m.Headers))
	}
	if c.traffic.held() {
		added++
	}
	if added == 0 {
		return nil
	}
	l, _, err := readLedger(patched)
	if err != nil {
		return err
	}
	original, _ := l.Original.([]any)
	return book.overtaken(patched, original, c.entry(), added)
}

func (c call) httpRules(o Object) httpRules {
	return httpRules{namespace: document.Text(o, "metadata", "namespace"), percents: c.percents, parents: c.name == strategy.RouterLinkerd, attached: document.Mappings(document.At(o, "spec", "parentRefs"))}
}

// freshly adds the route that is made where there is none, or takes it away where it is not needed.
func (c call) freshly(result Result, mine Object, found bool, fresh func() (Object, error), book func(Object) rulebook) (Result, error) {
	if found || c.traffic.allStable() {
		if mine != nil {
			result.Delete = append(result.Delete, gone(mine))
		}
		return result, nil
	}
	o, err := fresh()
	if err != nil {
		return Result{}, err
	}
	plain, _ := document.At(o, book(o).at()...).([]any)
	rules, _, err := ledger{Led: map[string]entry{"": c.entry()}}.render(plain, book(o))
	if err != nil {
		return Result{}, named(err, o)
	}
	put(o, book(o).at(), rules, false)
	result.Apply = append(result.Apply, c.made(o))
	return result, nil
}
