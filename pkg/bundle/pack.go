package bundle

import (
	"bytes"
	"container/list"
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strings"
	"sync"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
)

// Pack writes the canonical tar. The order of files does not matter.
func Pack(files []provenance.File, proof provenance.Proof) ([]byte, error) {
	entries, err := entriesOf(files, proof, nil)
	if err != nil {
		return nil, err
	}
	return tarOf(entries), nil
}

// Packer packs the releases of distributions one after the other: up to the first byte that differs from the one
// before, the hash is not computed again. Bytes and digest are those that Pack and DigestOf give. It holds the files of
// the last releases, within a bound; what it does not hold any more costs time and nothing else. Safe for concurrent
// use.
type Packer struct {
	most int

	mu    sync.Mutex
	last  map[string]*list.Element // of kept, by distribution
	order *list.List               // the last used first
	held  int                      // bytes
}

type kept struct {
	name string
	tape *tape
}

// NewPacker holds at most so many bytes from one release to the next.
func NewPacker(most int) *Packer {
	return &Packer{most: most, last: map[string]*list.Element{}, order: list.New()}
}

// Pack is the canonical tar of a distribution's release, and its digest. The data of files and proof is kept, not
// copied: it must never change.
func (p *Packer) Pack(distribution string, files []provenance.File, proof provenance.Proof) ([]byte, fleet.Digest, error) {
	was := p.before(distribution)
	entries, err := entriesOf(files, proof, was.entries)
	if err != nil {
		return nil, "", err
	}
	tar, t := tarOf(entries), &tape{entries: entries}
	d, err := t.digest(tar, was)
	if err != nil {
		return nil, "", fmt.Errorf("pack bundle of %s: %w", proof.TagName, err)
	}
	p.keep(distribution, t)
	return tar, d, nil
}

// Forget lets go of a distribution's last release.
func (p *Packer) Forget(distribution string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e, ok := p.last[distribution]; ok {
		p.dropLocked(e)
	}
}

func (p *Packer) before(distribution string) *tape {
	p.mu.Lock()
	defer p.mu.Unlock()
	e, ok := p.last[distribution]
	if !ok {
		return &tape{}
	}
	return e.Value.(kept).tape
}

func (p *Packer) keep(distribution string, t *tape) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e, ok := p.last[distribution]; ok {
		p.dropLocked(e)
	}
	if t.cost() > p.most {
		return
	}
	p.last[distribution] = p.order.PushFront(kept{distribution, t})
	for p.held += t.cost(); p.held > p.most; {
		p.dropLocked(p.order.Back())
	}
}

func (p *Packer) dropLocked(e *list.Element) {
	was := p.order.Remove(e).(kept)
	delete(p.last, was.name)
	p.held -= was.tape.cost()
}

// tape is what was packed, and what makes hashing the next cheaper.
type tape struct {
	entries []entry
	states  [][]byte // of the hash, after each whole stretch
}

// stretch is how much is hashed at once: a multiple of the hash's blocks.
const stretch = 16 << 10

const entryCost, stateCost = 64, 160 // bytes, beside name and data

func (t *tape) cost() int {
	n := len(t.states) * stateCost
	for _, e := range t.entries {
		n += entryCost + len(e.name) + len(e.data)
	}
	return n
}

// same is how many bytes the tars of two have in common from their beginning, or some less. Most data is not only
// equal but the same memory, which bytes.Equal does not look into.
func (t *tape) same(was *tape) int {
	at := 0
	for i := range min(len(t.entries), len(was.entries)) {
		e, o := &t.entries[i], &was.entries[i]
		if e.name != o.name || e.executable != o.executable || len(e.data) != len(o.data) {
			break
		}
		at += headerSize(e.name)
		if !bytes.Equal(e.data, o.data) {
			return at + alike(e.data, o.data)
		}
		at += padded(len(e.data))
	}
	return at
}

// tarOf writes the tar of entries, which are sorted by name.
func tarOf(entries []entry) []byte {
	size := 2 * blockSize
	for _, e := range entries {
		size += headerSize(e.name) + padded(len(e.data))
	}
	tar, at := make([]byte, size), 0 // its zeros are those of headers, paddings and the end
	for _, e := range entries {
		head := headerSize(e.name)
		putHeader(tar[at:at+head], e.name, len(e.data), e.executable)
		copy(tar[at+head:], e.data)
		at += head + padded(len(e.data))
	}
	return tar
}

type resumable interface {
	hash.Hash
	encoding.BinaryMarshaler
	encoding.BinaryUnmarshaler
}

// digest is of the tar, hashed from where it begins to differ from the one before.
func (t *tape) digest(tar []byte, was *tape) (fleet.Digest, error) {
	h, ok := sha256.New().(resumable)
	if !ok {
		return "", errors.New("sha256 of the standard library keeps no state")
	}
	known := min(t.same(was)/stretch, len(was.states))
	t.states = make([][]byte, known, len(tar)/stretch)
	copy(t.states, was.states)
	if known > 0 {
		if err := h.UnmarshalBinary(t.states[known-1]); err != nil {
			return "", fmt.Errorf("resume the hash: %w", err)
		}
	}
	rest := tar[known*stretch:]
	for ; len(rest) >= stretch; rest = rest[stretch:] {
		h.Write(rest[:stretch])
		state, err := h.MarshalBinary()
		if err != nil {
			return "", fmt.Errorf("keep the hash: %w", err)
		}
		t.states = append(t.states, state)
	}
	h.Write(rest)
	return fleet.Digest("sha256:" + hex.EncodeToString(h.Sum(nil))), nil
}

// entriesOf are what a bundle holds, sorted by name. Names that the one before it had too are taken from there.
func entriesOf(files []provenance.File, proof provenance.Proof, was []entry) ([]entry, error) {
	byPath := func(a, b provenance.File) int { return strings.Compare(a.Path, b.Path) }
	if !slices.IsSortedFunc(files, byPath) {
		files = slices.SortedFunc(slices.Values(files), byPath)
	}
	if err := check(files, proof); err != nil {
		return nil, fmt.Errorf("pack bundle of %s: %w", proof.TagName, err)
	}
	entries := make([]entry, 0, len(files)+4+len(proof.Cosigned)+len(proof.Trees))
	for _, f := range files {
		entries = append(entries, entry{nameIn(&was, f.Path), f.Executable, f.Data})
	}
	entries = append(entries, entry{name: commitName, data: proof.Commit},
		entry{name: releaseName, data: fmt.Appendf(nil, release, proof.Path, proof.TagName)})
	if proof.Tag != nil {
		entries = append(entries, entry{name: tagName, data: proof.Tag})
	}
	for i, t := range proof.Cosigned {
		entries = append(entries, entry{name: numbered(tagPrefix, i), data: t})
	}
	for i, t := range proof.Trees {
		entries = append(entries, entry{name: numbered(treePrefix, i), data: t})
	}
	return entries, nil
}

// nameIn is a file's name, not made anew where one of the entries has it; those before it are left behind.
func nameIn(was *[]entry, path string) string {
	for ; len(*was) > 0; *was = (*was)[1:] {
		name := (*was)[0].name
		if known, isFile := strings.CutPrefix(name, filesDir); !isFile || known > path {
			break
		} else if known == path {
			return name
		}
	}
	return filesDir + path
}

func numbered(prefix string, i int) string { return fmt.Sprintf("%s%03d", prefix, i) }
