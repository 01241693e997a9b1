package probe

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// Section is the key of wheelwright.yaml that Parse reads what is below.
const Section = "tests"

const (
	defaultTimeout  = 5 * time.Second
	defaultInterval = time.Second
	maxProbes       = 1000
)

// Problems are all that is wrong with a section, each with the path of its key.
type Problems []string

func (p Problems) Error() string { return strings.Join(p, "\n") }

var (
	nameForm    = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9_. ]{0,62}[A-Za-z0-9])?$`)
	serviceForm = regexp.MustCompile(`^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$`)
	methodForm  = regexp.MustCompile(`^[A-Z]{1,16}$`)
	tokenForm   = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
)

// Parse reads the list below `tests`, in YAML. An error is Problems, and names everything that is wrong.
func Parse(section []byte) ([]Probe, error) {
	var top []any
	if err := yaml.UnmarshalStrict(section, &top); err != nil {
		return nil, Problems{fmt.Sprintf("%s: want a list of tests: %v", Section, err)}
	}
	r := &reader{}
	if len(top) > maxProbes {
		return nil, Problems{fmt.Sprintf("%s: %d are more than %d", Section, len(top), maxProbes)}
	}
	var out []Probe
	first := map[string]int{}
	for i, v := range top {
		at := fmt.Sprintf("%s[%d]", Section, i)
		m, ok := v.(map[string]any)
		if !ok {
			r.add(at, "want keys and values, not %v", v)
			continue
		}
		p := r.probe(m, at+".")
		if n, twice := first[p.Name]; twice && p.Name != "" {
			r.add(at+".name", "%q is the name of %s[%d] too", p.Name, Section, n)
		}
		first[p.Name] = i
		out = append(out, p)
	}
	if len(r.problems) > 0 {
		return nil, r.problems
	}
	return out, nil
}

type reader struct{ problems Problems }

func (r *reader) add(at, format string, args ...any) {
	r.problems = append(r.problems, at+": "+fmt.Sprintf(format, args...))
}

func (r *reader) unknown(m map[string]any, at string, known ...string) {
	for _, key := range slices.Sorted(maps.Keys(m)) {
		if !slices.Contains(known, key) {
			r.add(at+key, "unknown key (known: %s)", strings.Join(known, ", "))
		}
	}
}

func (r *reader) probe(m map[string]any, at string) Probe {
	r.unknown(m, at, "name", "service", "port", "when", "timeout", "retries", "interval", "latency", "http", "grpc")
	p := Probe{Name: r.text(m, at, "name"), Service: r.text(m, at, "service"), Port: r.port(m, at), When: r.when(m, at),
		Timeout: r.span(m, at, "timeout", defaultTimeout), Interval: r.span(m, at, "interval", defaultInterval), Latency: r.span(m, at, "latency", 0),
		Retries: r.whole(m, at, "retries", 0, 100)}
	if !nameForm.MatchString(p.Name) {
		r.add(at+"name", "%q: want a name of letters, digits, spaces, dots and dashes, at most 64", p.Name)
	}
	if !serviceForm.MatchString(p.Service) {
		r.add(at+"service", "%q: want the name of a Service of the release", p.Service)
	}
	if p.Latency > p.Timeout {
		r.add(at+"latency", "%s is longer than the timeout of %s: nothing could be too late", p.Latency, p.Timeout)
	}
	h, hasHTTP := m["http"]
	g, hasGRPC := m["grpc"]
	if hasHTTP == hasGRPC {
		r.add(at+"http", "want either http or grpc")
	}
	if hasHTTP {
		p.HTTP = r.http(r.mapping(h, at+"http"), at+"http.")
	}
	if hasGRPC {
		below, at := r.mapping(g, at+"grpc"), at+"grpc."
		r.unknown(below, at, "service", "tls", "insecure")
		p.GRPC = &GRPC{Service: r.text(below, at, "service"), TLS: r.truth(below, at, "tls"), Insecure: r.truth(below, at, "insecure")}
	}
	return p
}

// mapping takes a key without a value for an empty mapping.
func (r *reader) mapping(v any, at string) map[string]any {
	m, ok := v.(map[string]any)
	if !ok && v != nil {
		r.add(at, "want keys and values, not %v", v)
	}
	return m
}

func (r *reader) http(m map[string]any, at string) *HTTP {
	r.unknown(m, at, "scheme", "insecure", "method", "path", "headers", "body", "expect")
	h := &HTTP{Insecure: r.truth(m, at, "insecure"), Method: r.text(m, at, "method"), Path: r.text(m, at, "path"), Body: r.text(m, at, "body")}
	switch scheme := r.text(m, at, "scheme"); scheme {
	case "", "http":
	case "https":
		h.TLS = true
	default:
		r.add(at+"scheme", "%q is neither http nor https", scheme)
	}
	if h.Method == "" {
		h.Method = "GET"
	}
	if !methodForm.MatchString(h.Method) {
		r.add(at+"method", "%q: want a method such as GET", h.Method)
	}
	if h.Path == "" {
		h.Path = "/"
	}
	if !strings.HasPrefix(h.Path, "/") || strings.ContainsAny(h.Path, " \r\n\t#") {
		r.add(at+"path", "%q: want a path that begins with / and is escaped as in a URL", h.Path)
	}
	if v := m["headers"]; v != nil {
		headers := r.mapping(v, at+"headers")
		h.Headers = map[string]string{}
		for _, name := range slices.Sorted(maps.Keys(headers)) {
			value := r.text(headers, at+"headers.", name)
			if !tokenForm.MatchString(name) || strings.ContainsAny(value, "\r\n\x00") {
				r.add(at+"headers."+name, "cannot be a header")
			}
			h.Headers[name] = value
		}
	}
	r.expect(h, r.mapping(m["expect"], at+"expect"), at+"expect.")
	return h
}

func (r *reader) expect(h *HTTP, m map[string]any, at string) {
	r.unknown(m, at, "status", "contains", "matches", "json")
	h.Contains = r.text(m, at, "contains")
	if text := r.text(m, at, "matches"); text != "" {
		var err error
		if h.Matches, err = regexp.Compile(text); err != nil {
			r.add(at+"matches", "%v", err)
		}
	}
	list, isList := m["status"].([]any)
	if !isList && m["status"] != nil {
		list = []any{m["status"]}
	}
	for _, v := range list {
		if s, ok := status(v); ok {
			h.Status = append(h.Status, s)
		} else {
			r.add(at+"status", "%v: want a status such as 200, a class such as 2xx, or a list of them", v)
		}
	}
	if len(h.Status) == 0 {
		h.Status = []Range{{200, 299}}
	}
	values := r.mapping(m["json"], at+"json")
	for _, path := range slices.Sorted(maps.Keys(values)) {
		steps, err := parsePath(path)
		if err != nil {
			r.add(at+"json", "%q: %v", path, err)
		}
		h.JSON = append(h.JSON, Equal{Path: path, Steps: steps, Value: values[path]})
	}
}

func status(v any) (Range, bool) {
	text := fmt.Sprint(v)
	if class, ok := strings.CutSuffix(text, "xx"); ok && len(class) == 1 && class >= "1" && class <= "5" {
		n := int(class[0]-'0') * 100
		return Range{n, n + 99}, true
	}
	n, err := strconv.Atoi(text)
	return Range{n, n}, err == nil && n >= 100 && n <= 599
}

// parsePath reads .key.other[0]["a key with dots"]; a $ or nothing before the first key is as good.
func parsePath(path string) ([]any, error) {
	rest := strings.TrimPrefix(path, "$")
	if rest == path && rest != "" && rest[0] != '.' && rest[0] != '[' {
		rest = "." + rest
	}
	var steps []any
	for rest != "" {
		switch {
		case strings.HasPrefix(rest, `["`):
			end := strings.Index(rest, `"]`)
			if end < 2 {
				return nil, fmt.Errorf(`want "] behind the key`)
			}
			steps, rest = append(steps, rest[2:end]), rest[end+2:]
		case rest[0] == '[':
			end := strings.IndexByte(rest, ']')
			n, err := strconv.ParseUint(rest[1:max(end, 1)], 10, 31)
			if err != nil {
				return nil, fmt.Errorf("want a number between [ and ]")
			}
			steps, rest = append(steps, int(n)), rest[end+1:]
		case rest[0] == '.':
			end := strings.IndexAny(rest[1:], ".[") + 1
			if end == 0 {
				end = len(rest)
			}
			if end == 1 {
				return nil, fmt.Errorf("want a key behind the dot")
			}
			steps, rest = append(steps, rest[1:end]), rest[end:]
		default:
			return nil, fmt.Errorf("want a dot or [ before %q", rest)
		}
	}
	return steps, nil
}

