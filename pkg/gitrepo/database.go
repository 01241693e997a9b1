package gitrepo

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// errAbsent: no folder of the database has the object, as far as it was looked through.
var errAbsent = errors.New("object not found")

// database reads the objects of a git repository where git keeps them: in packs, loose, and in its alternates. It
// keeps packs open from one object to the next, follows deltas by itself, and checks no ids: objects does.
// What go-git has for this takes twice the time of git itself for a whole tree; see BenchmarkBundleVsGitArchive.
type database struct {
	folders  []string // "objects" folders, the repository's own first
	packs    []*pack
	open     []*pack // those of which the file is open, the last opened last
	recent   bases
	window   window
	inflater inflater
}

func openDatabase(folder string) (*database, error) {
	d := &database{}
	if err := d.alternates(folder, 0); err != nil {
		return nil, err
	}
	return d, d.refresh()
}

// maxAlternates is how many folders may stand behind one another, as in git.
const maxAlternates = 5

func (d *database) alternates(folder string, depth int) error {
	for _, known := range d.folders {
		if known == folder {
			return nil
		}
	}
	d.folders = append(d.folders, folder)
	text, err := os.ReadFile(filepath.Join(folder, "info", "alternates"))
	if errors.Is(err, fs.ErrNotExist) || depth == maxAlternates {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read alternates: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := d.alternates(resolve(folder, line), depth+1); err != nil {
			return err
		}
	}
	return nil
}

// refresh looks for packs that have come, and lets go of those that went.
func (d *database) refresh() error {
	known := map[string]*pack{}
	for _, p := range d.packs {
		known[p.name] = p
	}
	d.packs = nil
	for _, folder := range d.folders {
		names, err := filepath.Glob(filepath.Join(folder, "pack", "pack-*.pack"))
		if err != nil {
			return err
		}
		for _, name := range names {
			p := known[name]
			if p == nil {
				if p, err = openPack(name); errors.Is(err, fs.ErrNotExist) {
					continue // its index is not there yet, or a repack has just taken both away
				} else if err != nil {
					return err
				}
			}
			delete(known, name)
			d.packs = append(d.packs, p)
		}
	}
	var err error
	for _, gone := range known {
		d.recent.forget(gone)
		d.window = window{}
		d.open = slices.DeleteFunc(d.open, func(p *pack) bool { return p == gone })
		err = errors.Join(err, gone.close())
	}
	return err
}

func (d *database) close() error {
	var err error
	for _, p := range d.packs {
		err = errors.Join(err, p.close())
	}
	d.packs, d.open, d.recent, d.window = nil, nil, bases{}, window{}
	return err
}

// has looks again where the object is not found at first.
func (d *database) has(h plumbing.Hash) bool {
	if d.find(h) {
		return true
	}
	return d.refresh() == nil && d.find(h)
}

func (d *database) find(h plumbing.Hash) bool {
	for _, p := range d.packs {
		if _, ok, err := p.find(h); ok && err == nil {
			return true
		}
	}
	for _, folder := range d.folders {
		if _, err := os.Stat(loosePath(folder, h)); err == nil {
			return true
		}
	}
	return false
}

// load reads an object of at most limit bytes. errAbsent: it is not there.
func (d *database) load(h plumbing.Hash, limit int64) (object, error) {
	for n, p := range d.packs {
		at, ok, err := p.find(h)
		if err != nil {
			return object{}, err
		}
		if !ok {
			continue
		}
		if n > 0 { // the next object is most often in the same pack
			d.packs[0], d.packs[n] = d.packs[n], d.packs[0]
		}
		return d.unpack(p, at, limit)
	}
	for _, folder := range d.folders {
		obj, err := d.loose(loosePath(folder, h), limit)
		if !errors.Is(err, fs.ErrNotExist) {
			return obj, err
		}
	}
	return object{}, errAbsent
}

func loosePath(folder string, h plumbing.Hash) string {
	name := h.String()
	return filepath.Join(folder, name[:2], name[2:])
}

// loose reads an object that has a file of its own: "KIND SIZE\0" and the content, deflated together.
func (d *database) loose(path string, limit int64) (object, error) {
	f, err := os.Open(path)
	if err != nil {
		return object{}, err
	}
	defer f.Close()
	r, err := d.inflater.reset(bufio.NewReader(f))
	if err != nil {
		return object{}, err
	}
	const longest = 32 // of a head
	var head [longest]byte
	n, err := io.ReadFull(r, head[:])
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return object{}, err
	}
	text, begin, ok := bytes.Cut(head[:n], []byte{0})
	name, size, spaced := strings.Cut(string(text), " ")
	kind, kerr := plumbing.ParseObjectType(name)
	length, serr := strconv.ParseInt(size, 10, 64)
	if !ok || !spaced || kerr != nil || serr != nil || length < int64(len(begin)) {
		return object{}, errors.New("its head is damaged")
	}
	if length > limit {
		return object{}, ErrTooLarge
	}
	data := make([]byte, length)
	if _, err := io.ReadFull(r, data[copy(data, begin):]); err != nil {
		return object{}, err
	}
	return object{kind, data}, nil
}
