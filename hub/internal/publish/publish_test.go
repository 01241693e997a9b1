package publish_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/publish"
	"github.com/wheelwright-dev/wheelwright/pkg/bundle"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/gitrepo"
	"github.com/wheelwright-dev/wheelwright/pkg/plan"
	"github.com/wheelwright-dev/wheelwright/pkg/render"
)

func TestMain(m *testing.M) {
	render.ChildMain()
	os.Exit(m.Run())
}

func git(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_AUTHOR_NAME=v", "GIT_AUTHOR_EMAIL=v@example.com",
		"GIT_COMMITTER_NAME=v", "GIT_COMMITTER_EMAIL=v@example.com")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
}

// vendor is a repository to which releases are tagged.
type vendor struct {
	t   *testing.T
	dir string
}

func newVendor(t *testing.T) vendor {
	v := vendor{t, t.TempDir()}
	git(t, v.dir, "init", "-q", "-b", "main")
	return v
}

// tag replaces the whole content and tags it.
func (v vendor) tag(name string, files map[string]string) {
	v.t.Helper()
	if err := os.RemoveAll(filepath.Join(v.dir, "dist")); err != nil {
		v.t.Fatal(err)
	}
	for p, text := range files {
		p = filepath.Join(v.dir, p)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			v.t.Fatal(err)
		}
		if target, ok := strings.CutPrefix(text, "-> "); ok {
			if err := os.Symlink(target, p); err != nil {
				v.t.Fatal(err)
			}
		} else if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			v.t.Fatal(err)
		}
	}
	git(v.t, v.dir, "add", "-A")
	git(v.t, v.dir, "commit", "-q", "--allow-empty", "-m", name)
	git(v.t, v.dir, "tag", "-a", "-m", name, name)
}