func (r *reader) text(m map[string]any, at, key string) string {
	switch v := m[key].(type) {
	case nil:
		return ""
	case string:
		return v
	default:
		r.add(at+key, "want text, not %v: write it in quotes", v)
		return ""
	}
}

func (r *reader) truth(m map[string]any, at, key string) bool {
	v, ok := m[key].(bool)
	if !ok && m[key] != nil {
		r.add(at+key, "want true or false, not %v", m[key])
	}
	return v
}

func (r *reader) whole(m map[string]any, at, key string, low, high int) int {
	if m[key] == nil {
		return low
	}
	n, err := strconv.Atoi(fmt.Sprint(m[key]))
	if err != nil || n < low || n > high {
		r.add(at+key, "want a whole number from %d to %d, not %v", low, high, m[key])
	}
	return n
}

func (r *reader) span(m map[string]any, at, key string, otherwise time.Duration) time.Duration {
	if m[key] == nil {
		return otherwise
	}
	text, _ := m[key].(string)
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 || d > time.Hour {
		r.add(at+key, "want a span of time up to an hour, such as 500ms or 10s, not %v", m[key])
		return otherwise
	}
	return d
}

func (r *reader) port(m map[string]any, at string) string {
	if m["port"] == nil {
		return ""
	}
	text := fmt.Sprint(m["port"])
	if n, err := strconv.Atoi(text); err == nil && n >= 1 && n <= 65535 || err != nil && serviceForm.MatchString(text) && len(text) <= 15 {
		return text
	}
	r.add(at+"port", "want the number or the name of a port, not %v", m["port"])
	return ""
}

