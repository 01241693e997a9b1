package gitrepo

import (
	"errors"
	"fmt"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
)

// object is one as a repository has it. Its data is shared: read only.
type object struct {
	kind plumbing.ObjectType
	data []byte
}

const (
	maxMeta    = 32 << 20 // bytes of a commit, tag or tree object
	maxEntries = 100_000  // files and folders below a path
	maxDepth   = 64       // folders in folders
	kindCommit = plumbing.CommitObject
	kindTree   = plumbing.TreeObject
)

// objects reads raw objects, each checked against its id. What the last snapshot was made of is kept, as most of a
// release is unchanged in the next.
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
	obj, err := o.readOnce(h, limit)
	if err == nil || errors.Is(err, ErrTooLarge) {
		return obj, err
	}
	if err := o.reopen(); err != nil {
		return object{}, err
	}
	return o.readOnce(h, limit)
}

func (o *objects) readOnce(h plumbing.Hash, limit int64) (object, error) {
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
	at := plumbing.NewHash(root)
	tree, err := o.meta(at, kindTree)
	if err != nil {
		return Snapshot{}, err
	}
	s.Proof.Trees = append(s.Proof.Trees, tree)
	for i := range names {
		if at, tree, err = o.descend(tree, names[:i+1]); err != nil {
			return Snapshot{}, err
		}
		s.Proof.Trees = append(s.Proof.Trees, tree)
	}
	w, was := walk{objects: o, left: o.max, blobs: map[plumbing.Hash][]byte{}}, o.cache.get(o)
	all := w.takeOver(at, was)
	if all == nil {
		if all, err = w.tree(at, tree, "", 0, was); err != nil {
			return Snapshot{}, err
		}
	}
	o.cache.put(o, all)
	s.Files = all.appendFiles(make([]provenance.File, 0, all.files))
	return s, nil
}

