package gitrepo

import (
	"errors"
	"fmt"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
)

const (
	maxMeta    = 32 << 20 // bytes of a commit, tag or tree object
	maxEntries = 100_000  // files and folders below a path
	maxDepth   = 64       // folders in folders
	kindCommit = plumbing.CommitObject
	kindTree   = plumbing.TreeObject
)

// objects reads raw objects, each checked against its id. What was read is kept, as most of a release is unchanged
// in the next.
type objects struct {
	max    int64 // bytes of the files of one snapshot
	folder func() (string, error)
	cache  *Cache

	db *database // nil: closed
}

func newObjects(cfg Config, folder func() (string, error)) (*objects, error) {
	o := &objects{max: cfg.MaxContent, folder: folder, cache: cfg.Cache}
	return o, o.reopen()
}

// reopen looks at the folder anew: packs may have come, or gone in a repack.
func (o *objects) reopen() error {
	if err := o.closeDatabase(); err != nil {
		return err
	}
	folder, err := o.folder()
	if err != nil {
		return err
	}
	o.db, err = openDatabase(folder)
	return err
}

// refresh looks for packs that have come.
func (o *objects) refresh() error {
	if o.db == nil {
		return o.reopen()
	}
	return o.db.refresh()
}

func (o *objects) closeDatabase() error {
	if o.db == nil {
		return nil
	}
	err := o.db.close()
	o.db = nil
	return err
}

func (o *objects) close() error {
	o.cache.forget(o)
	return o.closeDatabase()
}

func (o *objects) has(h plumbing.Hash) bool { return o.db != nil && o.db.has(h) }

// read returns an object whose content has the id h.
func (o *objects) read(h plumbing.Hash, limit int64) (object, error) {
	obj, ok := o.cache.get(o, h)
	if !ok {
		var err error
		if obj, err = o.load(h, limit); err != nil {
			return object{}, err
		}
		o.cache.put(o, h, obj)
	}
	if int64(len(obj.data)) > limit {
		return object{}, ErrTooLarge
	}
	return obj, nil
}

func (o *objects) load(h plumbing.Hash, limit int64) (object, error) {
	obj, err := o.loadOnce(h, limit)
	if err == nil || errors.Is(err, ErrTooLarge) {
		return obj, err
	}
	if err := o.reopen(); err != nil {
		return object{}, err
	}
	return o.loadOnce(h, limit)
}

func (o *objects) loadOnce(h plumbing.Hash, limit int64) (object, error) {
	if o.db == nil {
		return object{}, fmt.Errorf("object %s: the repository is closed", h)
	}
	obj, err := o.db.load(h, limit)
	if err != nil {
		return object{}, fmt.Errorf("object %s: %w", h, err)
	}
	id, err := provenance.ObjectID(obj.kind.String(), obj.data)
	if err != nil {
		return object{}, fmt.Errorf("object %s: %w", h, err)
	}
	if plumbing.Hash(id) != h {
		return object{}, fmt.Errorf("object %s is corrupt: its content has id %s", h, plumbing.Hash(id))
	}
	return obj, nil
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
	w := walk{objects: o, left: o.max, was: o.cache.listing(o), now: &listing{folders: map[string]folder{}}}
	if w.was == nil {
		w.was = &listing{}
	}
	w.files = make([]provenance.File, 0, len(w.was.files))
	if err := w.tree(tree, "", 0); err != nil {
		return Snapshot{}, err
	}
	s.Files = w.files
	o.cache.putListing(o, w.now)
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

// listing is what a snapshot was made of: the next one need not look into a folder that is as it was.
type listing struct {
	files   []listed
	folders map[string]folder // by path
	cost    int               // bytes
}

type listed struct {
	path       string
	executable bool
	id         plumbing.Hash
}

type folder struct {
	id       plumbing.Hash
	from, to int // of its files
	entries  int // below it
}

const listedCost, folderCost = 64, 120 // bytes, beside the path

// walk collects the files below a tree. It counts, as a tree of a few objects can name millions of files.
type walk struct {
	*objects
	files    []provenance.File
	entries  int
	left     int64
	was, now *listing
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
		return w.folder(plumbing.Hash(e.ID), path, depth+1)
	case provenance.ModeFile, provenance.ModeExecutable:
		return w.file(listed{path, e.Mode == provenance.ModeExecutable, plumbing.Hash(e.ID)})
	}
	return unsupported(e.Mode, path)
}

func (w *walk) folder(id plumbing.Hash, path string, depth int) error {
	now := folder{id: id, from: len(w.now.files)}
	if was, ok := w.was.folders[path]; ok && was.id == id && w.entries+was.entries <= maxEntries {
		for _, f := range w.was.files[was.from:was.to] {
			if err := w.file(f); err != nil {
				return err
			}
		}
		w.entries += was.entries
		now.entries = was.entries
	} else {
		raw, err := w.meta(id, kindTree)
		if err != nil {
			return fmt.Errorf("folder %q: %w", path, err)
		}
		if len(raw) == 0 {
			return fmt.Errorf("folder %q is empty: %w", path, ErrUnsupported)
		}
		before := w.entries
		if err := w.tree(raw, path+"/", depth); err != nil {
			return err
		}
		now.entries = w.entries - before
	}
	now.to = len(w.now.files)
	w.now.folders[path] = now
	w.now.cost += folderCost + len(path)
	return nil
}

func (w *walk) file(f listed) error {
	obj, err := w.read(f.id, w.left)
	if errors.Is(err, ErrTooLarge) {
		return fmt.Errorf("%q: with it the files have more than %d MiB: %w", f.path, w.max>>20, ErrTooLarge)
	}
	if err != nil {
		return fmt.Errorf("%q: %w", f.path, err)
	}
	if obj.kind != plumbing.BlobObject {
		return fmt.Errorf("%q is a %s: %w", f.path, obj.kind, ErrUnsupported)
	}
	w.left -= int64(len(obj.data))
	w.files = append(w.files, provenance.File{Path: f.path, Executable: f.executable, Data: obj.data})
	w.now.files = append(w.now.files, f)
	w.now.cost += listedCost + len(f.path)
	return nil
}