func (r *reader) when(m map[string]any, at string) []string {
	list, isList := m["when"].([]any)
	if !isList && m["when"] != nil {
		list = []any{m["when"]}
	}
	var out []string
	for _, v := range list {
		word, _ := v.(string)
		if word != BeforeTraffic && word != AfterPromotion {
			r.add(at+"when", "want %s, %s or a list of both, not %v", BeforeTraffic, AfterPromotion, v)
			continue
		}
		out = append(out, word)
	}
	if len(out) == 0 {
		out = []string{BeforeTraffic, AfterPromotion}
	}
	return out
}

// Document is a section as it travels among a release's objects.
func Document(section []byte) ([]byte, error) {
	var tests []any
	if err := yaml.UnmarshalStrict(section, &tests); err != nil {
		return nil, fmt.Errorf("read the declared tests: %w", err)
	}
	return yaml.Marshal(map[string]any{"apiVersion": APIVersion, "kind": Kind, Section: tests})
}

// What a mapping with a section says of itself, where it travels among a release's objects.
const (
	APIVersion = "wheelwright.dev/v1"
	Kind       = "Tests"
)

// ReadFile reads a mapping with `tests` and, where it has them, apiVersion and kind.
func ReadFile(data []byte) ([]Probe, error) {
	var top map[string]any
	if err := yaml.UnmarshalStrict(data, &top); err != nil {
		return nil, Problems{fmt.Sprintf("want a mapping with %s: %v", Section, err)}
	}
	r := &reader{}
	r.unknown(top, "", "apiVersion", "kind", "metadata", "version", Section)
	section, err := yaml.Marshal(top[Section])
	if err != nil {
		return nil, Problems{fmt.Sprintf("%s: %v", Section, err)}
	}
	probes, err := Parse(section)
	if more, ok := errors.AsType[Problems](err); ok {
		r.problems = append(r.problems, more...)
	}
	if len(r.problems) > 0 {
		return nil, r.problems
	}
	return probes, nil
}