// descend finds the folder that the last of names names.
func (o *objects) descend(tree []byte, names []string) (id plumbing.Hash, below []byte, err error) {
	shown, name := strings.Join(names, "/"), names[len(names)-1]
	entries, err := provenance.ParseTree(tree)
	if err != nil {
		return id, nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	for _, e := range entries {
		if e.Name != name {
			continue
		}
		switch e.Mode {
		case provenance.ModeDir:
			below, err = o.meta(plumbing.Hash(e.ID), kindTree)
			return plumbing.Hash(e.ID), below, err
		case provenance.ModeSymlink, provenance.ModeSubmodule:
			return id, nil, unsupported(e.Mode, shown)
		}
		return id, nil, fmt.Errorf("folder %q: it is a file: %w", shown, ErrNotFound)
	}
	return id, nil, fmt.Errorf("folder %q: %w", shown, ErrNotFound)
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

// folder is what was read of one, of which the next snapshot takes over what is the same: it never changes.
type folder struct {
	id      plumbing.Hash
	nodes   []node
	files   int   // below it
	entries int   // below it: files and folders
	bytes   int64 // of the files
	cost    int   // bytes of memory
}

// node is a file or a folder in one.
type node struct {
	path       string
	id         plumbing.Hash
	executable bool
	data       []byte  // shared: read only
	below      *folder // nil: it is a file
}

const nodeCost = 100 // bytes, beside the path and the data

func (f *folder) appendFiles(to []provenance.File) []provenance.File {
	for i := range f.nodes {
		if n := &f.nodes[i]; n.below != nil {
			to = n.below.appendFiles(to)
		} else {
			to = append(to, provenance.File{Path: n.path, Executable: n.executable, Data: n.data})
		}
	}
	return to
}

// walk collects the files below a tree. It counts, as a tree of a few objects can name millions of files.
type walk struct {
	*objects
	entries int
	left    int64
	blobs   map[plumbing.Hash][]byte // that were read: many files are the same
}

// tree is the folder that a tree object tells of, with what was there before; nil: nothing.
func (w *walk) tree(id plumbing.Hash, raw []byte, prefix string, depth int, was *folder) (*folder, error) {
	entries, err := provenance.ParseTree(raw)
	if err != nil {
		return nil, fmt.Errorf("folder %q: %w: %w", prefix, ErrUnsupported, err)
	}
	if w.entries += len(entries); w.entries > maxEntries || depth > maxDepth {
		return nil, fmt.Errorf("folder %q: more than %d entries or %d folders deep: %w", prefix, maxEntries, maxDepth, ErrTooLarge)
	}
	now := &folder{id: id, nodes: make([]node, 0, len(entries)), entries: len(entries)}
	before := was.byPath()
	for _, e := range entries {
		n := node{path: prefix + e.Name, id: plumbing.Hash(e.ID), executable: e.Mode == provenance.ModeExecutable}
		if err := provenance.CheckPath(n.path); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
		}
		old := before[n.path]
		if old != nil {
			n.path = old.path
		} else {
			old = &node{}
		}
		switch e.Mode {
		case provenance.ModeDir:
			n.below, err = w.folder(n.id, n.path, depth+1, old.below)
		case provenance.ModeFile, provenance.ModeExecutable:
			n.data, err = w.file(n, old)
		default:
			err = unsupported(e.Mode, n.path)
		}
		if err != nil {
			return nil, err
		}
		now.add(n)
	}
	return now, nil
}

// takeOver is what was there, if it is the same and within the limits; what exceeds them is found, and named, by
// looking into it.
func (w *walk) takeOver(id plumbing.Hash, was *folder) *folder {
	if was == nil || was.id != id || w.entries+was.entries > maxEntries || was.bytes > w.left {
		return nil
	}
	w.entries += was.entries
	w.left -= was.bytes
	return was
}

func (f *folder) byPath() map[string]*node {
	if f == nil {
		return nil
	}
	all := make(map[string]*node, len(f.nodes))
	for i := range f.nodes {
		all[f.nodes[i].path] = &f.nodes[i]
	}
	return all
}

func (f *folder) add(n node) {
	f.nodes = append(f.nodes, n)
	f.cost += nodeCost + len(n.path)
	if n.below == nil {
		f.files++
		f.bytes += int64(len(n.data))
		f.cost += len(n.data)
		return
	}
	f.files += n.below.files
	f.entries += n.below.entries
	f.bytes += n.below.bytes
	f.cost += n.below.cost
}

func (w *walk) folder(id plumbing.Hash, path string, depth int, was *folder) (*folder, error) {
	if f := w.takeOver(id, was); f != nil {
		return f, nil
	}
	raw, err := w.meta(id, kindTree)
	if err != nil {
		return nil, fmt.Errorf("folder %q: %w", path, err)
	}
	if len(raw) == 0 {
		return nil, fmt.Errorf("folder %q is empty: %w", path, ErrUnsupported)
	}
	return w.tree(id, raw, path+"/", depth, was)
}

// file is its content.
func (w *walk) file(f node, was *node) ([]byte, error) {
	data := was.data
	if was.id != f.id || was.below != nil {
		var err error
		if data, err = w.blob(f); err != nil {
			return nil, err
		}
	}
	if int64(len(data)) > w.left {
		return nil, w.tooLarge(f.path)
	}
	w.left -= int64(len(data))
	return data, nil
}

func (w *walk) blob(f node) ([]byte, error) {
	if data, ok := w.blobs[f.id]; ok {
		return data, nil
	}
	obj, err := w.read(f.id, w.left)
	if errors.Is(err, ErrTooLarge) {
		return nil, w.tooLarge(f.path)
	}
	if err != nil {
		return nil, fmt.Errorf("%q: %w", f.path, err)
	}
	if obj.kind != plumbing.BlobObject {
		return nil, fmt.Errorf("%q is a %s: %w", f.path, obj.kind, ErrUnsupported)
	}
	w.blobs[f.id] = obj.data
	return obj.data, nil
}

func (w *walk) tooLarge(path string) error {
	return fmt.Errorf("%q: with it the files have more than %d MiB: %w", path, w.max>>20, ErrTooLarge)
}
