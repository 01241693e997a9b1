package route

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
)

// What ingress-nginx takes in the values of its annotations; with anything else it passes the annotation
// over, and the candidate would get nobody, or everybody.
var (
	nginxPlain = regexp.MustCompile(`^[-._~a-zA-Z0-9/: ]*$`)
	nginxRegex = regexp.MustCompile(`^[-._~a-zA-Z0-9/:^$\[\](){}*+?|&=\\]*$`)
)

// leadIngresses puts a second Ingress with canary annotations beside every one that leads to the service.
// The first stays as it is: that is how ingress-nginx means it.
func leadIngresses(c call) (Result, error) {
	var result Result
	wanted := map[string]bool{}
	for _, o := range c.of("networking.k8s.io", "Ingress") {
		if c.ours(o) || c.traffic.allStable() || !c.leadsHere(o) {
			continue
		}
		if document.Text(o, "metadata", "annotations", c.prefix+"/canary") == "true" {
			return Result{}, strategy.Problems{{Object: id(o), Field: "metadata.annotations",
				Message: "is a canary of the release's own, and ingress-nginx knows one for a path; take it out"}}
		}
		made, err := c.canaryIngress(o)
		if err != nil {
			return Result{}, err
		}
		name := document.Text(made, "metadata", "name")
		if taken := c.named("networking.k8s.io", "Ingress", name); taken != nil && !c.ours(taken) {
			return Result{}, strategy.Problems{{Object: id(taken), Message: "has the name of the Ingress that is made for the candidate; rename it"}}
		}
		wanted[name] = true
		result.Apply = append(result.Apply, c.made(made))
	}
	if len(result.Apply) == 0 && !c.traffic.allStable() {
		return Result{}, c.wrong("no Ingress leads to it%s; write one in the release, or another provider in its Canary", c.onlyIngress())
	}
	for _, o := range c.of("networking.k8s.io", "Ingress") {
		if c.ours(o) && !wanted[document.Text(o, "metadata", "name")] {
			result.Delete = append(result.Delete, gone(o))
		}
	}
	return result, nil
}

func (c call) onlyIngress() string {
	if c.service.Ingress == "" {
		return ""
	}
	return " under the name " + c.service.Ingress
}

func (c call) leadsHere(o Object) bool {
	if document.Text(o, "metadata", "namespace") != c.service.Namespace || c.service.Ingress != "" && document.Text(o, "metadata", "name") != c.service.Ingress {
		return false
	}
	return len(c.rulesHere(o)) > 0 || c.isBackend(document.Mapping(o, "spec", "defaultBackend"))
}

func (c call) isBackend(backend Object) bool {
	return document.Text(backend, "service", "name") == c.service.Name
}

// rulesHere are copies of an Ingress's rules with the paths that lead to the service alone.
func (c call) rulesHere(o Object) []any {
	var out []any
	for _, rule := range document.Mappings(document.At(o, "spec", "rules")) {
		var paths []any
		for _, path := range document.Mappings(document.At(rule, "http", "paths")) {
			if c.isBackend(document.Mapping(path, "backend")) {
				copied := document.Clone(path)
				document.Mapping(copied, "backend", "service")["name"] = c.service.Candidate
				paths = append(paths, copied)
			}
		}
		if len(paths) == 0 {
			continue
		}
		made := Object{"http": Object{"paths": paths}}
		if host := rule["host"]; host != nil {
			made["host"] = host
		}
		out = append(out, made)
	}
	return out
}

