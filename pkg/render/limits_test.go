package render_test

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
	"github.com/wheelwright-dev/wheelwright/pkg/render"
)

const configMap = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x%d}\n"

// laughs is a document whose aliases stand for 9^n nodes.
func laughs(n int) string {
	var b strings.Builder
	b.WriteString("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\na0: &a0 [1,2,3,4,5,6,7,8,9]\n")
	for i := range n {
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i), 9), ","))
	}
	return b.String()
}

// pyramid has levels of two folders, each over both of the level below: it is read 2^levels times.
func pyramid(levels int) map[string]string {
	texts := map[string]string{"kustomization.yaml": fmt.Sprintf("resources: [a%d, b%d]\n", levels, levels), "a0/x.yaml": fmt.Sprintf(configMap, 1), "b0/x.yaml": fmt.Sprintf(configMap, 2)}
	for i := range levels + 1 {
		for _, side := range []string{"a", "b"} {
			k := fmt.Sprintf("namePrefix: %s%d-\nresources: [../a%d, ../b%d]\n", side, i, i-1, i-1)
			if i == 0 {
				k = "resources: [x.yaml]\n"
			}
			texts[fmt.Sprintf("%s%d/kustomization.yaml", side, i)] = k
		}
	}
	return texts
}

func chain(n int) map[string]string {
	texts := map[string]string{"kustomization.yaml": "resources: [d0]\n"}
	at := ""
	for i := range n {
		at += fmt.Sprintf("d%d/", i)
		texts[at+"kustomization.yaml"] = fmt.Sprintf("resources: [d%d]\n", i+1)
	}
	texts[at+fmt.Sprintf("d%d/kustomization.yaml", n)] = "resources: [x.yaml]\n"
	texts[at+fmt.Sprintf("d%d/x.yaml", n)] = fmt.Sprintf(configMap, 1)
	return texts
}

func resource(text string) map[string]string {
	return map[string]string{"kustomization.yaml": "resources: [x.yaml]\n", "x.yaml": text}
}

// indent makes a text a block of YAML.
func indent(text string) string {
	return "|\n  " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  ") + "\n"
}

func doubling(n int) string {
	ops := []string{`{"op": "add", "path": "/data", "value": {"a": "` + strings.Repeat("x", 1<<10) + `"}}`}
	for i := range n {
		ops = append(ops, fmt.Sprintf(`{"op": "copy", "from": "/data", "path": "/data/k%d"}`, i))
	}
	return "[" + strings.Join(ops, ",") + "]"
}

