package render

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// tree is the file system that kustomize sees: files in memory, at absolute paths, read only.
type tree struct {
	files map[string][]byte
	dirs  map[string]bool
}

var errReadOnly = errors.New("rendering writes no files")

func newTree() *tree {
	return &tree{files: map[string][]byte{}, dirs: map[string]bool{"/": true}}
}

// mount puts files below a folder. Later files replace earlier ones.
func (t *tree) mount(at string, files []provenance.File) {
	t.mkdir(at)
	for _, f := range files {
		t.put(path.Join(at, path.Clean("/"+f.Path)), f.Data)
	}
}

func (t *tree) put(name string, data []byte) {
	t.files[name] = data
	t.mkdir(path.Dir(name))
}

func (t *tree) mkdir(dir string) {
	for ; !t.dirs[dir]; dir = path.Dir(dir) {
		t.dirs[dir] = true
	}
}

// with is a copy in which one file is another.
func (t *tree) with(name string, data []byte) *tree {
	files := maps.Clone(t.files)
	files[name] = data
	return &tree{files: files, dirs: t.dirs}
}

func abs(name string) string { return path.Clean("/" + name) }

func (t *tree) isFile(name string) bool { _, ok := t.files[abs(name)]; return ok }

func (t *tree) IsDir(name string) bool { return t.dirs[abs(name)] }

func (t *tree) Exists(name string) bool { return t.isFile(name) || t.IsDir(name) }

func (t *tree) CleanedAbs(name string) (filesys.ConfirmedDir, string, error) {
	p := abs(name)
	switch {
	case t.dirs[p]:
		return filesys.ConfirmedDir(p), "", nil
	case t.isFile(p):
		return filesys.ConfirmedDir(path.Dir(p)), path.Base(p), nil
	}
	return "", "", fmt.Errorf("'%s' does not exist", p)
}

func (t *tree) ReadFile(name string) ([]byte, error) {
	data, ok := t.files[abs(name)]
	if !ok {
		return nil, &fs.PathError{Op: "read", Path: abs(name), Err: fs.ErrNotExist}
	}
	return slices.Clone(data), nil
}

// children lists the names directly below a folder, sorted.
func (t *tree) children(dir string) []string {
	prefix := strings.TrimSuffix(abs(dir), "/") + "/"
	set := map[string]bool{}
	for _, all := range []func(func(string) bool){maps.Keys(t.files), maps.Keys(t.dirs)} {
		for p := range all {
			if rest, ok := strings.CutPrefix(p, prefix); ok && rest != "" {
				name, _, _ := strings.Cut(rest, "/")
				set[name] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(set))
}

func (t *tree) ReadDir(name string) ([]string, error) {
	if !t.IsDir(name) {
		return nil, &fs.PathError{Op: "readdir", Path: abs(name), Err: fs.ErrNotExist}
	}
	return t.children(name), nil
}

func (t *tree) Glob(pattern string) ([]string, error) {
	var out []string
	for p := range t.files {
		ok, err := path.Match(abs(pattern), p)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out, nil
}

func (t *tree) Walk(root string, fn filepath.WalkFunc) error {
	root = abs(root)
	err := fn(root, t.info(root), nil)
	if errors.Is(err, filepath.SkipDir) && t.IsDir(root) {
		return nil
	}
	if err != nil || !t.IsDir(root) {
		return err
	}
	for _, name := range t.children(root) {
		if err := t.Walk(path.Join(root, name), fn); err != nil {
			return err
		}
	}
	return nil
}

func (t *tree) Create(string) (filesys.File, error) { return nil, errReadOnly }
func (t *tree) Mkdir(string) error                  { return errReadOnly }
func (t *tree) MkdirAll(string) error               { return errReadOnly }
func (t *tree) RemoveAll(string) error              { return errReadOnly }
func (t *tree) WriteFile(string, []byte) error      { return errReadOnly }

func (t *tree) Open(name string) (filesys.File, error) {
	data, err := t.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return &file{Reader: strings.NewReader(string(data)), info: t.info(abs(name))}, nil
}

type file struct {
	*strings.Reader
	info entry
}

func (f *file) Stat() (fs.FileInfo, error)  { return f.info, nil }
func (f *file) Close() error                { return nil }
func (f *file) Write(p []byte) (int, error) { return 0, errReadOnly }

// entry describes a file or folder.
type entry struct {
	name string
	size int64
	dir  bool
}

func (t *tree) info(p string) entry {
	return entry{name: path.Base(p), size: int64(len(t.files[p])), dir: t.dirs[p]}
}

func (e entry) Name() string       { return e.name }
func (e entry) Size() int64        { return e.size }
func (e entry) IsDir() bool        { return e.dir }
func (e entry) ModTime() time.Time { return time.Time{} }
func (e entry) Sys() any           { return nil }
func (e entry) Mode() fs.FileMode {
	if e.dir {
		return fs.ModeDir | 0o755
	}
	return 0o644
}
