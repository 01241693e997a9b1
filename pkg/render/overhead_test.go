package render

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/manifest"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
)

// distribution is the reference distribution at a tag, or the repository's own sample where that is not here.
func distribution(b *testing.B, tag string) (files []provenance.File, variants []string) {
	b.Helper()
	git := func(args ...string) []byte {
		out, err := exec.CommandContext(b.Context(), "git", args...).Output()
		if err != nil {
			b.Fatalf("git %v: %v", args, err)
		}
		return out
	}
	bundle, err := filepath.Abs("../../../shared/distributions/app-distribution.gitbundle")
	if err == nil {
		_, err = os.Stat(bundle)
	}
	if err != nil {
		b.Skip("the reference input is absent: ../shared/distributions/app-distribution.gitbundle")
	}
	repo := filepath.Join(b.TempDir(), "repo")
	git("clone", "-q", bundle, repo)
	for r := tar.NewReader(bytes.NewReader(git("-C", repo, "archive", tag, "dist"))); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			b.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		data, err := io.ReadAll(r)
		if err != nil {
			b.Fatal(err)
		}
		files = append(files, provenance.File{Path: strings.TrimPrefix(h.Name, "dist/"), Data: data})
	}
	if variants, err = Variants(files); err != nil {
		b.Fatal(err)
	}
	return files, variants
}

func middle(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// BenchmarkSandboxOverhead renders the reference distribution's variants in the sandbox, in a warm child and
// in one that has to be started, and with kustomize alone in this process, one after the other.
func BenchmarkSandboxOverhead(b *testing.B) {
	bundle, variants := distribution(b, "1.2.0")
	defer debug.SetGCPercent(debug.SetGCPercent(childGC)) // as the child has it
	r := New(Config{})
	defer r.Close()
	plain := func(src Source) []byte { // without process, confinement, scan and limits
		t := newTree()
		t.mount(releaseRoot, src.Bundle)
		rendered, err := kustomize(t, filepath.Join(releaseRoot, src.Variant))
		if err != nil {
			b.Fatal(err)
		}
		objs, err := objects(rendered)
		if err != nil {
			b.Fatal(err)
		}
		text, err := manifest.Canonical(objs)
		if err != nil {
			b.Fatal(err)
		}
		return text
	}
	confined := func(r *Renderer, src Source) []byte {
		res, err := r.Render(b.Context(), src)
		if err != nil {
			b.Fatal(err)
		}
		return res.Manifest
	}
	const rounds = 9
	var warm, cold, over, overCold, here []time.Duration
	for round := range rounds + 1 {
		for _, variant := range variants {
			src := Source{Name: "app", Version: "1.2.0", Bundle: bundle, Variant: variant}
			begin := time.Now()
			one := plain(src)
			alone := time.Since(begin)
			begin = time.Now()
			two := confined(r, src)
			inWarm := time.Since(begin)
			if !bytes.Equal(one, two) {
				b.Fatalf("%s: the two differ", variant)
			}
			if round == 0 { // both read kustomize's schema first
				continue
			}
			here, warm, over = append(here, alone), append(warm, inWarm), append(over, inWarm-alone)
			if round%3 != 0 {
				continue
			}
			fresh := New(Config{})
			begin = time.Now()
			confined(fresh, src)
			inCold := time.Since(begin)
			fresh.Close()
			cold, overCold = append(cold, inCold), append(overCold, inCold-alone)
		}
	}
	show := func(d time.Duration) string { return d.Round(100 * time.Microsecond).String() }
	fmt.Printf("FIGURE sandbox.overhead %.1f ms warm, median of %d pairs over %d variants of the reference distribution: %s confined, %s in process, both warm\n",
		float64(middle(over).Microseconds())/1000, len(over), len(variants), show(middle(warm)), show(middle(here)))
	fmt.Printf("FIGURE sandbox.overhead-cold %.1f ms process start and kustomize's schema included, median of %d: %s confined\n",
		float64(middle(overCold).Microseconds())/1000, len(overCold), show(middle(cold)))
	src := Source{Name: "app", Version: "1.2.0", Bundle: bundle, Variant: variants[0]}
	for b.Loop() {
		confined(r, src)
	}
}
