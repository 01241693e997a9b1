package render_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/manifest"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
	"github.com/wheelwright-dev/wheelwright/pkg/render"
)

func TestMain(m *testing.M) {
	render.EscapeMain()
	render.ChildMain()
	os.Exit(m.Run())
}

// files makes a release or an overlay from names and texts.
func files(texts map[string]string) []provenance.File {
	var out []provenance.File
	for name, text := range texts {
		out = append(out, provenance.File{Path: name, Data: []byte(text)})
	}
	slices.SortFunc(out, func(a, b provenance.File) int { return strings.Compare(a.Path, b.Path) })
	return out
}

func with(texts map[string]string, more map[string]string) map[string]string {
	out := map[string]string{}
	for _, m := range []map[string]string{texts, more} {
		for k, v := range m {
			out[k] = v
		}
	}
	return out
}

// shop is a small distribution: two variants over a base.
var shop = map[string]string{
	"base/kustomization.yaml": "resources: [web.yaml, web-hpa.yaml]\n",
	"base/web.yaml": `apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "web:1.0.0", envFrom: [{configMapRef: {name: web}}]}]}
`,
	"base/web-hpa.yaml": `apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec: {maxReplicas: 2, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}}
`,
	"plain/kustomization.yaml": `namespace: app
resources: [../base, namespace.yaml]
configMapGenerator: [{name: web, literals: [mode=plain]}]
`,
	"plain/namespace.yaml": "apiVersion: v1\nkind: Namespace\nmetadata: {name: app}\n",
	"mesh/kustomization.yaml": `resources: [../base]
configMapGenerator: [{name: web, literals: [mode=mesh]}]
`,
}

const shopURL = "https://git.example.com/vendor/shop.git"

func shopSource(variant string) render.Source {
	return render.Source{Name: "shop", Version: "1.0.0", Bundle: files(shop), URLs: []string{shopURL}, BundlePath: "dist", Variant: variant}
}

func newRenderer(t testing.TB, cfg render.Config) *render.Renderer {
	t.Helper()
	r := render.New(cfg)
	t.Cleanup(func() { r.Close() })
	return r
}

