package asker

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/wheelwright-dev/wheelwright/pkg/probe"
)

const maxBody = 1 << 20

// askHTTP sends one request. An error says that there was no answer.
func (a Asker) askHTTP(ctx context.Context, h *probe.HTTP, at Target) (outcome, error) {
	scheme := "http://"
	if h.TLS {
		scheme = "https://"
	}
	r, err := http.NewRequestWithContext(ctx, h.Method, scheme+at.String()+h.Path, strings.NewReader(h.Body))
	if err != nil {
		return wrong("%s %s cannot be asked: correct path and method in wheelwright.yaml", h.Method, h.Path), nil
	}
	r.Header.Set("User-Agent", "wheelwright-probe")
	r.Host = at.authority(h.TLS)
	for name, value := range h.Headers {
		if strings.EqualFold(name, "Host") {
			r.Host = value
			continue
		}
		r.Header.Set(name, value)
	}
	transport := a.Proxy
	if transport == nil {
		own := a.transport(&tls.Config{ServerName: at.name(), InsecureSkipVerify: h.Insecure, MinVersion: tls.VersionTLS12}, nil)
		defer own.CloseIdleConnections()
		transport = own
	}
	response, err := transport.RoundTrip(r)
	if err != nil {
		return outcome{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody+1))
	if err != nil {
		return outcome{}, err
	}
	what := fmt.Sprintf("%s %s of %s", h.Method, h.Path, at)
	if problem := proxyProblem(body); a.Proxy != nil && response.StatusCode >= 400 && problem != "" {
		return outcome{message: what + ": " + problem}, nil
	}
	if len(body) > maxBody {
		return wrong("%s answers more than %d MiB", what, maxBody>>20), nil
	}
	if problem := judgeHTTP(h, response.StatusCode, body, a.Redactor.Line); problem != "" {
		return wrong("%s answers %s", what, problem), nil
	}
	return outcome{passed: true, reached: true}, nil
}

// proxyProblem is what the API server says in the Service's place; empty where it is the Service.
func proxyProblem(body []byte) string {
	var s struct{ Kind, APIVersion, Message string }
	if json.Unmarshal(body, &s) != nil || s.Kind != "Status" || s.APIVersion != "v1" {
		return ""
	}
	return "the API server does not reach it: " + s.Message
}

// judgeHTTP says what is not as it should be; empty: nothing. line makes a short one of what was answered.
func judgeHTTP(h *probe.HTTP, status int, body []byte, line func(text string, most int) string) string {
	if !slices.ContainsFunc(h.Status, func(r probe.Range) bool { return status >= r.From && status <= r.To }) {
		return strings.TrimSpace(fmt.Sprintf("%d, not %s: %s", status, ranges(h.Status), line(string(body), 120)))
	}
	if h.Contains != "" && !bytes.Contains(body, []byte(h.Contains)) {
		return fmt.Sprintf("without %q: %s", h.Contains, line(string(body), 120))
	}
	if h.Matches != nil && !h.Matches.Match(body) {
		return fmt.Sprintf("what does not match %s: %s", h.Matches, line(string(body), 120))
	}
	if len(h.JSON) == 0 {
		return ""
	}
	var document any
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if d.Decode(&document) != nil {
		return "no JSON: " + line(string(body), 120)
	}
	for _, e := range h.JSON {
		got, ok := follow(document, e.Steps)
		switch {
		case !ok:
			return "JSON without " + e.Path
		case !same(got, e.Value):
			return fmt.Sprintf("%s at %s, not %s", line(written(got), 80), e.Path, line(written(e.Value), 80))
		}
	}
	return ""
}

func ranges(all []probe.Range) string {
	var out []string
	for _, r := range all {
		switch {
		case r.From == r.To:
			out = append(out, strconv.Itoa(r.From))
		default:
			out = append(out, fmt.Sprintf("%dxx", r.From/100))
		}
	}
	return strings.Join(out, " or ")
}

// follow goes down keys and indexes.
func follow(v any, steps []any) (any, bool) {
	for _, step := range steps {
		switch step := step.(type) {
		case string:
			m, _ := v.(map[string]any)
			next, ok := m[step]
			if !ok {
				return nil, false
			}
			v = next
		case int:
			list, _ := v.([]any)
			if step >= len(list) {
				return nil, false
			}
			v = list[step]
		}
	}
	return v, true
}

// same compares by value, numbers as numbers.
func same(a, b any) bool {
	if x, ok := number(a); ok {
		y, ok := number(b)
		return ok && x == y
	}
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for key, v := range a {
			if other, ok := b[key]; !ok || !same(v, other) {
				return false
			}
		}
		return true
	case []any:
		b, ok := b.([]any)
		return ok && slices.EqualFunc(a, b, same)
	}
	switch b.(type) {
	case map[string]any, []any:
		return false
	}
	return a == b
}

func number(v any) (float64, bool) {
	switch v := v.(type) {
	case json.Number:
		f, err := v.Float64()
		return f, err == nil
	case float64:
		return v, true
	case int64:
		return float64(v), true
	case int:
		return float64(v), true
	}
	return 0, false
}

func written(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(text)
}
