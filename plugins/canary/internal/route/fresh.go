package route

import (
	"regexp"
	"strings"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
)

// newServiceRoute is an HTTPRoute that a mesh's client proxies go by.
func (c call) newServiceRoute() (Object, error) {
	return c.newHTTPRoute([]any{Object{"group": "core", "kind": "Service", "name": c.service.Name, "port": int64(c.service.Port)}}), nil
}

// newGatewayRoute is attached to the gateways that the Canary names.
func (c call) newGatewayRoute() (Object, error) {
	parents, _ := c.service.Route["gatewayRefs"].([]any)
	if len(parents) == 0 || len(document.Mappings(parents)) != len(parents) {
		return nil, c.wrong("no HTTPRoute leads to it, and its Canary names no gateway; write an HTTPRoute in the release, or spec.service.gatewayRefs in the Canary")
	}
	return c.newHTTPRoute(document.Clone(parents)), nil
}

func (c call) newHTTPRoute(parents []any) Object {
	rule := Object{"backendRefs": []any{Object{"group": "", "kind": "Service", "name": c.service.Name, "port": int64(c.service.Port), "weight": int64(1)}}}
	if matches := httpMatches(c.service.Route["match"]); len(matches) > 0 {
		rule["matches"] = matches
	}
	timeouts := Object{}
	for key, as := range map[string]string{"timeout": "request", "backendTimeout": "backendRequest"} {
		if timeout := document.Text(c.service.Route, key); timeout != "" {
			timeouts[as] = timeout
		}
	}
	if len(timeouts) > 0 {
		rule["timeouts"] = timeouts
	}
	spec := Object{"parentRefs": parents, "rules": []any{rule}}
	if hosts, _ := c.service.Route["hosts"].([]any); len(hosts) > 0 && document.Text(document.Mappings(parents)[0], "kind") != "Service" {
		spec["hostnames"] = document.Clone(hosts)
	}
	return Object{"apiVersion": gatewayGroup + "/v1", "kind": "HTTPRoute", "metadata": Object{"name": c.service.Candidate, "namespace": c.service.Namespace}, "spec": spec}
}

// httpMatches spells the conditions of a Canary's spec.service.match, which are Istio's, as a Gateway's.
func httpMatches(v any) []any {
	var out []any
	for _, m := range document.Mappings(v) {
		match := Object{"path": Object{"type": "PathPrefix", "value": "/"}}
		for kind, as := range map[string]string{"prefix": "PathPrefix", "exact": "Exact", "regex": "RegularExpression"} {
			if value := document.Text(m, "uri", kind); value != "" {
				match["path"] = Object{"type": as, "value": value}
			}
		}
		if method := document.Text(m, "method", "exact"); method != "" {
			match["method"] = strings.ToUpper(method)
		}
		var headers []any
		for _, name := range sorted(document.Mapping(m, "headers")) {
			condition := Object{"name": name, "type": "RegularExpression"}
			switch h := document.Mapping(m, "headers", name); {
			case h["exact"] != nil:
				condition["type"], condition["value"] = "Exact", h["exact"]
			case h["prefix"] != nil:
				condition["value"] = asRegex(strategy.Header{Op: strategy.Prefix, Value: document.Text(h, "prefix")})
			case h["suffix"] != nil:
				condition["value"] = ".*" + regexp.QuoteMeta(document.Text(h, "suffix"))
			default:
				condition["value"] = document.Text(h, "regex")
			}
			headers = append(headers, condition)
		}
		if len(headers) > 0 {
			match["headers"] = headers
		}
		out = append(out, match)
	}
	return out
}

// newVirtualService says of the service what its Canary says of it.
func (c call) newVirtualService() (Object, error) {
	rule := Object{"route": []any{Object{"destination": Object{"host": c.service.Name}, "weight": int64(100)}}}
	for _, key := range []string{"match", "rewrite", "timeout", "retries", "headers", "corsPolicy"} {
		if v := c.service.Route[key]; v != nil {
			rule[key] = document.Clone(v)
		}
	}
	if rewrite := document.Mapping(rule, "rewrite"); rewrite != nil {
		delete(rewrite, "type") // of the Gateway API
	}
	spec := Object{"hosts": []any{c.service.Name}, "http": []any{rule}}
	if hosts, _ := c.service.Route["hosts"].([]any); len(hosts) > 0 {
		spec["hosts"] = document.Clone(hosts)
	}
	if gateways, _ := c.service.Route["gateways"].([]any); len(gateways) > 0 {
		spec["gateways"] = document.Clone(gateways)
	}
	return Object{"apiVersion": istioGroup + "/v1", "kind": "VirtualService", "metadata": Object{"name": c.service.Candidate, "namespace": c.service.Namespace}, "spec": spec}, nil
}
