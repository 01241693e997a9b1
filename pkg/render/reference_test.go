package render_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/manifest"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
	"github.com/wheelwright-dev/wheelwright/pkg/render"
)

const referenceURL = "https://github.com/stefanprodan/gitops-app-distribution"

// reference clones one of the given repositories, which are not part of this project.
func reference(t testing.TB, name string) (dir string) {
	t.Helper()
	bundle, err := filepath.Abs("../../../shared/distributions/" + name + ".gitbundle")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(bundle); err != nil {
		t.Skipf("the reference input is absent: ../shared/distributions/%s.gitbundle", name)
	}
	dir = filepath.Join(t.TempDir(), name)
	git(t, "clone", "-q", bundle, dir)
	return dir
}

func git(t testing.TB, args ...string) []byte {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "git", args...).Output()
	if err != nil {
		var ee *exec.ExitError
		errors.As(err, &ee)
		t.Fatalf("git %v: %v %s", args, err, ee.Stderr)
	}
	return out
}

// archive reads the files below path at a revision.
func archive(t testing.TB, repo, revision, path string) []provenance.File {
	t.Helper()
	var out []provenance.File
	r := tar.NewReader(bytes.NewReader(git(t, "-C", repo, "archive", revision, path)))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, provenance.File{Path: strings.TrimPrefix(h.Name, path+"/"), Data: data})
	}
}

func referenceSource(t testing.TB, repo, tag, variant string) render.Source {
	return render.Source{Name: "shop", Version: tag, Bundle: archive(t, repo, tag, "dist"), URLs: []string{referenceURL}, BundlePath: "dist", Variant: variant}
}

func TestReferenceDistribution(t *testing.T) {
	repo := reference(t, "app-distribution")
	r := newRenderer(t, render.Config{})
	for _, tag := range []string{"1.0.0", "1.1.0", "1.1.1", "1.2.0", "1.3.0", "1.4.0", "1.5.0", "v1.2.3", "2.0.0-rc.1", "2.0.0"} {
		src := referenceSource(t, repo, tag, "")
		variants, err := render.Variants(src.Bundle)
		if err != nil || !slices.Equal(variants, []string{"app-istio", "app-kubernetes", "app-linkerd"}) {
			t.Fatalf("%s: variants %v, %v", tag, variants, err)
		}
		if tag != "1.1.0" && tag != "2.0.0" {
			variants = []string{"app-kubernetes"}
		}
		for _, src.Variant = range variants {
			res, err := r.Render(t.Context(), src)
			if err != nil || res.Objects != 24 {
				t.Errorf("%s %s: %d objects, %v; want 24", tag, src.Variant, res.Objects, err)
				continue
			}
			objs, err := manifest.Parse(res.Manifest)
			if err != nil {
				t.Fatal(err)
			}
			if problems := manifest.Validate(objs); len(problems) > 0 {
				t.Errorf("%s %s: %v", tag, src.Variant, problems)
			}
			if problems := manifest.CheckImages(objs); (len(problems) > 0) != (tag == "1.5.0") {
				t.Errorf("%s %s: images: %v", tag, src.Variant, problems)
			}
		}
	}
	_, err := r.Render(t.Context(), referenceSource(t, repo, "1.6.0", "app-istio"))
	want := `app-istio/cache: no resource matches strategic merge patch "HorizontalPodAutoscaler.v2.autoscaling/cache.[noNs]": ` +
		"no matches for Id HorizontalPodAutoscaler.v2.autoscaling/cache.[noNs]; failed to find unique target for patch HorizontalPodAutoscaler.v2.autoscaling/cache.[noNs]"
	if err == nil || err.Error() != want {
		t.Errorf("1.6.0: got %v, want %s", err, want)
	}
}

