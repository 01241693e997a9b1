package gitrepo

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/storage/filesystem"

	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
)

const (
	maxMeta    = 32 << 20 // bytes of a commit, tag or tree object
	maxEntries = 100_000  // files and folders below a path
	maxDepth   = 64       // folders in folders
	maxKept    = 32 << 20 // bytes of objects kept from one snapshot to the next
	kindCommit = plumbing.CommitObject
	kindTree   = plumbing.TreeObject
)

// objects reads raw objects. Those of the last snapshot are kept, as most of a release is unchanged in
// the next.
type objects struct {
	max     int64 // bytes of the files of one snapshot
	storage *filesystem.Storage
	reopen  func() (*filesystem.Storage, error)

	kept, before map[plumbing.Hash]object // of this snapshot, of the one before
	keptBytes    int
}

type object struct {
	kind plumbing.ObjectType
	data []byte
}

func (o *objects) close() error { return o.storage.Close() }

func (o *objects) has(h plumbing.Hash) bool {
	if o.storage.HasEncodedObject(h) == nil {
		return true
	}
	o.storage.Reindex()
	_, err := o.storage.EncodedObject(plumbing.AnyObject, h) // unlike the above, looks into alternates
	return err == nil
}

// read returns an object whose content has the id h.
func (o *objects) read(h plumbing.Hash, limit int64) (object, error) {
	obj, ok := o.kept[h]
	if !ok {
		obj, ok = o.before[h]
	}
	if ok && int64(len(obj.data)) > limit {
		return object{}, ErrTooLarge
	}
	if !ok {
		var err error
		if obj, err = o.load(h, limit); err != nil {
			return object{}, err
		}
	}
	if o.kept == nil {
		o.kept = map[plumbing.Hash]object{}
	}
	if _, again := o.kept[h]; !again && o.keptBytes+len(obj.data) <= maxKept {
		o.kept[h] = obj
		o.keptBytes += len(obj.data)
	}
	return obj, nil
}

// load tries again with everything opened anew: packs may have come, or gone in a repack.
func (o *objects) load(h plumbing.Hash, limit int64) (object, error) {
	obj, err := o.loadOnce(h, limit)
	if err == nil || errors.Is(err, ErrTooLarge) {
		return obj, err
	}
	o.storage.Reindex()
	if obj, err = o.loadOnce(h, limit); err == nil || errors.Is(err, ErrTooLarge) {
		return obj, err
	}
	fresh, ferr := o.reopen()
	if ferr != nil {
		return object{}, ferr
	}
	_ = o.storage.Close() // read only: nothing to lose
	o.storage = fresh
	return o.loadOnce(h, limit)
}

func (o *objects) loadOnce(h plumbing.Hash, limit int64) (object, error) {
	enc, err := o.storage.EncodedObject(plumbing.AnyObject, h)
	if err != nil {
		return object{}, fmt.Errorf("object %s: %w", h, err)
	}
	size := enc.Size()
	if size > limit {
		return object{}, ErrTooLarge
	}
	r, err := enc.Reader()
	if err != nil {
		return object{}, fmt.Errorf("object %s: %w", h, err)
	}
	data := make([]byte, size)
	_, err = io.ReadFull(r, data)
	if cerr := r.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return object{}, fmt.Errorf("object %s: %w", h, err)
	}
	id, err := provenance.ObjectID(enc.Type().String(), data)
	if err != nil {
		return object{}, fmt.Errorf("object %s: %w", h, err)
	}
	if plumbing.Hash(id) != h {
		return object{}, fmt.Errorf("object %s is corrupt: its content has id %s", h, plumbing.Hash(id))
	}
	return object{kind: enc.Type(), data: data}, nil
}

func (o *objects) meta(h plumbing.Hash, kind plumbing.ObjectType) ([]byte, error) {
	obj, err := o.read(h, maxMeta)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", kind, h, err)
	}
	if obj.kind != kind {
		return nil, fmt.Errorf("%s %s: it is a %s: %w", kind, h, obj.kind, ErrUnsupported)
	}
	return obj.data, nil
}

