package render

import (
	"path"
	"strings"

	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
)

// OverlayBase is what an overlay says about the distribution that it lies over.
type OverlayBase struct {
	Variant string // of the first resource that names it
	Ref     string // empty: none given
	Found   bool
}

// OverlayPin reads which variant and ref of the distribution (known under urls; its releases hold path)
// the kustomization in overlayPath is over. Files that it reaches are checked as Render does; an error is
// a *BuildError.
func OverlayPin(files []provenance.File, overlayPath string, urls []string, path string) (OverlayBase, error) {
	t := newTree()
	t.mount(overlayRoot, files)
	s := newScan(t, Source{URLs: urls, BundlePath: path}, Limits{}.withDefaults())
	root := overlayDir(overlayPath)
	s.walk(root)
	var pin OverlayBase
	for _, b := range s.bases {
		if !pin.Found {
			pin.Variant, pin.Found = variantAt(b.Folder), true
		}
		switch {
		case pin.Ref == "":
			pin.Ref = b.Ref
		case b.Ref != "" && b.Ref != pin.Ref:
			s.problem(root, "its bases name two releases, ref=%s and ref=%s; an application is one release", pin.Ref, b.Ref)
		}
	}
	if len(s.problems) > 0 {
		return OverlayBase{}, &BuildError{s.problems}
	}
	return pin, nil
}

// Missing lists the local paths that the kustomization in overlayPath, or one that it reaches, names as a
// resource, component or plugin and that files do not hold: what else belongs to the overlay.
func Missing(files []provenance.File, overlayPath string) []string {
	t := newTree()
	t.mount(overlayRoot, files)
	s := newScan(t, Source{}, Limits{}.withDefaults())
	s.walk(overlayDir(overlayPath))
	for i, p := range s.missing {
		s.missing[i] = strings.TrimPrefix(strings.TrimPrefix(p, overlayRoot), "/")
	}
	return s.missing
}

func overlayDir(overlayPath string) string {
	return path.Join(overlayRoot, path.Clean("/"+overlayPath))
}