func ids(t testing.TB, res render.Result) []string {
	t.Helper()
	objs, err := manifest.Parse(res.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, o := range objs {
		out = append(out, manifest.ID(o))
	}
	return out
}

func TestRenderVariant(t *testing.T) {
	r := newRenderer(t, render.Config{})
	res, err := r.Render(t.Context(), shopSource("plain"))
	if err != nil {
		t.Fatal(err)
	}
	got := ids(t, res)
	if len(got) != 4 || res.Objects != 4 || got[0] != "v1 Namespace app" || !strings.HasPrefix(got[1], "v1 ConfigMap app/web-") {
		t.Errorf("got %v", got)
	}
	again, err := r.Render(t.Context(), shopSource("plain"))
	if err != nil || again.Digest != res.Digest {
		t.Errorf("rendered again: %v, %v; want the same digest %v", again.Digest, err, res.Digest)
	}
	t.Logf("sandbox: %s", res.Sandbox)
}

func TestRenderNamespace(t *testing.T) {
	r := newRenderer(t, render.Config{})
	src := shopSource("plain")
	src.Namespace = "elsewhere"
	res, err := r.Render(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids(t, res) {
		if !strings.Contains(id, "elsewhere") {
			t.Errorf("%s is not in the namespace asked for", id)
		}
	}

	src = shopSource("mesh") // has no namespace of its own
	src.Namespace = "default-one"
	src.Overlay = files(map[string]string{
		"kustomization.yaml": "resources: ['https://git.example.com/vendor/shop//dist/mesh?ref=1.0.0', extra.yaml]\n",
		"extra.yaml": "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: own}\nspec: {ports: [{port: 1}]}\n---\n" +
			"apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: r}\n---\n" +
			"apiVersion: example.com/v1\nkind: Thing\nmetadata: {name: t}\n",
	})
	res, err = r.Render(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(ids(t, res), "\n")
	for _, want := range []string{"Deployment default-one/web", "v1 Service own/s", "ClusterRole r", "Thing t"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

func TestRenderOverlay(t *testing.T) {
	r := newRenderer(t, render.Config{})
	src := shopSource("")
	src.OverlayPath = "envs/prod"
	src.Overlay = files(map[string]string{
		"common/kustomization.yaml": "resources: ['git@git.example.com:vendor/shop/dist//plain?ref=0.9.0']\npatches: [{path: web.yaml}]\n",
		"common/web.yaml":           "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {replicas: 5}\n",
		"envs/prod/kustomization.yaml": `bases: [../../common]
patches:
- target: {kind: HorizontalPodAutoscaler, name: w.*}
  patch: |
    - {op: replace, path: /spec/maxReplicas, value: 9}
`,
		"envs/dev/kustomization.yaml": "resources: [https://nowhere.example.com/x.yaml]\n", // not reached, not looked at
	})
	res, err := r.Render(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"replicas: 5", "maxReplicas: 9"} {
		if !strings.Contains(string(res.Manifest), want) {
			t.Errorf("no %q in\n%s", want, res.Manifest)
		}
	}
	pin, err := render.OverlayPin(src.Overlay, src.OverlayPath, src.URLs, src.BundlePath)
	if err != nil || pin != (render.OverlayBase{Variant: "plain", Ref: "0.9.0", Found: true}) {
		t.Errorf("pin: %+v, %v", pin, err)
	}
}

// TestBuildErrors: what is wrong is said whole, with the file, the object and what to do.
func TestBuildErrors(t *testing.T) {
	const over = "resources: ['https://git.example.com/vendor/shop//dist/plain?ref=1.0.0']\n"
	overlay := func(k string, more map[string]string) func(*render.Source) {
		return func(s *render.Source) {
			s.OverlayPath, s.Overlay = "app", files(with(map[string]string{"app/kustomization.yaml": k}, more))
		}
	}
	tests := []struct {
		name string
		edit func(*render.Source)
		want []string
	}{
		{"no such variant", func(s *render.Source) { s.Variant = "gone" },
			[]string{`release 1.0.0 has no variant "gone" (it has mesh, plain)`}},
		{"variant outside", func(s *render.Source) { s.Variant = "../../etc" },
			[]string{`release 1.0.0 has no variant "../../etc" (it has mesh, plain)`}},
		{"patch in the release without target", func(s *render.Source) {
			s.Bundle = files(with(shop, map[string]string{
				"plain/kustomization.yaml":       "resources: [inner]\n",
				"plain/inner/kustomization.yaml": "resources: [../../base]\npatches: [{patch: '{apiVersion: v1, kind: Service, metadata: {name: gone}}'}]\n",
			}))
		}, []string{`plain/inner: no resource matches strategic merge patch "Service.v1.[noGrp]/gone.[noNs]": no matches for Id Service.v1.[noGrp]/gone.[noNs]; failed to find unique target for patch Service.v1.[noGrp]/gone.[noNs]`}},
		{"overlay's patch without target", overlay(over+"patches: [{path: web.yaml}]\n", map[string]string{
			"app/web.yaml": "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: backend}\n"}),
			[]string{`overlay app/kustomization.yaml: patch web.yaml has no target: release 1.0.0 has no Deployment "backend"; change or remove the patch, then check with: spoke render shop`}},
		{"overlay's old-style patch without target", overlay(over+"patchesStrategicMerge: [web.yaml]\n", map[string]string{
			"app/web.yaml": "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: backend}\n"}),
			[]string{`overlay app/kustomization.yaml: patch web.yaml has no target: release 1.0.0 has no Deployment "backend"; change or remove the patch, then check with: spoke render shop`}},
		{"overlay's selectors without target", overlay(over+`patches:
- {path: p.yaml, target: {kind: Deployment, name: backend}}
- {path: p.yaml, target: {kind: Deployment, name: web}}
- {path: p.yaml, target: {labelSelector: tier=gold}}
`, map[string]string{"app/p.yaml": "- {op: replace, path: /metadata/labels, value: {a: b}}\n"}),
			[]string{
				`overlay app/kustomization.yaml: patch p.yaml has no target: release 1.0.0 has no Deployment "backend"; change or remove the patch, then check with: spoke render shop`,
				`overlay app/kustomization.yaml: patch p.yaml has no target: release 1.0.0 has no object with labels "tier=gold"; change or remove the patch, then check with: spoke render shop`}},
		{"another repository", overlay("resources: ['github.com/other/thing//deploy?ref=v1', gone.yaml]\n", nil),
			[]string{
				`overlay app/kustomization.yaml: base "github.com/other/thing//deploy?ref=v1" is remote and is not the distribution's repository (https://git.example.com/vendor/shop.git), and nothing is fetched while rendering; if it is that repository under another address, set subscriptions[].source to it in spoke.yaml`,
				`overlay app/kustomization.yaml: resources names "gone.yaml", which does not exist`}},
		{"a repository without a scheme", overlay("resources: ['git.example.com/vendor/shop//dist/plain?ref=v1']\n", nil),
			[]string{`overlay app/kustomization.yaml: resources names "git.example.com/vendor/shop//dist/plain?ref=v1", which does not exist; if it is a repository, write https://git.example.com/vendor/shop//dist/plain?ref=v1`}},
		{"another folder of the repository", overlay("resources: ['https://git.example.com/vendor/shop//docs?ref=1.0.0']\n", nil),
			[]string{`overlay app/kustomization.yaml: base "https://git.example.com/vendor/shop//docs?ref=1.0.0" is in the distribution's repository, but not below "dist", which is what its releases hold`}},
		{"a variant that the release has not", overlay("resources: [https://git.example.com/vendor/shop//dist/istio]\n", nil),
			[]string{`overlay app/kustomization.yaml: base "https://git.example.com/vendor/shop//dist/istio": release 1.0.0 has no variant "istio" (it has mesh, plain)`}},
		{"another variant than the subscription's", func(s *render.Source) { s.Variant = "mesh"; overlay(over, nil)(s) },
			[]string{`overlay app/kustomization.yaml: base "https://git.example.com/vendor/shop//dist/plain?ref=1.0.0" is variant "plain", but the subscription says "mesh"; make the two agree in spoke.yaml`}},
		{"no base", overlay("resources: [x.yaml]\n", map[string]string{"app/x.yaml": "{}"}),
			[]string{`overlay app: no base names the distribution: want a resource such as https://git.example.com/vendor/shop/dist//VARIANT?ref=VERSION`}},
		{"no kustomization", func(s *render.Source) { s.OverlayPath, s.Overlay = "app", files(map[string]string{"x.yaml": "{}"}) },
			[]string{`overlay app: holds no kustomization.yaml`}},
		{"no files", func(s *render.Source) { s.Overlay = []provenance.File{} }, []string{`overlay: holds no files`}},
		{"not a kustomization", overlay("resourcez: []\n", nil),
			[]string{`overlay app/kustomization.yaml: invalid Kustomization: json: unknown field "resourcez"`}},
		{"what is private is not quoted", overlay(over+"secretGenerator: [{name: s, literals: [hunter2]}]\n", nil),
			[]string{`overlay app: loading KV pairs: literals: invalid literal source, expected key=value`}},
		{"nor a generator", overlay(over+"secretGenerator: [{name: s, literals: [a=hunter2]}, {name: s, literals: [a=hunter3]}]\n", nil),
			[]string{`overlay app: merging from generator: Secret "s" exists; can not use behavior: 'unspecified', behavior must be merge or replace`}},
		{"nor a patch", overlay(over+"patches: [{patch: 'password hunter2'}]\n", nil),
			[]string{`overlay app: trouble configuring builtin PatchTransformer: unable to parse SM or JSON patch from an inline patch`}},
		{"out of the overlay", overlay(over+"components: [../../release/mesh]\n", nil),
			[]string{`overlay app/kustomization.yaml: components names "../../release/mesh", which is outside the overlay`}},
	}
	r := newRenderer(t, render.Config{})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			src := shopSource("plain")
			tt.edit(&src)
			_, err := r.Render(t.Context(), src)
			var be *render.BuildError
			if !errors.As(err, &be) {
				t.Fatalf("got %v, want a BuildError", err)
			}
			if !slices.Equal(be.Problems, tt.want) {
				t.Errorf("got\n  %s\nwant\n  %s", strings.Join(be.Problems, "\n  "), strings.Join(tt.want, "\n  "))
			}
		})
	}
}

// TestProbeSparesRenamed: a selector may use the name that a base had before a prefix was put to it.
func TestProbeSparesRenamed(t *testing.T) {
	src := shopSource("")
	src.Bundle = files(with(shop, map[string]string{"plain/kustomization.yaml": "namePrefix: eu-\nresources: [../base]\n"}))
	src.Overlay = files(map[string]string{"kustomization.yaml": `resources: [https://git.example.com/vendor/shop//dist/plain]
patches:
- {target: {kind: Deployment, name: web}, patch: '[{"op": "replace", "path": "/spec/replicas", "value": 3}]'}
- {target: {kind: HorizontalPodAutoscaler}, patch: '{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: x}, $patch: delete}'}
`})
	res, err := newRenderer(t, render.Config{}).Render(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	if got := ids(t, res); !slices.Equal(got, []string{"apps/v1 Deployment eu-web"}) || !strings.Contains(string(res.Manifest), "replicas: 3") {
		t.Errorf("got %v\n%s", got, res.Manifest)
	}
}

// TestSchemaDoesNotLeak: a release's own OpenAPI schema is gone with it.
func TestSchemaDoesNotLeak(t *testing.T) {
	r := newRenderer(t, render.Config{})
	before, err := r.Render(t.Context(), shopSource("plain"))
	if err != nil {
		t.Fatal(err)
	}
	src := shopSource("plain")
	src.Bundle = files(with(shop, map[string]string{
		"plain/kustomization.yaml": "resources: [../base]\nopenapi: {path: schema.json}\n",
		"plain/schema.json":        `{"definitions": {}}`,
	}))
	if _, err := r.Render(t.Context(), src); err != nil {
		t.Fatal(err)
	}
	after, err := r.Render(t.Context(), shopSource("plain"))
	if err != nil || before.Digest != after.Digest {
		t.Errorf("after a release with a schema of its own: %v, %v; want %v", after.Digest, err, before.Digest)
	}
}

// children lists the processes that this test has and that carry the child's name.
func children(t *testing.T) []int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Skip("no /proc here")
	}
	var out []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, _ := os.ReadFile(path.Join("/proc", e.Name(), "stat"))
		cmdline, _ := os.ReadFile(path.Join("/proc", e.Name(), "cmdline"))
		after := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(after) > 1 && after[1] == strconv.Itoa(os.Getpid()) && strings.HasPrefix(string(cmdline), "wheelwright-render") {
			out = append(out, pid)
		}
	}
	return out
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); !done(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("still not: %s", what)
		}
	}
}

