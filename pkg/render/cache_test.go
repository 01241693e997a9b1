package render_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
	"github.com/wheelwright-dev/wheelwright/pkg/render"
)

// overlaid is shop with a provider's overlay that holds a Secret.
func overlaid() render.Source {
	src := shopSource("")
	src.Overlay = files(map[string]string{"kustomization.yaml": "resources: ['" + shopURL + "/dist//plain?ref=1.0.0']\nsecretGenerator: [{name: db, literals: [password=hunter2]}]\n"})
	src.OverlayPath = "."
	return src
}

func TestWhatWasRenderedIsLookedUp(t *testing.T) {
	r := render.New(render.Config{})
	c := render.NewCache(r, 1<<20)
	first, err := c.Render(t.Context(), overlaid())
	if err != nil {
		t.Fatal(err)
	}
	plain, err := c.Render(t.Context(), shopSource("plain"))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil { // from here on what is not known cannot be had
		t.Fatal(err)
	}
	again, err := c.Render(t.Context(), overlaid())
	if err != nil || !bytes.Equal(again.Manifest, first.Manifest) || again.Digest != first.Digest || again.Objects != first.Objects {
		t.Errorf("the same again: %v, %v", again.Digest, err)
	}
	named := shopSource("plain")
	named.Name, named.Version = "other", "1.0.1" // the same content, by another name
	if res, err := c.Render(t.Context(), named); err != nil || res.Digest != plain.Digest {
		t.Errorf("the same content of another version: %v", err)
	}
	for what, change := range map[string]func(*render.Source){
		"a file of the release": func(s *render.Source) {
			s.Bundle = slices.Clone(s.Bundle)
			s.Bundle[0].Data = append(slices.Clone(s.Bundle[0].Data), '\n')
		},
		"a file more":          func(s *render.Source) { s.Bundle = append(slices.Clone(s.Bundle), provenance.File{Path: "z"}) },
		"a file moved":         func(s *render.Source) { s.Bundle = slices.Clone(s.Bundle); s.Bundle[0].Path += "x" },
		"the overlay":          func(s *render.Source) { s.Overlay[0].Data = append(s.Overlay[0].Data, '\n') },
		"no overlay":           func(s *render.Source) { s.Overlay = nil },
		"the overlay's folder": func(s *render.Source) { s.OverlayPath = "x" },
		"the variant":          func(s *render.Source) { s.Variant = "mesh" },
		"the namespace":        func(s *render.Source) { s.Namespace = "else" },
		"the repository":       func(s *render.Source) { s.URLs = nil },
		"its folder":           func(s *render.Source) { s.BundlePath = "d" },
	} {
		src := overlaid()
		change(&src)
		if _, err := c.Render(t.Context(), src); !errors.Is(err, render.ErrClosed) {
			t.Errorf("%s changed: %v, want it to be rendered", what, err)
		}
	}
	// What was handed out is checked when it is handed out again.
	again.Manifest[0] ^= 1
	if _, err := c.Render(t.Context(), overlaid()); !errors.Is(err, render.ErrClosed) {
		t.Errorf("of a set that was written to: %v, want it to be rendered", err)
	}
}

func TestTheCacheOfRenderingsIsBounded(t *testing.T) {
	r := render.New(render.Config{})
	size := func(src render.Source) int {
		res, err := r.Render(t.Context(), src)
		if err != nil {
			t.Fatal(err)
		}
		return len(res.Manifest)
	}
	plain, mesh, other := shopSource("plain"), shopSource("mesh"), overlaid()
	c := render.NewCache(r, size(plain)+size(other)+size(mesh)-1) // room for two of the three
	none := render.NewCache(r, 10)
	for _, src := range []render.Source{plain, mesh, plain, other} { // mesh was needed longest ago
		if _, err := c.Render(t.Context(), src); err != nil {
			t.Fatal(err)
		}
		if _, err := none.Render(t.Context(), src); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	for n, known := range []bool{true, false, true} {
		src := []render.Source{plain, mesh, other}[n]
		if _, err := c.Render(t.Context(), src); (err == nil) != known {
			t.Errorf("source %d: %v, want it kept: %t", n, err, known)
		}
		if _, err := none.Render(t.Context(), src); !errors.Is(err, render.ErrClosed) {
			t.Errorf("source %d: %v, though there is no room for it", n, err)
		}
	}
}

// A refusal is said anew each time: what is wrong with a source may be that this machine was short of something.
func TestARefusalIsNotRemembered(t *testing.T) {
	r := render.New(render.Config{})
	c := render.NewCache(r, 1<<20)
	var build *render.BuildError
	if _, err := c.Render(t.Context(), shopSource("none")); !errors.As(err, &build) {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Render(t.Context(), shopSource("none")); !errors.Is(err, render.ErrClosed) {
		t.Error(err)
	}
}