func (c call) canaryIngress(o Object) (Object, error) {
	annotations, err := c.canaryAnnotations(o)
	if err != nil {
		return nil, err
	}
	// Every other annotation is inherited from the first Ingress; the class is how the controller finds this one.
	if class := document.Text(o, "metadata", "annotations", "kubernetes.io/ingress.class"); class != "" {
		annotations["kubernetes.io/ingress.class"] = class
	}
	spec := Object{}
	for _, key := range []string{"ingressClassName", "tls"} {
		if v := document.At(o, "spec", key); v != nil {
			spec[key] = document.Clone(v)
		}
	}
	if rules := c.rulesHere(o); len(rules) > 0 {
		spec["rules"] = rules
	}
	if backend := document.Mapping(o, "spec", "defaultBackend"); c.isBackend(backend) {
		backend = document.Clone(backend)
		document.Mapping(backend, "service")["name"] = c.service.Candidate
		spec["defaultBackend"] = backend
	}
	name := document.Text(o, "metadata", "name") + "-" + c.service.Candidate
	return Object{"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": Object{"name": name, "annotations": annotations}, "spec": spec}, nil
}

func (c call) canaryAnnotations(o Object) (Object, error) {
	out := Object{c.prefix + "/canary": "true"}
	wrong := func(format string, args ...any) error {
		return strategy.Problems{{Object: id(o), Message: fmt.Sprintf(format, args...)}}
	}
	if cookie := c.traffic.Affinity.Cookie; cookie != "" && document.Text(o, "metadata", "annotations", c.prefix+"/affinity") != "cookie" {
		return nil, wrong("users stay at the candidate only where this Ingress holds them anyway; write the annotation %s/affinity: cookie, or take sessionAffinity out of the Canary", c.prefix)
	}
	if len(c.traffic.Matches) == 0 {
		out[c.prefix+"/canary-weight"] = strconv.Itoa(c.traffic.Weight)
		return out, nil
	}
	if c.traffic.Weight != 100 {
		return nil, wrong("ingress-nginx leads all requests that fit or none, not %d %% of them", c.traffic.Weight)
	}
	for _, m := range c.traffic.Matches {
		if len(m.Headers) != 1 {
			return nil, wrong("ingress-nginx goes by one header at a time, and the Canary asks for %d together; write one for each match", len(m.Headers))
		}
		values, err := c.canaryBy(m.Headers[0])
		if err != nil {
			return nil, wrong("%v", err)
		}
		for key, value := range values {
			if _, twice := out[c.prefix+key]; twice {
				return nil, wrong("ingress-nginx goes by one header and one cookie, and the Canary asks for more; write at most one of each")
			}
			out[c.prefix+key] = value
		}
	}
	return out, nil
}

// canaryBy spells a condition. A cookie goes by its name alone, and holds who has it with the value
// always; a cookie's own value goes by the header that carries it.
func (c call) canaryBy(h strategy.Header) (map[string]string, error) {
	pattern := "^" + asRegex(h) + "$"
	switch {
	case h.Name == "cookie" && h.Op == strategy.Exact && nginxPlain.MatchString(strings.TrimSuffix(h.Value, "=always")):
		return map[string]string{"/canary-by-cookie": strings.TrimSuffix(h.Value, "=always")}, nil
	case h.Name == "cookie" && h.Op == strategy.Exact:
		pattern = `(^|[^\w-])` + regexp.QuoteMeta(h.Value) + `($|[^\w-])`
	case h.Op == strategy.Exact && nginxPlain.MatchString(h.Value):
		return map[string]string{"/canary-by-header": h.Name, "/canary-by-header-value": h.Value}, nil
	case h.Op == strategy.Exact:
		pattern = "^" + regexp.QuoteMeta(h.Value) + "$"
	case h.Op == strategy.Regex && strings.HasPrefix(h.Value, "^") && strings.HasSuffix(h.Value, "$"):
		pattern = h.Value
	}
	if !nginxRegex.MatchString(pattern) {
		return nil, fmt.Errorf("ingress-nginx refuses the expression %s for the header %s; write it with letters, digits and -._~/:^$[](){}*+?|&=\\ only", pattern, h.Name)
	}
	return map[string]string{"/canary-by-header": h.Name, "/canary-by-header-pattern": pattern}, nil
}