// commit follows a tag object, where h is one, to its commit.
func (o *objects) commit(h plumbing.Hash) (tag []byte, id plumbing.Hash, commit []byte, err error) {
	obj, err := o.read(h, maxMeta)
	if err != nil {
		return nil, id, nil, err
	}
	if obj.kind == kindCommit {
		return nil, h, obj.data, nil
	}
	if obj.kind != plumbing.TagObject {
		return nil, id, nil, fmt.Errorf("it names a %s, want a commit: %w", obj.kind, ErrUnsupported)
	}
	t, err := provenance.ParseTag(obj.data)
	if err != nil {
		return nil, id, nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	if t.Kind != kindCommit.String() {
		return nil, id, nil, fmt.Errorf("it names a %s, want a commit: %w", t.Kind, ErrUnsupported)
	}
	id = plumbing.NewHash(t.Object)
	commit, err = o.meta(id, kindCommit)
	return obj.data, id, commit, err
}

func (o *objects) snapshot(h plumbing.Hash, path string) (Snapshot, error) {
	// Let go of what the last snapshot did not use.
	o.before, o.kept, o.keptBytes = o.kept, map[plumbing.Hash]object{}, 0
	names, err := provenance.Components(path)
	if err != nil {
		return Snapshot{}, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	tag, id, commit, err := o.commit(h)
	if err != nil {
		return Snapshot{}, err
	}
	root, err := provenance.CommitTree(commit)
	if err != nil {
		return Snapshot{}, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	s := Snapshot{Commit: id.String(), Proof: provenance.Proof{Tag: tag, Commit: commit, Path: path}}
	if tag != nil {
		s.TagObject = h.String()
	}
	tree, err := o.meta(plumbing.NewHash(root), kindTree)
	if err != nil {
		return Snapshot{}, err
	}
	s.Proof.Trees = append(s.Proof.Trees, tree)
	for i := range names {
		if tree, err = o.descend(tree, names[:i+1]); err != nil {
			return Snapshot{}, err
		}
		s.Proof.Trees = append(s.Proof.Trees, tree)
	}
	w := walk{objects: o, left: o.max}
	if err := w.tree(tree, "", 0); err != nil {
		return Snapshot{}, err
	}
	s.Files = w.files
	return s, nil
}

func (o *objects) descend(tree []byte, names []string) ([]byte, error) {
	shown, name := strings.Join(names, "/"), names[len(names)-1]
	entries, err := provenance.ParseTree(tree)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	for _, e := range entries {
		if e.Name != name {
			continue
		}
		switch e.Mode {
		case provenance.ModeDir:
			return o.meta(plumbing.Hash(e.ID), kindTree)
		case provenance.ModeSymlink, provenance.ModeSubmodule:
			return nil, unsupported(e.Mode, shown)
		}
		return nil, fmt.Errorf("folder %q: it is a file: %w", shown, ErrNotFound)
	}
	return nil, fmt.Errorf("folder %q: %w", shown, ErrNotFound)
}

func unsupported(mode, path string) error {
	switch mode {
	case provenance.ModeSymlink:
		return fmt.Errorf("%q is a symlink: %w; commit the file itself", path, ErrUnsupported)
	case provenance.ModeSubmodule:
		return fmt.Errorf("%q is a submodule: %w; commit its files", path, ErrUnsupported)
	}
	return fmt.Errorf("%q has mode %s, want 100644 or 100755: %w", path, mode, ErrUnsupported)
}

// walk collects the files below a tree. It counts, as a tree of a few objects can name millions of files.
type walk struct {
	*objects
	files   []provenance.File
	entries int
	left    int64
}

func (w *walk) tree(raw []byte, prefix string, depth int) error {
	entries, err := provenance.ParseTree(raw)
	if err != nil {
		return fmt.Errorf("folder %q: %w: %w", prefix, ErrUnsupported, err)
	}
	if w.entries += len(entries); w.entries > maxEntries || depth > maxDepth {
		return fmt.Errorf("folder %q: more than %d entries or %d folders deep: %w", prefix, maxEntries, maxDepth, ErrTooLarge)
	}
	for _, e := range entries {
		path := prefix + e.Name
		if err := provenance.CheckPath(path); err != nil {
			return fmt.Errorf("%w: %w", ErrUnsupported, err)
		}
		if err := w.entry(e, path, depth); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) entry(e provenance.Entry, path string, depth int) error {
	switch e.Mode {
	case provenance.ModeDir:
		raw, err := w.meta(plumbing.Hash(e.ID), kindTree)
		if err != nil {
			return fmt.Errorf("folder %q: %w", path, err)
		}
		if len(raw) == 0 {
			return fmt.Errorf("folder %q is empty: %w", path, ErrUnsupported)
		}
		return w.tree(raw, path+"/", depth+1)
	case provenance.ModeFile, provenance.ModeExecutable:
		obj, err := w.read(plumbing.Hash(e.ID), w.left)
		if errors.Is(err, ErrTooLarge) {
			return fmt.Errorf("%q: with it the files have more than %d MiB: %w", path, w.max>>20, ErrTooLarge)
		}
		if err != nil {
			return fmt.Errorf("%q: %w", path, err)
		}
		if obj.kind != plumbing.BlobObject {
			return fmt.Errorf("%q is a %s: %w", path, obj.kind, ErrUnsupported)
		}
		w.left -= int64(len(obj.data))
		w.files = append(w.files, provenance.File{Path: path, Executable: e.Mode == provenance.ModeExecutable, Data: obj.data})
		return nil
	}
	return unsupported(e.Mode, path)
}
