package provenance

import (
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/pjbgf/sha1cd"
)

// ErrCollision: the content was built to share its SHA-1 with another (https://sha-mbles.github.io).
var ErrCollision = errors.New("SHA-1 collision attack detected")

// ID is a git object id.
type ID [20]byte

// ObjectID is the id of an object of kind "blob", "tree", "commit" or "tag".
func ObjectID(kind string, content []byte) (ID, error) {
	return newHasher().object(kind, content)
}

type hasher struct{ sum collisionResistant }

type collisionResistant interface {
	hash.Hash
	sha1cd.CollisionResistantHash
}

func newHasher() hasher {
	sum, ok := sha1cd.New().(collisionResistant)
	if !ok {
		panic("sha1cd: its hash does not detect collisions") // it is what the library is for
	}
	return hasher{sum: sum}
}

func (h hasher) object(kind string, content []byte) (ID, error) {
	var head [40]byte
	b := append(head[:0], kind...)
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(len(content)), 10)
	b = append(b, 0)
	id, err := h.of(b, content)
	if err != nil {
		return ID{}, fmt.Errorf("hash a %s: %w", kind, err)
	}
	return id, nil
}

func (h hasher) of(head, content []byte) (id ID, err error) {
	h.sum.Reset()
	h.sum.Write(head)
	h.sum.Write(content)
	sum, collision := h.sum.CollisionResistantSum(nil)
	if collision {
		return ID{}, ErrCollision
	}
	copy(id[:], sum)
	return id, nil
}

// TreeID is the hexadecimal git tree id of the files: the id that git gives a folder that holds exactly
// them.
func TreeID(files []File) (string, error) {
	for _, f := range files {
		if err := CheckPath(f.Path); err != nil {
			return "", err
		}
	}
	if !slices.IsSortedFunc(files, byPath) {
		files = slices.Clone(files)
		slices.SortFunc(files, byPath)
	}
	blobs := make([]ID, len(files))
	err := each(len(files), func() func(int) error {
		h := newHasher()
		return func(i int) (err error) {
			blobs[i], err = h.object("blob", files[i].Data)
			return err
		}
	})
	if err != nil {
		return "", err
	}
	id, err := newHasher().tree(files, blobs, 0)
	if err != nil {
		return "", err
	}
	return hex.EncodeToString(id[:]), nil
}

// each does one thing for every index below n, on all processors: hashing is what a verification costs.
// start makes what one of them does, with a hash of its own.
func each(n int, start func() func(i int) error) error {
	workers := max(1, min(runtime.GOMAXPROCS(0), n/16))
	errs := make([]error, workers)
	var next atomic.Int64
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			do := start()
			for errs[w] == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				errs[w] = do(i)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func byPath(a, b File) int { return strings.Compare(a.Path, b.Path) }

// tree hashes the folder whose path is the first skip bytes of each file's. Files sorted by their whole
// path are in git's order of tree entries, where a folder counts as its name and a slash. blobs are the
// files' own ids.
func (h hasher) tree(files []File, blobs []ID, skip int) (ID, error) {
	var raw []byte
	names := make(map[string]struct{}, len(files))
	for i := 0; i < len(files); {
		f := files[i]
		name, _, isDir := strings.Cut(f.Path[skip:], "/")
		if _, twice := names[name]; twice {
			return ID{}, fmt.Errorf("%q is there twice", f.Path[:skip]+name)
		}
		names[name] = struct{}{}
		mode, end := ModeFile, i+1
		var id ID
		if isDir {
			mode = ModeDir
			prefix := f.Path[:skip+len(name)+1]
			for end < len(files) && strings.HasPrefix(files[end].Path, prefix) {
				end++
			}
			var err error
			if id, err = h.tree(files[i:end], blobs[i:end], len(prefix)); err != nil {
				return ID{}, err
			}
		} else {
			if f.Executable {
				mode = ModeExecutable
			}
			id = blobs[i]
		}
		raw = append(append(append(append(append(raw, mode...), ' '), name...), 0), id[:]...)
		i = end
	}
	return h.object("tree", raw)
}