// see takes a tag as tagwatch does.
func see(t *testing.T, dir, tag, path string) publish.Seen {
	t.Helper()
	r, err := gitrepo.Open(t.Context(), gitrepo.Config{URL: dir, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Fetch(t.Context(), tag); err != nil {
		t.Fatal(err)
	}
	seen := publish.Seen{Tag: tag}
	seen.Snapshot, seen.Err = r.Snapshot(tag, path)
	return seen
}

func newPublisher(t *testing.T, cfg publish.Config) *publish.Publisher {
	r := render.New(render.Config{})
	t.Cleanup(func() { r.Close() })
	if cfg.Renderer == nil {
		cfg.Renderer = r
	}
	if cfg.Now == nil {
		cfg.Now = func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }
	}
	return publish.New(cfg)
}

const deployment = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "web:1.0.0"}]}
`

func good() map[string]string {
	return map[string]string{
		"dist/base/kustomization.yaml":  "resources: [web.yaml]\n",
		"dist/base/web.yaml":            deployment,
		"dist/plain/kustomization.yaml": "resources: [../base]\n",
		"dist/mesh/kustomization.yaml":  "namePrefix: mesh-\nresources: [../base]\n",
	}
}

func TestAvailable(t *testing.T) {
	v := newVendor(t)
	v.tag("1.0.0", good())
	d := fleet.Distribution{Name: "shop", URL: v.dir, Path: "dist", Tags: ">=1.0.0"}
	seen := see(t, v.dir, "1.0.0", "dist")
	r, tar, err := newPublisher(t, publish.Config{}).Build(t.Context(), d, seen)
	if err != nil {
		t.Fatal(err)
	}
	if r.Phase != fleet.Available || len(r.Reasons) > 0 || r.Distribution != "shop" || r.Version != "1.0.0" ||
		r.Commit != seen.Snapshot.Commit || r.TagObject == "" || r.Published.Year() != 2026 {
		t.Errorf("got %+v", r)
	}
	if got := r.Variants; len(got) != 2 || got[0].Name != "mesh" || got[1].Name != "plain" || got[0].Objects != 1 {
		t.Errorf("variants: %+v", got)
	}
	b, err := bundle.Open(tar)
	if err != nil || b.Digest() != r.Digest || r.Size != int64(len(tar)) {
		t.Fatalf("bundle: %v; %v, %d bytes; release says %v, %d", err, b.Digest(), len(tar), r.Digest, r.Size)
	}
	if claim, err := b.Proof().Check(b.Files()); err != nil || claim.TagName != "1.0.0" || claim.Commit != r.Commit {
		t.Errorf("claim: %+v, %v", claim, err)
	}
}

// TestRejected: every rule, with all its reasons, and no bundle.
func TestRejected(t *testing.T) {
	change := func(more map[string]string) map[string]string {
		files := good()
		for k, v := range more {
			if v == "" {
				delete(files, k)
			} else {
				files[k] = v
			}
		}
		return files
	}
	tests := []struct {
		name, tag string
		files     map[string]string
		reasons   []string // of the release
		plain     []string // of variant plain
	}{
		{"not a version", "nightly", good(), []string{`tag "nightly" is not a semantic version (want MAJOR.MINOR.PATCH)`}, nil},
		{"out of range", "0.9.0", good(), []string{`tag 0.9.0 is not in the distribution's range ">=1.0.0"`}, nil},
		{"no kustomization", "1.0.1", map[string]string{"dist/web.yaml": deployment},
			[]string{"dist holds nothing to build: want dist/kustomization.yaml, or dist/VARIANT/kustomization.yaml in a folder of its own for every variant, or a list of folders under variants: in dist/wheelwright.yaml"}, nil},
		{"settings in error", "1.0.2", change(map[string]string{"dist/wheelwright.yaml": "version: 1\nvariants: [gone]\nextra: 1\n"}),
			[]string{"wheelwright.yaml: extra: unknown key (known: version, variants, health, rollout, upgrade, services, tests)", `wheelwright.yaml: variants[0]: folder "gone" holds no kustomization.yaml`}, nil},
		{"tests in error", "1.0.8", change(map[string]string{"dist/wheelwright.yaml": "version: 1\ntests:\n- {name: info, service: backend, http: {path: api, retry: 1}}\n"}),
			[]string{"wheelwright.yaml: tests[0].http.retry: unknown key (known: scheme, insecure, method, path, headers, body, expect)",
				`wheelwright.yaml: tests[0].http.path: "api": want a path that begins with / and is escaped as in a URL`}, nil},
		{"a health rule that is no expression", "1.0.7", change(map[string]string{"dist/wheelwright.yaml": "version: 1\nhealth:\n- {apiVersion: example.com/v1, kind: Widget, current: 'nothing.here'}\n"}),
			[]string{"wheelwright.yaml: health rule of Widget of example.com/v1: current: column 1: undeclared reference to 'nothing' (in container '')"}, nil},
		{"health rules in error", "1.0.6", change(map[string]string{"dist/wheelwright.yaml": "version: 1\nhealth:\n- {apiVersion: example.com/v1, kind: Widget}\n- {apiVersion: example.com/v1, kind: Gadget, current: 'true', when: later}\n"}),
			[]string{"wheelwright.yaml: health[0].current: missing: want an expression under current, failed or inProgress", "wheelwright.yaml: health[1].when: unknown key (known: apiVersion, kind, current, failed, inProgress, message)"}, nil},
		{"latest and unknown field", "1.0.3", change(map[string]string{"dist/plain/kustomization.yaml": "resources: [../base]\nimages: [{name: web, newTag: latest}]\npatches: [{patch: '{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {replica: 3}}'}]\n"}),
			[]string{"1 of 2 variants refused: plain"},
			[]string{`apps/v1 Deployment web: unknown field "spec.replica"`,
				`apps/v1 Deployment web: container web: image "web:latest" is tagged latest, which moves; give a version, or a digest`}},
		{"does not build", "1.0.4", change(map[string]string{"dist/base/web.yaml": ""}), []string{"2 of 2 variants refused: mesh, plain"},
			[]string{`base/kustomization.yaml: resources names "web.yaml", which does not exist`}},
		{"builds to nothing", "1.0.5", change(map[string]string{"dist/plain/kustomization.yaml": "namespace: x\n"}),
			[]string{"1 of 2 variants refused: plain"}, []string{"builds, but to no object at all"}},
	}
	p := newPublisher(t, publish.Config{})
	v := newVendor(t)
	d := fleet.Distribution{Name: "shop", URL: v.dir, Path: "dist", Tags: ">=1.0.0"}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v.tag(tt.tag, tt.files)
			r, tar, err := p.Build(t.Context(), d, see(t, v.dir, tt.tag, "dist"))
			if err != nil {
				t.Fatal(err)
			}
			if r.Phase != fleet.Rejected || tar != nil || r.Digest != "" || r.Size != 0 || r.Commit == "" {
				t.Errorf("got %+v and %d bytes, want it rejected and no bundle", r, len(tar))
			}
			if !slices.Equal(r.Reasons, tt.reasons) {
				t.Errorf("got  %q\nwant %q", r.Reasons, tt.reasons)
			}
			for _, variant := range r.Variants {
				if variant.Name == "plain" && !slices.Equal(variant.Reasons, tt.plain) {
					t.Errorf("plain: got  %q\nwant %q", variant.Reasons, tt.plain)
				}
			}
		})
	}
}