// TestLimits: what is too much is refused for what it is, with the file or the source and what to do; and
// the next source renders.
func TestLimits(t *testing.T) {
	var documents, generated strings.Builder
	for i := range 300 {
		fmt.Fprintf(&documents, "---\n"+configMap, i)
		fmt.Fprintf(&generated, "- {name: x%d, literals: [a=b]}\n", i)
	}
	list := "apiVersion: v1\nkind: ConfigMapList\nitems:\n" + strings.Repeat("- {apiVersion: v1, kind: ConfigMap}\n", 300)
	many := map[string]string{"kustomization.yaml": "resources: [x.yaml]\n", "x.yaml": fmt.Sprintf(configMap, 1)}
	for i := range 300 {
		many[fmt.Sprintf("f%d", i)] = ""
	}
	deep := ""
	for i := range 300 {
		deep += fmt.Sprintf("a%d: &a%d [*a%d]\n", i+1, i+1, i)
	}
	const split = "; split the release, or take out what makes it so large"
	tests := []struct {
		name   string
		texts  map[string]string
		limits render.Limits
		want   string
	}{
		{"bytes", resource(strings.Repeat("#", 5000)), render.Limits{Bytes: 5000},
			"shop 1.0.0: release and overlay have 5044 bytes, more than the 5000 that are rendered" + split},
		{"files", many, render.Limits{Files: 300}, "shop 1.0.0: release and overlay have 302 files, more than the 300 that are rendered" + split},
		{"bytes of the manifest", pyramid(5), render.Limits{Bytes: 2000}, "shop 1.0.0: the rendered manifest has 4540 bytes, more than the 2000 that are taken" + split},
		{"documents", resource(documents.String()), render.Limits{Objects: 299}, "release: reads 300, more than 299, objects, counted as often as they are read; split the release, or use each base fewer times"},
		{"items of a list", resource(list), render.Limits{Objects: 299}, "release: reads 300, more than 299, objects, counted as often as they are read; split the release, or use each base fewer times"},
		{"objects made", map[string]string{"kustomization.yaml": "configMapGenerator:\n" + generated.String()}, render.Limits{Objects: 299},
			"shop 1.0.0: it comes to 300 objects, more than 299" + split},
		{"objects by bases", pyramid(12), render.Limits{Builds: 1 << 20, Objects: 8000},
			"release: reads 8192, more than 8000, objects, counted as often as they are read; split the release, or use each base fewer times"},
		{"kustomizations by bases", pyramid(40), render.Limits{Objects: 1 << 40, Bases: 50},
			"release: reads more than 5000 kustomizations, counted as often as they are read; put some of them together, or use each base fewer times"},
		{"bases over one another", chain(40), render.Limits{},
			"release: has kustomizations over one another 41 deep, more than the 32 that are followed; put some of them together"},
		{"a base over itself", map[string]string{"kustomization.yaml": "resources: [a]\n", "a/kustomization.yaml": "resources: [../b]\n", "b/kustomization.yaml": "resources: [../a]\n"}, render.Limits{},
			"a: is over itself: release → a → b → a; take one of them out of resources or components"},
		{"plugins over themselves", map[string]string{"kustomization.yaml": "generators: [a]\n", "a/kustomization.yaml": "resources: [../b]\n", "b/kustomization.yaml": "resources: [../a]\n"}, render.Limits{},
			"a: is over itself: release → a → b → a; take one of them out of resources or components"},
		{"depth", resource("x: " + strings.Repeat("[", 500) + strings.Repeat("]", 500)), render.Limits{},
			"x.yaml: lists and mappings are nested deeper than 200; write it flatter"},
		{"depth by aliases", resource("a0: &a0 [x]\n" + deep), render.Limits{},
			"x.yaml: lists and mappings are nested deeper than 200; write it flatter"},
		{"depth of a kustomization", map[string]string{"kustomization.yaml": "resources: " + strings.Repeat("[", 500) + strings.Repeat("]", 500)}, render.Limits{},
			"kustomization.yaml: lists and mappings are nested deeper than 200; write it flatter"},
		{"aliases", resource(laughs(6)), render.Limits{}, "x.yaml: its aliases stand for more than 50000 nodes; write out what is needed, or repeat less"},
		{"aliases without end", resource(laughs(60)), render.Limits{}, "x.yaml: its aliases stand for more than 50000 nodes; write out what is needed, or repeat less"},
		{"aliases of a long text", resource("a: &a '" + strings.Repeat("x", 1<<20) + "'\nb: [" + strings.Repeat("*a, ", 100) + "]\n"), render.Limits{},
			"x.yaml: its aliases stand for more than 50000 nodes; write out what is needed, or repeat less"},
		{"aliases in a patch", map[string]string{"kustomization.yaml": "patches:\n- target: {kind: X}\n  patch: " + strings.ReplaceAll(indent(laughs(6)), "\n", "\n  ")}, render.Limits{},
			"kustomization.yaml: patches: its aliases stand for more than 50000 nodes; write out what is needed, or repeat less"},
		{"aliases in a plugin's file", map[string]string{"kustomization.yaml": "transformers: [t.yaml]\n", "t.yaml": laughs(6)}, render.Limits{},
			"t.yaml: its aliases stand for more than 50000 nodes; write out what is needed, or repeat less"},
		{"an alias of itself", resource("a: &a [*a]\n"), render.Limits{}, "x.yaml: an alias stands for a part of itself; write it out"},
		{"a line of an environment", map[string]string{"kustomization.yaml": "configMapGenerator: [{name: x, envs: [e]}]\n", "e": "a=" + strings.Repeat("x", 1<<16) + "\nb=c\n"}, render.Limits{},
			"e: has a line of 65539 bytes, and kustomize reads none of 65536 or more; name it under files instead of envs"},
		{"memory by copies", map[string]string{"kustomization.yaml": "resources: [x.yaml]\npatches: [{target: {kind: ConfigMap}, patch: '" + doubling(20) + "'}]\n", "x.yaml": fmt.Sprintf(configMap, 1)},
			render.Limits{Memory: 32 << 20}, "shop 1.0.0: rendering needs more than 32 MiB of memory" + split},
		{"processor time", resource(laughs(6)), render.Limits{Aliases: 1 << 30, Processor: 100 * time.Millisecond},
			"shop 1.0.0: rendering needs more than 100ms of processor time" + split},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.limits.Processor = cmp.Or(tt.limits.Processor, time.Hour) // a busy machine is to fail nothing here
			r := newRenderer(t, render.Config{Limits: tt.limits, Timeout: time.Hour})
			begin := time.Now()
			_, err := r.Render(t.Context(), render.Source{Name: "shop", Version: "1.0.0", Bundle: files(tt.texts)})
			var be *render.BuildError
			if !errors.As(err, &be) || be.Problems[0] != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
			t.Logf("said after %s", time.Since(begin).Round(time.Millisecond))
			if strings.Contains(tt.want, "rendering needs") { // the child is another one
				if _, err := r.Render(t.Context(), render.Source{Bundle: files(resource(fmt.Sprintf(configMap, 1)))}); err != nil {
					t.Errorf("the next source: %v", err)
				}
			}
		})
	}
}

// TestManyProblems: a source cannot say more than an answer holds.
func TestManyProblems(t *testing.T) {
	var k strings.Builder
	k.WriteString("resources:\n")
	for i := range 2_000 {
		fmt.Fprintf(&k, "- %s%d\n", strings.Repeat("x", 1000), i)
	}
	fmt.Fprintf(&k, "- %s\n", strings.Repeat("y", 1<<20))
	_, err := newRenderer(t, render.Config{Limits: render.Limits{Processor: time.Hour}, Timeout: time.Hour}).Render(t.Context(),
		render.Source{Bundle: files(map[string]string{"kustomization.yaml": k.String()})})
	var be *render.BuildError
	if !errors.As(err, &be) || len(be.Problems) != 101 || be.Problems[100] != "and 1901 problems more" || len(err.Error()) > 1<<20 {
		t.Errorf("got %.200v", err)
	}
}

// TestLimitsInProcess: what the hub and the spoke read of an overlay in their own process is bounded, too.
func TestLimitsInProcess(t *testing.T) {
	overlay := []provenance.File{{Path: "kustomization.yaml", Data: []byte(laughs(60))}}
	if _, err := render.OverlayPin(overlay, ".", nil, ""); err == nil || !strings.Contains(err.Error(), "aliases") {
		t.Errorf("got %v", err)
	}
}
