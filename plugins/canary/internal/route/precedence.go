package route

import (
	"cmp"
	"fmt"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
)

// Among the rules of an HTTPRoute that fit a request, not the first one wins but the one that asks for
// more: by path, then method, then number of headers, then of query parameters, and only then by order
// (gateway.networking.k8s.io/v1, HTTPRouteRule.matches). So a rule that is made for a test by headers can
// win where, before it, somebody else's rule for the same path did.

// rank is what one match asks for beside its path.
type rank struct {
	path, method     string
	headers, queries int
	place            int // of its rule; smaller wins
}

func rankOf(match Object, place int) rank {
	kind, value := document.Text(match, "path", "type"), document.Text(match, "path", "value")
	return rank{cmp.Or(kind, "PathPrefix") + " " + cmp.Or(value, "/"), document.Text(match, "method"),
		len(document.Mappings(match["headers"])), len(document.Mappings(match["queryParams"])), place}
}

// beats tells whether a match wins over another one for the same path, where a request fits both.
func (r rank) beats(o rank) bool {
	has := func(s string) int { return min(len(s), 1) }
	return cmp.Or(cmp.Compare(has(r.method), has(o.method)), cmp.Compare(r.headers, o.headers), cmp.Compare(r.queries, o.queries), cmp.Compare(o.place, r.place)) > 0
}

func ranks(rule Object, place int) []rank {
	matches := document.Mappings(rule["matches"])
	if len(matches) == 0 {
		matches = []Object{{}}
	}
	var out []rank
	for _, m := range matches {
		out = append(out, rankOf(m, place))
	}
	return out
}

// overtaken names a rule of somebody else's that a test with so many more headers would win over.
func (h httpRules) overtaken(route Object, original []any, e entry, added int) error {
	var ours, others []rank
	for i, rule := range document.Mappings(original) {
		if h.leads(rule, e) {
			ours = append(ours, ranks(rule, i)...)
		} else {
			others = append(others, ranks(rule, i)...)
		}
	}
	for _, own := range ours {
		narrowed := own
		narrowed.headers += added
		for _, other := range others {
			if own.path == other.path && (own.method == other.method || own.method == "" || other.method == "") && other.beats(own) && narrowed.beats(other) {
				return strategy.Problems{{Object: id(route), Field: fmt.Sprintf("spec.rules[%d]", other.place), Message: fmt.Sprintf(
					"leads elsewhere by headers or query on the path of rules[%d], and a test by headers of %s would win over it; move it to a route of its own", own.place, e.Name)}}
			}
		}
	}
	return nil
}
