package route

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
)

// maxWeight is what a Gateway API backend may weigh.
const maxWeight = 1_000_000

// share divides among the backends of a rule: those that lead to a service give percent of what they have
// to a candidate each, the others keep their proportion. Alone, a service and its candidate weigh 100
// together; where others have a share too, everything together weighs 100 where whole numbers allow it.
func share(weights []int, leads []bool, percent int) (stable, candidate []int, err error) {
	stable, candidate = make([]int, len(weights)), make([]int, len(weights))
	total, divisor := 0, 0
	for i, w := range weights {
		stable[i] = w * 100
		if leads[i] {
			stable[i], candidate[i] = w*(100-percent), w*percent
		}
		total += stable[i] + candidate[i]
		divisor = gcd(gcd(divisor, stable[i]), candidate[i])
	}
	if total == 0 {
		return stable, candidate, nil
	}
	total /= divisor
	factor := 1
	if 100%total == 0 {
		factor = 100 / total
	}
	for i := range weights {
		stable[i], candidate[i] = stable[i]/divisor*factor, candidate[i]/divisor*factor
		if stable[i] > maxWeight || candidate[i] > maxWeight {
			return nil, nil, fmt.Errorf("its weights cannot be divided by 100 and stay below %d; write smaller ones", maxWeight)
		}
	}
	return stable, candidate, nil
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// backends divides a rule's list of backends, putting each candidate behind its stable one. toCandidate
// makes a copy lead to the candidate.
func backends(list []any, e entry, percent int, leads func(Object, entry) bool, otherwise int, toCandidate func(Object)) ([]any, error) {
	refs := document.Mappings(list)
	if len(refs) != len(list) {
		return nil, fmt.Errorf("its backends are no mappings; correct the route")
	}
	weights, led := make([]int, len(refs)), make([]bool, len(refs))
	for i, ref := range refs {
		weights[i], led[i] = otherwise, leads(ref, e)
		if w, ok := document.Number(ref["weight"]); ok {
			weights[i] = int(w)
		}
	}
	stable, candidate, err := share(weights, led, percent)
	if err != nil {
		return nil, err
	}
	var out []any
	for i, ref := range refs {
		ref["weight"] = int64(stable[i])
		out = append(out, ref)
		if led[i] && weights[i] > 0 {
			copied := document.Clone(ref)
			copied["weight"] = int64(candidate[i])
			toCandidate(copied)
			out = append(out, copied)
		}
	}
	return out, nil
}

// stripBackends takes the candidates out of a list of backends and gives their weight back.
func stripBackends(list []any, isStable, isCandidate func(Object) bool) (out []any, stable bool) {
	var freed int
	for _, ref := range document.Mappings(list) {
		if isCandidate(ref) {
			w, _ := document.Number(ref["weight"])
			freed += int(w)
		}
	}
	for _, ref := range document.Mappings(list) {
		if isCandidate(ref) {
			continue
		}
		if isStable(ref) && freed > 0 {
			w, _ := document.Number(ref["weight"])
			ref["weight"] = int64(int(w) + freed)
			freed = 0
		}
		out = append(out, ref)
	}
	return out, len(out) > 0
}

// cookieRegex fits a Cookie header that has the cookie.
func cookieRegex(a Affinity) string {
	return `^(.*;\s*)?` + regexp.QuoteMeta(a.Cookie) + "=" + regexp.QuoteMeta(a.Value) + `(;.*)?$`
}

func setCookie(a Affinity) string {
	attributes := a.Attributes
	if len(attributes) == 0 {
		attributes = []string{"Path=/"}
	}
	return fmt.Sprintf("%s=%s; Max-Age=%d; %s", a.Cookie, a.Value, int(a.MaxAge.Seconds()), strings.Join(attributes, "; "))
}

// affinityMatch fits requests of those who are held.
func affinityMatch(a Affinity) []strategy.Match {
	return []strategy.Match{{Headers: []strategy.Header{{Name: "cookie", Op: strategy.Regex, Value: cookieRegex(a)}}}}
}

// asRegex is a condition as an expression that fits the whole value.
func asRegex(h strategy.Header) string {
	if h.Op == strategy.Prefix {
		return regexp.QuoteMeta(h.Value) + ".*"
	}
	return h.Value
}

// withSuffix names a rule that was made of a named one.
func withSuffix(rule Object, suffix string) {
	if name := document.Text(rule, "name"); name != "" && !strings.HasSuffix(name, suffix) {
		rule["name"] = name + suffix
	}
}

// twins are the rules that an entry makes of one: for those who are held, for those who fit, for the rest.
// They come in the order in which they have to stand.
func twins(rule Object, e entry, add func(rule Object, m []strategy.Match, suffix string) error, split func(rule Object, percent int) error) ([]Object, error) {
	var out []Object
	t := e.Traffic
	if t.held() {
		held := document.Clone(rule)
		if err := add(held, affinityMatch(t.Affinity), "-affinity"); err != nil {
			return nil, err
		}
		if err := split(held, 100); err != nil {
			return nil, err
		}
		if len(t.Matches) > 0 {
			// Who no longer fits is held no longer.
			if err := add(held, t.Matches, ""); err != nil {
				return nil, err
			}
		}
		out = append(out, held)
	}
	if len(t.Matches) > 0 && t.Weight > 0 {
		fits := document.Clone(rule)
		if err := add(fits, t.Matches, strategy.Suffix); err != nil {
			return nil, err
		}
		if err := split(fits, t.Weight); err != nil {
			return nil, err
		}
		return append(out, fits, rule), nil
	}
	if t.Weight > 0 {
		if err := split(rule, t.Weight); err != nil {
			return nil, err
		}
	}
	return append(out, rule), nil
}