func TestRejectedBeforeTheBuild(t *testing.T) {
	v := newVendor(t)
	d := fleet.Distribution{Name: "shop", URL: v.dir, Path: "dist"}
	files := good()
	files["dist/plain/link.yaml"] = "-> ../base/web.yaml"
	v.tag("1.0.0", files)
	p := newPublisher(t, publish.Config{})
	r, tar, err := p.Build(t.Context(), d, see(t, v.dir, "1.0.0", "dist"))
	if err != nil || r.Phase != fleet.Rejected || tar != nil || len(r.Reasons) != 1 || !strings.Contains(r.Reasons[0], "plain/link.yaml") {
		t.Errorf("symlink: %+v, %v", r, err)
	}

	v.tag("1.0.1", good())
	p = newPublisher(t, publish.Config{MaxBytes: 1024})
	r, tar, err = p.Build(t.Context(), d, see(t, v.dir, "1.0.1", "dist"))
	if err != nil || r.Phase != fleet.Rejected || tar != nil || !strings.HasPrefix(r.Reasons[0], "dist holds 0.0 MiB, more than") {
		t.Errorf("too large: %+v, %v", r, err)
	}
}

type broken struct{}

func (broken) Render(context.Context, render.Source) (render.Result, error) {
	return render.Result{}, errors.New("no process could be started")
}

// TestOwnTrouble is never held against a release.
func TestOwnTrouble(t *testing.T) {
	v := newVendor(t)
	v.tag("1.0.0", good())
	d := fleet.Distribution{Name: "shop", URL: v.dir, Path: "dist"}
	_, tar, err := newPublisher(t, publish.Config{Renderer: broken{}}).Build(t.Context(), d, see(t, v.dir, "1.0.0", "dist"))
	if err == nil || tar != nil || err.Error() != "publish 1.0.0 of shop: variant mesh: no process could be started" {
		t.Errorf("got %v", err)
	}
}

func TestReferenceDistribution(t *testing.T) {
	input, err := filepath.Abs("../../../../shared/distributions/app-distribution.gitbundle")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(input); err != nil {
		t.Skip("the reference input is absent: ../shared/distributions/app-distribution.gitbundle")
	}
	dir := filepath.Join(t.TempDir(), "app")
	git(t, ".", "clone", "-q", input, dir)
	d := fleet.Distribution{Name: "app", URL: dir, Path: "dist"}
	p := newPublisher(t, publish.Config{})
	for _, tag := range []string{"1.0.0", "1.1.0", "v1.2.3", "2.0.0"} {
		r, tar, err := p.Build(t.Context(), d, see(t, dir, tag, "dist"))
		if err != nil || r.Phase != fleet.Available || tar == nil || len(r.Variants) != 3 || (r.TagObject == "") != (tag == "v1.2.3") {
			t.Errorf("%s: %+v, %v", tag, r, err)
		}
		for _, v := range r.Variants {
			if v.Objects != 24 {
				t.Errorf("%s %s: %d objects, want 24", tag, v.Name, v.Objects)
			}
		}
	}
	for tag, want := range map[string]string{
		"1.5.0": `apps/v1 Deployment app/ingress: container ingress: image "envoyproxy/envoy-alpine:latest" is tagged latest`,
		"1.6.0": `cache: no resource matches strategic merge patch "HorizontalPodAutoscaler.v2.autoscaling/cache.[noNs]"`,
	} {
		r, tar, err := p.Build(t.Context(), d, see(t, dir, tag, "dist"))
		if err != nil || r.Phase != fleet.Rejected || tar != nil || !slices.Equal(r.Reasons, []string{"3 of 3 variants refused: app-istio, app-kubernetes, app-linkerd"}) {
			t.Errorf("%s: %+v, %v", tag, r, err)
		}
		for _, v := range r.Variants {
			if len(v.Reasons) != 1 || !strings.Contains(v.Reasons[0], want) {
				t.Errorf("%s %s: %q, want %q", tag, v.Name, v.Reasons, want)
			}
		}
	}
}

