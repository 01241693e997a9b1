package tagwatch

import (
	"context"
	"fmt"
	"maps"

	"github.com/wheelwright-dev/wheelwright/pkg/gitrepo"
)

// noted is what was last noted of each tag, so that it is told once.
type noted map[string]string

func (n noted) once(tag, what string) bool {
	if n[tag] == what {
		return false
	}
	n[tag] = what
	return true
}

// compare notes what became of judged tags, and which tags are no releases. A tag that is as it was
// judged may be noted again later.
func (w *Watcher) compare(ctx context.Context, refs []gitrepo.Ref, known map[string]string) {
	gone := maps.Clone(known)
	present := make(map[string]bool, len(refs))
	for _, ref := range refs {
		if ctx.Err() != nil {
			return
		}
		present[ref.Name] = true
		delete(gone, ref.Name)
		was, judged := known[ref.Name]
		switch {
		case judged && was == ref.Hash:
			w.settle(ref.Name)
		case judged:
			if w.noted.once(ref.Name, "moved to "+ref.Hash) {
				w.note(Note{Kind: Moved, Tag: ref.Name, Was: was, Hash: ref.Hash, Message: fmt.Sprintf(
					"tag %s was %s when it was judged and is %s now; what was judged stays, tag a new version instead", ref.Name, short(was), short(ref.Hash))})
			}
		default:
			if why := w.why(ref.Name); why == "" {
				// It is judged next; a delay that is noted lasts until then.
			} else if w.noted.once(ref.Name, "ignored: "+why) {
				w.note(Note{Kind: Ignored, Tag: ref.Name, Hash: ref.Hash, Message: why})
			}
		}
	}
	for tag, was := range gone {
		if ctx.Err() != nil {
			return
		}
		if w.noted.once(tag, "deleted") {
			w.note(Note{Kind: Deleted, Tag: tag, Was: was, Message: fmt.Sprintf(
				"tag %s, %s when it was judged, is gone from the repository; what was judged stays", tag, short(was))})
		}
	}
	for tag := range w.noted {
		if _, judged := known[tag]; !judged && !present[tag] {
			w.settle(tag)
		}
	}
}

// settle takes back what was noted of a tag.
func (w *Watcher) settle(tag string) {
	if _, ok := w.noted[tag]; ok {
		delete(w.noted, tag)
		w.note(Note{Kind: Settled, Tag: tag})
	}
}

func short(hash string) string { return hash[:min(12, len(hash))] }
