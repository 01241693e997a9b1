package agent

import (
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/pkg/manifest"
	"github.com/wheelwright-dev/wheelwright/pkg/probe"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
)

// What a vendor declares under tests reaches plugins as one more document, which they read with pkg/probe.
func TestDeclaredTestsAreADocumentOfTheirOwn(t *testing.T) {
	files := func(text string) []provenance.File {
		return []provenance.File{{Path: "kustomization.yaml", Data: []byte("resources: []\n")}, {Path: "wheelwright.yaml", Data: []byte("version: 1\n" + text)}}
	}
	const object = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: values}\n"
	for name, objects := range map[string]string{"beside others": object, "alone": ""} {
		got, err := declared([]byte(objects), files("tests: [{name: info, service: backend, http: {path: /api/info}}]\n"))
		if err != nil {
			t.Fatal(err)
		}
		kept, last, both := strings.Cut(string(got), "---\n")
		if !both {
			kept, last = "", kept
		}
		probes, err := probe.ReadFile([]byte(last))
		if err != nil || kept != objects || len(probes) != 1 || probes[0].HTTP.Path != "/api/info" {
			t.Errorf("%s: %v of\n%s", name, err, got)
		}
		if all, err := manifest.Parse([]byte(objects)); err != nil || both != (len(all) > 0) {
			t.Errorf("%s: %d objects, %v", name, len(all), err)
		}
	}
	for _, given := range [][]provenance.File{files(""), files("")[:1]} {
		if got, err := declared([]byte(object), given); err != nil || string(got) != object {
			t.Errorf("of none: %q, %v", got, err)
		}
	}
	if _, err := declared(nil, files("tests: [{name: info}]\n")); err == nil || !strings.Contains(err.Error(), "wheelwright.yaml: tests[0].service: ") {
		t.Errorf("got %v", err)
	}
}