// A release says which releases have to run before it and in which order it goes out; what is wrong with
// that rejects it.
func TestTheCourseOfARelease(t *testing.T) {
	settings := func(text string) map[string]string {
		files := good()
		files["dist/wheelwright.yaml"] = "version: 1\nvariants: [plain]\n" + text
		return files
	}
	v, p := newVendor(t), newPublisher(t, publish.Config{})
	build := func(tag, text string) fleet.Release {
		t.Helper()
		v.tag(tag, settings(text))
		r, _, err := p.Build(t.Context(), fleet.Distribution{Name: "shop", Path: "dist"}, see(t, v.dir, tag, "dist"))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := build("1.4.0", "upgrade: {stops: [1.1.0, 1.2.0]}\nrollout: {waves: [{name: canary, max: 1, soak: 10m}, {name: everyone}]}\n")
	if r.Phase != fleet.Available || !slices.Equal(r.Stops, []string{"1.1.0", "1.2.0"}) {
		t.Errorf("got %s %q, stops %q", r.Phase, r.Reasons, r.Stops)
	}
	if parsed, err := plan.Parse(r.Plan); err != nil || len(parsed.Waves) != 2 || parsed.Waves[0].Max.N != 1 {
		t.Errorf("got %s: %v", r.Plan, err)
	}
	if r := build("1.5.0", ""); r.Phase != fleet.Available || r.Stops != nil || r.Plan != nil {
		t.Errorf("without a course: %+v", r)
	}
	r = build("1.6.0", "upgrade: {stops: [1.2.0, 1.6.0, 2.0.0]}\nrollout: {waves: [{name: one, max: 101%}, {name: one}]}\n")
	if r.Phase != fleet.Rejected || !slices.ContainsFunc(r.Reasons, func(s string) bool { return strings.HasPrefix(s, "wheelwright.yaml: rollout.waves[0].max: ") }) ||
		!slices.ContainsFunc(r.Reasons, func(s string) bool { return strings.HasPrefix(s, "wheelwright.yaml: rollout.waves[1].name: ") }) {
		t.Errorf("a bad plan: got %s %q", r.Phase, r.Reasons)
	}
	r = build("1.7.0", "upgrade: {stops: [1.2.0, 1.7.0, 2.0.0]}\n")
	want := []string{"wheelwright.yaml: upgrade.stops[1]: 1.7.0 is not lower than the release itself, 1.7.0; name releases that have to run before it",
		"wheelwright.yaml: upgrade.stops[2]: 2.0.0 is not lower than the release itself, 1.7.0; name releases that have to run before it"}
	if r.Phase != fleet.Rejected || !slices.Equal(r.Reasons, want) {
		t.Errorf("stops above the release: got %s %q", r.Phase, r.Reasons)
	}
	// A work tree has no tag that its stops could be compared with.
	if r, err := p.Check(t.Context(), fleet.Distribution{Name: "shop", Path: "dist"}, publish.Untagged, see(t, v.dir, "1.7.0", "dist").Snapshot.Files); err != nil || r.Phase != fleet.Available {
		t.Errorf("a work tree: got %s %q, %v", r.Phase, r.Reasons, err)
	}
}