func TestChildLifetime(t *testing.T) {
	r := newRenderer(t, render.Config{IdleTimeout: 50 * time.Millisecond})
	if got := children(t); len(got) != 0 {
		t.Fatalf("children %v before the first rendering", got)
	}
	if _, err := r.Render(t.Context(), shopSource("plain")); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the idle child ends", func() bool { return len(children(t)) == 0 })

	long := newRenderer(t, render.Config{})
	if _, err := long.Render(t.Context(), shopSource("plain")); err != nil {
		t.Fatal(err)
	}
	pids := children(t)
	if len(pids) != 1 {
		t.Fatalf("children: %v, want one", pids)
	}
	p, err := os.FindProcess(pids[0])
	if err != nil {
		t.Fatal(err)
	}
	p.Kill()
	waitFor(t, "the killed child is dead", func() bool {
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pids[0]))
		return strings.Contains(string(stat), ") Z ")
	})
	if _, err := long.Render(t.Context(), shopSource("plain")); err != nil {
		t.Errorf("after the warm child was killed: %v", err)
	}
	long.Close()
	if got := children(t); len(got) != 0 {
		t.Errorf("children %v after Close", got)
	}
	if _, err := long.Render(t.Context(), shopSource("plain")); !errors.Is(err, render.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestRenderDeadline(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip("no sleep command")
	}
	var be *render.BuildError
	r := newRenderer(t, render.Config{Command: []string{sleep, "600"}, Timeout: 50 * time.Millisecond})
	_, err = r.Render(t.Context(), shopSource("plain"))
	if err == nil || err.Error() != "rendering shop 1.0.0 plain took longer than 50ms and was ended; it is tried again: where that does not help, give this machine more processor" || errors.As(err, &be) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	r = newRenderer(t, render.Config{Command: []string{sleep, "600"}})
	if _, err = r.Render(ctx, shopSource("plain")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want canceled", err)
	}
	r = newRenderer(t, render.Config{Command: []string{"/nowhere/at/all"}})
	if _, err = r.Render(t.Context(), shopSource("plain")); err == nil || errors.As(err, &be) {
		t.Errorf("child that cannot start: %v", err)
	}
	waitFor(t, "no child is left", func() bool { return len(children(t)) == 0 })
}

