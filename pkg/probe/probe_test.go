package probe_test

import (
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/probe"
)

func TestParse(t *testing.T) {
	probes, err := probe.Parse([]byte("- {name: a, service: backend, port: http, when: after-promotion, timeout: 3s, retries: 2, interval: 5s, latency: 200ms, http: {}}\n" +
		"- {name: b, service: backend, port: 9999, grpc: {service: x}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	a, b := probes[0], probes[1]
	if a.Port != "http" || len(a.When) != 1 || a.When[0] != probe.AfterPromotion || a.Timeout != 3*time.Second || a.Retries != 2 || a.Interval != 5*time.Second ||
		a.Latency != 200*time.Millisecond || a.HTTP.Method != "GET" || a.HTTP.Path != "/" || a.GRPC != nil {
		t.Errorf("got %+v", a)
	}
	if b.Port != "9999" || len(b.When) != 2 || b.GRPC.Service != "x" || b.HTTP != nil || b.Timeout != 5*time.Second {
		t.Errorf("got %+v", b)
	}
	_, err = probe.Parse([]byte(`
- {name: "", service: Shop!, port: 70000, when: [sometimes], timeout: soon, retries: 1000, interval: 5, latency: 1m, colour: red}
- {name: a, service: s, http: {scheme: ftp, method: get, path: x, headers: {"a b": c, d: 5}, body: 7, insecure: maybe, follow: true,
   expect: {status: [99, ok], matches: "(", json: {"a[": 1, "..": 2}, header: x}}}
- {name: a, service: s, http: {}, grpc: {port: 1}}
- nothing
`))
	for _, part := range []string{`tests[0].name: ""`, `tests[0].service: "Shop!"`, "tests[0].port", "tests[0].when: want before-traffic, after-promotion", "tests[0].timeout", "tests[0].retries: want a whole number from 0 to 100",
		"tests[0].interval", "tests[0].latency: 1m0s is longer", "tests[0].colour: unknown key", "tests[0].http: want either http or grpc", "tests[1].http.scheme", "tests[1].http.method", "tests[1].http.path",
		"tests[1].http.headers.a b", "tests[1].http.headers.d: want text", "tests[1].http.body", "tests[1].http.insecure", "tests[1].http.follow: unknown key", "tests[1].http.expect.status: 99", "expect.status: ok",
		"expect.matches", `expect.json: "a["`, `expect.json: ".."`, "expect.header: unknown key", `tests[2].name: "a" is the name of tests[1] too`, "tests[2].http: want either", "tests[2].grpc.port: unknown key", "tests[3]: want keys and values"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("want %q in:\n%v", part, err)
		}
	}
	for _, text := range []string{"a: b", "- {name: a, name: b}", "[", "x"} {
		if _, err := probe.Parse([]byte(text)); err == nil {
			t.Errorf("%q was read", text)
		}
	}
	if got, err := probe.ReadFile([]byte("version: 1\ntests: [{name: a, service: s, grpc: }]\n")); err != nil || len(got) != 1 {
		t.Errorf("a file: %v, %v", got, err)
	}
	if _, err := probe.ReadFile([]byte("test: []\ntests: [{}]\n")); err == nil || !strings.Contains(err.Error(), "test: unknown key") || !strings.Contains(err.Error(), "tests[0].name") {
		t.Errorf("a bad file: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("- {name: a, service: b, http: {path: /, expect: {status: 2xx, json: {'.a[0][\"b\"].c': 1}}}}")
	f.Fuzz(func(t *testing.T, text string) {
		probes, err := probe.Parse([]byte(text))
		if err != nil && probes != nil {
			t.Error("an error and probes")
		}
		for _, p := range probes {
			if (p.HTTP == nil) == (p.GRPC == nil) || p.Name == "" || p.Timeout <= 0 || len(p.When) == 0 {
				t.Errorf("%+v", p)
			}
		}
	})
}
