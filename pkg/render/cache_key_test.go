package render

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
)

// What another engine rendered, or this one within other limits, is not what would come out here.
func TestTheEngineIsPartOfTheKey(t *testing.T) {
	l := Limits{}.withDefaults()
	less := l
	less.Objects--
	if engine(l) == engine(less) || keyOf(Source{}, "kustomize 1") == keyOf(Source{}, "kustomize 2") {
		t.Error("another engine has the same key")
	}
}

// Two sources never have one key, however alike their parts are when they are put in a row.
func TestKeysTellSourcesApart(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 5))
	part := func() string { return []string{"", "a", "aa", "ab", "b", "a\x00b"}[r.IntN(6)] }
	list := func() (files []provenance.File) {
		for range r.IntN(3) {
			files = append(files, provenance.File{Path: part(), Data: []byte(part())})
		}
		return files
	}
	same := func(a, b []provenance.File) bool {
		return (a == nil) == (b == nil) && slices.EqualFunc(a, b, func(x, y provenance.File) bool { return x.Path == y.Path && string(x.Data) == string(y.Data) })
	}
	known := map[key]Source{}
	for range 50_000 {
		src := Source{Bundle: list(), Overlay: list(), Variant: part(), Namespace: part(), OverlayPath: part(), BundlePath: part()}
		for range r.IntN(3) {
			src.URLs = append(src.URLs, part())
		}
		k := keyOf(src, "e")
		was, ok := known[k]
		if !ok {
			known[k] = src
			continue
		}
		if w := was; !same(w.Bundle, src.Bundle) || !same(w.Overlay, src.Overlay) || !slices.Equal(w.URLs, src.URLs) ||
			w.Variant != src.Variant || w.Namespace != src.Namespace || w.OverlayPath != src.OverlayPath || w.BundlePath != src.BundlePath {
			t.Fatalf("one key for two sources:\n%+v\n%+v", w, src)
		}
	}
}