// TestExpensive: what needs too much is the source's fault, whatever the machine does beside.
func TestExpensive(t *testing.T) {
	laughs := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\na0: &a0 [1,2,3,4,5,6,7,8,9]\n"
	for i := range 7 {
		laughs += fmt.Sprintf("a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i), 9), ","))
	}
	src := render.Source{Bundle: files(map[string]string{"kustomization.yaml": "resources: [x.yaml]\n", "x.yaml": laughs})}
	for want, cfg := range map[string]render.Config{
		"the release: rendering needs more than 100ms of processor time; split the release, or take out what makes it so large": {
			Limits: render.Limits{Processor: 100 * time.Millisecond, Aliases: 1 << 30}},
		"the release: rendering needs more than 32 MiB of memory; split the release, or take out what makes it so large": {
			Limits: render.Limits{Memory: 32 << 20, Processor: time.Hour, Aliases: 1 << 30}, Timeout: time.Hour},
	} {
		r := newRenderer(t, cfg)
		_, err := r.Render(t.Context(), src)
		var be *render.BuildError
		if !errors.As(err, &be) || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
		if cfg.Limits.Memory == 0 {
			continue
		}
		if _, err := r.Render(t.Context(), shopSource("plain")); err != nil {
			t.Errorf("and the next source: %v", err)
		}
	}
}

func TestConcurrentRenders(t *testing.T) {
	r := newRenderer(t, render.Config{})
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			v := []string{"plain", "mesh"}[i%2]
			res, err := r.Render(t.Context(), shopSource(v))
			if err != nil || !strings.Contains(string(res.Manifest), "mode: "+v) {
				t.Errorf("%s: %v\n%s", v, err, res.Manifest)
			}
		})
	}
	wg.Wait()
	if got := children(t); len(got) != 1 {
		t.Errorf("children: %v, want one", got)
	}
}