func TestReferenceProvider(t *testing.T) {
	repo, provider := reference(t, "app-distribution"), reference(t, "provider-config")
	r := newRenderer(t, render.Config{})
	for step, want := range map[string]string{"step-1-install": "1.1.0", "step-2-upgrade": "1.2.0", "step-3-bad-upgrade": "1.4.0", "step-4-revert": "1.2.0"} {
		overlay := archive(t, provider, step, ".")
		urls := []string{repo, referenceURL + ".git"} // the hub watches a clone; spoke.yaml names the origin
		pin, err := render.OverlayPin(overlay, "app", urls, "dist")
		if err != nil || pin != (render.OverlayBase{Variant: "app-kubernetes", Ref: want, Found: true}) {
			t.Fatalf("%s: %+v, %v", step, pin, err)
		}
		src := referenceSource(t, repo, pin.Ref, "")
		src.URLs, src.Overlay, src.OverlayPath = urls, overlay, "app"
		res, err := r.Render(t.Context(), src)
		if err != nil || res.Objects != 24 || !strings.Contains(string(res.Manifest), "maxReplicas: 8") {
			t.Errorf("%s: %d objects, %v", step, res.Objects, err)
		}
		if _, err := render.OverlayPin(overlay, "app", []string{repo}, "dist"); err == nil || !strings.Contains(err.Error(), "subscriptions[].source") {
			t.Errorf("%s without the origin's address: %v", step, err)
		}
	}
}

// kubectl finds the command to compare with.
func kubectl(t testing.TB) string {
	if p := os.Getenv("WHEELWRIGHT_KUBECTL"); p != "" {
		return p
	}
	if cache, err := os.UserCacheDir(); err == nil {
		if found, _ := filepath.Glob(filepath.Join(cache, "wheelwright", "controlplane", "*", "kubectl")); len(found) > 0 {
			return found[len(found)-1]
		}
	}
	p, err := exec.LookPath("kubectl")
	if err != nil {
		t.Skip("no kubectl: set WHEELWRIGHT_KUBECTL, or let the harness build one")
	}
	return p
}

// BenchmarkRenderWarmVsKubectl compares a warm rendering through the child with the command that people
// would run, one after the other, and that both say the same.
func BenchmarkRenderWarmVsKubectl(b *testing.B) {
	command, repo := kubectl(b), reference(b, "app-distribution")
	git(b, "-C", repo, "checkout", "-q", "1.2.0")
	src := referenceSource(b, repo, "1.2.0", "app-kubernetes")
	r := newRenderer(b, render.Config{})

	var warm, theirs []time.Duration
	const rounds = 15
	for i := range rounds + 1 {
		begin := time.Now()
		res, err := r.Render(b.Context(), src)
		if err != nil {
			b.Fatal(err)
		}
		middle := time.Now()
		out, err := exec.CommandContext(b.Context(), command, "kustomize", filepath.Join(repo, "dist", "app-kubernetes")).Output()
		if err != nil {
			b.Fatal(err)
		}
		if i == 0 { // the child starts, the command comes into the page cache
			sameObjects(b, res.Manifest, out)
			continue
		}
		warm, theirs = append(warm, middle.Sub(begin)), append(theirs, time.Since(middle))
	}
	median := func(d []time.Duration) time.Duration {
		slices.Sort(d)
		return d[len(d)/2]
	}
	w, k := median(warm), median(theirs)
	fmt.Printf("FIGURE render.warm-vs-kubectl %.3f ratio %s warm, %s kubectl kustomize, medians of %d, 24 objects\n",
		float64(w)/float64(k), w.Round(100*time.Microsecond), k.Round(100*time.Microsecond), rounds)
	b.ReportMetric(float64(w)/float64(k), "ratio")
	for b.Loop() {
		if _, err := r.Render(b.Context(), src); err != nil {
			b.Fatal(err)
		}
	}
}

func sameObjects(t testing.TB, a, b []byte) {
	t.Helper()
	set := func(text []byte) map[string]any {
		objs, err := manifest.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]any{}
		for _, o := range objs {
			out[manifest.ID(o)] = o.Object
		}
		return out
	}
	ours, theirs := set(a), set(b)
	if len(ours) != len(theirs) {
		t.Errorf("%d objects, kubectl has %d", len(ours), len(theirs))
	}
	for id, o := range theirs {
		if !reflect.DeepEqual(o, ours[id]) {
			t.Errorf("%s differs:\nours    %v\nkubectl %v", id, ours[id], o)
		}
	}
}
